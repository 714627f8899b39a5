//! Which part of a snapshot is asked of whom next. Pure: time is an argument, in microseconds.
//!
//! A peer has a few parts to bring at a time, more of them while it is quick and one after it was slow. What
//! it does not bring in time goes to another. A part that nobody brings within
//! [`Patience::part_us`] of being asked for stalls the plan: the manifest may have lied about it.
//! Memory: a few bytes a part, and the requests under way.

use crate::primitives::message::PeerId;
use std::collections::BTreeMap;

/// Most parts a peer brings at a time; a server lets more of them wait.
const WINDOW_MAX: usize = 4;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// One answer.
    pub answer_us: u64,
    /// One part, from whomever.
    pub part_us: u64,
    /// Finding peers that keep snapshots.
    pub peers_us: u64,
    /// More answers, once one has come.
    pub others_us: u64,
    /// Leading to a header, for one peer, besides what it gets for every block it leads on.
    pub guide_us: u64,
}

impl Patience {
    /// What the protocol says.
    pub const NORMAL: Self = Self {
        answer_us: 20_000_000,
        part_us: 60_000_000,
        peers_us: 15_000_000,
        others_us: 1_000_000,
        guide_us: 60_000_000,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Missing,
    Asked(PeerId),
    /// Here, and being checked.
    Arrived,
    Done,
}

/// A peer that brings parts.
#[derive(Debug)]
struct Source {
    window: usize,
    /// Parts it was asked for, and when.
    asked: BTreeMap<u32, u64>,
    /// It stays aside until then.
    rests_until_us: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Plan {
    patience: Patience,
    parts: Vec<Part>,
    /// When each part that is not done was asked for first.
    since_us: BTreeMap<u32, u64>,
    sources: BTreeMap<PeerId, Source>,
    done: u32,
    /// No part before this one is missing.
    lowest: usize,
    /// Since when nobody keeps the snapshot.
    alone_since_us: Option<u64>,
}

impl Plan {
    /// Nothing asked for yet.
    #[must_use]
    pub fn new(parts: u32, patience: Patience) -> Self {
        let parts = vec![Part::Missing; parts as usize];
        Self {
            patience,
            parts,
            since_us: BTreeMap::new(),
            sources: BTreeMap::new(),
            done: 0,
            lowest: 0,
            alone_since_us: None,
        }
    }

    /// A peer keeps the snapshot.
    pub fn join(&mut self, peer: PeerId) {
        let source = Source { window: 1, asked: BTreeMap::new(), rests_until_us: 0 };
        self.sources.entry(peer).or_insert(source);
    }

    /// A peer does not, or is gone: what it was asked for goes to others.
    pub fn leave(&mut self, peer: &PeerId) {
        let Some(source) = self.sources.remove(peer) else { return };
        for part in source.asked.into_keys() {
            self.set(part, Part::Missing);
        }
    }

    /// Whether nobody has kept the snapshot for as long as a part may take.
    pub fn is_alone_too_long(&mut self, now_us: u64) -> bool {
        if !self.sources.is_empty() {
            self.alone_since_us = None;
            return false;
        }
        let since_us = *self.alone_since_us.get_or_insert(now_us);
        now_us.saturating_sub(since_us) >= self.patience.part_us
    }

    /// Parts that are done.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done
    }

    /// Whether all parts are.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.done as usize == self.parts.len()
    }

    /// The requests to send now.
    pub fn requests(&mut self, now_us: u64) -> Vec<(PeerId, u32)> {
        self.overdue(now_us);
        let mut requests = Vec::new();
        loop {
            let free = self
                .sources
                .iter()
                .filter(|(_, source)| source.asked.len() < source.window && source.rests_until_us <= now_us);
            // Who has least to do; of equals the smaller key.
            let Some(peer) = free.min_by_key(|(_, source)| source.asked.len()).map(|(peer, _)| *peer) else {
                return requests;
            };
            let Some(part) = self.next_missing() else { return requests };
            self.set(part, Part::Asked(peer));
            self.since_us.entry(part).or_insert(now_us);
            if let Some(source) = self.sources.get_mut(&peer) {
                source.asked.insert(part, now_us);
            }
            requests.push((peer, part));
        }
    }

    fn next_missing(&mut self) -> Option<u32> {
        let rest = self.parts.iter().skip(self.lowest);
        let found = rest.zip(self.lowest..).find(|(part, _)| **part == Part::Missing).map(|(_, at)| at);
        self.lowest = found.unwrap_or(self.parts.len());
        u32::try_from(found?).ok()
    }

    /// Gives what was not brought in time to others; who was late brings one at a time, after a rest.
    fn overdue(&mut self, now_us: u64) {
        let mut late = Vec::new();
        for source in self.sources.values_mut() {
            let before = source.asked.len();
            source.asked.retain(|part, asked_us| {
                let in_time = now_us.saturating_sub(*asked_us) < self.patience.answer_us;
                if !in_time {
                    late.push(*part);
                }
                in_time
            });
            if source.asked.len() < before {
                source.window = 1;
                source.rests_until_us = now_us.saturating_add(self.patience.answer_us / 4);
            }
        }
        for part in late {
            self.set(part, Part::Missing);
        }
    }

