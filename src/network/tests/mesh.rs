//! Several nodes: meshes, crossing dials, crashes, storms.

use crate::network::router::Recipients;
use crate::network::tests::{Node, PATIENCE, free_port, identity, loopback, options, start, status};
use crate::network::{NetworkEvent, NetworkOptions};
use crate::primitives::message::PeerId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Reads events of all nodes until every one has all others up; returns how many `Down` came.
async fn mesh(nodes: &mut [Node], up: &mut [BTreeMap<PeerId, u32>]) -> usize {
    let others = nodes.len() - 1;
    let mut downs = 0;
    let complete = timeout(PATIENCE, async {
        while up.iter().any(|up| up.len() < others) {
            for (node, up) in nodes.iter_mut().zip(up.iter_mut()) {
                while let Ok(event) = node.events.try_recv() {
                    downs += usize::from(count(&event, up));
                }
            }
            tokio::task::yield_now().await;
        }
    });
    complete.await.unwrap_or_else(|_| panic!("no full mesh: {up:?}"));
    downs
}

/// Keeps the book of who is up; true for an end. Panics on an `Up` without a `Down` before it.
fn count(event: &NetworkEvent, up: &mut BTreeMap<PeerId, u32>) -> bool {
    match event {
        NetworkEvent::Up { peer, .. } => {
            assert!(up.insert(*peer, 1).is_none(), "up twice");
            false
        }
        NetworkEvent::Down { peer, .. } => {
            assert!(up.remove(peer).is_some(), "down without up");
            true
        }
        _ => false,
    }
}

#[tokio::test]
async fn crossing_dials_leave_one_connection_and_do_not_flap() {
    for round in 0..20u8 {
        let ports = [free_port(), free_port()];
        let make = |own: usize, other: usize, seed| {
            let address = loopback(ports[own]);
            let options = NetworkOptions { listen: address, ..options(&[loopback(ports[other])]) };
            start(options, identity(seed))
        };
        let (one, two) = tokio::join!(make(0, 1, 2 * round + 1), make(1, 0, 2 * round + 2));
        let mut nodes = [one, two];
        let mut up = [BTreeMap::new(), BTreeMap::new()];
        let mut downs = mesh(&mut nodes, &mut up).await;
        // Whatever was crossing has arrived once a message went each way and came back.
        for height in 0..4 {
            for (from, to) in [(0, 1), (1, 0)] {
                nodes[from].network.send(Recipients::All, &status(height));
                let arrived = nodes[to].until(|event| {
                    downs += usize::from(count(event, &mut up[to]));
                    matches!(event, NetworkEvent::Message { .. }).then_some(())
                });
                arrived.await;
            }
        }
        assert_eq!(downs, 0, "round {round}: a connection was made and dropped");
        let counts = nodes.each_ref().map(|node| node.network.counts());
        assert_eq!(counts[0].inbound + counts[0].outbound, 1, "round {round}");
        assert_eq!((counts[0].inbound, counts[0].outbound), (counts[1].outbound, counts[1].inbound));
        for node in nodes {
            node.network.shutdown(PATIENCE).await;
        }
    }
}

#[tokio::test]
async fn nodes_that_know_only_the_first_form_a_full_mesh() {
    let begun = Instant::now();
    let first = start(options(&[]), identity(1)).await;
    let seed = first.address();
    let mut nodes = vec![first];
    for number in 2..=7 {
        nodes.push(start(options(&[seed]), identity(number)).await);
    }
    let mut up = vec![BTreeMap::new(); nodes.len()];
    mesh(&mut nodes, &mut up).await;
    let took = begun.elapsed();
    println!("full mesh of {} nodes after {took:?}", nodes.len());
    assert!(took < Duration::from_secs(10), "{took:?}");
    for node in &nodes {
        let counts = node.network.counts();
        assert_eq!(counts.inbound + counts.outbound, 6);
        assert_eq!(node.network.peers().len(), 6);
    }
}

