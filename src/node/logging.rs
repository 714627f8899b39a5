//! Logs: rotated files, the standard error when asked, and the live ring the console reads.
//!
//! Writing never blocks the node: files are written by a thread of their own behind a bounded queue,
//! and what does not fit is dropped and counted. Several nodes of a devnet share one process and so one
//! log; their records differ in the field `node`, taken from the record or the spans around it.
//! Nothing secret may reach a record: key and passphrase types do not show their content.

pub mod files;
pub mod ring;

use crate::config::{LogConfig, LogFormat};
use crate::node::logging::files::CappedFiles;
use crate::node::logging::ring::{LogRing, RingLayer};
use std::path::{Path, PathBuf};
use tracing::{Level, Subscriber};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;

/// Lines waiting for the file writer; at some 200 bytes a line 3 MiB at most.
const QUEUED_LINES_MAX: usize = 16_384;
/// Target of the span around a node; open whatever the filter says, so that no record lacks its node.
const NODE_SPAN_TARGET: &str = "node";

/// A span that names a node in every record within it, for nodes that share a process.
#[must_use]
pub fn node_span(name: &str) -> tracing::Span {
    tracing::error_span!(target: NODE_SPAN_TARGET, "node", node = %name)
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter has no meaning.
    #[error("log filter `{0}` is not levels by module, as in `info` or `info,masternode::network=debug`")]
    Filter(String),
    /// The directory or its first file cannot be made.
    #[error("{directory}: cannot write logs: {reason}. Check the directory, or set `files = false` in [log]", directory = directory.display())]
    Directory {
        /// Where the logs should go.
        directory: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Logging was started before in this process.
    #[error("logging has already been started in this process")]
    Started,
}

/// Running logs. Keep it to the end of `main`: dropping it writes out what is queued.
#[derive(Debug)]
pub struct Logging {
    ring: LogRing,
    dropped: Option<ErrorCounter>,
    _writer: Option<WorkerGuard>,
}

impl Logging {
    /// Starts logging for the process. `directory` is where files go when the settings want them;
    /// `stderr` writes to the standard error too and must be false while a console is shown.
    ///
    /// # Errors
    /// [`LoggingError`].
    pub fn start(config: &LogConfig, directory: &Path, stderr: bool) -> Result<Self, LoggingError> {
        let (logging, subscriber) = Self::prepare(config, directory, stderr)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Started)?;
        Ok(logging)
    }

    /// What [`Logging::start`] installs, for installing it elsewhere.
    ///
    /// # Errors
    /// [`LoggingError::Filter`], [`LoggingError::Directory`].
    pub fn prepare(
        config: &LogConfig,
        directory: &Path,
        stderr: bool,
    ) -> Result<(Self, impl Subscriber + Send + Sync + use<>), LoggingError> {
        let filter: Targets =
            config.filter.parse().map_err(|_| LoggingError::Filter(config.filter.clone()))?;
        let filter = filter.with_target(NODE_SPAN_TARGET, Level::ERROR);
        let ring = LogRing::default();
        let (mut dropped, mut guard, mut file_layer) = (None, None, None);
        if config.files {
            let files = CappedFiles::open(directory, config.total_bytes_max).map_err(|error| {
                LoggingError::Directory { directory: directory.to_owned(), reason: error.to_string() }
            })?;
            let (writer, worker) = NonBlockingBuilder::default()
                .buffered_lines_limit(QUEUED_LINES_MAX)
                .lossy(true)
                .thread_name("log-writer")
                .finish(files);
            dropped = Some(writer.error_counter());
            guard = Some(worker);
            file_layer = Some(format_layer(config.format, writer));
        }
        let stderr_layer = stderr.then(|| format_layer(config.format, std::io::stderr));
        let subscriber = tracing_subscriber::registry()
            .with(filter)
            .with(RingLayer::new(ring.clone()))
            .with(file_layer)
            .with(stderr_layer);
        Ok((Self { ring, dropped, _writer: guard }, subscriber))
    }

    /// The live records.
    #[must_use]
    pub fn ring(&self) -> LogRing {
        self.ring.clone()
    }

    /// Lines that did not reach the files because the writer could not keep up.
    #[must_use]
    pub fn dropped_lines(&self) -> usize {
        self.dropped.as_ref().map_or(0, ErrorCounter::dropped_lines)
    }
}

/// A layer that writes text or JSON lines. The text format escapes control characters itself.
fn format_layer<S, W>(format: LogFormat, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> tracing_subscriber::fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::primitives::chain::NetworkKind;

    fn config(format: LogFormat) -> LogConfig {
        LogConfig { format, ..Config::defaults(NetworkKind::Devnet).log }
    }

    fn written(directory: &Path) -> String {
        let mut files: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
    }

    #[test]
    fn records_reach_the_ring_and_the_files_and_are_clean_in_both() {
        let directory = tempfile::tempdir().unwrap();
        let (logging, subscriber) =
            Logging::prepare(&config(LogFormat::Text), directory.path(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let _node = node_span("bravo").entered();
            tracing::warn!(height = 7, peer = "evil\x1b[2J", "disk is \x1b[31mslow");
            tracing::debug!("below the filter");
        });
        let page = logging.ring().since(0, 10);
        assert_eq!(page.records.len(), 1);
        let record = &page.records[0].1;
        assert_eq!(record.message.as_str(), "disk is \\u{1b}[31mslow");
        let fields: Vec<_> =
            record.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(fields, [("node", "bravo"), ("height", "7"), ("peer", "evil\\u{1b}[2J")]);
        assert_eq!(logging.dropped_lines(), 0);
        drop(logging);
        let text = written(directory.path());
        assert!(text.contains("node{node=bravo}"), "{text}");
        assert!(text.contains("WARN") && text.contains("height=7") && !text.contains('\x1b'), "{text}");
    }

    #[test]
    fn json_files_hold_one_object_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let (logging, subscriber) =
            Logging::prepare(&config(LogFormat::Json), directory.path(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            for height in 0..3u64 {
                tracing::info!(height, "checkpoint");
            }
        });
        drop(logging);
        let text = written(directory.path());
        let heights: Vec<_> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["height"].as_u64().unwrap())
            .collect();
        assert_eq!(heights, [0, 1, 2]);
    }

    #[test]
    fn a_bad_filter_and_an_impossible_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let bad = LogConfig { filter: "masternode=loud".to_owned(), ..config(LogFormat::Text) };
        assert!(matches!(Logging::prepare(&bad, directory.path(), false), Err(LoggingError::Filter(_))));
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Logging::prepare(&config(LogFormat::Text), &file.join("logs"), false).err().unwrap();
        assert!(error.to_string().contains("files = false"), "{error}");
    }
}
