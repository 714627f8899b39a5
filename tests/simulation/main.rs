//! Seeded simulation of the consensus machine (protocol §12): whole networks of pure machines over
//! ledgers in memory, with lossy links, crashes at every boundary between two effects, and a quarter
//! of the weight Byzantine. The safety rules are checked after each step; when faults stop, everything
//! must be settled within bounded time. Same seed, same run.
//!
//! `MASTERNODE_SIM_SEEDS=20000 cargo test --test simulation` runs more seeds.
//! `MASTERNODE_SIM_SEED=123 cargo test --test simulation one_seed -- --nocapture` runs one;
//! with `MASTERNODE_SIM_TRACE=1` it tells the whole story.
//! Absent: sockets, disks, tokio and real time; those are tested in `tests/node`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod actor;
mod chain;
mod coverage;
mod disk;
mod driver;
mod keys;
mod liar;
mod network;
mod oracle;
mod own;
mod proofs;
mod random;
mod scenario;
mod trace;
mod workload;
mod world;

use coverage::Coverage;
use scenario::{Mutant, Scenario};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use world::{Outcome, World};

/// Seeds of an ordinary test run.
const SEEDS: u64 = 500;

/// Seeds within which a planted fault must be found.
const MUTANT_SEEDS: u64 = 120;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, mutant: Mutant) -> Outcome {
    World::run(Scenario::of(seed, mutant), false)
}

fn report(seed: u64, outcome: &Outcome) -> Option<String> {
    let broken = outcome.broken.as_ref()?;
    Some(format!(
        "seed {seed} breaks `{}` after {:.1} simulated seconds: {}\n  MASTERNODE_SIM_TRACE=1 \
         MASTERNODE_SIM_SEED={seed} cargo test --test simulation one_seed -- --nocapture",
        broken.rule,
        outcome.simulated_us as f64 / 1e6,
        broken.what
    ))
}

/// Runs seeds on all cores; counters of all, reports of those that broke a rule.
fn run_all(first: u64, count: u64) -> (Coverage, Vec<String>) {
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
                    let outcome = run(seed, Mutant::None);
                    let mut total = total.lock().expect("no worker panics while holding it");
                    total.0.add(&outcome.coverage);
                    total.1.extend(report(seed, &outcome).map(|text| (seed, text)));
                }
            });
        }
    });
    let (coverage, mut reports) = total.into_inner().expect("all workers have ended");
    reports.sort();
    (coverage, reports.into_iter().map(|(_, text)| text).collect())
}

#[test]
fn every_rule_holds_in_every_seed() {
    let count = setting("MASTERNODE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = setting("MASTERNODE_SIM_FIRST").unwrap_or(0);
    let started = Instant::now();
    let (coverage, reports) = run_all(first, count);
    let seconds = started.elapsed().as_secs_f64();
    println!("{count} seeds in {seconds:.1} s, {:.1} a second", count as f64 / seconds);
    for (name, value) in coverage.all() {
        println!("  {name:30} {value}");
    }
    assert!(
        reports.is_empty(),
        "{} of {count} seeds break a rule:\n{}",
        reports.len(),
        reports.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    if count >= SEEDS {
        for (name, value) in coverage.all() {
            assert!(value > 0, "`{name}` never happened: the simulation does not test it");
        }
    }
}

#[test]
fn one_seed() {
    let seed = setting("MASTERNODE_SIM_SEED").unwrap_or(1);
    let outcome = World::run(Scenario::of(seed, Mutant::None), setting("MASTERNODE_SIM_TRACE") == Some(1));
    if !outcome.story.is_empty() {
        println!("{:#?}\n{}", Scenario::of(seed, Mutant::None), outcome.story);
    }
    println!("seed {seed}: trace {:016x}, {} steps", outcome.trace_hash, outcome.coverage.steps);
    assert!(outcome.broken.is_none(), "{}", report(seed, &outcome).unwrap_or_default());
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

#[test]
fn half_of_the_weight_byzantine_breaks_safety() {
    found(Mutant::TooManyByzantine, &["S1", "S2", "S3", "lemma 1"]);
}
