//! What of a log is shown: terms that must all hold.
//!
//! A term is a word or `"some words"` in the line, `/a regular expression/`, `level:warn` and above,
//! `target:network` and below, `name=value` of a field, `since:2h`, `until:12:03`; `!` before it inverts it. Text
//! without capitals matches in any case.

use crate::telemetry::log::LogLevel;
use crate::tools::logs::line::{Head, level_named, record};
use crate::tools::logs::time::named;
use regex::bytes::{Regex, RegexBuilder};

/// Most terms of a filter.
const TERMS_MAX: usize = 32;
/// Bytes a regular expression may take when it is compiled; it is as fast as it is small.
const REGEX_BYTES_MAX: usize = 1 << 20;
/// Where the modules of this program begin; a target may be named without it.
const OWN_ROOT: &str = "masternode::";

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("`{0}` is no level: trace, debug, info, warn or error")]
    Level(String),
    #[error("`{0}` is no time: 2h, 15m, 12:03, 2026-11-23 or 2026-11-23T12:03:00Z (times are UTC)")]
    Time(String),
    #[error("`{text}` is no regular expression: {reason}")]
    Regex { text: String, reason: String },
    #[error("the quote or slash that begins `{0}` is not closed")]
    Open(String),
    #[error("there is nothing behind `{0}`")]
    Empty(String),
    #[error("more than {TERMS_MAX} terms")]
    TooMany,
}

#[derive(Clone, Debug)]
enum What {
    Level(LogLevel),
    Target(String),
    Field { name: String, value: String },
    Pattern(Regex),
    Since(u64),
    Until(u64),
}

#[derive(Clone, Debug)]
struct Term {
    what: What,
    inverted: bool,
}

/// Terms that must all hold; the empty filter lets everything through.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    terms: Vec<Term>,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// [`FilterError`], naming the term.
    pub fn parse(text: &str, now_ms: u64) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (inverted, after) = match rest.strip_prefix('!') {
                Some(after) => (true, after),
                None => (false, rest),
            };
            let (what, after) = term(after, now_ms)?;
            filter.add(what, inverted)?;
            rest = after.trim_start();
        }
        Ok(filter)
    }

    fn add(&mut self, what: What, inverted: bool) -> Result<(), FilterError> {
        if self.terms.len() >= TERMS_MAX {
            return Err(FilterError::TooMany);
        }
        self.terms.push(Term { what, inverted });
        // The cheap ones first.
        self.terms.sort_by_key(|term| match term.what {
            What::Level(_) | What::Since(_) | What::Until(_) => 0,
            What::Pattern(_) => 1,
            What::Target(_) | What::Field { .. } => 2,
        });
        Ok(())
    }

    /// Only records of a level and above.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn and_level(mut self, name: &str) -> Result<Self, FilterError> {
        self.add(level(name)?, false)?;
        Ok(self)
    }

    /// Only records of a time and later.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn and_since(mut self, text: &str, now_ms: u64) -> Result<Self, FilterError> {
        self.add(What::Since(moment(text, now_ms)?), false)?;
        Ok(self)
    }

    /// Only records of before a time.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn and_until(mut self, text: &str, now_ms: u64) -> Result<Self, FilterError> {
        self.add(What::Until(moment(text, now_ms)?), false)?;
        Ok(self)
    }

    /// Only lines that a regular expression matches.
    ///
    /// # Errors
    /// [`FilterError`].
    pub fn and_pattern(mut self, pattern: &str) -> Result<Self, FilterError> {
        self.add(What::Pattern(expression(pattern)?), false)?;
        Ok(self)
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// The earliest time that passes, which spares reading what is older.
    #[must_use]
    pub fn since_ms(&self) -> Option<u64> {
        let since = self.terms.iter().filter(|term| !term.inverted);
        since.filter_map(|term| if let What::Since(ms) = term.what { Some(ms) } else { None }).max()
    }

    /// Whether a line passes, of which the head was read; `head` may be that of the line it goes on from.
    #[must_use]
    pub fn passes(&self, line: &[u8], head: Head, now_ms: u64) -> bool {
        self.terms.iter().all(|term| holds(&term.what, line, head, now_ms) != term.inverted)
    }
}

