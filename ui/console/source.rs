//! Where a console gets its data, and the source for nodes of this process.
//!
//! A source never blocks and may be asked before any node is up. Who misses events is told how many;
//! the snapshot is the truth, events only decorate it.

use masternode::node::logging::ring::LogPage;
use masternode::primitives::clean::CleanText;
use masternode::telemetry::event::Event;
use masternode::telemetry::snapshot::Snapshot;
use std::sync::Arc;

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

/// A step of starting up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    pub name: CleanText,
    /// When it began, in milliseconds since 1970.
    pub began_ms: u64,
}

/// One or several nodes of this process, or later a daemon.
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

    /// Steps of starting up so far, oldest first.
    fn phases(&self) -> Vec<Phase> {
        Vec::new()
    }
}
