//! Real endpoints on loopback. Tests wait for events, never for a fixed time.

mod absence;
mod bans;
mod endpoints;
mod governor;
mod hostile;
mod lists;
mod members;
mod mesh;
mod reach;
mod speed;

use crate::network::router::Recipients;
use crate::network::{Bootstrap, Identity, Network, NetworkError, NetworkEvent, NetworkOptions};
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{BlockId, ChainId, Hash, Txid};
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::primitives::message::{Message, PeerId, Status};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Generous: a loaded machine must not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Small, so that every test also exercises a node slower than its network.
const EVENTS_MAX: usize = 64;

pub(crate) struct Node {
    pub network: Network,
    pub events: mpsc::Receiver<NetworkEvent>,
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn entry(key: Option<PublicKey>, address: SocketAddr) -> Bootstrap {
    Bootstrap { key, address: address.to_string() }
}

pub(crate) fn options(bootstrap: &[SocketAddr]) -> NetworkOptions {
    NetworkOptions {
        bootstrap: bootstrap.iter().map(|address| entry(None, *address)).collect(),
        ..NetworkOptions::new(loopback(0))
    }
}

pub(crate) fn chain(byte: u8) -> ChainId {
    ChainId(Hash([byte; 32]))
}

/// Identity with the key of a seed byte.
pub(crate) fn identity(seed: u8) -> Identity {
    Identity {
        network_key: SecretKey::from_seed(&[seed; 32]),
        vote_key: None,
        chain: chain(1),
        name: format!("node {seed}"),
        agent: "masternode test".to_owned(),
    }
}

pub(crate) async fn start(options: NetworkOptions, identity: Identity) -> Node {
    let (sender, events) = mpsc::channel(EVENTS_MAX);
    let network = Network::start(options, identity, Arc::new(AtomicU64::new(7)), sender).await.unwrap();
    Node { network, events }
}

impl Node {
    pub(crate) fn id(&self) -> PeerId {
        self.network.own()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.network.local_address()
    }

    /// The next event for which `wanted` gives something; others are passed over.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(&NetworkEvent) -> Option<T>) -> T {
        let found = timeout(PATIENCE, async {
            loop {
                let event = self.events.recv().await.expect("the network has ended");
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        });
        found.await.expect("the event did not come")
    }

    pub(crate) async fn up(&mut self) -> PeerId {
        self.until(|event| match event {
            NetworkEvent::Up { peer, .. } => Some(*peer),
            _ => None,
        })
        .await
    }