fn holds(what: &What, line: &[u8], head: Head, now_ms: u64) -> bool {
    match what {
        What::Level(least) => head.level.unwrap_or(LogLevel::Info) >= *least,
        What::Since(since) => head.time_ms.is_some_and(|ms| ms >= *since),
        What::Until(until) => head.time_ms.is_some_and(|ms| ms < *until),
        What::Pattern(pattern) => pattern.is_match(line) || escaped_match(pattern, line),
        // Told apart only where the text is there at all.
        What::Target(target) => {
            memchr::memmem::find(line, target.as_bytes()).is_some()
                && is_below(record(line, head, now_ms).target.as_str(), target)
        }
        What::Field { name, value } => {
            memchr::memmem::find(line, value.as_bytes()).is_some()
                && record(line, head, now_ms)
                    .fields
                    .iter()
                    .any(|(key, found)| key.as_str() == name && found.as_str() == value)
        }
    }
}

/// A JSON line whose text is written with escapes is looked at as it reads.
fn escaped_match(pattern: &Regex, line: &[u8]) -> bool {
    if line.first() != Some(&b'{') || memchr::memchr(b'\\', line).is_none() {
        return false;
    }
    let record = record(line, Head::default(), 0);
    let mut texts = record.fields.iter().map(|(_, value)| value.as_str());
    pattern.is_match(record.message.as_str().as_bytes())
        || texts.any(|text| pattern.is_match(text.as_bytes()))
}

/// Whether a target is `wanted` or a module in it.
fn is_below(target: &str, wanted: &str) -> bool {
    let below = |target: &str| {
        target.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '.', '/']))
    };
    below(target) || target.strip_prefix(OWN_ROOT).is_some_and(below)
}

/// The first term of a text, and what follows it.
fn term(text: &str, now_ms: u64) -> Result<(What, &str), FilterError> {
    if let Some(inside) = text.strip_prefix('/') {
        let (pattern, rest) = closed(inside, '/').ok_or_else(|| FilterError::Open(text.to_owned()))?;
        return Ok((What::Pattern(expression(&pattern.replace("\\/", "/"))?), rest));
    }
    if let Some(inside) = text.strip_prefix('"') {
        let (words, rest) = closed(inside, '"').ok_or_else(|| FilterError::Open(text.to_owned()))?;
        return Ok((words_in_line(&words.replace("\\\"", "\""))?, rest));
    }
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if word.is_empty() {
        return Err(FilterError::Empty("!".to_owned()));
    }
    for (name, make) in [
        ("level:", level as fn(&str) -> Result<What, FilterError>),
        ("target:", |target| Ok(What::Target(target.to_owned()))),
    ] {
        if let Some(value) = word.strip_prefix(name) {
            return Ok((make(present(value, name)?)?, rest));
        }
    }
    if let Some(value) = word.strip_prefix("since:") {
        return Ok((What::Since(moment(present(value, "since:")?, now_ms)?), rest));
    }
    if let Some(value) = word.strip_prefix("until:") {
        return Ok((What::Until(moment(present(value, "until:")?, now_ms)?), rest));
    }
    if let Some((name, value)) = word.split_once('=')
        && is_name(name)
        && !value.is_empty()
    {
        if let Some(inside) = value.strip_prefix('"') {
            // The value may go on behind a space.
            let at = text.len() - text.get(name.len() + 2..).map_or(0, str::len);
            let inside_all = text.get(at..).unwrap_or(inside);
            let (value, rest) =
                closed(inside_all, '"').ok_or_else(|| FilterError::Open(format!("\"{inside}")))?;
            return Ok((What::Field { name: name.to_owned(), value: value.to_owned() }, rest));
        }
        return Ok((What::Field { name: name.to_owned(), value: value.to_owned() }, rest));
    }
    Ok((words_in_line(word)?, rest))
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// What is before the closing character, which a backslash hides, and what is behind it.
fn closed(text: &str, end: char) -> Option<(&str, &str)> {
    let mut hidden = false;
    for (at, character) in text.char_indices() {
        if character == end && !hidden {
            return Some((text.get(..at)?, text.get(at + end.len_utf8()..)?));
        }
        hidden = !hidden && character == '\\';
    }
    None
}

fn present<'a>(value: &'a str, name: &str) -> Result<&'a str, FilterError> {
    if value.is_empty() { Err(FilterError::Empty(name.to_owned())) } else { Ok(value) }
}

fn level(name: &str) -> Result<What, FilterError> {
    level_named(name).map(What::Level).ok_or_else(|| FilterError::Level(name.to_owned()))
}

