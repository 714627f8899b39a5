//! Changes to the scenario of a seed: to force a situation, and to make a failing run smaller.
//!
//! Each has a name, so that a changed run can be told in one line and replayed.

use crate::scenario::{Delays, Load, MS, Mutant, Role, Scenario};
use crate::world::World;
use std::fmt;
use std::str::FromStr;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Plain Tendermint.
    NoFastPath,
    /// More payments than fit, for some eras.
    FullLoad,
    /// Liars withhold votes until a victim freezes, and the victim crashes.
    Withhold,
    /// All validators are stopped at once.
    RestartAll,
    /// The run goes on after faults stop, and so do the liars.
    Linger,
    /// Nothing is lost.
    NoLoss,
    NoDuplicates,
    NoStragglers,
    /// Nothing is held back by kind.
    NoHolding,
    /// Short delays.
    Lan,
    NoPartitions,
    NoSwizzle,
    NoCrashes,
    NoRestartAll,
    NoLateStart,
    NoClockJumps,
    EvenClocks,
    /// No masternodes without a machine, no changes of payouts and endpoints.
    NoGhosts,
    NoUpdates,
    /// Nothing happens to the log, the key or the seat of a validator.
    Untroubled(usize),
    /// Only the first payments.
    Payments(usize),
    /// A Byzantine validator says nothing.
    Silent(usize),
    /// A Byzantine validator follows the rules.
    Honest(usize),
}

const NAMES: [(Change, &str); 23] = [
    (Change::NoFastPath, "no-fast-path"),
    (Change::FullLoad, "full-load"),
    (Change::Withhold, "withhold"),
    (Change::RestartAll, "restart-all"),
    (Change::Linger, "linger"),
    (Change::NoLoss, "no-loss"),
    (Change::NoDuplicates, "no-duplicates"),
    (Change::NoStragglers, "no-stragglers"),
    (Change::NoHolding, "no-holding"),
    (Change::Lan, "lan"),
    (Change::NoPartitions, "no-partitions"),
    (Change::NoSwizzle, "no-swizzle"),
    (Change::NoCrashes, "no-crashes"),
    (Change::NoRestartAll, "no-restart-all"),
    (Change::NoLateStart, "no-late-start"),
    (Change::NoClockJumps, "no-clock-jumps"),
    (Change::EvenClocks, "even-clocks"),
    (Change::NoGhosts, "no-ghosts"),
    (Change::NoUpdates, "no-updates"),
    (Change::Untroubled(0), "untroubled="),
    (Change::Payments(0), "payments="),
    (Change::Silent(0), "silent="),
    (Change::Honest(0), "honest="),
];

impl Change {
    fn number(self) -> usize {
        match self {
            Self::Payments(number)
            | Self::Silent(number)
            | Self::Honest(number)
            | Self::Untroubled(number) => number,
            _ => 0,
        }
    }

    fn with(self, number: usize) -> Self {
        match self {
            Self::Payments(_) => Self::Payments(number),
            Self::Silent(_) => Self::Silent(number),
            Self::Honest(_) => Self::Honest(number),
            Self::Untroubled(_) => Self::Untroubled(number),
            other => other,
        }
    }

    /// Changes a scenario.
    pub fn apply(self, scenario: &mut Scenario) {
        match self {
            Self::NoFastPath => scenario.fast_path = false,
            Self::FullLoad => (scenario.load, scenario.payments) = (Load::Full, 120),
            Self::Withhold => {
                (scenario.withhold, scenario.crash_favourites, scenario.crashes) = (true, true, 8);
            }
            Self::RestartAll => scenario.blackout = true,
            Self::Linger => (scenario.linger_us, scenario.liars_go_on) = (40_000 * MS, true),
            Self::NoLoss => scenario.drop_permille = 0,
            Self::NoDuplicates => scenario.duplicate_permille = 0,
            Self::NoStragglers => scenario.straggler_permille = 0,
            Self::NoHolding => scenario.held = None,
            Self::Lan => scenario.delays = Delays::Lan,
            Self::NoPartitions => scenario.partitions = 0,
            Self::NoSwizzle => scenario.swizzle = false,
            Self::NoCrashes => (scenario.crashes, scenario.crash_at) = (0, None),
            Self::NoRestartAll => scenario.blackout = false,
            Self::NoLateStart => scenario.late.clear(),
            Self::NoClockJumps => scenario.clock_jumps = 0,
            Self::EvenClocks => scenario.uneven_clocks = false,
            Self::Payments(kept) => scenario.payments_kept = kept,
            Self::Silent(node) => scenario.roles[node] = Role::Silent,
            Self::Honest(node) => scenario.roles[node] = Role::Honest,
            Self::NoGhosts => scenario.unrest.iter_mut().for_each(|unrest| unrest.ghosts = 0),
            Self::NoUpdates => scenario.unrest.iter_mut().for_each(|unrest| unrest.updates = 0),
            Self::Untroubled(node) => scenario.spare_trouble(node),
        }
    }

