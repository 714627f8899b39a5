//! Bytes of a terminal as keys.
//!
//! Own decoder rather than crossterm's reader: that one spins on a terminal that is gone, and blocks
//! in the middle of a split sequence. Pure; the loop reads and tells it when a pause has passed.
//! Mouse and focus reports are not asked for; unknown sequences are swallowed whole.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Longest sequence waited for; a longer one is dropped.
const SEQUENCE_MAX: usize = 64;
const PASTE_BEGIN: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    Key(KeyEvent),
    /// A bracketed paste ended; its text is dropped.
    Pasted,
}

/// Turns bytes into keys; keeps an unfinished sequence for the next call.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
    pasting: bool,
}

enum Step {
    /// So many bytes make this.
    Taken(usize, Option<Typed>),
    /// More bytes are needed.
    Unfinished,
}

impl Decoder {
    /// Whether a sequence is unfinished: a lone Esc looks like the start of one.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty() && !self.pasting
    }

    /// Decodes what came.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Typed> {
        self.pending.extend_from_slice(bytes);
        let mut typed = Vec::new();
        while !self.pending.is_empty() {
            let step = if self.pasting {
                self.paste_step()
            } else if self.pending.starts_with(PASTE_BEGIN) {
                self.pasting = true;
                Step::Taken(PASTE_BEGIN.len(), None)
            } else {
                step(&self.pending)
            };
            match step {
                Step::Taken(length, what) => {
                    self.pending.drain(..length.clamp(1, self.pending.len()));
                    typed.extend(what);
                }
                Step::Unfinished if !self.pasting && self.pending.len() > SEQUENCE_MAX => {
                    self.pending.clear();
                }
                Step::Unfinished => break,
            }
        }
        typed
    }

    /// A pause has passed: what is unfinished is a lone Esc, or nothing.
    pub fn pause(&mut self) -> Option<Typed> {
        if !self.is_waiting() {
            return None;
        }
        let lone_escape = self.pending == [0x1b];
        self.pending.clear();
        lone_escape.then(|| Typed::Key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)))
    }

    fn paste_step(&mut self) -> Step {
        let end = self.pending.windows(PASTE_END.len()).position(|window| window == PASTE_END);
        match end {
            Some(at) => {
                self.pasting = false;
                Step::Taken(at + PASTE_END.len(), Some(Typed::Pasted))
            }
            None => {
                // Keep only what may be the beginning of the end.
                let kept = PASTE_END.len() - 1;
                let excess = self.pending.len().saturating_sub(kept);
                self.pending.drain(..excess);
                Step::Unfinished
            }
        }
    }
}

fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Typed> {
    Some(Typed::Key(KeyEvent::new(code, modifiers)))
}

fn step(bytes: &[u8]) -> Step {
    match bytes {
        [0x1b] => Step::Unfinished,
        [0x1b, b'[', rest @ ..] => control_sequence(rest),
        [0x1b, b'O'] => Step::Unfinished,
        [0x1b, b'O', letter, ..] => {
            Step::Taken(3, named(*letter).and_then(|code| key(code, KeyModifiers::NONE)))
        }
        [0x1b, 0x1b, ..] => Step::Taken(1, key(KeyCode::Esc, KeyModifiers::NONE)),
        [0x1b, rest @ ..] => match character(rest) {
            Step::Taken(length, Some(Typed::Key(event))) => {
                Step::Taken(length + 1, key(event.code, event.modifiers | KeyModifiers::ALT))
            }
            Step::Taken(length, other) => Step::Taken(length + 1, other),
            Step::Unfinished => Step::Unfinished,
        },
        _ => character(bytes),
    }
}

/// A single key without an escape: control character, ASCII or UTF-8.
fn character(bytes: &[u8]) -> Step {
    let Some(first) = bytes.first().copied() else { return Step::Unfinished };
    let plain = |code| Step::Taken(1, key(code, KeyModifiers::NONE));
    match first {
        b'\r' | b'\n' => plain(KeyCode::Enter),
        b'\t' => plain(KeyCode::Tab),
        0x7f | 0x08 => plain(KeyCode::Backspace),
        0 => Step::Taken(1, key(KeyCode::Char(' '), KeyModifiers::CONTROL)),
        0x01..=0x1a => {
            Step::Taken(1, key(KeyCode::Char(char::from(first - 1 + b'a')), KeyModifiers::CONTROL))
        }
        0x1b..=0x1f => Step::Taken(1, None),
        _ => {
            let length = match first {
                0x00..=0x7f => 1,
                0xc2..=0xdf => 2,
                0xe0..=0xef => 3,
                0xf0..=0xf4 => 4,
                _ => return Step::Taken(1, None),
            };
            let Some(part) = bytes.get(..length) else { return Step::Unfinished };
            let decoded = std::str::from_utf8(part).ok().and_then(|text| text.chars().next());
            match decoded {
                Some(letter) => Step::Taken(length, key(KeyCode::Char(letter), KeyModifiers::NONE)),
                None => Step::Taken(1, None),
            }
        }
    }
}

/// Keys that end a sequence with a letter.
const fn named(letter: u8) -> Option<KeyCode> {
    Some(match letter {
        b'A' => KeyCode::Up,
        b'B' => KeyCode::Down,
        b'C' => KeyCode::Right,
        b'D' => KeyCode::Left,
        b'F' => KeyCode::End,
        b'H' => KeyCode::Home,
        b'P' => KeyCode::F(1),
        b'Q' => KeyCode::F(2),
        b'R' => KeyCode::F(3),
        b'S' => KeyCode::F(4),
        b'Z' => KeyCode::BackTab,
        _ => return None,
    })
}

