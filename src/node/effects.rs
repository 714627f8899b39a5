//! Carries out what the machine returns, strictly in order, on a thread of its own.
//!
//! Group commit: everything that waits is taken, all its records go to the log with one sync, then the
//! rest happens in order; so no message leaves before every record in front of it is durable, and one
//! sync serves all votes that gathered during the sync before. What stands in front of the first record
//! need not wait and does not. The engine never waits for a disk: the queue between them is deeper than
//! any burst, and only a disk that stands still for seconds fills it, where waiting is right.
//!
//! When the log fails nothing is carried out any more, ever: what was sent stays true, what was not sent
//! never was. A full disk is waited out, with everything kept in order behind it. Deliberately absent:
//! retries of a failed sync (see [`journal`](crate::node::journal)).

use crate::consensus::output::{Output, Record};
use crate::consensus::standing::Nonce;
use crate::node::clock::{micros, monotonic_us};
use crate::node::floor::VoteLogError;
use crate::node::journal::GROUP_BYTES;
use crate::node::metrics::LatencyWindow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

/// Batches of outputs that may wait: a few seconds of a busy engine.
const BATCHES_WAITING_MAX: usize = 8192;
/// Most outputs in one group, so that the first of them does not wait for gathering.
const GROUP_OUTPUTS_MAX: usize = 65_536;

/// What makes records durable.
pub trait Log: Send {
    /// Adds a record to the group, in memory.
    fn stage(&mut self, height: u64, record: &Record);
    /// Bytes staged.
    fn staged_bytes(&self) -> usize;
    /// Makes the group durable.
    ///
    /// # Errors
    /// The group is not durable and nothing more will be.
    fn commit(&mut self) -> Result<(), VoteLogError>;
    /// The log of `height` begins; blocks up to `durable_height` are in the store.
    ///
    /// # Errors
    /// As [`Log::commit`].
    fn next_height(&mut self, height: u64, durable_height: u64) -> Result<(), VoteLogError>;
    /// Signing begins, with a log that is whole since `since`; see [`Output::Sign`].
    ///
    /// # Errors
    /// As [`Log::commit`].
    fn sign(&mut self, since: Option<Nonce>, next: Nonce) -> Result<(), VoteLogError>;
}

/// What effects act on: network, store, people.
pub trait Sink: Send {
    /// Carries out one output other than `Persist`.
    fn carry_out(&mut self, output: &Output);
    /// The records of the group being carried out are durable; their sync took so long.
    fn synced(&mut self, took_us: u64);
    /// A group has been carried out.
    fn observe(&mut self, outputs: &[Output]);
    /// Height up to which the store holds every block.
    fn durable_height(&self) -> u64;
    /// The log found no space. Waits a while and says whether to try again; `false` when the node stops.
    fn wait_for_space(&mut self, reason: String) -> bool;
    /// There is space again.
    fn has_space(&mut self);
    /// The log has failed; nothing will be carried out any more.
    fn failed(&mut self, reason: String);
}

/// The queue from the engine.
#[must_use]
pub fn queue() -> (SyncSender<Vec<Output>>, Receiver<Vec<Output>>) {
    sync_channel(BATCHES_WAITING_MAX)
}

/// A group being gathered and carried out.
struct Group<'a, L, S> {
    log: &'a mut L,
    sink: &'a mut S,
    outputs: Vec<Output>,
    /// How many of `outputs` have been carried out.
    carried: usize,
    staged: bool,
}

/// Carries out batches until the engine is gone and the queue is empty.
pub fn run<L: Log, S: Sink>(
    batches: &Receiver<Vec<Output>>,
    log: &mut L,
    sink: &mut S,
    sync_times: &LatencyWindow,
) {
    while let Ok(first) = batches.recv() {
        let mut group = Group { log, sink, outputs: Vec::new(), carried: 0, staged: false };
        let done = group.gather(first, batches).and_then(|()| group.finish(sync_times));
        if let Err(error) = done {
            sink.failed(error.to_string());
            // The engine must be able to end, and never block on a queue that nobody empties.
            while batches.recv().is_ok() {}
            return;
        }
    }
}

