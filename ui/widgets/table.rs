//! A table that fits its width: optional columns go first, then the flexible one shrinks.

use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::format::fit;
use crate::widgets::pane::Canvas;
use ratatui::text::{Line, Span};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    /// Cells; the least for the flexible column.
    pub width: usize,
    /// Takes what is left; at most one column of a table.
    pub flexible: bool,
    /// Numbers align at the right.
    pub right: bool,
    /// 0 is never left out; the highest is left out first.
    pub optional: u8,
}

impl Column {
    /// A column of text.
    pub const fn text(title: &'static str, width: usize) -> Self {
        Self { title, width, flexible: false, right: false, optional: 0 }
    }

    /// A column of numbers.
    pub const fn number(title: &'static str, width: usize) -> Self {
        Self { title, width, flexible: false, right: true, optional: 0 }
    }

    /// Left out when there is no room, the highest first.
    pub const fn optional(self, optional: u8) -> Self {
        Self { optional, ..self }
    }

    /// Takes what is left.
    pub const fn flexible(self) -> Self {
        Self { flexible: true, ..self }
    }
}

/// How a table is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Index of the selected row.
    pub selected: Option<usize>,
    /// Whether the pane has the focus; the selection shows only then.
    pub focused: bool,
    /// Sorted column and whether descending.
    pub sorted: Option<(usize, bool)>,
}

/// Which columns fit into `width` cells and how wide each is; `None` is left out.
pub fn widths(columns: &[Column], width: usize) -> Vec<Option<usize>> {
    let mut kept: Vec<bool> = vec![true; columns.len()];
    let needed = |kept: &[bool]| -> usize {
        columns.iter().zip(kept).filter(|(_, kept)| **kept).map(|(column, _)| column.width + 1).sum()
    };
    while needed(&kept) > width + 1 {
        let next = columns
            .iter()
            .enumerate()
            .filter(|(index, column)| column.optional > 0 && kept.get(*index) == Some(&true))
            .max_by_key(|(_, column)| column.optional);
        let Some((index, _)) = next else { break };
        if let Some(flag) = kept.get_mut(index) {
            *flag = false;
        }
    }
    let spare = (width + 1).saturating_sub(needed(&kept));
    columns
        .iter()
        .zip(kept)
        .map(|(column, kept)| kept.then_some(column.width + if column.flexible { spare } else { 0 }))
        .collect()
}

/// First row shown of `count` so that `selected` is in the middle of `height` rows where possible.
pub fn window(count: usize, height: usize, selected: usize) -> usize {
    selected.saturating_sub(height / 2).min(count.saturating_sub(height))
}

fn pad(look: &Look, cell: Line<'static>, column: &Column, width: usize) -> Line<'static> {
    let missing = width.saturating_sub(cell.width());
    if cell.width() > width {
        if let [only] = cell.spans.as_slice() {
            return Line::from(Span::styled(fit(&only.content, width, look.glyph(Glyph::More)), only.style));
        }
        return cell;
    }
    let mut spans = cell.spans;
    if column.right {
        spans.insert(0, Span::raw(" ".repeat(missing)));
    } else {
        spans.push(Span::raw(" ".repeat(missing)));
    }
    Line::from(spans)
}

/// Draws the header and the rows around the selection. `rows(index)` makes the cells of one row and
/// is called only for rows on screen.
pub fn table(
    canvas: &mut Canvas<'_>,
    columns: &[Column],
    count: usize,
    shown: Shown,
    mut rows: impl FnMut(usize) -> Vec<Line<'static>>,
) {
    let widths = widths(columns, canvas.width());
    let mut column_start = 0;
    for (index, (column, width)) in columns.iter().zip(&widths).enumerate() {
        let Some(width) = *width else { continue };
        let title = match shown.sorted {
            Some((sorted, descending)) if sorted == index => {
                let glyph = if descending { Glyph::Descending } else { Glyph::Ascending };
                format!("{}{}", column.title, canvas.look.glyph(glyph))
            }
            _ => column.title.to_owned(),
        };
        let line = pad(canvas.look, Line::from(canvas.span(title, Role::Dim)), column, width);
        canvas.line_at(column_start, 0, &line);
        column_start += width + 1;
    }
    let height = canvas.height().saturating_sub(1);
    let selected = shown.selected.unwrap_or(0);
    let first = window(count, height, selected);
    for (row, index) in (first..count).take(height).enumerate() {
        let mut column_start = 0;
        for ((cell, column), width) in rows(index).into_iter().zip(columns).zip(&widths) {
            let Some(width) = *width else { continue };
            let line = pad(canvas.look, cell, column, width);
            canvas.line_at(column_start, row + 1, &line);
            column_start += width + 1;
        }
        if shown.focused && shown.selected == Some(index) {
            let style = canvas.look.style(Role::Selection);
            canvas.tint(row + 1, style);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Column, widths, window};

    #[test]
    fn optional_columns_go_first_and_the_flexible_one_takes_the_rest() {
        let columns = [
            Column::text("name", 8).flexible(),
            Column::number("rtt", 8),
            Column::number("bytes", 9).optional(2),
            Column::number("age", 9).optional(1),
        ];
        assert_eq!(widths(&columns, 60), [Some(31), Some(8), Some(9), Some(9)]);
        assert_eq!(widths(&columns, 30), [Some(11), Some(8), None, Some(9)]);
        assert_eq!(widths(&columns, 10), [Some(8), Some(8), None, None]);
    }

    #[test]
    fn the_selection_stays_in_the_window() {
        for count in 0..40 {
            for height in 1..12 {
                for selected in 0..count {
                    let first = window(count, height, selected);
                    assert!(first <= selected && selected < first + height, "{count} {height} {selected}");
                }
            }
        }
    }
}
