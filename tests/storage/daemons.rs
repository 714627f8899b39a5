//! The real program: four daemons with short eras, one of them on a file layer that fails on purpose.

use crate::program::{self, PATIENCE, daemon, edit, found, free_ports, masternode, set, succeeds};
use crate::shelf::{Control, Random};
use crate::{seed, times};
use masternode::ledger::genesis::Genesis;
use masternode::node::floor::SignFloor;
use masternode::node::instance::{Instance, Since};
use masternode::node::journal::Journal;
use masternode::primitives::address::Address;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::keys::SecretKey;
use masternode::wallet::keystore;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];
/// The one whose disk fails; three of four are a quorum.
const VICTIM: usize = 3;
/// The daemons; whatever happens, none outlives the test.
pub struct Daemons {
    root: tempfile::TempDir,
    control: Control,
    running: Vec<Option<Child>>,
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for (index, child) in self.running.iter_mut().enumerate() {
            let Some(child) = child else { continue };
            if std::thread::panicking() {
                let dir = self.root.path().join(NAMES[index]);
                let output = masternode(&["status", "--plain", "--data-dir", dir.to_str().unwrap()]);
                println!("{}: {}", NAMES[index], String::from_utf8_lossy(&output.stdout));
            }
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

impl Daemons {
    fn found() -> Self {
        let mut daemons = Self::prepared(&[]);
        for index in 0..NAMES.len() {
            daemons.start(index);
        }
        daemons.until_signing();
        daemons
    }

    /// A network with this many coins of `owner` at the start.
    pub fn unstarted(owner: &SecretKey, coins: u64) -> Self {
        let address = Address { network: NetworkKind::Devnet, key_hash: owner.public().key_hash() };
        Self::prepared(&vec![format!("{address}=100"); usize::try_from(coins).unwrap()])
    }

    fn prepared(coins: &[String]) -> Self {
        let root = tempfile::tempdir().unwrap();
        found(root.path(), &NAMES, &free_ports(NAMES.len()), coins, 500);
        let control = Control::new(&root.path().join("control"));
        Self { root, control, running: NAMES.iter().map(|_| None).collect() }
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn genesis(&self) -> Genesis {
        let text = std::fs::read_to_string(self.root.path().join("genesis.toml")).unwrap();
        Genesis::parse(&text, "genesis.toml").unwrap()
    }

    pub fn vote_keys(&self) -> Vec<SecretKey> {
        let key = |index| keystore::load(&self.dir(index).join("keys/vote.key"), None).unwrap();
        (0..NAMES.len()).map(key).collect()
    }

    /// Gives every daemon a copy of a database at this height, and the traces of one that was stopped there.
    pub fn take_database(&self, db: &Path, height: u64) {
        let chain = self.genesis().chain_id();
        for (index, key) in self.vote_keys().iter().enumerate() {
            let dir = self.dir(index);
            crate::shelf::copy(db, &dir.join("db"));
            Journal::open(&dir.join("journal"), chain, height + 1).unwrap();
            SignFloor::read(&dir, Some(key.public())).unwrap().raise(height + 1).unwrap();
            Instance::begin(&dir, chain, key.public(), Since::Registration, Vec::new()).unwrap();
        }
    }

    /// Seconds the last daemon takes from its start to voting, the processor time it takes for that, and
    /// its most resident memory in MB; with the cache of mainnet.
    pub fn measure_start(&mut self) -> (f64, f64, u64) {
        edit(&self.dir(VICTIM).join("masternode.toml"), |config| {
            set(config, "storage", "cache_bytes", 128 << 20);
        });
        for index in 0..VICTIM {
            self.start_plain(index);
        }
        for index in 0..VICTIM {
            self.until("the others vote", |daemons| {
                daemons.status(index).filter(|status| status["state"]["state"] == "signing")
            });
        }
        let begun = Instant::now();
        self.start_plain(VICTIM);
        self.until_signing();
        let took = begun.elapsed().as_secs_f64();
        let status = self.status(VICTIM).unwrap();
        println!("the program itself says {} ms", status["node"]["startup_ms"]);
        let process = self.running[VICTIM].as_ref().unwrap().id();
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        // After the name: state and ten more, then user and system time in hundredths.
        let words: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let hundredths: u32 = words[11..13].iter().map(|word| word.parse::<u32>().unwrap()).sum();
        let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        self.others_decide(2);
        (took, f64::from(hundredths) / 100.0, peak * 1024 / 1_000_000)
    }

    fn dir(&self, index: usize) -> PathBuf {
        self.root.path().join(NAMES[index])
    }

    fn start(&mut self, index: usize) {
        self.start_on(index, index == VICTIM);
    }

    fn start_plain(&mut self, index: usize) {
        self.start_on(index, false);
    }

    fn start_on(&mut self, index: usize, fails: bool) {
        let name = self.root.path().join(format!("{}.stderr", NAMES[index]));
        let errors = std::fs::File::create(name).unwrap();
        let mut command = daemon(&self.dir(index));
        if fails {
            self.control.apply(&mut command, &self.dir(index), None);
        }
        let child = command.stderr(errors).spawn().unwrap();
        self.running[index] = Some(child);
    }

    fn errors(&self) -> String {
        let name = self.root.path().join(format!("{}.stderr", NAMES[VICTIM]));
        std::fs::read_to_string(name).unwrap()
    }

    /// All the victim has logged.
    fn log(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir(VICTIM).join("logs")).into_iter().flatten() {
            text += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
        }
        text
    }

    fn exit(&mut self, index: usize) -> Option<ExitStatus> {
        let status = self.running[index].as_mut()?.try_wait().unwrap()?;
        self.running[index] = None;
        Some(status)
    }

    #[track_caller]
    fn until<T>(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = condition(self) {
                return value;
            }
            assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    fn status(&self, index: usize) -> Option<Value> {
        program::status(&self.dir(index))
    }

    fn height(&self, index: usize) -> Option<u64> {
        self.status(index)?["chain"]["height"].as_u64()
    }

    fn votes(&self) -> u64 {
        self.status(VICTIM).unwrap()["consensus"]["votes_sent"].as_u64().unwrap()
    }

    #[track_caller]
    fn until_state(&mut self, state: &str) -> Value {
        self.until(&format!("the state is {state}"), |daemons| {
            daemons.status(VICTIM).filter(|status| status["state"]["state"] == state)
        })
    }

    #[track_caller]
    fn until_signing(&mut self) {
        self.until_state("signing");
    }

    /// The others decide so many blocks.
    #[track_caller]
    fn others_decide(&mut self, blocks: u64) {
        let before = self.until("the others answer", |daemons| daemons.height(0));
        self.until("the others go on", |daemons| {
            daemons.height(0).filter(|height| *height >= before + blocks)
        });
    }

    /// All four at one height, with one state hash, and the victim's key never accused.
    #[track_caller]
    fn agree(&mut self) {
        self.until("all agree", |daemons| {
            let chains: Vec<Value> =
                (0..NAMES.len()).filter_map(|index| Some(daemons.status(index)?["chain"].clone())).collect();
            let same = |field: &str| chains.iter().all(|chain| chain[field] == chains[0][field]);
            (chains.len() == NAMES.len() && same("height") && same("block") && same("state_hash"))
                .then_some(())
        });
        for index in 0..NAMES.len() {
            let status = self.status(index).unwrap();
            let alerts = status["alerts"].to_string();
            assert!(!alerts.contains("evidence") && !alerts.contains("convicted"), "{alerts}");
        }
        assert!(!self.log().contains("panicked"), "a panic in the log");
    }

    /// The victim is gone; how.
    #[track_caller]
    fn until_gone(&mut self) -> ExitStatus {
        self.until("the victim ends", |daemons| daemons.exit(VICTIM))
    }
}

#[test]
fn a_daemon_killed_at_any_operation_goes_on_from_its_own_log() {
    let kills = times(50, 3);
    let mut random = Random(seed() ^ 0xda);
    let mut daemons = Daemons::found();
    for kill in 0..kills {
        daemons.control.kill_after(1 + random.below(if kill % 5 == 0 { 60 } else { 400 }), random.below(257));
        if kill % 5 == 0 {
            // In the middle of a start after a crash.
            daemons.running[VICTIM].as_mut().unwrap().kill().unwrap();
            daemons.until_gone();
            daemons.start(VICTIM);
        }
        let status = daemons.until_gone();
        assert_eq!(status.signal(), Some(9), "{}", daemons.errors());
        daemons.start(VICTIM);
        daemons.until_signing();
        daemons.others_decide(1);
    }
    daemons.agree();
    assert!(!daemons.log().contains("safe-start"), "nothing was lost that it would have to wait for");
    println!("kills of the real program {kills}, it signed again after each and lost nothing");
}

#[test]
fn a_daemon_on_a_full_disk_sends_no_vote_and_goes_on_by_itself_when_there_is_space() {
    let trials = times(50, 3);
    let mut random = Random(seed() ^ 0xf5);
    let mut daemons = Daemons::found();
    for trial in 0..trials {
        daemons.control.fail_after(1 + trial + random.below(3), 28, random.below(256));
        let status = daemons.until_state("not-signing");
        assert_eq!(status["state"]["stage"], "held back", "{status:#}");
        daemons.others_decide(1);
        let votes = daemons.votes();
        daemons.others_decide(1);
        assert_eq!(daemons.votes(), votes, "trial {trial}: a vote was sent while the disk was full");
        assert!(daemons.control.failures() > 0);
        daemons.control.heal();
        daemons.until_signing();
    }
    daemons.others_decide(1);
    daemons.agree();
    let log = daemons.log();
    assert!(!log.contains("safe-start") && !log.contains("halted"), "{log}");
    println!(
        "full disks under the real program {trials}: no vote while full, it went on by itself, nothing was lost"
    );
}

#[test]
fn a_daemon_whose_disk_fails_halts_naming_the_file_and_signs_again_after_a_restart() {
    let trials = times(10, 1);
    let mut random = Random(seed() ^ 0xe1);
    let mut daemons = Daemons::found();
    for trial in 0..trials {
        daemons.control.fail_after(1 + random.below(12), 5, random.below(256));
        let status = daemons.until_state("halted");
        let reason = status["state"]["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains(daemons.dir(VICTIM).to_str().unwrap()), "trial {trial}: {reason}");
        let votes = daemons.votes();
        daemons.others_decide(2);
        assert_eq!(daemons.votes(), votes, "a vote was sent after the disk failed");
        daemons.control.heal();
        daemons.running[VICTIM].as_mut().unwrap().kill().unwrap();
        daemons.until_gone();
        daemons.start(VICTIM);
        daemons.until_signing();
    }
    daemons.agree();
    println!(
        "failing disks under the real program {trials}: halted with the file named, signed again after a restart"
    );
}

/// Bytes of a segment without any group.
const HEADER_BYTES: u64 = 80;

/// Cuts bytes off the newest segment of the victim's vote log, if there are any but its header.
fn cut_log(daemons: &Daemons, bytes: u64) -> bool {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(daemons.dir(VICTIM).join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    logs.sort();
    let file = std::fs::File::options().write(true).open(logs.last().unwrap()).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes).max(HEADER_BYTES)).unwrap();
    length > HEADER_BYTES
}

#[test]
fn a_vote_log_cut_at_rest_is_noticed_and_nothing_is_signed_twice() {
    let trials = times(10, 1);
    let mut random = Random(seed() ^ 0xc0);
    let mut daemons = Daemons::found();
    for trial in 0..trials {
        let orderly = trial % 2 == 0;
        if orderly {
            succeeds(&["stop", "--data-dir", daemons.dir(VICTIM).to_str().unwrap()]);
        } else {
            // As a crash leaves it: only the other nodes know what was sent.
            daemons.running[VICTIM].as_mut().unwrap().kill().unwrap();
        }
        daemons.until_gone();
        let told = |daemons: &Daemons| daemons.log().matches("when this node was stopped").count();
        let before = told(&daemons);
        let cut = cut_log(&daemons, 1 + random.below(400));
        daemons.start(VICTIM);
        if orderly && cut {
            daemons.until("it says that the log was cut", |daemons| (told(daemons) > before).then_some(()));
        }
        daemons.others_decide(2);
        daemons.until_signing();
    }
    daemons.agree();
    println!("vote logs cut at rest under the real program {trials}: nothing signed twice");
}

#[test]
fn the_program_refuses_a_damaged_directory_with_78_and_names_file_and_remedy_or_runs_without_signing() {
    let trials = times(40, 6);
    let mut random = Random(seed() ^ 0x78);
    let mut daemons = Daemons::found();
    for index in 0..NAMES.len() {
        succeeds(&["stop", "--data-dir", daemons.dir(index).to_str().unwrap()]);
        daemons.until("it is gone", |daemons| daemons.exit(index));
    }
    let whole = daemons.root.path().join("whole");
    crate::shelf::copy(&daemons.dir(VICTIM), &whole);
    let (mut refused, mut running) = (0, 0);
    for trial in 0..trials {
        std::fs::remove_dir_all(daemons.dir(VICTIM)).unwrap();
        crate::shelf::copy(&whole, &daemons.dir(VICTIM));
        let name = ["db/db", "db/db", "db/CHAIN", "db/conf", "sign_floor"][random.place(5)];
        let file = daemons.dir(VICTIM).join(name);
        let what = crate::damage(&file, &mut random);
        daemons.start(VICTIM);
        let ended = daemons.until("it refuses or runs", |daemons| match daemons.exit(VICTIM) {
            Some(status) => Some(Some(status)),
            None => {
                let status = daemons.status(VICTIM)?;
                (status["state"]["state"] != "starting").then_some(None)
            }
        });
        let errors = daemons.errors();
        assert!(!errors.contains("panicked"), "trial {trial}, {name}: {what}: {errors}");
        match ended {
            Some(status) => {
                refused += 1;
                assert_eq!(status.code(), Some(78), "trial {trial}, {name}: {what}: {errors}");
                assert!(errors.contains(daemons.dir(VICTIM).to_str().unwrap()), "{errors}");
                let remedies = ["restore", "move", "use the"];
                assert!(remedies.iter().any(|remedy| errors.contains(remedy)), "{errors}");
            }
            None => {
                running += 1;
                assert_ne!(daemons.status(VICTIM).unwrap()["state"]["state"], "signing");
                daemons.running[VICTIM].as_mut().unwrap().kill().unwrap();
                daemons.until_gone();
            }
        }
    }
    println!(
        "damaged directories under the real program {trials}: {refused} refused with 78, {running} ran, none signed"
    );
}
