//! The overview: everything an operator looks at first, without scrolling at 80×24.
//!
//! Panes by importance: consensus, finality, signing, log, resources, members. Where there is no room
//! they go from the end: members first (only drawn from 120×36 on), then resources, log, signing and
//! finality; consensus is the last one standing. Narrower than 80 columns they stand in one column.

use crate::console::state::State;
use crate::screens::{MARKS, logs, mark, votes};
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{UNKNOWN, age, bytes, bytes_or_unknown, count, offset, percentile};
use crate::widgets::meter::{bar, chart};
use crate::widgets::pane::Canvas;
use masternode::telemetry::clock::ClockFault;
use masternode::telemetry::event::AlertLevel;
use masternode::telemetry::histogram::Percentiles;
use masternode::telemetry::reach::ReachInfo;
use masternode::telemetry::snapshot::{MemberInfo, NodeState, Snapshot, SyncInfo};
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Marks shown of this node.
const OWN_MARKS: usize = 64;
/// Least rows of each pane with its border.
const CONSENSUS_ROWS: u16 = 8;
const MIDDLE_ROWS: u16 = 7;
const LOG_ROWS_MIN: u16 = 4;
/// A snapshot's figures run on at most this long without a new one.
const EXTRAPOLATE_MS: u64 = 1_500;

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(snapshot) = state.snapshot() else { return };
    if canvas.area.width < 76 {
        return column(canvas, state, snapshot);
    }
    if canvas.area.width >= 120 && canvas.area.height >= 36 {
        return large(canvas, state, snapshot);
    }
    let area = canvas.area;
    let half = area.width / 2;
    let top = CONSENSUS_ROWS.min(area.height);
    let mut rest = area.height - top;
    let middle = if rest >= MIDDLE_ROWS + LOG_ROWS_MIN { MIDDLE_ROWS } else { 0 };
    rest -= middle;
    let left = |y: u16, height: u16| Rect { x: area.x, y: area.y + y, width: half, height };
    let right =
        |y: u16, height: u16| Rect { x: area.x + half, y: area.y + y, width: area.width - half, height };
    consensus(&mut canvas.part(left(0, top)), state, snapshot);
    finality(&mut canvas.part(right(0, top)), snapshot);
    signing(&mut canvas.part(left(top, middle)), snapshot);
    resources(&mut canvas.part(right(top, middle)), snapshot);
    let y = area.y + top + middle;
    alerts_and_log(&mut canvas.part(Rect { y, height: rest, ..area }), state, snapshot);
}

/// 120×36 and above: three columns, then the members, then alerts beside the log.
fn large(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let area = canvas.area;
    let third = area.width / 3;
    let top = 14;
    let cell = |index: u16| Rect {
        x: area.x + third * index,
        width: if index == 2 { area.width - 2 * third } else { third },
        height: top,
        ..area
    };
    let split = |rect: Rect| {
        let upper = Rect { height: MIDDLE_ROWS, ..rect };
        (upper, Rect { y: rect.y + MIDDLE_ROWS, height: rect.height - MIDDLE_ROWS, ..rect })
    };
    consensus(&mut canvas.part(cell(0)), state, snapshot);
    finality(&mut canvas.part(cell(1)), snapshot);
    let (upper, lower) = split(cell(2));
    signing(&mut canvas.part(upper), snapshot);
    resources(&mut canvas.part(lower), snapshot);
    let rows =
        u16::try_from(snapshot.members.len() + 2).unwrap_or(u16::MAX).min((area.height - top) / 2).max(4);
    members(&mut canvas.part(Rect { y: area.y + top, height: rows, ..area }), snapshot);
    let y = area.y + top + rows;
    alerts_and_log(&mut canvas.part(Rect { y, height: area.height - top - rows, ..area }), state, snapshot);
}

