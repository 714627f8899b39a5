//! A committee that changes while its nodes run: a masternode registers, votes, hands its vote over to
//! another key and leaves.

use super::*;
use crate::ledger::registry::Entry;
use crate::primitives::evidence::{Evidence, Offence, VoteHead};
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::vote::vote_digest;
use crate::wallet::special::{self, Change, Changes, NewMasternode};

/// Four founders and a fifth node with a key that nobody knows yet; the last coin buys collateral.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(5);
    cluster.genesis.masternodes.truncate(4);
    let (key_hash, amount) = (payer().public().key_hash(), Amount::from_time(1100).unwrap());
    cluster.genesis.allocations.push(Allocation { key_hash, amount });
    cluster.genesis.check().unwrap();
    cluster
}

fn entry_of(node: &NodeHandle, name: &str) -> Option<Entry> {
    node.ledger().tip().registry.entries().find(|entry| entry.name == name).cloned()
}

fn registration(cluster: &Cluster) -> Transaction {
    let (owner, vote_key) = (payer(), key(1, 4));
    let (outpoint, utxo) = cluster.genesis.utxos().pop().unwrap();
    let masternode = NewMasternode {
        name: "node5".to_owned(),
        vote_key: &vote_key,
        tier: Tier::Bronze,
        owner: owner.public().key_hash(),
        payout: owner.public().key_hash(),
        endpoint: Some(cluster.addresses[4]),
        change_to: owner.public().key_hash(),
        expiry: 90,
        fee_per_byte: 2,
    };
    let coin = Coin { outpoint, value: utxo.value, key: &owner };
    let params = &cluster.genesis.params;
    special::register(cluster.genesis.chain_id(), params, &[coin], &masternode).unwrap().transaction
}

async fn in_a_block(node: &NodeHandle, transaction: Transaction) {
    let txid = node.submit(transaction).await.unwrap();
    until(node, "the change in a block", |node| {
        node.tx_status(&txid).is_some_and(|state| state.status == TxStatus::Confirmed)
    })
    .await;
}

