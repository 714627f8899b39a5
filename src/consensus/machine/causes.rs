//! Why votes and rounds are missing, for people. Reads the machine and notes what the rules decided;
//! nothing here decides anything.

use super::pulls::Want;
use super::{Candidate, Machine, RoundStep};
use crate::consensus::cause::{Absence, OwnAbsence, SPLIT_MAX, StallReason};
use crate::consensus::output::Notice;
use crate::consensus::rounds::Round;
use crate::primitives::block::Outline;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::BlockId;
use crate::primitives::vote::Step;
use std::collections::BTreeSet;

/// What is remembered of a height only to be told.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// Why this node's vote of a round was nil, the newest round.
    pub(super) own_nil: Option<(u32, OwnAbsence)>,
    /// A peer was at a later height when this node entered this one.
    pub(super) entered_behind: bool,
    /// The round last told to wait for a quorum, and its age then.
    told_waiting: Option<(u32, u64)>,
}

impl Machine {
    // Rounds -----------------------------------------------------------------------------------------

    /// The timer of proposing or prevoting ended the step.
    pub(super) fn notice_stalled_step(&mut self) {
        let round = self.checkpoint.round;
        if self.checkpoint.watch.own_nil.as_ref().is_none_or(|(noted, _)| *noted != round) {
            self.checkpoint.watch.own_nil = Some((round, self.waits_for()));
        }
        let step = (self.checkpoint.step == RoundStep::Prevote).then_some(Step::Prevote);
        self.notice_stalled(step);
    }

    /// A step ended without a quorum for a block; `None` is proposing.
    pub(super) fn notice_stalled(&mut self, step: Option<Step>) {
        let reason = self.stall_reason(step);
        self.notice_stalled_by(step, reason);
    }

    /// Others of weight `A` are in a later round.
    pub(super) fn notice_overtaken(&mut self, round: u32) {
        let step = match self.checkpoint.step {
            RoundStep::Propose => None,
            RoundStep::Prevote => Some(Step::Prevote),
            RoundStep::Precommit => Some(Step::Precommit),
        };
        self.notice_stalled_by(step, StallReason::Overtaken { round });
    }

    /// A step without a quorum of votes has no timer, so it may last: tells so when the round is older
    /// than its timers together, and whenever its age has doubled since.
    pub(super) fn watch_round(&mut self) {
        let step = match self.checkpoint.step {
            RoundStep::Propose => return,
            RoundStep::Prevote => Step::Prevote,
            RoundStep::Precommit => Step::Precommit,
        };
        let round = self.checkpoint.round;
        let heard = self.checkpoint.rounds.find(round).map_or(0, |known| known.votes(step).total());
        if !self.era.frozen || heard >= self.context.committee.quorum() {
            return;
        }
        let timing = &self.timing;
        let steps = [timing.propose_step_us, timing.prevote_step_us, timing.precommit_step_us];
        let longest_us = [timing.propose_us, timing.prevote_us, timing.precommit_us]
            .into_iter()
            .zip(steps)
            .fold(0u64, |sum, (base, step)| {
                sum.saturating_add(base).saturating_add(step.saturating_mul(u64::from(round)))
            });
        let age_us = self.now.monotonic_us.saturating_sub(self.checkpoint.round_started_us);
        let due_us = match self.checkpoint.watch.told_waiting {
            Some((told, at_us)) if told == round => at_us.saturating_mul(2),
            _ => longest_us,
        };
        if age_us >= due_us {
            self.checkpoint.watch.told_waiting = Some((round, age_us));
            self.notice_stalled_by(Some(step), StallReason::NoQuorum);
        }
    }

    fn notice_stalled_by(&mut self, step: Option<Step>, reason: StallReason) {
        let (height, round) = (self.context.height, self.checkpoint.round);
        let known = self.checkpoint.rounds.find(round);
        let missing: Vec<VoterIndex> = match (&reason, step) {
            (StallReason::NoProposal { proposer, .. }, _) => vec![*proposer],
            (StallReason::NotReady { incomplete, .. }, _) => incomplete.clone(),
            (_, None) => Vec::new(),
            (_, Some(step)) => {
                let voted = |voter: &VoterIndex| {
                    known.is_some_and(|known| known.votes(step).votes().contains_key(voter))
                };
                self.context.committee.indices().filter(|voter| !voted(voter)).collect()
            }
        };
        let heard = known.map_or(0, |known| known.votes(step.unwrap_or(Step::Prevote)).total());
        let missing = missing.into_iter().map(|voter| (voter, self.absence_of(voter, round))).collect();
        let quorum = self.context.committee.quorum();
        self.notice(Notice::RoundStalled { height, round, step, reason, missing, heard, quorum });
    }

