//! Peers that are asked dial a node back.

use crate::network::reach::Reachability;
use crate::network::tests::{Node, free_port, identity, loopback, options, start};
use crate::network::{NetworkEvent, NetworkOptions};
use std::net::SocketAddr;
use std::time::Duration;

async fn found(node: &mut Node) -> Reachability {
    node.until(|event| match event {
        NetworkEvent::Reachability(found) => Some(found.clone()),
        _ => None,
    })
    .await
}

/// A node with two peers, which finds out.
async fn of_two(advertise: Option<SocketAddr>, listen: SocketAddr) -> (Node, Reachability) {
    let one = start(options(&[]), identity(1)).await;
    let two = start(options(&[one.address()]), identity(2)).await;
    let asking = NetworkOptions {
        listen,
        advertise,
        probe_delay: Duration::from_millis(50),
        ..options(&[one.address(), two.address()])
    };
    let mut node = start(asking, identity(3)).await;
    node.up().await;
    node.up().await;
    // Perhaps of the first of them alone: a round takes whoever is there.
    let round = found(&mut node).await;
    (node, round)
}

#[tokio::test]
async fn a_node_that_can_be_dialled_learns_so_and_at_which_address() {
    let (node, round) = of_two(None, loopback(0)).await;
    assert_eq!((round.reached, round.port), (round.tried, node.address().port()));
    assert_eq!(node.network.reachability(), Some(round));
}

#[tokio::test]
async fn a_node_whose_port_is_closed_learns_so() {
    let closed = loopback(free_port());
    let (_node, round) = of_two(Some(closed), loopback(0)).await;
    assert_eq!((round.reached, round.port), (0, closed.port()));
    assert!(round.tried > 0);
}

#[tokio::test]
async fn only_the_address_a_peer_is_seen_at_is_dialled() {
    // Elsewhere, by what it says; the same port.
    let port = free_port();
    let elsewhere = SocketAddr::from(([203, 0, 113, 9], port));
    let (node, round) = of_two(Some(elsewhere), loopback(port)).await;
    assert_eq!((round.reached, node.address()), (round.tried, loopback(port)));
}