/// Narrow: one column, as many panes as fit.
fn column(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let area = canvas.area;
    let mut y = 0;
    for (index, wanted) in [CONSENSUS_ROWS, 7, MIDDLE_ROWS, LOG_ROWS_MIN, MIDDLE_ROWS].into_iter().enumerate()
    {
        let left = area.height - y;
        if left < wanted && index > 0 {
            break;
        }
        let rect = Rect { y: area.y + y, height: wanted.min(left), ..area };
        let mut part = canvas.part(rect);
        match index {
            0 => consensus(&mut part, state, snapshot),
            1 => finality(&mut part, snapshot),
            2 => signing(&mut part, snapshot),
            3 => alerts_and_log(&mut part, state, snapshot),
            _ => resources(&mut part, snapshot),
        }
        y += rect.height;
    }
}

/// Seconds without a block after which a catch-up is shown as standing still.
const STILL_S: u64 = 5;
/// Width of the names at the left of a pane.
const LABEL: usize = 9;

fn labelled(pane: &Canvas<'_>, label: &str, mut rest: Vec<Span<'static>>) -> Line<'static> {
    rest.insert(0, pane.span(format!("{label:<LABEL$}"), Role::Dim));
    Line::from(rest)
}

fn consensus(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let info = &snapshot.consensus;
    let who = match snapshot.node.voter {
        Some(voter) => format!("voter {voter} of {}", snapshot.members.len()),
        None => "observer".to_owned(),
    };
    let mut pane = canvas.pane("Consensus", &who, false);
    let width = pane.width().saturating_sub(LABEL + 16).min(40);
    let since = state.data_age_ms().min(EXTRAPOLATE_MS);
    let running = info.step.as_str() == "era" && state.frozen.is_none();
    let era_age = info.era_age_ms + if running { since } else { 0 };
    let left = info.era_ms.saturating_sub(era_age);
    let mut era = bar(pane.look, width, era_age, info.era_ms, None, Role::Bar);
    era.push(if info.frozen || left == 0 {
        pane.span(" checkpoint", Role::Info)
    } else {
        pane.span(format!(" {} left", age(left)), Role::Text)
    });
    let role = if info.connected_weight >= info.quorum_weight { Role::Good } else { Role::Bad };
    let mut quorum =
        bar(pane.look, width, info.connected_weight, info.total_weight, Some(info.quorum_weight), role);
    let share = format!(" {} of {}, needs {}", info.connected_weight, info.total_weight, info.quorum_weight);
    quorum.push(pane.span(share, Role::Text));
    let turn = info.own_turn_in.map_or_else(String::new, |turn| match turn {
        0 => ", own turn".to_owned(),
        turn => format!(", own in {turn}"),
    });
    let failed = if info.rounds_failed > 0 { Role::Warn } else { Role::Dim };
    let round = vec![
        pane.span(
            format!("{}, step {}", info.round, info.step),
            if info.round > 0 { Role::Warn } else { Role::Text },
        ),
        pane.span(format!(", failed {}", count(info.rounds_failed)), failed),
    ];
    let mut room = bar(pane.look, width, info.era_bytes_used, info.era_bytes_max, None, Role::Bar);
    room.push(pane.span(format!(" {}", bytes(info.era_bytes_used)), Role::Text));
    let mut lines = vec![
        labelled(
            &pane,
            "height",
            vec![pane.span(count(info.height), Role::Strong), pane.span("  being decided", Role::Dim)],
        ),
        labelled(&pane, "era", era),
        labelled(&pane, "quorum", quorum),
        labelled(&pane, "proposer", vec![pane.span(format!("{}{turn}", info.proposer), Role::Text)]),
        labelled(&pane, "round", round),
        labelled(&pane, "prepared", room),
    ];
    if pane.height() > lines.len() {
        lines.push(labelled(
            &pane,
            "votes",
            vec![pane.span(
                format!("{} sent, {} received", count(info.votes_sent), count(info.votes_received)),
                Role::Text,
            )],
        ));
        lines.push(labelled(
            &pane,
            "open",
            vec![pane.span(format!("{} payments", info.open.len()), Role::Text)],
        ));
        lines.push(labelled(&pane, "loop lag", spread(&pane, &info.loop_lag)));
        lines.push(labelled(&pane, "journal", spread(&pane, &info.journal_sync)));
        let startup =
            format!("{}, started in {}", age(snapshot.node.uptime_ms), age(snapshot.node.startup_ms));
        lines.push(labelled(&pane, "up for", vec![pane.span(startup, Role::Text)]));
        lines.push(labelled(&pane, "chain id", vec![pane.span(snapshot.node.chain.short(), Role::Text)]));
    }
    if let Some(line) = held_up(&pane, snapshot) {
        lines.insert(0, line);
    }
    for (row, line) in lines.iter().enumerate() {
        pane.line(row, line);
    }
}

