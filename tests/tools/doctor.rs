//! The doctor: finds what is wrong in damaged directories, never panics, changes nothing.

use crate::chain::{Home, command, expect, picture};
use serde_json::Value;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// The findings of `masternode doctor --json`, and the exit status.
#[track_caller]
fn findings(home: &Home, dir: &str, more: &[&str]) -> (Vec<Value>, i32) {
    let scratch = home.join("scratch");
    std::fs::create_dir_all(&scratch).unwrap();
    let fixed = ["doctor", "--data-dir", dir, "--json", "--scratch", "scratch"];
    let output = command(home.path(), &[&fixed[..], more].concat()).output().unwrap();
    let status = output.status.code().unwrap();
    let (out, _) = expect(&output, status);
    assert!(std::fs::read_dir(&scratch).unwrap().next().is_none(), "copies are left");
    let json: Value = serde_json::from_str(&out).unwrap();
    let findings = json["findings"].as_array().unwrap().clone();
    let count = |severity: &str| findings.iter().filter(|found| found["severity"] == severity).count() as u64;
    assert_eq!(
        (json["errors"].as_u64(), json["warnings"].as_u64()),
        (Some(count("error")), Some(count("warning")))
    );
    let due = if count("error") > 0 { 78 } else { i32::from(count("warning") > 0) };
    assert_eq!(status, due, "{out}");
    (findings, status)
}

/// The findings of one check as `severity: what`.
fn of(findings: &[Value], check: &str) -> Vec<String> {
    let own = findings.iter().filter(|found| found["check"] == check);
    own.map(|found| format!("{}: {}", found["severity"].as_str().unwrap(), found["what"].as_str().unwrap()))
        .collect()
}

fn bad(findings: &[Value]) -> Vec<&str> {
    let bad =
        findings.iter().filter(|found| ["warning", "error"].contains(&found["severity"].as_str().unwrap()));
    bad.map(|found| found["check"].as_str().unwrap()).collect()
}

#[test]
fn a_new_node_has_no_fault_and_one_that_ran_has_its_state_hash_recounted() {
    let home = Home::new();
    for name in ["a", "b", "c"] {
        let init = ["init", "--network", "devnet", "--data-dir", name, "--name", name, "--no-passphrase"];
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        home.run(&[&init[..], &["--non-interactive", "--listen", &free]].concat(), 0);
    }
    let files = ["a/a.masternode.toml", "b/b.masternode.toml", "c/c.masternode.toml"];
    home.run(&[&["genesis", "create"][..], &files].concat(), 0);
    std::fs::copy(home.join("genesis.toml"), home.join("a/genesis.toml")).unwrap();
    let before = picture(&home.join("a"));
    let (found, status) = findings(&home, "a", &[]);
    assert_eq!((status, bad(&found)), (0, vec![]), "{found:?}");
    assert!(of(&found, "signing")[0].contains("nothing was signed"), "{found:?}");
    let (out, err) = home.run(&["doctor", "--data-dir", "a"], 0);
    assert!(out.contains("ok       config") && err.is_empty(), "{out}");
    assert!(picture(&home.join("a")) == before, "the doctor changed something");
    // The copy of a directory that has signed: everything is whole, and the next start is a safe start.
    let before = picture(&home.join("node"));
    let (found, status) = findings(&home, "node", &["--deep"]);
    assert_eq!((status, bad(&found)), (1, vec!["signing"]), "{found:?}");
    assert!(of(&found, "database")[0].starts_with("ok: ") && of(&found, "database")[0].contains("recounted"));
    assert!(of(&found, "blocks")[0].contains("every checksum"), "{found:?}");
    assert!(of(&found, "vote-log")[0].contains("records"), "{found:?}");
    assert!(of(&found, "signing")[0].contains("is a copy of another one"), "{found:?}");
    assert!(of(&found, "clock")[0].starts_with("skipped"), "{found:?}");
    assert!(picture(&home.join("node")) == before, "the doctor changed something");
    let (found, _) = findings(&home, "node", &["--quick"]);
    assert!(of(&found, "database")[0].starts_with("skipped"), "{found:?}");
}

