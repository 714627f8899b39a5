//! Runs of the driver in one directory, with what it has said so far; each start is held against it.

use crate::chain::Reference;
use crate::driver;
use crate::shelf::{Control, Random, Shelf, copy};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Far above what anything here needs, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// Exit status 0.
    Orderly,
    /// By signal 9.
    Killed,
    /// It must not sign, and why.
    Lost(String),
    /// Exit status 78, and why.
    Refused(String),
    /// Exit status 1: the system refuses just now.
    Unavailable(String),
    /// Anything else.
    Wrong(String),
}

#[derive(Debug)]
pub struct Report {
    pub ended: Ended,
    /// Operations from its start until it was heard that it had found its state; `None` when it did not
    /// come so far.
    pub found_at: Option<u64>,
    /// How often it said that something was durable.
    pub said: u64,
    /// How often the disk was full.
    pub full: u64,
}

pub struct Run {
    root: tempfile::TempDir,
    pub dir: PathBuf,
    pub control: Control,
    reference: Arc<Mutex<Reference>>,
    /// Height decided, and votes in the era after it, as it has said.
    height: u64,
    voted: u32,
    number: u32,
    /// Operations of all runs before this one.
    before: u64,
    pub was_orderly: bool,
    /// The newest log was cut as a crash cuts it: what it has lost is told by the other nodes.
    pub may_lack_votes: bool,
}

impl Drop for Run {
    /// What a failed run leaves is kept.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{}", std::process::id()));
            copy(self.root.path(), &kept);
            println!("kept in {}", kept.display());
        }
    }
}

impl Run {
    pub fn new() -> Self {
        Self::with(Arc::new(Mutex::new(Reference::new())))
    }

    fn with(reference: Arc<Mutex<Reference>>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data-0");
        std::fs::create_dir(&dir).unwrap();
        let control = Control::new(&root.path().join("control"));
        Self {
            root,
            dir,
            control,
            reference,
            height: 0,
            voted: 0,
            number: 0,
            before: 0,
            was_orderly: true,
            may_lack_votes: false,
        }
    }

    /// The same in another place.
    pub fn copied(&self) -> Self {
        let mut other = Self::with(Arc::clone(&self.reference));
        copy(&self.dir, &other.dir);
        (other.height, other.voted, other.was_orderly) = (self.height, self.voted, self.was_orderly);
        other
    }

    fn spawn(&mut self, blocks: Option<u64>, log: Option<&Path>) -> Child {
        self.before = self.control.operations();
        let errors = std::fs::File::create(self.root.path().join("stderr")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["driver", "--exact", "--nocapture"]).env(driver::DIR, &self.dir);
        command.env_remove(driver::BLOCKS).env("RUST_BACKTRACE", "0");
        if let Some(blocks) = blocks {
            command.env(driver::BLOCKS, blocks.to_string());
        }
        self.control.apply(&mut command, &self.dir, log);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap()
    }

    /// Runs the driver to its end; with `lines` it is killed from outside when it has said so many things.
    pub fn drive(&mut self, blocks: Option<u64>, lines: Option<u64>) -> Report {
        let child = self.spawn(blocks, None);
        self.attend(child, lines, |_, _| {})
    }

    /// Runs it until the file layer kills it, then cuts the power.
    pub fn drive_until_cut(&mut self, random: &mut Random) -> Report {
        let log = self.root.path().join("log");
        // What a run before left in the log is of another directory.
        let _absent = std::fs::remove_file(&log);
        let mut shelf = Shelf::of(&self.dir);
        let child = self.spawn(None, Some(&log));
        let report = self.attend(child, None, |_, _| {});
        shelf.play(&log);
        self.number += 1;
        let target = self.root.path().join(format!("data-{}", self.number));
        shelf.cut(random, &target);
        std::fs::remove_dir_all(&self.dir).unwrap();
        self.dir = target;
        report
    }

    /// Runs it onto a disk that is full from some write on, until it says so, and then makes room.
    pub fn drive_through_full_disk(&mut self, after: u64, part: u64) -> Report {
        self.control.fail_after(after, 28, part);
        let child = self.spawn(Some(40), None);
        let heal = |run: &Self, line: &str| {
            if line == "full" {
                assert!(run.control.failures() > 0);
                run.control.heal();
            }
        };
        let report = self.attend(child, None, heal);
        let Ended::Unavailable(reason) = &report.ended else { return report };
        // Full before it had begun: it says so, and starts when there is space.
        assert!(reason.to_lowercase().contains("no space"), "{reason}");
        self.control.heal();
        self.drive(Some(40), None)
    }

    fn attend(&mut self, mut child: Child, lines: Option<u64>, mut heard: impl FnMut(&Self, &str)) -> Report {
        let mut report = Report { ended: Ended::Wrong(String::new()), found_at: None, said: 0, full: 0 };
        let mut last = String::new();
        let out = BufReader::new(child.stdout.take().unwrap());
        for line in out.lines().map_while(Result::ok) {
            let Some(line) = line.split_once("DRIVER ").map(|(_, line)| line.to_owned()) else { continue };
            heard(self, &line);
            self.hear(&line, &mut report);
            last = line;
            if lines == Some(report.said) {
                // It may be dead already.
                let _dead = child.kill();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it closed its output and does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let errors = std::fs::read_to_string(self.root.path().join("stderr")).unwrap();
        let reason = |prefix: &str| last.strip_prefix(prefix).unwrap_or_default().to_owned();
        self.was_orderly = status.code() == Some(0);
        report.ended = match (status.code(), status.signal()) {
            _ if errors.contains("panicked") => Ended::Wrong(errors),
            (Some(0), _) => Ended::Orderly,
            (_, Some(9)) => Ended::Killed,
            (Some(driver::LOST), _) => Ended::Lost(reason("lost ")),
            (Some(driver::REFUSED), _) => Ended::Refused(reason("refused ")),
            (Some(1), _) if last.starts_with("refused ") => Ended::Unavailable(reason("refused ")),
            other => Ended::Wrong(format!("{other:?}, `{last}`, {errors}")),
        };
        report
    }

    fn hear(&mut self, line: &str, report: &mut Report) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        match words[0] {
            "found" => {
                report.found_at = Some(self.control.operations() - self.before);
                self.check_found(number(1), words[2], u32::try_from(number(3)).unwrap());
            }
            "voted" => {
                report.said += 1;
                assert_eq!(number(1), self.height + 1);
                self.voted = u32::try_from(number(2)).unwrap();
            }
            "decided" => {
                report.said += 1;
                (self.height, self.voted) = (number(1), 0);
                self.check_block(self.height, words[2]);
            }
            "full" => report.full += 1,
            _ => {}
        }
    }

    fn check_block(&self, height: u64, block: &str) {
        assert_eq!(self.reference.lock().unwrap().block(height).0.to_string(), block, "block {height}");
    }

    /// What it found is all it has said, and perhaps what it was about to say.
    fn check_found(&mut self, height: u64, block: &str, voted: u32) {
        self.check_block(height, block);
        if !self.may_lack_votes {
            assert!(height >= self.height, "height {} was decided, {height} was found", self.height);
            assert!(
                height > self.height || voted >= self.voted,
                "{} votes of height {} were durable, {voted} were found",
                self.voted,
                height + 1
            );
        }
        (self.height, self.voted) = (height, voted);
    }
}
