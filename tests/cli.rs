//! The command line as scripts meet it: exit status, which stream, file and remedy.
//!
//! Runs the real binary; nothing here starts a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

/// Runs the binary without the caller's environment.
fn masternode(arguments: &[&str], home: &Path) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("masternode").unwrap();
    command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn expect(output: &Output, status: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "stdout:\n{out}\nstderr:\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Refused with status 78, the file and each of `words` on the standard error, nothing on the other.
#[track_caller]
fn expect_refused(output: &Output, words: &[&str]) {
    let (out, err) = expect(output, 78);
    assert!(out.is_empty(), "{out}");
    for word in words {
        assert!(err.contains(word), "`{word}` is missing in: {err}");
    }
}

/// Three founders in `home`, and their genesis copied to each.
fn found(home: &Path) {
    for name in ["a", "b", "c"] {
        let init = ["init", "--network", "devnet", "--data-dir", name, "--name", name, "--no-passphrase"];
        expect(&masternode(&[&init[..], &["--non-interactive"]].concat(), home), 0);
    }
    let create = ["genesis", "create", "a/a.masternode.toml", "b/b.masternode.toml", "c/c.masternode.toml"];
    expect(&masternode(&create, home), 0);
    for name in ["a", "b", "c"] {
        std::fs::copy(home.join("genesis.toml"), home.join(name).join("genesis.toml")).unwrap();
    }
}

fn mode(file: &Path) -> u32 {
    file.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn every_command_explains_itself() {
    let home = tempfile::tempdir().unwrap();
    let commands: [&[&str]; 25] = [
        &[],
        &["run"],
        &["devnet"],
        &["init"],
        &["genesis"],
        &["genesis", "create"],
        &["genesis", "inspect"],
        &["proof"],
        &["proof", "get"],
        &["proof", "verify"],
        &["attach"],
        &["replay"],
        &["status"],
        &["stop"],
        &["ban"],
        &["unban"],
        &["listbanned"],
        &["doctor"],
        &["backup"],
        &["restore"],
        &["export"],
        &["import"],
        &["check-config"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let (out, err) = expect(&masternode(&[command, &["--help"]].concat(), home.path()), 0);
        assert!(out.contains("Usage: masternode") && err.is_empty(), "{command:?}: {out}{err}");
    }
    let (version, _) = expect(&masternode(&["--version"], home.path()), 0);
    assert_eq!(version.trim(), concat!("masternode ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_is_status_2_and_a_slip_gets_a_suggestion() {
    let home = tempfile::tempdir().unwrap();
    let (_, err) = expect(&masternode(&["statsu"], home.path()), 2);
    assert!(err.contains("'status'"), "{err}");
    let (_, err) = expect(&masternode(&["run", "--no-tiu"], home.path()), 2);
    assert!(err.contains("--no-tui"), "{err}");
    for wrong in [
        &["run", "--network", "moonnet"][..],
        &["run", "--color", "blue"],
        &["run", "--log-level", "masternode=loud"],
        &["run", "--trusted-block", "42"],
        &["devnet", "--nodes", "2"],
        &["devnet", "--nodes", "17"],
        &["devnet", "--json"],
        &["init", "--no-passphrase", "--passphrase-file", "x"],
        &["init", "--name", "\u{1b}[2J"],
        &["init", "--payout", "time1nonsense", "--no-passphrase"],
        &["init", "--non-interactive"],
        &["genesis", "create"],
        &["genesis", "create", "x", "--allocate", "nobody"],
        &["check-config"],
        &["proof", "get", "abc"],
        &["proof", "verify", "x.proof"],
        &["proof", "verify", "x.proof", "--trusted", "7"],
        &["status", "--plain", "--json"],
        &["ban"],
        &["ban", "203.0.113.5", "--for", "soon"],
        &["ban", "203.0.113.5", "--for", "0s"],
        &["unban"],
        &["completions", "csh"],
    ] {
        let (out, err) = expect(&masternode(wrong, home.path()), 2);
        assert!(out.is_empty() && !err.is_empty(), "{wrong:?}");
        assert!(!err.contains('\u{1b}'), "{wrong:?}: escape reaches the terminal");
    }
}

#[test]
fn init_makes_a_private_directory_with_keys_and_overwrites_nothing() {
    let home = tempfile::tempdir().unwrap();
    let init = ["init", "--network", "testnet", "--data-dir", "node", "--name", "north 1", "--no-passphrase"];
    let (out, err) = expect(&masternode(&init, home.path()), 0);
    assert!(out.contains("ttime1") && out.contains("genesis create") && err.is_empty(), "{out}{err}");
    let node = home.path().join("node");
    assert_eq!(mode(&node), 0o700);
    let keys = ["vote.key", "network.key", "wallet.key"].map(|name| node.join("keys").join(name));
    let before: Vec<String> = keys.iter().map(|key| std::fs::read_to_string(key).unwrap()).collect();
    for (key, text) in keys.iter().zip(&before) {
        assert_eq!(mode(key), 0o600);
        let secret = text.lines().find_map(|line| line.strip_prefix("secret = ")).unwrap().trim_matches('"');
        assert!(!out.contains(secret), "a secret is shown");
        let public = std::fs::read_to_string(node.join("north-1.masternode.toml")).unwrap();
        assert!(!public.contains(secret), "a secret is in the public file");
    }
    expect_refused(&masternode(&init, home.path()), &["masternode.toml", "--data-dir"]);
    let after: Vec<String> = keys.iter().map(|key| std::fs::read_to_string(key).unwrap()).collect();
    assert_eq!(before, after);
    let (out, _) = expect(&masternode(&["check-config", "node/masternode.toml"], home.path()), 0);
    assert!(out.contains("north 1") && out.contains("NOT encrypted"), "{out}");
}

#[test]
fn init_encrypts_with_a_passphrase_file_which_the_configuration_then_names() {
    let home = tempfile::tempdir().unwrap();
    let phrase = home.path().join("phrase");
    std::fs::write(&phrase, "a long enough phrase\n").unwrap();
    let init = ["init", "--network", "devnet", "--data-dir", "node", "--passphrase-file", "phrase"];
    expect_refused(&masternode(&init, home.path()), &["phrase", "chmod 600"]);
    assert!(!home.path().join("node").exists(), "nothing is made before the passphrase is known");
    std::fs::set_permissions(&phrase, std::fs::Permissions::from_mode(0o600)).unwrap();
    expect(&masternode(&init, home.path()), 0);
    let key = std::fs::read_to_string(home.path().join("node/keys/vote.key")).unwrap();
    assert!(key.contains("argon2id"), "{key}");
    let config = std::fs::read_to_string(home.path().join("node/masternode.toml")).unwrap();
    assert!(config.contains(&format!("passphrase_file = \"{}\"", phrase.display())), "{config}");
}

#[test]
fn three_public_files_found_a_network_with_one_identity() {
    let home = tempfile::tempdir().unwrap();
    found(home.path());
    let (text, _) = expect(&masternode(&["genesis", "inspect"], home.path()), 0);
    let (json, _) = expect(&masternode(&["genesis", "inspect", "a/genesis.toml", "--json"], home.path()), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(text.contains(json["chain"].as_str().unwrap()), "{text}");
    assert_eq!(json["masternodes"].as_array().unwrap().len(), 3);
    assert_eq!((json["total_weight"].as_u64(), json["quorum_weight"].as_u64()), (Some(3), Some(3)));
    let again = ["genesis", "create", "a/a.masternode.toml", "b/b.masternode.toml", "c/c.masternode.toml"];
    expect_refused(&masternode(&again, home.path()), &["genesis.toml", "never overwritten"]);
    let two = ["genesis", "create", "a/a.masternode.toml", "b/b.masternode.toml", "-o", "two.toml"];
    expect_refused(&masternode(&two, home.path()), &["3 or more"]);
    assert!(!home.path().join("two.toml").exists());
    let twice =
        ["genesis", "create", "a/a.masternode.toml", "a/a.masternode.toml", "b/b.masternode.toml", "-o", "x"];
    expect_refused(&masternode(&twice, home.path()), &["unique"]);
}

#[test]
fn a_grant_reaches_the_genesis_and_one_of_another_network_is_refused() {
    let home = tempfile::tempdir().unwrap();
    found(home.path());
    let (json, _) = expect(&masternode(&["genesis", "inspect", "--json"], home.path()), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let address = json["masternodes"][0]["owner"].as_str().unwrap().to_owned();
    let files = ["a/a.masternode.toml", "b/b.masternode.toml", "c/c.masternode.toml"];
    let create = |grant: &str| {
        let options = ["-o", "granted.toml", "--time-ms", "1800000000000", "--allocate", grant];
        masternode(&[&["genesis", "create"][..], &files, &options].concat(), home.path())
    };
    expect(&create("time1q=5"), 2);
    expect(&create(&format!("{address}=1,5")), 2);
    let (out, _) = expect(&create(&format!("{address}=1000.5")), 0);
    assert!(out.contains("1000.5 TIME"), "{out}");
    let (json, _) = expect(&masternode(&["genesis", "inspect", "granted.toml", "--json"], home.path()), 0);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["allocations"][0]["amount"].as_u64(), Some(100_050_000_000));
    assert_eq!(json["time_ms"].as_u64(), Some(1_800_000_000_000));
}

#[test]
fn a_garbled_configuration_genesis_or_key_is_status_78_with_file_and_remedy() {
    let home = tempfile::tempdir().unwrap();
    found(home.path());
    let run = |home: &Path| masternode(&["run", "--no-tui", "--data-dir", "a"], home);
    let alter = |file: &str, change: &dyn Fn(&str) -> String| {
        let file = home.path().join(file);
        let before = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, change(&before)).unwrap();
        move || std::fs::write(&file, &before).unwrap()
    };

    let restore = alter("a/masternode.toml", &|text| format!("{text}colour = 1\n"));
    expect_refused(&run(home.path()), &["a/masternode.toml:", "`colour`", "did you mean `color`"]);
    restore();

    let restore = alter("a/genesis.toml", &|text| text.replace("tier = \"bronze\"", "tier = \"tin\""));
    expect_refused(&run(home.path()), &["a/genesis.toml:", "bronze"]);
    restore();
    std::fs::rename(home.path().join("a/genesis.toml"), home.path().join("kept")).unwrap();
    expect_refused(&run(home.path()), &["a/genesis.toml", "genesis create"]);
    std::fs::rename(home.path().join("kept"), home.path().join("a/genesis.toml")).unwrap();

    let restore = alter("a/keys/vote.key", &|text| text.replace("secret", "sekret"));
    expect_refused(&run(home.path()), &["a/keys/vote.key", "backup"]);
    restore();
    let key = home.path().join("a/keys/vote.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    expect_refused(&run(home.path()), &["a/keys/vote.key", "chmod 600"]);
    std::fs::remove_file(&key).unwrap();
    expect_refused(&run(home.path()), &["a/keys/vote.key", "masternode init"]);

    expect_refused(
        &masternode(&["run", "--no-tui", "--data-dir", "nowhere"], home.path()),
        &["nowhere", "init"],
    );
    let other = ["run", "--no-tui", "--data-dir", "b", "--network", "testnet"];
    expect_refused(&masternode(&other, home.path()), &["b/masternode.toml", "devnet", "testnet"]);
}

#[test]
fn check_config_reads_every_setting_and_refuses_a_wrong_one() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("masternode.toml");
    std::fs::write(&file, "network = \"devnet\"\ndata_dir = \".\"\n").unwrap();
    let (out, _) = expect(&masternode(&["check-config", "masternode.toml"], home.path()), 0);
    assert!(out.contains("masternode.toml: ok"), "{out}");
    let (out, _) = expect(&masternode(&["check-config", "masternode.toml", "--print"], home.path()), 0);
    assert!(out.contains("era_ms = 5000"), "{out}");
    std::fs::write(&file, "[consensus]\nera_ms = 1\n").unwrap();
    expect_refused(
        &masternode(&["check-config", "masternode.toml"], home.path()),
        &["masternode.toml:2:", "era_ms"],
    );
    expect_refused(&masternode(&["check-config", "absent.toml"], home.path()), &["absent.toml"]);
}

#[test]
fn status_and_stop_say_that_no_node_is_running() {
    let home = tempfile::tempdir().unwrap();
    found(home.path());
    for command in ["status", "stop"] {
        let (out, err) = expect(&masternode(&[command, "--data-dir", "a"], home.path()), 1);
        assert!(out.is_empty() && err.contains("no masternode is running"), "{err}");
        expect_refused(&masternode(&[command, "--data-dir", "nowhere"], home.path()), &["nowhere"]);
    }
}

#[test]
fn completions_and_manual_name_every_command() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let (out, _) = expect(&masternode(&["completions", shell], home.path()), 0);
        assert!(out.contains("check-config") && out.contains("devnet"), "{shell}");
    }
    let (out, _) = expect(&masternode(&["man"], home.path()), 0);
    assert!(out.starts_with(".ie") || out.contains(".TH"), "{out}");
    for word in ["devnet", "genesis", "latency", "allocate"] {
        assert!(out.contains(word), "{word} is missing in the manual");
    }
}
