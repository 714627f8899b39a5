//! Transactions (protocol §1): what spends outputs and makes new ones.

use crate::primitives::amount::Amount;
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{ChainId, Domain, Hash, KeyHash, Txid, hash};
use crate::primitives::keys::{PublicKey, SecretKey, Signature, SignatureCheck};
use crate::primitives::rejection::Rejection;
use crate::primitives::special::Special;
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

/// What a transaction does. Payments may use the fast path; every other kind changes the registry,
/// carries a [`Special`] as its payload and takes effect by block only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransactionKind {
    /// Moves money.
    Payment,
    /// Registers a masternode.
    Register,
    /// Changes keys, payout or endpoint of a masternode.
    Update,
    /// Takes a masternode out of the committee.
    Unbond,
    /// Lets a masternode vote again.
    Resume,
    /// Proves that a masternode signed what excludes each other.
    Evidence,
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
    /// What it spends: at least one for payments and registrations, none for the other kinds.
    pub inputs: Vec<TxInput>,
    /// What it makes: as with inputs.
    pub outputs: Vec<TxOutput>,
    /// The encoding of a [`Special`]'s value; empty for payments.
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

    /// The signatures to verify before the transaction may be used: one an input, then those of a
    /// special transaction. One whose payload cannot be read has none of the latter; it is refused for
    /// its form.
    #[must_use]
    pub fn signature_checks(&self, chain: ChainId) -> Vec<SignatureCheck> {
        let digest = self.spend_digest(chain);
        let of_input =
            |input: &TxInput| SignatureCheck { key: input.public_key, digest, signature: input.signature };
        let mut checks: Vec<SignatureCheck> = self.inputs.iter().map(of_input).collect();
        if let Ok(Some(special)) = Special::of(self) {
            checks.extend(special.checks(self.authorisation_digest(chain, &special)).unwrap_or_default());
        }
        checks
    }
}

/// A transaction with its identity and encoded size, computed once. Shared as
/// [`SharedTransaction`]; immutable, so the cached values stay right.
#[derive(Debug, PartialEq, Eq)]
pub struct SealedTransaction {
    id: Txid,
    size: u32,
    body: Transaction,
    special: Result<Option<Special>, Rejection>,
    lock_keys: Vec<OutPoint>,
}

/// A sealed transaction shared between pool, machine and block.
pub type SharedTransaction = Arc<SealedTransaction>;

impl SealedTransaction {
    /// Seals `body`: encodes and hashes it once.
    #[must_use]
    pub fn new(body: Transaction) -> SharedTransaction {
        let bytes = encode(&body);
        let id = Txid(hash(Domain::TXID, &[&bytes]));
        let special = Special::of(&body);
        let lock_keys = match &special {
            Ok(Some(special)) => special.lock_keys(),
            _ => Vec::new(),
        };
        Arc::new(Self { id, size: u32::try_from(bytes.len()).unwrap_or(u32::MAX), body, special, lock_keys })
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

    /// What it does besides moving money; `None` for a payment.
    ///
    /// # Errors
    /// [`Rejection::MalformedPayload`] when the payload is not what its kind demands.
    pub fn special(&self) -> Result<Option<&Special>, &Rejection> {
        self.special.as_ref().map(Option::as_ref)
    }

    /// Whether it is anything but a payment.
    #[must_use]
    pub fn is_special(&self) -> bool {
        self.body.kind != TransactionKind::Payment
    }

    /// How many signatures have to be verified for it.
    #[must_use]
    pub fn signature_count(&self) -> u64 {
        let special = self.special().ok().flatten().map_or(0, Special::signature_count);
        special.saturating_add(u64::try_from(self.body.inputs.len()).unwrap_or(u64::MAX))
    }

    /// What a special transaction excludes others from besides outputs: [`Special::lock_keys`].
    #[must_use]
    pub fn lock_keys(&self) -> &[OutPoint] {
        &self.lock_keys
    }

    /// Everything no other transaction of the same block may claim: the outputs it spends and, for a
    /// special transaction, its [`Special::lock_keys`].
    pub fn claims(&self) -> impl Iterator<Item = OutPoint> + '_ {
        self.spends().chain(self.lock_keys.iter().copied())
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
