//! A node that begins with a snapshot, over real sockets: a validator that was never there joins a chain,
//! goes on with blocks, and signs after the safe start of a new directory.

use super::*;
use crate::config::SnapshotSync;
use crate::ledger::store::{Store, StoreOptions};

/// Blocks between two snapshots.
const EVERY: u64 = 4;

/// Four masternodes of a chain that was founded long enough ago for snapshots to be looked for.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new(4);
    cluster.genesis.time_ms = clock::wall_ms() - 11 * 60 * 1000;
    cluster
}

async fn begin(cluster: &mut Cluster, number: usize, snapshot: SnapshotSync) -> NodeHandle {
    let mut options = cluster.options(number);
    options.config.sync.snapshot = snapshot;
    options.config.storage.snapshot_blocks = EVERY;
    let handle = start(options).await.unwrap();
    cluster.running[number] = Some(handle.clone());
    handle
}

fn has_snapshot(node: &NodeHandle) -> bool {
    let folder = node.data_dir().join("snapshots");
    let finished = |path: PathBuf| path.extension().is_none() && path.join("index").exists();
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(|entry| finished(entry.path())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_validator_begins_with_a_snapshot_follows_the_chain_and_signs_after_a_safe_start() {
    let mut cluster = cluster();
    let mut nodes = Vec::new();
    for number in 0..3 {
        nodes.push(begin(&mut cluster, number, SnapshotSync::Off).await);
    }
    let coin = cluster.payment(0);
    finalised(&nodes[0], &[&nodes[1]], coin).await;
    for node in &nodes {
        until(node, "a snapshot", has_snapshot).await;
    }
    let late = begin(&mut cluster, 3, SnapshotSync::Auto).await;
    let begun_at = height(&late);
    assert!(begun_at >= EVERY, "it began at {begun_at}");
    assert!(!late.data_dir().join("snapshot-incoming").exists());
    until(&late, "a block after the snapshot", |node| height(node) > begun_at).await;
    until(&late, "its votes", is_signing).await;
    let payment = cluster.payment(1);
    finalised(&late, &[&nodes[0], &late], payment).await;
    late.ledger().recount().unwrap();
    let reached = height(&late);
    cluster.stop(3).await;
    let dir = cluster.root.path().join("n4");
    let store =
        Store::open(&dir.join("db"), &cluster.genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
    let first = store.first_block().unwrap();
    assert_eq!((first > 1, first % EVERY), (true, 1), "its first block is {first}");
    drop(store);
    // And it starts again like any other.
    let again = begin(&mut cluster, 3, SnapshotSync::Auto).await;
    assert!(height(&again) >= reached);
    until(&again, "its votes", is_signing).await;
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_that_finds_no_snapshot_goes_on_with_blocks() {
    let mut cluster = cluster();
    let mut nodes = Vec::new();
    for number in 0..3 {
        let mut options = cluster.options(number);
        options.config.sync.snapshot = SnapshotSync::Off;
        options.config.storage.snapshots_kept = 0;
        let handle = start(options).await.unwrap();
        cluster.running[number] = Some(handle.clone());
        nodes.push(handle);
    }
    until(&nodes[0], "two blocks", |node| height(node) >= 2).await;
    let late = begin(&mut cluster, 3, SnapshotSync::Auto).await;
    until(&late, "the chain", |node| height(node) >= 2).await;
    cluster.stop(3).await;
    let dir = cluster.root.path().join("n4/db");
    let store = Store::open(&dir, &cluster.genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
    assert_eq!(store.first_block().unwrap(), 1);
    cluster.stop_all().await;
}
