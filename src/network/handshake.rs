//! The application handshake: what two nodes tell each other before anything else, and why a
//! connection ends.
//!
//! The dialler opens a bidirectional stream and sends its [`Hello`]; the listener answers with its own
//! or closes the connection with a [`CloseCode`] and a text, so that both sides log the same reason.
//! Invariant: nothing but the bounded hello is read from a peer before it is accepted. A dialler sends
//! its hello only when it holds no connection to that peer, which the registry relies on.

use crate::network::tls;
use crate::network::wire::{FrameError, FrameReader, HELLO_MAX, frame};
use crate::primitives::clean::CleanText;
use crate::primitives::encoding::{Decode, Encode, decode};
use crate::primitives::hash::{ChainId, Domain, Hash, hash};
use crate::primitives::keys::{PublicKey, SecretKey, Signature};
use crate::primitives::message::PeerId;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use std::net::SocketAddr;
use std::time::Duration;

/// Version of everything two nodes exchange.
pub const PROTOCOL_VERSION: u32 = 1;
/// The version as TLS negotiates it.
pub const PROTOCOL: &[u8] = b"timecoin-masternode/1";
/// Time for TLS and hellos together; a healthy peer on the far side of the world needs a second.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest agent in bytes, printable ASCII.
pub const AGENT_MAX: usize = 256;
/// Longest name in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Longest reason sent with a close, in bytes: it must fit into one packet.
const REASON_MAX: usize = 400;

/// Why a connection ends, as a number both sides know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    ShuttingDown,
    WrongChain,
    WrongVersion,
    TooManyInbound,
    Duplicate,
    SelfConnection,
    BadCertificate,
    BadHello,
    HandshakeTimeout,
    BadFrame,
    TooSlow,
    Replaced,
    Requested,
    NoPong,
    WrongKey,
    Feeler,
    TooManyOfSite,
    Banned,
    Held,
    Flood,
}

impl CloseCode {
    const ALL: [Self; 20] = [
        Self::ShuttingDown,
        Self::WrongChain,
        Self::WrongVersion,
        Self::TooManyInbound,
        Self::Duplicate,
        Self::SelfConnection,
        Self::BadCertificate,
        Self::BadHello,
        Self::HandshakeTimeout,
        Self::BadFrame,
        Self::TooSlow,
        Self::Replaced,
        Self::Requested,
        Self::NoPong,
        Self::WrongKey,
        Self::Feeler,
        Self::TooManyOfSite,
        Self::Banned,
        Self::Held,
        Self::Flood,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::ShuttingDown => 1,
            Self::WrongChain => 2,
            Self::WrongVersion => 3,
            Self::TooManyInbound => 4,
            Self::Duplicate => 5,
            Self::SelfConnection => 6,
            Self::BadCertificate => 7,
            Self::BadHello => 8,
            Self::HandshakeTimeout => 9,
            Self::BadFrame => 10,
            Self::TooSlow => 11,
            Self::Replaced => 12,
            Self::Requested => 13,
            Self::NoPong => 14,
            Self::WrongKey => 15,
            Self::Feeler => 16,
            Self::TooManyOfSite => 17,
            Self::Banned => 18,
            Self::Held => 19,
            Self::Flood => 20,
        }
    }

    /// The code of a number.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

/// A code with its explanation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// Class of the reason; `None` when the transport failed or the peer's code is unknown.
    pub code: Option<CloseCode>,
    /// For people of both sides, lower case.
    pub text: CleanText,
}

impl Refusal {
    /// A refusal by this node.
    #[must_use]
    pub fn new(code: CloseCode, text: &str) -> Self {
        Self { code: Some(code), text: CleanText::limited(text, REASON_MAX) }
    }

    /// What ended a connection, from the other side or the transport.
    #[must_use]
    pub fn of(error: &ConnectionError) -> Self {
        /// The alert `no_application_protocol` (RFC 7301 §3.2) as a QUIC error (RFC 9001 §4.8).
        const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
        let version = || {
            let ours = String::from_utf8_lossy(PROTOCOL);
            Self::new(CloseCode::WrongVersion, &format!("the peer does not speak {ours}"))
        };
        let text = match error {
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason);
                return Self {
                    code: CloseCode::from_number(close.error_code.into_inner()),
                    text: CleanText::limited(&format!("closed by the peer: {reason}"), 2 * REASON_MAX),
                };
            }
            ConnectionError::ConnectionClosed(close)
                if u64::from(close.error_code) == NO_APPLICATION_PROTOCOL =>
            {
                return version();
            }
            ConnectionError::TransportError(failure)
                if u64::from(failure.code) == NO_APPLICATION_PROTOCOL =>
            {
                return version();
            }
            ConnectionError::TimedOut => "nothing was heard for too long".to_owned(),
            ConnectionError::Reset => "the peer has restarted".to_owned(),
            other => other.to_string(),
        };
        Self { code: None, text: CleanText::limited(&text, 2 * REASON_MAX) }
    }

    /// Closes the connection, telling the peer why.
    pub fn close(&self, connection: &Connection) {
        close(connection, self.code.unwrap_or(CloseCode::Requested), self.text.as_str());
    }
}

/// Closes a connection with a code and a text, cut to what fits one packet.
pub fn close(connection: &Connection, code: CloseCode, text: &str) {
    let reason = text.as_bytes();
    let reason = reason.get(..REASON_MAX).unwrap_or(reason);
    connection.close(VarInt::from_u32(code.number()), reason);
}

