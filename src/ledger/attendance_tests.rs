//! What must hold of windows and jail: exact counts, the cap, and that three always remain.

use super::*;
use crate::ledger::tests::key;
use crate::primitives::chain::NetworkKind;
use crate::primitives::hash::{BlockId, Hash, KeyHash, Txid};
use crate::primitives::keys::Signature;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::OutPoint;
use crate::primitives::vote::Step;
use proptest::prelude::*;

fn registry(tiers: &[Tier]) -> Registry {
    let entry = |(seed, tier): (u8, &Tier)| {
        let collateral = OutPoint { txid: Txid(Hash([9; 32])), index: u32::from(seed) };
        Entry::new(format!("n{seed}"), key(seed).public(), *tier, [KeyHash::default(); 2], collateral)
    };
    Registry::new((1..).zip(tiers).map(entry).collect())
}

fn params(window: u64, cap: u64) -> Params {
    Params {
        jail_window_blocks: window,
        jail_signed_percent: 50,
        jail_cap_percent: cap,
        ..Params::of(NetworkKind::Devnet)
    }
}

/// A commit of everybody but these names.
fn without(committee: &Committee, names: &[&str]) -> Qc {
    let signs = |index: &VoterIndex| {
        committee.member(*index).is_some_and(|member| !names.contains(&member.name.as_str()))
    };
    let votes = committee.indices().filter(signs).map(|index| (index, Signature([0; 64]))).collect();
    Qc::new(0, Step::Precommit, BlockId::default(), votes)
}

fn named<'a>(registry: &'a Registry, name: &str) -> &'a Entry {
    registry.entries().find(|entry| entry.name == name).unwrap()
}

fn jailed(registry: &Registry) -> Vec<&str> {
    let mut names: Vec<&str> = registry
        .entries()
        .filter(|entry| entry.status == MasternodeStatus::Jailed)
        .map(|entry| entry.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

/// Blocks signed by all but `names`, jail after each, as blocks do it.
fn pass(registry: &mut Registry, params: &Params, blocks: u64, names: &[&str]) {
    for _ in 0..blocks {
        let committee = registry.committee();
        record(registry, params, &committee, &without(&committee, names));
        jail(registry, params);
    }
}

#[test]
fn nobody_is_jailed_before_the_window_is_full_and_who_signed_half_never() {
    let params = params(10, 33);
    let mut all = registry(&[Tier::Bronze; 6]);
    pass(&mut all, &params, 5, &["n1"]);
    pass(&mut all, &params, 5, &[]);
    assert_eq!(named(&all, "n1").attendance.missed(), 5);
    assert_eq!(jailed(&all), [""; 0], "half of the window is enough");
    // The next blocks push signed ones in and missed ones out.
    pass(&mut all, &params, 10, &[]);
    assert_eq!(named(&all, "n1").attendance.missed(), 0);
    pass(&mut all, &params, 5, &["n1"]);
    assert_eq!(jailed(&all), [""; 0]);
    pass(&mut all, &params, 1, &["n1"]);
    assert_eq!(jailed(&all), ["n1"]);

    let mut fresh = registry(&[Tier::Bronze; 6]);
    pass(&mut fresh, &params, 9, &["n1"]);
    assert_eq!((jailed(&fresh), named(&fresh, "n1").attendance.seen()), (vec![], 9));
    pass(&mut fresh, &params, 1, &["n1"]);
    assert_eq!(jailed(&fresh), ["n1"]);
}

#[test]
fn the_jailed_leave_the_committee_and_their_window_stands_still() {
    let params = params(4, 33);
    let mut all = registry(&[Tier::Bronze; 6]);
    pass(&mut all, &params, 4, &["n2"]);
    assert_eq!((all.committee().len(), all.active()), (5, 5));
    assert!(all.committee().members().iter().all(|member| member.name != "n2"));
    let before = named(&all, "n2").attendance.clone();
    pass(&mut all, &params, 3, &["n2"]);
    assert_eq!(named(&all, "n2").attendance, before);
}

#[test]
fn the_cap_bounds_the_jailed_weight_and_passes_over_who_is_too_heavy() {
    // Registered weight 10 + 6 * 1 = 16; a quarter is 4.
    let params = params(4, 25);
    let tiers = [&[Tier::Silver][..], &[Tier::Bronze; 6]].concat();
    let mut one = registry(&tiers);
    pass(&mut one, &params, 9, &["n1"]);
    assert_eq!(jailed(&one), [""; 0], "10 of 16 are above the cap by themselves");
    let mut all = registry(&tiers);
    pass(&mut all, &params, 4, &["n1", "n2", "n3", "n4", "n5", "n6"]);
    let weight: u64 = jailed(&all).len() as u64;
    assert_eq!(weight, 4, "four of weight one fit, the heavy one does not: {:?}", jailed(&all));
    assert!(!jailed(&all).contains(&"n1"));
    pass(&mut all, &params, 8, &["n1", "n2", "n3", "n4", "n5", "n6"]);
    assert_eq!(jailed(&all).len(), 4, "the cap counts who is in already");
}

#[test]
fn who_missed_most_goes_first() {
    let params = params(10, 20);
    let mut all = registry(&[Tier::Bronze; 5]);
    pass(&mut all, &params, 3, &["n2"]);
    pass(&mut all, &params, 7, &["n2", "n3"]);
    assert_eq!(jailed(&all), ["n2"], "one of five is the cap");
}

#[test]
fn three_stay_active_whatever_they_miss() {
    let params = params(2, 33);
    let mut all = registry(&[Tier::Bronze; 4]);
    pass(&mut all, &params, 9, &["n1", "n2", "n3", "n4"]);
    assert_eq!((jailed(&all).len(), all.active(), all.committee().len()), (1, 3, 3));
}

proptest! {
    #[test]
    fn a_window_counts_exactly_its_last_blocks(
        window in 1u32..40, blocks in prop::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut attendance = Attendance::default();
        for (count, signed) in (1usize..).zip(&blocks) {
            attendance.record(window, *signed);
            let kept = count.min(window as usize);
            let missed = blocks[count - kept..count].iter().filter(|signed| !**signed).count();
            prop_assert_eq!((attendance.seen() as usize, attendance.missed() as usize), (kept, missed));
        }
        prop_assert!(attendance.ring.len() <= (window as usize).div_ceil(8));
    }
}