fn observes(node: &NodeHandle) -> bool {
    matches!(node.snapshot().state, NodeState::Observing)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_masternode_registers_votes_hands_its_vote_over_and_leaves() {
    let mut cluster = cluster();
    for number in 0..5 {
        cluster.start(number).await;
    }
    let (first, fifth) = (cluster.running[0].clone().unwrap(), cluster.running[4].clone().unwrap());
    until(&first, "signing", is_signing).await;
    until(&fifth, "watching", |node| observes(node) && height(node) >= 1).await;

    in_a_block(&fifth, registration(&cluster)).await;
    until(&fifth, "voting", |node| is_signing(node) && node.snapshot().node.voter.is_some()).await;
    until(&first, "votes of the fifth", |node| {
        let snapshot = node.snapshot();
        let member = snapshot.members.iter().find(|member| member.name.as_str() == "node5");
        member.is_some_and(|member| member.connected && member.signed.last() == Some(&SignMark::Signed))
    })
    .await;
    assert_eq!(first.snapshot().consensus.total_weight, 5);
    let payment = finalised(&fifth, &[&first, &fifth], cluster.payment(0)).await;
    until(&first, "the payment in a block", |node| {
        node.tx_status(&payment).is_some_and(|state| state.status == TxStatus::Confirmed)
    })
    .await;

    // Started anew, nodes take the committee from their own store.
    cluster.stop(0).await;
    let first = cluster.start(0).await;
    until(&first, "signing among five", |node| {
        is_signing(node) && node.snapshot().consensus.total_weight == 5
    })
    .await;

    let entry = entry_of(&first, "node5").unwrap();
    // Its first votes took a resume: nobody else could know that its key had never voted.
    assert_eq!(entry.sequence, 1);
    let change = |nth| Change { validator: entry.id, sequence: entry.sequence + nth, expiry: 90 };
    let (chain, owner, fresh) = (cluster.genesis.chain_id(), payer(), key(7, 1));
    let changes = Changes { vote_key: Some(&fresh), ..Changes::default() };
    in_a_block(&first, special::update(chain, change(1), &owner, &changes)).await;
    until(&fifth, "its key has no vote any more", observes).await;
    assert_eq!(entry_of(&first, "node5").unwrap().vote_key, fresh.public());
    assert_eq!(first.snapshot().consensus.total_weight, 5);

    in_a_block(&first, special::unbond(chain, change(2), &owner)).await;
    until(&first, "four votes again", |node| node.snapshot().consensus.total_weight == 4).await;
    let left = entry_of(&first, "node5").unwrap();
    assert!(matches!(left.status, MasternodeStatus::Unbonding { .. }));
    let again = special::unbond(chain, Change { expiry: 80, ..change(2) }, &owner);
    let refused = first.submit(again).await;
    assert!(matches!(refused, Err(SubmitError::Rejected(Rejection::WrongSequence { .. }))), "{refused:?}");
    let reached = height(&first);
    until(&fifth, "blocks without it", |node| height(node) >= reached + 2).await;
    for node in cluster.running.iter().flatten() {
        node.ledger().recount().unwrap();
    }
    cluster.stop_all().await;
}

fn evidence_against(entry: &Entry, vote_key: &SecretKey) -> Transaction {
    let era_tag = EraTag(Hash([7; 32]));
    let head = |block| {
        let signature = vote_key.sign(&vote_digest(era_tag, 0, Step::Precommit, block));
        VoteHead { block, signature }
    };
    let votes = [head(None), head(Some(BlockId::default()))];
    let offence = Offence::Votes { round: 0, step: Step::Precommit, votes };
    special::evidence(Evidence { offender: entry.id, vote_key: vote_key.public(), era_tag, offence }, 90)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_masternode_is_jailed_resumes_and_is_convicted_by_evidence() {
    let mut cluster = Cluster::new(5);
    cluster.genesis.params.jail_window_blocks = 4;
    cluster.genesis.params.jail_cap_percent = 33;
    cluster.genesis.check().unwrap();
    for number in 0..4 {
        cluster.start(number).await;
    }
    let first = cluster.running[0].clone().unwrap();
    until(&first, "jail", |node| {
        entry_of(node, "node5").is_some_and(|entry| entry.status == MasternodeStatus::Jailed)
    })
    .await;
    until(&first, "a committee of four", |node| node.snapshot().consensus.total_weight == 4).await;

    let fifth = cluster.start(4).await;
    // It asks for it by itself.
    until(&fifth, "voting again", |node| is_signing(node) && node.snapshot().node.voter.is_some()).await;
    let back = entry_of(&fifth, "node5").unwrap();
    assert!(back.status == MasternodeStatus::Active && back.resumed.is_some(), "{back:?}");
    let payment = finalised(&fifth, &[&first, &fifth], cluster.payment(0)).await;
    until(&first, "the payment in a block", |node| {
        node.tx_status(&payment).is_some_and(|state| state.status == TxStatus::Confirmed)
    })
    .await;

    in_a_block(&first, evidence_against(&back, &key(1, 4))).await;
    until(&fifth, "its votes count no more", |node| {
        node.snapshot().state.label()
            == "NOT SIGNING: safe start, this key cannot resume, its masternode is tombstoned"
    })
    .await;
    let convicted = entry_of(&first, "node5").unwrap();
    assert!(matches!(convicted.status, MasternodeStatus::Tombstoned { .. }));
    let rest = first.ledger().utxo(&convicted.collateral).unwrap();
    assert_eq!((rest.value, rest.key_hash), (Amount::from_time(900).unwrap(), convicted.owner));
    for node in cluster.running.iter().flatten() {
        node.ledger().recount().unwrap();
    }
    cluster.stop_all().await;
}
