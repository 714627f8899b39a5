//! Pages of files that are whole, packed, growing and rotated, against the lines read one after the other.

use super::*;
use crate::tools::logs::files::{LINE_BYTES_MAX, find};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const NOW: u64 = 1_795_413_662_000;
/// 2026-11-23 00:00:00 UTC.
const DAY: u64 = NOW - 21_662_000;

/// A line for every second of the day, of different lengths; some go on below it.
fn text(from: u64, count: u64) -> String {
    let mut text = String::new();
    for number in from..from + count {
        let time = crate::tools::logs::time::rfc3339(DAY + number * 1000);
        let level = match number % 97 {
            0 => "ERROR",
            1..=3 => " WARN",
            _ => " INFO",
        };
        let padding = "x".repeat((number * 7919 % 300) as usize);
        text.push_str(&format!("{time} {level} masternode::node: line {padding} height={number}\n"));
        if number.is_multiple_of(50) {
            text.push_str("    goes on below\n");
        }
    }
    text
}

fn open(paths: &[PathBuf], filter: &str) -> Pages {
    let filter = Filter::parse(filter, NOW).unwrap();
    Pages::open(find(paths, NOW).unwrap(), filter, NOW).unwrap()
}

/// Waits until everything is summed up.
fn summed(pages: &Pages) -> Progress {
    let begun = Instant::now();
    loop {
        let progress = pages.progress();
        if progress.done == progress.blocks && progress.unpacking == 0 {
            return progress;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{progress:?}");
        std::thread::yield_now();
    }
}

fn texts(look: &Look) -> Vec<String> {
    look.lines.iter().map(|line| String::from_utf8_lossy(&line.bytes).into_owned()).collect()
}

fn append(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn every_line_is_met_once_in_both_directions_whatever_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let whole = text(0, 5000);
    std::fs::write(&path, &whole).unwrap();
    let expected: Vec<String> = whole.lines().map(str::to_owned).collect();
    let pages = open(&[path], "");
    assert_eq!(
        texts(&pages.before(None, 3)),
        expected[expected.len() - 3..],
        "at once, before anything is counted"
    );
    let progress = summed(&pages);
    assert_eq!((progress.lines, progress.passing), (expected.len() as u64, expected.len() as u64));
    assert!(progress.blocks > 10);
    for step in [1, 7, 1000] {
        let (mut forward, mut place) = (Vec::new(), None);
        loop {
            let look = pages.from(place, step + usize::from(place.is_some()));
            let new = usize::from(place.is_some());
            if look.lines.len() <= new {
                break;
            }
            place = look.lines.last().map(|line| line.place);
            forward.extend(texts(&look).into_iter().skip(new));
        }
        assert!(forward == expected, "forward by {step}");
        let (mut backward, mut place) = (Vec::new(), None);
        loop {
            let look = pages.before(place, step);
            let Some(first) = look.lines.first() else { break };
            place = Some(first.place);
            backward.extend(texts(&look).into_iter().rev());
        }
        backward.reverse();
        assert!(backward == expected, "backward by {step}");
    }
}

#[test]
fn a_filter_hides_lines_and_counts_them_and_a_new_one_counts_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    std::fs::write(&path, text(0, 3000)).unwrap();
    let pages = open(&[path], "level:error");
    let progress = summed(&pages);
    let errors: Vec<u64> = (0..3000_u64).filter(|number| number.is_multiple_of(97)).collect();
    // With those that go on below an error.
    let below = errors.iter().filter(|number| number.is_multiple_of(50)).count();
    assert_eq!(progress.passing, (errors.len() + below) as u64);
    let last = texts(&pages.before(None, 1));
    assert!(last[0].ends_with(&format!("height={}", errors.last().unwrap())), "{last:?}");
    let first = pages.from(None, 1).lines[0].place;
    assert_eq!(pages.passing_after(first), progress.passing - 1);
    assert_eq!(pages.passing_after(pages.before(None, 1).lines[0].place), 0);
    pages.set_filter(Filter::parse("height=1234", NOW).unwrap());
    assert_eq!(summed(&pages).passing, 1);
    assert_eq!(pages.passing_after(first), 1);
    assert_eq!(pages.from(None, 10).lines.len(), 1);
    pages.set_filter(Filter::parse("nowhere", NOW).unwrap());
    assert_eq!((summed(&pages).passing, pages.from(None, 10)), (0, Look::default()));
}

