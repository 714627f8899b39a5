//! A rectangle with a border, a title and a note; text put into it by rows.

use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::{cells, fit};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Where and how to draw: a buffer, a rectangle inside it, and the theme.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub area: Rect,
    pub look: &'a Look,
}

impl<'a> Canvas<'a> {
    /// A canvas on the part of `area` that is in the buffer.
    pub fn new(buffer: &'a mut Buffer, area: Rect, look: &'a Look) -> Self {
        let area = area.intersection(buffer.area);
        Self { buffer, area, look }
    }

    /// A part of this canvas, clamped to it.
    pub fn part(&mut self, area: Rect) -> Canvas<'_> {
        Canvas { area: area.intersection(self.area), buffer: self.buffer, look: self.look }
    }

    /// Rows of text that fit.
    pub fn height(&self) -> usize {
        usize::from(self.area.height)
    }

    /// Cells in a row.
    pub fn width(&self) -> usize {
        usize::from(self.area.width)
    }

    /// A piece of text in a role.
    pub fn span(&self, text: impl Into<String>, role: Role) -> Span<'static> {
        Span::styled(text.into(), self.look.style(role))
    }

    /// A symbol in a role.
    pub fn glyph(&self, glyph: Glyph, role: Role) -> Span<'static> {
        self.span(self.look.glyph(glyph), role)
    }

    /// Draws a line in row `row`, cut at the right edge.
    pub fn line(&mut self, row: usize, line: &Line<'_>) {
        self.line_at(0, row, line);
    }

    /// Draws a line from column `column` on.
    pub fn line_at(&mut self, column: usize, row: usize, line: &Line<'_>) {
        let (Ok(row), Ok(column)) = (u16::try_from(row), u16::try_from(column)) else { return };
        if row >= self.area.height || column >= self.area.width {
            return;
        }
        let (x, y) = (self.area.x + column, self.area.y + row);
        self.buffer.set_line(x, y, line, self.area.width - column);
    }

    /// Draws text that ends at the right edge of row `row`.
    pub fn line_right(&mut self, row: usize, line: &Line<'_>) {
        let column = self.width().saturating_sub(line.width());
        self.line_at(column, row, line);
    }

    /// Patches the style of a row.
    pub fn tint(&mut self, row: usize, style: Style) {
        if let Ok(row) = u16::try_from(row)
            && row < self.area.height
        {
            self.buffer.set_style(Rect { y: self.area.y + row, height: 1, ..self.area }, style);
        }
    }

    /// Clears to the theme's ground.
    pub fn clear(&mut self) {
        let style = self.look.style(Role::Text);
        for y in self.area.top()..self.area.bottom() {
            for x in self.area.left()..self.area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                    cell.set_style(style);
                }
            }
        }
    }

    /// Draws a border with a title and a note at its right; the canvas inside it. Without room for a
    /// border and a row there is nothing inside.
    pub fn pane(&mut self, title: &str, note: &str, focused: bool) -> Canvas<'_> {
        let role = if focused { Role::Focus } else { Role::Border };
        self.border(role);
        let more = self.look.glyph(Glyph::More).to_owned();
        let room = self.width().saturating_sub(4);
        let title = fit(title, room.saturating_sub(2), &more);
        let title_width = cells(&title) + 2;
        if room > 2 {
            let span = self.span(format!(" {title} "), Role::Title);
            self.line_at(2, 0, &Line::from(span));
        }
        let note_room = room.saturating_sub(title_width + 1);
        if !note.is_empty() && note_room > 4 {
            let note = fit(note, note_room - 2, &more);
            let span = self.span(format!(" {note} "), Role::Dim);
            let column = self.width().saturating_sub(cells(&note) + 4);
            self.line_at(column, 0, &Line::from(span));
        }
        let area = self.area;
        let inner = if area.width > 4 && area.height > 2 {
            Rect { x: area.x + 2, y: area.y + 1, width: area.width - 4, height: area.height - 2 }
        } else {
            Rect { width: 0, height: 0, ..area }
        };
        Canvas { buffer: self.buffer, area: inner, look: self.look }
    }

    fn border(&mut self, role: Role) {
        let area = self.area;
        if area.width < 2 || area.height < 2 {
            return;
        }
        let style = self.look.style(role);
        let (left, right, top, bottom) = (area.left(), area.right() - 1, area.top(), area.bottom() - 1);
        let look = self.look;
        let mut put = |x: u16, y: u16, glyph: Glyph| {
            if let Some(cell) = self.buffer.cell_mut((x, y)) {
                cell.set_symbol(look.glyph(glyph)).set_style(style);
            }
        };
        for x in left..=right {
            put(x, top, Glyph::Horizontal);
            put(x, bottom, Glyph::Horizontal);
        }
        for y in top..=bottom {
            put(left, y, Glyph::Vertical);
            put(right, y, Glyph::Vertical);
        }
        put(left, top, Glyph::TopLeft);
        put(right, top, Glyph::TopRight);
        put(left, bottom, Glyph::BottomLeft);
        put(right, bottom, Glyph::BottomRight);
    }
}
