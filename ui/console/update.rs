//! `update(&mut State, Message) -> Vec<Command>`: every change of the console's state.

use crate::console::message::{Command, Leaving, Message};
use crate::console::palette::{self, Palette};
use crate::console::state::{FILTER_CHARS_MAX, Hosting, ListId, QuitChoice, RowKey, State, Stopping};
use crate::keymap::{Action, Screen, lookup};
use crate::screens;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use masternode::telemetry::log::LogLevel;

/// Rows of `Ctrl-U` and `Ctrl-D`.
const PAGE_ROWS: usize = 10;
/// Columns of one step to the side in the log.
const SIDE_COLUMNS: usize = 8;
/// Characters copied at once: terminals bound what they take.
const COPY_CHARS_MAX: usize = 4_096;
/// Farthest the log scrolls to the right.
const SIDE_COLUMNS_MAX: usize = 4096;

/// Takes a message in.
pub fn update(state: &mut State, message: Message) -> Vec<Command> {
    match message {
        Message::Now(now_ms) => state.now_ms = now_ms,
        Message::Pasted => {}
        Message::Key(key) => return on_key(state, key),
        Message::Snapshot { node, snapshot } => {
            if let Some(data) = state.live.nodes.get_mut(node) {
                data.name = snapshot.node.name.clone();
                data.snapshot = Some(snapshot);
            }
        }
        Message::Events { node, events } => {
            if let Some(data) = state.live.nodes.get_mut(node) {
                data.take_events(events);
            }
        }
        Message::Link { node, state: link } => {
            if let Some(data) = state.live.nodes.get_mut(node) {
                data.link = link;
            }
        }
        Message::Logs(page) => state.live.logs.take_page(page),
        Message::Phases(phases) => state.live.phases = phases,
    }
    Vec::new()
}

fn on_key(state: &mut State, key: KeyEvent) -> Vec<Command> {
    state.notice = None;
    if let Some(stopping) = state.stopping.take() {
        return on_stopping_key(state, stopping, key);
    }
    if let Some(choice) = state.dialog {
        return on_dialog_key(state, choice, key);
    }
    if state.palette.is_some() && !is_control(key, 'c') {
        return palette::on_key(state, key);
    }
    if state.input.is_some() && !is_control(key, 'c') {
        on_filter_key(state, key);
        return Vec::new();
    }
    let binding = lookup(key, |context| state.applies(context));
    binding.map_or_else(Vec::new, |binding| act(state, binding.action))
}

fn is_control(key: KeyEvent, letter: char) -> bool {
    key.code == KeyCode::Char(letter) && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// The buttons of the question on leaving, in order.
pub fn quit_choices(state: &State) -> &'static [QuitChoice] {
    // On the fleet no node is the one that is meant.
    let names_one = state.screen != Screen::Fleet || state.hosting == Hosting::Own;
    match (state.can_detach, state.can_stop() && names_one) {
        (true, true) => &[QuitChoice::Detach, QuitChoice::Stop, QuitChoice::Cancel],
        (true, false) => &[QuitChoice::Detach, QuitChoice::Cancel],
        (false, _) => &[QuitChoice::Stop, QuitChoice::Cancel],
    }
}

fn on_dialog_key(state: &mut State, choice: QuitChoice, key: KeyEvent) -> Vec<Command> {
    let choices = quit_choices(state);
    let at = choices.iter().position(|other| *other == choice).unwrap_or(0);
    let offered = |choice: QuitChoice| choices.contains(&choice).then_some(choice);
    let moved = match key.code {
        KeyCode::Left | KeyCode::BackTab | KeyCode::Char('h') => choices.get(at.saturating_sub(1)).copied(),
        KeyCode::Right | KeyCode::Char('l') => choices.get(at + 1).copied(),
        KeyCode::Tab => choices.get((at + 1) % choices.len().max(1)).copied(),
        // A letter only moves to its button: leaving always takes a second key.
        KeyCode::Char('d') => offered(QuitChoice::Detach),
        KeyCode::Char('s') => offered(QuitChoice::Stop),
        KeyCode::Char('c') if key.modifiers.is_empty() => offered(QuitChoice::Cancel),
        KeyCode::Esc => {
            state.dialog = None;
            return Vec::new();
        }
        KeyCode::Enter => {
            state.dialog = None;
            return match choice {
                QuitChoice::Detach => vec![Command::Leave(Leaving::Detach)],
                QuitChoice::Stop => confirm_stop(state),
                QuitChoice::Cancel => Vec::new(),
            };
        }
        _ => None,
    };
    if moved.is_some() {
        state.dialog = moved;
    }
    Vec::new()
}

