//! The palette: every command by its name, with completion. Made of the one registry of keys, and of commands that need a
//! word: `theme NAME`, `node NAME`, `h HEIGHT`, `level NAME`, and a screen with a filter, as in `peers north`.
//!
//! Nothing here can do what a key cannot; what is asked about there is asked about here.

use crate::console::message::Command;
use crate::console::state::{FILTER_CHARS_MAX, ListId, RowKey, State};
use crate::console::update::{act, show, switch_node};
use crate::keymap::{Action, REGISTRY, Screen};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use masternode::telemetry::log::LogLevel;

/// Levels by name, least first.
const LEVELS: [LogLevel; 5] =
    [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

/// What is being typed, and which of the proposals is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    pub text: String,
    pub choice: usize,
}

/// A command that fits what was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// What Tab completes to.
    pub text: String,
    pub explained: String,
    /// Keys that do the same.
    pub keys: &'static str,
}

/// All commands that fit, those that begin with what was typed first.
pub fn proposals(state: &State, typed: &str) -> Vec<Proposal> {
    let typed = typed.trim_start().to_lowercase();
    let mut all = Vec::new();
    for row in REGISTRY.iter().filter(|row| state.applies(row.context)) {
        if let Some(name) = row.action.name() {
            all.push(Proposal {
                text: name.to_owned(),
                explained: row.description.to_owned(),
                keys: row.label,
            });
        }
    }
    let mut with_word = |text: String, explained: &str| {
        all.push(Proposal { text, explained: explained.to_owned(), keys: "" });
    };
    for look in &state.looks {
        with_word(format!("theme {}", look.name), "use this theme");
    }
    for (index, node) in state.live.nodes.iter().enumerate().filter(|_| state.live.nodes.len() > 1) {
        with_word(format!("node {}", node.name), &format!("show node {}", index + 1));
    }
    for level in LEVELS {
        with_word(format!("level {}", level.name().to_lowercase()), "least level of the log");
    }
    with_word("h ".to_owned(), "the checkpoint of a height");
    let mut fitting: Vec<Proposal> = all.into_iter().filter(|each| each.text.contains(&typed)).collect();
    fitting.sort_by_key(|each| !each.text.starts_with(&typed));
    fitting
}

/// Takes a key while the palette is open.
pub fn on_key(state: &mut State, key: KeyEvent) -> Vec<Command> {
    let Some(mut palette) = state.palette.take() else { return Vec::new() };
    let fitting = proposals(state, &palette.text);
    let last = fitting.len().saturating_sub(1);
    match key.code {
        KeyCode::Esc => return Vec::new(),
        KeyCode::Enter => return run(state, &palette, &fitting),
        KeyCode::Up | KeyCode::BackTab => palette.choice = palette.choice.saturating_sub(1),
        KeyCode::Down => palette.choice = (palette.choice + 1).min(last),
        KeyCode::Tab => {
            if let Some(chosen) = fitting.get(palette.choice.min(last)) {
                palette = Palette { text: chosen.text.clone(), choice: 0 };
            }
        }
        KeyCode::Backspace => {
            palette.text.pop();
            palette.choice = 0;
        }
        KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => palette = Palette::default(),
        KeyCode::Char(character)
            if !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
                && !character.is_control()
                && palette.text.chars().count() < FILTER_CHARS_MAX =>
        {
            palette.text.push(character);
            palette.choice = 0;
        }
        _ => {}
    }
    state.palette = Some(palette);
    Vec::new()
}

/// Does what was typed, or else what is chosen.
fn run(state: &mut State, palette: &Palette, fitting: &[Proposal]) -> Vec<Command> {
    let typed = palette.text.trim();
    if typed.is_empty() && palette.choice == 0 {
        return Vec::new();
    }
    // A choice made with the arrows is meant, whatever the text alone would do.
    if palette.choice == 0
        && let Some(commands) = obey(state, typed)
    {
        return commands;
    }
    let chosen = fitting.get(palette.choice.min(fitting.len().saturating_sub(1)));
    let done = chosen.and_then(|chosen| obey(state, chosen.text.trim()));
    done.unwrap_or_else(|| {
        state.notice = Some(format!("`{typed}` is no command; : lists them, ? the keys"));
        Vec::new()
    })
}

/// `None` when `text` is no command.
fn obey(state: &mut State, text: &str) -> Option<Vec<Command>> {
    let named = |row: &&crate::keymap::Binding| row.action.name() == Some(text) && state.applies(row.context);
    if let Some(row) = REGISTRY.iter().find(named) {
        return Some(act(state, row.action));
    }
    let (word, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    match word {
        "theme" => state.look = state.looks.iter().position(|look| look.name == rest)?,
        "node" => {
            let nodes = &state.live.nodes;
            let by_name = nodes.iter().position(|node| node.name.as_str().eq_ignore_ascii_case(rest));
            let by_number = rest.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
            let node = by_name.or(by_number).filter(|node| *node < nodes.len())?;
            switch_node(state, Some(node));
        }
        "level" => state.level = LEVELS.into_iter().find(|level| level.name().eq_ignore_ascii_case(rest))?,
        "h" => {
            let height = rest.replace([',', '_'], "").parse().ok()?;
            show(state, Screen::Chain);
            state.detail = Some(RowKey::Height(height));
        }
        screen => {
            let screens = Screen::ALL.into_iter().filter(|each| *each != Screen::Help);
            let screen = screens.into_iter().find(|each| Action::Show(*each).name() == Some(screen))?;
            let list = ListId::of(screen).first().copied()?;
            show(state, screen);
            if let Some(list) = state.list_mut(list) {
                list.filter = rest.chars().take(FILTER_CHARS_MAX).collect();
                list.selected = None;
                list.index = 0;
            }
        }
    }
    Some(Vec::new())
}