#[test]
fn the_next_error_and_a_time_are_found_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.log"), folder.path().join("b.log"));
    std::fs::write(&first, text(0, 2000)).unwrap();
    std::fs::write(&second, text(2000, 2000)).unwrap();
    let pages = open(&[first, second], "");
    for counted in [false, true] {
        if counted {
            summed(&pages);
        }
        let at = |seconds: u64| pages.at_time(DAY + seconds * 1000).lines[0].clone();
        for seconds in [0, 1, 777, 1999, 2000, 3999] {
            let line = at(seconds);
            assert_eq!(line.head.time_ms, Some(DAY + seconds * 1000));
            assert!(String::from_utf8_lossy(&line.bytes).ends_with(&format!("height={seconds}")));
        }
        assert!(pages.at_time(DAY + 4_000_000).lines.is_empty());
        let next = pages.of_level(Some(at(1990).place), Way::Forward, LogLevel::Error);
        assert!(texts(&next)[0].ends_with("height=2037"), "into the next file: {next:?}");
        let again = pages.of_level(Some(next.lines[0].place), Way::Forward, LogLevel::Error);
        assert!(texts(&again)[0].ends_with("height=2134"));
        let back = pages.of_level(Some(at(2000).place), Way::Backward, LogLevel::Error);
        assert!(texts(&back)[0].ends_with("height=1940"));
        let warn = pages.of_level(Some(at(2037).place), Way::Forward, LogLevel::Warn);
        assert!(texts(&warn)[0].ends_with("height=2038"));
        assert!(pages.of_level(Some(at(3990).place), Way::Forward, LogLevel::Error).lines.is_empty());
    }
}

#[test]
fn what_is_added_is_shown_also_after_a_rotation_and_a_half_line_becomes_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    std::fs::write(&path, text(0, 1000)).unwrap();
    let pages = open(std::slice::from_ref(&path), "");
    let before = summed(&pages).lines;
    assert!(!pages.refresh());
    append(&path, "half a");
    assert!(pages.refresh());
    assert_eq!(texts(&pages.before(None, 1)), ["half a"]);
    append(&path, " line\n");
    assert!(pages.refresh());
    assert_eq!(texts(&pages.before(None, 1)), ["half a line"]);
    assert_eq!(summed(&pages).lines, before + 1);
    append(&path, &text(1000, 1000));
    pages.refresh();
    assert_eq!(summed(&pages).lines, before * 2 + 1);
    std::fs::rename(&path, folder.path().join("x.log.1")).unwrap();
    append(&path, "2026-11-23T06:00:00Z INFO anew\n");
    assert!(pages.refresh());
    assert!(texts(&pages.before(None, 2))[1].ends_with("anew"));
    assert_eq!(summed(&pages).lines, before * 2 + 2);
    assert!(!pages.refresh());
}

#[test]
fn packed_files_take_their_place_when_they_are_unpacked_and_broken_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("x.log");
    std::fs::write(&plain, text(500, 100)).unwrap();
    let packed = zstd::stream::encode_all(text(0, 500).as_bytes(), 1).unwrap();
    std::fs::write(folder.path().join("x.log.1.zst"), &packed).unwrap();
    std::fs::write(folder.path().join("x.log.2.zst"), &packed[..packed.len() / 2]).unwrap();
    let found = vec![
        Found { path: folder.path().join("x.log.2.zst"), first_ms: 0 },
        Found { path: folder.path().join("x.log.1.zst"), first_ms: 1 },
        Found { path: plain, first_ms: 2 },
    ];
    let pages = Pages::open(found, Filter::default(), NOW).unwrap();
    let expected = text(0, 600);
    assert_eq!(summed(&pages).lines, expected.lines().count() as u64);
    let failures = pages.failures();
    assert!(failures.len() == 1 && failures[0].contains("x.log.2.zst"), "{failures:?}");
    assert_eq!(texts(&pages.from(None, 1000)), expected.lines().collect::<Vec<_>>());
    assert_eq!(pages.file_name(1), "x.log.1.zst");
}

#[test]
fn lines_longer_than_a_block_are_shown_cut_and_nothing_behind_them_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.log");
    let long = "y".repeat(3 * BLOCK_BYTES + 17);
    let huge = "z".repeat(LINE_BYTES_MAX * 2 + 5);
    std::fs::write(&path, format!("first\n{long}\nmiddle\n{huge}\nlast")).unwrap();
    let pages = open(&[path], "");
    let lengths: Vec<usize> = pages.from(None, 10).lines.iter().map(|line| line.bytes.len()).collect();
    assert_eq!(lengths, [5, long.len(), 6, LINE_BYTES_MAX, 4]);
    assert_eq!(summed(&pages).lines, 5);
}
