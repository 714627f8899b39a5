//! `masternode restore`: the database of a data directory from a backup, verified before and after.
//!
//! The new database is made beside its place and gets its name when it was reopened and recounted. Vote log,
//! sign floor and `instance` are not restored, and the note [`restored`] is durable before the database has
//! its name, so the masternode is in safe start whenever it is started (protocol §10). What was there is
//! renamed on demand, never deleted; configuration and keys that are there stay as they are. Genesis and keys of
//! the backup go where the configuration in force names them; outside of the data directory nothing is written.

use crate::archive::ArchiveError;
use crate::archive::check::{NobodyReceives, Receiver, Summary};
use crate::archive::{BlockItem, Head, HeaderItem};
use crate::config::names;
use crate::config::{CONFIG_FILE_NAME, Config};
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::store::install::Installer;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::floor::FLOOR_FILE_NAME;
use crate::node::instance::INSTANCE_FILE_NAME;
use crate::node::snapshots::incoming::INCOMING_FOLDER;
use crate::node::snapshots::swap::READY_NAME;
use crate::node::{data_dir, host_info, restored, traces};
use crate::primitives::chain::NetworkKind;
use crate::primitives::committee::{Committee, Member};
use crate::primitives::transaction::{OutPoint, SharedTransaction, Transaction, Utxo};
use crate::tools::backup::{Depth, GENESIS_FILE_NAME, KEYS_FOLDER_NAME, key_files, verify};
use crate::tools::files::{read_small, sync, write_new};
use crate::tools::manifest::{ARCHIVE_FILE_NAME, Manifest};
use crate::tools::{Progress, Tell, ToolError};
use std::path::{Component, Path, PathBuf};

/// Folder the database is made in.
const UNFINISHED: &str = "db.restoring";
/// What a node writes while it runs and what a restored one must not find.
const REPLACED: [&str; 7] = [
    names::DATABASE,
    // Either would take the place of the restored database at the next start.
    READY_NAME,
    INCOMING_FOLDER,
    names::JOURNAL,
    names::JOURNAL_UNSIGNED,
    FLOOR_FILE_NAME,
    INSTANCE_FILE_NAME,
];
/// What stays as it is.
const KEPT: [&str; 11] = [
    KEYS_FOLDER_NAME,
    names::LOGS,
    CONFIG_FILE_NAME,
    GENESIS_FILE_NAME,
    names::LOCK,
    names::CONTROL_SOCKET,
    names::PEERS,
    names::BANS,
    names::SNAPSHOTS,
    UNFINISHED,
    restored::NOTE_FILE_NAME,
];
/// Ending of a file that is being replaced; an interruption leaves it.
const FRESH_ENDING: &str = ".new";
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
    /// Files that were not there and came with the backup.
    pub copied: Vec<PathBuf>,
    /// Keys without which the node does not start.
    pub missing_keys: Vec<PathBuf>,
    /// First block of the backup, if it does not begin with the first of the chain; see [`Summary::rests_on`].
    pub rests_on: Option<u64>,
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
/// [`ToolError`]; the data directory is as it was then, unless the message names what was set aside. In that
/// case the note stays, and the masternode does not sign before the chain lets it.
pub fn restore(order: RestoreOrder<'_>, tell: Tell<'_>) -> Result<Restored, ToolError> {
    let RestoreOrder { backup, data_dir, .. } = order;
    // Before anything is touched.
    let (manifest, summary) = verify(backup, &mut Checks(tell), Depth::Everything)?;
    let rests_on = summary.and_then(|summary| summary.rests_on());
    let places = Places::by_configuration(data_dir, backup)?;
    in_the_way(data_dir, order.set_aside, &places)?;
    places.are_within(&manifest, backup)?;
    same_chain(&places.genesis, &manifest)?;
    let _lock = data_dir::lock(data_dir, &data_dir.join(names::LOCK))?;
    enough_space(data_dir, &manifest)?;
    let unfinished = Unfinished::begin(data_dir.join(UNFINISHED))?;
    install(order, &unfinished.0, &manifest, tell)?;
    let note = format!("made at {}, height {}", manifest.made, manifest.height);
    let set_aside = make_room(data_dir, &note)?;
    let put_in_place = || {
        let copied = copy_missing(backup, &places, &manifest)?;
        let database = data_dir.join(names::DATABASE);
        std::fs::rename(&unfinished.0, &database).map_err(ToolError::io("be made", &database))?;
        sync(data_dir)?;
        Ok(copied)
    };
    let copied = put_in_place().map_err(|error| naming(error, &set_aside))?;
    Ok(Restored { manifest, set_aside, copied, missing_keys: places.missing_keys(), rests_on })
}

