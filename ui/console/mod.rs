//! The operator console: its loop, on a thread of its own.
//!
//! `source → update → view → terminal`. The loop is the only place with a clock and I/O. A key paints
//! at once; data is gathered all the time and painted twice a second (once over SSH), and only if
//! something changed. Whatever happens to the terminal ends the console, never the node: the caller
//! gets an [`Outcome`] and decides.

pub mod encode;
pub mod input;
pub mod message;
pub mod palette;
pub mod source;
pub mod state;
pub mod terminal;
pub mod update;
pub mod view;

#[cfg(test)]
pub mod fixture;
#[cfg(test)]
mod operator_tests;
#[cfg(test)]
mod style_tests;
#[cfg(test)]
mod tests;

use crate::console::input::{Decoder, Typed};
use crate::console::message::{Command, Leaving, Message};
use crate::console::source::Source;
use crate::console::state::{Hosting, State};
use crate::console::terminal::{Lost, OpenError, Terminal};
use crate::console::update::update;
use crate::keymap::Screen;
use crate::theme::{ColorChoice, Environment, ThemeError, Themes};
use masternode::primitives::clean::CleanText;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two looks at the source, and the longest wait for a key: bounds how late a resize shows.
const GATHER: Duration = Duration::from_millis(100);
/// Between two paintings of data.
const PAINT: Duration = Duration::from_millis(500);
/// The least over SSH.
const PAINT_SSH: Duration = Duration::from_millis(1000);
/// A lone Esc is told from the start of a sequence by this pause.
const ESCAPE_PAUSE: Duration = Duration::from_millis(40);
/// Log records taken at a time.
const LOG_PAGE: usize = 2_000;
/// Bytes read at a time; a key is a few.
const READ_BYTES: usize = 1024;

/// How the console looks and what it offers.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// What the program calls itself before the node has a name.
    pub title: String,
    /// Name of the theme.
    pub theme: String,
    /// `--color`.
    pub color: ColorChoice,
    /// The colour setting of the configuration.
    pub color_config: ColorChoice,
    /// Symbols in ASCII; `None` decides by the locale.
    pub ascii: Option<bool>,
    /// Directory of the operator's own themes.
    pub theme_directory: Option<PathBuf>,
    /// Whether the node can run on without the console: offers to detach.
    pub can_detach: bool,
    /// Whose nodes are shown.
    pub hosting: Hosting,
    /// Begin with all nodes at once.
    pub fleet: bool,
    /// Least time between two paintings of data; longer over SSH.
    pub refresh: Duration,
    pub environment: Environment,
}

impl ConsoleOptions {
    /// Theme `dark`, everything else as the environment says.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            theme: "dark".to_owned(),
            color: ColorChoice::Auto,
            color_config: ColorChoice::Auto,
            ascii: None,
            theme_directory: None,
            can_detach: false,
            hosting: Hosting::Own,
            fleet: false,
            refresh: PAINT,
            environment: Environment::of_process(),
        }
    }
}

/// Why the console ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The operator wants a node stopped, this one of those on screen (all nodes of a devnet).
    Stop { node: usize },
    /// The operator left; the node runs on.
    Detach,
    /// The terminal is gone, with the reason; the node runs on.
    TerminalLost(String),
    /// The caller asked the console to end.
    Told,
}

/// A console that cannot start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error(transparent)]
    Terminal(#[from] OpenError),
    #[error(transparent)]
    Theme(#[from] ThemeError),
    #[error("the console's thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("the console failed and was closed: {0}")]
    Panicked(String),
}

/// Tells a console to end, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the console within a tenth of a second.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// What a terminal looks at while it writes.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts the console on a thread of its own; `done` gets the outcome, on that thread.
///
/// # Errors
/// [`ConsoleError::Thread`].
pub fn spawn(
    options: ConsoleOptions,
    source: Box<dyn Source>,
    stop: Stop,
    done: impl FnOnce(Result<Outcome, ConsoleError>) + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, ConsoleError> {
    std::thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || done(run(&options, source, &stop)))
        .map_err(ConsoleError::Thread)
}

/// Runs the console on this thread until the operator leaves, the terminal goes or `stop` is told.
/// The first frame is painted at once, whether or not the source has anything yet.
///
/// # Errors
/// [`ConsoleError`]; a panic of the console is caught and becomes one, with the terminal restored.
pub fn run(options: &ConsoleOptions, source: Box<dyn Source>, stop: &Stop) -> Result<Outcome, ConsoleError> {
    let state = initial_state(options, source.as_ref())?;
    let terminal = Terminal::open(stop.flag())?;
    let period = if options.environment.ssh { options.refresh.max(PAINT_SSH) } else { options.refresh };
    let body = std::panic::AssertUnwindSafe(|| Loop::new(terminal, state, source, period).run(stop));
    match std::panic::catch_unwind(body) {
        Ok(outcome) => Ok(outcome),
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            Err(ConsoleError::Panicked(text.unwrap_or_else(|| "without a message".to_owned())))
        }
    }
}

