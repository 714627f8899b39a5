//! The whole picture of a node at one moment.

use crate::primitives::amount::Amount;
use crate::primitives::chain::NetworkKind;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{BlockId, ChainId, Hash, Txid};
use crate::primitives::keys::PublicKey;
use crate::primitives::transaction::TxStatus;
use crate::telemetry::cause::{MissCause, PaymentGap, StalledRound};
use crate::telemetry::clock::ClockInfo;
use crate::telemetry::histogram::Percentiles;
use crate::telemetry::reach::ReachInfo;
use serde::{Deserialize, Serialize};

/// Everything a console or `status --json` shows. Measured at `time_ms`; nothing in it is a constant
/// dressed as a measurement: what is not known is `None` or an empty list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Milliseconds since 1970.
    pub time_ms: u64,
    /// Number of the last event published before this snapshot.
    pub event_sequence: u64,
    pub node: NodeInfo,
    pub state: NodeState,
    pub chain: ChainInfo,
    /// The catch-up under way, if one is.
    pub sync: Option<SyncInfo>,
    pub consensus: ConsensusInfo,
    pub finality: FinalityInfo,
    pub pool: PoolInfo,
    pub peers: PeersInfo,
    pub members: Vec<MemberInfo>,
    /// Newest last, at most [`CHECKPOINTS_MAX`].
    pub checkpoints: Vec<CheckpointInfo>,
    pub host: HostInfo,
    /// Open alerts, newest last, at most 64.
    pub alerts: Vec<AlertInfo>,
}

/// Most checkpoints a snapshot carries.
pub const CHECKPOINTS_MAX: usize = 128;
/// Most open transactions a snapshot carries.
pub const OPEN_TRANSACTIONS_MAX: usize = 64;
/// Buckets of the throughput history, one second each.
pub const RATE_BUCKETS: usize = 120;

/// Who the node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    pub name: CleanText,
    pub version: String,
    pub network: NetworkKind,
    pub chain: ChainId,
    /// Key it votes with; `None` for an observer.
    pub vote_key: Option<PublicKey>,
    /// Index in the current committee, if a member.
    pub voter: Option<u16>,
    pub p2p_address: String,
    pub data_dir: String,
    pub pid: u32,
    pub uptime_ms: u64,
    /// How long start-up took until the network was joined, in milliseconds.
    pub startup_ms: u64,
}

/// What the node is doing, in one word with its figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum NodeState {
    Starting {
        phase: CleanText,
    },
    /// Behind its peers.
    Syncing {
        height: u64,
        target: u64,
    },
    /// Fewer connected members than a quorum; weights, own included.
    WaitingForQuorum {
        connected_weight: u64,
        quorum_weight: u64,
        total_weight: u64,
        missing: Vec<CleanText>,
    },
    /// Was away for longer than the trust period and adopts no block without a trusted one.
    NeedsTrustedBlock {
        reason: CleanText,
    },
    /// A member of the committee, voting.
    Signing,
    /// Waits for the statuses of a quorum at its height before it signs; weights, own included.
    Listening {
        heard_weight: u64,
        quorum_weight: u64,
    },
    /// Must not sign with the vote key it holds: what it waits for, and what led to it.
    NotSigning {
        stage: CleanText,
        reason: CleanText,
    },
    /// Not a member; follows the chain.
    Observing,
    /// Refuses to go on, with the reason and the remedy.
    Halted {
        reason: CleanText,
    },
    Stopping,
}

impl NodeState {
    /// The word for screens, `SIGNING` and so on, with figures where they matter.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Starting { .. } => "STARTING".to_owned(),
            Self::Syncing { height, target } => format!("SYNCING {height}/{target}"),
            Self::WaitingForQuorum { connected_weight, quorum_weight, .. } => {
                format!("WAITING FOR QUORUM {connected_weight}/{quorum_weight}")
            }
            Self::NeedsTrustedBlock { .. } => "NEEDS TRUSTED BLOCK".to_owned(),
            Self::Signing => "SIGNING".to_owned(),
            Self::Listening { heard_weight, quorum_weight } => {
                format!("LISTENING {heard_weight}/{quorum_weight}")
            }
            Self::NotSigning { stage, .. } => format!("NOT SIGNING: {stage}"),
            Self::Observing => "OBSERVING".to_owned(),
            Self::Halted { .. } => "HALTED".to_owned(),
            Self::Stopping => "STOPPING".to_owned(),
        }
    }
}