/// The vote key's word that this network key speaks for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct VoteCertificate {
    /// The vote key.
    pub key: PublicKey,
    /// Its signature over [`certificate_digest`].
    pub signature: Signature,
}

/// What a vote key signs to certify a network key: `H("peer", chain id, network key)`.
#[must_use]
pub fn certificate_digest(chain: ChainId, network_key: &PublicKey) -> Hash {
    hash(Domain::PEER, &[chain.bytes(), &network_key.0])
}

impl VoteCertificate {
    /// Certifies `network_key` on `chain`.
    #[must_use]
    pub fn sign(vote_key: &SecretKey, chain: ChainId, network_key: &PublicKey) -> Self {
        Self { key: vote_key.public(), signature: vote_key.sign(&certificate_digest(chain, network_key)) }
    }
}

/// The first and only message of the handshake in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// Hash of the genesis.
    pub chain: ChainId,
    /// Random number of the process, new at each start.
    pub instance: u64,
    /// Program and version, at most [`AGENT_MAX`] bytes of printable ASCII.
    pub agent: String,
    /// Name the operator gave the node.
    pub name: String,
    /// Where the sender listens; an unspecified address stands for the one it is seen at.
    pub listen: SocketAddr,
    /// Height of its last decided block.
    pub height: u64,
    /// Its wall clock in milliseconds since 1970.
    pub wall_ms: u64,
    /// Its vote key, if it has one.
    pub vote: Option<VoteCertificate>,
}

impl Hello {
    /// Checks everything a hello claims. `own` and `instance` are this node's chain and process, `peer`
    /// the key proven by TLS.
    ///
    /// # Errors
    /// The [`Refusal`] to be told to the peer.
    pub fn check(&self, own: ChainId, instance: u64, peer: PeerId) -> Result<(), Refusal> {
        let refuse = |code, text: String| Err(Refusal::new(code, &text));
        // Another process with the same key is a peer like any other: both have to learn of each other.
        if self.instance == instance {
            return refuse(
                CloseCode::SelfConnection,
                "self-connection: both ends are one process".to_owned(),
            );
        }
        if self.version != PROTOCOL_VERSION {
            let theirs = self.version;
            return refuse(
                CloseCode::WrongVersion,
                format!("wrong protocol version: {theirs} instead of {PROTOCOL_VERSION}"),
            );
        }
        if self.chain != own {
            let theirs = self.chain;
            return refuse(
                CloseCode::WrongChain,
                format!("wrong chain: genesis {theirs} instead of {own}, use the same genesis file"),
            );
        }
        if self.agent.len() > AGENT_MAX || !self.agent.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return refuse(
                CloseCode::BadHello,
                format!("bad agent: not printable ascii of at most {AGENT_MAX} bytes"),
            );
        }
        match &self.vote {
            Some(vote) if !vote.key.verify(&certificate_digest(own, &peer.0), &vote.signature) => refuse(
                CloseCode::BadCertificate,
                format!("bad certificate: vote key {} did not sign this network key", vote.key.short()),
            ),
            _ => Ok(()),
        }
    }

    /// The name as it may be shown.
    #[must_use]
    pub fn clean_name(&self) -> CleanText {
        CleanText::limited(&self.name, NAME_CHARS_MAX)
    }
}

/// The peer's key, or why there is none.
///
/// # Errors
/// [`Refusal`] when TLS has proven no ed25519 key.
pub fn identify(connection: &Connection) -> Result<PeerId, Refusal> {
    let none = || Refusal::new(CloseCode::BadHello, "no ed25519 transport key was proven");
    tls::peer_of(connection).ok_or_else(none)
}

/// Checks that the peer found at `address` is the one that was to be there.
///
/// # Errors
/// [`Refusal`] naming the address and both keys.
pub fn expect_key(address: SocketAddr, expected: Option<PublicKey>, found: PeerId) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != found.0 => Err(Refusal::new(
            CloseCode::WrongKey,
            &format!(
                "wrong network key at {address}: expected {expected}, found {}; correct `p2p.bootstrap` or find out \
                 who answers there",
                found.0
            ),
        )),
        _ => Ok(()),
    }
}

/// Sends a hello.
///
/// # Errors
/// [`Refusal`] when the connection is lost.
pub async fn send(stream: &mut SendStream, hello: &Hello) -> Result<(), Refusal> {
    let frame = frame(hello).map_err(|error| Refusal::new(CloseCode::BadHello, &error.to_string()))?;
    stream.write_chunk(frame).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => Refusal::of(&error),
        other => Refusal::new(CloseCode::BadHello, &format!("the hello was not taken: {other}")),
    })
}

/// Receives a hello; it is not yet checked.
///
/// # Errors
/// [`Refusal`] when the connection is lost or the bytes are not a hello.
pub async fn receive(stream: RecvStream) -> Result<Hello, Refusal> {
    let bad = |text: &str| Refusal::new(CloseCode::BadHello, text);
    let mut reader = FrameReader::new(stream, HELLO_MAX);
    match reader.next().await {
        Ok(Some(payload)) => decode::<Hello, HELLO_MAX>(&payload)
            .map_err(|error| bad(&format!("not a hello of this protocol: {error}"))),
        Ok(None) => Err(bad("the stream ended before a hello")),
        Err(FrameError::Lost(quinn::ReadError::ConnectionLost(error))) => Err(Refusal::of(&error)),
        Err(error) => Err(bad(&error.to_string())),
    }
}
