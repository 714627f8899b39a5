//! What a seed means: who takes part, who is Byzantine, how bad the network is, what is planted.
//!
//! Drawn once, before the run; the run itself draws from generators forked off the same seed.

use crate::random::Random;
use crate::unrest::Unrest;
use masternode::consensus::planted::Bug;
use masternode::consensus::timing::Timing;
use masternode::ledger::planted::Bug as RegistryBug;
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
    /// A fault in every machine.
    Machine(Bug),
    /// A fault in every registry.
    Registry(RegistryBug),
    /// A validator that restarts has lost its whole log of the current height.
    LogLost,
    /// A validator that restarts has lost the last records it had made durable.
    TailLost,
    /// Byzantine weight of a third to half of the committee, more than the protocol claims to stand.
    TooManyByzantine,
}

/// How long most messages take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delays {
    /// 1 to 5 ms.
    Lan,
    /// 10 to 120 ms.
    Wan,
    /// Anything from 1 ms to 1.5 s, so that everything is reordered.
    Wild,
}

/// What an adversary in the network holds back most of, for up to 2 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Batches,
    Proposals,
    Prevotes,
    Precommits,
}

/// How much is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Far below the budget of an era.
    Light,
    /// A budget of a few payments an era, so that it sometimes runs out.
    Tight,
    /// More than the budget for three eras and longer.
    Full,
}

