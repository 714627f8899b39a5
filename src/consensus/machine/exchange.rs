//! Status and answers to pulls: how nodes that missed something catch up within a height.

use super::Machine;
use super::pulls::{IDS_MAX, Want};
use crate::consensus::host::Host;
use crate::consensus::output::{Record, Target};
use crate::primitives::block::Outline;
use crate::primitives::certificate::Certificate;
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::{BlockId, Txid};
use crate::primitives::merkle::Phase;
use crate::primitives::message::{Message, PeerId, Status};
use crate::primitives::vote::{Step, Vote};

/// Bytes of bodies or batches in one answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Bytes of waiting transactions sent to a peer that just connected.
const OFFER_BYTES_MAX: u64 = 4 << 20;

/// Bytes a vote takes in an answer.
const VOTE_BYTES: usize = 40;

/// Price of a certificate in answer bytes: finding its proofs reads whole streams.
const CERTIFICATE_COST: u64 = 64 << 10;

/// About what an outline encodes to.
fn outline_bytes(outline: &Outline) -> u64 {
    1024 + 32 * u64::try_from(outline.txids.len()).unwrap_or(u64::MAX / 64)
}

impl Machine {
    /// What this node has of the current height.
    pub(super) fn status(&self) -> Status {
        let round = self.checkpoint.round;
        let known = self.checkpoint.rounds.find(round);
        Status {
            height: self.context.height,
            previous: self.context.previous,
            round,
            has_proposal: known.is_some_and(|round| round.proposal.is_some()),
            prevotes: known.map(|round| round.prevotes.bitmap()).unwrap_or_default(),
            precommits: known.map(|round| round.precommits.bitmap()).unwrap_or_default(),
            stream_heads: self.era.stream_heads(),
        }
    }

    /// A peer said what it has: pull what it is ahead with, send what it lacks.
    pub(super) fn on_status(&mut self, host: &mut dyn Host, from: PeerId, status: &Status) {
        let now_us = self.now.monotonic_us;
        let Some(peer) = self.peers.find(&from) else { return };
        peer.height = status.height;
        self.hear_status(host, from, status);
        let Some(peer) = self.peers.find(&from) else { return };
        // Answering costs more than asking: at most four times in the usual interval.
        let early = peer.answered_us.is_some_and(|at| now_us < at.saturating_add(self.timing.status_us / 4));
        let height = self.context.height;
        if status.height > height {
            // Nor is anybody pulled from more often for saying so more often.
            let pull = |at: u64| now_us >= at.saturating_add(self.timing.status_us / 4);
            if peer.pulled_us.is_none_or(pull) {
                peer.pulled_us = Some(now_us);
                self.pull_block(Some(from));
            }
            return;
        }
        if early {
            return;
        }
        if let Some(peer) = self.peers.find(&from) {
            peer.answered_us = Some(now_us);
        }
        if status.height < height {
            self.send_commit(host, from, status.height);
        } else if status.previous == self.context.previous {
            self.pull_streams(from, &status.stream_heads);
            self.send_missing_of_rounds(from, status);
        } else {
            // It says that another block was decided before: what was decided here proves who is wrong.
            self.send_commit(host, from, height.saturating_sub(1));
        }
    }

    /// To a peer one height below, the certificate it lacks; from further below it pulls blocks by
    /// this node's own status.
    fn send_commit(&mut self, host: &dyn Host, to: PeerId, height: u64) {
        let tip = host.tip();
        if let (true, Some(qc)) = (tip.height == height, tip.commit) {
            self.send(Target::Peer(to), Message::Commit { height, qc });
        } else {
            let status = Message::Status(self.status());
            self.send(Target::Peer(to), status);
        }
    }

