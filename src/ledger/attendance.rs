//! Who signed the last blocks, and who is jailed for having signed too few (protocol §10). Pure.
//!
//! Every active masternode carries a window over the last blocks for which it was in the committee.
//! Block h says in its last commit who signed block h-1. Absent: leaving the jail, which takes a
//! `Resume`.

use crate::ledger::planted::Bug;
use crate::ledger::registry::{Entry, Registry};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{COMMITTEE_MIN, Committee, VoterIndex};
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::MasternodeId;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::params::Params;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// A window over the last blocks for which a masternode was in the committee.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Attendance {
    /// Blocks in the window.
    seen: u32,
    /// Those of them it did not sign.
    missed: u32,
    /// Place of the next block in the ring.
    next: u32,
    /// A ring of bits, set for a missed block; as long as the window once that is full.
    ring: Vec<u8>,
}

impl Attendance {
    /// Blocks in the window.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// Blocks of the window it did not sign.
    #[must_use]
    pub fn missed(&self) -> u32 {
        self.missed
    }

    /// Adds a block to a window of `window` blocks; the oldest one leaves a full window.
    pub fn record(&mut self, window: u32, signed: bool) {
        let (place, bit) = (self.next / 8, 1u8 << (self.next % 8));
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        if self.ring.len() <= place {
            self.ring.push(0);
        }
        let Some(byte) = self.ring.get_mut(place) else { return };
        if self.seen < window {
            self.seen += 1;
        } else if *byte & bit != 0 {
            self.missed -= 1;
        }
        if signed {
            *byte &= !bit;
        } else {
            *byte |= bit;
            self.missed += 1;
        }
        self.next = (self.next + 1) % window.max(1);
    }

    /// Whether the window is full and more of it was missed than the parameters allow.
    fn is_too_low(&self, params: &Params) -> bool {
        let (seen, missed) = (u64::from(self.seen), u64::from(self.missed));
        let allowed = 100u64.saturating_sub(params.jail_signed_percent);
        seen == params.jail_window_blocks && missed * 100 > params.jail_window_blocks * allowed
    }
}

/// Enters who of `committee`, which decided the block before, signed it.
pub(super) fn record(registry: &mut Registry, params: &Params, committee: &Committee, last_commit: &Qc) {
    let window = u32::try_from(params.jail_window_blocks).unwrap_or(u32::MAX);
    let signers: BTreeSet<VoterIndex> =
        last_commit.votes().unwrap_or_default().into_iter().map(|(voter, _)| voter).collect();
    for (index, member) in committee.indices().zip(committee.members()) {
        registry.change(member.id, |entry| {
            if entry.status == MasternodeStatus::Active {
                entry.attendance.record(window, signers.contains(&index));
            }
        });
    }
}

/// Jails whoever signed too few blocks: who missed most first, of equals the smaller id, passing over
/// whoever would lift the jailed weight above its cap or leave fewer than [`COMMITTEE_MIN`] active.
pub(super) fn jail(registry: &mut Registry, params: &Params) {
    let absent =
        |entry: &&Entry| entry.status == MasternodeStatus::Active && entry.attendance.is_too_low(params);
    let mut absent: Vec<(Reverse<u32>, MasternodeId, u64)> = registry
        .entries()
        .filter(absent)
        .map(|entry| (Reverse(entry.attendance.missed()), entry.id, entry.tier.weight()))
        .collect();
    if absent.is_empty() {
        return;
    }
    absent.sort_unstable();
    let weight = |status: fn(&Entry) -> bool| -> u64 {
        registry.entries().filter(|entry| status(entry)).map(|entry| entry.tier.weight()).sum()
    };
    let registered = weight(|entry| entry.status.is_bonded());
    let mut jailed = weight(|entry| entry.status == MasternodeStatus::Jailed);
    let mut active = registry.active();
    for (_, id, weight) in absent {
        let fits = (jailed + weight) * 100 <= registered * params.jail_cap_percent;
        if (fits || registry.planted.has(Bug::NoJailCap)) && active > COMMITTEE_MIN {
            registry.change(id, |entry| entry.status = MasternodeStatus::Jailed);
            jailed += weight;
            active -= 1;
        }
    }
}

#[cfg(test)]
#[path = "attendance_tests.rs"]
mod tests;
