//! Where a console gets its data, and the source for nodes of this process; [`remote`] is that for others.
//!
//! A source never blocks and may be asked before any node is up. Who misses events is told how many;
//! the snapshot is the truth, events only decorate it.

pub mod recording;
pub mod remote;
pub mod target;

use masternode::node::logging::ring::LogRing;
use masternode::primitives::clean::CleanText;
use masternode::telemetry::event::Event;
use masternode::telemetry::log::LogPage;
use masternode::telemetry::snapshot::Snapshot;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

/// What happened since the last question.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Oldest first, at most [`EVENTS_MAX`].
    pub list: Vec<Arc<Event>>,
    /// Events that were lost because the console was slow.
    pub missed: u64,
}

/// Most events handed over at once: the rest waits for the next question, so that a key never waits
/// behind a flood.
pub const EVENTS_MAX: usize = 4096;

/// Most steps of starting up that are remembered; a start has about ten.
const PHASES_MAX: usize = 64;

/// A step of starting up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    pub name: CleanText,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
}

/// How a source stands to a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// Part of this process.
    #[default]
    Own,
    /// Not connected yet.
    Connecting,
    /// Connected to its process; `operate` when it takes orders from here.
    Attached { operate: bool },
    /// Not connected any more, or never was: why. It is tried again.
    Lost(CleanText),
}

/// One or several nodes, of this process or of others.
pub trait Source: Send {
    /// How many nodes there are; constant.
    fn nodes(&self) -> usize;

    /// What a node is called before its first snapshot.
    fn name(&self, node: usize) -> CleanText;

    /// The newest picture; `None` until the node has one. Cheap.
    fn snapshot(&self, node: usize) -> Option<Arc<Snapshot>>;

    /// Takes what is new, without blocking.
    fn events(&mut self, node: usize) -> Events;

    /// At most `max` log records from number `sequence` on.
    fn logs_since(&self, sequence: u64, max: usize) -> LogPage;

    /// How it stands to a node.
    fn link(&self, _node: usize) -> LinkState {
        LinkState::Own
    }

    /// The time it shows, where that is not now.
    fn now_ms(&self) -> Option<u64> {
        None
    }

    /// Steps of starting up so far, oldest first.
    fn phases(&self) -> Vec<Phase> {
        Vec::new()
    }
}

/// A node that is up, as the console sees it.
struct Feed {
    snapshot: Box<dyn Fn() -> Arc<Snapshot> + Send>,
    events: Receiver<Arc<Event>>,
}

#[derive(Default)]
struct Shared {
    feeds: Vec<Mutex<Option<Feed>>>,
    phases: Mutex<Vec<Phase>>,
}

/// Nodes of this process. Made before any of them is up; the [`Feeder`] connects them as they come.
pub struct InProcess {
    names: Vec<CleanText>,
    logs: LogRing,
    shared: Arc<Shared>,
}

/// The other end of an [`InProcess`]; cheap to clone.
#[derive(Clone)]
pub struct Feeder(Arc<Shared>);

impl InProcess {
    /// A source for as many nodes as there are names.
    pub fn new(names: Vec<CleanText>, logs: LogRing) -> (Self, Feeder) {
        let feeds = names.iter().map(|_| Mutex::new(None)).collect();
        let shared = Arc::new(Shared { feeds, phases: Mutex::default() });
        (Self { names, logs, shared: shared.clone() }, Feeder(shared))
    }
}

impl Feeder {
    /// A step of starting up begins now.
    pub fn phase(&self, name: &str) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let began_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let mut phases = self.0.phases.lock();
        if phases.len() < PHASES_MAX {
            phases.push(Phase { name: CleanText::limited(name, 200), began_ms });
        }
    }

    /// Node `node` (from 0) is up: where its snapshots and events come from.
    pub fn connect(
        &self,
        node: usize,
        snapshot: impl Fn() -> Arc<Snapshot> + Send + 'static,
        events: Receiver<Arc<Event>>,
    ) {
        if let Some(feed) = self.0.feeds.get(node) {
            *feed.lock() = Some(Feed { snapshot: Box::new(snapshot), events });
        }
    }
}

impl Source for InProcess {
    fn nodes(&self) -> usize {
        self.names.len()
    }

    fn name(&self, node: usize) -> CleanText {
        self.names.get(node).cloned().unwrap_or_default()
    }

    fn snapshot(&self, node: usize) -> Option<Arc<Snapshot>> {
        let feed = self.shared.feeds.get(node)?.lock();
        feed.as_ref().map(|feed| (feed.snapshot)())
    }

    fn events(&mut self, node: usize) -> Events {
        let mut new = Events::default();
        let Some(feed) = self.shared.feeds.get(node) else { return new };
        let mut feed = feed.lock();
        let Some(feed) = feed.as_mut() else { return new };
        while new.list.len() < EVENTS_MAX {
            match feed.events.try_recv() {
                Ok(event) => new.list.push(event),
                // Lagging is not the end: the receiver goes on with the oldest event kept.
                Err(TryRecvError::Lagged(missed)) => new.missed = new.missed.saturating_add(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        new
    }

    fn logs_since(&self, sequence: u64, max: usize) -> LogPage {
        self.logs.since(sequence, max)
    }

    fn phases(&self) -> Vec<Phase> {
        self.shared.phases.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{InProcess, Source};
    use crate::console::fixture::{events, snapshot};
    use masternode::node::logging::ring::LogRing;
    use std::sync::Arc;

    #[test]
    fn a_node_is_seen_once_it_is_connected_and_its_phases_before() {
        let (mut source, feeder) = InProcess::new(vec!["node-1".into(), "node-2".into()], LogRing::default());
        feeder.phase("opening the database");
        assert_eq!(source.phases().len(), 1);
        assert!(source.snapshot(1).is_none() && source.events(1).list.is_empty());
        let picture = Arc::new(snapshot(1));
        let (sender, receiver) = tokio::sync::broadcast::channel(8);
        feeder.connect(1, move || picture.clone(), receiver);
        assert_eq!(source.snapshot(1).unwrap().node.name.as_str(), "node-2");
        assert!(source.snapshot(0).is_none() && source.snapshot(9).is_none());
        sender.send(events().remove(0)).unwrap();
        assert_eq!(source.events(1).list.len(), 1);
    }

    #[test]
    fn a_slow_console_is_told_what_it_missed_and_goes_on_with_what_is_left() {
        let (mut source, feeder) = InProcess::new(vec!["node-1".into()], LogRing::default());
        let picture = Arc::new(snapshot(0));
        let (sender, receiver) = tokio::sync::broadcast::channel(8);
        feeder.connect(0, move || picture.clone(), receiver);
        for event in events().into_iter().take(20) {
            sender.send(event).unwrap();
        }
        let new = source.events(0);
        assert_eq!((new.missed, new.list.len()), (12, 8));
        assert_eq!(new.list.first().map(|event| event.sequence), Some(13));
        drop(sender);
        assert_eq!(source.events(0).missed, 0);
    }
}
