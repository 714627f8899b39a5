//! Timers (protocol §6). Local settings: any positive value is safe.

use crate::primitives::chain::NetworkKind;

/// All timers of the machine, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `ERA`: from the commit of a block to the freeze.
    pub era_us: u64,
    /// `TICK`: least time between two vote batches.
    pub tick_us: u64,
    /// `GRACE`: how long a proposer waits for stragglers' last batches.
    pub grace_us: u64,
    /// `T_PROPOSE` of round 0, and what each round adds.
    pub propose_us: u64,
    pub propose_step_us: u64,
    /// `T_PREVOTE` of round 0, and what each round adds.
    pub prevote_us: u64,
    pub prevote_step_us: u64,
    /// `T_PRECOMMIT` of round 0, and what each round adds.
    pub precommit_us: u64,
    pub precommit_step_us: u64,
    /// How often `Status` is sent.
    pub status_us: u64,
    /// How long a pull may stay unanswered before another peer is asked.
    pub pull_us: u64,
    /// `SKEW`: how far a block may be ahead of the local clock, in milliseconds.
    pub skew_ms: u64,
}

impl Timing {
    /// The defaults of a kind of network.
    #[must_use]
    pub const fn of(network: NetworkKind) -> Self {
        const MS: u64 = 1000;
        match network {
            NetworkKind::Devnet => Self {
                era_us: 5000 * MS,
                tick_us: 10 * MS,
                grace_us: 50 * MS,
                propose_us: 500 * MS,
                propose_step_us: 250 * MS,
                prevote_us: 200 * MS,
                prevote_step_us: 100 * MS,
                precommit_us: 200 * MS,
                precommit_step_us: 100 * MS,
                status_us: 1000 * MS,
                pull_us: 200 * MS,
                skew_ms: 5000,
            },
            NetworkKind::Testnet => Self { era_us: 20_000 * MS, skew_ms: 2000, ..Self::WIDE },
            NetworkKind::Mainnet => {
                Self { era_us: 30_000 * MS, grace_us: 200 * MS, skew_ms: 1000, ..Self::WIDE }
            }
        }
    }

    const WIDE: Self = Self {
        era_us: 20_000_000,
        tick_us: 20_000,
        grace_us: 150_000,
        propose_us: 1_500_000,
        propose_step_us: 500_000,
        prevote_us: 400_000,
        prevote_step_us: 250_000,
        precommit_us: 400_000,
        precommit_step_us: 250_000,
        status_us: 1_000_000,
        pull_us: 500_000,
        skew_ms: 2000,
    };
}
