//! The options of `masternode logs`.

use crate::cli::{NodeArgs, ScreenArgs};
use clap::{Args, ValueHint};
use std::path::PathBuf;

const LOGS_HELP: &str = "On a terminal this opens the viewer (? shows its keys); into a pipe it prints. Read are JSON lines \
                         and plain lines of any program, rotated files and .gz and .zst too, in the order of their \
                         times. Times are UTC: 2h (ago), 12:03, 2026-11-23, 2026-11-23T12:03:00Z. A filter is words, \
                         \"two words\", /regex/, level:warn, target:network, name=value, since:2h, until:12:03; all must \
                         hold, ! inverts one.";

#[derive(Clone, Debug, Args)]
#[command(after_help = LOGS_HELP)]
pub struct LogsArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Files or folders [default: the logs of the node]
    #[arg(value_name = "FILE", value_hint = ValueHint::AnyPath)]
    pub files: Vec<PathBuf>,
    /// Go on with what is added
    #[arg(long, short)]
    pub follow: bool,
    /// Only records of this level and above: trace, debug, info, warn or error
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<String>,
    /// Only records since this time
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only records of before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Only lines that this regular expression matches
    #[arg(long, value_name = "REGEX")]
    pub grep: Option<String>,
    /// Only lines that pass this filter
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// Print one JSON object a record
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub screen: ScreenArgs,
}