/// A catch-up with the others. Rates are of the last ten seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncInfo {
    /// Height of the last block adopted.
    pub height: u64,
    /// Height of the last block that somebody says it has.
    pub target: u64,
    pub blocks_per_second: f64,
    pub transactions_per_second: f64,
    /// Seconds left at this rate; `None` while nothing is known of it.
    pub eta_s: Option<u64>,
    /// Seconds since the last block was adopted.
    pub still_s: u64,
    /// Whom blocks are pulled from.
    pub peers: Vec<SyncPeer>,
}

/// A peer that blocks are pulled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SyncPeer {
    pub id: String,
    /// Height of the last block it says it has.
    pub has: u64,
    /// Blocks it has served in this catch-up.
    pub blocks: u64,
    /// Requests it did not answer in time.
    pub stalls: u64,
    /// It did not answer lately, and is asked after all others.
    pub slow: bool,
}

/// The chain as this node has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainInfo {
    /// Height of the last decided block.
    pub height: u64,
    pub block: BlockId,
    /// Wall time of that block.
    pub block_time_ms: u64,
    pub state_hash: Hash,
    pub utxo_count: u64,
    pub supply: Amount,
    /// Transactions in all blocks since genesis.
    pub transactions: u64,
    /// Blocks decided but not yet in the database (they are in the journal).
    pub store_lag: u64,
}

/// The height being decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsensusInfo {
    /// Height being decided.
    pub height: u64,
    pub round: u32,
    /// `era`, `propose`, `prevote` or `precommit`.
    pub step: CleanText,
    pub frozen: bool,
    /// Name of the proposer of the current round.
    pub proposer: CleanText,
    /// How long this era has lasted, in milliseconds.
    pub era_age_ms: u64,
    /// Configured length of an era, in milliseconds.
    pub era_ms: u64,
    /// Heights until this node proposes in round 0; `None` for an observer.
    pub own_turn_in: Option<u64>,
    pub total_weight: u64,
    pub quorum_weight: u64,
    /// Weight of connected members, own included.
    pub connected_weight: u64,
    /// Bytes prepared in this era and the most allowed.
    pub era_bytes_used: u64,
    pub era_bytes_max: u64,
    /// Payments with votes that are not yet in a block, newest first, at most
    /// [`OPEN_TRANSACTIONS_MAX`].
    pub open: Vec<OpenTransaction>,
    /// Votes sent and received since start.
    pub votes_sent: u64,
    pub votes_received: u64,
    /// Rounds above 0 since start.
    pub rounds_failed: u64,
    /// Why this height has no decision yet: its last stalled step.
    pub stall: Option<StalledRound>,
    /// Payments in blocks for which this node cast no prepare, and no commit, since start, by cause.
    pub prepares_missed: Vec<(PaymentGap, u64)>,
    pub commits_missed: Vec<(PaymentGap, u64)>,
    /// Processing time of engine inputs (how late the loop is).
    pub loop_lag: Percentiles,
    /// Journal sync time.
    pub journal_sync: Percentiles,
}

/// Quorum meter of one payment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenTransaction {
    pub txid: Txid,
    pub prepare_weight: u64,
    pub commit_weight: u64,
    /// Milliseconds since this node first saw it.
    pub age_ms: u64,
}

/// Finality as measured by this node: from first sight of a payment to its commit quorum.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FinalityInfo {
    /// Over the last minute.
    pub latency: Percentiles,
    /// Payments final since start.
    pub total: u64,
    /// Payments final in the last full second.
    pub per_second: u64,
    /// Final payments per second, oldest first, at most [`RATE_BUCKETS`].
    pub history: Vec<u64>,
    /// Era end to next era start: the time in which no payment finalises by votes.
    pub checkpoint_pause: Percentiles,
}

/// The transaction pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PoolInfo {
    pub transactions: u64,
    pub bytes: u64,
    pub transactions_max: u64,
    pub bytes_max: u64,
    pub pending: u64,
    pub prepared: u64,
    pub certified: u64,
    /// Final but not yet in a block.
    pub finalised: u64,
    /// Waiting for an unknown input.
    pub orphans: u64,
    pub added: u64,
    pub evicted: u64,
    /// Rejections since start by code.
    pub rejected: Vec<(CleanText, u64)>,
    /// (lower bound in units per 1000 bytes, transactions), ascending.
    pub fee_histogram: Vec<(u64, u64)>,
    /// Newest entries first, at most 256.
    pub entries: Vec<PoolEntryInfo>,
    /// Newest rejections first, at most 64.
    pub rejections: Vec<RejectionInfo>,
}

