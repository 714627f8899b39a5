//! The fast path (protocol §4.1): prepare, count, commit-vote, flush, freeze.

use super::Machine;
use super::admission::output_of;
use super::era::Ballot;
use super::pulls::Want;
use super::weights::tally_once;
use crate::consensus::cause::Gap;
use crate::consensus::host::Host;
use crate::consensus::output::{Notice, Output, Record, Target};
use crate::consensus::planted::Bug;
use crate::consensus::stream::Insertion;
use crate::consensus::verify::BATCH_VOTES_MAX;
use crate::light::claim::FinalityClaim;
use crate::primitives::certificate::Certificate;
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::Txid;
use crate::primitives::keys::Signature;
use crate::primitives::merkle::Phase;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{OutPoint, SharedTransaction, TxStatus, Utxo};
use crate::primitives::vote::VoteBatch;
use std::cmp::Reverse;
use std::sync::Arc;

/// Batches that may be sent before one has to wait for the next tick; with one a tick on average it
/// stays within what receivers allow (protocol §8).
const FLUSH_BURST: u64 = 2;

impl Machine {
    // prepare(T) ------------------------------------------------------------------------------------

    /// Prepares `txid` if the rules allow, then everything that waited for it.
    pub(super) fn prepare_with_children(&mut self, host: &mut dyn Host, txid: Txid) {
        let mut queue = vec![txid];
        while let Some(txid) = queue.pop() {
            let Some(transaction) = self.find_body(host, &txid) else { continue };
            if self.prepare(host, &transaction) {
                queue.extend(host.children(&txid).iter().map(|child| child.id()));
            }
        }
    }

    /// Prepares a transaction; whether it was prepared just now.
    fn prepare(&mut self, host: &mut dyn Host, transaction: &SharedTransaction) -> bool {
        let id = transaction.id();
        let may_vote = host.params().fast_path && self.started && self.signs().is_some();
        let voted = self.era.ballots.get(&id).is_some_and(|ballot| ballot.prepared);
        if !may_vote || voted || transaction.is_special() {
            return false;
        }
        if let Err(gap) = self.may_prepare(host, transaction) {
            self.era.gaps.not_prepared(id, gap);
            return false;
        }
        self.lock(transaction);
        self.era.out_prepares.push(id);
        host.pin(&id);
        self.mark(host, &id, TxStatus::Prepared);
        true
    }

    /// What a Prepare requires of this era; takes from the pacing bucket last.
    fn may_prepare(&mut self, host: &dyn Host, transaction: &SharedTransaction) -> Result<(), Gap> {
        let id = transaction.id();
        if !self.is_voting_open() {
            return Err(Gap::Frozen);
        }
        let free = |outpoint| self.era.locks.get(&outpoint).is_none_or(|holder| *holder == id);
        if !transaction.spends().all(free) && !self.has_bug(Bug::NoInputLock) {
            return Err(Gap::Conflict);
        }
        if self.era.bytes + transaction.size() > host.params().era_bytes && !self.has_bug(Bug::NoBudget) {
            return Err(Gap::Budget);
        }
        let fee = self.check_for_vote(host, transaction).map_err(|reason| Gap::of_rejection(&reason))?;
        self.fits_budget(host, transaction, fee.units())
    }

    /// Everything a Prepare requires of amounts, keys and inputs: an input is in the ledger, or made by
    /// a parent that was prepared here or certified.
    fn check_for_vote(
        &self,
        host: &dyn Host,
        transaction: &SharedTransaction,
    ) -> Result<crate::primitives::amount::Amount, Rejection> {
        host.check_transaction(transaction, &|outpoint| {
            host.utxo(outpoint).or_else(|| self.open_output(host, outpoint))
        })
    }

    fn open_output(&self, host: &dyn Host, outpoint: &OutPoint) -> Option<Utxo> {
        if !self.era.is_open(&outpoint.txid) {
            return None;
        }
        output_of(&self.find_body(host, &outpoint.txid)?, outpoint, self.context.height)
    }

