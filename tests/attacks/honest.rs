//! What looks like an attack and is none: nobody honest may be banned for it, and all are connected again soon.

use crate::field::{BACK, Field, NAMES, VICTIM};
use crate::payer::Payer;
use crate::program::until;
use crate::strangers::{Ends, Strangers};
use masternode::network::wire::{Class, Control, frame};
use masternode::primitives::certificate::Qc;
use masternode::primitives::endpoint::EndpointRecord;
use masternode::primitives::hash::{BlockId, Hash, Txid};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::message::{Message, Status};
use masternode::primitives::transaction::{OutPoint, Transaction};
use masternode::primitives::vote::Step;
use std::time::{Duration, Instant};

/// Waits until all are connected, and holds it against the mark.
#[track_caller]
fn back(field: &Field, what: &str) {
    let took = field.until_whole(what);
    assert!(took <= BACK, "{what}: connected again after {took:?}");
    println!("{what}: 0 honest bans, all connected again after {:.1} s", took.as_secs_f64());
}

/// The victim is stopped for longer than any connection lives.
pub fn pause(field: &Field, lasted: Duration) {
    field.pause(VICTIM, lasted);
    back(field, &format!("pause of {} s", lasted.as_secs()));
    field.until_signing(VICTIM);
}

/// Its wall clock is wrong: it goes on, is told so, and its peers keep it.
pub fn wrong_clock(field: &mut Field, error_ms: i64) {
    field.kill(VICTIM);
    field.start_with_clock(VICTIM, error_ms);
    let what = format!("clock {:+} s", error_ms / 1000);
    back(field, &what);
    until("the clock is found wrong", || {
        let offset = field.status(VICTIM)?.host.clock.offset_ms?;
        ((offset + error_ms).abs() < error_ms.abs() / 2).then_some(())
    });
    field.blocks(4);
    back(field, &format!("four blocks with {what}"));
    field.kill(VICTIM);
    field.start(VICTIM);
    field.until_signing(VICTIM);
    back(field, "clock right again");
}

/// Two of four are cut off from the other two: both halves stop, and go on after it is mended.
pub fn partition(field: &Field, lasted: Duration) {
    if !field.ground.has_namespaces() {
        return println!("partition: not done, as there are no network namespaces");
    }
    field.ground.link(&[2, 3], false);
    let cut = Instant::now();
    until("the connections are given up", || {
        let members = |node: usize| field.status(node).map(|at| at.peers.members_in + at.peers.members_out);
        (members(0) == Some(1)).then_some(())
    });
    let height = field.height();
    until("the partition lasts", || (cut.elapsed() >= lasted).then_some(()));
    assert!(field.height() <= height + 1, "a half of the weight decides");
    field.ground.link(&[2, 3], true);
    let healed = Instant::now();
    field.blocks(2);
    println!(
        "partition 2|2 of {} s: blocks again {:.1} s after it",
        lasted.as_secs(),
        healed.elapsed().as_secs_f64()
    );
    back(field, "partition");
}

