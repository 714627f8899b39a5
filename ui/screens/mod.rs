//! One file a screen; each draws into a canvas and lists its rows in the order shown.
//!
//! `rows` of a screen is the one place that filters and sorts: drawing and the cursor both use it.

pub mod chain;
pub mod detail;
pub mod fleet;
pub mod help;
pub mod host;
pub mod logs;
pub mod overview;
pub mod palette;
pub mod peers;
pub mod pool;
pub mod starting;
pub mod votes;

use crate::console::state::{ListId, ListState, RowKey, State};
use crate::console::update::position;
use crate::keymap::Screen;
use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::pane::Canvas;
use crate::widgets::table::Shown;
use masternode::telemetry::snapshot::SignMark;
use std::cmp::Ordering;

/// Draws the screen the operator is on.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    match state.screen {
        Screen::Help => help::draw(canvas, state),
        Screen::Fleet => fleet::draw(canvas, state),
        Screen::Logs if state.detail.is_none() => logs::draw(canvas, state),
        _ if state.snapshot().is_none() => starting::draw(canvas, state),
        _ if state.detail.is_some() => detail::draw(canvas, state),
        Screen::Overview => overview::draw(canvas, state),
        Screen::Votes => votes::draw(canvas, state),
        Screen::Peers => peers::draw(canvas, state),
        Screen::Pool => pool::draw(canvas, state),
        Screen::Chain => chain::draw(canvas, state),
        Screen::Host => host::draw(canvas, state),
        Screen::Logs => detail::draw(canvas, state),
    }
}

/// Identities of the rows of a list, in the order shown.
pub fn keys(state: &State, list: ListId) -> Vec<RowKey> {
    match list {
        ListId::Members => votes::members(state).iter().map(|member| RowKey::Member(member.voter)).collect(),
        ListId::Stream => votes::stream(state).iter().map(|event| RowKey::Number(event.sequence)).collect(),
        ListId::Open => votes::open(state).iter().map(|open| RowKey::Transaction(open.txid)).collect(),
        ListId::Peers => peers::rows(state).iter().map(|peer| RowKey::Peer(peer.id.clone())).collect(),
        ListId::Pool => pool::rows(state).iter().map(|entry| RowKey::Transaction(entry.txid)).collect(),
        ListId::Rejections => {
            pool::rejections(state).iter().map(|rejection| RowKey::Rejection(rejection.txid)).collect()
        }
        ListId::Chain => chain::rows(state).iter().map(|block| RowKey::Height(block.height)).collect(),
        ListId::Logs => logs::rows(state).iter().map(|line| RowKey::Number(line.number)).collect(),
        ListId::Help => Vec::new(),
        ListId::Fleet => fleet::rows(state).into_iter().map(RowKey::Node).collect(),
        ListId::Alerts => host::alerts(state).into_iter().map(host::key).collect(),
        ListId::Audit => host::audit(state).iter().map(|line| RowKey::Number(line.number)).collect(),
    }
}

/// Cursor and order of a list for its table.
pub fn shown(state: &State, list: ListId) -> Shown {
    let cursor = state.list(list);
    Shown {
        selected: Some(position(state, list, &keys(state, list))),
        focused: state.focused_list() == Some(list),
        sorted: cursor.sort.map(|column| (column, cursor.descending)),
    }
}

/// Title of a list: its name with the filter that hides part of it.
pub fn title(state: &State, list: ListId, name: &str) -> String {
    let filter = &state.list(list).filter;
    if filter.is_empty() { name.to_owned() } else { format!("{name} /{filter}") }
}

/// Whether a row passes a filter: contains its text in any case, or does not for `!text`.
pub fn passes(filter: &str, text: &str) -> bool {
    let (inverted, wanted) = filter.strip_prefix('!').map_or((false, filter), |rest| (true, rest));
    wanted.is_empty() || text.to_lowercase().contains(&wanted.to_lowercase()) != inverted
}

/// Sorts rows by the chosen column; without one they keep their own order, or its reverse.
pub fn arrange<T>(rows: &mut [T], cursor: &ListState, compare: impl Fn(usize, &T, &T) -> Ordering) {
    if let Some(column) = cursor.sort {
        rows.sort_by(|a, b| if cursor.descending { compare(column, b, a) } else { compare(column, a, b) });
    }
}

/// Glyph, role and word of a mark.
pub const fn mark(mark: SignMark) -> (Glyph, Role, &'static str) {
    match mark {
        SignMark::Signed => (Glyph::Signed, Role::Good, "signed"),
        SignMark::Late => (Glyph::Late, Role::Warn, "late"),
        SignMark::Missed => (Glyph::Missed, Role::Bad, "missed"),
        SignMark::Absent => (Glyph::Absent, Role::Dim, "absent"),
    }
}

/// All marks, for legends.
pub const MARKS: [SignMark; 4] = [SignMark::Signed, SignMark::Late, SignMark::Missed, SignMark::Absent];

/// The word and glyph of a direction.
pub fn direction(look: &Look, inbound: bool) -> String {
    if inbound {
        format!("{} in", look.glyph(Glyph::Inbound))
    } else {
        format!("{} out", look.glyph(Glyph::Outbound))
    }
}
