//! Connected peers as the machine knows them, and messages for an era not yet entered.

use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::encoding::encode;
use crate::primitives::hash::EraTag;
use crate::primitives::keys::PublicKey;
use crate::primitives::message::{Message, PeerId};
use std::collections::{BTreeMap, VecDeque};

/// One connected peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    vote_key: Option<PublicKey>,
    voter: Option<VoterIndex>,
    /// Height it says it is deciding.
    pub(super) height: u64,
    /// When a status of it was last answered.
    pub(super) answered_us: Option<u64>,
    /// When a status of it last led to a pull.
    pub(super) pulled_us: Option<u64>,
    /// Bytes of answers it may still have, and when that was reckoned.
    answer_credit: u64,
    answer_credit_us: u64,
}

/// Bytes of answers a peer may have at once, and a second: a full block and a fast link, but no more
/// than asking for costs it.
const ANSWER_BURST: u64 = 32 << 20;
const ANSWER_PER_SECOND: u64 = 16 << 20;

/// All connected peers; bounded by the connection limit of the network.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    /// When the connection to a member of the committee ended, by its vote key.
    left_us: BTreeMap<PublicKey, u64>,
}

impl Peers {
    /// A peer connected; `vote_key` was proven in the handshake.
    pub(super) fn up(&mut self, peer: PeerId, vote_key: Option<PublicKey>, committee: &Committee) {
        let voter = vote_key.and_then(|key| committee.index_of(&key));
        if let Some(key) = vote_key {
            self.left_us.remove(&key);
        }
        self.peers.insert(
            peer,
            Peer {
                vote_key,
                voter,
                height: 0,
                answered_us: None,
                pulled_us: None,
                answer_credit: ANSWER_BURST,
                answer_credit_us: 0,
            },
        );
    }

    /// A connection ended.
    pub(super) fn down(&mut self, peer: &PeerId, now_us: u64) {
        let Some(left) = self.peers.remove(peer) else { return };
        // Members only, so that there are at most as many as in the committee.
        if let (Some(_), Some(key)) = (left.voter, left.vote_key) {
            self.left_us.insert(key, now_us);
        }
    }

    /// Finds the voters again after the committee changed.
    pub(super) fn assign(&mut self, committee: &Committee) {
        for peer in self.peers.values_mut() {
            peer.voter = peer.vote_key.and_then(|key| committee.index_of(&key));
        }
        self.left_us.retain(|key, _| committee.index_of(key).is_some());
    }

    /// A connected peer.
    pub(super) fn find(&mut self, peer: &PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(peer)
    }

    /// Takes an answer of `bytes` from a peer's credit; whether it may be sent.
    pub(super) fn may_answer(&mut self, peer: &PeerId, bytes: u64, now_us: u64) -> bool {
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        let elapsed_us = now_us.saturating_sub(peer.answer_credit_us);
        let earned = u128::from(elapsed_us) * u128::from(ANSWER_PER_SECOND) / 1_000_000;
        let credit = u128::from(peer.answer_credit) + earned;
        peer.answer_credit = u64::try_from(credit.min(u128::from(ANSWER_BURST))).unwrap_or(ANSWER_BURST);
        peer.answer_credit_us = now_us;
        let enough = peer.answer_credit >= bytes;
        if enough {
            peer.answer_credit -= bytes;
        }
        enough
    }

    /// Whether the peer is connected.
    pub(super) fn contains(&self, peer: &PeerId) -> bool {
        self.peers.contains_key(peer)
    }

