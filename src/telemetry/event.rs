//! Things that happen in a node, one value each: per batch and per decision, never per signature.

use crate::primitives::clean::CleanText;
use crate::primitives::hash::{BlockId, Txid};
use crate::telemetry::bans::BanInfo;
use crate::telemetry::cause::{GapCount, MissedVote, StalledRound};
use crate::telemetry::log::LogRecord;
use crate::telemetry::reach::ReachInfo;
use crate::telemetry::snapshot::SyncInfo;
use serde::{Deserialize, Serialize};

/// An event with its number (gap-free per node) and wall time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Number since the start of the node.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum EventKind {
    /// A peer connected and passed the handshake.
    PeerConnected { peer: String, address: CleanText, inbound: bool, name: CleanText },
    /// A connection ended.
    PeerDisconnected { peer: String, address: CleanText, reason: CleanText },
    /// A connection was refused, with the reason told to the other side.
    PeerRefused { address: CleanText, reason: CleanText },
    /// Peers have dialled this node back, or tried to.
    Reachability(ReachInfo),
    /// Somebody is banned from now on.
    PeerBanned(BanInfo),
    /// A ban is over; `lifted` by the operator, or its time was up.
    PeerUnbanned { subject: CleanText, lifted: bool },
    /// Automatic bans are stopped for some minutes: `wanted` of `peers` would have been banned within a minute.
    BreakerOpen { wanted: u32, peers: u32 },
    /// This node itself stood still and is back; `suspended` with the whole machine.
    StoodStill { lasted_ms: u64, suspended: bool },
    /// A vote batch was counted; `own` for this node's.
    Votes { voter: u16, name: CleanText, sequence: u32, last: bool, prepares: u32, commits: u32, own: bool },
    /// Payments that became final since the last such event.
    Final { count: u32, fastest_us: u64, slowest_us: u64, newest: Txid },
    /// A transaction entered the pool.
    PoolAdded { txid: Txid, size: u32, fee: u64 },
    /// A transaction was refused or dropped.
    PoolRejected { txid: Txid, code: CleanText, reason: CleanText },
    /// This node froze: it votes no more payments in this era.
    Frozen { height: u64, era_ms: u64 },
    /// A checkpoint round began.
    RoundStarted { height: u64, round: u32, proposer: CleanText },
    /// A proposal was received or made.
    Proposed { height: u64, round: u32, block: BlockId, transactions: u32, own: bool },
    /// A step of a round ended or lasts without a quorum. Of repeats at one height only those are told
    /// whose number is a power of two.
    RoundStalled(StalledRound),
    /// Members whose votes are missing from a decided height, each with its cause: told with the next
    /// decision, when what comes late has come. Not told when all signed.
    VotesMissed { height: u64, missed: Vec<MissedVote>, missed_weight: u64, total_weight: u64 },
    /// This node did not vote for payments that are in the block of this height; by cause.
    PaymentVotesMissed { height: u64, prepares: Vec<GapCount>, commits: Vec<GapCount> },
    /// A block was decided and applied.
    Checkpoint {
        height: u64,
        block: BlockId,
        round: u32,
        proposer: CleanText,
        transactions: u32,
        fees: u64,
        signed_weight: u64,
        total_weight: u64,
        pause_ms: f64,
    },
    /// How far a catch-up has come; about once a second while it lasts.
    Sync(SyncInfo),
    /// The node's own state changed; the text is what the Overview shows.
    State { state: CleanText },
    /// Something an operator should know.
    Alert { level: AlertLevel, text: CleanText },
    /// A log record.
    Log(LogRecord),
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertLevel {
    Notice,
    Warning,
    Critical,
}
