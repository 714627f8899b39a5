//! Export and import: what was exported is executed again to the same state, and nothing is believed.

use crate::chain::{Home, command, expect};
use masternode::archive::Item;
use masternode::archive::frames::{ArchiveReader, ArchiveWriter};
use std::io::Write as _;
use std::process::Stdio;

/// A directory with the configuration and the genesis of the node, and no chain.
fn empty(home: &Home, name: &str) {
    std::fs::create_dir(home.join(name)).unwrap();
    for file in ["masternode.toml", "genesis.toml"] {
        std::fs::copy(home.join("node").join(file), home.join(name).join(file)).unwrap();
    }
}

/// Height of a stopped node, as its backup says.
#[track_caller]
fn height(home: &Home, dir: &str) -> u64 {
    let target = format!("height-of-{dir}-{}", home.names(".").len());
    let (out, _) = home.run(&["backup", &target, "--data-dir", dir, "--json"], 0);
    serde_json::from_str::<serde_json::Value>(&out).unwrap()["height"].as_u64().unwrap()
}

#[test]
fn blocks_exported_and_imported_give_the_same_chain_once_and_again_and_in_parts() {
    let home = Home::new();
    let (out, _) = home.run(&["export", "all.archive", "--data-dir", "node"], 0);
    assert!(out.contains("all.archive: blocks 1 to ") && out.contains("read back and right"), "{out}");
    let tip = height(&home, "node");
    empty(&home, "new");
    let (out, _) = home.run(&["import", "all.archive", "--data-dir", "new"], 0);
    assert!(out.contains(&format!("{tip} blocks imported, 0 were there")), "{out}");
    let (again, _) = home.run(&["import", "all.archive", "--data-dir", "new"], 0);
    assert!(again.contains(&format!("0 blocks imported, {tip} were there")), "{again}");
    let hash = |text: &str| text.split("state hash ").nth(1).unwrap()[..64].to_owned();
    let (checked, _) = home.run(&["import", "all.archive", "--check"], 0);
    assert!(checked.contains("compare the chain") && hash(&checked) == hash(&out), "{checked}");
    // In parts, of which the second does not go before the first.
    home.run(&["export", "first.archive", "--to", "3", "--data-dir", "node"], 0);
    home.run(&["export", "rest.archive", "--from", "3", "--data-dir", "new"], 0);
    empty(&home, "parts");
    home.refused(&["import", "rest.archive", "--data-dir", "parts"], 78, &["block 1 is the next one"]);
    home.run(&["import", "first.archive", "--data-dir", "parts"], 0);
    let (out, _) = home.run(&["import", "rest.archive", "--data-dir", "parts"], 0);
    assert!(out.contains("1 were there"), "{out}");
    assert_eq!(height(&home, "parts"), tip);
    // As a stream, from one process into another.
    empty(&home, "streamed");
    let export = command(home.path(), &["export", "-", "--data-dir", "node"]).output().unwrap();
    assert!(export.status.success());
    let mut import = command(home.path(), &["import", "-", "--data-dir", "streamed"]);
    let mut import =
        import.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    import.stdin.take().unwrap().write_all(&export.stdout).unwrap();
    let (out, _) = expect(&import.wait_with_output().unwrap(), 0);
    assert!(out.contains(&format!("{tip} blocks imported")), "{out}");
}

#[test]
fn a_database_that_waits_for_its_place_is_put_there_first_and_the_one_in_it_is_kept() {
    let home = Home::new();
    home.run(&["export", "all.archive", "--data-dir", "node"], 0);
    let tip = height(&home, "node");
    // Nothing is in its place: it is what the node has.
    empty(&home, "new");
    home.copy(&home.join("node/db"), "new/db.snapshot");
    home.run(&["export", "again.archive", "--data-dir", "new"], 0);
    assert!(home.join("new/db/CHAIN").exists() && !home.join("new/db.snapshot").exists());
    // Something has come there: the next start would put it away, with all that was imported into it.
    home.copy(&home.join("node/db"), "new/db.snapshot");
    let (out, _) = home.run(&["import", "all.archive", "--data-dir", "new"], 0);
    assert!(out.contains(&format!("0 blocks imported, {tip} were there")), "{out}");
    assert!(home.join("new/db.old-1/CHAIN").exists() && !home.join("new/db.snapshot").exists());
    assert_eq!(height(&home, "new"), tip);
}

