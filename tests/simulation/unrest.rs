//! Runs in which the registry changes, validators are jailed, and honest ones lose their logs: who takes
//! part and what happens to whom. Drawn from a generator of its own, so that all else of a seed stays.
//!
//! The budget of protocol §10 is kept by construction: the founders nothing happens to, the reliable
//! ones, are a quorum of everybody who may ever be in a committee together, and stay one when the most
//! is jailed that may be. So less than a third of each committee is Byzantine, and blocks go on while
//! others are away, wait to be let in, or leave.

use crate::random::Random;
use crate::scenario::{MS, Role, Scenario};
use masternode::primitives::committee::quorum_of;
use masternode::primitives::tier::Tier;

/// What is lost of what an honest validator has on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The vote log.
    Log,
    /// The whole data directory.
    Directory,
    /// All since a backup of the directory, which is put in its place.
    Backup,
    /// The same, by a snapshot of the machine: no file shows it, only what the others have seen does.
    Snapshot,
}

/// What happens to one validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It loses what is on disk, once or twice.
    Loses(Loss),
    /// Its directory is copied and the copy started while it runs.
    Copied,
    /// It is down for long.
    Absent,
    /// Its owner gives it another vote key.
    Rekeyed,
    /// Its owner takes it out of the registry.
    Leaves,
}

/// Everything of a run that the registry and lost logs bring about.
#[derive(Clone, Debug)]
pub struct Unrest {
    pub troubles: Vec<(usize, Trouble)>,
    /// Nodes that are registered when the run is under way; they follow the founders.
    pub joiners: Vec<usize>,
    /// Nodes that run a copy of another's directory, and whose.
    pub copies: Vec<(usize, usize)>,
    /// How many masternodes without a machine are registered and leave, one after the other.
    pub ghosts: usize,
    /// Changes of payouts and endpoints.
    pub updates: usize,
    pub jail_window: u64,
    pub jail_cap: u64,
    pub resume_interval: u64,
    pub unbonding_ms: u64,
    /// Nothing goes wrong but what is Byzantine or planned for single validators.
    pub orderly: bool,
}

/// What a seed is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The registry changes with nearly every block.
    Churn,
    /// Who signs too little is jailed and resumes.
    Jail,
    /// Logs are lost and directories copied.
    Lost,
    /// Everything at once.
    Mixed,
}

impl Kind {
    fn trouble(self, random: &mut Random) -> Option<Trouble> {
        let losses = [Loss::Log, Loss::Log, Loss::Directory, Loss::Backup, Loss::Backup, Loss::Snapshot];
        let loses = Trouble::Loses(*random.pick(&losses));
        let changes = *random.pick(&[Trouble::Rekeyed, Trouble::Leaves]);
        let kinds: &[Option<Trouble>] = match self {
            Self::Churn => &[None, None, Some(changes), Some(changes)],
            Self::Jail => &[None, Some(Trouble::Absent), Some(Trouble::Absent)],
            Self::Lost => &[None, Some(loses), Some(loses), Some(Trouble::Copied)],
            Self::Mixed => &[None, Some(changes), Some(Trouble::Absent), Some(loses), Some(Trouble::Copied)],
        };
        *random.pick(kinds)
    }
}

/// How many of 1000 seeds there is unrest in.
const PERMILLE: u64 = 450;

/// Heaviest of the ghosts that are registered together.
const GHOSTS_WEIGHT: u64 = 2;

/// Who founds the chain and who joins.
struct Cast {
    founders: Vec<Tier>,
    joiners: Vec<Tier>,
    ghosts: usize,
    /// Weight of the founders that something may happen to.
    spare: u64,
}

impl Cast {
    /// `None` when the founders are no quorum of all.
    fn draw(random: &mut Random, kind: Kind, jail_cap: u64) -> Option<Self> {
        let count = *random.pick(&[4, 5, 5, 6, 6, 7, 7, 8]);
        let (heavy, light) = *random.pick(&[
            (Tier::Silver, Tier::Bronze),
            (Tier::Silver, Tier::Bronze),
            (Tier::Gold, Tier::Silver),
            (Tier::Bronze, Tier::Bronze),
        ]);
        let share = *random.pick(&[500, 700, 850]);
        let mut one_of = |share| if random.chance(share) { heavy } else { light };
        let founders: Vec<Tier> = (0..count).map(|_| one_of(share)).collect();
        let churn = matches!(kind, Kind::Churn | Kind::Mixed);
        let most = if churn { 3 } else { 1 };
        let joiners: Vec<Tier> =
            (0..random.below(most + 1)).map(|_| if random.chance(250) { heavy } else { light }).collect();
        let ghosts = if churn && random.chance(700) { 12 } else { 0 };
        let weight = |tiers: &[Tier]| tiers.iter().map(|tier| tier.weight()).sum::<u64>();
        let ghostly = if ghosts > 0 { GHOSTS_WEIGHT } else { 0 };
        let total = weight(&founders) + weight(&joiners) + ghostly;
        let reliable = quorum_of(total) + (total * jail_cap).div_ceil(300) + 1;
        let spare = weight(&founders).checked_sub(reliable)?;
        let lightest = founders.iter().map(|tier| tier.weight()).min()?;
        (spare >= lightest).then_some(Self { founders, joiners, ghosts, spare })
    }
}

