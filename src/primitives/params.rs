//! Consensus parameters (protocol §6): equal at every node of a network, part of its genesis.

use crate::primitives::amount::{Amount, UNITS_PER_TIME};
use crate::primitives::chain::NetworkKind;
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{Domain, Hash, hash};
use serde::{Deserialize, Serialize};

/// Consensus parameters. Timers are not among them: any positive timer is safe.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Whether payments are voted on between checkpoints; without it this is plain Tendermint.
    pub fast_path: bool,
    /// `L`: bytes of transactions one validator may prepare in an era.
    pub era_bytes: u64,
    /// `S`: signatures of transactions one validator may prepare in an era.
    pub era_signatures: u64,
    /// `MAX_BODY`: bytes of transactions in a block; at least `2 L` plus the reserve.
    pub block_bytes_max: u64,
    /// `MAX_SIGS`: signatures of transactions in a block; at least `2 S`.
    pub block_signatures_max: u64,
    /// `MAX_EXPIRY`: how many blocks ahead a transaction may expire.
    pub expiry_blocks_max: u64,
    /// Largest transaction in bytes.
    pub transaction_bytes_max: u64,
    /// Least fee in units per encoded byte.
    pub fee_per_byte_min: u64,
    /// Least value of an output.
    pub dust: Amount,
    /// New money in each block, before the first halving.
    pub block_reward: Amount,
    /// Blocks between two halvings of the reward; 0 for never.
    pub halving_blocks: u64,
    /// How long collateral stays locked, and its owner's keys punishable, after a masternode left, in
    /// milliseconds of block time.
    pub unbonding_ms: u64,
    /// How old a header may be to start from or to judge proofs by, in milliseconds; less than
    /// `unbonding_ms`, so that whoever could sign a false history still has stake at risk.
    pub trust_ms: u64,
    /// Share of the collateral that evidence burns, in percent.
    pub slash_percent: u64,
    /// Blocks over which the signatures of a masternode are counted.
    pub jail_window_blocks: u64,
    /// Least share of those blocks it has to sign, in percent.
    pub jail_signed_percent: u64,
    /// Most of the registered weight that is jailed at a time, in percent.
    pub jail_cap_percent: u64,
    /// Least number of blocks between two `Resume` of one masternode.
    pub resume_interval_blocks: u64,
}

/// Bytes of a block kept free for what is not voted on (protocol §5, `RESERVE`): one of the largest
/// evidence fits, see [`Params::evidence_bytes_max`].
pub const BLOCK_RESERVE_BYTES: u64 = 256 << 10;

/// Longest unbonding period: ten years, so that no sum of times overflows.
const PERIOD_MS_MAX: u64 = 10 * 365 * 24 * 3_600_000;

/// Bytes of evidence besides the two transactions it may hold.
const EVIDENCE_FRAME_BYTES: u64 = 16 << 10;

/// A set of parameters under which a full era can wedge the chain or nothing can be paid.
#[derive(Debug, thiserror::Error)]
#[error("parameter `{name}` is {value}: {rule}")]
pub struct ParamsError {
    /// The parameter.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// What it has to satisfy.
    pub rule: String,
}

impl Params {
    /// The defaults of a kind of network.
    #[must_use]
    pub fn of(network: NetworkKind) -> Self {
        const MB: u64 = 1 << 20;
        let (era_bytes, block_bytes_max, expiry_blocks_max) = match network {
            NetworkKind::Mainnet => (6 * MB, 16 * MB, 1000),
            NetworkKind::Testnet => (3 * MB, 8 * MB, 1000),
            NetworkKind::Devnet => (6 * MB, 16 * MB, 100),
        };
        const HOUR_MS: u64 = 3_600_000;
        const DAY_MS: u64 = 24 * HOUR_MS;
        let (unbonding_ms, trust_ms, jail_window_blocks, jail_cap_percent) = match network {
            NetworkKind::Mainnet => (21 * DAY_MS, 7 * DAY_MS, 2000, 10),
            NetworkKind::Testnet => (3 * DAY_MS, DAY_MS, 1000, 10),
            NetworkKind::Devnet => (HOUR_MS, HOUR_MS / 3, 50, 20),
        };
        // The smallest signed transfer has about 200 bytes and one signature.
        let era_signatures = era_bytes / 200;
        Self {
            fast_path: true,
            era_bytes,
            era_signatures,
            block_bytes_max,
            block_signatures_max: 2 * era_signatures + 1000,
            expiry_blocks_max,
            transaction_bytes_max: 100 << 10,
            fee_per_byte_min: 1,
            dust: Amount::from_units(1000).unwrap_or_default(),
            block_reward: Amount::from_units(UNITS_PER_TIME).unwrap_or_default(),
            halving_blocks: 4_200_000,
            unbonding_ms,
            trust_ms,
            slash_percent: 10,
            jail_window_blocks,
            jail_signed_percent: 50,
            jail_cap_percent,
            resume_interval_blocks: 100,
        }
    }

