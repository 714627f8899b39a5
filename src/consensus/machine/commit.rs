//! The end of a height (protocol §4.2, `commit`): apply the block, drop the era, enter the next.

use super::era::Era;
use super::trust::Sighted;
use super::{Checkpoint, LastCommit, Machine};
use crate::consensus::host::Host;
use crate::consensus::input::Verified;
use crate::consensus::output::{Notice, Output, Record};
use crate::consensus::planted::Bug;
use crate::consensus::verify::EraContext;
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::{EraTag, era_tag};
use crate::primitives::keys::Signature;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::vote::{Step, Vote};
use std::collections::BTreeMap;
use std::sync::Arc;

impl LastCommit {
    /// The certificate of a tip that was applied in an earlier life; without it no block could follow.
    pub(super) fn of_tip(host: &dyn Host) -> Option<Self> {
        let tip = host.tip();
        let qc = tip.commit?;
        Some(Self {
            era_tag: era_tag(host.chain(), tip.height, tip.parent),
            height: tip.height,
            id: tip.block,
            block: None,
            round: qc.round,
            votes: qc.votes().unwrap_or_default().into_iter().collect(),
            decided_us: 0,
        })
    }
}

impl Machine {
    /// A decided block that was pulled.
    pub(super) fn on_decided(&mut self, host: &mut dyn Host, from: PeerId, pulled: Verified<(Block, Qc)>) {
        if self.halted.is_some() || pulled.era != self.context.era_tag {
            // Decided here in the meantime, or asked for anew under the right committee.
            return;
        }
        let header = &pulled.get().0.header;
        if !self.accepts_pulled(from, Sighted { id: header.id(), time_ms: header.time_ms }) {
            return;
        }
        let (block, qc) = pulled.into_inner();
        let block = Arc::new(block);
        self.examine_past_commit(block.last_commit.as_ref());
        self.register_block(Arc::clone(&block));
        self.commit(host, &block, qc);
        // Further behind: go on at once.
        let height = self.context.height;
        let still_ahead = self.peers.find(&from).is_some_and(|peer| peer.height > height);
        self.pull_block(still_ahead.then_some(from));
    }

    /// `on Commit{B, qc}`: the height of this node is decided.
    pub(super) fn on_commit_certificate(&mut self, host: &mut dyn Host, from: PeerId, height: u64, qc: &Qc) {
        if let Some(peer) = self.peers.find(&from) {
            peer.height = peer.height.max(height.saturating_add(1));
        }
        if height != self.context.height {
            return;
        }
        self.examine_commit(qc);
        if self.halted.is_some() {
            return;
        }
        let known = self.checkpoint.candidates.contains_key(&qc.block);
        match known.then(|| self.complete_candidate(host, qc.block, Some(from))).flatten() {
            Some(block) => {
                self.commit(host, &block, qc.clone());
            }
            None => self.pull_block(Some(from)),
        }
    }

    /// `commit(B, qc)`; whether the height ended.
    pub(super) fn commit(&mut self, host: &mut dyn Host, block: &Arc<Block>, qc: Qc) -> bool {
        let id = block.id();
        if !self.may_adopt(id) {
            return false;
        }
        if let Some(Err(fault)) = self.candidate_verdict(host, id) {
            self.halt(format!(
                "a quorum decided block {id} that this software finds invalid ({fault}): update, or compare the \
                 versions of the operators"
            ));
            return false;
        }
        self.look_at_commits(block, &qc);
        self.examine_commit(&qc);
        if let Some(txid) = self.left_out_final(block) {
            self.halt_over_left_out(txid, block);
            return false;
        }
        self.notice_attendance(&qc);
        self.notice_payment_votes(host, block);
        self.notice_convictions(host, block);
        self.persist_candidate(id);
        self.persist(Record::Decided(qc.clone()));
        if let Err(fault) = host.commit(block, &qc) {
            self.halt(format!("block {id} could not be applied: {fault}"));
            return false;
        }
        self.collect_last_commit(block, &qc);
        self.cases.look_again();
        self.offences.end_era(self.context.era_tag, &self.checkpoint.rounds, &qc);
        let had_seat = self.me.is_some();
        self.enter_next_era(host);
        if !self.replaying {
            let next = Arc::clone(&self.context.committee);
            self.outputs.push(Output::Committed { block: Arc::clone(block), qc, next });
            if had_seat != self.me.is_some() {
                self.notice_seat(host);
            }
            let due = self.future.take(self.context.era_tag);
            if !due.is_empty() {
                self.outputs.push(Output::Replay(due));
            }
            self.review_standing(host);
            self.prepare_pending(host);
        }
        true
    }

