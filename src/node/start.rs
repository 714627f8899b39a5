//! Start and stop of a node, each in its one order.
//!
//! Start: lock the data directory, open and load the store, open the vote log, replay it, check the
//! sign floor, join the network, start the threads, give the machine its first input. Stop: take no
//! more, let every queue run empty from front to back (checks, engine, effects with the last sync,
//! store), leave the network, close the store.

use crate::config::Config;
use crate::consensus::machine::RestoreError;
use crate::consensus::verify::EraContext;
use crate::ledger::Ledger;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::network::{Identity as NetworkIdentity, Network, NetworkError};
use crate::node::archivist::Archivist;
use crate::node::blocks::{BlockServer, store_blocks};
use crate::node::data_dir::{self, DataDirError, DirLock};
use crate::node::effects;
use crate::node::engine::{BULK_WAITING_MAX, Engine, URGENT_WAITING_MAX};
use crate::node::floor::{FloorError, VoteLog, VoteLogError};
use crate::node::halt::Halt;
use crate::node::handle::{NodeHandle, SUBMISSIONS_MAX, Shared};
use crate::node::hub::{Hub, Identity, Phase};
use crate::node::instance::InstanceError;
use crate::node::journal::JournalError;
use crate::node::lanes::Lanes;
use crate::node::opening::{Opened, open};
use crate::node::outlet::{self, BLOCKS_WAITING_MAX, Outlet};
use crate::node::prover::Prover;
use crate::node::pruner;
use crate::node::relay::Relay;
use crate::node::router::{EVENTS_WAITING_MAX, Router};
use crate::node::served::send_by;
use crate::node::settings;
use crate::node::snapshots;
use crate::node::snapshots::begin::{self, Joined};
use crate::node::sources::NodeSources;
use crate::node::space::Space;
use crate::node::sync::route::TrustError;
use crate::node::sync::{EVENTS_WAITING_MAX as PULLS_WAITING_MAX, Sync, Syncer};
use crate::node::tasks::{Ended, Exit, Stopper, spawn, thread};
use crate::node::verify::{Arrival, OnFault, Verifier, Worker};
use crate::node::{clock, watch};
use crate::pool::Pool;
use crate::primitives::clean::CleanText;
use crate::primitives::keys::SecretKey;
use crate::rpc::control::{ControlError, ControlServer};
use arc_swap::ArcSwap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    Trust(#[from] TrustError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    NoSpace(String),
    #[error("the system has no thread to give: {0}")]
    Thread(#[from] std::io::Error),
    #[error(
        "cannot put the database made from a snapshot in the place of {database}: {source}; check space and permissions, \
         and start again", database = database.display()
    )]
    Snapshot { database: PathBuf, source: io::Error },
    #[error("opening files failed: {0}")]
    Internal(String),
}

impl NodeError {
    /// Exit code of the process: 78 when configuration, data or keys have to be put right first, 1 when
    /// trying again may help.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) if error.may_pass() => 1,
            Self::Journal(JournalError::Io { .. })
            | Self::Floor(FloorError::Io { .. })
            | Self::Instance(InstanceError::Io { .. })
            | Self::Network(NetworkError::Listen { .. })
            | Self::NoSpace(_)
            | Self::Thread(_)
            | Self::Snapshot { .. }
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

/// Starts a node.
///
/// # Errors
/// [`NodeError`], whose text names the file or setting and the remedy; nothing is left running.
pub async fn start(options: NodeOptions) -> Result<NodeHandle, NodeError> {
    let begun = Instant::now();
    let lock = prepare(&options)?;
    let hub = new_hub(&options);
    let stopper = Stopper::default();
    let begun_early = begin_early(&options, &hub, &stopper).await?;
    let opening = {
        let (config, genesis) = (options.config.clone(), options.genesis.clone());
        let (vote_key, hub) = (options.vote_key.clone(), Arc::clone(&hub));
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| open(&config, &genesis, vote_key, &hub)))
    };
    let opened = opening.await.map_err(|error| NodeError::Internal(error.to_string()))??;
    let joined = match begun_early {
        Some(joined) => joined,
        None => {
            hub.enter(Phase::Starting(CleanText::new("joining the network")));
            let height = Arc::new(AtomicU64::new(0));
            let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
            height.store(opened.ledger.tip().header.height, Ordering::Release);
            let network_options = settings::network_options(&options.config, &options.genesis.params);
            let network =
                Network::start(network_options, identity(&options), Arc::clone(&height), events).await?;
            Joined { network: Arc::new(network), received, early: Vec::new(), height }
        }
    };
    joined.height.store(opened.ledger.tip().header.height, Ordering::Release);
    joined.network.set_committee(outlet::members(&opened.ledger));
    joined.network.set_registered(outlet::registered(&opened.ledger));
    let control = ControlServer::bind(&options.config.data_dir)?;
    let parts = Parts { opened, joined, hub, stopper, lock };
    let handle = run(&options, parts, control)?;
    tracing::info!(
        address = %handle.local_address(),
        milliseconds = begun.elapsed().as_millis(),
        "started"
    );
    Ok(handle)
}

