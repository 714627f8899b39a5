//! Restart (protocol §3): the log of the current height replayed. Locks, commit votes, frozen and the
//! lock of the rounds are derived from what this node had sent, so they cannot disagree with it.

use super::exchange::record_name;
use super::{Machine, RoundStep};
use crate::consensus::host::Host;
use crate::consensus::output::{Record, Target};
use crate::consensus::planted::Bug;
use crate::consensus::stream::Insertion;
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::Txid;
use crate::primitives::message::{Message, Proposal};
use crate::primitives::transaction::SealedTransaction;
use crate::primitives::vote::{Step, Vote, VoteBatch};
use std::sync::Arc;

/// A log that does not fit the chain or itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vote log at height {height}, {record}: {fault}")]
pub struct RestoreError {
    /// Height of the log.
    pub height: u64,
    /// Kind of the record.
    pub record: &'static str,
    /// What is wrong.
    pub fault: String,
}

impl Machine {
    /// Replays the log. Records of heights already applied are skipped; a `Decided` record applies its
    /// block to the host. Returns the blocks so applied, in order, for the store.
    ///
    /// # Errors
    /// [`RestoreError`] when the log contradicts itself or the chain: the node must not sign.
    pub fn restore(
        &mut self,
        host: &mut dyn Host,
        records: Vec<(u64, Record)>,
    ) -> Result<Vec<(Arc<Block>, Qc)>, RestoreError> {
        self.replaying = true;
        let mut applied = Vec::new();
        for (height, record) in records {
            let name = record_name(&record);
            let fail = |fault: String| RestoreError { height, record: name, fault };
            if height < self.context.height {
                continue;
            }
            if height > self.context.height {
                let expected = self.context.height;
                return Err(fail(format!("the log of height {expected} has no decision before it")));
            }
            if let Some(decided) = self.replay(host, record).map_err(fail)? {
                applied.push(decided);
            }
        }
        self.replaying = false;
        self.outputs.clear();
        match &self.halted {
            Some(reason) => {
                Err(RestoreError { height: self.context.height, record: "replay", fault: reason.clone() })
            }
            None => Ok(applied),
        }
    }

    fn replay(&mut self, host: &mut dyn Host, record: Record) -> Result<Option<(Arc<Block>, Qc)>, String> {
        match record {
            Record::Body(body) => {
                let transaction = SealedTransaction::new(body);
                self.era.logged_bodies.insert(transaction.id());
                self.era.keep_body(&transaction);
            }
            Record::OwnBatch(batch) => self.replay_own_batch(host, batch)?,
            Record::PeerBatch(batch) => self.replay_peer_batch(host, batch),
            Record::Prepared(certificate) => {
                self.era.ballots.entry(certificate.txid).or_default();
                let txid = certificate.txid;
                self.on_certificate(host, certificate);
                self.era.unlogged_certificates.remove(&txid);
            }
            Record::Candidate { outline, bodies } => {
                let id = outline.header.id();
                self.register_candidate(&outline);
                for body in bodies {
                    let transaction = SealedTransaction::new(body);
                    self.era.logged_bodies.insert(transaction.id());
                    // A later candidate may rest on this record for the same body.
                    self.era.keep_body(&transaction);
                }
                if self.complete_candidate(host, id, None).is_none() {
                    return Err(format!("bodies of block {id} are missing"));
                }
                if let Some(candidate) = self.checkpoint.candidates.get_mut(&id) {
                    candidate.persisted = true;
                }
            }
            Record::Proposal(proposal) => self.replay_proposal(proposal)?,
            Record::Pol(qc) => self.count_pol(&qc),
            Record::Vote(vote) => self.replay_own_vote(&vote)?,
            Record::Decided(qc) => return self.replay_decision(host, qc).map(Some),
        }
        Ok(None)
    }

