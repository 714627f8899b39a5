//! Why a transaction is refused, in words for the person who sent it.

use crate::primitives::amount::Amount;
use crate::primitives::evidence::NoOffence;
use crate::primitives::hash::{MasternodeId, Txid};
use crate::primitives::keys::PublicKey;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::transaction::OutPoint;
use std::net::SocketAddr;

/// Why a transaction is not accepted. Each kind of fault has its own variant and names the offending
/// value; [`Rejection::code`] is the stable name for scripts and metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("transaction version {found} is unknown, this node knows {known}")]
    UnknownVersion { found: u16, known: u16 },
    #[error("transaction has no inputs")]
    NoInputs,
    #[error("transaction has no outputs")]
    NoOutputs,
    #[error("transaction has {size} bytes, at most {max} are allowed")]
    Oversized { size: u64, max: u64 },
    #[error("a payment carries no payload, this one has {bytes} bytes")]
    UnexpectedPayload { bytes: usize },
    #[error("the payload is not what its kind demands: {reason}")]
    MalformedPayload { reason: String },
    #[error("a transaction of this kind moves no money: leave inputs and outputs empty")]
    UnexpectedMoney,
    #[error("the evidence proves no offence: {reason}")]
    NoOffence { reason: NoOffence },
    #[error("input {outpoint} appears more than once")]
    DuplicateInput { outpoint: OutPoint },
    #[error("output {index} has value zero")]
    ZeroOutput { index: u32 },
    #[error("output {index} of {value} TIME is dust, the least is {dust} TIME")]
    DustOutput { index: u32, value: Amount, dust: Amount },
    #[error("the outputs add up to more money than can exist")]
    OutputOverflow,
    #[error("signature {index} is not valid; those of inputs come first")]
    BadSignature { index: u32 },
    #[error("the key of input {index} is not the one output {outpoint} is locked to")]
    WrongKey { index: u32, outpoint: OutPoint },
    #[error("input {outpoint} is unknown: it never existed, is not yet final here, or is spent")]
    UnknownInput { outpoint: OutPoint },
    #[error("input {outpoint} is collateral of a masternode and cannot be spent by a payment")]
    LockedCollateral { outpoint: OutPoint },
    #[error("inputs of {inputs} TIME do not cover outputs of {outputs} TIME")]
    Overspend { inputs: Amount, outputs: Amount },
    #[error("fee of {fee} units is below the least of {least} units for {size} bytes")]
    FeeTooLow { fee: u64, least: u64, size: u64 },
    #[error("expired at height {expiry}, the next block is {height}")]
    Expired { expiry: u64, height: u64 },
    #[error("expiry {expiry} is too far ahead, the most is {max}")]
    ExpiryTooFar { expiry: u64, max: u64 },
    #[error("input {outpoint} is already spent by transaction {by}")]
    Conflict { outpoint: OutPoint, by: Txid },
    #[error("already known")]
    AlreadyKnown,
    #[error(
        "the pool is full and the fee rate of {rate} units per 1000 bytes is not above its lowest of {lowest}"
    )]
    PoolFull { rate: u64, lowest: u64 },
    #[error("evicted from the full pool by transactions of higher fee rate")]
    Evicted,
    #[error("too many transactions wait for unknown inputs")]
    TooManyOrphans,
    #[error("the pool holds {max} bytes of registry changes already: try again after the next block")]
    TooManySpecials { max: u64 },
    #[error("name of a masternode: {reason}")]
    BadName { reason: String },
    #[error("{key} is not a public key")]
    NotAKey { key: PublicKey },
    #[error("output {index} is to be the collateral and must hold exactly {expected} TIME")]
    WrongCollateral { index: u32, expected: Amount },
    #[error("no masternode {id} is registered")]
    UnknownMasternode { id: MasternodeId },
    #[error("change {found} of masternode {id} is not the next one, which is {expected}")]
    WrongSequence { id: MasternodeId, found: u64, expected: u64 },
    #[error("the key is not the owner's of masternode {id}")]
    NotOwner { id: MasternodeId },
    #[error("the key is not the one masternode {id} votes with")]
    NotVoteKey { id: MasternodeId },
    #[error("masternode {id} is {status}, which forbids this")]
    WrongStatus { id: MasternodeId, status: MasternodeStatus },
    #[error("vote key {key} is or was the key of a masternode: take a fresh one")]
    KeyInUse { key: PublicKey },
    #[error("a masternode is already named {name:?}")]
    NameInUse { name: String },
    #[error("another masternode is reached at {endpoint}")]
    EndpointInUse { endpoint: SocketAddr },
    #[error(
        "masternode {id} has {count} former keys that can still be punished, the most: wait until one lapses"
    )]
    TooManyFormerKeys { id: MasternodeId, count: usize },
    #[error("masternode {id} may resume again from height {earliest} on")]
    ResumeTooSoon { id: MasternodeId, earliest: u64 },
    #[error("only {rest} other active masternodes would remain, at least {least} have to")]
    CommitteeTooSmall { rest: usize, least: usize },
}