type Damage = fn(&Path);

fn garble(path: &Path) {
    std::fs::write(path, "\u{1b}[2J \0 nonsense = [").unwrap();
}

fn halve(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at..].iter_mut().step_by(997).for_each(|byte| *byte ^= 0x55);
    std::fs::write(path, bytes).unwrap();
}

/// Removes whatever is there and puts a file in its place.
fn file_instead(path: &Path) {
    let _either = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
    std::fs::write(path, "").unwrap();
}

fn folder_instead(path: &Path) {
    std::fs::remove_file(path).unwrap();
    std::fs::create_dir(path).unwrap();
}

fn remove(path: &Path) {
    let _either = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

fn newest_segment(journal: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(journal).unwrap();
    entries.map(|entry| entry.unwrap().path()).max().unwrap()
}

#[test]
fn every_damage_is_found_where_it_is_without_a_panic_and_nothing_is_changed() {
    let damages: [(&str, &str, Damage); 24] = [
        ("masternode.toml", "config", garble),
        ("masternode.toml", "config", remove),
        ("masternode.toml", "config", folder_instead),
        ("genesis.toml", "genesis", garble),
        ("genesis.toml", "genesis", remove),
        ("genesis.toml", "genesis", folder_instead),
        ("keys/vote.key", "keys", garble),
        ("keys/vote.key", "keys", remove),
        ("keys/network.key", "keys", open_to_all),
        ("db/db", "database heights", halve),
        ("db/db", "database heights", flip),
        ("db/db", "database", garble),
        ("db/db", "database", remove),
        ("db/CHAIN", "database", garble),
        ("db/CHAIN", "database", folder_instead),
        ("db", "database", file_instead),
        ("journal", "vote-log", |path| flip(&newest_segment(path))),
        ("journal", "vote-log", |path| garble(&path.join("stray"))),
        ("journal", "signing", file_instead),
        ("journal", "signing", remove),
        ("sign_floor", "sign-floor", garble),
        ("sign_floor", "sign-floor", folder_instead),
        ("instance", "signing", garble),
        ("instance", "signing", folder_instead),
    ];
    for (number, (file, check, damage)) in damages.iter().enumerate() {
        let home = Home::new();
        damage(&home.join("node").join(file));
        let before = picture(&home.join("node"));
        let (found, status) = findings(&home, "node", &["--deep"]);
        let seen: Vec<String> = check.split(' ').flat_map(|check| of(&found, check)).collect();
        assert_ne!(status, 0, "{number} {file}");
        let told = |line: &String| !line.starts_with("ok") && !line.contains('\u{1b}');
        assert!(seen.iter().any(told), "{number} {file}: {found:?}");
        assert!(picture(&home.join("node")) == before, "{number} {file}: the doctor changed something");
    }
}

#[test]
fn a_taken_port_a_directory_of_others_and_a_full_scratch_are_told_with_a_remedy() {
    let home = Home::new();
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    home.configure("node", |config| {
        config["p2p"]["listen"] = toml::Value::String(held.local_addr().unwrap().to_string());
    });
    std::fs::set_permissions(home.join("node"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (found, status) = findings(&home, "node", &[]);
    assert_eq!(status, 78);
    assert_eq!(of(&found, "port"), ["error: another process uses it"]);
    assert!(of(&found, "directory")[0].contains("others may enter, mode 0755"), "{found:?}");
    let fixed = ["doctor", "--data-dir", "node", "--scratch", "no/such/place"];
    let (out, _) = home.run(&fixed, 78);
    assert!(out.contains("skipped  database") && out.contains("no/such/place"), "{out}");
    let (out, _) = home.run(&["doctor", "--data-dir", "nowhere"], 78);
    assert!(out.contains("ERROR    directory") && out.contains("masternode init"), "{out}");
}
