//! Who blocks are pulled from: what each says it has, how much was asked of it, and how it did. Time is an
//! argument; pure.
//!
//! A claim to be ahead costs nothing. So whoever is asked and does not answer comes last, is not believed
//! after a few times in a row, and gives way to others when there are too many.

use crate::primitives::message::PeerId;
use crate::telemetry::snapshot::SyncPeer;
use std::collections::BTreeMap;

/// Requests a peer may have open: the next one waits there while it answers the one before. A server
/// drops what is beyond four, and two of the largest answers fit what a connection may queue.
pub const REQUESTS_MAX: u32 = 2;
/// Peers asked at a time; with their requests that bounds the answers on the way.
pub const PEERS_MAX: usize = 16;
/// Peers whose claims are kept, more than are asked: among them those that answer have to be found. More
/// than the settings let connect.
const CLAIMS_MAX: usize = 5000;
/// How long what a peer said of its height counts, in microseconds: it says it every second.
const CLAIM_US: u64 = 10_000_000;
/// For so long a peer that did not answer comes after all others, in microseconds.
const SLOW_US: u64 = 30_000_000;

/// Requests in vain, one after the other, after which a peer is not believed to have anything, for longer
/// and longer.
const DOUBTED_STALLS: u64 = 3;

/// One peer.
#[derive(Clone, Debug, Default)]
struct Source {
    /// Height of the last block it says it has.
    has: u64,
    claimed_us: u64,
    /// Lowest height it keeps.
    keeps_from: u64,
    open: u32,
    slow_until_us: u64,
    blocks: u64,
    /// Requests in vain since it served a block; those that were open together count once.
    stalls: u64,
    stalled_us: Option<u64>,
}

impl Source {
    fn is_slow(&self, now_us: u64) -> bool {
        self.slow_until_us > now_us
    }

    fn is_doubted(&self, now_us: u64) -> bool {
        self.stalls >= DOUBTED_STALLS && self.is_slow(now_us)
    }

    /// Whether it may have the block of a height.
    fn keeps(&self, height: u64) -> bool {
        self.keeps_from <= height && height <= self.has
    }

    fn stall(&mut self, now_us: u64) {
        self.stalls = self.stalls.saturating_add(1);
        self.stalled_us = Some(now_us);
        let longer = (self.stalls / DOUBTED_STALLS).min(4);
        self.slow_until_us = now_us.saturating_add(SLOW_US << longer);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<PeerId, Source>);

impl Sources {
    /// A peer says that it has the blocks up to `has`. When there are too many it takes the place of the one
    /// that has been asked in vain most often.
    pub fn claims(&mut self, peer: PeerId, has: u64, now_us: u64) {
        if self.0.len() >= CLAIMS_MAX && !self.0.contains_key(&peer) {
            let slow = self.0.iter().filter(|(_, source)| source.is_slow(now_us));
            let worst = slow.max_by_key(|(_, source)| (source.stalls, std::cmp::Reverse(source.blocks)));
            let Some(worst) = worst.map(|(peer, _)| *peer) else { return };
            self.0.remove(&worst);
        }
        let source = self.0.entry(peer).or_default();
        source.has = has;
        source.claimed_us = now_us;
    }

    /// It says that it keeps blocks from `oldest` on and not that of `height`; whether it is known here. Who
    /// said before that it keeps this one was asked in vain.
    pub fn not_kept(&mut self, peer: &PeerId, height: u64, oldest: u64, now_us: u64) -> bool {
        let Some(source) = self.0.get_mut(peer) else { return false };
        if source.keeps_from > 0 && source.keeps_from <= height {
            source.stall(now_us);
        }
        source.keeps_from = oldest.max(height.saturating_add(1));
        true
    }

