//! What a proposer does (protocol §4.2): when it may build, and what a block holds.

use super::pulls::Want;
use super::{Machine, RoundStep};
use crate::consensus::host::Host;
use crate::consensus::output::{Notice, Record, Target};
use crate::primitives::certificate::Qc;
use crate::primitives::hash::Txid;
use crate::primitives::keys::Signature;
use crate::primitives::message::{Message, PeerId, Proposal};
use crate::primitives::transaction::{OutPoint, SharedTransaction, TransactionKind, Utxo};
use crate::primitives::vote::Step;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is chosen for a block so far.
#[derive(Default)]
pub(super) struct Selection {
    pub(super) chosen: Vec<SharedTransaction>,
    ids: BTreeSet<Txid>,
    claims: BTreeSet<OutPoint>,
    made: BTreeMap<OutPoint, Utxo>,
    bytes: u64,
    signatures: u64,
}

/// Who is taken of those that exclude each other, greatest first.
type Rank = (bool, u64, Reverse<Txid>);

/// What a block has room for.
struct Room {
    bytes: u64,
    signatures: u64,
}

/// Certificates and bodies a proposer asks for at a time before it builds.
const BACKING_PULLS_MAX: usize = 1024;

impl Machine {
    /// `if I propose: ...` of `start_round`; whether a proposal was made.
    pub(super) fn try_propose(&mut self, host: &mut dyn Host) -> bool {
        let round = self.checkpoint.round;
        let Some(me) = self.signs() else { return false };
        let mine = self.current_proposer() == Some(me) && self.checkpoint.step == RoundStep::Propose;
        let proposed = self.checkpoint.rounds.find(round).is_some_and(|known| known.proposal.is_some());
        if !mine || proposed || self.checkpoint.build_failed == Some(round) {
            return false;
        }
        if !self.has_heard_of_locks() {
            return false;
        }
        if let Some((block, valid_round, pol)) = self.checkpoint.valid.clone() {
            let Some(outline) = self.checkpoint.candidates.get(&block).map(|known| known.outline.clone())
            else {
                return false;
            };
            let valid_round = i32::try_from(valid_round).unwrap_or(i32::MAX);
            self.propose(outline, valid_round, Some(pol));
            return true;
        }
        self.is_ready(host) && self.build_and_propose(host)
    }

    /// `heard_locks()`: whether the highest lock of any honest validator is known here. Each sends the
    /// prevote quorum it is locked on when it enters a round; a proposal made before these arrive may be
    /// one that a validator locked later refuses, and hostile votes can repeat that round after round.
    fn has_heard_of_locks(&mut self) -> bool {
        let (round, quorum) = (self.checkpoint.round, self.quorum());
        let valid_round = self.checkpoint.valid.as_ref().map(|(_, valid_round, _)| *valid_round);
        if round == 0 || valid_round == Some(round - 1) {
            return true;
        }
        let now_us = self.now.monotonic_us;
        let grace_ends = self.checkpoint.round_started_us.saturating_add(self.timing.grace_us);
        // A quorum known of whose block is still pulled.
        let later = |(number, known): (u32, &crate::consensus::rounds::Round)| {
            valid_round.is_none_or(|valid| number > valid)
                && number < round
                && !known.pol_used
                && known.polled(quorum).flatten().is_some()
        };
        let pulling = self.checkpoint.rounds.iter().any(later);
        let due = if pulling { self.backing_deadline() } else { grace_ends };
        if now_us < due {
            self.timers.build = Some(due);
        }
        now_us >= due
    }

    /// Until when a proposer waits for what it pulls: half of the proposal time.
    fn backing_deadline(&self) -> u64 {
        let round = u64::from(self.checkpoint.round);
        let propose_us =
            self.timing.propose_us.saturating_add(round.saturating_mul(self.timing.propose_step_us));
        self.checkpoint.round_started_us.saturating_add(propose_us / 2)
    }

    /// `ready()`: the streams of all voters heard from are complete and carry a quorum, or those of a
    /// quorum are and the grace has passed; and what their commit votes need is here or overdue.
    fn is_ready(&mut self, host: &dyn Host) -> bool {
        if !host.params().fast_path {
            return true;
        }
        let complete = |voter: &u16| {
            self.era.streams.get(usize::from(*voter)).is_some_and(super::super::stream::Stream::is_complete)
        };
        let weight: u64 =
            self.context.committee.indices().filter(complete).map(|voter| self.weight(voter)).sum();
        if weight < self.quorum() {
            return false;
        }
        let now_us = self.now.monotonic_us;
        let grace_ends = self.checkpoint.round_started_us + self.timing.grace_us;
        let all_heard = self.era.heard.iter().all(complete);
        if !all_heard && now_us < grace_ends {
            self.timers.build = Some(grace_ends);
            return false;
        }
        self.commit_votes_are_backed(host)
    }

