//! Formats of the database: an older one is migrated and survives a kill at any point, a newer one is
//! refused and not touched.
//!
//! `tests/fixtures/format-3.tar.gz` is a data directory as a program of format 3 has left it.

use crate::chain::{Home, command, expect, picture, run};
use std::path::Path;
use std::process::Command;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-3.tar.gz");

fn unpack(into: &Path) {
    std::fs::create_dir(into).unwrap();
    let done = Command::new("tar").arg("-xzf").arg(FIXTURE).arg("-C").arg(into).status().unwrap();
    assert!(done.success());
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(into, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn marker(dir: &Path) -> String {
    let text = std::fs::read_to_string(dir.join("db/CHAIN")).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

/// Height, block and state hash as a backup says.
#[track_caller]
fn state(home: &Path, dir: &str, backup: &str) -> String {
    let (out, _) = run(home, &["backup", backup, "--data-dir", dir, "--json"], 0);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    format!("{} {} {}", json["height"], json["block"], json["state_hash"])
}

#[test]
fn an_older_database_is_migrated_once_and_holds_the_same_afterwards() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path();
    unpack(&home.join("old"));
    assert_eq!(marker(&home.join("old")), "format 3");
    // The doctor reads it, and leaves it as it is.
    let before = picture(&home.join("old"));
    let output = command(home, &["doctor", "--data-dir", "old"]).output().unwrap();
    let (out, _) = expect(&output, 78);
    assert!(out.contains("ok       database") && picture(&home.join("old")) == before, "{out}");
    let first = state(home, "old", "a");
    assert!(first.starts_with(|digit: char| ('1'..='9').contains(&digit)), "{first}");
    assert_eq!(marker(&home.join("old")), "format 4");
    assert_eq!(state(home, "old", "b"), first);
    let (out, _) = run(home, &["export", "all", "--data-dir", "old"], 0);
    assert!(out.contains("blocks 1 to"), "{out}");
}

#[test]
fn a_migration_that_is_killed_at_any_point_goes_on_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path();
    unpack(&home.join("whole"));
    let expected = state(home, "whole", "whole-backup");
    // Killed between the marker and the first step.
    unpack(&home.join("between"));
    let file = home.join("between/db/CHAIN");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("format 3", "format 4")).unwrap();
    assert_eq!(state(home, "between", "between-backup"), expected);
    for round in 0u32..25 {
        let name = format!("killed-{round}");
        unpack(&home.join(&name));
        let mut child =
            command(home, &["backup", &format!("{name}-x"), "--data-dir", &name]).spawn().unwrap();
        // Later in each round, by so many looks.
        for _ in 0..round * 40 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        let _already_gone = child.kill();
        child.wait().unwrap();
        assert_eq!(state(home, &name, &format!("{name}-backup")), expected, "round {round}");
        assert_eq!(marker(&home.join(&name)), "format 4");
    }
}

#[test]
fn a_newer_database_is_refused_with_both_versions_and_not_a_byte_of_the_directory_changes() {
    let home = Home::new();
    home.run(&["export", "all", "--data-dir", "node"], 0);
    let file = home.join("node/db/CHAIN");
    let text = std::fs::read_to_string(&file).unwrap();
    for newer in ["5", "4294967295", "99999999999999999999"] {
        std::fs::write(&file, text.replace("format 4", &format!("format {newer}"))).unwrap();
        let before = picture(&home.join("node"));
        for arguments in
            [&["run", "--no-tui"][..], &["backup", "saved"], &["export", "x"], &["import", "all"]]
        {
            let arguments = [arguments, &["--data-dir", "node"]].concat();
            let found = format!("database format {newer}");
            home.refused(&arguments, 78, &[&found, "3 to 4", "changed nothing"]);
            assert!(picture(&home.join("node")) == before, "{arguments:?} changed something");
        }
        let (out, _) = home.run(&["doctor", "--data-dir", "node"], 78);
        assert!(out.contains(&format!("database format {newer}")), "{out}");
        assert!(picture(&home.join("node")) == before, "the doctor changed something");
    }
}
