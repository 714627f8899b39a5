//! Consensus messages between nodes (protocol §2). Everything bulky is pulled, never pushed unasked.

use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::{Certificate, Qc};
use crate::primitives::committee::VoterIndex;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, Domain, EraTag, Hash, Txid, hash};
use crate::primitives::keys::{PublicKey, Signature};
use crate::primitives::transaction::Transaction;
use crate::primitives::vote::{Vote, VoteBatch};

/// A proposer's block of a round, or the re-proposal of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Proposal {
    /// Era, and with it the height.
    pub era_tag: EraTag,
    /// Round it is proposed in.
    pub round: u32,
    /// Round of the POL for a re-proposal, -1 for a fresh block.
    pub valid_round: i32,
    /// The block without bodies.
    pub outline: Outline,
    /// The POL of a re-proposal.
    pub pol: Option<Qc>,
    /// The proposer's signature over [`Proposal::digest`].
    pub signature: Signature,
}

impl Proposal {
    /// What is signed: era tag, round, valid round and block id.
    #[must_use]
    pub fn digest(&self) -> Hash {
        proposal_digest(self.era_tag, self.round, self.valid_round, self.outline.header.id())
    }
}

/// What a proposal signs.
#[must_use]
pub fn proposal_digest(era_tag: EraTag, round: u32, valid_round: i32, block: BlockId) -> Hash {
    hash(
        Domain::PROPOSAL,
        &[era_tag.bytes(), &round.to_le_bytes(), &valid_round.to_le_bytes(), block.bytes()],
    )
}

/// What a node has of the current height; sent every second and on connect.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Status {
    /// Height being decided.
    pub height: u64,
    /// Id of the block at `height - 1`.
    pub previous: BlockId,
    /// Current round; meaningful once frozen.
    pub round: u32,
    /// Whether the node holds the proposal of that round.
    pub has_proposal: bool,
    /// Voters whose prevotes of that round the node holds, one bit each as in a [`Qc`].
    pub prevotes: Vec<u8>,
    /// Voters whose precommits of that round the node holds.
    pub precommits: Vec<u8>,
    /// For each voter, how many batches of its stream the node holds without a gap.
    pub stream_heads: Vec<u32>,
}

/// A snapshot that the sender keeps (protocol §7).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotOffer {
    /// Height of the block it is the state after.
    pub height: u64,
    /// Id of that block.
    pub block: BlockId,
    /// Digest of its manifest, by which the parts are asked for.
    pub manifest: Hash,
    /// Bytes of the encoded manifest.
    pub manifest_bytes: u64,
    /// Bytes of all parts.
    pub bytes: u64,
    /// A commit certificate of the block.
    pub commit: Qc,
}

/// Most snapshots in one answer.
pub const SNAPSHOT_OFFERS_MAX: usize = 4;

/// Most ids in one announcement of transactions.
pub const ANNOUNCED_MAX: usize = 1024;

