//! Priority of the committee, and feelers.

use crate::network::NetworkOptions;
use crate::network::members::Member;
use crate::network::tests::{Node, PATIENCE, identity, options, start};
use crate::network::{Identity, NetworkEvent};
use crate::primitives::keys::SecretKey;
use std::time::Duration;
use tokio::time::timeout;

fn member(seed: u8) -> Identity {
    Identity { vote_key: Some(SecretKey::from_seed(&[100 + seed; 32])), ..identity(seed) }
}

fn of_committee(seed: u8, node: Option<&Node>) -> Member {
    let vote_key = SecretKey::from_seed(&[100 + seed; 32]).public();
    Member { vote_key, endpoint: node.map(Node::address) }
}

#[tokio::test]
async fn a_member_is_dialled_at_its_endpoint_and_let_in_where_nobody_else_is() {
    let closed = NetworkOptions { inbound_max: 0, ..options(&[]) };
    let alone = NetworkOptions { outbound_target: 0, ..options(&[]) };
    let mut one = start(closed, member(1)).await;
    let mut two = start(alone, member(2)).await;
    one.network.set_committee(vec![of_committee(1, None), of_committee(2, None)]);
    two.network.set_committee(vec![of_committee(1, Some(&one)), of_committee(2, None)]);
    assert_eq!(two.up().await, one.id());
    assert_eq!(one.up().await, two.id());
    let members = |node: &Node| (node.network.counts().members_in, node.network.counts().members_out);
    assert_eq!((members(&one), members(&two)), ((1, 0), (0, 1)));
    let mut stranger = start(options(&[one.address()]), member(3)).await;
    assert!(one.refused().await.as_str().contains("too many inbound connections: 0 of 0"));
    assert!(stranger.refused().await.as_str().contains("too many inbound"));
    // A lost link is dialled again.
    one.network.disconnect(two.id(), "a test");
    two.down().await;
    assert_eq!(two.up().await, one.id());
    // Who leaves the committee keeps its connection as an observer.
    two.network.set_committee(vec![of_committee(2, None)]);
    let counts = two.network.counts();
    assert_eq!((members(&two), counts.inbound + counts.outbound), ((0, 0), 1));
}

#[tokio::test]
async fn a_feeler_finds_out_that_a_node_is_there_and_leaves_nothing_behind() {
    let mut one = start(options(&[]), identity(1)).await;
    let feeling =
        NetworkOptions { outbound_target: 0, feeler_interval: Duration::from_millis(1), ..options(&[]) };
    let two = start(feeling, identity(2)).await;
    two.network.context.book.hear(&[one.address()], one.address().ip());
    let found = timeout(PATIENCE, async {
        while two.network.context.book.reached(1) != [one.address()] {
            tokio::task::yield_now().await;
        }
    });
    found.await.expect("the address was not tried");
    assert_eq!(two.network.counts().outbound, 0);
    // Nobody is told of a visit that meant nothing.
    let three = start(options(&[one.address()]), identity(3)).await;
    let first = one.events.recv().await.unwrap();
    assert!(matches!(first, NetworkEvent::Up { peer, .. } if peer == three.id()), "{first:?}");
}
