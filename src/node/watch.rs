//! Writes changes of the node's state to the log: who is missing while there is no quorum, above all.

use crate::node::hub::Hub;
use crate::primitives::clean::CleanText;
use crate::telemetry::snapshot::NodeState;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often the state is looked at; snapshots are made as often.
const EVERY: Duration = Duration::from_millis(250);

/// Logs each change of state until `cancel`.
pub async fn states(hub: Arc<Hub>, cancel: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut shown = String::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = cancel.cancelled() => return,
        }
        let snapshot = hub.snapshot();
        let text = describe(&snapshot.state);
        if text == shown {
            continue;
        }
        match &snapshot.state {
            NodeState::WaitingForQuorum { .. }
            | NodeState::NeedsTrustedBlock { .. }
            | NodeState::Halted { .. } => tracing::warn!("{text}"),
            _ => tracing::info!("{text}"),
        }
        shown = text;
    }
}

/// The state for the log; the same text for what is no change.
fn describe(state: &NodeState) -> String {
    match state {
        NodeState::WaitingForQuorum { missing, .. } => {
            let names: Vec<&str> = missing.iter().map(CleanText::as_str).collect();
            format!("{}, missing: {}", state.label(), names.join(", "))
        }
        NodeState::Halted { reason } | NodeState::NeedsTrustedBlock { reason } => {
            format!("{}: {reason}", state.label())
        }
        // Each block is no news.
        NodeState::Syncing { .. } => "SYNCING".to_owned(),
        _ => state.label(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_masternodes_are_named() {
        let state = NodeState::WaitingForQuorum {
            connected_weight: 2,
            quorum_weight: 3,
            total_weight: 4,
            missing: vec!["carol".into(), "dave".into()],
        };
        assert_eq!(describe(&state), "WAITING FOR QUORUM 2/3, missing: carol, dave");
    }

    #[test]
    fn catching_up_is_one_state_however_many_blocks_it_takes() {
        let at = |height| describe(&NodeState::Syncing { height, target: 90 });
        assert_eq!(at(3), at(4));
    }
}
