//! Pings of one connection and what they measure: round trip, jitter, the peer's clock against ours.
//!
//! Invariants: everything remembered is bounded; a peer's silence counts only while this node was awake to
//! hear it; of the clock readings the one with the shortest round trip counts, because whatever delays a
//! pong, on the way or at either end, makes its reading worse and never better (RFC 5905 §10).
//! Absent: clocks, which are arguments, and any judgement of what the figures mean.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A tick of the pings that comes this much later than due finds a node that stood still meanwhile: it was
/// stopped, suspended or starved, and what peers sent waits to be read.
const LATE: Duration = Duration::from_secs(2);
/// Clock readings from which the best is taken.
const READINGS_MAX: usize = 8;

/// Pings on their way.
#[derive(Debug, Default)]
pub struct Pings {
    next: u64,
    sent: VecDeque<(u64, Instant)>,
    /// First ping since the last pong.
    silent_since: Option<Instant>,
    /// When the next ping will be late.
    late: Option<Instant>,
}

impl Pings {
    /// Most pings remembered; a round trip longer than this many intervals is not measured.
    const REMEMBERED_MAX: usize = 16;

    /// Number of the ping sent `now`, and how long the peer has left all pings unanswered. Pings go out every
    /// `interval`; when this one comes late, the time since the one before was this node's own absence and the
    /// peer gets a fresh allowance.
    pub fn sent(&mut self, now: Instant, interval: Duration) -> (u64, Duration) {
        self.forgive_own_absence(now);
        self.late = Some(now + interval + LATE);
        let silent = self.silent(now);
        self.next += 1;
        if self.sent.len() >= Self::REMEMBERED_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((self.next, now));
        self.silent_since.get_or_insert(now);
        (self.next, silent)
    }

    /// Round trip of the ping answered `now`; `None` for a number not remembered, or when it has this node's own
    /// absence in it.
    pub fn answered(&mut self, number: u64, now: Instant) -> Option<Duration> {
        self.forgive_own_absence(now);
        let position = self.sent.iter().position(|(sent, _)| *sent == number)?;
        self.silent_since = None;
        self.sent.drain(..=position).next_back().map(|(_, at)| now.duration_since(at))
    }

    /// The next ping is overdue: whoever sends them was not there.
    fn forgive_own_absence(&mut self, now: Instant) {
        if self.late.is_some_and(|late| now > late) {
            self.forgive();
        }
    }

    /// Forgets what is under way: a round trip with this node's own absence in it measures nothing, and a
    /// silence it was not awake to hear is none.
    pub fn forgive(&mut self) {
        self.silent_since = None;
        self.sent.clear();
    }

    /// How long pings have gone unanswered.
    #[must_use]
    pub fn silent(&self, now: Instant) -> Duration {
        self.silent_since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

/// What was measured, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Smoothed round trip (weight 1/8, RFC 6298 §2); `None` before the first pong.
    pub rtt_us: Option<u64>,
    /// Smoothed difference of one round trip and the next (weight 1/16, RFC 3550 §6.4.1); `None` before the
    /// second pong.
    pub jitter_us: Option<u64>,
    /// The peer's clock minus ours.
    pub offset_us: Option<i64>,
    /// What `offset_us` may be wrong by: half of the round trip it was read with.
    pub offset_error_us: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    rtt_us: u64,
    offset_us: i64,
}

/// Measures a peer.
#[derive(Debug, Default)]
pub struct Gauge {
    rtt_us: Option<u64>,
    last_us: u64,
    jitter_us: Option<u64>,
    /// Newest last.
    readings: VecDeque<Reading>,
}

impl Gauge {
    /// Takes a ping's round trip, and the peer's clock minus ours as it was then.
    pub fn take(&mut self, rtt_us: u64, offset_us: i64) {
        let rtt_us = rtt_us.max(1);
        if let Some(smooth) = self.rtt_us {
            let step = rtt_us.abs_diff(self.last_us);
            self.jitter_us = Some(
                self.jitter_us.map_or(step, |jitter| (jitter.saturating_mul(15).saturating_add(step)) / 16),
            );
            self.rtt_us = Some((smooth.saturating_mul(7).saturating_add(rtt_us)) / 8);
        } else {
            self.rtt_us = Some(rtt_us);
        }
        self.last_us = rtt_us;
        if self.readings.len() >= READINGS_MAX {
            self.readings.pop_front();
        }
        self.readings.push_back(Reading { rtt_us, offset_us });
    }

