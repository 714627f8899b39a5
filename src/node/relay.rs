//! Relay of transactions: who is sent a body, who is told of it, and what is asked for.
//!
//! The node at which a transaction enters sends the body to every peer. A member that gets one from somebody who is no
//! member is where it enters the committee, and sends it to the other members. Everybody else tells those peers that
//! are not known to have it, many ids at a time and a moment later, because mostly that need not be done: a peer that
//! sent it, told of it or voted for it has it, and who was sent a vote for it by this node knows that this node has it.
//! What is told of and lacking is asked for once, of the first that told of it, and of the next when it does not come
//! in time. [`Table`] decides and is pure: time is an argument. Every list is bounded; what is forgotten costs a
//! copy more, or is pulled by whoever sees votes for it.

use crate::network::Network;
use crate::network::members::Member;
use crate::node::clock;
use crate::node::served::{Send, send_by};
use crate::pool::Pool;
use crate::primitives::hash::Txid;
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::primitives::message::{ANNOUNCED_MAX, Message, PeerId};
use crate::primitives::vote::VoteBatch;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How long a transaction waits to be told of: votes for it, of others and of this node, come sooner.
const TELL_AFTER_US: u64 = 100_000;
/// How long a peer that told of a transaction has to send it.
const DEADLINE_US: u64 = 500_000;
/// How often what is due is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Transactions a peer is known to have, in each of two generations.
const KNOWN_MAX: usize = 8192;
/// Transactions a peer is still to be told of; of more it is not told.
const UNTOLD_MAX: usize = 32_768;
/// Transactions asked for at a time, in all and of one peer.
const WANTED_MAX: usize = 32_768;
const WANTED_OF_PEER_MAX: usize = 4096;
/// Peers that told of a transaction and are remembered as such.
const TELLERS_MAX: usize = 4;

/// Transactions of late, the oldest forgotten by half.
#[derive(Debug, Default)]
struct Known {
    young: HashSet<u64>,
    old: HashSet<u64>,
}

/// Enough of an id to tell it from others of these seconds.
fn short(txid: &Txid) -> u64 {
    txid.bytes().first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Known {
    fn contains(&self, txid: &Txid) -> bool {
        let short = short(txid);
        self.young.contains(&short) || self.old.contains(&short)
    }

    fn add(&mut self, txid: &Txid) {
        if self.young.len() >= KNOWN_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short(txid));
    }
}

#[derive(Debug, Default)]
struct Peer {
    vote_key: Option<PublicKey>,
    /// What it has, or knows this node has.
    known: Known,
    /// What it is to be told of, and when.
    untold: VecDeque<(u64, Txid)>,
    /// What was asked of it and has not come.
    asked: usize,
}

#[derive(Debug)]
struct Wanted {
    of: PeerId,
    due_us: u64,
    /// Who else has it.
    others: VecDeque<PeerId>,
}

/// What to send, and to whom.
pub type Sends = Vec<(PeerId, Message)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    is_member: bool,
    committee: BTreeSet<PublicKey>,
    peers: BTreeMap<PeerId, Peer>,
    wanted: BTreeMap<Txid, Wanted>,
    /// What this node has voted for, before everybody.
    voted: Known,
    /// No deadline of `wanted` is before this.
    earliest_us: u64,
}

impl Table {
    /// Who votes, and whether this node does.
    pub fn set_committee(&mut self, committee: BTreeSet<PublicKey>, own: Option<PublicKey>) {
        self.is_member = own.is_some_and(|own| committee.contains(&own));
        self.committee = committee;
    }

    /// A peer connected.
    pub fn up(&mut self, peer: PeerId, vote_key: Option<PublicKey>) {
        self.peers.insert(peer, Peer { vote_key, ..Peer::default() });
    }

    /// A connection ended; what was asked of it is asked of others at once.
    pub fn down(&mut self, peer: &PeerId) {
        self.peers.remove(peer);
        for wanted in self.wanted.values_mut().filter(|wanted| wanted.of == *peer) {
            wanted.due_us = 0;
            self.earliest_us = 0;
        }
    }

