//! What power cuts, kills, bad sectors and full disks do to a node, tried out: on a driver that opens,
//! replays and writes everything a node keeps (`driver.rs`), and on the real program. Whatever was said to
//! be durable is there after the next start and equals a reference, or the node says which file is
//! damaged and what to do, with exit status 78 or without signing.
//!
//! `MASTERNODE_STORAGE=full cargo test --release --test storage -- --nocapture` runs the numbers of
//! docs/reliability.md and prints what came of each; without the variable it is a short version.
//! `MASTERNODE_STORAGE_SEED` begins at another seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod chain;
mod daemons;
mod driver;
mod growth;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
mod runs;
mod shelf;

use runs::{Ended, Run};
use shelf::Random;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn is_full() -> bool {
    std::env::var("MASTERNODE_STORAGE").is_ok_and(|text| text == "full")
}

fn seed() -> u64 {
    std::env::var("MASTERNODE_STORAGE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// `full` of them, or `short` in an ordinary test.
fn times(full: u64, short: u64) -> u64 {
    if is_full() { full } else { short }
}

/// Not a test: the process the tests start, kill and start again.
#[test]
fn driver() {
    if let Some(dir) = std::env::var_os(driver::DIR) {
        driver::drive(Path::new(&dir));
    }
}

#[test]
fn killed_at_any_operation_also_during_recovery_it_finds_all_it_said_was_durable() {
    let (kills, in_recovery_least) = (times(500, 10), times(50, 2));
    let mut random = Random(seed());
    let mut run = Run::new();
    let (mut done, mut in_recovery, mut said, mut start_operations) = (0, 0, 0, 40);
    while done < kills || in_recovery < in_recovery_least {
        if done % 100 == 99 {
            run = Run::new();
        }
        let wants_recovery = in_recovery < in_recovery_least && random.below(2) == 0;
        let after = if wants_recovery { random.below(start_operations) } else { random.below(700) };
        run.control.kill_after(1 + after, random.below(257));
        // A third is killed from outside, at no operation in particular.
        let lines = if wants_recovery || random.below(3) > 0 { None } else { Some(random.below(60)) };
        let report = run.drive(None, lines);
        assert_eq!(report.ended, Ended::Killed, "seed {}, kill {done}: {report:?}", seed());
        done += 1;
        said += report.said;
        match report.found_at {
            // It runs on while it is heard: a start takes about 20.
            Some(operations) => start_operations = operations.clamp(8, 40),
            None => in_recovery += 1,
        }
    }
    let ended = run.drive(Some(1), None);
    assert!(matches!(ended.ended, Ended::Orderly), "{ended:?}");
    println!(
        "kills {done}, of them during recovery {in_recovery}; {said} times something was durable, all of it found"
    );
}

#[test]
fn a_power_cut_loses_nothing_that_was_said_to_be_durable() {
    let cuts = times(100, 6);
    let mut random = Random(seed() ^ 0xc7);
    let mut run = Run::new();
    let mut said = 0;
    for cut in 0..cuts {
        if cut % 25 == 24 {
            run = Run::new();
        }
        run.control.kill_after(1 + random.below(if cut % 4 == 0 { 60 } else { 500 }), random.below(257));
        let report = run.drive_until_cut(&mut random);
        assert_eq!(report.ended, Ended::Killed, "seed {}, cut {cut}: {report:?}", seed());
        said += report.said;
    }
    let ended = run.drive(Some(1), None);
    assert!(matches!(ended.ended, Ended::Orderly), "{ended:?}");
    println!("power cuts {cuts}; {said} times something was durable, all of it found");
}

/// One change at rest: a bit, a sector of zeros, or the end cut off.
fn damage(file: &Path, random: &mut Random) -> String {
    let mut bytes = std::fs::read(file).unwrap();
    // Where something is: a database file is mostly empty in its last segment.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let at = random.place(used);
    let what = match random.below(4) {
        _ if used == 0 => return "nothing".to_owned(),
        0 => {
            bytes.truncate(at);
            "cut"
        }
        1 => {
            let sector = at / 512 * 512;
            let end = (sector + 512).min(bytes.len());
            bytes[sector..end].fill(0);
            "sector"
        }
        _ => {
            bytes[at] ^= 1 << random.below(8);
            "bit"
        }
    };
    // In place: the node knows its files by their inodes.
    std::fs::write(file, bytes).unwrap();
    format!("{what} at {at} of {used}")
}

fn files_below(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, into) } else { into.push(path) }
    }
    into.sort();
}

#[test]
fn damage_at_rest_ends_in_a_true_state_or_in_a_refusal_that_names_file_and_remedy() {
    let trials = times(300, 16);
    let mut random = Random(seed() ^ 0xf1);
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut base = Run::new();
    for trial in 0..trials {
        if trial % 20 == 0 {
            base = Run::new();
            let orderly = trial % 40 == 0;
            base.control.kill_after(if orderly { u64::MAX / 2 } else { 800 + random.below(600) }, 256);
            base.drive(orderly.then_some(60), None);
        }
        let mut run = base.copied();
        let mut files = Vec::new();
        files_below(&run.dir, &mut files);
        // Half of the damage in the database, the rest anywhere.
        let file =
            if trial % 2 == 0 { run.dir.join("db/db") } else { files[random.place(files.len())].clone() };
        let newest_log =
            files.iter().rfind(|file| file.extension().is_some_and(|kind| kind == "log")).cloned();
        let what = format!("{}: {}", file.display(), damage(&file, &mut random));
        let context = format!("seed {}, trial {trial}, {what}", seed());
        // After a crash a sector of the last group that was never written is what a crash leaves.
        let like_a_crash = ["cut at", "sector at"].iter().any(|kind| what.contains(kind));
        run.may_lack_votes = Some(&file) == newest_log.as_ref() && like_a_crash && !base.was_orderly;
        let report = run.drive(Some(2), None);
        let outcome = match &report.ended {
            Ended::Orderly => "a true state",
            Ended::Lost(reason) => {
                assert!(
                    ["vote log", "sign_floor", "sign floor"].iter().any(|file| reason.contains(file)),
                    "{context}: {reason}"
                );
                "does not sign before the chain lets it"
            }
            Ended::Refused(reason) => {
                assert!(reason.contains(run.dir.to_str().unwrap()), "{context}: {reason}");
                let remedies = ["restore", "move", "use the"];
                assert!(remedies.iter().any(|remedy| reason.contains(remedy)), "{context}: {reason}");
                "refused with 78"
            }
            other => panic!("{context}: {other:?} {report:?}"),
        };
        *counts.entry(outcome.to_owned()).or_default() += 1;
    }
    println!("flips, lost sectors and truncations {trials}: {counts:?}");
}

#[test]
fn a_full_disk_is_waited_out_at_every_write_and_nothing_is_lost() {
    let trials = times(50, 4);
    let mut random = Random(seed() ^ 0x28);
    let mut run = Run::new();
    for trial in 0..trials {
        let report = run.drive_through_full_disk(1 + trial * 7 + random.below(7), random.below(256));
        assert!(matches!(report.ended, Ended::Orderly), "seed {}, trial {trial}: {report:?}", seed());
    }
    println!("full disks {trials}, each waited out by the driver, nothing lost");
}