/// One transaction of the pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolEntryInfo {
    pub txid: Txid,
    pub status: TxStatus,
    pub size: u64,
    pub fee: u64,
    pub inputs: u32,
    pub outputs: u32,
    pub value: Amount,
    pub age_ms: u64,
}

/// A remembered rejection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RejectionInfo {
    pub txid: Txid,
    pub code: CleanText,
    pub reason: CleanText,
    pub age_ms: u64,
}

/// Connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeersInfo {
    /// Connections dialled by peers and by this node.
    pub inbound: u64,
    pub outbound: u64,
    /// Those of them with members of the committee; the rest are observers.
    pub members_in: u64,
    pub members_out: u64,
    pub inbound_max: u64,
    pub known_addresses: u64,
    /// Whether peers can dial this node; `None` until some have tried.
    pub reach: Option<ReachInfo>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// How often a peer was slowed down because it sent more than any honest node does.
    pub throttled: u64,
    /// Peers and ranges of addresses that are banned.
    pub bans: u64,
    /// Offences of peers since start that count towards a ban.
    pub offences: u64,
    /// Bans since start that this node ordered itself.
    pub automatic_bans: u64,
    /// Connections refused since start because of a ban.
    pub refused_banned: u64,
    /// Whether automatic bans are stopped because too many peers would have been banned.
    pub ban_breaker_open: bool,
    pub list: Vec<PeerInfo>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Network key, in hexadecimal.
    pub id: String,
    pub address: CleanText,
    pub inbound: bool,
    /// Committee member behind it, if any.
    pub voter: Option<u16>,
    pub name: CleanText,
    pub agent: CleanText,
    pub height: u64,
    /// Smoothed ping round trip in microseconds; `None` before the first pong.
    pub rtt_us: Option<u64>,
    /// Smoothed difference of one round trip and the next, in microseconds; `None` before the second pong.
    pub jitter_us: Option<u64>,
    /// Clock of the peer minus ours, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// What that may be wrong by, in milliseconds.
    pub clock_error_ms: Option<u64>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Messages dropped because the peer was slow.
    pub dropped: u64,
    pub age_ms: u64,
}

/// One member of the committee.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberInfo {
    pub voter: u16,
    pub name: CleanText,
    pub vote_key: PublicKey,
    pub weight: u64,
    pub own: bool,
    pub connected: bool,
    /// Vote batches of this era received without a gap.
    pub stream_head: u32,
    /// Milliseconds since its last vote; `None` if none was seen.
    pub last_vote_age_ms: Option<u64>,
    /// Prepares and commits counted since start.
    pub votes: u64,
    /// One mark a recent checkpoint, oldest first, aligned with [`Snapshot::checkpoints`].
    pub signed: Vec<SignMark>,
    /// The last checkpoint it missed as this node saw it.
    pub last_miss: Option<MissInfo>,
    /// Checkpoints missed since this node started, by the code of the cause.
    pub misses: Vec<(CleanText, u64)>,
}

/// A checkpoint a member missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissInfo {
    pub height: u64,
    #[serde(flatten)]
    pub cause: MissCause,
}

/// How a member took part in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignMark {
    /// Its precommit is in the certificate or arrived in time.
    Signed,
    /// Its precommit came after the decision.
    Late,
    /// Connected but no precommit.
    Missed,
    /// Not connected.
    Absent,
}

/// One decided block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointInfo {
    pub height: u64,
    pub block: BlockId,
    pub round: u32,
    pub proposer: CleanText,
    pub time_ms: u64,
    pub transactions: u32,
    pub bytes: u64,
    pub fees: u64,
    pub signed_weight: u64,
    pub total_weight: u64,
    /// First freeze seen here to commit, in milliseconds; `None` for blocks caught up.
    pub pause_ms: Option<f64>,
    pub state_hash: Hash,
}

/// The machine the node runs on. `None` where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Share of one core used by this process, in percent.
    pub cpu_percent: Option<f32>,
    pub rss_bytes: Option<u64>,
    pub open_files: Option<u64>,
    pub disk_free_bytes: Option<u64>,
    pub data_bytes: Option<u64>,
    /// Its clock against those of the peers.
    pub clock: ClockInfo,
    /// When it last stood still.
    pub standstill: Option<Standstill>,
}

/// A time in which the node did nothing, because the process was stopped or starved, or the machine suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standstill {
    /// When it ended.
    pub time_ms: u64,
    pub lasted_ms: u64,
    /// With the whole machine.
    pub suspended: bool,
}

/// An alert that stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertInfo {
    pub time_ms: u64,
    pub level: crate::telemetry::event::AlertLevel,
    pub text: CleanText,
}
