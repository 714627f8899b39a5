//! What must hold of special transactions on a chain: who may do what, what it changes from which
//! height on, that money is conserved to the unit, and that what is valid singly is valid together.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::apply::BlockError;
use crate::ledger::genesis::{Allocation, Genesis};
use crate::ledger::tests::{
    extend, extend_without, founder, funds, genesis_with, key, next_block, pay, sealed, units,
};
use crate::ledger::validate::{BodyError, Rules, check_transaction};
use crate::primitives::amount::Amount;
use crate::primitives::evidence::{Evidence, Offence, VoteHead};
use crate::primitives::hash::{BlockId, EraTag, Txid};
use crate::primitives::keys::SecretKey;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::Utxo;
use crate::primitives::vote::{Step, vote_digest};
use crate::wallet::builder::Coin;
use crate::wallet::special::{self, Change, Changes, NewMasternode};
use proptest::prelude::*;

const EXPIRY: u64 = 50;
/// Blocks of the test chain are a second apart.
const UNBONDING_MS: u64 = 5000;

/// `founders` bronze masternodes with keys 1 and up, and 12 allocations of 2000 TIME to key 100.
fn genesis(founders: u8) -> Genesis {
    let amount = Amount::from_time(2000).unwrap();
    let allocation = Allocation { key_hash: key(100).public().key_hash(), amount };
    let base = genesis_with(0);
    let genesis = Genesis {
        params: Params {
            unbonding_ms: UNBONDING_MS,
            trust_ms: 1000,
            jail_window_blocks: 1,
            jail_cap_percent: 33,
            resume_interval_blocks: 3,
            ..base.params.clone()
        },
        masternodes: (1..=founders).map(founder).collect(),
        allocations: vec![allocation; 12],
        ..base
    };
    genesis.check().unwrap();
    genesis
}

fn chain(founders: u8) -> (Genesis, Ledger) {
    let genesis = genesis(founders);
    let ledger = Ledger::in_memory(&genesis);
    (genesis, ledger)
}

fn named(ledger: &Ledger, name: &str) -> Option<Entry> {
    ledger.tip().registry.entries().find(|entry| entry.name == name).cloned()
}

fn node(ledger: &Ledger, seed: u8) -> Entry {
    named(ledger, &format!("node-{seed}")).unwrap()
}

fn change(entry: &Entry) -> Change {
    Change { validator: entry.id, sequence: entry.sequence + 1, expiry: EXPIRY }
}

fn register_with(ledger: &Ledger, coin: &(OutPoint, Utxo), name: &str, vote: u8) -> Transaction {
    let (payer, vote_key) = (key(100), key(vote));
    let coins = [Coin { outpoint: coin.0, value: coin.1.value, key: &payer }];
    let masternode = NewMasternode {
        name: name.to_owned(),
        vote_key: &vote_key,
        tier: Tier::Bronze,
        owner: key(101).public().key_hash(),
        payout: key(102).public().key_hash(),
        endpoint: None,
        change_to: payer.public().key_hash(),
        expiry: EXPIRY,
        fee_per_byte: 1,
    };
    special::register(ledger.chain(), ledger.params(), &coins, &masternode).unwrap().transaction
}

fn update(ledger: &Ledger, entry: &Entry, owner: u8, changes: &Changes<'_>) -> Transaction {
    special::update(ledger.chain(), change(entry), &key(owner), changes)
}

fn unbond(ledger: &Ledger, entry: &Entry, owner: u8) -> Transaction {
    special::unbond(ledger.chain(), change(entry), &key(owner))
}

fn resume(ledger: &Ledger, entry: &Entry, vote: u8, new: Option<u8>) -> Transaction {
    let new = new.map(key);
    special::resume(ledger.chain(), change(entry), &key(vote), [7; 32], new.as_ref())
}

fn evidence(entry: &Entry, vote: u8) -> Transaction {
    let era_tag = EraTag(Hash([7; 32]));
    let head =
        |block| VoteHead { block, signature: key(vote).sign(&vote_digest(era_tag, 0, Step::Prevote, block)) };
    let votes = [head(None), head(Some(BlockId::default()))];
    let offence = Offence::Votes { round: 0, step: Step::Prevote, votes };
    special::evidence(Evidence { offender: entry.id, vote_key: key(vote).public(), era_tag, offence }, EXPIRY)
}

