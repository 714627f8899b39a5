//! The pool: what waits and in which state, fees, what was refused and why.

use crate::console::state::{ListId, State};
use crate::screens::{arrange, passes, shown, title};
use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{age, bytes, count, money_aligned};
use crate::widgets::meter::bar;
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table};
use masternode::primitives::transaction::TxStatus;
use masternode::telemetry::snapshot::{PoolEntryInfo, PoolInfo, RejectionInfo};
use ratatui::layout::Rect;
use ratatui::text::Line;
use std::cmp::Ordering;

const COLUMNS: [Column; 7] = [
    Column::text("id", 8),
    Column::text("state", 11),
    Column::number("size", 8).optional(2),
    Column::number("fee units", 11),
    Column::number("age", 9).optional(1),
    Column::number("in:out", 7).optional(4),
    Column::number("value", 16).flexible().optional(3),
];

const REJECTED: [Column; 4] = [
    Column::text("id", 8),
    Column::text("code", 14),
    Column::number("ago", 9),
    Column::text("reason", 10).flexible(),
];

const fn order(status: TxStatus) -> u8 {
    match status {
        TxStatus::Pending => 0,
        TxStatus::Prepared => 1,
        TxStatus::Certified => 2,
        TxStatus::Final => 3,
        TxStatus::Confirmed => 4,
        TxStatus::Rejected => 5,
    }
}

/// Glyph, word and role of a transaction's state.
pub fn status(look: &Look, status: TxStatus) -> Line<'static> {
    let (glyph, role, word) = match status {
        TxStatus::Pending => (Glyph::Absent, Role::Dim, "pending"),
        TxStatus::Prepared => (Glyph::Missed, Role::Text, "prepared"),
        TxStatus::Certified => (Glyph::Late, Role::Info, "certified"),
        TxStatus::Final => (Glyph::Signed, Role::Good, "final"),
        TxStatus::Confirmed => (Glyph::Info, Role::Good, "confirmed"),
        TxStatus::Rejected => (Glyph::Bad, Role::Bad, "rejected"),
    };
    Line::styled(format!("{} {word}", look.glyph(glyph)), look.style(role))
}

const fn word(status: TxStatus) -> &'static str {
    match status {
        TxStatus::Pending => "pending",
        TxStatus::Prepared => "prepared",
        TxStatus::Certified => "certified",
        TxStatus::Final => "final",
        TxStatus::Confirmed => "confirmed",
        TxStatus::Rejected => "rejected",
    }
}

fn compare(column: usize, a: &PoolEntryInfo, b: &PoolEntryInfo) -> Ordering {
    match column {
        0 => a.txid.cmp(&b.txid),
        1 => order(a.status).cmp(&order(b.status)),
        2 => a.size.cmp(&b.size),
        3 => a.fee.cmp(&b.fee),
        _ => a.age_ms.cmp(&b.age_ms),
    }
}

/// The transactions that pass the filter, in order.
pub fn rows(state: &State) -> Vec<&PoolEntryInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let cursor = state.list(ListId::Pool);
    let mut rows: Vec<&PoolEntryInfo> = snapshot
        .pool
        .entries
        .iter()
        .filter(|entry| {
            cursor.filter.is_empty()
                || passes(&cursor.filter, &format!("{} {}", entry.txid, word(entry.status)))
        })
        .collect();
    arrange(&mut rows, cursor, |column, a, b| compare(column, a, b));
    rows
}

/// The rejections that pass the filter, newest first.
pub fn rejections(state: &State) -> Vec<&RejectionInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let filter = &state.list(ListId::Rejections).filter;
    let list = snapshot.pool.rejections.iter();
    list.filter(|entry| passes(filter, &format!("{} {} {}", entry.txid, entry.code, entry.reason))).collect()
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    let area = canvas.area;
    if state.zoomed {
        return match state.focused_list() {
            Some(ListId::Rejections) => refused(canvas, state, &snapshot.pool),
            _ => entries(canvas, state, &snapshot.pool),
        };
    }
    let top = if area.height >= 18 { 8 } else { 0 };
    let bottom = if area.height >= 36 {
        12
    } else if area.height >= 12 {
        5
    } else {
        0
    };
    let half = area.width / 2;
    counts(&mut canvas.part(Rect { height: top, width: half, ..area }), &snapshot.pool);
    let right = Rect { x: area.x + half, width: area.width - half, height: top, ..area };
    fees(&mut canvas.part(right), &snapshot.pool);
    let middle = Rect { y: area.y + top, height: area.height - top - bottom, ..area };
    entries(&mut canvas.part(middle), state, &snapshot.pool);
    refused(
        &mut canvas.part(Rect { y: area.bottom() - bottom, height: bottom, ..area }),
        state,
        &snapshot.pool,
    );
}

