//! What a seed means: who takes part, who is Byzantine, how bad the network is, what is planted.
//!
//! Drawn once, before the run; the run itself draws from generators forked off the same seed.

use crate::random::Random;
use masternode::consensus::timing::Timing;
use masternode::primitives::tier::Tier;

/// Microseconds in a millisecond.
pub const MS: u64 = 1000;

/// What a validator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs the machine and may crash.
    Honest,
    /// Follows the chain and signs nothing; not in the committee.
    Observer,
    /// Byzantine: says nothing at all.
    Silent,
    /// Byzantine: two honest machines with one key, each shown to a part of the network.
    Twins,
    /// Byzantine: votes for everything towards everyone, by a different story each.
    Liar,
}

impl Role {
    /// Whether the rules hold for it.
    pub fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::Observer)
    }
}

/// A fault planted on purpose, to see the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing planted.
    None,
    /// A validator that restarts has lost its whole log of the current height.
    LogLost,
    /// A validator that restarts has lost the last records it had made durable.
    TailLost,
    /// Byzantine weight of half the committee, more than the protocol claims to stand.
    TooManyByzantine,
}

/// How long messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delays {
    /// 1 to 5 ms.
    Lan,
    /// 10 to 120 ms.
    Wan,
    /// Mostly 5 to 60 ms, one in twelve up to 5 s.
    Tail,
    /// Anything from 1 ms to 1.5 s, so that everything is reordered.
    Wild,
}

/// Everything a run is determined by, besides the generators forked from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub mutant: Mutant,
    pub roles: Vec<Role>,
    /// Tiers of the validators, which set their weights; observers come after them.
    pub tiers: Vec<Tier>,
    pub real_keys: bool,
    pub fast_path: bool,
    /// A budget of a few payments an era, so that it runs out.
    pub small_budget: bool,
    pub timing: Timing,
    pub delays: Delays,
    pub drop_permille: u64,
    pub duplicate_permille: u64,
    /// How many partitions come and go.
    pub partitions: u64,
    /// Most crashes of the run, and how likely one is at an ordinary and at a delicate boundary.
    pub crashes: u64,
    pub crash_permille: u64,
    pub crash_delicate_permille: u64,
    /// Whether all validators are stopped at once in the middle.
    pub blackout: bool,
    pub payments: usize,
    /// When faults stop, in simulated microseconds.
    pub calm_at_us: u64,
    /// Whether Byzantine validators go on when other faults stop.
    pub liars_go_on: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let validators = if random.chance(650) { 4 } else { 7 };
        let tiers: Vec<Tier> = if random.chance(700) {
            vec![Tier::Silver; validators]
        } else {
            (0..validators).map(|_| *random.pick(&[Tier::Silver, Tier::Silver, Tier::Bronze])).collect()
        };
        let weights: Vec<u64> = tiers.iter().map(|tier| tier.weight()).collect();
        let mut roles = byzantine(&mut random, &weights, mutant);
        if random.chance(150) {
            roles.push(Role::Observer);
        }
        let crashing = random.chance(600) || matches!(mutant, Mutant::LogLost | Mutant::TailLost);
        let calm_at_us = random.between(4000, 9000) * MS;
        Self {
            seed,
            mutant,
            roles,
            tiers,
            real_keys: seed % 25 == 24,
            fast_path: !random.chance(150),
            small_budget: random.chance(150),
            timing: timing(&mut random),
            delays: *random.pick(&[Delays::Lan, Delays::Wan, Delays::Wan, Delays::Tail, Delays::Wild]),
            drop_permille: *random.pick(&[0, 0, 20, 50, 100, 300]),
            duplicate_permille: *random.pick(&[0, 30, 150]),
            partitions: *random.pick(&[0, 0, 1, 2, 3]),
            crashes: if crashing { random.between(1, 8) } else { 0 },
            crash_permille: *random.pick(&[1, 3, 10]),
            crash_delicate_permille: *random.pick(&[10, 40, 100]),
            blackout: crashing && random.chance(200),
            payments: random.index(26) + 6,
            calm_at_us,
            liars_go_on: random.chance(500),
        }
    }

    /// Nodes of all kinds.
    pub fn nodes(&self) -> usize {
        self.roles.len()
    }

    /// Whether a node follows the rules.
    pub fn honest(&self, node: usize) -> bool {
        self.roles[node].is_honest()
    }
}

/// Turns validators Byzantine while `3 F < W` holds, or well beyond it when that is the mutant.
fn byzantine(random: &mut Random, weights: &[u64], mutant: Mutant) -> Vec<Role> {
    let total: u64 = weights.iter().sum();
    let mut roles = vec![Role::Honest; weights.len()];
    if mutant != Mutant::TooManyByzantine && random.chance(250) {
        return roles;
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    random.shuffle(&mut order);
    let mut faulty = 0;
    for validator in order {
        let grown = faulty + weights[validator];
        let fits = if mutant == Mutant::TooManyByzantine { 2 * grown <= total } else { 3 * grown < total };
        if fits {
            faulty = grown;
            roles[validator] = match mutant {
                Mutant::TooManyByzantine => *random.pick(&[Role::Twins, Role::Liar]),
                _ => *random.pick(&[Role::Silent, Role::Twins, Role::Liar, Role::Liar]),
            };
        }
    }
    roles
}

/// Short eras, so that a run sees many; timeouts around what the network takes, so that some fire.
fn timing(random: &mut Random) -> Timing {
    Timing {
        era_us: random.between(250, 1200) * MS,
        tick_us: random.between(5, 30) * MS,
        grace_us: random.between(10, 80) * MS,
        propose_us: random.between(100, 500) * MS,
        propose_step_us: 150 * MS,
        prevote_us: random.between(50, 200) * MS,
        prevote_step_us: 100 * MS,
        precommit_us: random.between(50, 200) * MS,
        precommit_step_us: 100 * MS,
        status_us: random.between(200, 800) * MS,
        pull_us: random.between(60, 250) * MS,
        skew_ms: 3000,
    }
}