    fn collect_last_commit(&mut self, block: &Arc<Block>, qc: &Qc) {
        let mut votes: BTreeMap<u16, Signature> = qc.votes().unwrap_or_default().into_iter().collect();
        if let Some(round) = self.checkpoint.rounds.find(qc.round) {
            let further = round.precommits.votes().iter().filter(|(_, (voted, _))| *voted == Some(qc.block));
            votes.extend(further.map(|(voter, (_, signature))| (*voter, *signature)));
        }
        self.last_commit = Some(LastCommit {
            era_tag: self.context.era_tag,
            height: self.context.height,
            id: qc.block,
            block: Some(Arc::clone(block)),
            round: qc.round,
            votes,
            decided_us: self.now.monotonic_us,
        });
    }

    /// Says that this node votes from now on, or does not.
    fn notice_seat(&mut self, host: &dyn Host) {
        let Some(key) = self.signer.as_ref().map(|signer| signer.public()) else { return };
        let status = host.masternode_of(&key).map(|own| own.status);
        self.notice(Notice::Seat { height: self.context.height, voter: self.me, status });
    }

    /// Drops everything of the era and starts the next.
    fn enter_next_era(&mut self, host: &dyn Host) {
        let next = EraContext::after(self.context.chain, &host.tip());
        let committee = self.next_committee(&next.committee);
        self.context = Arc::new(EraContext { planted: self.context.planted, committee, ..next });
        let committee = &self.context.committee;
        self.me = self.signer.as_ref().and_then(|signer| committee.index_of(&signer.public()));
        self.trust.end_height();
        self.peers.assign(committee);
        self.era = Era::new(committee, host.params(), self.now.monotonic_us, self.timing.era_us);
        self.checkpoint = Checkpoint::default();
        self.checkpoint.watch.entered_behind = self.peers.best_height() > self.context.height;
        self.pulls.clear();
        self.timers.clear_round();
        self.timers.era_end = Some(self.now.monotonic_us.saturating_add(self.timing.era_us));
        // Tells those who missed the decision at once.
        self.timers.status = Some(self.now.monotonic_us);
    }

    /// Whether a message is one of the height before that still matters: a vote, or a certificate for
    /// another block than the one decided.
    pub(super) fn is_of_last_height(&self, message: &Message, tag: EraTag) -> bool {
        matches!(message, Message::Vote(_) | Message::Commit { .. }) && self.is_past(tag)
    }

    /// Whether an era tag is of the era just ended; older ones cannot be told from unknown ones and
    /// are dropped with those when the next era begins.
    pub(super) fn is_past(&self, tag: EraTag) -> bool {
        self.last_commit.as_ref().is_some_and(|last| last.era_tag == tag)
    }

    /// A message of the height before.
    pub(super) fn on_late(&mut self, message: &Message) {
        match message {
            Message::Vote(vote) => {
                self.examine_past_vote(vote);
                self.on_late_vote(vote);
            }
            Message::Commit { height, qc } => self.on_fork(*height, qc),
            _ => {}
        }
    }

    /// Keeps a late precommit for the next block's last commit.
    fn on_late_vote(&mut self, vote: &Vote) {
        if self.has_bug(Bug::LatePrecommitsIgnored) {
            return;
        }
        let Some(last) = &mut self.last_commit else { return };
        let of_decision = vote.step == Step::Precommit && vote.round == last.round;
        let matches = of_decision && vote.block == Some(last.id);
        if matches && !last.votes.contains_key(&vote.voter) {
            last.votes.insert(vote.voter, vote.signature);
            let (height, voter) = (last.height, vote.voter);
            let late_us = self.now.monotonic_us.saturating_sub(last.decided_us);
            self.notice(Notice::LatePrecommit { height, voter, late_us });
        }
    }
}
