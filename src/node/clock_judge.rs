//! Is this node's clock wrong, or a peer's? Compares what pings read of the peers' clocks.
//!
//! Members of the committee are heard first, one voice a key however many connections it has. Where fewer than
//! three can be heard others are too: those this node dialled, and of those that dialled in one a site and no
//! more than all the rest, so that strangers cannot outvote whom this node chose. Each voice moves the median by
//! one place only. A difference counts beyond its own uncertainty, begins above [`OFF_MS`] and ends below
//! [`AGREES_MS`], and a verdict must stand for [`HOLD_US`] before it is told or taken back; figures of a told one
//! are renewed at most every [`RETOLD_US`]. Deliberately absent: any effect. Clocks decide nothing (protocol §9).

use crate::network::netgroup::Site;
use crate::primitives::clean::CleanText;
use crate::telemetry::clock::{ClockFault, ClockInfo, NAMED_MAX, PeerClock};
use crate::telemetry::snapshot::PeerInfo;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Difference from which a clock is off, in milliseconds.
const OFF_MS: u64 = 500;
/// Difference below which it agrees again.
const AGREES_MS: u64 = 400;
/// How long a verdict must stand, in microseconds.
const HOLD_US: u64 = 10_000_000;
/// Least time between two tellings of one verdict with other figures, in microseconds.
const RETOLD_US: u64 = 60_000_000;
/// Members that are enough to hear nobody else.
const MEMBERS_ENOUGH: usize = 3;
/// Of those that dialled in, so many are heard where nobody else is.
const STRANGERS_MIN: usize = 4;

/// One clock.
#[derive(Clone, Debug)]
struct Voice<'a> {
    peer: &'a PeerInfo,
    offset_ms: i64,
    /// What the offset may be wrong by.
    error_ms: u64,
}

impl<'a> Voice<'a> {
    fn of(peer: &'a PeerInfo) -> Option<Self> {
        let (offset_ms, error_ms) = (peer.clock_offset_ms?, peer.clock_error_ms.unwrap_or(0));
        Some(Self { peer, offset_ms, error_ms })
    }
}

/// What a verdict is, without its figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Agree,
    OwnAhead,
    OwnBehind,
    Peers,
    Unclear,
}

impl Kind {
    fn of(fault: Option<&ClockFault>) -> Self {
        match fault {
            None => Self::Agree,
            Some(ClockFault::Own { offset_ms, .. }) if *offset_ms < 0 => Self::OwnAhead,
            Some(ClockFault::Own { .. }) => Self::OwnBehind,
            Some(ClockFault::Peers { .. }) => Self::Peers,
            Some(ClockFault::Unclear { .. }) => Self::Unclear,
        }
    }
}

/// Judges clocks and remembers what it has told.
#[derive(Debug, Default)]
pub struct ClockJudge {
    /// Peers whose clock is off, by id; bounded by the connections.
    off: BTreeSet<String>,
    told: Option<ClockFault>,
    told_us: u64,
    /// The verdict that is about to replace the told one, and since when it stands.
    next: Option<(Kind, u64)>,
}

impl ClockJudge {
    /// Judges the clocks of `peers` at `now_us` of the monotonic clock. Logs a new verdict.
    pub fn judge(&mut self, peers: &[PeerInfo], now_us: u64) -> ClockInfo {
        let voices = heard(peers);
        self.off = off(&voices, &self.off);
        let fault = verdict(&voices, &self.off);
        self.settle(fault, now_us);
        ClockInfo {
            offset_ms: median(&voices),
            compared: u32::try_from(voices.len()).unwrap_or(u32::MAX),
            fault: self.told.clone(),
        }
    }

    /// Tells a verdict that stands.
    fn settle(&mut self, fault: Option<ClockFault>, now_us: u64) {
        let kind = Kind::of(fault.as_ref());
        if kind == Kind::of(self.told.as_ref()) {
            self.next = None;
            if fault != self.told && now_us.saturating_sub(self.told_us) >= RETOLD_US {
                (self.told, self.told_us) = (fault, now_us);
            }
            return;
        }
        let since_us = match self.next {
            Some((next, since_us)) if next == kind => since_us,
            _ => now_us,
        };
        self.next = Some((kind, since_us));
        if now_us.saturating_sub(since_us) < HOLD_US {
            return;
        }
        match &fault {
            Some(fault @ ClockFault::Own { .. }) => tracing::warn!("{fault}"),
            Some(fault) => tracing::info!("{fault}"),
            None => tracing::info!("the clocks of this machine and its peers agree again"),
        }
        (self.told, self.told_us, self.next) = (fault, now_us, None);
    }
}

