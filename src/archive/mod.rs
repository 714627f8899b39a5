//! A chain in one file or stream: genesis, blocks with their certificates, and on demand the state after
//! the last of them. What `export` and `backup` write and `import` and `restore` read.
//!
//! A file is `"TMNARCHV"`, the version (4 bytes, little-endian), then frames: length of the payload (4
//! bytes), checksum (16 bytes), payload. The payload is the canonical encoding of one [`Item`]; the checksum
//! is BLAKE3 (`derive_key`) over the checksum before, the length and the payload, so a frame cannot be lost,
//! doubled or moved unseen. The last item is [`Item::End`]; nothing follows it.
//!
//! Order of the items: head, genesis; if there is a state: state, committees by height, outputs; then the
//! blocks ascending, each followed by its transactions; the first ones may be headers alone, of blocks that
//! the node has not kept whole. Everything is read and written item by item, so
//! memory is bounded by one block. Checksums are against damage; against forgery there are the certificates
//! of the blocks (see [`check`]).

pub mod check;
pub mod frames;
pub mod source;
#[cfg(test)]
mod tests;

use crate::ledger::genesis::Genesis;
use crate::ledger::registry::RegistryParts;
use crate::ledger::store::folder::StoreError;
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Member;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, ChainId};
use crate::primitives::transaction::{OutPoint, Transaction, Utxo};
use std::io;

/// First bytes of a file.
pub const MAGIC: [u8; 8] = *b"TMNARCHV";
/// Version of everything in this module that is written.
pub const VERSION: u32 = 1;
/// Most bytes of one item; the ids of the fullest block have 4 MiB, the largest genesis about 5.
pub const ITEM_BYTES_MAX: usize = 16 << 20;
/// Bytes of transactions in one item, roughly.
pub const BODIES_BYTES: u64 = 1 << 20;

/// One part of an archive.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Item {
    /// What follows.
    Head(Head),
    /// The founding document.
    Genesis(Box<Genesis>),
    /// The state after the last block, but for its outputs.
    State(Box<StateItem>),
    /// The committee of a height, which is not that of the height before.
    Committee {
        /// The height.
        height: u64,
        /// Its members.
        members: Vec<Member>,
    },
    /// Some unspent outputs of the state.
    Outputs(Vec<(OutPoint, Utxo)>),
    /// A block whose transactions are not kept.
    Header(Box<HeaderItem>),
    /// A block.
    Block(Box<BlockItem>),
    /// Some transactions of the block before, in their order.
    Bodies(Vec<Transaction>),
    /// The end, with the number of items before it.
    End(u64),
}

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Head {
    /// Which program wrote it.
    pub program: String,
    /// When, in milliseconds since 1970.
    pub made_ms: u64,
    /// The chain.
    pub chain: ChainId,
    /// First block in it, at least 1, be it a header alone.
    pub from: u64,
    /// Last block in it; one less than `from` when there is none.
    pub to: u64,
    /// Its id.
    pub tip: BlockId,
    /// Whether it holds the state after the last block.
    pub state: bool,
    /// Unspent outputs in that state.
    pub outputs: u64,
}

/// The state after the last block.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct StateItem {
    /// Header of that block.
    pub header: Header,
    /// The masternodes.
    pub registry: RegistryParts,
    /// Committee of that block.
    pub committee: Vec<Member>,
}

/// What is kept of every block for good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeaderItem {
    /// Its header.
    pub header: Header,
    /// Certificate of the block before, if it is kept.
    pub last_commit: Option<Qc>,
    /// Its certificate.
    pub commit: Qc,
    /// Transactions in all blocks up to it.
    pub transactions: u64,
}

/// A block; its transactions follow.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlockItem {
    /// Header, certificate of the block before, ids.
    pub outline: Outline,
    /// Its certificate.
    pub commit: Qc,
    /// Transactions in all blocks up to it.
    pub transactions: u64,
}

/// Why an archive cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Not an archive at all.
    #[error(
        "{name}: this is no archive of blocks: name a file that `masternode export` or `backup` has written"
    )]
    NotArchive { name: String },
    /// Of another version.
    #[error("{name}: archive version {found}, this program reads {VERSION}: use a newer masternode program")]
    Version { name: String, found: u32 },
    /// It ends too early.
    #[error(
        "{name}: ends at byte {offset}, in the middle: it was not written or copied completely; write it again"
    )]
    Truncated { name: String, offset: u64 },
    /// The bytes are not what was written.
    #[error("{name}: damaged at byte {offset}: {reason}; use another copy")]
    Damaged { name: String, offset: u64, reason: String },
    /// The bytes are what was written, and what was written is wrong.
    #[error("{name}: {reason}")]
    Wrong { name: String, reason: String },
    /// It belongs to another network.
    #[error(
        "{name}: is of chain {found}, not of {expected}: use one of your network, or another data directory"
    )]
    OtherChain { name: String, found: ChainId, expected: ChainId },
    /// The system refuses.
    #[error("{name}: cannot {action}: {source}: check free space and disk, and try again")]
    Io { name: String, action: &'static str, source: io::Error },
    /// Blocks that the node does not have.
    #[error("{reason}")]
    Range { reason: String },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Told to stop.
    #[error("{0}")]
    Interrupted(String),
}