    fn stall_reason(&self, step: Option<Step>) -> StallReason {
        let round = self.checkpoint.round;
        let Some(step) = step else { return self.propose_stall() };
        let known = self.checkpoint.rounds.find(round);
        let votes = known.map(|known| known.votes(step));
        let quorum = self.context.committee.quorum();
        let Some(votes) = votes.filter(|votes| votes.total() >= quorum) else {
            return StallReason::NoQuorum;
        };
        let refusal = match &self.checkpoint.watch.own_nil {
            Some((noted, OwnAbsence::Refused { reason, .. })) if *noted == round => Some(reason.clone()),
            _ => None,
        };
        match (votes.quorum(quorum), refusal) {
            (Some(Some(block)), _) => self.bodies_stall(block),
            (_, Some(reason)) => StallReason::Refused { reason },
            (Some(None), _) => StallReason::Nil,
            (None, _) => {
                let mut votes = votes.split();
                votes.truncate(SPLIT_MAX);
                StallReason::Split { votes }
            }
        }
    }

    fn propose_stall(&self) -> StallReason {
        let round = self.checkpoint.round;
        let proposer = self.current_proposer().unwrap_or_default();
        match self.proposal_of(round) {
            Some(outline) => self.bodies_stall(outline.header.id()),
            None if self.signs() == Some(proposer) => {
                let incomplete = |voter: &VoterIndex| {
                    let stream = self.era.streams.get(usize::from(*voter));
                    !stream.is_some_and(super::super::stream::Stream::is_complete)
                };
                let fault = match &self.checkpoint.watch.own_nil {
                    Some((noted, OwnAbsence::Refused { reason, .. })) if *noted == round => {
                        Some(reason.clone())
                    }
                    _ => None,
                };
                let incomplete = self.context.committee.indices().filter(incomplete).collect();
                StallReason::NotReady { incomplete, fault }
            }
            None => StallReason::NoProposal { proposer, absence: self.absence_of(proposer, round) },
        }
    }

    fn bodies_stall(&self, block: BlockId) -> StallReason {
        let (missing, asked) = self.missing_bodies(block);
        StallReason::NoBodies { proposer: self.current_proposer().unwrap_or_default(), missing, asked }
    }

    // This node --------------------------------------------------------------------------------------

    /// This node does not prevote the proposal of the round, or cannot build one.
    pub(super) fn note_refusal(&mut self, reason: &str) {
        let round = self.checkpoint.round;
        self.checkpoint.watch.own_nil =
            Some((round, OwnAbsence::Refused { round, reason: reason.to_owned() }));
    }

    /// What keeps this node from voting for a block now.
    fn waits_for(&self) -> OwnAbsence {
        let quorum = self.context.committee.quorum();
        let voters: BTreeSet<VoterIndex> = self.peers.voters().chain(self.me).collect();
        let connected: u64 = voters.iter().map(|voter| self.context.committee.weight(*voter)).sum();
        if connected < quorum {
            return OwnAbsence::NoQuorum { connected, quorum };
        }
        if !self.era.frozen {
            let era_us = self.now.monotonic_us.saturating_sub(self.era.started_us);
            return OwnAbsence::NotFrozen { era_us };
        }
        let round = self.checkpoint.round;
        if self.checkpoint.step == RoundStep::Propose {
            return match self.proposal_of(round) {
                Some(outline) => {
                    let (missing, asked) = self.missing_bodies(outline.header.id());
                    OwnAbsence::NoBodies { round, missing, asked }
                }
                None => {
                    OwnAbsence::NoProposal { round, proposer: self.current_proposer().unwrap_or_default() }
                }
            };
        }
        let heard = self.checkpoint.rounds.find(round).map_or(0, |known| known.prevotes.total());
        OwnAbsence::NoPrevoteQuorum { round, heard, quorum }
    }

    fn proposal_of(&self, round: u32) -> Option<&Outline> {
        let proposal = self.checkpoint.rounds.find(round)?.proposal.as_ref()?;
        Some(&proposal.outline)
    }

