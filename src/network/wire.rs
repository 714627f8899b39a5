//! Frames and classes: how messages travel on streams.
//!
//! A frame is its length as `u32`, little-endian, then that many bytes of one canonical encoding. Each
//! class of messages has one long-lived unidirectional stream per direction, opened with the class's
//! byte. Invariants: a length is checked before anything is allocated, memory grows with what has
//! arrived and not with what was announced, and order within a class is kept.

use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::endpoint::EndpointRecord;
use crate::primitives::message::Message;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use std::net::SocketAddr;

/// Largest payload of a frame in bytes: room for the largest devnet block body and for the largest
/// answer a peer may ask for.
pub const FRAME_MAX: usize = 4 << 20;
/// Largest payload in the handshake, before anything is known of the peer.
pub const HELLO_MAX: usize = 1024;
/// Bytes of a frame before its payload.
pub const FRAME_HEADER: usize = 4;
/// Most addresses in one message of the peer exchange.
pub const ADDRESSES_MAX: usize = 64;
/// Most endpoint records in one message: 4 KiB.
pub const RECORDS_MAX: usize = 16;
/// A reader's buffer larger than this is given back once it is empty.
const BUFFER_KEEP: usize = 256 << 10;

/// Classes of messages, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ping, pong, peer exchange and its like; handled inside the network, never behind the node's work.
    Control,
    /// Votes, proposals, decisions, status, and the small requests of catch-up.
    Votes,
    /// Transactions being relayed.
    Transactions,
    /// Bulky answers to requests.
    Bulk,
}

impl Class {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Control, Self::Votes, Self::Transactions, Self::Bulk];

    /// Class a message travels in.
    #[must_use]
    pub const fn of(message: &Message) -> Self {
        match message {
            Message::VoteBatch(_)
            | Message::Proposal(_)
            | Message::Vote(_)
            | Message::Pol { .. }
            | Message::Commit { .. }
            | Message::Status(_)
            | Message::GetTransactions(_)
            | Message::GetStream { .. }
            | Message::GetCertificate { .. }
            | Message::GetCandidate { .. }
            | Message::GetBlock { .. }
            | Message::GetBlockBodies { .. }
            | Message::BlockNotKept { .. }
            | Message::GetSnapshots
            | Message::GetSnapshotManifest { .. }
            | Message::GetSnapshotPart { .. }
            | Message::GetLinks { .. }
            | Message::GetHeaders { .. } => Self::Votes,
            Message::Transaction(_) | Message::Announce(_) => Self::Transactions,
            Message::Transactions(_)
            | Message::Stream(_)
            | Message::Certificate { .. }
            | Message::Candidate { .. }
            | Message::Block { .. }
            | Message::BlockBodies { .. }
            | Message::Snapshots(_)
            | Message::SnapshotManifest { .. }
            | Message::SnapshotPart { .. }
            | Message::Links { .. }
            | Message::Headers(_) => Self::Bulk,
        }
    }

    /// First byte of its stream.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Control => 0,
            Self::Votes => 1,
            Self::Transactions => 2,
            Self::Bulk => 3,
        }
    }

    /// The class of a first byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.byte() == byte)
    }

    /// Priority of its stream: data of a higher one leaves first.
    #[must_use]
    pub const fn priority(self) -> i32 {
        match self {
            Self::Control => 3,
            Self::Votes => 2,
            Self::Transactions => 1,
            Self::Bulk => 0,
        }
    }

    /// Name for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Votes => "votes",
            Self::Transactions => "transactions",
            Self::Bulk => "bulk",
        }
    }
}

/// Messages of the network itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// Asks for a pong with the same number.
    Ping { number: u64, height: u64 },
    /// The answer, with the sender's wall clock in milliseconds since 1970.
    Pong { number: u64, height: u64, wall_ms: u64 },
    /// Addresses at which nodes of this network listen, at most [`ADDRESSES_MAX`].
    Peers(Vec<SocketAddr>),
    /// Where masternodes say they are reached, at most [`RECORDS_MAX`].
    Endpoints(Vec<EndpointRecord>),
    /// Asks for all of those that are known.
    GetEndpoints,
    /// Asks to be dialled at this port, at the address the sender is seen at.
    Probe { nonce: u64, port: u16 },
    /// How that went, and where.
    Probed { nonce: u64, outcome: ProbeOutcome, at: SocketAddr },
}

/// How dialling a peer back went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ProbeOutcome {
    /// The key that asked answers there.
    Reached,
    /// Nobody does, or somebody else.
    NotReached,
    /// Too many have asked of late.
    NotTried,
}

/// A value too large for a frame.
#[derive(Debug, thiserror::Error)]
#[error("a message of {len} bytes exceeds the largest frame of {FRAME_MAX} bytes")]
pub struct FrameTooLarge {
    /// Length of its encoding.
    pub len: usize,
}

/// Encodes a value as a frame, once for all peers.
///
/// # Errors
/// [`FrameTooLarge`] when the encoding exceeds [`FRAME_MAX`].
pub fn frame<T: Encode>(value: &T) -> Result<Bytes, FrameTooLarge> {
    let payload = encode(value);
    let len = payload.len();
    match u32::try_from(len) {
        Ok(header) if len <= FRAME_MAX => {
            let mut frame = BytesMut::with_capacity(FRAME_HEADER + len);
            frame.put_u32_le(header);
            frame.extend_from_slice(&payload);
            Ok(frame.freeze())
        }
        _ => Err(FrameTooLarge { len }),
    }
}

/// Why no further frame comes.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced more than is allowed.
    #[error("a frame announces {len} bytes where {max} are allowed")]
    TooLong {
        /// Announced length.
        len: usize,
        /// Allowed length.
        max: usize,
    },
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Cut,
    /// The stream or the connection was lost.
    #[error("the stream was lost: {0}")]
    Lost(#[from] ReadError),
}

/// Reads frames from a stream.
pub struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    payload_max: usize,
}

impl FrameReader {
    /// Most bytes taken from the stream at once.
    const CHUNK_MAX: usize = 64 << 10;

    /// Reads payloads of at most `payload_max` bytes.
    #[must_use]
    pub fn new(stream: RecvStream, payload_max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), payload_max }
    }

    /// The first byte of the stream; `None` when it is empty.
    ///
    /// # Errors
    /// [`FrameError::Lost`].
    pub async fn first_byte(&mut self) -> Result<Option<u8>, FrameError> {
        while self.buffer.is_empty() {
            if !self.fill().await? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.get_u8()))
    }

    /// The next payload; `None` when the stream ended after a whole frame. Cancelling loses nothing.
    ///
    /// # Errors
    /// [`FrameError`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(header) = self.buffer.first_chunk::<FRAME_HEADER>() {
                let len = usize::try_from(u32::from_le_bytes(*header)).unwrap_or(usize::MAX);
                if len > self.payload_max {
                    return Err(FrameError::TooLong { len, max: self.payload_max });
                }
                if self.buffer.len() >= FRAME_HEADER + len {
                    self.buffer.advance(FRAME_HEADER);
                    return Ok(Some(self.buffer.split_to(len).freeze()));
                }
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FrameError::Cut) };
            }
        }
    }

    /// Takes what has arrived; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, FrameError> {
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEEP {
            self.buffer = BytesMut::new();
        }
        match self.stream.read_chunk(Self::CHUNK_MAX, true).await? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
