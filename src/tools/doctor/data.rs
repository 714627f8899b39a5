//! Database, vote log, sign floor and `instance` of a stopped node, and whether they fit each other.
//!
//! What has to be opened for writing is opened as a copy. A copy takes as much space as the original, unless
//! the file system shares what is equal.

use super::{Patient, Report, Severity};
use crate::archive::source::{Source, Wish};
use crate::ledger::genesis::Genesis;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::floor::{FloorError, SignFloor};
use crate::node::host_info::disk_free_bytes;
use crate::node::instance::{Finding, Since};
use crate::node::journal::{Journal, JournalError};
use crate::node::restored;
use crate::node::traces::{Judgement, Traces};
use crate::primitives::keys::PublicKey;
use crate::tools::ToolError;
use crate::wallet::keystore;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Space that stays free beside a copy.
const MARGIN_BYTES: u64 = 256 << 20;
/// Files copied; a database has a handful, a vote log some tens.
const COPIED_MAX: usize = 10_000;

/// A folder for copies, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make(within: &Path) -> Result<Self, ToolError> {
        let path = within.join(format!("masternode-doctor-{}", std::process::id()));
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(ToolError::io("be made", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a copy was left behind");
        }
    }
}

/// Copies a folder; `None` when there is none.
fn copy(from: &Path, to: &Path) -> Result<Option<()>, String> {
    if !from.is_dir() {
        return Ok(None);
    }
    let told = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let (mut files, mut bytes) = (Vec::new(), 0u64);
    let mut folders = vec![PathBuf::new()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        let path = from.join(&folder);
        for entry in std::fs::read_dir(&path).map_err(|error| told(&path, error))? {
            let entry = entry.map_err(|error| told(&path, error))?;
            let kind = entry.metadata().map_err(|error| told(&entry.path(), error))?;
            let name = folder.join(entry.file_name());
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_file() {
                bytes = bytes.saturating_add(kind.len());
                files.push(name);
            }
            if files.len() + folders.len() > COPIED_MAX {
                return Err(format!("{}: holds more than {COPIED_MAX} files", from.display()));
            }
        }
        found.push(folder);
    }
    let place = to.parent().unwrap_or(to);
    if disk_free_bytes(place).is_some_and(|free| free < bytes.saturating_add(MARGIN_BYTES)) {
        let text = format!("{}: no room for a copy of {} MiB", place.display(), bytes >> 20);
        return Err(format!("{text}: name another place with --scratch DIR"));
    }
    for folder in found {
        let folder = to.join(folder);
        std::fs::create_dir_all(&folder).map_err(|error| told(&folder, error))?;
    }
    for name in files {
        std::fs::copy(from.join(&name), to.join(&name)).map_err(|error| told(&from.join(&name), error))?;
    }
    Ok(Some(()))
}

pub(super) fn look(patient: &Patient, report: &mut Report) {
    let place = patient.config.database_path();
    let Some(genesis) = &patient.genesis else {
        let what = "not looked at: without the genesis nobody knows what has to be in it";
        report.add("database", Severity::Skipped, place.display(), what);
        return;
    };
    let scratch = match Scratch::make(&patient.order.scratch) {
        Ok(scratch) => scratch,
        Err(error) => {
            let what = "not looked at: there is no place for a copy";
            report.fault("database", Severity::Skipped, place.display(), what, error.to_string());
            return;
        }
    };
    let stored = match patient.order.quick {
        true => {
            report.add("database", Severity::Skipped, place.display(), "not opened, as asked for");
            None
        }
        false => database(patient, genesis, &scratch.0, report),
    };
    votes(patient, genesis, stored, &scratch.0, report);
}

/// Opens a copy of the database and recounts it; its height.
fn database(patient: &Patient, genesis: &Genesis, scratch: &Path, report: &mut Report) -> Option<u64> {
    let place = patient.config.database_path();
    let shown = place.display();
    let folder = scratch.join("db");
    match copy(&place, &folder) {
        Ok(Some(())) => {}
        Ok(None) => {
            let what = "there is none: the blocks come from the other nodes";
            report.add("database", Severity::Note, shown, what);
            return Some(0);
        }
        Err(error) => {
            report.fault("database", Severity::Skipped, shown, "not looked at", error);
            return None;
        }
    }
    if !folder.join("db").exists() && !folder.join("CHAIN").exists() {
        report.add("database", Severity::Note, shown, "is empty: the blocks come from the other nodes");
        return Some(0);
    }
    let options = StoreOptions { cache_bytes: patient.config.storage.cache_bytes };
    // What errors name is the copy; people know the original.
    let named =
        |error: StoreError| error.to_string().replace(&folder.display().to_string(), &shown.to_string());
    let remedy = "`masternode restore DIR --set-aside`, or move db away: the blocks come from the others";
    let opened = Store::open(&folder, genesis, options).and_then(|store| {
        let tip = store.load()?.tip();
        Ok((store, tip))
    });
    let (store, tip) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let text = named(error);
            report.fault("database", Severity::Error, shown, text, remedy);
            return None;
        }
    };
    let (height, outputs) = (tip.header.height, tip.header.utxo_count);
    let hash = tip.header.utxo_hash;
    report.ok(
        "database",
        &shown,
        format!("{outputs} outputs recounted: state hash {hash} of block {height}"),
    );
    if patient.order.deep {
        let wish = Wish { from: 1, to: None, state: false };
        let read = match height {
            0 => Ok(()),
            _ => {
                Source::new(&Arc::new(store), genesis).write(wish, 0, std::io::sink(), "archive").map(|_| ())
            }
        };
        match read {
            Ok(()) => report.ok("blocks", shown, format!("every checksum of {height} blocks is right")),
            Err(error) => {
                let text = error.to_string().replace(&folder.display().to_string(), &shown.to_string());
                report.fault("blocks", Severity::Error, shown, text, remedy);
            }
        }
    }
    Some(height)
}

