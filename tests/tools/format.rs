//! Formats of the database: an older one is migrated and survives a kill at any point, a newer one is
//! refused and not touched.
//!
//! `tests/fixtures/format-3.tar.gz` is a data directory as a program of format 3 has left it.

use crate::chain::{Home, command, expect, picture, refused, run};
use masternode::ledger::genesis::Genesis;
use masternode::ledger::store::{Store, StoreOptions};
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

/// Height, block and state hash of the database, which is brought to the present format by that.
#[track_caller]
fn state(home: &Path, dir: &str) -> String {
    let text = std::fs::read_to_string(home.join(dir).join("genesis.toml")).unwrap();
    let genesis = Genesis::parse(&text, "genesis.toml").unwrap();
    let store = Store::open(&home.join(dir).join("db"), &genesis, StoreOptions::default()).unwrap();
    let header = store.load().unwrap().tip().header.clone();
    format!("{} {} {}", header.height, header.id(), header.utxo_hash)
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
    // So do those that would read it to write something else.
    for arguments in [["backup", "saved"], ["export", "all"]] {
        let arguments = [&arguments[..], &["--data-dir", "old"]].concat();
        refused(home, &arguments, 78, &["database format 3", "start the node once", "copy the folder"]);
        assert!(picture(&home.join("old")) == before, "{arguments:?} changed something");
    }
    let first = state(home, "old");
    assert!(first.starts_with(|digit: char| ('1'..='9').contains(&digit)), "{first}");
    assert_eq!(marker(&home.join("old")), "format 5");
    assert_eq!(state(home, "old"), first);
    let (out, _) = run(home, &["export", "all", "--data-dir", "old"], 0);
    assert!(out.contains("blocks 1 to"), "{out}");
}

#[test]
fn a_migration_that_is_killed_at_any_point_goes_on_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let home = root.path();
    unpack(&home.join("whole"));
    let expected = state(home, "whole");
    run(home, &["export", "some", "--to", "1", "--data-dir", "whole"], 0);
    // Killed between the marker and the first step.
    unpack(&home.join("between"));
    let file = home.join("between/db/CHAIN");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("format 3", "format 5")).unwrap();
    assert_eq!(state(home, "between"), expected);
    let mut killed_early = 0;
    for round in 0u32..25 {
        let name = format!("killed-{round}");
        unpack(&home.join(&name));
        // An import of what is there already opens the database as a start does.
        let mut child = command(home, &["import", "some", "--data-dir", &name]).spawn().unwrap();
        // Later in each round, by so many looks.
        for _ in 0..round * 40 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        let _already_gone = child.kill();
        killed_early += u32::from(!child.wait().unwrap().success());
        assert_eq!(state(home, &name), expected, "round {round}");
        assert_eq!(marker(&home.join(&name)), "format 5");
    }
    assert!(killed_early > 0, "nothing was ever interrupted");
}

#[test]
fn a_newer_database_is_refused_with_both_versions_and_not_a_byte_of_the_directory_changes() {
    let home = Home::new();
    home.run(&["export", "all", "--data-dir", "node"], 0);
    let file = home.join("node/db/CHAIN");
    let text = std::fs::read_to_string(&file).unwrap();
    for newer in ["6", "4294967295", "99999999999999999999"] {
        std::fs::write(&file, text.replace("format 5", &format!("format {newer}"))).unwrap();
        let before = picture(&home.join("node"));
        for arguments in
            [&["run", "--no-tui"][..], &["backup", "saved"], &["export", "x"], &["import", "all"]]
        {
            let arguments = [arguments, &["--data-dir", "node"]].concat();
            let found = format!("database format {newer}");
            home.refused(&arguments, 78, &[&found, "3 to 5", "changed nothing"]);
            assert!(picture(&home.join("node")) == before, "{arguments:?} changed something");
        }
        let (out, _) = home.run(&["doctor", "--data-dir", "node"], 78);
        assert!(out.contains(&format!("database format {newer}")), "{out}");
        assert!(picture(&home.join("node")) == before, "the doctor changed something");
    }
}