fn judge(ledger: &Ledger, transaction: &SharedTransaction) -> Result<Amount, Rejection> {
    let tip = ledger.tip();
    let rules = Rules { params: ledger.params(), height: tip.header.height + 1, registry: &tip.registry };
    check_transaction(&rules, transaction, &|outpoint| ledger.utxo(outpoint))
}

fn refused(ledger: &Ledger, transaction: Transaction) -> &'static str {
    judge(ledger, &SealedTransaction::new(transaction)).unwrap_err().code()
}

/// Applies a block of these, whose signatures must all hold.
fn include(ledger: &Ledger, transactions: Vec<Transaction>) -> Vec<SharedTransaction> {
    for transaction in &transactions {
        for check in transaction.signature_checks(ledger.chain()) {
            // Payments of the test chain are not signed.
            assert!(transaction.payload.is_empty() || check.key.verify(&check.digest, &check.signature));
        }
    }
    let sealed: Vec<SharedTransaction> = transactions.into_iter().map(SealedTransaction::new).collect();
    extend(ledger, sealed.clone());
    ledger.recount().unwrap();
    sealed
}

fn is_member(ledger: &Ledger, vote: u8) -> bool {
    ledger.tip().next_committee.index_of(&key(vote).public()).is_some()
}

#[test]
fn a_registered_masternode_votes_from_the_next_height_on_and_its_collateral_is_locked() {
    let (genesis, ledger) = chain(4);
    let register = include(&ledger, vec![register_with(&ledger, &funds(&genesis)[0], "five", 5)]);
    let tip = ledger.tip();
    let five = named(&ledger, "five").unwrap();
    assert_eq!(
        (five.status, five.sequence, five.owner),
        (MasternodeStatus::Active, 0, key(101).public().key_hash())
    );
    assert_eq!(five.collateral, OutPoint { txid: register[0].id(), index: 0 });
    assert_eq!((tip.committee.len(), tip.next_committee.len()), (4, 5));
    assert_eq!(tip.header.next_committee_root, tip.next_committee.root());
    let mut theft = pay(five.collateral, Tier::Bronze.collateral(), 5000, 0);
    theft.inputs[0].public_key = key(101).public();
    assert_eq!(refused(&ledger, theft), "locked-collateral");
    extend(&ledger, vec![]);
    assert_eq!(ledger.tip().committee.len(), 5);
    assert_eq!(ledger.tip().header.committee_root, ledger.tip().committee.root());
}

#[test]
fn what_a_registration_makes_can_be_spent_from_the_next_block_on() {
    let (genesis, ledger) = chain(4);
    let register = SealedTransaction::new(register_with(&ledger, &funds(&genesis)[0], "five", 5));
    let (change, utxo) = register.creates(1).nth(1).unwrap();
    let child = sealed(&(change, utxo), 5000, 0);
    let error = next_block(&ledger, vec![register.clone(), child.clone()]).unwrap_err();
    let unknown = Rejection::UnknownInput { outpoint: change };
    assert_eq!(error, BlockError::Body(BodyError::Transaction { txid: child.id(), reason: unknown }));
    extend(&ledger, vec![register]);
    extend(&ledger, vec![child]);
    ledger.recount().unwrap();
}

#[test]
fn a_registration_may_spend_what_a_payment_of_its_block_makes() {
    let (genesis, ledger) = chain(4);
    let parent = sealed(&funds(&genesis)[0], 5000, 0);
    let (a, b) = (parent.creates(1).next().unwrap(), parent.creates(1).nth(1).unwrap());
    let payer = key(100);
    let coins = [a, b].map(|(outpoint, utxo)| Coin { outpoint, value: utxo.value, key: &payer });
    let vote_key = key(5);
    let masternode = NewMasternode {
        name: "five".to_owned(),
        vote_key: &vote_key,
        tier: Tier::Bronze,
        owner: key(101).public().key_hash(),
        payout: key(102).public().key_hash(),
        endpoint: None,
        change_to: payer.public().key_hash(),
        expiry: EXPIRY,
        fee_per_byte: 1,
    };
    let built = special::register(ledger.chain(), ledger.params(), &coins, &masternode).unwrap();
    extend(&ledger, vec![parent, SealedTransaction::new(built.transaction)]);
    ledger.recount().unwrap();
    assert!(is_member(&ledger, 5));
}

