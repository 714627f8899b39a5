//! Times in logs and on the command line: calendar to milliseconds since 1970 and back, always UTC unless the
//! text names another offset.

use crate::tools::manifest::utc;

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// What a time without a year may be ahead of now: clocks differ.
const AHEAD_MS: u64 = 86_400_000;
const MONTHS: [&[u8; 3]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is the last one.
    let year = if month > 2 { year } else { year - 1 };
    let month = if month > 2 { month - 3 } else { month + 9 };
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * month + 2) / 5
        + day
        - 719_469
}

/// A date and a time of day as milliseconds since 1970; `None` before it and for what is no date.
fn at(date: (i64, i64, i64), time_ms: i64, offset_min: i64) -> Option<u64> {
    let (year, month, day) = date;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    u64::try_from(days(year, month, day) * DAY_MS + time_ms - offset_min * 60_000).ok()
}

/// Reads digits and separators from the front of a text.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (first, rest) = self.0.split_at_checked(digits)?;
        let number = first.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
        })?;
        self.0 = rest;
        Some(number)
    }

    /// Takes one of these.
    fn one_of(&mut self, these: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        these.contains(first).then(|| self.0 = rest)?;
        Some(*first)
    }

    /// `HH:MM[:SS[.fraction]]` in milliseconds of the day.
    fn time_of_day(&mut self, needs_seconds: bool) -> Option<i64> {
        let hour = self.number(2).filter(|hour| *hour < 24)?;
        self.one_of(b":")?;
        let minute = self.number(2).filter(|minute| *minute < 60)?;
        let mut ms = (hour * 60 + minute) * 60_000;
        if self.one_of(b":").is_none() {
            return (!needs_seconds).then_some(ms);
        }
        // A leap second is the one after.
        ms += self.number(2).filter(|second| *second <= 60)? * 1000;
        if self.one_of(b".,").is_some() {
            let mut unit = 100;
            while let Some(digit) = self.number(1) {
                ms += digit * unit;
                unit /= 10;
            }
        }
        Some(ms)
    }

    /// `Z`, `UTC`, `+HH:MM` or nothing, in minutes.
    fn offset_min(&mut self) -> i64 {
        let rest = self.0;
        let parsed = (|| {
            self.one_of(b" ");
            if let Some(utc) = self.0.strip_prefix(b"UTC") {
                self.0 = utc;
                return Some(0);
            }
            let sign = match self.one_of(b"Zz+-")? {
                b'+' => 1,
                b'-' => -1,
                _ => return Some(0),
            };
            let hours = self.number(2)?;
            self.one_of(b":");
            Some(sign * (hours * 60 + self.number(2)?))
        })();
        if parsed.is_none() {
            self.0 = rest;
        }
        parsed.unwrap_or(0)
    }
}

/// The time a text begins with, as in RFC 3339, with a space or slashes instead, or as syslog writes it; and
/// how many bytes it takes. `now_ms` gives the year where there is none.
#[must_use]
pub fn leading(text: &[u8], now_ms: u64) -> Option<(u64, usize)> {
    let mut scanner = Scanner(text);
    scanner.one_of(b"[(");
    let ms = if scanner.0.first()?.is_ascii_digit() {
        let year = scanner.number(4)?;
        scanner.one_of(b"-/")?;
        let month = scanner.number(2)?;
        scanner.one_of(b"-/")?;
        let date = (year, month, scanner.number(2)?);
        scanner.one_of(b"Tt _")?;
        let time_ms = scanner.time_of_day(true)?;
        at(date, time_ms, scanner.offset_min())?
    } else {
        let name = scanner.0.first_chunk::<3>()?.to_ascii_lowercase();
        let month = 1 + i64::try_from(MONTHS.iter().position(|month| **month == *name)?).ok()?;
        scanner.0 = scanner.0.get(3..)?;
        scanner.one_of(b" ")?;
        let day = if scanner.one_of(b" ").is_some() { scanner.number(1)? } else { scanner.number(2)? };
        scanner.one_of(b" ")?;
        let time_ms = scanner.time_of_day(true)?;
        let year = year_of(now_ms);
        let this = at((year, month, day), time_ms, 0)?;
        if this > now_ms.saturating_add(AHEAD_MS) { at((year - 1, month, day), time_ms, 0)? } else { this }
    };
    scanner.one_of(b"])");
    Some((ms, text.len() - scanner.0.len()))
}

/// A number as logs hold times: seconds, milliseconds, microseconds or nanoseconds since 1970, by its size.
#[must_use]
pub fn of_number(number: f64) -> Option<u64> {
    let ms = match number.abs() {
        small if small < 1e11 => number * 1e3,
        ms if ms < 1e14 => number.min(ms),
        us if us < 1e17 => number / 1e3,
        _ => number / 1e6,
    };
    // Beyond these it is no time.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range checked")]
    (0.0..1e15).contains(&ms).then_some(ms as u64)
}