#[test]
fn what_cannot_be_exported_or_imported_is_refused_with_the_reason() {
    let home = Home::new();
    std::fs::write(home.join("there"), "precious").unwrap();
    home.refused(&["export", "there", "--data-dir", "node"], 1, &["there", "never overwritten"]);
    home.refused(&["export", "x", "--from", "9", "--to", "2", "--data-dir", "node"], 2, &["--to is below"]);
    home.refused(
        &["export", "x", "--from", "9999", "--data-dir", "node"],
        1,
        &["9999", "this node has 1 to"],
    );
    home.refused(
        &["import", "there", "--data-dir", "node"],
        78,
        &["no archive of blocks", "masternode export"],
    );
    home.refused(&["import", "nowhere", "--data-dir", "node"], 1, &["nowhere"]);
    assert!(!home.names(".").iter().any(|name| name.contains("partial")), "{:?}", home.names("."));
    home.run(&["export", "all.archive", "--data-dir", "node"], 0);
    // Another network.
    empty(&home, "other");
    let genesis = std::fs::read_to_string(home.join("other/genesis.toml")).unwrap();
    std::fs::write(home.join("other/genesis.toml"), genesis.replace("name = \"", "name = \"not-")).unwrap();
    home.refused(&["import", "all.archive", "--data-dir", "other"], 78, &["is of chain"]);
    // Cut off: what came is kept, and the rest follows.
    let bytes = std::fs::read(home.join("all.archive")).unwrap();
    std::fs::write(home.join("cut.archive"), &bytes[..bytes.len() / 2]).unwrap();
    empty(&home, "new");
    home.refused(&["import", "cut.archive", "--data-dir", "new"], 78, &["cut.archive: ends at byte"]);
    assert!(height(&home, "new") > 0);
    home.run(&["import", "all.archive", "--data-dir", "new"], 0);
    assert_eq!(height(&home, "new"), height(&home, "node"));
}

#[test]
fn a_forged_block_is_refused_by_its_number_though_every_checksum_is_right() {
    let home = Home::new();
    home.run(&["export", "all.archive", "--data-dir", "node"], 0);
    let bytes = std::fs::read(home.join("all.archive")).unwrap();
    let mut reader = ArchiveReader::new(&bytes[..], "all").unwrap();
    let good: Vec<Item> = std::iter::from_fn(|| reader.read().unwrap()).collect();
    let forged = |name: &str, change: &dyn Fn(&mut masternode::archive::BlockItem)| {
        let mut writer = ArchiveWriter::new(Vec::new(), name).unwrap();
        for item in &good {
            let mut item = item.clone();
            if let Item::Block(block) = &mut item
                && block.outline.header.height == 4
            {
                change(block);
            }
            writer.item(&item).unwrap();
        }
        std::fs::write(home.join(name), writer.finish().unwrap()).unwrap();
        empty(&home, &format!("from-{name}"));
        let dir = format!("from-{name}");
        home.refused(&["import", name, "--data-dir", &dir], 78, &["block 4"]);
        home.refused(&["import", name, "--check"], 78, &["block 4"]);
        assert_eq!(height(&home, &dir), 3, "{name}");
    };
    forged("signature", &|block| block.commit.signatures[0].0[5] ^= 1);
    forged("too-few", &|block| {
        let votes = block.commit.votes().unwrap()[..1].to_vec();
        block.commit = masternode::primitives::certificate::Qc::new(
            block.commit.round,
            block.commit.step,
            block.commit.block,
            votes,
        );
    });
    forged("header", &|block| {
        block.outline.header.time_ms += 1;
        block.commit.block = block.outline.header.id();
    });
}
