//! Whether a node begins with a snapshot, and the beginning of one that does.
//!
//! A node without blocks that trusts a block, or a genesis that is young enough to be trusted and too old
//! for the chain to have just begun, joins the network before it opens its database, fetches a snapshot,
//! and puts it in the place of the database. Whatever goes wrong, it goes on with blocks. The connections
//! stay and are handed to the node.

use crate::config::{Config, SnapshotSync};
use crate::ledger::genesis::Genesis;
use crate::ledger::store::folder::MARKER;
use crate::ledger::store::{Store, StoreOptions};
use crate::network::{Identity, Network, NetworkEvent};
use crate::node::clock;
use crate::node::floor::FLOOR_FILE_NAME;
use crate::node::hub::{Hub, Phase};
use crate::node::journal::Journal;
use crate::node::settings;
use crate::node::snapshots::fetch::{Fetch, NoSnapshot, Progress, Target};
use crate::node::snapshots::incoming;
use crate::node::snapshots::peers::{Peers, Wire};
use crate::node::snapshots::plan::Patience;
use crate::node::snapshots::swap::{self, Exchange};
use crate::node::snapshots::trail::{Anchor, Trail};
use crate::node::start::NodeError;
use crate::node::tasks::Stopper;
use crate::primitives::clean::CleanText;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::available_parallelism;
use tokio::sync::mpsc;

/// Age of a genesis from which on the chain may have snapshots.
const GENESIS_AGE_MIN_MS: u64 = 10 * 60 * 1000;
/// Memory of the database while it is filled: what lies in pages that are not written yet.
const CACHE_BYTES: u64 = 256 << 20;

/// A network that was joined before the database was opened.
pub struct Joined {
    pub network: Arc<Network>,
    pub received: mpsc::Receiver<NetworkEvent>,
    /// What was received of it already.
    pub early: Vec<NetworkEvent>,
    /// Told to peers as the node's height.
    pub height: Arc<AtomicU64>,
}

/// What a node may begin with a snapshot from; `None` if it is to begin with blocks.
///
/// # Errors
/// [`NodeError`] when the database or the vote log cannot be read.
pub fn anchor(config: &Config, genesis: &Genesis) -> Result<Option<Anchor>, NodeError> {
    let off = config.sync.snapshot == SnapshotSync::Off;
    let alone = config.p2p.bootstrap.is_empty() && !config.peers_path().exists();
    if off || alone || has_blocks(config, genesis)? {
        return Ok(None);
    }
    if let Some(trusted) = config.sync.trusted_block.filter(|trusted| trusted.height > 0) {
        return Ok(Some(Anchor::Block(trusted)));
    }
    let age_ms = clock::wall_ms().saturating_sub(genesis.time_ms);
    let usable = (GENESIS_AGE_MIN_MS..genesis.params.trust_ms).contains(&age_ms);
    Ok(usable.then(|| Anchor::Header(Box::new(genesis.state().header))))
}

/// Whether this node has a block, or may have signed one. Opens the database only if it looks like a new
/// one.
fn has_blocks(config: &Config, genesis: &Genesis) -> Result<bool, NodeError> {
    let database = config.database_path();
    if !database.join(MARKER).exists() {
        return Ok(false);
    }
    let begun = Journal::heights(&config.journal_path())?.is_some_and(|(_, newest)| newest > 1);
    if begun || config.data_dir.join(FLOOR_FILE_NAME).exists() {
        return Ok(true);
    }
    let options = StoreOptions { cache_bytes: config.storage.cache_bytes };
    Ok(Store::open(&database, genesis, options)?.height() > 0)
}

/// Removes what was fetched of a snapshot when the node has gone on with blocks: it is of no use any more.
///
/// # Errors
/// [`NodeError`] when the database or the vote log cannot be read.
pub fn clear_left(config: &Config, genesis: &Genesis) -> Result<(), NodeError> {
    let folder = incoming_folder(config);
    if folder.exists() && has_blocks(config, genesis)? {
        forget(&folder);
    }
    Ok(())
}

/// Completes the exchange of a database that was interrupted.
///
/// # Errors
/// [`NodeError::Snapshot`].
pub fn complete(config: &Config) -> Result<(), NodeError> {
    let database = config.database_path();
    match swap::complete(&database) {
        Ok(Exchange::Done) => tracing::info!(event = "snapshot", "put the fetched snapshot in place"),
        Ok(Exchange::SetAside(now)) => {
            let now = now.display();
            tracing::warn!(event = "snapshot", "put the fetched snapshot in place; what was there is {now}");
        }
        Ok(Exchange::None) => return Ok(()),
        Err(source) => return Err(NodeError::Snapshot { database, source }),
    }
    forget(&incoming_folder(config));
    Ok(())
}

