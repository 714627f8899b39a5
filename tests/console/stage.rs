//! A network of three nodes in one process, and a terminal that shows what a program paints.

use crate::program::{self, free_ports, until};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::Value;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_masternode");

/// Three nodes with payments, without a console; whatever happens, they do not outlive the test.
pub struct Network {
    process: std::process::Child,
    root: tempfile::TempDir,
}

impl Drop for Network {
    fn drop(&mut self) {
        let _already_gone = self.process.kill();
        let _already_gone = self.process.wait();
    }
}

impl Network {
    /// Starts it and waits until payments are final.
    pub fn start() -> Self {
        // Others may take the ports between the look and the use of them.
        loop {
            let root = tempfile::tempdir().unwrap();
            let port = free_ports(1)[0].clamp(1024, 65_000).to_string();
            let mut command = Command::new(PROGRAM);
            command.args([
                "devnet",
                "--no-tui",
                "--nodes",
                "3",
                "--load",
                "10",
                "--checkpoint-interval",
                "1",
            ]);
            command.args(["--base-port", &port]).arg("--data-dir").arg(root.path().join("net"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut network = Self { process: command.spawn().unwrap(), root };
            let runs = until("the nodes run, or could not start", || {
                let ended = network.process.try_wait().unwrap().map(|_| false);
                ended.or_else(|| network.status(2).and(network.status(1)).map(|_| true))
            });
            if runs {
                network.goes_on(0);
                return network;
            }
        }
    }

    pub fn dir(&self, index: usize) -> PathBuf {
        self.root.path().join("net").join(format!("node{}", index + 1))
    }

    /// A folder of the test, beside those of the nodes.
    pub fn folder(&self) -> &Path {
        self.root.path()
    }

    pub fn status(&self, index: usize) -> Option<Value> {
        program::status(&self.dir(index))
    }

    /// Waits until a node has voted, finalised and decided after now.
    #[track_caller]
    pub fn goes_on(&self, index: usize) {
        let figures = |status: &Value| {
            let figure = |a: &str, b: &str| status[a][b].as_u64().unwrap();
            [figure("chain", "height"), figure("finality", "total"), figure("consensus", "votes_sent")]
        };
        let before = self.status(index).map_or([0; 3], |status| figures(&status));
        until("the node goes on", || {
            let now = figures(&self.status(index)?);
            now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
        });
    }
}

/// A program on a terminal.
pub struct Stage {
    pub child: Box<dyn Child + Send + Sync>,
    master: Option<Box<dyn MasterPty + Send>>,
    keys: Option<Box<dyn Write + Send>>,
    reading: Arc<AtomicBool>,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _already_gone = self.child.wait();
    }
}

/// The program with these arguments, to be run on a terminal.
pub fn program(arguments: &[&str]) -> CommandBuilder {
    let mut command = CommandBuilder::new(PROGRAM);
    command.args(arguments);
    command
}

impl Stage {
    /// Runs a command on a terminal of 80×24.
    pub fn open(command: CommandBuilder) -> Self {
        Self::sized(command, 80, 24)
    }

    pub fn sized(mut command: CommandBuilder, columns: u16, rows: u16) -> Self {
        let size = PtySize { rows, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pty = native_pty_system().openpty(size).unwrap();
        command.env("TERM", "xterm-256color");
        command.env("LC_ALL", "C.UTF-8");
        let child = pty.slave.spawn_command(command).unwrap();
        let screen = vt100::Parser::new(rows.try_into().unwrap(), columns.try_into().unwrap(), 200);
        let screen = Arc::new(Mutex::new(screen));
        let (mut reader, painted) = (pty.master.try_clone_reader().unwrap(), Arc::clone(&screen));
        let reading = Arc::new(AtomicBool::new(true));
        let goes_on = Arc::clone(&reading);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while goes_on.load(Ordering::SeqCst) {
                let Ok(length @ 1..) = reader.read(&mut bytes) else { return };
                painted.lock().unwrap().process(&bytes[..length]);
            }
            // Open, and nobody reads: as a line that is cut.
            while !goes_on.load(Ordering::SeqCst) && Arc::strong_count(&goes_on) > 1 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        let keys = Some(pty.master.take_writer().unwrap());
        Self { child, master: Some(pty.master), keys, reading, screen }
    }

    /// Types.
    pub fn press(&mut self, keys: &str) {
        let to = self.keys.as_mut().unwrap();
        to.write_all(keys.as_bytes()).unwrap();
        to.flush().unwrap();
    }

    /// Types where perhaps nobody listens any more.
    pub fn try_press(&mut self, keys: &str) {
        let _nobody_listens = self.keys.as_mut().unwrap().write_all(keys.as_bytes());
    }

    /// Takes nothing any more of what the program paints.
    pub fn stop_reading(&self) {
        self.reading.store(false, Ordering::SeqCst);
    }

    /// Closes the terminal under the program.
    pub fn close(&mut self) {
        self.reading.store(false, Ordering::SeqCst);
        // The reader of the test holds it open as well, until the next thing is painted.
        self.reading = Arc::new(AtomicBool::new(true));
        self.keys = None;
        self.master = None;
    }

    pub fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Whether a program has taken the whole terminal.
    pub fn is_taken(&self) -> bool {
        self.screen.lock().unwrap().screen().alternate_screen()
    }

    #[track_caller]
    pub fn until_shows(&self, words: &[&str]) {
        let end = std::time::Instant::now() + program::PATIENCE;
        while !words.iter().all(|word| self.text().contains(word)) {
            assert!(std::time::Instant::now() < end, "{words:?} not on:\n{}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    #[track_caller]
    pub fn until_taken(&self, taken: bool) {
        until("the terminal is taken or given back", || (self.is_taken() == taken).then_some(()));
    }

    #[track_caller]
    pub fn exit_code(&mut self) -> u32 {
        until("the program ends", || self.child.try_wait().unwrap()).exit_code()
    }
}
