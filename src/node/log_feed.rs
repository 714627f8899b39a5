//! Log records as events: whoever follows a node's events sees its log among them.
//!
//! Records are read from the live ring, so a burst never waits for a subscriber; what the ring dropped
//! in the meantime is said in one warning event.

use crate::node::clock;
use crate::node::hub::Hub;
use crate::node::logging::ring::LogRing;
use crate::telemetry::event::{AlertLevel, EventKind};
use crate::telemetry::log::LogRecord;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the ring is read.
const INTERVAL: Duration = Duration::from_millis(250);

/// Most records published at a time, so that a flood of log lines cannot push out the other events.
const RECORDS_MAX: usize = 256;

/// Publishes the records numbered `from` and above, until `cancel`. In a process with several nodes only records
/// of `node` or of none are published.
pub(super) async fn feed(hub: Arc<Hub>, ring: LogRing, from: u64, node: String, cancel: CancellationToken) {
    let mut next = from;
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = cancel.cancelled() => return,
        }
        let page = ring.since(next, RECORDS_MAX);
        next = page.next;
        if page.skipped > 0 {
            let text = format!("{} log records came too fast to be passed on", page.skipped);
            hub.publish(
                clock::now().wall_ms,
                EventKind::Alert { level: AlertLevel::Notice, text: text.as_str().into() },
            );
        }
        for (_, record) in page.records {
            if is_of(&record, &node) {
                hub.publish(record.time_ms, EventKind::Log(record));
            }
        }
    }
}

/// Whether a record is of `node`, or of the process.
pub(super) fn is_of(record: &LogRecord, node: &str) -> bool {
    record.node().is_none_or(|owner| owner == node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::log::LogLevel;

    fn record(node: Option<&str>) -> LogRecord {
        LogRecord {
            time_ms: 0,
            level: LogLevel::Info,
            target: "test".into(),
            message: "hello".into(),
            fields: node.map(|name| ("node".into(), name.into())).into_iter().collect(),
        }
    }

    #[test]
    fn records_of_another_node_of_the_process_are_left_out() {
        assert!(is_of(&record(None), "alpha"));
        assert!(is_of(&record(Some("alpha")), "alpha"));
        assert!(!is_of(&record(Some("bravo")), "alpha"));
    }
}
