//! Reads `masternode.toml` and refuses what is wrong with it: file, line, setting, what was found,
//! what is allowed.
//!
//! The file is compared with the defaults of its network, which hold every setting with its type; then
//! each value with the rule of its setting; then the missing settings are filled in. So there is one
//! list of settings (the structs) and one of rules ([`RULES`]).

use crate::config::{BootstrapPeer, Config, default_data_dir};
use crate::primitives::chain::NetworkKind;
use crate::primitives::clean::CleanText;
use crate::primitives::trusted::TrustedHeader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::de::DeTable;
use toml::{Table, Value};

/// Largest configuration file read, in bytes; ten thousand times what anybody writes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most nodes in `p2p.bootstrap`: each is dialled at start.
const BOOTSTRAP_MAX: usize = 256;

/// Most nodes in `console.fleet`: each has a connection and a line on the screen.
const FLEET_MAX: usize = 64;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{file}: cannot be read: {source}. Check that the file exists and is yours to read, or name another with --config", file = file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting or the syntax is wrong.
    #[error("{file}:{line}: {reason}")]
    Refused {
        /// Name of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Setting, what was found and what is allowed.
        reason: String,
    },
}

/// What a value must satisfy beyond having the type of its default.
enum Rule {
    /// Least and most.
    Between(i64, i64),
    /// The allowed words.
    OneOf(&'static [&'static str]),
    /// A check of the text that says what is allowed.
    Text(fn(&str) -> Result<(), String>),
    /// The same for each text of a list of bounded length.
    Each(fn(&str) -> Result<(), String>, usize),
    /// Nothing beyond the type.
    Free,
}

/// Longest timer: an hour. More is a mistake of unit.
const TIMER_MS_MAX: i64 = 3_600_000;
/// Most memory or disk a byte setting may claim: 1 TiB.
const BYTES_MAX: i64 = 1 << 40;

/// The rule of every setting.
const RULES: &[(&str, Rule)] = &[
    ("name", Rule::Text(name)),
    ("network", Rule::OneOf(&["mainnet", "testnet", "devnet"])),
    ("data_dir", Rule::Free),
    ("genesis", Rule::Text(not_empty)),
    ("p2p.listen", Rule::Text(socket_address)),
    ("p2p.advertise", Rule::Text(optional_address)),
    ("p2p.bootstrap", Rule::Each(bootstrap_peer, BOOTSTRAP_MAX)),
    ("p2p.inbound_max", Rule::Between(0, 4_096)),
    ("p2p.inbound_of_network_max", Rule::Between(1, 4_096)),
    ("p2p.outbound_target", Rule::Between(0, 256)),
    ("p2p.latency_ms", Rule::Between(0, 10_000)),
    ("p2p.ping_interval_s", Rule::Between(1, 300)),
    ("sync.trusted_block", Rule::Text(trusted_block)),
    ("sync.snapshot", Rule::OneOf(&["auto", "off"])),
    ("consensus.era_ms", Rule::Between(100, TIMER_MS_MAX)),
    ("consensus.tick_ms", Rule::Between(1, 10_000)),
    ("consensus.grace_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.propose_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.propose_step_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.prevote_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.prevote_step_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.precommit_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.precommit_step_ms", Rule::Between(1, TIMER_MS_MAX)),
    ("consensus.skew_ms", Rule::Between(1, 60_000)),
    ("pool.transactions_max", Rule::Between(100, 10_000_000)),
    ("pool.bytes_max", Rule::Between(1 << 20, BYTES_MAX)),
    ("pool.orphans_max", Rule::Between(0, 1_000_000)),
    ("pool.rejections_max", Rule::Between(0, 10_000_000)),
    ("pool.rejection_ttl_s", Rule::Between(1, 86_400)),
    ("storage.cache_bytes", Rule::Between(1 << 20, BYTES_MAX)),
    ("storage.free_warn_bytes", Rule::Between(0, BYTES_MAX)),
    ("storage.free_vote_bytes", Rule::Between(0, BYTES_MAX)),
    ("storage.free_stop_bytes", Rule::Between(0, BYTES_MAX)),
    ("storage.snapshots_kept", Rule::Between(0, 4)),
    ("storage.snapshot_blocks", Rule::Between(1, 1_000_000)),
    ("storage.prune_blocks", Rule::Between(0, 1 << 40)),
    ("storage.snapshot_bytes_max", Rule::Between(1 << 20, BYTES_MAX)),
    ("keys.passphrase_file", Rule::Free),
    ("keys.vote_key", Rule::Text(not_empty)),
    ("keys.network_key", Rule::Text(not_empty)),
    ("keys.wallet_key", Rule::Text(not_empty)),
    ("log.filter", Rule::Text(log_filter)),
    ("log.format", Rule::OneOf(&["text", "json"])),
    ("log.files", Rule::Free),
    ("log.total_bytes_max", Rule::Between(1 << 20, BYTES_MAX)),
    ("log.stderr", Rule::Free),
    ("console.theme", Rule::Text(not_empty)),
    ("console.color", Rule::OneOf(&["auto", "truecolor", "ansi256", "ansi16", "never"])),
    ("console.refresh_ms", Rule::Between(50, 60_000)),
    ("console.fleet", Rule::Each(fleet_target, FLEET_MAX)),
];

