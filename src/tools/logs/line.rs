//! One line of a log: its time and level, read cheaply, and all of it as a record.
//!
//! Read are JSON lines as most programs write them, the text form of this one, and plain lines that begin with
//! a time or have a level among their first words. A line with neither goes on from the one before.

use crate::primitives::clean::CleanText;
use crate::telemetry::log::{LogLevel, LogRecord, NODE_FIELD};
use crate::tools::logs::time;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use std::fmt;

/// Words at the beginning of a plain line among which a level is looked for.
const LEVEL_WORDS: usize = 6;
/// Most fields of a record.
const FIELDS_MAX: usize = 64;

/// What is read of every line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Milliseconds since 1970.
    pub time_ms: Option<u64>,
    /// Severity.
    pub level: Option<LogLevel>,
}

impl Head {
    /// Of a line that may go on from the one before, whose head this is.
    #[must_use]
    pub fn or(self, before: Self) -> Self {
        if self == Self::default() {
            before
        } else {
            Self { time_ms: self.time_ms.or(before.time_ms), ..self }
        }
    }
}

/// What a key of a JSON line means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Time,
    Level,
    Message,
    Target,
    Other,
}

fn meaning(key: &str) -> Meaning {
    match key {
        "timestamp" | "time" | "ts" | "@timestamp" | "datetime" => Meaning::Time,
        "level" | "severity" | "lvl" | "log.level" | "levelname" => Meaning::Level,
        "message" | "msg" | "@message" => Meaning::Message,
        "target" | "logger" | "module" | "logger_name" => Meaning::Target,
        _ => Meaning::Other,
    }
}

/// A level by its name in any case.
#[must_use]
pub fn level_named(name: &str) -> Option<LogLevel> {
    let mut upper = [0; 9];
    let upper = upper.get_mut(..name.len())?;
    upper.copy_from_slice(name.as_bytes());
    upper.make_ascii_uppercase();
    Some(match &*upper {
        b"TRACE" | b"TRC" => LogLevel::Trace,
        b"DEBUG" | b"DBG" => LogLevel::Debug,
        b"INFO" | b"INF" | b"NOTICE" => LogLevel::Info,
        b"WARN" | b"WARNING" | b"WRN" => LogLevel::Warn,
        b"ERROR" | b"ERR" | b"CRITICAL" | b"CRIT" | b"FATAL" | b"PANIC" | b"ALERT" | b"EMERG" => {
            LogLevel::Error
        }
        _ => return None,
    })
}

/// Levels as numbers, as pino and bunyan write them: 10 for trace to 60 for fatal.
fn level_numbered(number: u64) -> Option<LogLevel> {
    Some(match number {
        10 => LogLevel::Trace,
        20 => LogLevel::Debug,
        30 => LogLevel::Info,
        40 => LogLevel::Warn,
        50 | 60 => LogLevel::Error,
        _ => return None,
    })
}

/// Time and level of a line. Cost: about 100 ns where they come first.
#[must_use]
pub fn head(line: &[u8], now_ms: u64) -> Head {
    if line.first() == Some(&b'{') {
        return json_head(line, now_ms);
    }
    let (time_ms, rest) = match time::leading(line, now_ms) {
        Some((ms, length)) => (Some(ms), line.get(length..).unwrap_or_default()),
        None => (None, line),
    };
    Head { time_ms, level: level_among_words(rest) }
}

fn level_among_words(text: &[u8]) -> Option<LogLevel> {
    let words = text.split(|byte| matches!(byte, b' ' | b'\t' | b'[' | b']' | b':' | b'|' | b'='));
    words
        .filter(|word| !word.is_empty())
        .take(LEVEL_WORDS)
        .filter(|word| word.iter().all(u8::is_ascii_uppercase))
        .find_map(|word| level_named(str::from_utf8(word).ok()?))
}

/// Looks at the keys of an object until time and level were found.
fn json_head(line: &[u8], now_ms: u64) -> Head {
    struct Keys<'a>(&'a mut Head, u64);
    impl<'de> Visitor<'de> for Keys<'_> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(meaning) = map.next_key_seed(Key)? {
                match meaning {
                    Meaning::Time if self.0.time_ms.is_none() => {
                        self.0.time_ms = time_of(&map.next_value()?, self.1);
                    }
                    Meaning::Level if self.0.level.is_none() => self.0.level = level_of(&map.next_value()?),
                    _ => {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                if self.0.time_ms.is_some() && self.0.level.is_some() {
                    return Err(A::Error::custom("the rest is not looked at"));
                }
            }
            Ok(())
        }
    }
    let mut head = Head::default();
    // What was found before an end that is cut off counts.
    let _cut = serde_json::Deserializer::from_slice(line).deserialize_map(Keys(&mut head, now_ms));
    head
}

