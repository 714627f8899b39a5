//! An attached console: the control socket as a stream of pictures, changes, events and log records.
//!
//! After the answer [`Answer::Attached`] the node sends frames of [`Downward`] and takes frames of [`Upward`], framed as
//! before; they make sense on any stream of bytes, so also through `ssh`. First comes a whole picture with what happened
//! lately, then what changed, at most four times a second. One frame a client is under way at a time and nothing is
//! made while it is: a client that is slow gets less, never later. One that was so slow that it lost events is given a
//! whole picture anew; one that takes nothing is let go. Nobody waits for a client.
//! A client that did not ask to operate is refused every order that changes anything.

use crate::rpc::Backend;
use crate::rpc::control::{Answer, FRAME_BYTES_MAX, Request, obey};
use crate::telemetry::event::{Event, EventKind};
use crate::telemetry::log::LogRecord;
use crate::telemetry::patch::{Patch, diff};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Version of [`Downward`] and [`Upward`].
pub const ATTACH_VERSION: u32 = 1;
/// Consoles attached to a node at once; the other connections stay free for commands.
pub const ATTACHED_MAX: usize = 8;
/// Least time between two changes, in milliseconds.
pub const PERIOD_MS_MIN: u64 = 250;
/// Most time a client may ask for.
pub const PERIOD_MS_MAX: u64 = 5_000;
/// Log records a new client is given.
const LOG_BACKFILL: u64 = 1_000;
/// Older warnings a new client is given.
const WARNINGS_BACKFILL: usize = 500;
/// Log records sent at a time.
const LOG_PAGE: usize = 500;
/// Events sent at a time; the oldest of more are left out and counted.
const EVENTS_MAX: usize = 512;
/// Bytes of events or records in a frame, if it holds more than one.
const BATCH_BYTES: usize = 256 << 10;
/// A client that took longer than this for what was due is given a whole picture.
const SLOW: Duration = Duration::from_secs(2);
/// A client that takes nothing for so long is let go; it may come back.
const STALLED: Duration = Duration::from_secs(30);
/// So often something is sent even if nothing changed.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// From the node to an attached client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "frame", rename_all = "kebab-case")]
pub enum Downward {
    /// The whole picture, a [`Snapshot`](crate::telemetry::snapshot::Snapshot); `again` when the client was too slow.
    Picture { again: bool, picture: Value },
    /// What changed since; nothing as a sign of life.
    Change { change: Option<Patch> },
    /// What happened, oldest first; `missed` events before it were lost.
    Events { missed: u64, events: Vec<Arc<Event>> },
    /// Log records with their numbers, oldest first; `skipped` before it were lost.
    Logs { skipped: u64, records: Vec<(u64, LogRecord)> },
    /// The answer to an order.
    Answer { order: u64, answer: Answer },
    /// The node lets the client go.
    Ending { reason: String },
}

/// From an attached client to the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upward {
    /// Number the answer will carry.
    pub order: u64,
    /// The order.
    #[serde(flatten)]
    pub request: Request,
}

/// Whether a client that only views may ask this.
#[must_use]
pub const fn is_harmless(request: &Request) -> bool {
    matches!(request, Request::Ping | Request::Status | Request::ListBanned | Request::Proof { .. })
}

/// What one client was sent.
struct Feed {
    backend: Arc<dyn Backend>,
    events: Receiver<Arc<Event>>,
    /// The picture the client has; `None` if it is to be given a whole one.
    base: Option<Value>,
    begun: bool,
    /// Number of the last event seen.
    sequence: u64,
    log_next: u64,
    sent: Instant,
}

