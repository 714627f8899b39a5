//! Why a transaction is refused, in words for the person who sent it.

use crate::primitives::amount::Amount;
use crate::primitives::evidence::NoOffence;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::OutPoint;

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
    #[error("signature of input {index} is not valid")]
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
        )
    }
}
