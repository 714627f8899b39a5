//! What the pool remembers of transactions that left it: reasons of rejections for a time, heights of
//! confirmations, both in rings of bounded length.

use crate::primitives::hash::Txid;
use crate::primitives::rejection::Rejection;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

/// How long an orphan may keep its place when others wait for one.
pub const ORPHAN_TTL_US: u64 = 60_000_000;
/// How long a reason is remembered: long enough for a sender to ask, short enough to retry.
pub const REJECTION_TTL_US: u64 = 600_000_000;
/// Most reasons remembered, about 200 bytes each.
pub const REJECTIONS_MAX: usize = 10_000;
/// Most confirmed transactions remembered, about 100 bytes each; older ones are in the store.
pub const CONFIRMED_MAX: usize = 50_000;

/// A remembered rejection.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: Rejection,
    pub at_us: u64,
}

/// Look-ups go to the concurrent maps; the rings behind the mutex bound them.
#[derive(Debug, Default)]
pub struct Memory {
    rejections: DashMap<Txid, Refused>,
    confirmed: DashMap<Txid, u64>,
    rings: Mutex<Rings>,
}

#[derive(Debug, Default)]
struct Rings {
    rejections: VecDeque<(Txid, u64)>,
    confirmed: VecDeque<(Txid, u64)>,
    /// Rejections since start by code.
    by_code: BTreeMap<&'static str, u64>,
}

impl Memory {
    pub fn rejection(&self, txid: &Txid, now_us: u64) -> Option<Rejection> {
        let refused = self.rejections.get(txid)?;
        (now_us.saturating_sub(refused.at_us) < REJECTION_TTL_US).then(|| refused.reason.clone())
    }

    pub fn confirmed(&self, txid: &Txid) -> Option<u64> {
        self.confirmed.get(txid).map(|height| *height)
    }

    pub fn remember_rejection(&self, txid: Txid, reason: Rejection, now_us: u64) {
        let mut rings = self.rings.lock();
        *rings.by_code.entry(reason.code()).or_default() += 1;
        rings.rejections.push_back((txid, now_us));
        self.rejections.insert(txid, Refused { reason, at_us: now_us });
        while let Some((oldest, at_us)) = rings.rejections.front().copied() {
            let stale = now_us.saturating_sub(at_us) >= REJECTION_TTL_US;
            if !stale && rings.rejections.len() <= REJECTIONS_MAX {
                break;
            }
            rings.rejections.pop_front();
            // A later rejection of the same id has its own place in the ring.
            self.rejections.remove_if(&oldest, |_, refused| refused.at_us == at_us);
        }
    }

    pub fn forget_rejection(&self, txid: &Txid) {
        self.rejections.remove(txid);
    }

    pub fn remember_confirmed(&self, txid: Txid, height: u64) {
        self.rejections.remove(&txid);
        let mut rings = self.rings.lock();
        rings.confirmed.push_back((txid, height));
        self.confirmed.insert(txid, height);
        if rings.confirmed.len() > CONFIRMED_MAX
            && let Some((oldest, _)) = rings.confirmed.pop_front()
        {
            self.confirmed.remove(&oldest);
        }
    }

    /// Rejections since start by code, ascending.
    pub fn rejections_by_code(&self) -> Vec<(&'static str, u64)> {
        self.rings.lock().by_code.iter().map(|(code, count)| (*code, *count)).collect()
    }

    /// Remembered rejections, newest first, each id once.
    pub fn newest_rejections(&self, limit: usize) -> Vec<(Txid, Refused)> {
        let rings = self.rings.lock();
        let current = |(txid, at_us): &(Txid, u64)| {
            let refused = self.rejections.get(txid).filter(|refused| refused.at_us == *at_us)?;
            Some((*txid, refused.clone()))
        };
        rings.rejections.iter().rev().filter_map(current).take(limit).collect()
    }
}