#[test]
fn an_update_changes_what_it_names_and_the_old_key_stays_punishable_for_a_time() {
    let (_, ledger) = chain(4);
    let fresh = key(20);
    let changes = Changes {
        vote_key: Some(&fresh),
        payout: Some(key(103).public().key_hash()),
        endpoint: Some("10.0.0.1:24101".parse().unwrap()),
    };
    let first = update(&ledger, &node(&ledger, 1), 1, &changes);
    include(&ledger, vec![first.clone()]);
    let entry = node(&ledger, 1);
    assert_eq!(
        (entry.vote_key, entry.payout, entry.sequence),
        (fresh.public(), key(103).public().key_hash(), 1)
    );
    assert_eq!(entry.endpoint, changes.endpoint);
    assert!(is_member(&ledger, 20) && !is_member(&ledger, 1));
    assert_eq!(refused(&ledger, first), "wrong-sequence", "nothing is applied twice");
    // What is not named stays.
    include(&ledger, vec![update(&ledger, &entry, 1, &Changes::default())]);
    let entry = node(&ledger, 1);
    assert_eq!((entry.vote_key, entry.endpoint, entry.sequence), (fresh.public(), changes.endpoint, 2));
    assert_eq!(judge(&ledger, &SealedTransaction::new(evidence(&entry, 1))), Ok(Amount::ZERO));
    for _ in 0..3 {
        extend(&ledger, vec![]);
    }
    assert_eq!(node(&ledger, 1).former_keys.len(), 1);
    extend(&ledger, vec![]);
    assert_eq!(node(&ledger, 1).former_keys, [], "{UNBONDING_MS} ms after the change");
    assert_eq!(refused(&ledger, evidence(&entry, 1)), "not-vote-key");
}

#[test]
fn an_unbonding_frees_the_collateral_when_its_time_is_over() {
    let (_, ledger) = chain(4);
    let entry = node(&ledger, 2);
    include(&ledger, vec![unbond(&ledger, &entry, 2)]);
    assert!(!is_member(&ledger, 2));
    let left = node(&ledger, 2);
    assert!(matches!(left.status, MasternodeStatus::Unbonding { .. }));
    let mut spend = pay(entry.collateral, Tier::Bronze.collateral(), 5000, 0);
    spend.inputs[0].public_key = key(2).public();
    for _ in 0..4 {
        extend(&ledger, vec![]);
        assert_eq!(refused(&ledger, spend.clone()), "locked-collateral");
        assert!(ledger.tip().registry.entry(entry.id).is_some());
    }
    extend(&ledger, vec![]);
    assert_eq!(ledger.tip().registry.entry(entry.id), None);
    include(&ledger, vec![spend]);
}

#[test]
fn only_so_many_may_leave_that_three_remain() {
    let (_, ledger) = chain(4);
    include(&ledger, vec![unbond(&ledger, &node(&ledger, 1), 1)]);
    assert_eq!(refused(&ledger, unbond(&ledger, &node(&ledger, 2), 2)), "committee-too-small");
    assert_eq!(ledger.tip().next_committee.len(), 3);
}

#[test]
fn one_masternode_may_leave_in_a_block() {
    let (_, ledger) = chain(8);
    let both = [1, 2].map(|seed| SealedTransaction::new(unbond(&ledger, &node(&ledger, seed), seed)));
    both.iter().for_each(|one| assert_eq!(judge(&ledger, one), Ok(Amount::ZERO)));
    let error = next_block(&ledger, both.to_vec()).unwrap_err();
    assert!(matches!(error, BlockError::Body(BodyError::Excluded { .. })), "{error}");
}

