//! Nodes of other processes as a source: a thread for each keeps a connection and what came over it.
//!
//! A connection that ends is tried again, sooner at first than later; what was known stays on screen and is called old.
//! Everything that waits for the console is bounded: the newest is kept, and what was lost is counted.

use crate::console::source::recording::Recorder;
use crate::console::source::target::{AttachError, Closer, Stream, Target};
use crate::console::source::{EVENTS_MAX, Events, LinkState, Source};
use masternode::node::logging::ring::LogRing;
use masternode::primitives::clean::CleanText;
use masternode::rpc::attach::Downward;
use masternode::rpc::control::{Answer, Request};
use masternode::rpc::mirror::{self, Host, Mirror, MirrorError, News};
use masternode::telemetry::event::Event;
use masternode::telemetry::log::{LogPage, LogRecord, NODE_FIELD};
use masternode::telemetry::snapshot::Snapshot;
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// Between two attempts to connect; doubled each time.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Orders under way: an operator gives one at a time.
const ORDERS_MAX: usize = 16;
/// Characters of a reason shown.
const REASON_CHARS_MAX: usize = 300;

/// How nodes are attached to.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether orders may be given.
    pub operate: bool,
    /// Least time between two changes, in milliseconds.
    pub period_ms: u64,
}

/// One node.
struct Link {
    target: Target,
    manner: Manner,
    /// Whether its log records are marked with its name, as one of several.
    mark: bool,
    recorder: Option<Mutex<Recorder>>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Inbox {
    state: LinkState,
    host: Option<Host>,
    snapshot: Option<Arc<Snapshot>>,
    events: VecDeque<Arc<Event>>,
    missed: u64,
    /// Of the process spoken to: its last event and the next log record, so that nothing comes twice.
    seen: (u32, u64, u64),
    closer: Option<Closer>,
    orders: Option<SyncSender<Vec<u8>>>,
    order: u64,
    answers: BTreeMap<u64, Answer>,
    closed: bool,
}

/// See the module.
pub struct Remote {
    links: Vec<Arc<Link>>,
    logs: LogRing,
}

/// Gives orders to the nodes of a [`Remote`]; cheap to clone.
#[derive(Clone)]
pub struct Orders(Vec<Arc<Link>>);

impl Remote {
    /// A source for these nodes. Those with a connection already are shown at once; what the first one sends is recorded
    /// if there is a recorder.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(
        targets: Vec<(Target, Option<(Stream, Host)>)>,
        manner: Manner,
        recorder: Option<Recorder>,
    ) -> std::io::Result<(Self, Orders)> {
        let (mark, logs) = (targets.len() > 1, LogRing::default());
        let mut links = Vec::new();
        let mut recorder = recorder.map(Mutex::new);
        for (target, opened) in targets {
            let inbox = Mutex::new(Inbox { state: LinkState::Connecting, ..Inbox::default() });
            let recorder = recorder.take();
            let link = Link { target, manner, mark, recorder, inbox, changed: Condvar::new() };
            let link = Arc::new(link);
            let (kept, ring) = (Arc::clone(&link), logs.clone());
            std::thread::Builder::new().name("link".to_owned()).spawn(move || keep(&kept, opened, &ring))?;
            links.push(link);
        }
        Ok((Self { links: links.clone(), logs }, Orders(links)))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        Orders(self.links.clone()).close();
    }
}

