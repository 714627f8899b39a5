//! Blocks (protocol §2): the checkpoints of the chain.

use crate::primitives::amount::Amount;
use crate::primitives::certificate::Qc;
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{BlockId, Domain, Hash, MasternodeId, Txid, hash};
use crate::primitives::merkle::{Phase, root};
use crate::primitives::transaction::{OutPoint, SharedTransaction, TxOutput, Utxo};

/// The only header version.
pub const HEADER_VERSION: u16 = 1;

/// Header of a block. State fields describe the state after this block. The round is absent: a
/// re-proposal is the same block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    /// [`HEADER_VERSION`].
    pub version: u16,
    /// Height; genesis has 0.
    pub height: u64,
    /// Id of the block before.
    pub previous: BlockId,
    /// Wall time of the proposal in milliseconds since 1970, later than the parent's.
    pub time_ms: u64,
    /// Registry identity of the masternode that built the block and earns its coinbase.
    pub proposer: MasternodeId,
    /// Merkle root of the transaction ids, ascending.
    pub tx_root: Hash,
    /// Number of transactions, the coinbase not counted.
    pub tx_count: u32,
    /// Encoded bytes of the transactions.
    pub body_bytes: u64,
    /// Hash of the certificate of the block before, zero at height 1.
    pub last_commit_root: Hash,
    /// Digest of the set hash of all unspent outputs.
    pub utxo_hash: Hash,
    /// Number of unspent outputs.
    pub utxo_count: u64,
    /// Money in existence.
    pub supply: Amount,
    /// Digest of the registry.
    pub registry_root: Hash,
    /// Root of the committee of this height.
    pub committee_root: Hash,
    /// Root of the committee of the next height.
    pub next_committee_root: Hash,
    /// Root of the consensus parameters.
    pub params_root: Hash,
}

impl Header {
    /// Identity of the block.
    #[must_use]
    pub fn id(&self) -> BlockId {
        BlockId(hash(Domain::BLOCK, &[&encode(self)]))
    }
}

/// `last_commit_root` of a header.
#[must_use]
pub fn last_commit_root(last_commit: Option<&Qc>) -> Hash {
    last_commit.map_or(Hash::default(), |qc| hash(Domain::LAST_COMMIT, &[&encode(qc)]))
}

/// `tx_root` of a header.
#[must_use]
pub fn tx_root(txids: &[Txid]) -> Hash {
    root(Phase::Body, txids)
}

/// The reward of a block: new money and fees, to its proposer. Determined by the rest of the block,
/// so it never travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Coinbase {
    /// Height, which makes the id unique.
    pub height: u64,
    /// At most one output; none when reward and fees are below dust.
    pub outputs: Vec<TxOutput>,
}

impl Coinbase {
    /// The transaction id its outputs are named by.
    #[must_use]
    pub fn id(&self) -> Txid {
        Txid(hash(Domain::COINBASE, &[&encode(self)]))
    }

    /// The outputs it makes.
    #[must_use]
    pub fn creates(&self) -> Vec<(OutPoint, Utxo)> {
        let txid = self.id();
        let utxo =
            |output: &TxOutput| Utxo { value: output.value, key_hash: output.key_hash, height: self.height };
        self.outputs
            .iter()
            .zip(0u32..)
            .map(|(output, index)| (OutPoint { txid, index }, utxo(output)))
            .collect()
    }
}

/// A block without the bodies of its transactions: what a proposal and a block answer carry. The
/// bodies are pulled by id.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Outline {
    /// The header.
    pub header: Header,
    /// Certificate of the block before; `None` at height 1.
    pub last_commit: Option<Qc>,
    /// Ids of the transactions, strictly ascending.
    pub txids: Vec<Txid>,
}

/// A whole block in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// Certificate of the block before; `None` at height 1.
    pub last_commit: Option<Qc>,
    /// Transactions in strictly ascending order of id.
    pub transactions: Vec<SharedTransaction>,
}

impl Block {
    /// Its identity.
    #[must_use]
    pub fn id(&self) -> BlockId {
        self.header.id()
    }

    /// The block without bodies.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline {
            header: self.header.clone(),
            last_commit: self.last_commit.clone(),
            txids: self.transactions.iter().map(|tx| tx.id()).collect(),
        }
    }
}