/// Everything a run is determined by, besides the generators forked from the seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub seed: u64,
    pub mutant: Mutant,
    pub roles: Vec<Role>,
    /// Tiers of the validators, founders first, which set their weights; copies of validators and observers
    /// come after them.
    pub tiers: Vec<Tier>,
    /// How many validators found the chain.
    pub founders: usize,
    /// Changes of the registry, jail and lost logs.
    pub unrest: Option<Unrest>,
    pub real_keys: bool,
    pub fast_path: bool,
    pub load: Load,
    pub timing: Timing,
    pub delays: Delays,
    /// How many of 1000 messages take up to 5 s.
    pub straggler_permille: u64,
    pub held: Option<Held>,
    pub drop_permille: u64,
    pub duplicate_permille: u64,
    /// How many partitions come and go.
    pub partitions: u64,
    /// Whether nodes are cut off one by one and healed in another order.
    pub swizzle: bool,
    /// Most crashes of the run, and how likely one is at an ordinary and at a delicate boundary.
    pub crashes: u64,
    pub crash_permille: u64,
    pub crash_delicate_permille: u64,
    /// A crash of this node before the effect with this number.
    pub crash_at: Option<(usize, u64)>,
    /// How many of 1000 records that were not synced survive a crash; by chance when not set.
    pub kept_permille: Option<u64>,
    /// Whether all liars withhold votes.
    pub withhold: bool,
    /// Whether a node that a withheld quorum was shown to crashes right after.
    pub crash_favourites: bool,
    /// Whether all validators are stopped at once in the middle.
    pub blackout: bool,
    /// Nodes that start at genesis when the run is under way.
    pub late: Vec<usize>,
    /// How many clocks jump.
    pub clock_jumps: u64,
    /// Whether monotonic clocks run at different speeds.
    pub uneven_clocks: bool,
    pub payments: usize,
    /// So many of the transactions made are handed in.
    pub payments_kept: usize,
    /// When faults stop, in simulated microseconds.
    pub calm_at_us: u64,
    /// Whether Byzantine validators go on when other faults stop.
    pub liars_go_on: bool,
    /// For how long the run goes on after faults stop, to see the pace.
    pub linger_us: u64,
    /// Only the rules over what everybody sent count, not those over what each one signed.
    pub safety_only: bool,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64, mutant: Mutant) -> Self {
        let mut random = Random::new(seed);
        let tiers = tiers(&mut random);
        let weights: Vec<u64> = tiers.iter().map(|tier| tier.weight()).collect();
        let mut roles = byzantine(&mut random, &weights, mutant);
        if random.chance(150) {
            roles.push(Role::Observer);
        }
        let crashing = random.chance(600) || matches!(mutant, Mutant::LogLost | Mutant::TailLost);
        let calm_at_us = random.between(3000, 8000) * MS;
        let honest: Vec<usize> = (0..roles.len()).filter(|node| roles[*node].is_honest()).collect();
        let late = if random.chance(150) { vec![*random.pick(&honest)] } else { Vec::new() };
        let load = *random.pick(&[
            Load::Light,
            Load::Light,
            Load::Light,
            Load::Light,
            Load::Light,
            Load::Light,
            Load::Tight,
            Load::Tight,
            Load::Full,
        ]);
        let light = random.index(26) + 6;
        let mut scenario = Self {
            seed,
            mutant,
            real_keys: seed % 50 == 24,
            fast_path: !random.chance(120),
            load,
            timing: timing(&mut random),
            delays: *random.pick(&[Delays::Lan, Delays::Lan, Delays::Wan, Delays::Wan, Delays::Wild]),
            straggler_permille: *random.pick(&[0, 5, 20, 80]),
            held: *random.pick(&[
                None,
                None,
                None,
                None,
                None,
                None,
                Some(Held::Batches),
                Some(Held::Proposals),
                Some(Held::Prevotes),
                Some(Held::Precommits),
                Some(Held::Precommits),
            ]),
            drop_permille: *random.pick(&[0, 0, 20, 50, 100, 300]),
            duplicate_permille: *random.pick(&[0, 30, 150]),
            partitions: *random.pick(&[0, 0, 1, 2, 3]),
            swizzle: random.chance(120),
            crashes: if crashing { random.between(1, 8) } else { 0 },
            crash_permille: *random.pick(&[1, 3, 10]),
            crash_delicate_permille: *random.pick(&[10, 40, 100]),
            crash_at: random.chance(200).then(|| (*random.pick(&honest), random.below(400))),
            kept_permille: None,
            withhold: false,
            crash_favourites: random.chance(500),
            blackout: crashing && random.chance(250),
            late,
            clock_jumps: *random.pick(&[0, 0, 0, 1, 3]),
            uneven_clocks: random.chance(200),
            payments: if load == Load::Full { 120 } else { light },
            payments_kept: usize::MAX,
            calm_at_us,
            liars_go_on: random.chance(500),
            linger_us: if random.chance(150) { 9000 * MS } else { 0 },
            safety_only: false,
            roles,
            founders: tiers.len(),
            tiers,
            unrest: None,
        };
        match mutant {
            Mutant::TooManyByzantine => scenario.split_the_honest(),
            Mutant::None | Mutant::Machine(_) | Mutant::Registry(_) => Unrest::stir(&mut scenario),
            Mutant::LogLost | Mutant::TailLost => {}
        }
        scenario
    }

    /// Makes the most of Byzantine weight above a third: honest nodes hear of each other late, and of
    /// two conflicting payments each hears of one first.
    fn split_the_honest(&mut self) {
        self.delays = Delays::Wild;
        self.held = None;
        (self.drop_permille, self.crashes, self.crash_at) = (0, 0, None);
        (self.payments, self.load, self.fast_path) = (40, Load::Light, true);
        (self.late, self.blackout, self.safety_only) = (Vec::new(), false, true);
    }

    /// For how long payments are handed in, in microseconds: full load fills each of some eras.
    pub fn paying_us(&self) -> u64 {
        if self.load == Load::Full { 4 * self.timing.era_us } else { self.calm_at_us }
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

/// Four to ten validators, nearly always of unequal weight.
fn tiers(random: &mut Random) -> Vec<Tier> {
    let validators = *random.pick(&[4, 4, 4, 4, 5, 5, 6, 7, 7, 8, 10]);
    if random.chance(150) {
        return vec![*random.pick(&[Tier::Bronze, Tier::Silver]); validators];
    }
    let pairs = [(Tier::Silver, Tier::Bronze), (Tier::Silver, Tier::Bronze), (Tier::Gold, Tier::Silver)];
    let (heavy, light) = *random.pick(&pairs);
    let share = *random.pick(&[300, 600, 850]);
    (0..validators).map(|_| if random.chance(share) { heavy } else { light }).collect()
}

/// Turns validators Byzantine: as much weight as `3 F < W` allows or nearly so; beyond it, up to half,
/// when that is the mutant.
fn byzantine(random: &mut Random, weights: &[u64], mutant: Mutant) -> Vec<Role> {
    let total: u64 = weights.iter().sum();
    let mut roles = vec![Role::Honest; weights.len()];
    let too_many = mutant == Mutant::TooManyByzantine;
    if random.chance(200) && !too_many {
        return roles;
    }
    let weight = |set: &usize| -> u64 {
        weights.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1).map(|(_, weight)| weight).sum()
    };
    let allowed = |set: &usize| {
        let faulty = weight(set);
        if too_many { 3 * faulty >= total && 2 * faulty <= total } else { 3 * faulty < total }
    };
    let mut sets: Vec<usize> = (0..1 << weights.len()).filter(allowed).collect();
    sets.sort_by_key(|set| std::cmp::Reverse((weight(set), *set)));
    sets.truncate(8);
    if sets.is_empty() {
        return roles;
    }
    let set = *random.pick(&sets);
    for (_, role) in roles.iter_mut().enumerate().filter(|(place, _)| set >> place & 1 == 1) {
        *role = match mutant {
            Mutant::TooManyByzantine => Role::Liar,
            _ => *random.pick(&[Role::Silent, Role::Twins, Role::Twins, Role::Liar, Role::Liar, Role::Liar]),
        };
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