    /// A connection ended, or the peer is not to be asked any more.
    pub fn remove(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Forgets whoever has not said for long that it is ahead.
    pub fn expire(&mut self, now_us: u64) {
        self.0.retain(|_, source| now_us.saturating_sub(source.claimed_us) <= CLAIM_US);
    }

    /// Height of the last block anybody has who may have that of `next` too. Who did not answer several times
    /// in a row is not believed for a while.
    #[must_use]
    pub fn target(&self, next: u64, now_us: u64) -> u64 {
        let believed = self.0.values().filter(|source| source.keeps(next) && !source.is_doubted(now_us));
        believed.map(|source| source.has).max().unwrap_or(0)
    }

    /// When somebody has the block of `next` and none of those keeps it: from where on they keep blocks.
    #[must_use]
    pub fn oldest_kept(&self, next: u64, now_us: u64) -> Option<u64> {
        let ahead = self.0.values().filter(|source| source.has >= next && !source.is_doubted(now_us));
        ahead.map(|source| source.keeps_from).min().filter(|oldest| *oldest > next)
    }

    /// Whom to ask for the block of `height`, but not `except`: of those that have it and a request free,
    /// the one that answered in time and has least to do; the slow ones last.
    #[must_use]
    pub fn choose(&self, height: u64, except: Option<PeerId>, now_us: u64) -> Option<PeerId> {
        let full = self.0.values().filter(|source| source.open > 0).count() >= PEERS_MAX;
        let free = self.0.iter().filter(|(peer, source)| {
            let room = if full { 1..REQUESTS_MAX } else { 0..REQUESTS_MAX };
            source.keeps(height) && room.contains(&source.open) && Some(**peer) != except
        });
        let best = free.min_by_key(|(_, source)| (source.is_slow(now_us), source.open, source.blocks));
        best.map(|(peer, _)| *peer)
    }

    /// Somebody other than `peer` has this block.
    #[must_use]
    pub fn others_have(&self, height: u64, peer: &PeerId) -> bool {
        self.0.iter().any(|(other, source)| other != peer && source.keeps(height))
    }

    /// A request was sent to it.
    pub fn asked(&mut self, peer: &PeerId) {
        if let Some(source) = self.0.get_mut(peer) {
            source.open += 1;
        }
    }

    /// A request to it is over.
    pub fn answered(&mut self, peer: &PeerId) {
        if let Some(source) = self.0.get_mut(peer) {
            source.open = source.open.saturating_sub(1);
        }
    }

    /// It served a block to the end.
    pub fn served(&mut self, peer: &PeerId) {
        if let Some(source) = self.0.get_mut(peer) {
            source.blocks += 1;
            source.stalls = 0;
            source.slow_until_us = 0;
        }
    }

    /// It did not answer in time what it was asked at `asked_us`; whether that is news.
    pub fn stalled(&mut self, peer: &PeerId, asked_us: u64, now_us: u64) -> bool {
        let Some(source) = self.0.get_mut(peer) else { return false };
        let news = !source.is_slow(now_us);
        if source.stalled_us.is_none_or(|stalled_us| asked_us >= stalled_us) {
            source.stall(now_us);
        }
        news
    }

    /// It sends less at a time than others would.
    pub fn dawdled(&mut self, peer: &PeerId, now_us: u64) {
        if let Some(source) = self.0.get_mut(peer) {
            source.slow_until_us = source.slow_until_us.max(now_us.saturating_add(SLOW_US));
        }
    }

    /// For people: of those with whom there was anything to do, whoever served most.
    #[must_use]
    pub fn described(&self, now_us: u64) -> Vec<SyncPeer> {
        let busy = |source: &Source| source.open > 0 || source.blocks > 0 || source.stalls > 0;
        let mut shown: Vec<_> = self.0.iter().filter(|(_, source)| busy(source)).collect();
        shown.sort_by_key(|(_, source)| std::cmp::Reverse(source.blocks));
        shown.truncate(PEERS_MAX);
        shown.sort_by_key(|(peer, _)| **peer);
        let described = shown.into_iter().map(|(peer, source)| SyncPeer {
            id: peer.to_string(),
            has: source.has,
            blocks: source.blocks,
            stalls: source.stalls,
            slow: source.is_slow(now_us),
        });
        described.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::PublicKey;

    fn peer(number: u8) -> PeerId {
        PeerId(PublicKey([number; 32]))
    }

    fn three() -> Sources {
        let mut sources = Sources::default();
        for number in 1..=3 {
            sources.claims(peer(number), 10, 0);
        }
        sources
    }

    #[test]
    fn requests_are_spread_and_bounded() {
        let mut sources = three();
        let mut asked = Vec::new();
        while let Some(peer) = sources.choose(5, None, 0) {
            sources.asked(&peer);
            asked.push(peer);
        }
        assert_eq!(asked.len(), 3 * REQUESTS_MAX as usize);
        assert_eq!(asked[..3], [peer(1), peer(2), peer(3)]);
    }

    #[test]
    fn only_who_has_and_keeps_a_block_is_asked_for_it() {
        let mut sources = three();
        assert_eq!((sources.choose(11, None, 0), sources.target(1, 0)), (None, 10));
        sources.claims(peer(2), 11, 0);
        assert_eq!(sources.choose(11, None, 0), Some(peer(2)));
        assert!(sources.not_kept(&peer(1), 3, 6, 0));
        assert_eq!(sources.choose(5, Some(peer(2)), 0), Some(peer(3)));
        sources.expire(CLAIM_US + 1);
        assert_eq!(sources.target(1, 0), 0);
    }

    /// A request to it was in vain.
    fn in_vain(sources: &mut Sources, peer: PeerId, asked_us: u64, now_us: u64) -> bool {
        sources.asked(&peer);
        sources.answered(&peer);
        sources.stalled(&peer, asked_us, now_us)
    }

    #[test]
    fn who_never_serves_what_it_claims_is_not_believed_for_longer_and_longer() {
        let mut sources = three();
        sources.claims(peer(3), 1_000_000, 0);
        for now_us in 0..DOUBTED_STALLS {
            assert_eq!(sources.target(1, now_us), 1_000_000);
            in_vain(&mut sources, peer(3), now_us, now_us);
        }
        assert_eq!(sources.target(1, 3), 10);
        assert_eq!(sources.target(1, 3 + 2 * SLOW_US), 1_000_000, "it may have been busy");
        sources.served(&peer(3));
        assert_eq!(sources.target(1, 4), 1_000_000);
    }

    #[test]
    fn a_block_served_once_buys_no_trust_for_what_is_claimed_later() {
        let mut sources = three();
        sources.claims(peer(3), 1_000_000, 0);
        sources.served(&peer(3));
        for now_us in 0..DOUBTED_STALLS {
            in_vain(&mut sources, peer(3), now_us, now_us);
        }
        assert_eq!(sources.target(1, 3), 10);
    }

    #[test]
    fn requests_in_vain_count_once_when_they_were_open_together_and_not_after_a_block() {
        let mut sources = three();
        // However many times all were silent together and then went on.
        for second in 0..10 {
            let now_us = second * SLOW_US;
            sources.claims(peer(1), 10, now_us);
            for open in 0..u64::from(REQUESTS_MAX) {
                in_vain(&mut sources, peer(1), now_us + open, now_us + 4_000_000 + open);
            }
            assert_eq!(sources.described(now_us)[0].stalls, 1);
            sources.served(&peer(1));
            assert_eq!(sources.described(now_us)[0].stalls, 0);
        }
        assert_eq!(sources.target(1, 10 * SLOW_US), 10);
    }

    #[test]
    fn who_keeps_nothing_that_is_wanted_sets_no_target() {
        let mut sources = three();
        sources.claims(peer(3), 1_000_000, 0);
        sources.not_kept(&peer(3), 5, 500, 0);
        assert_eq!((sources.target(5, 0), sources.target(500, 0)), (10, 1_000_000));
        assert_eq!(sources.oldest_kept(5, 0), None);
        sources.not_kept(&peer(1), 5, 9, 0);
        sources.remove(&peer(2));
        assert_eq!((sources.oldest_kept(5, 0), sources.oldest_kept(9, 0)), (Some(9), None));
        // And who says so block by block is not believed.
        for height in 500..500 + DOUBTED_STALLS {
            sources.not_kept(&peer(3), height, 0, 0);
        }
        assert_eq!((sources.target(600, 0), sources.oldest_kept(600, 0)), (0, None));
    }

    #[test]
    fn who_did_not_answer_comes_last_for_a_while_and_is_still_asked_when_nobody_else_is_there() {
        let mut sources = three();
        assert!(in_vain(&mut sources, peer(1), 0, 7));
        assert!(!in_vain(&mut sources, peer(1), 8, 8), "told once");
        sources.served(&peer(2));
        assert_eq!(sources.choose(1, None, 9), Some(peer(3)));
        sources.dawdled(&peer(3), 9);
        assert_eq!(sources.choose(1, None, 9), Some(peer(2)));
        sources.remove(&peer(2));
        sources.remove(&peer(3));
        assert_eq!(sources.choose(1, None, 9), Some(peer(1)));
        assert!(!sources.others_have(1, &peer(1)));
    }

    fn many(count: usize) -> Vec<PeerId> {
        let id = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            PeerId(PublicKey(bytes))
        };
        (1..=count).map(id).collect()
    }

    #[test]
    fn silent_peers_that_claim_to_be_ahead_do_not_shut_others_out_however_many_they_are() {
        for count in [PEERS_MAX, 500] {
            let mut sources = Sources::default();
            let (silent, honest, mut now_us) = (many(count), peer(255), 0);
            let mut asked_honest = false;
            // Each is asked in vain, round after round.
            for _ in 0..=count.div_ceil(PEERS_MAX) {
                silent.iter().chain([&honest]).for_each(|peer| sources.claims(*peer, 10, now_us));
                let mut asked = Vec::new();
                while let Some(peer) = sources.choose(1, None, now_us) {
                    sources.asked(&peer);
                    asked.push(peer);
                }
                asked_honest |= asked.contains(&honest);
                let asked_us = now_us;
                now_us += 100_000;
                for peer in asked {
                    sources.answered(&peer);
                    sources.stalled(&peer, asked_us, now_us);
                }
            }
            assert!(asked_honest, "{count} silent peers");
        }
    }

    #[test]
    fn claims_are_bounded_and_who_does_not_answer_gives_way() {
        let mut sources = Sources::default();
        let silent = many(CLAIMS_MAX);
        silent.iter().for_each(|peer| sources.claims(*peer, 10, 0));
        sources.claims(peer(255), 10, 0);
        assert!(!sources.0.contains_key(&peer(255)), "nobody is known to be silent");
        in_vain(&mut sources, silent[7], 0, 1);
        sources.claims(peer(255), 10, 1);
        assert!(sources.0.contains_key(&peer(255)) && !sources.0.contains_key(&silent[7]));
        assert_eq!(sources.0.len(), CLAIMS_MAX);
    }

    #[test]
    fn few_peers_are_asked_at_a_time() {
        let mut sources = Sources::default();
        many(100).into_iter().for_each(|peer| sources.claims(peer, 10, 0));
        let mut asked = std::collections::BTreeMap::new();
        while let Some(peer) = sources.choose(1, None, 0) {
            sources.asked(&peer);
            *asked.entry(peer).or_insert(0) += 1;
        }
        assert_eq!(asked.len(), PEERS_MAX);
        assert!(asked.values().all(|open| *open == REQUESTS_MAX));
    }
}
