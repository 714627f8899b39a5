//! Budgets over real sockets: who sends what nobody asked for is slowed down, then cut off; who answers is not.

use crate::network::governor::{Budget, Budgets, Rate};
use crate::network::handshake::CloseCode;
use crate::network::router::Recipients;
use crate::network::tests::hostile::Bare;
use crate::network::tests::{PATIENCE, identity, options, start, status};
use crate::network::wire::{Class, frame};
use crate::network::{NetworkEvent, NetworkOptions};
use crate::primitives::hash::{Hash, Txid};
use crate::primitives::message::Message;
use std::time::Duration;
use tokio::time::timeout;

/// Small budgets, so that a test need not send much.
fn small() -> NetworkOptions {
    let options = options(&[]);
    let rate = Rate { per_second: 1000, burst: 1000 };
    let tight = Budget { messages: rate, bytes: Rate { per_second: 100_000, burst: 100_000 } };
    let budgets =
        Budgets { votes: tight, answers: tight, patience: Duration::from_millis(300), ..options.budgets };
    NetworkOptions { budgets, ..options }
}

#[tokio::test]
async fn a_flooder_is_slowed_down_then_cut_off_and_it_counts() {
    for class in [Class::Votes, Class::Bulk] {
        let mut node = start(small(), identity(1)).await;
        let bare = Bare::accepted_as(60, &mut node).await;
        let message = match class {
            Class::Votes => status(1),
            _ => Message::BlockNotKept { height: 1, oldest: 2 },
        };
        let class = Class::of(&message);
        let flood = frame(&message).unwrap();
        let mut stream = bare.connection.open_uni().await.unwrap();
        let sending = tokio::spawn(async move {
            let mut sent = 0u64;
            if stream.write_all(&[class.byte()]).await.is_ok() {
                while stream.write_all(&flood).await.is_ok() {
                    sent += 1;
                }
            }
            sent
        });
        let read = timeout(PATIENCE, async {
            let mut read = 0u64;
            loop {
                match node.events.recv().await.expect("the network has ended") {
                    NetworkEvent::Message { .. } => read += 1,
                    NetworkEvent::Down { reason, .. } => {
                        assert!(reason.as_str().contains("than any honest node sends"), "{reason}");
                        return read;
                    }
                    _ => {}
                }
            }
        });
        let read = read.await.expect("never cut off");
        assert_eq!(bare.close_code().await, Some(CloseCode::Flood));
        let counts = node.network.counts();
        assert!(counts.throttled > 0, "not slowed down first");
        assert_eq!(counts.bans.offences, 1);
        // The budget, and what it earned while the sender was made to wait.
        assert!(read < 20_000, "{read} messages were read");
        assert!(sending.await.unwrap() >= read);
    }
}

#[tokio::test]
async fn answers_that_were_asked_for_are_never_slowed_down() {
    let mut one = start(small(), identity(1)).await;
    let mut two =
        start(NetworkOptions { bootstrap: options(&[one.address()]).bootstrap, ..small() }, identity(2))
            .await;
    one.up().await;
    two.up().await;
    // Far above the burst of a hundred kilobytes.
    let page = Message::SnapshotPart { manifest: Hash([1; 32]), part: 0, bytes: vec![7; 1 << 20] };
    for _ in 0..20 {
        one.network.send(Recipients::All, &Message::GetTransactions(vec![Txid(Hash([1; 32]))]));
        assert!(matches!(two.message().await.1, Message::GetTransactions(_)));
        two.network.send(Recipients::All, &page);
        assert_eq!(one.message().await.1, page);
    }
    assert_eq!(one.network.counts().throttled, 0);
    assert_eq!(one.network.counts().bans.offences, 0);
}
