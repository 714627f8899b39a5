//! What goes into the machine: time, messages whose signatures were checked, connections.

use crate::consensus::trust::{Route, RouteFault};
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::EraTag;
use crate::primitives::keys::PublicKey;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::SharedTransaction;

/// The time of an input. Arguments, never read inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Microseconds on a clock that never goes back; drives every timer.
    pub monotonic_us: u64,
    /// Milliseconds since 1970; used for block times only.
    pub wall_ms: u64,
}

/// A value whose signatures were verified: those of an era against the committee of the era named
/// here, those of transactions against their keys. Made by [`verify`](crate::consensus::verify) only.
///
/// A message of another era than the one it was checked in passes unchecked; the machine puts it
/// aside and hands it back for checking ([`Output::Replay`](crate::consensus::output::Output::Replay))
/// when that era begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T> {
    pub(in crate::consensus) value: T,
    pub(in crate::consensus) era: EraTag,
}

impl<T> Verified<T> {
    /// The value.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The value, borrowed.
    pub fn get(&self) -> &T {
        &self.value
    }
}

/// One thing that happened to the node.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input after construction and replay of the log.
    Start,
    /// A deadline passed ([`Machine::next_deadline`](crate::consensus::machine::Machine::next_deadline)).
    Wake,
    /// A transaction with valid signatures, from a peer or submitted here (`from: None`).
    Transaction { from: Option<PeerId>, transaction: Verified<SharedTransaction> },
    /// A consensus message with valid signatures.
    Message { from: PeerId, message: Verified<Message> },
    /// A decided block that was pulled, with valid certificate and signatures.
    Decided { from: PeerId, block: Verified<(Block, Qc)> },
    /// An answer to [`Output::PullRoute`](crate::consensus::output::Output::PullRoute): the way to the trusted
    /// block, or why there is none by what `from` holds.
    Route { from: PeerId, route: Result<Route, RouteFault> },
    /// A connection passed the handshake; `vote_key` when the peer proved to hold one.
    PeerUp { peer: PeerId, vote_key: Option<PublicKey> },
    /// The node wants nothing signed for this reason, or has none any more (`None`). Takes effect at once;
    /// signing begins again as at a start, when a quorum was heard.
    Hold { reason: Option<String> },
    /// A connection ended.
    PeerDown { peer: PeerId },
}