/// What keeps the node from voting, if it can be said in a line: above everything else.
fn held_up(pane: &Canvas<'_>, snapshot: &Snapshot) -> Option<Line<'static>> {
    match &snapshot.state {
        NodeState::Halted { reason } | NodeState::NeedsTrustedBlock { reason } => {
            Some(Line::from(pane.span(reason.as_str().to_owned(), Role::Bad)))
        }
        NodeState::WaitingForQuorum { missing, .. } => {
            let names: Vec<&str> = missing.iter().map(|name| name.as_str()).collect();
            Some(labelled(pane, "missing", vec![pane.span(names.join(" "), Role::Warn)]))
        }
        _ => match (&snapshot.sync, &snapshot.host.clock.fault) {
            (Some(sync), _) => Some(labelled(pane, "sync", catching_up(pane, sync))),
            (None, Some(fault @ ClockFault::Own { .. })) => {
                Some(Line::from(pane.span(format!("{}: check NTP", fault.short()), Role::Bad)))
            }
            (None, _) => None,
        },
    }
}

/// `1,204 of 9,000  ETA 3m 41s  20,114 tx/s  3 peers`, the last block's age when none comes.
fn catching_up(pane: &Canvas<'_>, sync: &SyncInfo) -> Vec<Span<'static>> {
    let eta = sync.eta_s.map_or_else(|| "?".to_owned(), |eta_s| age(eta_s * 1000));
    let mut spans = vec![
        pane.span(format!("{} of {}", count(sync.height), count(sync.target)), Role::Warn),
        pane.span(format!("  ETA {eta}"), Role::Text),
    ];
    if sync.still_s >= STILL_S {
        spans.push(pane.span(format!("  no block for {}", age(sync.still_s * 1000)), Role::Bad));
    } else {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate is never negative, and far below the 2^53 that a float holds exactly"
        )]
        let rate = sync.transactions_per_second.round() as u64;
        spans.push(pane.span(format!("  {} tx/s", count(rate)), Role::Text));
    }
    spans.push(pane.span(format!("  {} peers", sync.peers.len()), Role::Dim));
    spans
}