/// The state before the first frame. Bad themes of the operator are reported in the notice line.
fn initial_state(options: &ConsoleOptions, source: &dyn Source) -> Result<State, ConsoleError> {
    let environment = &options.environment;
    let mode = environment.color_mode(options.color, options.color_config);
    let ascii = options.ascii.unwrap_or_else(|| !environment.is_utf8());
    let mut themes = Themes::shipped()?;
    let mut problems =
        options.theme_directory.as_ref().map_or_else(Vec::new, |path| themes.add_directory(path));
    let names = themes.names();
    let looks = names.iter().map(|name| themes.look(name, mode, ascii)).collect::<Result<Vec<_>, _>>()?;
    let look = names.iter().position(|name| *name == options.theme);
    if look.is_none() {
        let known = names.join(", ");
        problems.push(ThemeError::Unknown { name: options.theme.clone(), known });
    }
    let titles = (0..source.nodes()).map(|node| source.name(node)).collect();
    let mut state = State::new(CleanText::new(&options.title), titles, looks, look.unwrap_or(0), now_ms());
    state.can_detach = options.can_detach;
    state.hosting = options.hosting;
    if options.fleet {
        state.screen = Screen::Fleet;
    }
    for problem in &problems {
        tracing::warn!(%problem, "theme not used");
    }
    state.notice = problems.first().map(|problem| CleanText::limited(&problem.to_string(), 300).to_string());
    Ok(state)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Loop {
    terminal: Terminal,
    state: State,
    source: Box<dyn Source>,
    period: Duration,
    decoder: Decoder,
    /// Something new that a key's painting or the next period shows.
    changed: bool,
    painted: Instant,
    size: (u16, u16),
}

impl Loop {
    fn new(terminal: Terminal, state: State, source: Box<dyn Source>, period: Duration) -> Self {
        let size = terminal.size();
        let decoder = Decoder::default();
        Self { terminal, state, source, period, decoder, changed: false, painted: Instant::now(), size }
    }

    fn run(mut self, stop: &Stop) -> Outcome {
        match self.turn(stop) {
            Ok(outcome) => outcome,
            Err(Lost::Told) => Outcome::Told,
            Err(lost) => Outcome::TerminalLost(lost.to_string()),
        }
    }

    fn turn(&mut self, stop: &Stop) -> Result<Outcome, Lost> {
        self.paint()?;
        loop {
            if stop.is_told() {
                return Ok(Outcome::Told);
            }
            self.gather();
            let size = self.terminal.size();
            let resized = size != self.size;
            self.size = size;
            if resized || (self.changed && self.painted.elapsed() >= self.period) {
                self.paint()?;
            }
            let wait = if self.decoder.is_waiting() { ESCAPE_PAUSE } else { GATHER };
            let typed = if self.terminal.wait(wait)? {
                let mut bytes = [0; READ_BYTES];
                let length = self.terminal.read(&mut bytes)?;
                self.decoder.feed(bytes.get(..length).unwrap_or_default())
            } else {
                self.decoder.pause().into_iter().collect()
            };
            if typed.is_empty() {
                continue;
            }
            for each in typed {
                if let Some(outcome) = self.take(each) {
                    return Ok(outcome);
                }
            }
            self.paint()?;
        }
    }

    fn take(&mut self, typed: Typed) -> Option<Outcome> {
        let message = match typed {
            Typed::Key(key) => Message::Key(key),
            Typed::Pasted => Message::Pasted,
        };
        for command in update(&mut self.state, message) {
            match command {
                Command::Repaint => self.terminal.forget(),
                Command::Suspend => self.terminal.suspend(),
                Command::Copy(text) => self.terminal.copy(&text),
                Command::Leave(Leaving::Stop(node)) => return Some(Outcome::Stop { node }),
                Command::Leave(Leaving::Detach) => return Some(Outcome::Detach),
            }
        }
        None
    }

    /// Takes everything new from the source.
    fn gather(&mut self) {
        let before = self.state.now_ms / 1000;
        let mut messages = vec![Message::Now(self.source.now_ms().unwrap_or_else(now_ms))];
        for node in 0..self.source.nodes() {
            let link = self.source.link(node);
            if self.state.live.nodes.get(node).is_some_and(|data| data.link != link) {
                messages.push(Message::Link { node, state: link });
            }
            if let Some(snapshot) = self.source.snapshot(node) {
                let shown = self.state.live.nodes.get(node).and_then(|data| data.snapshot.as_ref());
                if !shown.is_some_and(|shown| Arc::ptr_eq(shown, &snapshot)) {
                    messages.push(Message::Snapshot { node, snapshot });
                }
            }
            let events = self.source.events(node);
            if !events.list.is_empty() || events.missed > 0 {
                messages.push(Message::Events { node, events });
            }
        }
        let page = self.source.logs_since(self.state.live.logs.next, LOG_PAGE);
        if !page.records.is_empty() || page.skipped > 0 {
            messages.push(Message::Logs(page));
        }
        let phases = self.source.phases();
        if phases.len() != self.state.live.phases.len() {
            messages.push(Message::Phases(phases));
        }
        self.changed |= messages.len() > 1;
        for message in messages {
            update(&mut self.state, message);
        }
        // The clock in the header and the elapsed times move by the second.
        self.changed |= self.state.now_ms / 1000 != before;
    }

    fn paint(&mut self) -> Result<(), Lost> {
        self.changed = false;
        self.painted = Instant::now();
        self.terminal.paint(&self.state)
    }
}
