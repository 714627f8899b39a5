//! What a node measures about itself: latency windows, throughput, counters, and how every member of
//! the committee takes part.
//!
//! Recording takes one short lock or one atomic and never allocates on the hot path, so the engine
//! and the effects thread call it directly. Time is an argument everywhere (microseconds on the
//! node's monotonic clock). Deliberately absent: exposition formats and screens; readers take the
//! plain values of `telemetry`.

use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::clean::CleanText;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::hash::Txid;
use crate::telemetry::cause::{GapCount, PaymentGap};
use crate::telemetry::histogram::Percentiles;
use crate::telemetry::snapshot::{CheckpointInfo, RATE_BUCKETS};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod participation;

use participation::Participation;
pub use participation::{Decision, MemberStats, OwnPart, OwnPrecommit, Settled};

/// Longest latency told apart, in microseconds; longer ones count as this.
const LATENCY_MAX_US: u64 = 600_000_000;

/// Significant decimal digits of a latency: one part in a hundred, at about 12 KB a slot.
const LATENCY_DIGITS: u8 = 2;

/// Slots of a latency window; the oldest is dropped when a new one begins.
const WINDOW_SLOTS: usize = 6;

/// Most payments whose first sight is remembered, in each of two generations. A full devnet era
/// holds about 30,000.
const FIRST_SIGHTS_MAX: usize = 65_536;

/// Most distinct rejection codes counted; more cannot exist unless codes are made of input.
const REJECTION_CODES_MAX: usize = 64;

/// Percentiles of a latency over the last six slots of time.
#[derive(Debug)]
pub struct LatencyWindow {
    slot_us: u64,
    slots: Mutex<Slots>,
}

#[derive(Debug)]
struct Slots {
    number: u64,
    ring: VecDeque<Histogram<u32>>,
}

impl LatencyWindow {
    /// A window over the last `window_us` microseconds, in steps of a sixth of it.
    #[must_use]
    pub fn new(window_us: u64) -> Self {
        let ring = (0..WINDOW_SLOTS).map(|_| histogram()).collect();
        let slot_us = (window_us / WINDOW_SLOTS as u64).max(1);
        Self { slot_us, slots: Mutex::new(Slots { number: 0, ring }) }
    }

    /// Counts one latency measured at `now_us`. Cost: one lock, under 100 ns.
    pub fn record(&self, now_us: u64, latency_us: u64) {
        let mut slots = self.slots.lock();
        slots.advance(now_us / self.slot_us);
        if let Some(newest) = slots.ring.back_mut() {
            newest.saturating_record(latency_us);
        }
    }

    /// The percentiles at `now_us`. Cost: some ten microseconds, for snapshots only.
    #[must_use]
    pub fn percentiles(&self, now_us: u64) -> Percentiles {
        let mut all = histogram();
        {
            let mut slots = self.slots.lock();
            slots.advance(now_us / self.slot_us);
            for slot in slots.ring.iter().filter(|slot| !slot.is_empty()) {
                // Same bounds, so adding cannot fail.
                let _same_bounds = all.add(slot);
            }
        }
        if all.is_empty() {
            return Percentiles::default();
        }
        Percentiles {
            count: all.len(),
            p50_us: all.value_at_quantile(0.50),
            p95_us: all.value_at_quantile(0.95),
            p99_us: all.value_at_quantile(0.99),
            max_us: all.max(),
        }
    }
}

impl Slots {
    /// Begins the slot `number`, emptying those that time has passed over.
    fn advance(&mut self, number: u64) {
        let steps = number.saturating_sub(self.number).min(self.ring.len() as u64);
        for _ in 0..steps {
            if let Some(mut oldest) = self.ring.pop_front() {
                oldest.reset();
                self.ring.push_back(oldest);
            }
        }
        self.number = self.number.max(number);
    }
}

fn histogram() -> Histogram<u32> {
    match Histogram::new_with_bounds(1, LATENCY_MAX_US, LATENCY_DIGITS) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("the bounds are constants the library documents as valid: {error}"),
    }
}

/// Things per second over the last [`RATE_BUCKETS`] seconds.
#[derive(Debug)]
pub struct RateHistory {
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    /// Second the newest bucket counts.
    second: u64,
    counts: VecDeque<u64>,
}

