//! Special transactions (protocol §1, §10): what a transaction that is not a payment carries.
//!
//! They change the registry of masternodes and take effect by block only. Each proves by itself who
//! authorised it; whether that key may do so is the registry's to say. Absent: their effect, see
//! `ledger`.

use crate::primitives::encoding::{Decode, Encode, decode, encode};
use crate::primitives::evidence::Evidence;
use crate::primitives::hash::{ChainId, Domain, Hash, KeyHash, MasternodeId, Txid, hash};
use crate::primitives::keys::{PublicKey, Signature, SignatureCheck};
use crate::primitives::rejection::Rejection;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{OutPoint, Transaction, TransactionKind};
use std::net::SocketAddr;

/// Most bytes of a payload that is decoded: evidence with two of the largest transactions.
pub const PAYLOAD_BYTES_MAX: usize = 512 << 10;

const NO_SIGNATURE: Signature = Signature([0; 64]);

/// Registers a masternode. The transaction itself makes the collateral, so nobody can register
/// somebody else's.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Registration {
    /// Name, at most 64 bytes of clean text, unique.
    pub name: String,
    /// Key that will sign votes.
    pub vote_key: PublicKey,
    /// Tier.
    pub tier: Tier,
    /// Where rewards go.
    pub payout: KeyHash,
    /// Where peers reach it.
    pub endpoint: Option<SocketAddr>,
    /// Index of the output that becomes the collateral. The key it is locked to is the owner's.
    pub collateral: u32,
    /// Proof that whoever registers holds the vote key: its signature over
    /// [`Transaction::authorisation_digest`].
    pub possession: Signature,
}

/// Changes what the owner may change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RegistryUpdate {
    /// Which masternode.
    pub validator: MasternodeId,
    /// One more than the number of the last change of this masternode.
    pub sequence: u64,
    /// The owner's key.
    pub owner_key: PublicKey,
    /// New key that signs votes, with its signature over [`Transaction::authorisation_digest`].
    pub vote_key: Option<(PublicKey, Signature)>,
    /// New place for rewards.
    pub payout: Option<KeyHash>,
    /// New endpoint.
    pub endpoint: Option<SocketAddr>,
    /// The owner's signature over [`Transaction::authorisation_digest`].
    pub signature: Signature,
}

/// Takes a masternode out of the committee and, after the unbonding period, frees its collateral.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Unbonding {
    /// Which masternode.
    pub validator: MasternodeId,
    /// One more than the number of the last change of this masternode.
    pub sequence: u64,
    /// The owner's key.
    pub owner_key: PublicKey,
    /// The owner's signature over [`Transaction::authorisation_digest`].
    pub signature: Signature,
}

/// Lets a masternode vote again after a lost log or a jail term (protocol §10).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Resume {
    /// Which masternode.
    pub validator: MasternodeId,
    /// One more than the number of the last change of this masternode.
    pub sequence: u64,
    /// Its vote key.
    pub vote_key: PublicKey,
    /// Drawn at random after the start that made it necessary.
    pub nonce: [u8; 32],
    /// New vote key from the next height on, with its signature over
    /// [`Transaction::authorisation_digest`].
    pub new_vote_key: Option<(PublicKey, Signature)>,
    /// The vote key's signature over [`Transaction::authorisation_digest`].
    pub signature: Signature,
}

/// What a special transaction does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Special {
    Register(Registration),
    Update(RegistryUpdate),
    Unbond(Unbonding),
    Resume(Resume),
    Evidence(Evidence),
}

impl Special {
    /// The payload of `transaction`; `None` for a payment. Cost: decoding it.
    ///
    /// # Errors
    /// [`Rejection::MalformedPayload`].
    pub fn of(transaction: &Transaction) -> Result<Option<Self>, Rejection> {
        fn read<T: Decode<()>>(bytes: &[u8]) -> Result<T, Rejection> {
            decode::<T, PAYLOAD_BYTES_MAX>(bytes)
                .map_err(|error| Rejection::MalformedPayload { reason: error.to_string() })
        }
        let payload = &transaction.payload;
        Ok(match transaction.kind {
            TransactionKind::Payment => None,
            TransactionKind::Register => Some(Self::Register(read(payload)?)),
            TransactionKind::Update => Some(Self::Update(read(payload)?)),
            TransactionKind::Unbond => Some(Self::Unbond(read(payload)?)),
            TransactionKind::Resume => Some(Self::Resume(read(payload)?)),
            TransactionKind::Evidence => Some(Self::Evidence(read(payload)?)),
        })
    }

