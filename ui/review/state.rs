//! What the viewer shows, and what a key makes of it. No I/O: what has to be read is asked for.

use crate::theme::Look;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use masternode::telemetry::log::LogLevel;
use masternode::tools::logs::blocks::{Line, Place};
use masternode::tools::logs::line::{Head, record};
use masternode::tools::logs::pages::{Progress, Way};
use std::collections::BTreeSet;

/// Characters typed at a prompt.
const PROMPT_CHARS_MAX: usize = 500;
/// Most marks.
const MARKS_MAX: usize = 1000;
/// Columns moved sideways by a key.
const COLUMNS: usize = 8;

/// What a prompt is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    Filter,
    Time,
}

/// What is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    pub asking: Asking,
    pub text: String,
}

/// What is to be read, or done outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Up(usize),
    Down(usize),
    First,
    /// Go on showing the newest lines.
    Follow,
    Level(Way, LogLevel),
    Goto(Place),
    Time(String),
    Filter(String),
    Repaint,
    Quit,
}

/// The viewer.
pub struct Review {
    /// What is under review, for the title.
    pub title: String,
    pub look: Look,
    /// Rows for lines; told by the loop.
    pub height: usize,
    /// Lines on the screen, oldest first.
    pub lines: Vec<Line>,
    /// The one the cursor is on.
    pub selected: usize,
    pub following: bool,
    /// Cells cut off at the left.
    pub column: usize,
    pub filter: String,
    pub prompt: Option<Prompt>,
    /// Said until the next key.
    pub notice: Option<String>,
    /// Whether the selected record is shown whole, and from which of its rows on.
    pub detail: Option<usize>,
    pub help: bool,
    pub marks: BTreeSet<Place>,
    pub progress: Progress,
    /// The newest line when following ended.
    pub stood_at: Option<Place>,
    /// Lines that pass and came since.
    pub new_lines: u64,
    /// Whether lines of the screen are still searched for.
    pub searching: bool,
    pub now_ms: u64,
}

impl Review {
    pub fn new(title: String, look: Look, filter: String, now_ms: u64) -> Self {
        Self {
            title,
            look,
            height: 1,
            lines: Vec::new(),
            selected: 0,
            following: true,
            column: 0,
            filter,
            prompt: None,
            notice: None,
            detail: None,
            help: false,
            marks: BTreeSet::new(),
            progress: Progress::default(),
            stood_at: None,
            new_lines: 0,
            searching: false,
            now_ms,
        }
    }

    /// The line under the cursor.
    pub fn line(&self) -> Option<&Line> {
        self.lines.get(self.selected)
    }

    /// Stops following: the screen stands.
    fn stand(&mut self) {
        if self.following {
            self.following = false;
            self.stood_at = self.lines.last().map(|line| line.place);
        }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) -> Option<Ask> {
        self.notice = None;
        if self.prompt.is_some() {
            return self.prompt_key(key);
        }
        if self.help {
            self.help = false;
            return None;
        }
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        if self.detail.is_some() {
            return self.detail_key(key, control);
        }
        match key.code {
            KeyCode::Char('c') if control => Some(Ask::Quit),
            KeyCode::Char('l') if control => Some(Ask::Repaint),
            KeyCode::Char('d') if control => self.moved(Ask::Down(self.height / 2)),
            KeyCode::Char('u') if control => self.moved(Ask::Up(self.height / 2)),
            KeyCode::Char(_) if control => None,
            KeyCode::Char(letter) => self.letter(letter),
            KeyCode::Up => self.moved(Ask::Up(1)),
            KeyCode::Down => self.moved(Ask::Down(1)),
            KeyCode::PageUp => self.moved(Ask::Up(self.height)),
            KeyCode::PageDown => self.moved(Ask::Down(self.height)),
            KeyCode::Home => self.moved(Ask::First),
            KeyCode::End => Some(Ask::Follow),
            KeyCode::Left => self.sideways(false),
            KeyCode::Right => self.sideways(true),
            KeyCode::Enter => {
                if !self.lines.is_empty() {
                    self.stand();
                    self.detail = Some(0);
                }
                None
            }
            // One level back: the filter is the first.
            KeyCode::Esc if !self.filter.is_empty() => Some(Ask::Filter(String::new())),
            _ => None,
        }
    }

    fn letter(&mut self, letter: char) -> Option<Ask> {
        match letter {
            'q' => Some(Ask::Quit),
            'j' => self.moved(Ask::Down(1)),
            'k' => self.moved(Ask::Up(1)),
            'g' => self.moved(Ask::First),
            'G' => Some(Ask::Follow),
            'h' => self.sideways(false),
            'l' => self.sideways(true),
            'e' => self.moved(Ask::Level(Way::Forward, LogLevel::Error)),
            'E' => self.moved(Ask::Level(Way::Backward, LogLevel::Error)),
            'w' => self.moved(Ask::Level(Way::Forward, LogLevel::Warn)),
            'W' => self.moved(Ask::Level(Way::Backward, LogLevel::Warn)),
            't' => self.ask(Asking::Time, String::new()),
            '/' => self.ask(Asking::Filter, self.filter.clone()),
            'm' => self.mark(),
            '\'' => self.next_mark(),
            ' ' if self.following => {
                self.stand();
                None
            }
            ' ' => Some(Ask::Follow),
            '?' => {
                self.help = true;
                None
            }
            _ => None,
        }
    }