#[test]
fn a_resume_ends_the_jail_and_names_its_nonce() {
    let (_, ledger) = chain(8);
    extend_without(&ledger, vec![], &[3]);
    extend(&ledger, vec![]);
    assert_eq!(node(&ledger, 3).status, MasternodeStatus::Jailed);
    assert!(!is_member(&ledger, 3));
    assert_eq!(refused(&ledger, resume(&ledger, &node(&ledger, 3), 4, None)), "not-vote-key");
    include(&ledger, vec![resume(&ledger, &node(&ledger, 3), 3, Some(30))]);
    let entry = node(&ledger, 3);
    assert_eq!(entry.resumed, Some(Resumed { height: 3, nonce: [7; 32] }));
    assert_eq!(
        (entry.status, entry.attendance.seen(), entry.vote_key),
        (MasternodeStatus::Active, 0, key(30).public())
    );
    assert!(is_member(&ledger, 30) && entry.answers_for(&key(3).public()));
    extend(&ledger, vec![]);
    assert_eq!(refused(&ledger, resume(&ledger, &node(&ledger, 3), 30, None)), "resume-too-soon");
    extend(&ledger, vec![]);
    include(&ledger, vec![resume(&ledger, &node(&ledger, 3), 30, None)]);
}

#[test]
fn evidence_burns_a_tenth_bars_the_keys_and_frees_the_rest_after_the_period() {
    let (genesis, ledger) = chain(5);
    let entry = node(&ledger, 2);
    let before = ledger.tip().header.supply;
    let proof = include(&ledger, vec![evidence(&entry, 2)]).remove(0);
    let (convicted, tip) = (node(&ledger, 2), ledger.tip());
    assert!(matches!(convicted.status, MasternodeStatus::Tombstoned { .. }));
    assert!(!is_member(&ledger, 2));
    let rest = OutPoint { txid: proof.id(), index: 0 };
    assert_eq!((convicted.collateral, ledger.utxo(&entry.collateral)), (rest, None));
    let kept = ledger.utxo(&rest).unwrap();
    assert_eq!((kept.value, kept.key_hash), (Amount::from_time(900).unwrap(), entry.owner));
    let burned = before.checked_add(ledger.params().block_reward).unwrap().checked_sub(tip.header.supply);
    assert_eq!(burned, Amount::from_time(100));
    assert_eq!(refused(&ledger, evidence(&convicted, 2)), "wrong-status", "nobody is punished twice");
    for transaction in [unbond(&ledger, &convicted, 2), resume(&ledger, &convicted, 2, None)] {
        assert_eq!(refused(&ledger, transaction), "wrong-status");
    }
    assert_eq!(refused(&ledger, register_with(&ledger, &funds(&genesis)[0], "again", 2)), "key-in-use");
    let mut spend = pay(rest, kept.value, 5000, 0);
    spend.inputs[0].public_key = key(2).public();
    for _ in 0..5 {
        assert_eq!(refused(&ledger, spend.clone()), "locked-collateral");
        extend(&ledger, vec![]);
    }
    assert_eq!(named(&ledger, "node-2"), None);
    assert_eq!(refused(&ledger, register_with(&ledger, &funds(&genesis)[0], "again", 2)), "key-in-use");
    include(&ledger, vec![spend]);
}

#[test]
fn who_is_unbonding_can_still_be_convicted() {
    let (_, ledger) = chain(5);
    include(&ledger, vec![unbond(&ledger, &node(&ledger, 1), 1)]);
    extend(&ledger, vec![]);
    include(&ledger, vec![evidence(&node(&ledger, 1), 1)]);
    // The period starts anew: the old one would end three blocks from here.
    for _ in 0..4 {
        extend(&ledger, vec![]);
        assert!(named(&ledger, "node-1").is_some());
    }
    extend(&ledger, vec![]);
    assert_eq!(named(&ledger, "node-1"), None);
}

#[test]
fn a_committee_of_convicts_keeps_three_members_and_their_collateral() {
    let (_, ledger) = chain(4);
    let all: Vec<Transaction> = (1..=4).map(|seed| evidence(&node(&ledger, seed), seed)).collect();
    include(&ledger, all);
    for _ in 0..7 {
        assert_eq!((ledger.tip().registry.active(), ledger.tip().next_committee.len()), (0, 3));
        extend(&ledger, vec![]);
    }
    assert_eq!(ledger.tip().registry.entries().len(), 3, "the fourth was free to go");
}