impl RateHistory {
    /// Nothing counted, from `now_us` on.
    #[must_use]
    pub fn new(now_us: u64) -> Self {
        let buckets = Buckets { second: now_us / 1_000_000, counts: VecDeque::from([0]) };
        Self { buckets: Mutex::new(buckets) }
    }

    /// Counts `count` things at `now_us`.
    pub fn record(&self, now_us: u64, count: u64) {
        let mut buckets = self.buckets.lock();
        buckets.advance(now_us);
        if let Some(newest) = buckets.counts.back_mut() {
            *newest += count;
        }
    }

    /// Counts of the full seconds before `now_us`, oldest first.
    #[must_use]
    pub fn history(&self, now_us: u64) -> Vec<u64> {
        let mut buckets = self.buckets.lock();
        buckets.advance(now_us);
        let full = buckets.counts.len().saturating_sub(1);
        buckets.counts.iter().copied().take(full).collect()
    }
}

impl Buckets {
    fn advance(&mut self, now_us: u64) {
        let second = now_us / 1_000_000;
        let steps = second.saturating_sub(self.second).min(RATE_BUCKETS as u64 + 1);
        for _ in 0..steps {
            self.counts.push_back(0);
        }
        // One more than the full ones: the second that is still counting.
        while self.counts.len() > RATE_BUCKETS + 1 {
            self.counts.pop_front();
        }
        self.second = self.second.max(second);
    }
}

/// When payments were first seen, until they are final; two generations bound it.
#[derive(Debug, Default)]
struct FirstSights {
    young: HashMap<Txid, u64>,
    old: HashMap<Txid, u64>,
}

impl FirstSights {
    fn insert(&mut self, txid: Txid, now_us: u64) {
        if self.old.contains_key(&txid) {
            return;
        }
        if self.young.len() >= FIRST_SIGHTS_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.entry(txid).or_insert(now_us);
    }

    fn remove(&mut self, txid: &Txid) -> Option<u64> {
        self.young.remove(txid).or_else(|| self.old.remove(txid))
    }

    fn seen(&self, txid: &Txid) -> Option<u64> {
        self.young.get(txid).or_else(|| self.old.get(txid)).copied()
    }
}

/// Everything measured at one node.
#[derive(Debug)]
pub struct Metrics {
    /// First sight to commit quorum, over the last minute.
    pub finality: LatencyWindow,
    /// First freeze seen to commit, over the last ten minutes.
    pub checkpoint_pause: LatencyWindow,
    /// How late the engine was with an input, over the last minute.
    pub loop_lag: LatencyWindow,
    /// Journal sync time, over the last minute.
    pub journal_sync: LatencyWindow,
    /// Final payments a second.
    pub throughput: RateHistory,
    /// Payments final since start.
    pub final_total: AtomicU64,
    /// Votes of this node since start, prepares and commits.
    pub votes_sent: AtomicU64,
    /// Votes of others counted since start, prepares and commits.
    pub votes_received: AtomicU64,
    /// Rounds above 0 since start.
    pub rounds_failed: AtomicU64,
    /// Events that slow subscribers missed, all together.
    pub events_missed: AtomicU64,
    rejections: Mutex<BTreeMap<&'static str, u64>>,
    first_sights: Mutex<FirstSights>,
    participation: Mutex<Participation>,
    gaps: Mutex<[BTreeMap<PaymentGap, u64>; 2]>,
}

impl Metrics {
    /// Nothing measured, for `committee`, from `now_us` on.
    #[must_use]
    pub fn new(committee: Arc<Committee>, now_us: u64) -> Self {
        const MINUTE_US: u64 = 60_000_000;
        Self {
            finality: LatencyWindow::new(MINUTE_US),
            checkpoint_pause: LatencyWindow::new(10 * MINUTE_US),
            loop_lag: LatencyWindow::new(MINUTE_US),
            journal_sync: LatencyWindow::new(MINUTE_US),
            throughput: RateHistory::new(now_us),
            final_total: AtomicU64::new(0),
            votes_sent: AtomicU64::new(0),
            votes_received: AtomicU64::new(0),
            rounds_failed: AtomicU64::new(0),
            events_missed: AtomicU64::new(0),
            rejections: Mutex::new(BTreeMap::new()),
            first_sights: Mutex::new(FirstSights::default()),
            participation: Mutex::new(Participation::new(committee)),
            gaps: Mutex::default(),
        }
    }

