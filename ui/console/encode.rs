//! Changed cells as bytes for the terminal, as few as possible: an operator's line may be slow.
//!
//! Own encoder: ratatui's sends both colours with every change of one, and colours for blanks.
//! Knows SGR colours and modifiers only; the caller frames it.

use ratatui::buffer::Cell;
use ratatui::style::{Color, Modifier};
use std::io::Write;

/// Modifiers that show on a blank.
const SEEN_ON_BLANKS: Modifier = Modifier::REVERSED.union(Modifier::UNDERLINED).union(Modifier::CROSSED_OUT);

/// The codes of the modifiers themes can ask for.
const MODIFIERS: [(Modifier, &str); 5] = [
    (Modifier::BOLD, "1"),
    (Modifier::DIM, "2"),
    (Modifier::ITALIC, "3"),
    (Modifier::UNDERLINED, "4"),
    (Modifier::REVERSED, "7"),
];

/// What the terminal draws with at the moment.
struct Pen {
    fg: Color,
    bg: Color,
    modifier: Modifier,
}

const PLAIN: Pen = Pen { fg: Color::Reset, bg: Color::Reset, modifier: Modifier::empty() };

/// Appends the bytes that draw `changes`, which are in reading order; ends with plain attributes.
pub fn encode<'a>(changes: impl IntoIterator<Item = (u16, u16, &'a Cell)>, bytes: &mut Vec<u8>) {
    let mut pen = PLAIN;
    let mut next: Option<(u16, u16)> = None;
    bytes.extend_from_slice(b"\x1b[0m");
    for (x, y, cell) in changes {
        match next {
            Some((at, row)) if row == y && at == x => {}
            Some((at, row)) if row == y && at < x => put(bytes, format_args!("\x1b[{}C", x - at)),
            _ => put(bytes, format_args!("\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1)),
        }
        // A wide symbol moves on by two; then the next change is placed anew.
        next = x.checked_add(1).filter(|_| cell.symbol().is_ascii() || is_narrow(cell)).map(|x| (x, y));
        pen.turn_to(cell, bytes);
        bytes.extend_from_slice(cell.symbol().as_bytes());
    }
    bytes.extend_from_slice(b"\x1b[0m");
}

fn is_narrow(cell: &Cell) -> bool {
    ratatui::text::Span::raw(cell.symbol()).width() == 1
}

fn put(bytes: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = bytes.write_fmt(text);
}

impl Pen {
    fn turn_to(&mut self, cell: &Cell, bytes: &mut Vec<u8>) {
        let blank = cell.symbol() == " ";
        let (shown, wanted) = if blank {
            (self.modifier.intersection(SEEN_ON_BLANKS), cell.modifier.intersection(SEEN_ON_BLANKS))
        } else {
            (self.modifier, cell.modifier)
        };
        let mut codes: Vec<String> = Vec::new();
        if !shown.difference(wanted).is_empty() {
            codes.push("0".to_owned());
            *self = PLAIN;
        }
        let added = wanted.difference(self.modifier);
        codes.extend(
            MODIFIERS.iter().filter(|(each, _)| added.contains(*each)).map(|(_, code)| (*code).to_owned()),
        );
        self.modifier = self.modifier.union(wanted);
        // The colour of letters does not show on a blank, unless it is reversed or underlined.
        if self.fg != cell.fg && (!blank || !wanted.is_empty()) {
            codes.push(code(cell.fg, 30));
            self.fg = cell.fg;
        }
        if self.bg != cell.bg {
            codes.push(code(cell.bg, 40));
            self.bg = cell.bg;
        }
        if !codes.is_empty() {
            put(bytes, format_args!("\x1b[{}m", codes.join(";")));
        }
    }
}

/// The SGR code of a colour; `base` is 30 for letters, 40 for the ground.
fn code(color: Color, base: u8) -> String {
    let plain = |index: u8| (base + index).to_string();
    let bright = |index: u8| (base + 60 + index).to_string();
    match color {
        Color::Reset => plain(9),
        Color::Black => plain(0),
        Color::Red => plain(1),
        Color::Green => plain(2),
        Color::Yellow => plain(3),
        Color::Blue => plain(4),
        Color::Magenta => plain(5),
        Color::Cyan => plain(6),
        Color::Gray => plain(7),
        Color::DarkGray => bright(0),
        Color::LightRed => bright(1),
        Color::LightGreen => bright(2),
        Color::LightYellow => bright(3),
        Color::LightBlue => bright(4),
        Color::LightMagenta => bright(5),
        Color::LightCyan => bright(6),
        Color::White => bright(7),
        Color::Indexed(index) => format!("{};5;{index}", base + 8),
        Color::Rgb(red, green, blue) => format!("{};2;{red};{green};{blue}", base + 8),
    }
}

#[cfg(test)]
mod tests {
    use super::encode;
    use crate::console::fixture::running;
    use crate::console::view::view;
    use crate::theme::ColorMode;
    use ratatui::buffer::Buffer;
    use ratatui::layout::Rect;
    use ratatui::style::{Color, Modifier};

    fn shown(color: Color) -> vt100::Color {
        match color {
            Color::Rgb(red, green, blue) => vt100::Color::Rgb(red, green, blue),
            Color::Indexed(index) => vt100::Color::Idx(index),
            _ => vt100::Color::Default,
        }
    }

    /// What a terminal shows after the bytes is the buffer, cell by cell.
    fn assert_same(screen: &vt100::Screen, buffer: &Buffer) {
        for y in 0..buffer.area.height {
            for x in 0..buffer.area.width {
                let (want, have) = (&buffer[(x, y)], screen.cell(y, x).unwrap());
                let text = if have.contents().is_empty() { " " } else { have.contents() };
                assert_eq!(text, want.symbol(), "{x},{y}");
                assert_eq!(have.bgcolor(), shown(want.bg), "ground at {x},{y}");
                if text != " " {
                    assert_eq!(have.fgcolor(), shown(want.fg), "{text} at {x},{y}");
                    assert_eq!(have.bold(), want.modifier.contains(Modifier::BOLD), "{text} at {x},{y}");
                }
                assert_eq!(have.inverse(), want.modifier.contains(Modifier::REVERSED), "{x},{y}");
            }
        }
    }

    #[test]
    fn a_terminal_shows_exactly_what_was_drawn_frame_after_frame() {
        for mode in [ColorMode::Truecolor, ColorMode::Ansi256, ColorMode::Never] {
            let area = Rect::new(0, 0, 100, 30);
            let mut screen = vt100::Parser::new(30.try_into().unwrap(), 100.try_into().unwrap(), 0);
            let mut painted = Buffer::empty(area);
            let mut state = running(mode, false);
            for screen_key in ['1', '2', '3', '4', '5', '8', '?', 'q'] {
                let key = crossterm::event::KeyCode::Char(screen_key).into();
                crate::console::update::update(&mut state, crate::console::message::Message::Key(key));
                let mut frame = Buffer::empty(area);
                view(&state, area, &mut frame);
                let mut bytes = Vec::new();
                encode(painted.diff(&frame), &mut bytes);
                screen.process(&bytes);
                assert_same(screen.screen(), &frame);
                painted = frame;
            }
        }
    }
}
