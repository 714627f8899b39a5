//! `masternode stop`: asks a running node to stop in order and waits until it is gone.

use crate::cli::StopArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::node::data_dir::is_locked;
use masternode::rpc::client::ControlClient;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often the lock is looked at: unnoticeable to a person, and idle in between.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// # Errors
/// [`Failure::Failed`] when no node runs there or it is still there after the wait.
pub fn execute(args: &StopArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let pid = client.ping().map_err(Failure::failed)?;
    // A devnet's process runs on with its other nodes.
    let node = format!("the masternode in {} (process {pid})", config.data_dir.display());
    client.stop("asked for by `masternode stop`").map_err(Failure::failed)?;
    if args.wait == 0 {
        return output::write(&format!("{node} is stopping\n"));
    }
    let until = Instant::now() + Duration::from_secs(args.wait);
    let disconnected = client.wait_gone(Duration::from_secs(args.wait)).map_err(Failure::failed)?;
    if disconnected && unlocked(&config.lock_path(), until) {
        return output::write(&format!("{node} has stopped\n"));
    }
    Err(Failure::Failed(format!(
        "{node} is still stopping after {} s: see its log in {}",
        args.wait,
        config.log_path().display()
    )))
}

/// Waits until the node has let go of its data directory, so that it can be started again at once;
/// returns whether it has before `until`.
fn unlocked(lock: &Path, until: Instant) -> bool {
    while is_locked(lock) {
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
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
