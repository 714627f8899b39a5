//! Exhaustive model of the protocol rules (`docs/protocol.md` §4, §10, §11): the fast path, the freeze, one
//! checkpoint with its rounds, safe start, and the carry into the next era, for three honest validators and a Byzantine
//! one. Every reachable state is visited; the rules that must hold in each are in `properties.rs`.
//!
//! Abstractions. Each only adds behaviours, so what holds here holds with less freedom too:
//!
//! * **Network.** A vote once cast may be shown to anybody, at any later time or never: every delay, loss,
//!   duplicate and order is covered. So is a crash: a vote is durable before it is sent, so a process back on
//!   its log is a process that was slow. That the log holds what it must is what the `Log..` rules leave out.
//! * **Byzantine validator.** Not a process: its weight stands in every quorum, for every value, towards
//!   everybody. It prepares, commit-votes, prevotes and precommits everything and shows each its own choice.
//! * **Proposers.** All Byzantine: any block valid by the ledger rules may be proposed to any process in any
//!   round, fresh or with any earlier round as the valid one. Safety must not rest on the proposer.
//! * **Time.** A process may leave out any vote and enter any later round or era whenever it likes; nil votes
//!   say nothing then and are absent.
//! * **Safe start.** A lost, old or copied log is a second process with the key of the first validator and
//!   nothing in its memory, while the first runs on or not. A `Resume` in the block is the proposer's choice.
//!
//! Absent: the checkpoint of the next era, bodies and pulls, expiry, liveness beyond rule L0; these are left
//! to `tests/simulation`.
//!
//! `cargo test --test model` explores the short runs and every mutation;
//! `MASTERNODE_MODEL=full cargo test --test model -- --nocapture` all runs; the name of a run or mutation
//! instead of `full` that one, with the story of a violation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod checker;
mod exploration;
mod properties;
mod rules;
mod runs;
mod scenario;
mod state;

use runs::Run;

/// Which runs were asked for.
enum Choice {
    Short,
    Full,
    One(String),
}

impl Choice {
    fn read() -> Choice {
        match std::env::var("MASTERNODE_MODEL") {
            Err(_) => Choice::Short,
            Ok(name) if name == "full" => Choice::Full,
            Ok(name) => {
                assert!(
                    runs::is_known(&name),
                    "MASTERNODE_MODEL={name}: neither `full` nor a run in runs.rs"
                );
                Choice::One(name)
            }
        }
    }

    fn takes(&self, name: &str, short: bool) -> bool {
        match self {
            Choice::Short => short,
            Choice::Full => true,
            Choice::One(chosen) => name == chosen,
        }
    }
}

fn checked(run: &Run) -> Option<String> {
    match checker::explore(run.name, run.scenario) {
        Err(fault) => Some(fault),
        Ok(size) if size == run.size => None,
        Ok(size) => Some(format!("\n{}: {size:?}, expected {:?}: the model has changed", run.name, run.size)),
    }
}

#[test]
fn every_rule_holds_in_every_reachable_state() {
    let choice = Choice::read();
    let short = runs::SHORT.iter().map(|run| (run, true));
    let runs = short.chain(runs::LONG.iter().map(|run| (run, false)));
    let faults: Vec<String> = runs
        .filter(|(run, short)| choice.takes(run.name, *short))
        .filter_map(|(run, _)| checked(run))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join(""));
}

#[test]
fn every_rule_left_out_is_missed_in_as_few_steps_as_expected() {
    let choice = Choice::read();
    let mut faults = String::new();
    for mutation in runs::MUTATIONS.iter().filter(|mutation| choice.takes(mutation.name, true)) {
        match checker::refute(mutation.name, mutation.scenario, mutation.property) {
            Ok(steps) if steps == mutation.steps => {}
            Ok(steps) => {
                let expected = mutation.steps;
                faults += &format!("\n{}: falls in {steps} steps, expected {expected}", mutation.name);
            }
            Err(fault) => faults += &fault,
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// 1234567 as 1,234,567.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

#[test]
fn the_protocol_text_lists_every_run_and_mutation_as_it_is() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
    let text = std::fs::read_to_string(file).unwrap();
    let row = |name: &str| -> Vec<String> {
        let start = format!("| {name} |");
        let row = text.lines().find(|line| line.starts_with(&start));
        row.unwrap_or_else(|| panic!("{file} has no row `{name}`"))
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    for run in runs::SHORT.iter().chain(runs::LONG) {
        let size = [run.size.states, run.size.transitions, run.size.depth].map(grouped);
        assert_eq!(row(run.name)[3..6], size, "{file}, row `{}`", run.name);
    }
    for mutation in runs::MUTATIONS {
        let found = [mutation.property[..2].to_owned(), mutation.steps.to_string()];
        assert_eq!(row(mutation.name)[3..5], found, "{file}, row `{}`", mutation.name);
    }
}