/// The database in the making; what is left of it goes when it did not get its name.
struct Unfinished(PathBuf);

impl Unfinished {
    fn begin(path: PathBuf) -> Result<Self, ToolError> {
        // Of a restore that was killed: it never was a database.
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ToolError::io("be removed", &path)(error))
            }
            _ => Ok(Self(path)),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.0.display(), "the unfinished database was left behind");
        }
    }
}

/// Where the files of a backup belong.
struct Places {
    data_dir: PathBuf,
    genesis: PathBuf,
    /// Each with its name in a backup.
    keys: [(PathBuf, String); 3],
}

impl Places {
    /// As the configuration says that is in force after the restore.
    fn by_configuration(data_dir: &Path, backup: &Path) -> Result<Self, ToolError> {
        let found = configuration(data_dir, backup)?;
        let mut config = found.unwrap_or_else(|| Config::defaults(NetworkKind::Mainnet));
        config.data_dir = data_dir.to_owned();
        Ok(Self { data_dir: data_dir.to_owned(), genesis: config.genesis_path(), keys: key_files(&config) })
    }

    /// The place of a file of a backup; `None` for one that is not copied.
    fn of(&self, name: &str) -> Option<PathBuf> {
        match name {
            CONFIG_FILE_NAME => Some(self.data_dir.join(CONFIG_FILE_NAME)),
            GENESIS_FILE_NAME => Some(self.genesis.clone()),
            name => self.keys.iter().find(|(_, known)| known == name).map(|(path, _)| path.clone()),
        }
    }

    /// The path within the data directory, if it is in it.
    fn within<'a>(&self, place: &'a Path) -> Option<&'a Path> {
        let inside = place.strip_prefix(&self.data_dir).ok()?;
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        inside.components().all(plain).then_some(inside)
    }

    /// Whether an entry of the data directory with this name is, or holds, one of the files.
    fn hold(&self, name: &str) -> bool {
        let places = self.keys.iter().map(|(path, _)| path).chain([&self.genesis]);
        places.filter_map(|place| self.within(place)).any(|inside| inside.starts_with(name))
    }

    /// Refuses a configuration that names a file elsewhere which the restore would have to write.
    fn are_within(&self, manifest: &Manifest, backup: &Path) -> Result<(), ToolError> {
        for listed in &manifest.files {
            let Some(place) = self.of(&listed.name) else { continue };
            if self.within(&place).is_none() && std::fs::symlink_metadata(&place).is_err() {
                return Err(ToolError::Refused(format!(
                    "{}: {CONFIG_FILE_NAME} names this file outside of the data directory, where a restore writes \
                     nothing: put {} there first, and restore again",
                    place.display(),
                    backup.join(&listed.name).display()
                )));
            }
        }
        Ok(())
    }

    /// Keys that a masternode reads at its start and that are not there.
    fn missing_keys(&self) -> Vec<PathBuf> {
        let [vote, network, _] = &self.keys;
        let paths = [vote, network].into_iter().map(|(path, _)| path.clone());
        paths.filter(|path| std::fs::symlink_metadata(path).is_err()).collect()
    }
}