/// A node that serves a network is stopped by its name, so that a habit of the fingers cannot do it. Those of a devnet, and
/// one that has not come up, are not.
fn confirm_stop(state: &mut State) -> Vec<Command> {
    let of_devnet = state.hosting == Hosting::Own && state.live.nodes.len() > 1;
    match state.snapshot() {
        Some(snapshot) if !of_devnet => {
            let name = snapshot.node.name.clone();
            state.stopping = Some(Stopping { node: state.node, name, typed: String::new() });
            Vec::new()
        }
        _ => vec![Command::Leave(Leaving::Stop(state.node))],
    }
}

fn on_stopping_key(state: &mut State, mut stopping: Stopping, key: KeyEvent) -> Vec<Command> {
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter if stopping.typed == stopping.name.as_str() => {
            return vec![Command::Leave(Leaving::Stop(stopping.node))];
        }
        KeyCode::Enter => {
            state.notice = Some(format!("not stopped: `{}` is not its name", stopping.typed));
            return Vec::new();
        }
        KeyCode::Backspace => drop(stopping.typed.pop()),
        KeyCode::Char(character)
            if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
                && stopping.typed.chars().count() < FILTER_CHARS_MAX =>
        {
            stopping.typed.push(character);
        }
        _ if is_control(key, 'c') => return Vec::new(),
        _ => {}
    }
    state.stopping = Some(stopping);
    Vec::new()
}