    pub(crate) async fn down(&mut self) -> CleanText {
        self.until(|event| match event {
            NetworkEvent::Down { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn refused(&mut self) -> CleanText {
        self.until(|event| match event {
            NetworkEvent::Refused { reason, .. } => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub(crate) async fn message(&mut self) -> (PeerId, Message) {
        self.until(|event| match event {
            NetworkEvent::Message { peer, message } => Some((*peer, message.clone())),
            _ => None,
        })
        .await
    }
}

pub(crate) fn status(height: u64) -> Message {
    Message::Status(Status {
        height,
        previous: BlockId::default(),
        round: 0,
        has_proposal: false,
        prevotes: Vec::new(),
        precommits: Vec::new(),
        stream_heads: vec![0; 64],
    })
}

#[tokio::test]
async fn two_nodes_connect_and_exchange_messages_in_order() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    assert_eq!(one.up().await, two.id());
    assert_eq!(two.up().await, one.id());
    for height in 0..200 {
        two.network.send(Recipients::All, &status(height));
    }
    for height in 0..200 {
        assert_eq!(one.message().await, (two.id(), status(height)));
    }
    one.network.send(Recipients::Peer(two.id()), &status(9));
    assert_eq!(two.message().await.1, status(9));
    assert_eq!((one.network.counts().inbound, one.network.counts().outbound), (1, 0));
    assert_eq!((two.network.counts().inbound, two.network.counts().outbound), (0, 1));
    one.network.shutdown(PATIENCE).await;
    assert!(two.down().await.as_str().contains("shutting down"));
}

#[tokio::test]
async fn a_node_of_another_chain_is_refused_and_both_sides_know_why() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), Identity { chain: chain(2), ..identity(2) }).await;
    let (here, there) = (one.refused().await, two.refused().await);
    assert!(here.as_str().contains("wrong chain"), "{here}");
    assert!(there.as_str().contains("closed by the peer: wrong chain"), "{there}");
    assert_eq!(one.network.counts().inbound + two.network.counts().outbound, 0);
}

#[tokio::test]
async fn a_bootstrap_peer_with_another_key_is_refused_until_the_right_one_is_there() {
    let (right, wrong) = (identity(1), identity(3));
    let expected = right.network_key.public();
    let mut impostor = start(options(&[]), wrong).await;
    let address = impostor.address();
    let pinned = NetworkOptions { bootstrap: vec![entry(Some(expected), address)], ..options(&[]) };
    let mut node = start(pinned, identity(2)).await;
    let reason = node.refused().await;
    for part in [address.to_string(), expected.to_string(), impostor.id().0.to_string()] {
        assert!(reason.as_str().contains(&part), "{reason}");
    }
    assert!(impostor.refused().await.as_str().contains("wrong network key"));
    // Nor when the address comes from a peer.
    node.network.context.book.hear(&[address], address.ip());
    for _ in 0..2 {
        assert!(node.refused().await.as_str().contains("wrong network key"));
    }
    assert_eq!(node.network.counts().outbound, 0);
    impostor.network.shutdown(PATIENCE).await;
    let one = start(NetworkOptions { listen: address, ..options(&[]) }, right).await;
    assert_eq!(node.up().await, one.id());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_remedy() {
    let one = start(options(&[]), identity(1)).await;
    let (sender, _events) = mpsc::channel(1);
    let taken = NetworkOptions { listen: one.address(), ..options(&[]) };
    let error = Network::start(taken, identity(2), Arc::default(), sender).await.err().unwrap();
    assert!(matches!(error, NetworkError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&one.address().to_string()) && text.contains("choose another"), "{text}");
}

#[tokio::test]
async fn a_frame_of_three_megabytes_arrives_whole() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    // Requests are the simplest message that can be made this long.
    let long = Message::GetTransactions(
        (0..100_000u32)
            .map(|number| {
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&number.to_le_bytes());
                Txid(Hash(bytes))
            })
            .collect(),
    );
    for _ in 0..3 {
        two.network.send(Recipients::All, &long);
        assert_eq!(one.message().await.1, long);
    }
}

#[tokio::test]
async fn a_vote_key_is_proven_and_told() {
    let mut one = start(options(&[]), identity(1)).await;
    let vote_key = SecretKey::from_seed(&[200; 32]);
    let member = Identity { vote_key: Some(vote_key.clone()), ..identity(2) };
    let _two = start(options(&[one.address()]), member).await;
    let told = one
        .until(|event| match event {
            NetworkEvent::Up { vote_key, name, height, .. } => Some((*vote_key, name.clone(), *height)),
            _ => None,
        })
        .await;
    assert_eq!(told, (Some(vote_key.public()), CleanText::new("node 2"), 7));
}

#[tokio::test]
async fn a_node_that_dials_itself_is_told_and_stays_unconnected() {
    let port = free_port();
    let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
    let own = NetworkOptions { listen: everywhere, ..options(&[loopback(port)]) };
    let mut one = start(own, identity(1)).await;
    assert!(one.refused().await.as_str().contains("self-connection"));
    assert_eq!((one.network.counts().inbound, one.network.counts().outbound), (0, 0));
}

#[tokio::test]
async fn no_more_than_the_allowed_inbound_connections_are_accepted() {
    let mut one = start(NetworkOptions { inbound_max: 1, ..options(&[]) }, identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    let mut three =
        start(NetworkOptions { outbound_target: 0, ..options(&[one.address()]) }, identity(3)).await;
    assert!(one.refused().await.as_str().contains("too many inbound connections: 1 of 1"));
    assert!(three.refused().await.as_str().contains("too many inbound"));
    assert_eq!(one.network.counts().inbound, 1);
}

#[tokio::test]
async fn pings_measure_round_trip_and_clock_offset() {
    let one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    let measured = timeout(PATIENCE, async {
        loop {
            if let [peer] = two.network.peers().as_slice()
                && let (Some(rtt_us), Some(offset_us)) = (peer.measured.rtt_us, peer.measured.offset_us)
            {
                return (rtt_us, offset_us / 1000, peer.height);
            }
            tokio::task::yield_now().await;
        }
    });
    let (rtt_us, offset_ms, height) = measured.await.unwrap();
    // Both ends read one clock; a loaded machine answers late, and the error is half of that.
    let bound = i64::try_from(rtt_us / 2000).unwrap() + 2;
    assert!(rtt_us > 0 && offset_ms.abs() <= bound, "rtt {rtt_us} us, offset {offset_ms} ms");
    assert_eq!(height, 7);
}

#[tokio::test]
async fn shutdown_ends_every_task_and_frees_the_port() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    one.up().await;
    let (address, tasks) = (one.address(), one.network.context.tasks.clone());
    // The node no longer reads events: that must not hold up the end.
    one.network.shutdown(PATIENCE).await;
    assert!(tasks.is_empty());
    std::net::UdpSocket::bind(address).expect("the port is still taken");
}

#[tokio::test]
async fn a_dual_stack_listener_takes_ipv4_and_shows_it_as_such() {
    if std::net::UdpSocket::bind("[::]:0").is_err() {
        return; // The kernel was built without IPv6: there is nothing to get wrong.
    }
    let port = free_port();
    let everywhere = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
    let mut one = start(NetworkOptions { listen: everywhere, ..options(&[]) }, identity(1)).await;
    let mut two = start(options(&[loopback(port)]), identity(2)).await;
    two.up().await;
    one.up().await;
    let seen = one.network.peers().pop().unwrap();
    assert_eq!((seen.address, seen.listen), (two.address(), two.address()));
    // And the other way round: from a dual-stack socket to an IPv4 one.
    let mut three = start(options(&[]), identity(3)).await;
    let other = NetworkOptions { listen: SocketAddr::new(everywhere.ip(), 0), ..options(&[three.address()]) };
    let _four = start(other, identity(4)).await;
    three.up().await;
}

#[tokio::test]
async fn addresses_outlive_a_restart_in_the_peers_file() {
    let directory = tempfile::tempdir().unwrap();
    let remembering = NetworkOptions { peers_file: Some(directory.path().join("peers")), ..options(&[]) };
    let mut one = start(options(&[]), identity(1)).await;
    let bootstrap = vec![entry(None, one.address())];
    let mut two = start(NetworkOptions { bootstrap, ..remembering.clone() }, identity(2)).await;
    two.up().await;
    two.network.shutdown(PATIENCE).await;
    one.down().await;
    // No bootstrap peer this time.
    let mut two = start(remembering, identity(2)).await;
    assert_eq!(two.up().await, one.id());
    assert_eq!(two.network.counts().known_addresses, 1);
}

/// A port nobody uses at the moment.
pub(crate) fn free_port() -> u16 {
    std::net::UdpSocket::bind(loopback(0)).unwrap().local_addr().unwrap().port()
}