    fn replay_own_batch(&mut self, host: &mut dyn Host, batch: VoteBatch) -> Result<(), String> {
        self.check_own(batch.era_tag == self.context.era_tag, Some(batch.voter))?;
        let resets = self.has_bug(Bug::RestartResetsSequence);
        let due = batch.sequence == self.era.next_sequence || resets;
        if !due || self.era.frozen {
            return Err(format!("batch {} where {} is due", batch.sequence, self.era.next_sequence));
        }
        for txid in &batch.prepares {
            let transaction = self.logged_body(txid)?;
            if !self.has_bug(Bug::RestartForgetsInputLocks) {
                self.lock(&transaction);
            }
            host.pin(txid);
        }
        for txid in &batch.commits {
            let transaction = self.logged_body(txid)?;
            if !self.has_bug(Bug::RestartForgetsCommits) {
                self.add_commit_vote(&transaction);
            }
        }
        self.era.next_sequence = if resets { 0 } else { self.era.next_sequence + 1 };
        self.era.frozen = batch.last && !self.has_bug(Bug::RestartForgetsLast);
        let batch = Arc::new(batch);
        if let Some(stream) = self.era.streams.get_mut(usize::from(batch.voter)) {
            stream.insert(&batch, usize::MAX / 4);
        }
        self.count(host, &batch, None);
        Ok(())
    }

    fn replay_peer_batch(&mut self, host: &mut dyn Host, batch: VoteBatch) {
        let batch = Arc::new(batch);
        if let Some(stream) = self.era.streams.get_mut(usize::from(batch.voter)) {
            // Within limits when it was received. Of a voter that sent two versions perhaps only one is
            // in the log, which shifts the limits; a vote that counts must be held, or the certificate
            // that rests on it could not be shown.
            if let Insertion::Equivocation(excluded) = stream.insert(&batch, usize::MAX / 4) {
                self.accuse_of_batches(&batch, &excluded);
            }
            self.count(host, &batch, None);
        }
    }

    fn replay_proposal(&mut self, proposal: Proposal) -> Result<(), String> {
        self.check_own(proposal.era_tag == self.context.era_tag, self.me)?;
        self.era.frozen = true;
        self.enter_replayed_round(proposal.round);
        let round = proposal.round;
        self.register_candidate(&proposal.outline);
        self.checkpoint.rounds.add_proposal(proposal, round);
        Ok(())
    }

    fn replay_own_vote(&mut self, vote: &Vote) -> Result<(), String> {
        self.check_own(vote.era_tag == self.context.era_tag, Some(vote.voter))?;
        // Without the fast path there is no last batch; the first vote shows that the era had ended.
        self.era.frozen = true;
        self.enter_replayed_round(vote.round);
        self.add_replayed(vote);
        match vote.step {
            Step::Prevote => self.checkpoint.step = self.checkpoint.step.max(RoundStep::Prevote),
            Step::Precommit => {
                self.checkpoint.step = RoundStep::Precommit;
                if let Some(block) = vote.block.filter(|_| !self.has_bug(Bug::RestartForgetsLock)) {
                    self.replay_lock(vote.round, block)?;
                }
            }
        }
        Ok(())
    }

    /// A precommit for a block: its POL precedes it in the log.
    fn replay_lock(&mut self, round: u32, block: crate::primitives::hash::BlockId) -> Result<(), String> {
        let quorum = self.quorum();
        let known = self.checkpoint.rounds.at(round);
        if known.polled(quorum) != Some(Some(block)) {
            return Err(format!("precommit for {block} without its prevote quorum"));
        }
        known.pol_used = true;
        let pol = known.pol_for(round, block);
        self.checkpoint.locked = Some((block, round));
        self.checkpoint.valid = Some((block, round, pol));
        Ok(())
    }

    fn enter_replayed_round(&mut self, round: u32) {
        if round > self.checkpoint.round {
            self.checkpoint.round = round;
            self.checkpoint.step = RoundStep::Propose;
        }
    }

    fn add_replayed(&mut self, vote: &Vote) {
        let weight = self.weight(vote.voter);
        self.checkpoint.rounds.add_vote(vote, weight, self.checkpoint.round);
    }

