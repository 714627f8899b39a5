//! `masternode backup`: the chain of a node, running or not, in a folder that is verified before it gets its
//! name.
//!
//! In it: blocks and state of one height as an [archive](crate::archive), `genesis.toml`, `masternode.toml`,
//! and the key files if asked for. Deliberately never in it: vote log, sign floor and `instance`. An old vote
//! log beside a key is how a masternode comes to sign twice, so a restored node has none and is let back by
//! the chain. Of a running node everything is read over its control socket; the hashing and writing are
//! work of this process, at low priority.

use crate::archive::check::{NobodyReceives, Receiver, Summary, check};
use crate::archive::frames::ArchiveReader;
use crate::archive::source::{Source, Wish};
use crate::config::Config;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::folder::refuse_other_format;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::clock;
use crate::node::data_dir;
use crate::node::snapshots::swap;
use crate::rpc::client::{ArchiveStream, ClientError, ControlClient};
use crate::rpc::stream::ArchiveRequest;
use crate::tools::files::{Hashing, Staging, create_new, open_afresh, read_small, write_new};
use crate::tools::manifest::{ARCHIVE_FILE_NAME, BACKUP_FORMAT, Listed, Manifest, utc};
use crate::tools::{Progress, Tell, ToolError};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names in a backup.
pub const GENESIS_FILE_NAME: &str = "genesis.toml";
/// Folder of the key files in a backup.
pub const KEYS_FOLDER_NAME: &str = "keys";
/// Bytes read and written at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Largest configuration or key file copied.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// Largest genesis file copied.
const GENESIS_BYTES_MAX: u64 = 64 << 20;

/// What is to be backed up.
#[derive(Clone, Copy, Debug)]
pub struct BackupOrder<'a> {
    /// The node.
    pub config: &'a Config,
    /// Its configuration file.
    pub config_file: &'a Path,
    /// Its genesis.
    pub genesis: &'a Genesis,
    /// The folder to make.
    pub target: &'a Path,
    /// Whether the key files are to be in it.
    pub keys: bool,
}

/// Where the chain of a node is read.
pub enum Chain {
    /// From the node that runs.
    Running(ControlClient),
    /// From its database, which nobody else may use meanwhile.
    Stopped(Arc<Store>, data_dir::DirLock),
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Self::Running(_)) { "Chain(running)" } else { "Chain(stopped)" })
    }
}

