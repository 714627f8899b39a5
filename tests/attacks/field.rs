//! Four daemons of the real program on their ground, and what is measured of them.

use crate::ground::Ground;
use crate::program::{daemon, found_at, masternode, until};
use masternode::ledger::genesis::Genesis;
use masternode::primitives::address::Address;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::ChainId;
use masternode::primitives::keys::SecretKey;
use masternode::rpc::client::ControlClient;
use masternode::telemetry::snapshot::{NodeState, PeerInfo, Snapshot};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const NAMES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];
/// The nodes attacked: without one of them there is no quorum.
pub const TARGETS: [usize; 2] = [0, 1];
/// The one that is stopped, restarted, given a wrong clock.
pub const VICTIM: usize = 3;
/// Name of the honest observer that pays.
pub const PAYER: &str = "payer";
/// What must be connected again within: the mark.
pub const BACK: Duration = Duration::from_secs(30);
/// Short, so that a test sees many checkpoints.
const ERA_MS: i64 = 1000;

/// The daemons; whatever happens, none outlives the test.
pub struct Field {
    root: tempfile::TempDir,
    running: Vec<Option<Child>>,
    pub genesis: Genesis,
    pub ground: Ground,
}

impl Drop for Field {
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
        if std::thread::panicking() && std::env::var("MASTERNODE_ATTACKS_KEEP").is_ok() {
            let kept = self.root.path().with_extension("kept");
            let _copied = Command::new("cp").arg("-a").args([self.root.path(), &kept]).status();
            println!("the data is in {}", kept.display());
        }
    }
}

impl Field {
    /// Founds the network, with this many coins of `payer`, and starts it.
    pub fn found(payer: &SecretKey, coins: usize) -> Self {
        let ground = Ground::prepare(NAMES.len());
        let root = tempfile::tempdir().unwrap();
        let addresses: Vec<String> = (0..NAMES.len()).map(|node| ground.address(node).to_string()).collect();
        let owner = Address { network: NetworkKind::Devnet, key_hash: payer.public().key_hash() };
        found_at(root.path(), &NAMES, &addresses, &vec![format!("{owner}=100"); coins], ERA_MS);
        let text = std::fs::read_to_string(root.path().join("genesis.toml")).unwrap();
        let genesis = Genesis::parse(&text, "genesis.toml").unwrap();
        let mut field = Self { root, running: NAMES.iter().map(|_| None).collect(), genesis, ground };
        (0..NAMES.len()).for_each(|node| field.start(node));
        (0..NAMES.len()).for_each(|node| field.until_signing(node));
        field
    }

