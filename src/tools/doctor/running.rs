//! What a running node says of itself.

use super::{Report, Running, Severity};
use crate::telemetry::event::AlertLevel;
use crate::telemetry::snapshot::NodeState;
use std::path::Path;

pub(super) fn look(node: &mut Running, quick: bool, dir: &Path, report: &mut Report) {
    let (place, snapshot) = (dir.display(), &node.snapshot);
    let label = snapshot.state.label();
    let who = format!("process {}, height {}, {label}", snapshot.node.pid, snapshot.chain.height);
    match &snapshot.state {
        NodeState::Halted { reason } => {
            report.fault("node", Severity::Error, place, who, reason.to_string());
        }
        NodeState::NotSigning { stage, reason } => {
            let what = format!("{who}: {stage} ({reason})");
            let remedy = "mostly nothing: it asks the chain to be let back; see docs/operating.md, `A lost, old or \
                          copied data directory`";
            report.fault("node", Severity::Warning, place, what, remedy);
        }
        NodeState::WaitingForQuorum { missing, .. } => {
            let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
            let what = format!("{who}, missing: {}", names.join(", "));
            report.fault("node", Severity::Warning, place, what, "ask their operators, check p2p.bootstrap");
        }
        _ => report.ok("node", place, who),
    }
    for alert in &snapshot.alerts {
        let severity = match alert.level {
            AlertLevel::Notice => Severity::Note,
            AlertLevel::Warning => Severity::Warning,
            AlertLevel::Critical => Severity::Error,
        };
        report.add("alert", severity, dir.display(), alert.text.to_string());
    }
    let place = dir.join("db");
    if quick {
        report.add("database", Severity::Skipped, place.display(), "not recounted, as asked for");
        return;
    }
    match node.client.recount() {
        Ok(counted) => report.ok(
            "database",
            place.display(),
            format!(
                "{} outputs recounted by the node: state hash {} of block {}",
                counted.outputs, counted.state_hash, counted.height
            ),
        ),
        Err(error) => report.fault(
            "database",
            Severity::Error,
            place.display(),
            error.to_string(),
            "if it is damaged: stop the node, then `masternode restore DIR --set-aside`, or move db away: the blocks \
             come from the others",
        ),
    }
}
