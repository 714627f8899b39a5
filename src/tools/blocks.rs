//! `masternode export` and `import`: blocks with their certificates as a file or stream, for audit and for a
//! compact database.
//!
//! An import believes nothing: every block is executed on the state before it, every header field compared,
//! every signature verified, as a node does with blocks it pulls. What was imported before it was interrupted
//! is kept and skipped the next time.

use crate::archive::check::{NobodyReceives, Receiver, Summary, check};
use crate::archive::frames::ArchiveReader;
use crate::archive::source::Wish;
use crate::archive::{ArchiveError, BlockItem, Head, HeaderItem};
use crate::config::Config;
use crate::consensus::host::Host as _;
use crate::consensus::verify::{EraContext, verify_decided};
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::folder::refuse_unknown_format;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::host::{ChainHost, WriteQueue};
use crate::node::snapshots::swap;
use crate::node::{data_dir, settings};
use crate::pool::Pool;
use crate::primitives::block::Block;
use crate::primitives::keys::verify_batch;
use crate::primitives::transaction::SharedTransaction;
use crate::tools::backup::Chain;
use crate::tools::files::{Staging, open_afresh};
use crate::tools::{Progress, Tell, ToolError};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Bytes read and written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Exports blocks of a node, running or not, to a new file, which is read back before it gets its name.
///
/// # Errors
/// [`ToolError`]; nothing is left under the name then.
pub fn export_file(
    config: &Config,
    genesis: &Genesis,
    wish: Wish,
    target: &Path,
    tell: Tell<'_>,
) -> Result<Summary, ToolError> {
    let (staging, file) = Staging::file(target)?;
    let name = staging.path().display().to_string();
    let out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let out = Chain::find(config, genesis)?.write(wish, genesis, out, &name, tell)?;
    let file =
        out.into_inner().map_err(|error| ToolError::io("be written", staging.path())(error.into_error()))?;
    file.sync_all().map_err(ToolError::io("be synced", staging.path()))?;
    let buffered = BufReader::with_capacity(BUFFER_BYTES, open_afresh(staging.path())?);
    let summary = check(&mut ArchiveReader::new(buffered, &name)?, &mut NobodyReceives)?;
    staging.finish()?;
    Ok(summary)
}

/// Exports blocks to a stream. Whoever reads it notices when it is not complete.
///
/// # Errors
/// [`ToolError`].
pub fn export_stream<W: Write>(
    config: &Config,
    genesis: &Genesis,
    wish: Wish,
    out: W,
    tell: Tell<'_>,
) -> Result<(), ToolError> {
    let mut out = Chain::find(config, genesis)?.write(wish, genesis, out, "standard output", tell)?;
    out.flush().map_err(ToolError::io("be written", Path::new("standard output")))
}

/// What an import did.
#[derive(Debug)]
pub struct Imported {
    /// What was read.
    pub summary: Summary,
    /// Blocks executed and stored.
    pub blocks: u64,
    /// Blocks that were there already.
    pub known: u64,
}

/// Imports blocks into the data directory of a stopped node, making the database if there is none.
///
/// # Errors
/// [`ToolError`] naming the block at fault; the blocks before it are stored.
pub fn import<R: Read>(
    config: &Config,
    genesis: &Genesis,
    input: R,
    name: &str,
    tell: Tell<'_>,
) -> Result<Imported, ToolError> {
    refuse_unknown_format(&config.database_path())?;
    let _lock = data_dir::lock(&config.data_dir, &config.lock_path())?;
    let database = config.database_path();
    // The blocks are to go into the database that the next start opens.
    swap::complete(&database).map_err(ToolError::io("be put in place", &database))?;
    let options = StoreOptions { cache_bytes: config.storage.cache_bytes };
    let store = Store::open(&database, genesis, options)?;
    let ledger = store.load()?;
    let imported = execute(Some(store), ledger, config, input, name, tell)?;
    // What is on the disk is what was executed.
    let reached = imported.summary.header.height;
    tell(Progress {
        doing: "recounting the database",
        height: reached,
        to: None,
        bytes: imported.summary.bytes,
    });
    Store::open(&database, genesis, options)?.load()?;
    Ok(imported)
}

/// Executes the blocks of an archive that begins with the first one, and stores nothing.
///
/// # Errors
/// [`ToolError`] naming the block at fault.
pub fn audit<R: Read>(input: R, name: &str, tell: Tell<'_>) -> Result<Imported, ToolError> {
    let config = Config::defaults(crate::primitives::chain::NetworkKind::Mainnet);
    let buffered = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut importing = Importing::new(None, None, &config, name, tell);
    let summary = check(&mut ArchiveReader::new(buffered, name)?, &mut importing)?;
    Ok(Imported { summary, blocks: importing.blocks, known: importing.known })
}