impl Rejection {
    /// Stable machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownVersion { .. } => "unknown-version",
            Self::NoInputs => "no-inputs",
            Self::NoOutputs => "no-outputs",
            Self::Oversized { .. } => "oversized",
            Self::UnexpectedPayload { .. } => "unexpected-payload",
            Self::MalformedPayload { .. } => "malformed-payload",
            Self::UnexpectedMoney => "unexpected-money",
            Self::NoOffence { .. } => "no-offence",
            Self::DuplicateInput { .. } => "duplicate-input",
            Self::ZeroOutput { .. } => "zero-output",
            Self::DustOutput { .. } => "dust-output",
            Self::OutputOverflow => "output-overflow",
            Self::BadSignature { .. } => "bad-signature",
            Self::WrongKey { .. } => "wrong-key",
            Self::UnknownInput { .. } => "unknown-input",
            Self::LockedCollateral { .. } => "locked-collateral",
            Self::Overspend { .. } => "overspend",
            Self::FeeTooLow { .. } => "fee-too-low",
            Self::Expired { .. } => "expired",
            Self::ExpiryTooFar { .. } => "expiry-too-far",
            Self::Conflict { .. } => "conflict",
            Self::AlreadyKnown => "already-known",
            Self::PoolFull { .. } => "pool-full",
            Self::Evicted => "evicted",
            Self::TooManyOrphans => "too-many-orphans",
            Self::TooManySpecials { .. } => "too-many-specials",
            Self::BadName { .. } => "bad-name",
            Self::NotAKey { .. } => "not-a-key",
            Self::WrongCollateral { .. } => "wrong-collateral",
            Self::UnknownMasternode { .. } => "unknown-masternode",
            Self::WrongSequence { .. } => "wrong-sequence",
            Self::NotOwner { .. } => "not-owner",
            Self::NotVoteKey { .. } => "not-vote-key",
            Self::WrongStatus { .. } => "wrong-status",
            Self::KeyInUse { .. } => "key-in-use",
            Self::NameInUse { .. } => "name-in-use",
            Self::EndpointInUse { .. } => "endpoint-in-use",
            Self::TooManyFormerKeys { .. } => "too-many-former-keys",
            Self::ResumeTooSoon { .. } => "resume-too-soon",
            Self::CommitteeTooSmall { .. } => "committee-too-small",
        }
    }

    /// Whether the verdict depends on this node's state or policy, so that the same transaction may
    /// be accepted later or elsewhere. Only the others are faults of whoever sent it.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::UnknownInput { .. }
                | Self::Conflict { .. }
                | Self::AlreadyKnown
                | Self::PoolFull { .. }
                | Self::Evicted
                | Self::TooManyOrphans
                | Self::Expired { .. }
                | Self::ExpiryTooFar { .. }
                | Self::LockedCollateral { .. }
                | Self::TooManySpecials { .. }
                | Self::UnknownMasternode { .. }
                | Self::WrongSequence { .. }
                | Self::NotOwner { .. }
                | Self::NotVoteKey { .. }
                | Self::WrongStatus { .. }
                | Self::KeyInUse { .. }
                | Self::NameInUse { .. }
                | Self::EndpointInUse { .. }
                | Self::TooManyFormerKeys { .. }
                | Self::ResumeTooSoon { .. }
                | Self::CommitteeTooSmall { .. }
        )
    }
}
