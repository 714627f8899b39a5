//! Offences (protocol §10): whatever arrives with a valid signature is held against what the same key
//! signed before, and two statements that exclude each other become evidence.
//!
//! Only messages whose signatures were checked against the committee of their era get here. Everyone is
//! proved guilty at most once an era. This node's own key is no case for it: what that signed elsewhere
//! ends its signing (see `standing`), and others will prove it.

use super::Machine;
use crate::consensus::conflicts::{Contested, VoteBook};
use crate::consensus::host::{Host, Tip};
use crate::consensus::output::{Notice, Output};
use crate::consensus::rounds::Rounds;
use crate::primitives::block::Block;
use crate::primitives::certificate::{Certificate, Qc};
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::evidence::{BatchHead, Evidence, Offence, ProposalHead, VoteHead};
use crate::primitives::hash::{EraTag, Txid};
use crate::primitives::merkle::Phase;
use crate::primitives::message::Proposal;
use crate::primitives::transaction::{OutPoint, SharedTransaction};
use crate::primitives::vote::{Step, Vote, VoteBatch, VoteProof};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What is remembered to find offences, and of whom one was proved.
#[derive(Debug, Default)]
pub(super) struct Offences {
    /// Of whom something was proved in this era or the one before.
    proved: BTreeSet<(EraTag, VoterIndex)>,
    /// Payments of this era that have rivals.
    contested: Contested,
    /// Precommits of this height that came in commit certificates.
    commits: VoteBook,
    /// Votes of the height before.
    past: VoteBook,
    /// Found while the log was replayed, told after the start.
    untold: Vec<Notice>,
}

impl Offences {
    /// What is known of the height before when a node starts: its commit certificate.
    pub(super) fn at(tip: &Tip) -> Self {
        let mut offences = Self::default();
        for (round, step, voter, vote) in tip.commit.iter().flat_map(votes_of) {
            offences.past.note(round, step, voter, vote);
        }
        offences
    }

    /// A height was decided: of it the votes are kept until the next one is.
    pub(super) fn end_era(&mut self, ended: EraTag, rounds: &Rounds, qc: &Qc) {
        self.proved.retain(|(era_tag, _)| *era_tag == ended);
        self.contested = Contested::default();
        self.past = std::mem::take(&mut self.commits);
        for (round, step, voter, vote) in rounds.votes().chain(votes_of(qc)) {
            self.past.note(round, step, voter, vote);
        }
    }
}

/// The single votes in a certificate.
fn votes_of(qc: &Qc) -> impl Iterator<Item = (u32, Step, VoterIndex, VoteHead)> + use<> {
    let (round, step, block) = (qc.round, qc.step, Some(qc.block));
    let votes = qc.votes().unwrap_or_default().into_iter();
    votes.map(move |(voter, signature)| (round, step, voter, VoteHead { block, signature }))
}

impl Machine {
    // Votes and proposals of rounds --------------------------------------------------------------------

    /// A second vote of a round and step.
    pub(super) fn accuse_of_votes(&mut self, vote: &Vote) {
        let held = self.checkpoint.rounds.vote_of(vote.round, vote.step, vote.voter);
        let new = VoteHead { block: vote.block, signature: vote.signature };
        if let Some(held) = held {
            self.accuse_of_pair(self.context.era_tag, vote.round, vote.step, vote.voter, [held, new]);
        }
    }

    fn accuse_of_pair(
        &mut self,
        era_tag: EraTag,
        round: u32,
        step: Step,
        voter: VoterIndex,
        mut votes: [VoteHead; 2],
    ) {
        votes.sort_by_key(|vote| vote.signature.0);
        self.accuse(era_tag, voter, Offence::Votes { round, step, votes });
    }

    /// A second proposal of a round.
    pub(super) fn accuse_of_proposals(&mut self, proposer: VoterIndex, proposal: &Proposal) {
        let Some(held) = self.checkpoint.rounds.proposal_of(proposal.round) else { return };
        let mut proposals = [held, ProposalHead::of(proposal)];
        proposals.sort_by_key(|proposal| proposal.signature.0);
        let round = proposal.round;
        self.accuse(self.context.era_tag, proposer, Offence::Proposals { round, proposals });
    }

