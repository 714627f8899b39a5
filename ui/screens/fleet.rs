//! Several nodes at once: one line each, the worst first; Enter opens one.
//!
//! A node that cannot be reached is the worst, then one that has halted or may not sign, then one that waits; among
//! equals whoever has more alerts and misses comes first, then the order of the configuration.

use crate::console::source::LinkState;
use crate::console::state::{ListId, NodeData, State};
use crate::screens::{passes, shown, title};
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{UNKNOWN, age, bytes_or_unknown, count, percentile};
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table};
use masternode::telemetry::event::AlertLevel;
use masternode::telemetry::snapshot::{MemberInfo, NodeState, SignMark, Snapshot};
use ratatui::text::Line;
use std::cmp::Reverse;

const COLUMNS: [Column; 9] = [
    Column::text("node", 12),
    Column::text("state", 22).flexible(),
    Column::number("height", 9),
    Column::number("behind", 6).optional(2),
    Column::text("missed", 7).optional(1),
    Column::number("peers", 5).optional(4),
    Column::number("p99", 8).optional(5),
    Column::number("disk", 8).optional(6),
    Column::number("alerts", 6).optional(3),
];

/// How bad it is; the least is the worst.
fn rank(node: &NodeData) -> u8 {
    let Some(snapshot) = &node.snapshot else { return 0 };
    match (&node.link, &snapshot.state) {
        (LinkState::Lost(_) | LinkState::Connecting, _) => 0,
        (_, NodeState::Halted { .. }) => 1,
        (_, NodeState::NotSigning { .. } | NodeState::NeedsTrustedBlock { .. }) => 2,
        (_, NodeState::WaitingForQuorum { .. }) => 3,
        (_, NodeState::Starting { .. } | NodeState::Stopping) => 4,
        (_, NodeState::Syncing { .. } | NodeState::Listening { .. }) => 5,
        (_, NodeState::Signing | NodeState::Observing) => 6,
    }
}

fn own(snapshot: &Snapshot) -> Option<&MemberInfo> {
    snapshot.members.iter().find(|member| member.own)
}

/// Of its newest checkpoints, those without its signature.
fn missed(snapshot: &Snapshot) -> usize {
    let marks = own(snapshot).map_or(&[][..], |member| &member.signed);
    marks.iter().rev().take(64).filter(|mark| matches!(mark, SignMark::Missed | SignMark::Absent)).count()
}

fn grave(snapshot: &Snapshot) -> usize {
    snapshot.alerts.iter().filter(|alert| alert.level > AlertLevel::Notice).count()
}

/// Indices of the nodes that pass the filter, the worst first.
pub fn rows(state: &State) -> Vec<usize> {
    let filter = &state.list(ListId::Fleet).filter;
    let nodes = &state.shown().nodes;
    let label = |node: &NodeData| {
        format!("{} {}", node.name, node.snapshot.as_ref().map_or_else(String::new, |s| s.state.label()))
    };
    let mut rows: Vec<usize> = nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| passes(filter, &label(node)))
        .map(|(index, _)| index)
        .collect();
    rows.sort_by_key(|index| {
        let node = nodes.get(*index);
        let snapshot = node.and_then(|node| node.snapshot.as_deref());
        let bad = snapshot.map_or((0, 0), |snapshot| (grave(snapshot), missed(snapshot)));
        (node.map_or(0, rank), Reverse(bad), *index)
    });
    rows
}

fn condition(node: &NodeData) -> (Glyph, Role, String) {
    match (&node.link, &node.snapshot) {
        (LinkState::Lost(reason), _) => (Glyph::Bad, Role::Bad, format!("NOT CONNECTED {reason}")),
        (_, None) => (Glyph::Info, Role::Info, "CONNECTING".to_owned()),
        (_, Some(snapshot)) => {
            let (glyph, role) = match rank(node) {
                0..=2 => (Glyph::Bad, Role::Bad),
                3 | 5 => (Glyph::Warn, Role::Warn),
                4 => (Glyph::Info, Role::Info),
                _ => (Glyph::Good, Role::Good),
            };
            (glyph, role, snapshot.state.label())
        }
    }
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let rows = rows(state);
    let nodes = &state.shown().nodes;
    let well = nodes.iter().filter(|node| rank(node) == 6).count();
    let note = format!("{well} of {} well, the worst first", nodes.len());
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Fleet, "Fleet"), &note, true);
    // Of the same chain only: others count their own heights.
    let best = |snapshot: &Snapshot| {
        let same = nodes.iter().filter_map(|node| node.snapshot.as_ref());
        let same = same.filter(|other| other.node.chain == snapshot.node.chain);
        same.map(|other| other.chain.height).max().unwrap_or(0)
    };
    table(&mut pane, &COLUMNS, rows.len(), shown(state, ListId::Fleet), |row| {
        let Some(node) = rows.get(row).and_then(|index| nodes.get(*index)) else { return Vec::new() };
        let (glyph, role, words) = condition(node);
        let text = |text: String, role| Line::styled(text, look.style(role));
        let mut cells = vec![
            text(node.name.to_string(), Role::Strong),
            text(format!("{} {words}", look.glyph(glyph)), role),
        ];
        let Some(snapshot) = &node.snapshot else { return cells };
        let behind = best(snapshot).saturating_sub(snapshot.chain.height);
        let missed = missed(snapshot);
        let votes = match own(snapshot) {
            None => UNKNOWN.to_owned(),
            Some(member) => format!("{missed}/{}", member.signed.len().min(64)),
        };
        let alerts = grave(snapshot);
        let worry = |bad: bool| if bad { Role::Warn } else { Role::Text };
        cells.extend([
            text(count(snapshot.chain.height), Role::Text),
            text(count(behind), worry(behind > 1)),
            text(votes, worry(missed > 0)),
            text(count(snapshot.peers.inbound + snapshot.peers.outbound), Role::Text),
            text(percentile(&snapshot.finality.latency, |set| set.p99_us), Role::Text),
            text(bytes_or_unknown(snapshot.host.disk_free_bytes), Role::Text),
            text(count(alerts as u64), worry(alerts > 0)),
        ]);
        cells
    });
    let stale = nodes.iter().filter_map(|node| node.snapshot.as_ref()).map(|snapshot| snapshot.time_ms).min();
    let since = stale.map_or(0, |time_ms| state.now_ms.saturating_sub(time_ms));
    if since > crate::console::state::STALE_MS {
        let row = pane.height().saturating_sub(1);
        let line = Line::from(pane.span(format!("the oldest figures are {} old", age(since)), Role::Dim));
        pane.line(row, &line);
    }
}
