//! `masternode stop`: asks a running node to stop in order and waits until it is gone.
//!
//! Gone is the node once its data directory is free again. Its process ends at once after that, unless
//! it runs other nodes too, as that of a devnet does; what is told is what was seen.

use crate::cli::StopArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::node::data_dir::is_locked;
use masternode::rpc::client::ControlClient;
use rustix::process::{Pid, test_kill_process};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is looked: unnoticeable to a person, and idle in between.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long the process may take to end after its only node has; above what it allows itself.
const PROCESS_END_MAX: Duration = Duration::from_millis(1500);

/// # Errors
/// [`Failure::Failed`] when no node runs there or it is still there after the wait.
pub fn execute(args: &StopArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let pid = client.ping().map_err(Failure::failed)?;
    let name = &config.name;
    client.stop("asked for by `masternode stop`").map_err(Failure::failed)?;
    if args.wait == 0 {
        return output::write(&format!("node {name} is stopping\n"));
    }
    let until = Instant::now() + Duration::from_secs(args.wait);
    let disconnected = client.wait_gone(Duration::from_secs(args.wait)).map_err(Failure::failed)?;
    if !(disconnected && unlocked(&config.lock_path(), until)) {
        return Err(Failure::Failed(format!(
            "node {name} is still stopping after {} s: see its log in {}",
            args.wait,
            config.log_path().display()
        )));
    }
    if comes_true(Instant::now() + PROCESS_END_MAX, || !is_alive(pid)) {
        return output::write(&format!("node {name} has stopped\n"));
    }
    output::write(&format!("node {name} has stopped; process {pid} goes on with other nodes\n"))
}

/// Waits until the node has let go of its data directory, so that it can be started again at once;
/// returns whether it has before `until`.
fn unlocked(lock: &Path, until: Instant) -> bool {
    comes_true(until, || !is_locked(lock))
}

/// Looks until `condition` holds, or it is `until`; returns whether it held.
fn comes_true(until: Instant, condition: impl Fn() -> bool) -> bool {
    while !condition() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_gone_only_when_its_directory_is_free() {
        let root = tempfile::tempdir().unwrap();
        let lock = root.path().join("LOCK");
        let held = masternode::node::data_dir::lock(root.path(), &lock).unwrap();
        assert!(!unlocked(&lock, Instant::now()));
        let waiting = std::thread::spawn({
            let lock = lock.clone();
            move || unlocked(&lock, Instant::now() + Duration::from_secs(60))
        });
        drop(held);
        assert!(waiting.join().unwrap());
    }
}
