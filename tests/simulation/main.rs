//! Seeded simulation of the consensus machine (protocol §12): whole networks of pure machines over
//! ledgers in memory, with lossy links, crashes at every boundary between two effects, and as much of
//! the weight Byzantine as is claimed to be withstood. The safety rules are checked after each step;
//! when faults stop, everything must be settled within bounded time. Same seed, same run.
//!
//! How to run more seeds, one seed, or a failing one again is told in `docs/protocol.md` §12.
//! Absent: sockets, disks, tokio and real time; those are tested in `tests/node`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod actor;
mod attendance;
mod chain;
mod changes;
mod coverage;
mod custody;
mod disk;
mod driver;
mod duties;
mod faults;
mod keys;
mod liar;
mod lives;
mod network;
mod notices;
mod oracle;
mod own;
mod planted;
mod proofs;
mod random;
mod registrar;
mod registry;
mod scenario;
mod special;
mod trace;
mod unrest;
mod workload;
mod world;

use changes::{Change, scenario, shrink};
use coverage::Coverage;
use scenario::{Mutant, Scenario};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Outcome, World};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 2000;

/// Seeds within which a fault planted outside of the machine must be found.
const MUTANT_SEEDS: u64 = 120;

/// Failing seeds that are made smaller and told.
const FAILURES_TOLD: usize = 3;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, mutant: Mutant) -> Outcome {
    World::run(Scenario::of(seed, mutant), false)
}

/// What broke, in the smallest run that breaks it too, and the command that replays that.
fn report(seed: u64, forced: &[Change], rule: &'static str) -> String {
    let small = shrink(seed, Mutant::None, forced, rule);
    let changes: Vec<String> = small.changes.iter().map(ToString::to_string).collect();
    format!(
        "seed {seed} breaks `{}`: {}\n    {}\n  MASTERNODE_SIM_TRACE=1 MASTERNODE_SIM_SEED={seed} \
         MASTERNODE_SIM_CHANGES={} cargo test --test simulation one_seed -- --nocapture",
        small.rule,
        small.what,
        small.tail,
        changes.join(",")
    )
}

/// Runs seeds on all cores; counters of all, and which broke which rule.
fn run_all(first: u64, count: u64, forced: &[Change]) -> (Coverage, Vec<(u64, &'static str)>) {
    let next = AtomicU64::new(first);
    let total = Mutex::new((Coverage::default(), Vec::new()));
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let outcome = World::run(scenario(seed, Mutant::None, forced), false);
                    let mut total = total.lock().expect("no worker panics while holding it");
                    total.0.add(&outcome.coverage);
                    total.1.extend(outcome.broken.map(|broken| (seed, broken.rule)));
                }
            });
        }
    });
    let (coverage, mut failures) = total.into_inner().expect("all workers have ended");
    failures.sort_unstable();
    (coverage, failures)
}

/// Runs seeds with a situation forced; every rule must hold in each.
fn must_hold(count: u64, forced: &[Change]) -> Coverage {
    let first = setting("MASTERNODE_SIM_FIRST").unwrap_or(0);
    let started = Instant::now();
    let (coverage, failures) = run_all(first, count, forced);
    let seconds = started.elapsed().as_secs_f64();
    println!("{count} seeds with {forced:?} in {seconds:.1} s, {:.1} a second", count as f64 / seconds);
    let told = failures.iter().take(FAILURES_TOLD).map(|(seed, rule)| report(*seed, forced, rule));
    let told = told.collect::<Vec<_>>().join("\n");
    assert!(
        failures.is_empty(),
        "{} of {count} seeds break a rule: {:?}\n{told}",
        failures.len(),
        failures.iter().take(30).collect::<Vec<_>>(),
    );
    coverage
}

#[test]
fn every_rule_holds_in_every_seed() {
    let count = setting("MASTERNODE_SIM_SEEDS").unwrap_or(SEEDS);
    let coverage = must_hold(count, &[]);
    for (name, value) in coverage.all() {
        println!("  {name:30} {value}");
    }
    if count >= SEEDS {
        for (name, value) in coverage.all() {
            assert!(value > 0, "`{name}` never happened: the simulation does not test it");
        }
    }
}

#[test]
fn one_seed() {
    let seed = setting("MASTERNODE_SIM_SEED").unwrap_or(1);
    let changes = std::env::var("MASTERNODE_SIM_CHANGES").unwrap_or_default();
    let changes: Vec<Change> = changes
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.parse().expect("a change"))
        .collect();
    let scenario = scenario(seed, Mutant::None, &changes);
    let outcome = World::run(scenario.clone(), setting("MASTERNODE_SIM_TRACE") == Some(1));
    if !outcome.story.is_empty() {
        println!("{scenario:#?}\n{}", outcome.story);
    }
    println!("seed {seed}: trace {:016x}, {} steps", outcome.trace_hash, outcome.coverage.steps);
    if let Some(broken) = outcome.broken {
        panic!("seed {seed} breaks `{}`: {}", broken.rule, broken.what);
    }
}

#[test]
fn equal_seeds_give_equal_runs() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in [3, 7, 11, 24, 40, 41, 42, 43] {
        let (first, second) = (run(seed, Mutant::None), run(seed, Mutant::None));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed} ran differently the second time");
        assert_eq!(first.coverage, second.coverage, "seed {seed} counted differently the second time");
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 8, "different seeds must run differently");
}

/// The seed at which a planted fault breaks one of the rules, and which.
fn found(mutant: Mutant, rules: &[&str]) -> (u64, &'static str) {
    for seed in 0..MUTANT_SEEDS {
        if let Some(broken) = run(seed, mutant).broken
            && rules.contains(&broken.rule)
        {
            println!("{mutant:?}: seed {seed} breaks `{}`: {}", broken.rule, broken.what);
            return (seed, broken.rule);
        }
    }
    panic!("{mutant:?} went unnoticed for {MUTANT_SEEDS} seeds");
}

const SIGNED_TWICE: [&str; 7] =
    ["stream", "double vote", "double proposal", "input lock", "rounds", "S1", "S3"];

#[test]
fn a_validator_that_lost_its_log_is_found() {
    found(Mutant::LogLost, &SIGNED_TWICE);
}

#[test]
fn a_validator_that_lost_synced_records_is_found() {
    found(Mutant::TailLost, &SIGNED_TWICE);
}

/// Above a third a conflict is possible. It must not be silent, and nobody honest may be blamed.
#[test]
fn a_conflict_by_too_many_byzantine_validators_leaves_evidence_against_some() {
    let (mut conflicts, mut silent) = (0u64, Vec::new());
    for seed in 0..MUTANT_SEEDS {
        let outcome = run(seed, Mutant::TooManyByzantine);
        let Some(broken) = outcome.broken else { continue };
        assert!(
            ["S1", "S2", "S3", "lemma 1"].contains(&broken.rule),
            "seed {seed}: {}: {}",
            broken.rule,
            broken.what
        );
        conflicts += 1;
        if outcome.proven.is_empty() {
            silent.push((seed, broken.rule));
        }
    }
    println!("{conflicts} conflicts in {MUTANT_SEEDS} seeds");
    assert!(conflicts >= 10, "half of the weight must be able to break safety");
    assert!(silent.is_empty(), "conflicts nobody was proved guilty of: {silent:?}");
}