/// An error after files were set aside, with their names.
fn naming(error: ToolError, set_aside: &[(PathBuf, PathBuf)]) -> ToolError {
    if set_aside.is_empty() {
        return error;
    }
    let named: Vec<String> =
        set_aside.iter().map(|(was, now)| format!("{} is now {}", was.display(), now.display())).collect();
    let text = format!("{error}; set aside so far: {}: restore again, or rename them back", named.join(", "));
    if error.exit_code() == 1 { ToolError::Failed(text) } else { ToolError::Refused(text) }
}

/// Refuses a directory that holds a chain or a vote log, or what does not belong to a node.
fn in_the_way(data_dir: &Path, set_aside: bool, places: &Places) -> Result<(), ToolError> {
    let entries = match std::fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(ToolError::io("be read", data_dir)(error)),
    };
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.map_err(ToolError::io("be read", data_dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = |name: &str| REPLACED.contains(&name) || KEPT.contains(&name) || places.hold(name);
        match name.as_str() {
            name if REPLACED.contains(&name) => ours.push(name.to_owned()),
            name if known(name.strip_suffix(FRESH_ENDING).unwrap_or(name)) => {}
            name if name.ends_with(".masternode.toml") || name.contains(".old-") => {}
            name => foreign.push(name.to_owned()),
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
fn same_chain(path: &Path, manifest: &Manifest) -> Result<(), ToolError> {
    if !path.exists() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&read_small(path, SMALL_BYTES_MAX)?).into_owned();
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

/// Notes durably that the vote log counts as lost, then renames what a node left behind. As long as nothing was
/// renamed the vote log is whole, and a note must not say otherwise.
fn make_room(data_dir: &Path, note: &str) -> Result<Vec<(PathBuf, PathBuf)>, ToolError> {
    let noted_before = data_dir.join(restored::NOTE_FILE_NAME).exists();
    let take_back = |error: ToolError| match restored::taken_up(data_dir) {
        Err(left) => ToolError::Failed(format!("{error}; and {left}: remove that file by hand")),
        Ok(()) => error,
    };
    let take_back = |error| if noted_before { error } else { take_back(error) };
    restored::write(data_dir, note).map_err(|error| take_back(error.into()))?;
    let mut renamed = Vec::new();
    for name in REPLACED {
        let path = data_dir.join(name);
        if std::fs::symlink_metadata(&path).is_err() {
            continue;
        }
        match traces::set_aside(&path) {
            Ok(now) => renamed.push((path, now)),
            Err(error) => {
                let error = ToolError::io("be renamed", &path)(error);
                // A rename that only could not be synced has happened.
                let untouched = renamed.is_empty() && std::fs::symlink_metadata(&path).is_ok();
                return Err(if untouched { take_back(error) } else { naming(error, &renamed) });
            }
        }
    }
    Ok(renamed)
}

/// Configuration, genesis and keys that the directory lacks.
fn copy_missing(backup: &Path, places: &Places, manifest: &Manifest) -> Result<Vec<PathBuf>, ToolError> {
    let mut copied = Vec::new();
    for listed in &manifest.files {
        let Some(target) = places.of(&listed.name) else { continue };
        if std::fs::symlink_metadata(&target).is_ok() {
            continue;
        }
        let folder = target.parent().unwrap_or(&places.data_dir);
        let made = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .recursive(true)
            .create(folder);
        made.map_err(ToolError::io("be made", folder))?;
        write_new(&target, &read_small(&backup.join(&listed.name), SMALL_BYTES_MAX)?)?;
        sync(folder)?;
        copied.push(places.within(&target).unwrap_or(&target).to_owned());
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

/// Only whether a backup is whole; what it holds, and what it rests on ([`Summary::rests_on`]).
///
/// # Errors
/// [`ToolError`].
pub fn inspect(backup: &Path) -> Result<(Manifest, Option<u64>), ToolError> {
    let (manifest, summary) = verify(backup, &mut NobodyReceives, Depth::Everything)?;
    Ok((manifest, summary.and_then(|summary| summary.rests_on())))
}
