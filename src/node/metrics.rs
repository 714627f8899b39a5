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
use crate::primitives::keys::PublicKey;
use crate::telemetry::histogram::Percentiles;
use crate::telemetry::snapshot::{CHECKPOINTS_MAX, CheckpointInfo, RATE_BUCKETS, SignMark};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// How one member takes part.
#[derive(Clone, Debug)]
pub struct MemberStats {
    /// The member, over changes of the committee.
    pub vote_key: PublicKey,
    /// Prepares and commits counted since start.
    pub votes: u64,
    /// When its last vote was counted.
    pub last_vote_us: Option<u64>,
    /// One mark a checkpoint, oldest first, as many as checkpoints are kept.
    pub marks: VecDeque<SignMark>,
}

#[derive(Debug)]
struct Participation {
    committee: Arc<Committee>,
    members: Vec<MemberStats>,
    checkpoints: VecDeque<CheckpointInfo>,
    /// When the newest checkpoint was decided here.
    decided_us: u64,
}

/// What the hub knows of a checkpoint besides the block itself.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// Name of the proposer.
    pub proposer: &'a CleanText,
    /// Fees of its transactions, in units.
    pub fees: u64,
    /// First freeze seen to commit; `None` for a block caught up.
    pub pause_us: Option<u64>,
    /// Voters connected when it was decided, own included; empty when unknown.
    pub connected: &'a [bool],
    /// Digest of the state after the block.
    pub state_hash: crate::primitives::hash::Hash,
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
}

impl Metrics {
    /// Nothing measured, for `committee`, from `now_us` on.
    #[must_use]
    pub fn new(committee: Arc<Committee>, now_us: u64) -> Self {
        const MINUTE_US: u64 = 60_000_000;
        let mut participation = Participation {
            committee: Arc::new(Committee::new(Vec::new())),
            members: Vec::new(),
            checkpoints: VecDeque::new(),
            decided_us: now_us,
        };
        participation.enter(committee);
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
            participation: Mutex::new(participation),
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

    /// Counts a decided block and marks who signed it; `next` votes from now on. Precommits of the
    /// block before that are in its last commit and were not seen here count for that block.
    pub fn checkpoint(
        &self,
        block: &Block,
        qc: &Qc,
        decision: Decision<'_>,
        next: Arc<Committee>,
        now_us: u64,
    ) {
        if let Some(pause_us) = decision.pause_us {
            self.checkpoint_pause.record(now_us, pause_us);
        }
        let mut participation = self.participation.lock();
        participation.mark_last_commit(block);
        participation.push(block, qc, decision);
        participation.decided_us = now_us;
        participation.enter(next);
    }

    /// A precommit for the decided block `height` that is not in its certificate. Within
    /// `in_time_us` of the decision it is as good as one that is.
    pub fn late_precommit(&self, height: u64, voter: VoterIndex, in_time_us: u64, now_us: u64) {
        let mut participation = self.participation.lock();
        let in_time = now_us.saturating_sub(participation.decided_us) <= in_time_us;
        let mark = if in_time { SignMark::Signed } else { SignMark::Late };
        participation.mark_newest(height, voter, mark);
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

impl Participation {
    /// Makes `committee` the current one; members keep their statistics by key.
    fn enter(&mut self, committee: Arc<Committee>) {
        let keys = |committee: &Committee| -> Vec<PublicKey> {
            committee.members().iter().map(|member| member.vote_key).collect()
        };
        if keys(&self.committee) != keys(&committee) {
            let mut known: HashMap<PublicKey, MemberStats> =
                self.members.drain(..).map(|member| (member.vote_key, member)).collect();
            let marks = self.checkpoints.len();
            let fresh = |vote_key| MemberStats {
                vote_key,
                votes: 0,
                last_vote_us: None,
                marks: std::iter::repeat_n(SignMark::Absent, marks).collect(),
            };
            let members = committee.members().iter();
            self.members =
                members.map(|m| known.remove(&m.vote_key).unwrap_or_else(|| fresh(m.vote_key))).collect();
        }
        self.committee = committee;
    }

    fn push(&mut self, block: &Block, qc: &Qc, decision: Decision<'_>) {
        let signers: Vec<VoterIndex> =
            qc.votes().unwrap_or_default().into_iter().map(|(voter, _)| voter).collect();
        for (index, member) in (0..).zip(self.members.iter_mut()) {
            let connected = decision.connected.get(usize::from(index)).copied().unwrap_or(false);
            member.marks.push_back(match (signers.contains(&index), connected) {
                (true, _) => SignMark::Signed,
                (false, true) => SignMark::Missed,
                (false, false) => SignMark::Absent,
            });
            while member.marks.len() > CHECKPOINTS_MAX {
                member.marks.pop_front();
            }
        }
        self.checkpoints.push_back(CheckpointInfo {
            height: block.header.height,
            block: block.id(),
            round: qc.round,
            proposer: decision.proposer.clone(),
            time_ms: block.header.time_ms,
            transactions: block.header.tx_count,
            bytes: block.header.body_bytes,
            fees: decision.fees,
            signed_weight: signers.iter().map(|voter| self.committee.weight(*voter)).sum(),
            total_weight: self.committee.total(),
            pause_ms: decision.pause_us.map(|pause_us| pause_us as f64 / 1000.0),
            state_hash: decision.state_hash,
        });
        while self.checkpoints.len() > CHECKPOINTS_MAX {
            self.checkpoints.pop_front();
        }
    }

    /// The last commit of `block` may hold precommits for its parent that never came here directly.
    fn mark_last_commit(&mut self, block: &Block) {
        let Some(votes) = block.last_commit.as_ref().and_then(Qc::votes) else { return };
        let parent = block.header.height.saturating_sub(1);
        for (voter, _) in votes {
            self.mark_newest(parent, voter, SignMark::Signed);
        }
    }

    /// Marks a member for the newest checkpoint, if that is `height`; a good mark never gets worse.
    fn mark_newest(&mut self, height: u64, voter: VoterIndex, mark: SignMark) {
        let weight = self.committee.weight(voter);
        let Some(checkpoint) = self.checkpoints.back_mut().filter(|newest| newest.height == height) else {
            return;
        };
        let newest = self.members.get_mut(usize::from(voter)).and_then(|member| member.marks.back_mut());
        if let Some(newest) = newest.filter(|newest| matches!(newest, SignMark::Missed | SignMark::Absent)) {
            *newest = mark;
            if mark == SignMark::Signed {
                checkpoint.signed_weight += weight;
            }
        }
    }
}

#[cfg(test)]
mod tests;
