//! How a devnet begins again and how it ends: killed and resumed, without its terminal, node by node,
//! by a signal; and that its one log tells the nodes apart.

use crate::command::{devnet, free_port};
use crate::program::{self, masternode, succeeds, until};
use portable_pty::{CommandBuilder, PtyPair, PtySize, native_pty_system};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const NAMES: [&str; 3] = ["alpha", "bravo", "charlie"];

fn node(root: &Path, index: usize) -> PathBuf {
    root.join(format!("node{}", index + 1))
}

fn status(root: &Path, index: usize) -> Option<Value> {
    program::status(&node(root, index))
}

/// `masternode stop`; what it says.
#[track_caller]
fn stop(root: &Path, index: usize) -> String {
    succeeds(&["stop", "--data-dir", node(root, index).to_str().unwrap()])
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.0.kill();
        let _already_gone = self.0.wait();
    }
}

/// A devnet of three on a terminal of its own.
struct OnTerminal {
    child: Box<dyn portable_pty::Child + Send + Sync>,
}

impl OnTerminal {
    fn start(root: &Path) -> (Self, PtyPair) {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_masternode"));
        command.args(["devnet", "--nodes", "3", "--checkpoint-interval", "1", "--base-port"]);
        command.args([&free_port().to_string(), "--data-dir", root.to_str().unwrap()]);
        command.env("TERM", "xterm-256color");
        let child = pty.slave.spawn_command(command).unwrap();
        let mut screen = pty.master.try_clone_reader().unwrap();
        // What is painted has to be read, or the terminal counts as stuck.
        std::thread::spawn(move || std::io::copy(&mut screen, &mut std::io::sink()));
        (Self { child }, pty)
    }

    #[track_caller]
    fn exit_code(&mut self) -> u32 {
        until("the process ends", || self.child.try_wait().unwrap()).exit_code()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

#[test]
fn a_devnet_killed_under_load_goes_on_and_settles_every_payment() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("kept");
    let dir = root.to_str().unwrap();
    let arguments = ["--load", "100", "--checkpoint-interval", "4", "--data-dir", dir];
    let mut first = Command::new(env!("CARGO_BIN_EXE_masternode"));
    first.args(["devnet", "--no-tui", "--base-port", &free_port().to_string()]).args(arguments);
    let mut first = Running(first.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    // In the middle of an era: payments of it are final, and in no block yet.
    until("payments are final after a block", || {
        let status = status(&root, 0)?;
        let pool = status["pool"]["transactions"].as_u64().unwrap_or(u64::MAX);
        (status["chain"]["height"].as_u64()? >= 1 && status["finality"]["total"].as_u64()? > 300 && pool > 50)
            .then_some(())
    });
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let (code, report, errors) = devnet(&[&arguments[..], &["--duration", "3"]].concat());
    assert_eq!(code, Some(0), "{report:#}\n{errors}");
    assert!(report["submitted"].as_u64().unwrap() >= 100, "{report:#}");
    assert_eq!((&report["final"], &report["rejected"]), (&report["submitted"], &Value::from(0)));
}

#[test]
fn a_devnet_without_its_terminal_ends_when_its_last_node_is_stopped() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("kept");
    let first = ["--duration", "1", "--nodes", "3", "--checkpoint-interval", "1"];
    let (code, report, errors) = devnet(&[&first[..], &["--data-dir", root.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{report:#}\n{errors}");
    let (mut devnet, terminal) = OnTerminal::start(&root);
    until("a node runs", || status(&root, 2));
    drop(terminal);
    until("it pays, now that its coins are known", || {
        (status(&root, 0)?["finality"]["total"].as_u64()? > 0).then_some(())
    });
    for (index, name) in NAMES.iter().enumerate() {
        let said = stop(&root, index);
        let goes_on = said.contains("goes on with other nodes");
        assert!(said.starts_with(&format!("node {name} has stopped")), "{said}");
        assert_eq!(goes_on, index < 2, "{said}");
        assert!(
            masternode(&["stop", "--data-dir", node(&root, index).to_str().unwrap()]).status.code()
                == Some(1)
        );
    }
    assert_eq!(devnet.exit_code(), 0);
    logs_name_their_nodes(&root);
}

#[test]
fn a_signal_ends_a_devnet_on_its_terminal_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("new");
        let (mut devnet, _terminal) = OnTerminal::start(&root);
        until("the nodes run", || status(&root, 0).and(status(&root, 1)).and(status(&root, 2)));
        let pid = Pid::from_raw(devnet.child.process_id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        assert_eq!(devnet.exit_code(), 0);
    }
}

/// Every record of the library is of a node, and every node has some.
fn logs_name_their_nodes(root: &Path) {
    let files = std::fs::read_dir(root.join("logs")).unwrap().map(|file| file.unwrap().path());
    let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let parts = ["node", "network", "rpc", "consensus", "ledger", "pool"]
        .map(|part| format!(" masternode::{part}::"));
    let of_nodes: Vec<&str> =
        text.lines().filter(|line| parts.iter().any(|part| line.contains(part.as_str()))).collect();
    for line in &of_nodes {
        assert!(
            NAMES.iter().any(|name| line.contains(&format!("node{{node={name}}}"))),
            "of no node: {line}"
        );
    }
    for name in NAMES {
        let started = format!("node{{node={name}}}: masternode::node::start: started");
        assert!(of_nodes.iter().any(|line| line.contains(&started)), "{text}");
    }
}