/// A key by what it means, without keeping it.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Meaning;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Meaning, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Meaning;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Meaning, E> {
        Ok(meaning(key))
    }
}

fn time_of(value: &Value, now_ms: u64) -> Option<u64> {
    match value {
        Value::String(text) => time::leading(text.as_bytes(), now_ms).map(|(ms, _)| ms),
        Value::Number(number) => time::of_number(number.as_f64()?),
        _ => None,
    }
}

fn level_of(value: &Value) -> Option<LogLevel> {
    match value {
        Value::String(text) => level_named(text),
        Value::Number(number) => level_numbered(number.as_u64()?),
        _ => None,
    }
}

/// A line as a record; what its line does not say is taken from `before`, the head of the line before it.
#[must_use]
pub fn record(line: &[u8], before: Head, now_ms: u64) -> LogRecord {
    let object = (line.first() == Some(&b'{')).then(|| serde_json::from_slice::<Value>(line).ok()).flatten();
    let own = head(line, now_ms);
    let head = own.or(before);
    let mut record = LogRecord {
        time_ms: head.time_ms.unwrap_or(0),
        level: head.level.unwrap_or(LogLevel::Info),
        target: CleanText::default(),
        message: CleanText::default(),
        fields: Vec::new(),
    };
    match object {
        Some(Value::Object(members)) => {
            members.into_iter().for_each(|(key, value)| keep(&mut record, &key, value));
        }
        _ => text_record(&mut record, line, now_ms),
    }
    record
}

fn keep(record: &mut LogRecord, key: &str, value: Value) {
    match (meaning(key), value) {
        (Meaning::Time | Meaning::Level, _) => {}
        (Meaning::Message, Value::String(text)) if record.message.as_str().is_empty() => {
            record.message = CleanText::new(&text);
        }
        (Meaning::Target, Value::String(text)) if record.target.as_str().is_empty() => {
            record.target = CleanText::new(&text);
        }
        // As this program writes them: the fields beside, and the span around, of which the node counts.
        (_, Value::Object(members)) if key == "fields" => {
            members.into_iter().for_each(|(key, value)| keep(record, &key, value));
        }
        (_, Value::Object(mut members)) if key == "span" => {
            if let Some(node) = members.remove(NODE_FIELD) {
                field(record, NODE_FIELD, &node);
            }
        }
        (_, Value::Array(_)) if key == "spans" => {}
        (_, Value::Object(members)) => {
            for (inner, value) in members {
                field(record, &format!("{key}.{inner}"), &value);
            }
        }
        (_, value) => field(record, key, &value),
    }
}

fn field(record: &mut LogRecord, key: &str, value: &Value) {
    if record.fields.len() < FIELDS_MAX {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        record.fields.push((CleanText::new(key), CleanText::new(&text)));
    }
}

/// `time LEVEL span{..}: target: message name=value ..`, as far as it is that.
fn text_record(record: &mut LogRecord, line: &[u8], now_ms: u64) {
    let skip = time::leading(line, now_ms).map_or(0, |(_, length)| length);
    let text = String::from_utf8_lossy(line.get(skip..).unwrap_or_default());
    let text = text.trim();
    let level_first = text.split_once(' ').filter(|(word, _)| level_named(word).is_some());
    let Some((_, mut rest)) = level_first else {
        record.message = CleanText::new(text);
        return;
    };
    rest = rest.trim_start();
    while let Some((name, inside)) = rest.split_once('{')
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && let Some((inside, after)) = inside.split_once('}')
        && let Some(after) = after.strip_prefix(':')
    {
        let node = inside.split(' ').find_map(|pair| pair.strip_prefix("node="));
        if let Some(node) = node {
            field(record, NODE_FIELD, &Value::from(node.trim_matches('"')));
        }
        rest = after.trim_start();
    }
    if let Some((target, after)) = rest.split_once(": ")
        && !target.is_empty()
        && !target.contains(' ')
    {
        record.target = CleanText::new(target);
        rest = after;
    }
    let starts: Vec<usize> = field_starts(rest).collect();
    let message = rest.get(..starts.first().copied().unwrap_or(rest.len())).unwrap_or(rest);
    record.message = CleanText::new(message.trim_end());
    for (at, from) in starts.iter().enumerate() {
        let to = starts.get(at + 1).copied().unwrap_or(rest.len());
        if let Some((name, value)) = rest.get(*from..to).and_then(|pair| pair.split_once('=')) {
            let value = value.trim_end();
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            field(record, name, &Value::from(inner.unwrap_or(value)));
        }
    }
}