    /// Whether certificate and body of everything commit-voted in a held stream are here; pulls what is
    /// missing, for at most half the proposal time, and looks again each tick.
    fn commit_votes_are_backed(&mut self, host: &dyn Host) -> bool {
        let now_us = self.now.monotonic_us;
        let deadline = self.backing_deadline();
        if now_us >= deadline {
            return true;
        }
        if self.checkpoint.backing_checked_us.is_some_and(|at| now_us < at + self.timing.tick_us) {
            return false;
        }
        let missing: Vec<Want> = self
            .era
            .ballots
            .iter()
            .filter(|(_, ballot)| ballot.commit.weight() > 0)
            .filter_map(|(txid, ballot)| {
                if !ballot.certified {
                    return Some(Want::Certificate(*txid));
                }
                let held = self.era.bodies.contains_key(txid) || host.body(txid).is_some();
                (!held).then_some(Want::Body(*txid))
            })
            .take(BACKING_PULLS_MAX)
            .collect();
        if missing.is_empty() {
            return true;
        }
        for want in missing {
            let peer = self.a_commit_voter_of(want);
            self.pulls.want(want, peer, now_us);
        }
        self.checkpoint.backing_checked_us = Some(now_us);
        self.timers.build = Some(deadline.min(now_us + self.timing.tick_us));
        false
    }

    /// The connection to a voter that commit-voted it, which must hold what is wanted.
    fn a_commit_voter_of(&self, want: Want) -> Option<PeerId> {
        let (Want::Certificate(txid) | Want::Body(txid)) = want else { return None };
        let voted = |voter: &u16| {
            self.era
                .streams
                .get(usize::from(*voter))
                .is_some_and(|stream| stream.batches().any(|batch| batch.commits.contains(&txid)))
        };
        let voter = self.context.committee.indices().find(voted)?;
        self.peers.of_voter(voter)
    }

    /// `build()`: must, then fill.
    fn build_and_propose(&mut self, host: &mut dyn Host) -> bool {
        let Some(me) = self.me else { return false };
        let Some(id) = self.context.committee.member(me).map(|member| member.id) else { return false };
        let time_ms = self.now.wall_ms.max(host.tip().time_ms + 1);
        let must = self.select_must(host);
        let must_only: Vec<SharedTransaction> = must.chosen.clone();
        let full = self.select_fill(host, must);
        let built = host
            .build(id, time_ms, self.last_certificate(), full.chosen)
            .or_else(|_| host.build(id, time_ms, self.last_certificate(), must_only));
        match built {
            Ok(block) => {
                let block = Arc::new(block);
                let outline = block.outline();
                let block_id = block.id();
                self.register_block(block);
                self.persist_candidate(block_id);
                self.propose(outline, -1, None);
                true
            }
            Err(fault) => {
                let (height, round) = (self.context.height, self.checkpoint.round);
                let reason = format!("own block could not be built: {fault}");
                self.note_refusal(&reason);
                self.notice(Notice::ProposalRefused { height, round, reason });
                self.checkpoint.build_failed = Some(round);
                false
            }
        }
    }

    /// Signs, persists and sends a proposal for the current round.
    fn propose(&mut self, outline: crate::primitives::block::Outline, valid_round: i32, pol: Option<Qc>) {
        let round = self.checkpoint.round;
        let (height, era_tag) = (self.context.height, self.context.era_tag);
        let block = outline.header.id();
        let transactions = outline.header.tx_count;
        let mut proposal =
            Proposal { era_tag, round, valid_round, outline, pol, signature: Signature([0; 64]) };
        let Some(signer) = &self.signer else { return };
        proposal.signature = signer.sign(&proposal.digest());
        self.persist_candidate(block);
        self.persist(Record::Proposal(proposal.clone()));
        self.send(Target::All, Message::Proposal(proposal.clone()));
        self.notice(Notice::Proposed { height, round, block, transactions, own: true });
        self.checkpoint.rounds.add_proposal(proposal, round);
    }

    /// The certificate of the block before, with every precommit seen since.
    fn last_certificate(&self) -> Option<Qc> {
        let last = self.last_commit.as_ref()?;
        let votes = last.votes.iter().map(|(voter, signature)| (*voter, *signature)).collect();
        Some(Qc::new(last.round, Step::Precommit, last.id, votes))
    }

