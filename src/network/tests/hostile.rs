//! Peers that break the rules: a bare QUIC client with a valid key and whatever hello a test wants.

use crate::network::handshake::{self, CloseCode, Hello, PROTOCOL, PROTOCOL_VERSION, VoteCertificate};
use crate::network::router::Recipients;
use crate::network::tests::identity;
use crate::network::tests::{Node, PATIENCE, chain, loopback, options, start, status};
use crate::network::wire::{Class, FRAME_MAX, FrameReader, frame};
use crate::network::{endpoint, tls};
use crate::primitives::encoding::encode;
use crate::primitives::keys::SecretKey;
use crate::primitives::message::Message;
use quinn::{ConnectionError, Endpoint};
use std::net::SocketAddr;
use tokio::time::timeout;

pub(super) struct Bare {
    pub connection: quinn::Connection,
    pub key: SecretKey,
    _endpoint: Endpoint,
}

impl Bare {
    async fn connect(to: SocketAddr, protocol: &[u8]) -> Result<Self, ConnectionError> {
        Self::connect_as(99, to, protocol).await
    }

    /// With the key of a seed byte: whoever was cut off is not let in again for a while.
    pub(super) async fn connect_as(
        seed: u8,
        to: SocketAddr,
        protocol: &[u8],
    ) -> Result<Self, ConnectionError> {
        let key = SecretKey::from_seed(&[seed; 32]);
        let configs = tls::configure(&key, protocol).unwrap();
        let endpoint = endpoint::open(loopback(0), &configs, &key).unwrap();
        let connecting = endpoint.connect_with(endpoint::client_config(&configs), to, tls::SERVER_NAME);
        let connection = connecting.unwrap().await?;
        Ok(Self { connection, key, _endpoint: endpoint })
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            chain: chain(1),
            instance: 5,
            agent: "bare".to_owned(),
            name: "bare".to_owned(),
            listen: loopback(9),
            height: 0,
            wall_ms: 0,
            vote: None,
        }
    }

    /// Says hello and returns the answer.
    pub(super) async fn greet(&self, hello: &Hello) -> Result<Hello, handshake::Refusal> {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        handshake::send(&mut send, hello).await?;
        timeout(PATIENCE, handshake::receive(receive)).await.expect("no answer")
    }

    /// Connects and is accepted.
    async fn accepted(node: &mut Node) -> Self {
        Self::accepted_as(99, node).await
    }

    pub(super) async fn accepted_as(seed: u8, node: &mut Node) -> Self {
        let bare = Self::connect_as(seed, node.address(), PROTOCOL).await.unwrap();
        bare.greet(&bare.hello()).await.unwrap();
        node.up().await;
        bare
    }

    pub(super) async fn close_code(&self) -> Option<CloseCode> {
        match timeout(PATIENCE, self.connection.closed()).await.expect("not closed") {
            ConnectionError::ApplicationClosed(close) => {
                CloseCode::from_number(close.error_code.into_inner())
            }
            other => panic!("closed otherwise: {other}"),
        }
    }
}

#[tokio::test]
async fn malformed_frames_close_the_connection_with_the_reason() {
    let announced = u32::try_from(FRAME_MAX + 1).unwrap().to_le_bytes();
    let garbage = [[8, 0, 0, 0].as_slice(), &[0xff; 8]].concat();
    let misplaced = frame(&status(1)).unwrap();
    let trailing = {
        let mut payload = encode(&status(1));
        payload.push(0);
        [u32::try_from(payload.len()).unwrap().to_le_bytes().as_slice(), &payload].concat()
    };
    let cases: [(&[u8], &str); 6] = [
        (&[&[Class::Votes.byte()], announced.as_slice()].concat(), "announces 4194305 bytes"),
        (&[&[Class::Votes.byte()], garbage.as_slice()].concat(), "malformed"),
        (&[&[Class::Votes.byte()], trailing.as_slice()].concat(), "trailing"),
        (&[&[Class::Bulk.byte()], misplaced.as_ref()].concat(), "status does not belong here"),
        (&[&[Class::Control.byte()], garbage.as_slice()].concat(), "bad frame in control"),
        (&[200], "unknown class 200"),
    ];
    let mut node = start(options(&[]), identity(1)).await;
    for (seed, (bytes, expected)) in (50..).zip(cases) {
        let bare = Bare::accepted_as(seed, &mut node).await;
        let mut stream = bare.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let reason = node.down().await;
        assert!(reason.as_str().contains(expected), "{reason}");
        assert_eq!(bare.close_code().await, Some(CloseCode::BadFrame));
        assert_eq!(node.network.counts().inbound, 0);
    }
}

