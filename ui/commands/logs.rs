//! `masternode logs`: the viewer on a terminal, lines for pipes otherwise.

use crate::cli::logs::LogsArgs;
use crate::commands::{Failure, Outcome, locate, screen};
use crate::review;
use masternode::config::{Config, ConsoleConfig};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::clean::CleanText;
use masternode::tools::logs::filter::{Filter, FilterError};
use masternode::tools::logs::stream::{Form, Options, print};
use masternode::tools::logs::{files, pages::Pages};
use std::io::{BufWriter, IsTerminal as _};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Folder of the logs in the data directory.
const LOG_DIRECTORY: &str = "logs";

/// # Errors
/// [`Failure::Usage`] for a filter that has no meaning, [`Failure::Failed`] for files that cannot be read.
pub fn execute(args: &LogsArgs) -> Outcome {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let (paths, console) = what(args)?;
    let is_terminal = std::io::stdout().is_terminal();
    if is_terminal && !args.screen.no_tui && !args.json {
        return view(args, &paths, &console, now_ms);
    }
    let form = match (args.json, is_terminal) {
        (true, _) => Form::Json,
        (false, true) => Form::Clean,
        (false, false) => Form::Raw,
    };
    let filter = filter(args, now_ms).map_err(|error| Failure::Usage(error.to_string()))?;
    let options = Options { filter, form, follow: args.follow, now_ms };
    let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    print(&paths, &options, &mut out, &|| false).map_err(Failure::from)
}

/// Which files are meant, and how the operator likes the console.
fn what(args: &LogsArgs) -> Result<(Vec<PathBuf>, ConsoleConfig), Failure> {
    if args.files.is_empty() {
        let config = locate::config(&args.node)?;
        return Ok((vec![config.data_dir.join(LOG_DIRECTORY)], config.console));
    }
    Ok((args.files.clone(), Config::defaults(NetworkKind::Mainnet).console))
}

fn filter(args: &LogsArgs, now_ms: u64) -> Result<Filter, FilterError> {
    let mut filter = Filter::parse(args.filter.as_deref().unwrap_or_default(), now_ms)?;
    if let Some(level) = &args.level {
        filter = filter.and_level(level)?;
    }
    if let Some(since) = &args.since {
        filter = filter.and_since(since, now_ms)?;
    }
    if let Some(until) = &args.until {
        filter = filter.and_until(until, now_ms)?;
    }
    match &args.grep {
        Some(pattern) => filter.and_pattern(pattern),
        None => Ok(filter),
    }
}

/// The options as the viewer's own filter, which can be changed there.
fn as_text(args: &LogsArgs) -> String {
    let mut terms: Vec<String> = args.filter.iter().cloned().collect();
    let named = [("level", &args.level), ("since", &args.since), ("until", &args.until)];
    for (name, value) in named {
        terms.extend(value.iter().map(|value| format!("{name}:{}", value.replace(' ', "T"))));
    }
    terms.extend(args.grep.iter().map(|pattern| format!("/{}/", pattern.replace('/', "\\/"))));
    terms.join(" ")
}

fn view(args: &LogsArgs, paths: &[PathBuf], console: &ConsoleConfig, now_ms: u64) -> Outcome {
    let text = as_text(args);
    let filter = Filter::parse(&text, now_ms).map_err(|error| Failure::Usage(error.to_string()))?;
    let found = files::find(paths, now_ms)?;
    let title = match (&found[..], paths) {
        ([only], _) => only.path.display().to_string(),
        (_, [folder]) => format!("{} ({} files)", folder.display(), found.len()),
        _ => format!("{} files", found.len()),
    };
    let pages = Pages::open(found, filter, now_ms)?;
    let options = screen::options(&args.screen.look, console, "masternode logs");
    let title = CleanText::limited(&title, 200).to_string();
    review::run(&options, &title, &pages, text, now_ms).map_err(Failure::failed)
}
