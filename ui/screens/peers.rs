//! Connections: totals, and a table that can be sorted.

use crate::console::state::{ListId, State};
use crate::screens::{arrange, direction, passes, shown, title};
use crate::theme::roles::Role;
use crate::widgets::format::{UNKNOWN, age, bytes, count, latency, offset};
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table};
use masternode::telemetry::snapshot::{PeerInfo, PeersInfo};
use ratatui::text::Line;
use std::cmp::Ordering;

const COLUMNS: [Column; 12] = [
    Column::text("name", 8),
    Column::text("address", 15).flexible(),
    Column::text("dir", 5).optional(2),
    Column::number("height", 9).optional(1),
    Column::number("rtt", 7),
    Column::number("jitter", 7).optional(3),
    Column::number("offset", 9).optional(4),
    Column::number("in", 8).optional(6),
    Column::number("out", 8).optional(5),
    Column::number("up for", 9).optional(7),
    Column::number("dropped", 8).optional(8),
    Column::text("agent", 24).optional(9),
];

fn compare(column: usize, a: &PeerInfo, b: &PeerInfo) -> Ordering {
    match column {
        0 => a.name.cmp(&b.name),
        1 => a.address.cmp(&b.address),
        2 => a.inbound.cmp(&b.inbound),
        3 => a.height.cmp(&b.height),
        4 => a.rtt_us.cmp(&b.rtt_us),
        5 => a.jitter_us.cmp(&b.jitter_us),
        // How far off, whichever way.
        6 => a.clock_offset_ms.map(i64::unsigned_abs).cmp(&b.clock_offset_ms.map(i64::unsigned_abs)),
        7 => a.bytes_in.cmp(&b.bytes_in),
        8 => a.bytes_out.cmp(&b.bytes_out),
        _ => a.age_ms.cmp(&b.age_ms),
    }
}

/// The peers that pass the filter, in order.
pub fn rows(state: &State) -> Vec<&PeerInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let cursor = state.list(ListId::Peers);
    let mut rows: Vec<&PeerInfo> = snapshot
        .peers
        .list
        .iter()
        .filter(|peer| {
            let way = if peer.inbound { "in" } else { "out" };
            passes(
                &cursor.filter,
                &format!("{} {} {way} {} {}", peer.name, peer.address, peer.agent, peer.id),
            )
        })
        .collect();
    arrange(&mut rows, cursor, |column, a, b| compare(column, a, b));
    rows
}

/// Difference of clocks from which a peer stands out, in milliseconds; the node tells by the same.
const OFF_MS: u64 = 500;

fn is_off(peer: &PeerInfo) -> bool {
    let error_ms = peer.clock_error_ms.unwrap_or(0);
    peer.clock_offset_ms.is_some_and(|offset| offset.unsigned_abs().saturating_sub(error_ms) > OFF_MS)
}

/// `members 2 in 2 out, observers 1 in of 64 1 out`: only observers count against the limit.
fn by_kind(peers: &PeersInfo) -> String {
    format!(
        "members {} in {} out, observers {} in of {} {} out",
        peers.members_in,
        peers.members_out,
        peers.inbound.saturating_sub(peers.members_in),
        peers.inbound_max,
        peers.outbound.saturating_sub(peers.members_out),
    )
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    let peers = &snapshot.peers;
    let rows = rows(state);
    let banned = if peers.bans > 0 { format!(", {} banned", count(peers.bans)) } else { String::new() };
    let stopped = if peers.ban_breaker_open { ", bans STOPPED" } else { "" };
    let note = format!(
        "{}{banned}{stopped}, {} known, rx {}, tx {}",
        by_kind(peers),
        count(peers.known_addresses),
        bytes(peers.bytes_in),
        bytes(peers.bytes_out),
    );
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Peers, "Peers"), &note, true);
    if rows.is_empty() {
        let text =
            if peers.list.is_empty() { "no connection" } else { "no peer passes the filter; Esc clears it" };
        let line = Line::from(pane.span(text, Role::Warn));
        pane.line(1, &line);
    }
    table(&mut pane, &COLUMNS, rows.len(), shown(state, ListId::Peers), |index| {
        let Some(peer) = rows.get(index) else { return Vec::new() };
        let text = |text: String| Line::styled(text, look.style(Role::Text));
        let behind = peer.height + 1 < snapshot.chain.height;
        let dropped = if peer.dropped > 0 { Role::Warn } else { Role::Dim };
        vec![
            Line::styled(
                peer.name.to_string(),
                look.style(if peer.voter.is_some() { Role::Strong } else { Role::Text }),
            ),
            text(peer.address.to_string()),
            text(direction(look, peer.inbound)),
            Line::styled(count(peer.height), look.style(if behind { Role::Warn } else { Role::Text })),
            text(peer.rtt_us.map_or_else(|| UNKNOWN.to_owned(), latency)),
            text(peer.jitter_us.map_or_else(|| UNKNOWN.to_owned(), latency)),
            Line::styled(
                offset(peer.clock_offset_ms),
                look.style(if is_off(peer) { Role::Warn } else { Role::Text }),
            ),
            text(bytes(peer.bytes_in)),
            text(bytes(peer.bytes_out)),
            text(age(peer.age_ms)),
            Line::styled(count(peer.dropped), look.style(dropped)),
            Line::styled(peer.agent.to_string(), look.style(Role::Dim)),
        ]
    });
}