fn incoming_folder(config: &Config) -> PathBuf {
    config.data_dir.join(incoming::INCOMING_FOLDER)
}

/// Removes parts that are of no use any more.
fn forget(folder: &std::path::Path) {
    if let Err(error) = incoming::clear(folder) {
        tracing::warn!(%error, "the parts of a snapshot were not removed");
    }
}

/// Joins the network and takes a snapshot if there is one; then the database is in place. The network is
/// joined either way.
///
/// # Errors
/// [`NodeError`] when the network cannot be joined or the database not be put in place.
pub async fn join(
    config: &Config,
    genesis: &Genesis,
    identity: Identity,
    anchor: Anchor,
    (hub, stopper): (&Arc<Hub>, &Stopper),
) -> Result<Joined, NodeError> {
    hub.enter(Phase::Starting(CleanText::new("looking for peers with a snapshot")));
    let height = Arc::new(AtomicU64::new(0));
    let (events, received) = mpsc::channel(crate::node::router::EVENTS_WAITING_MAX);
    let options = settings::network_options(config, &genesis.params);
    let network = Arc::new(Network::start(options, identity, Arc::clone(&height), events).await?);
    let wire: Arc<dyn Wire> = Arc::clone(&network) as _;
    let mut peers = Peers::new(wire, received, stopper.ordered().clone());
    let patience = Patience::NORMAL;
    let (chain, params) = (genesis.chain_id(), genesis.params.clone());
    let teller = Teller::new(Arc::clone(hub));
    let fetch = Fetch {
        peers: &mut peers,
        trail: Trail::new(chain, params.trust_ms, anchor, patience),
        target: Target {
            chain,
            params,
            folder: incoming_folder(config),
            options: StoreOptions { cache_bytes: config.storage.cache_bytes.max(CACHE_BYTES) },
            patience,
            workers: available_parallelism().map_or(1, usize::from),
        },
        progress: &|progress| teller.tell(progress),
    };
    match fetch.run().await {
        Ok(filled) => {
            let database = config.database_path();
            let placing = (filled.folder.clone(), database.clone());
            let placed = tokio::task::spawn_blocking(move || swap::swap_in(&placing.0, &placing.1)).await;
            let placed = placed.unwrap_or_else(|error| Err(std::io::Error::other(error.to_string())));
            placed.map_err(|source| NodeError::Snapshot { database, source })?;
            forget(&incoming_folder(config));
            tracing::info!(event = "snapshot", height = filled.height, "began with a snapshot");
        }
        Err(why @ (NoSnapshot::NotOffered | NoSnapshot::Stopping)) => {
            tracing::info!(event = "no-snapshot", %why, "going on with blocks");
        }
        Err(why) => tracing::warn!(event = "no-snapshot", %why, "going on with blocks"),
    }
    let (received, early) = peers.into_events();
    Ok(Joined { network, received, early, height })
}

/// Tells people how far it has come, a few times a second.
struct Teller {
    hub: Arc<Hub>,
    last: Mutex<Told>,
}

struct Told {
    begun_us: u64,
    /// Parts that were here before any was fetched.
    found: Option<u32>,
    next_us: u64,
}

/// Time between two words about progress.
const TELL_US: u64 = 250_000;

impl Teller {
    fn new(hub: Arc<Hub>) -> Self {
        Self { hub, last: Mutex::new(Told { begun_us: clock::monotonic_us(), found: None, next_us: 0 }) }
    }

    fn tell(&self, progress: Progress) {
        let now_us = clock::monotonic_us();
        let mut last = self.last.lock();
        let (done, all) = progress.parts;
        if now_us < last.next_us && done < all {
            return;
        }
        last.next_us = now_us.saturating_add(TELL_US);
        let found = *last.found.get_or_insert(done);
        let text = describe(progress, done.saturating_sub(found), now_us.saturating_sub(last.begun_us));
        self.hub.enter(Phase::Starting(CleanText::new(&text)));
    }
}