#[test]
fn every_fault_of_a_special_transaction_has_its_own_rejection() {
    let (genesis, ledger) = chain(4);
    let fund = funds(&genesis)[0];
    let good = register_with(&ledger, &fund, "five", 5);
    let broken = |edit: &dyn Fn(&mut Transaction, &mut Registration)| {
        let mut transaction = good.clone();
        let Ok(Some(Special::Register(mut registration))) = Special::of(&transaction) else {
            panic!("a registration")
        };
        edit(&mut transaction, &mut registration);
        transaction.payload = Special::Register(registration).encode().1;
        refused(&ledger, transaction)
    };
    assert_eq!(broken(&|_, registration| registration.name = "x\u{1b}".to_owned()), "bad-name");
    assert_eq!(broken(&|_, registration| registration.name = "node-1".to_owned()), "name-in-use");
    assert_eq!(broken(&|_, registration| registration.vote_key = key(1).public()), "key-in-use");
    assert_eq!(broken(&|_, registration| registration.tier = Tier::Silver), "wrong-collateral");
    assert_eq!(broken(&|_, registration| registration.collateral = 7), "wrong-collateral");
    assert_eq!(broken(&|transaction, _| transaction.outputs[0].value = units(1)), "wrong-collateral");
    assert_eq!(broken(&|transaction, _| transaction.inputs.clear()), "no-inputs");
    assert_eq!(broken(&|transaction, _| transaction.outputs[1].value = fund.1.value), "overspend");
    assert_eq!(broken(&|transaction, _| transaction.expiry = 0), "expired");
    let not_a_point = (2..).map(|byte| PublicKey([byte; 32])).find(|key| !key.is_point()).unwrap();
    assert_eq!(broken(&|_, registration| registration.vote_key = not_a_point), "not-a-key");
    let mut cut = good.clone();
    cut.payload.pop();
    assert_eq!(refused(&ledger, cut), "malformed-payload");

    let entry = node(&ledger, 1);
    let strange = Entry { id: MasternodeId::default(), ..entry.clone() };
    let ahead = Entry { sequence: 1, ..entry.clone() };
    let nothing = Changes::default();
    assert_eq!(refused(&ledger, update(&ledger, &strange, 1, &nothing)), "unknown-masternode");
    assert_eq!(refused(&ledger, update(&ledger, &ahead, 1, &nothing)), "wrong-sequence");
    assert_eq!(refused(&ledger, update(&ledger, &entry, 2, &nothing)), "not-owner");
    assert_eq!(refused(&ledger, unbond(&ledger, &entry, 2)), "not-owner");
    let used = key(2);
    let taken = Changes { vote_key: Some(&used), ..Changes::default() };
    assert_eq!(refused(&ledger, update(&ledger, &entry, 1, &taken)), "key-in-use");
    assert_eq!(refused(&ledger, resume(&ledger, &entry, 1, Some(2))), "key-in-use");
    let mut rich = update(&ledger, &entry, 1, &nothing);
    rich.inputs = good.inputs.clone();
    assert_eq!(refused(&ledger, rich), "unexpected-money");
    assert_eq!(refused(&ledger, evidence(&entry, 9)), "not-vote-key");
    assert_eq!(refused(&ledger, evidence(&strange, 1)), "unknown-masternode");
    let same = VoteHead { block: None, signature: key(1).sign(&Hash::default()) };
    let offence = Offence::Votes { round: 0, step: Step::Prevote, votes: [same, same] };
    let no_proof =
        Evidence { offender: entry.id, vote_key: key(1).public(), era_tag: EraTag::default(), offence };
    assert_eq!(refused(&ledger, special::evidence(no_proof, EXPIRY)), "no-offence");
}

#[test]
fn an_endpoint_belongs_to_one_masternode_that_votes_or_may_again() {
    let (_, ledger) = chain(5);
    let there = Changes { endpoint: Some("10.0.0.1:24101".parse().unwrap()), ..Changes::default() };
    include(&ledger, vec![update(&ledger, &node(&ledger, 1), 1, &there)]);
    assert_eq!(refused(&ledger, update(&ledger, &node(&ledger, 2), 2, &there)), "endpoint-in-use");
    include(&ledger, vec![unbond(&ledger, &node(&ledger, 1), 1)]);
    include(&ledger, vec![update(&ledger, &node(&ledger, 2), 2, &there)]);
}