    /// What may make a scenario smaller, the greatest steps first.
    fn reductions(scenario: &Scenario) -> Vec<Self> {
        let byzantine = (0..scenario.tiers.len()).filter(|node| !scenario.honest(*node));
        let roles = byzantine.flat_map(|node| [Self::Honest(node), Self::Silent(node)]);
        let fewer = std::iter::successors(Some(scenario.payments_kept.min(scenario.payments * 3) / 2), |n| {
            (*n > 0).then_some(n / 2)
        });
        let faults = NAMES.iter().map(|(change, _)| *change).filter(|change| change.is_reduction());
        let troubles = scenario.unrest.iter().flat_map(|unrest| &unrest.troubles);
        let troubles: Vec<Self> = troubles.map(|(node, _)| Self::Untroubled(*node)).collect();
        faults.chain(troubles).chain(roles).chain(fewer.map(Self::Payments)).collect()
    }

    fn is_reduction(self) -> bool {
        !matches!(
            self,
            Self::NoFastPath
                | Self::FullLoad
                | Self::Withhold
                | Self::RestartAll
                | Self::Linger
                | Self::Payments(_)
                | Self::Silent(_)
                | Self::Honest(_)
                | Self::Untroubled(_)
        )
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = NAMES.iter().find(|(change, _)| change.with(self.number()) == *self).expect("named");
        if name.ends_with('=') { write!(f, "{name}{}", self.number()) } else { f.write_str(name) }
    }
}

impl FromStr for Change {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known =
            NAMES.iter().find(|(_, name)| text == *name || name.ends_with('=') && text.starts_with(name));
        let (change, name) = known.ok_or_else(|| format!("`{text}` is no change to a scenario"))?;
        let number = text.strip_prefix(name).filter(|number| !number.is_empty());
        Ok(change.with(number.map_or(Ok(0), str::parse).map_err(|error| format!("`{text}`: {error}"))?))
    }
}

/// The scenario of a seed with changes.
pub fn scenario(seed: u64, mutant: Mutant, changes: &[Change]) -> Scenario {
    let mut scenario = Scenario::of(seed, mutant);
    changes.iter().for_each(|change| change.apply(&mut scenario));
    scenario
}

/// A failing run made smaller.
pub struct Shrunk {
    pub changes: Vec<Change>,
    pub rule: &'static str,
    pub what: String,
    /// Its last events in words.
    pub tail: String,
}

/// Most runs spent on making one smaller.
const RUNS_MAX: usize = 80;

/// Events shown of a failing run.
const TAIL_LINES: usize = 40;

/// Takes away faults, payments and liars as long as the same rule breaks.
pub fn shrink(seed: u64, mutant: Mutant, forced: &[Change], rule: &'static str) -> Shrunk {
    let mut changes = forced.to_vec();
    let mut runs = 0;
    let mut progress = true;
    while progress && runs < RUNS_MAX {
        progress = false;
        for change in Change::reductions(&scenario(seed, mutant, &changes)) {
            let (mut tried, before) = (changes.clone(), format!("{:?}", scenario(seed, mutant, &changes)));
            tried.retain(|held| !matches!((held, change), (Change::Payments(_), Change::Payments(_))));
            tried.push(change);
            let smaller = scenario(seed, mutant, &tried);
            if matches!(change, Change::Silent(node) if scenario(seed, mutant, &changes).honest(node)) {
                // It follows the rules by now.
                continue;
            }
            if runs == RUNS_MAX || format!("{smaller:?}") == before {
                continue;
            }
            runs += 1;
            if World::run(smaller, false).broken.is_some_and(|broken| broken.rule == rule) {
                changes = tried;
                progress = true;
            }
        }
    }
    let outcome = World::run(scenario(seed, mutant, &changes), true);
    let lines: Vec<&str> = outcome.story.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n    ");
    let what = outcome.broken.map(|broken| broken.what).unwrap_or_default();
    Shrunk { changes, rule, what, tail }
}
