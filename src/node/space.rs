//! Room on the disk, and what follows when it runs out: a warning, no votes, an orderly stop; and when a
//! write found no space although there seemed to be some, no votes until one succeeds.
//!
//! A node votes only when what it votes can be made durable. Nothing is ever deleted to make room. What
//! could not be written is kept, in order, and written when there is room. Absent: log files, which drop
//! lines on a full disk by themselves.

use crate::consensus::input::Input;
use crate::node::host_info::disk_free_bytes;
use crate::node::lanes::{Lane, Lanes};
use crate::node::tasks::Stopper;
use crate::node::verify::Arrival;
use parking_lot::{Condvar, Mutex};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How often free space is looked at. A node writes far less than the distance of two limits in it.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait before a write that found no space is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Bytes of free space below which something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// The operator is warned.
    pub warn_bytes: u64,
    /// Nothing is voted any more.
    pub vote_bytes: u64,
    /// The node stops in order.
    pub stop_bytes: u64,
}

/// What so much space allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Votes,
    NoVotes,
    Nothing,
}

impl SpaceLimits {
    /// What `free_bytes` allow to a node that is held back or is not: votes begin again an eighth above the
    /// limit, so that they do not come and go with each block.
    fn room(&self, free_bytes: u64, held: bool) -> Room {
        let vote_bytes =
            if held { self.vote_bytes.saturating_add(self.vote_bytes / 8) } else { self.vote_bytes };
        match free_bytes {
            _ if free_bytes < self.stop_bytes => Room::Nothing,
            _ if free_bytes < vote_bytes => Room::NoVotes,
            _ => Room::Votes,
        }
    }

    /// Whether a node may start with so much space, or why not.
    ///
    /// # Errors
    /// The reason, with figures and remedy.
    pub fn allows_start(&self, data_dir: &std::path::Path) -> Result<(), String> {
        match disk_free_bytes(data_dir) {
            Some(free) if free < self.stop_bytes => Err(too_little(free, self.stop_bytes, data_dir)),
            _ => Ok(()),
        }
    }
}

fn too_little(free: u64, least: u64, dir: &std::path::Path) -> String {
    format!(
        "only {} MiB are free on the disk of {}, a node needs {} (`storage.free_stop_bytes`): free some, then start \
         again",
        free >> 20,
        dir.display(),
        least >> 20
    )
}

/// Who could not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    /// The vote log.
    Log,
    /// The database.
    Store,
}

#[derive(Debug, Default)]
struct State {
    /// What the last try to write said.
    failing: std::collections::BTreeMap<Writer, String>,
    /// Too little is free.
    low: Option<String>,
    /// What the machine was told last.
    told: Option<String>,
    closed: bool,
}

/// The one place that knows whether there is room.
#[derive(Debug)]
pub struct Space {
    data_dir: PathBuf,
    limits: SpaceLimits,
    engine: Arc<Lanes<Arrival>>,
    state: Mutex<State>,
    ended: Condvar,
}

impl Space {
    /// Room as long as nobody says otherwise.
    #[must_use]
    pub fn new(data_dir: PathBuf, limits: SpaceLimits, engine: Arc<Lanes<Arrival>>) -> Arc<Self> {
        let (state, ended) = (Mutex::default(), Condvar::new());
        Arc::new(Self { data_dir, limits, engine, state, ended })
    }

    /// A write found no space: nothing is voted, and this waits a while. Returns whether to try again;
    /// `false` when the node stops.
    pub fn wait(&self, writer: Writer, reason: String) -> bool {
        let mut state = self.state.lock();
        if !state.failing.contains_key(&writer) {
            tracing::error!(event = "disk-full", %reason, "no space left: nothing is voted, everything waits");
        }
        state.failing.insert(writer, reason);
        self.tell(&mut state);
        if !state.closed {
            self.ended.wait_for(&mut state, RETRY);
        }
        !state.closed
    }

    /// The write that found no space has succeeded.
    pub fn found(&self, writer: Writer) {
        let mut state = self.state.lock();
        if state.failing.remove(&writer).is_some() {
            tracing::info!(event = "disk-space", "there is space again, everything that waited was written");
            self.tell(&mut state);
        }
    }