    fn replay_decision(&mut self, host: &mut dyn Host, qc: Qc) -> Result<(Arc<Block>, Qc), String> {
        let candidate = self.checkpoint.candidates.get(&qc.block);
        let Some(block) = candidate.and_then(|candidate| candidate.block.clone()) else {
            return Err(format!("decided block {} is not in the log", qc.block));
        };
        self.commit(host, &block, qc.clone());
        match &self.halted {
            Some(reason) => Err(reason.clone()),
            None => Ok((block, qc)),
        }
    }

    fn check_own(&self, same_era: bool, voter: Option<u16>) -> Result<(), String> {
        if !same_era {
            return Err(
                "it is of another history: the vote log and the database do not belong together".to_owned()
            );
        }
        if voter.is_none() || voter != self.me {
            return Err(
                "it is of another voter: the vote log and the vote key do not belong together".to_owned()
            );
        }
        Ok(())
    }

    fn logged_body(&self, txid: &Txid) -> Result<crate::primitives::transaction::SharedTransaction, String> {
        self.era.bodies.get(txid).cloned().ok_or_else(|| format!("the body of {txid} is missing"))
    }

    /// Gives the pool the bodies of the log back.
    pub(super) fn readmit_bodies(&mut self, host: &mut dyn Host) {
        let bodies: Vec<_> = self.era.bodies.values().cloned().collect();
        for transaction in &bodies {
            let fee = host.check_transaction(transaction, &|outpoint| {
                let parent = self.era.bodies.get(&outpoint.txid);
                host.utxo(outpoint)
                    .or_else(|| super::admission::output_of(parent?, outpoint, self.context.height))
            });
            if let Ok(fee) = fee {
                // Refused only when the pool is too small for the node's own votes; the era still
                // holds the body.
                let admitted = host.admit(Arc::clone(transaction), fee, self.now.monotonic_us);
                if admitted.is_ok() {
                    host.pin(&transaction.id());
                }
            }
        }
    }

    /// Protocol §3, restart: own messages of the current height are sent again. Whoever connects later
    /// pulls them by status.
    pub(super) fn send_own_again(&mut self) {
        let Some(me) = self.signs() else { return };
        let stream = self.era.streams.get(usize::from(me));
        let batches: Vec<Message> = stream
            .into_iter()
            .flat_map(|stream| stream.from(0))
            .map(|batch| Message::VoteBatch((**batch).clone()))
            .collect();
        let round = self.checkpoint.round;
        let is_own = self.context.committee.proposer(self.context.height, round) == Some(me);
        let known = self.checkpoint.rounds.find(round).filter(|_| is_own);
        let proposal = known.and_then(|known| known.proposal.clone());
        let votes = [Step::Prevote, Step::Precommit].map(|step| self.votes_not_in(round, step, &[]));
        let own_votes = votes.into_iter().flatten().filter(|vote| vote.voter == me).map(Message::Vote);
        let messages = batches.into_iter().chain(proposal.map(Message::Proposal)).chain(own_votes);
        for message in messages.collect::<Vec<_>>() {
            self.send(Target::All, message);
        }
    }

    /// Says again what was final when the node stopped: the word may have been lost with it.
    pub(super) fn announce_finals(&mut self, host: &dyn Host) {
        let finals = self.era.ballots.iter().filter(|(_, ballot)| ballot.is_final);
        for txid in finals.map(|(txid, _)| *txid).collect::<Vec<_>>() {
            self.announce_final(host, txid);
        }
    }

    /// After `Start` of an era not yet frozen: votes go on.
    pub(super) fn resume_era(&mut self, host: &mut dyn Host) {
        let certified: Vec<Txid> =
            self.era.ballots.iter().filter(|(_, ballot)| ballot.certified).map(|(txid, _)| *txid).collect();
        for txid in certified {
            self.commit_vote_with_children(host, txid);
        }
        self.prepare_pending(host);
    }
}
