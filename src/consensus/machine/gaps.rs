//! Payments this node did not vote for, with the cause, for people.

use super::Machine;
use crate::consensus::cause::Gap;
use crate::consensus::host::Host;
use crate::consensus::output::Notice;
use crate::primitives::block::Block;
use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::TransactionKind;
use std::collections::BTreeMap;

/// Most payments noted in each phase of an era, about what a full devnet era holds; the cause of further
/// ones is unknown.
const NOTED_MAX: usize = 32_768;

/// Why a vote was not cast when it could have been, by payment.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    prepare: BTreeMap<Txid, Gap>,
    commit: BTreeMap<Txid, Gap>,
}

/// How many votes are missing by cause, and one payment of each.
#[derive(Default)]
struct Count(BTreeMap<Gap, (u32, Txid)>);

impl Gaps {
    /// The newest cause counts; but what was held back before the freeze was not held back by it.
    pub(super) fn not_prepared(&mut self, txid: Txid, gap: Gap) {
        note(&mut self.prepare, txid, gap);
    }

    /// As [`Gaps::not_prepared`].
    pub(super) fn not_commit_voted(&mut self, txid: Txid, gap: Gap) {
        note(&mut self.commit, txid, gap);
    }
}

fn note(gaps: &mut BTreeMap<Txid, Gap>, txid: Txid, gap: Gap) {
    let room = gaps.len() < NOTED_MAX;
    match gaps.get_mut(&txid) {
        Some(noted) if gap != Gap::Frozen => *noted = gap,
        Some(_) => {}
        None if room => {
            gaps.insert(txid, gap);
        }
        None => {}
    }
}

impl Gap {
    /// Why a transaction may not be prepared.
    pub(super) fn of_rejection(reason: &Rejection) -> Self {
        match reason {
            Rejection::UnknownInput { .. } => Self::Parent,
            Rejection::Conflict { .. } => Self::Conflict,
            _ => Self::Refused,
        }
    }
}

impl Count {
    fn add(&mut self, gap: Gap, txid: Txid) {
        self.0.entry(gap).or_insert((0, txid)).0 += 1;
    }

    fn list(self) -> Vec<(Gap, u32, Txid)> {
        self.0.into_iter().map(|(gap, (count, txid))| (gap, count, txid)).collect()
    }
}

impl Machine {
    /// Tells for how many payments of the block that is about to end the era this node did not vote, and
    /// why. Cost: one walk along the ballots, both being in ascending order.
    pub(super) fn notice_payment_votes(&mut self, host: &dyn Host, block: &Block) {
        if self.replaying || self.me.is_none() || !host.params().fast_path {
            return;
        }
        let general = match (self.signs(), self.era.frozen) {
            (None, _) => Some(Gap::NotSigning),
            (_, false) => Some(Gap::Behind),
            _ => None,
        };
        let (mut prepares, mut commits) = (Count::default(), Count::default());
        let mut ballots = self.era.ballots.iter().peekable();
        for transaction in &block.transactions {
            let txid = transaction.id();
            while ballots.next_if(|(id, _)| **id < txid).is_some() {}
            let ballot = ballots.next_if(|(id, _)| **id == txid).map(|(_, ballot)| ballot);
            if transaction.body().kind != TransactionKind::Payment {
                continue;
            }
            if ballot.is_none_or(|ballot| !ballot.prepared) {
                let noted = self.era.gaps.prepare.get(&txid).copied();
                let unheard =
                    self.era.gaps.prepare.len() < NOTED_MAX && self.find_body(host, &txid).is_none();
                let other = if unheard { Gap::NoBody } else { Gap::Unknown };
                prepares.add(noted.or(general).unwrap_or(other), txid);
            }
            // Nobody owes a commit vote for what was not certified.
            let owed = ballot.filter(|ballot| ballot.certified || ballot.is_final);
            if let Some(ballot) = owed.filter(|_| !self.era.commit_voted.contains(&txid)) {
                let noted = self.era.gaps.commit.get(&txid).copied();
                let other = if ballot.certified { Gap::Unknown } else { Gap::NotCertified };
                commits.add(noted.or(general).unwrap_or(other), txid);
            }
        }
        let (prepares, commits) = (prepares.list(), commits.list());
        if !prepares.is_empty() || !commits.is_empty() {
            self.notice(Notice::PaymentVotesMissed { height: self.context.height, prepares, commits });
        }
    }
}