/// Serves a client until it goes, or is too slow. Whether it may operate was decided when it attached.
///
/// # Errors
/// When the client is gone or takes nothing.
pub(super) async fn serve(
    frames: &mut Framed<UnixStream, LengthDelimitedCodec>,
    (backend, by): (&Arc<dyn Backend>, &str),
    operate: bool,
    period_ms: u64,
) -> io::Result<()> {
    let (mut down, mut up) = frames.split();
    let mut feed = Some(Feed::new(Arc::clone(backend)));
    let mut ticks =
        tokio::time::interval(Duration::from_millis(period_ms.clamp(PERIOD_MS_MIN, PERIOD_MS_MAX)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = tokio::select! {
            _ = ticks.tick() => {
                let Some(mut moved) = feed.take() else { return Ok(()) };
                // Some milliseconds of work for a large committee: not on the threads of the network.
                let made = tokio::task::spawn_blocking(move || {
                    let due = moved.due();
                    (moved, due)
                });
                let (moved, due) = made.await.map_err(io::Error::other)?;
                feed = Some(moved);
                due
            }
            order = up.next() => match order {
                None => return Ok(()),
                Some(order) => Due::Frames(vec![answer(&order?, (backend, by), operate).await?]),
            },
        };
        let (batch, last) = match due {
            Due::Frames(batch) => (batch, false),
            Due::Last(frame) => (vec![frame], true),
        };
        let began = Instant::now();
        for frame in batch {
            match tokio::time::timeout(STALLED, down.send(frame)).await {
                Ok(sent) => sent?,
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        if last {
            return Ok(());
        }
        if began.elapsed() > SLOW
            && let Some(feed) = &mut feed
        {
            feed.start_anew();
        }
    }
}

/// Frames for a client.
enum Due {
    Frames(Vec<Bytes>),
    /// The one after which it is let go.
    Last(Bytes),
}

async fn answer(order: &[u8], (backend, by): (&Arc<dyn Backend>, &str), operate: bool) -> io::Result<Bytes> {
    let (order, answer) = match serde_json::from_slice::<Upward>(order) {
        Err(error) => (0, Answer::Refused { reason: format!("not understood: {error}") }),
        Ok(Upward { order, request: Request::Attach { .. } | Request::Archive { .. } }) => {
            (order, Answer::Refused { reason: "not over an attached console".to_owned() })
        }
        Ok(Upward { order, request }) => {
            let forbidden = (!operate && !is_harmless(&request))
                .then(|| "this console only views: attach with `masternode attach --operate`".to_owned());
            (order, obey(Ok(request), forbidden, backend, by).await)
        }
    };
    let bytes = serde_json::to_vec(&Downward::Answer { order, answer })?;
    if bytes.len() <= FRAME_BYTES_MAX {
        return Ok(bytes.into());
    }
    let reason = format!("the answer has {} bytes, the most is {FRAME_BYTES_MAX}", bytes.len());
    Ok(serde_json::to_vec(&Downward::Answer { order, answer: Answer::Refused { reason } })?.into())
}

impl Feed {
    fn new(backend: Arc<dyn Backend>) -> Self {
        let events = backend.events();
        Self { backend, events, base: None, begun: false, sequence: 0, log_next: 0, sent: Instant::now() }
    }

    /// The client is given a whole picture next; what waits for it is left out.
    fn start_anew(&mut self) {
        self.events = self.backend.events();
        self.base = None;
    }

    /// What the client is due now. Cost: milliseconds.
    fn due(&mut self) -> Due {
        self.frames().map_or_else(
            |error| {
                let reason = format!("no picture of the node can be made: {error}");
                Due::Last(serde_json::to_vec(&Downward::Ending { reason }).unwrap_or_default().into())
            },
            Due::Frames,
        )
    }

    fn frames(&mut self) -> io::Result<Vec<Bytes>> {
        let news = self.news();
        let mut frames = Vec::new();
        let picture = serde_json::to_value(self.backend.snapshot().as_ref())?;
        let frame = match &self.base {
            None => Some(Downward::Picture { again: self.begun, picture: picture.clone() }),
            Some(base) => diff(base, &picture).map(|change| Downward::Change { change: Some(change) }),
        };
        if let Some(frame) = frame {
            let bytes = serde_json::to_vec(&frame)?;
            if bytes.len() > FRAME_BYTES_MAX {
                return Err(io::Error::other(format!("it has {} bytes", bytes.len())));
            }
            frames.push(bytes.into());
        }
        self.base = Some(picture);
        let (missed, events) = news;
        if missed > 0 || !events.is_empty() {
            frames.extend(batches("events", "missed", missed, &events)?);
        }
        self.logs(&mut frames)?;
        self.begun = true;
        if frames.is_empty() && self.sent.elapsed() >= HEARTBEAT {
            frames.push(serde_json::to_vec(&Downward::Change { change: None })?.into());
        }
        if !frames.is_empty() {
            self.sent = Instant::now();
        }
        Ok(frames)
    }

    /// Events since the last call, and how many were lost. Those that pictures or log pages carry are left out.
    fn news(&mut self) -> (u64, Vec<Arc<Event>>) {
        let mut events = Vec::new();
        let mut missed = 0u64;
        let mut lost = false;
        loop {
            match self.events.try_recv() {
                Ok(event) => events.push(event),
                Err(TryRecvError::Lagged(_)) => lost = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let before = self.sequence;
        if lost || self.base.is_none() {
            self.base = None;
            // What is remembered longest goes first; what came twice is told by its number.
            let mut all = self.backend.history();
            all.append(&mut events);
            all.sort_by_key(|event| event.sequence);
            all.dedup_by_key(|event| event.sequence);
            events = all;
        }
        events.retain(|event| event.sequence > before);
        if let Some(last) = events.last() {
            self.sequence = last.sequence;
            if self.begun && lost {
                missed = (last.sequence - before).saturating_sub(events.len() as u64);
            }
        }
        events.retain(|event| is_sent(&event.kind));
        let excess = events.len().saturating_sub(EVENTS_MAX);
        // A new client has missed nothing of what was before it.
        missed += if self.begun { excess as u64 } else { 0 };
        events.drain(..excess);
        (missed, events)
    }

    fn logs(&mut self, frames: &mut Vec<Bytes>) -> io::Result<()> {
        let next = self.backend.log_number();
        let oldest = next.saturating_sub(LOG_BACKFILL);
        let mut skipped = 0;
        if self.log_next < oldest {
            if self.begun {
                skipped = oldest - self.log_next;
            } else {
                let warnings = self.backend.warnings(WARNINGS_BACKFILL);
                let older: Vec<_> =
                    warnings.records.into_iter().filter(|(number, _)| *number < oldest).collect();
                frames.extend(batches("logs", "skipped", 0, &older)?);
            }
            self.log_next = oldest;
        }
        // A flood is sent over several turns, so that a picture never waits long behind it.
        let most = if self.begun { LOG_PAGE } else { usize::MAX };
        let page = self.backend.logs(self.log_next, most);
        self.log_next = page.next;
        skipped += page.skipped;
        if skipped > 0 || !page.records.is_empty() {
            frames.extend(batches("logs", "skipped", skipped, &page.records)?);
        }
        Ok(())
    }
}

/// Whether an event is sent: the pool is part of every picture, and log records go by themselves.
const fn is_sent(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::PoolAdded { .. } | EventKind::PoolRejected { .. } | EventKind::Log(_))
}

/// Frames of [`Downward::Events`] or [`Downward::Logs`], each of bounded size. What alone is larger than a frame is
/// counted as lost.
fn batches<T: Serialize>(frame: &str, count: &str, lost: u64, items: &[T]) -> io::Result<Vec<Bytes>> {
    let key = if frame == "events" { "events" } else { "records" };
    let (mut lost, mut parts, mut part) = (lost, Vec::new(), String::new());
    for item in items {
        let text = serde_json::to_string(item)?;
        if text.len() + 256 > FRAME_BYTES_MAX {
            lost += 1;
            continue;
        }
        if !part.is_empty() && part.len() + text.len() > BATCH_BYTES {
            parts.push(std::mem::take(&mut part));
        }
        if !part.is_empty() {
            part.push(',');
        }
        part.push_str(&text);
    }
    if !part.is_empty() || (lost > 0 && parts.is_empty()) {
        parts.push(part);
    }
    let whole = |(index, part): (usize, String)| {
        let lost = if index == 0 { lost } else { 0 };
        Bytes::from(format!(r#"{{"frame":"{frame}","{count}":{lost},"{key}":[{part}]}}"#))
    };
    Ok(parts.into_iter().enumerate().map(whole).collect())
}

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