/// Progress in words: parts, share, bytes a second, time left.
fn describe(progress: Progress, fetched: u32, elapsed_us: u64) -> String {
    let Progress { height, parts: (done, all), bytes, sources } = progress;
    let percent = u64::from(done) * 100 / u64::from(all.max(1));
    let mut text = format!(
        "taking the snapshot of block {height} from {sources} peers: part {done} of {all}, {percent} %"
    );
    if fetched > 0 && elapsed_us > 0 && done < all {
        let part_bytes = bytes / u64::from(all.max(1));
        let rate = part_bytes.saturating_mul(u64::from(fetched)).saturating_mul(1_000_000) / elapsed_us;
        let left_s = u64::from(all - done).saturating_mul(elapsed_us) / u64::from(fetched) / 1_000_000;
        text.push_str(&format!(", {} kB/s, {} s left", rate / 1000, left_s + 1));
    } else if done == all {
        text.push_str(", completing the database");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BootstrapPeer;
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::hash::{BlockId, Hash};
    use crate::primitives::trusted::TrustedHeader;

    fn config(dir: &std::path::Path) -> Config {
        let mut config = Config::defaults(NetworkKind::Devnet);
        config.data_dir = dir.to_owned();
        config.p2p.bootstrap = vec![BootstrapPeer { key: None, host: "127.0.0.1".to_owned(), port: 1 }];
        config
    }

    fn genesis(age_ms: u64) -> Genesis {
        let mut genesis = crate::ledger::tests::genesis_with(1);
        genesis.time_ms = clock::wall_ms() - age_ms;
        genesis
    }

    #[test]
    fn a_new_node_begins_with_a_snapshot_when_it_has_something_to_trust_and_somebody_to_ask() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let minutes = |minutes: u64| genesis(minutes * 60_000);
        assert!(anchor(&config, &minutes(0)).unwrap().is_none(), "the chain begins");
        assert!(matches!(anchor(&config, &minutes(11)), Ok(Some(Anchor::Header(_)))));
        assert!(anchor(&config, &minutes(21)).unwrap().is_none(), "older than the trust period");
        let trusted = TrustedHeader { height: 7, id: BlockId(Hash([7; 32])) };
        let mut trusting = config.clone();
        trusting.sync.trusted_block = Some(trusted);
        for age in [0, 11, 21] {
            let found = anchor(&trusting, &minutes(age)).unwrap();
            assert!(matches!(found, Some(Anchor::Block(found)) if found == trusted));
        }
        let mut off = trusting.clone();
        off.sync.snapshot = SnapshotSync::Off;
        assert!(anchor(&off, &minutes(11)).unwrap().is_none());
        let mut alone = trusting;
        alone.p2p.bootstrap.clear();
        assert!(anchor(&alone, &minutes(11)).unwrap().is_none());
    }

    #[test]
    fn a_node_with_blocks_or_a_sign_floor_goes_on_with_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let genesis = genesis(11 * 60_000);
        let open =
            || Store::open(&config.database_path(), &genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
        drop(open());
        assert!(anchor(&config, &genesis).unwrap().is_some(), "a database at the genesis");
        std::fs::write(dir.path().join(FLOOR_FILE_NAME), "").unwrap();
        assert!(anchor(&config, &genesis).unwrap().is_none());
        std::fs::remove_file(dir.path().join(FLOOR_FILE_NAME)).unwrap();
        let store = open();
        let ledger = store.load().unwrap();
        let (block, qc, diff) = crate::ledger::tests::extend(&ledger, vec![]);
        let write = crate::ledger::apply::BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) };
        let left = incoming_folder(&config);
        std::fs::create_dir_all(&left).unwrap();
        drop(store);
        clear_left(&config, &genesis).unwrap();
        assert!(left.exists(), "the next start may go on with it");
        let store = open();
        store.commit(&write).unwrap();
        drop(store);
        assert!(anchor(&config, &genesis).unwrap().is_none());
        clear_left(&config, &genesis).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn progress_says_how_long_it_takes() {
        let progress = Progress { height: 5000, parts: (50, 200), bytes: 200_000_000, sources: 3 };
        assert_eq!(
            describe(progress, 50, 5_000_000),
            "taking the snapshot of block 5000 from 3 peers: part 50 of 200, 25 %, 10000 kB/s, 16 s left"
        );
        assert!(
            describe(Progress { parts: (200, 200), ..progress }, 200, 1).ends_with("completing the database")
        );
        assert!(describe(Progress { parts: (50, 200), ..progress }, 0, 1).ends_with("25 %"));
    }
}
