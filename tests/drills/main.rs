//! Drills with daemons of the real binary, for what operators do to keys, data directories and processes: a cloned
//! key, an old backup, a deleted vote log, a copied directory. In each, at most one process signs with a
//! key in an era, nobody signs twice, the process that must not sign says why, and at the end the
//! masternode signs again by itself.
//!
//! A process that is stopped for a while (`MASTERNODE_PAUSE_S` seconds, 13 without it) is a drill of its own kind:
//! connections, not keys.
//!
//! `MASTERNODE_DRILLS=100 cargo test --release --test drills -- --nocapture` runs each of them 100 times;
//! without the variable each runs once. Nothing here sleeps to make a test pass: everything polls with a
//! deadline.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod daemons;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
mod recorder;

use daemons::Daemons;
use program::until;
use std::time::{Duration, Instant};

fn rounds() -> usize {
    std::env::var("MASTERNODE_DRILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Longer than the 10 s after which a silent connection is given up.
fn pause_s() -> u64 {
    std::env::var("MASTERNODE_PAUSE_S").ok().and_then(|text| text.parse().ok()).unwrap_or(13)
}

/// What an operator reads of a node that must not sign.
#[track_caller]
fn explains(daemons: &Daemons, dir: &str, parts: &[&str]) {
    until(&format!("{dir} does not sign and says {parts:?}"), || {
        let status = daemons.status(dir)?;
        let state = &status["state"];
        let text = format!("{} {}", state["stage"].as_str()?, state["reason"].as_str()?);
        (state["state"] == "not-signing" && parts.iter().all(|part| text.contains(part))).then_some(())
    });
}

/// Which of two processes with one key does not sign, once that is settled.
fn stands_back<'a>(daemons: &Daemons, one: &'a str, other: &'a str) -> &'a str {
    let states = |name: &str| Some(daemons.status(name)?["state"]["state"].as_str()?.to_owned());
    until(&format!("{one} or {other} signs, and not both"), || {
        match (states(one)?.as_str(), states(other)?.as_str()) {
            ("not-signing", "signing") => Some(one),
            ("signing", "not-signing") => Some(other),
            _ => None,
        }
    })
}

/// The keys alone, in a new directory, while the original signs.
fn cloned_key(daemons: &mut Daemons, victim: &str) {
    daemons.clone_keys(victim, "clone");
    daemons.start("clone");
    // It says which message of the other it has seen or, on its way through the chain, which `Resume`.
    explains(daemons, "clone", &["another process"]);
    daemons.alerts(victim, "holds the vote key of this node");
    daemons.two_more_blocks();
    assert_eq!(daemons.votes_sent("clone"), 0);
    daemons.until_state(victim, "signing");
    daemons.stop("clone");
    daemons.remove("clone");
}

/// A copy of the whole directory beside the original: the original signs on; when it is stopped the copy
/// takes over, and the original stands back when it is started again.
///
/// On a machine so busy that the original, just started, is silent for a whole era, the copy takes over at
/// once: then it is the original that says so.
fn copied_directory(daemons: &mut Daemons, victim: &str) {
    daemons.stop(victim);
    daemons.copy(victim, "copy");
    daemons.start(victim);
    daemons.until_state(victim, "signing");
    daemons.start("copy");
    let in_order = stands_back(daemons, "copy", victim) == "copy";
    if in_order {
        explains(daemons, "copy", &["another process signs with this key", "is a copy of another one"]);
        daemons.alerts(victim, "holds the vote key of this node");
        daemons.two_more_blocks();
        assert_eq!(daemons.votes_sent("copy"), 0);
        daemons.until_state(victim, "signing");
        daemons.stop(victim);
        daemons.until_state("copy", "signing");
        daemons.start(victim);
    } else {
        println!("the original was silent for an era: the copy took over before it was stopped");
    }
    explains(daemons, victim, &["resume"]);
    daemons.alerts("copy", "holds the vote key of this node");
    daemons.two_more_blocks();
    daemons.until_state("copy", "signing");
    // What it had signed before it stood back counts where it was not started anew.
    let sent = daemons.votes_sent(victim);
    assert!(!in_order || sent == 0, "{victim} has sent {sent} votes");
    daemons.two_more_blocks();
    assert_eq!(daemons.votes_sent(victim), sent);
    daemons.stop("copy");
    daemons.remove("copy");
    daemons.restart(victim);
}

/// An earlier copy put in the place of the directory, after the node has signed on.
fn old_backup_in_place(daemons: &mut Daemons, victim: &str) {
    back_up(daemons, victim);
    daemons.kill(victim);
    daemons.remove(victim);
    daemons.rename("backup", victim);
    // A copy has other inodes than what was copied.
    daemons.start(victim);
    explains(daemons, victim, &["is a copy of another one"]);
}

/// An earlier copy started elsewhere, the original being gone.
fn old_backup_elsewhere(daemons: &mut Daemons, victim: &str) {
    back_up(daemons, victim);
    daemons.kill(victim);
    daemons.start("backup");
    explains(daemons, "backup", &["is a copy of another one"]);
    daemons.until_state("backup", "signing");
    daemons.two_more_blocks();
    daemons.stop("backup");
    daemons.remove("backup");
    daemons.start(victim);
    explains(daemons, victim, &["resume"]);
    daemons.restart(victim);
}

/// Copies the directory, and lets the node sign for some blocks more.
fn back_up(daemons: &mut Daemons, victim: &str) {
    daemons.stop(victim);
    daemons.copy(victim, "backup");
    daemons.start(victim);
    daemons.until_state(victim, "signing");
    daemons.two_more_blocks();
}

fn deleted_log(daemons: &mut Daemons, victim: &str) {
    daemons.kill(victim);
    daemons.remove(&format!("{victim}/journal"));
    daemons.start(victim);
    explains(daemons, victim, &["the vote log is missing"]);
}

/// A backup of the running node, restored over its directory after it has signed on.
fn restored_backup(daemons: &mut Daemons, victim: &str) {
    daemons.succeeds_at(victim, "backup", "saved", &[]);
    until(&format!("the doctor has {victim} recount its database"), || {
        let report = daemons.doctor(victim);
        let mut database = report["findings"].as_array()?.iter().filter(|found| found["check"] == "database");
        database
            .find(|found| found["what"].as_str().unwrap_or_default().contains("recounted by the node"))?;
        Some(())
    });
    daemons.two_more_blocks();
    daemons.kill(victim);
    daemons.succeeds_at(victim, "restore", "saved", &["--set-aside"]);
    daemons.start(victim);
    explains(daemons, victim, &["restored from a backup", "height"]);
    daemons.remove("saved");
}

/// The process stopped for longer than any connection lives: the others drop it by their transport and blame it
/// for nothing, it blames nobody, says how long it was away, and is connected to all again at once.
fn stopped_process(daemons: &mut Daemons, victim: &str) {
    let lasted = Duration::from_secs(pause_s());
    daemons.pause(victim, lasted);
    let begun = Instant::now();
    let told = until(&format!("{victim} says that it stood still"), || {
        daemons.status(victim)?["host"]["standstill"]["lasted_ms"].as_u64()
    });
    assert!(told + 3_000 >= 1_000 * pause_s(), "{told} ms of {lasted:?}");
    until(&format!("{victim} is connected to all others again"), || {
        (daemons.members(victim)? == 3).then_some(())
    });
    for name in (0..4).map(|index| daemons.name(index)) {
        let peers = &daemons.status(name).unwrap()["peers"];
        assert_eq!(peers["automatic_bans"].as_u64(), Some(0), "{name} bans whoever was stopped");
    }
    println!("{victim} was stopped for {lasted:?} and connected to all others {:.1?} later", begun.elapsed());
    daemons.two_more_blocks();
}

type Drill = fn(&mut Daemons, &str);

#[test]
fn every_drill_ends_without_a_double_vote_with_a_clear_message_and_with_the_masternode_back() {
    let drills: [(&str, Drill); 7] = [
        ("cloned key", cloned_key),
        ("copied directory", copied_directory),
        ("old backup in place", old_backup_in_place),
        ("old backup elsewhere", old_backup_elsewhere),
        ("deleted log", deleted_log),
        ("restored backup", restored_backup),
        ("stopped process", stopped_process),
    ];
    let mut daemons = Daemons::found();
    for round in 0..rounds() {
        for (number, (name, drill)) in drills.iter().enumerate() {
            let victim = daemons.name(round + number).to_owned();
            let begun = Instant::now();
            drill(&mut daemons, &victim);
            daemons.until_state(&victim, "signing");
            let votes = daemons.recorder.check();
            println!(
                "round {} {name} of {victim}: {:.1} s, {votes} messages of voters recorded, 0 signed twice",
                round + 1,
                begun.elapsed().as_secs_f64()
            );
        }
    }
    daemons.stop_all();
}
