//! Builds and signs special transactions (protocol §1): registrations, changes by the owner, resumes and
//! evidence.
//!
//! Knows nothing of the registry: the caller says which number a change has.

use crate::primitives::evidence::Evidence;
use crate::primitives::hash::{ChainId, KeyHash, MasternodeId};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::params::Params;
use crate::primitives::special::{Registration, RegistryUpdate, Resume, Special, Unbonding};
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{TRANSACTION_VERSION, Transaction, TxOutput};
use crate::wallet::builder::{BuildError, BuiltPayment, Coin, Payment, Plan, choose};
use std::net::SocketAddr;

const BLANK: Signature = Signature([0; 64]);

/// A masternode to be registered.
#[derive(Clone, Debug)]
pub struct NewMasternode<'a> {
    /// Its name.
    pub name: String,
    /// The key that will sign its votes.
    pub vote_key: &'a SecretKey,
    /// Its tier.
    pub tier: Tier,
    /// Who owns the collateral.
    pub owner: KeyHash,
    /// Where its rewards go.
    pub payout: KeyHash,
    /// Where peers reach it.
    pub endpoint: Option<SocketAddr>,
    /// Who receives the change.
    pub change_to: KeyHash,
    /// Last height at which the registration may be included.
    pub expiry: u64,
    /// Fee in units per encoded byte; at least the network's least is paid.
    pub fee_per_byte: u64,
}

/// What an owner changes; `None` leaves it as it is.
#[derive(Clone, Debug, Default)]
pub struct Changes<'a> {
    /// New key that signs votes.
    pub vote_key: Option<&'a SecretKey>,
    /// New place for rewards.
    pub payout: Option<KeyHash>,
    /// New endpoint.
    pub endpoint: Option<SocketAddr>,
}

/// Which change of which masternode, and how long it may wait.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// The masternode.
    pub validator: MasternodeId,
    /// One more than the number of its last change.
    pub sequence: u64,
    /// Last height at which it may be included.
    pub expiry: u64,
}

