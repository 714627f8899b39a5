//! Configuration, directory, genesis, keys: what is there, whose it is, who may read it.

use super::{DoctorOrder, Patient, Report, Severity};
use crate::config::Config;
use crate::ledger::genesis::Genesis;
use crate::primitives::chain::NetworkKind;
use crate::tools::files::read_small;
use crate::wallet::keystore::{self, KeystoreError};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Files and folders of the data directory that are looked at; a node has far fewer.
const ENTRIES_MAX: usize = 10_000;
/// Faults of one kind that are told one by one.
const TOLD_MAX: usize = 5;
/// Largest genesis read.
const GENESIS_BYTES_MAX: u64 = 64 << 20;

pub(super) fn configuration(order: &DoctorOrder, report: &mut Report) {
    let place = order.config_file.display();
    match &order.config {
        Ok(config) => report.ok("config", place, format!("{} node `{}`", config.network, config.name)),
        Err(error) => {
            let remedy = "correct it; `masternode check-config FILE` checks it again";
            report.fault("config", Severity::Error, place, error.clone(), remedy);
        }
    }
}

/// Whether the data directory can be looked at.
pub(super) fn directory(dir: &Path, report: &mut Report) -> bool {
    let place = dir.display();
    let found = match std::fs::metadata(dir) {
        Ok(found) if found.is_dir() => found,
        Ok(_) => {
            report.fault(
                "directory",
                Severity::Error,
                place,
                "is a file",
                "name a directory with --data-dir",
            );
            return false;
        }
        Err(error) => {
            let remedy = "make a node with `masternode init`, restore a backup, or name one with --data-dir";
            report.fault("directory", Severity::Error, place, error.to_string(), remedy);
            return false;
        }
    };
    let mode = found.mode() & 0o777;
    if let Err(error) = std::fs::read_dir(dir) {
        let remedy = "run this as the user of the node, for example with `sudo -u`";
        report.fault("directory", Severity::Error, place, error.to_string(), remedy);
        return false;
    }
    if mode & 0o077 == 0 {
        report.ok("directory", place, format!("private, mode {mode:04o}"));
    } else {
        let remedy = format!("chmod 700 {}", dir.display());
        report.fault(
            "directory",
            Severity::Warning,
            place,
            format!("others may enter, mode {mode:04o}"),
            remedy,
        );
    }
    true
}

/// The genesis, if it can be read.
pub(super) fn genesis(config: &Config, known_network: bool, report: &mut Report) -> Option<Genesis> {
    let path = config.genesis_path();
    let shown = path.display();
    let remedy = "copy the genesis file of your network here again, and compare the chain id with the others";
    let bytes = match read_small(&path, GENESIS_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) => {
            report.fault("genesis", Severity::Error, shown, error.to_string(), remedy);
            return None;
        }
    };
    match Genesis::parse(&String::from_utf8_lossy(&bytes), &shown.to_string()) {
        Ok(genesis) if known_network && genesis.network != config.network => {
            let what = format!("founds a {}, the configuration is of a {}", genesis.network, config.network);
            report.fault("genesis", Severity::Error, shown, what, "use the files of one network");
            Some(genesis)
        }
        Ok(genesis) => {
            report.ok("genesis", shown, format!("chain {}", genesis.chain_id()));
            Some(genesis)
        }
        Err(error) => {
            report.fault("genesis", Severity::Error, shown, error.to_string(), remedy);
            None
        }
    }
}

/// Every file belongs to the owner of the directory, and that is who runs the node.
pub(super) fn owners(patient: &Patient, report: &mut Report) {
    let dir = patient.dir();
    let Ok(owner) = std::fs::metadata(dir).map(|found| found.uid()) else { return };
    let me = rustix::process::geteuid().as_raw();
    if me != owner && me != 0 {
        let what = format!("belongs to user {owner}, this is user {me}");
        let remedy = "run this, and the node, as the user it belongs to";
        report.fault("owner", Severity::Error, dir.display(), what, remedy);
    }
    let (mut foreign, mut unread, mut looked) = (Vec::new(), Vec::new(), 0usize);
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                unread.push(format!("{}: {error}", folder.display()));
                continue;
            }
        };
        for entry in entries.flatten().take(ENTRIES_MAX.saturating_sub(looked)) {
            looked += 1;
            let path = entry.path();
            let Ok(found) = std::fs::symlink_metadata(&path) else { continue };
            if found.uid() != owner {
                foreign.push(format!("{} (user {})", path.display(), found.uid()));
            }
            if found.is_dir() {
                folders.push(path);
            } else if found.is_file() && rustix::fs::access(&path, rustix::fs::Access::READ_OK).is_err() {
                unread.push(path.display().to_string());
            }
        }
    }
    if foreign.is_empty() {
        report.ok("owner", dir.display(), format!("{looked} files and folders of user {owner}"));
    } else {
        let what = format!("{} of other users than {owner}: {}", foreign.len(), some_of(&foreign));
        let remedy = format!("chown -R {owner} {}, with the node stopped", dir.display());
        report.fault("owner", Severity::Error, dir.display(), what, remedy);
    }
    if !unread.is_empty() {
        let what = format!("{} cannot be read: {}", unread.len(), some_of(&unread));
        report.fault(
            "readable",
            Severity::Error,
            dir.display(),
            what,
            "give the user of the node access again",
        );
    }
}

fn some_of(all: &[String]) -> String {
    let told: Vec<&str> = all.iter().take(TOLD_MAX).map(String::as_str).collect();
    let more = if all.len() > TOLD_MAX { ", .." } else { "" };
    format!("{}{more}", told.join(", "))
}

pub(super) fn keys(patient: &Patient, report: &mut Report) {
    let config = &patient.config;
    let files = [
        ("vote key", config.vote_key_path(), true),
        ("network key", config.network_key_path(), true),
        ("wallet key", config.wallet_key_path(), false),
    ];
    for (name, path, needed) in files {
        let place = path.display();
        match keystore::inspect(&path) {
            Ok((public, true)) => report.ok("keys", place, format!("{name} {public}, encrypted")),
            Ok((public, false)) => {
                let what = format!("{name} {public}, NOT encrypted: whoever reads the file has it");
                let severity = match config.network {
                    NetworkKind::Mainnet => Severity::Warning,
                    NetworkKind::Testnet | NetworkKind::Devnet => Severity::Note,
                };
                report.add("keys", severity, place, what);
            }
            Err(KeystoreError::Missing(_)) if !needed => {
                report.add("keys", Severity::Note, place, "not here: a running node does not need it");
            }
            Err(error) => {
                let remedy = "the message names it";
                report.fault("keys", Severity::Error, place, error.to_string(), remedy);
            }
        }
    }
    if let Some(path) = config.passphrase_path()
        && let Err(error) = keystore::Passphrase::from_file(&path)
    {
        report.fault("keys", Severity::Error, path.display(), error.to_string(), "the message names it");
    }
}

/// What was set aside or left unfinished, and takes space.
pub(super) fn leftovers(patient: &Patient, report: &mut Report) {
    let Ok(entries) = std::fs::read_dir(patient.dir()) else { return };
    for entry in entries.flatten().take(ENTRIES_MAX) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if name.contains(".old-") {
            report.fault(
                "leftovers",
                Severity::Note,
                path.display(),
                "was set aside, because it could not be used any more",
                "delete it when the masternode signs again",
            );
        } else if name == "db.restoring" {
            report.fault(
                "leftovers",
                Severity::Warning,
                path.display(),
                "a restore was interrupted: its database is not there",
                "run `masternode restore` again",
            );
        }
    }
}
