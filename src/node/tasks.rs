//! Named threads and tasks under supervision, and the one way to stop.
//!
//! A panic anywhere is caught, logged with the name of the task, and stops the whole node in order with
//! exit code 1: a node never runs on with a part missing. A part logs in the span of whoever starts it:
//! where several nodes share a process that span names the node.

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Why a node stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code of the process: 0 when it was asked to stop, 1 when it failed.
    pub code: u8,
    /// In words.
    pub reason: String,
}

/// The order to stop; the first one counts.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    ordered: CancellationToken,
    exit: Arc<Mutex<Option<Exit>>>,
}

impl Stopper {
    /// Orders the node to stop.
    pub fn stop(&self, code: u8, reason: &str) {
        self.exit.lock().get_or_insert_with(|| Exit { code, reason: reason.to_owned() });
        self.ordered.cancel();
    }

    /// Why it was ordered to stop, if it was.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit.lock().clone()
    }

    /// Cancelled when the node is to stop.
    #[must_use]
    pub fn ordered(&self) -> &CancellationToken {
        &self.ordered
    }

    fn panicked(&self, name: &str, panic: &(dyn std::any::Any + Send)) {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        tracing::error!(task = name, %text, "a part of the node failed: stopping");
        self.stop(1, &format!("internal failure in `{name}`: {text}"));
    }
}

/// A running thread; resolves when it has ended.
#[derive(Debug)]
pub struct Ended {
    pub name: &'static str,
    pub done: oneshot::Receiver<()>,
}

/// Starts a thread of this name (at most 15 bytes are shown by the system).
///
/// # Errors
/// When the system has no thread to give.
pub fn thread(
    stopper: &Stopper,
    name: &'static str,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<Ended> {
    let (ended, done) = oneshot::channel();
    let (stopper, span) = (stopper.clone(), tracing::Span::current());
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _node = span.enter();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            stopper.panicked(name, panic.as_ref());
        }
        // The node may have stopped waiting.
        let _unheard = ended.send(());
    })?;
    Ok(Ended { name, done })
}

/// Spawns a task of this name.
pub fn spawn(
    stopper: &Stopper,
    tracker: &TaskTracker,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let stopper = stopper.clone();
    let supervised = async move {
        if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
            stopper.panicked(name, panic.as_ref());
        }
    };
    tracker.spawn(supervised.in_current_span());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panicking_thread_or_task_stops_the_node_with_code_one_and_its_name() {
        let stopper = Stopper::default();
        let ended = thread(&stopper, "engine", || panic!("seven is odd")).unwrap();
        stopper.ordered().cancelled().await;
        ended.done.await.unwrap();
        let exit = stopper.exit().unwrap();
        assert_eq!(exit.code, 1);
        assert!(exit.reason.contains("engine") && exit.reason.contains("seven is odd"), "{exit:?}");

        let stopper = Stopper::default();
        let tracker = TaskTracker::new();
        spawn(&stopper, &tracker, "router", async { panic!("no way") });
        stopper.ordered().cancelled().await;
        assert!(stopper.exit().unwrap().reason.contains("router"));
    }

    #[test]
    fn the_first_reason_to_stop_counts() {
        let stopper = Stopper::default();
        stopper.stop(0, "asked to");
        stopper.stop(1, "failed while stopping");
        assert_eq!(stopper.exit(), Some(Exit { code: 0, reason: "asked to".to_owned() }));
    }
}
