//! Signatures of blocks being caught up with, checked on threads of their own: several blocks at a time,
//! those of one block as one batch.

use crate::consensus::input::Verified;
use crate::consensus::verify::{EraContext, Fault, verify_decided};
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::keys::verify_batch;
use crate::primitives::message::PeerId;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Most threads that check; the engine, the disk and the network need cores too.
const WORKERS_MAX: usize = 4;

/// A whole block with what to check it against.
pub struct Job {
    pub height: u64,
    /// Of which pull of that height it is.
    pub pull: u64,
    /// Who served the last of it.
    pub peer: PeerId,
    pub block: Block,
    pub qc: Qc,
    pub context: Arc<EraContext>,
}

/// What came of a [`Job`].
pub struct Checked {
    pub height: u64,
    pub pull: u64,
    pub peer: PeerId,
    pub result: Result<Verified<(Block, Qc)>, Fault>,
}

/// Where jobs go and answers come from.
pub struct Checkers {
    jobs: SyncSender<Job>,
    answers: Receiver<Checked>,
    under_way: usize,
    under_way_max: usize,
}

/// One thread's part; ends when [`Checkers`] is gone.
#[derive(Clone)]
pub struct Worker {
    jobs: Arc<Mutex<Receiver<Job>>>,
    answers: Sender<Checked>,
}

impl Checkers {
    /// The queue, and a worker for each thread that makes sense here.
    #[must_use]
    pub fn new() -> (Self, Vec<Worker>) {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = cores.clamp(1, WORKERS_MAX);
        // A block for each thread, and the next one.
        let under_way_max = 2 * workers;
        let (jobs, taken) = sync_channel(under_way_max);
        // Bounded by the jobs: each has one answer.
        let (answered, answers) = channel();
        let worker = Worker { jobs: Arc::new(Mutex::new(taken)), answers: answered };
        (Self { jobs, answers, under_way: 0, under_way_max }, vec![worker; workers])
    }

    /// Whether answers are to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    /// Whether all threads have enough to do.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.under_way >= self.under_way_max
    }

    /// Takes a job; not to be called when full.
    pub fn submit(&mut self, job: Job) {
        // There is room; refused only when the threads have died, which stops the node by itself.
        if self.jobs.try_send(job).is_ok() {
            self.under_way += 1;
        }
    }

    /// The next answer, if there is one.
    pub fn answer(&mut self) -> Option<Checked> {
        let checked = self.answers.try_recv().ok()?;
        self.under_way = self.under_way.saturating_sub(1);
        Some(checked)
    }
}

impl Worker {
    /// Works until nobody can submit anything any more.
    pub fn run(&self) {
        loop {
            // One thread waits for a job, the others for their turn to wait.
            let job = self.jobs.lock().recv();
            let Ok(job) = job else { return };
            if !self.work(job) {
                return;
            }
        }
    }

    /// Checks a block; whether anybody wants to know.
    fn work(&self, job: Job) -> bool {
        let Job { height, pull, peer, block, qc, context } = job;
        let result = verify_decided(block, qc, &context, &verify_batch);
        self.answers.send(Checked { height, pull, peer, result }).is_ok()
    }

    /// Does what waits, and no more.
    #[cfg(test)]
    pub(super) fn run_waiting(&self) {
        while let Ok(job) = self.jobs.lock().try_recv() {
            self.work(job);
        }
    }
}