fn execute<R: Read>(
    store: Option<Store>,
    ledger: Ledger,
    config: &Config,
    input: R,
    name: &str,
    tell: Tell<'_>,
) -> Result<Imported, ToolError> {
    let buffered = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut importing = Importing::new(store, Some(ledger), config, name, tell);
    let summary = check(&mut ArchiveReader::new(buffered, name)?, &mut importing)?;
    Ok(Imported { summary, blocks: importing.blocks, known: importing.known })
}

/// Executes blocks as they come.
struct Importing<'a, 'b> {
    name: &'a str,
    config: &'a Config,
    /// `None` when nothing is to be stored.
    store: Option<Store>,
    /// `None` before the genesis is known.
    host: Option<(ChainHost, Arc<WriteQueue>)>,
    blocks: u64,
    known: u64,
    to: u64,
    tell: &'a mut (dyn FnMut(Progress) + 'b),
}

impl<'a, 'b> Importing<'a, 'b> {
    fn new(
        store: Option<Store>,
        ledger: Option<Ledger>,
        config: &'a Config,
        name: &'a str,
        tell: &'a mut (dyn FnMut(Progress) + 'b),
    ) -> Self {
        let host = ledger.map(|ledger| host_of(ledger, config));
        Self { name, config, store, host, blocks: 0, known: 0, to: 0, tell }
    }

    fn wrong(&self, reason: String) -> ArchiveError {
        ArchiveError::Wrong { name: self.name.to_owned(), reason }
    }
}

fn host_of(ledger: Ledger, config: &Config) -> (ChainHost, Arc<WriteQueue>) {
    let pool = Arc::new(Pool::new(settings::pool_limits(config)));
    ChainHost::with_writes(Arc::new(ledger), pool)
}

impl Receiver for Importing<'_, '_> {
    fn begin(&mut self, head: &Head, genesis: &Genesis) -> Result<(), ArchiveError> {
        self.to = head.to;
        let (host, _) = self.host.get_or_insert_with(|| host_of(Ledger::in_memory(genesis), self.config));
        let (expected, next) = (host.chain(), host.tip().height + 1);
        if expected != head.chain {
            let (name, found) = (self.name.to_owned(), head.chain);
            return Err(ArchiveError::OtherChain { name, found, expected });
        }
        if head.from > next {
            return Err(self.wrong(format!(
                "begins with block {}, and block {next} is the next one here: import what holds it first",
                head.from
            )));
        }
        Ok(())
    }

    fn header(&mut self, item: &HeaderItem) -> Result<(), ArchiveError> {
        let height = item.header.height;
        let next = self.host.as_ref().map_or(1, |(host, _)| host.tip().height + 1);
        if height < next {
            self.known += 1;
            return Ok(());
        }
        Err(self.wrong(format!(
            "holds block {height} without its transactions, which the node that exported it does not keep \
             (storage.prune_blocks): use the export of a node that keeps all"
        )))
    }

    fn block(&mut self, block: BlockItem, bodies: Vec<SharedTransaction>) -> Result<(), ArchiveError> {
        let height = block.outline.header.height;
        let Some((host, writes)) = &mut self.host else { return Ok(()) };
        let tip = host.tip();
        if height <= tip.height {
            let stored = match &self.store {
                Some(store) => store.header(height)?.map(|header| header.id()),
                None => None,
            };
            let given = block.outline.header.id();
            if stored.is_some_and(|stored| stored != given) {
                return Err(self.wrong(format!("block {height} is another one than the one stored here")));
            }
            self.known += 1;
            return Ok(());
        }
        let context = EraContext::after(host.chain(), &tip);
        let BlockItem { outline, commit, .. } = block;
        let block = Block { header: outline.header, last_commit: outline.last_commit, transactions: bodies };
        let checked = verify_decided(block, commit, &context, &verify_batch)
            .map_err(|fault| fault.to_string())
            .and_then(|checked| {
                let (block, qc) = checked.into_inner();
                host.commit(&Arc::new(block), &qc).map_err(|fault| fault.to_string())
            });
        if let Err(reason) = checked {
            return Err(self.wrong(format!("block {height} is not valid: {reason}")));
        }
        while let Some(write) = writes.pop() {
            if let Some(store) = &self.store {
                store.commit(&write)?;
            }
        }
        self.blocks += 1;
        Ok(())
    }

    fn progress(&mut self, height: u64, bytes: u64) {
        (self.tell)(Progress { doing: "executing blocks", height, to: Some(self.to), bytes });
    }
}