fn moment(text: &str, now_ms: u64) -> Result<u64, FilterError> {
    named(text, now_ms).ok_or_else(|| FilterError::Time(text.to_owned()))
}

fn words_in_line(words: &str) -> Result<What, FilterError> {
    Ok(What::Pattern(expression(&regex::escape(present(words, "\"")?))?))
}

fn expression(pattern: &str) -> Result<Regex, FilterError> {
    let built = RegexBuilder::new(pattern)
        .case_insensitive(!pattern.chars().any(char::is_uppercase))
        .size_limit(REGEX_BYTES_MAX)
        .build();
    built.map_err(|error| FilterError::Regex {
        text: pattern.to_owned(),
        reason: match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line says what is wrong, those before point at the place.
            error => {
                error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::logs::line::head;

    const NOW: u64 = 1_795_413_662_000;
    const LINES: [&str; 5] = [
        "2026-11-23T06:01:02Z  INFO masternode::network::peers: Connected peer=ab12 rtt_ms=7",
        "2026-11-23T06:01:03Z  WARN masternode::node::space: disk is slow height=12 file=\"a b\"",
        r#"{"timestamp":"2026-11-23T06:01:04Z","level":"ERROR","message":"no \"db\" at [x]","height":121,"target":"other::network"}"#,
        "2026-11-23T06:01:05Z DEBUG masternode::networks: chatter",
        "plain line",
    ];

    /// Which of the lines pass.
    fn passing(filter: &str) -> Vec<usize> {
        let filter = Filter::parse(filter, NOW).unwrap();
        let passes = |line: &str| filter.passes(line.as_bytes(), head(line.as_bytes(), NOW), NOW);
        (0..LINES.len()).filter(|at| passes(LINES[*at])).collect()
    }

    #[test]
    fn terms_narrow_down_and_are_inverted() {
        for (filter, expected) in [
            ("", vec![0, 1, 2, 3, 4]),
            ("level:warn", vec![1, 2]),
            ("!level:warn", vec![0, 3, 4]),
            ("target:network", vec![0]),
            ("target:masternode", vec![0, 1, 3]),
            ("target:masternode::network", vec![0]),
            ("target:other", vec![2]),
            ("height=12", vec![1]),
            ("height=121", vec![2]),
            ("!height=12 level:warn", vec![2]),
            ("file=\"a b\"", vec![1]),
            ("file=\"a b\" level:error", vec![]),
            ("connected", vec![0]),
            ("CONNECTED", vec![]),
            ("Connected", vec![0]),
            ("\"is slow\"", vec![1]),
            ("\"no \\\"db\"", vec![2]),
            ("/rtt_ms=[5-9]$/", vec![0]),
            (r#"/no "db" at \[x\]/"#, vec![2]),
            ("since:06:01:03 until:06:01:05", vec![]),
            ("since:2026-11-23T06:01:03Z until:2026-11-23T06:01:05Z", vec![1, 2]),
        ] {
            assert_eq!(passing(filter), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said_with_the_term() {
        for (filter, part) in [
            ("level:loud", "`loud` is no level"),
            ("level:", "nothing behind `level:`"),
            ("since:soon", "`soon` is no time"),
            ("/(/", "unclosed group"),
            ("/open", "`/open` is not closed"),
            ("\"open", "is not closed"),
            ("x=\"open", "is not closed"),
            ("! x", "nothing behind `!`"),
            ("/a{1000}{1000}/", "too large"),
        ] {
            let error = Filter::parse(filter, NOW).unwrap_err().to_string();
            assert!(error.contains(part), "{filter}: {error}");
        }
        assert_eq!(Filter::parse(&"a ".repeat(33), NOW).unwrap_err(), FilterError::TooMany);
    }

    #[test]
    fn what_the_command_line_adds_holds_as_well() {
        let filter = Filter::default().and_level("warn").unwrap().and_pattern("slow|db").unwrap();
        let filter = filter.and_since("2026-11-23T06:01:04Z", NOW).unwrap();
        let head = |line: &str| head(line.as_bytes(), NOW);
        let passing = LINES.iter().filter(|line| filter.passes(line.as_bytes(), head(line), NOW));
        assert_eq!(passing.count(), 1);
        assert_eq!(filter.since_ms(), Some(NOW + 2000));
        assert!(!filter.is_empty() && Filter::default().is_empty());
    }
}
