//! Votes: the members and how they signed, the live stream of batches, the quorum meters.

use crate::console::state::{ListId, State};
use crate::screens::{MARKS, arrange, mark, passes, shown, title};
use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{UNKNOWN, age, clock, clock_precise, count, latency_range};
use crate::widgets::meter::bar;
use crate::widgets::pane::Canvas;
use crate::widgets::table::{Column, table, widths, window};
use masternode::primitives::clean::CleanText;
use masternode::telemetry::cause::{GapCount, name_all};
use masternode::telemetry::event::{Event, EventKind};
use masternode::telemetry::snapshot::{MemberInfo, OpenTransaction, SignMark, Snapshot};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use std::cmp::Ordering;

const MEMBERS: [Column; 8] = [
    Column::text("member", 10),
    Column::number("weight", 6).optional(3),
    Column::text("link", 6),
    Column::number("batch", 6).optional(4),
    Column::number("last vote", 9).optional(2),
    Column::number("votes", 10).optional(5),
    Column::text("last miss", 17).optional(1),
    Column::text("newest right", 12).flexible(),
];

/// Cells of a quorum meter.
const METER: usize = 8;

const OPEN: [Column; 5] = [
    Column::text("id", 8),
    Column::text("prepare", METER),
    Column::text("commit", METER),
    Column::number("age", 7),
    Column::text("prepare, commit of all", 24).optional(1),
];

/// The members that pass the filter, in committee order.
pub fn members(state: &State) -> Vec<&MemberInfo> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let filter = &state.list(ListId::Members).filter;
    snapshot.members.iter().filter(|member| passes(filter, member.name.as_str())).collect()
}

/// The consensus events that pass the filter, oldest first.
pub fn stream(state: &State) -> Vec<&Event> {
    let Some(node) = state.node_data() else { return Vec::new() };
    let filter = &state.list(ListId::Stream).filter;
    let events = node.stream.iter().map(AsRef::as_ref);
    events.filter(|event| filter.is_empty() || passes(filter, &describe(&event.kind).1)).collect()
}

/// The open payments that pass the filter, newest first unless sorted.
pub fn open(state: &State) -> Vec<&OpenTransaction> {
    let Some(snapshot) = state.snapshot() else { return Vec::new() };
    let cursor = state.list(ListId::Open);
    let mut rows: Vec<&OpenTransaction> = snapshot
        .consensus
        .open
        .iter()
        .filter(|open| cursor.filter.is_empty() || passes(&cursor.filter, &open.txid.to_string()))
        .collect();
    let compare = |column: usize, a: &OpenTransaction, b: &OpenTransaction| -> Ordering {
        match column {
            0 => a.txid.cmp(&b.txid),
            1 => a.prepare_weight.cmp(&b.prepare_weight),
            2 => a.commit_weight.cmp(&b.commit_weight),
            _ => a.age_ms.cmp(&b.age_ms),
        }
    };
    arrange(&mut rows, cursor, |column, a, b| compare(column, a, b));
    rows
}

/// An event in words, with its role.
pub fn describe(kind: &EventKind) -> (Role, String) {
    match kind {
        EventKind::Votes { name, sequence, last, prepares, commits, own, .. } => {
            let end = if *last { ", last" } else { "" };
            let text = format!("{name} #{sequence} +{prepares} prep +{commits} comm{end}");
            (if *own { Role::Strong } else { Role::Text }, text)
        }
        EventKind::Final { count: payments, fastest_us, slowest_us, .. } => {
            let text =
                format!("final {} in {}", count((*payments).into()), latency_range(*fastest_us, *slowest_us));
            (Role::Good, text)
        }
        EventKind::Frozen { height, era_ms } => {
            (Role::Info, format!("frozen for checkpoint {} after {}", count(*height), age(*era_ms)))
        }
        EventKind::RoundStarted { height, round, proposer } => {
            let role = if *round > 0 { Role::Warn } else { Role::Info };
            (role, format!("round {round} of {}: {proposer} proposes", count(*height)))
        }
        EventKind::Proposed { height, round, transactions, own, .. } => {
            let by = if *own { "own proposal" } else { "proposal" };
            (Role::Info, format!("{by} {}/{round}, {} tx", count(*height), count((*transactions).into())))
        }
        EventKind::RoundStalled(stall) => {
            let (step, height, round) = (&stall.step, count(stall.height), stall.round);
            (Role::Warn, format!("{step} {height}/{round}: {stall}"))
        }
        EventKind::VotesMissed { height, missed, .. } => {
            (Role::Warn, format!("missed {}: {}", count(*height), name_all(missed)))
        }
        EventKind::PaymentVotesMissed { height, prepares, commits } => {
            let words = |gaps: &[GapCount]| -> String {
                let each =
                    gaps.iter().map(|gap| format!(" {} {}", count(gap.count.into()), gap.cause.code()));
                each.collect::<Vec<_>>().join(",")
            };
            let text =
                format!("no vote in {}: prep{}; comm{}", count(*height), words(prepares), words(commits));
            (Role::Warn, text)
        }
        EventKind::Checkpoint { height, transactions, pause_ms, .. } => {
            let text = format!(
                "checkpoint {}, {} tx, {pause_ms:.0} ms",
                count(*height),
                count((*transactions).into())
            );
            (Role::Good, text)
        }
        EventKind::PeerBanned(ban) => {
            let evidence = if ban.evidence.as_str().is_empty() { "" } else { ": " };
            (Role::Warn, format!("banned {}, {}{evidence}{}", short(&ban.subject), ban.reason, ban.evidence))
        }
        EventKind::PeerUnbanned { subject, lifted } => {
            let how = if *lifted { "lifted" } else { "over" };
            (Role::Info, format!("ban of {} {how}", short(subject)))
        }
        EventKind::BreakerOpen { wanted, peers } => {
            (Role::Bad, format!("{wanted} of {peers} peers would be banned: automatic bans stopped"))
        }
        _ => (Role::Dim, String::new()),
    }
}