/// The vote log, the floor, and what a start would make of them.
fn votes(patient: &Patient, genesis: &Genesis, stored: Option<u64>, scratch: &Path, report: &mut Report) {
    let key = keystore::inspect(&patient.config.vote_key_path()).ok().map(|(public, _)| public);
    let place = patient.config.journal_path();
    let shown = place.display();
    let safe = "nothing has to be done: it is set aside at the next start, and the masternode is let back by the chain";
    let floor = SignFloor::read(patient.dir(), key);
    // As a start would: what was closed in order has to end in order.
    let is_closed = floor.as_ref().is_ok_and(|floor| floor.log_end().is_some());
    let open = if is_closed { Journal::open_closed } else { Journal::open };
    let folder = scratch.join("journal");
    match copy(&place, &folder) {
        Ok(Some(())) => match open(&folder, genesis.chain_id(), 1) {
            Ok((_, recovered)) => {
                let torn = match &recovered.repaired {
                    Some((_, bytes)) => {
                        format!(", the last {bytes} bytes are incomplete as a crash leaves them")
                    }
                    None => String::new(),
                };
                report.ok("vote-log", shown, format!("{} records{torn}", recovered.records.len()));
            }
            Err(error) => {
                let text = error.to_string().replace(&folder.display().to_string(), &shown.to_string());
                report.fault("vote-log", Severity::Warning, shown, text, safe);
            }
        },
        Ok(None) => report.add("vote-log", Severity::Note, shown, "there is none"),
        Err(error) => report.fault("vote-log", Severity::Skipped, shown, "not looked at", error),
    }
    let place = patient.dir().join("sign_floor");
    match &floor {
        Ok(floor) => match floor.height() {
            Some(height) => report.ok("sign-floor", place.display(), format!("height {height}")),
            None => report.add("sign-floor", Severity::Note, place.display(), "there is none"),
        },
        Err(error) => {
            let severity = match error {
                FloorError::Damaged { .. } => Severity::Warning,
                _ => Severity::Error,
            };
            report.fault("sign-floor", severity, place.display(), error.to_string(), "the message names it");
        }
    }
    if let Some(key) = key {
        judge(patient, genesis, (key, stored), &floor, report);
    }
}

/// Says what a start would do.
fn judge(
    patient: &Patient,
    genesis: &Genesis,
    (key, stored): (PublicKey, Option<u64>),
    floor: &Result<SignFloor, FloorError>,
    report: &mut Report,
) {
    let (dir, journal) = (patient.dir(), patient.config.journal_path());
    let place = dir.join("instance");
    let Some(stored) = stored else {
        let what = "whether the next start may sign is not known without the height of the database";
        report.add("signing", Severity::Skipped, place.display(), what);
        return;
    };
    let traces = |finding: Finding| -> Result<Judgement, String> {
        let told = |error: JournalError| error.to_string();
        let end = Journal::found_end(&journal).map_err(told)?;
        let log = Journal::heights(&journal).map_err(told)?;
        let closed = floor.as_ref().ok().and_then(SignFloor::log_end).map(|was| (was, end));
        let floor = floor.as_ref().map(SignFloor::height).map_err(ToString::to_string);
        Ok(Traces { finding, floor, log, closed, stored }.judge())
    };
    let found = restored::find(dir, genesis.chain_id(), key).map_err(|error| error.to_string());
    // What the files say of each other, wherever they lie and whoever wrote them.
    let as_if_whole = Finding::Intact { since: Since::Registration, drawn: Vec::new() };
    let signed = floor.as_ref().is_ok_and(SignFloor::is_bound);
    if signed && let Ok(Judgement { since: Since::Lost(reason), .. }) = traces(as_if_whole) {
        let remedy = "nothing has to be done: the blocks come from the others, and the masternode is let back by the \
                      chain";
        report.fault("heights", Severity::Warning, dir.display(), reason, remedy);
    }
    let judged = found.and_then(traces);
    match judged {
        Ok(Judgement { since: Since::Lost(reason), .. }) => report.fault(
            "signing",
            Severity::Warning,
            place.display(),
            format!("the next start is a safe start: {reason}"),
            "nothing has to be done: it follows the chain and asks to be let back",
        ),
        Ok(Judgement { since: Since::Never, .. }) => {
            report.ok("signing", place.display(), "nothing was signed from here yet");
        }
        Ok(_) => report.ok(
            "signing",
            place.display(),
            "the vote log is whole: the next start signs after listening",
        ),
        Err(error) => {
            let remedy = "the message names it";
            report.fault("signing", Severity::Error, place.display(), error, remedy);
        }
    }
}
