//! The log: the live ring by level and text, followed at its end or standing at a record.

use crate::console::state::{ListId, Logged, State};
use crate::console::update::position;
use crate::screens::{keys, passes, title};
use crate::theme::roles::Role;
use crate::widgets::format::{clock, clock_precise, count};
use crate::widgets::pane::Canvas;
use crate::widgets::table::window;
use masternode::telemetry::log::{LogLevel, LogRecord, NODE_FIELD};
use ratatui::text::{Line, Span};

/// The records that pass level and filter, oldest first.
pub fn rows(state: &State) -> Vec<&Logged> {
    let filter = &state.list(ListId::Logs).filter;
    state
        .records()
        .filter(|line| line.record.level >= state.level)
        .filter(|line| filter.is_empty() || passes(filter, &text(&line.record)))
        .collect()
}

/// Target, message and fields in one line.
pub fn text(record: &LogRecord) -> String {
    let mut text = format!("{} {}", record.target, record.message);
    for (name, value) in &record.fields {
        text.push_str(&format!(" {name}={value}"));
    }
    text
}

const fn role(level: LogLevel) -> Role {
    match level {
        LogLevel::Trace | LogLevel::Debug => Role::Dim,
        LogLevel::Info => Role::Info,
        LogLevel::Warn => Role::Warn,
        LogLevel::Error => Role::Bad,
    }
}

/// Where nodes share a process, the one the log is of.
fn whose(state: &State) -> String {
    match state.node_data() {
        Some(_) if state.live.nodes.len() < 2 => String::new(),
        Some(_) if state.all_nodes => " of all nodes".to_owned(),
        Some(node) => format!(" of {}", node.name),
        None => String::new(),
    }
}

/// Whether records are shown with their node: not where all are of one.
fn names_nodes(state: &State) -> bool {
    state.all_nodes || state.live.nodes.len() < 2
}

/// One record as a line; wide screens get milliseconds and the module. `nodes`: with its node.
pub fn line(canvas: &Canvas<'_>, record: &LogRecord, column: usize, nodes: bool) -> Line<'static> {
    let wide = canvas.width() >= 110;
    let time = if wide { clock_precise(record.time_ms) } else { clock(record.time_ms) };
    let mut spans = vec![
        canvas.span(format!("{time} "), Role::Dim),
        canvas.span(format!("{:<5} ", record.level.name()), role(record.level)),
    ];
    let mut rest: Vec<Span<'static>> = Vec::new();
    if wide {
        let target = record.target.as_str();
        let target = target.strip_prefix("masternode::").unwrap_or(target);
        rest.push(canvas.span(format!("{target:<20} "), Role::Dim));
    }
    rest.push(canvas.span(record.message.as_str(), Role::Text));
    for (name, value) in record.fields.iter().filter(|(name, _)| nodes || name.as_str() != NODE_FIELD) {
        rest.push(canvas.span(format!(" {name}="), Role::Dim));
        rest.push(canvas.span(value.as_str(), Role::Text));
    }
    let mut skipped = column;
    for span in rest {
        let characters = span.content.chars().count();
        if skipped >= characters {
            skipped -= characters;
            continue;
        }
        let kept: String = span.content.chars().skip(skipped).collect();
        skipped = 0;
        spans.push(Span::styled(kept, span.style));
    }
    Line::from(spans)
}

/// Draws the last records that fit, without a cursor.
pub fn tail(canvas: &mut Canvas<'_>, state: &State, name: &str) {
    let name = format!("{name}{}", whose(state));
    let records = match state.live.nodes.len() > 1 {
        true => state.records().count() as u64,
        false => state.shown().logs.received,
    };
    let note = format!("{} records", count(records));
    let mut pane = canvas.pane(&name, &note, false);
    let height = pane.height();
    let newest: Vec<&Logged> =
        state.records().rev().filter(|line| line.record.level >= LogLevel::Info).take(height).collect();
    for (row, logged) in newest.iter().rev().enumerate() {
        let text = line(&pane, &logged.record, 0, names_nodes(state));
        pane.line(row, &text);
    }
    if newest.is_empty() {
        let text = Line::from(pane.span("nothing logged yet", Role::Dim));
        pane.line(0, &text);
    }
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let rows = rows(state);
    let logs = &state.shown().logs;
    let cursor = state.list(ListId::Logs);
    let hidden = state.records().count().saturating_sub(rows.len());
    let at = position(state, ListId::Logs, &keys(state, ListId::Logs));
    let mut note = match cursor.selected {
        None => "following".to_owned(),
        Some(_) => format!("stands, +{} new below", count(rows.len().saturating_sub(at + 1) as u64)),
    };
    if hidden > 0 {
        note = format!("{} hidden, {note}", count(hidden as u64));
    }
    if logs.skipped > 0 {
        note = format!("{} lost, {note}", count(logs.skipped));
    }
    let name = format!(
        "{} {} and above",
        title(state, ListId::Logs, &format!("Log{}", whose(state))),
        state.level.name()
    );
    let mut pane = canvas.pane(&name, &note, true);
    let height = pane.height();
    let first = match cursor.selected {
        None => rows.len().saturating_sub(height),
        Some(_) => window(rows.len(), height, at),
    };
    for (row, logged) in rows.iter().skip(first).take(height).enumerate() {
        let text = line(&pane, &logged.record, cursor.column, names_nodes(state));
        pane.line(row, &text);
        if cursor.selected.is_some() && first + row == at {
            let style = pane.look.style(Role::Selection);
            pane.tint(row, style);
        }
    }
    if rows.is_empty() {
        let text = if hidden > 0 {
            "every record is hidden: lower the level with - or clear the filter with Esc"
        } else {
            "nothing logged yet"
        };
        let line = Line::from(pane.span(text, Role::Dim));
        pane.line(0, &line);
    }
}
