//! `masternode devnet`: a whole network of real nodes in one process, with payments.
//!
//! Real sockets on loopback, a real store a node, real keys; the nodes differ from others in nothing
//! but sharing the process. The payer measures finality from outside, as a wallet would see it, and
//! the run is judged at its end: nothing may conflict, every payment must be final, all nodes must
//! have the same state at the same height.

pub mod cluster;
pub mod dashboard;
pub mod founding;
pub mod payer;
pub mod purse;
pub mod report;
pub mod rivals;
pub mod tally;

use crate::cli::DevnetArgs;
use crate::commands::devnet::cluster::{Cluster, ClusterError};
use crate::commands::devnet::founding::{Founded, LOG_DIRECTORY, Plan, found};
use crate::commands::devnet::payer::{Payer, keys_of};
use crate::commands::devnet::purse::Coin;
use crate::commands::devnet::report::{DoubleSpends, Report, Surroundings};
use crate::commands::screen::told_to_stop;
use crate::commands::{Failure, Outcome, output};
use masternode::config::Config;
use masternode::node::clock;
use masternode::node::handle::NodeHandle;
use masternode::node::host_info::{process_cpu, rss_bytes, rss_peak_bytes};
use masternode::node::logging::Logging;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::transaction::OutPoint;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long the faucet may take to split its coins; it needs a quorum first.
const FUNDING_MAX: Duration = Duration::from_secs(30);
/// How long payments may take to become final after the load, besides two eras.
const SETTLING_MAX: Duration = Duration::from_secs(20);
/// Most of the faucet's coins taken over from a kept devnet.
const COINS_MAX: usize = 1_000_000;
/// How long the runtime may take to end after the nodes have.
const RUNTIME_END_MAX: Duration = Duration::from_millis(500);
/// Threads of the runtime: network and timers; engines, journals and stores have their own.
const RUNTIME_THREADS: usize = 2;

/// The directory of the devnet; a temporary one is removed at the end.
struct Root {
    path: PathBuf,
    temporary: bool,
}

impl Root {
    fn choose(data_dir: Option<&PathBuf>) -> Result<Self, Failure> {
        if let Some(path) = data_dir {
            let path = std::path::absolute(path).map_err(Failure::failed)?;
            return Ok(Self { path, temporary: false });
        }
        let name = format!("masternode-devnet-{}-{}", std::process::id(), clock::wall_ms());
        let path = std::env::temp_dir().join(name);
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| Failure::failed(format!("cannot create {}: {error}", path.display())))?;
        Ok(Self { path, temporary: true })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            output::note(&format!("masternode: cannot remove {}: {error}", self.path.display()));
        }
    }
}

/// # Errors
/// [`Failure::Failed`] when the network cannot be started or does not agree.
pub fn execute(args: &DevnetArgs) -> Outcome {
    let started_us = clock::monotonic_us();
    let root = Root::choose(args.data_dir.as_ref())?;
    let logging = start_logging(args, &root)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let plan = plan(args, &root);
    let outcome = runtime.block_on(async {
        match args.screen.no_tui {
            true => run_headless(args, &plan, &logging, started_us).await,
            false => dashboard::run(args, plan, &logging).await,
        }
    });
    // Blocking tasks that do not end (a disk that hangs) must not keep the program.
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    drop(logging);
    outcome
}

/// One log for all nodes, in the directory of the devnet.
fn start_logging(args: &DevnetArgs, root: &Root) -> Result<Logging, Failure> {
    let mut log = Config::defaults(NetworkKind::Devnet).log;
    if let Some(filter) = &args.log_level {
        log.filter.clone_from(filter);
    }
    Logging::start(&log, &root.path.join(LOG_DIRECTORY), false).map_err(Failure::refused)
}

fn plan(args: &DevnetArgs, root: &Root) -> Plan {
    Plan {
        root: root.path.clone(),
        nodes: usize::from(args.nodes),
        base_port: args.base_port.unwrap_or(NetworkKind::Devnet.p2p_port()),
        era: Duration::from_secs(args.checkpoint_interval),
        latency: Duration::from_millis(args.latency),
        time_ms: clock::wall_ms(),
    }
}

async fn run_headless(args: &DevnetArgs, plan: &Plan, logging: &Logging, started_us: u64) -> Outcome {
    let founded = found(plan).map_err(Failure::refused)?;
    tell_start(args, plan, &founded);
    let told = told_to_stop();
    let cluster = Cluster::start(&founded).await.map_err(refused_or_failed)?;
    cluster.nodes().iter().for_each(|node| node.follow_log(logging.ring()));
    let report = tokio::select! {
        report = operate(args, &founded, &cluster, &told, started_us) => report,
        stopped = cluster.stopped() => return all_stopped(args, stopped),
    };
    cluster.stop("the devnet ends").await;
    let report = report?;
    if args.json {
        let text = serde_json::to_string(&report).map_err(Failure::failed)?;
        output::write(&format!("{text}\n"))?;
    } else {
        output::write(&report.to_string())?;
    }
    if report.is_good() { Ok(()) } else { Err(Failure::failed(report.faults.join("; "))) }
}