    /// A valid commit certificate of the current height: its votes count as the single ones.
    pub(super) fn examine_commit(&mut self, qc: &Qc) {
        for (round, step, voter, vote) in votes_of(qc) {
            let held = self.checkpoint.rounds.vote_of(round, step, voter);
            let noted = self.offences.commits.note(round, step, voter, vote);
            if let Some(other) = held.filter(|held| held.block != vote.block).or(noted) {
                self.accuse_of_pair(self.context.era_tag, round, step, voter, [other, vote]);
            }
        }
    }

    /// A valid commit certificate of the height before, as blocks carry it.
    pub(super) fn examine_past_commit(&mut self, qc: Option<&Qc>) {
        for (round, step, voter, vote) in qc.into_iter().flat_map(votes_of) {
            self.examine_past(round, step, voter, vote);
        }
    }

    /// A valid vote of the height before.
    pub(super) fn examine_past_vote(&mut self, vote: &Vote) {
        let head = VoteHead { block: vote.block, signature: vote.signature };
        self.examine_past(vote.round, vote.step, vote.voter, head);
    }

    fn examine_past(&mut self, round: u32, step: Step, voter: VoterIndex, vote: VoteHead) {
        let Some((era_tag, _)) = self.context.previous_era else { return };
        if let Some(held) = self.offences.past.note(round, step, voter, vote) {
            self.accuse_of_pair(era_tag, round, step, voter, [held, vote]);
        }
    }

    /// A valid commit certificate for another block than the one decided here at the height before:
    /// the chain has forked, which takes more than a third of the weight.
    pub(super) fn on_fork(&mut self, height: u64, qc: &Qc) {
        self.examine_past_commit(Some(qc));
        let here = self.context.previous;
        let there = qc.block;
        let proved = self.proved_names();
        self.halt(format!(
            "blocks {here} and {there} of height {height} both carry a commit quorum: more than a third of the \
             voting weight is faulty; {proved}; this node stops voting, compare with other operators"
        ));
    }

    // Streams ------------------------------------------------------------------------------------------

    /// A batch that another one of the same voter excludes.
    pub(super) fn accuse_of_batches(&mut self, batch: &VoteBatch, excluded: &VoteBatch) {
        // Hashing whole batches is for the first time only.
        if self.is_proved(batch.voter) {
            return;
        }
        self.accuse_of_heads(BatchHead::of(excluded), BatchHead::of(batch));
    }

    fn accuse_of_heads(&mut self, one: BatchHead, other: BatchHead) {
        let voter = one.voter;
        let ordered = one.signature.0 <= other.signature.0;
        let (first, second) = if ordered { (one, other) } else { (other, one) };
        self.accuse(self.context.era_tag, voter, Offence::Batches(first, second));
    }

    /// A valid prepare certificate: each vote in it names a batch of its voter, and a payment.
    pub(super) fn examine_certificate(&mut self, certificate: &Certificate) {
        let (phase, txid) = (certificate.phase, certificate.txid);
        for proof in &certificate.proofs {
            let held = self
                .era
                .streams
                .get(usize::from(proof.voter))
                .and_then(|stream| stream.excluded_by(proof.sequence, proof.last, &proof.signature));
            if let (Some(held), Some(head)) = (held, BatchHead::of_proof(proof, phase, &txid)) {
                self.accuse_of_heads(BatchHead::of(&held), head);
            }
            for rival in self.offences.contested.rivals(&txid) {
                if self.has_voted(proof.voter, phase, &rival) {
                    self.accuse_of_payments(proof.voter, phase, (txid, Some(proof.clone())), rival);
                }
            }
        }
    }

    // Payments that share an input ---------------------------------------------------------------------

    /// After votes were counted: looks for rivals of what was voted on for the first time, and for
    /// voters of two rivals. Cost: one look into the pool a payment; nothing more unless there is a
    /// rival.
    pub(super) fn examine_payment_votes(&mut self, host: &dyn Host, batch: &VoteBatch, fresh: &[Txid]) {
        for txid in fresh {
            if let Some(transaction) = self.find_body(host, txid) {
                self.find_rivals(host, &transaction);
            }
        }
        if self.offences.contested.is_empty() {
            return;
        }
        for txid in batch.prepares.iter().chain(&batch.commits) {
            self.judge_rivals(*txid);
        }
    }