/// `p50 8.1 ms  p99 12.0 ms`.
fn spread(pane: &Canvas<'_>, set: &Percentiles) -> Vec<Span<'static>> {
    let mut spans = Vec::new();
    for (name, value) in [("p50", percentile(set, |s| s.p50_us)), ("p99", percentile(set, |s| s.p99_us))] {
        spans.push(pane.span(format!("{name} "), Role::Dim));
        spans.push(pane.span(format!("{value:<9}"), Role::Text));
    }
    spans
}

fn finality(canvas: &mut Canvas<'_>, snapshot: &Snapshot) {
    let info = &snapshot.finality;
    let note = format!("{} final", count(info.total));
    let mut pane = canvas.pane("Finality", &note, false);
    let cell = |pane: &Canvas<'_>, name: &str, set: &Percentiles, of: fn(&Percentiles) -> u64, role: Role| {
        vec![
            pane.span(format!("{name:<4}"), Role::Dim),
            pane.span(format!("{:>8}  ", percentile(set, of)), role),
        ]
    };
    let set = &info.latency;
    let mut first = cell(&pane, "p50", set, |s| s.p50_us, Role::Strong);
    first.extend(cell(&pane, "p95", set, |s| s.p95_us, Role::Text));
    let mut second = cell(&pane, "p99", set, |s| s.p99_us, Role::Text);
    second.extend(cell(&pane, "max", set, |s| s.max_us, Role::Text));
    let pause = &info.checkpoint_pause;
    let third = vec![
        pane.span(if pane.width() >= 44 { "checkpoint pause p50 " } else { "pause p50 " }, Role::Dim),
        pane.span(percentile(pause, |s| s.p50_us), Role::Text),
        pane.span("  max ", Role::Dim),
        pane.span(percentile(pause, |s| s.max_us), Role::Text),
    ];
    let fourth = vec![
        pane.span(format!("{} tx/s", count(info.per_second)), Role::Strong),
        pane.span(
            format!(
                ", most {} in {} s",
                count(info.history.iter().copied().max().unwrap_or(0)),
                info.history.len()
            ),
            Role::Dim,
        ),
    ];
    for (row, spans) in [first, second, third, fourth].into_iter().enumerate() {
        pane.line(row, &Line::from(spans));
    }
    let area = pane.area;
    let rows = area.height.saturating_sub(4);
    let mut part = pane.part(Rect { y: area.y + area.height - rows, height: rows, ..area });
    chart(&mut part, &info.history);
}

fn signing(canvas: &mut Canvas<'_>, snapshot: &Snapshot) {
    let own: Option<&MemberInfo> = snapshot.members.iter().find(|member| member.own);
    let mut pane = canvas.pane("Own signatures", "64 checkpoints", false);
    let Some(own) = own else {
        let line = Line::from(pane.span("not in the committee: signs nothing", Role::Dim));
        pane.line(0, &line);
        return;
    };
    let recent: Vec<_> = own.signed.iter().skip(own.signed.len().saturating_sub(OWN_MARKS)).collect();
    let per_row = pane.width().clamp(1, 32);
    let mut row = 0;
    for part in recent.chunks(per_row) {
        let spans: Vec<Span<'static>> = part
            .iter()
            .map(|each| {
                let (glyph, role, _) = mark(**each);
                pane.glyph(glyph, role)
            })
            .collect();
        pane.line(row, &Line::from(spans));
        row += 1;
    }
    if recent.is_empty() {
        let line = Line::from(pane.span("no checkpoint decided yet", Role::Dim));
        pane.line(row, &line);
        row += 1;
    }
    for pair in MARKS.chunks(2) {
        let mut spans = Vec::new();
        for each in pair {
            let (glyph, role, word) = mark(*each);
            let number = recent.iter().filter(|other| ***other == *each).count();
            spans.push(pane.span(format!("{} {word:<7}", pane.look.glyph(glyph)), role));
            spans.push(pane.span(format!("{number:>3}    "), Role::Text));
        }
        pane.line(row, &Line::from(spans));
        row += 1;
    }
    let voted = own.last_vote_age_ms.map_or_else(|| UNKNOWN.to_owned(), |ms| format!("{} ago", age(ms)));
    let line =
        labelled(&pane, "voted", vec![pane.span(format!("{voted}, {} votes", count(own.votes)), Role::Text)]);
    pane.line(row, &line);
}

