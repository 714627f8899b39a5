//! Who blocks are pulled from: what each says it has, how much was asked of it, and how it did. Time is an
//! argument; pure.

use crate::primitives::message::PeerId;
use crate::telemetry::snapshot::SyncPeer;
use std::collections::BTreeMap;

/// Requests a peer may have open: the next one waits there while it answers the one before. A server
/// drops what is beyond four, and two of the largest answers fit what a connection may queue.
pub const REQUESTS_MAX: u32 = 2;
/// Peers asked at a time; with their requests that bounds the answers on the way.
pub const PEERS_MAX: usize = 16;
/// How long what a peer said of its height counts, in microseconds: it says it every second.
const CLAIM_US: u64 = 10_000_000;
/// For so long a peer that did not answer comes after all others, in microseconds.
const SLOW_US: u64 = 30_000_000;

/// Requests in vain after which a peer that has served nothing is not believed to have anything, for
/// longer and longer.
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
    stalls: u64,
}

impl Source {
    fn is_doubted(&self, now_us: u64) -> bool {
        self.blocks == 0 && self.stalls >= DOUBTED_STALLS && self.slow_until_us > now_us
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<PeerId, Source>);

impl Sources {
    /// A peer says that it has the blocks up to `has`.
    pub fn claims(&mut self, peer: PeerId, has: u64, now_us: u64) {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&peer) {
            return;
        }
        let source = self.0.entry(peer).or_default();
        source.has = has;
        source.claimed_us = now_us;
    }

    /// It does not keep what is below `oldest`.
    pub fn keeps_from(&mut self, peer: &PeerId, oldest: u64) {
        if let Some(source) = self.0.get_mut(peer) {
            source.keeps_from = oldest;
        }
    }

    /// A connection ended, or the peer is not to be asked any more.
    pub fn remove(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Forgets whoever has not said for long that it is ahead.
    pub fn expire(&mut self, now_us: u64) {
        self.0.retain(|_, source| now_us.saturating_sub(source.claimed_us) <= CLAIM_US);
    }

    /// Height of the last block anybody has. Who has served nothing and not answered several times is not
    /// believed for a while: claims cost nothing.
    #[must_use]
    pub fn target(&self, now_us: u64) -> u64 {
        let believed = self.0.values().filter(|source| !source.is_doubted(now_us));
        believed.map(|source| source.has).max().unwrap_or(0)
    }

    /// Whom to ask for the block of `height`, but not `except`: of those that have it and a request free,
    /// the one that answered in time and has least to do; the slow ones last.
    #[must_use]
    pub fn choose(&self, height: u64, except: Option<PeerId>, now_us: u64) -> Option<PeerId> {
        let free = self.0.iter().filter(|(peer, source)| {
            source.has >= height
                && source.keeps_from <= height
                && source.open < REQUESTS_MAX
                && Some(**peer) != except
        });
        let best = free.min_by_key(|(_, source)| (source.slow_until_us > now_us, source.open, source.blocks));
        best.map(|(peer, _)| *peer)
    }

    /// Somebody other than `peer` has this block.
    #[must_use]
    pub fn others_have(&self, height: u64, peer: &PeerId) -> bool {
        self.0
            .iter()
            .any(|(other, source)| other != peer && source.has >= height && source.keeps_from <= height)
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
            source.slow_until_us = 0;
        }
    }

    /// It did not answer in time; whether that is news.
    pub fn stalled(&mut self, peer: &PeerId, now_us: u64) -> bool {
        self.answered(peer);
        let Some(source) = self.0.get_mut(peer) else { return false };
        let news = source.slow_until_us <= now_us;
        source.stalls += 1;
        let again = if source.blocks == 0 { source.stalls / DOUBTED_STALLS } else { 0 };
        source.slow_until_us = now_us + (SLOW_US << again.min(4));
        news
    }

    /// For people.
    #[must_use]
    pub fn described(&self, now_us: u64) -> Vec<SyncPeer> {
        let described = self.0.iter().map(|(peer, source)| SyncPeer {
            id: peer.to_string(),
            has: source.has,
            blocks: source.blocks,
            stalls: source.stalls,
            slow: source.slow_until_us > now_us,
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
        assert_eq!((sources.choose(11, None, 0), sources.target(0)), (None, 10));
        sources.claims(peer(2), 11, 0);
        assert_eq!(sources.choose(11, None, 0), Some(peer(2)));
        sources.keeps_from(&peer(1), 6);
        assert_eq!(sources.choose(5, Some(peer(2)), 0), Some(peer(3)));
        sources.expire(CLAIM_US + 1);
        assert_eq!(sources.target(0), 0);
    }

    #[test]
    fn who_never_serves_what_it_claims_is_not_believed_for_longer_and_longer() {
        let mut sources = three();
        sources.claims(peer(3), 1_000_000, 0);
        for now_us in 0..DOUBTED_STALLS {
            assert_eq!(sources.target(now_us), 1_000_000);
            sources.asked(&peer(3));
            sources.stalled(&peer(3), now_us);
        }
        assert_eq!(sources.target(3), 10);
        assert_eq!(sources.target(3 + 2 * SLOW_US), 1_000_000, "it may have been busy");
        sources.served(&peer(3));
        assert_eq!(sources.target(4), 1_000_000);
    }

    #[test]
    fn who_did_not_answer_comes_last_for_a_while_and_is_still_asked_when_nobody_else_is_there() {
        let mut sources = three();
        sources.asked(&peer(1));
        assert!(sources.stalled(&peer(1), 7));
        assert!(!sources.stalled(&peer(1), 8), "told once");
        sources.served(&peer(2));
        assert_eq!(sources.choose(1, None, 9), Some(peer(3)));
        sources.remove(&peer(2));
        sources.remove(&peer(3));
        assert_eq!(sources.choose(1, None, 9), Some(peer(1)));
        assert!(!sources.others_have(1, &peer(1)));
    }
}
