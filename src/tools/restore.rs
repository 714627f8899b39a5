//! `masternode restore`: the database of a data directory from a backup, verified before and after.
//!
//! The new database is made beside its place and gets its name when it was reopened and recounted. Vote log,
//! sign floor and `instance` are not restored, and the note [`restored`] is durable before the database has
//! its name, so the masternode is in safe start whenever it is started (protocol §10). What was there is
//! renamed on demand, never deleted; configuration and keys that are there stay as they are.

use crate::archive::ArchiveError;
use crate::archive::check::{NobodyReceives, Receiver, Summary};
use crate::archive::{BlockItem, Head, HeaderItem};
use crate::config::{CONFIG_FILE_NAME, Config};
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::store::install::Installer;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::{data_dir, host_info, restored, traces};
use crate::primitives::committee::{Committee, Member};
use crate::primitives::transaction::{OutPoint, SharedTransaction, Transaction, Utxo};
use crate::tools::backup::{Depth, GENESIS_FILE_NAME, KEYS_FOLDER_NAME, verify};
use crate::tools::files::{read_small, sync, write_new};
use crate::tools::manifest::{ARCHIVE_FILE_NAME, Manifest};
use crate::tools::{Progress, Tell, ToolError};
use std::path::{Path, PathBuf};

/// Folder the database is made in.
const UNFINISHED: &str = "db.restoring";
/// What a node writes while it runs and what a restored one must not find.
const REPLACED: [&str; 5] = ["db", "journal", "journal-unsigned", "sign_floor", "instance"];
/// What stays as it is.
const KEPT: [&str; 12] = [
    "keys",
    "logs",
    "masternode.toml",
    "genesis.toml",
    "LOCK",
    "control.sock",
    "peers",
    "audit.log",
    "snapshots",
    ".cookie",
    UNFINISHED,
    restored::NOTE_FILE_NAME,
];
/// A database takes up to so many times the bytes of the archive it is made from.
const SPACE_FACTOR: u64 = 4;
/// Largest genesis or configuration file copied.
const SMALL_BYTES_MAX: u64 = 64 << 20;

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The backup.
    pub manifest: Manifest,
    /// What was renamed, and to what.
    pub set_aside: Vec<(PathBuf, PathBuf)>,
    /// Names of the files that were not there and came with the backup.
    pub copied: Vec<String>,
}

/// What to restore where.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOrder<'a> {
    /// The backup.
    pub backup: &'a Path,
    /// The data directory; made if absent.
    pub data_dir: &'a Path,
    /// Memory of the database's cache in bytes.
    pub cache_bytes: u64,
    /// Whether to rename what is in the way.
    pub set_aside: bool,
}

/// Restores a backup.
///
/// # Errors
/// [`ToolError`]; the data directory is as it was then, but perhaps for files set aside.
pub fn restore(order: RestoreOrder<'_>, tell: Tell<'_>) -> Result<Restored, ToolError> {
    let RestoreOrder { backup, data_dir, .. } = order;
    // Before anything is touched.
    let manifest = verify(backup, &mut Checks(tell), Depth::Everything)?.0;
    in_the_way(data_dir, order.set_aside)?;
    same_chain(data_dir, &manifest)?;
    let _lock = data_dir::lock(data_dir, &data_dir.join("LOCK"))?;
    enough_space(data_dir, &manifest)?;
    let unfinished = data_dir.join(UNFINISHED);
    if unfinished.exists() {
        // Of a restore that was interrupted: it never was a database.
        std::fs::remove_dir_all(&unfinished).map_err(ToolError::io("be removed", &unfinished))?;
    }
    install(order, &unfinished, &manifest, tell)?;
    let note = format!("made at {}, height {}", manifest.made, manifest.height);
    restored::write(data_dir, &note)?;
    let set_aside = set_aside(data_dir)?;
    let copied = copy_missing(backup, data_dir, &manifest)?;
    let database = data_dir.join("db");
    std::fs::rename(&unfinished, &database).map_err(ToolError::io("be made", &database))?;
    sync(data_dir)?;
    Ok(Restored { manifest, set_aside, copied })
}

