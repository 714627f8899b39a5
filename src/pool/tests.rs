//! What must hold of the pool: bounds, order, who leaves, what is remembered, and that all counts agree.

use super::*;
use crate::primitives::hash::{Hash, KeyHash};
use crate::primitives::keys::{PublicKey, Signature};
use crate::primitives::transaction::{SealedTransaction, Transaction, TransactionKind, TxInput, TxOutput};
use proptest::prelude::*;

fn outpoint(seed: u64, index: u32) -> OutPoint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    OutPoint { txid: Txid(Hash(bytes)), index }
}

/// A transaction that spends `inputs`; `salt` tells variants apart.
fn spend(inputs: &[OutPoint], salt: u64, expiry: u64) -> SharedTransaction {
    let input = |outpoint: &OutPoint| TxInput {
        outpoint: *outpoint,
        public_key: PublicKey([1; 32]),
        signature: Signature([0; 64]),
    };
    let value = Amount::from_units(1000 + salt).unwrap();
    SealedTransaction::new(Transaction {
        version: 1,
        kind: TransactionKind::Payment,
        expiry,
        inputs: inputs.iter().map(input).collect(),
        outputs: vec![TxOutput { value, key_hash: KeyHash::default() }],
        payload: vec![],
    })
}

fn tx(seed: u64) -> SharedTransaction {
    spend(&[outpoint(seed, 0)], seed, 1000)
}

fn child_of(parent: &SharedTransaction, salt: u64) -> SharedTransaction {
    spend(&[OutPoint { txid: parent.id(), index: 0 }], salt, 1000)
}

