//! `view(&State, Rect, &mut Buffer)`: the whole picture. Pure: no clock, no I/O, any size.
//!
//! Two rows of header, one of footer, the screen between. Below 40×10 one status line that names the
//! size needed.

use crate::console::source::LinkState;
use crate::console::state::{Hosting, ListId, QuitChoice, STALE_MS, State, Stopping};
use crate::console::update::quit_choices;
use crate::keymap::Screen;
use crate::screens;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{age, cells, clock, count, fit};
use crate::widgets::pane::Canvas;
use masternode::telemetry::event::AlertLevel;
use masternode::telemetry::snapshot::NodeState;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// Least size of the screens.
pub const WIDTH_MIN: u16 = 40;
/// Least size of the screens.
pub const HEIGHT_MIN: u16 = 10;

/// Draws the console.
pub fn view(state: &State, area: Rect, buffer: &mut Buffer) {
    let Some(look) = state.current_look() else { return };
    let mut canvas = Canvas::new(buffer, area, look);
    canvas.clear();
    let area = canvas.area;
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        status_line(&mut canvas, state);
    } else {
        header(&mut canvas.part(Rect { height: 2, ..area }), state);
        let body = Rect { y: area.y + 2, height: area.height - 3, ..area };
        screens::draw(&mut canvas.part(body), state);
        footer(&mut canvas.part(Rect { y: area.bottom() - 1, height: 1, ..area }), state);
        if let Some(palette) = &state.palette {
            screens::palette::draw(&mut canvas, state, palette);
        }
        if let Some(choice) = state.dialog {
            dialog(&mut canvas, state, choice);
        }
        if let Some(stopping) = &state.stopping {
            confirmation(&mut canvas, state, stopping);
        }
    }
    if look.ascii {
        to_ascii(&mut canvas);
    }
}

/// Names of peers and log lines may hold any letter; a terminal without UTF-8 gets a stand-in.
fn to_ascii(canvas: &mut Canvas<'_>) {
    for y in canvas.area.top()..canvas.area.bottom() {
        for x in canvas.area.left()..canvas.area.right() {
            if let Some(cell) = canvas.buffer.cell_mut((x, y))
                && !cell.symbol().is_ascii()
            {
                cell.set_symbol(if cell.symbol() == "…" { "~" } else { "?" });
            }
        }
    }
}

/// Glyph and role of the node's state.
fn state_mark(node: &NodeState) -> (Glyph, Role) {
    match node {
        NodeState::Signing => (Glyph::Good, Role::Good),
        NodeState::Observing | NodeState::Starting { .. } | NodeState::Stopping => (Glyph::Info, Role::Info),
        NodeState::Syncing { .. } | NodeState::Listening { .. } | NodeState::WaitingForQuorum { .. } => {
            (Glyph::Warn, Role::Warn)
        }
        NodeState::Halted { .. } | NodeState::NeedsTrustedBlock { .. } | NodeState::NotSigning { .. } => {
            (Glyph::Bad, Role::Bad)
        }
    }
}

