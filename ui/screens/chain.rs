//! Checkpoints: who proposed, what is in them, who signed, how long payments paused.

use crate::console::state::{ListId, State};
use crate::screens::{arrange, passes, shown, title};
use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{UNKNOWN, bytes, clock, count, money_aligned};
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table};
use masternode::primitives::amount::UNITS_PER_TIME;
use masternode::telemetry::snapshot::CheckpointInfo;
use ratatui::text::Line;
use std::cmp::Ordering;

const COLUMNS: [Column; 10] = [
    Column::number("height", 9),
    Column::number("round", 6).optional(3),
    Column::text("proposer", 10).flexible(),
    Column::number("tx", 7).optional(2),
    Column::number("fees", 15).optional(4),
    Column::number("pause", 8).optional(1),
    Column::text("signed", 11),
    Column::text("UTC", 8).optional(7),
    Column::number("size", 8).optional(5),
    Column::text("block", 8).optional(6),
];

fn compare(column: usize, a: &CheckpointInfo, b: &CheckpointInfo) -> Ordering {
    match column {
        0 => a.height.cmp(&b.height),
        1 => a.round.cmp(&b.round),
        2 => a.proposer.cmp(&b.proposer),
        3 => a.transactions.cmp(&b.transactions),
        4 => a.fees.cmp(&b.fees),
        _ => a.pause_ms.unwrap_or(-1.0).total_cmp(&b.pause_ms.unwrap_or(-1.0)),
    }
}

/// The checkpoints that pass the filter, newest first unless sorted.
pub fn rows(state: &State) -> Vec<&CheckpointInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let cursor = state.list(ListId::Chain);
    let mut rows: Vec<&CheckpointInfo> = snapshot
        .checkpoints
        .iter()
        .rev()
        .filter(|block| {
            passes(&cursor.filter, &format!("{} {} {}", block.height, block.proposer, block.block))
        })
        .collect();
    arrange(&mut rows, cursor, |column, a, b| compare(column, a, b));
    rows
}

/// A pause in milliseconds, or a dash for a block caught up.
pub fn pause(block: &CheckpointInfo) -> String {
    block.pause_ms.map_or_else(|| UNKNOWN.to_owned(), |pause| format!("{pause:.0} ms"))
}

/// Signed weight as glyph and figures.
pub fn signed(look: &Look, block: &CheckpointInfo) -> Line<'static> {
    let all = block.signed_weight >= block.total_weight;
    let (glyph, role) = if all { (Glyph::Signed, Role::Good) } else { (Glyph::Late, Role::Warn) };
    let text = format!("{} {} of {}", look.glyph(glyph), block.signed_weight, block.total_weight);
    Line::styled(text, look.style(role))
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    let rows = rows(state);
    let chain = &snapshot.chain;
    let lag = if chain.store_lag > 0 {
        format!(", {} not in the store yet", chain.store_lag)
    } else {
        String::new()
    };
    let note = format!(
        "{} tx, {} outputs unspent, supply {} TIME{lag}",
        count(chain.transactions),
        count(chain.utxo_count),
        count(chain.supply.units() / UNITS_PER_TIME),
    );
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Chain, "Checkpoints"), &note, true);
    if rows.is_empty() {
        let text = if snapshot.checkpoints.is_empty() {
            "no checkpoint decided since the node started"
        } else {
            "no checkpoint passes the filter; Esc clears it"
        };
        let line = Line::from(pane.span(text, Role::Dim));
        pane.line(1, &line);
    }
    table(&mut pane, &COLUMNS, rows.len(), shown(state, ListId::Chain), |index| {
        let Some(block) = rows.get(index) else { return Vec::new() };
        let text = |text: String| Line::styled(text, look.style(Role::Text));
        let round = if block.round > 0 { Role::Warn } else { Role::Text };
        vec![
            Line::styled(count(block.height), look.style(Role::Strong)),
            Line::styled(block.round.to_string(), look.style(round)),
            text(block.proposer.to_string()),
            text(count(block.transactions.into())),
            text(money_aligned(block.fees)),
            text(pause(block)),
            signed(look, block),
            Line::styled(clock(block.time_ms), look.style(Role::Dim)),
            text(bytes(block.bytes)),
            Line::styled(block.block.short(), look.style(Role::Dim)),
        ]
    });
}
