//! A masternode with the console in its own process, and a terminal that misbehaves: the votes go on, as the others see
//! them.

use crate::program::{PATIENCE, daemon, found, free_ports, masternode, status, succeeds, until};
use crate::stage::{Stage, program};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// With four a quorum decides without the one that is tried, so that its absence would show.
const NAMES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];

/// The three others, headless.
struct Others {
    root: tempfile::TempDir,
    running: Vec<Child>,
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}

impl Others {
    fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        found(root.path(), &NAMES, &free_ports(NAMES.len()), &[], 1000);
        let running =
            NAMES[1..].iter().map(|name| daemon(&root.path().join(name)).spawn().unwrap()).collect();
        Self { root, running }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The one that is tried, on a terminal, voting.
    fn alpha(&self) -> Stage {
        let console = Stage::open(program(&["run", "--data-dir", self.dir("alpha").to_str().unwrap()]));
        console.until_shows(&["alpha devnet", "SIGNING"]);
        until("it has signed", || (self.marks(0)?.last()? == "signed").then_some(()));
        console
    }

    fn seen(&self) -> Option<Value> {
        status(&self.dir("bravo"))
    }

    fn height(&self) -> u64 {
        until("the others decide", || self.seen()?["chain"]["height"].as_u64())
    }

    /// How alpha took part in the blocks after `height`, as another masternode saw it, oldest first.
    fn marks(&self, height: u64) -> Option<Vec<String>> {
        let seen = self.seen()?;
        let alpha = seen["members"].as_array()?.iter().find(|member| member["name"] == "alpha")?;
        let marks = alpha["signed"].as_array()?.iter().rev();
        let blocks = seen["checkpoints"].as_array()?.iter().rev();
        let new = blocks.zip(marks).take_while(|(block, _)| block["height"].as_u64() > Some(height));
        let mut marks: Vec<String> = new.map(|(_, mark)| mark.as_str().unwrap().to_owned()).collect();
        marks.reverse();
        Some(marks)
    }

    /// Waits for `blocks` more, and expects that alpha took part as before: a busy machine makes it miss one, a pause
    /// of seconds makes it miss one after the other.
    #[track_caller]
    fn expect_votes(&self, height: u64, blocks: usize) {
        let marks = until("more blocks", || self.marks(height).filter(|marks| marks.len() >= blocks));
        let paused =
            marks.windows(3).any(|three| three.iter().all(|mark| mark != "signed" && mark != "late"));
        assert!(!paused, "{marks:?}");
    }

    fn log(&self) -> String {
        let files = std::fs::read_dir(self.dir("alpha").join("logs")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    /// Headless now: answers, and stops in order when told.
    #[track_caller]
    fn expect_headless(&self, mut console: Stage, reason: &str) {
        let line = until("the log says so", || {
            let log = self.log();
            log.lines().rev().find(|line| line.contains("the terminal is gone")).map(str::to_owned)
        });
        assert!(line.contains(reason) && line.contains("masternode attach"), "{line}");
        assert_eq!(self.log().matches("the terminal is gone").count(), 1);
        self.expect_votes(self.height(), 3);
        let dir = self.dir("alpha");
        let attached = Stage::open(program(&["attach", "--data-dir", dir.to_str().unwrap()]));
        attached.until_shows(&["alpha devnet", "SIGNING", "VIEW"]);
        drop(attached);
        succeeds(&["stop", "--data-dir", dir.to_str().unwrap()]);
        assert_eq!(console.exit_code(), 0);
    }
}

#[test]
fn whatever_becomes_of_the_terminal_the_masternode_votes_on() {
    let others = Others::start();
    let mut console = others.alpha();
    let height = others.height();

    // Suspending is refused; a hang-up that closes nothing changes nothing.
    console.press("\x1a");
    console.until_shows(&["not suspended"]);
    let pid = console.child.process_id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    console.press("2");
    console.until_shows(&["Vote stream"]);
    others.expect_votes(height, 3);

    // A terminal that takes nothing, as behind a line that is cut.
    console.stop_reading();
    let end = Instant::now() + PATIENCE;
    while !others.log().contains("the terminal is gone") {
        assert!(Instant::now() < end, "a stalled terminal was not given up");
        // Each key wants to be painted.
        console.try_press("1\x0c2\x0c");
        std::thread::sleep(Duration::from_millis(100));
    }
    others.expect_votes(height, 6);
    others.expect_headless(console, "took nothing for 5 s");

    // A terminal that is closed.
    std::fs::remove_dir_all(others.dir("alpha").join("logs")).unwrap();
    let mut console = others.alpha();
    let height = others.height();
    console.close();
    others.expect_votes(height, 4);
    others.expect_headless(console, "was closed");

    // Detached by the operator.
    let mut console = others.alpha();
    console.press("d");
    console.until_taken(false);
    others.expect_votes(others.height(), 3);
    assert!(masternode(&["stop", "--data-dir", others.dir("alpha").to_str().unwrap()]).status.success());
    assert_eq!(console.exit_code(), 0);
}
