//! What is on disk, opened at the start: database and vote log, compared with each other and with the sign
//! floor, and the log replayed. Blocks; nothing else of the node runs yet.
//!
//! What disagrees stops signing, not the node, where the chain can let it back; files that cannot be
//! used are renamed. A database that cannot be used ends the start.

use crate::config::Config;
use crate::config::names;
use crate::consensus::host::Host as _;
use crate::consensus::machine::Machine;
use crate::consensus::signer::Signer;
use crate::consensus::standing::Start;
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::{Store, StoreOptions};
use crate::node::floor::{FLOOR_FILE_NAME, FloorError, SignFloor, VoteLog};
use crate::node::host::{ChainHost, WriteQueue};
use crate::node::hub::{Hub, Phase};
use crate::node::instance::{Instance, Since};
use crate::node::journal::{Journal, JournalError};
use crate::node::restored;
use crate::node::settings;
use crate::node::start::NodeError;
use crate::node::sync::route::check_stored;
use crate::node::traces::{self, Judgement, Traces};
use crate::pool::Pool;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::ChainId;
use crate::primitives::keys::{PublicKey, SecretKey};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// What is on disk, opened and replayed.
pub struct Opened {
    pub store: Store,
    pub ledger: Arc<Ledger>,
    pub pool: Arc<Pool>,
    pub host: ChainHost,
    pub writes: Arc<WriteQueue>,
    pub machine: Machine,
    pub log: VoteLog,
}

/// Opens store and vote log and replays the log. Blocks.
pub fn open(
    config: &Config,
    genesis: &Genesis,
    vote_key: Option<SecretKey>,
    hub: &Hub,
) -> Result<Opened, NodeError> {
    let phase = |name| hub.enter(Phase::Starting(CleanText::new(name)));
    let key = vote_key.as_ref().map(SecretKey::public);
    let (floor, floor_fault) = read_floor(&config.data_dir, key)?;
    let found = key.map(|key| restored::find(&config.data_dir, genesis.chain_id(), key)).transpose()?;
    phase("opening the database");
    let begun = Instant::now();
    let options = StoreOptions { cache_bytes: config.storage.cache_bytes };
    let store = Store::open(&config.database_path(), genesis, options)?;
    tracing::info!(height = store.height(), milliseconds = begun.elapsed().as_millis(), "database opened");

    phase("replaying the vote log");
    let begun = Instant::now();
    let opened = match (vote_key, found) {
        (Some(key), Some(finding)) => {
            let end = Journal::found_end(&config.journal_path())?;
            let judged = Traces {
                finding,
                floor: floor_fault.map_or(Ok(floor.height()), Err),
                log: Journal::heights(&config.journal_path())?,
                closed: floor.log_end().map(|was| (was, end)),
                stored: store.height(),
            }
            .judge();
            open_to_vote(config, store, (genesis.chain_id(), &key), floor, judged)?
        }
        _ => open_to_observe(config, store, floor)?,
    };
    check_stored(&opened.store, config.sync.trusted_block)?;
    // The hub began with the committee of the genesis.
    hub.metrics.enter(opened.host.tip().next_committee);
    let height = opened.host.tip().height + 1;
    tracing::info!(height, milliseconds = begun.elapsed().as_millis(), "vote log replayed");
    Ok(opened)
}

/// The sign floor; one that is damaged is set aside, and what happened told.
fn read_floor(data_dir: &Path, key: Option<PublicKey>) -> Result<(SignFloor, Option<String>), NodeError> {
    match SignFloor::read(data_dir, key) {
        Err(error @ FloorError::Damaged { .. }) if key.is_some() => {
            keep_old(&data_dir.join(FLOOR_FILE_NAME))?;
            Ok((SignFloor::absent(data_dir, key), Some(error.to_string())))
        }
        read => Ok((read?, None)),
    }
}

