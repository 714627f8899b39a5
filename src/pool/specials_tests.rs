//! What must hold of special transactions in the pool: their own space, evidence first, two to a claim
//! but never so that evidence is kept out.

use super::*;
use crate::pool::PoolLimits;
use crate::primitives::amount::Amount;
use crate::primitives::evidence::{Evidence, Offence, VoteHead};
use crate::primitives::hash::{BlockId, ChainId, EraTag, Hash, MasternodeId};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::transaction::{OutPoint, Transaction, TxInput};
use crate::primitives::vote::Step;
use crate::wallet::special::{Change, Changes, evidence, unbond, update};

fn change(validator: u8, sequence: u64) -> Change {
    Change { validator: MasternodeId(Hash([validator; 32])), sequence, expiry: 100 }
}

fn owner() -> SecretKey {
    SecretKey::from_seed(&[1; 32])
}

fn changing(validator: u8, sequence: u64) -> SharedTransaction {
    let transaction = update(ChainId::default(), change(validator, sequence), &owner(), &Changes::default());
    SealedTransaction::new(transaction)
}

fn leaving(validator: u8) -> SharedTransaction {
    SealedTransaction::new(unbond(ChainId::default(), change(validator, 1), &owner()))
}

/// Evidence against a masternode, told apart by the round of the offence.
fn convicting(validator: u8, round: u32) -> SharedTransaction {
    SealedTransaction::new(proof_against(validator, round))
}

/// As [`convicting`], with some bytes more.
fn large(validator: u8) -> SharedTransaction {
    let mut transaction = proof_against(validator, 0);
    // What follows the payload's value is refused by the ledger, not by the pool.
    transaction.payload.resize(250 << 10, 0);
    SealedTransaction::new(transaction)
}

fn proof_against(validator: u8, round: u32) -> Transaction {
    let head = |block| VoteHead { block, signature: Signature([0; 64]) };
    let votes = [head(None), head(Some(BlockId::default()))];
    let offence = Offence::Votes { round, step: Step::Prevote, votes };
    let offender = MasternodeId(Hash([validator; 32]));
    let proof = Evidence { offender, vote_key: owner().public(), era_tag: EraTag::default(), offence };
    evidence(proof, 100)
}

fn payment(n: u32) -> SharedTransaction {
    let outpoint = OutPoint { txid: Txid::default(), index: n };
    let input = TxInput { outpoint, public_key: owner().public(), signature: Signature([0; 64]) };
    SealedTransaction::new(Transaction {
        version: 1,
        kind: TransactionKind::Payment,
        expiry: 100,
        inputs: vec![input],
        outputs: Vec::new(),
        payload: Vec::new(),
    })
}

fn insert(pool: &Pool, transaction: &SharedTransaction) -> Result<Vec<Txid>, Rejection> {
    pool.insert(SharedTransaction::clone(transaction), Amount::ZERO, 0)
}

fn order(pool: &Pool) -> Vec<Txid> {
    pool.pending().iter().map(|transaction| transaction.id()).collect()
}

#[test]
fn specials_come_before_payments_and_evidence_before_all() {
    let pool = Pool::new(PoolLimits::default());
    let (paying, proof) = (payment(1), convicting(9, 300));
    pool.insert(paying.clone(), Amount::from_units(1_000_000).unwrap(), 0).unwrap();
    let (first, second) = (changing(3, 1), changing(2, 1));
    for transaction in [&first, &second, &proof] {
        insert(&pool, transaction).unwrap();
    }
    assert_eq!(order(&pool), [proof.id(), first.id(), second.id(), paying.id()]);
    assert_eq!((pool.len(), pool.specials_len()), (4, 3));
    assert_eq!(pool.special_bytes(), first.size() + second.size() + proof.size());
    pool.reject(&proof.id(), &Rejection::NoInputs, 0);
    assert_eq!(pool.specials_len(), 2);
}

#[test]
fn a_full_pool_of_payments_takes_specials_and_never_evicts_them() {
    let pool = Pool::new(PoolLimits { transactions_max: 1, ..PoolLimits::default() });
    pool.insert(payment(1), Amount::from_units(10_000).unwrap(), 0).unwrap();
    insert(&pool, &changing(1, 1)).unwrap();
    let rich = Amount::from_units(1_000_000).unwrap();
    assert_eq!(pool.insert(payment(2), rich, 0), Ok(vec![payment(1).id()]));
    assert_eq!(order(&pool), [changing(1, 1).id(), payment(2).id()]);
}

#[test]
fn two_claim_the_same_but_evidence_is_never_kept_out_by_others() {
    let pool = Pool::new(PoolLimits::default());
    insert(&pool, &changing(1, 1)).unwrap();
    insert(&pool, &changing(1, 2)).unwrap();
    assert!(matches!(insert(&pool, &changing(1, 3)), Err(Rejection::Conflict { .. })));
    insert(&pool, &convicting(1, 300)).unwrap();
    insert(&pool, &convicting(1, 301)).unwrap();
    assert!(matches!(insert(&pool, &convicting(1, 302)), Err(Rejection::Conflict { .. })));
}

#[test]
fn any_number_of_unbondings_may_wait_for_their_block() {
    let pool = Pool::new(PoolLimits::default());
    for validator in 1..=9 {
        insert(&pool, &leaving(validator)).unwrap();
    }
    assert_eq!(pool.specials_len(), 9);
}

#[test]
fn their_space_is_bounded_and_only_evidence_displaces_others() {
    let pool = Pool::new(PoolLimits::default());
    for validator in 1..=3 {
        insert(&pool, &large(validator)).unwrap();
    }
    let mut others = Vec::new();
    for validator in 1..=u8::MAX {
        for sequence in 1..=2 {
            let transaction = changing(validator, sequence);
            insert(&pool, &transaction).unwrap();
            others.push(transaction.id());
        }
    }
    let latest = *others.last().unwrap();
    let evicted = insert(&pool, &large(4)).unwrap();
    assert_eq!(evicted.first(), Some(&latest), "the latest goes first");
    assert!(evicted.iter().all(|txid| others.contains(txid)) && evicted.len() < others.len());
    assert!(pool.special_bytes() <= SPECIAL_BYTES_MAX);
    let full = insert(&pool, &large(5)).unwrap_err();
    assert_eq!(full, Rejection::TooManySpecials { max: SPECIAL_BYTES_MAX });
    let held = pool.specials().iter().map(|transaction| transaction.size()).sum::<u64>();
    assert_eq!(held, pool.special_bytes());
}
