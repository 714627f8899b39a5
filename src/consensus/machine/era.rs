//! State of the fast path of one era (protocol §3, §4.1); dropped as a whole when the era ends.

use super::gaps::Gaps;
use crate::consensus::stream::Stream;
use crate::consensus::tally::Tally;
use crate::primitives::certificate::Certificate;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::hash::Txid;
use crate::primitives::merkle::Phase;
use crate::primitives::params::Params;
use crate::primitives::transaction::{OutPoint, SharedTransaction};
use crate::primitives::vote::VoteBatch;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The least a signed transfer encodes to; bounds how many prepares fit an era (protocol §8).
pub(super) const TRANSACTION_BYTES_MIN: u64 = 200;

/// Votes on one transaction.
#[derive(Clone, Debug, Default)]
pub(super) struct Ballot {
    pub(super) prepare: Tally,
    pub(super) commit: Tally,
    /// This node prepared it.
    pub(super) prepared: bool,
    /// A quorum prepared it.
    pub(super) certified: bool,
    /// A quorum commit-voted it.
    pub(super) is_final: bool,
    /// The batch each Commit vote came in, until the payment is told to be final.
    pub(super) commit_batches: Vec<Arc<VoteBatch>>,
}

impl Ballot {
    /// The votes of a phase of voting.
    pub(super) fn tally(&self, phase: Phase) -> &Tally {
        match phase {
            Phase::Commit => &self.commit,
            Phase::Prepare | Phase::Body => &self.prepare,
        }
    }
}

/// Token bucket over bytes: spreads an era's budget over the era (protocol §5, pacing).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    tokens: u64,
    capacity: u64,
    per_second: u64,
    at_us: u64,
}

impl Bucket {
    /// Rate `L / ERA`, burst `L / 8`.
    fn new(era_bytes: u64, era_us: u64, now_us: u64) -> Self {
        let capacity = era_bytes / 8;
        let per_second = u128::from(era_bytes) * 1_000_000 / u128::from(era_us.max(1));
        Self {
            tokens: capacity,
            capacity,
            per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
            at_us: now_us,
        }
    }

    /// Begins to fill at `now_us`.
    pub(super) fn start(&mut self, now_us: u64) {
        self.at_us = now_us;
    }