    fn votes(&self, peer: &PeerId) -> bool {
        let key = self.peers.get(peer).and_then(|peer| peer.vote_key);
        key.is_some_and(|key| self.committee.contains(&key))
    }

    /// A peer has shown that it has a transaction.
    pub fn has(&mut self, peer: &PeerId, txid: &Txid) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.known.add(txid);
        }
    }

    /// A body arrived from a peer; whether it was asked for here, of whomever.
    pub fn arrived(&mut self, peer: &PeerId, txid: &Txid) -> bool {
        self.has(peer, txid);
        let wanted = self.wanted.remove(txid);
        if let Some(asked) = wanted.as_ref().and_then(|wanted| self.peers.get_mut(&wanted.of)) {
            asked.asked = asked.asked.saturating_sub(1);
        }
        wanted.is_some()
    }

    /// This node has accepted a transaction, from a peer or as the first: who is sent the body now. The others are
    /// told of it later.
    pub fn accepted(&mut self, from: Option<PeerId>, txid: Txid, now_us: u64) -> Vec<PeerId> {
        let enters_here = from.is_none();
        let enters_committee = self.is_member && from.is_some_and(|from| !self.votes(&from));
        if let Some(from) = &from {
            self.has(from, &txid);
        }
        let mut to = Vec::new();
        for (id, peer) in &mut self.peers {
            if peer.known.contains(&txid) {
                continue;
            }
            let votes = peer.vote_key.is_some_and(|key| self.committee.contains(&key));
            if enters_here || (enters_committee && votes) {
                peer.known.add(&txid);
                to.push(*id);
            } else if peer.untold.len() < UNTOLD_MAX {
                peer.untold.push_back((now_us.saturating_add(TELL_AFTER_US), txid));
            }
        }
        to
    }

    /// This node has sent everybody its votes: they know what it has.
    pub fn voted(&mut self, batch: &VoteBatch) {
        for txid in batch.prepares.iter().chain(&batch.commits) {
            self.voted.add(txid);
        }
    }

    /// A peer has voted: it has what it voted for. Looked at only while there is something to tell it.
    pub fn heard(&mut self, peer: &PeerId, batch: &VoteBatch) {
        if let Some(peer) = self.peers.get_mut(peer).filter(|peer| !peer.untold.is_empty()) {
            for txid in batch.prepares.iter().chain(&batch.commits) {
                peer.known.add(txid);
            }
        }
    }

    /// A peer tells of transactions of which this node lacks `lacking`; what to ask for now.
    pub fn told(&mut self, peer: PeerId, lacking: &[Txid], now_us: u64) -> Option<Message> {
        let mut ask = Vec::new();
        for txid in lacking {
            self.has(&peer, txid);
            if let Some(wanted) = self.wanted.get_mut(txid) {
                if wanted.of != peer && wanted.others.len() < TELLERS_MAX && !wanted.others.contains(&peer) {
                    wanted.others.push_back(peer);
                }
                continue;
            }
            let Some(asked) = self.peers.get_mut(&peer).map(|peer| &mut peer.asked) else { continue };
            if self.wanted.len() >= WANTED_MAX || *asked >= WANTED_OF_PEER_MAX {
                continue;
            }
            *asked += 1;
            let due_us = now_us.saturating_add(DEADLINE_US);
            self.wanted.insert(*txid, Wanted { of: peer, due_us, others: VecDeque::new() });
            self.earliest_us = self.earliest_us.min(due_us);
            ask.push(*txid);
        }
        (!ask.is_empty()).then_some(Message::GetTransactions(ask))
    }

    /// What is due: tellings, and what has to be asked of somebody else. `has` is whether this node has one meanwhile.
    pub fn due(&mut self, now_us: u64, has: impl Fn(&Txid) -> bool) -> Sends {
        let mut sends = Sends::new();
        for (id, peer) in &mut self.peers {
            let mut tell = Vec::new();
            while peer.untold.front().is_some_and(|(due_us, _)| *due_us <= now_us)
                && let Some((_, txid)) = peer.untold.pop_front()
            {
                if !peer.known.contains(&txid) && !self.voted.contains(&txid) {
                    peer.known.add(&txid);
                    tell.push(txid);
                }
            }
            for ids in tell.chunks(ANNOUNCED_MAX) {
                sends.push((*id, Message::Announce(ids.to_vec())));
            }
        }
        if self.earliest_us <= now_us {
            self.ask_others(now_us, has, &mut sends);
        }
        sends
    }

    fn ask_others(&mut self, now_us: u64, has: impl Fn(&Txid) -> bool, sends: &mut Sends) {
        let peers = &mut self.peers;
        let mut ask: BTreeMap<PeerId, Vec<Txid>> = BTreeMap::new();
        self.wanted.retain(|txid, wanted| {
            if wanted.due_us > now_us {
                return true;
            }
            if let Some(silent) = peers.get_mut(&wanted.of) {
                silent.asked = silent.asked.saturating_sub(1);
            }
            let next =
                std::iter::from_fn(|| wanted.others.pop_front()).find(|other| peers.contains_key(other));
            let Some(next) = next.filter(|_| !has(txid)) else { return false };
            if let Some(peer) = peers.get_mut(&next) {
                peer.asked += 1;
            }
            (wanted.of, wanted.due_us) = (next, now_us.saturating_add(DEADLINE_US));
            ask.entry(next).or_default().push(*txid);
            true
        });
        let dues = self.wanted.values().map(|wanted| wanted.due_us);
        self.earliest_us = dues.min().unwrap_or(u64::MAX);
        for (peer, ids) in ask {
            sends.extend(ids.chunks(ANNOUNCED_MAX).map(|ids| (peer, Message::GetTransactions(ids.to_vec()))));
        }
    }
}