    fn pull_streams(&mut self, from: PeerId, heads: &[u32]) {
        let now_us = self.now.monotonic_us;
        for (voter, head) in self.context.committee.indices().zip(heads) {
            let held = self.era.streams.get(usize::from(voter)).map_or(0, super::super::stream::Stream::head);
            // Of this node's own stream too: a longer one elsewhere proves that the key signs elsewhere.
            if *head > held {
                self.pulls.want(Want::Stream(voter), Some(from), now_us);
            }
        }
    }

    /// Proposal and votes of this node's round that the peer lacks, and the POL it may need.
    fn send_missing_of_rounds(&mut self, to: PeerId, status: &Status) {
        let round = self.checkpoint.round;
        if !self.era.frozen || status.round > round {
            return;
        }
        let same_round = status.round == round;
        let mut messages = Vec::new();
        if !same_round && let Some((_, _, pol)) = &self.checkpoint.valid {
            messages.push(Message::Pol { era_tag: self.context.era_tag, qc: pol.clone() });
        }
        if let Some(known) = self.checkpoint.rounds.find(round) {
            if let Some(proposal) = known.proposal.clone().filter(|_| !(same_round && status.has_proposal))
                && self.peers.may_answer(&to, outline_bytes(&proposal.outline), self.now.monotonic_us)
            {
                messages.push(Message::Proposal(proposal));
            }
            let none = Vec::new();
            for (step, held) in [(Step::Prevote, &status.prevotes), (Step::Precommit, &status.precommits)] {
                let held = if same_round { held } else { &none };
                messages.extend(self.votes_not_in(round, step, held).into_iter().map(Message::Vote));
            }
        }
        if status.round < round {
            // An older round of the peer may still lack votes for a decision.
            let below = [Step::Prevote, Step::Precommit].map(|step| {
                let held = if step == Step::Prevote { &status.prevotes } else { &status.precommits };
                self.votes_not_in(status.round, step, held)
            });
            messages.extend(below.into_iter().flatten().map(Message::Vote));
        }
        for message in messages {
            self.send(Target::Peer(to), message);
        }
    }

    pub(super) fn votes_not_in(&self, round: u32, step: Step, bitmap: &[u8]) -> Vec<Vote> {
        let Some(known) = self.checkpoint.rounds.find(round) else { return Vec::new() };
        let lacks = |voter: VoterIndex| {
            bitmap.get(usize::from(voter) / 8).is_none_or(|byte| byte & (1 << (voter % 8)) == 0)
        };
        known
            .votes(step)
            .votes()
            .iter()
            .filter(|(voter, _)| lacks(**voter))
            .map(|(voter, (block, signature))| Vote {
                era_tag: self.context.era_tag,
                round,
                step,
                block: *block,
                voter: *voter,
                signature: *signature,
            })
            .collect()
    }

    // Answers ----------------------------------------------------------------------------------------

    pub(super) fn answer_transactions(&mut self, host: &dyn Host, to: PeerId, txids: &[Txid]) {
        let (mut bodies, mut bytes) = (Vec::new(), 0usize);
        for txid in txids.iter().take(IDS_MAX) {
            let Some(transaction) = self.any_body(host, txid) else { continue };
            if !self.peers.may_answer(&to, transaction.size(), self.now.monotonic_us) {
                break;
            }
            bytes = bytes.saturating_add(usize::try_from(transaction.size()).unwrap_or(usize::MAX));
            bodies.push(transaction.body().clone());
            if bytes >= ANSWER_BYTES_MAX {
                self.send(Target::Peer(to), Message::Transactions(std::mem::take(&mut bodies)));
                bytes = 0;
            }
        }
        if !bodies.is_empty() {
            self.send(Target::Peer(to), Message::Transactions(bodies));
        }
    }

    /// Sends a peer that just connected what waits in the pool, best fee rate first: what was accepted
    /// while nobody was connected would otherwise reach nobody.
    pub(super) fn offer_pending(&mut self, host: &dyn Host, to: PeerId) {
        let mut offered = 0u64;
        let pending: Vec<Txid> = host
            .pending()
            .iter()
            .take_while(|transaction| {
                offered = offered.saturating_add(transaction.size());
                offered <= OFFER_BYTES_MAX
            })
            .map(|transaction| transaction.id())
            .collect();
        for txids in pending.chunks(IDS_MAX) {
            self.answer_transactions(host, to, txids);
        }
    }

