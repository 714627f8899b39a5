//! Tests of validity, block application and the ledger, and the small chain they share with the
//! tests of store, pool and host.

use crate::ledger::Ledger;
use crate::ledger::apply::{BlockDiff, BlockError, Contents, outcome, valid_block};
use crate::ledger::genesis::{Allocation, Founder, Genesis};
use crate::ledger::validate::{BodyError, Rules, check_body, check_transaction};
use crate::primitives::amount::Amount;
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::chain::NetworkKind;
use crate::primitives::hash::{ChainId, KeyHash, MasternodeId, Txid, era_tag};
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, Transaction, TransactionKind, TxInput, TxOutput, Utxo,
};
use crate::primitives::vote::{Step, vote_digest};
use std::collections::BTreeMap;
use std::sync::LazyLock;

pub fn units(units: u64) -> Amount {
    Amount::from_units(units).unwrap()
}

pub fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

pub fn founder(seed: u8) -> Founder {
    let hash = key(seed).public().key_hash();
    let name = format!("node-{seed}");
    Founder { name, vote_key: key(seed).public(), tier: Tier::Bronze, owner: hash, payout: hash }
}

/// Four bronze masternodes with vote keys 1 to 4, and `count` allocations of 100 TIME to key 100.
pub fn genesis_with(count: usize) -> Genesis {
    let allocation =
        Allocation { key_hash: key(100).public().key_hash(), amount: Amount::from_time(100).unwrap() };
    let genesis = Genesis {
        network: NetworkKind::Devnet,
        name: "test".to_owned(),
        time_ms: 1_000_000,
        params: Params::of(NetworkKind::Devnet),
        masternodes: (1..=4).map(founder).collect(),
        allocations: vec![allocation; count],
    };
    genesis.check().unwrap();
    genesis
}

/// The allocations of a genesis, which key 100 may spend.
pub fn funds(genesis: &Genesis) -> Vec<(OutPoint, Utxo)> {
    genesis.utxos().into_iter().skip(genesis.masternodes.len()).collect()
}

/// A payment without signatures, which the ledger does not look at: all of `value` less `fee`, half
/// each to two outputs of key 100.
pub fn pay(input: OutPoint, value: Amount, fee: u64, salt: u8) -> Transaction {
    let rest = value.units() - fee;
    let output = |value| TxOutput { value: units(value), key_hash: key(100).public().key_hash() };
    let mut signature = [0; 64];
    signature[0] = salt;
    Transaction {
        version: 1,
        kind: TransactionKind::Payment,
        expiry: 50,
        inputs: vec![TxInput {
            outpoint: input,
            public_key: key(100).public(),
            signature: crate::primitives::keys::Signature(signature),
        }],
        outputs: vec![output(rest / 2), output(rest - rest / 2)],
        payload: vec![],
    }
}

pub fn sealed(input: &(OutPoint, Utxo), fee: u64, salt: u8) -> SharedTransaction {
    SealedTransaction::new(pay(input.0, input.1.value, fee, salt))
}

/// The number of the [`key`] with this public half.
fn seed_of(public: &PublicKey) -> u8 {
    static SEEDS: LazyLock<BTreeMap<PublicKey, u8>> =
        LazyLock::new(|| (0..=255).map(|seed| (key(seed).public(), seed)).collect());
    SEEDS[public]
}

/// A commit certificate of a block on the ledger's tip by its whole committee.
pub fn commit_of(chain: ChainId, header: &crate::primitives::block::Header, ledger: &Ledger) -> Qc {
    commit_without(chain, header, ledger, &[])
}

/// As [`commit_of`], but without the votes of these keys.
pub fn commit_without(
    chain: ChainId,
    header: &crate::primitives::block::Header,
    ledger: &Ledger,
    absent: &[u8],
) -> Qc {
    let tag = era_tag(chain, header.height, header.previous);
    let digest = vote_digest(tag, 0, Step::Precommit, Some(header.id()));
    let committee = &ledger.tip().next_committee;
    let signers = committee
        .indices()
        .zip(committee.members())
        .map(|(voter, member)| (voter, seed_of(&member.vote_key)));
    let votes = signers
        .filter(|(_, seed)| !absent.contains(seed))
        .map(|(voter, seed)| (voter, key(seed).sign(&digest)));
    Qc::new(0, Step::Precommit, header.id(), votes.collect())
}

pub fn proposer(ledger: &Ledger) -> MasternodeId {
    ledger.tip().next_committee.members()[0].id
}

