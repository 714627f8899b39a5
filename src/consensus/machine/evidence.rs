//! What becomes of evidence (protocol §10): it is handed in as a transaction, again when one expired,
//! until its offender is convicted or gone from the registry.
//!
//! Anyone may do so: observers and nodes that have stopped voting do too. The expiry is rounded, so
//! that nodes with the same two statements hand in the same transaction. At most one case an offender.

use super::Machine;
use crate::consensus::host::Host;
use crate::consensus::output::Notice;
use crate::primitives::block::Block;
use crate::primitives::evidence::Evidence;
use crate::primitives::hash::{MasternodeId, Txid};
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::params::Params;
use crate::primitives::special::Special;
use crate::primitives::transaction::{
    SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most offenders pursued at a time: more than a committee has members.
const CASES_MAX: usize = 256;

/// Evidence that is to get into a block.
#[derive(Debug)]
struct Case {
    evidence: Arc<Evidence>,
    /// The transaction it was handed in with last.
    txid: Option<Txid>,
}

/// Evidence found here, one a masternode.
#[derive(Debug, Default)]
pub(super) struct Cases {
    open: BTreeMap<MasternodeId, Case>,
    /// Whether there is something to do for them: after an offence, a block and the start.
    due: bool,
}

impl Cases {
    /// Opens a case, unless there is one against the same masternode.
    pub(super) fn open(&mut self, evidence: &Arc<Evidence>) {
        if self.open.len() < CASES_MAX {
            let case = || Case { evidence: Arc::clone(evidence), txid: None };
            self.open.entry(evidence.offender).or_insert_with(case);
            self.due = true;
        }
    }

    /// A height began: what was handed in may have expired, been included, or become pointless.
    pub(super) fn look_again(&mut self) {
        self.due = true;
    }
}

/// The latest height that is due at the end of the second next half of the longest time a transaction
/// may wait: at least half of that time ahead, and the same for all heights of a half.
fn expiry_of_evidence(params: &Params, height: u64) -> u64 {
    let half = (params.expiry_blocks_max / 2).max(1);
    (height / half).saturating_add(2).saturating_mul(half)
}

impl Machine {
    /// Hands in what has to be.
    pub(super) fn pursue_cases(&mut self, host: &mut dyn Host) {
        if !std::mem::take(&mut self.cases.due) {
            return;
        }
        let mut open = std::mem::take(&mut self.cases.open);
        open.retain(|_, case| self.pursue(host, case));
        self.cases.open = open;
    }

    /// Hands evidence in if no transaction of the pool accuses the same masternode; whether it still
    /// has to be pursued.
    fn pursue(&mut self, host: &mut dyn Host, case: &mut Case) -> bool {
        let evidence = &case.evidence;
        let Some(entry) = host.registered(&evidence.offender) else { return false };
        let convicted = matches!(entry.status, MasternodeStatus::Tombstoned { .. });
        let answers = entry.vote_key == evidence.vote_key || entry.former_keys.contains(&evidence.vote_key);
        if convicted || !answers {
            return false;
        }
        let waits = case.txid.is_some_and(|txid| host.body(&txid).is_some());
        if !waits {
            let transaction = self.carry(host, evidence);
            let txid = transaction.id();
            if !is_accused_in_pool(host, &transaction) && self.admit(host, None, &transaction).is_ok() {
                case.txid = Some(txid);
                self.notice(Notice::EvidenceHandedIn { name: entry.name, txid });
            }
        }
        true
    }

    fn carry(&self, host: &dyn Host, evidence: &Evidence) -> SharedTransaction {
        let (kind, payload) = Special::Evidence(evidence.clone()).encode();
        SealedTransaction::new(Transaction {
            version: TRANSACTION_VERSION,
            kind,
            expiry: expiry_of_evidence(host.params(), self.context.height),
            inputs: Vec::new(),
            outputs: Vec::new(),
            payload,
        })
    }

    /// Tells whom the evidence in a block convicted; before the block is applied.
    pub(super) fn notice_convictions(&mut self, host: &dyn Host, block: &Block) {
        for transaction in &block.transactions {
            let Ok(Some(Special::Evidence(evidence))) = transaction.special() else { continue };
            let Some(entry) = host.registered(&evidence.offender) else { continue };
            let own = self.signer.as_ref().is_some_and(|signer| signer.public() == entry.vote_key);
            self.notice(Notice::Convicted { name: entry.name, what: evidence.offence.name(), own });
        }
    }

    /// At the start: tells a masternode that it was convicted in an earlier life.
    pub(super) fn notice_own_conviction(&mut self, host: &dyn Host) {
        let own = self.signer.as_ref().and_then(|signer| host.masternode_of(&signer.public()));
        if let Some(entry) = own.filter(|own| matches!(own.status, MasternodeStatus::Tombstoned { .. })) {
            self.notice(Notice::Convicted { name: entry.name, what: "what excludes each other", own: true });
        }
    }
}

/// Whether the pool holds evidence against the same masternode, perhaps of another offence: one
/// conviction is all there can be.
fn is_accused_in_pool(host: &dyn Host, transaction: &SharedTransaction) -> bool {
    let kind = transaction.body().kind;
    let accuses = |txid: &Txid| host.body(txid).is_some_and(|known| known.body().kind == kind);
    transaction.claims().any(|claim| host.spenders(&claim).iter().any(accuses))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::chain::NetworkKind;

    #[test]
    fn the_expiry_of_evidence_is_allowed_and_shared_by_many_heights() {
        for network in [NetworkKind::Devnet, NetworkKind::Mainnet] {
            let mut params = Params::of(network);
            for max in [2, 3, 7, params.expiry_blocks_max] {
                params.expiry_blocks_max = max;
                let expiries: Vec<u64> =
                    (1..2000).map(|height| expiry_of_evidence(&params, height)).collect();
                for (height, expiry) in (1..).zip(&expiries) {
                    assert!(*expiry >= height + max / 2 && *expiry <= height + max, "{height}: {expiry}");
                }
                let mut distinct = expiries;
                distinct.dedup();
                assert!(distinct.len() as u64 <= 2000 / (max / 2) + 1);
            }
        }
    }
}