    /// The body of a payment that was voted on is at hand.
    pub(super) fn find_rivals(&mut self, host: &dyn Host, transaction: &SharedTransaction) {
        let id = transaction.id();
        let mut contested = false;
        for outpoint in transaction.spends() {
            let rivals = self.spenders(host, &outpoint, id);
            if rivals.is_empty() || !self.is_voted_by_unproved(&id) {
                continue;
            }
            contested = true;
            for rival in rivals.iter().chain([transaction]) {
                self.offences.contested.add(outpoint, rival);
            }
        }
        if contested {
            self.judge_rivals(id);
        }
    }

    /// Every other payment known that spends `outpoint`.
    fn spenders(&self, host: &dyn Host, outpoint: &OutPoint, but: Txid) -> Vec<SharedTransaction> {
        let era = &self.era;
        let held = [&era.locks, &era.certified_spends, &era.commit_spends];
        let mut ids: BTreeSet<Txid> =
            held.iter().filter_map(|spends| spends.get(outpoint)).copied().collect();
        ids.extend(self.offences.contested.spenders(outpoint));
        ids.extend(host.spenders(outpoint));
        ids.remove(&but);
        let contested = &self.offences.contested;
        ids.iter().filter_map(|id| contested.body(id).cloned().or_else(|| self.find_body(host, id))).collect()
    }

    /// Whether anyone voted for it of whom nothing is proved: votes of others prove nothing new.
    fn is_voted_by_unproved(&self, txid: &Txid) -> bool {
        let Some(ballot) = self.era.ballots.get(txid) else { return false };
        ballot.prepare.voters().chain(ballot.commit.voters()).any(|voter| !self.is_proved(voter))
    }

    /// Accuses who voted for `txid` and for a payment that shares an output with it.
    pub(super) fn judge_rivals(&mut self, txid: Txid) {
        for rival in self.offences.contested.rivals(&txid) {
            for phase in [Phase::Prepare, Phase::Commit] {
                for voter in self.voters_of_both(phase, &txid, &rival) {
                    self.accuse_of_payments(voter, phase, (txid, None), rival);
                }
            }
        }
    }

    fn voters_of_both(&self, phase: Phase, one: &Txid, other: &Txid) -> Vec<VoterIndex> {
        let (Some(one), Some(other)) = (self.era.ballots.get(one), self.era.ballots.get(other)) else {
            return Vec::new();
        };
        one.tally(phase).common(other.tally(phase)).filter(|voter| !self.is_proved(*voter)).collect()
    }

    fn has_voted(&self, voter: VoterIndex, phase: Phase, txid: &Txid) -> bool {
        self.era.ballots.get(txid).is_some_and(|ballot| ballot.tally(phase).contains(voter))
    }

    /// `one` comes with the vote for it if that is in no batch held.
    fn accuse_of_payments(
        &mut self,
        voter: VoterIndex,
        phase: Phase,
        one: (Txid, Option<VoteProof>),
        other: Txid,
    ) {
        if self.is_proved(voter) {
            return;
        }
        let contested = &self.offences.contested;
        let (one, at_hand) = one;
        let first = at_hand.or_else(|| self.vote_proof(voter, phase, &one));
        let second = self.vote_proof(voter, phase, &other);
        let bodies = (contested.body(&one), contested.body(&other));
        let (Some(first), Some(second), (Some(a), Some(b))) = (first, second, bodies) else { return };
        let mut sides = [(one, first, a.body().clone()), (other, second, b.body().clone())];
        sides.sort_by_key(|(txid, _, _)| *txid);
        let [(_, first, a), (_, second, b)] = sides;
        let offence = Offence::Payments { phase, votes: [first, second], transactions: Box::new([a, b]) };
        self.accuse(self.context.era_tag, voter, offence);
    }

    /// The vote of `voter` for `txid`, from its stream or from a certificate that was pulled.
    fn vote_proof(&self, voter: VoterIndex, phase: Phase, txid: &Txid) -> Option<VoteProof> {
        let in_stream =
            self.era.streams.get(usize::from(voter)).and_then(|stream| stream.vote_for(phase, txid));
        in_stream.or_else(|| {
            let pulled = self.era.certificates.get(txid).filter(|pulled| pulled.phase == phase)?;
            pulled.proofs.iter().find(|proof| proof.voter == voter).cloned()
        })
    }

    // More than a third is faulty ----------------------------------------------------------------------

