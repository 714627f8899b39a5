//! What every screen looks like, colours and weights included: each size, each kind of terminal.
//!
//! A row of a picture is its runs of equal style, `CELLSxSTYLE`, with a letter for each style that the picture uses; the
//! letters are explained below it. Texts are in the pictures of `tests`.

use crate::console::fixture::running;
use crate::console::tests::{SCREENS, SIZES, press};
use crate::console::view::view;
use crate::theme::ColorMode;
use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use std::fmt::Write as _;

/// Styles of a picture, by rows.
fn styles(buffer: &Buffer) -> String {
    let mut known: Vec<Style> = Vec::new();
    let mut text = String::new();
    for row in buffer.content.chunks(usize::from(buffer.area.width).max(1)) {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for cell in row {
            let index = known.iter().position(|style| *style == cell.style()).unwrap_or_else(|| {
                known.push(cell.style());
                known.len() - 1
            });
            match runs.last_mut() {
                Some((count, last)) if *last == index => *count += 1,
                _ => runs.push((1, index)),
            }
        }
        let runs: Vec<String> =
            runs.iter().map(|(count, index)| format!("{count}{}", letter(*index))).collect();
        let _ = writeln!(text, "{}", runs.join(" "));
    }
    for (index, style) in known.iter().enumerate() {
        let (fg, bg) = (style.fg.unwrap_or_default(), style.bg.unwrap_or_default());
        let _ = writeln!(text, "{} {fg} on {bg} {:?}", letter(index), style.add_modifier);
    }
    text
}

fn letter(index: usize) -> char {
    char::from_u32(u32::from('a') + u32::try_from(index).unwrap()).unwrap()
}

#[test]
fn every_screen_has_the_styles_approved_for_every_size_and_kind_of_terminal() {
    let kinds = [
        ("truecolor", ColorMode::Truecolor, false),
        ("ansi16", ColorMode::Ansi16, false),
        ("mono", ColorMode::Never, false),
        ("ascii", ColorMode::Never, true),
    ];
    for (key, screen) in SCREENS {
        for (kind, mode, ascii) in kinds {
            let mut pictures = String::new();
            for (width, height) in SIZES {
                let mut state = running(mode, ascii);
                press(&mut state, KeyCode::Char(key));
                let area = Rect::new(0, 0, width, height);
                let mut buffer = Buffer::empty(area);
                view(&state, area, &mut buffer);
                if ascii {
                    assert!(buffer.content.iter().all(|cell| cell.symbol().is_ascii()), "{screen}");
                }
                let _ = writeln!(pictures, "{width}x{height}\n{}", styles(&buffer));
            }
            insta::assert_snapshot!(format!("{screen}_{kind}"), pictures);
        }
    }
}