/// Checks a node's name, as a setting or on the command line.
///
/// # Errors
/// What is allowed.
pub fn name(text: &str) -> Result<(), String> {
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    if !text.trim().is_empty() && text.len() <= 64 && text.chars().all(printable) {
        return Ok(());
    }
    Err("must be 1 to 64 printable ASCII characters".to_owned())
}

fn fleet_target(text: &str) -> Result<(), String> {
    let is_path = text.starts_with('/') || text.starts_with("~/");
    let is_far = text.strip_prefix("ssh://").is_some_and(|rest| !rest.is_empty() && !rest.starts_with('-'));
    if (is_path || is_far) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err("must be a path that begins with / or ~/, or ssh://USER@HOST[:PORT][/DIR]".to_owned())
}

fn not_empty(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(()) }
}

fn socket_address(text: &str) -> Result<(), String> {
    let parsed = text.parse::<SocketAddr>();
    parsed.map(|_| ()).map_err(|_| "must be ADDRESS:PORT, as in 0.0.0.0:24000 or [::]:24000".to_owned())
}

fn optional_address(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { socket_address(text) }
}

fn bootstrap_peer(text: &str) -> Result<(), String> {
    text.parse::<BootstrapPeer>().map(|_| ()).map_err(|error| error.to_string())
}

fn trusted_block(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let parsed = text.parse::<TrustedHeader>();
    parsed.map(|_| ()).map_err(|_| {
        "must be HEIGHT:ID, as the line `to trust` of another operator's `masternode status` shows it"
            .to_owned()
    })
}

/// Checks a log filter, as a setting or on the command line.
///
/// # Errors
/// What is wrong with it.
pub fn log_filter(text: &str) -> Result<(), String> {
    let parsed = text.parse::<tracing_subscriber::filter::Targets>();
    parsed
        .map(|_| ())
        .map_err(|_| "must be levels by module, as in `info` or `info,masternode::network=debug`".to_owned())
}

impl Config {
    /// Reads and checks a file. Paths in it are relative to the data directory, that one to the file;
    /// without `data_dir` it is [`default_data_dir`], or the file's directory when there is no home.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and remedy.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
        let size = std::fs::metadata(file).map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            let reason = format!("has {size} bytes, a configuration has at most {FILE_BYTES_MAX}");
            return Err(unreadable(std::io::Error::other(reason)));
        }
        let bytes = std::fs::read(file).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|error| not_text(file, &error))?;
        let mut config = Self::parse(&text, &file.display().to_string())?;
        let absolute = std::path::absolute(file).map_err(unreadable)?;
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        config.data_dir = if config.data_dir.as_os_str().is_empty() {
            default_data_dir(config.network).unwrap_or_else(|| directory.to_owned())
        } else if config.data_dir == Path::new(".") {
            directory.to_owned()
        } else {
            directory.join(&config.data_dir)
        };
        Ok(config)
    }

    /// Checks the text of a file; `file` names it in errors. Paths are left as written.
    ///
    /// # Errors
    /// [`ConfigError::Refused`].
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = Source::new(text, file)?;
        let mut merged = Table::new();
        let network = match source.table.get("network") {
            None => NetworkKind::Mainnet,
            Some(value) => {
                check_type(&Value::String(String::new()), value)
                    .and_then(|()| check_rule("network", value))
                    .map_err(|reason| source.refuse(&["network"], &format!("`network` {reason}")))?;
                let name = value.as_str().unwrap_or_default();
                NetworkKind::ALL.into_iter().find(|kind| kind.name() == name).unwrap_or(NetworkKind::Mainnet)
            }
        };
        let defaults = default_table(network);
        source.check(&[], &source.table, &defaults)?;
        fill(&mut merged, &source.table, &defaults);
        let config: Self = Value::Table(merged)
            .try_into()
            .map_err(|error: toml::de::Error| source.refuse(&[], error.message()))?;
        if config.p2p.latency_ms > 0 && config.network != NetworkKind::Devnet {
            let reason = "`latency_ms` delays every vote and is for a devnet only: remove it";
            return Err(source.refuse(&["p2p", "latency_ms"], reason));
        }
        check_pruning(&config).map_err(|reason| source.refuse(&["storage", "prune_blocks"], &reason))?;
        Ok(config)
    }
}