fn on_filter_key(state: &mut State, key: KeyEvent) {
    let Some(input) = state.input.as_mut() else { return };
    match key.code {
        KeyCode::Esc => state.input = None,
        KeyCode::Enter => {
            let text = state.input.take().unwrap_or_default();
            if let Some(list) = state.focused_list().and_then(|list| state.list_mut(list)) {
                list.filter = text;
                list.selected = None;
                list.index = 0;
            }
        }
        KeyCode::Backspace => {
            input.pop();
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => input.clear(),
        KeyCode::Char(character)
            if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
                && !character.is_control()
                && input.chars().count() < FILTER_CHARS_MAX =>
        {
            input.push(character);
        }
        _ => {}
    }
}

/// Does what a row of the registry means.
pub fn act(state: &mut State, action: Action) -> Vec<Command> {
    match action {
        Action::Show(screen) => show(state, screen),
        Action::NextPane => move_focus(state, 1),
        Action::PreviousPane => move_focus(state, -1),
        Action::Left | Action::Right => sideways(state, action == Action::Right),
        Action::Up => move_cursor(state, |at, _| at.saturating_sub(1)),
        Action::Down => move_cursor(state, |at, _| at.saturating_add(1)),
        Action::PageUp => move_cursor(state, |at, _| at.saturating_sub(PAGE_ROWS)),
        Action::PageDown => move_cursor(state, |at, _| at.saturating_add(PAGE_ROWS)),
        Action::First => move_cursor(state, |_, _| 0),
        Action::Last => move_cursor(state, |_, count| count),
        Action::Open => open(state),
        Action::Back => back(state),
        Action::Filter => {
            let current = state.focused_list().map(|list| state.list(list).filter.clone());
            if state.focused_list() != Some(ListId::Help) {
                state.input = current;
            }
        }
        Action::Sort => sort(state),
        Action::SortReverse => {
            if let Some(list) = state.focused_list().and_then(|list| state.list_mut(list)) {
                list.descending = !list.descending;
                list.sort = list.sort.or(Some(0));
            }
        }
        Action::LevelUp => state.level = neighbour(state.level, 1),
        Action::LevelDown => state.level = neighbour(state.level, -1),
        Action::Freeze => {
            state.frozen = if state.frozen.is_some() { None } else { Some(Box::new(state.live.clone())) };
        }
        Action::Palette => state.palette = Some(Palette::default()),
        Action::Zoom => state.zoomed = !state.zoomed,
        Action::Copy => return copy(state),
        Action::Acknowledge => acknowledge(state),
        Action::PreviousNode => switch_node(state, state.node.checked_sub(1)),
        Action::NextNode => switch_node(state, Some(state.node + 1)),
        Action::AllNodes => all_nodes(state),
        Action::Node(number) => switch_node(state, usize::from(number).checked_sub(1)),
        Action::Theme => {
            state.look = (state.look + 1) % state.looks.len().max(1);
            state.notice = state.current_look().map(|look| format!("theme {}", look.name));
        }
        Action::Repaint => return vec![Command::Repaint],
        Action::Detach => return vec![Command::Leave(Leaving::Detach)],
        Action::Quit => {
            state.palette = None;
            state.dialog = Some(QuitChoice::Cancel);
        }
        Action::Suspend if state.hosting != Hosting::Own => return vec![Command::Suspend],
        Action::Suspend => {
            state.notice = Some("not suspended: the node has to keep voting; q leaves".to_owned());
        }
    }
    Vec::new()
}

/// Goes to a screen.
pub fn show(state: &mut State, screen: Screen) {
    if screen == Screen::Help {
        if state.screen == Screen::Help {
            return back(state);
        }
        state.before_help = state.screen;
    }
    state.screen = screen;
    state.focus = 0;
    state.detail = None;
}

fn back(state: &mut State) {
    if state.detail.is_some() {
        state.detail = None;
    } else if state.screen == Screen::Help {
        state.screen = state.before_help;
        state.focus = 0;
    } else if state.zoomed {
        state.zoomed = false;
    } else if let Some(list) = state.focused_list().and_then(|list| state.list_mut(list))
        && !list.filter.is_empty()
    {
        list.filter.clear();
    } else if state.frozen.is_some() {
        state.frozen = None;
    }
}

fn move_focus(state: &mut State, step: isize) {
    let panes = ListId::of(state.screen).len();
    if panes > 1 {
        state.focus = (state.focus.min(panes) + panes).saturating_add_signed(step) % panes;
        state.detail = None;
    }
}

fn sideways(state: &mut State, right: bool) {
    if state.focused_list() == Some(ListId::Logs) {
        if let Some(list) = state.list_mut(ListId::Logs) {
            let column =
                if right { list.column + SIDE_COLUMNS } else { list.column.saturating_sub(SIDE_COLUMNS) };
            list.column = column.min(SIDE_COLUMNS_MAX);
        }
    } else {
        move_focus(state, if right { 1 } else { -1 });
    }
}

/// Moves the cursor of the focused list; `to` gets where it is and how many rows there are.
fn move_cursor(state: &mut State, to: impl Fn(usize, usize) -> usize) {
    let Some(list) = state.focused_list() else { return };
    if list == ListId::Help {
        let at = state.list(list).index;
        let count = screens::help::rows(state);
        if let Some(help) = state.list_mut(list) {
            help.index = to(at, count).min(count.saturating_sub(1));
        }
        return;
    }
    let keys = screens::keys(state, list);
    let at = position(state, list, &keys);
    let next = to(at, keys.len()).min(keys.len().saturating_sub(1));
    // The end of a list that grows is followed, not a row in it.
    let follow = list.follows() && next + 1 >= keys.len();
    let selected = if follow { None } else { keys.get(next).cloned() };
    if state.detail.is_some() {
        state.detail = keys.get(next).cloned();
    }
    if let Some(list) = state.list_mut(list) {
        list.selected = selected;
        list.index = next;
    }
}

/// Where the cursor of a list is among `keys`.
pub fn position(state: &State, list: ListId, keys: &[RowKey]) -> usize {
    let last = keys.len().saturating_sub(1);
    let cursor = state.list(list);
    match &cursor.selected {
        None if list.follows() => last,
        None => 0,
        Some(key) => keys.iter().position(|other| other == key).unwrap_or(cursor.index).min(last),
    }
}

fn open(state: &mut State) {
    let Some(list) = state.focused_list().filter(|list| *list != ListId::Help) else { return };
    let keys = screens::keys(state, list);
    let at = position(state, list, &keys);
    if let Some(RowKey::Node(node)) = keys.get(at) {
        switch_node(state, Some(*node));
        return show(state, Screen::Overview);
    }
    state.detail = keys.get(at).cloned();
    if let Some(cursor) = state.list_mut(list) {
        cursor.selected = keys.get(at).cloned();
        cursor.index = at;
    }
}

/// What a row is called elsewhere: for commands, explorers and other people.
fn copy(state: &mut State) -> Vec<Command> {
    let Some(list) = state.focused_list() else { return Vec::new() };
    let keys = screens::keys(state, list);
    let Some(key) = keys.get(position(state, list, &keys)) else { return Vec::new() };
    let text = match key {
        RowKey::Peer(id) => id.clone(),
        RowKey::Transaction(txid) | RowKey::Rejection(txid) => txid.to_string(),
        RowKey::Height(height) => height.to_string(),
        RowKey::Alert(_, text) => text.clone(),
        RowKey::Node(node) => {
            state.live.nodes.get(*node).map(|node| node.name.to_string()).unwrap_or_default()
        }
        RowKey::Member(voter) => {
            let members = state.snapshot().map_or(&[][..], |snapshot| &snapshot.members);
            let found = members.iter().find(|member| member.voter == *voter);
            found.map(|member| member.vote_key.to_string()).unwrap_or_default()
        }
        RowKey::Number(number) => copied_record(state, list, *number),
    };
    let shown: String = text.chars().take(40).collect();
    state.notice = Some(format!("copied {shown}, if the terminal lets programs do that"));
    vec![Command::Copy(text.chars().take(COPY_CHARS_MAX).collect())]
}

fn copied_record(state: &State, list: ListId, number: u64) -> String {
    if list == ListId::Stream {
        let events = state.node_data().map(|node| &node.stream);
        let found = events.and_then(|events| events.iter().find(|event| event.sequence == number));
        return found.map(|event| screens::votes::describe(&event.kind).1).unwrap_or_default();
    }
    let found = state.shown().logs.all().find(|line| line.number == number);
    found.map(|line| screens::logs::text(&line.record)).unwrap_or_default()
}

/// Acknowledges the selected alert and goes on to the next.
fn acknowledge(state: &mut State) {
    let keys = screens::keys(state, ListId::Alerts);
    if let Some(RowKey::Alert(time_ms, text)) = keys.get(position(state, ListId::Alerts, &keys)).cloned() {
        state.acknowledge(time_ms, text);
        if let Some(list) = state.list_mut(ListId::Alerts) {
            list.selected = None;
            list.index = 0;
        }
    }
}

fn sort(state: &mut State) {
    let Some(list) = state.focused_list() else { return };
    let columns = list.sortable();
    if let Some(cursor) = state.list_mut(list).filter(|_| columns > 0) {
        cursor.sort = match cursor.sort {
            None => Some(0),
            Some(column) if column + 1 < columns => Some(column + 1),
            // After the last column comes the list's own order again.
            Some(_) => None,
        };
        cursor.descending = false;
    }
}

fn neighbour(level: LogLevel, step: isize) -> LogLevel {
    const LEVELS: [LogLevel; 5] =
        [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];
    let at = LEVELS.iter().position(|other| *other == level).unwrap_or(0);
    LEVELS.get(at.saturating_add_signed(step)).copied().unwrap_or(level)
}

/// Shows the log of all nodes, or of the one on screen again.
fn all_nodes(state: &mut State) {
    state.all_nodes = !state.all_nodes;
    let whose = if state.all_nodes { "all nodes" } else { "the node on screen" };
    state.notice = Some(format!("log of {whose}"));
}

/// Shows another node, if there is one of that number.
pub fn switch_node(state: &mut State, node: Option<usize>) {
    let Some(node) = node.filter(|node| *node < state.live.nodes.len()) else { return };
    if node == state.node {
        return;
    }
    state.node = node;
    state.detail = None;
    for list in &mut state.lists {
        list.selected = None;
        list.index = 0;
    }
}
