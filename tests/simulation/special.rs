//! Runs in which one situation is forced instead of left to chance.

use crate::changes::{Change, scenario, shrink};
use crate::must_hold;
use crate::scenario::{MS, Mutant, Scenario};
use crate::world::World;
use masternode::consensus::planted::Bug;

/// Seeds of a forced situation.
const SEEDS: u64 = 60;

#[test]
fn every_rule_holds_without_the_fast_path() {
    let count = crate::setting("MASTERNODE_SIM_SEEDS").unwrap_or(3 * SEEDS);
    let coverage = must_hold(count, &[Change::NoFastPath]);
    assert_eq!((coverage.payments_final_by_votes, coverage.runs_without_fast_path), (0, count));
    assert!(coverage.payments_by_block_only > 0 && coverage.restarts_in_mid_height > 0);
}

#[test]
fn blocks_have_room_for_three_eras_of_full_load() {
    let coverage = must_hold(SEEDS, &[Change::FullLoad]);
    assert!(coverage.unions_above_half_a_budget > SEEDS, "the load was not full");
}

#[test]
fn a_quorum_shown_to_one_validator_that_crashes_wedges_nobody() {
    let coverage = must_hold(SEEDS, &[Change::Withhold]);
    assert!(coverage.withheld_quorums > 0 && coverage.crashes_of_favourites > 0);
}

#[test]
fn all_validators_restarted_at_once_go_on() {
    let coverage = must_hold(SEEDS, &[Change::RestartAll]);
    assert!(coverage.restarts_frozen > SEEDS / 4, "restarts must hit the rounds");
}

#[test]
fn heights_keep_their_pace_for_long_while_liars_go_on() {
    let coverage = must_hold(SEEDS, &[Change::Linger]);
    assert!(coverage.heights_paced > 10 * SEEDS, "the pace was hardly looked at");
}

/// A short run in which nothing else crashes.
fn short(seed: u64, crash_at: Option<(usize, u64)>, kept_permille: u64) -> Scenario {
    let changes = [Change::NoCrashes, Change::NoRestartAll, Change::NoLateStart];
    let mut scenario = scenario(seed, Mutant::None, &changes);
    scenario.calm_at_us = scenario.calm_at_us.min(2500 * MS);
    scenario.payments = scenario.payments.min(12);
    Scenario { crash_at, kept_permille: Some(kept_permille), linger_us: 0, ..scenario }
}

/// Crashes a validator before each of its effects in turn, with what was not synced lost, torn or kept.
#[test]
fn a_crash_before_any_effect_harms_nobody() {
    const SEEDS: [u64; 3] = [3, 12, 25];
    let mut crashes = 0;
    for seed in SEEDS {
        let undisturbed = World::run(short(seed, None, 0), false);
        let victim = (0..undisturbed.effects.len()).max_by_key(|node| undisturbed.effects[*node]);
        let victim = victim.expect("somebody follows the rules");
        for effect in 0..undisturbed.effects[victim] {
            let kept_permille = [0, 500, 1000][usize::try_from(effect % 3).expect("small")];
            let outcome = World::run(short(seed, Some((victim, effect)), kept_permille), false);
            crashes += outcome.coverage.crashes_by_number;
            if let Some(broken) = outcome.broken {
                panic!(
                    "seed {seed}, node {victim} crashes before effect {effect}: `{}`: {}",
                    broken.rule, broken.what
                );
            }
        }
    }
    println!("{crashes} crashes");
    assert!(crashes > 200, "only {crashes} effects were interrupted");
}

#[test]
fn a_failing_run_shrinks_to_one_that_fails_alike_and_can_be_named() {
    let mutant = Mutant::Machine(Bug::NoInputLock);
    let failing = (0..50).find_map(|seed| {
        let broken = World::run(Scenario::of(seed, mutant), false).broken?;
        (broken.rule == "input lock").then_some(seed)
    });
    let seed = failing.expect("double voting is found at once");
    let small = shrink(seed, mutant, &[], "input lock");
    assert!(small.changes.len() >= 4, "hardly smaller: {:?}", small.changes);
    let names = small.changes.iter().map(ToString::to_string);
    let parsed: Vec<Change> = names.map(|name| name.parse().expect("named by itself")).collect();
    assert_eq!(parsed, small.changes);
    let again = World::run(scenario(seed, mutant, &parsed), false).broken.expect("it fails again");
    assert_eq!((again.rule, again.what), (small.rule, small.what));
    assert!(small.tail.lines().count() > 3, "no trace: {}", small.tail);
}
