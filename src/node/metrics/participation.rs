//! How every member of the committee takes part: a mark a checkpoint, and the cause of each miss.
//!
//! Misses of a height are settled by the next decision: until then a precommit may still come, and only
//! the next block tells whether the chain holds this node's own.

use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::clean::CleanText;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::keys::PublicKey;
use crate::telemetry::cause::{MissCause, MissedVote};
use crate::telemetry::snapshot::{CHECKPOINTS_MAX, CheckpointInfo, MissInfo, SignMark};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

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
    /// The last checkpoint it missed.
    pub last_miss: Option<MissInfo>,
    /// Checkpoints missed since start, by the code of the cause.
    pub misses: BTreeMap<&'static str, u64>,
}

/// This node's own precommit for a decided block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnPrecommit {
    /// From its signature until it was sent, in microseconds.
    pub waited_us: u64,
    /// What the sync of the vote log took of that.
    pub sync_us: u64,
}

/// This node as a member, and its precommit for the block if it cast one.
pub type OwnPart = (VoterIndex, Option<OwnPrecommit>);

/// What the hub knows of a checkpoint besides the block itself.
#[derive(Clone, Debug)]
pub struct Decision<'a> {
    /// Name of the proposer.
    pub proposer: &'a CleanText,
    /// Fees of its transactions, in units.
    pub fees: u64,
    /// First freeze seen to commit; `None` for a block caught up.
    pub pause_us: Option<u64>,
    /// Members without a precommit known here when it was decided, this node included.
    pub absent: BTreeMap<VoterIndex, MissCause>,
    /// This node, if a member.
    pub own: Option<OwnPart>,
    /// How long a round waits for precommits: what comes within it is not late.
    pub in_time_us: u64,
    /// Digest of the state after the block.
    pub state_hash: crate::primitives::hash::Hash,
}

/// The misses of a height, settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub height: u64,
    pub missed: Vec<MissedVote>,
    pub total_weight: u64,
}

/// The newest checkpoint, whose misses are not settled.
#[derive(Debug)]
struct Unsettled {
    height: u64,
    /// The committee that decided it.
    committee: Arc<Committee>,
    missed: BTreeMap<VoterIndex, MissCause>,
    own: Option<(VoterIndex, OwnPrecommit)>,
    in_time_us: u64,
}

#[derive(Debug)]
pub(super) struct Participation {
    pub(super) committee: Arc<Committee>,
    pub(super) members: Vec<MemberStats>,
    pub(super) checkpoints: VecDeque<CheckpointInfo>,
    unsettled: Option<Unsettled>,
}

impl Participation {
    /// Nobody has taken part yet.
    pub(super) fn new(committee: Arc<Committee>) -> Self {
        let mut participation = Self {
            committee: Arc::new(Committee::new(Vec::new())),
            members: Vec::new(),
            checkpoints: VecDeque::new(),
            unsettled: None,
        };
        participation.enter(committee);
        participation
    }

    /// Counts a decided block, decided by the present committee, and settles the one before.
    pub(super) fn decide(
        &mut self,
        block: &Block,
        qc: &Qc,
        decision: Decision<'_>,
        next: Arc<Committee>,
    ) -> Option<Settled> {
        let settled = self.settle(block);
        self.push(block, qc, decision);
        self.enter(next);
        settled
    }