    /// A quorum prepared `transaction` and `other`, which share an input.
    pub(super) fn on_conflicting_certificates(
        &mut self,
        host: &dyn Host,
        transaction: &SharedTransaction,
        other: Txid,
    ) {
        self.find_rivals(host, transaction);
        let (txid, proved) = (transaction.id(), self.proved_names());
        self.halt(format!(
            "transactions {other} and {txid} spend the same output and both carry a prepare quorum: more \
             than a third of the voting weight is faulty; {proved}; this node stops voting, compare with other \
             operators"
        ));
    }

    /// A payment that is final but not in `block`, which a quorum decided.
    pub(super) fn left_out_final(&self, block: &Block) -> Option<Txid> {
        let held = |txid: &Txid| block.transactions.binary_search_by_key(txid, |held| held.id()).is_ok();
        let mut finals = self.era.ballots.iter().filter(|(_, ballot)| ballot.is_final);
        finals.find(|(txid, _)| !held(txid)).map(|(txid, _)| *txid)
    }

    /// Halts over it. A proposal of round 0 is fresh, so who prevoted for the block there broke the
    /// subset rule if it had commit-voted the payment.
    pub(super) fn halt_over_left_out(&mut self, txid: Txid, block: &Block) {
        let id = block.id();
        let committed = |voter: &VoterIndex| self.has_voted(*voter, Phase::Commit, &txid);
        let prevoted = |voter: &VoterIndex| {
            let vote = self.checkpoint.rounds.vote_of(0, Step::Prevote, *voter);
            vote.is_some_and(|vote| vote.block == Some(id))
        };
        let both = self.context.committee.indices().filter(committed).filter(prevoted);
        let names: Vec<&str> = both.filter_map(|voter| name_of(&self.context.committee, voter)).collect();
        let broke = match names.as_slice() {
            [] => "who prevoted it against its own commit vote is not known here".to_owned(),
            names => format!("{} prevoted it against their own commit votes", names.join(", ")),
        };
        let proved = self.proved_names();
        self.halt(format!(
            "block {id} was decided without transaction {txid}, which is final: more than a third of the voting \
             weight is faulty; {broke}; {proved}; this node stops voting, compare with other operators"
        ));
    }

    /// Of whom something is proved in this era or the one before, as a clause.
    fn proved_names(&self) -> String {
        let names: BTreeSet<&str> = self
            .offences
            .proved
            .iter()
            .filter_map(|(era_tag, voter)| name_of(self.committee_of(*era_tag)?, *voter))
            .collect();
        if names.is_empty() {
            return "of nobody it is proved here".to_owned();
        }
        format!("there is evidence against {}", names.into_iter().collect::<Vec<_>>().join(", "))
    }

    // Evidence -----------------------------------------------------------------------------------------

    fn committee_of(&self, era_tag: EraTag) -> Option<&Arc<Committee>> {
        if era_tag == self.context.era_tag {
            return Some(&self.context.committee);
        }
        self.context.previous_era.as_ref().filter(|(tag, _)| *tag == era_tag).map(|(_, committee)| committee)
    }

    /// Whether something of this era is proved of `voter`.
    fn is_proved(&self, voter: VoterIndex) -> bool {
        self.offences.proved.contains(&(self.context.era_tag, voter))
    }

    /// Tells what `voter` did in an era, once.
    fn accuse(&mut self, era_tag: EraTag, voter: VoterIndex, offence: Offence) {
        let Some(member) = self.committee_of(era_tag).and_then(|committee| committee.member(voter)) else {
            return;
        };
        let own = self.signer.as_ref().is_some_and(|signer| signer.public() == member.vote_key);
        let (offender, vote_key, name) = (member.id, member.vote_key, member.name.clone());
        let evidence = Evidence { offender, vote_key, era_tag, offence };
        // One statement signed twice is no offence.
        if own || evidence.checks().is_err() || !self.offences.proved.insert((era_tag, voter)) {
            return;
        }
        let evidence = Arc::new(evidence);
        self.cases.open(&evidence);
        let notice = Notice::Equivocation { name, evidence };
        if self.replaying {
            self.offences.untold.push(notice);
        } else {
            self.notice(notice);
        }
    }

    /// Tells what was found while the log was replayed.
    pub(super) fn tell_untold_offences(&mut self) {
        let untold = std::mem::take(&mut self.offences.untold);
        self.outputs.extend(untold.into_iter().map(Output::Notice));
    }
}

fn name_of(committee: &Committee, voter: VoterIndex) -> Option<&str> {
    committee.member(voter).map(|member| member.name.as_str())
}