fn counts(canvas: &mut Canvas<'_>, pool: &PoolInfo) {
    let mut pane = canvas.pane("Pool", "", false);
    let width = pane.width().saturating_sub(31).min(40);
    let mut fill = vec![pane.span(format!("{:<10}{:>9} ", "held", count(pool.transactions)), Role::Strong)];
    fill.extend(bar(pane.look, width, pool.transactions, pool.transactions_max, None, Role::Bar));
    fill.push(pane.span(format!(" of {}", count(pool.transactions_max)), Role::Dim));
    let mut size = vec![pane.span(format!("{:<10}{:>9} ", "bytes", bytes(pool.bytes)), Role::Text)];
    size.extend(bar(pane.look, width, pool.bytes, pool.bytes_max, None, Role::Bar));
    size.push(pane.span(format!(" of {}", bytes(pool.bytes_max)), Role::Dim));
    let pair = |pane: &Canvas<'_>, left: (&str, u64), right: (&str, u64)| {
        let text = format!("{:<10}{:>9}  {:<8}{:>7}", left.0, count(left.1), right.0, count(right.1));
        Line::from(pane.span(text, Role::Text))
    };
    let lines = [
        Line::from(fill),
        Line::from(size),
        pair(&pane, ("pending", pool.pending), ("final", pool.finalised)),
        pair(&pane, ("prepared", pool.prepared), ("orphans", pool.orphans)),
        pair(&pane, ("certified", pool.certified), ("evicted", pool.evicted)),
        pair(&pane, ("added", pool.added), ("rejected", pool.rejected.iter().map(|(_, count)| count).sum())),
    ];
    for (row, line) in lines.iter().enumerate() {
        pane.line(row, line);
    }
}

fn fees(canvas: &mut Canvas<'_>, pool: &PoolInfo) {
    let mut pane = canvas.pane("Fees", "units per kB", false);
    if pool.fee_histogram.is_empty() {
        let line = Line::from(pane.span("no transaction in the pool", Role::Dim));
        pane.line(0, &line);
    }
    let most = pool.fee_histogram.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let width = pane.width().saturating_sub(24);
    // The highest fees are the ones that are taken first, so they stay when there is little room.
    let first = pool.fee_histogram.len().saturating_sub(pane.height());
    for (row, (lower, transactions)) in pool.fee_histogram.iter().skip(first).rev().enumerate() {
        let mut spans = vec![pane.span(format!("{:>11}+ ", count(*lower)), Role::Dim)];
        spans.extend(bar(pane.look, width, *transactions, most, None, Role::Bar));
        spans.push(pane.span(format!(" {:>6} tx", count(*transactions)), Role::Text));
        pane.line(row, &Line::from(spans));
    }
}

fn entries(canvas: &mut Canvas<'_>, state: &State, pool: &PoolInfo) {
    let rows = rows(state);
    let note = format!("{} newest of {}", count(pool.entries.len() as u64), count(pool.transactions));
    let focused = state.focused_list() == Some(ListId::Pool);
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Pool, "Transactions"), &note, focused);
    if rows.is_empty() {
        let text = if pool.entries.is_empty() {
            "the pool is empty"
        } else {
            "none passes the filter; Esc clears it"
        };
        let line = Line::from(pane.span(text, Role::Dim));
        pane.line(1, &line);
    }
    table(&mut pane, &COLUMNS, rows.len(), shown(state, ListId::Pool), |index| {
        let Some(entry) = rows.get(index) else { return Vec::new() };
        let text = |text: String| Line::styled(text, look.style(Role::Text));
        vec![
            text(entry.txid.short()),
            status(look, entry.status),
            text(bytes(entry.size)),
            text(count(entry.fee)),
            text(age(entry.age_ms)),
            text(format!("{}:{}", entry.inputs, entry.outputs)),
            text(money_aligned(entry.value.units())),
        ]
    });
}

fn refused(canvas: &mut Canvas<'_>, state: &State, pool: &PoolInfo) {
    let rows = rejections(state);
    let by_code: Vec<String> =
        pool.rejected.iter().map(|(code, total)| format!("{code} {}", count(*total))).collect();
    let focused = state.focused_list() == Some(ListId::Rejections);
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Rejections, "Rejected"), &by_code.join(", "), focused);
    if rows.is_empty() {
        let line = Line::from(pane.span("nothing rejected lately", Role::Dim));
        pane.line(1, &line);
    }
    table(&mut pane, &REJECTED, rows.len(), shown(state, ListId::Rejections), |index| {
        let Some(entry) = rows.get(index) else { return Vec::new() };
        vec![
            Line::styled(entry.txid.short(), look.style(Role::Text)),
            Line::styled(entry.code.to_string(), look.style(Role::Warn)),
            Line::styled(age(entry.age_ms), look.style(Role::Dim)),
            Line::styled(entry.reason.to_string(), look.style(Role::Text)),
        ]
    });
}
