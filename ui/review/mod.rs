//! The viewer of log files, `masternode logs` on a terminal: its loop.
//!
//! `pages → state → view → terminal`. A key paints at once; what is counted in the background and what is added to
//! the files is shown twice a second. Reading is of a screen at a time, so it is done between key and paint.

mod reader;
pub mod state;
pub mod view;

#[cfg(test)]
mod tests;

use crate::console::input::{Decoder, Typed};
use crate::console::terminal::{Lost, Terminal};
use crate::console::{ConsoleError, ConsoleOptions, Stop};
use crate::review::reader::{carry_out, refill};
use crate::review::state::{Ask, Review};
use crate::theme::Themes;
use masternode::tools::logs::pages::Pages;
use std::time::{Duration, Instant};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(500);
/// The longest wait for a key: bounds how late a resize shows.
const WAIT: Duration = Duration::from_millis(100);
/// A lone Esc is told from the start of a sequence by this pause.
const ESCAPE_PAUSE: Duration = Duration::from_millis(40);
const READ_BYTES: usize = 1024;

/// Shows a log until the operator leaves or the terminal goes.
///
/// # Errors
/// [`ConsoleError`] without a terminal; a panic is caught and becomes one, with the terminal restored.
pub fn run(
    options: &ConsoleOptions,
    title: &str,
    pages: &Pages,
    filter: String,
    now_ms: u64,
) -> Result<(), ConsoleError> {
    let environment = &options.environment;
    let mode = environment.color_mode(options.color, options.color_config);
    let ascii = options.ascii.unwrap_or_else(|| !environment.is_utf8());
    let mut themes = Themes::shipped()?;
    let mut problems =
        options.theme_directory.as_ref().map_or_else(Vec::new, |path| themes.add_directory(path));
    let look = themes.look(&options.theme, mode, ascii).or_else(|problem| {
        problems.push(problem);
        themes.look("dark", mode, ascii)
    })?;
    let mut review = Review::new(title.to_owned(), look, filter, now_ms);
    review.notice = problems.first().map(ToString::to_string);
    let terminal = Terminal::open(Stop::default().flag())?;
    let body = std::panic::AssertUnwindSafe(|| turn(terminal, review, pages));
    match std::panic::catch_unwind(body) {
        // A terminal that is gone is an end as any other.
        Ok(_) => Ok(()),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            Err(ConsoleError::Panicked(text.unwrap_or_else(|| "without a message".to_owned())))
        }
    }
}

fn turn(mut terminal: Terminal, mut review: Review, pages: &Pages) -> Result<(), Lost> {
    let mut decoder = Decoder::default();
    let mut size = (0, 0);
    let mut looked = Instant::now();
    loop {
        let now = terminal.size();
        let resized = now != size;
        size = now;
        let due = looked.elapsed() >= LOOK;
        if resized || due {
            looked = Instant::now();
            review.height = view::rows(size.1);
            let grown = pages.refresh();
            if let Some(failure) = pages.failures().into_iter().next() {
                review.notice = Some(failure);
            }
            if resized || grown || review.searching || review.progress != pages.progress() {
                refill(&mut review, pages);
                paint(&mut terminal, &review)?;
            }
        }
        let wait = if decoder.is_waiting() { ESCAPE_PAUSE } else { WAIT };
        let typed = if terminal.wait(wait)? {
            let mut bytes = [0; READ_BYTES];
            let length = terminal.read(&mut bytes)?;
            decoder.feed(bytes.get(..length).unwrap_or_default())
        } else {
            decoder.pause().into_iter().collect()
        };
        if typed.is_empty() {
            continue;
        }
        for each in typed {
            let Typed::Key(key) = each else { continue };
            match review.key(key) {
                Some(Ask::Quit) => return Ok(()),
                Some(Ask::Repaint) => terminal.forget(),
                Some(ask) => carry_out(&mut review, pages, ask),
                None => {}
            }
        }
        paint(&mut terminal, &review)?;
    }
}

fn paint(terminal: &mut Terminal, review: &Review) -> Result<(), Lost> {
    terminal.paint_with(|area, frame| view::view(review, area, frame))
}