    /// Nobody waits any more: the node stops.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.ended.notify_all();
    }

    fn tell(&self, state: &mut State) {
        let reason = state.failing.values().next().or(state.low.as_ref()).cloned();
        // The same fault in other words is no news.
        if reason.is_some() == state.told.is_some() {
            return;
        }
        state.told.clone_from(&reason);
        // Refused only when the node stops.
        let _stopping = self.engine.force(Lane::Urgent, Arrival::Input(Input::Hold { reason }));
    }

    /// Compares free space with the limits. Returns why the node has to stop.
    fn look(&self, free_bytes: Option<u64>) -> Option<String> {
        let free_bytes = free_bytes?;
        let mut state = self.state.lock();
        match self.limits.room(free_bytes, state.low.is_some()) {
            Room::Nothing => return Some(too_little(free_bytes, self.limits.stop_bytes, &self.data_dir)),
            Room::NoVotes => {
                state.low = Some(format!(
                    "only {} MiB are free on the disk of {}: free some, it votes again above {} MiB \
                     (`storage.free_vote_bytes`)",
                    free_bytes >> 20,
                    self.data_dir.display(),
                    (self.limits.vote_bytes + self.limits.vote_bytes / 8) >> 20
                ));
            }
            Room::Votes => state.low = None,
        }
        self.tell(&mut state);
        None
    }

    /// Watches the disk until the node stops, and stops the node in order when there is too little left.
    pub async fn watch(self: Arc<Self>, stopper: Stopper) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopper.ordered().cancelled() => return,
            }
            let dir = self.data_dir.clone();
            // A file system that hangs must not hang the runtime.
            let free = tokio::task::spawn_blocking(move || disk_free_bytes(&dir)).await.ok().flatten();
            if let Some(reason) = self.look(free) {
                tracing::error!(event = "disk-full", %reason, "stopping");
                stopper.stop(1, &reason);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::lanes::Taken;

    const LIMITS: SpaceLimits = SpaceLimits { warn_bytes: 5000, vote_bytes: 1600, stop_bytes: 256 };

    fn space() -> (Arc<Space>, Arc<Lanes<Arrival>>) {
        let engine = Arc::new(Lanes::new(8, 8));
        (Space::new(PathBuf::from("/data"), LIMITS, Arc::clone(&engine)), engine)
    }

    /// What the machine was told since the last call: held back or not.
    fn told(engine: &Lanes<Arrival>) -> Vec<bool> {
        let mut taken = Vec::new();
        let nothing = Some(std::time::Instant::now());
        assert_ne!(engine.take(&mut taken, (8, 8), nothing), Taken::Closed);
        let holds = taken.into_iter().map(|waiting| match waiting.item {
            Arrival::Input(Input::Hold { reason }) => reason.is_some(),
            other => panic!("{other:?}"),
        });
        holds.collect()
    }

    #[test]
    fn votes_end_below_their_limit_and_begin_again_an_eighth_above_it_and_below_the_last_the_node_stops() {
        let (space, engine) = space();
        for (free, expected) in [(1600, &[][..]), (1599, &[true]), (1000, &[]), (1799, &[]), (1800, &[false])]
        {
            assert_eq!(space.look(Some(free)), None);
            assert_eq!(told(&engine), expected, "{free} bytes free");
        }
        assert_eq!(space.look(None), None, "unknown is not full");
        let reason = space.look(Some(255)).unwrap();
        assert!(reason.contains("/data") && reason.contains("free_stop_bytes"), "{reason}");
    }

    #[test]
    fn a_write_without_space_holds_the_node_back_until_every_writer_has_succeeded() {
        let (space, engine) = space();
        assert!(space.wait(Writer::Log, "no space".to_owned()));
        assert!(space.wait(Writer::Store, "no space either".to_owned()));
        assert_eq!(told(&engine), [true]);
        space.look(Some(1599));
        space.found(Writer::Log);
        space.found(Writer::Store);
        assert!(told(&engine).is_empty(), "too little is free");
        space.look(Some(5000));
        assert_eq!(told(&engine), [false]);
        space.close();
        assert!(!space.wait(Writer::Log, "no space".to_owned()), "nobody waits in a node that stops");
    }
}
