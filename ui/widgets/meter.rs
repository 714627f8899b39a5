//! Bars and charts made of glyphs: a share with a mark on it, a history of values.

use crate::theme::Look;
use crate::theme::roles::{Glyph, Role};
use crate::widgets::pane::Canvas;
use ratatui::text::{Line, Span};

/// A bar of `width` cells filled to `value / total`, with a mark at `mark / total` (a quorum).
pub fn bar(
    look: &Look,
    width: usize,
    value: u64,
    total: u64,
    mark: Option<u64>,
    role: Role,
) -> Vec<Span<'static>> {
    let cells_of = |part: u64| scaled(part.min(total), total, width);
    let full = cells_of(value).min(width);
    // The mark sits on the first cell that reaches it, and stays inside the bar.
    let mark = mark.map(|mark| cells_of(mark).clamp(1, width.max(1)) - 1);
    let mut spans = Vec::with_capacity(4);
    let run = |from: usize, to: usize| {
        let filled = full.clamp(from, to.max(from)) - from;
        let rest = to.saturating_sub(from) - filled;
        [
            Span::styled(look.glyph(Glyph::BarFull).repeat(filled), look.style(role)),
            Span::styled(look.glyph(Glyph::BarRest).repeat(rest), look.style(Role::BarRest)),
        ]
    };
    match mark {
        Some(mark) if mark < width && mark >= full => {
            spans.extend(run(0, mark));
            spans.push(Span::styled(look.glyph(Glyph::BarMark).to_owned(), look.style(Role::Strong)));
            spans.extend(run(mark + 1, width));
        }
        _ => spans.extend(run(0, width)),
    }
    spans.retain(|span| !span.content.is_empty());
    spans
}

/// `value / total` of `length`, rounded to the nearest.
fn scaled(value: u64, total: u64, length: usize) -> usize {
    let (value, total) = (u128::from(value), u128::from(total.max(1)));
    let nearest = (2 * value * length as u128 + total) / (2 * total);
    usize::try_from(nearest).unwrap_or(length)
}

/// Draws a history as columns over the whole canvas, newest at the right, scaled to its largest value.
pub fn chart(canvas: &mut Canvas<'_>, history: &[u64]) {
    let (width, height) = (canvas.width(), canvas.height());
    let shown = history.get(history.len().saturating_sub(width)..).unwrap_or_default();
    let largest = shown.iter().copied().max().unwrap_or(0);
    if largest == 0 || height == 0 {
        return;
    }
    let left = width - shown.len();
    for row in 0..height {
        let below = (height - 1 - row) * 8;
        let text: String = shown
            .iter()
            .map(|value| {
                let eighths = scaled(*value, largest, height * 8);
                // Something that happened is never drawn as nothing.
                let eighths = if *value > 0 { eighths.max(1) } else { 0 };
                match eighths.saturating_sub(below) {
                    0 => " ",
                    part => canvas.look.glyph(Glyph::level(part)),
                }
            })
            .collect();
        let line = Line::from(canvas.span(text, Role::Chart));
        canvas.line_at(left, row, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::bar;
    use crate::theme::roles::Role;
    use crate::theme::{ColorMode, Themes};
    use proptest::prelude::{any, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_bar_is_as_wide_as_asked(width in 0usize..200, value in any::<u64>(), total in any::<u64>(), mark in any::<Option<u64>>()) {
            let look = Themes::shipped().unwrap().look("dark", ColorMode::Truecolor, false).unwrap();
            let cells: usize = bar(&look, width, value, total, mark, Role::Bar).iter().map(|span| span.width()).sum();
            prop_assert_eq!(cells, width);
        }
    }
}
