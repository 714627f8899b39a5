//! The machine: see the module above.

use crate::consensus::host::Host;
use crate::consensus::input::{Input, Now};
use crate::consensus::output::{Output, Record};
use crate::consensus::signer::Signer;
use crate::consensus::timing::Timing;
use crate::consensus::verify::EraContext;
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::hash::Txid;
use std::sync::Arc;

/// A node's whole consensus state.
pub struct Machine {}

/// What the machine is doing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Height being decided.
    pub height: u64,
    /// Current round, 0 before the freeze.
    pub round: u32,
    /// `era`, `propose`, `prevote` or `precommit`.
    pub step: &'static str,
    /// Whether this node has frozen.
    pub frozen: bool,
    /// When the era began, on the monotonic clock.
    pub era_started_us: u64,
    /// Bytes prepared in this era.
    pub era_bytes: u64,
    /// For each voter, batches held without a gap.
    pub stream_heads: Vec<u32>,
    /// Voters of connected peers, own included.
    pub connected: Vec<bool>,
    /// Greatest height a peer says it is deciding.
    pub best_height: u64,
    /// Why the node has stopped voting, if it has.
    pub halted: Option<String>,
}

/// A log that does not fit the chain or itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);

impl Machine {
    /// A machine at the host's tip that has not started; `signer` is `None` for an observer.
    #[must_use]
    pub fn new(signer: Option<Box<dyn Signer>>, timing: Timing, host: &dyn Host) -> Self {
        let _ = (signer, timing, host);
        Self {}
    }

    /// Replays the log. Records of heights already applied are skipped; a `Decided` record applies its
    /// block to the host. Returns the blocks so applied, in order, for the store.
    ///
    /// # Errors
    /// [`RestoreError`] when the log contradicts itself or the chain: the node must not sign.
    pub fn restore(
        &mut self,
        host: &mut dyn Host,
        records: Vec<(u64, Record)>,
    ) -> Result<Vec<(Arc<Block>, Qc)>, RestoreError> {
        let _ = (host, records);
        Ok(Vec::new())
    }

    /// One input, its effects in order.
    pub fn step(&mut self, host: &mut dyn Host, now: Now, input: Input) -> Vec<Output> {
        let _ = (host, now, input);
        Vec::new()
    }

    /// When the machine wants to be woken, on the monotonic clock in microseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// What to check signatures against now; changes with each `Committed`.
    #[must_use]
    pub fn era(&self) -> Arc<EraContext> {
        unreachable!("placeholder")
    }

    /// What the machine is doing. Cost: O(committee).
    #[must_use]
    pub fn view(&self) -> View {
        unreachable!("placeholder")
    }

    /// Prepare and commit weight of up to `max` payments of this era that are not final, newest first.
    #[must_use]
    pub fn open_transactions(&self, max: usize) -> Vec<(Txid, u64, u64)> {
        let _ = max;
        Vec::new()
    }
}
