//! The simulation is not vacuous: each fault planted in the machine is found by it.

use crate::scenario::{Mutant, Scenario};
use crate::world::World;
use masternode::consensus::planted::Bug;
use masternode::ledger::planted::Bug as RegistryBug;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds within which a planted fault must be found.
const SEEDS: u64 = 2000;

/// Where each fault was found last: tried first, to save time. The search goes on from there.
const FOUND_AT: [(Bug, u64); 2] = [(Bug::ForgottenLock, 46), (Bug::NoSubsetRule, 9)];

/// The first seed from `first` on that finds the mutant, with the rule and what broke.
pub fn find(
    mutant: Mutant,
    first: u64,
    seeds: u64,
    safety_only: bool,
) -> Option<(u64, &'static str, String)> {
    let (next, found) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || seed > found.load(Ordering::Relaxed) {
                        return;
                    }
                    if run(seed, mutant, safety_only).is_some() {
                        found.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = found.into_inner();
    let (rule, what) = (seed != u64::MAX).then(|| run(seed, mutant, safety_only)).flatten()?;
    Some((seed, rule, what))
}

fn run(seed: u64, mutant: Mutant, safety_only: bool) -> Option<(&'static str, String)> {
    let scenario = Scenario { safety_only, ..Scenario::of(seed, mutant) };
    World::run(scenario, false).broken.map(|broken| (broken.rule, broken.what))
}

/// Finds a fault, at its recorded seed or by search.
fn must_be_found(mutant: Mutant) {
    let recorded =
        FOUND_AT.iter().find(|(known, _)| Mutant::Machine(*known) == mutant).map(|(_, seed)| *seed);
    let found =
        recorded.and_then(|seed| find(mutant, seed, 1, false)).or_else(|| find(mutant, 0, SEEDS, false));
    match found {
        Some((seed, rule, what)) => println!("{mutant:?}: seed {seed} breaks `{rule}`: {what:.200}"),
        None => panic!("{mutant:?} went unnoticed for {SEEDS} seeds: the simulation proves nothing about it"),
    }
}

#[test]
fn each_planted_bug_is_found() {
    let registry = RegistryBug::ALL.into_iter().map(Mutant::Registry);
    Bug::ALL.into_iter().map(Mutant::Machine).chain(registry).for_each(must_be_found);
}

/// What only the rules over single validators and the log can see: no run was found in which it leads
/// to a conflict or a standstill, or, of those of keys and seats, none was looked for.
const SEEN_BY_BOOKKEEPING: [Bug; 14] = [
    Bug::ForgottenLock,
    Bug::ParentsIgnored,
    Bug::UnloggedCertificate,
    Bug::RestartForgetsLock,
    Bug::RestartForgetsCommits,
    // One honest key or seat too many is Byzantine weight, of which there is room for some.
    Bug::ResumesWithoutItsNonce,
    Bug::SignsBeforeListening,
    Bug::LostLogSigns,
    Bug::NewDirectorySigns,
    Bug::SignsBeforeItsResume,
    Bug::DisplacedGoesOn,
    Bug::CommitteeOfLastHeight,
    Bug::LeaversStillVote,
    Bug::LatePrecommitsIgnored,
];

#[test]
fn most_planted_bugs_lead_to_a_conflict_or_a_standstill() {
    for bug in Bug::ALL.into_iter().filter(|bug| !SEEN_BY_BOOKKEEPING.contains(bug)) {
        let (seed, rule, _) =
            find(Mutant::Machine(bug), 0, SEEDS, true).expect("a breach of safety or liveness");
        println!("{bug:?}: seed {seed} breaks `{rule}`");
    }
}