/// Opens the vote log of a node with a vote key. A log that cannot be replayed is as good as lost: it
/// is set aside and the node begins anew without it.
fn open_to_vote(
    config: &Config,
    store: Store,
    (chain, key): (ChainId, &SecretKey),
    floor: SignFloor,
    judged: Judgement,
) -> Result<Opened, NodeError> {
    let directory = config.journal_path();
    let begin = |judged: Judgement| -> Result<(Instance, Start), NodeError> {
        let Judgement { since, drawn, log_is_useless } = judged;
        if let Since::Lost(reason) = &since {
            tracing::warn!(event = "safe-start", %reason, "not signing before the chain lets this masternode back");
        }
        // On disk before the log is gone: a start in between must not take this for a new directory.
        let begun = Instance::begin(&config.data_dir, chain, key.public(), since, drawn)?;
        restored::taken_up(&config.data_dir)?;
        if log_is_useless && directory.exists() {
            keep_old(&directory)?;
        }
        Ok(begun)
    };
    let (instance, start) = begin(judged)?;
    let signer = || Some(Box::new(key.clone()) as Box<dyn Signer>);
    let is_closed = floor.log_end().is_some();
    match Replayed::open(config, &store, &directory, is_closed, (signer(), start)) {
        Err(fault @ (NodeError::Restore { .. } | NodeError::Journal(JournalError::Damaged { .. }))) => {
            let (instance, start) = begin(Judgement::lost(fault.to_string()))?;
            let replayed = Replayed::open(config, &store, &directory, false, (signer(), start))?;
            replayed.finish(store, Some(floor), Some(instance))
        }
        replayed => replayed?.finish(store, Some(floor), Some(instance)),
    }
}

/// Opens the log of a node without a vote key; the log of a key is not for it.
fn open_to_observe(config: &Config, store: Store, floor: SignFloor) -> Result<Opened, NodeError> {
    let signed = floor.is_bound();
    let directory =
        if signed { config.data_dir.join(names::JOURNAL_UNSIGNED) } else { config.journal_path() };
    if let Some((oldest, _)) = Journal::heights(&directory)?
        && oldest > store.height().saturating_add(1)
    {
        // This database cannot take it up.
        keep_old(&directory)?;
    }
    let start = Start::Fresh { tried: Vec::new(), nonce: [0; 32] };
    let replayed = Replayed::open(config, &store, &directory, false, (None, start))?;
    replayed.finish(store, (!signed).then_some(floor), None)
}

fn keep_old(path: &Path) -> Result<(), NodeError> {
    let now = traces::set_aside(path).map_err(|source| JournalError::Io {
        action: "rename",
        path: path.to_owned(),
        source,
    })?;
    tracing::warn!(event = "set-aside", was = %path.display(), now = %now.display(), "kept what cannot be used");
    Ok(())
}

/// Ledger and machine after the replay of a log.
struct Replayed {
    ledger: Arc<Ledger>,
    pool: Arc<Pool>,
    host: ChainHost,
    writes: Arc<WriteQueue>,
    machine: Machine,
    journal: Journal,
}

impl Replayed {
    fn open(
        config: &Config,
        store: &Store,
        directory: &Path,
        is_closed: bool,
        (signer, start): (Option<Box<dyn Signer>>, Start),
    ) -> Result<Self, NodeError> {
        let ledger = Arc::new(store.load()?);
        let open = if is_closed { Journal::open_closed } else { Journal::open };
        let (journal, recovered) = open(directory, ledger.chain(), store.height() + 1)?;
        if let Some((path, bytes)) = &recovered.repaired {
            tracing::warn!(path = %path.display(), bytes, "cut an incomplete group off the vote log");
        }
        let pool = Arc::new(Pool::new(settings::pool_limits(config)));
        let (mut host, writes) = ChainHost::with_writes(Arc::clone(&ledger), Arc::clone(&pool));
        let machine = Machine::new(signer, settings::timing(config), &host, start);
        let mut machine = machine.trusting(config.sync.trusted_block);
        tracing::info!(records = recovered.records.len(), "replaying the vote log");
        let restored = machine.restore(&mut host, recovered.records);
        restored.map_err(|source| NodeError::Restore { journal: directory.to_owned(), source })?;
        Ok(Self { ledger, pool, host, writes, machine, journal })
    }

    /// Stores the blocks that were in the log only, and opens it for writing.
    fn finish(
        self,
        store: Store,
        floor: Option<SignFloor>,
        instance: Option<Instance>,
    ) -> Result<Opened, NodeError> {
        let Self { ledger, pool, host, writes, machine, journal } = self;
        while let Some(write) = writes.pop() {
            store.commit(&write)?;
        }
        let log = VoteLog::new(journal, floor, instance, host.tip().height + 1)?;
        Ok(Opened { store, ledger, pool, host, writes, machine, log })
    }
}