fn resources(canvas: &mut Canvas<'_>, snapshot: &Snapshot) {
    let (peers, pool, host) = (&snapshot.peers, &snapshot.pool, &snapshot.host);
    let mut pane = canvas.pane("Peers, pool, host", "", false);
    let known = |value: Option<u64>| value.map_or_else(|| UNKNOWN.to_owned(), count);
    let cpu = host.cpu_percent.map_or_else(|| UNKNOWN.to_owned(), |percent| format!("{percent:.0} %"));
    let texts = [
        (
            "peers",
            format!("{} in, {} out, {} known", peers.inbound, peers.outbound, count(peers.known_addresses)),
        ),
        ("traffic", format!("{} in, {} out", bytes(peers.bytes_in), bytes(peers.bytes_out))),
        ("pool", format!("{} tx, {}", count(pool.transactions), bytes(pool.bytes))),
        (
            "host",
            format!("cpu {cpu}, rss {}, {} fd", bytes_or_unknown(host.rss_bytes), known(host.open_files)),
        ),
        (
            "disk",
            format!(
                "{} free, data {}",
                bytes_or_unknown(host.disk_free_bytes),
                bytes_or_unknown(host.data_bytes)
            ),
        ),
        ("clock", format!("{} against {} peers", offset(host.clock.offset_ms), host.clock.compared)),
        ("port", peers.reach.as_ref().map_or_else(|| UNKNOWN.to_owned(), ReachInfo::to_string)),
    ];
    for (row, (label, text)) in texts.into_iter().enumerate() {
        // One cell less for the names than elsewhere: the host's line needs it at 80 columns.
        let line = Line::from(vec![pane.span(format!("{label:<8}"), Role::Dim), pane.span(text, Role::Text)]);
        pane.line(row, &line);
    }
}

fn members(canvas: &mut Canvas<'_>, snapshot: &Snapshot) {
    let mut pane = canvas.pane("Members", "checkpoints, newest right", false);
    let room = pane.width().saturating_sub(44).min(128);
    for (row, member) in snapshot.members.iter().take(pane.height()).enumerate() {
        let (glyph, role, word) = match (member.own, member.connected) {
            (true, _) => (Glyph::Good, Role::Good, "own "),
            (false, true) => (Glyph::Good, Role::Good, "up  "),
            (false, false) => (Glyph::Bad, Role::Bad, "away"),
        };
        let voted =
            member.last_vote_age_ms.map_or_else(|| UNKNOWN.to_owned(), |ms| format!("{} ago", age(ms)));
        let mut spans = vec![
            pane.span(format!("{} {word} ", pane.look.glyph(glyph)), role),
            pane.span(
                format!("{:<12.12} ", member.name.as_str()),
                if member.own { Role::Strong } else { Role::Text },
            ),
            pane.span(format!("weight {:<6} ", member.weight), Role::Dim),
            pane.span(format!("{voted:>9} "), Role::Dim),
        ];
        spans.extend(votes::marks(&pane, member, room).spans);
        pane.line(row, &Line::from(spans));
    }
}

fn alerts_and_log(canvas: &mut Canvas<'_>, state: &State, snapshot: &Snapshot) {
    let area = canvas.area;
    let alerts = &snapshot.alerts;
    // The log keeps at least one row of text.
    let rows = alerts.len().min(usize::from(area.height.saturating_sub(4))).min(8);
    if rows == 0 {
        return logs::tail(canvas, state, if alerts.is_empty() { "No alerts, log" } else { "Log" });
    }
    for (row, alert) in alerts.iter().rev().take(rows).enumerate() {
        let (glyph, role, word) = match alert.level {
            AlertLevel::Notice => (Glyph::Info, Role::Info, "notice"),
            AlertLevel::Warning => (Glyph::Warn, Role::Warn, "warning"),
            AlertLevel::Critical => (Glyph::Bad, Role::Bad, "CRITICAL"),
        };
        let since = age(snapshot.time_ms.saturating_sub(alert.time_ms));
        let line = Line::from(vec![
            canvas.span(format!("  {} {word} ", canvas.look.glyph(glyph)), role),
            canvas.span(alert.text.as_str(), Role::Text),
            canvas.span(format!("  since {since}"), Role::Dim),
        ]);
        canvas.line(row, &line);
    }
    let used = u16::try_from(rows).unwrap_or(0);
    let rest = Rect { y: area.y + used, height: area.height - used, ..area };
    logs::tail(&mut canvas.part(rest), state, "Log");
}
