//! A data directory with blocks and payments, and the program run on copies of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The program as a command, without the caller's environment.
pub fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masternode"));
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command.args(arguments).stdin(Stdio::null());
    command
}

#[track_caller]
pub fn run(home: &Path, arguments: &[&str], status: i32) -> (String, String) {
    expect(&command(home, arguments).output().unwrap(), status)
}

#[track_caller]
pub fn expect(output: &Output, status: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "stdout:\n{out}\nstderr:\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Runs the program and expects it to fail with `status`, each of `words` on the standard error.
#[track_caller]
pub fn refused(home: &Path, arguments: &[&str], status: i32, words: &[&str]) {
    let (_, err) = run(home, arguments, status);
    for word in words {
        assert!(err.contains(word), "`{word}` is missing in: {err}");
    }
}

/// What a devnet of three left behind; made once.
fn original() -> &'static Path {
    static MADE: OnceLock<TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let arguments = ["devnet", "--nodes", "3", "--no-tui", "--duration", "10", "--load", "40"];
        let more = ["--checkpoint-interval", "1", "--data-dir", "net", "--json"];
        run(root.path(), &[&arguments[..], &more].concat(), 0);
        root
    });
    made.path()
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A home with a copy of a node's data directory, `node`.
pub struct Home {
    root: TempDir,
}

impl Home {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = Self { root };
        home.copy(&original().join("net/node1"), "node");
        // Copies must not be in the way of each other.
        home.listen("node", free_port(), &[]);
        home
    }

    /// All three nodes, which know each other at ports of their own.
    pub fn of_three() -> Self {
        let root = tempfile::tempdir().unwrap();
        let home = Self { root };
        let ports = [free_port(), free_port(), free_port()];
        for (number, port) in (1..).zip(ports) {
            let name = format!("node{number}");
            home.copy(&original().join("net").join(&name), &name);
            home.listen(&name, port, &ports);
        }
        home
    }

    /// Changes the configuration of a node.
    pub fn configure(&self, node: &str, change: impl FnOnce(&mut toml::Table)) {
        let file = self.join(node).join("masternode.toml");
        let mut table: toml::Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        change(&mut table);
        std::fs::write(file, toml::to_string(&table).unwrap()).unwrap();
    }

    fn listen(&self, node: &str, port: u16, peers: &[u16]) {
        let address = |port: &u16| toml::Value::String(format!("127.0.0.1:{port}"));
        self.configure(node, |config| {
            config["p2p"]["listen"] = address(&port);
            config["p2p"]["bootstrap"] = toml::Value::Array(peers.iter().map(address).collect());
        });
    }

    pub fn path(&self) -> &Path {
        self.root.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn copy(&self, from: &Path, to: &str) {
        let copied = Command::new("cp").arg("-a").arg(from).arg(self.join(to)).status().unwrap();
        assert!(copied.success());
    }

    #[track_caller]
    pub fn run(&self, arguments: &[&str], status: i32) -> (String, String) {
        run(self.path(), arguments, status)
    }

    #[track_caller]
    pub fn refused(&self, arguments: &[&str], status: i32, words: &[&str]) {
        refused(self.path(), arguments, status, words);
    }

    /// Names in a folder, sorted.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.join(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Every file below a folder with its bytes, mode and time of change.
pub fn picture(folder: &Path) -> Vec<(PathBuf, Vec<u8>, u32, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::symlink_metadata(&path).unwrap();
            let bytes = if found.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
            files.push((path.clone(), bytes, found.mode(), found.mtime(), found.mtime_nsec()));
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}