    /// Takes `bytes` if they are there.
    pub(super) fn take(&mut self, bytes: u64, now_us: u64) -> bool {
        let earned = u128::from(now_us.saturating_sub(self.at_us)) * u128::from(self.per_second) / 1_000_000;
        // Time is used up only as far as it earned whole tokens, or fast polling would starve it.
        if earned > 0 {
            let earned = u64::try_from(earned).unwrap_or(u64::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(self.capacity);
            self.at_us = now_us;
        }
        let enough = self.tokens >= bytes;
        if enough {
            self.tokens -= bytes;
        }
        enough
    }
}

/// What is known and was voted in the current era.
#[derive(Debug)]
pub(super) struct Era {
    pub(super) started_us: u64,
    pub(super) frozen: bool,
    /// One Prepare per outpoint and era.
    pub(super) locks: BTreeMap<OutPoint, Txid>,
    pub(super) ballots: BTreeMap<Txid, Ballot>,
    /// Bodies of what this node voted for or a quorum certified; independent of pool eviction.
    pub(super) bodies: BTreeMap<Txid, SharedTransaction>,
    /// Known transactions after the transaction they spend from.
    children: BTreeSet<(Txid, Txid)>,
    pub(super) streams: Vec<Stream>,
    /// `CV`: what this node commit-voted, and the outputs that spends.
    pub(super) commit_voted: BTreeSet<Txid>,
    pub(super) commit_spends: BTreeMap<OutPoint, Txid>,
    /// Outputs spent by certified transactions.
    pub(super) certified_spends: BTreeMap<OutPoint, Txid>,
    pub(super) out_prepares: Vec<Txid>,
    pub(super) out_commits: Vec<Txid>,
    pub(super) next_sequence: u32,
    /// Batches that may be sent at once; refilled by one a tick up to two.
    pub(super) flush_credit: u64,
    pub(super) flush_credit_us: u64,
    pub(super) bytes: u64,
    pub(super) signatures: u64,
    pub(super) bucket: Bucket,
    /// Waiting for the pacing bucket, highest fee rate first.
    pub(super) paced: BTreeSet<(Reverse<u64>, Txid)>,
    /// Bodies in the log of this height.
    pub(super) logged_bodies: BTreeSet<Txid>,
    /// Batches of others not yet in the log: they may support a certificate relied on.
    pub(super) unlogged_batches: Vec<Arc<VoteBatch>>,
    /// Prepare certificates that were pulled, and which of them are in the log.
    pub(super) certificates: BTreeMap<Txid, Certificate>,
    pub(super) unlogged_certificates: BTreeSet<Txid>,
    /// Voters heard from, and those of them that take part in the rounds.
    pub(super) heard: BTreeSet<VoterIndex>,
    pub(super) round_voters: BTreeSet<VoterIndex>,
    /// Prepares a voter may cast in an era.
    pub(super) votes_max: usize,
    /// Why this node did not vote for payments.
    pub(super) gaps: Gaps,
}

impl Era {
    /// A fresh era of `committee` that begins at `now_us` and lasts `era_us`.
    pub(super) fn new(committee: &Committee, params: &Params, now_us: u64, era_us: u64) -> Self {
        Self {
            started_us: now_us,
            frozen: false,
            locks: BTreeMap::new(),
            ballots: BTreeMap::new(),
            bodies: BTreeMap::new(),
            children: BTreeSet::new(),
            streams: vec![Stream::default(); committee.len()],
            commit_voted: BTreeSet::new(),
            commit_spends: BTreeMap::new(),
            certified_spends: BTreeMap::new(),
            out_prepares: Vec::new(),
            out_commits: Vec::new(),
            next_sequence: 0,
            flush_credit: 2,
            flush_credit_us: now_us,
            bytes: 0,
            signatures: 0,
            bucket: Bucket::new(params.era_bytes, era_us, now_us),
            paced: BTreeSet::new(),
            logged_bodies: BTreeSet::new(),
            unlogged_batches: Vec::new(),
            certificates: BTreeMap::new(),
            unlogged_certificates: BTreeSet::new(),
            heard: BTreeSet::new(),
            round_voters: BTreeSet::new(),
            votes_max: usize::try_from(params.era_bytes / TRANSACTION_BYTES_MIN).unwrap_or(usize::MAX),
            gaps: Gaps::default(),
        }
    }

    /// Whether this node prepared it or a quorum did: its outputs may be spent in this era.
    pub(super) fn is_open(&self, txid: &Txid) -> bool {
        self.ballots.get(txid).is_some_and(|ballot| ballot.prepared || ballot.certified)
    }

    /// Keeps a body that votes rest on and notes whose child it is.
    pub(super) fn keep_body(&mut self, transaction: &SharedTransaction) {
        let id = transaction.id();
        if self.bodies.insert(id, Arc::clone(transaction)).is_none() {
            for outpoint in transaction.spends() {
                self.children.insert((outpoint.txid, id));
            }
        }
    }

    /// Known transactions that spend an output of `txid`, ascending.
    pub(super) fn children(&self, txid: Txid) -> impl Iterator<Item = Txid> + '_ {
        let least = Txid::default();
        self.children
            .range((txid, least)..)
            .take_while(move |(parent, _)| *parent == txid)
            .map(|(_, child)| *child)
    }

    /// Batches held without a gap, for each voter.
    pub(super) fn stream_heads(&self) -> Vec<u32> {
        self.streams.iter().map(Stream::head).collect()
    }

    /// Payments with votes that are not final.
    pub(super) fn open(&self, max: usize) -> Vec<(Txid, u64, u64)> {
        self.ballots
            .iter()
            .filter(|(_, ballot)| !ballot.is_final)
            .take(max)
            .map(|(txid, ballot)| (*txid, ballot.prepare.weight(), ballot.commit.weight()))
            .collect()
    }

    /// Prepare weight of a transaction.
    pub(super) fn prepare_weight(&self, txid: &Txid) -> u64 {
        self.ballots.get(txid).map_or(0, |ballot| ballot.prepare.weight())
    }
}
