//! `masternode devnet` as scripts run it.

use serde_json::Value;
use std::net::UdpSocket;
use std::process::{Command, Stdio};

/// Runs a devnet and returns its exit status, report and errors.
fn devnet(arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_masternode"))
        .args(["devnet", "--no-tui", "--json"])
        .args(arguments)
        .args(["--base-port", &free_port().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: `{text}`\n{errors}"));
    (output.status.code(), report, errors)
}

/// A port nobody has just now, so that tests side by side do not look for the same ones.
fn free_port() -> u16 {
    let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    port.clamp(1024, 65_000)
}

fn equal(values: &Value) -> bool {
    let values = values.as_array().unwrap();
    values.len() == 4 && values.iter().all(|value| *value == values[0])
}

#[test]
fn four_nodes_under_load_agree_and_every_payment_and_double_spend_is_settled() {
    let arguments =
        ["--duration", "6", "--load", "100", "--checkpoint-interval", "2", "--double-spends", "10"];
    let (status, report, errors) = devnet(&arguments);
    assert_eq!(status, Some(0), "{report:#}\n{errors}");
    assert_eq!(report["faults"].as_array().unwrap().len(), 0, "{report:#}");
    assert!(report["submitted"].as_u64().unwrap() >= 300, "{report:#}");
    assert_eq!(report["final"], report["submitted"], "{report:#}");
    assert_eq!((&report["rejected"], &report["conflicts"]), (&Value::from(0), &Value::from(0)));
    assert!(equal(&report["heights"]) && equal(&report["state_hashes"]), "{report:#}");
    assert!(report["checkpoints"].as_u64().unwrap() >= 2, "{report:#}");
    let double_spends = &report["double_spends"];
    assert_eq!(
        (&double_spends["tried"], &double_spends["settled_once"]),
        (&Value::from(10), &Value::from(10))
    );
    let finality = |name: &str| report["finality_ms"][name].as_f64().unwrap();
    assert!(finality("p50") > 0.0 && finality("p50") <= finality("p99"), "{report:#}");
    assert!(finality("p99") <= finality("max"), "{report:#}");
}

#[test]
fn a_kept_devnet_goes_on_where_it_was_and_refuses_another_size() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("kept");
    let dir = dir.to_str().unwrap();
    let run = |nodes: &str| {
        let arguments = ["--duration", "2", "--load", "20", "--checkpoint-interval", "1"];
        devnet(&[&arguments[..], &["--data-dir", dir, "--nodes", nodes]].concat())
    };
    let height = |report: &Value| report["heights"][0].as_u64().unwrap();
    let (status, first, errors) = run("3");
    assert_eq!(status, Some(0), "{first:#}\n{errors}");
    let (status, second, errors) = run("3");
    assert_eq!(status, Some(0), "{second:#}\n{errors}");
    assert!(height(&first) >= 1 && height(&second) > height(&first), "{first:#}\n{second:#}");
    let refused = Command::new(env!("CARGO_BIN_EXE_masternode"))
        .args(["devnet", "--no-tui", "--duration", "1", "--nodes", "4", "--data-dir", dir])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(78));
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(errors.contains("a devnet of 3 nodes, not 4"), "{errors}");
}