/// Blocks that have to be kept: so many that others that were away for hours catch up from this node.
const PRUNE_BLOCKS_MIN: u64 = 1000;
/// The same of a devnet, where blocks come every few seconds and nodes are away for seconds.
const PRUNE_BLOCKS_MIN_DEVNET: u64 = 3;

fn check_pruning(config: &Config) -> Result<(), String> {
    let storage = &config.storage;
    let (kept, least) = match config.network {
        NetworkKind::Devnet => (storage.prune_blocks, PRUNE_BLOCKS_MIN_DEVNET),
        NetworkKind::Mainnet | NetworkKind::Testnet => {
            // Whoever begins with the older of two snapshots fetches the blocks after it.
            (storage.prune_blocks, PRUNE_BLOCKS_MIN.max(storage.snapshot_blocks.saturating_mul(2)))
        }
    };
    if kept == 0 || kept >= least {
        return Ok(());
    }
    Err(format!(
        "`prune_blocks` is {kept}, it must be 0 (keep all) or at least {least}: others catch up from the blocks that are \
         kept"
    ))
}

/// A file that holds bytes no text has.
fn not_text(file: &Path, error: &std::string::FromUtf8Error) -> ConfigError {
    let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
    ConfigError::Refused {
        file: file.display().to_string(),
        line: 1 + good.iter().filter(|byte| **byte == b'\n').count(),
        reason: "not text (UTF-8): this is another file or a damaged one; restore it, or write it anew with \
                 masternode.example.toml beside it"
            .to_owned(),
    }
}

/// Every setting with its default.
fn default_table(network: NetworkKind) -> Table {
    match Table::try_from(Config::defaults(network)) {
        Ok(table) => table,
        Err(error) => unreachable!("the configuration holds only types TOML has: {error}"),
    }
}

/// `given` over `defaults`.
fn fill(merged: &mut Table, given: &Table, defaults: &Table) {
    for (key, default) in defaults {
        let value = match (given.get(key), default) {
            (Some(Value::Table(given)), Value::Table(defaults)) => {
                let mut section = Table::new();
                fill(&mut section, given, defaults);
                Value::Table(section)
            }
            (Some(value), _) => value.clone(),
            (None, default) => default.clone(),
        };
        merged.insert(key.clone(), value);
    }
}

/// A parsed file that can say where something stands.
struct Source<'a> {
    text: &'a str,
    file: &'a str,
    table: Table,
}

impl<'a> Source<'a> {
    fn new(text: &'a str, file: &'a str) -> Result<Self, ConfigError> {
        let table = text.parse::<Table>().map_err(|error| ConfigError::Refused {
            file: file.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            reason: format!("not valid TOML: {}", error.message().replace('\n', ", ")),
        })?;
        Ok(Self { text, file, table })
    }

    fn refuse(&self, path: &[&str], reason: &str) -> ConfigError {
        let offset = self.offset(path).unwrap_or(0);
        ConfigError::Refused {
            file: self.file.to_owned(),
            line: line_of(self.text, offset),
            // Keys and values come from the file and may hold anything.
            reason: CleanText::new(reason).to_string(),
        }
    }

    /// Where the setting `path` stands, in bytes.
    fn offset(&self, path: &[&str]) -> Option<usize> {
        let document = DeTable::parse(self.text).ok()?;
        let mut table = document.get_ref();
        let mut offset = None;
        for part in path {
            let (key, value) = table.iter().find(|(key, _)| key.get_ref() == part)?;
            offset = Some(key.span().start);
            match value.get_ref() {
                toml::de::DeValue::Table(inner) => table = inner,
                _ => break,
            }
        }
        offset
    }

    /// Refuses keys that `defaults` lacks, values of another type and values against their rule.
    fn check(&self, path: &[&str], given: &Table, defaults: &Table) -> Result<(), ConfigError> {
        for (key, value) in given {
            let here: Vec<&str> = path.iter().copied().chain([key.as_str()]).collect();
            let Some(default) = defaults.get(key) else {
                return Err(self.refuse(&here, &unknown(path, key, defaults)));
            };
            match (value, default) {
                (Value::Table(given), Value::Table(defaults)) => self.check(&here, given, defaults)?,
                _ => {
                    let refuse = |reason: String| self.refuse(&here, &format!("`{key}` {reason}"));
                    check_type(default, value).map_err(refuse)?;
                    check_rule(&here.join("."), value).map_err(refuse)?;
                }
            }
        }
        Ok(())
    }
}