    /// Voters of connected peers.
    pub(super) fn voters(&self) -> impl Iterator<Item = VoterIndex> + '_ {
        self.peers.values().filter_map(|peer| peer.voter)
    }

    /// Whether a connected peer has proven to hold this key.
    pub(super) fn holds(&self, key: &PublicKey) -> bool {
        self.peers.values().any(|peer| peer.vote_key == Some(*key))
    }

    /// The connection to a voter.
    pub(super) fn of_voter(&self, voter: VoterIndex) -> Option<PeerId> {
        self.peers.iter().find(|(_, peer)| peer.voter == Some(voter)).map(|(id, _)| *id)
    }

    /// Height a voter said last that it is deciding, 0 before its first status; `None` when it is not
    /// connected.
    pub(super) fn height_of(&self, voter: VoterIndex) -> Option<u64> {
        self.peers.values().filter(|peer| peer.voter == Some(voter)).map(|peer| peer.height).max()
    }

    /// The voter behind a connection.
    pub(super) fn voter_of(&self, peer: &PeerId) -> Option<VoterIndex> {
        self.peers.get(peer)?.voter
    }

    /// When the connection to a vote key ended; `None` if there was none.
    pub(super) fn left_us(&self, key: &PublicKey) -> Option<u64> {
        self.left_us.get(key).copied()
    }

    /// The peer after `previous` in id order, cyclically: whom to ask next.
    pub(super) fn after(&self, previous: Option<PeerId>) -> Option<PeerId> {
        let next = previous.and_then(|id| {
            use std::ops::Bound::{Excluded, Unbounded};
            self.peers.range((Excluded(id), Unbounded)).next()
        });
        next.or_else(|| self.peers.iter().next()).map(|(id, _)| *id)
    }

    /// A peer that is deciding a height above `height`, the highest one.
    pub(super) fn ahead_of(&self, height: u64) -> Option<PeerId> {
        let best = self.peers.iter().filter(|(_, peer)| peer.height > height);
        best.max_by_key(|(_, peer)| peer.height).map(|(id, _)| *id)
    }

    /// Height each peer said last that it is deciding; 0 before its first status.
    pub(super) fn heights(&self) -> Vec<(PeerId, u64)> {
        self.peers.iter().map(|(id, peer)| (*id, peer.height)).collect()
    }

    /// Greatest height a peer says it is deciding.
    pub(super) fn best_height(&self) -> u64 {
        self.peers.values().map(|peer| peer.height).max().unwrap_or(0)
    }
}

/// Memory for messages of the next era kept of one voter (protocol §8); the rest is pulled on entry.
const FUTURE_BYTES_MAX: usize = 1 << 20;
/// The same of anybody else, who has next to nothing to say about it: of these there may be a hundred.
const FUTURE_OF_OTHERS_MAX: usize = 64 << 10;
/// What keeping a message costs besides the bytes in its lists.
const FUTURE_OVERHEAD: usize = std::mem::size_of::<Kept>();

/// Messages that name an era this node has not reached.
#[derive(Debug, Default)]
pub(super) struct FutureMessages {
    by_peer: BTreeMap<PeerId, (usize, VecDeque<Kept>)>,
}

/// One of them, with the memory it takes.
#[derive(Debug)]
struct Kept {
    bytes: usize,
    era: EraTag,
    message: Message,
}

impl FutureMessages {
    /// Keeps a message of a voter or of somebody else; the oldest of the same peer make room.
    pub(super) fn keep(&mut self, peer: PeerId, is_voter: bool, era: EraTag, message: Message) {
        let most = if is_voter { FUTURE_BYTES_MAX } else { FUTURE_OF_OTHERS_MAX };
        let size = encode(&message).len() + FUTURE_OVERHEAD;
        if size > most {
            return;
        }
        let (bytes, queue) = self.by_peer.entry(peer).or_default();
        *bytes += size;
        queue.push_back(Kept { bytes: size, era, message });
        while *bytes > most {
            match queue.pop_front() {
                Some(dropped) => *bytes -= dropped.bytes,
                None => break,
            }
        }
    }

    /// Bytes kept of all peers.
    pub(super) fn bytes(&self) -> usize {
        self.by_peer.values().map(|(bytes, _)| bytes).sum()
    }

    /// Drops what a peer sent.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.by_peer.remove(peer);
    }

    /// The messages of an era; all others are dropped.
    pub(super) fn take(&mut self, era: EraTag) -> Vec<(PeerId, Message)> {
        std::mem::take(&mut self.by_peer)
            .into_iter()
            .flat_map(|(peer, (_, queue))| queue.into_iter().map(move |kept| (peer, kept)))
            .filter(|(_, kept)| kept.era == era)
            .map(|(peer, kept)| (peer, kept.message))
            .collect()
    }
}
