//! The machine the node runs on, the alerts that stand, and what operators have ordered.
//!
//! An alert that was acknowledged stays until the node takes it back; it is shown faint and counts no more in the
//! header. Acknowledging is of this console alone. The audit trail is read from the log, of which `audit.log` in the data
//! directory keeps these records for good.

use crate::console::state::{ListId, Logged, RowKey, State};
use crate::screens::{passes, shown, title};
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{UNKNOWN, age, bytes, bytes_or_unknown, clock, count, offset};
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table};
use masternode::telemetry::event::AlertLevel;
use masternode::telemetry::reach::ReachInfo;
use masternode::telemetry::snapshot::{AlertInfo, Snapshot};
use ratatui::layout::Rect;
use ratatui::text::Line;

/// Rows of the pane of the machine with its border.
const HOST_ROWS: u16 = 8;
/// Value of the field `event` of records of the audit trail.
const AUDIT_EVENT: &str = "audit";

const ALERTS: [Column; 4] = [
    Column::text("level", 10),
    Column::text("UTC", 8).optional(1),
    Column::number("since", 9).optional(2),
    Column::text("alert", 20).flexible(),
];
const AUDIT: [Column; 4] = [
    Column::text("UTC", 8),
    Column::text("who", 14).optional(1),
    Column::text("order", 20).flexible(),
    Column::text("outcome", 16),
];

/// Identity of an alert: what it says, as of when.
pub fn key(alert: &AlertInfo) -> RowKey {
    RowKey::Alert(alert.time_ms, alert.text.to_string())
}

/// The alerts that pass the filter, the newest first, those to be acknowledged before the others.
pub fn alerts(state: &State) -> Vec<&AlertInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let filter = &state.list(ListId::Alerts).filter;
    let mut rows: Vec<&AlertInfo> =
        snapshot.alerts.iter().rev().filter(|alert| passes(filter, alert.text.as_str())).collect();
    rows.sort_by_key(|alert| state.is_acknowledged(alert));
    rows
}

/// Records of orders, the newest first.
pub fn audit(state: &State) -> Vec<&Logged> {
    let filter = &state.list(ListId::Audit).filter;
    let of_audit = |line: &&Logged| {
        let fields = &line.record.fields;
        fields.iter().any(|(name, value)| name.as_str() == "event" && value.as_str() == AUDIT_EVENT)
    };
    let rows = state.records().rev().filter(of_audit);
    rows.filter(|line| passes(filter, &format!("{} {}", field(line, "by"), field(line, "order")))).collect()
}

fn field<'a>(line: &'a Logged, name: &str) -> &'a str {
    let found = line.record.fields.iter().find(|(key, _)| key.as_str() == name);
    found.map_or("", |(_, value)| value.as_str())
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    let area = canvas.area;
    if state.zoomed || area.height < 14 {
        // One of the two fits; Tab chooses.
        return match state.focused_list() {
            Some(ListId::Audit) => draw_audit(canvas, state),
            _ => draw_alerts(canvas, state, snapshot),
        };
    }
    machine(&mut canvas.part(Rect { height: HOST_ROWS, ..area }), snapshot);
    let rest = area.height - HOST_ROWS;
    let upper = rest / 2;
    let alerts = Rect { y: area.y + HOST_ROWS, height: upper, ..area };
    draw_alerts(&mut canvas.part(alerts), state, snapshot);
    let audit = Rect { y: area.y + HOST_ROWS + upper, height: rest - upper, ..area };
    draw_audit(&mut canvas.part(audit), state);
}

/// Whether the network would miss this node if it were stopped now, as far as it can be seen from here.
fn restart(snapshot: &Snapshot) -> (String, Role) {
    let consensus = &snapshot.consensus;
    let own = snapshot.members.iter().find(|member| member.own).map_or(0, |member| member.weight);
    let left = consensus.connected_weight.saturating_sub(own);
    let turn = consensus.own_turn_in;
    if own == 0 {
        return ("safe: it does not vote".to_owned(), Role::Good);
    }
    if left < consensus.quorum_weight {
        let text =
            format!("NOT NOW: without it weight {left} remains, a quorum needs {}", consensus.quorum_weight);
        return (text, Role::Bad);
    }
    match turn {
        Some(0) => ("wait: it proposes this block".to_owned(), Role::Warn),
        Some(1) => ("wait: it proposes the next block".to_owned(), Role::Warn),
        Some(heights) => {
            let left_ms = consensus.era_ms.saturating_sub(consensus.era_age_ms);
            let gap_ms = left_ms.saturating_add(consensus.era_ms.saturating_mul(heights - 1));
            (
                format!("safe: a quorum remains, and its turn to propose is in about {}", age(gap_ms)),
                Role::Good,
            )
        }
        None => ("safe: a quorum remains".to_owned(), Role::Good),
    }
}