/// A key by its first digits, an address whole.
fn short(subject: &CleanText) -> String {
    subject.as_str().chars().take(if subject.as_str().len() == 64 { 8 } else { 64 }).collect()
}

/// The last marks of a member that fit into `width` cells.
pub fn marks(canvas: &Canvas<'_>, member: &MemberInfo, width: usize) -> Line<'static> {
    let first = member.signed.len().saturating_sub(width);
    let spans: Vec<Span<'static>> = member
        .signed
        .iter()
        .skip(first)
        .map(|each| {
            let (glyph, role, _) = mark(*each);
            canvas.glyph(glyph, role)
        })
        .collect();
    Line::from(spans)
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    let area = canvas.area;
    if state.zoomed || area.height < 14 {
        // One of the three fits; Tab chooses.
        return match state.focused_list() {
            Some(ListId::Open) => meters(canvas, state, snapshot),
            Some(ListId::Members) => grid(canvas, state, snapshot),
            _ => flow(canvas, state),
        };
    }
    let wanted = u16::try_from(snapshot.members.len() + 4).unwrap_or(u16::MAX);
    let top = wanted.min(area.height / 2).max(5).min(area.height);
    grid(&mut canvas.part(Rect { height: top, ..area }), state, snapshot);
    let rest = Rect { y: area.y + top, height: area.height - top, ..area };
    if rest.width < 76 {
        // One of the two below fits; Tab chooses.
        if state.focused_list() == Some(ListId::Open) {
            meters(&mut canvas.part(rest), state, snapshot);
        } else {
            flow(&mut canvas.part(rest), state);
        }
        return;
    }
    let right = if rest.width >= 120 { 68 } else { 40 };
    let left = rest.width - right;
    flow(&mut canvas.part(Rect { width: left, ..rest }), state);
    meters(&mut canvas.part(Rect { x: rest.x + left, width: right, ..rest }), state, snapshot);
}

fn grid(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let consensus = &snapshot.consensus;
    let frozen = if consensus.frozen { ", frozen" } else { "" };
    let note = format!(
        "height {} round {} {}{frozen}, proposer {}, failed rounds {}",
        count(consensus.height),
        consensus.round,
        consensus.step,
        consensus.proposer,
        count(consensus.rounds_failed),
    );
    let rows = members(state);
    let focused = state.focused_list() == Some(ListId::Members);
    let mut pane = canvas.pane(&title(state, ListId::Members, "Members"), &note, focused);
    let mut legend = Vec::new();
    for each in MARKS {
        let (glyph, role, word) = mark(each);
        legend.push(pane.span(format!("{} {word}  ", pane.look.glyph(glyph)), role));
    }
    let sent =
        format!(" {} votes sent, {} received", count(consensus.votes_sent), count(consensus.votes_received));
    legend.push(pane.span(sent, Role::Dim));
    let bottom = pane.height().saturating_sub(1);
    pane.line(bottom, &Line::from(legend));
    let area = pane.area;
    let mut part = pane.part(Rect { height: area.height.saturating_sub(1), ..area });
    let look = part.look;
    let room = widths(&MEMBERS, part.width()).last().copied().flatten().unwrap_or(0);
    let mark_lines: Vec<Line<'static>> = rows.iter().map(|member| marks(&part, member, room)).collect();
    table(&mut part, &MEMBERS, rows.len(), shown(state, ListId::Members), |index| {
        let Some(member) = rows.get(index) else { return Vec::new() };
        let text = |text: String| Line::styled(text, look.style(Role::Text));
        let own = if member.own { look.glyph(Glyph::Own) } else { " " };
        let link = if member.own {
            Line::styled(format!("{} own", look.glyph(Glyph::Good)), look.style(Role::Good))
        } else if member.connected {
            Line::styled(format!("{} up", look.glyph(Glyph::Good)), look.style(Role::Good))
        } else {
            Line::styled(format!("{} away", look.glyph(Glyph::Bad)), look.style(Role::Bad))
        };
        let name_role = if member.own { Role::Strong } else { Role::Text };
        vec![
            Line::styled(format!("{own} {}", member.name), look.style(name_role)),
            text(member.weight.to_string()),
            link,
            text(count(member.stream_head.into())),
            text(member.last_vote_age_ms.map_or_else(|| UNKNOWN.to_owned(), age)),
            text(count(member.votes)),
            last_miss(look, member),
            mark_lines.get(index).cloned().unwrap_or_default(),
        ]
    });
}

/// Why the member missed a checkpoint last; bright while that checkpoint is among the marks.
fn last_miss(look: &Look, member: &MemberInfo) -> Line<'static> {
    let Some(miss) = &member.last_miss else { return Line::default() };
    let recent = member.signed.iter().any(|mark| *mark != SignMark::Signed);
    Line::styled(miss.cause.short(), look.style(if recent { Role::Warn } else { Role::Dim }))
}