    /// Forgets the readings of clocks: ours was set, or stood still with the machine.
    pub fn forget_clock(&mut self) {
        self.readings.clear();
    }

    /// The figures now.
    #[must_use]
    pub fn measured(&self) -> Measured {
        // Of equals the newest.
        let best = self.readings.iter().rev().min_by_key(|reading| reading.rtt_us);
        Measured {
            rtt_us: self.rtt_us,
            jitter_us: self.jitter_us,
            offset_us: best.map(|best| best.offset_us),
            offset_error_us: best.map(|best| best.rtt_us / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const INTERVAL: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_secs(90);

    #[tokio::test(start_paused = true)]
    async fn a_pause_of_ninety_seconds_is_nobodys_silence() {
        let mut pings = Pings::default();
        let (first, silent) = pings.sent(Instant::now(), INTERVAL);
        assert_eq!(silent, Duration::ZERO);
        // Stopped in between: the pong waits in the socket, and so does the next tick.
        advance(PAUSE).await;
        // Read before or after the next ping, the pong measures our pause and nothing of the peer.
        assert_eq!(pings.answered(first, Instant::now()), None);
        let (second, silent) = pings.sent(Instant::now(), INTERVAL);
        assert_eq!(silent, Duration::ZERO, "the pause was our own");
        assert_eq!(pings.answered(first, Instant::now()), None);
        advance(Duration::from_millis(30)).await;
        assert_eq!(pings.answered(second, Instant::now()), Some(Duration::from_millis(30)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_is_silent_however_regular_our_pings_are() {
        let mut pings = Pings::default();
        for tick in 0..20u32 {
            // A busy machine: every tick is a second late.
            let (_, silent) = pings.sent(Instant::now(), INTERVAL);
            assert_eq!(silent, 6 * Duration::from_secs(1) * tick);
            advance(Duration::from_secs(6)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_stays_silent_after_a_pause_is_given_up_one_allowance_later() {
        let mut pings = Pings::default();
        pings.sent(Instant::now(), INTERVAL);
        advance(PAUSE).await;
        let (_, silent) = pings.sent(Instant::now(), INTERVAL);
        assert_eq!(silent, Duration::ZERO);
        for tick in 1..=5u32 {
            advance(INTERVAL).await;
            let (_, silent) = pings.sent(Instant::now(), INTERVAL);
            assert_eq!(silent, INTERVAL * tick);
        }
    }

    #[test]
    fn the_round_trip_is_smoothed_and_its_changes_are_the_jitter() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.measured(), Measured::default());
        gauge.take(80_000, 0);
        assert_eq!((gauge.measured().rtt_us, gauge.measured().jitter_us), (Some(80_000), None));
        gauge.take(96_000, 0);
        assert_eq!((gauge.measured().rtt_us, gauge.measured().jitter_us), (Some(82_000), Some(16_000)));
        gauge.take(96_000, 0);
        assert_eq!(gauge.measured().jitter_us, Some(15_000));
        for _ in 0..200 {
            gauge.take(50_000, 0);
        }
        let calm = gauge.measured();
        assert!(calm.rtt_us.unwrap() < 50_010 && calm.jitter_us.unwrap() < 16, "{calm:?}");
    }

    #[test]
    fn the_clock_is_read_where_the_round_trip_was_shortest() {
        let mut gauge = Gauge::default();
        gauge.take(20_000, 1_000);
        // Delayed on one way only: an error of half the delay.
        gauge.take(1_020_000, 501_000);
        let measured = gauge.measured();
        assert_eq!((measured.offset_us, measured.offset_error_us), (Some(1_000), Some(10_000)));
        // An old reading does not count for ever: the clock may have been set.
        for _ in 0..READINGS_MAX {
            gauge.take(30_000, -5_000_000);
        }
        assert_eq!(gauge.measured().offset_us, Some(-5_000_000));
        gauge.forget_clock();
        assert_eq!((gauge.measured().offset_us, gauge.measured().rtt_us.is_some()), (None, true));
    }
}
