//! The rounds of a checkpoint (protocol §4.2): Tendermint with the subset rule for fresh proposals.
//!
//! [`Machine::advance`] applies the rules until none applies; handlers only record what arrived. A rule
//! of the text is cited where it is applied.

use super::era::TRANSACTION_BYTES_MIN;
use super::pulls::Want;
use super::{Candidate, Machine, RoundStep};
use crate::consensus::host::Host;
use crate::consensus::output::{Notice, Record, Target};
use crate::consensus::planted::Bug;
use crate::consensus::rounds::Addition;
use crate::primitives::block::{Block, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::hash::{BlockId, Txid};
use crate::primitives::keys::Signature;
use crate::primitives::message::{Message, PeerId, Proposal};
use crate::primitives::transaction::SharedTransaction;
use crate::primitives::vote::{Step, Vote, vote_digest};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Machine {
    /// Applies the rules of the rounds until none applies.
    pub(super) fn advance(&mut self, host: &mut dyn Host) {
        loop {
            if self.halted.is_none() && self.try_decide(host) {
                continue;
            }
            if !self.takes_part() {
                return;
            }
            if !self.era.frozen {
                if self.era_has_ended() {
                    self.freeze(host);
                    continue;
                }
                if !self.has_bug(Bug::RoundsBeforeLast) {
                    return;
                }
            }
            let applied = self.try_skip_round()
                || self.try_propose(host)
                || self.try_prevote(host)
                || self.try_precommit(host);
            if !applied {
                self.arm_round_timers();
                return;
            }
        }
    }

    /// `start_round(r)`.
    pub(super) fn start_round(&mut self, round: u32) {
        self.checkpoint.round = round;
        self.checkpoint.step = RoundStep::Propose;
        self.resume_round();
        self.checkpoint.rounds.prune(round);
        self.drop_stale_candidates();
        if round > 0
            && let Some((_, _, pol)) = &self.checkpoint.valid
        {
            let pol = Message::Pol { era_tag: self.context.era_tag, qc: pol.clone() };
            self.send(Target::All, pol);
        }
        let height = self.context.height;
        if let Some(proposer) = self.context.committee.proposer(height, round) {
            self.notice(Notice::RoundStarted { height, round, proposer });
        }
    }

    /// Keeps the candidates that are locked, valid or proposed in this round or a later one. Should an
    /// older one gather a quorum after all, it is pulled again.
    fn drop_stale_candidates(&mut self) {
        let current = self.checkpoint.round;
        let proposed = self.checkpoint.rounds.iter().filter(|(number, _)| *number >= current);
        let mut kept: BTreeSet<BlockId> = proposed
            .filter_map(|(_, round)| round.proposal.as_ref())
            .map(|proposal| proposal.outline.header.id())
            .collect();
        let quorum = self.quorum();
        for (_, round) in self.checkpoint.rounds.iter() {
            kept.extend(round.polled(quorum).flatten());
            kept.extend(round.precommits.quorum(quorum).flatten());
        }
        kept.extend(self.checkpoint.locked.map(|(block, _)| block));
        kept.extend(self.checkpoint.valid.as_ref().map(|(block, _, _)| *block));
        self.checkpoint.candidates.retain(|id, _| kept.contains(id));
    }

    /// Sets the timer of the current round, new or found in the log.
    pub(super) fn resume_round(&mut self) {
        let (now_us, round) = (self.now.monotonic_us, u64::from(self.checkpoint.round));
        self.timers.clear_round();
        self.checkpoint.round_started_us = now_us;
        if self.checkpoint.step == RoundStep::Propose {
            let wait_us =
                self.timing.propose_us.saturating_add(round.saturating_mul(self.timing.propose_step_us));
            self.timers.propose = Some(now_us.saturating_add(wait_us));
        }
    }

    // What arrives -----------------------------------------------------------------------------------

    pub(super) fn on_proposal(&mut self, host: &dyn Host, proposal: Proposal) {
        let Some(proposer) = self.context.committee.proposer(self.context.height, proposal.round) else {
            return;
        };
        if self.me == Some(proposer) {
            if !self.is_proposal_from_elsewhere(&proposal) {
                return;
            }
            self.sight(format!("a proposal of round {}", proposal.round));
        }
        self.accuse_of_proposals(proposer, &proposal);
        self.examine_past_commit(proposal.outline.last_commit.as_ref());
        if let Some(pol) = &proposal.pol {
            self.count_pol(pol);
        }
        if !self.is_plausible(host, &proposal.outline) {
            return;
        }
        let (round, outline) = (proposal.round, proposal.outline.clone());
        match self.checkpoint.rounds.add_proposal(proposal, self.checkpoint.round) {
            Addition::New => {
                self.drop_stale_candidates();
                self.register_candidate(&outline);
                self.notice(Notice::Proposed {
                    height: self.context.height,
                    round,
                    block: outline.header.id(),
                    transactions: outline.header.tx_count,
                    own: false,
                });
            }
            // Should a quorum vote for a second one all the same, it is pulled by id.
            Addition::Conflict | Addition::Known | Addition::Ignored => {}
        }
        self.hear_round_voter(proposer);
    }

    pub(super) fn on_vote(&mut self, vote: &Vote) {
        if self.is_own_vote_from_elsewhere(vote) {
            let step = match vote.step {
                Step::Prevote => "prevote",
                Step::Precommit => "precommit",
            };
            self.sight(format!("a {step} of round {}", vote.round));
        }
        self.add_vote(vote);
    }

    fn add_vote(&mut self, vote: &Vote) {
        let weight = self.weight(vote.voter);
        if self.checkpoint.rounds.add_vote(vote, weight, self.checkpoint.round) == Addition::Conflict {
            self.accuse_of_votes(vote);
        }
        self.hear_round_voter(vote.voter);
    }

    pub(super) fn on_pol(&mut self, from: PeerId, qc: &Qc) {
        self.count_pol(qc);
        if !self.checkpoint.candidates.contains_key(&qc.block) {
            self.pulls.want(Want::Candidate(qc.block), Some(from), self.now.monotonic_us);
        }
    }

    /// Counts the prevotes in a certificate, and keeps it: it proves its quorum even where single
    /// votes in it came second to others of the same voters.
    pub(super) fn count_pol(&mut self, qc: &Qc) {
        if self.checkpoint.rounds.has_forgotten(qc.round, self.checkpoint.round) {
            return;
        }
        for (voter, signature) in qc.votes().unwrap_or_default() {
            let vote = Vote {
                era_tag: self.context.era_tag,
                round: qc.round,
                step: qc.step,
                block: Some(qc.block),
                voter,
                signature,
            };
            self.on_vote(&vote);
        }
        self.checkpoint.rounds.at(qc.round).pol.get_or_insert_with(|| qc.clone());
    }

    fn hear_round_voter(&mut self, voter: u16) {
        self.era.round_voters.insert(voter);
        self.hear(voter);
    }

    /// Whether a valid block of this height can have this outline; keeps what cannot out of memory.
    fn is_plausible(&self, host: &dyn Host, outline: &Outline) -> bool {
        let (header, bytes_max) = (&outline.header, host.params().block_bytes_max);
        header.height == self.context.height
            && header.previous == self.context.previous
            && header.body_bytes <= bytes_max
            && u64::from(header.tx_count).saturating_mul(TRANSACTION_BYTES_MIN) <= bytes_max
    }

    /// Whether a validly signed proposal of this node's own key is not one it made.
    fn is_proposal_from_elsewhere(&self, proposal: &Proposal) -> bool {
        let known = self.checkpoint.rounds.find(proposal.round).and_then(|round| round.proposal.as_ref());
        let forgotten = self.checkpoint.rounds.has_forgotten(proposal.round, self.checkpoint.round);
        !forgotten && known.is_none_or(|held| held.digest() != proposal.digest())
    }

    /// Whether a validly signed vote of this node's own key is not one it cast.
    fn is_own_vote_from_elsewhere(&self, vote: &Vote) -> bool {
        self.me == Some(vote.voter)
            && !self.replaying
            && !self.checkpoint.rounds.has_forgotten(vote.round, self.checkpoint.round)
            && self.own_vote(vote.round, vote.step) != Some(vote.block)
    }

    // Candidates -------------------------------------------------------------------------------------

    pub(super) fn on_candidate(&mut self, host: &dyn Host, from: PeerId, outline: &Outline) {
        let id = outline.header.id();
        // Asked for only: candidates are few and must not be crowded out by what nobody voted for.
        if self.pulls.is_wanted(Want::Candidate(id)) {
            self.examine_past_commit(outline.last_commit.as_ref());
            self.register_candidate(outline);
            self.complete_candidate(host, id, Some(from));
        }
    }

    /// Notes a block that may be decided; its bodies are gathered by [`Machine::complete_candidate`].
    ///
    /// There is at most one a kept proposal and one a pulled quorum, so their number is bounded by the
    /// rounds in use; [`Machine::start_round`] drops the others.
    pub(super) fn register_candidate(&mut self, outline: &Outline) {
        let id = outline.header.id();
        self.pulls.done(Want::Candidate(id));
        if self.checkpoint.candidates.contains_key(&id) {
            return;
        }
        let candidate = Candidate {
            missing: outline.txids.iter().copied().collect(),
            outline: outline.clone(),
            bodies: BTreeMap::new(),
            searched_us: None,
            block: None,
            verdict: None,
            persisted: false,
        };
        self.checkpoint.candidates.insert(id, candidate);
    }

    /// Puts a block whose bodies are all here among the candidates.
    pub(super) fn register_block(&mut self, block: Arc<Block>) {
        let id = block.id();
        self.register_candidate(&block.outline());
        if let Some(candidate) = self.checkpoint.candidates.get_mut(&id) {
            candidate.missing.clear();
            candidate.block = Some(block);
        }
    }

    /// Hands a body to the candidates that miss it.
    pub(super) fn fill_candidates(&mut self, transaction: &SharedTransaction) {
        let id = transaction.id();
        for candidate in self.checkpoint.candidates.values_mut() {
            if candidate.missing.remove(&id) {
                candidate.bodies.insert(id, Arc::clone(transaction));
            }
        }
    }

    /// The whole block of a candidate, if its bodies are here; pulls what is missing.
    pub(super) fn complete_candidate(
        &mut self,
        host: &dyn Host,
        id: BlockId,
        from: Option<PeerId>,
    ) -> Option<Arc<Block>> {
        let wanted = self.checkpoint.candidates.get(&id)?;
        if let Some(block) = &wanted.block {
            return Some(Arc::clone(block));
        }
        let now_us = self.now.monotonic_us;
        // Bodies that arrive are handed over one by one; searching for all of them is for the start
        // and for renewing pulls.
        let searched = wanted.searched_us.is_some_and(|at| now_us < at.saturating_add(self.timing.pull_us));
        if searched && !wanted.missing.is_empty() {
            return None;
        }
        let found: Vec<SharedTransaction> =
            wanted.missing.iter().filter_map(|txid| self.find_body(host, txid)).collect();
        let candidate = self.checkpoint.candidates.get_mut(&id)?;
        candidate.searched_us = Some(now_us);
        for transaction in found {
            candidate.missing.remove(&transaction.id());
            candidate.bodies.insert(transaction.id(), transaction);
        }
        if candidate.missing.is_empty() {
            let block = Arc::new(Block {
                header: candidate.outline.header.clone(),
                last_commit: candidate.outline.last_commit.clone(),
                // A map by id yields the ascending order of the outline.
                transactions: std::mem::take(&mut candidate.bodies).into_values().collect(),
            });
            candidate.block = Some(Arc::clone(&block));
            return Some(block);
        }
        let missing: Vec<Txid> = candidate.missing.iter().copied().collect();
        for txid in missing {
            self.pulls.want(Want::Body(txid), from, now_us);
        }
        None
    }

    /// Whether a complete candidate is a valid block, computed once. `None` while bodies are missing.
    pub(super) fn candidate_verdict(&mut self, host: &dyn Host, id: BlockId) -> Option<Result<(), String>> {
        let proposer = self.peers.of_voter(self.current_proposer().unwrap_or(u16::MAX));
        let block = self.complete_candidate(host, id, proposer)?;
        let candidate = self.checkpoint.candidates.get_mut(&id)?;
        let verdict =
            candidate.verdict.get_or_insert_with(|| host.validate(&block).map_err(|fault| fault.to_string()));
        Some(verdict.clone())
    }

    pub(super) fn current_proposer(&self) -> Option<u16> {
        self.context.committee.proposer(self.context.height, self.checkpoint.round)
    }

    // The rules --------------------------------------------------------------------------------------

    /// `messages of round r > round from weight A: start_round(r)`.
    fn try_skip_round(&mut self) -> bool {
        let least = self.context.committee.honest_weight();
        let reached =
            self.checkpoint.rounds.reached_by(&self.context.committee, self.checkpoint.round, least);
        if let Some(round) = reached {
            self.notice_overtaken(round);
            self.start_round(round);
        }
        reached.is_some()
    }

    /// `on Proposal p from proposer(h, p.round)`.
    fn try_prevote(&mut self, host: &dyn Host) -> bool {
        let round = self.checkpoint.round;
        if self.checkpoint.step != RoundStep::Propose {
            return false;
        }
        let known = self.checkpoint.rounds.find(round).and_then(|known| known.proposal.as_ref());
        let Some(id) = known.map(|proposal| proposal.outline.header.id()) else { return false };
        let Some(verdict) = self.candidate_verdict(host, id) else { return false };
        let Some(proposal) = self.checkpoint.rounds.find(round).and_then(|known| known.proposal.clone())
        else {
            return false;
        };
        let judged = if proposal.valid_round == -1 {
            self.judge_fresh(host, &proposal, verdict)
        } else {
            self.judge_again(&proposal, verdict)
        };
        if self.halted.is_some() {
            return false;
        }
        if let Err(reason) = &judged {
            let reason = reason.clone();
            self.note_refusal(&reason);
            self.notice(Notice::ProposalRefused { height: self.context.height, round, reason });
        }
        self.checkpoint.step = RoundStep::Prevote;
        self.cast(Step::Prevote, judged.is_ok().then_some(id));
        true
    }

    /// A fresh proposal: valid, on time, holding everything this node commit-voted, not against the lock.
    fn judge_fresh(
        &self,
        host: &dyn Host,
        proposal: &Proposal,
        verdict: Result<(), String>,
    ) -> Result<(), String> {
        verdict?;
        let outline = &proposal.outline;
        let left_out = self.era.commit_voted.iter().find(|txid| outline.txids.binary_search(txid).is_err());
        if let Some(txid) = left_out.filter(|_| !self.has_bug(Bug::NoSubsetRule)) {
            return Err(format!("the block leaves out {txid}, which this node commit-voted"));
        }
        self.time_ok(host, outline.header.time_ms)?;
        match self.lock_of_rounds() {
            Some((block, round)) if block != outline.header.id() => {
                Err(format!("this node is locked on {block} since round {round}"))
            }
            _ => Ok(()),
        }
    }

    /// `time_ok`: later than the parent and at most `SKEW * 2^round` ahead of the local clock.
    fn time_ok(&self, host: &dyn Host, time_ms: u64) -> Result<(), String> {
        let parent_ms = host.tip().time_ms;
        if time_ms <= parent_ms {
            return Err(format!("block time {time_ms} ms is not after its parent's {parent_ms} ms"));
        }
        let skew_ms = self.timing.skew_ms.saturating_mul(1 << self.checkpoint.round.min(30));
        let latest_ms = self.now.wall_ms.saturating_add(skew_ms);
        if time_ms > latest_ms {
            return Err(format!(
                "block time {time_ms} ms is {} ms ahead of this node's clock, at most {skew_ms} ms are allowed",
                time_ms.saturating_sub(self.now.wall_ms)
            ));
        }
        Ok(())
    }

    /// A re-proposal: a quorum prevoted it in an earlier round, and the lock is not newer.
    fn judge_again(&mut self, proposal: &Proposal, verdict: Result<(), String>) -> Result<(), String> {
        let id = proposal.outline.header.id();
        let pol = proposal.pol.as_ref();
        let backed = pol.is_some_and(|pol| {
            i64::from(pol.round) == i64::from(proposal.valid_round)
                && pol.block == id
                && pol.step == Step::Prevote
        });
        if !backed || i64::from(proposal.valid_round) >= i64::from(self.checkpoint.round) {
            return Err(format!("re-proposal without a prevote quorum of round {}", proposal.valid_round));
        }
        if let Err(fault) = verdict {
            // The quorum contains honest validators, so the software disagrees about validity.
            self.halt(format!(
                "a quorum prevoted block {id} that this software finds invalid ({fault}): compare the versions of \
                 the operators; this node stops voting"
            ));
            return Err(fault);
        }
        match self.lock_of_rounds() {
            Some((block, round)) if block != id && i64::from(round) > i64::from(proposal.valid_round) => {
                Err(format!("this node is locked on {block} since round {round}"))
            }
            _ => Ok(()),
        }
    }

    /// The rules on prevote quorums: lock and precommit in the current round, remember older ones.
    fn try_precommit(&mut self, host: &dyn Host) -> bool {
        let quorum = self.quorum();
        let current = self.checkpoint.round;
        let voting = self.checkpoint.step != RoundStep::Propose;
        let ripe: Vec<(u32, Option<BlockId>)> = self
            .checkpoint
            .rounds
            .iter()
            .filter(|(number, round)| {
                (*number < current || (*number == current && voting)) && !round.pol_used
            })
            .filter_map(|(number, round)| Some((number, round.polled(quorum)?)))
            // A nil quorum only matters while prevoting in the current round.
            .filter(|(number, block)| {
                block.is_some() || (*number == current && self.checkpoint.step == RoundStep::Prevote)
            })
            .collect();
        ripe.into_iter().any(|(number, block)| match block {
            Some(block) => self.use_pol(host, number, block),
            None => {
                self.checkpoint.rounds.at(number).pol_used = true;
                self.checkpoint.step = RoundStep::Precommit;
                self.cast(Step::Precommit, None);
                true
            }
        })
    }

    /// `Q prevotes for B in r, B held, first time`: whether it was held.
    fn use_pol(&mut self, host: &dyn Host, number: u32, block: BlockId) -> bool {
        if !self.checkpoint.candidates.contains_key(&block) {
            self.pulls.want(Want::Candidate(block), None, self.now.monotonic_us);
        }
        match self.candidate_verdict(host, block) {
            None => return false,
            Some(Err(fault)) => {
                self.halt(format!(
                    "a quorum prevoted block {block} that this software finds invalid ({fault}): compare the \
                     versions of the operators; this node stops voting"
                ));
                return false;
            }
            Some(Ok(())) => {}
        }
        let round = self.checkpoint.rounds.at(number);
        round.pol_used = true;
        let pol = round.pol_for(number, block);
        if self.checkpoint.valid.as_ref().is_none_or(|(_, valid_round, _)| number > *valid_round) {
            self.checkpoint.valid = Some((block, number, pol.clone()));
        }
        if number == self.checkpoint.round && self.checkpoint.step == RoundStep::Prevote {
            self.checkpoint.locked = Some((block, number));
            self.checkpoint.step = RoundStep::Precommit;
            self.persist_candidate(block);
            self.persist(Record::Pol(pol));
            self.cast(Step::Precommit, Some(block));
        }
        true
    }

    /// `Q precommits for B in any round: commit(B, Qc)`.
    fn try_decide(&mut self, host: &mut dyn Host) -> bool {
        let quorum = self.quorum();
        let decided = self
            .checkpoint
            .rounds
            .iter()
            .find_map(|(number, round)| Some((number, round.precommits.quorum(quorum).flatten()?)));
        let Some((number, block)) = decided else { return false };
        if !self.checkpoint.candidates.contains_key(&block) {
            self.pulls.want(Want::Candidate(block), None, self.now.monotonic_us);
            return false;
        }
        let Some(whole) = self.complete_candidate(host, block, None) else { return false };
        let qc = self.checkpoint.rounds.at(number).precommits.certificate(number, Step::Precommit, block);
        self.commit(host, &whole, qc)
    }

    /// Timers of the current round. The text arms the prevote timer on `Q prevotes of any kind` in any
    /// step; a timer that fires while the node still waits for the proposal would then be lost and the
    /// round could never end, so it is armed once the node itself prevotes (as Tendermint does).
    fn arm_round_timers(&mut self) {
        let (quorum, now_us) = (self.quorum(), self.now.monotonic_us);
        let number = self.checkpoint.round;
        if self.checkpoint.rounds.find(number).is_none() {
            return;
        }
        let after = |base: u64, step: u64| {
            now_us.saturating_add(base.saturating_add(u64::from(number).saturating_mul(step)))
        };
        let prevoting = self.checkpoint.step == RoundStep::Prevote;
        let round = self.checkpoint.rounds.at(number);
        if prevoting && round.prevotes.total() >= quorum && !round.prevote_timer_armed {
            round.prevote_timer_armed = true;
            self.timers.prevote = Some(after(self.timing.prevote_us, self.timing.prevote_step_us));
        }
        if round.precommits.total() >= quorum && !round.precommit_timer_armed {
            round.precommit_timer_armed = true;
            self.timers.precommit = Some(after(self.timing.precommit_us, self.timing.precommit_step_us));
        }
    }

    // Own votes --------------------------------------------------------------------------------------

    pub(super) fn own_vote(&self, round: u32, step: Step) -> Option<Option<BlockId>> {
        let me = self.me?;
        let votes = self.checkpoint.rounds.find(round)?.votes(step).votes();
        votes.get(&me).map(|(block, _)| *block)
    }

    /// Persists and sends this node's vote of the current round.
    pub(super) fn cast(&mut self, step: Step, block: Option<BlockId>) {
        let round = self.checkpoint.round;
        let (Some(me), None) = (self.signs(), self.own_vote(round, step)) else { return };
        let Some(signer) = &self.signer else { return };
        let era_tag = self.context.era_tag;
        let signature: Signature = signer.sign(&vote_digest(era_tag, round, step, block));
        let vote = Vote { era_tag, round, step, block, voter: me, signature };
        if self.has_bug(Bug::SendsBeforeLogging) {
            self.send(Target::All, Message::Vote(vote.clone()));
        }
        self.persist(Record::Vote(vote.clone()));
        self.send(Target::All, Message::Vote(vote.clone()));
        let (height, at_us) = (self.context.height, self.now.monotonic_us);
        self.notice(Notice::Cast { height, round, step, block, at_us });
        self.add_vote(&vote);
    }

    /// Makes a whole candidate durable with every body the log does not hold yet.
    pub(super) fn persist_candidate(&mut self, id: BlockId) {
        let Some(candidate) = self.checkpoint.candidates.get_mut(&id) else { return };
        let Some(block) = candidate.block.clone().filter(|_| !candidate.persisted) else { return };
        candidate.persisted = true;
        let outline = candidate.outline.clone();
        let unlogged: BTreeSet<Txid> = block
            .transactions
            .iter()
            .map(|tx| tx.id())
            .filter(|id| !self.era.logged_bodies.contains(id))
            .collect();
        let bodies = block
            .transactions
            .iter()
            .filter(|tx| unlogged.contains(&tx.id()))
            .map(|tx| tx.body().clone())
            .collect();
        self.era.logged_bodies.extend(unlogged);
        self.persist(Record::Candidate { outline, bodies });
    }
}