    /// The kind and the payload that carry it.
    #[must_use]
    pub fn encode(&self) -> (TransactionKind, Vec<u8>) {
        match self {
            Self::Register(registration) => (TransactionKind::Register, encode(registration)),
            Self::Update(update) => (TransactionKind::Update, encode(update)),
            Self::Unbond(unbonding) => (TransactionKind::Unbond, encode(unbonding)),
            Self::Resume(resume) => (TransactionKind::Resume, encode(resume)),
            Self::Evidence(evidence) => (TransactionKind::Evidence, encode(evidence)),
        }
    }

    /// The same with every signature that is over [`Transaction::authorisation_digest`] left blank.
    #[must_use]
    pub fn unsigned(&self) -> Self {
        let mut blank = self.clone();
        match &mut blank {
            Self::Register(registration) => registration.possession = NO_SIGNATURE,
            Self::Update(update) => {
                update.signature = NO_SIGNATURE;
                if let Some((_, possession)) = &mut update.vote_key {
                    *possession = NO_SIGNATURE;
                }
            }
            Self::Unbond(unbonding) => unbonding.signature = NO_SIGNATURE,
            Self::Resume(resume) => {
                resume.signature = NO_SIGNATURE;
                if let Some((_, possession)) = &mut resume.new_vote_key {
                    *possession = NO_SIGNATURE;
                }
            }
            Self::Evidence(_) => {}
        }
        blank
    }

    /// The masternode it changes; `None` for a registration, which makes one.
    #[must_use]
    pub fn validator(&self) -> Option<MasternodeId> {
        match self {
            Self::Register(_) => None,
            Self::Update(update) => Some(update.validator),
            Self::Unbond(unbonding) => Some(unbonding.validator),
            Self::Resume(resume) => Some(resume.validator),
            Self::Evidence(evidence) => Some(evidence.offender),
        }
    }

    /// The signatures it rests on besides those of inputs; `digest` is the transaction's
    /// [`Transaction::authorisation_digest`].
    ///
    /// # Errors
    /// [`Rejection::NoOffence`] for evidence that proves nothing.
    pub fn checks(&self, digest: Hash) -> Result<Vec<SignatureCheck>, Rejection> {
        let check = |key: PublicKey, signature: Signature| SignatureCheck { key, digest, signature };
        let new_key = |new: &Option<(PublicKey, Signature)>| new.map(|(key, proof)| check(key, proof));
        Ok(match self {
            Self::Register(registration) => vec![check(registration.vote_key, registration.possession)],
            Self::Update(update) => {
                let owner = check(update.owner_key, update.signature);
                std::iter::once(owner).chain(new_key(&update.vote_key)).collect()
            }
            Self::Unbond(unbonding) => vec![check(unbonding.owner_key, unbonding.signature)],
            Self::Resume(resume) => {
                let own = check(resume.vote_key, resume.signature);
                std::iter::once(own).chain(new_key(&resume.new_vote_key)).collect()
            }
            Self::Evidence(evidence) => {
                evidence.checks().map_err(|reason| Rejection::NoOffence { reason })?
            }
        })
    }

    /// How many signatures it rests on besides those of inputs.
    #[must_use]
    pub fn signature_count(&self) -> u64 {
        match self {
            Self::Register(_) | Self::Unbond(_) => 1,
            Self::Update(update) => 1 + u64::from(update.vote_key.is_some()),
            Self::Resume(resume) => 1 + u64::from(resume.new_vote_key.is_some()),
            Self::Evidence(_) => 2,
        }
    }

    /// The vote key it brings into the registry.
    #[must_use]
    pub fn new_vote_key(&self) -> Option<PublicKey> {
        match self {
            Self::Register(registration) => Some(registration.vote_key),
            Self::Update(update) => update.vote_key.map(|(key, _)| key),
            Self::Resume(resume) => resume.new_vote_key.map(|(key, _)| key),
            Self::Unbond(_) | Self::Evidence(_) => None,
        }
    }

    /// What no other transaction of the same block may claim, as outpoints that no transaction can
    /// make: the masternode it changes, a new vote key, name and endpoint, and, so that a committee
    /// shrinks by one owner a block at most, the one unbonding of the block.
    #[must_use]
    pub fn lock_keys(&self) -> Vec<OutPoint> {
        let mut keys: Vec<OutPoint> = self.validator().iter().map(|id| lock_key(b'i', id.bytes())).collect();
        keys.extend(self.new_vote_key().iter().map(|key| lock_key(b'k', &key.0)));
        let endpoint = |endpoint: &SocketAddr| lock_key(b'e', &encode(endpoint));
        match self {
            Self::Register(registration) => {
                keys.push(lock_key(b'n', registration.name.as_bytes()));
                keys.extend(registration.endpoint.iter().map(endpoint));
            }
            Self::Update(update) => keys.extend(update.endpoint.iter().map(endpoint)),
            Self::Unbond(_) => keys.push(unbonding_lock()),
            Self::Resume(_) | Self::Evidence(_) => {}
        }
        keys
    }
}