#[test]
fn a_key_is_changed_only_while_the_former_ones_can_all_be_kept() {
    let mut genesis = genesis(4);
    genesis.params.unbonding_ms = 60_000;
    let ledger = Ledger::in_memory(&genesis);
    for seed in 20..36 {
        let fresh = key(seed);
        let changes = Changes { vote_key: Some(&fresh), ..Changes::default() };
        include(&ledger, vec![update(&ledger, &node(&ledger, 1), 1, &changes)]);
    }
    let fresh = key(36);
    let changes = Changes { vote_key: Some(&fresh), ..Changes::default() };
    assert_eq!(node(&ledger, 1).former_keys.len(), FORMER_KEYS_MAX);
    assert_eq!(refused(&ledger, update(&ledger, &node(&ledger, 1), 1, &changes)), "too-many-former-keys");
    // Any of them convicts.
    include(&ledger, vec![evidence(&node(&ledger, 1), 21)]);
    assert!(ledger.tip().registry.knows_key(&key(35).public()));
}

#[test]
fn evidence_may_hold_two_of_the_largest_payments_and_not_more() {
    let (_, ledger) = chain(4);
    let entry = node(&ledger, 1);
    let padded = |bytes: usize| {
        let mut transaction = evidence(&entry, 1);
        transaction.payload.resize(bytes, 0);
        refused(&ledger, transaction)
    };
    let max = usize::try_from(ledger.params().evidence_bytes_max()).unwrap();
    let frame = usize::try_from(SealedTransaction::new(evidence(&entry, 1)).size()).unwrap()
        - evidence(&entry, 1).payload.len();
    assert_eq!(padded(max - frame), "malformed-payload");
    assert_eq!(padded(max - frame + 1), "oversized");
    let mut update = update(&ledger, &entry, 1, &Changes::default());
    update.payload.resize(usize::try_from(ledger.params().transaction_bytes_max).unwrap(), 0);
    assert_eq!(refused(&ledger, update), "oversized");
}

#[test]
fn the_largest_evidence_fits_the_reserve_of_a_block() {
    let most = (crate::primitives::params::BLOCK_RESERVE_BYTES - (16 << 10)) / 2;
    let params = Params { transaction_bytes_max: most, ..genesis(4).params };
    params.check().unwrap();
    assert_eq!(params.evidence_bytes_max(), crate::primitives::params::BLOCK_RESERVE_BYTES);
    assert_eq!(
        Params { transaction_bytes_max: most + 1, ..params }.check().unwrap_err().name,
        "transaction_bytes_max"
    );
}

/// A chain on which every status and a former key occur: 1 is unbonding, 2 convicted, 3 jailed, 4 has
/// changed its key from 4 to 40, 5 to 8 are as founded.
fn eventful() -> (Genesis, Ledger) {
    let (genesis, ledger) = chain(8);
    include(&ledger, vec![unbond(&ledger, &node(&ledger, 1), 1), evidence(&node(&ledger, 2), 2)]);
    let fresh = key(40);
    let changes = Changes { vote_key: Some(&fresh), ..Changes::default() };
    let update = SealedTransaction::new(update(&ledger, &node(&ledger, 4), 4, &changes));
    extend_without(&ledger, vec![update], &[3]);
    extend(&ledger, vec![]);
    assert_eq!(node(&ledger, 3).status, MasternodeStatus::Jailed);
    (genesis, ledger)
}

/// What a random transaction of the search is made of.
#[derive(Clone, Debug)]
struct Draft {
    kind: u8,
    target: u8,
    signer: u8,
    fresh: Option<u8>,
    endpoint: Option<u8>,
    name: u8,
    fund: usize,
    ahead: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let few = |most: u8| prop_oneof![2 => Just(None), 1 => (0..most).prop_map(Some)];
    (
        0u8..7,
        1u8..9,
        prop_oneof![4 => Just(0u8), 1 => 1u8..9],
        few(4),
        few(3),
        0u8..4,
        0usize..12,
        any::<u8>(),
    )
        .prop_map(|(kind, target, signer, fresh, endpoint, name, fund, ahead)| Draft {
            kind,
            target,
            signer,
            fresh: fresh.map(|fresh| 50 + fresh),
            endpoint,
            name,
            fund,
            ahead: ahead < 16,
        })
}

