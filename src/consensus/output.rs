//! What comes out of the machine, to be executed in order.

use crate::consensus::cause::{Absence, Gap, OwnAbsence, StallReason};
use crate::consensus::standing::{Nonce, Standing};
use crate::light::claim::FinalityClaim;
use crate::primitives::amount::Amount;
use crate::primitives::block::{Block, Outline};
use crate::primitives::certificate::{Certificate, Qc};
use crate::primitives::committee::Committee;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::evidence::Evidence;
use crate::primitives::hash::{BlockId, Txid};
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::message::{Message, PeerId, Proposal};
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::Transaction;
use crate::primitives::trusted::TrustedHeader;
use crate::primitives::vote::{Step, Vote, VoteBatch};
use std::sync::Arc;

/// A record of the log of the current height (protocol §3). The log of height h is everything
/// persisted since the block h-1; replayed in order it restores locks, commit votes, frozen, and the
/// lock of the rounds exactly.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Record {
    /// A batch of this node's own stream.
    OwnBatch(VoteBatch),
    /// Body of a transaction this node prepared or commit-voted.
    Body(Transaction),
    /// A batch of another voter that supports a certificate this node relied on.
    PeerBatch(VoteBatch),
    /// A prepare certificate that was pulled.
    Prepared(Certificate),
    /// A candidate block; its bodies are in earlier `Body` records or in this one.
    Candidate { outline: Outline, bodies: Vec<Transaction> },
    /// This node's own proposal.
    Proposal(Proposal),
    /// A prevote quorum this node relied on.
    Pol(Qc),
    /// This node's own prevote or precommit.
    Vote(Vote),
    /// The block of this height is decided; it is in an earlier `Candidate` record. The log of the
    /// next height starts after this record.
    Decided(Qc),
}

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every connected peer.
    All,
    /// Every connected peer but the one it came from.
    AllExcept(PeerId),
    /// One peer.
    Peer(PeerId),
}

/// One effect.
#[derive(Clone, Debug)]
pub enum Output {
    /// Make durable before any later output takes effect. `height` is the height of the log.
    Persist { height: u64, record: Record },
    /// Send to peers.
    Send { to: Target, message: Message },
    /// Hand these messages to the signature check again: they came for an era not yet entered.
    Replay(Vec<(PeerId, Message)>),
    /// Pull the decided block at `height` from `peer`, which is ahead; answer with
    /// [`Input::Decided`](crate::consensus::input::Input::Decided). Repeated while behind: the driver
    /// ignores it while a pull of the same height from the same peer is under way.
    PullBlock { peer: PeerId, height: u64 },
    /// Ask `peer` for the headers between `tip` and `trusted`, which must not be of before `oldest_ms`; answer
    /// with [`Input::Route`](crate::consensus::input::Input::Route). Repeated as
    /// [`Output::PullBlock`] is.
    PullRoute { peer: PeerId, tip: TrustedHeader, trusted: TrustedHeader, oldest_ms: u64 },
    /// `txid` is final: a quorum of the era commit-voted it, with what proves it to others.
    Final { height: u64, txid: Txid, claim: FinalityClaim },
    /// The block is decided and already applied to the host's state; its `Decided` record precedes
    /// this output. From now on messages are checked against the next era.
    /// `next` is the committee of the height now being decided.
    Committed { block: Arc<Block>, qc: Qc, next: Arc<Committee> },
    /// A transaction entered the pool; `from` is `None` if it was submitted here.
    Accepted { txid: Txid, from: Option<PeerId>, size: u64, fee: Amount },
    /// A transaction was refused; told to its sender if local.
    Rejected { txid: Txid, from: Option<PeerId>, reason: Rejection },
    /// The peer sent what no honest peer sends.
    Misbehaved { peer: PeerId, what: &'static str },
    /// From now on this node signs with a log that is whole since the `Resume` with this number, or
    /// since its key was registered; `next` is the number its next `Resume` will carry. To be made
    /// durable before any later output takes effect.
    Sign { since: Option<Nonce>, next: Nonce },
    /// This node must not go on; the text says why and what to do.
    Halt { reason: String },
    /// For people.
    Notice(Notice),
}

/// What an operator may want to know; no effect on the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A vote batch was counted.
    Votes { voter: u16, sequence: u32, last: bool, prepares: u32, commits: u32, own: bool },
    /// A quorum prepared a payment.
    Certified { txid: Txid },
    /// The node froze.
    Frozen { height: u64, era_us: u64 },
    /// A round began.
    RoundStarted { height: u64, round: u32, proposer: u16 },
    /// A proposal was received or made.
    Proposed { height: u64, round: u32, block: BlockId, transactions: u32, own: bool },
    /// A proposal was not prevoted, with the reason.
    ProposalRefused { height: u64, round: u32, reason: String },
    /// A step of a round ended by its timer or does not end; `step` is `None` while proposing.
    RoundStalled {
        height: u64,
        round: u32,
        step: Option<Step>,
        reason: StallReason,
        /// Whom nothing was heard of in this step, with the cause.
        missing: Vec<(u16, Absence)>,
        /// Weight heard in this step.
        heard: u64,
        quorum: u64,
    },
    /// A height is decided: members without a precommit for its block that is known here, and why this
    /// node itself, a member, has none. Comes before [`Output::Committed`].
    Attendance { height: u64, absent: Vec<(u16, Absence)>, own: Option<OwnAbsence> },
    /// This node signed a vote at a moment of the monotonic clock; comes after the vote.
    Cast { height: u64, round: u32, step: Step, block: Option<BlockId>, at_us: u64 },
    /// Payments of the block that ends the era for which this node did not vote: how many by cause, and
    /// one of each.
    PaymentVotesMissed { height: u64, prepares: Vec<(Gap, u32, Txid)>, commits: Vec<(Gap, u32, Txid)> },
    /// A precommit for a block decided here `late_us` microseconds before.
    LatePrecommit { height: u64, voter: u16, late_us: u64 },
    /// The standing of the vote key has changed.
    Standing(Standing),
    /// A message of the own key that the log lacks was seen in era `height`; the first of that era.
    KeyElsewhere { height: u64, what: String },
    /// A peer has proven in the handshake that it holds the own vote key.
    SameKey { peer: PeerId },
    /// This node's key has entered or left the committee of a height; `status` is that of the masternode
    /// it is registered for, if any.
    Seat { height: u64, voter: Option<u16>, status: Option<MasternodeStatus> },
    /// A masternode signed two things that exclude each other; `name` is its name in the committee.
    Equivocation { name: String, evidence: Arc<Evidence> },
    /// Evidence against the masternode `name` waits for a block as a transaction of this node.
    EvidenceHandedIn { name: String, txid: Txid },
    /// A block convicts the masternode `name`, which is this node's if `own`.
    Convicted { name: String, what: &'static str, own: bool },
}
