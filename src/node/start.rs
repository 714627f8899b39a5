//! Start and stop of a node, each in its one order.
//!
//! Start: lock the data directory, open and load the store, open the vote log, replay it, check the
//! sign floor, join the network, start the threads, give the machine its first input. Stop: take no
//! more, let every queue run empty from front to back (checks, engine, effects with the last sync,
//! store), leave the network, close the store.

use crate::config::Config;
use crate::consensus::host::Host as _;
use crate::consensus::machine::{Machine, RestoreError};
use crate::consensus::signer::Signer;
use crate::consensus::standing::Start;
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::{Store, StoreOptions};
use crate::network::{Identity as NetworkIdentity, Network, NetworkError};
use crate::node::blocks::{BlockServer, RecentBlocks, store_blocks};
use crate::node::data_dir::{self, DataDirError, DirLock};
use crate::node::effects;
use crate::node::engine::{BULK_WAITING_MAX, Engine, URGENT_WAITING_MAX};
use crate::node::floor::{FLOOR_FILE_NAME, FloorError, SignFloor, VoteLog, VoteLogError};
use crate::node::halt::Halt;
use crate::node::handle::{NodeHandle, SUBMISSIONS_MAX, Shared};
use crate::node::host::{ChainHost, WriteQueue};
use crate::node::hub::{Hub, Identity, Phase};
use crate::node::instance::{self, Instance, InstanceError, Since};
use crate::node::journal::{Journal, JournalError};
use crate::node::lanes::Lanes;
use crate::node::outlet::{self, BLOCKS_WAITING_MAX, Outlet};
use crate::node::prover::Prover;
use crate::node::pull::{EVENTS_WAITING_MAX as PULLS_WAITING_MAX, Puller};
use crate::node::router::{EVENTS_WAITING_MAX, Router};
use crate::node::settings;
use crate::node::snapshots;
use crate::node::sources::NodeSources;
use crate::node::tasks::{Ended, Exit, Stopper, spawn, thread};
use crate::node::traces::{self, Judgement, Traces};
use crate::node::verify::{Arrival, OnFault, Verifier, Worker};
use crate::node::{clock, watch};
use crate::pool::Pool;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::ChainId;
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::rpc::control::{ControlError, ControlServer};
use arc_swap::ArcSwap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, watch as latest};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// How long the network may take to say goodbye.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
/// How long a stop may take in all; what is still running then is left behind, which the vote log and
/// the store survive as they survive a crash.
const STOP_MAX: Duration = Duration::from_secs(10);
/// Folder of the log of a node without a vote key in a directory that has signed: that log must stay as it
/// is.
const UNSIGNED_LOG_NAME: &str = "journal-unsigned";

/// Everything a node is started with. Files named by the configuration were read by the caller, but
/// for those in the data directory that only the node writes.
pub struct NodeOptions {
    pub config: Config,
    pub genesis: Genesis,
    /// Identifies the node to its peers.
    pub network_key: SecretKey,
    /// Signs votes; `None` for an observer.
    pub vote_key: Option<SecretKey>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("the genesis is of a {genesis}, the configuration of a {config}: use the files of one network")]
    WrongNetwork { genesis: String, config: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Floor(#[from] FloorError),
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error("{folder}: {source}; move the folder away", folder = journal.display())]
    Restore { journal: PathBuf, source: RestoreError },
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the system has no thread to give: {0}")]
    Thread(#[from] std::io::Error),
    #[error("opening files failed: {0}")]
    Internal(String),
}

impl NodeError {
    /// Exit code of the process: 78 when configuration, data or keys have to be put right first, 1 when
    /// trying again may help.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(StoreError::Unavailable { .. } | StoreError::Full { .. })
            | Self::Journal(JournalError::Io { .. })
            | Self::Floor(FloorError::Io { .. })
            | Self::Instance(InstanceError::Io { .. })
            | Self::Network(NetworkError::Listen { .. })
            | Self::Thread(_)
            | Self::Internal(_) => 1,
            _ => 78,
        }
    }
}

impl From<VoteLogError> for NodeError {
    fn from(error: VoteLogError) -> Self {
        match error {
            VoteLogError::Journal(error) => error.into(),
            VoteLogError::Floor(error) => error.into(),
            VoteLogError::Instance(error) => error.into(),
        }
    }
}

/// What is on disk, opened and replayed.
struct Opened {
    store: Store,
    ledger: Arc<Ledger>,
    pool: Arc<Pool>,
    host: ChainHost,
    writes: Arc<WriteQueue>,
    machine: Machine,
    log: VoteLog,
}

