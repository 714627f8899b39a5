//! The real program as tests meet it: run to its end, asked for its state, and networks of daemons founded
//! with its own commands.

use serde_json::Value;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far above what anything needs, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs it to its end.
pub fn masternode(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_masternode")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Runs it and expects success; what it says.
#[track_caller]
pub fn succeeds(arguments: &[&str]) -> String {
    let output = masternode(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the node of a data directory says of itself; `None` when it does not answer.
pub fn status(data_dir: &Path) -> Option<Value> {
    let output = masternode(&["status", "--json", "--data-dir", data_dir.to_str().unwrap()]);
    output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
}

/// A node as a process that says nothing; the caller starts and ends it.
pub fn daemon(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masternode"));
    command.args(["run", "--no-tui", "--data-dir", data_dir.to_str().unwrap()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Polls until `condition` gives a value.
#[track_caller]
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Changes a TOML file.
pub fn edit(file: &Path, change: impl FnOnce(&mut toml::Table)) {
    let mut table: toml::Table = std::fs::read_to_string(file).unwrap().parse().unwrap();
    change(&mut table);
    std::fs::write(file, toml::to_string(&table).unwrap()).unwrap();
}

/// Changes one setting of a configuration.
pub fn set(config: &mut toml::Table, section: &str, name: &str, value: impl Into<toml::Value>) {
    let table = config.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    table.as_table_mut().unwrap().insert(name.to_owned(), value.into());
}

/// Free ports of this machine, all different.
pub fn free_ports(count: usize) -> Vec<u16> {
    // Held together; free again before the nodes listen.
    let sockets: Vec<_> = (0..count).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap().port()).collect()
}

/// Founds a development network below `root` with `init` and `genesis create`: a directory and a port for
/// each name; every node knows every port. `coins` are `ADDRESS=AMOUNT`.
pub fn found(root: &Path, names: &[&str], ports: &[u16], coins: &[String], era_ms: i64) {
    let peers: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    found_at(root, names, &peers, coins, era_ms);
}

/// The same with an address to listen at for each name.
pub fn found_at(root: &Path, names: &[&str], peers: &[String], coins: &[String], era_ms: i64) {
    let dir = |name: &str| root.join(name).to_str().unwrap().to_owned();
    for (name, listen) in names.iter().zip(peers) {
        let dir = dir(name);
        let mut arguments = vec!["init", "--network", "devnet", "--non-interactive", "--no-passphrase"];
        arguments.extend(["--data-dir", &dir, "--name", name, "--listen", listen]);
        arguments.extend(peers.iter().filter(|peer| *peer != listen).flat_map(|peer| ["--bootstrap", peer]));
        succeeds(&arguments);
    }
    let file = root.join("genesis.toml");
    let public: Vec<String> =
        names.iter().map(|name| format!("{}/{name}.masternode.toml", dir(name))).collect();
    let mut arguments = vec!["genesis", "create", "--output", file.to_str().unwrap()];
    arguments.extend(public.iter().map(String::as_str));
    arguments.extend(coins.iter().flat_map(|coin| ["--allocate", coin.as_str()]));
    succeeds(&arguments);
    // A masternode may resume twice within a few blocks.
    edit(&file, |genesis| set(genesis, "params", "resume_interval_blocks", 1));
    for name in names {
        std::fs::copy(&file, root.join(name).join("genesis.toml")).unwrap();
        edit(&root.join(name).join("masternode.toml"), |config| set(config, "consensus", "era_ms", era_ms));
    }
}
