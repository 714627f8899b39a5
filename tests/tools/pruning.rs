//! Pruning in a running node: old transactions go, everything that needs them says so.

use crate::chain::{Home, command, refused};
use masternode::archive::Item;
use masternode::archive::frames::ArchiveReader;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Far above what anything here needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running node; killed when dropped.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_gone = self.0.wait();
    }
}

/// Polls until `condition` gives a value.
#[track_caller]
fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
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
    let file = home.join("node/masternode.toml");
    let mut config: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    config.insert("storage".to_owned(), toml::Value::Table("prune_blocks = 2".parse().unwrap()));
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();
    refused(
        home.path(),
        &["run", "--no-tui", "--data-dir", "node"],
        78,
        &["`prune_blocks` is 2", "at least 3"],
    );
    config["storage"]["prune_blocks"] = toml::Value::Integer(3);
    std::fs::write(&file, toml::to_string(&config).unwrap()).unwrap();

    let mut run = command(home.path(), &["run", "--no-tui", "--data-dir", "node"]);
    let _node = Node(run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    // A command that finds no node takes the lock itself.
    until("the node answers", || {
        let status = command(home.path(), &["status", "--data-dir", "node"]).output().unwrap();
        status.status.success().then_some(())
    });
    let (mut tries, mut missing) = (0, String::new());
    let first_whole = until("old blocks are pruned", || {
        tries += 1;
        let name = format!("export-{tries}");
        let output = command(home.path(), &["export", &name, "--data-dir", "node"]).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = out.split("transactions of blocks 1 to ").nth(1)?;
        let last: u64 = told.split(',').next()?.parse().ok()?;
        missing = name;
        // As many blocks as are to be kept are kept.
        let to: u64 = out.split("blocks 1 to ").nth(1)?.split(' ').next()?.parse().ok()?;
        (to - last == 3).then_some(last + 1)
    });
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