/// One stranger hands to two nodes what an honest node passes on or stumbles over: the two others, which it never
/// talks to, hold nothing against anybody.
pub fn relayed_garbage(field: &Field, payer: &Payer, strangers: &Strangers) {
    let offences = |node: usize| field.status(node).unwrap().peers.offences;
    let before = [offences(2), offences(3)];
    let conflicts: Vec<(Transaction, Transaction)> = (0..10)
        .map(|_| {
            let one = payer.draft();
            // Another payment of the same coin, signed by a stranger: its key is not the coin's.
            let mut other = one.clone();
            other.expiry += 1;
            other.sign(field.chain(), &SecretKey::from_seed(&[42; 32]));
            (one, other)
        })
        .collect();
    let ends = Ends::default();
    strangers.runtime.block_on(async {
        for (turn, node) in [0usize, 1].into_iter().enumerate() {
            let joined = strangers.join(field.address(node), Strangers::fresh_key()).await.unwrap();
            joined.listen();
            let mut transactions = joined.stream(Class::Transactions).await.unwrap();
            for (one, other) in &conflicts {
                let sent = if turn == 0 { one } else { other };
                transactions.write_all(&frame(&Message::Transaction(sent.clone())).unwrap()).await.unwrap();
            }
            for transaction in state_dependent(&conflicts[0].0, field) {
                let _cut = transactions.write_all(&frame(&transaction).unwrap()).await;
            }
            let mut control = joined.stream(Class::Control).await.unwrap();
            let stranger = SecretKey::from_seed(&[9; 32]);
            let at = vec!["11.250.0.1:24000".parse().unwrap()];
            let record = EndpointRecord::sign(&stranger, field.chain(), stranger.public(), at.clone(), 1);
            for told in [Control::Peers(at), Control::Endpoints(vec![record])] {
                control.write_all(&frame(&told).unwrap()).await.unwrap();
            }
            let mut votes = joined.stream(Class::Votes).await.unwrap();
            for message in far_ahead() {
                let _cut = votes.write_all(&frame(&message).unwrap()).await;
            }
            ends.add(joined.end(Duration::from_secs(5)).await);
        }
    });
    field.blocks(3);
    let known = conflicts.iter().filter(|(one, other)| payer.knows(one) || payer.knows(other)).count();
    assert!(known > 0, "nothing of it was passed on, so nothing was tested");
    for (node, before) in [2, 3].into_iter().zip(before) {
        assert_eq!(offences(node), before, "{} holds something against somebody", NAMES[node]);
    }
    println!(
        "relayed garbage: {known} of {} conflicting pairs passed on; the stranger: {ends}",
        conflicts.len()
    );
    back(field, "relayed garbage");
}

/// Payments that are refused for what a node knows, not for what they are.
fn state_dependent(payment: &Transaction, field: &Field) -> Vec<Message> {
    let key = SecretKey::from_seed(&[8; 32]);
    let change = |change: &dyn Fn(&mut Transaction)| {
        let mut payment = payment.clone();
        payment.inputs.iter_mut().for_each(|input| input.public_key = key.public());
        change(&mut payment);
        payment.sign(field.chain(), &key);
        Message::Transaction(payment)
    };
    vec![
        change(&|payment| payment.expiry = 1),
        change(&|payment| payment.expiry = u64::MAX),
        change(&|payment| payment.inputs[0].outpoint = OutPoint { txid: Txid(Hash([1; 32])), index: 3 }),
        change(&|_| {}),
    ]
}

/// What a node on another fork, or far ahead, would say.
fn far_ahead() -> Vec<Message> {
    let status = Status {
        height: 1_000_000,
        previous: BlockId(Hash([3; 32])),
        round: 7,
        has_proposal: true,
        prevotes: vec![0xff],
        precommits: vec![0xff],
        stream_heads: vec![1000; 4],
    };
    let qc = Qc {
        round: 0,
        step: Step::Precommit,
        block: BlockId(Hash([3; 32])),
        bitmap: vec![0x0f],
        signatures: vec![Signature([3; 64]); 4],
    };
    vec![
        Message::Status(status),
        Message::BlockNotKept { height: 5, oldest: 900_000 },
        Message::Commit { height: 1_000_000, qc },
    ]
}

/// The same key comes and goes, now in order and now without a word.
pub fn reconnects(field: &Field, strangers: &Strangers, times: u32) {
    let config = Strangers::config(&SecretKey::from_seed(&rand::random()));
    let (to, ends) = (field.address(0), Ends::default());
    let begun = Instant::now();
    strangers.runtime.block_on(async {
        // A node keeps its address.
        let endpoint = strangers.endpoint().clone();
        for turn in 0..times {
            match strangers.join_from(&endpoint, to, config.clone()).await {
                Ok(joined) if turn % 2 == 0 => {
                    joined.connection.close(1u32.into(), b"shutting down");
                    ends.add("accepted");
                }
                Ok(_dropped) => ends.add("accepted"),
                Err(how) => ends.add(how),
            }
        }
    });
    assert_eq!(ends.count("accepted"), u64::from(times), "{ends}");
    println!("{times} reconnects within {:.1} s: {ends}", begun.elapsed().as_secs_f64());
    back(field, "reconnects");
}