/// Whose clock counts.
fn heard(peers: &[PeerInfo]) -> Vec<Voice<'_>> {
    let mut members: BTreeMap<u16, Voice<'_>> = BTreeMap::new();
    let (mut chosen, mut strangers) = (Vec::new(), Vec::new());
    for voice in peers.iter().filter_map(Voice::of) {
        match voice.peer.voter {
            // Of several connections the one that measures best.
            Some(voter) => {
                let held = members.entry(voter).or_insert_with(|| voice.clone());
                if voice.error_ms < held.error_ms {
                    *held = voice;
                }
            }
            None if voice.peer.inbound => strangers.push(voice),
            None => chosen.push(voice),
        }
    }
    let mut heard: Vec<Voice<'_>> = members.into_values().collect();
    if heard.len() >= MEMBERS_ENOUGH {
        return heard;
    }
    heard.append(&mut chosen);
    // The oldest connections are the hardest to come by.
    strangers.sort_by_key(|voice| std::cmp::Reverse(voice.peer.age_ms));
    let mut sites = BTreeSet::new();
    let site = |voice: &Voice<'_>| {
        voice.peer.address.as_str().parse::<SocketAddr>().ok().and_then(|address| Site::of(address.ip()))
    };
    strangers.retain(|voice| site(voice).is_none_or(|site| sites.insert(site)));
    strangers.truncate(if heard.is_empty() { STRANGERS_MIN } else { heard.len() });
    heard.append(&mut strangers);
    heard
}

/// Those whose clock is off, given who was before.
fn off(voices: &[Voice<'_>], before: &BTreeSet<String>) -> BTreeSet<String> {
    let is_off = |voice: &&Voice<'_>| {
        let least = voice.offset_ms.unsigned_abs().saturating_sub(voice.error_ms);
        least > if before.contains(&voice.peer.id) { AGREES_MS } else { OFF_MS }
    };
    voices.iter().filter(is_off).map(|voice| voice.peer.id.clone()).collect()
}

fn verdict(voices: &[Voice<'_>], off: &BTreeSet<String>) -> Option<ClockFault> {
    let of = u32::try_from(voices.len()).unwrap_or(u32::MAX);
    let side = |ahead: bool| {
        let on_it =
            voices.iter().filter(|voice| off.contains(&voice.peer.id) && (voice.offset_ms > 0) == ahead);
        u32::try_from(on_it.count()).unwrap_or(u32::MAX)
    };
    let (ahead, behind) = (side(true), side(false));
    let (against, count) = (ahead.max(behind), ahead.saturating_add(behind));
    if count == 0 {
        return None;
    }
    // One voice against ours: nobody can tell.
    if against > 1 && against.saturating_mul(2) > of {
        return Some(ClockFault::Own { offset_ms: median(voices).unwrap_or(0), against, of });
    }
    let mut named: Vec<&Voice<'_>> = voices.iter().filter(|voice| off.contains(&voice.peer.id)).collect();
    named.sort_by_key(|voice| std::cmp::Reverse(voice.offset_ms.unsigned_abs()));
    let name = |voice: &&Voice<'_>| PeerClock {
        name: if voice.peer.name.as_str().is_empty() {
            CleanText::new(voice.peer.address.as_str())
        } else {
            voice.peer.name.clone()
        },
        offset_ms: voice.offset_ms,
    };
    let off: Vec<PeerClock> = named.iter().take(NAMED_MAX).map(name).collect();
    // With ours one more than the agreeing peers.
    let agree = of.saturating_sub(count);
    Some(if agree > 0 && agree >= against {
        ClockFault::Peers { off, count, agree, of }
    } else {
        ClockFault::Unclear { off, count, of }
    })
}

fn median(voices: &[Voice<'_>]) -> Option<i64> {
    let mut offsets: Vec<i64> = voices.iter().map(|voice| voice.offset_ms).collect();
    offsets.sort_unstable();
    offsets.get(offsets.len() / 2).copied()
}

#[cfg(test)]
#[path = "clock_judge_tests.rs"]
mod tests;