#[tokio::test]
async fn counts_are_exact_after_a_storm_of_disconnections() {
    let first = start(options(&[]), identity(1)).await;
    let seed = first.address();
    let mut nodes = vec![first];
    for number in 2..=4 {
        nodes.push(start(options(&[seed]), identity(number)).await);
    }
    let mut up = vec![BTreeMap::new(); nodes.len()];
    mesh(&mut nodes, &mut up).await;
    for round in 0..15 {
        let victim = nodes[(round + 1) % 4].id();
        nodes[round % 4].network.disconnect(victim, "storm");
        let victim = nodes[(round + 2) % 4].id();
        nodes[(round + 3) % 4].network.disconnect(victim, "storm");
        // Both ends must have seen both ends before the mesh is whole again.
        let mut downs = 0;
        let seen = timeout(PATIENCE, async {
            while downs < 4 {
                for (node, up) in nodes.iter_mut().zip(up.iter_mut()) {
                    while let Ok(event) = node.events.try_recv() {
                        downs += usize::from(count(&event, up));
                    }
                }
                tokio::task::yield_now().await;
            }
        });
        seen.await.unwrap_or_else(|_| panic!("round {round}: {downs} ends seen"));
        mesh(&mut nodes, &mut up).await;
    }
    let (mut inbound, mut outbound) = (0, 0);
    for node in &nodes {
        let counts = node.network.counts();
        assert_eq!(counts.inbound + counts.outbound, 3);
        assert_eq!(node.network.peers().iter().filter(|peer| peer.inbound).count(), counts.inbound);
        inbound += counts.inbound;
        outbound += counts.outbound;
    }
    assert_eq!((inbound, outbound), (6, 6));
    let last = nodes.pop().unwrap();
    for node in nodes {
        node.network.shutdown(PATIENCE).await;
    }
    let mut last = last;
    for _ in 0..3 {
        last.down().await;
    }
    assert_eq!((last.network.counts().inbound, last.network.counts().outbound), (0, 0));
}

/// Ends a node as a kill does: its runtime stops, and nothing more is sent.
fn kill(runtime: tokio::runtime::Runtime, node: Node) {
    runtime.shutdown_timeout(PATIENCE);
    drop(node);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Kills a node and starts it anew with the same key and port; `dials` says which ends dial.
fn crash_and_return(survivor_dials: bool, crashed_dials: bool) {
    let (survivor_runtime, first_life, second_life) = (runtime(), runtime(), runtime());
    let (here, there) = (loopback(free_port()), loopback(free_port()));
    let at = |own, other, dials| {
        let others = if dials { vec![other] } else { Vec::new() };
        NetworkOptions { listen: own, outbound_target: 0, ..options(&others) }
    };
    // The survivor has the smaller and then, in the other call, the larger key.
    let (survivor_seed, crashed_seed) = if survivor_dials { (1, 2) } else { (2, 1) };
    let survivor = start(at(here, there, survivor_dials), identity(survivor_seed));
    let mut survivor = survivor_runtime.block_on(survivor);
    let crashing = first_life.block_on(start(at(there, here, crashed_dials), identity(crashed_seed)));
    survivor_runtime.block_on(survivor.up());
    kill(first_life, crashing);
    let begun = Instant::now();
    let mut back = second_life.block_on(start(at(there, here, crashed_dials), identity(crashed_seed)));
    survivor_runtime.block_on(async {
        survivor.down().await;
        survivor.up().await;
    });
    second_life.block_on(back.up());
    let took = begun.elapsed();
    println!("survivor dials: {survivor_dials}, crashed dials: {crashed_dials}: back after {took:?}");
    // Well below the idle timeout of 10 s: the return is noticed, not waited for.
    assert!(took < Duration::from_secs(8), "{took:?}");
    survivor_runtime.block_on(async {
        survivor.network.send(Recipients::All, &status(1));
    });
    assert_eq!(second_life.block_on(back.message()).1, status(1));
    survivor_runtime.block_on(survivor.network.shutdown(PATIENCE));
    second_life.block_on(back.network.shutdown(PATIENCE));
}

#[test]
fn a_killed_node_that_dials_again_is_accepted_at_once() {
    crash_and_return(false, true);
}

#[test]
fn a_killed_node_that_only_listens_is_dialled_again() {
    crash_and_return(true, false);
}

#[test]
fn a_killed_node_returns_when_both_ends_dial() {
    crash_and_return(true, true);
}

/// Copies of a data directory share the network key: whoever runs both must be told, which takes that
/// both stay connected, to the others and to each other.
#[tokio::test]
async fn two_processes_with_one_key_stay_connected_to_a_third_and_to_each_other() {
    let mut third = start(options(&[]), identity(1)).await;
    let mut first = start(options(&[third.address()]), identity(2)).await;
    assert_eq!((third.up().await, first.up().await), (first.id(), third.id()));
    let mut copy = start(options(&[third.address(), first.address()]), identity(2)).await;
    let at_third = third.up().await;
    assert_ne!(at_third, first.id());
    let peers = [copy.up().await, copy.up().await];
    assert!(peers.contains(&third.id()) && !peers.contains(&copy.id()), "{peers:?}");
    let at_first = first.up().await;
    assert!(at_first != first.id() && at_first != third.id());
    // Each of the two is reached, and neither was put in the place of the other.
    third.network.send(Recipients::Peer(first.id()), &status(1));
    third.network.send(Recipients::Peer(at_third), &status(2));
    assert_eq!(first.message().await, (third.id(), status(1)));
    assert_eq!(copy.message().await, (third.id(), status(2)));
    copy.network.send(Recipients::All, &status(3));
    assert_eq!(third.message().await, (at_third, status(3)));
    assert_eq!(first.message().await, (at_first, status(3)));
    let counts = third.network.counts();
    assert_eq!(counts.inbound + counts.outbound, 2);
}