impl Chain {
    /// The chain of the node of a configuration.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn find(config: &Config, genesis: &Genesis) -> Result<Self, ToolError> {
        match ControlClient::connect(&config.data_dir) {
            Ok(client) => return Ok(Self::Running(client)),
            Err(ClientError::NotRunning { .. } | ClientError::Stale { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let database = config.database_path();
        if !database.join("db").exists() && !swap::is_waiting(&database) {
            let text = format!(
                "{}: no database: this node has never run, so there is nothing to read",
                database.display()
            );
            return Err(ToolError::Refused(text));
        }
        refuse_other_format(&database)?;
        // Also held by a node that is just starting or stopping.
        let lock = data_dir::lock(&config.data_dir, &config.lock_path())?;
        swap::complete(&database).map_err(ToolError::io("be put in place", &database))?;
        refuse_other_format(&database)?;
        let options = StoreOptions { cache_bytes: config.storage.cache_bytes };
        let store = Store::open(&database, genesis, options)?;
        Ok(Self::Stopped(Arc::new(store), lock))
    }

    /// Whether the node runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Writes an archive of it to `out`, which is given back. `name` is what errors call it.
    ///
    /// # Errors
    /// [`ToolError`].
    pub fn write<W: Write>(
        self,
        wish: Wish,
        genesis: &Genesis,
        out: W,
        name: &str,
        tell: Tell<'_>,
    ) -> Result<W, ToolError> {
        let Wish { from, to, state } = wish;
        match self {
            Self::Running(client) => {
                let stream = client.archive(ArchiveRequest { from, to, state })?;
                copy(stream, out, name, tell)
            }
            Self::Stopped(store, _lock) => {
                let counted = Counted { inner: out, bytes: 0, tell };
                let source = Source::new(&store, genesis);
                let (_, counted) = source.write(wish, clock::wall_ms(), counted, name)?;
                Ok(counted.inner)
            }
        }
    }
}

/// Tells how much was written.
struct Counted<'a, W> {
    inner: W,
    bytes: u64,
    tell: Tell<'a>,
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.bytes += written as u64;
        (self.tell)(Progress { doing: "reading the chain", height: 0, to: None, bytes: self.bytes });
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn copy<W: Write>(mut stream: ArchiveStream, mut out: W, name: &str, tell: Tell<'_>) -> Result<W, ToolError> {
    let (mut buffer, mut bytes) = (vec![0; BUFFER_BYTES], 0);
    loop {
        let read = stream.read(&mut buffer).map_err(|error| ToolError::Failed(error.to_string()))?;
        if read == 0 {
            break;
        }
        let io = |source| ToolError::Io { action: "be written", path: PathBuf::from(name), source };
        out.write_all(buffer.get(..read).unwrap_or_default()).map_err(io)?;
        bytes += read as u64;
        tell(Progress { doing: "reading the chain", height: 0, to: None, bytes });
    }
    out.flush().map_err(|source| ToolError::Io {
        action: "be written",
        path: PathBuf::from(name),
        source,
    })?;
    Ok(out)
}

/// Makes a backup; returns what it holds. On an error nothing is left under its name.
///
/// # Errors
/// [`ToolError`].
pub fn backup(order: BackupOrder<'_>, tell: Tell<'_>) -> Result<Manifest, ToolError> {
    let staging = Staging::folder(order.target)?;
    let chain = Chain::find(order.config, order.genesis)?;
    let folder = staging.path();
    let mut files = vec![archive(chain, order.genesis, folder, tell)?];
    files.push(copied(&order.config.genesis_path(), folder, GENESIS_FILE_NAME, GENESIS_BYTES_MAX)?);
    let config_name = crate::config::CONFIG_FILE_NAME;
    files.push(copied(order.config_file, folder, config_name, SMALL_BYTES_MAX)?);
    if order.keys {
        files.extend(keys(order.config, folder)?);
    }
    let summary = checked_archive(folder, files.first(), &mut Telling(tell, "verifying"))?;
    let manifest = manifest(&order, &summary, files);
    manifest.write(folder)?;
    verify(folder, &mut NobodyReceives, Depth::Files)?;
    staging.finish()?;
    Ok(manifest)
}

fn manifest(order: &BackupOrder<'_>, summary: &Summary, files: Vec<Listed>) -> Manifest {
    let head = &summary.head;
    Manifest {
        format: BACKUP_FORMAT,
        program: head.program.clone(),
        made: utc(head.made_ms),
        made_ms: head.made_ms,
        node: order.config.name.clone(),
        chain: head.chain,
        height: head.to,
        block: head.tip,
        state_hash: summary.header.utxo_hash,
        outputs: head.outputs,
        transactions: summary.transactions,
        blocks_without_transactions: summary.without_bodies.map_or(0, |(_, _, count)| count),
        keys: order.keys,
        files,
    }
}

fn archive(chain: Chain, genesis: &Genesis, folder: &Path, tell: Tell<'_>) -> Result<Listed, ToolError> {
    let path = folder.join(ARCHIVE_FILE_NAME);
    let out = Hashing::new(BufWriter::with_capacity(BUFFER_BYTES, create_new(&path)?));
    let name = path.display().to_string();
    let written = chain.write(Wish::EVERYTHING, genesis, out, &name, tell)?;
    let (bytes, blake3, buffered) = written.finish();
    let file =
        buffered.into_inner().map_err(|error| ToolError::io("be written", &path)(error.into_error()))?;
    file.sync_all().map_err(ToolError::io("be synced", &path))?;
    Ok(Listed { name: ARCHIVE_FILE_NAME.to_owned(), bytes, blake3 })
}

fn copied(from: &Path, folder: &Path, name: &str, bytes_max: u64) -> Result<Listed, ToolError> {
    let bytes = read_small(from, bytes_max)?;
    write_new(&folder.join(name), &bytes)?;
    let blake3 = blake3::hash(&bytes).to_hex().to_string();
    Ok(Listed { name: name.to_owned(), bytes: bytes.len() as u64, blake3 })
}

/// Where a configuration says the keys are, each with its name in a backup: vote, network, wallet.
#[must_use]
pub fn key_files(config: &Config) -> [(PathBuf, String); 3] {
    let named = |name: &str| format!("{KEYS_FOLDER_NAME}/{name}.key");
    [
        (config.vote_key_path(), named("vote")),
        (config.network_key_path(), named("network")),
        (config.wallet_key_path(), named("wallet")),
    ]
}

/// The key files that are there, as they are; the one of the wallet may be kept elsewhere.
fn keys(config: &Config, folder: &Path) -> Result<Vec<Listed>, ToolError> {
    let keys = folder.join(KEYS_FOLDER_NAME);
    let made = std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&keys);
    made.map_err(ToolError::io("be made", &keys))?;
    let mut files = Vec::new();
    for (path, name) in key_files(config).into_iter().filter(|(path, _)| path.exists()) {
        files.push(copied(&path, folder, &name, SMALL_BYTES_MAX)?);
    }
    crate::tools::files::sync(&keys)?;
    Ok(files)
}

/// Passes progress of a check on.
struct Telling<'a, 'b>(&'a mut (dyn FnMut(Progress) + 'b), &'static str);

impl Receiver for Telling<'_, '_> {
    fn progress(&mut self, height: u64, bytes: u64) {
        (self.0)(Progress { doing: self.1, height, to: None, bytes });
    }
}

/// How thoroughly a backup is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All files but the archive by size and checksum, that by its size.
    Files,
    /// Everything, down to the hash of the state.
    Everything,
}