/// Where `name=` begins at the start of a word, outside of quotes.
fn field_starts(text: &str) -> impl Iterator<Item = usize> + '_ {
    let mut quoted = false;
    let mut word = 0;
    let mut plain = true;
    let mut escaped = false;
    text.bytes().enumerate().filter_map(move |(at, byte)| {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            return None;
        }
        match byte {
            b' ' => (word, plain) = (at + 1, true),
            b'=' => {
                let found = plain && at > word;
                plain = false;
                return found.then_some(word);
            }
            b'"' => (quoted, plain) = (true, false),
            byte => plain &= byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'),
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_413_662_000;

    fn shown(line: &str) -> (u64, LogLevel, String, String, Vec<(String, String)>) {
        let record = record(line.as_bytes(), Head::default(), NOW);
        let fields =
            record.fields.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        (record.time_ms, record.level, record.target.to_string(), record.message.to_string(), fields)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_forms_of_our_own_logs_are_taken_apart_alike() {
        let fields = [("node", "bravo"), ("height", "7"), ("error", "no space: \"db\""), ("file", "a b")];
        let (text, json) = (
            r#"2026-11-23T06:01:02.345678Z  WARN node{node=bravo}: masternode::node: disk is slow height=7 error=no space: "db" file="a b""#,
            r#"{"timestamp":"2026-11-23T06:01:02.345678Z","level":"WARN","message":"disk is slow","height":7,"error":"no space: \"db\"","file":"a b","target":"masternode::node","span":{"node":"bravo","name":"node"},"spans":[{"node":"bravo","name":"node"}]}"#,
        );
        let expected = (NOW + 345, LogLevel::Warn, "masternode::node".to_owned(), "disk is slow".to_owned());
        for line in [text, json] {
            let (time_ms, level, target, message, mut found) = shown(line);
            found.sort();
            let mut fields = pairs(&fields);
            fields.sort();
            assert_eq!((time_ms, level, target, message), expected.clone(), "{line}");
            assert_eq!(found, fields, "{line}");
            let head = head(line.as_bytes(), NOW);
            assert_eq!(head, Head { time_ms: Some(NOW + 345), level: Some(LogLevel::Warn) });
        }
    }

    #[test]
    fn logs_of_others_are_read_as_far_as_they_say_something() {
        for (line, time_ms, level, message) in [
            (r#"{"time":1795413662000,"level":50,"msg":"pino"}"#, NOW, LogLevel::Error, "pino"),
            (r#"{"ts":1795413662.5,"lvl":"dbg","msg":"zap"}"#, NOW + 500, LogLevel::Debug, "zap"),
            (
                r#"{"fields":{"message":"nested","level":"x"},"level":"error","time":"2026-11-23T06:01:02Z"}"#,
                NOW,
                LogLevel::Error,
                "nested",
            ),
            (
                "2026-11-23 06:01:02,000 [main] ERROR c.e.App - failed",
                NOW,
                LogLevel::Error,
                "[main] ERROR c.e.App - failed",
            ),
            ("Nov 23 06:01:02 host kernel: Out of memory", NOW, LogLevel::Info, "host kernel: Out of memory"),
            ("just words", 0, LogLevel::Info, "just words"),
            ("", 0, LogLevel::Info, ""),
        ] {
            let (found_ms, found_level, _, found, _) = shown(line);
            assert_eq!((found_ms, found_level, found.as_str()), (time_ms, level, message), "{line}");
        }
    }

    #[test]
    fn a_line_without_time_and_level_goes_on_from_the_one_before() {
        let before = Head { time_ms: Some(NOW), level: Some(LogLevel::Error) };
        let trace = record(b"    at main.rs:7", before, NOW);
        assert_eq!((trace.time_ms, trace.level), (NOW, LogLevel::Error));
        // One with a time of its own has a level of its own, or none.
        let own = head(b"2026-11-23T06:01:03Z started", NOW).or(before);
        assert_eq!(own, Head { time_ms: Some(NOW + 1000), level: None });
    }

    #[test]
    fn nothing_in_a_line_reaches_the_terminal_as_it_is() {
        let line = "2026-11-23T06:01:02Z INFO x: \u{1b}[2J bell\u{7} a=\u{202e}b";
        let (_, _, _, message, fields) = shown(line);
        assert!(!message.contains('\u{1b}') && message.contains("\\u{1b}"), "{message}");
        assert!(!fields[0].1.contains('\u{202e}'));
        let json = record(br#"{"message":"\u001b[2J","key\u0007":"\u009b"}"#, Head::default(), NOW);
        assert!(json.message.as_str().starts_with("\\u{1b}") && json.fields[0].0.as_str() == "key\\u{7}");
    }

    #[test]
    fn a_json_line_that_is_cut_off_still_has_its_head() {
        let cut = br#"{"timestamp":"2026-11-23T06:01:02Z","level":"ERROR","message":"half a li"#;
        assert_eq!(head(cut, NOW), Head { time_ms: Some(NOW), level: Some(LogLevel::Error) });
        assert!(record(cut, Head::default(), NOW).message.as_str().contains("half a li"));
    }
}
