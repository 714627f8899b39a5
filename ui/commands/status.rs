//! `masternode status`: how a running node is doing, for people, screen readers and scripts.
//!
//! Every value is the node's own measurement; what it does not know is shown as `-`.

use crate::cli::StatusArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::rpc::client::ControlClient;
use masternode::telemetry::clock::ClockInfo;
use masternode::telemetry::histogram::Percentiles;
use masternode::telemetry::reach::ReachInfo;
use masternode::telemetry::snapshot::{NodeState, PeersInfo, Snapshot, SyncInfo};
use std::fmt::Write as _;

/// # Errors
/// [`Failure::Failed`] when no node runs there.
pub fn execute(args: &StatusArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let snapshot = client.status().map_err(Failure::failed)?;
    if args.json {
        let text = serde_json::to_string(&snapshot).map_err(Failure::failed)?;
        return output::write(&format!("{text}\n"));
    }
    let facts = facts(&snapshot);
    let width = if args.plain { 0 } else { facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) };
    let mut text = String::new();
    for (name, value) in facts {
        let _ = match args.plain {
            true => writeln!(text, "{name}: {value}"),
            false => writeln!(text, "{name:width$}  {value}"),
        };
    }
    output::write(&text)
}

/// What keeps the node in its state, if anything does.
fn reason(state: &NodeState) -> Option<(&'static str, String)> {
    match state {
        NodeState::WaitingForQuorum { missing, .. } => {
            let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
            Some(("missing", names.join(", ")))
        }
        NodeState::Halted { reason }
        | NodeState::NeedsTrustedBlock { reason }
        | NodeState::NotSigning { reason, .. } => Some(("reason", reason.to_string())),
        NodeState::Starting { phase } => Some(("phase", phase.to_string())),
        _ => None,
    }
}

/// What is shown, most important first.
fn facts(snapshot: &Snapshot) -> Vec<(&'static str, String)> {
    let mut facts = vec![("state", snapshot.state.label())];
    facts.extend(reason(&snapshot.state));
    if let Some(sync) = &snapshot.sync {
        facts.push(("sync", catching_up(sync)));
    }
    let (node, chain, consensus) = (&snapshot.node, &snapshot.chain, &snapshot.consensus);
    facts.extend([
        (
            "node",
            format!("{} {}, process {}, up {}", node.name, node.version, node.pid, span(node.uptime_ms)),
        ),
        ("network", format!("{} {}", node.network, node.chain)),
        ("address", node.p2p_address.clone()),
        ("vote key", node.vote_key.map_or_else(|| "-".to_owned(), |key| key.to_string())),
        ("height", chain.height.to_string()),
        ("block", chain.block.to_string()),
        // As another operator's `trusted_block` takes it.
        ("to trust", format!("{}:{}", chain.height, chain.block)),
        ("state hash", chain.state_hash.to_string()),
        ("supply", format!("{} TIME in {} outputs", chain.supply, chain.utxo_count)),
        ("transactions", chain.transactions.to_string()),
        (
            "deciding",
            format!(
                "height {}, round {}, {}, proposer {}",
                consensus.height, consensus.round, consensus.step, consensus.proposer
            ),
        ),
        (
            "quorum",
            format!(
                "{} of {} needed, {} in all",
                consensus.connected_weight, consensus.quorum_weight, consensus.total_weight
            ),
        ),
        ("finality", latency(&snapshot.finality.latency)),
        ("checkpoint pause", latency(&snapshot.finality.checkpoint_pause)),
        (
            "final",
            format!(
                "{} payments, {} in the last second",
                snapshot.finality.total, snapshot.finality.per_second
            ),
        ),
        ("pool", format!("{} transactions, {} bytes", snapshot.pool.transactions, snapshot.pool.bytes)),
        ("peers", peers(&snapshot.peers)),
        ("reachable", snapshot.peers.reach.as_ref().map_or_else(|| "-".to_owned(), ReachInfo::to_string)),
        ("clock", clock(&snapshot.host.clock)),
    ]);
    if let Some(stall) = &consensus.stall {
        facts.push(("stalled", format!("{} of round {}: {stall}", stall.step, stall.round)));
    }
    facts.extend(snapshot.alerts.iter().map(|alert| ("alert", alert.text.to_string())));
    facts
}

/// `3 in (2 members), 4 out (2 members)`.
fn peers(peers: &PeersInfo) -> String {
    let PeersInfo { inbound, outbound, members_in, members_out, bans, .. } = peers;
    let banned = if *bans > 0 { format!(", {bans} banned") } else { String::new() };
    format!("{inbound} in ({members_in} members), {outbound} out ({members_out} members){banned}")
}

/// `+2 ms against 5 peers`, or what is wrong with it.
fn clock(clock: &ClockInfo) -> String {
    match (&clock.fault, clock.offset_ms) {
        (Some(fault), _) => fault.to_string(),
        (None, Some(offset_ms)) => format!("{offset_ms:+} ms against {} peers", clock.compared),
        (None, None) => "-".to_owned(),
    }
}

/// `1204 of 9000, 35.2 blocks and 20114 transactions a second, 3 m 41 s left, from 3 peers (1 slow)`.
fn catching_up(sync: &SyncInfo) -> String {
    let left =
        sync.eta_s.map_or_else(|| "time left unknown".to_owned(), |eta| format!("{} left", span(eta * 1000)));
    let slow = sync.peers.iter().filter(|peer| peer.slow).count();
    let slow = if slow > 0 { format!(" ({slow} slow)") } else { String::new() };
    format!(
        "{} of {}, {:.1} blocks and {:.0} transactions a second, {left}, from {} peers{slow}",
        sync.height,
        sync.target,
        sync.blocks_per_second,
        sync.transactions_per_second,
        sync.peers.len()
    )
}

fn latency(percentiles: &Percentiles) -> String {
    if percentiles.count == 0 {
        return "-".to_owned();
    }
    let ms = |us: u64| format!("{}.{} ms", us / 1000, us % 1000 / 100);
    format!("p50 {}, p95 {}, p99 {}", ms(percentiles.p50_us), ms(percentiles.p95_us), ms(percentiles.p99_us))
}

fn span(ms: u64) -> String {
    let s = ms / 1000;
    match (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} m {s} s"),
        (0, h, m, _) => format!("{h} h {m} m"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_latencies_read_well() {
        let shown = [999, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(shown, ["0 s", "1 m 1 s", "1 h 1 m", "1 d 1 h"]);
        assert_eq!(latency(&Percentiles::default()), "-");
        let measured = Percentiles { count: 1, p50_us: 4_250, p95_us: 9_000, p99_us: 12_999, max_us: 20_000 };
        assert_eq!(latency(&measured), "p50 4.2 ms, p95 9.0 ms, p99 12.9 ms");
    }
}