/// A message of the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// A transaction where it enters the network or the committee; others are told of it.
    Transaction(Transaction),
    /// Fast-path votes.
    VoteBatch(VoteBatch),
    /// A proposal.
    Proposal(Proposal),
    /// A prevote or precommit.
    Vote(Vote),
    /// A prevote quorum, sent on entering a round above 0.
    Pol { era_tag: EraTag, qc: Qc },
    /// A decided block, to any peer seen below this height.
    Commit { height: u64, qc: Qc },
    /// What the sender has.
    Status(Status),
    /// Asks for bodies of transactions of the current era.
    GetTransactions(Vec<Txid>),
    /// Bodies asked for.
    Transactions(Vec<Transaction>),
    /// Asks for a voter's stream from a number on.
    GetStream { era_tag: EraTag, voter: VoterIndex, from: u32 },
    /// Batches asked for.
    Stream(Vec<VoteBatch>),
    /// Asks for `P(h,T)` of a transaction the receiver has commit-voted.
    GetCertificate { era_tag: EraTag, txid: Txid },
    /// A certificate asked for.
    Certificate { era_tag: EraTag, certificate: Certificate },
    /// Asks for an undecided block by id.
    GetCandidate { era_tag: EraTag, block: BlockId },
    /// An undecided block asked for.
    Candidate { era_tag: EraTag, outline: Outline },
    /// Asks for the decided block at a height.
    GetBlock { height: u64 },
    /// A decided block asked for, with its certificate.
    Block { outline: Outline, qc: Qc },
    /// Asks for bodies of a decided block from an index on.
    GetBlockBodies { height: u64, from: u32 },
    /// Bodies asked for, in block order from `from` on; at least one unless there are no more.
    BlockBodies { height: u64, from: u32, transactions: Vec<Transaction> },
    /// A decided block asked for is not kept here; those from `oldest` on are.
    BlockNotKept { height: u64, oldest: u64 },
    /// Asks which snapshots the receiver keeps.
    GetSnapshots,
    /// The snapshots kept, newest first, at most [`SNAPSHOT_OFFERS_MAX`].
    Snapshots(Vec<SnapshotOffer>),
    /// Asks for a page of a manifest, by its digest.
    GetSnapshotManifest { manifest: Hash, page: u32 },
    /// A page of an encoded manifest.
    SnapshotManifest { manifest: Hash, page: u32, bytes: Vec<u8> },
    /// Asks for a part of a snapshot.
    GetSnapshotPart { manifest: Hash, part: u32 },
    /// A part of a snapshot; empty when it is not kept any more.
    SnapshotPart { manifest: Hash, part: u32, bytes: Vec<u8> },
    /// Asks for what leads a verifier that trusts header `from` to header `to` (protocol §9).
    GetLinks { from: u64, to: u64 },
    /// Encoded `Link`s that lead from header `from` towards the one asked for; none if not kept.
    Links { from: u64, links: Vec<Vec<u8>> },
    /// Asks for the headers of the `count` decided blocks up to `last`.
    GetHeaders { last: u64, count: u16 },
    /// Headers asked for, ascending; without certificates, as their ids are known one from the next.
    Headers(Vec<Header>),
    /// Transactions the sender has and hands out, at most [`ANNOUNCED_MAX`].
    Announce(Vec<Txid>),
}

impl Message {
    /// Stable name for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Transaction(_) => "transaction",
            Self::VoteBatch(_) => "vote-batch",
            Self::Proposal(_) => "proposal",
            Self::Vote(_) => "vote",
            Self::Pol { .. } => "pol",
            Self::Commit { .. } => "commit",
            Self::Status(_) => "status",
            Self::GetTransactions(_) => "get-transactions",
            Self::Transactions(_) => "transactions",
            Self::GetStream { .. } => "get-stream",
            Self::Stream(_) => "stream",
            Self::GetCertificate { .. } => "get-certificate",
            Self::Certificate { .. } => "certificate",
            Self::GetCandidate { .. } => "get-candidate",
            Self::Candidate { .. } => "candidate",
            Self::GetBlock { .. } => "get-block",
            Self::Block { .. } => "block",
            Self::GetBlockBodies { .. } => "get-block-bodies",
            Self::BlockBodies { .. } => "block-bodies",
            Self::BlockNotKept { .. } => "block-not-kept",
            Self::GetSnapshots => "get-snapshots",
            Self::Snapshots(_) => "snapshots",
            Self::GetSnapshotManifest { .. } => "get-snapshot-manifest",
            Self::SnapshotManifest { .. } => "snapshot-manifest",
            Self::GetSnapshotPart { .. } => "get-snapshot-part",
            Self::SnapshotPart { .. } => "snapshot-part",
            Self::GetLinks { .. } => "get-links",
            Self::Links { .. } => "links",
            Self::GetHeaders { .. } => "get-headers",
            Self::Headers(_) => "headers",
            Self::Announce(_) => "announce",
        }
    }
}

/// A peer on the network: its transport key. Which committee member it speaks for, if any, is proven
/// in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PeerId(pub PublicKey);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}
