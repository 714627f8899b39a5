//! The UDP socket and QUIC transport settings of a node: one socket for dialling and listening.
//!
//! Invariant: the sum of the stream windows fits into the connection windows, so a class of messages
//! that is stuck cannot take the room of another.

use crate::network::NetworkError;
use crate::network::tls::TlsConfigs;
use crate::network::wire::Class;
use crate::primitives::keys::SecretKey;
use quinn::congestion::CubicConfig;
use quinn::crypto::HmacKey;
use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// A peer not heard from for this long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Packets are sent at least this often, so a healthy link survives the loss of four in a row.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Bytes a stream may have in flight: 10 MB/s at a round trip of 100 ms.
const STREAM_WINDOW: u32 = 1 << 20;
/// Kernel socket buffers: a burst of a second's votes of a full committee; the kernel may grant less.
const SOCKET_BUFFER: usize = 4 << 20;
/// First congestion window: a vote batch of ordinary size leaves in one round trip.
const INITIAL_WINDOW: u64 = 128 << 10;
/// Assumed round trip before one is measured; a lost first packet is repeated after three times this.
const INITIAL_RTT: Duration = Duration::from_millis(150);
/// Length of connection ids in bytes.
const CONNECTION_ID_LEN: usize = 8;
/// Handshakes that wait to be looked at; beyond it packets are dropped.
const INCOMING_MAX: usize = 256;

/// Opens the node's socket.
///
/// # Errors
/// [`NetworkError::Listen`] naming the address and the remedy.
pub fn open(listen: SocketAddr, tls: &TlsConfigs, key: &SecretKey) -> Result<Endpoint, NetworkError> {
    let socket = bind(listen).map_err(|source| NetworkError::listen(listen, source))?;
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::<quinn::crypto::rustls::QuicServerConfig>::clone(&tls.server));
    server.transport_config(Arc::new(transport())).max_incoming(INCOMING_MAX);
    // Addresses are part of what peers tell each other, so a silent change of address is not allowed.
    server.migration(false);
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(key)));
    config.cid_generator(|| Box::new(RandomIds));
    Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))
        .map_err(|source| NetworkError::listen(listen, source))
}

/// Settings of connections this node dials.
#[must_use]
pub fn client_config(tls: &TlsConfigs) -> quinn::ClientConfig {
    let mut client =
        quinn::ClientConfig::new(Arc::<quinn::crypto::rustls::QuicClientConfig>::clone(&tls.client));
    client.transport_config(Arc::new(transport()));
    client
}

fn bind(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Best effort: a smaller buffer costs throughput, not correctness.
    for result in [socket.set_recv_buffer_size(SOCKET_BUFFER), socket.set_send_buffer_size(SOCKET_BUFFER)] {
        if let Err(error) = result {
            tracing::debug!(%error, "the kernel refused a larger socket buffer");
        }
    }
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

fn transport() -> TransportConfig {
    let streams = u32::try_from(Class::ALL.len()).unwrap_or(u32::MAX);
    // One window of slack covers the handshake stream.
    let connection_window = (streams + 1) * STREAM_WINDOW;
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(streams))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(connection_window))
        .send_window(u64::from(connection_window))
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

/// Key of stateless resets, derived from the transport key: a restarted node can tell its peers at
/// once that it knows nothing of their old connections.
struct ResetKey([u8; 32]);

impl ResetKey {
    fn of(key: &SecretKey) -> Self {
        Self(blake3::derive_key("timecoin masternode v1 stateless reset", key.seed().as_slice()))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut output = blake3::Hasher::new_keyed(&self.0).update(data).finalize_xof();
        output.fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), quinn::crypto::CryptoError> {
        // `blake3::Hash` compares in constant time.
        let expected = blake3::keyed_hash(&self.0, data);
        match <[u8; blake3::OUT_LEN]>::try_from(signature) {
            Ok(given) if expected == given => Ok(()),
            _ => Err(quinn::crypto::CryptoError),
        }
    }
}

/// Connection ids without structure, so that ids of an earlier process are answered with a reset.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID_LEN]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