    pub fn chain(&self) -> ChainId {
        self.genesis.chain_id()
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    pub fn dir(&self, node: usize) -> PathBuf {
        self.root.path().join(NAMES[node])
    }

    pub fn start(&mut self, node: usize) {
        self.start_with(node, |_| {});
    }

    /// With a clock that is wrong by so much.
    pub fn start_with_clock(&mut self, node: usize, error_ms: i64) {
        self.start_with(node, |command| {
            command.env("LD_PRELOAD", clock_shim()).env("CLOCK_SHIM_MS", error_ms.to_string());
        });
    }

    fn start_with(&mut self, node: usize, change: impl FnOnce(&mut Command)) {
        let errors = std::fs::File::create(self.root.path().join(format!("{}.stderr", NAMES[node]))).unwrap();
        let mut command = daemon(&self.dir(node));
        change(command.stderr(errors));
        self.running[node] = Some(self.ground.at(node, || command.spawn().unwrap()));
        until(&format!("{} answers", NAMES[node]), || {
            if let Some(exit) = self.running[node].as_mut().unwrap().try_wait().unwrap() {
                let errors =
                    std::fs::read_to_string(self.root.path().join(format!("{}.stderr", NAMES[node])));
                panic!("{} has ended with {exit}: {}", NAMES[node], errors.unwrap_or_default());
            }
            self.status(node)
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self, node: usize) {
        let mut child = self.running[node].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn pid(&self, node: usize) -> u32 {
        self.running[node].as_ref().unwrap().id()
    }

    fn signal(&self, node: usize, signal: Signal) {
        let pid = i32::try_from(self.pid(node)).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// `kill -STOP`, and `kill -CONT` once the others have gone on for so long.
    pub fn pause(&self, node: usize, lasted: Duration) {
        let begun = Instant::now();
        self.signal(node, Signal::STOP);
        while begun.elapsed() < lasted {
            let before = self.height();
            until("the others go on", || (self.height_without(node) > before).then_some(()));
        }
        self.signal(node, Signal::CONT);
    }

    pub fn status(&self, node: usize) -> Option<Snapshot> {
        ControlClient::connect(&self.dir(node)).ok()?.status().ok()
    }

    #[track_caller]
    pub fn until_signing(&self, node: usize) {
        until(&format!("{} signs", NAMES[node]), || {
            self.status(node).filter(|status| status.state == NodeState::Signing)
        });
    }

    fn height_without(&self, excluded: usize) -> u64 {
        let others = (0..NAMES.len()).filter(|node| *node != excluded && self.running[*node].is_some());
        others.filter_map(|node| Some(self.status(node)?.chain.height)).max().unwrap_or(0)
    }

    /// The greatest height anybody but the victim has.
    pub fn height(&self) -> u64 {
        self.height_without(VICTIM)
    }

    #[track_caller]
    pub fn blocks(&self, count: u64) {
        let before = self.height();
        until(&format!("{count} more blocks"), || (self.height() >= before + count).then_some(()));
    }

    /// The honest peers a node is connected to.
    pub fn honest(&self, node: usize) -> Vec<PeerInfo> {
        let list = self.status(node).map(|status| status.peers.list).unwrap_or_default();
        list.into_iter().filter(|peer| is_honest(peer.name.as_str())).collect()
    }

    /// Whether every node is connected to all others.
    pub fn is_whole(&self) -> bool {
        (0..NAMES.len()).all(|node| {
            let names: BTreeSet<String> =
                self.honest(node).into_iter().map(|peer| peer.name.as_str().to_owned()).collect();
            names.len() >= NAMES.len() - 1 && NAMES.iter().filter(|name| names.contains(**name)).count() == 3
        })
    }

    /// Waits until every node is connected to all others, and says how long that took; no honest node is banned.
    #[track_caller]
    pub fn until_whole(&self, after: &str) -> Duration {
        let begun = Instant::now();
        until(&format!("all are connected after {after}"), || self.is_whole().then_some(()));
        self.no_honest_bans(after);
        begun.elapsed()
    }

    /// Nobody of ours is banned anywhere, by key or by address.
    #[track_caller]
    pub fn no_honest_bans(&self, after: &str) {
        let keys: BTreeSet<String> =
            (0..NAMES.len()).flat_map(|node| self.honest(node)).map(|peer| peer.id).collect();
        for node in (0..NAMES.len()).filter(|node| self.running[*node].is_some()) {
            let bans = ControlClient::connect(&self.dir(node)).unwrap().bans().unwrap();
            for ban in bans {
                let subject = ban.subject.as_str();
                let ours = |node: usize| self.ground.address(node).ip().to_string();
                let honest = keys.contains(subject)
                    || (0..NAMES.len()).any(|node| subject.starts_with(&ours(node)))
                    || subject.starts_with(&self.ground.payer().ip().to_string());
                assert!(!honest, "{} bans {subject} after {after}: {}", NAMES[node], ban.evidence);
            }
        }
    }

    /// Resident memory in bytes.
    pub fn memory(&self, node: usize) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid(node))).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
    }

    /// Where a node listens.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.ground.address(node)
    }

    pub fn stop_all(&mut self) {
        let dirs: Vec<PathBuf> = (0..NAMES.len()).map(|node| self.dir(node)).collect();
        for ((running, name), dir) in self.running.iter_mut().zip(NAMES).zip(dirs) {
            let child = running.as_mut().unwrap();
            until(&format!("{name} has stopped"), || {
                let asked = masternode(&["stop", "--data-dir", dir.to_str().unwrap()]).status.success();
                (asked || child.try_wait().unwrap().is_some()).then_some(())
            });
            let exit = child.wait().unwrap();
            assert!(exit.success(), "{name} ended with {exit}");
            *running = None;
        }
    }
}

pub fn is_honest(name: &str) -> bool {
    NAMES.contains(&name) || name == PAYER
}

/// The library of a wrong clock, built once.
fn clock_shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let library = target.join(format!("libclock_shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks/clock.rs");
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let built = Command::new(compiler)
            .args(["--edition", "2024", "--crate-type", "cdylib", "-O", "-o"])
            .args([&library, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}