    /// A body from the era, the pool, a candidate or the block just decided.
    fn any_body(
        &self,
        host: &dyn Host,
        txid: &Txid,
    ) -> Option<crate::primitives::transaction::SharedTransaction> {
        let in_block = |block: &crate::primitives::block::Block| {
            let place = block.transactions.binary_search_by_key(txid, |tx| tx.id()).ok()?;
            block.transactions.get(place).cloned()
        };
        self.find_body(host, txid)
            .or_else(|| {
                self.checkpoint.candidates.values().find_map(|candidate| {
                    candidate.bodies.get(txid).cloned().or_else(|| in_block(candidate.block.as_deref()?))
                })
            })
            .or_else(|| in_block(self.last_commit.as_ref()?.block.as_deref()?))
    }

    pub(super) fn answer_stream(&mut self, to: PeerId, voter: VoterIndex, from: u32) {
        let Some(stream) = self.era.streams.get(usize::from(voter)) else { return };
        let (mut batches, mut bytes) = (Vec::new(), 0usize);
        for batch in stream.from(from) {
            bytes += 128 + VOTE_BYTES * (batch.prepares.len() + batch.commits.len());
            batches.push((**batch).clone());
            if bytes >= ANSWER_BYTES_MAX {
                break;
            }
        }
        let cost = u64::try_from(bytes).unwrap_or(u64::MAX);
        if !batches.is_empty() && self.peers.may_answer(&to, cost, self.now.monotonic_us) {
            self.send(Target::Peer(to), Message::Stream(batches));
        }
    }

    pub(super) fn answer_certificate(&mut self, to: PeerId, txid: &Txid) {
        if !self.peers.may_answer(&to, CERTIFICATE_COST, self.now.monotonic_us) {
            return;
        }
        if let Some(certificate) = self.prepare_certificate(txid) {
            let era_tag = self.context.era_tag;
            self.send(Target::Peer(to), Message::Certificate { era_tag, certificate });
        }
    }

    /// `P(h,T)` from the streams, or as it was pulled.
    fn prepare_certificate(&self, txid: &Txid) -> Option<Certificate> {
        if !self.era.ballots.get(txid)?.certified {
            return None;
        }
        if let Some(pulled) = self.era.certificates.get(txid) {
            return Some(pulled.clone());
        }
        let proofs = self
            .era
            .streams
            .iter()
            .filter_map(|stream| stream.prepared_in(txid)?.proof(Phase::Prepare, txid))
            .collect();
        Some(Certificate { txid: *txid, phase: Phase::Prepare, proofs })
    }

    pub(super) fn answer_candidate(&mut self, to: PeerId, block: BlockId) {
        if let Some(candidate) = self.checkpoint.candidates.get(&block) {
            let cost = outline_bytes(&candidate.outline);
            if !self.peers.may_answer(&to, cost, self.now.monotonic_us) {
                return;
            }
            let (era_tag, outline) = (self.context.era_tag, candidate.outline.clone());
            self.send(Target::Peer(to), Message::Candidate { era_tag, outline });
        }
    }
}

/// What a log record is for, in errors.
pub(super) fn record_name(record: &Record) -> &'static str {
    match record {
        Record::OwnBatch(_) => "own vote batch",
        Record::Body(_) => "transaction body",
        Record::PeerBatch(_) => "supporting vote batch",
        Record::Prepared(_) => "prepare certificate",
        Record::Candidate { .. } => "candidate block",
        Record::Proposal(_) => "own proposal",
        Record::Pol(_) => "prevote quorum",
        Record::Vote(_) => "own vote",
        Record::Decided(_) => "decision",
    }
}