/// The node's state as glyph, word and colour.
pub fn state_spans(canvas: &Canvas<'_>, state: &State) -> Vec<Span<'static>> {
    match state.snapshot() {
        Some(snapshot) => {
            let (glyph, role) = state_mark(&snapshot.state);
            let label = snapshot.state.label();
            vec![canvas.span(format!("{} {label}", canvas.look.glyph(glyph)), role)]
        }
        None => vec![canvas.span(format!("{} STARTING", canvas.look.glyph(Glyph::Info)), Role::Info)],
    }
}

fn status_line(canvas: &mut Canvas<'_>, state: &State) {
    let mut spans = state_spans(canvas, state);
    if let Some(snapshot) = state.snapshot() {
        spans.push(canvas.span(format!("  height {}", snapshot.chain.height), Role::Text));
    }
    canvas.line(0, &Line::from(spans));
    if canvas.height() > 1 {
        let text =
            format!("needs {WIDTH_MIN}x{HEIGHT_MIN}, has {}x{}", canvas.area.width, canvas.area.height);
        let line = Line::from(canvas.span(text, Role::Dim));
        canvas.line(1, &line);
    }
}

/// What stands at the right of the header, each with its importance.
fn standing(canvas: &Canvas<'_>, state: &State) -> Vec<(u8, Span<'static>)> {
    let mut right = Vec::new();
    let alerts = state.snapshot().map_or(&[][..], |snapshot| &snapshot.alerts);
    let open =
        alerts.iter().filter(|alert| alert.level > AlertLevel::Notice && !state.is_acknowledged(alert));
    let open = open.count();
    if open > 0 {
        let text = format!("{open} alert{} ", if open == 1 { "" } else { "s" });
        right.push((2, canvas.span(text, Role::Bad)));
    }
    match (state.node_data().map(|node| &node.link), state.hosting) {
        (Some(LinkState::Lost(_)), _) => right.push((4, canvas.span("NOT CONNECTED ", Role::Bad))),
        (Some(LinkState::Connecting), _) => right.push((4, canvas.span("CONNECTING ", Role::Info))),
        (_, Hosting::Replay) => right.push((3, canvas.span("REPLAY ", Role::Info))),
        (_, Hosting::View) => right.push((3, canvas.span("VIEW ", Role::Info))),
        (_, Hosting::Operate) => right.push((3, canvas.span("OPERATE ", Role::Warn))),
        (_, Hosting::Own) => {}
    }
    let (events, logs) = state.held_back();
    if state.frozen.is_some() {
        right.push((4, canvas.span(format!("FROZEN +{} new ", count(events + logs)), Role::Warn)));
    } else if !is_lost(state) && state.snapshot().is_some() && state.data_age_ms() > STALE_MS {
        right.push((4, canvas.span(format!("NO DATA FOR {} ", age(state.data_age_ms())), Role::Bad)));
    }
    right.push((1, canvas.span(format!("{} UTC ", clock(state.now_ms)), Role::Header)));
    right
}

fn is_lost(state: &State) -> bool {
    state.node_data().is_some_and(|node| matches!(node.link, LinkState::Lost(_)))
}

fn header(canvas: &mut Canvas<'_>, state: &State) {
    let style = canvas.look.style(Role::Header);
    canvas.tint(0, style);
    let name = state.node_data().map(|node| node.name.as_str()).filter(|name| !name.is_empty());
    let name = fit(name.unwrap_or(state.title.as_str()), 24, canvas.look.glyph(Glyph::More));
    let on_header = |mut span: Span<'static>| {
        span.style.bg = style.bg;
        span
    };
    let mut spans = vec![canvas.span(format!(" {name}"), Role::HeaderStrong)];
    if let Some(snapshot) = state.snapshot().filter(|_| canvas.width() >= 60) {
        spans.push(canvas.span(format!(" {}", snapshot.node.network), Role::Header));
    }
    spans.push(canvas.span("  ", Role::Header));
    spans.extend(state_spans(canvas, state).into_iter().map(on_header));
    if let Some(snapshot) = state.snapshot() {
        spans.push(canvas.span(format!("  height {}", count(snapshot.chain.height)), Role::Header));
    }
    let left = Line::from(spans);
    let mut right = standing(canvas, state);
    let width = |right: &[(u8, Span<'static>)]| right.iter().map(|(_, span)| span.width()).sum::<usize>();
    // Where there is no room the least important goes.
    while left.width() + width(&right) >= canvas.width() {
        let least = right.iter().map(|(importance, _)| *importance).min();
        let Some(least) = least else { break };
        right.retain(|(importance, _)| *importance != least);
    }
    let right = right.into_iter().map(|(_, mut span)| {
        span.style.bg = style.bg;
        span
    });
    canvas.line_right(0, &right.collect::<Line<'static>>());
    canvas.line(0, &left);
    tabs(canvas, state);
}

/// The screens at the left, the nodes of a devnet at the right.
fn tabs(canvas: &mut Canvas<'_>, state: &State) {
    let mut nodes = Vec::new();
    if state.live.nodes.len() > 1 {
        let total = state.live.nodes.len();
        nodes.push(canvas.span("node ", Role::Dim));
        // A narrow screen has no room for all of them.
        let narrow = canvas.width() < 60 || total > 8;
        if narrow {
            nodes.push(canvas.span(format!("{}/{total}", state.node + 1), Role::Text));
        }
        for index in (0..total).filter(|_| !narrow) {
            let role = if index == state.node { Role::Selection } else { Role::Text };
            nodes.push(canvas.span(format!(" {} ", index + 1), role));
        }
    }
    let nodes = Line::from(nodes);
    let room = canvas.width().saturating_sub(nodes.width() + usize::from(nodes.width() > 0));
    let several = state.live.nodes.len() > 1;
    let screens = || Screen::ALL.into_iter().filter(|screen| several || *screen != Screen::Fleet);
    let names_width: usize = screens().map(|screen| cells(screen.tab().1) + 3).sum();
    let mut spans = Vec::new();
    for screen in screens() {
        let (key, name) = screen.tab();
        let current = screen == state.screen;
        let role = if current { Role::Selection } else { Role::Text };
        // Where the names do not fit only the current one has its name.
        let name = if current || names_width <= room { format!(" {name}") } else { String::new() };
        let key_role = if current { Role::Selection } else { Role::Key };
        spans.push(canvas.span(format!(" {key}"), key_role));
        spans.push(canvas.span(name, role));
        if current || names_width > room {
            spans.push(canvas.span(" ", role));
        }
    }
    canvas.line(1, &Line::from(spans));
    canvas.line_right(1, &nodes);
}

fn footer(canvas: &mut Canvas<'_>, state: &State) {
    if let Some(input) = &state.input {
        let line = Line::from(vec![
            canvas.span(" filter ", Role::Dim),
            canvas.span(input.clone(), Role::Strong),
            canvas.glyph(Glyph::Cursor, Role::Strong),
            canvas.span("  Enter apply  Esc cancel  !text leaves out", Role::Dim),
        ]);
        canvas.line(0, &line);
        return;
    }
    if let Some(notice) = &state.notice {
        let line = Line::from(canvas.span(format!(" {notice}"), Role::Warn));
        canvas.line(0, &line);
        return;
    }
    if let Some(LinkState::Lost(reason)) = state.node_data().map(|node| &node.link) {
        let line = Line::from(canvas.span(format!(" {reason}  q leave"), Role::Bad));
        canvas.line(0, &line);
        return;
    }
    let mut hints: Vec<(&str, &str)> = Vec::new();
    if state.detail.is_some() {
        hints.push(("Esc", "close"));
    }
    if let Some(list) = state.focused_list() {
        if state.screen == Screen::Help {
            hints.push(("j/k", "scroll"));
        } else {
            hints.extend([("j/k", "move"), ("Enter", "detail"), ("/", "filter")]);
        }
        if list.sortable() > 0 {
            hints.push(("s/S", "sort"));
        }
    }
    if state.screen == Screen::Logs {
        hints.extend([("+/-", "level"), ("G", "follow")]);
    }
    if state.focused_list() == Some(ListId::Alerts) {
        hints.push(("a", "acknowledge"));
    }
    if state.screen == Screen::Host || state.screen == Screen::Votes || state.screen == Screen::Pool {
        hints.push(("Tab", "pane"));
    }
    if state.live.nodes.len() > 1 {
        hints.push(("[ ]", "node"));
    }
    hints.push(("Space", if state.frozen.is_some() { "run on" } else { "freeze" }));
    hints.extend([("?", "help"), ("q", "leave")]);
    // How to get help and how to leave stay; the hints before them go where there is no room.
    let width =
        |hints: &[(&str, &str)]| hints.iter().map(|(key, text)| cells(key) + cells(text) + 3).sum::<usize>();
    while hints.len() > 2 && width(&hints) > canvas.width() {
        hints.remove(hints.len() - 3);
    }
    let mut spans = Vec::new();
    for (key, text) in hints {
        spans.push(canvas.span(format!(" {key}"), Role::Key));
        spans.push(canvas.span(format!(" {text} "), Role::Dim));
    }
    canvas.line(0, &Line::from(spans));
}

/// What leaving means for the network, in one or two lines.
fn consequences(state: &State) -> Vec<(String, Role)> {
    if state.hosting == Hosting::Replay {
        return vec![("A recording; no node is touched.".to_owned(), Role::Text)];
    }
    if !state.can_stop() {
        let text = "This console only views; `attach --operate` can stop the node.";
        return vec![(text.to_owned(), Role::Text)];
    }
    let Some(snapshot) = state.snapshot() else {
        return vec![("The node is still starting.".to_owned(), Role::Dim)];
    };
    let nodes = state.live.nodes.len();
    if nodes > 1 && state.hosting == Hosting::Own {
        return vec![(format!("All {nodes} nodes run in this program and stop with it."), Role::Text)];
    }
    let own = snapshot.members.iter().find(|member| member.own).map_or(0, |member| member.weight);
    if own == 0 {
        return vec![("This node does not vote; the network runs on without it.".to_owned(), Role::Text)];
    }
    let consensus = &snapshot.consensus;
    let left = consensus.connected_weight.saturating_sub(own);
    let mut lines = Vec::new();
    if left >= consensus.quorum_weight {
        let text = format!("Without it weight {left} remains, a quorum needs {}.", consensus.quorum_weight);
        lines.push((text, Role::Text));
    } else {
        let text =
            format!("Without it weight {left} remains: NO QUORUM, it needs {}.", consensus.quorum_weight);
        lines.push((text, Role::Bad));
    }
    if let Some(turn) = consensus.own_turn_in {
        let when = if turn == 0 { "now".to_owned() } else { format!("in {turn} heights") };
        lines.push((format!("It proposes the next block {when}."), Role::Dim));
    }
    lines
}

fn dialog(canvas: &mut Canvas<'_>, state: &State, choice: QuitChoice) {
    let several = state.live.nodes.len() > 1 && state.hosting == Hosting::Own;
    let mut buttons = Vec::new();
    for option in quit_choices(state) {
        let text = match option {
            QuitChoice::Detach => "Detach",
            QuitChoice::Stop if several => "Stop all nodes",
            QuitChoice::Stop => "Stop the node",
            QuitChoice::Cancel => "Cancel",
        };
        let selected = *option == choice;
        // Brackets show the choice where colours do not.
        let text = if selected { format!("[ {text} ]") } else { format!("  {text}  ") };
        buttons.push(canvas.span(text, if selected { Role::Selection } else { Role::Text }));
        buttons.push(canvas.span(" ", Role::Text));
    }
    let mut lines: Vec<Line<'static>> =
        consequences(state).into_iter().map(|(text, role)| Line::from(canvas.span(text, role))).collect();
    if state.can_detach {
        lines.push(Line::from(canvas.span("Detach closes the console; the node keeps voting.", Role::Dim)));
    }
    lines.push(Line::default());
    lines.push(Line::from(buttons));
    lines.push(Line::from(canvas.span("arrows choose, Enter confirms, Esc cancels", Role::Dim)));
    boxed(canvas, "Leave?", &lines);
}

/// Asks for the name of the node that is to be stopped.
fn confirmation(canvas: &mut Canvas<'_>, state: &State, stopping: &Stopping) {
    let mut lines: Vec<Line<'static>> =
        consequences(state).into_iter().map(|(text, role)| Line::from(canvas.span(text, role))).collect();
    lines.push(Line::default());
    lines.push(Line::from(vec![
        canvas.span("To stop it type its name, ", Role::Text),
        canvas.span(stopping.name.to_string(), Role::Strong),
        canvas.span(": ", Role::Text),
        canvas.span(stopping.typed.clone(), Role::Strong),
        canvas.glyph(Glyph::Cursor, Role::Strong),
    ]));
    lines.push(Line::from(canvas.span("Enter stops it, Esc cancels", Role::Dim)));
    boxed(canvas, "Stop the node?", &lines);
}

/// Lines in a box in the middle.
fn boxed(canvas: &mut Canvas<'_>, title: &str, lines: &[Line<'static>]) {
    let widest = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(widest + 4).unwrap_or(u16::MAX).min(canvas.area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(canvas.area.height);
    let area = Rect {
        x: canvas.area.x + (canvas.area.width - width) / 2,
        y: canvas.area.y + (canvas.area.height - height) / 2,
        width,
        height,
    };
    let mut part = canvas.part(area);
    part.clear();
    let mut inner = part.pane(title, "", true);
    for (row, line) in lines.iter().enumerate() {
        inner.line(row, line);
    }
}
