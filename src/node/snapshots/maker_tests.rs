//! Tests of making snapshots, and the small chain with a shelf that the tests beside share.

use super::*;
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::{Store, StoreOptions};
use crate::ledger::tests::{extend, funds, genesis_with, sealed};
use crate::node::snapshots::shelf::ShelfLimits;
use std::path::Path;

pub const LIMITS: ShelfLimits = ShelfLimits { kept: 2, bytes_max: 1 << 30 };

/// A chain in a store.
pub struct Chain {
    pub genesis: Genesis,
    pub store: Arc<Store>,
    pub ledger: Ledger,
    next: usize,
}

impl Chain {
    pub fn new(dir: &Path, allocations: usize) -> Self {
        let genesis = genesis_with(allocations);
        let store = Store::open(&dir.join("db"), &genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap();
        let ledger = store.load().unwrap();
        Self { genesis, store: Arc::new(store), ledger, next: 0 }
    }

    /// Stores a block with one payment.
    pub fn extend(&mut self) -> BlockWrite {
        let payment = sealed(&funds(&self.genesis)[self.next], 5000, 0);
        self.next += 1;
        let (block, qc, diff) = extend(&self.ledger, vec![payment]);
        let write = BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) };
        self.store.commit(&write).unwrap();
        write
    }

    pub fn scan(&self) -> Result<Outputs, StoreError> {
        Ok(Box::new(self.store.scan()?))
    }

    /// The block with all that a snapshot of it is made of; it has to be the last one.
    pub fn due(&self, write: &BlockWrite) -> Due {
        Due {
            header: write.diff.header.clone(),
            commit: write.qc.clone(),
            committee: Arc::clone(&write.diff.committee),
            registry: registry_bytes(&write.diff.registry),
            outputs: self.scan().unwrap(),
        }
    }

    /// Stores a block and makes a snapshot of it.
    pub fn snapshot(&mut self, shelf: &Shelf) -> SnapshotOffer {
        let write = self.extend();
        make(shelf, self.due(&write), &|| false).unwrap()
    }
}

#[test]
fn a_snapshot_on_the_shelf_passes_every_check_of_a_client() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().join("snapshots"), LIMITS).unwrap();
    let mut chain = Chain::new(dir.path(), 9000);
    let write = chain.extend();
    let due = chain.due(&write);
    // The node goes on meanwhile.
    chain.extend();
    let offer = make(&shelf, due, &|| false).unwrap();
    let kept = shelf.find(offer.manifest).unwrap();
    let manifest = (0..).map_while(|page| kept.page(page).unwrap()).flatten().collect::<Vec<u8>>();
    assert_eq!(manifest.len() as u64, offer.manifest_bytes);
    let checked = Manifest::from_bytes(&manifest).unwrap().check(&chain.genesis.params).unwrap();
    assert_eq!((checked.id(), checked.header().id(), offer.height), (offer.manifest, write.diff.block, 1));
    let (parts, _) = checked.parts();
    assert_eq!(parts, 3);
    for part in 0..parts {
        checked.check_part(part, &kept.part(part).unwrap().unwrap()).unwrap();
    }
    assert_eq!((kept.part(parts).unwrap(), kept.page(1).unwrap()), (None, None));
    assert_eq!(offer.bytes, checked.bytes());
}

#[test]
fn every_node_makes_the_same_snapshot_of_a_block() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let ids = [dir.path(), other.path()].map(|dir| {
        let shelf = Shelf::open(dir.join("snapshots"), LIMITS).unwrap();
        Chain::new(dir, 20).snapshot(&shelf).manifest
    });
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_database_that_differs_from_its_header_makes_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().join("snapshots"), LIMITS).unwrap();
    let mut chain = Chain::new(dir.path(), 20);
    let write = chain.extend();
    for (skipped, doubled) in [(true, false), (false, true)] {
        let outputs: Vec<_> = chain.scan().unwrap().collect::<Result<_, _>>().unwrap();
        let mut outputs: Vec<_> = outputs.into_iter().skip(usize::from(skipped)).collect();
        if doubled {
            outputs[1] = outputs[0];
        }
        let due = Due { outputs: Box::new(outputs.into_iter().map(Ok)), ..chain.due(&write) };
        assert!(matches!(make(&shelf, due, &|| false), Err(MakeError::OtherState { .. })));
        assert!(shelf.offers().is_empty());
        assert_eq!(std::fs::read_dir(dir.path().join("snapshots")).unwrap().count(), 0);
    }
    let failing = StoreError::corrupt(dir.path(), "a test");
    let due = Due { outputs: Box::new(std::iter::once(Err(failing))), ..chain.due(&write) };
    assert!(matches!(make(&shelf, due, &|| false), Err(MakeError::Store(_))));
}

#[test]
fn a_node_that_stops_leaves_a_snapshot_unmade() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Shelf::open(dir.path().join("snapshots"), LIMITS).unwrap();
    let mut chain = Chain::new(dir.path(), 3);
    let write = chain.extend();
    assert!(matches!(make(&shelf, chain.due(&write), &|| true), Err(MakeError::Stopping)));
    assert!(shelf.offers().is_empty());
}

#[test]
fn blocks_of_the_right_height_and_age_are_due_and_none_if_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(dir.path(), 3);
    let old = chain.extend().diff.header.clone();
    let young = |height| Header { height, time_ms: clock::wall_ms(), ..old.clone() };
    let shelf = Arc::new(Shelf::open(dir.path().join("snapshots"), LIMITS).unwrap());
    let (clerk, _maker) = maker(shelf, 10, Box::new(|| false));
    let due: Vec<u64> = (1..=30).filter(|height| clerk.is_due(&young(*height))).collect();
    assert_eq!(due, [10, 20, 30]);
    assert!(!clerk.is_due(&Header { height: 10, ..old.clone() }), "a block of long ago");
    let (clerk, _maker) = maker(Arc::new(Shelf::unused(dir.path().to_owned())), 10, Box::new(|| false));
    assert!(!clerk.is_due(&young(10)));
}
