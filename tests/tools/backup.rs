//! Backups: whole or not there; restored they are the same chain, and anything changed in them is noticed.

use crate::chain::{Home, command, expect, picture};
use masternode::config::Config;
use masternode::ledger::genesis::Genesis;
use masternode::ledger::store::{Store, StoreOptions};
use masternode::node::restored::NOTE_FILE_NAME;
use std::path::Path;

/// Height, state hash and number of transactions of a data directory.
fn tip(data_dir: &Path) -> (u64, String, u64) {
    let config = Config::load(&data_dir.join("masternode.toml")).unwrap();
    let text = std::fs::read_to_string(data_dir.join("genesis.toml")).unwrap();
    let genesis = Genesis::parse(&text, "genesis.toml").unwrap();
    assert_eq!(config.database_path(), data_dir.join("db"));
    let store = Store::open(&data_dir.join("db"), &genesis, StoreOptions::default()).unwrap();
    let tip = store.load().unwrap().tip();
    (tip.header.height, tip.header.utxo_hash.to_string(), tip.transactions)
}

#[test]
fn a_restored_backup_is_the_same_chain_without_votes_and_with_the_note_that_it_was_restored() {
    let home = Home::new();
    let (out, _) = home.run(&["backup", "saved", "--data-dir", "node"], 0);
    assert!(out.contains("verified backup of alpha") && out.contains("no keys"), "{out}");
    assert_eq!(home.names("saved"), ["MANIFEST.toml", "chain.archive", "genesis.toml", "masternode.toml"]);
    let (out, _) = home.run(&["restore", "saved", "--check"], 0);
    assert!(out.contains("saved: whole"), "{out}");
    let (out, _) = home.run(&["restore", "saved", "--data-dir", "new"], 0);
    assert!(out.contains("missing: put your copy of the folder `keys`"), "{out}");
    let names = home.names("new");
    assert_eq!(names, ["LOCK", "db", "genesis.toml", "masternode.toml", NOTE_FILE_NAME]);
    let before = tip(&home.join("node"));
    assert!(before.0 >= 3 && before.2 > 50, "{before:?}");
    assert_eq!(tip(&home.join("new")), before);
    // A backup of the copy holds the same.
    home.run(&["backup", "again", "--data-dir", "new"], 0);
    home.run(&["restore", "again", "--data-dir", "third"], 0);
    assert_eq!(tip(&home.join("third")), before);
}

#[test]
fn keys_are_in_a_backup_only_on_demand_and_stay_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    let (out, _) = home.run(&["backup", "saved", "--data-dir", "node", "--keys", "--json"], 0);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["keys"].as_bool(), json["node"].as_str()), (Some(true), Some("alpha")));
    home.run(&["restore", "saved", "--data-dir", "new"], 0);
    for name in ["vote.key", "network.key"] {
        let file = home.join("new/keys").join(name);
        assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(home.join("node/keys").join(name)).unwrap());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_is_there_is_never_overwritten_and_a_failed_backup_leaves_nothing() {
    let home = Home::new();
    std::fs::create_dir(home.join("full")).unwrap();
    std::fs::write(home.join("full/precious"), "x").unwrap();
    home.refused(&["backup", "full", "--data-dir", "node"], 1, &["full", "nothing is overwritten"]);
    std::fs::create_dir(home.join("empty")).unwrap();
    home.run(&["backup", "empty", "--data-dir", "node"], 0);
    home.refused(&["backup", "no/such/place", "--data-dir", "node"], 1, &["no/such", "cannot be made"]);
    // A source that cannot be read to its end.
    std::fs::remove_file(home.join("node/genesis.toml")).unwrap();
    home.refused(&["backup", "saved", "--data-dir", "node"], 78, &["genesis.toml"]);
    std::fs::copy(home.join("empty/genesis.toml"), home.join("node/genesis.toml")).unwrap();
    let database = home.join("node/db/db");
    let bytes = std::fs::read(&database).unwrap();
    std::fs::write(&database, &bytes[..bytes.len() / 2]).unwrap();
    home.refused(&["backup", "saved", "--data-dir", "node"], 78, &["node/db", "damaged"]);
    std::fs::remove_dir_all(home.join("node/db")).unwrap();
    home.refused(&["backup", "saved", "--data-dir", "node"], 78, &["never run"]);
    assert_eq!(home.names("."), ["empty", "full", "node"]);
}

