//! The console around a node or a devnet: opened first, closed last, so that the terminal is a terminal
//! again before anything is written to it.

use crate::cli::LookArgs;
use crate::commands::{Failure, Outcome};
use crate::console::source::{Feeder, InProcess};
use crate::console::{ConsoleError, ConsoleOptions, Outcome as Left, Stop, spawn};
use crate::theme;
use masternode::config::{ColorChoice, ConsoleConfig};
use masternode::node::logging::ring::LogRing;
use masternode::primitives::clean::CleanText;
use std::future::Future;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How the console looks: the command line overrules the configuration.
pub fn options(args: &LookArgs, config: &ConsoleConfig, title: &str) -> ConsoleOptions {
    let mut options = ConsoleOptions::new(title);
    options.theme = args.theme.clone().unwrap_or_else(|| config.theme.clone());
    options.refresh = Duration::from_millis(config.refresh_ms);
    options.theme_directory = theme_directory();
    options.color = args.color.map_or(theme::ColorChoice::Auto, choice);
    options.color_config = choice(config.color);
    options
}

/// Where the operator's own themes are: `masternode/themes` in `$XDG_CONFIG_HOME` or `~/.config`.
fn theme_directory() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let config = of("XDG_CONFIG_HOME").or_else(|| Some(of("HOME")?.join(".config")))?;
    Some(config.join("masternode").join("themes"))
}

fn choice(color: ColorChoice) -> theme::ColorChoice {
    match color {
        ColorChoice::Auto => theme::ColorChoice::Auto,
        ColorChoice::Truecolor => theme::ColorChoice::Truecolor,
        ColorChoice::Ansi256 => theme::ColorChoice::Ansi256,
        ColorChoice::Ansi16 => theme::ColorChoice::Ansi16,
        ColorChoice::Never => theme::ColorChoice::Never,
    }
}

/// A console on its thread.
pub struct Screen {
    /// Where nodes are connected as they come up.
    pub feeder: Feeder,
    stop: Stop,
    /// Gone with the console.
    left: Option<oneshot::Receiver<Result<Left, ConsoleError>>>,
    /// Whether the operator has ordered a stop.
    stopped: bool,
    thread: JoinHandle<()>,
}

impl Screen {
    /// Opens the console for as many nodes as there are names.
    ///
    /// # Errors
    /// [`Failure::Failed`] when there is no thread for it.
    pub fn open(options: ConsoleOptions, names: Vec<CleanText>, logs: LogRing) -> Result<Self, Failure> {
        let (source, feeder) = InProcess::new(names, logs);
        let stop = Stop::default();
        let (tell, left) = oneshot::channel();
        // Nobody listens any more when the process is ending anyway.
        let done = move |outcome| drop(tell.send(outcome));
        let thread = spawn(options, Box::new(source), stop.clone(), done).map_err(Failure::failed)?;
        Ok(Self { feeder, stop, left: Some(left), stopped: false, thread })
    }

    /// Waits until the operator orders a stop, or `ended` is over. When the operator detaches or the
    /// terminal goes away only `ended` counts, then and whenever this is called again.
    ///
    /// # Errors
    /// [`Failure::Failed`] when the console cannot run.
    pub async fn wait(&mut self, ended: impl Future<Output = ()>) -> Outcome {
        tokio::pin!(ended);
        let Some(leaving) = &mut self.left else {
            ended.await;
            return Ok(());
        };
        let left = tokio::select! {
            left = leaving => left,
            () = &mut ended => return Ok(()),
        };
        self.left = None;
        match left {
            Ok(Ok(Left::Stop { .. })) => {
                self.stopped = true;
                return Ok(());
            }
            Ok(Ok(Left::Told)) => return Ok(()),
            Ok(Ok(Left::Detach)) => tracing::info!("detached: running on without the console"),
            Ok(Ok(Left::TerminalLost(reason))) => {
                tracing::warn!(
                    reason,
                    "the terminal is gone: running on without the console; `masternode attach` opens it again"
                );
            }
            Ok(Err(error)) => {
                return Err(Failure::failed(format!("{error}; `--no-tui` runs without the console")));
            }
            Err(_) => return Err(Failure::failed("the console ended without saying why")),
        }
        ended.await;
        Ok(())
    }

    /// Whether the operator has ordered a stop on the console.
    pub const fn stop_ordered(&self) -> bool {
        self.stopped
    }

    /// Ends the console, which restores the terminal.
    pub fn close(self) {
        self.stop.tell();
        if self.thread.join().is_err() {
            tracing::error!("the console ended with a panic");
        }
    }
}

/// Cancelled when the process is told to stop (SIGINT, SIGTERM). A hang-up is not an order to stop:
/// the terminal has gone, the node has not. Needs a runtime.
pub fn told_to_stop() -> CancellationToken {
    let told = CancellationToken::new();
    let tell = told.clone();
    tokio::spawn(async move {
        // Without handlers the signals end the process by themselves.
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return;
        };
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                _ = hangup.recv() => tracing::info!("hang-up ignored"),
            }
        }
        tell.cancel();
    });
    told
}