    /// The era's budget and its pacing (protocol §5). What the pacing holds back is tried again at
    /// each tick, highest fee rate first.
    fn fits_budget(&mut self, host: &dyn Host, transaction: &SharedTransaction, fee: u64) -> Result<(), Gap> {
        let (size, signatures) = (transaction.size(), transaction.signature_count());
        let params = host.params();
        if self.has_bug(Bug::NoBudget) {
            return Ok(());
        }
        if self.era.bytes + size > params.era_bytes
            || self.era.signatures + signatures > params.era_signatures
        {
            return Err(Gap::Budget);
        }
        let key = (Reverse(fee_rate(fee, size)), transaction.id());
        if self.era.bucket.take(size, self.now.monotonic_us) {
            self.era.paced.remove(&key);
            return Ok(());
        }
        self.era.paced.insert(key);
        Err(Gap::Paced)
    }

    /// Takes the locks of a transaction this node votes for and keeps its body.
    pub(super) fn lock(&mut self, transaction: &SharedTransaction) {
        let id = transaction.id();
        for outpoint in transaction.spends() {
            self.era.locks.insert(outpoint, id);
        }
        self.era.bytes += transaction.size();
        self.era.signatures += transaction.signature_count();
        self.era.ballots.entry(id).or_default().prepared = true;
        self.era.keep_body(transaction);
    }

    /// Prepares what waited for the pacing bucket, as far as it has filled.
    pub(super) fn retry_paced(&mut self, host: &mut dyn Host) {
        if self.era.frozen {
            self.era.paced.clear();
        }
        while let Some(key) = self.era.paced.first().copied() {
            self.era.paced.remove(&key);
            self.prepare_with_children(host, key.1);
            if self.era.paced.contains(&key) {
                break;
            }
        }
    }

    // count(b) --------------------------------------------------------------------------------------

    /// `on VoteBatch b`.
    pub(super) fn on_batch(&mut self, host: &mut dyn Host, from: Option<PeerId>, batch: VoteBatch) {
        if self.me == Some(batch.voter) {
            if self.is_own_batch(&batch) {
                return;
            }
            // It counts all the same: whoever the chain lets sign with this key is a voter like any other.
            self.sight(format!("vote batch {}", batch.sequence));
        }
        let source = self.peers.of_voter(batch.voter).or(from);
        let batch = Arc::new(batch);
        let votes_max = self.era.votes_max;
        let Some(stream) = self.era.streams.get_mut(usize::from(batch.voter)) else { return };
        match stream.insert(&batch, votes_max) {
            Insertion::Duplicate | Insertion::Excess => return,
            Insertion::Equivocation(excluded) => self.accuse_of_batches(&batch, &excluded),
            Insertion::New => {}
        }
        // What is certified already is proven by earlier batches.
        let certified = |txid: &Txid| self.era.ballots.get(txid).is_some_and(|ballot| ballot.certified);
        if !batch.prepares.iter().all(certified) {
            self.era.unlogged_batches.push(Arc::clone(&batch));
        }
        self.count(host, &batch, source);
    }

    /// An answer to `GetStream`.
    pub(super) fn on_stream(&mut self, host: &mut dyn Host, from: PeerId, batches: Vec<VoteBatch>) {
        for batch in batches {
            if batch.era_tag == self.context.era_tag {
                self.pulls.done(Want::Stream(batch.voter));
                self.on_batch(host, Some(from), batch);
            }
        }
    }

    /// Whether a batch of the own key is in the log. If it is not, its signature proves that the log is
    /// old or that the key signs elsewhere.
    fn is_own_batch(&self, batch: &VoteBatch) -> bool {
        let own = self.era.streams.get(usize::from(batch.voter));
        own.and_then(|stream| stream.batch(batch.sequence)).is_some_and(|held| **held == *batch)
    }