/// Starts a node.
///
/// # Errors
/// [`NodeError`], whose text names the file or setting and the remedy; nothing is left running.
pub async fn start(options: NodeOptions) -> Result<NodeHandle, NodeError> {
    let begun = Instant::now();
    let lock = prepare(&options)?;
    let hub = new_hub(&options);
    let stopper = Stopper::default();
    let opening = {
        let (config, genesis) = (options.config.clone(), options.genesis.clone());
        let (vote_key, hub) = (options.vote_key.clone(), Arc::clone(&hub));
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| open(&config, &genesis, vote_key, &hub)))
    };
    let opened = opening.await.map_err(|error| NodeError::Internal(error.to_string()))??;
    hub.enter(Phase::Starting(CleanText::new("joining the network")));
    let height = Arc::new(AtomicU64::new(opened.ledger.tip().header.height));
    let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
    let identity = NetworkIdentity {
        network_key: options.network_key.clone(),
        vote_key: options.vote_key.clone(),
        chain: opened.ledger.chain(),
        name: options.config.name.clone(),
        agent: format!("masternode/{}", env!("CARGO_PKG_VERSION")),
    };
    let network_options = settings::network_options(&options.config);
    let network = Network::start(network_options, identity, Arc::clone(&height), events).await?;
    network.set_committee(outlet::members(&opened.ledger));
    let control = ControlServer::bind(&options.config.data_dir)?;
    let parts = Parts { opened, network: Arc::new(network), received, height, hub, stopper, lock };
    let handle = run(&options, parts, control)?;
    tracing::info!(
        address = %handle.local_address(),
        milliseconds = begun.elapsed().as_millis(),
        "started"
    );
    Ok(handle)
}

/// Checks what needs no file and locks the data directory.
fn prepare(options: &NodeOptions) -> Result<DirLock, NodeError> {
    let (genesis, config) = (options.genesis.network, options.config.network);
    if genesis != config {
        return Err(NodeError::WrongNetwork { genesis: genesis.to_string(), config: config.to_string() });
    }
    Ok(data_dir::lock(&options.config.data_dir, &options.config.lock_path())?)
}

fn new_hub(options: &NodeOptions) -> Arc<Hub> {
    let identity = Identity {
        name: CleanText::limited(&options.config.name, 64),
        network: options.config.network,
        chain: options.genesis.chain_id(),
        vote_key: options.vote_key.as_ref().map(SecretKey::public),
        p2p_address: options.config.p2p.listen.to_string(),
        data_dir: options.config.data_dir.clone(),
        timing: settings::timing(&options.config),
        params: options.genesis.params.clone(),
    };
    Hub::new(identity, Arc::clone(&options.genesis.state().next_committee), clock::now())
}

/// Opens store and vote log and replays the log. Blocks.
fn open(
    config: &Config,
    genesis: &Genesis,
    vote_key: Option<SecretKey>,
    hub: &Hub,
) -> Result<Opened, NodeError> {
    let phase = |name| hub.enter(Phase::Starting(CleanText::new(name)));
    let key = vote_key.as_ref().map(SecretKey::public);
    let (floor, floor_fault) = read_floor(&config.data_dir, key)?;
    let found = key.map(|key| instance::find(&config.data_dir, genesis.chain_id(), key)).transpose()?;
    phase("opening the database");
    let begun = Instant::now();
    let options = StoreOptions { cache_bytes: config.storage.cache_bytes };
    let store = Store::open(&config.database_path(), genesis, options)?;
    tracing::info!(height = store.height(), milliseconds = begun.elapsed().as_millis(), "database opened");

    phase("replaying the vote log");
    let begun = Instant::now();
    let opened = match (vote_key, found) {
        (Some(key), Some(finding)) => {
            let judged = Traces {
                finding,
                floor: floor_fault.map_or(Ok(floor.height()), Err),
                log: Journal::heights(&config.journal_path())?,
                stored: store.height(),
            }
            .judge();
            open_to_vote(config, store, (genesis.chain_id(), &key), floor, judged)?
        }
        _ => open_to_observe(config, store, floor)?,
    };
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
        if log_is_useless && directory.exists() {
            keep_old(&directory)?;
        }
        Ok(begun)
    };
    let (instance, start) = begin(judged)?;
    let signer = || Some(Box::new(key.clone()) as Box<dyn Signer>);
    match Replayed::open(config, &store, &directory, signer(), start) {
        Err(fault @ (NodeError::Restore { .. } | NodeError::Journal(JournalError::Damaged { .. }))) => {
            let (instance, start) = begin(Judgement::lost(fault.to_string()))?;
            let replayed = Replayed::open(config, &store, &directory, signer(), start)?;
            replayed.finish(store, Some(floor), Some(instance))
        }
        replayed => replayed?.finish(store, Some(floor), Some(instance)),
    }
}