/// What all unbondings claim: there is one a block.
#[must_use]
pub fn unbonding_lock() -> OutPoint {
    lock_key(b'u', &[])
}

/// An outpoint that stands for something else that only one transaction of a block may claim.
fn lock_key(kind: u8, bytes: &[u8]) -> OutPoint {
    OutPoint { txid: Txid(hash(Domain::LOCK, &[&[kind], bytes])), index: u32::MAX }
}

impl Transaction {
    /// What a special transaction's own signatures are over: the chain and all of the transaction but
    /// its signatures. Evidence has none: anyone may hand it in.
    #[must_use]
    pub fn authorisation_digest(&self, chain: ChainId, special: &Special) -> Hash {
        let mut unsigned = self.clone();
        for input in &mut unsigned.inputs {
            input.signature = NO_SIGNATURE;
        }
        unsigned.payload = special.unsigned().encode().1;
        hash(Domain::AUTHORISATION, &[chain.bytes(), &encode(&unsigned)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::SecretKey;
    use crate::primitives::transaction::TRANSACTION_VERSION;

    const CHAIN: ChainId = ChainId(Hash([1; 32]));

    fn carrying(special: &Special) -> Transaction {
        let (kind, payload) = special.encode();
        let (version, expiry) = (TRANSACTION_VERSION, 9);
        Transaction { version, kind, expiry, inputs: Vec::new(), outputs: Vec::new(), payload }
    }

    fn resume(key: &SecretKey, sequence: u64) -> Transaction {
        let mut resume = Resume {
            validator: MasternodeId(Hash([2; 32])),
            sequence,
            vote_key: key.public(),
            nonce: [7; 32],
            new_vote_key: None,
            signature: NO_SIGNATURE,
        };
        let blank = Special::Resume(resume.clone());
        let digest = carrying(&blank).authorisation_digest(CHAIN, &blank);
        resume.signature = key.sign(&digest);
        carrying(&Special::Resume(resume))
    }

    fn verifies(transaction: &Transaction, chain: ChainId) -> bool {
        let special = Special::of(transaction).unwrap().unwrap();
        let checks = special.checks(transaction.authorisation_digest(chain, &special)).unwrap();
        !checks.is_empty() && checks.iter().all(|check| check.key.verify(&check.digest, &check.signature))
    }

    #[test]
    fn an_authorisation_is_bound_to_the_chain_and_every_part_of_the_transaction() {
        let transaction = resume(&SecretKey::from_seed(&[4; 32]), 3);
        assert!(verifies(&transaction, CHAIN));
        assert!(!verifies(&transaction, ChainId(Hash([2; 32]))));
        let later = Transaction { expiry: 10, ..transaction.clone() };
        assert!(!verifies(&later, CHAIN));
        let Some(Special::Resume(mut inner)) = Special::of(&transaction).unwrap() else { panic!("a resume") };
        inner.sequence = 4;
        assert!(!verifies(&carrying(&Special::Resume(inner)), CHAIN));
    }

    #[test]
    fn a_payload_of_another_kind_or_with_a_tail_is_refused() {
        let mut transaction = resume(&SecretKey::from_seed(&[4; 32]), 3);
        transaction.payload.push(0);
        assert!(matches!(Special::of(&transaction), Err(Rejection::MalformedPayload { .. })));
        transaction.kind = TransactionKind::Payment;
        assert_eq!(Special::of(&transaction), Ok(None));
    }

    #[test]
    fn changes_of_one_masternode_and_all_unbondings_exclude_each_other() {
        let id = MasternodeId(Hash([2; 32]));
        let owner_key = SecretKey::from_seed(&[8; 32]).public();
        let unbond = |validator| {
            Special::Unbond(Unbonding { validator, sequence: 1, owner_key, signature: NO_SIGNATURE })
        };
        let first = unbond(id).lock_keys();
        let resumed = Special::of(&resume(&SecretKey::from_seed(&[4; 32]), 3)).unwrap().unwrap();
        assert!(resumed.lock_keys().iter().any(|key| first.contains(key)));
        let other = unbond(MasternodeId(Hash([3; 32]))).lock_keys();
        assert_eq!(other.iter().filter(|key| first.contains(key)).count(), 1);
    }
}