#[tokio::test]
async fn a_second_stream_of_a_class_is_refused() {
    let mut node = start(options(&[]), identity(1)).await;
    let bare = Bare::accepted(&mut node).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = bare.connection.open_uni().await.unwrap();
        stream.write_all(&[Class::Bulk.byte()]).await.unwrap();
        streams.push(stream);
    }
    assert!(node.down().await.as_str().contains("a second stream of bulk"));
}

#[tokio::test]
async fn hellos_that_lie_are_refused_with_their_own_code() {
    let mut node = start(options(&[]), identity(1)).await;
    let other_key = SecretKey::from_seed(&[7; 32]);
    let certificate = |bare: &Bare| VoteCertificate::sign(&other_key, chain(2), &bare.key.public());
    type Lie<'a> = &'a dyn Fn(&Bare) -> Hello;
    let cases: [(Lie<'_>, CloseCode); 5] = [
        (&|bare| Hello { vote: Some(certificate(bare)), ..bare.hello() }, CloseCode::BadCertificate),
        (&|bare| Hello { chain: chain(3), ..bare.hello() }, CloseCode::WrongChain),
        (&|bare| Hello { version: 2, ..bare.hello() }, CloseCode::WrongVersion),
        (&|bare| Hello { agent: "\x1b[2J".to_owned(), ..bare.hello() }, CloseCode::BadHello),
        (&|bare| Hello { name: "x".repeat(2000), ..bare.hello() }, CloseCode::BadHello),
    ];
    for (seed, (lie, expected)) in (50..).zip(cases) {
        let bare = Bare::connect_as(seed, node.address(), PROTOCOL).await.unwrap();
        let refusal = bare.greet(&lie(&bare)).await.unwrap_err();
        assert_eq!(refusal.code, Some(expected), "{refusal}");
        assert_eq!(format!("closed by the peer: {}", node.refused().await), refusal.to_string());
        assert_eq!(node.network.counts().inbound, 0);
    }
}

#[tokio::test]
async fn another_protocol_version_is_refused_before_any_hello() {
    let mut node = start(options(&[]), identity(1)).await;
    let error = Bare::connect(node.address(), b"timecoin-masternode/2").await.err().unwrap();
    assert_eq!(handshake::Refusal::of(&error).code, Some(CloseCode::WrongVersion), "{error}");
    assert!(node.refused().await.as_str().contains("does not speak timecoin-masternode/1"));
}

#[tokio::test]
async fn a_client_without_a_key_is_refused() {
    let node = start(options(&[]), identity(1)).await;
    let mut config =
        rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let endpoint = Endpoint::client(loopback(0)).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let refused = endpoint.connect_with(config, node.address(), tls::SERVER_NAME).unwrap().await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_peer_that_takes_no_votes_is_disconnected_as_too_slow() {
    let mut node = start(options(&[]), identity(1)).await;
    let bare = Bare::accepted(&mut node).await;
    // Nobody reads at the other end: first its window fills, then the queue.
    let mut sent = 0;
    while node.network.counts().dropped == 0 {
        node.network.send(Recipients::All, &status(sent));
        sent += 1;
        assert!(sent < 100_000, "the queue has no bound");
        tokio::task::yield_now().await;
    }
    assert!(node.down().await.as_str().contains("too slow"));
    assert_eq!(bare.close_code().await, Some(CloseCode::TooSlow));
}

#[tokio::test]
async fn votes_pass_while_bulk_is_stuck_and_dropped() {
    let mut node = start(options(&[]), identity(1)).await;
    let bare = Bare::accepted(&mut node).await;
    let bulk = Message::Transactions(Vec::new());
    let large = frame(&bulk).unwrap().len();
    assert!(large < FRAME_MAX);
    // The largest bulk frame that is easily made: many empty answers until some are dropped.
    let peer = node.network.context.registry.all().pop().unwrap();
    let filler = bytes::Bytes::from(vec![0; 1 << 20]);
    while peer.push(Class::Bulk, filler.clone(), None) {}
    assert!(peer.snapshot().dropped > 0);
    // More votes than the connection's windows hold together.
    let rounds = 40_000u64;
    let reading = tokio::spawn(async move {
        loop {
            let stream = bare.connection.accept_uni().await.unwrap();
            let mut reader = FrameReader::new(stream, FRAME_MAX);
            if reader.first_byte().await.unwrap() == Some(Class::Votes.byte()) {
                for height in 0..rounds {
                    let expected = encode(&status(height));
                    let payload = timeout(PATIENCE, reader.next()).await.expect("votes are stuck");
                    assert_eq!(payload.unwrap().unwrap(), expected);
                }
                return bare;
            }
        }
    });
    for height in 0..rounds {
        node.network.send(Recipients::All, &status(height));
        if height % 100 == 0 {
            // Lets the writer run; a node's engine is never faster than its network for long.
            while peer.queue(Class::Votes).bytes() > 1 << 20 {
                tokio::task::yield_now().await;
            }
        }
    }
    let bare = timeout(PATIENCE, reading).await.unwrap().unwrap();
    assert_eq!(bare.connection.close_reason(), None);
}

#[tokio::test]
async fn a_second_process_with_the_same_key_is_a_peer_of_its_own_and_the_first_one_stays() {
    let mut node = start(options(&[]), identity(1)).await;
    let first = Bare::accepted(&mut node).await;
    let second = Bare::connect(node.address(), PROTOCOL).await.unwrap();
    second.greet(&Hello { instance: 6, ..second.hello() }).await.unwrap();
    let other = node.up().await;
    assert!(node.network.peers().iter().any(|peer| peer.peer == other));
    assert_eq!(node.network.counts().inbound, 2);
    // Another connection of either process replaces its own only.
    let again = Bare::connect(node.address(), PROTOCOL).await.unwrap();
    again.greet(&Hello { instance: 6, ..again.hello() }).await.unwrap();
    assert!(node.down().await.as_str().contains("replaced"));
    assert_eq!(node.up().await, other);
    assert_eq!(second.close_code().await, Some(CloseCode::Replaced));
    assert_eq!(node.network.counts().inbound, 2);
    drop(first);
}

#[tokio::test]
async fn whoever_connects_and_says_nothing_gets_a_bounded_number_of_handshakes_and_keeps_nobody_out() {
    let mut node = start(options(&[]), identity(1)).await;
    let mut silent = Vec::new();
    // Those that say nothing are let go after a while, so on a slow machine it takes some more of them.
    let refused = timeout(PATIENCE, async {
        loop {
            match Bare::connect(node.address(), PROTOCOL).await {
                Ok(bare) => silent.push(bare),
                Err(ConnectionError::ConnectionClosed(close)) => return close.error_code,
                Err(other) => panic!("refused otherwise: {other}"),
            }
        }
    });
    let code = refused.await.expect("nobody was refused");
    assert_eq!(code, quinn::TransportErrorCode::CONNECTION_REFUSED);
    assert!(silent.len() >= 64, "{} handshakes at once", silent.len());
    drop(silent);
    let one = start(options(&[node.address()]), identity(2)).await;
    assert_eq!(node.up().await, one.id());
}
