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
fn whatever_a_node_writes_is_known_and_what_would_take_the_place_of_the_database_makes_room() {
    let home = Home::new();
    home.run(&["backup", "saved", "--data-dir", "node"], 0);
    // As a new machine is prepared, and as kills in the middle of a write leave it.
    std::fs::create_dir_all(home.join("new/keys")).unwrap();
    for name in ["peers.new", "sign_floor.new", "instance.new", "bans", "bans.new", "db.old-1"] {
        std::fs::write(home.join("new").join(name), "x").unwrap();
    }
    home.run(&["restore", "saved", "--data-dir", "new"], 0);
    // The power failed when a fetched snapshot was about to become the database.
    home.copy(&home.join("node/db"), "node/db.snapshot");
    std::fs::create_dir(home.join("node/snapshot-incoming")).unwrap();
    std::fs::remove_dir_all(home.join("node/db")).unwrap();
    home.refused(&["restore", "saved", "--data-dir", "node"], 78, &["db.snapshot", "snapshot-incoming"]);
    home.run(&["restore", "saved", "--data-dir", "node", "--set-aside"], 0);
    let names = home.names("node");
    for name in ["db", "db.snapshot.old-1", "snapshot-incoming.old-1"] {
        assert!(names.iter().any(|found| found == name), "{name} is missing in {names:?}");
    }
    assert!(!names.iter().any(|name| name == "db.snapshot" || name == "snapshot-incoming"), "{names:?}");
}

#[test]
fn a_restore_that_fails_before_anything_is_renamed_does_not_cost_the_vote_log() {
    let home = Home::new();
    home.run(&["backup", "saved", "--data-dir", "node"], 0);
    // No name is left for the database.
    for number in 1..10_000 {
        std::fs::write(home.join(&format!("node/db.old-{number}")), "").unwrap();
    }
    let before = picture(&home.join("node"));
    let restore = ["restore", "saved", "--data-dir", "node", "--set-aside"];
    home.refused(&restore, 1, &["node/db", "cannot be renamed", "move them away"]);
    let names = home.names("node");
    assert!(!names.iter().any(|name| name == NOTE_FILE_NAME || name == "db.restoring"), "a trace is left");
    let content = |picture: &[(std::path::PathBuf, Vec<u8>, u32, i64, i64)]| {
        let files = picture.iter().filter(|(path, ..)| !path.ends_with("LOCK"));
        files.map(|(path, bytes, ..)| (path.clone(), bytes.clone())).collect::<Vec<_>>()
    };
    assert!(content(&picture(&home.join("node"))) == content(&before), "refused, and yet changed");
    // Something is renamed already when it fails: the note stays, and the names are told.
    std::fs::remove_file(home.join("node/db.old-7")).unwrap();
    for number in 1..10_000 {
        std::fs::write(home.join(&format!("node/journal.old-{number}")), "").unwrap();
    }
    home.refused(&restore, 1, &["node/journal", "cannot be renamed", "node/db is now", "db.old-7"]);
    assert!(home.join("node").join(NOTE_FILE_NAME).exists());
}

#[test]
fn files_come_back_under_the_names_that_the_configuration_gives_them() {
    let home = Home::new();
    std::fs::create_dir(home.join("node/secret")).unwrap();
    for (from, to) in
        [("keys/vote.key", "secret/v.key"), ("keys/network.key", "n.key"), ("genesis.toml", "net.toml")]
    {
        std::fs::rename(home.join("node").join(from), home.join("node").join(to)).unwrap();
    }
    let name = |config: &mut toml::Table, genesis: &str| {
        config.insert("genesis".to_owned(), genesis.into());
        let keys = config.entry("keys").or_insert_with(|| toml::Table::new().into());
        keys.as_table_mut().unwrap().insert("vote_key".to_owned(), "secret/v.key".into());
        keys.as_table_mut().unwrap().insert("network_key".to_owned(), "n.key".into());
    };
    home.configure("node", |config| name(config, "net.toml"));
    home.run(&["backup", "saved", "--keys", "--data-dir", "node"], 0);
    let (out, _) = home.run(&["restore", "saved", "--data-dir", "new"], 0);
    assert!(out.contains("net.toml") && out.contains("secret/v.key") && !out.contains("missing"), "{out}");
    for file in ["secret/v.key", "n.key", "net.toml"] {
        let of = |dir: &str| std::fs::read(home.join(dir).join(file)).unwrap();
        assert_eq!(of("new"), of("node"), "{file}");
    }
    assert!(!home.join("new/genesis.toml").exists());
    home.run(&["backup", "again", "--data-dir", "new"], 0);
    // Without the keys they are asked for by their places, which are known to be of the node.
    home.run(&["backup", "bare", "--data-dir", "node"], 0);
    let (out, _) = home.run(&["restore", "bare", "--data-dir", "third"], 0);
    assert!(out.contains("missing") && out.contains("third/secret/v.key"), "{out}");
    std::fs::create_dir_all(home.join("fourth/secret")).unwrap();
    std::fs::copy(home.join("node/masternode.toml"), home.join("fourth/masternode.toml")).unwrap();
    home.run(&["restore", "bare", "--data-dir", "fourth"], 0);
    // Outside of the directory nothing is written.
    let outside = home.join("net.toml");
    std::fs::rename(home.join("node/net.toml"), &outside).unwrap();
    home.configure("node", |config| name(config, outside.to_str().unwrap()));
    home.run(&["backup", "far", "--data-dir", "node"], 0);
    home.run(&["restore", "far", "--data-dir", "fifth"], 0);
    std::fs::remove_file(&outside).unwrap();
    home.refused(
        &["restore", "far", "--data-dir", "sixth"],
        78,
        &["net.toml", "outside of the data directory", "far/genesis.toml"],
    );
    assert!(!home.join("sixth").exists() && !outside.exists());
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
