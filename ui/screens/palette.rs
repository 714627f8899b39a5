//! The palette over the screen: what was typed in the last row, what fits it above.

use crate::console::palette::{Palette, proposals};
use crate::console::state::State;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::pane::Canvas;
use crate::widgets::table::window;
use ratatui::layout::Rect;
use ratatui::text::Line;

/// Most proposals shown at once.
const ROWS_MAX: usize = 10;

/// Draws it.
pub fn draw(canvas: &mut Canvas<'_>, state: &State, palette: &Palette) {
    let fitting = proposals(state, &palette.text);
    let area = canvas.area;
    let footer = Rect { y: area.bottom().saturating_sub(1), height: 1.min(area.height), ..area };
    let rows = fitting.len().clamp(1, ROWS_MAX).min(usize::from(area.height.saturating_sub(5)));
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX);
    let above = Rect { y: footer.y.saturating_sub(height), height: height.min(footer.y), ..area };
    let mut part = canvas.part(above);
    part.clear();
    let count = format!("{} fit", fitting.len());
    let mut pane = part.pane("Commands", &count, true);
    if fitting.is_empty() {
        let line = Line::from(pane.span("nothing is called so", Role::Warn));
        pane.line(0, &line);
    }
    let chosen = palette.choice.min(fitting.len().saturating_sub(1));
    let first = window(fitting.len(), pane.height(), chosen);
    for (row, (index, each)) in fitting.iter().enumerate().skip(first).take(pane.height()).enumerate() {
        let line = Line::from(vec![
            pane.span(format!("{:<22} ", each.text), Role::Strong),
            pane.span(format!("{:<9} ", each.keys), Role::Key),
            pane.span(each.explained.clone(), Role::Dim),
        ]);
        pane.line(row, &line);
        if index == chosen {
            let style = pane.look.style(Role::Selection);
            pane.tint(row, style);
        }
    }
    let mut last = canvas.part(footer);
    last.clear();
    let line = Line::from(vec![
        last.span(" :", Role::Key),
        last.span(palette.text.clone(), Role::Strong),
        last.glyph(Glyph::Cursor, Role::Strong),
        last.span("  Tab complete  Enter run  Esc cancel", Role::Dim),
    ]);
    last.line(0, &line);
}