fn machine(canvas: &mut Canvas<'_>, snapshot: &Snapshot) {
    let (host, node) = (&snapshot.host, &snapshot.node);
    let mut pane = canvas.pane("Host", &node.data_dir, false);
    let cpu = host.cpu_percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent:.0} %"));
    let files = host.open_files.map_or_else(|| UNKNOWN.to_owned(), count);
    let slept = host.standstill.map_or_else(
        || "never stood still".to_owned(),
        |stood| format!("stood still for {} at {}", age(stood.lasted_ms), clock(stood.time_ms)),
    );
    let lines = [
        (
            "process",
            format!("{} of {}, up {}, {files} open files", node.pid, node.version, age(node.uptime_ms)),
        ),
        ("cpu", format!("{cpu} of a core, {} memory", bytes_or_unknown(host.rss_bytes))),
        (
            "disk",
            format!(
                "{} free, data {}",
                bytes_or_unknown(host.disk_free_bytes),
                bytes_or_unknown(host.data_bytes)
            ),
        ),
        (
            "clock",
            format!(
                "{} against the median of {} peers; {slept}",
                offset(host.clock.offset_ms),
                host.clock.compared
            ),
        ),
        (
            "network",
            format!(
                "{}, {} in, {} out",
                snapshot.peers.reach.as_ref().map_or_else(|| UNKNOWN.to_owned(), ReachInfo::to_string),
                bytes(snapshot.peers.bytes_in),
                bytes(snapshot.peers.bytes_out)
            ),
        ),
    ];
    for (row, (label, text)) in lines.into_iter().enumerate() {
        let line = Line::from(vec![pane.span(format!("{label:<9}"), Role::Dim), pane.span(text, Role::Text)]);
        pane.line(row, &line);
    }
    let (text, role) = restart(snapshot);
    let line = Line::from(vec![pane.span(format!("{:<9}", "restart"), Role::Dim), pane.span(text, role)]);
    pane.line(5, &line);
}

fn draw_alerts(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let rows = alerts(state);
    let open = rows.iter().filter(|alert| !state.is_acknowledged(alert)).count();
    let note = if rows.is_empty() { String::new() } else { format!("{open} to acknowledge with a") };
    let focused = state.focused_list() == Some(ListId::Alerts);
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Alerts, "Alerts"), &note, focused);
    if rows.is_empty() {
        let line = Line::from(pane.span("none", Role::Good));
        return pane.line(1, &line);
    }
    table(&mut pane, &ALERTS, rows.len(), shown(state, ListId::Alerts), |index| {
        let Some(alert) = rows.get(index) else { return Vec::new() };
        let (glyph, role, word) = match alert.level {
            AlertLevel::Notice => (Glyph::Info, Role::Info, "notice"),
            AlertLevel::Warning => (Glyph::Warn, Role::Warn, "warning"),
            AlertLevel::Critical => (Glyph::Bad, Role::Bad, "CRITICAL"),
        };
        let known = state.is_acknowledged(alert);
        let faint = |role| look.style(if known { Role::Dim } else { role });
        let word = if known { "seen" } else { word };
        vec![
            Line::styled(format!("{} {word}", look.glyph(glyph)), faint(role)),
            Line::styled(clock(alert.time_ms), faint(Role::Dim)),
            Line::styled(age(snapshot.time_ms.saturating_sub(alert.time_ms)), faint(Role::Dim)),
            Line::styled(alert.text.to_string(), faint(Role::Text)),
        ]
    });
}

fn draw_audit(canvas: &mut Canvas<'_>, state: &State) {
    let rows = audit(state);
    let focused = state.focused_list() == Some(ListId::Audit);
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Audit, "Orders"), "all of them: audit.log", focused);
    if rows.is_empty() {
        let line = Line::from(pane.span("none lately", Role::Dim));
        return pane.line(1, &line);
    }
    table(&mut pane, &AUDIT, rows.len(), shown(state, ListId::Audit), |index| {
        let Some(line) = rows.get(index) else { return Vec::new() };
        let outcome = field(line, "outcome");
        let role = if outcome == "done" { Role::Text } else { Role::Warn };
        vec![
            Line::styled(clock(line.record.time_ms), look.style(Role::Dim)),
            Line::styled(field(line, "by").to_owned(), look.style(Role::Text)),
            Line::styled(field(line, "order").to_owned(), look.style(Role::Strong)),
            Line::styled(outcome.to_owned(), look.style(role)),
        ]
    });
}