/// Every node was stopped on its own, as by `masternode stop`: there is nothing left to report about.
fn all_stopped(args: &DevnetArgs, stopped: Result<(), String>) -> Outcome {
    stopped.map_err(Failure::failed)?;
    if args.json {
        return Err(Failure::failed(
            "all nodes were stopped before the end of the run: there are no results",
        ));
    }
    output::note("all nodes have stopped: the devnet ends");
    Ok(())
}

fn refused_or_failed(error: ClusterError) -> Failure {
    match error.exit_code() {
        1 => Failure::failed(error),
        _ => Failure::refused(error),
    }
}

fn tell_start(args: &DevnetArgs, plan: &Plan, founded: &Founded) {
    if founded.ports_moved {
        let ports: Vec<String> =
            founded.configs.iter().map(|config| config.p2p.listen.port().to_string()).collect();
        output::note(&format!("the usual ports are busy: the nodes listen on {}", ports.join(", ")));
    }
    if !args.json {
        let (nodes, dir) = (founded.configs.len(), plan.root.display());
        output::note(&format!(
            "{nodes} nodes in {dir}; look at one with `masternode status --data-dir {dir}/node1`"
        ));
    }
}

/// Pays until the end of the run, waits until everything is settled, and sums it up.
async fn operate(
    args: &DevnetArgs,
    founded: &Founded,
    cluster: &Cluster,
    told: &CancellationToken,
    started_us: u64,
) -> Result<Report, Failure> {
    let patience = SETTLING_MAX + 2 * Duration::from_secs(args.checkpoint_interval);
    let payer = Arc::new(open_payer(founded, cluster, patience).await);
    let followers = TaskTracker::new();
    for (index, node) in cluster.nodes().iter().enumerate() {
        followers.spawn(payer.follow(index, node.fates()));
    }
    let first_height = cluster.highest();
    let mut load_time = Duration::ZERO;
    let mut double_spends = DoubleSpends::default();
    if args.load > 0 && fund(args, &payer, told).await? {
        let began = Instant::now();
        let coins = pay(args, &payer, cluster, told).await?;
        load_time = began.elapsed();
        payer.settled(patience).await;
        double_spends = rivals::settled(&payer, &coins, patience).await;
    } else {
        end_of_load(args.duration, told).await;
    }
    let rss = rss_bytes();
    // What is final in an era is in the block that ends it: the states compared hold every payment.
    let standing = cluster.agree(cluster.highest() + 1, patience).await;
    let surroundings = Surroundings {
        nodes: founded.configs.len(),
        checkpoints: standing.heights.iter().copied().max().unwrap_or(0).saturating_sub(first_height),
        heights: standing.heights,
        state_hashes: standing.state_hashes,
        double_spends,
        cpu_s: process_cpu().as_secs_f64(),
        rss_bytes: rss,
        rss_peak_bytes: rss_peak_bytes(),
        duration_s: load_time.as_secs_f64(),
        started_us,
        fates_missed: payer.fates_missed(),
    };
    Ok(payer.with_tally(|tally| Report::new(tally, surroundings)))
}

async fn open_payer(founded: &Founded, cluster: &Cluster, patience: Duration) -> Payer<NodeHandle> {
    if founded.resumed {
        // Payments that were under way when the nodes stopped are in a later block, and until then their
        // coins look unspent.
        cluster.absorb(patience).await;
    }
    let keys = keys_of(&founded.faucet);
    let coins: Vec<Coin> = cluster.coins(&keys, COINS_MAX / keys.len().max(1));
    let (chain, params) = (founded.genesis.chain_id(), founded.genesis.params.clone());
    Payer::new(cluster.nodes().to_vec(), chain, params, keys, coins, cluster.highest())
}

/// Splits the faucet's coins; returns whether there was time to.
async fn fund(
    args: &DevnetArgs,
    payer: &Payer<NodeHandle>,
    told: &CancellationToken,
) -> Result<bool, Failure> {
    let patience = FUNDING_MAX + 2 * Duration::from_secs(args.checkpoint_interval);
    tokio::select! {
        funded = payer.fund(f64::from(args.load), patience) => funded.map(|()| true).map_err(Failure::failed),
        () = told.cancelled() => Ok(false),
    }
}

/// Pays at the rate asked for until the end of the load; returns the coins that were spent twice.
async fn pay(
    args: &DevnetArgs,
    payer: &Arc<Payer<NodeHandle>>,
    cluster: &Cluster,
    told: &CancellationToken,
) -> Result<Vec<OutPoint>, Failure> {
    let cancel = CancellationToken::new();
    let paying = {
        let (payer, cancel, rate) = (Arc::clone(payer), cancel.clone(), f64::from(args.load));
        tokio::spawn(async move { payer.run(rate, cancel).await })
    };
    let rivalry = rivals::run(payer, cluster.nodes(), args.double_spends);
    let (coins, ()) = tokio::join!(rivalry, end_of_load(args.duration, told));
    cancel.cancel();
    paying.await.map_err(|error| Failure::failed(format!("the payer failed: {error}")))?;
    Ok(coins)
}

/// Returns after `duration` seconds, if there is one, or when the process is told to stop.
async fn end_of_load(duration: Option<u64>, told: &CancellationToken) {
    match duration {
        Some(seconds) => {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                () = told.cancelled() => {}
            }
        }
        None => told.cancelled().await,
    }
}