/// Refuses a directory that holds a chain or a vote log, or what does not belong to a node.
fn in_the_way(data_dir: &Path, set_aside: bool) -> Result<(), ToolError> {
    let entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ToolError::io("be read", data_dir)(error)),
    };
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(ToolError::io("be read", data_dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match () {
            () if REPLACED.contains(&name.as_str()) => ours.push(name),
            () if KEPT.contains(&name.as_str()) || name.ends_with(".masternode.toml") => {}
            () if name.contains(".old-") => {}
            () => foreign.push(name),
        }
    }
    ours.sort();
    foreign.sort();
    let dir = data_dir.display();
    if let Some(first) = foreign.first().filter(|_| !set_aside) {
        return Err(ToolError::Refused(format!(
            "{dir}: holds `{first}`, which is not of a masternode: name an empty directory, or add --set-aside to leave \
             it where it is"
        )));
    }
    if !ours.is_empty() && !set_aside {
        return Err(ToolError::Refused(format!(
            "{dir}: not empty, it holds {}: name an empty directory, or add --set-aside to rename these to NAME.old-1; \
             nothing is deleted",
            ours.join(", ")
        )));
    }
    Ok(())
}

/// A genesis or configuration that is there already has to be of the chain of the backup.
fn same_chain(data_dir: &Path, manifest: &Manifest) -> Result<(), ToolError> {
    let path = data_dir.join(GENESIS_FILE_NAME);
    if !path.exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&read_small(&path, SMALL_BYTES_MAX)?).into_owned();
    let found = Genesis::parse(&text, &path.display().to_string())
        .map_err(|error| ToolError::Refused(error.to_string()))?
        .chain_id();
    if found == manifest.chain {
        return Ok(());
    }
    let name = path.display().to_string();
    Err(ArchiveError::OtherChain { name, found, expected: manifest.chain }.into())
}

fn enough_space(data_dir: &Path, manifest: &Manifest) -> Result<(), ToolError> {
    let needed = manifest.file(ARCHIVE_FILE_NAME).map_or(0, |file| file.bytes.saturating_mul(SPACE_FACTOR));
    match host_info::disk_free_bytes(data_dir) {
        Some(free) if free < needed => Err(ToolError::Failed(format!(
            "{}: {} MB are free, a database of this backup may need {}: free space, or use another disk",
            data_dir.display(),
            free >> 20,
            needed >> 20
        ))),
        _ => Ok(()),
    }
}

/// Makes the database and looks at it again from the disk.
fn install(
    order: RestoreOrder<'_>,
    unfinished: &Path,
    manifest: &Manifest,
    tell: Tell<'_>,
) -> Result<(), ToolError> {
    let options = StoreOptions { cache_bytes: order.cache_bytes };
    let mut installing = Installing { dir: unfinished, options, installer: None, genesis: None, tell };
    let (_, summary) = verify(order.backup, &mut installing, Depth::Everything)?;
    let Installing { installer, genesis, tell, .. } = installing;
    let state = summary.and_then(|Summary { state, .. }| state);
    let (Some(installer), Some(genesis), Some(state)) = (installer, genesis, state) else {
        return Err(ToolError::Refused(format!("{}: holds no state", order.backup.display())));
    };
    let registry = Registry::from_parts(state.registry.clone());
    installer.finish(&registry, &Committee::new(state.committee.clone()))?;
    let bytes = manifest.file(ARCHIVE_FILE_NAME).map_or(0, |file| file.bytes);
    tell(Progress { doing: "recounting the new database", height: manifest.height, to: None, bytes });
    let tip = Store::open(unfinished, &genesis, options)?.load()?.tip();
    if (tip.block, tip.header.utxo_hash) != (manifest.block, manifest.state_hash) {
        let text = format!("{}: the new database is not that of the backup", unfinished.display());
        return Err(ToolError::Failed(text));
    }
    Ok(())
}