fn year_of(ms: u64) -> i64 {
    let days_now = i64::try_from(ms).unwrap_or(i64::MAX) / DAY_MS;
    let mut year = 1970 + days_now / 366;
    while days(year + 1, 1, 1) <= days_now {
        year += 1;
    }
    year
}

/// A time as RFC 3339 writes it, with milliseconds, in UTC.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    let text = utc(ms);
    let (date, time) = text.trim_end_matches(" UTC").split_once(' ').unwrap_or_default();
    format!("{date}T{time}.{:03}Z", ms % 1000)
}

/// A time as an operator names it: `2h`, `90s`, `15m`, `3d` ago, `12:03` or `12:03:30` today (or yesterday, when
/// that is still to come), a date, or date and time.
#[must_use]
pub fn named(text: &str, now_ms: u64) -> Option<u64> {
    let bytes = text.as_bytes();
    if let Some((ms, length)) = leading(bytes, now_ms) {
        return (length == bytes.len()).then_some(ms);
    }
    let mut scanner = Scanner(bytes);
    if let Some(time_ms) = scanner.time_of_day(false).filter(|_| scanner.0.is_empty()) {
        let time_ms = u64::try_from(time_ms).ok()?;
        let today = now_ms - now_ms % 86_400_000 + time_ms;
        return Some(if today > now_ms { today.saturating_sub(86_400_000) } else { today });
    }
    for clock in ["T00:00:00", ":00"] {
        let longer = format!("{text}{clock}");
        if let Some((ms, length)) = leading(longer.as_bytes(), now_ms)
            && length == longer.len()
        {
            return Some(ms);
        }
    }
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(now_ms.saturating_sub(number.checked_mul(unit_ms)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 06:01:02 UTC.
    const NOW: u64 = 1_795_413_662_000;

    #[test]
    fn times_as_logs_write_them_are_read_with_their_length() {
        for (text, expected, rest) in [
            ("2026-11-23T06:01:02.345678Z  INFO x", NOW + 345, "  INFO x"),
            ("2026-11-23T06:01:02Z", NOW, ""),
            ("2026-11-23T07:01:02+01:00 x", NOW, " x"),
            ("2026-11-23T00:31:02-0530 x", NOW, " x"),
            ("2026-11-23 06:01:02,345 ERROR", NOW + 345, " ERROR"),
            ("[2026-11-23 06:01:02 UTC] x", NOW, " x"),
            ("2026/11/23 06:01:02 x", NOW, " x"),
            ("Nov 23 06:01:02 host x", NOW, " host x"),
            ("Nov  3 06:01:02 host x", NOW - 20 * 86_400_000, " host x"),
            ("Dec 23 06:01:02 last year", NOW - 335 * 86_400_000, " last year"),
            ("2000-02-29T00:00:00Z", 951_782_400_000, ""),
            ("1970-01-01T00:00:00Z", 0, ""),
        ] {
            let (ms, length) = leading(text.as_bytes(), NOW).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((ms, &text[length..]), (expected, rest), "{text}");
        }
        for text in [
            "",
            "x",
            "2026-13-01T00:00:00Z",
            "2026-11-23",
            "1969-12-31T23:59:59Z",
            "20:01",
            "Foo 12 00:00:00",
        ] {
            assert_eq!(leading(text.as_bytes(), NOW), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_times_by_their_size() {
        for number in [1_795_413_662.0, 1_795_413_662_000.0, 1_795_413_662e6, 1_795_413_662e9] {
            assert_eq!(of_number(number), Some(NOW), "{number}");
        }
        assert_eq!(of_number(-1.0), None);
        assert_eq!(of_number(f64::NAN), None);
        assert_eq!(of_number(1e30), None);
    }

    #[test]
    fn operators_name_times_by_distance_clock_or_date() {
        for (text, expected) in [
            ("2h", NOW - 7_200_000),
            ("90s", NOW - 90_000),
            ("3d", NOW - 3 * 86_400_000),
            ("06:01", NOW - 2000),
            ("06:02", NOW + 58_000 - 86_400_000),
            ("06:01:01", NOW - 1000),
            ("2026-11-23", NOW - 21_662_000),
            ("2026-11-23 06:01", NOW - 2000),
            ("2026-11-23T06:01:02Z", NOW),
        ] {
            assert_eq!(named(text, NOW), Some(expected), "{text}");
        }
        for text in ["", "h", "2w", "25:00", "yesterday", "99999999999999999999h", "-3h", "é"] {
            assert_eq!(named(text, NOW), None, "{text}");
        }
    }
}
