//! `masternode stop`: asks a running node to stop in order and waits until it is gone.
//!
//! Gone is the node once its data directory is free again. Its process ends at once after that, unless
//! it runs other nodes too, as that of a devnet does; what is told is what was seen.

use crate::cli::StopArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::config::Config;
use masternode::rpc::client::ControlClient;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, test_kill_process};
use std::time::{Duration, Instant};

/// How long the process may take to end after its only node has; above what it allows itself.
const PROCESS_END_MAX: Duration = Duration::from_millis(1500);
/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// # Errors
/// [`Failure::Failed`] when no node runs there or it is still there after the wait.
pub fn execute(args: &StopArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let pid = client.ping().map_err(Failure::failed)?;
    let until = Instant::now() + Duration::from_secs(args.wait);
    client.stop("asked for by `masternode stop`").map_err(Failure::failed)?;
    let name = &config.name;
    if args.wait == 0 {
        return output::write(&format!("node {name} is stopping\n"));
    }
    let closed = client.wait_gone(Duration::from_secs(args.wait)).map_err(Failure::failed)?;
    if !(closed && becomes(true, until, || is_free(&config))) {
        return Err(Failure::Failed(format!(
            "node {name} is still stopping after {} s: see its log in {}",
            args.wait,
            config.log_path().display()
        )));
    }
    if becomes(false, Instant::now() + PROCESS_END_MAX, || is_alive(pid)) {
        return output::write(&format!("node {name} has stopped\n"));
    }
    output::write(&format!("node {name} has stopped; process {pid} goes on with other nodes\n"))
}

/// Looks until `state` is as `wanted`, or it is `until`; returns whether it became so.
fn becomes(wanted: bool, until: Instant, state: impl Fn() -> bool) -> bool {
    loop {
        if state() == wanted {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether no node holds the lock of the data directory, which a node lets go last.
fn is_free(config: &Config) -> bool {
    // Shared and for a moment only: whoever asks the same is not in the way.
    std::fs::File::open(config.lock_path())
        .map_or(true, |file| flock(&file, FlockOperation::NonBlockingLockShared).is_ok())
}

/// Whether a process runs; one that has ended and was not yet waited for does not.
fn is_alive(pid: u32) -> bool {
    let Some(id) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let exists = !matches!(test_kill_process(id), Err(rustix::io::Errno::SRCH));
    // The state follows the name of the program, which is in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X']));
    exists && !ended
}
