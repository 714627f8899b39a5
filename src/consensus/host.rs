//! What the machine needs of ledger and pool, as one trait: implemented by the node over its
//! concurrent structures and by the simulation over the same ones in memory.
//!
//! The machine is the only writer. Between two commits the ledger does not change, so every answer
//! about it is about the state after block `tip().height`.

use crate::primitives::amount::Amount;
use crate::primitives::block::{Block, Header};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Committee;
use crate::primitives::hash::{BlockId, ChainId, MasternodeId, Txid};
use crate::primitives::keys::PublicKey;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction, TxStatus, Utxo};
use std::sync::Arc;

/// The end of the chain as applied.
#[derive(Clone, Debug)]
pub struct Tip {
    /// Header of the last applied block.
    pub header: Arc<Header>,
    /// Its height.
    pub height: u64,
    /// Its id.
    pub block: BlockId,
    /// Id of the block before it; zero for genesis.
    pub parent: BlockId,
    /// Its time in milliseconds since 1970.
    pub time_ms: u64,
    /// Its commit certificate; `None` for genesis.
    pub commit: Option<Qc>,
    /// Committee of that block (`C_h`).
    pub committee: Arc<Committee>,
    /// Committee of the next block (`C_h+1`): who votes now.
    pub next_committee: Arc<Committee>,
}

/// A registered masternode as the machine sees it, after the tip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its identity.
    pub id: MasternodeId,
    /// Its name.
    pub name: String,
    /// The key it votes with.
    pub vote_key: PublicKey,
    /// Keys it no longer votes with and still answers for.
    pub former_keys: Vec<PublicKey>,
    /// How it stands.
    pub status: MasternodeStatus,
    /// Number of its last change; the next one carries one more.
    pub sequence: u64,
    /// Height and nonce of its last `Resume`.
    pub resumed: Option<(u64, [u8; 32])>,
    /// Its locked output.
    pub collateral: OutPoint,
    /// Its voting weight when it is in the committee.
    pub weight: u64,
}

/// Why a block is not valid, naming the rule and the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BlockFault(pub String);

/// Ledger and pool as the machine sees them.
pub trait Host {
    /// The chain the ledger is of.
    fn chain(&self) -> ChainId;

    /// Consensus parameters of the next block.
    fn params(&self) -> &Params;

    /// The end of the applied chain.
    fn tip(&self) -> Tip;

    /// An unspent output of the state after the tip.
    fn utxo(&self, outpoint: &OutPoint) -> Option<Utxo>;

    /// The masternode with this identity, whatever its status.
    fn registered(&self, id: &MasternodeId) -> Option<Registered>;

    /// The masternode that votes with this key, whatever its status.
    fn masternode_of(&self, vote_key: &PublicKey) -> Option<Registered>;

    /// Checks everything about a transaction but its signatures, for a block of `tip().height + 1`,
    /// with inputs resolved by `resolve` (in-era parents are payments only); returns its fee, zero for
    /// kinds that move no money.
    fn check_transaction(
        &self,
        transaction: &SealedTransaction,
        resolve: &dyn Fn(&OutPoint) -> Option<Utxo>,
    ) -> Result<Amount, Rejection>;

    /// Builds the next block of these transactions (any order, valid together), with coinbase and all
    /// state fields. `commit` is the certificate of the tip with all precommits seen.
    fn build(
        &self,
        proposer: MasternodeId,
        time_ms: u64,
        commit: Option<Qc>,
        transactions: Vec<SharedTransaction>,
    ) -> Result<Block, BlockFault>;

    /// `valid_block` of protocol §5, signatures of transactions and of the last commit excepted:
    /// those were verified before the block got here.
    fn validate(&self, block: &Block) -> Result<(), BlockFault>;

    /// Applies a decided block: state, pool (included, conflicting and expired transactions leave, and
    /// special ones that the new registry forbids).
    /// Called once a height with a block that `validate` accepted.
    fn commit(&mut self, block: &Arc<Block>, qc: &Qc) -> Result<(), BlockFault>;

    /// Admits a checked transaction to the pool. Evicted ones are gone from `body`.
    fn admit(&mut self, transaction: SharedTransaction, fee: Amount, now_us: u64) -> Result<(), Rejection>;

    /// Keeps a transaction whose inputs are not all known yet, within a bound.
    fn admit_orphan(&mut self, transaction: SharedTransaction, now_us: u64) -> Result<(), Rejection>;

    /// Body of a transaction in the pool, orphans included.
    fn body(&self, txid: &Txid) -> Option<SharedTransaction>;

    /// Transactions of the pool that spend `outpoint`, orphans not counted.
    fn spenders(&self, outpoint: &OutPoint) -> Vec<Txid>;

    /// Transactions of the pool that spend an output of `txid`, ascending by id, orphans included.
    fn children(&self, txid: &Txid) -> Vec<SharedTransaction>;

    /// All transactions of the pool: special ones, evidence first; payments, highest fee rate first,
    /// ties by ascending id; orphans.
    fn pending(&self) -> Vec<SharedTransaction>;

    /// Keeps a transaction from eviction: this node has voted for it.
    fn pin(&mut self, txid: &Txid);

    /// Records how far a transaction has come.
    fn set_status(&mut self, txid: &Txid, status: TxStatus, now_us: u64);

    /// Drops a transaction for good and remembers why.
    fn reject(&mut self, txid: &Txid, reason: &Rejection, now_us: u64);
}
