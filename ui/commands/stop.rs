//! `masternode stop`: asks a running node to stop in order and waits until it is gone.

use crate::cli::StopArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::rpc::client::ControlClient;
use std::time::Duration;

/// # Errors
/// [`Failure::Failed`] when no node runs there or it is still there after the wait.
pub fn execute(args: &StopArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let pid = client.ping().map_err(Failure::failed)?;
    client.stop("asked for by `masternode stop`").map_err(Failure::failed)?;
    if args.wait == 0 {
        return output::write(&format!("process {pid} is stopping\n"));
    }
    if client.wait_gone(Duration::from_secs(args.wait)).map_err(Failure::failed)? {
        return output::write(&format!("process {pid} has stopped\n"));
    }
    Err(Failure::Failed(format!(
        "process {pid} is still stopping after {} s: see its log in {}",
        args.wait,
        config.log_path().display()
    )))
}