fn make(genesis: &Genesis, ledger: &Ledger, draft: &Draft) -> SharedTransaction {
    let mut entry = node(ledger, draft.target);
    entry.sequence += u64::from(draft.ahead);
    let signer = if draft.signer == 0 { draft.target } else { draft.signer };
    // The key it votes with now, where it is the owner's own that signs.
    let voter = if signer == 4 && draft.name == 0 { 40 } else { signer };
    let fund = funds(genesis)[draft.fund];
    let fresh: Option<SecretKey> = draft.fresh.map(key);
    let endpoint =
        draft.endpoint.map(|port| std::net::SocketAddr::from(([10, 0, 0, 1], 24_000 + u16::from(port))));
    SealedTransaction::new(match draft.kind {
        0 => pay(fund.0, fund.1.value, 5000, draft.name),
        1 => register_with(ledger, &fund, &format!("new-{}", draft.name), 50 + draft.target),
        2 => update(ledger, &entry, signer, &Changes { vote_key: fresh.as_ref(), payout: None, endpoint }),
        3 => unbond(ledger, &entry, signer),
        4 => resume(ledger, &entry, voter, draft.fresh),
        _ => evidence(&entry, voter),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_valid_singly_and_claims_nothing_twice_is_valid_together(
        drafts in prop::collection::vec(draft(), 1..24), absent in prop::collection::vec(5u8..9, 0..2),
    ) {
        let (genesis, ledger) = eventful();
        extend_without(&ledger, vec![], &absent);
        let mut claimed = std::collections::BTreeSet::new();
        let mut body: Vec<SharedTransaction> = Vec::new();
        for transaction in drafts.iter().map(|draft| make(&genesis, &ledger, draft)) {
            let free = transaction.claims().all(|claim| !claimed.contains(&claim));
            if free && judge(&ledger, &transaction).is_ok() {
                claimed.extend(transaction.claims());
                body.push(transaction);
            }
        }
        let before = ledger.tip();
        let convicted = body.iter().filter(|tx| matches!(tx.special(), Ok(Some(Special::Evidence(_))))).count();
        extend(&ledger, body);
        ledger.recount().unwrap();
        let after = ledger.tip();
        // Every founder has locked 1000 TIME, a tenth of which burns; fees come back as reward.
        let burned = Amount::from_time(100 * convicted as u64).unwrap();
        let expected = before.header.supply.checked_add(ledger.params().block_reward).unwrap().checked_sub(burned);
        prop_assert_eq!(Some(after.header.supply), expected);
        check_registry(&ledger)?;
        // And what follows by time alone keeps it sound.
        for _ in 0..7 {
            // Where a quorum is left without the absent one.
            let absent = if ledger.tip().next_committee.len() > 3 { &absent[..] } else { &[] };
            extend_without(&ledger, vec![], absent);
            check_registry(&ledger)?;
        }
    }
}

/// What must hold of the registry after every block.
fn check_registry(ledger: &Ledger) -> Result<(), TestCaseError> {
    let tip = ledger.tip();
    let registry = &tip.registry;
    prop_assert!(tip.next_committee.len() >= COMMITTEE_MIN);
    prop_assert_eq!(tip.header.registry_root, registry.root());
    prop_assert_eq!(Registry::from_parts(registry.parts()), (**registry).clone(), "look-ups fit the entries");
    let mut keys: Vec<PublicKey> = registry.entries().flat_map(Entry::keys).collect();
    keys.sort_unstable();
    prop_assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "every key is of one masternode");
    for entry in registry.entries() {
        let locked = ledger.utxo(&entry.collateral);
        prop_assert_eq!(locked.map(|utxo| utxo.key_hash), Some(entry.owner), "collateral is there");
        prop_assert!(registry.is_locked(&entry.collateral));
    }
    Ok(())
}

#[test]
fn a_registry_of_what_is_stored_is_the_same() {
    let (_, ledger) = eventful();
    let registry = &ledger.tip().registry;
    assert_eq!(Registry::from_parts(registry.parts()), **registry);
    assert!(registry.knows_key(&key(2).public()) && registry.knows_key(&key(4).public()));
    assert_eq!(registry.voting_with(&key(40).public()).map(|entry| entry.name.as_str()), Some("node-4"));
    assert!(!registry.is_locked(&OutPoint { txid: Txid::default(), index: 0 }));
}
