//! What a devnet run came to: one JSON object for scripts, a few lines for people.

use crate::commands::devnet::tally::{Spread, Tally};
use masternode::primitives::hash::Hash;
use serde::Serialize;
use std::fmt;

/// Everything measured in a run. Latencies are in milliseconds and exact percentiles of all
/// payments; nothing is estimated.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub nodes: usize,
    pub submitted: u64,
    /// Final at the node they were submitted to.
    #[serde(rename = "final")]
    pub finals: u64,
    pub rejected: u64,
    /// Neither final nor refused when the run ended.
    pub unsettled: u64,
    /// Final payments a second, from the first submission to the last finality.
    pub tx_per_s: f64,
    /// Submission to finality at the same node.
    pub finality_ms: Spread,
    /// The same for payments never under way between the first freeze and the last commit of a
    /// checkpoint at any node.
    pub finality_outside_checkpoint_ms: Spread,
    /// How many payments those were.
    pub outside_checkpoint: usize,
    /// Scheduled time to finality: includes what the payer itself was late.
    pub finality_from_schedule_ms: Spread,
    /// Blocks decided during the run.
    pub checkpoints: u64,
    /// First freeze seen to commit, over nodes and checkpoints.
    pub checkpoint_pause_ms: Spread,
    pub heights: Vec<u64>,
    pub state_hashes: Vec<Hash>,
    /// Outputs that two final transactions spent.
    pub conflicts: usize,
    /// Double spends tried, and how many of them had exactly one of the pair in a block.
    pub double_spends: DoubleSpends,
    /// Processor time of the process.
    pub cpu_s: f64,
    /// Resident memory of the process at the end of the load, and the most it ever was.
    pub rss_bytes: Option<u64>,
    pub rss_peak_bytes: Option<u64>,
    /// How long the load lasted.
    pub duration_s: f64,
    /// Start of the program to the first payment's finality.
    pub first_final_s: Option<f64>,
    /// Why payments were refused, most frequent first.
    pub rejections: Vec<(String, u64)>,
    /// What was wrong; empty when the run is good.
    pub faults: Vec<String>,
}

/// What became of pairs of payments that spend one coin, handed to two nodes at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DoubleSpends {
    pub tried: u64,
    /// Exactly one of the pair is in a block.
    pub settled_once: u64,
}

/// What is known of a run besides the payments.
#[derive(Clone, Debug)]
pub struct Surroundings {
    pub nodes: usize,
    pub checkpoints: u64,
    pub heights: Vec<u64>,
    pub state_hashes: Vec<Hash>,
    pub double_spends: DoubleSpends,
    pub cpu_s: f64,
    pub rss_bytes: Option<u64>,
    pub rss_peak_bytes: Option<u64>,
    pub duration_s: f64,
    /// When the program started, on the monotonic clock.
    pub started_us: u64,
    /// Fates the payer missed.
    pub fates_missed: u64,
}

impl Report {
    /// The report of a run, with its faults.
    pub fn new(tally: &Tally, surroundings: Surroundings) -> Self {
        let (outside_checkpoint, outside) = tally.finality_outside_checkpoints();
        let mut report = Self {
            nodes: surroundings.nodes,
            submitted: tally.submitted(),
            finals: tally.finals(),
            rejected: tally.rejected(),
            unsettled: tally.under_way() as u64,
            tx_per_s: tally.rate(),
            finality_ms: tally.finality(),
            finality_outside_checkpoint_ms: outside,
            outside_checkpoint,
            finality_from_schedule_ms: tally.finality_from_schedule(),
            checkpoints: surroundings.checkpoints,
            checkpoint_pause_ms: tally.checkpoint_pause(),
            heights: surroundings.heights,
            state_hashes: surroundings.state_hashes,
            conflicts: tally.conflicts(),
            double_spends: surroundings.double_spends,
            cpu_s: surroundings.cpu_s,
            rss_bytes: surroundings.rss_bytes,
            rss_peak_bytes: surroundings.rss_peak_bytes,
            duration_s: surroundings.duration_s,
            first_final_s: tally
                .first_final_us()
                .map(|final_us| final_us.saturating_sub(surroundings.started_us) as f64 / 1e6),
            rejections: tally.reasons(),
            faults: Vec::new(),
        };
        report.find_faults(surroundings.fates_missed);
        report
    }

    fn find_faults(&mut self, fates_missed: u64) {
        let mut fault = |text: String| self.faults.push(text);
        if self.conflicts > 0 {
            fault(format!("{} outputs were spent by two final transactions", self.conflicts));
        }
        if self.rejected > 0 {
            fault(format!("{} valid payments were refused", self.rejected));
        }
        if self.unsettled > 0 {
            fault(format!("{} payments are not final", self.unsettled));
        }
        if fates_missed > 0 {
            fault(format!("{fates_missed} notices of the nodes were missed: the figures are incomplete"));
        }
        let differ = |left: &Hash, right: &Hash| left != right;
        if self.heights.windows(2).any(|pair| matches!(pair, [left, right] if left != right)) {
            fault(format!("the nodes did not reach a common height: {:?}", self.heights));
        } else if self.state_hashes.windows(2).any(|p| matches!(p, [left, right] if differ(left, right))) {
            fault("the nodes have different states at the same height".to_owned());
        }
        let DoubleSpends { tried, settled_once } = self.double_spends;
        if tried != settled_once {
            fault(format!(
                "{} of {tried} double spends do not have exactly one in a block",
                tried - settled_once
            ));
        }
    }

    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.faults.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = |spread: &Spread| {
            let Spread { p50, p95, p99, max } = spread;
            format!("p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, max {max:.1} ms")
        };
        let mib =
            |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{} MiB", bytes >> 20));
        writeln!(f, "{} nodes, {} checkpoints in {:.1} s", self.nodes, self.checkpoints, self.duration_s)?;
        writeln!(
            f,
            "payments    {} submitted, {} final, {} refused, {:.1} a second",
            self.submitted, self.finals, self.rejected, self.tx_per_s
        )?;
        writeln!(f, "finality    {}", spread(&self.finality_ms))?;
        let outside = &self.finality_outside_checkpoint_ms;
        writeln!(
            f,
            "            {} outside checkpoints ({} payments)",
            spread(outside),
            self.outside_checkpoint
        )?;
        writeln!(f, "checkpoint  {} without new finality", spread(&self.checkpoint_pause_ms))?;
        writeln!(f, "conflicts   {}", self.conflicts)?;
        let DoubleSpends { tried, settled_once } = self.double_spends;
        if tried > 0 {
            writeln!(
                f,
                "rivals      {tried} double spends tried, {settled_once} with exactly one in a block"
            )?;
        }
        match (self.heights.first(), self.state_hashes.first(), self.is_good()) {
            (Some(height), Some(hash), true) => {
                let hash: String = hash.to_string().chars().take(16).collect();
                writeln!(f, "state       {hash}.. at height {height} on every node")?;
            }
            _ => writeln!(f, "heights     {:?}", self.heights)?,
        }
        writeln!(f, "process     {:.1} s processor, {} memory", self.cpu_s, mib(self.rss_bytes))?;
        for (reason, count) in &self.rejections {
            writeln!(f, "refused     {count} times: {reason}")?;
        }
        self.faults.iter().try_for_each(|fault| writeln!(f, "WRONG       {fault}"))
    }
}
