//! Pruning in a running node: old transactions go, everything that needs them says so.

use crate::chain::{Home, command, refused};
use crate::program::{set, until};
use masternode::archive::Item;
use masternode::archive::frames::ArchiveReader;
use std::process::{Child, Stdio};

/// A running node; killed when dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_gone = self.0.wait();
    }
}

impl Node {
    /// Starts it and waits until it answers: a command that finds no node takes the lock itself.
    fn start(home: &Home, dir: &str) -> Self {
        let mut run = command(home.path(), &["run", "--no-tui", "--data-dir", dir]);
        let node = Self(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until(&format!("{dir} answers"), || status(home, dir));
        node
    }
}

fn status(home: &Home, dir: &str) -> Option<serde_json::Value> {
    let output = command(home.path(), &["status", "--json", "--data-dir", dir]).output().unwrap();
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

fn height(home: &Home, dir: &str) -> Option<u64> {
    status(home, dir)?["chain"]["height"].as_u64()
}

fn prune(home: &Home, dir: &str, blocks: i64) {
    home.configure(dir, |config| {
        set(config, "storage", "prune_blocks", blocks);
    });
}

/// Waits until three blocks are left whole; the first of them, and an export of then.
fn first_whole(home: &Home, dir: &str) -> (u64, String) {
    let mut tries = 0;
    until("old blocks are pruned", || {
        tries += 1;
        let name = format!("export-of-{dir}-{tries}");
        let output = command(home.path(), &["export", &name, "--data-dir", dir]).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let last: u64 = out.split("transactions of blocks 1 to ").nth(1)?.split(',').next()?.parse().ok()?;
        let to: u64 = out.split("blocks 1 to ").nth(1)?.split(' ').next()?.parse().ok()?;
        (to - last == 3).then_some((last + 1, name))
    })
}

/// The first transaction in an export.
fn first_transaction(bytes: &[u8]) -> (u64, String) {
    let mut reader = ArchiveReader::new(bytes, "all").unwrap();
    loop {
        if let Some(Item::Block(block)) = reader.read().unwrap()
            && let Some(txid) = block.outline.txids.first()
        {
            return (block.outline.header.height, txid.to_string());
        }
    }
}

#[test]
fn a_node_that_prunes_keeps_the_newest_blocks_whole_and_says_what_it_does_not_have() {
    let home = Home::new();
    home.run(&["export", "all", "--data-dir", "node"], 0);
    let (height, txid) = first_transaction(&std::fs::read(home.join("all")).unwrap());
    prune(&home, "node", 2);
    refused(
        home.path(),
        &["run", "--no-tui", "--data-dir", "node"],
        78,
        &["`prune_blocks` is 2", "at least 3"],
    );
    prune(&home, "node", 3);
    let _node = Node::start(&home, "node");
    let (first_whole, missing) = first_whole(&home, "node");
    assert!(first_whole > height, "block {height} with a payment is among the pruned ones");
    let words = [&format!("transactions of block {height} are not kept")[..], "storage.prune_blocks"];
    refused(home.path(), &["proof", "get", &txid, "--data-dir", "node"], 1, &words);
    // Its export is good for what it holds; an import needs more.
    refused(home.path(), &["import", &missing, "--check"], 78, &["block 1 without its transactions"]);
    // The backup of it is one: headers, certificates and the state.
    let (out, _) = home.run(&["backup", "saved", "--data-dir", "node"], 0);
    assert!(out.contains(&format!("transactions of {} old blocks are not in it", first_whole - 1)), "{out}");
    home.run(&["restore", "saved", "--data-dir", "new"], 0);
    let (out, _) = home.run(&["export", "from-new", "--data-dir", "new"], 0);
    assert!(out.contains(&format!("transactions of blocks 1 to {}", first_whole - 1)), "{out}");
    let (out, _) = home.run(&["doctor", "--quick", "--data-dir", "node"], 1);
    assert!(!out.contains("ERROR"), "{out}");
}

#[test]
fn a_node_without_blocks_gets_them_from_who_has_them_though_another_has_pruned_its_own() {
    let home = Home::of_three();
    prune(&home, "node1", 3);
    home.configure("node3", |config| {
        let off: toml::Table = "snapshot = \"off\"".parse().unwrap();
        config.insert("sync".to_owned(), toml::Value::Table(off));
    });
    std::fs::remove_dir_all(home.join("node3/db")).unwrap();
    let _pruned = Node::start(&home, "node1");
    let (first, _) = first_whole(&home, "node1");
    assert!(first > 2);
    let _empty = Node::start(&home, "node3");
    let reached = height(&home, "node3").unwrap();
    let _whole = Node::start(&home, "node2");
    let due = height(&home, "node2").unwrap();
    until("the node without blocks has caught up", || (height(&home, "node3")? >= due).then_some(()));
    assert!(reached < due, "the pruned node alone was enough");
}
