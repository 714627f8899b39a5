//! Four daemons with short eras, and room for a fifth.

use crate::program::{daemon, edit, found, free_ports, masternode, status, succeeds, until};
use crate::recorder::Recorder;
use masternode::ledger::genesis::Genesis;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];
/// The daemons by directory; whatever happens, none outlives the test.
pub struct Daemons {
    root: tempfile::TempDir,
    /// One for each of the four and one for a copy.
    ports: Vec<u16>,
    running: BTreeMap<String, Child>,
    pub recorder: Recorder,
}

impl Drop for Daemons {
    fn drop(&mut self) {
        for (name, child) in &mut self.running {
            if std::thread::panicking() {
                let dir = self.root.path().join(name);
                let output = masternode(&["status", "--plain", "--data-dir", dir.to_str().unwrap()]);
                println!("{name}: {}", String::from_utf8_lossy(&output.stdout));
            }
            let _already_gone = child.kill();
            let _already_gone = child.wait();
        }
    }
}

impl Daemons {
    /// Founds the network with `init` and `genesis create`, and starts it.
    pub fn found() -> Self {
        let root = tempfile::tempdir().unwrap();
        let ports = free_ports(NAMES.len() + 1);
        found(root.path(), &NAMES, &ports, &[], 600);
        let text = std::fs::read_to_string(root.path().join("genesis.toml")).unwrap();
        let genesis = Genesis::parse(&text, "genesis.toml").unwrap();
        let committee = Arc::clone(&genesis.state().next_committee);
        let recorder = Recorder::start(genesis.chain_id(), committee, &ports);
        let mut daemons = Self { root, ports, running: BTreeMap::new(), recorder };
        for name in NAMES {
            daemons.start(name);
        }
        for name in NAMES {
            daemons.until_state(name, "signing");
        }
        daemons
    }

    /// One of the four, cyclically.
    pub fn name(&self, index: usize) -> &'static str {
        NAMES[index % NAMES.len()]
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.dir(name).to_str().unwrap().to_owned()
    }

    pub fn start(&mut self, name: &str) {
        let log = std::fs::File::create(self.root.path().join(format!("{name}.stderr"))).unwrap();
        let child = daemon(&self.dir(name)).stderr(log).spawn().unwrap();
        self.running.insert(name.to_owned(), child);
        until(&format!("{name} answers"), || {
            if let Some(exit) = self.running.get_mut(name).unwrap().try_wait().unwrap() {
                let errors = std::fs::read_to_string(self.root.path().join(format!("{name}.stderr")));
                panic!("{name} has ended with {exit}: {}", errors.unwrap_or_default());
            }
            self.status(name)
        });
    }

    /// `masternode stop`.
    #[track_caller]
    pub fn stop(&mut self, name: &str) {
        let dir = self.text(name);
        let child = self.running.get_mut(name).unwrap();
        // A node that is busy says so and is asked again.
        until(&format!("{name} has stopped"), || {
            let asked = masternode(&["stop", "--data-dir", &dir]).status.success();
            (asked || child.try_wait().unwrap().is_some()).then_some(())
        });
        child.wait().unwrap();
        self.running.remove(name);
    }

    /// What has followed the chain to the `Resume` of another process is a candidate again when it is
    /// started again.
    pub fn restart(&mut self, name: &str) {
        self.stop(name);
        self.start(name);
    }

    /// `kill -9`.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.running.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `kill -STOP` for `lasted`, meanwhile the others go on; then `kill -CONT`.
    pub fn pause(&self, name: &str, lasted: Duration) {
        let signal = |signal| {
            let pid = i32::try_from(self.running[name].id()).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, signal).unwrap();
        };
        let others: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
        let height = || {
            let known = others.iter().filter_map(|name| self.status(name)?["chain"]["height"].as_u64());
            known.max().unwrap_or(0)
        };
        let begun = Instant::now();
        signal(Signal::STOP);
        while begun.elapsed() < lasted {
            let before = height();
            until("the others go on", || (height() > before).then_some(()));
        }
        signal(Signal::CONT);
    }

    /// How many of the other members a node is connected to.
    pub fn members(&self, name: &str) -> Option<u64> {
        let status = self.status(name)?;
        let count = |kind: &str| status["peers"][kind].as_u64().unwrap();
        Some(count("members_in") + count("members_out"))
    }

    pub fn stop_all(&mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.stop(&name);
        }
    }

    /// `cp -a` of a stopped node, at a port of its own.
    pub fn copy(&self, from: &str, to: &str) {
        let copied = Command::new("cp").args(["-a", &self.text(from), &self.text(to)]).status().unwrap();
        assert!(copied.success());
        self.give_port(to);
    }

    /// A new directory with the configuration and the keys of another.
    pub fn clone_keys(&self, from: &str, to: &str) {
        std::fs::create_dir(self.dir(to)).unwrap();
        for part in ["keys", "genesis.toml", "masternode.toml"] {
            let (from, to) = (self.dir(from).join(part), self.dir(to).join(part));
            assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
        }
        self.give_port(to);
    }

    fn give_port(&self, name: &str) {
        let listen = format!("127.0.0.1:{}", self.ports[NAMES.len()]);
        edit(&self.dir(name).join("masternode.toml"), |config| {
            config["p2p"]["listen"] = toml::Value::String(listen);
        });
    }

    /// `masternode backup` or `restore` of a node, with a folder beside it.
    #[track_caller]
    pub fn succeeds_at(&self, name: &str, command: &str, folder: &str, more: &[&str]) {
        let (folder, dir) = (self.text(folder), self.text(name));
        succeeds(&[&[command, folder.as_str(), "--data-dir", dir.as_str()], more].concat());
    }

    /// What `masternode doctor` finds.
    pub fn doctor(&self, name: &str) -> Value {
        let output = masternode(&["doctor", "--json", "--data-dir", &self.text(name)]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Puts a directory in the place of another that was removed, at the port of that.
    pub fn rename(&self, from: &str, to: &str) {
        std::fs::rename(self.dir(from), self.dir(to)).unwrap();
        let place = NAMES.iter().position(|name| *name == to).unwrap();
        let listen = format!("127.0.0.1:{}", self.ports[place]);
        edit(&self.dir(to).join("masternode.toml"), |config| {
            config["p2p"]["listen"] = toml::Value::String(listen);
        });
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_dir_all(self.dir(name)).unwrap();
    }

    pub fn status(&self, name: &str) -> Option<Value> {
        status(&self.dir(name))
    }

    #[track_caller]
    pub fn until_state(&self, name: &str, state: &str) {
        until(&format!("{name} is {state}"), || {
            self.status(name).filter(|status| status["state"]["state"] == state)
        });
    }

    pub fn votes_sent(&self, name: &str) -> u64 {
        self.status(name).unwrap()["consensus"]["votes_sent"].as_u64().unwrap()
    }

    /// Waits for an alert with this text.
    #[track_caller]
    pub fn alerts(&self, name: &str, part: &str) {
        until(&format!("{name} alerts: {part}"), || {
            let status = self.status(name)?;
            let alerts = status["alerts"].as_array()?;
            alerts.iter().any(|alert| alert["text"].as_str().unwrap().contains(part)).then_some(())
        });
    }

    /// The chain goes on.
    #[track_caller]
    pub fn two_more_blocks(&self) {
        let height = || {
            let known = NAMES.iter().filter_map(|name| self.status(name)?["chain"]["height"].as_u64());
            known.max().unwrap_or(0)
        };
        let before = height();
        until("two more blocks", || (height() >= before + 2).then_some(()));
    }
}