    /// Every transaction commit-voted in a held stream whose certificate, body and in-era parents are
    /// held. What honest voters commit-voted always is: parents precede children in their streams.
    fn select_must(&self, host: &dyn Host) -> Selection {
        let committed =
            self.era.ballots.iter().filter(|(_, vote)| vote.certified && vote.commit.weight() > 0);
        let bodies: Vec<SharedTransaction> =
            committed.filter_map(|(txid, _)| self.find_body(host, txid)).collect();
        let mut selection = Selection::default();
        // Lemma 1: certified transactions never conflict, so nothing is left out unless more than a
        // third of the weight is faulty; and protocol §5 makes them fit.
        let room = Room { bytes: self.room_at_most(host, u64::MAX), signatures: u64::MAX };
        selection.add_with_children(host, &bodies, &room, self.context.height);
        selection
    }

    /// Fills up with pending transactions: special ones, which may use the reserve of a block, then
    /// payments by fee rate. Of those that exclude each other evidence is taken first, then the one
    /// with more prepare weight, then the smaller txid.
    pub(super) fn select_fill(&self, host: &dyn Host, mut selection: Selection) -> Selection {
        let params = host.params();
        let pending = host.pending();
        let mut best: BTreeMap<OutPoint, Rank> = BTreeMap::new();
        let rank = |tx: &SharedTransaction| -> Rank {
            let is_evidence = tx.body().kind == TransactionKind::Evidence;
            (is_evidence, self.era.prepare_weight(&tx.id()), Reverse(tx.id()))
        };
        for transaction in &pending {
            for claim in transaction.claims() {
                let first = best.entry(claim).or_insert_with(|| rank(transaction));
                *first = (*first).max(rank(transaction));
            }
        }
        let wins = |tx: &&SharedTransaction| tx.claims().all(|claim| best.get(&claim) == Some(&rank(tx)));
        // Losers of a conflict come last: they fit only where the winner itself did not.
        let (winners, losers): (Vec<_>, Vec<_>) = pending.iter().partition(wins);
        let (specials, payments): (Vec<_>, Vec<_>) = winners.into_iter().partition(|tx| tx.is_special());
        let whole = Room { bytes: params.block_bytes_max, signatures: params.block_signatures_max };
        let reserve = crate::primitives::params::BLOCK_RESERVE_BYTES;
        let room = Room { bytes: self.room_at_most(host, whole.bytes.saturating_sub(reserve)), ..whole };
        for (group, room) in [(specials, &whole), (payments, &room), (losers, &room)] {
            selection.add_with_children(host, group, room, self.context.height);
        }
        selection
    }
}

impl Selection {
    /// The first input's parent that is neither in the ledger nor chosen.
    fn missing_parent(&self, host: &dyn Host, transaction: &SharedTransaction) -> Option<Txid> {
        transaction
            .spends()
            .find(|outpoint| !self.made.contains_key(outpoint) && host.utxo(outpoint).is_none())
            .map(|outpoint| outpoint.txid)
    }

    /// Adds what is valid and fits, in the order given but parents before children. Cost: linear.
    fn add_with_children<'a>(
        &mut self,
        host: &dyn Host,
        transactions: impl IntoIterator<Item = &'a SharedTransaction>,
        room: &Room,
        height: u64,
    ) {
        let mut blocked: BTreeMap<Txid, Vec<&SharedTransaction>> = BTreeMap::new();
        for transaction in transactions {
            let mut queue = vec![transaction];
            while let Some(next) = queue.pop() {
                if let Some(parent) = self.missing_parent(host, next) {
                    blocked.entry(parent).or_default().push(next);
                } else if self.try_add(host, next, room, height) {
                    queue.extend(blocked.remove(&next.id()).unwrap_or_default());
                }
            }
        }
    }

    /// Adds a transaction if it is valid with what is chosen and fits.
    fn try_add(
        &mut self,
        host: &dyn Host,
        transaction: &SharedTransaction,
        room: &Room,
        height: u64,
    ) -> bool {
        let signatures = transaction.signature_count();
        let fits = self.bytes.saturating_add(transaction.size()) <= room.bytes
            && self.signatures.saturating_add(signatures) <= room.signatures;
        let fresh = !self.ids.contains(&transaction.id())
            && transaction.claims().all(|claim| !self.claims.contains(&claim));
        let resolve = |outpoint: &OutPoint| host.utxo(outpoint).or_else(|| self.made.get(outpoint).copied());
        if !fits || !fresh || host.check_transaction(transaction, &resolve).is_err() {
            return false;
        }
        self.bytes += transaction.size();
        self.signatures += signatures;
        self.ids.insert(transaction.id());
        self.claims.extend(transaction.claims());
        if !transaction.is_special() {
            self.made.extend(transaction.creates(height));
        }
        self.chosen.push(Arc::clone(transaction));
        true
    }
}