#[test]
fn a_backup_that_is_killed_is_not_there_or_whole() {
    let home = Home::new();
    for round in 0..8 {
        let name = format!("saved-{round}");
        let mut child = command(home.path(), &["backup", &name, "--data-dir", "node"]).spawn().unwrap();
        // Later in each round: so many looks after the first trace of it.
        let mut looks = 0;
        while looks < round * 20 && child.try_wait().unwrap().is_none() {
            let partial = home.names(".").iter().any(|found| found.contains("partial"));
            looks += i32::from(partial || looks > 0);
            std::thread::yield_now();
        }
        let _already_gone = child.kill();
        child.wait().unwrap();
        if home.join(&name).exists() {
            home.run(&["restore", &name, "--check"], 0);
        }
    }
    home.run(&["backup", "last", "--data-dir", "node"], 0);
}

#[test]
fn a_directory_in_use_is_set_aside_on_demand_only_and_nothing_of_it_is_lost() {
    let home = Home::new();
    home.run(&["backup", "saved", "--data-dir", "node"], 0);
    let before = picture(&home.join("node"));
    home.refused(
        &["restore", "saved", "--data-dir", "node"],
        78,
        &["not empty", "db, instance", "--set-aside"],
    );
    assert!(picture(&home.join("node")) == before, "refused, and yet changed");
    let (out, _) = home.run(&["restore", "saved", "--data-dir", "node", "--set-aside"], 0);
    assert!(out.contains("node/db is now") && out.contains("node/db.old-1"), "{out}");
    let names = home.names("node");
    for name in
        ["db", "db.old-1", "instance.old-1", "journal.old-1", "sign_floor.old-1", "keys", NOTE_FILE_NAME]
    {
        assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
    }
    for name in ["instance", "journal", "sign_floor"] {
        assert!(!names.iter().any(|found| found == name), "{name} is there: {names:?}");
    }
    for (path, bytes, ..) in before.iter().filter(|(path, ..)| path.is_file()) {
        let same = std::fs::read(path).ok().as_ref() == Some(bytes);
        let inside = path.strip_prefix(home.join("node")).unwrap().to_str().unwrap();
        let moved = ["db", "instance", "journal", "sign_floor"].iter().find_map(|name| {
            let rest = inside.strip_prefix(name)?;
            Some(home.join(&format!("node/{name}.old-1{rest}")))
        });
        let kept = moved.is_some_and(|moved| std::fs::read(moved).ok().as_ref() == Some(bytes));
        assert!(same || kept || inside == "LOCK", "{inside} is lost");
    }
    // Something that is not of a node at all.
    std::fs::create_dir(home.join("photos")).unwrap();
    std::fs::write(home.join("photos/cat"), "x").unwrap();
    home.refused(&["restore", "saved", "--data-dir", "photos"], 78, &["`cat`", "empty directory"]);
    // And one of another network.
    let text = std::fs::read_to_string(home.join("saved/genesis.toml")).unwrap();
    std::fs::create_dir(home.join("other")).unwrap();
    std::fs::write(home.join("other/genesis.toml"), text.replace("name = \"", "name = \"not-")).unwrap();
    home.refused(&["restore", "saved", "--data-dir", "other"], 78, &["other/genesis.toml", "is of chain"]);
    assert_eq!(home.names("other"), ["genesis.toml"]);
}

#[test]
fn every_file_of_a_backup_that_is_not_as_it_was_written_is_named_before_anything_is_touched() {
    let home = Home::new();
    home.run(&["backup", "saved", "--data-dir", "node"], 0);
    for name in home.names("saved") {
        let file = home.join("saved").join(&name);
        let bytes = std::fs::read(&file).unwrap();
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for (change, changed) in
            [("flipped", &flipped[..]), ("cut", &bytes[..bytes.len() / 3]), ("empty", &[])]
        {
            std::fs::write(&file, changed).unwrap();
            for arguments in
                [&["restore", "saved", "--check"][..], &["restore", "saved", "--data-dir", "new"]]
            {
                let output = command(home.path(), arguments).output().unwrap();
                let (_, err) = expect(&output, 78);
                assert!(err.contains("saved"), "{name} {change}: {err}");
            }
        }
        std::fs::remove_file(&file).unwrap();
        assert!(
            !command(home.path(), &["restore", "saved", "--check"]).status().unwrap().success(),
            "{name}"
        );
        std::fs::write(&file, &bytes).unwrap();
    }
    assert!(!home.join("new").exists());
    home.refused(&["restore", "nowhere", "--check"], 78, &["nowhere", "masternode backup"]);
    let manifest = std::fs::read_to_string(home.join("saved/MANIFEST.toml")).unwrap();
    std::fs::write(home.join("saved/MANIFEST.toml"), manifest.replace("format = 1", "format = 2")).unwrap();
    home.refused(&["restore", "saved", "--check"], 78, &["format 2", "reads 1"]);
}