/// A node without blocks joins the network first and takes a snapshot if it can; `None` for any other.
async fn begin_early(
    options: &NodeOptions,
    hub: &Arc<Hub>,
    stopper: &Stopper,
) -> Result<Option<Joined>, NodeError> {
    let (config, genesis) = (options.config.clone(), options.genesis.clone());
    let looking = tokio::task::spawn_blocking(move || {
        begin::complete(&config)?;
        let anchor = begin::anchor(&config, &genesis)?;
        if anchor.is_none() {
            begin::clear_left(&config, &genesis)?;
        }
        Ok::<_, NodeError>(anchor)
    });
    let anchor = looking.await.map_err(|error| NodeError::Internal(error.to_string()))??;
    let Some(anchor) = anchor else { return Ok(None) };
    let (config, genesis) = (&options.config, &options.genesis);
    begin::join(config, genesis, identity(options), anchor, (hub, stopper)).await.map(Some)
}

/// Who the node is to its peers.
fn identity(options: &NodeOptions) -> NetworkIdentity {
    NetworkIdentity {
        network_key: options.network_key.clone(),
        vote_key: options.vote_key.clone(),
        chain: options.genesis.chain_id(),
        name: options.config.name.clone(),
        agent: format!("masternode/{}", env!("CARGO_PKG_VERSION")),
    }
}

/// Checks what needs no file and locks the data directory.
fn prepare(options: &NodeOptions) -> Result<DirLock, NodeError> {
    let (genesis, config) = (options.genesis.network, options.config.network);
    if genesis != config {
        return Err(NodeError::WrongNetwork { genesis: genesis.to_string(), config: config.to_string() });
    }
    let lock = data_dir::lock(&options.config.data_dir, &options.config.lock_path())?;
    let room = settings::space_limits(&options.config).allows_start(&options.config.data_dir);
    room.map_err(NodeError::NoSpace)?;
    Ok(lock)
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
        space: settings::space_limits(&options.config),
    };
    Hub::new(identity, Arc::clone(&options.genesis.state().next_committee), clock::now())
}

/// What `start` hands to the threads.
struct Parts {
    opened: Opened,
    joined: Joined,
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
    space: Arc<Space>,
    /// Ends the making of pictures for readers.
    pictures: CancellationToken,
    lock: DirLock,
    finished: latest::Sender<Option<Exit>>,
}

/// Starts every thread and task.
fn run(options: &NodeOptions, parts: Parts, control: ControlServer) -> Result<NodeHandle, NodeError> {
    let Parts { opened, joined, hub, stopper, lock } = parts;
    let Joined { network, received, early, height } = joined;
    let Opened { store, ledger, pool, host, writes, machine, mut log, .. } = opened;
    let (halt, on_fault) = (Halt::new(Arc::clone(&hub)), on_fault(&network));
    let store = pruner::start(Arc::new(store), options.config.storage.prune_blocks, &halt, &stopper)?;
    let (tasks, pictures, verifier) = (TaskTracker::new(), CancellationToken::new(), Verifier::new());
    let (era, durable) = (Arc::new(ArcSwap::new(machine.era())), Arc::new(AtomicU64::new(store.height())));
    let (recent, inbox) = (Arc::default(), Arc::new(Lanes::new(URGENT_WAITING_MAX, BULK_WAITING_MAX)));
    let prover = Arc::new(Prover::new(&ledger, &pool, &recent, &store));
    let snapshots = snapshots::serve(&options.config, &stopper, &prover, &network)?;
    let space = Space::new(options.config.data_dir.clone(), hub.identity.space, Arc::clone(&inbox));
    let workers = verify_with(&verifier, &inbox, &era, &on_fault, &hub, &stopper)?;
    let (pulls, wishes) = sync_channel(PULLS_WAITING_MAX);
    let (blocks, stored) = sync_channel(BLOCKS_WAITING_MAX);
    let syncer = Syncer {
        send: send_by(&network),
        pool: Arc::clone(&pool),
        era: Arc::clone(&era),
        engine: Arc::clone(&inbox),
        on_fault,
        hub: Arc::clone(&hub),
        durable: Arc::clone(&durable),
    };
    let (sync, checkers) = Sync::new(syncer, wishes);
    let (server, serving) = BlockServer::over(&network, &store, &recent);
    let relay = Relay::of(options.vote_key.as_ref(), &outlet::members(&ledger), &network);
    let mut outlet = Outlet {
        network: Arc::clone(&network),
        relay: Arc::clone(&relay),
        pulls: pulls.clone(),
        writes,
        store: blocks,
        durable: Arc::clone(&durable),
        recent: Arc::clone(&recent),
        prover: Arc::clone(&prover),
        hub: Arc::clone(&hub),
        halt: Arc::clone(&halt),
        space: Arc::clone(&space),
    };
    let (effects, batches) = effects::queue();
    let engine = Engine {
        machine,
        host,
        inbox: Arc::clone(&inbox),
        effects,
        verifier: verifier.clone(),
        era,
        height,
        hub: Arc::clone(&hub),
        halt: Arc::clone(&halt),
    };
    attach_sources(options, &hub, (&ledger, &pool), &network, &durable);
    let (writer, room, times) = (Arc::clone(&store), Arc::clone(&space), Arc::clone(&hub));
    let mut chain = vec![
        thread(&stopper, "engine", move || engine.run())?,
        thread(&stopper, "effects", move || {
            effects::run(&batches, &mut log, &mut outlet, &times.metrics.journal_sync);
            close(&mut log);
        })?,
        thread(&stopper, "store", move || {
            store_blocks(&stored, &writer, &durable, &recent, (&halt, &room), &snapshots.clerk);
        })?,
        thread(&stopper, "sync", move || sync.run())?,
        thread(&stopper, "serve-blocks", move || serving.run())?,
    ];
    let checkers = checkers.into_iter().map(|c| thread(&stopper, "check-blocks", move || c.run()));
    chain.extend(checkers.collect::<io::Result<Vec<_>>>()?.into_iter().chain(snapshots.threads));
    let router = Router {
        early,
        events: received,
        verifier: verifier.clone(),
        pool: Arc::clone(&pool),
        pulls,
        server,
        snapshots: snapshots.desk,
        hub: Arc::clone(&hub),
        relay,
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
        network: (network.own(), Arc::downgrade(&network)),
        data_dir: options.config.data_dir.clone(),
        prover,
        archivist: Archivist::new(&store, &options.genesis, &stopper),
        finished: exit,
    }));
    let served = control.serve(Arc::new(handle.clone()), stopper.ordered().clone());
    start_tasks((&stopper, &tasks, &pictures), &hub, &space, router, served);
    let running = Running {
        stopper,
        hub,
        tasks,
        verifier,
        workers,
        inbox,
        chain,
        network,
        store,
        space,
        pictures,
        lock,
        finished,
    };
    tokio::spawn(running.until_stopped().in_current_span());
    Ok(handle)
}

