//! Relay over real sockets: what one peer announces is asked for, taken, and announced to another.

use super::servers::hand_made;
use super::*;
use crate::primitives::message::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc;

/// The id in an announcement of one.
fn announced(message: &Message) -> Option<Txid> {
    match message {
        Message::Announce(ids) => ids.first().copied(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_pulled_from_another_teller_when_the_first_is_silent_and_announced_on() {
    // One of four masternodes, alone: it accepts and does not vote.
    let mut cluster = Cluster::new(4);
    let node = cluster.start(0).await;
    let payment = cluster.payment(0);
    let txid = payment.id();
    let asked_in_vain = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_in_vain);
    // Both say that they have it as soon as the node says anything; only the second hands it out, and it begins when
    // the first was asked.
    let _silent = hand_made(&cluster, 1, 0, move |message| match message {
        Message::Status(_) => Some(Message::Announce(vec![txid])),
        Message::GetTransactions(ids) if ids.contains(&txid) => {
            count.fetch_add(1, Relaxed);
            None
        }
        _ => None,
    })
    .await;
    until(&node, "the silent peer is connected", |node| node.snapshot().peers.list.len() == 1).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    let _listener = hand_made(&cluster, 3, 0, move |message| {
        if let Some(txid) = announced(message) {
            let _the_test_is_over = told.send(txid);
        }
        None
    })
    .await;
    let before = Arc::clone(&asked_in_vain);
    let _giver = hand_made(&cluster, 2, 0, move |message| match message {
        Message::Status(_) if before.load(Relaxed) > 0 => Some(Message::Announce(vec![txid])),
        Message::GetTransactions(ids) if ids.contains(&txid) => {
            Some(Message::Transactions(vec![payment.clone()]))
        }
        _ => None,
    })
    .await;
    until(&node, "the payment is in the pool", |node| node.pool().contains(&txid)).await;
    assert!(asked_in_vain.load(Relaxed) > 0, "the first teller is asked first");
    let heard = tokio::time::timeout(PATIENCE, heard.recv()).await.expect("nothing was announced");
    assert_eq!(heard, Some(txid));
    cluster.stop_all().await;
}
