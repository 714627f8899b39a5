//! The viewer on the screen: a title, the lines, what is hidden, and a line for prompts.

use crate::review::state::{Asking, Review};
use crate::screens::logs;
use crate::theme::roles::Role;
use crate::widgets::format::{cells, count, fit};
use crate::widgets::pane::Canvas;
use masternode::tools::logs::line::record;
use masternode::tools::logs::time::rfc3339;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

/// What the keys do, for the help.
const KEYS: &[(&str, &str)] = &[
    ("j k, arrows, ^d ^u, g G", "move; G and End follow the newest"),
    ("Space", "stand still, follow again"),
    (
        "/",
        "filter: words \"two words\" /regex/ level:warn target:network name=value since:2h until:12:03, ! inverts",
    ),
    ("Esc", "back; clears the filter"),
    ("e E, w W", "next, previous error; warning"),
    ("t", "go to a time (UTC): 12:03, 2h, 2026-11-23T12:03:00Z"),
    ("m, '", "mark the line; next mark"),
    ("Enter", "the whole record; n p the next, the one before"),
    ("h l", "sideways"),
    ("^L", "paint anew"),
    ("q", "leave"),
];

/// Rows of a screen of this height that are for lines.
pub fn rows(height: u16) -> usize {
    usize::from(height).saturating_sub(3).max(1)
}

/// Draws everything into `area`.
pub fn view(review: &Review, area: Rect, buffer: &mut Buffer) {
    let look = review.look.clone();
    let mut canvas = Canvas::new(buffer, area, &look);
    canvas.clear();
    if area.height < 4 || area.width < 20 {
        let text = Line::from(canvas.span("too small for the log: 20 x 4 at least", Role::Warn));
        canvas.line(0, &text);
        return;
    }
    let body = Rect { height: area.height - 1, ..area };
    let foot = Rect { y: area.y + area.height - 1, height: 1, ..area };
    let mut part = canvas.part(body);
    if review.help {
        help(&mut part);
    } else if review.detail.is_some() {
        detail(&mut part, review);
    } else {
        lines(&mut part, review);
    }
    footer(&mut canvas.part(foot), review);
}

/// How much is hidden, how far the count is, what is new.
fn note(review: &Review) -> String {
    let progress = review.progress;
    let mut parts = Vec::new();
    if progress.unpacking > 0 {
        parts.push(format!("unpacking {}", progress.unpacking));
    }
    let hidden = progress.lines.saturating_sub(progress.passing);
    if hidden > 0 {
        parts.push(format!("{} hidden", count(hidden)));
    }
    if progress.done < progress.blocks {
        parts.push(format!("counted {} %", progress.done * 100 / progress.blocks.max(1)));
    } else {
        parts.push(format!("{} lines", count(progress.passing)));
    }
    match (review.following, review.new_lines) {
        (true, _) => parts.push("following".to_owned()),
        (false, 0) => parts.push("stands".to_owned()),
        (false, new) => parts.push(format!("stands, +{} new", count(new))),
    }
    parts.join(", ")
}

fn lines(canvas: &mut Canvas<'_>, review: &Review) {
    let mut title = review.title.clone();
    if !review.filter.is_empty() {
        title = format!("{title} /{}", review.filter);
    }
    if let Some(ms) = review.line().and_then(|line| line.head.time_ms)
        && canvas.width() >= 100
    {
        title = format!("{title} at {}", rfc3339(ms));
    }
    let mut pane = canvas.pane(&title, &note(review), true);
    for (row, line) in review.lines.iter().enumerate() {
        let record = record(&line.bytes, line.head, review.now_ms);
        let mut text = logs::line(&pane, &record, review.column, true);
        if review.marks.contains(&line.place) {
            text.spans.insert(0, pane.span("*", Role::Key));
        }
        pane.line(row, &text);
        if row == review.selected && !review.following {
            let style = pane.look.style(Role::Selection);
            pane.tint(row, style);
        }
    }
    if review.lines.is_empty() {
        let done = review.progress.done == review.progress.blocks && review.progress.unpacking == 0;
        let text = match (review.searching || !done, review.filter.is_empty()) {
            (true, _) => "searching",
            (false, true) => "the log is empty",
            (false, false) => "no line passes the filter: Esc clears it, / changes it",
        };
        let text = Line::from(pane.span(text, Role::Dim));
        pane.line(0, &text);
    }
}

fn detail(canvas: &mut Canvas<'_>, review: &Review) {
    let rows = review.detail_rows();
    let mut pane = canvas.pane("Record", "Esc back, n next, p previous", true);
    let names = rows.iter().map(|(name, _)| cells(name)).max().unwrap_or(0).min(24);
    let room = pane.width().saturating_sub(names + 2).max(1);
    let mut row = 0usize;
    let skip = review.detail.unwrap_or(0);
    for (name, value) in rows.iter().skip(skip) {
        let name = fit(name, names, "~");
        for (part, text) in wrapped(value, room).into_iter().enumerate() {
            let label = if part == 0 { format!("{name:names$}  ") } else { " ".repeat(names + 2) };
            let line = Line::from(vec![pane.span(label, Role::Dim), pane.span(text, Role::Text)]);
            pane.line(row, &line);
            row += 1;
        }
    }
}

/// A text in parts of at most so many cells.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for character in text.chars() {
        let wide = cells(character.encode_utf8(&mut [0; 4]));
        if used + wide > width {
            parts.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(last) = parts.last_mut() {
            last.push(character);
        }
    }
    parts
}

fn help(canvas: &mut Canvas<'_>) {
    let mut pane = canvas.pane("Keys", "any key goes back", true);
    let mut row = 0;
    for (keys, what) in KEYS {
        let room = pane.width().saturating_sub(26).max(1);
        for (part, text) in wrapped(what, room).into_iter().enumerate() {
            let label = if part == 0 { *keys } else { "" };
            let line =
                Line::from(vec![pane.span(format!("{label:<25} "), Role::Key), pane.span(text, Role::Text)]);
            pane.line(row, &line);
            row += 1;
        }
    }
}

fn footer(canvas: &mut Canvas<'_>, review: &Review) {
    let spans: Vec<Span<'static>> = if let Some(prompt) = &review.prompt {
        let what = match prompt.asking {
            Asking::Filter => "filter: ",
            Asking::Time => "time (UTC): ",
        };
        // The end of what is typed is what is looked at.
        let room = canvas.width().saturating_sub(what.len() + 1);
        let skip = prompt.text.chars().count().saturating_sub(room);
        let text: String = prompt.text.chars().skip(skip).collect();
        vec![canvas.span(what, Role::Key), canvas.span(text, Role::Text), canvas.span("_", Role::Strong)]
    } else if let Some(notice) = &review.notice {
        vec![canvas.span(notice.clone(), Role::Warn)]
    } else {
        let keys =
            "/ filter  e E error  w W warning  t time  m mark  Enter record  Space follow  ? keys  q leave";
        vec![canvas.span(keys, Role::Dim)]
    };
    canvas.line(0, &Line::from(spans));
}
