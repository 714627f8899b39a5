//! Logs written, cut, torn and damaged at every byte.

use super::*;
use crate::primitives::hash::{BlockId, EraTag, Txid};
use crate::primitives::keys::Signature;
use crate::primitives::vote::{Step, Vote, VoteBatch};

const CHAIN: ChainId = ChainId(Hash([7; 32]));

fn batch(sequence: u32) -> Record {
    Record::OwnBatch(VoteBatch {
        era_tag: EraTag(Hash([1; 32])),
        voter: 3,
        sequence,
        last: false,
        prepares: vec![Txid(Hash([9; 32])); 3],
        commits: Vec::new(),
        signature: Signature([5; 64]),
    })
}

fn vote(round: u32) -> Record {
    Record::Vote(Vote {
        era_tag: EraTag(Hash([1; 32])),
        round,
        step: Step::Prevote,
        block: Some(BlockId(Hash([2; 32]))),
        voter: 3,
        signature: Signature([6; 64]),
    })
}

/// A log of three groups at height 5: one record, two, one.
fn written(directory: &Path) -> (Vec<(u64, Record)>, PathBuf) {
    let (mut journal, recovered) = Journal::open(directory, CHAIN, 5).unwrap();
    assert!(recovered.records.is_empty());
    let all = vec![(5, batch(0)), (5, batch(1)), (5, vote(0)), (5, vote(1))];
    for group in [&all[..1], &all[1..3], &all[3..]] {
        for (height, record) in group {
            journal.stage(*height, record);
        }
        journal.commit().unwrap();
    }
    (all, directory.join("00000000000000000005.log"))
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("journal");
    (root, directory)
}

#[test]
fn what_was_committed_is_read_back_in_order() {
    let (_root, directory) = scratch();
    let (all, _) = written(&directory);
    let (journal, recovered) = Journal::open(&directory, CHAIN, 1).unwrap();
    assert_eq!(recovered.records, all);
    assert!(recovered.repaired.is_none());
    assert_eq!(journal.height(), 5);
    assert_eq!(Journal::heights(&directory).unwrap(), Some((5, 5)));
}

#[test]
fn what_was_staged_but_not_committed_is_not_there() {
    let (_root, directory) = scratch();
    let (all, _) = written(&directory);
    let (mut journal, _) = Journal::open(&directory, CHAIN, 5).unwrap();
    journal.stage(5, &vote(7));
    drop(journal);
    assert_eq!(Journal::open(&directory, CHAIN, 5).unwrap().1.records, all);
}

#[test]
fn a_torn_tail_is_cut_off_at_every_byte_of_the_last_group_and_the_log_goes_on() {
    let (_root, directory) = scratch();
    let (all, path) = written(&directory);
    let whole = std::fs::read(&path).unwrap();
    let last_group = FRAME_LEN + 4 + encode(&all[3]).len();
    for kept in whole.len() - last_group..whole.len() {
        std::fs::write(&path, &whole[..kept]).unwrap();
        let (mut journal, recovered) = Journal::open(&directory, CHAIN, 5).unwrap();
        assert_eq!(recovered.records, all[..3], "cut to {kept} bytes");
        assert_eq!(recovered.repaired.is_some(), kept > whole.len() - last_group);
        journal.stage(5, &vote(9));
        journal.commit().unwrap();
        let (_, again) = Journal::open(&directory, CHAIN, 5).unwrap();
        assert_eq!(again.records.last(), Some(&(5, vote(9))));
        assert_eq!(again.records.len(), 4);
    }
}

#[test]
fn a_tail_of_zeros_is_cut_off_and_one_of_garbage_refused() {
    let (_root, directory) = scratch();
    let (all, path) = written(&directory);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], &[0xf5; 4096]].concat()).unwrap();
    let error = Journal::open(&directory, CHAIN, 5).unwrap_err();
    assert!(error.to_string().contains("nothing of it is missing"), "{error}");
    std::fs::write(&path, [&whole[..], &[0; 4096]].concat()).unwrap();
    let (_, recovered) = Journal::open(&directory, CHAIN, 5).unwrap();
    assert_eq!(recovered.records, all);
    assert_eq!(recovered.repaired.map(|(_, bytes)| bytes), Some(4096));
}

#[test]
fn a_last_group_that_lacks_sectors_is_cut_off_and_one_that_was_changed_refused() {
    let (_root, directory) = scratch();
    let (mut journal, _) = Journal::open(&directory, CHAIN, 5).unwrap();
    journal.stage(5, &batch(0));
    journal.commit().unwrap();
    let begin = usize::try_from(journal.segment_bytes()).unwrap();
    (1..30).for_each(|number| journal.stage(5, &batch(number)));
    journal.commit().unwrap();
    let path = directory.join("00000000000000000005.log");
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > begin + 4 * SECTOR_BYTES);
    // Every sector lost by itself, and the last one begun at every byte.
    let sectors = (begin / SECTOR_BYTES..whole.len().div_ceil(SECTOR_BYTES))
        .map(|sector| (sector * SECTOR_BYTES).max(begin)..((sector + 1) * SECTOR_BYTES).min(whole.len()));
    let begun = (begin..whole.len() - HOLE_BYTES).map(|from| from..whole.len());
    for lost in sectors.chain(begun) {
        let mut bytes = whole.clone();
        bytes[lost.clone()].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let (_, recovered) = Journal::open(&directory, CHAIN, 5).unwrap();
        assert_eq!(recovered.records, [(5, batch(0))], "{lost:?}");
    }
    for at in begin..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        match Journal::open(&directory, CHAIN, 5) {
            Err(error) => assert!(matches!(error, JournalError::Damaged { .. }), "byte {at}: {error}"),
            Ok(_) => panic!("a log with byte {at} changed was taken for one a crash has cut"),
        }
    }
}

