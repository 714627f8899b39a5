//! Help: the key registry as it applies here, and what the symbols mean.

use crate::console::state::{ListId, State};
use crate::keymap::{Action, Binding, Context, Danger, REGISTRY};
use crate::screens::{MARKS, mark};
use crate::theme::roles::Role;
use crate::widgets::pane::Canvas;
use ratatui::text::Line;

/// One line of the help.
enum Row {
    Heading(&'static str),
    Key(&'static Binding),
}

const CONTEXTS: [Context; 7] = [
    Context::Everywhere,
    Context::Detachable,
    Context::SeveralNodes,
    Context::Lists,
    Context::Tables,
    Context::Logs,
    Context::Alerts,
];

/// Keys of contexts that cannot occur in this console are left out.
fn lines(state: &State) -> Vec<Row> {
    let mut lines = Vec::new();
    for context in CONTEXTS {
        let possible = match context {
            Context::SeveralNodes | Context::Detachable => state.applies(context),
            _ => true,
        };
        if possible {
            lines.push(Row::Heading(context.title()));
            lines.extend(
                REGISTRY
                    .iter()
                    .filter(|binding| binding.context == context && exists(state, binding.action))
                    .map(Row::Key),
            );
        }
    }
    lines
}

/// Keys of nodes that are not there are left out.
fn exists(state: &State, action: Action) -> bool {
    match action {
        Action::Node(number) => usize::from(number) <= state.live.nodes.len(),
        _ => true,
    }
}

/// How many lines there are.
pub fn rows(state: &State) -> usize {
    lines(state).len()
}

/// Draws the screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let lines = lines(state);
    let version = state.snapshot().map(|snapshot| format!("masternode {}", snapshot.node.version));
    let mut pane = canvas.pane("Help", version.as_deref().unwrap_or("masternode"), true);
    let columns = if pane.width() >= 120 { 2 } else { 1 };
    let height = pane.height().saturating_sub(2);
    let visible = (height * columns).max(1);
    let first = state.list(ListId::Help).index.min(lines.len().saturating_sub(visible));
    for (index, row) in lines.iter().skip(first).take(visible).enumerate() {
        let (column, at) = (index / height.max(1), index % height.max(1));
        let text = match row {
            Row::Heading(title) => Line::from(pane.span(*title, Role::Title)),
            Row::Key(binding) => {
                let mut spans = vec![
                    pane.span(format!("  {:<13}", binding.label), Role::Key),
                    pane.span(binding.description, Role::Text),
                ];
                if binding.danger != Danger::None {
                    spans.push(pane.span("  asks first", Role::Warn));
                }
                Line::from(spans)
            }
        };
        pane.line_at(column * 64, at, &text);
    }
    let mut legend = Vec::new();
    for each in MARKS {
        let (glyph, role, word) = mark(each);
        legend.push(pane.span(format!("{} {word}   ", pane.look.glyph(glyph)), role));
    }
    let left = lines.len().saturating_sub(first + visible);
    if left > 0 {
        legend.push(pane.span(format!("{left} more below, j scrolls"), Role::Dim));
    }
    let row = pane.height().saturating_sub(1);
    pane.line(row, &Line::from(legend));
}
