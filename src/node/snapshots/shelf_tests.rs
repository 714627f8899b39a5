//! Tests of the shelf: what is whole is found again, everything else is removed, limits hold.

use super::*;
use crate::node::snapshots::maker::tests::{Chain, LIMITS};

fn heights(shelf: &Shelf) -> Vec<u64> {
    shelf.offers().iter().map(|offer| offer.height).collect()
}

#[test]
fn snapshots_are_found_again_and_the_oldest_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
    let mut chain = Chain::new(dir.path(), 9);
    let offers: Vec<_> = (0..3).map(|_| chain.snapshot(&shelf)).collect();
    assert_eq!(heights(&shelf), [3, 2]);
    assert!(!folder.join("1").exists());
    drop(shelf);
    let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
    assert_eq!(shelf.offers(), [offers[2].clone(), offers[1].clone()]);
    let one = Shelf::open(folder, ShelfLimits { kept: 1, ..LIMITS }).unwrap();
    assert_eq!(heights(&one), [3]);
}

#[test]
fn an_interruption_at_any_point_leaves_nothing_that_is_taken_for_whole() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
    let mut chain = Chain::new(dir.path(), 9);
    chain.snapshot(&shelf);
    let whole = folder.join("1");
    // Every state that a crash while writing can leave: some files of an unfinished folder.
    let files = [PARTS_FILE, MANIFEST_FILE, INDEX_FILE];
    for count in 0..=files.len() {
        let unfinished = folder.join("2.new");
        std::fs::create_dir(&unfinished).unwrap();
        for file in &files[..count] {
            std::fs::copy(whole.join(file), unfinished.join(file)).unwrap();
        }
        let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
        assert_eq!(heights(&shelf), [1], "{count} files");
        assert!(!unfinished.exists());
    }
}

#[test]
fn damaged_files_are_not_served_and_leave_the_shelf() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    let mut chain = Chain::new(dir.path(), 30);
    for (file, cut) in [(PARTS_FILE, false), (MANIFEST_FILE, false), (INDEX_FILE, false), (PARTS_FILE, true)]
    {
        let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
        let offer = chain.snapshot(&shelf);
        let path = folder.join(offer.height.to_string()).join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes[..if cut { middle } else { bytes.len() }]).unwrap();
        if file != INDEX_FILE {
            let kept = shelf.find(offer.manifest).unwrap();
            let read = if file == PARTS_FILE { kept.part(1) } else { kept.page(0) };
            read.unwrap_err();
            shelf.discard(&kept);
            assert!(shelf.find(offer.manifest).is_none() && !path.exists());
        }
        drop(shelf);
        let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
        assert!(shelf.find(offer.manifest).is_none(), "{file}");
        assert!(!path.exists());
    }
}

#[test]
fn what_does_not_fit_the_budget_is_refused_and_what_is_old_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    let mut chain = Chain::new(dir.path(), 9);
    let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
    let each = chain.snapshot(&shelf).bytes;
    let error = Shelf::open(folder.clone(), ShelfLimits { bytes_max: 100, kept: 2 })
        .unwrap()
        .begin(9, 101)
        .unwrap_err();
    assert!(error.to_string().contains("snapshot_bytes_max"), "{error}");
    // Room for one, though two may be kept.
    let limits = ShelfLimits { bytes_max: each * 3 / 2 + (4 << 10), kept: 2 };
    let shelf = Shelf::open(folder, limits).unwrap();
    for height in [2, 3] {
        chain.snapshot(&shelf);
        assert_eq!(heights(&shelf), [height]);
    }
}

#[test]
fn what_others_put_into_the_folder_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("snapshots");
    std::fs::create_dir_all(folder.join("notes")).unwrap();
    let shelf = Shelf::open(folder.clone(), LIMITS).unwrap();
    assert!(heights(&shelf).is_empty() && folder.join("notes").exists());
}

#[test]
fn the_newest_snapshot_is_served_until_the_next_one_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::new(dir.path(), 9);
    let shelf = Shelf::open(dir.path().join("snapshots"), ShelfLimits { kept: 1, ..LIMITS }).unwrap();
    let bytes = chain.snapshot(&shelf).bytes;
    let draft = shelf.begin(2, bytes).unwrap();
    assert_eq!(heights(&shelf), [1]);
    draft.abandon();
    assert_eq!(heights(&shelf), [1], "and after one that was not finished");
    // Also when there is room for one only.
    let limits = ShelfLimits { kept: 2, bytes_max: bytes * 3 / 2 + (4 << 10) };
    let shelf = Shelf::open(dir.path().join("snapshots"), limits).unwrap();
    shelf.begin(2, bytes).unwrap().abandon();
    assert_eq!(heights(&shelf), [1]);
    chain.snapshot(&shelf);
    assert_eq!(heights(&shelf), [2]);
}
