//! The live ring: the newest log records in memory, warnings in a ring of their own so that chatter
//! cannot push them out.
//!
//! Readers ask for what came after a number and are told how much they missed. A record is cleaned
//! when it enters, so nothing in here can drive a terminal.

use crate::primitives::clean::CleanText;
use crate::telemetry::log::{LogLevel, LogPage, LogRecord, NODE_FIELD};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Most records in a ring (console.md).
pub const RECORDS_MAX: usize = 20_000;
/// Most bytes of records in a ring.
pub const BYTES_MAX: usize = 32 << 20;
/// Most records of WARN and above kept beside.
pub const WARNINGS_MAX: usize = 2_000;
/// Fields kept of a record; tracing itself allows 32.
const FIELDS_MAX: usize = 32;
/// Characters kept of one field's value.
const FIELD_CHARS_MAX: usize = 1024;

/// The live records; cheap to clone, all clones are the same ring.
#[derive(Clone, Debug, Default)]
pub struct LogRing(Arc<Mutex<Rings>>);

#[derive(Debug, Default)]
struct Rings {
    next: u64,
    all: Ring,
    warnings: Ring,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<(u64, LogRecord)>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, number: u64, record: LogRecord, records_max: usize) {
        self.bytes += size(&record);
        self.records.push_back((number, record));
        while self.records.len() > records_max || self.bytes > BYTES_MAX {
            let Some((_, oldest)) = self.records.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(size(&oldest));
        }
    }

    fn from(&self, number: u64, max: usize) -> Vec<(u64, LogRecord)> {
        let start = self.records.partition_point(|(have, _)| *have < number);
        self.records.iter().skip(start).take(max).cloned().collect()
    }
}

/// Memory of a record: its texts and what surrounds them.
fn size(record: &LogRecord) -> usize {
    let text = |text: &CleanText| text.as_str().len() + size_of::<CleanText>();
    let fields: usize = record.fields.iter().map(|(name, value)| text(name) + text(value)).sum();
    size_of::<(u64, LogRecord)>() + text(&record.target) + text(&record.message) + fields
}

impl LogRing {
    /// Adds a record.
    pub fn push(&self, record: LogRecord) {
        let mut rings = self.0.lock();
        let number = rings.next;
        rings.next += 1;
        if record.level >= LogLevel::Warn {
            rings.warnings.push(number, record.clone(), WARNINGS_MAX);
        }
        rings.all.push(number, record, RECORDS_MAX);
    }

    /// At most `max` records numbered `number` and above. Numbers start at 0 and have no gaps.
    #[must_use]
    pub fn since(&self, number: u64, max: usize) -> LogPage {
        let rings = self.0.lock();
        let records = rings.all.from(number, max);
        let oldest = rings.all.records.front().map_or(rings.next, |(oldest, _)| *oldest);
        let skipped = oldest.saturating_sub(number);
        let next = records.last().map_or(number.max(oldest), |(last, _)| last + 1);
        LogPage { records, next, skipped }
    }

    /// At most `max` records of WARN and above numbered `number` and above; these numbers have gaps.
    #[must_use]
    pub fn warnings_since(&self, number: u64, max: usize) -> LogPage {
        let rings = self.0.lock();
        let records = rings.warnings.from(number, max);
        let next = records.last().map_or(number.max(rings.next), |(last, _)| last + 1);
        LogPage { records, next, skipped: 0 }
    }

    /// The number the next record will have.
    #[must_use]
    pub fn next_number(&self) -> u64 {
        self.0.lock().next
    }
}

/// Feeds the ring from `tracing`.
#[derive(Debug)]
pub struct RingLayer {
    ring: LogRing,
}

impl RingLayer {
    /// A layer that pushes every record it is shown.
    #[must_use]
    pub fn new(ring: LogRing) -> Self {
        Self { ring }
    }
}

/// The value of `node` of a span.
struct SpanNode(CleanText);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for RingLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some((_, node)) = fields.others.into_iter().find(|(name, _)| name.as_str() == NODE_FIELD)
            && let Some(span) = context.span(id)
        {
            span.extensions_mut().replace(SpanNode(node));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if !fields.others.iter().any(|(name, _)| name.as_str() == NODE_FIELD) {
            let mut scope = context.event_scope(event).into_iter().flatten();
            let node =
                scope.find_map(|span| span.extensions().get::<SpanNode>().map(|SpanNode(node)| node.clone()));
            if let Some(node) = node {
                fields.others.insert(0, (CleanText::new(NODE_FIELD), node));
            }
        }
        let metadata = event.metadata();
        self.ring.push(LogRecord {
            time_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            level: level(*metadata.level()),
            target: CleanText::new(metadata.target()),
            message: fields.message,
            fields: fields.others,
        });
    }
}

fn level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

/// Gathers the fields of a record.
#[derive(Default)]
struct Fields {
    message: CleanText,
    others: Vec<(CleanText, CleanText)>,
}

impl Fields {
    fn keep(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = CleanText::new(value);
        } else if self.others.len() < FIELDS_MAX {
            let value = CleanText::limited(value, FIELD_CHARS_MAX);
            self.others.push((CleanText::new(field.name()), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: LogLevel, text: &str) -> LogRecord {
        LogRecord {
            time_ms: 0,
            level,
            target: CleanText::default(),
            message: CleanText::new(text),
            fields: Vec::new(),
        }
    }

    #[test]
    fn a_reader_that_fell_behind_is_told_how_much_it_missed() {
        let ring = LogRing::default();
        for number in 0..RECORDS_MAX + 500 {
            ring.push(record(LogLevel::Info, &number.to_string()));
        }
        let page = ring.since(100, 3);
        assert_eq!((page.skipped, page.next), (400, 503));
        assert_eq!(page.records[0].1.message.as_str(), "500");
        let end = ring.since(page.next, usize::MAX);
        assert_eq!((end.skipped, end.records.len()), (0, RECORDS_MAX - 3));
        assert_eq!(ring.since(end.next, 10), LogPage { records: Vec::new(), next: end.next, skipped: 0 });
    }

    #[test]
    fn chatter_pushes_out_no_warning() {
        let ring = LogRing::default();
        ring.push(record(LogLevel::Error, "broken"));
        for _ in 0..RECORDS_MAX {
            ring.push(record(LogLevel::Debug, "chatter"));
        }
        assert!(ring.since(0, usize::MAX).records.iter().all(|(_, record)| record.level == LogLevel::Debug));
        let warnings = ring.warnings_since(0, 10);
        assert_eq!(warnings.records.len(), 1);
        assert!(ring.warnings_since(warnings.next, 10).records.is_empty());
    }

    #[test]
    fn large_records_are_bounded_by_bytes() {
        let ring = LogRing::default();
        let long = "x".repeat(CleanText::MAX_CHARS);
        for _ in 0..RECORDS_MAX {
            ring.push(record(LogLevel::Info, &long));
        }
        let rings = ring.0.lock();
        assert!(rings.all.bytes <= BYTES_MAX);
        assert_eq!(rings.all.bytes, rings.all.records.iter().map(|(_, record)| size(record)).sum::<usize>());
        assert!(rings.all.records.len() > 5_000);
    }
}
