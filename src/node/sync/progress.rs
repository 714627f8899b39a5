//! How fast a catch-up goes and when it will be done. Time is an argument.

use crate::telemetry::snapshot::{SyncInfo, SyncPeer};
use std::collections::VecDeque;

/// What the rate is taken of, in microseconds.
const WINDOW_US: u64 = 10_000_000;
/// Most samples kept; beyond it every second one goes.
const SAMPLES_MAX: usize = 512;
/// Blocks adopted of late.
#[derive(Debug, Default)]
pub struct Progress {
    /// Moment, height adopted and transactions up to it, counted from the first sample.
    samples: VecDeque<(u64, u64, u64)>,
    moved_us: u64,
}

impl Progress {
    /// A catch-up begins at this height.
    pub fn begin(&mut self, now_us: u64, height: u64) {
        self.samples = VecDeque::from([(now_us, height, 0)]);
        self.moved_us = now_us;
    }

    /// Nothing is caught up with any more.
    pub fn end(&mut self) {
        self.samples.clear();
    }

    /// Whether one has begun and not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.samples.is_empty()
    }

    /// Blocks up to `height` with so many transactions were adopted.
    pub fn adopted(&mut self, now_us: u64, height: u64, transactions: u64) {
        let Some((_, last, before)) = self.samples.back().copied() else { return };
        if height <= last {
            return;
        }
        self.moved_us = now_us;
        self.samples.push_back((now_us, height, before.saturating_add(transactions)));
        if self.samples.len() > SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        while self.samples.get(1).is_some_and(|(at_us, _, _)| now_us.saturating_sub(*at_us) > WINDOW_US) {
            self.samples.pop_front();
        }
    }

    /// The figures at a moment.
    #[must_use]
    pub fn info(&self, now_us: u64, target: u64, peers: Vec<SyncPeer>) -> Option<SyncInfo> {
        let (first_us, first, transactions_before) = self.samples.front().copied()?;
        let (_, height, transactions) = self.samples.back().copied()?;
        let elapsed_us = now_us.saturating_sub(first_us).max(1);
        let rate = |count: u64| count as f64 * 1_000_000.0 / elapsed_us as f64;
        let (done, left) = (height.saturating_sub(first), target.saturating_sub(height));
        let blocks_per_second = rate(done);
        let eta_s =
            (done > 0).then(|| left.saturating_mul(elapsed_us).div_ceil(done.saturating_mul(1_000_000)));
        Some(SyncInfo {
            height,
            target,
            blocks_per_second,
            transactions_per_second: rate(transactions.saturating_sub(transactions_before)),
            eta_s,
            still_s: now_us.saturating_sub(self.moved_us) / 1_000_000,
            peers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn rate_and_time_left_follow_from_the_last_seconds() {
        let mut progress = Progress::default();
        assert_eq!(progress.info(0, 9, Vec::new()), None);
        progress.begin(S, 100);
        assert_eq!(progress.info(S, 1100, Vec::new()).unwrap().eta_s, None, "nothing is known yet");
        for second in 1..=20 {
            progress.adopted((1 + second) * S, 100 + 10 * second, 5000);
        }
        let info = progress.info(21 * S, 1100, Vec::new()).unwrap();
        assert_eq!((info.height, info.target, info.eta_s), (300, 1100, Some(80)));
        assert!((info.blocks_per_second - 10.0).abs() < 0.01, "{info:?}");
        assert!((info.transactions_per_second - 5000.0).abs() < 1.0, "{info:?}");
    }

    #[test]
    fn standing_still_lengthens_the_time_left_and_is_counted() {
        let mut progress = Progress::default();
        progress.begin(0, 0);
        progress.adopted(S, 10, 0);
        assert_eq!(progress.info(2 * S, 20, Vec::new()).unwrap().eta_s, Some(2));
        assert_eq!(progress.info(10 * S, 20, Vec::new()).unwrap().eta_s, Some(10));
        assert_eq!(progress.info(32 * S, 20, Vec::new()).unwrap().still_s, 31);
        progress.end();
        assert_eq!(progress.info(99 * S, 20, Vec::new()), None);
    }

    #[test]
    fn however_many_blocks_come_few_samples_are_kept() {
        let mut progress = Progress::default();
        progress.begin(0, 0);
        for height in 1..100_000 {
            progress.adopted(height, height, 1);
        }
        assert!(progress.samples.len() <= SAMPLES_MAX);
        let info = progress.info(99_999, 100_000, Vec::new()).unwrap();
        assert!((info.blocks_per_second / 1_000_000.0 - 1.0).abs() < 0.01, "{info:?}");
    }
}