/// Opens the log of a node without a vote key; the log of a key is not for it.
fn open_to_observe(config: &Config, store: Store, floor: SignFloor) -> Result<Opened, NodeError> {
    let signed = floor.is_bound();
    let directory = if signed { config.data_dir.join(UNSIGNED_LOG_NAME) } else { config.journal_path() };
    if let Some((oldest, _)) = Journal::heights(&directory)?
        && oldest > store.height().saturating_add(1)
    {
        // This database cannot take it up.
        keep_old(&directory)?;
    }
    let start = Start::Fresh { tried: Vec::new(), nonce: [0; 32] };
    Replayed::open(config, &store, &directory, None, start)?.finish(store, (!signed).then_some(floor), None)
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
        signer: Option<Box<dyn Signer>>,
        start: Start,
    ) -> Result<Self, NodeError> {
        let ledger = Arc::new(store.load()?);
        let (journal, recovered) = Journal::open(directory, ledger.chain(), store.height() + 1)?;
        if let Some((path, bytes)) = &recovered.repaired {
            tracing::warn!(path = %path.display(), bytes, "cut an incomplete group off the vote log");
        }
        let pool = Arc::new(Pool::new(settings::pool_limits(config)));
        let (mut host, writes) = ChainHost::with_writes(Arc::clone(&ledger), Arc::clone(&pool));
        let mut machine = Machine::new(signer, settings::timing(config), &host, start);
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

/// What `start` hands to the threads.
struct Parts {
    opened: Opened,
    network: Arc<Network>,
    received: mpsc::Receiver<crate::network::NetworkEvent>,
    height: Arc<AtomicU64>,
    hub: Arc<Hub>,
    stopper: Stopper,
    lock: DirLock,
}

/// What has to be stopped, in the order of stopping.
struct Running {
    stopper: Stopper,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    verifier: Verifier,
    workers: Vec<Ended>,
    inbox: Arc<Lanes<Arrival>>,
    /// Engine, effects, store, pull, server: each ends when the one before it has.
    chain: Vec<Ended>,
    network: Arc<Network>,
    store: Arc<Store>,
    /// Ends the making of pictures for readers.
    pictures: CancellationToken,
    lock: DirLock,
    finished: latest::Sender<Option<Exit>>,
}

/// Starts every thread and task.
fn run(options: &NodeOptions, parts: Parts, control: ControlServer) -> Result<NodeHandle, NodeError> {
    let Parts { opened, network, received, height, hub, stopper, lock } = parts;
    let Opened { store, ledger, pool, host, writes, machine, mut log, .. } = opened;
    let store = Arc::new(store);
    let (tasks, pictures) = (TaskTracker::new(), CancellationToken::new());
    let halt = Halt::new(Arc::clone(&hub));
    let era = Arc::new(ArcSwap::new(machine.era()));
    let durable = Arc::new(AtomicU64::new(store.height()));
    let (recent, verifier) = (Arc::new(RecentBlocks::default()), Verifier::new());
    let inbox = Arc::new(Lanes::new(URGENT_WAITING_MAX, BULK_WAITING_MAX));
    let on_fault = on_fault(&network);

    let prover = Arc::new(Prover::new(&ledger, &pool, &recent, &store));
    let snapshots = snapshots::serve(&options.config, &stopper, &prover, &network)?;
    let worker = |queue: &Arc<_>| Worker {
        queue: Arc::clone(queue),
        engine: Arc::clone(&inbox),
        era: Arc::clone(&era),
        on_fault: Arc::clone(&on_fault),
        hub: Arc::clone(&hub),
    };
    let workers = verifier.queues().iter().map(worker);
    let workers: io::Result<Vec<_>> = workers.map(|w| thread(&stopper, "verify", move || w.run())).collect();
    let (pulls, wishes) = sync_channel(PULLS_WAITING_MAX);
    let puller = Puller {
        events: wishes,
        network: Arc::clone(&network),
        pool: Arc::clone(&pool),
        era: Arc::clone(&era),
        engine: Arc::clone(&inbox),
        on_fault,
    };
    let (server, serving) = BlockServer::new(Arc::clone(&store), Arc::clone(&recent), Arc::clone(&network));
    let (blocks, stored) = sync_channel(BLOCKS_WAITING_MAX);
    let mut outlet = Outlet {
        network: Arc::clone(&network),
        pulls: pulls.clone(),
        writes,
        store: blocks,
        durable: Arc::clone(&durable),
        recent: Arc::clone(&recent),
        claims: Arc::clone(&prover.claims),
        ledger: Arc::clone(&ledger),
        hub: Arc::clone(&hub),
        halt: Arc::clone(&halt),
    };
    let (effects_queue, batches) = effects::queue();
    let engine = Engine {
        machine,
        host,
        inbox: Arc::clone(&inbox),
        effects: effects_queue,
        verifier: verifier.clone(),
        era,
        height,
        hub: Arc::clone(&hub),
        halt: Arc::clone(&halt),
    };
    let sources = NodeSources {
        ledger: Arc::clone(&ledger),
        pool: Arc::clone(&pool),
        network: Arc::downgrade(&network),
        inbound_max: u64::from(options.config.p2p.inbound_max),
        durable: Arc::clone(&durable),
    };
    hub.attach(Arc::new(sources));
    hub.enter(Phase::Running);
    let sync_times = Arc::clone(&hub);
    let (writer, clerk) = (Arc::clone(&store), snapshots.clerk);
    let mut chain = vec![
        thread(&stopper, "engine", move || engine.run())?,
        thread(&stopper, "effects", move || {
            effects::run(&batches, &mut log, &mut outlet, &sync_times.metrics.journal_sync);
        })?,
        thread(&stopper, "store", move || store_blocks(&stored, &writer, &durable, &recent, &halt, &clerk))?,
        thread(&stopper, "pull-blocks", move || puller.run())?,
        thread(&stopper, "serve-blocks", move || serving.run())?,
    ];
    chain.extend(snapshots.threads);
    let router = Router {
        events: received,
        verifier: verifier.clone(),
        pool: Arc::clone(&pool),
        pulls,
        server,
        snapshots: snapshots.desk,
        hub: Arc::clone(&hub),
    };
    let (finished, exit) = latest::channel(None);
    let handle = NodeHandle(Arc::new(Shared {
        hub: Arc::clone(&hub),
        ledger,
        pool,
        verifier: verifier.clone(),
        stopper: stopper.clone(),
        submissions: Semaphore::new(SUBMISSIONS_MAX),
        local_address: network.local_address(),
        network_id: network.own(),
        data_dir: options.config.data_dir.clone(),
        prover,
        finished: exit,
    }));
    let stop = stopper.ordered().clone();
    spawn(&stopper, &tasks, "router", async move {
        let _stopped = stop.run_until_cancelled(router.run()).await;
    });
    let backend = Arc::new(handle.clone());
    spawn(&stopper, &tasks, "control", control.serve(backend, stopper.ordered().clone()));
    spawn(&stopper, &tasks, "watch", watch::states(Arc::clone(&hub), stopper.ordered().clone()));
    tokio::spawn(Arc::clone(&hub).keep_fresh(clock::now, pictures.clone()).in_current_span());
    let running = Running {
        stopper,
        hub,
        tasks,
        verifier,
        workers: workers?,
        inbox,
        chain,
        network,
        store,
        pictures,
        lock,
        finished,
    };
    tokio::spawn(running.until_stopped().in_current_span());
    Ok(handle)
}

/// A peer that sent something no honest peer sends is told so and cut off.
fn on_fault(network: &Arc<Network>) -> OnFault {
    let network = Arc::clone(network);
    Arc::new(move |peer, what| {
        tracing::warn!(peer = %peer.0.short(), what, "disconnecting a peer that sent something invalid");
        network.disconnect(peer, what);
    })
}

impl Running {
    async fn until_stopped(self) {
        self.stopper.ordered().cancelled().await;
        let exit = self.stopper.exit().unwrap_or_else(|| Exit { code: 0, reason: String::new() });
        tracing::info!(reason = %exit.reason, "stopping");
        self.hub.enter(Phase::Stopping);
        let begun = Instant::now();
        let finished = self.finished.clone();
        let in_time = tokio::time::timeout(STOP_MAX, self.stop(exit.code != 0)).await.is_ok();
        let exit = match in_time {
            true => exit,
            false => {
                tracing::error!(seconds = STOP_MAX.as_secs(), "parts of the node did not stop in time");
                Exit { code: 1, reason: format!("{}; not everything stopped in time", exit.reason) }
            }
        };
        tracing::info!(milliseconds = begun.elapsed().as_millis(), "stopped");
        finished.send_replace(Some(exit));
    }

    async fn stop(self, failed: bool) {
        self.tasks.close();
        self.tasks.wait().await;
        self.verifier.close();
        if failed {
            // Some part is gone, and others may wait for it.
            self.inbox.close();
        }
        for worker in self.workers {
            join(worker).await;
        }
        self.inbox.close();
        for part in self.chain {
            join(part).await;
        }
        match Arc::try_unwrap(self.network) {
            Ok(network) => network.shutdown(FAREWELL_MAX).await,
            Err(shared) => {
                tracing::warn!(users = Arc::strong_count(&shared), "the network is still in use");
            }
        }
        self.pictures.cancel();
        let (store, lock) = (self.store, self.lock);
        let span = tracing::Span::current();
        let closed = tokio::task::spawn_blocking(move || {
            let _node = span.enter();
            drop(store);
            drop(lock);
        });
        if let Err(error) = closed.await {
            tracing::error!(%error, "closing the database failed");
        }
    }
}

async fn join(part: Ended) {
    // An error means that the thread was gone already.
    let _gone = part.done.await;
    tracing::debug!(part = part.name, "ended");
}
