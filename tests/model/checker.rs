//! Runs a scenario to its end, or until a property falls, and tells what was found.

use crate::exploration::Step;
use crate::rules::Protocol;
use crate::scenario::Scenario;
use crate::state::World;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};
use std::fmt::Write as _;
use std::time::Instant;

/// How large a graph was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Different states, processes that are alike renamed.
    pub states: usize,
    /// Steps taken between them.
    pub transitions: usize,
    /// Fewest steps to the state that is farthest from the first.
    pub depth: usize,
}

/// Explores every reachable state. Fails when a rule falls or something is never reached.
pub fn explore(name: &str, scenario: Scenario) -> Result<Size, String> {
    let started = Instant::now();
    let checker = Protocol::new(scenario).checker().threads(1).spawn_bfs().join();
    let mut faults = String::new();
    for property in checker.model().properties() {
        match (property.expectation, checker.discovery(property.name)) {
            (Expectation::Always, Some(path)) => {
                write!(faults, "\n{name} violates {}:{}", property.name, story(checker.model(), path))
                    .unwrap();
            }
            (Expectation::Sometimes, None) => {
                write!(faults, "\n{name} never reaches {}", property.name).unwrap();
            }
            _ => {}
        }
    }
    // The first state is counted, but no step leads to it.
    let size = Size {
        states: checker.unique_state_count(),
        transitions: checker.state_count() - 1,
        depth: checker.max_depth() - 1,
    };
    println!(
        "{name}: {} states, {} transitions, {} steps deep, {:.1} s",
        size.states,
        size.transitions,
        size.depth,
        started.elapsed().as_secs_f64()
    );
    if faults.is_empty() { Ok(size) } else { Err(faults) }
}

/// Explores breadth first until `property` falls: how many steps that takes at least.
pub fn refute(name: &str, scenario: Scenario, property: &'static str) -> Result<usize, String> {
    let started = Instant::now();
    let protocol = Protocol::new(scenario);
    let mut shortest = violation(scenario, property, None)
        .ok_or_else(|| format!("\n{name}: {property} holds in every reachable state"))?;
    // The checker works in blocks of states and keeps the last violation of a block: is there a shorter one?
    while let Some(shorter) = violation(scenario, property, Some(steps_of(&shortest))) {
        shortest = shorter;
    }
    let steps = steps_of(&shortest);
    let seconds = started.elapsed().as_secs_f64();
    let story = story(&protocol, shortest);
    println!("{name}: violates {property} after {steps} steps, {seconds:.1} s{story}");
    Ok(steps)
}

type Story = Path<World, Step>;

fn steps_of(path: &Story) -> usize {
    path.clone().into_actions().len()
}

/// A way to violate `property`, in fewer steps than `below`.
fn violation(scenario: Scenario, property: &'static str, below: Option<usize>) -> Option<Story> {
    let fallen = HasDiscoveries::AnyOf([property].into());
    let mut checker = Protocol::new(scenario).checker().threads(1).finish_when(fallen);
    if let Some(steps) = below {
        // The depth of a state is its steps and one; states of the target depth are not visited.
        checker = checker.target_max_depth(steps + 1);
    }
    checker.spawn_bfs().join().discovery(property)
}

/// The steps of a path with every process under one name throughout, one a line.
fn story(protocol: &Protocol, path: Story) -> String {
    let mut names = std::array::from_fn(|slot| ["v0", "v1", "v2", "v0 without its log"][slot]);
    let mut text = String::new();
    for (world, step) in path.into_vec() {
        let Some(step) = step else { break };
        write!(text, "\n    {}", told(step, &names)).unwrap();
        names = protocol.renamed(&mut protocol.after(&world, step)).map(|slot| names[slot]);
    }
    text
}

fn told(step: Step, names: &[&str]) -> String {
    let payments = crate::state::names;
    match step {
        Step::Prepare { slot, payment } => format!("{} prepares {}", names[slot], payments(payment)),
        Step::CommitVote { slot, payment } => format!("{} commit-votes {}", names[slot], payments(payment)),
        Step::Prevote { slot, round, valid: None, block } => {
            format!("{} prevotes {block:?} in round {round}, fresh", names[slot])
        }
        Step::Prevote { slot, round, valid: Some(valid), block } => {
            format!("{} prevotes {block:?} in round {round}, valid in {valid}", names[slot])
        }
        Step::Precommit { slot, round, block } => {
            format!("{} precommits {block:?} in round {round}", names[slot])
        }
        Step::Decide { slot, block } => format!("{} commits {block:?}, enters the next era", names[slot]),
        Step::RestartWithFaultyLog { slot } => format!("{} restarts with a faulty log", names[slot]),
    }
}