impl Unrest {
    /// Changes a scenario if its seed is one of unrest.
    pub fn stir(scenario: &mut Scenario) {
        let mut random = Random::new(scenario.seed.wrapping_mul(0x9e37) ^ 0x756e_7265_7374);
        if !random.chance(PERMILLE) {
            return;
        }
        let kind = *random.pick(&[
            Kind::Churn,
            Kind::Churn,
            Kind::Jail,
            Kind::Jail,
            Kind::Lost,
            Kind::Lost,
            Kind::Mixed,
        ]);
        Self::of_kind(scenario, kind, &mut random);
    }

    fn of_kind(scenario: &mut Scenario, kind: Kind, random: &mut Random) {
        let jails = matches!(kind, Kind::Jail | Kind::Mixed);
        let jail_cap = if jails { *random.pick(&[10, 20, 33]) } else { 10 };
        let cast = (0..50).find_map(|_| Cast::draw(random, kind, jail_cap));
        let Some(Cast { founders, joiners, ghosts, mut spare }) = cast else { return };
        let mut order: Vec<usize> = (0..founders.len()).collect();
        random.shuffle(&mut order);
        let mut roles = vec![Role::Honest; founders.len() + joiners.len()];
        let (mut troubles, mut copies) = (Vec::new(), Vec::new());
        for node in order {
            let weight = founders[node].weight();
            if weight > spare {
                continue;
            }
            spare -= weight;
            match kind.trouble(random) {
                None => {
                    let byzantine = [Role::Silent, Role::Twins, Role::Liar, Role::Liar];
                    roles[node] = *random.pick(&byzantine);
                }
                Some(trouble) => troubles.push((node, trouble)),
            }
        }
        for (node, trouble) in &troubles {
            if *trouble == Trouble::Copied {
                copies.push((roles.len(), *node));
                roles.push(Role::Honest);
            }
        }
        if scenario.roles.contains(&Role::Observer) {
            roles.push(Role::Observer);
        }
        let unrest = Self {
            joiners: (founders.len()..founders.len() + joiners.len()).collect(),
            troubles,
            copies,
            ghosts,
            updates: if matches!(kind, Kind::Churn | Kind::Mixed) { random.index(5) } else { 0 },
            jail_window: if jails { *random.pick(&[4, 6, 10]) } else { 1000 },
            jail_cap,
            resume_interval: *random.pick(&[1, 4, 10]),
            unbonding_ms: if random.chance(200) { 10_000 } else { 3_600_000 },
            orderly: false,
        };
        scenario.founders = founders.len();
        scenario.tiers = founders.into_iter().chain(joiners).collect();
        scenario.roles = roles;
        scenario.settle_for(unrest, jails, random);
    }
}

impl Scenario {
    /// Fits faults and times to what is to happen.
    fn settle_for(&mut self, mut unrest: Unrest, jails: bool, random: &mut Random) {
        let honest: Vec<usize> = (0..self.founders).filter(|node| self.honest(*node)).collect();
        let troubled = |node: &usize| unrest.troubles.iter().any(|(other, _)| other == node);
        let others: Vec<usize> = honest.iter().copied().filter(|node| !troubled(node)).collect();
        self.late.retain(|node| others.contains(node));
        self.crash_at = self.crash_at.map(|(_, effect)| (*random.pick(&others), effect));
        // Blocks are what it is about: eras are short, and there are enough of them.
        self.timing.era_us = random.between(200, 500) * MS;
        self.calm_at_us = random.between(4000, 8000) * MS;
        let snapshots = unrest.troubles.iter().any(|(_, trouble)| *trouble == Trouble::Loses(Loss::Snapshot));
        if unrest.unbonding_ms == 10_000 {
            // The trust period is as short, and nobody's clock may be that far ahead.
            self.clock_jumps = 0;
        }
        unrest.orderly = jails && random.chance(300);
        if snapshots || unrest.orderly {
            // What was sent has arrived, and nobody has forgotten it.
            self.without_faults();
        }
        self.unrest = Some(unrest);
    }

    /// Nothing is lost and nobody crashes by chance.
    pub fn without_faults(&mut self) {
        self.delays = match self.delays {
            crate::scenario::Delays::Wild => crate::scenario::Delays::Wan,
            delays => delays,
        };
        (self.straggler_permille, self.held, self.drop_permille) = (0, None, 0);
        (self.partitions, self.swizzle, self.crashes, self.crash_at) = (0, false, 0, None);
        (self.blackout, self.late, self.clock_jumps) = (false, Vec::new(), 0);
    }

    /// Nothing happens to a node; who would run a copy of it looks on.
    pub fn spare_trouble(&mut self, node: usize) {
        let Some(unrest) = &mut self.unrest else { return };
        unrest.troubles.retain(|(other, _)| *other != node);
        for (copy, _) in unrest.copies.extract_if(.., |(_, original)| *original == node) {
            self.roles[copy] = Role::Observer;
        }
    }

    /// What happens to a node.
    pub fn trouble(&self, node: usize) -> Option<Trouble> {
        let unrest = self.unrest.as_ref()?;
        unrest.troubles.iter().find(|(other, _)| *other == node).map(|(_, trouble)| *trouble)
    }

    /// The node whose directory a node runs a copy of.
    pub fn copied_from(&self, node: usize) -> Option<usize> {
        let unrest = self.unrest.as_ref()?;
        unrest.copies.iter().find(|(copy, _)| *copy == node).map(|(_, original)| *original)
    }

    /// Whether a node begins when the run is under way.
    pub fn starts_late(&self, node: usize) -> bool {
        let joins = self.unrest.as_ref().is_some_and(|unrest| unrest.joiners.contains(&node));
        self.late.contains(&node) || joins || self.copied_from(node).is_some()
    }
}