/// Keys that are a number before `~`.
const fn numbered(number: u16) -> Option<KeyCode> {
    Some(match number {
        1 | 7 => KeyCode::Home,
        2 => KeyCode::Insert,
        3 => KeyCode::Delete,
        4 | 8 => KeyCode::End,
        5 => KeyCode::PageUp,
        6 => KeyCode::PageDown,
        11 => KeyCode::F(1),
        12 => KeyCode::F(2),
        13 => KeyCode::F(3),
        14 => KeyCode::F(4),
        15 => KeyCode::F(5),
        17 => KeyCode::F(6),
        18 => KeyCode::F(7),
        19 => KeyCode::F(8),
        20 => KeyCode::F(9),
        21 => KeyCode::F(10),
        23 => KeyCode::F(11),
        24 => KeyCode::F(12),
        _ => return None,
    })
}

/// What follows `ESC [`: parameters, then a final byte of `@` to `~`. The Linux console sends `[[A` for F1.
fn control_sequence(rest: &[u8]) -> Step {
    if let [b'[', more @ ..] = rest {
        let Some(letter) = more.first().copied() else { return Step::Unfinished };
        let number = match letter {
            b'A'..=b'E' => Some(KeyCode::F(letter - b'A' + 1)),
            _ => None,
        };
        return Step::Taken(4, number.and_then(|code| key(code, KeyModifiers::NONE)));
    }
    let Some(end) = rest.iter().position(|byte| (0x40..=0x7e).contains(byte)) else {
        return Step::Unfinished;
    };
    let length = end + 3;
    let parameters = rest.get(..end).unwrap_or_default();
    let mut numbers = parameters
        .split(|byte| *byte == b';')
        .map(|part| std::str::from_utf8(part).ok().and_then(|text| text.parse::<u16>().ok()).unwrap_or(0));
    let first = numbers.next().unwrap_or(0);
    let modifiers = held(numbers.next().unwrap_or(1));
    let code = match rest.get(end) {
        Some(b'~') => numbered(first),
        Some(letter) => named(*letter),
        None => None,
    };
    Step::Taken(length, code.and_then(|code| key(code, modifiers)))
}

/// Modifiers as terminals count them: one more than the sum of shift 1, alt 2, control 4.
fn held(number: u16) -> KeyModifiers {
    let bits = number.saturating_sub(1);
    let mut modifiers = KeyModifiers::NONE;
    for (bit, modifier) in [(1, KeyModifiers::SHIFT), (2, KeyModifiers::ALT), (4, KeyModifiers::CONTROL)] {
        if bits & bit != 0 {
            modifiers |= modifier;
        }
    }
    modifiers
}

#[cfg(test)]
mod tests {
    use super::{Decoder, Typed};
    use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
    use proptest::prelude::{any, prop_assert, proptest};

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Typed {
        Typed::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_come_out_whole_wherever_the_bytes_are_split() {
        let bytes = "q\x1b[A\x1bOP\x1b[5~\x1b[1;5C\x03é\x1b[Z\x1b2\r".as_bytes();
        let expected = [
            key(KeyCode::Char('q'), KeyModifiers::NONE),
            key(KeyCode::Up, KeyModifiers::NONE),
            key(KeyCode::F(1), KeyModifiers::NONE),
            key(KeyCode::PageUp, KeyModifiers::NONE),
            key(KeyCode::Right, KeyModifiers::CONTROL),
            key(KeyCode::Char('c'), KeyModifiers::CONTROL),
            key(KeyCode::Char('é'), KeyModifiers::NONE),
            key(KeyCode::BackTab, KeyModifiers::NONE),
            key(KeyCode::Char('2'), KeyModifiers::ALT),
            key(KeyCode::Enter, KeyModifiers::NONE),
        ];
        for at in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut typed = decoder.feed(&bytes[..at]);
            typed.extend(decoder.feed(&bytes[at..]));
            assert_eq!(typed, expected, "split at {at}");
        }
    }

    #[test]
    fn a_lone_escape_is_a_key_once_a_pause_has_passed() {
        let mut decoder = Decoder::default();
        assert!(decoder.feed(b"\x1b").is_empty());
        assert!(decoder.is_waiting());
        assert_eq!(decoder.pause(), Some(key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(!decoder.is_waiting());
    }

    #[test]
    fn pasted_text_never_becomes_keys() {
        let bytes = b"j\x1b[200~qs\r\x1b[A\x1b[201~k";
        for at in 0..=bytes.len() {
            let mut decoder = Decoder::default();
            let mut typed = decoder.feed(&bytes[..at]);
            typed.extend(decoder.feed(&bytes[at..]));
            let [first, paste, last] = typed.as_slice() else { panic!("split at {at}: {typed:?}") };
            assert_eq!(*first, key(KeyCode::Char('j'), KeyModifiers::NONE));
            assert_eq!(*paste, Typed::Pasted);
            assert_eq!(*last, key(KeyCode::Char('k'), KeyModifiers::NONE));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_decoder_or_fill_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            for part in bytes.chunks(7) {
                decoder.feed(part);
            }
            decoder.pause();
            prop_assert!(decoder.pending.len() <= super::SEQUENCE_MAX + 7);
        }
    }
}