    /// Remembers when a payment was first seen; later sights change nothing.
    pub fn transaction_seen(&self, txid: Txid, now_us: u64) {
        self.first_sights.lock().insert(txid, now_us);
    }

    /// When a payment that is not yet final was first seen.
    #[must_use]
    pub fn first_seen_us(&self, txid: &Txid) -> Option<u64> {
        self.first_sights.lock().seen(txid)
    }

    /// Counts a payment that became final; returns how long that took since its first sight, `None`
    /// when it was never seen before.
    pub fn transaction_final(&self, txid: &Txid, now_us: u64) -> Option<u64> {
        self.final_total.fetch_add(1, Ordering::Relaxed);
        self.throughput.record(now_us, 1);
        let seen_us = self.first_sights.lock().remove(txid)?;
        let latency_us = now_us.saturating_sub(seen_us);
        self.finality.record(now_us, latency_us);
        Some(latency_us)
    }

    /// Counts a rejection and forgets the transaction.
    pub fn transaction_rejected(&self, txid: &Txid, code: &'static str) {
        self.first_sights.lock().remove(txid);
        let mut rejections = self.rejections.lock();
        if rejections.len() < REJECTION_CODES_MAX || rejections.contains_key(code) {
            *rejections.entry(code).or_default() += 1;
        }
    }

    /// Rejections since start by code, ascending by code.
    #[must_use]
    pub fn rejections(&self) -> Vec<(CleanText, u64)> {
        self.rejections.lock().iter().map(|(code, count)| (CleanText::new(code), *count)).collect()
    }

    /// Counts the votes of a batch.
    pub fn votes_counted(&self, voter: VoterIndex, votes: u64, own: bool, now_us: u64) {
        let counter = if own { &self.votes_sent } else { &self.votes_received };
        counter.fetch_add(votes, Ordering::Relaxed);
        let mut participation = self.participation.lock();
        if let Some(member) = participation.members.get_mut(usize::from(voter)) {
            member.votes += votes;
            member.last_vote_us = Some(now_us);
        }
    }

    /// Counts a decided block and marks who signed it; `next` votes from now on. Returns who missed the
    /// block before: precommits in this block's last commit that were not seen here count for that one.
    pub fn checkpoint(
        &self,
        block: &Block,
        qc: &Qc,
        decision: Decision<'_>,
        next: Arc<Committee>,
        now_us: u64,
    ) -> Option<Settled> {
        if let Some(pause_us) = decision.pause_us {
            self.checkpoint_pause.record(now_us, pause_us);
        }
        self.participation.lock().decide(block, qc, decision, next)
    }

    /// A precommit for the newest decided block, so long after its decision; within the time a round
    /// waits it is as good as one in the certificate.
    pub fn late_precommit(&self, height: u64, voter: VoterIndex, late_us: u64) {
        self.participation.lock().late(height, voter, late_us);
    }

    /// Counts votes for payments that this node did not cast.
    pub fn payment_votes_missed(&self, prepares: &[GapCount], commits: &[GapCount]) {
        let mut gaps = self.gaps.lock();
        for (counted, missed) in gaps.iter_mut().zip([prepares, commits]) {
            for gap in missed {
                *counted.entry(gap.cause).or_default() += u64::from(gap.count);
            }
        }
    }

    /// Prepares and commits this node did not cast since start, by cause.
    #[must_use]
    pub fn payment_gaps(&self) -> [Vec<(PaymentGap, u64)>; 2] {
        let list =
            |counted: &BTreeMap<PaymentGap, u64>| counted.iter().map(|(gap, count)| (*gap, *count)).collect();
        self.gaps.lock().each_ref().map(list)
    }

    /// Makes `committee` the one that votes now; a start from a stored chain says it once.
    pub fn enter(&self, committee: Arc<Committee>) {
        self.participation.lock().enter(committee);
    }

    /// The committee that votes now.
    #[must_use]
    pub fn committee(&self) -> Arc<Committee> {
        Arc::clone(&self.participation.lock().committee)
    }

    /// Committee, members in its order, and checkpoints, oldest first. Copies them: for snapshots.
    #[must_use]
    pub fn participation(&self) -> (Arc<Committee>, Vec<MemberStats>, Vec<CheckpointInfo>) {
        let participation = self.participation.lock();
        let checkpoints = participation.checkpoints.iter().cloned().collect();
        (Arc::clone(&participation.committee), participation.members.clone(), checkpoints)
    }
}

#[cfg(test)]
mod tests;
