//! `masternode logs` as operators and scripts use it, and how fast a large log opens and is filtered.
//!
//! ```text
//! MASTERNODE_LOGS_MIB=1024 cargo test --release --test logs -- --nocapture
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use masternode::tools::logs::files::find;
use masternode::tools::logs::filter::Filter;
use masternode::tools::logs::pages::Pages;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// 2026-11-23 06:01:02 UTC.
const NOW: u64 = 1_795_413_662_000;

fn logs(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masternode"));
    command.arg("logs").args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

const MIXED: &str = concat!(
    "2026-11-23T06:00:00Z  INFO masternode::node: started height=1\n",
    "2026-11-23T06:00:01Z  WARN masternode::network::peers: peer is slow peer=ab rtt_ms=900\n",
    "{\"timestamp\":\"2026-11-23T06:00:02Z\",\"level\":\"ERROR\",\"message\":\"disk full\",\"height\":12}\n",
    "  continued below\n",
);

#[test]
fn lines_are_printed_for_pipes_by_level_time_pattern_and_filter() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("node.log"), MIXED).unwrap();
    let count =
        |arguments: &[&str]| text(&logs(folder.path(), &[&["node.log"], arguments].concat())).lines().count();
    assert_eq!(text(&logs(folder.path(), &["node.log"])), MIXED);
    assert_eq!(count(&["--level", "warn"]), 3);
    assert_eq!(count(&["--since", "2026-11-23T06:00:01Z", "--until", "2026-11-23T06:00:02Z"]), 1);
    assert_eq!(count(&["--grep", "rtt_ms=[0-9]+$"]), 1);
    assert_eq!(count(&["--filter", "height=12"]), 1);
    assert_eq!(count(&["--filter", "target:network !peer=cd"]), 1);
    let json = text(&logs(folder.path(), &["node.log", "--json", "--level", "error", "--grep", "disk"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["message"], &json["fields"]["height"]), (&"disk full".into(), &"12".into()));
    assert_eq!(json["time"], "2026-11-23T06:00:02.000Z");
}

#[test]
fn the_logs_of_a_node_are_found_by_its_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let init = ["init", "--network", "devnet", "--data-dir", "node", "--non-interactive", "--no-passphrase"];
    let made = Command::new(env!("CARGO_BIN_EXE_masternode"))
        .args(init)
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::create_dir_all(folder.path().join("node/logs")).unwrap();
    std::fs::write(folder.path().join("node/logs/masternode.2026-11-23.log"), MIXED).unwrap();
    assert_eq!(text(&logs(folder.path(), &["--data-dir", "node"])), MIXED);
}

#[test]
fn what_is_wrong_is_said_with_place_and_remedy_and_exit_status() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("node.log"), MIXED).unwrap();
    for (arguments, status, parts) in [
        (&["missing.log"][..], 1, &["missing.log", "cannot read"][..]),
        (&["."], 0, &[]),
        (&["node.log", "--level", "loud"], 2, &["`loud` is no level", "warn"]),
        (&["node.log", "--since", "soon"], 2, &["`soon` is no time", "12:03"]),
        (&["node.log", "--grep", "("], 2, &["`(` is no regular expression", "unclosed group"]),
        (&["node.log", "--filter", "/open"], 2, &["`/open` is not closed"]),
        (&["--data-dir", "nowhere"], 78, &["nowhere", "masternode init"]),
    ] {
        let output = logs(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "{arguments:?}: {said}"));
    }
}

#[test]
fn a_log_is_followed_until_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.log");
    std::fs::write(&path, MIXED).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_masternode"));
    command.args(["logs", "node.log", "--follow", "--level", "error"]).current_dir(folder.path());
    let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut read = |bytes: usize| {
        let mut text = vec![0; bytes];
        out.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    let there: String = MIXED.lines().skip(2).map(|line| format!("{line}\n")).collect();
    assert_eq!(read(there.len()), there);
    let added = "2026-11-23T06:00:05Z ERROR masternode::node: halted\n";
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(format!("2026-11-23T06:00:04Z  INFO x: chatter\n{added}").as_bytes()).unwrap();
    assert_eq!(read(added.len()), added);
    drop(out);
    file.write_all(added.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "a reader that is gone is an end in order");
}

/// Lines as the program writes them, some of each kind.
fn write_large(path: &Path, bytes_min: u64) -> u64 {
    let mut file = BufWriter::with_capacity(1 << 20, std::fs::File::create(path).unwrap());
    let (mut bytes, mut number) = (0, 0u64);
    while bytes < bytes_min {
        number += 1;
        let time = masternode::tools::logs::time::rfc3339(NOW - 50_000_000 + number * 5);
        let level = if number.is_multiple_of(1000) { "ERROR" } else { " INFO" };
        let line = format!(
            "{time} {level} node{{node=alpha}}: masternode::node::hub: checkpoint decided height={number} round=0 \
             transactions={} proposer=7cd6ddbe pause_ms=23\n",
            number % 977
        );
        bytes += line.len() as u64;
        file.write_all(line.as_bytes()).unwrap();
    }
    file.flush().unwrap();
    number
}

#[test]
fn a_large_log_opens_at_its_end_and_is_counted_in_the_background() {
    let mib: u64 = std::env::var("MASTERNODE_LOGS_MIB").ok().map_or(8, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.log");
    let lines = write_large(&path, mib << 20);
    let bytes = std::fs::metadata(&path).unwrap().len() as f64;
    let begun = Instant::now();
    let pages = Pages::open(find(&[path], NOW).unwrap(), Filter::default(), NOW).unwrap();
    let newest = pages.before(None, 45);
    println!(
        "{mib} MiB, {lines} lines: the newest 45 are there after {:.1} ms",
        begun.elapsed().as_secs_f64() * 1e3
    );
    assert_eq!(newest.lines.len(), 45);
    let counted = || {
        let begun = Instant::now();
        loop {
            let progress = pages.progress();
            if progress.done == progress.blocks {
                return (progress, begun.elapsed().as_secs_f64());
            }
            std::thread::yield_now();
        }
    };
    let (all, took) = counted();
    assert_eq!((all.lines, all.passing), (lines, lines));
    println!("all counted after {took:.2} s, {:.0} MB a second", bytes / 1e6 / took);
    for (filter, passing) in [
        ("level:error", lines / 1000),
        ("height=4321", 1),
        ("\"height=4321 \"", 1),
        ("/transactions=97[0-6] .*=23$/", (1..=lines).filter(|number| number % 977 >= 970).count() as u64),
        ("!checkpoint", 0),
    ] {
        pages.set_filter(Filter::parse(filter, NOW).unwrap());
        let (progress, took) = counted();
        assert_eq!(progress.passing, passing, "{filter}");
        println!("filter {filter}: {took:.2} s, {:.0} MB a second", bytes / 1e6 / took);
    }
}