    /// Adds a batch to the tallies and acts on quorums.
    pub(super) fn count(&mut self, host: &mut dyn Host, batch: &Arc<VoteBatch>, source: Option<PeerId>) {
        let (weight, quorum) = (self.weight(batch.voter), self.quorum());
        let again = self.has_bug(Bug::VoterCountedTwice);
        let (mut certified, mut decided, mut fresh) = (Vec::new(), Vec::new(), Vec::new());
        for txid in &batch.prepares {
            let ballot = self.era.ballots.entry(*txid).or_insert_with(|| {
                fresh.push(*txid);
                Ballot::default()
            });
            tally_once(&mut ballot.prepare, batch.voter, weight, again);
            if !ballot.certified && ballot.prepare.weight() >= quorum {
                ballot.certified = true;
                certified.push(*txid);
            }
        }
        for txid in &batch.commits {
            let ballot = self.era.ballots.entry(*txid).or_insert_with(|| {
                fresh.push(*txid);
                Ballot::default()
            });
            if tally_once(&mut ballot.commit, batch.voter, weight, again) && !ballot.is_final {
                ballot.commit_batches.push(Arc::clone(batch));
            }
            if !ballot.is_final && ballot.commit.weight() >= quorum {
                ballot.is_final = true;
                decided.push(*txid);
            }
        }
        self.want_unknown_bodies(host, &fresh, source);
        self.examine_payment_votes(host, batch, &fresh);
        self.notice(Notice::Votes {
            voter: batch.voter,
            sequence: batch.sequence,
            last: batch.last,
            prepares: u32::try_from(batch.prepares.len()).unwrap_or(u32::MAX),
            commits: u32::try_from(batch.commits.len()).unwrap_or(u32::MAX),
            own: self.me == Some(batch.voter) && source.is_none(),
        });
        for txid in certified {
            self.on_certified(host, txid);
        }
        for txid in decided {
            self.on_final(host, txid);
        }
        self.hear(batch.voter);
    }

    /// Asks the voter for bodies of what was voted on here for the first time, after a tick: most
    /// arrive by themselves.
    fn want_unknown_bodies(&mut self, host: &dyn Host, txids: &[Txid], source: Option<PeerId>) {
        if self.replaying {
            return;
        }
        let due_us = self.now.monotonic_us + self.timing.tick_us;
        for txid in txids {
            if !self.era.bodies.contains_key(txid) && host.body(txid).is_none() {
                self.pulls.want_for_vote(*txid, source, due_us);
            }
        }
    }

    /// Asks again for bodies of certified payments that nobody has delivered.
    pub(super) fn want_certified_bodies(&mut self, host: &dyn Host) {
        let missing: Vec<Txid> = self
            .era
            .ballots
            .iter()
            .filter(|(txid, ballot)| ballot.certified && !self.era.bodies.contains_key(txid))
            .map(|(txid, _)| *txid)
            .filter(|txid| host.body(txid).is_none())
            .collect();
        for txid in missing {
            self.pulls.want(Want::Body(txid), None, self.now.monotonic_us);
        }
    }

    fn on_certified(&mut self, host: &mut dyn Host, txid: Txid) {
        self.mark(host, &txid, TxStatus::Certified);
        self.notice(Notice::Certified { txid });
        if self.has_bug(Bug::FinalAtPrepareQuorum) {
            self.on_final(host, txid);
        }
        if let Some(transaction) = self.find_body(host, &txid) {
            self.on_certified_body(host, &transaction);
        }
        self.commit_vote_with_children(host, txid);
        // A certified parent opens its outputs even where this node did not prepare it.
        if !self.replaying {
            for child in host.children(&txid) {
                self.prepare_with_children(host, child.id());
            }
        }
    }

    fn on_final(&mut self, host: &mut dyn Host, txid: Txid) {
        self.mark(host, &txid, TxStatus::Final);
        if !self.replaying {
            self.announce_final(host, txid);
        }
    }

    /// Tells that a payment is final, with the batches that made it so.
    pub(super) fn announce_final(&mut self, host: &dyn Host, txid: Txid) {
        let transaction = self.find_body(host, &txid);
        let ballot = self.era.ballots.get_mut(&txid);
        let claim = FinalityClaim {
            txid,
            transaction,
            header: Arc::clone(&self.context.header),
            committee: Arc::clone(&self.context.committee),
            batches: ballot.map(|ballot| std::mem::take(&mut ballot.commit_batches)).unwrap_or_default(),
        };
        self.outputs.push(Output::Final { height: self.context.height, txid, claim });
    }

    /// A vote of `voter` was seen in this era; freezes once the voters known to be frozen carry weight
    /// `A`, which contains an honest one.
    pub(super) fn hear(&mut self, voter: VoterIndex) {
        self.era.heard.insert(voter);
    }

    /// Whether voters of weight `A` have ended their streams or take part in rounds.
    pub(super) fn era_has_ended(&self) -> bool {
        let ended = |voter: &VoterIndex| {
            self.era.round_voters.contains(voter)
                || self
                    .era
                    .streams
                    .get(usize::from(*voter))
                    .is_some_and(super::super::stream::Stream::has_ended)
        };
        let weight: u64 =
            self.era.heard.iter().filter(|voter| ended(voter)).map(|voter| self.weight(*voter)).sum();
        weight >= self.context.committee.honest_weight()
    }