    /// Largest transaction of kind evidence in bytes: it may hold two of the largest payments.
    #[must_use]
    pub fn evidence_bytes_max(&self) -> u64 {
        self.transaction_bytes_max.saturating_mul(2).saturating_add(EVIDENCE_FRAME_BYTES)
    }

    /// Checks that a block has room for every certified payment of an era (protocol §5).
    ///
    /// # Errors
    /// [`ParamsError`] naming the parameter, its value and the rule.
    pub fn check(&self) -> Result<(), ParamsError> {
        let at_least = |name, value: u64, least: Option<u64>, rule: &str| match least {
            Some(least) if value >= least => Ok(()),
            Some(least) => Err(ParamsError { name, value, rule: format!("{rule}, that is {least}") }),
            None => Err(ParamsError { name, value, rule: "too large".to_owned() }),
        };
        at_least(
            "block_bytes_max",
            self.block_bytes_max,
            self.era_bytes.checked_mul(2).and_then(|twice| twice.checked_add(BLOCK_RESERVE_BYTES)),
            "must be at least twice era_bytes plus 262144",
        )?;
        at_least(
            "block_signatures_max",
            self.block_signatures_max,
            self.era_signatures.checked_mul(2),
            "must be at least twice era_signatures",
        )?;
        at_least(
            "era_bytes",
            self.era_bytes,
            self.transaction_bytes_max.checked_mul(8),
            "must be at least 8 times transaction_bytes_max, so that one fits the burst",
        )?;
        at_least("transaction_bytes_max", self.transaction_bytes_max, Some(1000), "must be at least 1000")?;
        at_least("expiry_blocks_max", self.expiry_blocks_max, Some(2), "must be at least 2")?;
        at_least("era_signatures", self.era_signatures, Some(64), "must be at least 64")?;
        at_least(
            "unbonding_ms",
            self.unbonding_ms,
            self.trust_ms.checked_add(1),
            "must be more than trust_ms, so that stake outlives trust",
        )?;
        at_least("trust_ms", self.trust_ms, Some(1), "must be at least 1")?;
        at_least("jail_window_blocks", self.jail_window_blocks, Some(1), "must be at least 1")?;
        self.check_most()
    }

    fn check_most(&self) -> Result<(), ParamsError> {
        let at_most = |name, value: u64, most: u64| {
            if value <= most {
                Ok(())
            } else {
                Err(ParamsError { name, value, rule: format!("must be at most {most}") })
            }
        };
        // The ids of so many of the smallest transactions still fit a frame of 4 MiB.
        at_most("block_bytes_max", self.block_bytes_max, 24 << 20)?;
        at_most("block_signatures_max", self.block_signatures_max, 1_000_000)?;
        // Evidence of two such transactions fits the reserve of a block.
        let largest = (BLOCK_RESERVE_BYTES - EVIDENCE_FRAME_BYTES) / 2;
        at_most("transaction_bytes_max", self.transaction_bytes_max, largest)?;
        at_most("unbonding_ms", self.unbonding_ms, PERIOD_MS_MAX)?;
        // What is left of a collateral is never dust.
        at_most("slash_percent", self.slash_percent, 99)?;
        // Ten thousand signatures a masternode are 1250 bytes of the registry.
        at_most("jail_window_blocks", self.jail_window_blocks, 10_000)?;
        at_most("jail_signed_percent", self.jail_signed_percent, 100)?;
        // Jailing lifts the share of the faulty; a third jailed would leave no room for them.
        at_most("jail_cap_percent", self.jail_cap_percent, 33)?;
        at_most("resume_interval_blocks", self.resume_interval_blocks, 1_000_000)?;
        at_most("fee_per_byte_min", self.fee_per_byte_min, 1_000_000)?;
        at_most("dust", self.dust.units(), UNITS_PER_TIME)?;
        at_most("block_reward", self.block_reward.units(), 1_000_000 * UNITS_PER_TIME)
    }

    /// `params_root` of the header.
    #[must_use]
    pub fn root(&self) -> Hash {
        hash(Domain::PARAMS, &[&encode(self)])
    }
}