#[test]
fn what_a_full_disk_left_of_a_group_is_cut_off_before_the_group_is_written_again() {
    let (_root, directory) = scratch();
    let (mut all, path) = written(&directory);
    let (mut journal, _) = Journal::open(&directory, CHAIN, 5).unwrap();
    journal.stage(5, &vote(2));
    // As after a write that found no space half-way.
    let half = [&MARKER[..], &[7; 90]].concat();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&half).unwrap();
    journal.unfinished = true;
    assert_eq!(journal.end(), None);
    journal.commit().unwrap();
    all.push((5, vote(2)));
    assert_eq!(journal.end(), Journal::found_end(&directory).unwrap());
    assert_eq!(Journal::open(&directory, CHAIN, 5).unwrap().1.records, all);
    assert!(JournalError::Io { action: "write", path, source: io::ErrorKind::StorageFull.into() }.is_full());
}

#[test]
fn a_segment_whose_first_sector_is_lost_with_all_its_groups_is_refused() {
    let (_root, directory) = scratch();
    let (_, path) = written(&directory);
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::write(&path, vec![0; usize::try_from(length).unwrap()]).unwrap();
    let error = Journal::open(&directory, CHAIN, 5).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { offset: 0, .. }), "{error}");
}

#[test]
fn after_an_orderly_stop_nothing_is_cut_off() {
    let (_root, directory) = scratch();
    let (all, path) = written(&directory);
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(Journal::open_closed(&directory, CHAIN, 5).unwrap().1.records, all);
    for kept in [10, whole.len() - 1] {
        std::fs::write(&path, &whole[..kept]).unwrap();
        let error = Journal::open_closed(&directory, CHAIN, 5).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    }
}

#[test]
fn a_flipped_bit_anywhere_before_the_last_group_is_refused_with_file_and_offset() {
    let (_root, directory) = scratch();
    let (all, path) = written(&directory);
    let whole = std::fs::read(&path).unwrap();
    let last_group = FRAME_LEN + 4 + encode(&all[3]).len();
    for at in 0..whole.len() - last_group {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let error = Journal::open(&directory, CHAIN, 5).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { .. }), "byte {at}: {error}");
        assert!(error.to_string().contains("00000000000000000005.log"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "a damaged log is left as it is");
    }
}

#[test]
fn a_crash_while_a_segment_is_begun_leaves_a_usable_log() {
    let (_root, directory) = scratch();
    let (all, _) = written(&directory);
    let next = directory.join("00000000000000000006.log");
    for kept in [0, 1, HEADER_LEN - 1] {
        std::fs::write(&next, &segment_header(CHAIN, 6)[..kept]).unwrap();
        let (mut journal, recovered) = Journal::open(&directory, CHAIN, 1).unwrap();
        assert_eq!(recovered.records, all);
        assert_eq!(journal.height(), 6);
        journal.stage(6, &vote(0));
        journal.commit().unwrap();
        assert_eq!(Journal::open(&directory, CHAIN, 1).unwrap().1.records.len(), 5);
    }
}

#[test]
fn an_incomplete_segment_that_is_not_the_newest_is_refused() {
    let (_root, directory) = scratch();
    let (_, path) = written(&directory);
    let (mut journal, _) = Journal::open(&directory, CHAIN, 5).unwrap();
    journal.next_height(6, 4).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let error = Journal::open(&directory, CHAIN, 5).unwrap_err();
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
}

#[test]
fn segments_go_when_the_store_has_their_heights_and_not_before() {
    let (_root, directory) = scratch();
    let (all, path) = written(&directory);
    let (mut journal, _) = Journal::open(&directory, CHAIN, 5).unwrap();
    // The group that decides height 5 may hold the first records of height 6.
    journal.stage(5, &vote(2));
    journal.stage(6, &batch(0));
    journal.commit().unwrap();
    journal.next_height(6, 5).unwrap();
    assert!(path.exists(), "it holds a record of height 6, which the store has not");
    assert_eq!(Journal::open(&directory, CHAIN, 1).unwrap().1.records.len(), all.len() + 2);
    journal.next_height(7, 6).unwrap();
    assert!(!path.exists());
    assert_eq!(list(&directory).unwrap().len(), 1);
}

#[test]
fn a_log_of_another_chain_and_stray_files_are_refused() {
    let (_root, directory) = scratch();
    written(&directory);
    let other = ChainId(Hash([8; 32]));
    let error = Journal::open(&directory, other, 5).unwrap_err();
    assert!(matches!(error, JournalError::Foreign { .. }), "{error}");
    std::fs::write(directory.join("notes.txt"), "hello").unwrap();
    let error = Journal::open(&directory, CHAIN, 5).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
}