fn flow(canvas: &mut Canvas<'_>, state: &State) {
    let rows = stream(state);
    let cursor = state.list(ListId::Stream);
    let missed = state.node_data().map_or(0, |node| node.missed);
    let mut note = if cursor.selected.is_some() { "stands".to_owned() } else { "live".to_owned() };
    if missed > 0 {
        note = format!("{} missed, {note}", count(missed));
    }
    let shown = shown(state, ListId::Stream);
    let mut pane = canvas.pane(&title(state, ListId::Stream, "Vote stream"), &note, shown.focused);
    let height = pane.height();
    let at = shown.selected.unwrap_or(0);
    let first = match cursor.selected {
        None => rows.len().saturating_sub(height),
        Some(_) => window(rows.len(), height, at),
    };
    let wide = pane.width() >= 60;
    for (row, event) in rows.iter().skip(first).take(height).enumerate() {
        let (role, text) = describe(&event.kind);
        let time = if wide { clock_precise(event.time_ms) } else { clock(event.time_ms) };
        let line = Line::from(vec![pane.span(format!("{time} "), Role::Dim), pane.span(text, role)]);
        pane.line(row, &line);
        if cursor.selected.is_some() && shown.focused && first + row == at {
            let style = pane.look.style(Role::Selection);
            pane.tint(row, style);
        }
    }
    if rows.is_empty() {
        let line = Line::from(pane.span("no vote seen yet", Role::Dim));
        pane.line(0, &line);
    }
}

fn meters(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let consensus = &snapshot.consensus;
    let rows = open(state);
    let note = format!("{}, quorum {} of {}", rows.len(), consensus.quorum_weight, consensus.total_weight);
    let focused = state.focused_list() == Some(ListId::Open);
    let look = canvas.look;
    let mut pane = canvas.pane(&title(state, ListId::Open, "Open"), &note, focused);
    if rows.is_empty() {
        let line = Line::from(pane.span("no payment is being voted on", Role::Dim));
        pane.line(1, &line);
    }
    let meter = |weight: u64| {
        let role = if weight >= consensus.quorum_weight { Role::Good } else { Role::Bar };
        Line::from(bar(look, METER, weight, consensus.total_weight, Some(consensus.quorum_weight), role))
    };
    table(&mut pane, &OPEN, rows.len(), shown(state, ListId::Open), |index| {
        let Some(row) = rows.get(index) else { return Vec::new() };
        let text = |text: String| Line::styled(text, look.style(Role::Text));
        let weights = format!("{}, {} of {}", row.prepare_weight, row.commit_weight, consensus.total_weight);
        vec![
            text(row.txid.short()),
            meter(row.prepare_weight),
            meter(row.commit_weight),
            text(age(row.age_ms)),
            text(weights),
        ]
    });
}