impl<L: Log, S: Sink> Group<'_, L, S> {
    fn gather(&mut self, first: Vec<Output>, batches: &Receiver<Vec<Output>>) -> Result<(), VoteLogError> {
        self.take(first)?;
        while self.outputs.len() < GROUP_OUTPUTS_MAX && self.log.staged_bytes() < GROUP_BYTES {
            match batches.try_recv() {
                Ok(batch) => self.take(batch)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn take(&mut self, batch: Vec<Output>) -> Result<(), VoteLogError> {
        for output in batch {
            if let Output::Persist { height, record } = &output {
                self.log.stage(*height, record);
                self.staged = true;
            }
            self.outputs.push(output);
            if !self.staged {
                self.carry_out_rest()?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, sync_times: &LatencyWindow) -> Result<(), VoteLogError> {
        if self.staged {
            let begun = Instant::now();
            self.durably(|log| log.commit())?;
            let took_us = micros(begun.elapsed());
            sync_times.record(monotonic_us(), took_us);
            self.sink.synced(took_us);
            self.carry_out_rest()?;
        }
        self.sink.observe(&self.outputs);
        Ok(())
    }

    fn carry_out_rest(&mut self) -> Result<(), VoteLogError> {
        while let Some(output) = self.outputs.get(self.carried) {
            self.carried += 1;
            match output {
                Output::Persist { .. } => {}
                Output::Sign { since, next } => {
                    let (since, next) = (*since, *next);
                    self.durably(|log| log.sign(since, next))?;
                }
                Output::Committed { block, .. } => {
                    let next = block.header.height + 1;
                    self.sink.carry_out(output);
                    let durable = self.sink.durable_height();
                    self.durably(|log| log.next_height(next, durable))?;
                }
                other => self.sink.carry_out(other),
            }
        }
        Ok(())
    }

    /// Does something with the log, again and again as long as the disk is full.
    fn durably(&mut self, work: impl Fn(&mut L) -> Result<(), VoteLogError>) -> Result<(), VoteLogError> {
        let mut result = work(self.log);
        if !result.as_ref().is_err_and(VoteLogError::is_full) {
            return result;
        }
        while let Err(error) = &result
            && error.is_full()
            && self.sink.wait_for_space(error.to_string())
        {
            result = work(self.log);
        }
        if result.is_ok() {
            self.sink.has_space();
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::output::Target;
    use crate::node::journal::JournalError;
    use crate::primitives::hash::{EraTag, Txid};
    use crate::primitives::keys::Signature;
    use crate::primitives::message::Message;
    use crate::primitives::vote::VoteBatch;
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// What happened, in order, as seen from outside.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Synced(Vec<u32>),
        Sent(u32),
        MaySign(Nonce),
        Waited,
        HasSpace,
        Failed,
    }

    type Trace = Arc<Mutex<Vec<Seen>>>;

    struct FakeLog {
        staged: Vec<u32>,
        trace: Trace,
        syncs_left: usize,
        /// Syncs that find no space first.
        full: usize,
        /// Called within each sync: what the engine does meanwhile.
        meanwhile: Box<dyn FnMut() + Send>,
    }

    impl Log for FakeLog {
        fn stage(&mut self, _: u64, record: &Record) {
            if let Record::OwnBatch(batch) = record {
                self.staged.push(batch.sequence);
            }
        }
        fn staged_bytes(&self) -> usize {
            self.staged.len() * 100
        }
        fn commit(&mut self) -> Result<(), VoteLogError> {
            (self.meanwhile)();
            if let Some(left) = self.full.checked_sub(1) {
                self.full = left;
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(JournalError::Io { action: "write", path: "log".into(), source }.into());
            }
            self.syncs_left = match self.syncs_left.checked_sub(1) {
                Some(left) => left,
                None => return Err(JournalError::Poisoned { path: "log".into() }.into()),
            };
            self.trace.lock().push(Seen::Synced(std::mem::take(&mut self.staged)));
            Ok(())
        }
        fn next_height(&mut self, _: u64, _: u64) -> Result<(), VoteLogError> {
            Ok(())
        }
        fn sign(&mut self, _: Option<Nonce>, next: Nonce) -> Result<(), VoteLogError> {
            self.trace.lock().push(Seen::MaySign(next));
            Ok(())
        }
    }

    struct FakeSink(Trace);

    impl Sink for FakeSink {
        fn carry_out(&mut self, output: &Output) {
            if let Output::Send { message: Message::VoteBatch(batch), .. } = output {
                self.0.lock().push(Seen::Sent(batch.sequence));
            }
        }
        fn synced(&mut self, _: u64) {}
        fn observe(&mut self, _: &[Output]) {}
        fn durable_height(&self) -> u64 {
            0
        }
        fn wait_for_space(&mut self, _: String) -> bool {
            let mut trace = self.0.lock();
            trace.push(Seen::Waited);
            trace.iter().filter(|seen| **seen == Seen::Waited).count() < 5
        }
        fn has_space(&mut self) {
            self.0.lock().push(Seen::HasSpace);
        }
        fn failed(&mut self, _: String) {
            self.0.lock().push(Seen::Failed);
        }
    }

    fn batch(sequence: u32) -> VoteBatch {
        VoteBatch {
            era_tag: EraTag::default(),
            voter: 0,
            sequence,
            last: false,
            prepares: vec![Txid::default()],
            commits: Vec::new(),
            signature: Signature([0; 64]),
        }
    }

    fn persist(number: u32) -> Output {
        Output::Persist { height: 1, record: Record::OwnBatch(batch(number)) }
    }

    fn send(number: u32) -> Output {
        Output::Send { to: Target::All, message: Message::VoteBatch(batch(number)) }
    }

    /// Runs batches, of which the last ones arrive during the first sync.
    fn traced(before: Vec<Vec<Output>>, during: Vec<Vec<Output>>, syncs: usize) -> Vec<Seen> {
        traced_on_a_full_disk(before, during, syncs, 0)
    }

    fn traced_on_a_full_disk(
        before: Vec<Vec<Output>>,
        during: Vec<Vec<Output>>,
        syncs: usize,
        full: usize,
    ) -> Vec<Seen> {
        let trace = Trace::default();
        let (sender, receiver) = queue();
        for batch in before {
            sender.send(batch).unwrap();
        }
        let mut late = Some((sender, during));
        let meanwhile = Box::new(move || {
            if let Some((sender, during)) = late.take() {
                for batch in during {
                    sender.send(batch).unwrap();
                }
            }
        });
        let mut log =
            FakeLog { staged: Vec::new(), trace: trace.clone(), syncs_left: syncs, full, meanwhile };
        run(&receiver, &mut log, &mut FakeSink(trace.clone()), &LatencyWindow::new(1_000_000));
        trace.lock().clone()
    }

    #[test]
    fn nothing_is_sent_before_every_record_in_front_of_it_is_durable() {
        let seen = traced(vec![vec![persist(1), send(1), persist(2), send(2)]], vec![], 9);
        assert_eq!(seen, [Seen::Synced(vec![1, 2]), Seen::Sent(1), Seen::Sent(2)]);
    }

    #[test]
    fn nothing_is_sent_before_what_it_is_signed_under_is_durable() {
        let sign = Output::Sign { since: None, next: [7; 32] };
        let seen = traced(vec![vec![sign.clone(), send(1)], vec![persist(2), sign, send(2)]], vec![], 9);
        let may = Seen::MaySign([7; 32]);
        assert_eq!(seen, [may.clone(), Seen::Sent(1), Seen::Synced(vec![2]), may, Seen::Sent(2)]);
    }

    #[test]
    fn what_gathers_during_a_sync_shares_the_next_one() {
        let during = vec![vec![persist(2), send(2)], vec![send(9)], vec![persist(3), send(3)]];
        let seen = traced(vec![vec![persist(1), send(1)]], during, 9);
        let expected = [
            Seen::Synced(vec![1]),
            Seen::Sent(1),
            Seen::Synced(vec![2, 3]),
            Seen::Sent(2),
            Seen::Sent(9),
            Seen::Sent(3),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_rests_on_no_record_does_not_wait_for_one() {
        let seen = traced(vec![vec![send(8)], vec![send(9), persist(1), send(1)]], vec![], 9);
        assert_eq!(seen, [Seen::Sent(8), Seen::Sent(9), Seen::Synced(vec![1]), Seen::Sent(1)]);
    }

    #[test]
    fn after_a_failed_sync_nothing_is_sent_any_more() {
        let during = vec![vec![persist(2), send(2)], vec![send(3)]];
        let seen = traced(vec![vec![persist(1), send(1)]], during, 1);
        assert_eq!(seen, [Seen::Synced(vec![1]), Seen::Sent(1), Seen::Failed]);
    }

    #[test]
    fn on_a_full_disk_everything_waits_in_order_until_there_is_space_and_nothing_is_lost() {
        let during = vec![vec![send(9), persist(2), send(2)]];
        let seen = traced_on_a_full_disk(vec![vec![persist(1), send(1)]], during, 9, 3);
        let waited = || Seen::Waited;
        let expected = [
            waited(),
            waited(),
            waited(),
            Seen::HasSpace,
            Seen::Synced(vec![1]),
            Seen::Sent(1),
            Seen::Sent(9),
            Seen::Synced(vec![2]),
            Seen::Sent(2),
        ];
        // The word that there is space comes after the sync that shows it.
        let mut sorted = seen.clone();
        if let Some(at) = sorted.iter().position(|seen| *seen == Seen::HasSpace) {
            sorted.swap(at, at - 1);
        }
        assert_eq!(sorted, expected);
    }

    #[test]
    fn a_node_that_stops_while_the_disk_is_full_sends_nothing_of_what_waits() {
        let seen = traced_on_a_full_disk(vec![vec![persist(1), send(1)]], vec![], 9, 99);
        assert_eq!(seen, [vec![Seen::Waited; 5], vec![Seen::Failed]].concat());
    }
}