/// The table of a node, and its way out.
pub struct Relay {
    table: Mutex<Table>,
    own: Option<PublicKey>,
    send: Mutex<Send>,
}

impl Relay {
    /// Of a node with this vote key.
    #[must_use]
    pub fn new(own: Option<PublicKey>, send: Send) -> Self {
        Self { table: Mutex::default(), own, send: Mutex::new(send) }
    }

    /// Of a node in a network.
    #[must_use]
    pub fn of(vote_key: Option<&SecretKey>, committee: &[Member], network: &Arc<Network>) -> Arc<Self> {
        let relay = Self::new(vote_key.map(SecretKey::public), send_by(network));
        relay.set_committee(committee.iter().map(|member| member.vote_key).collect());
        Arc::new(relay)
    }

    /// Does something with the table; nothing is sent meanwhile.
    pub fn with<T>(&self, act: impl FnOnce(&mut Table) -> T) -> T {
        act(&mut self.table.lock())
    }

    /// Who votes from now on.
    pub fn set_committee(&self, committee: BTreeSet<PublicKey>) {
        self.table.lock().set_committee(committee, self.own);
    }

    /// Sends the body of what was accepted to whom it is to be sent.
    pub fn accepted(&self, from: Option<PeerId>, txid: Txid, message: &Message) {
        let to = self.table.lock().accepted(from, txid, clock::monotonic_us());
        let send = self.send.lock();
        for peer in to {
            send(peer, message);
        }
    }

    /// A peer tells of transactions, of which this node lacks some.
    pub fn told(&self, peer: PeerId, lacking: &[Txid]) {
        let question = self.table.lock().told(peer, lacking, clock::monotonic_us());
        if let Some(question) = question {
            self.send.lock()(peer, &question);
        }
    }

    /// Sends what is due.
    pub fn send_due(&self, has: impl Fn(&Txid) -> bool) {
        let sends = self.table.lock().due(clock::monotonic_us(), has);
        let send = self.send.lock();
        for (peer, message) in sends {
            send(peer, &message);
        }
    }

    /// Sends what is due, until the node stops.
    pub async fn run(self: Arc<Self>, pool: Arc<Pool>, stop: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            self.send_due(|txid| pool.contains(txid) || pool.confirmed_height(txid).is_some());
        }
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