fn fee(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

/// A pool for `count` transactions of the size of [`tx`].
fn pool_of(count: usize) -> Pool {
    Pool::new(PoolLimits {
        transactions_max: count,
        bytes_max: 1 << 20,
        orphans_max: 3,
        orphan_bytes_max: 10_000,
    })
}

fn block_of(transactions: Vec<SharedTransaction>) -> Block {
    use crate::primitives::block::Header;
    let header = Header {
        version: 1,
        height: 1,
        previous: Default::default(),
        time_ms: 0,
        proposer: Default::default(),
        tx_root: Hash::default(),
        tx_count: 0,
        body_bytes: 0,
        last_commit_root: Hash::default(),
        utxo_hash: Hash::default(),
        utxo_count: 0,
        supply: Amount::ZERO,
        registry_root: Hash::default(),
        committee_root: Hash::default(),
        next_committee_root: Hash::default(),
        params_root: Hash::default(),
    };
    Block { header, last_commit: None, transactions }
}

/// Every count against a recount of the entries.
fn check_counts(pool: &Pool) {
    let entries: Vec<Entry> = pool.entries.iter().map(|entry| entry.value().clone()).collect();
    let of = |orphan: bool| entries.iter().filter(move |entry| entry.orphan == orphan);
    let bytes = |orphan| of(orphan).map(|entry| entry.transaction.size()).sum::<u64>();
    assert_eq!((pool.len(), pool.bytes()), (of(false).count() as u64, bytes(false)));
    assert_eq!(pool.orphans(), of(true).count() as u64);
    assert_eq!(pool.counters.orphan_bytes.load(Ordering::Relaxed), bytes(true));
    for status in [TxStatus::Pending, TxStatus::Prepared, TxStatus::Certified, TxStatus::Final] {
        let count = of(false).filter(|entry| entry.status == status).count() as u64;
        assert_eq!(pool.counters.of(status).load(Ordering::Relaxed), count, "{status:?}");
    }
    let order: Vec<Txid> = pool.pending().iter().map(|transaction| transaction.id()).collect();
    assert_eq!(order.len(), entries.len());
    let info = pool.pool_info(0);
    assert_eq!(info.fee_histogram.iter().map(|(_, count)| count).sum::<u64>(), pool.len());
    assert!(pool.len() <= pool.limits.transactions_max as u64 && pool.bytes() <= pool.limits.bytes_max);
}

#[test]
fn transactions_come_by_fee_rate_and_then_by_id() {
    let pool = pool_of(10);
    for (seed, units) in [(1, 500), (2, 900), (3, 500), (4, 100)] {
        pool.insert(tx(seed), fee(units), 0).unwrap();
    }
    let mut equal = [tx(1).id(), tx(3).id()];
    equal.sort();
    let order: Vec<Txid> = pool.pending().iter().map(|transaction| transaction.id()).collect();
    assert_eq!(order, [tx(2).id(), equal[0], equal[1], tx(4).id()]);
    check_counts(&pool);
}

#[test]
fn a_transaction_is_admitted_once() {
    let pool = pool_of(10);
    pool.insert(tx(1), fee(500), 0).unwrap();
    assert_eq!(pool.insert(tx(1), fee(500), 0), Err(Rejection::AlreadyKnown));
    assert_eq!(pool.insert_orphan(tx(1), 0), Err(Rejection::AlreadyKnown));
    pool.reject(&tx(1).id(), &Rejection::AlreadyKnown, 0);
    assert!(pool.contains(&tx(1).id()), "being known is no reason to drop it");
    check_counts(&pool);
}

#[test]
fn a_full_pool_evicts_the_lowest_rate_and_of_equals_the_larger_id() {
    let pool = pool_of(3);
    for seed in 1..=3 {
        pool.insert(tx(seed), fee(500), seed).unwrap();
    }
    let largest = (1..=3).map(|seed| tx(seed).id()).max().unwrap();
    assert_eq!(pool.insert(tx(4), fee(900), 9), Ok(vec![largest]));
    assert_eq!(pool.state(&largest, 10).unwrap().rejection, Some(Rejection::Evicted));
    let size = tx(1).size();
    let full = Rejection::PoolFull { rate: 500 * 1000 / size, lowest: 500 * 1000 / size };
    assert_eq!(pool.insert(tx(5), fee(500), 9), Err(full), "an equal rate displaces nobody");
    assert_eq!(pool.pool_info(9).evicted, 1);
    check_counts(&pool);
}

#[test]
fn bytes_bound_the_pool_as_well() {
    let size = tx(1).size();
    let limits = PoolLimits { bytes_max: 2 * size, ..PoolLimits::default() };
    let pool = Pool::new(limits);
    pool.insert(tx(1), fee(500), 0).unwrap();
    pool.insert(tx(2), fee(600), 0).unwrap();
    assert_eq!(pool.insert(tx(3), fee(700), 0), Ok(vec![tx(1).id()]));
    let inputs: Vec<OutPoint> = (0..9).map(|index| outpoint(77, index)).collect();
    let large = spend(&inputs, 0, 1000);
    assert!(matches!(pool.insert(large, fee(1_000_000), 0), Err(Rejection::PoolFull { .. })));
    check_counts(&pool);
}

#[test]
fn a_voted_transaction_is_never_evicted_until_the_era_ends() {
    let pool = pool_of(2);
    pool.insert(tx(1), fee(100), 0).unwrap();
    pool.insert(tx(2), fee(100), 0).unwrap();
    pool.pin(&tx(1).id());
    pool.set_status(&tx(2).id(), TxStatus::Certified);
    assert!(matches!(pool.insert(tx(3), fee(9000), 0), Err(Rejection::PoolFull { .. })));
    pool.remove_for_block(&block_of(vec![]), 1, 0);
    assert_eq!(pool.state(&tx(2).id(), 0).unwrap().status, TxStatus::Pending, "votes end with the era");
    assert_eq!(pool.insert(tx(3), fee(9000), 0).unwrap().len(), 1);
    check_counts(&pool);
}

#[test]
fn eviction_takes_descendants_along_but_never_a_parent_of_the_newcomer() {
    let pool = pool_of(3);
    let (parent, other) = (tx(1), tx(2));
    let child = child_of(&parent, 7);
    pool.insert(parent.clone(), fee(100), 0).unwrap();
    pool.insert(child.clone(), fee(5000), 0).unwrap();
    pool.insert(other.clone(), fee(300), 0).unwrap();
    // The parent has the lowest rate, but the newcomer spends its child.
    let grandchild = child_of(&child, 8);
    assert_eq!(pool.insert(grandchild.clone(), fee(5000), 0), Ok(vec![other.id()]));
    // For a stranger the whole family goes.
    let mut family = vec![parent.id(), child.id(), grandchild.id()];
    family.sort();
    assert_eq!(pool.insert(tx(9), fee(400), 0), Ok(family));
    assert_eq!(pool.len(), 1);
    check_counts(&pool);
}

#[test]
fn an_output_has_two_candidates_and_a_third_only_when_certified() {
    let pool = pool_of(10);
    let rivals: Vec<_> = (1..=4).map(|salt| spend(&[outpoint(5, 0)], salt, 1000)).collect();
    pool.insert(rivals[0].clone(), fee(500), 0).unwrap();
    pool.insert(rivals[1].clone(), fee(500), 0).unwrap();
    let refused = Rejection::Conflict { outpoint: outpoint(5, 0), by: rivals[0].id() };
    assert_eq!(pool.insert(rivals[2].clone(), fee(9000), 0), Err(refused.clone()));
    pool.set_status(&rivals[2].id(), TxStatus::Certified);
    pool.insert(rivals[2].clone(), fee(9000), 0).unwrap();
    assert_eq!(pool.state(&rivals[2].id(), 0).unwrap().status, TxStatus::Certified);
    assert_eq!(pool.spenders(&outpoint(5, 0)), [rivals[0].id(), rivals[1].id(), rivals[2].id()]);
    assert_eq!(pool.insert(rivals[3].clone(), fee(9000), 0), Err(refused));
    check_counts(&pool);
}

#[test]
fn orphans_are_bounded_apart_and_do_not_count_as_candidates() {
    let pool = pool_of(10);
    for salt in 1..=3 {
        pool.insert_orphan(spend(&[outpoint(5, 0)], salt, 1000), salt).unwrap();
    }
    assert_eq!(pool.insert_orphan(tx(9), 10), Err(Rejection::TooManyOrphans));
    assert_eq!((pool.len(), pool.orphans()), (0, 3));
    pool.insert(spend(&[outpoint(5, 0)], 7, 1000), fee(500), 0).unwrap();
    // The oldest makes room once its time is over.
    pool.insert_orphan(tx(9), 1 + memory::ORPHAN_TTL_US).unwrap();
    assert!(!pool.contains(&spend(&[outpoint(5, 0)], 1, 1000).id()));
    check_counts(&pool);
}

#[test]
fn an_orphan_whose_parent_came_is_admitted_and_keeps_its_first_sight() {
    let pool = pool_of(10);
    let parent = tx(1);
    let (a, b) = (child_of(&parent, 1), child_of(&parent, 2));
    pool.insert_orphan(a.clone(), 5).unwrap();
    pool.insert_orphan(b.clone(), 6).unwrap();
    pool.insert(parent.clone(), fee(500), 7).unwrap();
    let mut expected = vec![a.id(), b.id()];
    expected.sort();
    let children: Vec<Txid> = pool.children(&parent.id()).iter().map(|child| child.id()).collect();
    assert_eq!(children, expected);
    pool.insert(a.clone(), fee(500), 8).unwrap();
    assert_eq!(pool.first_seen_us(&a.id()), Some(5));
    assert_eq!((pool.len(), pool.orphans()), (2, 1));
    // Orphans come last whatever their id.
    assert_eq!(pool.pending().last().map(|transaction| transaction.id()), Some(b.id()));
    check_counts(&pool);
}

#[test]
fn a_block_confirms_drops_conflicts_with_descendants_and_expires() {
    let pool = pool_of(10);
    let winner = spend(&[outpoint(1, 0)], 1, 1000);
    let loser = spend(&[outpoint(1, 0)], 2, 1000);
    let child = child_of(&loser, 3);
    let (old, fresh) = (spend(&[outpoint(2, 0)], 4, 7), spend(&[outpoint(3, 0)], 5, 8));
    for transaction in [&winner, &loser, &child, &old, &fresh] {
        pool.insert(transaction.clone(), fee(500), 0).unwrap();
    }
    let waiting = spend(&[outpoint(1, 0), outpoint(9, 0)], 6, 1000);
    pool.insert_orphan(waiting.clone(), 0).unwrap();
    let unseen = tx(50);
    let removed = pool.remove_for_block(&block_of(vec![winner.clone(), unseen.clone()]), 7, 100);
    assert_eq!(removed.included, [winner.id()]);
    let conflict = Rejection::Conflict { outpoint: outpoint(1, 0), by: winner.id() };
    let made = OutPoint { txid: loser.id(), index: 0 };
    let mut expected = vec![
        (loser.id(), conflict.clone()),
        (waiting.id(), conflict),
        (child.id(), Rejection::UnknownInput { outpoint: made }),
        (old.id(), Rejection::Expired { expiry: 7, height: 8 }),
    ];
    expected.sort_by_key(|(txid, _)| *txid);
    assert_eq!(removed.dropped, expected);
    assert_eq!(pool.pending().iter().map(|left| left.id()).collect::<Vec<_>>(), [fresh.id()]);
    for txid in [winner.id(), unseen.id()] {
        let state = pool.state(&txid, 100).unwrap();
        assert_eq!((state.status, state.height), (TxStatus::Confirmed, Some(7)));
    }
    check_counts(&pool);
}

#[test]
fn a_confirmed_transaction_stays_confirmed_when_it_comes_again() {
    let pool = pool_of(10);
    pool.remove_for_block(&block_of(vec![tx(1)]), 3, 0);
    pool.reject(&tx(1).id(), &Rejection::UnknownInput { outpoint: outpoint(1, 0) }, 5);
    assert_eq!(pool.state(&tx(1).id(), 5).unwrap().status, TxStatus::Confirmed);
}

#[test]
fn rejections_are_remembered_for_a_time_and_bounded() {
    let pool = pool_of(10);
    pool.insert(tx(1), fee(500), 0).unwrap();
    pool.reject(&tx(1).id(), &Rejection::NoOutputs, 10);
    assert!(!pool.contains(&tx(1).id()));
    assert_eq!(pool.rejection(&tx(1).id(), 11), Some(Rejection::NoOutputs));
    assert_eq!(pool.rejection(&tx(1).id(), 10 + memory::REJECTION_TTL_US), None);
    let first = pool.pool_info(11).rejections;
    assert_eq!((first.len(), first[0].code.as_str()), (1, "no-outputs"));
    for seed in 0..memory::REJECTIONS_MAX as u64 + 10 {
        pool.reject(&outpoint(seed, 0).txid, &Rejection::NoInputs, 20);
    }
    assert_eq!(pool.rejection(&outpoint(0, 0).txid, 21), None, "the oldest are forgotten");
    assert_eq!(pool.rejection(&outpoint(10_005, 0).txid, 21), Some(Rejection::NoInputs));
    let info = pool.pool_info(21);
    assert_eq!(info.rejections.len(), 64);
    let counted: Vec<_> = info.rejected.iter().map(|(code, count)| (code.as_str(), *count)).collect();
    assert_eq!(counted, [("no-inputs", 10_010), ("no-outputs", 1)]);
    // Accepted after all: no longer remembered as refused.
    pool.insert(tx(1), fee(500), 30).unwrap();
    assert_eq!(pool.state(&tx(1).id(), 30).unwrap().rejection, None);
}

#[test]
fn the_picture_shows_what_is_there() {
    let pool = pool_of(10);
    pool.insert(tx(1), fee(500), 1_000).unwrap();
    pool.insert(tx(2), fee(700), 2_000).unwrap();
    pool.set_status(&tx(2).id(), TxStatus::Prepared);
    let info = pool.pool_info(5_000);
    assert_eq!((info.transactions, info.pending, info.prepared, info.added), (2, 1, 1, 2));
    let newest = &info.entries[0];
    assert_eq!(
        (newest.txid, newest.status, newest.fee, newest.age_ms),
        (tx(2).id(), TxStatus::Prepared, 700, 3)
    );
    // 500 and 700 units on some 230 bytes: rates between 2048 and 4095.
    assert_eq!(info.fee_histogram, [(2048, 2)]);
}

/// One call on a pool, for the search for a broken count or an unstable order.
#[derive(Clone, Debug)]
enum Call {
    Insert(u64, u64),
    Child(u64, u64, u64),
    Orphan(u64, u64),
    Pin(u64),
    Status(u64, TxStatus),
    Reject(u64),
    Block(Vec<u64>),
}

fn call() -> impl Strategy<Value = Call> {
    let status = prop::sample::select(vec![TxStatus::Prepared, TxStatus::Certified, TxStatus::Final]);
    prop_oneof![
        4 => (0u64..12, 200u64..5000).prop_map(|(seed, fee)| Call::Insert(seed, fee)),
        3 => (0u64..12, 0u64..4, 200u64..5000).prop_map(|(seed, salt, fee)| Call::Child(seed, salt, fee)),
        1 => (0u64..12, 0u64..4).prop_map(|(seed, salt)| Call::Orphan(seed, salt)),
        1 => (0u64..12).prop_map(Call::Pin),
        1 => (0u64..12, status).prop_map(|(seed, status)| Call::Status(seed, status)),
        1 => (0u64..12).prop_map(Call::Reject),
        1 => prop::collection::vec(0u64..12, 0..3).prop_map(Call::Block),
    ]
}

fn run(pool: &Pool, calls: &[Call]) -> Vec<String> {
    // Pairs of seeds share an input, so that there are conflicts.
    let tx = |seed: u64| spend(&[outpoint(seed / 2, 0)], seed, 6 + seed);
    let mut trace = Vec::new();
    for (call, now_us) in calls.iter().zip(0u64..) {
        let result = match call {
            Call::Insert(seed, units) => format!("{:?}", pool.insert(tx(*seed), fee(*units), now_us)),
            Call::Child(seed, salt, units) => {
                format!("{:?}", pool.insert(child_of(&tx(*seed), *salt), fee(*units), now_us))
            }
            Call::Orphan(seed, salt) => {
                format!("{:?}", pool.insert_orphan(child_of(&tx(*seed), *salt), now_us))
            }
            Call::Pin(seed) => format!("{:?}", pool.pin(&tx(*seed).id())),
            Call::Status(seed, status) => format!("{:?}", pool.set_status(&tx(*seed).id(), *status)),
            Call::Reject(seed) => format!("{:?}", pool.reject(&tx(*seed).id(), &Rejection::NoInputs, now_us)),
            Call::Block(seeds) => {
                let block = block_of(seeds.iter().map(|seed| tx(*seed)).collect());
                format!("{:?}", pool.remove_for_block(&block, now_us / 4, now_us))
            }
        };
        check_counts(pool);
        trace.push(result);
        trace.push(format!("{:?}", pool.pending().iter().map(|entry| entry.id()).collect::<Vec<_>>()));
    }
    trace
}

proptest! {
    #[test]
    fn any_calls_keep_the_counts_right_and_repeat_exactly(calls in prop::collection::vec(call(), 1..60)) {
        let trace = run(&pool_of(5), &calls);
        prop_assert_eq!(trace, run(&pool_of(5), &calls));
    }
}