/// Renames what a node left behind.
fn set_aside(data_dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>, ToolError> {
    let mut renamed = Vec::new();
    for name in REPLACED {
        let path = data_dir.join(name);
        if std::fs::symlink_metadata(&path).is_ok() {
            let now = traces::set_aside(&path).map_err(ToolError::io("be renamed", &path))?;
            renamed.push((path, now));
        }
    }
    Ok(renamed)
}

/// Configuration, genesis and keys that the directory lacks.
fn copy_missing(backup: &Path, data_dir: &Path, manifest: &Manifest) -> Result<Vec<String>, ToolError> {
    let mut copied = Vec::new();
    for listed in manifest.files.iter().filter(|listed| listed.name != ARCHIVE_FILE_NAME) {
        let name = listed.name.as_str();
        let is_key = name.starts_with(KEYS_FOLDER_NAME);
        if !is_key && ![CONFIG_FILE_NAME, GENESIS_FILE_NAME].contains(&name) {
            continue;
        }
        let target = data_dir.join(name);
        if std::fs::symlink_metadata(&target).is_ok() {
            continue;
        }
        if is_key {
            let folder = data_dir.join(KEYS_FOLDER_NAME);
            let made = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                .recursive(true)
                .create(&folder);
            made.map_err(ToolError::io("be made", &folder))?;
        }
        write_new(&target, &read_small(&backup.join(name), SMALL_BYTES_MAX)?)?;
        copied.push(name.to_owned());
    }
    Ok(copied)
}

/// Tells of the first reading.
struct Checks<'a, 'b>(&'a mut (dyn FnMut(Progress) + 'b));

impl Receiver for Checks<'_, '_> {
    fn progress(&mut self, height: u64, bytes: u64) {
        (self.0)(Progress { doing: "verifying the backup", height, to: None, bytes });
    }
}

/// Fills the new database.
struct Installing<'a, 'b> {
    dir: &'a Path,
    options: StoreOptions,
    installer: Option<Installer>,
    genesis: Option<Genesis>,
    tell: &'a mut (dyn FnMut(Progress) + 'b),
}

impl Installing<'_, '_> {
    fn installer(&mut self) -> Result<&mut Installer, ArchiveError> {
        self.installer.as_mut().ok_or_else(|| ArchiveError::Interrupted("nothing was begun".to_owned()))
    }
}

impl Receiver for Installing<'_, '_> {
    fn begin(&mut self, _: &Head, genesis: &Genesis) -> Result<(), ArchiveError> {
        self.installer = Some(Installer::create(self.dir, genesis, self.options)?);
        self.genesis = Some(genesis.clone());
        Ok(())
    }

    fn committee(&mut self, height: u64, members: &[Member]) -> Result<(), ArchiveError> {
        Ok(self.installer()?.committee(height, members.to_vec())?)
    }

    fn outputs(&mut self, outputs: &[(OutPoint, Utxo)]) -> Result<(), ArchiveError> {
        Ok(self.installer()?.outputs(outputs)?)
    }

    fn block(&mut self, block: BlockItem, bodies: Vec<SharedTransaction>) -> Result<(), ArchiveError> {
        let bodies: Vec<Transaction> = bodies.iter().map(|body| body.body().clone()).collect();
        let BlockItem { outline, commit, transactions } = block;
        Ok(self.installer()?.block(outline, commit, transactions, &bodies)?)
    }

    fn header(&mut self, item: &HeaderItem) -> Result<(), ArchiveError> {
        let HeaderItem { header, last_commit, commit, transactions } = item.clone();
        Ok(self.installer()?.header((header, last_commit, commit, transactions))?)
    }

    fn progress(&mut self, height: u64, bytes: u64) {
        (self.tell)(Progress { doing: "writing the database", height, to: None, bytes });
    }
}

/// The configuration that is in force in a data directory after a restore: its own, or that of the backup.
///
/// # Errors
/// [`ToolError::Refused`] when it is wrong.
pub fn configuration(data_dir: &Path, backup: &Path) -> Result<Option<Config>, ToolError> {
    for folder in [data_dir, backup] {
        let file = folder.join(CONFIG_FILE_NAME);
        if file.exists() {
            return Config::load(&file).map(Some).map_err(|error| ToolError::Refused(error.to_string()));
        }
    }
    Ok(None)
}

/// Only whether a backup is whole.
///
/// # Errors
/// [`ToolError`].
pub fn inspect(backup: &Path) -> Result<Manifest, ToolError> {
    Ok(verify(backup, &mut NobodyReceives, Depth::Everything)?.0)
}
