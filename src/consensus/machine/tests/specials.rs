//! Special transactions at one machine: relayed and never voted on, their outputs closed until their
//! block, and taken into a block before payments, evidence first.

use super::*;
use crate::consensus::machine::proposer::Selection;
use crate::primitives::evidence::{Evidence, Offence, VoteHead};
use crate::primitives::hash::MasternodeId;
use crate::primitives::rejection::Rejection;
use crate::wallet::builder::Coin;
use crate::wallet::special::{self, Change, Changes, NewMasternode};

/// A node of a genesis whose last allocation buys collateral.
fn node() -> (Genesis, Node) {
    let mut genesis = genesis();
    genesis.allocations[3].amount = Amount::from_time(1100).unwrap();
    let mut node = Node::on(&genesis, 0);
    node.step(Input::Start);
    (genesis, node)
}

fn id_of(node: &Node, member: u8) -> MasternodeId {
    node.host.masternode_of(&vote_key(member).public()).unwrap().id
}

fn change(node: &Node, member: u8) -> Change {
    Change { validator: id_of(node, member), sequence: 1, expiry: 50 }
}

fn update(node: &Node, member: u8) -> Transaction {
    special::update(node.host.chain(), change(node, member), &vote_key(member), &Changes::default())
}

fn unbond(node: &Node, member: u8) -> Transaction {
    special::unbond(node.host.chain(), change(node, member), &vote_key(member))
}

fn evidence(node: &Node, member: u8) -> Transaction {
    let era_tag = node.machine.context.era_tag;
    let head = |block| {
        let signature = vote_key(member).sign(&vote_digest(era_tag, 0, Step::Prevote, block));
        VoteHead { block, signature }
    };
    let votes = [head(None), head(Some(BlockId::default()))];
    let offence = Offence::Votes { round: 0, step: Step::Prevote, votes };
    let (offender, vote_key) = (id_of(node, member), vote_key(member).public());
    special::evidence(Evidence { offender, vote_key, era_tag, offence }, 50)
}

fn registration(genesis: &Genesis, node: &Node) -> Transaction {
    let (owner, fresh) = (payer(), SecretKey::from_seed(&[50; 32]));
    let (outpoint, utxo) = genesis.utxos().pop().unwrap();
    let masternode = NewMasternode {
        name: "new".to_owned(),
        vote_key: &fresh,
        tier: Tier::Bronze,
        owner: owner.public().key_hash(),
        payout: owner.public().key_hash(),
        endpoint: None,
        change_to: owner.public().key_hash(),
        expiry: 50,
        fee_per_byte: 1,
    };
    let coin = Coin { outpoint, value: utxo.value, key: &owner };
    special::register(node.host.chain(), &genesis.params, &[coin], &masternode).unwrap().transaction
}

fn chosen(node: &Node) -> Vec<Txid> {
    let filled = node.machine.select_fill(&node.host, Selection::default());
    filled.chosen.iter().map(|transaction| transaction.id()).collect()
}

#[test]
fn a_special_transaction_is_relayed_and_never_voted_on() {
    let (genesis, mut node) = node();
    for transaction in [registration(&genesis, &node), unbond(&node, 1)] {
        let outputs = node.submit(transaction.clone());
        assert!(sent_to_all(&outputs).contains(&&Message::Transaction(transaction.clone())));
        let txid = transaction.id();
        assert!(node.host.body(&txid).is_some());
        assert!(!node.machine.era.ballots.contains_key(&txid));
    }
    assert!(node.machine.era.locks.is_empty() && node.machine.era.out_prepares.is_empty());
}

#[test]
fn what_a_registration_makes_is_unknown_until_its_block() {
    let (genesis, mut node) = node();
    let registration = SealedTransaction::new(registration(&genesis, &node));
    node.submit(registration.body().clone());
    let (change, utxo) = registration.creates(1).nth(1).unwrap();
    let mut payment = node.payment(0);
    payment.inputs[0].outpoint = change;
    payment.outputs.truncate(1);
    payment.outputs[0].value = Amount::from_units(utxo.value.units() - 10_000).unwrap();
    payment.sign(node.host.chain(), &payer());
    let outputs = node.submit(payment.clone());
    let refused = outputs.iter().find_map(|output| match output {
        Output::Rejected { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(refused, Some(Rejection::UnknownInput { outpoint: change }));
    // From a peer it waits for its parent's block.
    node.connect(1);
    node.receive(1, Message::Transaction(payment.clone()));
    assert!(node.host.body(&payment.id()).is_some());
    assert!(!node.machine.era.ballots.contains_key(&payment.id()));
    assert_eq!(chosen(&node), [registration.id()]);
}

#[test]
fn a_block_takes_evidence_before_what_it_excludes_and_specials_before_payments() {
    let mut node = Node::new(0);
    let payment = node.payment(0);
    let (changing, leaving, proof) = (update(&node, 1), unbond(&node, 2), evidence(&node, 1));
    for transaction in [&payment, &changing, &leaving, &proof] {
        node.submit(transaction.clone());
    }
    assert_eq!(node.host.pending().len(), 4);
    assert_eq!(chosen(&node), [proof.id(), leaving.id(), payment.id()]);
}

#[test]
fn of_two_that_leave_a_block_takes_one() {
    let mut node = Node::new(0);
    let both = [unbond(&node, 1), unbond(&node, 2)];
    both.iter().for_each(|transaction| drop(node.submit(transaction.clone())));
    assert_eq!(chosen(&node), [both.iter().map(Transaction::id).min().unwrap()]);
}