fn check_type(default: &Value, value: &Value) -> Result<(), String> {
    if default.same_type(value) {
        return Ok(());
    }
    let wanted = match default {
        Value::Integer(_) => "a whole number without quotes",
        Value::Boolean(_) => "true or false without quotes",
        Value::Array(_) => "a list in brackets",
        Value::Table(_) => "a section in brackets, as in [log]",
        _ => "a text in quotes",
    };
    Err(format!("is {found}, it must be {wanted}", found = shown(value)))
}

fn check_rule(path: &str, value: &Value) -> Result<(), String> {
    let rule = RULES.iter().find(|(name, _)| *name == path).map_or(&Rule::Free, |(_, rule)| rule);
    let text = value.as_str().unwrap_or_default();
    match rule {
        Rule::Free => Ok(()),
        Rule::Between(least, most) => match value.as_integer() {
            Some(number) if (*least..=*most).contains(&number) => Ok(()),
            _ => Err(format!("is {}, it must be from {least} to {most}", shown(value))),
        },
        Rule::OneOf(words) if words.contains(&text) => Ok(()),
        Rule::OneOf(words) => {
            let nearest = nearest(text, words.iter().copied());
            let hint = nearest.map(|word| format!(" (did you mean `{word}`?)")).unwrap_or_default();
            Err(format!("is {}, it must be one of {}{hint}", shown(value), words.join(", ")))
        }
        Rule::Text(check) => check(text).map_err(|reason| format!("is {}: {reason}", shown(value))),
        Rule::Each(check, most) => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            if items.len() > *most {
                return Err(format!("has {} entries, at most {most} are allowed", items.len()));
            }
            items.iter().try_for_each(|item| match item.as_str() {
                Some(text) => check(text),
                None => Err(format!("holds {}, every entry must be a text in quotes", shown(item))),
            })
        }
    }
}

/// A value as written, cut short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut characters = text.chars();
    let short: String = characters.by_ref().take(60).collect();
    if characters.next().is_some() { format!("{short}...") } else { short }
}

fn unknown(path: &[&str], key: &str, known: &Table) -> String {
    let place = match path {
        [] => String::new(),
        path => format!(" in [{}]", path.join(".")),
    };
    let remedy = match nearest(key, known.keys().map(String::as_str)) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are {}", known.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    format!("unknown setting `{key}`{place}: {remedy}")
}

/// The candidate most like `word`, if any is: at most a third of its letters differ.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(3) + 2)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance. Cost: product of the lengths, so words are cut at 64 characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (above, to) in row.iter().skip(1).zip(&b) {
            left = (diagonal + usize::from(from != *to)).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(prefix: &str, table: &Table) -> Vec<String> {
        let join = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
        table
            .iter()
            .flat_map(|(key, value)| match value {
                Value::Table(inner) => paths(&join(key), inner),
                _ => vec![join(key)],
            })
            .collect()
    }

    #[test]
    fn every_setting_has_a_rule_and_its_default_satisfies_it() {
        for network in NetworkKind::ALL {
            let defaults = default_table(network);
            let mut known = paths("", &defaults);
            let mut ruled: Vec<String> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
            known.sort();
            ruled.sort();
            assert_eq!(known, ruled);
            let text = toml::to_string(&Config::defaults(network)).unwrap();
            assert_eq!(Config::parse(&text, "defaults").unwrap(), Config::defaults(network));
        }
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_setting_and_a_stranger_does_not() {
        let keys = ["era_ms", "tick_ms", "grace_ms"];
        assert_eq!(nearest("eraa_ms", keys.into_iter()), Some("era_ms"));
        assert_eq!(nearest("tikc_ms", keys.into_iter()), Some("tick_ms"));
        assert_eq!(nearest("database", keys.into_iter()), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn bootstrap_nodes_read_back_as_they_were_written() {
        let key = "aa".repeat(32);
        for text in
            ["example.org:24000", "192.0.2.1:1", "[2001:db8::1]:24000", &format!("{key}@node-1.example:9")]
        {
            assert_eq!(text.parse::<BootstrapPeer>().unwrap().to_string(), text);
        }
        for text in ["", "host", "host:", "host:0", "host:70000", "2001:db8::1:24000", "a b:1", "zz@host:1"] {
            assert!(text.parse::<BootstrapPeer>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_data_directory_is_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("masternode.toml");
        for (written, expected) in [
            (".", directory.path().to_owned()),
            ("data", directory.path().join("data")),
            ("/srv", "/srv".into()),
        ] {
            std::fs::write(&file, format!("data_dir = \"{written}\"\n")).unwrap();
            assert_eq!(Config::load(&file).unwrap().data_dir, expected);
        }
    }
}