/// Builds a registration, whose first output is the collateral.
///
/// # Errors
/// [`BuildError`].
pub fn register(
    chain: ChainId,
    params: &Params,
    coins: &[Coin<'_>],
    masternode: &NewMasternode<'_>,
) -> Result<BuiltPayment, BuildError> {
    let registration = Registration {
        name: masternode.name.clone(),
        vote_key: masternode.vote_key.public(),
        tier: masternode.tier,
        payout: masternode.payout,
        endpoint: masternode.endpoint,
        collateral: 0,
        possession: BLANK,
    };
    let collateral = TxOutput { value: masternode.tier.collateral(), key_hash: masternode.owner };
    let payment = Payment {
        outputs: vec![collateral],
        change_to: masternode.change_to,
        expiry: masternode.expiry,
        fee_per_byte: masternode.fee_per_byte,
    };
    let plan = Plan { payment: &payment, registers: Some((&registration, masternode.vote_key)) };
    choose(chain, params, coins, &plan)
}

/// Builds a change by the owner.
#[must_use]
pub fn update(chain: ChainId, change: Change, owner: &SecretKey, changes: &Changes<'_>) -> Transaction {
    let mut update = RegistryUpdate {
        validator: change.validator,
        sequence: change.sequence,
        owner_key: owner.public(),
        vote_key: changes.vote_key.map(|key| (key.public(), BLANK)),
        payout: changes.payout,
        endpoint: changes.endpoint,
        signature: BLANK,
    };
    signed(chain, change.expiry, |digest| {
        if let Some(digest) = digest {
            update.signature = owner.sign(&digest);
            update.vote_key = changes.vote_key.map(|key| (key.public(), key.sign(&digest)));
        }
        Special::Update(update.clone())
    })
}

/// Builds the last change: the masternode leaves, and its collateral is free after the unbonding period.
#[must_use]
pub fn unbond(chain: ChainId, change: Change, owner: &SecretKey) -> Transaction {
    let (validator, sequence, owner_key) = (change.validator, change.sequence, owner.public());
    signed(chain, change.expiry, |digest| {
        let signature = digest.map_or(BLANK, |digest| owner.sign(&digest));
        Special::Unbond(Unbonding { validator, sequence, owner_key, signature })
    })
}

/// Builds a resume, with a new vote key or without; `nonce` must be drawn at random for it alone.
#[must_use]
pub fn resume(
    chain: ChainId,
    change: Change,
    vote_key: &SecretKey,
    nonce: [u8; 32],
    new: Option<&SecretKey>,
) -> Transaction {
    signed(chain, change.expiry, |digest| {
        let sign = |key: &SecretKey| digest.map_or(BLANK, |digest| key.sign(&digest));
        Special::Resume(Resume {
            validator: change.validator,
            sequence: change.sequence,
            vote_key: vote_key.public(),
            nonce,
            new_vote_key: new.map(|key| (key.public(), sign(key))),
            signature: sign(vote_key),
        })
    })
}

/// Carries evidence, which needs no signature of whoever hands it in.
#[must_use]
pub fn evidence(evidence: Evidence, expiry: u64) -> Transaction {
    carrying(&Special::Evidence(evidence), expiry)
}

/// The transaction of what `make` gives first without signatures, then with them over the digest.
fn signed(
    chain: ChainId,
    expiry: u64,
    mut make: impl FnMut(Option<crate::primitives::hash::Hash>) -> Special,
) -> Transaction {
    let blank = make(None);
    let digest = carrying(&blank, expiry).authorisation_digest(chain, &blank);
    carrying(&make(Some(digest)), expiry)
}

fn carrying(special: &Special, expiry: u64) -> Transaction {
    let (kind, payload) = special.encode();
    let (inputs, outputs) = (Vec::new(), Vec::new());
    Transaction { version: TRANSACTION_VERSION, kind, expiry, inputs, outputs, payload }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::hash::{Hash, Txid};
    use crate::primitives::keys::verify_batch;
    use crate::primitives::transaction::{OutPoint, SealedTransaction};

    const CHAIN: ChainId = ChainId(Hash([1; 32]));

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&[seed; 32])
    }

    fn all_signatures_hold(transaction: &Transaction, count: usize) {
        let checks = transaction.signature_checks(CHAIN);
        assert_eq!(checks.len(), count);
        assert_eq!(SealedTransaction::new(transaction.clone()).signature_count(), count as u64);
        assert!(verify_batch(&checks).into_iter().all(|good| good));
    }

    #[test]
    fn what_is_built_carries_every_signature_its_kind_demands() {
        let change = Change { validator: MasternodeId(Hash([2; 32])), sequence: 4, expiry: 9 };
        all_signatures_hold(&update(CHAIN, change, &key(1), &Changes::default()), 1);
        let fresh = key(3);
        let changes = Changes { vote_key: Some(&fresh), ..Changes::default() };
        all_signatures_hold(&update(CHAIN, change, &key(1), &changes), 2);
        all_signatures_hold(&unbond(CHAIN, change, &key(1)), 1);
        all_signatures_hold(&resume(CHAIN, change, &key(2), [7; 32], None), 1);
        all_signatures_hold(&resume(CHAIN, change, &key(2), [7; 32], Some(&fresh)), 2);
    }

    #[test]
    fn a_registration_makes_its_collateral_and_pays_its_fee_exactly() {
        let params = Params::of(NetworkKind::Devnet);
        let (payer, vote_key) = (key(1), key(2));
        let value = crate::primitives::amount::Amount::from_time(600).unwrap();
        let coins = [0, 1].map(|index| Coin {
            outpoint: OutPoint { txid: Txid::default(), index },
            value,
            key: &payer,
        });
        let masternode = NewMasternode {
            name: "nine".to_owned(),
            vote_key: &vote_key,
            tier: Tier::Bronze,
            owner: key(4).public().key_hash(),
            payout: key(5).public().key_hash(),
            endpoint: Some("127.0.0.1:24101".parse().unwrap()),
            change_to: payer.public().key_hash(),
            expiry: 9,
            fee_per_byte: 1,
        };
        let built = register(CHAIN, &params, &coins, &masternode).unwrap();
        all_signatures_hold(&built.transaction, 3);
        let sealed = SealedTransaction::new(built.transaction.clone());
        assert_eq!(built.fee.units(), sealed.size());
        let collateral = built.transaction.outputs[0];
        assert_eq!((collateral.value, collateral.key_hash), (Tier::Bronze.collateral(), masternode.owner));
        let Ok(Some(Special::Register(registration))) = sealed.special() else { panic!("a registration") };
        assert_eq!((registration.name.as_str(), registration.collateral), ("nine", 0));
    }
}
