//! A devnet with the console: nodes and payments in the background until the operator leaves.
//!
//! The console comes first, so that something is on screen while keys are made and nodes start. When
//! the terminal goes away the nodes run on until the process is told to stop, or each of them is.

use crate::cli::DevnetArgs;
use crate::commands::devnet::cluster::Cluster;
use crate::commands::devnet::founding::{Founded, Plan, found, node_name};
use crate::commands::devnet::payer::Payer;
use crate::commands::devnet::{end_of_load, open_payer, refused_or_failed};
use crate::commands::screen::{Screen, told_to_stop};
use crate::commands::{Failure, Outcome, screen};
use masternode::config::Config;
use masternode::node::handle::NodeHandle;
use masternode::node::logging::Logging;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::clean::CleanText;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long the nodes of a kept devnet may take to decide a block, besides two eras.
const OPENING_MAX: Duration = Duration::from_secs(20);
/// How long the faucet may take to split its coins.
const FUNDING_MAX: Duration = Duration::from_secs(60);

/// Runs until the operator stops the devnet, the time is over, or the process is told to stop.
///
/// # Errors
/// [`Failure`] when the network cannot be started, or two final payments conflicted.
pub async fn run(args: &DevnetArgs, plan: Plan, logging: &Logging) -> Outcome {
    let told = told_to_stop();
    let names = (0..usize::from(args.nodes)).map(|index| CleanText::new(&node_name(index))).collect();
    let config = Config::defaults(NetworkKind::Devnet).console;
    let mut screen =
        Screen::open(screen::options(&args.screen.look, &config, "devnet"), names, logging.ring())?;
    screen.feeder.phase("making keys and a genesis");
    let founding = tokio::task::spawn_blocking(move || found(&plan)).await;
    let outcome = match founding.map_err(Failure::failed) {
        Ok(Ok(founded)) => operate(args, &founded, &mut screen, &told, logging).await,
        Ok(Err(error)) => Err(Failure::refused(error)),
        Err(failure) => Err(failure),
    };
    // Messages of a failure are written to a terminal that is a terminal again.
    screen.close();
    outcome
}

async fn operate(
    args: &DevnetArgs,
    founded: &Founded,
    screen: &mut Screen,
    told: &CancellationToken,
    logging: &Logging,
) -> Outcome {
    screen.feeder.phase("starting the nodes");
    if founded.ports_moved {
        tracing::warn!("the usual ports are busy: the nodes listen on others");
    }
    let cluster = Cluster::start(founded).await.map_err(refused_or_failed)?;
    for (index, node) in cluster.nodes().iter().enumerate() {
        let shown = Arc::clone(node);
        node.follow_log(logging.ring());
        screen.feeder.connect(index, move || shown.snapshot(), node.hub().receiver());
    }
    let ended = async {
        tokio::select! {
            () = end_of_load(args.duration, told) => {}
            stopped = cluster.stopped() => match stopped {
                Ok(()) => tracing::info!("all nodes have stopped: the devnet ends"),
                Err(faults) => tracing::error!(faults, "all nodes have stopped: the devnet ends"),
            },
        }
    };
    tokio::pin!(ended);
    let opening =
        open_payer(founded, &cluster, OPENING_MAX + 2 * Duration::from_secs(args.checkpoint_interval));
    let payer = tokio::select! {
        payer = opening => Arc::new(payer),
        outcome = screen.wait(&mut ended) => {
            cluster.stop("the devnet ends").await;
            return outcome;
        }
    };
    for (index, node) in cluster.nodes().iter().enumerate() {
        tokio::spawn(payer.follow(index, node.fates()));
    }
    let cancel = CancellationToken::new();
    if args.load > 0 {
        tokio::spawn(pay(Arc::clone(&payer), f64::from(args.load), cancel.clone()));
    }
    let outcome = screen.wait(&mut ended).await;
    cancel.cancel();
    cluster.stop("the devnet ends").await;
    outcome?;
    cluster.stopped().await.map_err(Failure::failed)?;
    match payer.with_tally(|tally| tally.conflicts()) {
        0 => Ok(()),
        conflicts => {
            Err(Failure::failed(format!("{conflicts} outputs were spent by two final transactions")))
        }
    }
}

/// Splits the faucet's coins and pays; what goes wrong is in the log, and on the Logs screen.
async fn pay(payer: Arc<Payer<NodeHandle>>, rate: f64, cancel: CancellationToken) {
    match payer.fund(rate, FUNDING_MAX).await {
        Ok(()) => payer.run(rate, cancel).await,
        Err(error) => tracing::error!(%error, "the payer does not pay"),
    }
}