    /// A peer has brought a part; false when it was not asked for it.
    pub fn arrived(&mut self, peer: &PeerId, part: u32) -> bool {
        let Some(source) = self.sources.get_mut(peer) else { return false };
        if source.asked.remove(&part).is_none() {
            return false;
        }
        source.window = (source.window + 1).min(WINDOW_MAX);
        self.set(part, Part::Arrived);
        true
    }

    /// A part was checked and is here for good.
    pub fn finished(&mut self, part: u32) {
        if self.set(part, Part::Done) != Some(Part::Done) {
            self.done += 1;
        }
        self.since_us.remove(&part);
    }

    /// A part may lie here from before; it is being checked.
    pub fn found(&mut self, part: u32) {
        self.set(part, Part::Arrived);
    }

    /// What arrived, or lay here from before, is not the part.
    pub fn refused(&mut self, part: u32) {
        self.set(part, Part::Missing);
    }

    /// A part nobody has brought for too long.
    #[must_use]
    pub fn stalled(&self, now_us: u64) -> Option<u32> {
        let too_long =
            |(_, since_us): &(&u32, &u64)| now_us.saturating_sub(**since_us) >= self.patience.part_us;
        let waiting = |part: u32| {
            self.parts.get(part as usize).is_some_and(|part| !matches!(part, Part::Arrived | Part::Done))
        };
        self.since_us.iter().filter(too_long).map(|(part, _)| *part).find(|part| waiting(*part))
    }

    /// The state before.
    fn set(&mut self, part: u32, state: Part) -> Option<Part> {
        if state == Part::Missing {
            self.lowest = self.lowest.min(part as usize);
        }
        let place = self.parts.get_mut(part as usize)?;
        Some(std::mem::replace(place, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::PublicKey;

    const SECOND: u64 = 1_000_000;

    fn peer(seed: u8) -> PeerId {
        PeerId(PublicKey([seed; 32]))
    }

    fn plan(parts: u32, sources: u8) -> Plan {
        let mut plan = Plan::new(parts, Patience::NORMAL);
        (1..=sources).for_each(|seed| plan.join(peer(seed)));
        plan
    }

    #[test]
    fn quick_peers_are_given_more_at_a_time_and_every_part_is_asked_for_once() {
        let mut plan = plan(40, 2);
        let mut asked = Vec::new();
        let mut at_once = Vec::new();
        while !plan.is_complete() {
            let requests = plan.requests(SECOND);
            at_once.push(requests.len());
            for (peer, part) in requests {
                asked.push(part);
                assert!(plan.arrived(&peer, part));
                plan.finished(part);
            }
        }
        assert_eq!(asked, (0..40).collect::<Vec<_>>());
        assert_eq!(at_once[..4], [2, 4, 8, 8]);
        assert!(plan.requests(SECOND).is_empty());
    }

    #[test]
    fn what_a_peer_does_not_bring_in_time_goes_to_another() {
        let mut plan = plan(3, 1);
        assert_eq!(plan.requests(0), [(peer(1), 0)]);
        plan.join(peer(2));
        assert_eq!(plan.requests(0), [(peer(2), 1)]);
        assert!(plan.requests(19 * SECOND).is_empty());
        plan.arrived(&peer(2), 1);
        assert_eq!(plan.requests(20 * SECOND), [(peer(2), 0), (peer(2), 2)]);
        assert!(!plan.arrived(&peer(1), 0), "too late: it may be asked again, and is not believed meanwhile");
        assert_eq!(plan.requests(26 * SECOND), []);
    }

    #[test]
    fn the_parts_of_a_peer_that_leaves_are_asked_of_others_at_once() {
        let mut plan = plan(2, 2);
        assert_eq!(plan.requests(0), [(peer(1), 0), (peer(2), 1)]);
        plan.leave(&peer(1));
        plan.arrived(&peer(2), 1);
        assert_eq!(plan.requests(0), [(peer(2), 0)]);
        plan.leave(&peer(2));
        assert!(plan.requests(0).is_empty() && !plan.is_alone_too_long(0));
        assert!(!plan.is_alone_too_long(59 * SECOND) && plan.is_alone_too_long(60 * SECOND));
        plan.join(peer(1));
        assert!(!plan.is_alone_too_long(60 * SECOND));
    }

    #[test]
    fn a_part_that_nobody_brings_within_a_minute_stalls_the_plan() {
        let mut plan = plan(2, 1);
        for part in 0..2 {
            plan.requests(0);
            plan.arrived(&peer(1), part);
        }
        plan.finished(0);
        assert_eq!(plan.stalled(61 * SECOND), None, "what is being checked is here");
        plan.refused(1);
        assert_eq!(plan.stalled(59 * SECOND), None);
        assert_eq!(plan.stalled(60 * SECOND), Some(1));
        plan.finished(1);
        assert_eq!(plan.stalled(60 * SECOND), None);
    }

    #[test]
    fn parts_from_before_are_not_asked_for() {
        let mut plan = plan(4, 1);
        plan.finished(0);
        plan.found(2);
        plan.finished(2);
        plan.finished(2);
        assert_eq!((plan.done(), plan.requests(0)), (2, vec![(peer(1), 1)]));
        assert!(!plan.arrived(&peer(1), 3), "never asked for");
    }
}
