//! Transactions (protocol §1): what spends outputs and makes new ones.

use crate::primitives::amount::Amount;
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{ChainId, Domain, Hash, KeyHash, Txid, hash};
use crate::primitives::keys::{PublicKey, SecretKey, Signature, SignatureCheck};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The only transaction version.
pub const TRANSACTION_VERSION: u16 = 1;

/// Names one output: the transaction that made it and its place there.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct OutPoint {
    /// Transaction (or coinbase) that made the output.
    pub txid: Txid,
    /// Index among its outputs.
    pub index: u32,
}

impl fmt::Display for OutPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.txid, self.index)
    }
}

/// An unspent output as the ledger keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Utxo {
    /// Its value.
    pub value: Amount,
    /// Hash of the key that may spend it.
    pub key_hash: KeyHash,
    /// Height of the block that made it.
    pub height: u64,
}

/// What a transaction does. Only payments exist so far; they may use the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionKind {
    /// Moves money.
    Payment,
}

/// One spent output with the authorisation to spend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TxInput {
    /// The output.
    pub outpoint: OutPoint,
    /// The key whose hash the output is locked to.
    pub public_key: PublicKey,
    /// Signature over [`Transaction::spend_digest`].
    pub signature: Signature,
}

/// One new output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TxOutput {
    /// Its value.
    pub value: Amount,
    /// Hash of the key that may spend it.
    pub key_hash: KeyHash,
}

/// A transaction as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Transaction {
    /// [`TRANSACTION_VERSION`].
    pub version: u16,
    /// What it does.
    pub kind: TransactionKind,
    /// Last height at which it may be included.
    pub expiry: u64,
    /// What it spends, at least one.
    pub inputs: Vec<TxInput>,
    /// What it makes, at least one.
    pub outputs: Vec<TxOutput>,
    /// Free bytes; empty for payments.
    pub payload: Vec<u8>,
}

impl Transaction {
    /// `txid`: the hash of all of it, signatures included, so that no refused variant can poison a
    /// cache for the good one.
    #[must_use]
    pub fn id(&self) -> Txid {
        Txid(hash(Domain::TXID, &[&encode(self)]))
    }

    /// What every input signs: the chain and all of the transaction but its signatures.
    #[must_use]
    pub fn spend_digest(&self, chain: ChainId) -> Hash {
        let mut unsigned = self.clone();
        for input in &mut unsigned.inputs {
            input.signature = Signature([0; 64]);
        }
        hash(Domain::SPEND, &[chain.bytes(), &encode(&unsigned)])
    }

    /// Signs every input whose public key is `key`'s.
    pub fn sign(&mut self, chain: ChainId, key: &SecretKey) {
        let digest = self.spend_digest(chain);
        let public = key.public();
        for input in self.inputs.iter_mut().filter(|input| input.public_key == public) {
            input.signature = key.sign(&digest);
        }
    }

    /// The signatures to verify before the transaction may be used.
    #[must_use]
    pub fn signature_checks(&self, chain: ChainId) -> Vec<SignatureCheck> {
        let digest = self.spend_digest(chain);
        self.inputs
            .iter()
            .map(|input| SignatureCheck { key: input.public_key, digest, signature: input.signature })
            .collect()
    }
}

/// A transaction with its identity and encoded size, computed once. Shared as
/// [`SharedTransaction`]; immutable, so the cached values stay right.
#[derive(Debug, PartialEq, Eq)]
pub struct SealedTransaction {
    id: Txid,
    size: u32,
    body: Transaction,
}

/// A sealed transaction shared between pool, machine and block.
pub type SharedTransaction = Arc<SealedTransaction>;

impl SealedTransaction {
    /// Seals `body`: encodes and hashes it once.
    #[must_use]
    pub fn new(body: Transaction) -> SharedTransaction {
        let bytes = encode(&body);
        let id = Txid(hash(Domain::TXID, &[&bytes]));
        Arc::new(Self { id, size: u32::try_from(bytes.len()).unwrap_or(u32::MAX), body })
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> Txid {
        self.id
    }

    /// Its encoded size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// The transaction.
    #[must_use]
    pub fn body(&self) -> &Transaction {
        &self.body
    }

    /// The outputs it spends.
    pub fn spends(&self) -> impl Iterator<Item = OutPoint> + '_ {
        self.body.inputs.iter().map(|input| input.outpoint)
    }

    /// The outputs it makes, as they stand in the set after a block of `height`.
    pub fn creates(&self, height: u64) -> impl Iterator<Item = (OutPoint, Utxo)> + '_ {
        let txid = self.id;
        self.body.outputs.iter().zip(0u32..).map(move |(output, index)| {
            (OutPoint { txid, index }, Utxo { value: output.value, key_hash: output.key_hash, height })
        })
    }
}

/// How far a transaction has come at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TxStatus {
    /// Accepted, not voted on.
    Pending,
    /// Prepared by this node.
    Prepared,
    /// A quorum prepared it.
    Certified,
    /// A quorum commit-voted it: irrevocable.
    Final,
    /// In a block.
    Confirmed,
    /// Refused or dropped.
    Rejected,
}
