//! The viewer against real files: keys in, screen out.

use crate::review::reader::{carry_out, refill};
use crate::review::state::Review;
use crate::review::view::{rows, view};
use crate::theme::{ColorMode, Themes};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use masternode::tools::logs::files::find;
use masternode::tools::logs::filter::Filter;
use masternode::tools::logs::pages::Pages;
use masternode::tools::logs::time::rfc3339;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// 2026-11-23 06:01:02 UTC.
const NOW: u64 = 1_795_413_662_000;

struct Viewer {
    folder: tempfile::TempDir,
    pages: Pages,
    review: Review,
    size: (u16, u16),
}

fn line(number: u64) -> String {
    let level = if number.is_multiple_of(100) { "ERROR" } else { " INFO" };
    let time = rfc3339(NOW - 10_000_000 + number * 1000);
    format!("{time} {level} masternode::node: number {number} height={number}\n")
}

impl Viewer {
    fn new(lines: u64, size: (u16, u16)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        std::fs::write(&path, (1..=lines).map(line).collect::<String>()).unwrap();
        let pages = Pages::open(find(&[path], NOW).unwrap(), Filter::default(), NOW).unwrap();
        let look = Themes::shipped().unwrap().look("dark", ColorMode::Ansi16, true).unwrap();
        let mut review = Review::new("node.log".to_owned(), look, String::new(), NOW);
        review.height = rows(size.1);
        let mut viewer = Self { folder, pages, review, size };
        viewer.counted();
        viewer
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("node.log")
    }

    /// Waits until everything is counted.
    fn counted(&mut self) {
        let begun = Instant::now();
        self.pages.refresh();
        while self.pages.progress().done < self.pages.progress().blocks {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::yield_now();
        }
        refill(&mut self.review, &self.pages);
    }

    fn press(&mut self, keys: &str) {
        for letter in keys.chars() {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                letter => KeyCode::Char(letter),
            };
            if let Some(ask) = self.review.key(KeyEvent::new(code, KeyModifiers::NONE)) {
                carry_out(&mut self.review, &self.pages, ask);
            }
        }
    }

    fn screen(&self) -> String {
        let area = Rect { x: 0, y: 0, width: self.size.0, height: self.size.1 };
        let mut buffer = Buffer::empty(area);
        view(&self.review, area, &mut buffer);
        let row = |y| -> String {
            (0..area.width).map(|x| buffer.cell((x, y)).map_or(" ", |cell| cell.symbol())).collect()
        };
        (0..area.height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
    }

    /// The number in the line under the cursor.
    fn at(&self) -> u64 {
        let line = self.review.line().expect("a line under the cursor");
        String::from_utf8_lossy(&line.bytes).rsplit('=').next().unwrap().parse().unwrap()
    }

    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        let screen = self.screen();
        parts.iter().for_each(|part| assert!(screen.contains(part), "`{part}` is not on\n{screen}"));
    }
}

#[test]
fn the_newest_lines_are_shown_and_followed_until_the_operator_moves() {
    let mut viewer = Viewer::new(5000, (80, 24));
    viewer.shows(&["number 5000", "number 4980", "5,000 lines, following"]);
    std::fs::OpenOptions::new()
        .append(true)
        .open(viewer.path())
        .unwrap()
        .write_all(line(5001).as_bytes())
        .unwrap();
    viewer.counted();
    viewer.shows(&["number 5001"]);
    viewer.press("k");
    let more: String = (5002..=5215).map(line).collect();
    std::fs::OpenOptions::new().append(true).open(viewer.path()).unwrap().write_all(more.as_bytes()).unwrap();
    viewer.counted();
    assert_eq!(viewer.at(), 5000, "the screen stands");
    viewer.shows(&["stands, +214 new"]);
    viewer.press("G");
    viewer.shows(&["number 5215", "following"]);
}

#[test]
fn moves_go_to_ends_errors_times_and_marks() {
    let mut viewer = Viewer::new(5000, (80, 24));
    viewer.press("g");
    assert_eq!(viewer.at(), 1);
    viewer.press("e");
    assert_eq!(viewer.at(), 100);
    viewer.press("jjjm");
    viewer.press("ee");
    assert_eq!(viewer.at(), 300);
    viewer.press("kE");
    assert_eq!(viewer.at(), 200);
    viewer.press("'");
    assert_eq!(viewer.at(), 103, "round to the only mark");
    let time = rfc3339(NOW - 10_000_000 + 4321 * 1000);
    viewer.press(&format!("t{time}\n"));
    assert_eq!(viewer.at(), 4321);
    viewer.press("tsoon\n");
    viewer.shows(&["`soon` is no time"]);
    viewer.press("t2026-11-24\n");
    viewer.shows(&["the log ends before that time"]);
    assert_eq!(viewer.at(), 4321);
    viewer.press("Geee");
    assert_eq!(viewer.at(), 5000);
    viewer.shows(&["no further ERROR"]);
}

#[test]
fn filters_hide_lines_stay_on_and_are_refused_with_the_reason() {
    let mut viewer = Viewer::new(5000, (80, 24));
    viewer.press("g");
    viewer.press("/level:error !height=200\n");
    viewer.counted();
    viewer.shows(&["/level:error !height=200", "4,951 hidden", "49 lines", "number 100"]);
    assert_eq!(viewer.at(), 100, "the next line that is shown");
    viewer.press("j");
    assert_eq!(viewer.at(), 300);
    viewer.press("/(((\u{1b}");
    assert!(viewer.review.prompt.is_none() && viewer.review.filter == "level:error !height=200");
    viewer.press("/ level:loud\n");
    viewer.shows(&["`loud` is no level"]);
    viewer.press("\u{1b}");
    viewer.counted();
    assert_eq!(viewer.at(), 300);
    viewer.shows(&["5,000 lines, stands ", "number 299"]);
    viewer.press("/nowhere\n");
    viewer.counted();
    viewer.shows(&["no line passes the filter"]);
}

#[test]
fn a_record_is_shown_whole_and_so_is_the_next() {
    let mut viewer = Viewer::new(300, (80, 24));
    viewer.press("ge\n");
    viewer.shows(&["Record", "ERROR", "masternode::node", "number 100", "height", "2026-11-23T"]);
    viewer.press("n");
    viewer.shows(&["number 101"]);
    viewer.press("pp\u{1b}");
    assert_eq!(viewer.at(), 99);
    viewer.press("?");
    viewer.shows(&["Keys", "next mark"]);
}

#[test]
fn no_size_is_too_small_or_too_large() {
    for size in [(0, 0), (1, 1), (19, 4), (20, 3), (20, 4), (40, 10), (80, 24), (300, 100)] {
        let mut viewer = Viewer::new(300, size);
        for keys in ["", "g", "\n", "\u{1b}?", " /level:error\n", "ttext"] {
            viewer.press(keys);
            viewer.screen();
        }
    }
}
