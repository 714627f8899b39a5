//! `masternode run`: the node of a data directory, with the console unless told otherwise.
//!
//! The console opens first and closes last. It may go away (detach, hang-up) without the node; the node
//! ends on its order, on SIGINT and SIGTERM, over the control socket, or by a fault of its own.

use crate::cli::RunArgs;
use crate::commands::screen::{Screen, told_to_stop};
use crate::commands::{Failure, Outcome, attach, locate, output, passphrase, screen};
use masternode::config::Config;
use masternode::ledger::genesis::Genesis;
use masternode::ledger::store::folder::refuse_unknown_format;
use masternode::node::handle::NodeHandle;
use masternode::node::logging::Logging;
use masternode::node::start::{NodeError, NodeOptions, start};
use masternode::primitives::clean::CleanText;
use masternode::rpc::Backend as _;
use masternode::wallet::keystore::{self, Passphrase};
use std::time::Duration;

/// Threads of the runtime: network and timers; engine, journal and store have their own.
const RUNTIME_THREADS: usize = 2;
/// How long the runtime may take to end after the node has.
const RUNTIME_END_MAX: Duration = Duration::from_millis(500);

/// # Errors
/// [`Failure::Refused`] when configuration, genesis, keys or data are at fault, [`Failure::Failed`] when
/// the node failed.
pub fn execute(args: &RunArgs) -> Outcome {
    let mut config = locate::config(&args.node)?;
    if let Some(filter) = &args.log_level {
        config.log.filter.clone_from(filter);
    }
    if args.trusted_block.is_some() {
        config.sync.trusted_block = args.trusted_block;
    }
    if let Some(attached) = attach::instead(&config, &args.screen)? {
        return attached;
    }
    // Before log files, lock or anything else is made in the directory.
    refuse_unknown_format(&config.database_path()).map_err(Failure::refused)?;
    let genesis = locate::genesis(&config.genesis_path())?;
    let keys = [config.vote_key_path(), config.network_key_path()];
    let passphrase = passphrase::for_keys(&config, &keys, true)?;
    let to_stderr = config.log.stderr && args.screen.no_tui;
    let logging = Logging::start(&config.log, &config.log_path(), to_stderr).map_err(Failure::refused)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("runtime")
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        match args.screen.no_tui {
            true => run_headless(config, genesis, passphrase, &logging).await,
            false => run_on_screen(args, config, genesis, passphrase, &logging).await,
        }
    });
    // Blocking tasks that do not end (a disk that hangs) must not keep the program.
    runtime.shutdown_timeout(RUNTIME_END_MAX);
    drop(logging);
    outcome
}

async fn run_headless(
    config: Config,
    genesis: Genesis,
    passphrase: Option<Passphrase>,
    logging: &Logging,
) -> Outcome {
    let told = told_to_stop();
    // Beginning with a snapshot takes a while; cut off, it is taken up again at the next start.
    let node = tokio::select! {
        node = open_node(config, genesis, passphrase) => node?,
        () = told.cancelled() => return Ok(()),
    };
    node.follow_log(logging.ring());
    output::note(&format!(
        "masternode: running at {}, data in {}",
        node.local_address(),
        node.data_dir().display()
    ));
    tokio::select! {
        () = told.cancelled() => node.stop("told to stop by a signal"),
        _ = node.stopped() => {}
    }
    end(&node).await
}

async fn run_on_screen(
    args: &RunArgs,
    config: Config,
    genesis: Genesis,
    passphrase: Option<Passphrase>,
    logging: &Logging,
) -> Outcome {
    let told = told_to_stop();
    let mut options = screen::options(&args.screen.look, &config.console, &config.name);
    options.can_detach = true;
    let mut screen = Screen::open(options, vec![CleanText::limited(&config.name, 64)], logging.ring())?;
    screen.feeder.phase("reading keys, opening the database, joining the network");
    let opened = tokio::select! {
        opened = open_node(config, genesis, passphrase) => opened,
        waited = screen.wait(told.cancelled()) => {
            screen.close();
            return waited;
        }
    };
    let outcome = match opened {
        Err(failure) => Err(failure),
        Ok(node) => {
            let shown = node.clone();
            node.follow_log(logging.ring());
            screen.feeder.connect(0, move || shown.snapshot(), node.hub().receiver());
            let ended = async {
                tokio::select! {
                    () = told.cancelled() => {}
                    _ = node.stopped() => {}
                }
            };
            let waited = screen.wait(ended).await;
            if screen.stop_ordered() {
                let noted = node.clone();
                let by = "operator, own console";
                let _noted = tokio::task::spawn_blocking(move || noted.note(by, "stop", "done")).await;
            }
            node.stop("stopped by the operator");
            end(&node).await.and(waited)
        }
    };
    // Messages of a failure are written to a terminal that is a terminal again.
    screen.close();
    outcome
}

async fn open_node(
    config: Config,
    genesis: Genesis,
    passphrase: Option<Passphrase>,
) -> Result<NodeHandle, Failure> {
    let files = [config.vote_key_path(), config.network_key_path()];
    // Opening an encrypted key takes a good part of a second.
    let reading =
        tokio::task::spawn_blocking(move || files.map(|file| keystore::load(&file, passphrase.as_ref())));
    let [vote_key, network_key] = reading.await.map_err(Failure::failed)?;
    let vote_key = Some(vote_key.map_err(Failure::refused)?);
    let network_key = network_key.map_err(Failure::refused)?;
    start(NodeOptions { config, genesis, network_key, vote_key }).await.map_err(failure)
}

fn failure(error: NodeError) -> Failure {
    match error.exit_code() {
        1 => Failure::failed(error),
        _ => Failure::refused(error),
    }
}

/// Waits until the node has stopped and everything is on disk.
async fn end(node: &NodeHandle) -> Outcome {
    let exit = node.stopped().await;
    match exit.code {
        0 => Ok(()),
        78 => Err(Failure::Refused(exit.reason)),
        _ => Err(Failure::Failed(exit.reason)),
    }
}
