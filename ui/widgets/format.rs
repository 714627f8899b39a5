//! Numbers as text for people, always with their unit, in ASCII.

use masternode::primitives::amount::{Amount, UNITS_PER_TIME};
use masternode::telemetry::histogram::Percentiles;

/// Shown where nothing is known.
pub const UNKNOWN: &str = "-";

/// `1234567` as `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units: `812 B`, `1.2 kB`, `31.0 GB`, `148 GB`.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if value < 1000 {
        return format!("{value} B");
    }
    let mut scaled = value as f64 / 1000.0;
    let mut unit = "kB";
    for next in UNITS.iter().skip(1) {
        // Three digits at most: 999.5 would round to 1000.
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = next;
    }
    if scaled < 99.95 { format!("{scaled:.1} {unit}") } else { format!("{scaled:.0} {unit}") }
}

/// Bytes, or a dash.
pub fn bytes_or_unknown(value: Option<u64>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), bytes)
}

/// Microseconds as milliseconds, or seconds from ten on: `0.43 ms`, `8.1 ms`, `153 ms`, `12.4 s`.
pub fn latency(value_us: u64) -> String {
    let milliseconds = value_us as f64 / 1000.0;
    if milliseconds < 1.0 {
        format!("{milliseconds:.2} ms")
    } else if milliseconds < 100.0 {
        format!("{milliseconds:.1} ms")
    } else if milliseconds < 10_000.0 {
        format!("{milliseconds:.0} ms")
    } else {
        format!("{:.1} s", milliseconds / 1000.0)
    }
}

/// One percentile, or a dash when nothing was measured.
pub fn percentile(set: &Percentiles, of: fn(&Percentiles) -> u64) -> String {
    if set.count == 0 { UNKNOWN.to_owned() } else { latency(of(set)) }
}

/// A duration in at most two units: `430 ms`, `1.4 s`, `12 s`, `2 m 10 s`, `4 h 12 m`, `3 d 4 h`.
pub fn age(value_ms: u64) -> String {
    let seconds = value_ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if value_ms < 1_000 {
        format!("{value_ms} ms")
    } else if value_ms < 10_000 {
        format!("{:.1} s", value_ms as f64 / 1000.0)
    } else if minutes < 1 {
        format!("{seconds} s")
    } else if hours < 1 {
        format!("{minutes} m {} s", seconds % 60)
    } else if days < 1 {
        format!("{hours} h {} m", minutes % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

/// Time of day of a wall time in UTC: `14:03:22`.
pub fn clock(time_ms: u64) -> String {
    let seconds = time_ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Time of day with milliseconds: `14:03:22.041`.
pub fn clock_precise(time_ms: u64) -> String {
    format!("{}.{:03}", clock(time_ms), time_ms % 1000)
}

/// Two latencies in the unit of the larger: `4.1-12.3 ms`.
pub fn latency_range(least_us: u64, most_us: u64) -> String {
    if most_us < 10_000_000 {
        format!("{:.1}-{:.1} ms", least_us as f64 / 1000.0, most_us as f64 / 1000.0)
    } else {
        format!("{:.1}-{:.1} s", least_us as f64 / 1e6, most_us as f64 / 1e6)
    }
}

/// Units of money as TIME with all eight places, so that columns align.
pub fn money_aligned(units: u64) -> String {
    format!("{}.{:08} TIME", count(units / UNITS_PER_TIME), units % UNITS_PER_TIME)
}

/// Units of money as decimal TIME.
pub fn money(units: u64) -> String {
    Amount::from_units(units).map_or_else(|| format!("{units} units"), |amount| format!("{amount} TIME"))
}

/// Signed milliseconds: `+2 ms`.
pub fn offset(value_ms: Option<i64>) -> String {
    value_ms.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:+} ms"))
}

/// `text` cut to `width` cells, its end replaced by `more` when something is missing.
pub fn fit(text: &str, width: usize, more: &str) -> String {
    if cells(text) <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for character in text.chars() {
        let wide = if character.is_ascii() { 1 } else { cells(character.encode_utf8(&mut [0; 4])) };
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        kept.push(character);
    }
    if width > 0 {
        kept.push_str(more);
    }
    kept
}

/// Cells a text takes.
pub fn cells(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { ratatui::text::Span::raw(text).width() }
}

#[cfg(test)]
mod tests {
    use super::{age, bytes, cells, clock_precise, count, fit, latency};

    #[test]
    fn numbers_keep_three_or_four_digits_and_a_unit() {
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(0), "0");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(999_999), "1.0 MB");
        assert_eq!(bytes(u64::MAX), "18447 PB");
        assert_eq!(latency(430), "0.43 ms");
        assert_eq!(latency(8_140), "8.1 ms");
        assert_eq!(latency(153_400), "153 ms");
        assert_eq!(age(430), "430 ms");
        assert_eq!(age(130_000), "2 m 10 s");
        assert_eq!(clock_precise(1_700_000_000_041), "22:13:20.041");
    }

    #[test]
    fn a_text_is_cut_to_cells_not_characters() {
        assert_eq!(fit("masternode", 6, "…"), "maste…");
        assert_eq!(fit("ab", 2, "…"), "ab");
        assert!(cells(&fit("日本語の名前", 7, "…")) <= 7);
        assert_eq!(fit("abc", 0, "…"), "");
    }
}