impl Orders {
    /// Gives an order and waits for the answer.
    ///
    /// # Errors
    /// For people: why there is no answer, or why the order was refused.
    pub fn ask(&self, node: usize, request: Request, patience: Duration) -> Result<Answer, String> {
        let link = self.0.get(node).ok_or("there is no such node")?;
        let until = Instant::now() + patience;
        let mut inbox = link.inbox.lock();
        inbox.order += 1;
        let number = inbox.order;
        let frame = mirror::order(number, request).map_err(|error| error.to_string())?;
        let sent = inbox.orders.as_ref().is_some_and(|orders| orders.try_send(frame).is_ok());
        if !sent {
            return Err("there is no connection to the node".to_owned());
        }
        loop {
            match inbox.answers.remove(&number) {
                Some(Answer::Refused { reason }) => return Err(reason),
                Some(answer) => return Ok(answer),
                None if inbox.orders.is_none() => {
                    return Err("the connection was lost before the answer came".to_owned());
                }
                None => {}
            }
            if link.changed.wait_until(&mut inbox, until).timed_out() {
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
        }
    }

    /// What a node is called.
    pub fn name(&self, node: usize) -> CleanText {
        self.0.get(node).map(|link| link.inbox.lock().name(&link.target)).unwrap_or_default()
    }

    /// Waits until the connection to a node has ended; returns whether it has.
    pub fn wait_gone(&self, node: usize, patience: Duration) -> bool {
        let Some(link) = self.0.get(node) else { return true };
        let until = Instant::now() + patience;
        let mut inbox = link.inbox.lock();
        while inbox.orders.is_some() {
            if link.changed.wait_until(&mut inbox, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// Ends all connections.
    pub fn close(&self) {
        for link in &self.0 {
            let mut inbox = link.inbox.lock();
            inbox.closed = true;
            let closer = inbox.closer.take();
            drop(inbox);
            drop(closer);
            link.changed.notify_all();
        }
    }
}

/// Keeps the connection of a link until it is closed.
fn keep(link: &Link, opened: Option<(Stream, Host)>, ring: &LogRing) {
    let mut next = opened.map(Ok);
    let mut pause = RETRY_MIN;
    loop {
        let opened =
            next.take().unwrap_or_else(|| link.target.open(link.manner.operate, link.manner.period_ms, true));
        let ended: AttachError = match opened {
            Ok((stream, host)) => {
                pause = RETRY_MIN;
                link.follow(stream, host, ring)
            }
            Err(error) => error,
        };
        // A recording is played once.
        let again = !matches!(link.target, Target::Recording { .. });
        let reason = if again { format!("{ended}; trying again") } else { ended.to_string() };
        let mut inbox = link.inbox.lock();
        inbox.state = LinkState::Lost(CleanText::limited(&reason, REASON_CHARS_MAX));
        inbox.orders = None;
        let closer = inbox.closer.take();
        link.changed.notify_all();
        let until = Instant::now() + pause;
        // The end of ssh is waited for without the lock.
        parking_lot::MutexGuard::unlocked(&mut inbox, || drop(closer));
        while !inbox.closed && !again {
            link.changed.wait(&mut inbox);
        }
        while !inbox.closed && !link.changed.wait_until(&mut inbox, until).timed_out() {}
        if inbox.closed {
            return;
        }
        pause = (2 * pause).min(RETRY_MAX);
    }
}

impl Link {
    /// Takes in what comes until the connection ends; returns why it did.
    fn follow(&self, stream: Stream, host: Host, ring: &LogRing) -> AttachError {
        let Stream { mut reader, writer, closer } = stream;
        let (orders, waiting) = sync_channel(ORDERS_MAX);
        let spawned =
            std::thread::Builder::new().name("orders".to_owned()).spawn(move || write_all(writer, &waiting));
        if let Err(error) = spawned {
            return MirrorError::Io(error).into();
        }
        {
            let mut inbox = self.inbox.lock();
            if inbox.closed {
                return MirrorError::Closed.into();
            }
            if inbox.seen.0 != host.pid {
                inbox.seen = (host.pid, 0, 0);
            }
            inbox.state = LinkState::Attached { operate: host.operate };
            inbox.host = Some(host);
            inbox.orders = Some(orders);
            inbox.closer = Some(closer);
            self.changed.notify_all();
        }
        let mut mirror = Mirror::default();
        loop {
            let frame = mirror::read_frame(&mut reader).inspect(|frame| {
                if let Some(recorder) = &self.recorder {
                    recorder.lock().add(frame);
                }
            });
            match frame.and_then(|frame| mirror.take(&frame)) {
                Ok(news) => self.take(news, ring),
                Err(error) => return error.into(),
            }
        }
    }

    fn take(&self, news: News, ring: &LogRing) {
        let mut inbox = self.inbox.lock();
        match news {
            News::Picture { snapshot, .. } => inbox.snapshot = Some(snapshot),
            News::Other(Downward::Events { missed, events }) => inbox.take_events(missed, events),
            News::Other(Downward::Logs { records, .. }) => {
                let name = inbox.name(&self.target);
                let (_, _, next) = inbox.seen;
                for (number, mut record) in records.into_iter().filter(|(number, _)| *number >= next) {
                    inbox.seen.2 = number + 1;
                    if self.mark {
                        mark(&mut record, &name);
                    }
                    ring.push(record);
                }
            }
            News::Other(Downward::Answer { order, answer }) => {
                inbox.answers.insert(order, answer);
                while inbox.answers.len() > ORDERS_MAX {
                    inbox.answers.pop_first();
                }
            }
            News::Other(_) | News::Nothing => {}
        }
        self.changed.notify_all();
    }
}

/// Puts the name of the node first, where it has none.
fn mark(record: &mut LogRecord, name: &CleanText) {
    if record.node().is_none() {
        record.fields.insert(0, (CleanText::new(NODE_FIELD), name.clone()));
    }
}

impl Inbox {
    fn name(&self, target: &Target) -> CleanText {
        let host = self.host.as_ref().map(|host| host.name.clone());
        host.unwrap_or_else(|| CleanText::limited(&target.to_string(), 64))
    }

    fn take_events(&mut self, missed: u64, events: Vec<Arc<Event>>) {
        self.missed = self.missed.saturating_add(missed);
        for event in events {
            if event.sequence <= self.seen.1 {
                continue;
            }
            self.seen.1 = event.sequence;
            self.events.push_back(event);
            if self.events.len() > EVENTS_MAX {
                self.events.pop_front();
                self.missed = self.missed.saturating_add(1);
            }
        }
    }
}

fn write_all(mut writer: Box<dyn Write + Send>, orders: &Receiver<Vec<u8>>) {
    // A write that fails is followed by the end of the reading, which tells why.
    while let Ok(order) = orders.recv() {
        if mirror::write_frame(&mut writer, &order).is_err() {
            return;
        }
    }
}

impl Source for Remote {
    fn nodes(&self) -> usize {
        self.links.len()
    }

    fn name(&self, node: usize) -> CleanText {
        self.links.get(node).map(|link| link.inbox.lock().name(&link.target)).unwrap_or_default()
    }

    fn snapshot(&self, node: usize) -> Option<Arc<Snapshot>> {
        self.links.get(node)?.inbox.lock().snapshot.clone()
    }

    fn events(&mut self, node: usize) -> Events {
        let Some(link) = self.links.get(node) else { return Events::default() };
        let mut inbox = link.inbox.lock();
        Events { list: inbox.events.drain(..).collect(), missed: std::mem::take(&mut inbox.missed) }
    }

    fn logs_since(&self, sequence: u64, max: usize) -> LogPage {
        self.logs.since(sequence, max)
    }

    fn now_ms(&self) -> Option<u64> {
        let Target::Recording { playing, .. } = &self.links.first()?.target else { return None };
        Some(playing.now_ms.load(Ordering::Relaxed)).filter(|now_ms| *now_ms > 0)
    }

    fn link(&self, node: usize) -> LinkState {
        self.links.get(node).map(|link| link.inbox.lock().state.clone()).unwrap_or_default()
    }
}