/// Starts what is not a thread: the router, the control socket, and who watches state and space.
fn start_tasks(
    (stopper, tasks, pictures): (&Stopper, &TaskTracker, &CancellationToken),
    hub: &Arc<Hub>,
    space: &Arc<Space>,
    router: Router,
    control: impl Future<Output = ()> + Send + 'static,
) {
    let stop = stopper.ordered().clone();
    let relay = Arc::clone(&router.relay).run(Arc::clone(&router.pool), stop.clone());
    spawn(stopper, tasks, "relay", relay);
    spawn(stopper, tasks, "router", async move {
        let _stopped = stop.run_until_cancelled(router.run()).await;
    });
    spawn(stopper, tasks, "control", control);
    spawn(stopper, tasks, "watch", watch::states(Arc::clone(hub), stopper.ordered().clone()));
    spawn(stopper, tasks, "space", Arc::clone(space).watch(stopper.clone()));
    tokio::spawn(Arc::clone(hub).keep_fresh(clock::now, pictures.clone()).in_current_span());
}

/// Says of what pictures of the node are made from now on.
fn attach_sources(
    options: &NodeOptions,
    hub: &Arc<Hub>,
    (ledger, pool): (&Arc<Ledger>, &Arc<Pool>),
    network: &Arc<Network>,
    durable: &Arc<AtomicU64>,
) {
    hub.attach(Arc::new(NodeSources {
        ledger: Arc::clone(ledger),
        pool: Arc::clone(pool),
        network: Arc::downgrade(network),
        inbound_max: u64::from(options.config.p2p.inbound_max),
        durable: Arc::clone(durable),
    }));
    hub.enter(Phase::Running);
}

/// The threads that check signatures.
fn verify_with(
    verifier: &Verifier,
    inbox: &Arc<Lanes<Arrival>>,
    era: &Arc<ArcSwap<EraContext>>,
    on_fault: &OnFault,
    hub: &Arc<Hub>,
    stopper: &Stopper,
) -> Result<Vec<Ended>, NodeError> {
    let worker = |queue: &Arc<_>| Worker {
        queue: Arc::clone(queue),
        engine: Arc::clone(inbox),
        era: Arc::clone(era),
        on_fault: Arc::clone(on_fault),
        hub: Arc::clone(hub),
    };
    let mut workers = Vec::new();
    for worker in verifier.queues().iter().map(worker) {
        workers.push(thread(stopper, "verify", move || worker.run())?);
    }
    Ok(workers)
}

/// Notes where the vote log ends; without the note the next start takes it as after a crash.
fn close(log: &mut VoteLog) {
    if let Err(error) = log.close() {
        tracing::warn!(%error, "the end of the vote log was not noted");
    }
}

/// A peer that sent something no honest peer sends is told so and cut off; what counts may lead to a ban.
fn on_fault(network: &Arc<Network>) -> OnFault {
    let network = Arc::clone(network);
    Arc::new(move |peer, charge| network.charge(peer, charge))
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
        self.space.close();
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