    /// How many bodies of a candidate are missing, and who was asked last for the first of them.
    fn missing_bodies(&self, block: BlockId) -> (u32, Option<VoterIndex>) {
        let missing = |candidate: &Candidate| {
            let asked = candidate.missing.first().and_then(|txid| self.pulls.asked_of(Want::Body(*txid)));
            let count = u32::try_from(candidate.missing.len()).unwrap_or(u32::MAX);
            (count, asked.and_then(|peer| self.peers.voter_of(&peer)))
        };
        let candidate = self.checkpoint.candidates.get(&block).filter(|candidate| candidate.block.is_none());
        candidate.map(missing).unwrap_or_default()
    }

    /// Why this node, a member, has no precommit for the block just decided.
    fn own_absence(&self) -> OwnAbsence {
        let (height, best) = (self.context.height, self.peers.best_height());
        if self.signs().is_none() {
            return OwnAbsence::NotSigning;
        }
        if self.checkpoint.watch.entered_behind || best > height.saturating_add(1) {
            return OwnAbsence::Behind { best };
        }
        match &self.checkpoint.watch.own_nil {
            Some((round, cause)) if *round == self.checkpoint.round => cause.clone(),
            _ => self.waits_for(),
        }
    }

    // Others -----------------------------------------------------------------------------------------

    /// Tells who has no precommit in the decision of this height, before the era is dropped.
    pub(super) fn notice_attendance(&mut self, qc: &Qc) {
        if self.replaying {
            return;
        }
        let round = self.checkpoint.rounds.find(qc.round);
        let mut signed: BTreeSet<VoterIndex> =
            qc.votes().unwrap_or_default().into_iter().map(|(voter, _)| voter).collect();
        if let Some(round) = round {
            let votes = round.precommits.votes().iter();
            signed.extend(votes.filter(|(_, (block, _))| *block == Some(qc.block)).map(|(voter, _)| *voter));
        }
        let absent = self
            .context
            .committee
            .indices()
            .filter(|voter| !signed.contains(voter) && self.me != Some(*voter))
            .map(|voter| (voter, self.absence_at(voter, qc, round)))
            .collect();
        let own = self.me.filter(|me| !signed.contains(me)).map(|_| self.own_absence());
        self.notice(Notice::Attendance { height: self.context.height, absent, own });
    }

    fn absence_at(&self, voter: VoterIndex, qc: &Qc, round: Option<&Round>) -> Absence {
        let voted = |step| round.and_then(|round| round.votes(step).votes().get(&voter));
        for step in [Step::Precommit, Step::Prevote] {
            match voted(step) {
                Some((None, _)) => return Absence::VotedNil { round: qc.round, step },
                Some((Some(block), _)) if *block != qc.block => {
                    return Absence::VotedOther { round: qc.round, step };
                }
                _ => {}
            }
        }
        let quorum = self.context.committee.quorum();
        let took_part = round.is_some_and(|round| {
            let decided = Some(Some(qc.block));
            round.polled(quorum) == decided || round.precommits.quorum(quorum) == decided
        });
        if took_part { self.absence_of(voter, qc.round) } else { Absence::Unobserved }
    }

    /// Why a vote of `voter` in `round` was not heard.
    pub(super) fn absence_of(&self, voter: VoterIndex, round: u32) -> Absence {
        if self.me == Some(voter) {
            return Absence::NotSigning;
        }
        let Some(height) = self.peers.height_of(voter) else {
            let key = self.context.committee.member(voter).map(|member| member.vote_key);
            return Absence::NotConnected { since_us: key.and_then(|key| self.peers.left_us(&key)) };
        };
        // 0 until its first status came.
        if height != 0 && height < self.context.height {
            return Absence::Behind { height };
        }
        if let Some(heard) = self.checkpoint.rounds.highest_round_of(voter) {
            let other = heard != round;
            return if other { Absence::OtherRound { round: heard } } else { Absence::NoPrecommit { round } };
        }
        let ended = self.era.streams.get(usize::from(voter)).is_some_and(|stream| stream.has_ended());
        match (ended, self.era.heard.contains(&voter)) {
            (true, _) => Absence::NoVote,
            (false, true) => Absence::NotFrozen,
            (false, false) => Absence::Silent,
        }
    }
}