    // commit_vote(T) --------------------------------------------------------------------------------

    /// Commit-votes `txid` if the rules allow, then its certified children: parents first.
    pub(super) fn commit_vote_with_children(&mut self, host: &mut dyn Host, txid: Txid) {
        let mut queue = vec![txid];
        while let Some(txid) = queue.pop() {
            if self.commit_vote(host, txid) {
                queue.extend(self.era.children(txid));
            }
        }
    }

    /// Commit-votes; whether it did so just now.
    fn commit_vote(&mut self, host: &dyn Host, txid: Txid) -> bool {
        let certified = self.era.ballots.get(&txid).is_some_and(|ballot| ballot.certified);
        let may_vote = self.started && self.signs().is_some();
        if !may_vote || !certified || self.era.commit_voted.contains(&txid) {
            return false;
        }
        if !self.is_voting_open() {
            self.era.gaps.not_commit_voted(txid, Gap::Frozen);
            return false;
        }
        let Some(transaction) = self.find_body(host, &txid) else {
            self.era.gaps.not_commit_voted(txid, Gap::NoBody);
            let now_us = self.now.monotonic_us;
            self.pulls.want(Want::Body(txid), None, now_us);
            return false;
        };
        // `commit_voted` stays closed under in-era parents.
        let parent_ready = |outpoint: OutPoint| {
            host.utxo(&outpoint).is_some() || self.era.commit_voted.contains(&outpoint.txid)
        };
        if !transaction.spends().all(parent_ready) && !self.has_bug(Bug::ParentsIgnored) {
            self.era.gaps.not_commit_voted(txid, Gap::Parent);
            return false;
        }
        let conflict = |outpoint| self.era.commit_spends.get(&outpoint).filter(|by| **by != txid).copied();
        if let Some(other) = transaction.spends().find_map(conflict) {
            self.on_conflicting_certificates(host, &transaction, other);
            return false;
        }
        self.add_commit_vote(&transaction);
        self.era.out_commits.push(txid);
        true
    }

    /// Adds to `CV`.
    pub(super) fn add_commit_vote(&mut self, transaction: &SharedTransaction) {
        self.era.keep_body(transaction);
        self.era.commit_voted.insert(transaction.id());
        for outpoint in transaction.spends() {
            self.era.commit_spends.insert(outpoint, transaction.id());
        }
    }

    /// A prepare certificate that was pulled.
    pub(super) fn on_certificate(&mut self, host: &mut dyn Host, certificate: Certificate) {
        let txid = certificate.txid;
        self.pulls.done(Want::Certificate(txid));
        self.examine_certificate(&certificate);
        // Asked for only: a certificate for something nobody voted for is no news worth keeping.
        let (committee, quorum) = (Arc::clone(&self.context.committee), self.quorum());
        let Some(ballot) = self.era.ballots.get_mut(&txid) else { return };
        if certificate.phase != Phase::Prepare || ballot.certified {
            return;
        }
        for proof in &certificate.proofs {
            ballot.prepare.add(proof.voter, committee.weight(proof.voter));
        }
        ballot.certified = ballot.prepare.weight() >= quorum;
        if ballot.certified {
            self.era.certificates.insert(txid, certificate);
            self.era.unlogged_certificates.insert(txid);
            self.judge_rivals(txid);
            self.on_certified(host, txid);
        }
    }

    // flush, freeze ---------------------------------------------------------------------------------

    /// When the votes waiting to be sent are due: at once while there is credit, else at the tick.
    pub(super) fn flush_due(&self) -> Option<u64> {
        let waiting = !self.era.out_prepares.is_empty() || !self.era.out_commits.is_empty();
        let paced = !self.era.paced.is_empty() && !self.era.frozen;
        let tick_us = self.timing.tick_us.max(1);
        if !waiting {
            return paced.then_some(self.now.monotonic_us + tick_us);
        }
        let earned = (self.now.monotonic_us.saturating_sub(self.era.flush_credit_us)) / tick_us;
        let due = if self.era.flush_credit + earned > 0 {
            self.now.monotonic_us
        } else {
            self.era.flush_credit_us + tick_us
        };
        Some(due)
    }