    /// Makes `committee` the current one; members keep their statistics by key.
    pub(super) fn enter(&mut self, committee: Arc<Committee>) {
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
                last_miss: None,
                misses: BTreeMap::new(),
            };
            let members = committee.members().iter();
            self.members =
                members.map(|m| known.remove(&m.vote_key).unwrap_or_else(|| fresh(m.vote_key))).collect();
        }
        self.committee = committee;
    }

    fn push(&mut self, block: &Block, qc: &Qc, decision: Decision<'_>) {
        let mut missed = decision.absent;
        for (voter, _) in qc.votes().unwrap_or_default() {
            missed.remove(&voter);
        }
        for (index, member) in (0..).zip(self.members.iter_mut()) {
            member.marks.push_back(match missed.get(&index) {
                None => SignMark::Signed,
                Some(MissCause::NotConnected { .. }) => SignMark::Absent,
                Some(_) => SignMark::Missed,
            });
            while member.marks.len() > CHECKPOINTS_MAX {
                member.marks.pop_front();
            }
        }
        let missed_weight: u64 = missed.keys().map(|voter| self.committee.weight(*voter)).sum();
        self.checkpoints.push_back(CheckpointInfo {
            height: block.header.height,
            block: block.id(),
            round: qc.round,
            proposer: decision.proposer.clone(),
            time_ms: block.header.time_ms,
            transactions: block.header.tx_count,
            bytes: block.header.body_bytes,
            fees: decision.fees,
            signed_weight: self.committee.total().saturating_sub(missed_weight),
            total_weight: self.committee.total(),
            pause_ms: decision.pause_us.map(|pause_us| pause_us as f64 / 1000.0),
            state_hash: decision.state_hash,
        });
        while self.checkpoints.len() > CHECKPOINTS_MAX {
            self.checkpoints.pop_front();
        }
        self.unsettled = Some(Unsettled {
            height: block.header.height,
            committee: Arc::clone(&self.committee),
            missed,
            own: decision.own.and_then(|(own, precommit)| Some((own, precommit?))),
            in_time_us: decision.in_time_us,
        });
    }

    /// A precommit for the newest checkpoint, so long after its decision.
    pub(super) fn late(&mut self, height: u64, voter: VoterIndex, late_us: u64) {
        let Some(unsettled) = self.unsettled.as_mut().filter(|newest| newest.height == height) else {
            return;
        };
        let Some(cause) = unsettled.missed.get_mut(&voter) else { return };
        if late_us <= unsettled.in_time_us {
            unsettled.missed.remove(&voter);
            self.mark_newest(voter, SignMark::Signed);
        } else {
            *cause = MissCause::Late { by_ms: late_us / 1000 };
            self.mark_newest(voter, SignMark::Late);
        }
    }

    /// What became of the votes for the parent of `block`. Its last commit may hold precommits that never
    /// came here directly, and lack this node's own.
    fn settle(&mut self, block: &Block) -> Option<Settled> {
        let parent = block.header.height.checked_sub(1)?;
        let mut unsettled = self.unsettled.take().filter(|newest| newest.height == parent)?;
        let held: Vec<VoterIndex> =
            block.last_commit.as_ref().and_then(Qc::votes)?.into_iter().map(|(voter, _)| voter).collect();
        let committee = Arc::clone(&unsettled.committee);
        self.unsettled = None;
        for voter in &held {
            let late = matches!(unsettled.missed.get(voter), Some(MissCause::Late { .. }));
            if !late && unsettled.missed.remove(voter).is_some() {
                self.mark(&committee, *voter, SignMark::Signed);
            }
        }
        if let Some((own, precommit)) = unsettled.own.filter(|(own, _)| !held.contains(own)) {
            let cause = precommit.cause(unsettled.in_time_us);
            let slow = !matches!(cause, MissCause::LeftOut);
            self.mark(&committee, own, if slow { SignMark::Late } else { SignMark::Missed });
            unsettled.missed.entry(own).or_insert(cause);
        }
        let missed = unsettled.missed.into_iter().filter_map(|(voter, cause)| {
            let member = committee.member(voter)?;
            self.count(&member.vote_key, parent, &cause);
            let name = CleanText::limited(&member.name, 64);
            Some(MissedVote { voter, name, weight: member.weight, cause })
        });
        let missed = missed.collect();
        Some(Settled { height: parent, missed, total_weight: committee.total() })
    }

    fn count(&mut self, vote_key: &PublicKey, height: u64, cause: &MissCause) {
        if let Some(member) = self.members.iter_mut().find(|member| member.vote_key == *vote_key) {
            *member.misses.entry(cause.code()).or_default() += 1;
            member.last_miss = Some(MissInfo { height, cause: cause.clone() });
        }
    }

    fn mark_newest(&mut self, voter: VoterIndex, mark: SignMark) {
        let Some(committee) = self.unsettled.as_ref().map(|newest| Arc::clone(&newest.committee)) else {
            return;
        };
        self.mark(&committee, voter, mark);
    }

    /// Marks a member of the committee that decided the newest checkpoint.
    fn mark(&mut self, committee: &Committee, voter: VoterIndex, mark: SignMark) {
        let (Some(member), Some(checkpoint)) = (committee.member(voter), self.checkpoints.back_mut()) else {
            return;
        };
        let known = self.members.iter_mut().find(|known| known.vote_key == member.vote_key);
        let Some(newest) = known.and_then(|known| known.marks.back_mut()) else { return };
        let weight = member.weight;
        match (*newest == SignMark::Signed, mark == SignMark::Signed) {
            (false, true) => checkpoint.signed_weight += weight,
            (true, false) => checkpoint.signed_weight = checkpoint.signed_weight.saturating_sub(weight),
            _ => {}
        }
        *newest = mark;
    }
}

impl OwnPrecommit {
    /// Why a precommit that was cast is not in the next block: without the wait for the log it would have
    /// been in time, or it was.
    fn cause(self, in_time_us: u64) -> MissCause {
        let (waited_ms, sync_ms) = (self.waited_us / 1000, self.sync_us / 1000);
        if self.waited_us <= in_time_us {
            MissCause::LeftOut
        } else if self.sync_us >= self.waited_us / 2 {
            MissCause::Disk { waited_ms, sync_ms }
        } else {
            MissCause::Late { by_ms: waited_ms }
        }
    }
}