/// Builds the next block of `transactions` with its effect.
pub fn next_block(
    ledger: &Ledger,
    mut transactions: Vec<SharedTransaction>,
) -> Result<(Block, BlockDiff), BlockError> {
    transactions.sort_by_key(|transaction| transaction.id());
    let tip = ledger.tip();
    let contents = Contents {
        proposer: proposer(ledger),
        time_ms: tip.header.time_ms + 1000,
        last_commit: tip.commit.as_ref(),
        transactions: &transactions,
    };
    let diff = outcome(&tip, ledger.params(), &contents, &|outpoint| ledger.utxo(outpoint))?;
    let header = diff.header.clone();
    Ok((Block { header, last_commit: tip.commit.clone(), transactions }, diff))
}

/// Builds and applies the next block.
pub fn extend(ledger: &Ledger, transactions: Vec<SharedTransaction>) -> (Block, Qc, BlockDiff) {
    extend_without(ledger, transactions, &[])
}

/// As [`extend`], but these keys do not sign the block.
pub fn extend_without(
    ledger: &Ledger,
    transactions: Vec<SharedTransaction>,
    absent: &[u8],
) -> (Block, Qc, BlockDiff) {
    let (block, diff) = next_block(ledger, transactions).unwrap();
    let qc = commit_without(ledger.chain(), &block.header, ledger, absent);
    ledger.apply(&diff, qc.clone()).unwrap();
    (block, qc, diff)
}

fn check(genesis: &Genesis, transaction: Transaction) -> Result<Amount, Rejection> {
    let ledger = Ledger::in_memory(genesis);
    let tip = ledger.tip();
    let rules = Rules { params: &genesis.params, height: 1, registry: &tip.registry };
    check_transaction(&rules, &SealedTransaction::new(transaction), &|outpoint| ledger.utxo(outpoint))
}

#[test]
fn a_good_payment_leaves_its_fee() {
    let genesis = genesis_with(1);
    let (outpoint, utxo) = funds(&genesis)[0];
    assert_eq!(check(&genesis, pay(outpoint, utxo.value, 5000, 0)), Ok(units(5000)));
}

#[test]
fn every_fault_of_a_payment_has_its_own_rejection() {
    let genesis = genesis_with(2);
    let (outpoint, utxo) = funds(&genesis)[0];
    let good = pay(outpoint, utxo.value, 5000, 0);
    let broken = |change: &dyn Fn(&mut Transaction)| {
        let mut transaction = good.clone();
        change(&mut transaction);
        check(&genesis, transaction).unwrap_err().code()
    };
    assert_eq!(broken(&|tx| tx.version = 2), "unknown-version");
    assert_eq!(broken(&|tx| tx.inputs.clear()), "no-inputs");
    assert_eq!(broken(&|tx| tx.outputs.clear()), "no-outputs");
    assert_eq!(broken(&|tx| tx.payload = vec![1]), "unexpected-payload");
    assert_eq!(broken(&|tx| tx.payload = vec![1; 200 << 10]), "oversized");
    assert_eq!(broken(&|tx| tx.inputs.push(tx.inputs[0])), "duplicate-input");
    assert_eq!(broken(&|tx| tx.outputs[1].value = Amount::ZERO), "zero-output");
    assert_eq!(broken(&|tx| tx.outputs[1].value = units(999)), "dust-output");
    assert_eq!(broken(&|tx| tx.outputs[1].value = Amount::MAX), "output-overflow");
    assert_eq!(broken(&|tx| tx.inputs[0].outpoint.index = 99), "unknown-input");
    assert_eq!(broken(&|tx| tx.inputs[0].public_key = key(7).public()), "wrong-key");
    assert_eq!(broken(&|tx| tx.outputs[0].value = utxo.value), "overspend");
    assert_eq!(broken(&|tx| tx.expiry = 0), "expired");
    assert_eq!(broken(&|tx| tx.expiry = 102), "expiry-too-far");
    let size = SealedTransaction::new(good.clone()).size();
    assert_eq!(
        check(&genesis, pay(outpoint, utxo.value, size - 1, 0)),
        Err(Rejection::FeeTooLow { fee: size - 1, least: size, size })
    );
    assert_eq!(check(&genesis, pay(outpoint, utxo.value, size, 0)), Ok(units(size)));
}