    /// Sends the votes collected as one batch (several if they exceed what a batch may hold): bodies,
    /// supporting votes and the batch are persisted before it is sent.
    pub(super) fn flush(&mut self, host: &mut dyn Host, last: bool) {
        let Some(me) = self.signs() else {
            self.era.out_prepares.clear();
            self.era.out_commits.clear();
            return;
        };
        self.spend_flush_credit();
        loop {
            let prepares = take_front(&mut self.era.out_prepares);
            let commits = take_front(&mut self.era.out_commits);
            let more = !self.era.out_prepares.is_empty() || !self.era.out_commits.is_empty();
            let batch = self.sign_batch(me, last && !more, prepares, commits);
            self.persist_batch(host, &batch);
            self.send(Target::All, Message::VoteBatch(batch.clone()));
            let batch = Arc::new(batch);
            if let Some(stream) = self.era.streams.get_mut(usize::from(me)) {
                // A node never exceeds its own budget, so its own limits cannot refuse it.
                stream.insert(&batch, usize::MAX / 4);
            }
            self.count(host, &batch, None);
            if !more {
                break;
            }
        }
    }

    fn spend_flush_credit(&mut self) {
        let tick_us = self.timing.tick_us.max(1);
        let earned = self.now.monotonic_us.saturating_sub(self.era.flush_credit_us) / tick_us;
        if self.era.flush_credit + earned >= FLUSH_BURST {
            self.era.flush_credit = FLUSH_BURST;
            self.era.flush_credit_us = self.now.monotonic_us;
        } else {
            self.era.flush_credit += earned;
            self.era.flush_credit_us += earned * tick_us;
        }
        self.era.flush_credit = self.era.flush_credit.saturating_sub(1);
    }

    fn sign_batch(
        &mut self,
        me: VoterIndex,
        last: bool,
        prepares: Vec<Txid>,
        commits: Vec<Txid>,
    ) -> VoteBatch {
        let mut batch = VoteBatch {
            era_tag: self.context.era_tag,
            voter: me,
            sequence: self.era.next_sequence,
            last,
            prepares,
            commits,
            signature: Signature([0; 64]),
        };
        if let Some(signer) = &self.signer {
            batch.signature = signer.sign(&batch.digest());
        }
        self.era.next_sequence += 1;
        batch
    }

    /// Protocol §3: bodies of everything voted for, and `P(h,T)` of every commit vote, are durable
    /// before the batch is sent.
    fn persist_batch(&mut self, host: &dyn Host, batch: &VoteBatch) {
        for txid in batch.prepares.iter().chain(&batch.commits) {
            self.persist_body(host, txid);
        }
        if !batch.commits.is_empty() && !self.has_bug(Bug::UnloggedCertificate) {
            for supporting in std::mem::take(&mut self.era.unlogged_batches) {
                self.persist(Record::PeerBatch((*supporting).clone()));
            }
            for txid in std::mem::take(&mut self.era.unlogged_certificates) {
                if let Some(certificate) = self.era.certificates.get(&txid).cloned() {
                    self.persist(Record::Prepared(certificate));
                }
            }
        }
        self.persist(Record::OwnBatch(batch.clone()));
    }

    /// Puts a body into the log of this height, once.
    pub(super) fn persist_body(&mut self, host: &dyn Host, txid: &Txid) {
        if self.era.logged_bodies.contains(txid) {
            return;
        }
        if let Some(transaction) = self.find_body(host, txid) {
            self.era.logged_bodies.insert(*txid);
            self.persist(Record::Body(transaction.body().clone()));
        }
    }

    /// Ends the era for this node: its last batch, then the rounds.
    pub(super) fn freeze(&mut self, host: &mut dyn Host) {
        if self.era.frozen {
            return;
        }
        self.timers.era_end = None;
        let era_us = self.now.monotonic_us.saturating_sub(self.era.started_us);
        self.notice(Notice::Frozen { height: self.context.height, era_us });
        // Frozen before the last batch is counted: nothing may be voted that the batch does not hold.
        self.era.frozen = true;
        if host.params().fast_path {
            self.flush(host, true);
        }
        self.start_round(0);
    }
}

fn take_front(list: &mut Vec<Txid>) -> Vec<Txid> {
    let rest = list.split_off(list.len().min(BATCH_VOTES_MAX));
    std::mem::replace(list, rest)
}

/// Units per 1000 bytes.
fn fee_rate(fee: u64, size: u64) -> u64 {
    u64::try_from(u128::from(fee) * 1000 / u128::from(size.max(1))).unwrap_or(u64::MAX)
}
