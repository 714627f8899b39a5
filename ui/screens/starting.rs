//! Shown until a node has its first snapshot: the steps of starting up with their time, and the log.

use crate::console::state::State;
use crate::screens::logs;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::age;
use crate::widgets::pane::Canvas;
use ratatui::layout::Rect;
use ratatui::text::Line;

/// Draws it.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let data = state.shown();
    let phases = &data.phases;
    let rows = u16::try_from(phases.len().max(1) + 3).unwrap_or(u16::MAX).min(canvas.area.height);
    let area = canvas.area;
    {
        let mut part = canvas.part(Rect { height: rows, ..area });
        let elapsed = age(state.now_ms.saturating_sub(state.started_ms));
        let mut pane = part.pane(&format!("Starting {}", state.title), &elapsed, false);
        if phases.is_empty() {
            let line = Line::from(pane.span("waiting for the first report of the node", Role::Dim));
            pane.line(0, &line);
        }
        // The last step is the one under way, so it stays visible when there is little room.
        let first = phases.len().saturating_sub(pane.height().max(1));
        for (row, index) in (first..phases.len()).enumerate() {
            let Some(phase) = phases.get(index) else { break };
            let next = phases.get(index + 1);
            let ended = next.map_or(state.now_ms, |next| next.began_ms);
            let (glyph, role, word) = if next.is_some() {
                (Glyph::Good, Role::Good, "done")
            } else {
                (Glyph::Info, Role::Info, "now ")
            };
            let line = Line::from(vec![
                pane.span(format!("{} {word} ", pane.look.glyph(glyph)), role),
                pane.span(format!("{:>7}  ", age(ended.saturating_sub(phase.began_ms))), Role::Dim),
                pane.span(phase.name.as_str(), Role::Text),
            ]);
            pane.line(row, &line);
        }
    }
    let rest = Rect { y: area.y + rows, height: area.height - rows, ..area };
    if rest.height > 2 {
        logs::tail(&mut canvas.part(rest), state, "Log");
    }
}