#[test]
fn values_that_wrap_around_are_refused() {
    let genesis = genesis_with(1);
    let (outpoint, utxo) = funds(&genesis)[0];
    let mut bytes = crate::primitives::encoding::encode(&pay(outpoint, utxo.value, 5000, 0));
    let first = bytes.len() - 8 - 2 * 40;
    bytes[first..first + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let forged: Transaction = crate::primitives::encoding::decode_stored(&bytes).unwrap();
    assert_eq!(forged.outputs[0].value.units(), u64::MAX);
    assert_eq!(check(&genesis, forged), Err(Rejection::OutputOverflow));
}

#[test]
fn collateral_cannot_be_spent_by_a_payment() {
    let genesis = genesis_with(1);
    let (outpoint, utxo) = genesis.utxos()[0];
    let mut transaction = pay(outpoint, utxo.value, 5000, 0);
    transaction.inputs[0].public_key = key(1).public();
    assert_eq!(check(&genesis, transaction), Err(Rejection::LockedCollateral { outpoint }));
}

#[test]
fn the_bounds_of_expiry_are_inclusive() {
    let genesis = genesis_with(1);
    let (outpoint, utxo) = funds(&genesis)[0];
    for expiry in [1, 101] {
        let transaction = Transaction { expiry, ..pay(outpoint, utxo.value, 5000, 0) };
        assert_eq!(check(&genesis, transaction), Ok(units(5000)));
    }
}

#[test]
fn a_child_may_sort_before_its_parent_in_a_block() {
    let genesis = genesis_with(1);
    let ledger = Ledger::in_memory(&genesis);
    let parent = sealed(&funds(&genesis)[0], 5000, 0);
    let output = parent.creates(1).next().unwrap();
    let child = (0..=255)
        .map(|salt| sealed(&output, 5000, salt))
        .find(|child| child.id() < parent.id())
        .expect("one of 256 ids is smaller");
    let (block, _, diff) = extend(&ledger, vec![parent.clone(), child.clone()]);
    assert_eq!(block.transactions, [child.clone(), parent.clone()]);
    // The output between them cancels: one spent, one left of the parent, two of the child, the reward.
    assert_eq!((diff.spent.len(), diff.created.len()), (1, 4));
    assert_eq!(ledger.utxo(&output.0), None);
    ledger.recount().unwrap();
}

#[test]
fn a_block_that_spends_an_output_twice_is_refused() {
    let genesis = genesis_with(1);
    let ledger = Ledger::in_memory(&genesis);
    let fund = funds(&genesis)[0];
    let error = next_block(&ledger, vec![sealed(&fund, 5000, 0), sealed(&fund, 6000, 0)]).unwrap_err();
    assert_eq!(error, BlockError::Body(BodyError::DoubleSpend { outpoint: fund.0 }));
    // Also when the output is made in the block.
    let parent = sealed(&fund, 5000, 0);
    let made = parent.creates(1).next().unwrap();
    let error =
        next_block(&ledger, vec![parent, sealed(&made, 5000, 1), sealed(&made, 5000, 2)]).unwrap_err();
    assert_eq!(error, BlockError::Body(BodyError::DoubleSpend { outpoint: made.0 }));
}

#[test]
fn an_output_spent_in_an_earlier_block_is_gone() {
    let genesis = genesis_with(1);
    let ledger = Ledger::in_memory(&genesis);
    let fund = funds(&genesis)[0];
    extend(&ledger, vec![sealed(&fund, 5000, 0)]);
    let error = next_block(&ledger, vec![sealed(&fund, 6000, 0)]).unwrap_err();
    let BlockError::Body(BodyError::Transaction { reason, .. }) = error else { panic!("{error}") };
    assert_eq!(reason, Rejection::UnknownInput { outpoint: fund.0 });
}

#[test]
fn the_order_of_a_body_is_strict() {
    let genesis = genesis_with(2);
    let ledger = Ledger::in_memory(&genesis);
    let tip = ledger.tip();
    let rules = Rules { params: ledger.params(), height: 1, registry: &tip.registry };
    let mut pair = vec![sealed(&funds(&genesis)[0], 5000, 0), sealed(&funds(&genesis)[1], 5000, 0)];
    pair.sort_by_key(|transaction| transaction.id());
    let utxo = |outpoint: &OutPoint| ledger.utxo(outpoint);
    assert!(check_body(&rules, &pair, &utxo).is_ok());
    pair.reverse();
    assert!(matches!(check_body(&rules, &pair, &utxo), Err(BodyError::NotAscending { index: 1, .. })));
    let twice = vec![pair[0].clone(), pair[0].clone()];
    assert!(matches!(check_body(&rules, &twice, &utxo), Err(BodyError::NotAscending { .. })));
}

#[test]
fn a_body_above_the_bounds_is_refused() {
    let genesis = genesis_with(2);
    let ledger = Ledger::in_memory(&genesis);
    let tip = ledger.tip();
    let mut pair = vec![sealed(&funds(&genesis)[0], 5000, 0), sealed(&funds(&genesis)[1], 5000, 0)];
    pair.sort_by_key(|transaction| transaction.id());
    let bytes: u64 = pair.iter().map(|transaction| transaction.size()).sum();
    let judge = |params: &Params| {
        let rules = Rules { params, height: 1, registry: &tip.registry };
        check_body(&rules, &pair, &|outpoint| ledger.utxo(outpoint)).map(|effect| effect.bytes)
    };
    assert_eq!(
        judge(&Params { block_bytes_max: bytes, block_signatures_max: 2, ..ledger.params().clone() }),
        Ok(bytes)
    );
    assert_eq!(
        judge(&Params { block_bytes_max: bytes - 1, ..ledger.params().clone() }),
        Err(BodyError::TooManyBytes { bytes, max: bytes - 1 })
    );
    assert_eq!(
        judge(&Params { block_signatures_max: 1, ..ledger.params().clone() }),
        Err(BodyError::TooManySignatures { signatures: 2, max: 1 })
    );
}

#[test]
fn every_header_field_is_compared() {
    let genesis = genesis_with(1);
    let ledger = Ledger::in_memory(&genesis);
    extend(&ledger, vec![]);
    let (good, _) = next_block(&ledger, vec![sealed(&funds(&genesis)[0], 5000, 0)]).unwrap();
    let judge = |block: &Block| {
        valid_block(&ledger.tip(), ledger.params(), block, &|outpoint| ledger.utxo(outpoint)).map(|_| ())
    };
    assert_eq!(judge(&good), Ok(()));
    type Change = fn(&mut Block);
    let changes: [(&str, Change); 14] = [
        ("version", |block| block.header.version = 2),
        ("height", |block| block.header.height += 1),
        ("previous", |block| block.header.previous.0.0[0] ^= 1),
        ("tx_root", |block| block.header.tx_root.0[0] ^= 1),
        ("tx_count", |block| block.header.tx_count += 1),
        ("body_bytes", |block| block.header.body_bytes += 1),
        ("last_commit_root", |block| block.header.last_commit_root.0[0] ^= 1),
        ("utxo_hash", |block| block.header.utxo_hash.0[0] ^= 1),
        ("utxo_count", |block| block.header.utxo_count += 1),
        ("supply", |block| block.header.supply = units(1)),
        ("registry_root", |block| block.header.registry_root.0[0] ^= 1),
        ("committee_root", |block| block.header.committee_root.0[0] ^= 1),
        ("next_committee_root", |block| block.header.next_committee_root.0[0] ^= 1),
        ("params_root", |block| block.header.params_root.0[0] ^= 1),
    ];
    for (name, change) in changes {
        let mut block = good.clone();
        change(&mut block);
        let Err(BlockError::Header { field, .. }) = judge(&block) else { panic!("{name} is not compared") };
        assert_eq!(field, name);
    }
    let mut late = good.clone();
    late.header.time_ms = ledger.tip().header.time_ms;
    assert!(matches!(judge(&late), Err(BlockError::NotLater { .. })));
    let mut stranger = good.clone();
    stranger.header.proposer = MasternodeId::default();
    assert!(matches!(judge(&stranger), Err(BlockError::UnknownProposer(_))));
    let mut smuggled = good.clone();
    smuggled.transactions.clear();
    assert!(matches!(judge(&smuggled), Err(BlockError::Header { .. })));
}

#[test]
fn the_last_commit_has_to_be_a_quorum_of_precommits_for_the_parent() {
    let genesis = genesis_with(0);
    let ledger = Ledger::in_memory(&genesis);
    let judge = |last_commit: Option<Qc>| {
        let tip = ledger.tip();
        let contents = Contents {
            proposer: proposer(&ledger),
            time_ms: tip.header.time_ms + 1,
            last_commit: last_commit.as_ref(),
            transactions: &[],
        };
        outcome(&tip, ledger.params(), &contents, &|_| None).map(|_| ())
    };
    let (_, qc, _) = {
        let (block, _) = next_block(&ledger, vec![]).unwrap();
        assert_eq!(
            judge(Some(commit_of(ledger.chain(), &block.header, &ledger))),
            Err(BlockError::UnexpectedCommit)
        );
        extend(&ledger, vec![])
    };
    assert_eq!(judge(Some(qc.clone())), Ok(()));
    assert_eq!(judge(None), Err(BlockError::MissingCommit));
    let other = Qc { block: Default::default(), ..qc.clone() };
    assert!(matches!(judge(Some(other)), Err(BlockError::WrongCommit { .. })));
    assert_eq!(judge(Some(Qc { step: Step::Prevote, ..qc.clone() })), Err(BlockError::NotPrecommits));
    let mut votes = qc.votes().unwrap();
    votes.truncate(2);
    let light = Qc::new(0, Step::Precommit, qc.block, votes);
    assert!(matches!(judge(Some(light)), Err(BlockError::Commit(_))));
}

#[test]
fn supply_and_state_hash_stay_exact_over_many_blocks() {
    let genesis = genesis_with(8);
    let ledger = Ledger::in_memory(&genesis);
    let mut purse = funds(&genesis);
    let mut supply = genesis.supply().unwrap();
    for height in 1..=20u64 {
        let spent: Vec<_> = purse.drain(..4).collect();
        let transactions: Vec<_> = spent.iter().map(|fund| sealed(fund, 4000 + height, 0)).collect();
        purse.extend(transactions.iter().flat_map(|transaction| transaction.creates(height)));
        let (_, _, diff) = extend(&ledger, transactions);
        supply = supply.checked_add(ledger.params().block_reward).unwrap();
        assert_eq!(diff.fees, units(4 * (4000 + height)));
        assert_eq!(diff.header.supply, supply);
        let counted = ledger.recount().unwrap();
        assert_eq!((counted.height, counted.supply), (height, supply));
    }
    assert_eq!(ledger.tip().transactions, 80);
}

#[test]
fn without_reward_the_fees_below_dust_cease_to_exist() {
    let mut genesis = genesis_with(1);
    genesis.params.block_reward = Amount::ZERO;
    let ledger = Ledger::in_memory(&genesis);
    let fund = funds(&genesis)[0];
    let (_, _, diff) = extend(&ledger, vec![sealed(&fund, 500, 0)]);
    assert_eq!(diff.coinbase.outputs, []);
    assert_eq!(diff.header.supply.units(), genesis.supply().unwrap().units() - 500);
    ledger.recount().unwrap();
}

#[test]
fn a_diff_of_another_tip_changes_nothing() {
    let genesis = genesis_with(1);
    let ledger = Ledger::in_memory(&genesis);
    let (_, qc, diff) = extend(&ledger, vec![]);
    let before = ledger.tip();
    assert!(ledger.apply(&diff, qc).is_err());
    assert_eq!(ledger.tip().block, before.block);
    ledger.recount().unwrap();
}

#[test]
fn a_lost_output_is_noticed_by_the_recount() {
    let genesis = genesis_with(3);
    let mut utxos = genesis.utxos();
    utxos.pop();
    let ledger = Ledger::from_parts(&genesis, genesis.state(), utxos);
    assert!(ledger.recount().unwrap_err().to_string().contains("number of the unspent outputs is 6"));
    let mut utxos = genesis.utxos();
    utxos[5].1.height = 3;
    let ledger = Ledger::from_parts(&genesis, genesis.state(), utxos);
    assert!(ledger.recount().unwrap_err().to_string().contains("set hash"));
}

#[test]
fn readers_see_a_whole_tip_while_blocks_are_applied() {
    let genesis = genesis_with(0);
    let ledger = Ledger::in_memory(&genesis);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut seen, mut last) = (0u64, 0);
            while !done.load(std::sync::atomic::Ordering::Acquire) || seen == 0 {
                let tip = ledger.tip();
                assert_eq!(tip.block, tip.header.id());
                assert_eq!(tip.set_hash.digest(), tip.header.utxo_hash);
                assert!(tip.header.height >= last);
                last = tip.header.height;
                seen += 1;
            }
            seen
        });
        for _ in 0..200 {
            extend(&ledger, vec![]);
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(ledger.tip().header.height, 200);
}

#[test]
fn the_outputs_of_one_key_are_listed_in_order_and_bounded() {
    let genesis = genesis_with(5);
    let ledger = Ledger::in_memory(&genesis);
    let mut expected = funds(&genesis);
    expected.sort_by_key(|(outpoint, _)| *outpoint);
    let owner: KeyHash = key(100).public().key_hash();
    assert_eq!(ledger.unspent_of(&owner, 100), expected);
    expected.truncate(2);
    assert_eq!(ledger.unspent_of(&owner, 2), expected);
    assert_eq!(ledger.unspent_of(&KeyHash(Txid::default().0), 2), []);
}
