//! The network: which messages arrive, when, and how often. Knows nothing of what they say.

use crate::random::Random;
use crate::scenario::{Delays, Held, MS, Scenario};

/// Links between nodes, one each way.
pub struct Network {
    random: Random,
    delays: Delays,
    drop_permille: u64,
    duplicate_permille: u64,
    straggler_permille: u64,
    held: Option<Held>,
    /// `cut[from][to]`: nothing gets through.
    cut: Vec<Vec<bool>>,
    /// Nodes cut off from all others.
    alone: Vec<bool>,
}

impl Network {
    pub fn new(scenario: &Scenario, random: Random) -> Self {
        let nodes = scenario.nodes();
        Self {
            random,
            delays: scenario.delays,
            drop_permille: scenario.drop_permille,
            duplicate_permille: scenario.duplicate_permille,
            straggler_permille: scenario.straggler_permille,
            held: scenario.held,
            cut: vec![vec![false; nodes]; nodes],
            alone: vec![false; nodes],
        }
    }

    /// After how many microseconds each copy of a message arrives; empty when it is lost.
    /// `kind` is what a message is if it is of the kinds that may be held back.
    pub fn copies(&mut self, from: usize, to: usize, kind: Option<Held>) -> Vec<u64> {
        if self.is_blocked(from, to) || self.random.chance(self.drop_permille) {
            return Vec::new();
        }
        let copies = if self.random.chance(self.duplicate_permille) { 2 } else { 1 };
        let held = kind.is_some() && kind == self.held && self.random.chance(600);
        let extra = if held { self.random.between(100 * MS, 2000 * MS) } else { 0 };
        (0..copies).map(|_| self.delay() + extra).collect()
    }

    fn delay(&mut self) -> u64 {
        let random = &mut self.random;
        if random.chance(self.straggler_permille) {
            return random.between(60 * MS, 5000 * MS);
        }
        match self.delays {
            Delays::Lan => random.between(MS, 5 * MS),
            Delays::Wan => random.between(10 * MS, 120 * MS),
            Delays::Wild => random.between(MS, 1500 * MS),
        }
    }

    /// Cuts links: a split in two, one node alone, or one direction only. Returns what it is called.
    pub fn partition(&mut self) -> &'static str {
        let nodes = self.cut.len();
        let side: Vec<bool> = (0..nodes).map(|_| self.random.chance(500)).collect();
        let alone = self.random.index(nodes);
        let kind = self.random.below(4);
        for from in 0..nodes {
            for to in 0..nodes {
                self.cut[from][to] = from != to
                    && match kind {
                        0 => side[from] != side[to],
                        1 => from == alone || to == alone,
                        2 => from == alone,
                        _ => to == alone,
                    };
            }
        }
        ["split", "cut off", "mute", "deaf"][usize::try_from(kind).expect("four kinds")]
    }

    /// Cuts a node off from all others, or lets it back.
    pub fn set_alone(&mut self, node: usize, alone: bool) {
        self.alone[node] = alone;
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.cut[from][to] || self.alone[from] || self.alone[to]
    }

    /// Mends the links of a partition.
    pub fn heal(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }

    /// Faults stop: short delays, nothing lost or doubled.
    pub fn calm(&mut self) {
        self.heal();
        self.alone.fill(false);
        self.delays = Delays::Lan;
        self.straggler_permille = 0;
        self.held = None;
        self.drop_permille = 0;
        self.duplicate_permille = 0;
    }

    /// Whether neither direction works.
    pub fn is_cut(&self, a: usize, b: usize) -> bool {
        self.is_blocked(a, b) && self.is_blocked(b, a)
    }
}