/// Verifies a backup, handing the parts of its archive to `receiver`.
///
/// # Errors
/// [`ToolError`] naming the file that is not what the manifest says.
pub fn verify(
    folder: &Path,
    receiver: &mut dyn Receiver,
    depth: Depth,
) -> Result<(Manifest, Option<Summary>), ToolError> {
    let manifest = Manifest::read(folder)?;
    for listed in &manifest.files {
        let path = folder.join(&listed.name);
        let found = path.metadata().map_err(ToolError::io("be read", &path))?.len();
        if found != listed.bytes {
            return Err(ToolError::Refused(format!(
                "{}: has {found} bytes, the manifest says {}: use another backup",
                path.display(),
                listed.bytes
            )));
        }
        if listed.name != ARCHIVE_FILE_NAME {
            let (_, blake3, _) = hashed(&path)?;
            same_hash(&path, &blake3, listed)?;
        }
    }
    if depth == Depth::Files {
        return Ok((manifest, None));
    }
    let summary = checked_archive(folder, manifest.file(ARCHIVE_FILE_NAME), receiver)?;
    let same = summary.head.state
        && summary.head.chain == manifest.chain
        && summary.head.to == manifest.height
        && summary.head.tip == manifest.block
        && summary.header.utxo_hash == manifest.state_hash;
    if !same {
        let text =
            format!("{}: the archive is not the one of the manifest: use another backup", folder.display());
        return Err(ToolError::Refused(text));
    }
    Ok((manifest, Some(summary)))
}

fn same_hash(path: &Path, found: &str, listed: &Listed) -> Result<(), ToolError> {
    if found == listed.blake3 {
        return Ok(());
    }
    let text =
        format!("{}: damaged, its checksum is not that of the manifest: use another backup", path.display());
    Err(ToolError::Refused(text))
}

fn hashed(path: &Path) -> Result<(u64, String, File), ToolError> {
    let mut hashing = Hashing::new(open_afresh(path)?);
    std::io::copy(&mut hashing, &mut std::io::sink()).map_err(ToolError::io("be read", path))?;
    Ok(hashing.finish())
}

/// Reads the archive of a backup from the disk: its checksum, every item, the hash of its state.
fn checked_archive(
    folder: &Path,
    listed: Option<&Listed>,
    receiver: &mut dyn Receiver,
) -> Result<Summary, ToolError> {
    let path = folder.join(ARCHIVE_FILE_NAME);
    let Some(listed) = listed else {
        let text = format!("{}: the manifest does not list it: use another backup", path.display());
        return Err(ToolError::Refused(text));
    };
    let buffered = BufReader::with_capacity(BUFFER_BYTES, open_afresh(&path)?);
    let mut hashing = Hashing::new(buffered);
    let mut reader = ArchiveReader::new(&mut hashing, &path.display().to_string())?;
    let summary = check(&mut reader, receiver)?;
    let (_, blake3, _) = hashing.finish();
    same_hash(&path, &blake3, listed)?;
    Ok(summary)
}