    fn moved(&mut self, ask: Ask) -> Option<Ask> {
        self.stand();
        Some(ask)
    }

    fn sideways(&mut self, right: bool) -> Option<Ask> {
        self.column = if right { self.column + COLUMNS } else { self.column.saturating_sub(COLUMNS) };
        None
    }

    fn ask(&mut self, asking: Asking, text: String) -> Option<Ask> {
        self.prompt = Some(Prompt { asking, text });
        None
    }

    fn mark(&mut self) -> Option<Ask> {
        let place = self.line()?.place;
        if !self.marks.remove(&place) {
            if self.marks.len() >= MARKS_MAX {
                self.notice = Some(format!("there are {MARKS_MAX} marks already: remove one with m"));
                return None;
            }
            self.marks.insert(place);
        }
        self.stand();
        None
    }

    /// The next mark, from the last one to the first again.
    fn next_mark(&mut self) -> Option<Ask> {
        let here = self.line().map(|line| line.place);
        let next = self.marks.iter().find(|mark| here.is_none_or(|here| **mark > here));
        match next.or_else(|| self.marks.first()).copied() {
            Some(mark) => self.moved(Ask::Goto(mark)),
            None => {
                self.notice = Some("nothing is marked: m marks the line under the cursor".to_owned());
                None
            }
        }
    }

    fn prompt_key(&mut self, key: KeyEvent) -> Option<Ask> {
        let prompt = self.prompt.as_mut()?;
        match key.code {
            KeyCode::Esc => self.prompt = None,
            KeyCode::Char('c' | 'g') if key.modifiers.contains(KeyModifiers::CONTROL) => self.prompt = None,
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => prompt.text.clear(),
            KeyCode::Char('w') if key.modifiers.contains(KeyModifiers::CONTROL) => {
                let kept = prompt.text.trim_end().rfind(' ').map_or(0, |at| at + 1);
                prompt.text.truncate(kept);
            }
            KeyCode::Char(letter)
                if !key.modifiers.contains(KeyModifiers::CONTROL)
                    && prompt.text.chars().count() < PROMPT_CHARS_MAX =>
            {
                prompt.text.push(letter);
            }
            KeyCode::Backspace => {
                prompt.text.pop();
            }
            KeyCode::Enter => {
                let Prompt { asking, text } = self.prompt.take()?;
                return match asking {
                    Asking::Filter => Some(Ask::Filter(text.trim().to_owned())),
                    Asking::Time if text.trim().is_empty() => None,
                    Asking::Time => self.moved(Ask::Time(text.trim().to_owned())),
                };
            }
            _ => {}
        }
        None
    }

    fn detail_key(&mut self, key: KeyEvent, control: bool) -> Option<Ask> {
        let row = self.detail.unwrap_or(0);
        match key.code {
            KeyCode::Char('c') if control => return Some(Ask::Quit),
            KeyCode::Char('l') if control => return Some(Ask::Repaint),
            KeyCode::Esc | KeyCode::Enter | KeyCode::Char('q') => self.detail = None,
            KeyCode::Down | KeyCode::Char('j') => self.detail = Some((row + 1).min(self.detail_rows().len())),
            KeyCode::Up | KeyCode::Char('k') => self.detail = Some(row.saturating_sub(1)),
            // The record before or after, shown whole as well.
            KeyCode::Char('n') | KeyCode::Right => {
                self.detail = Some(0);
                return Some(Ask::Down(1));
            }
            KeyCode::Char('p') | KeyCode::Left => {
                self.detail = Some(0);
                return Some(Ask::Up(1));
            }
            _ => {}
        }
        None
    }

    /// Names and values of the record under the cursor, the last of them the line itself.
    pub fn detail_rows(&self) -> Vec<(String, String)> {
        let Some(line) = self.line() else { return Vec::new() };
        let record = record(&line.bytes, line.head, self.now_ms);
        let Head { time_ms, level } = line.head;
        let mut rows = vec![
            ("time".to_owned(), time_ms.map_or("-".to_owned(), masternode::tools::logs::time::rfc3339)),
            ("level".to_owned(), level.map_or("-".to_owned(), |level| level.name().to_owned())),
            ("target".to_owned(), record.target.to_string()),
            ("message".to_owned(), record.message.to_string()),
        ];
        rows.extend(record.fields.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let whole = masternode::primitives::clean::CleanText::new(&String::from_utf8_lossy(&line.bytes));
        rows.push(("line".to_owned(), whole.to_string()));
        rows
    }
}
