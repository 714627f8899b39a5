//! The registry of connections: one live connection a peer, counted exactly.
//!
//! Invariants: a peer has at most one live connection and this node at most one dial to it past TLS;
//! counts change only together with the map, under its guard; reading counts costs no lock. A dialler
//! says hello only while it holds no connection to the peer, so most duplicates resolve themselves:
//! only two hellos that cross need a rule, and both sides apply the same one, keeping the connection
//! dialled by the smaller network key. Two processes with one network key are two peers: the one that
//! comes second, from another address, is known by a number derived from the key and its process.

use crate::network::endpoints::Allowance;
use crate::network::governor::{Budgets, Governor};
use crate::network::handshake::{CloseCode, Hello, Refusal, close};
use crate::network::pings::{Gauge, Measured, Pings};
use crate::network::queue::{Pool, Queue};
use crate::network::tallies::{Counted, Kind, Tallies};
use crate::network::wire::Class;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{Domain, hash};
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Waiting pings, pongs and addresses of a peer, in bytes.
const CONTROL_QUEUE_MAX: usize = 64 << 10;
/// Waiting votes of a peer: far more than an era's; a peer this far behind is better off
/// reconnecting and catching up by status.
const VOTES_QUEUE_MAX: usize = 2 << 20;
/// Waiting transactions of a peer; what is dropped is pulled by whoever needs it.
const TRANSACTIONS_QUEUE_MAX: usize = 2 << 20;
/// Waiting bulky answers of a peer: two of the largest; what is dropped is asked for again.
const BULK_QUEUE_MAX: usize = 8 << 20;
/// Waiting bulky answers of all peers together: each was made for one of them, so that many who ask and do not read
/// would otherwise hold as many times the bound above.
const BULK_OF_ALL_MAX: usize = 32 << 20;
/// With more bulky answers waiting, a peer is behind with reading and made no further ones.
const BULK_BEHIND: usize = 256 << 10;

/// What every connection of a node is subject to.
#[derive(Debug)]
pub struct Terms {
    /// What a peer may send.
    pub budgets: Budgets,
    bulk: Arc<Pool>,
}

impl Terms {
    /// With these budgets.
    #[must_use]
    pub fn new(budgets: Budgets) -> Self {
        Self { budgets, bulk: Arc::new(Pool::new(BULK_OF_ALL_MAX)) }
    }
}

/// Figures of all connections.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Bytes of frames received.
    pub bytes_in: AtomicU64,
    /// Bytes of frames handed to the transport.
    pub bytes_out: AtomicU64,
    /// Messages dropped because a queue was full or the message too large.
    pub dropped: AtomicU64,
    /// How often a peer was slowed down.
    pub throttled: AtomicU64,
}

/// Figures of one peer as measured; values a console shows.
#[derive(Clone, Debug)]
pub struct PeerSnapshot {
    /// Network key, or what [`Registry::identity`] made of it.
    pub peer: PeerId,
    /// Vote key it has proven to speak for.
    pub vote_key: Option<PublicKey>,
    /// Address of the other end.
    pub address: SocketAddr,
    /// Address it says it listens at.
    pub listen: SocketAddr,
    /// Whether the peer dialled.
    pub inbound: bool,
    pub name: CleanText,
    pub agent: CleanText,
    /// Height it last told.
    pub height: u64,
    /// What its pongs show.
    pub measured: Measured,
    /// Bytes of frames, without what QUIC adds.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Messages dropped because the peer was slow.
    pub dropped: u64,
    /// Age of the connection.
    pub age_ms: u64,
}

/// One accepted connection.
pub struct Peer {
    pub id: PeerId,
    pub vote_key: Option<PublicKey>,
    pub address: SocketAddr,
    pub listen: SocketAddr,
    pub inbound: bool,
    pub name: CleanText,
    pub agent: CleanText,
    /// Process of the peer.
    pub instance: u64,
    pub connection: quinn::Connection,
    /// Cancelled when the connection is lost: its tasks end.
    pub ended: CancellationToken,
    /// Cancelled when its tasks have ended and the node has been told.
    pub gone: CancellationToken,
    pub height: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
    pub dropped: AtomicU64,
    since: Instant,
    pub pings: Mutex<Pings>,
    /// What it may still ask of this node.
    pub allowance: Mutex<Allowance>,
    /// Locked once a pong, and for pictures.
    pub gauge: Mutex<Gauge>,
    /// What it may still send.
    pub governor: Mutex<Governor>,
    closed_here: OnceLock<CleanText>,
    /// What it counts as; changed under its slot's guard only.
    kind: Mutex<Kind>,
    queues: [Queue; 4],
}

impl Peer {
    /// A peer that has passed the handshake on `connection`. `address` is the other end's.
    #[must_use]
    pub fn new(
        id: PeerId,
        hello: &Hello,
        connection: quinn::Connection,
        address: SocketAddr,
        inbound: bool,
        ended: CancellationToken,
        terms: &Terms,
    ) -> Self {
        let mut listen = hello.listen;
        if listen.ip().is_unspecified() {
            listen.set_ip(address.ip());
        }
        Self {
            id,
            vote_key: hello.vote.as_ref().map(|vote| vote.key),
            address,
            listen,
            inbound,
            name: hello.clean_name(),
            agent: CleanText::new(&hello.agent),
            instance: hello.instance,
            connection,
            ended,
            gone: CancellationToken::new(),
            height: AtomicU64::new(hello.height),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            since: Instant::now(),
            pings: Mutex::default(),
            allowance: Mutex::default(),
            gauge: Mutex::default(),
            governor: Mutex::new(Governor::new(&terms.budgets, Instant::now())),
            closed_here: OnceLock::new(),
            kind: Mutex::new(Kind::Observer),
            queues: [
                Queue::new(CONTROL_QUEUE_MAX),
                Queue::new(VOTES_QUEUE_MAX),
                Queue::new(TRANSACTIONS_QUEUE_MAX),
                Queue::sharing(BULK_QUEUE_MAX, &terms.bulk),
            ],
        }
    }

    /// The address it has shown to be at: where it was dialled, or, of one that dialled, where it says it
    /// listens if that is where it came from. Any other claim would keep this node from dialling who is there.
    #[must_use]
    pub fn found_at(&self) -> SocketAddr {
        found_at(self.inbound, self.address, self.listen)
    }

    fn counted(&self) -> Counted {
        Counted { vote_key: self.vote_key, ip: self.address.ip(), inbound: self.inbound }
    }

    /// The queue of a class.
    #[must_use]
    pub fn queue(&self, class: Class) -> &Queue {
        let [control, votes, transactions, bulk] = &self.queues;
        match class {
            Class::Control => control,
            Class::Votes => votes,
            Class::Transactions => transactions,
            Class::Bulk => bulk,
        }
    }

    /// Queues a frame. A peer that does not take its votes is disconnected: it reconnects and catches
    /// up, while a gap in the middle of a stream of votes would go unnoticed.
    pub fn push(&self, class: Class, frame: Bytes, due: Option<Instant>) -> bool {
        let queued = self.queue(class).push(frame, due);
        if !queued {
            self.dropped.fetch_add(1, Relaxed);
            if class == Class::Votes {
                self.close(
                    CloseCode::TooSlow,
                    &format!("too slow: {VOTES_QUEUE_MAX} bytes of votes waiting"),
                );
            }
        }
        queued
    }

    /// Whether it has more bulky answers waiting than it reads.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.queue(Class::Bulk).bytes() > BULK_BEHIND
    }

    /// Closes the connection; the first reason given counts. False when it was closed here before.
    pub fn close(&self, code: CloseCode, text: &str) -> bool {
        let first = self.closed_here.set(CleanText::limited(text, CleanText::MAX_CHARS)).is_ok();
        if first {
            close(&self.connection, code, text);
        }
        first
    }

    /// Whether it has one of the slots of a member of the committee.
    #[must_use]
    pub fn is_member(&self) -> bool {
        *self.kind.lock() == Kind::Member
    }

    /// Why the connection ended, given what the transport says.
    #[must_use]
    pub fn end_reason(&self, error: &quinn::ConnectionError) -> CleanText {
        match self.closed_here.get() {
            Some(reason) => reason.clone(),
            None => Refusal::of(error).text,
        }
    }

    /// The figures now.
    #[must_use]
    pub fn snapshot(&self) -> PeerSnapshot {
        PeerSnapshot {
            peer: self.id,
            vote_key: self.vote_key,
            address: self.address,
            listen: self.listen,
            inbound: self.inbound,
            name: self.name.clone(),
            agent: self.agent.clone(),
            height: self.height.load(Relaxed),
            measured: self.gauge.lock().measured(),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            age_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn found_at(inbound: bool, address: SocketAddr, listen: SocketAddr) -> SocketAddr {
    if !inbound || listen.ip().to_canonical() == address.ip().to_canonical() { listen } else { address }
}

/// What is known of one peer; removed when neither is set.
#[derive(Default)]
struct Slot {
    /// A dial of this node has proven the peer's key and is exchanging hellos.
    dialing: bool,
    live: Option<Arc<Peer>>,
}

/// All connections.
pub struct Registry {
    own: PeerId,
    slots: DashMap<PeerId, Slot>,
    tallies: Tallies,
}

/// The right to say hello to a peer; given back when dropped.
pub struct DialPermit<'a> {
    registry: &'a Registry,
    peer: PeerId,
}

impl DialPermit<'_> {
    /// Whom it is for.
    #[must_use]
    pub fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Drop for DialPermit<'_> {
    fn drop(&mut self) {
        self.registry.change(self.peer, |slot| slot.dialing = false);
    }
}

impl Registry {
    /// An empty registry of the node with key `own`; for the limits see [`Tallies::new`].
    #[must_use]
    pub fn new(own: PeerId, inbound_max: usize, of_site_max: usize) -> Self {
        Self { own, slots: DashMap::new(), tallies: Tallies::new(inbound_max, of_site_max) }
    }

    /// Connections (dialled by peers, dialled by this node).
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.tallies.by_direction()
    }

    /// Those of each with members of the committee.
    #[must_use]
    pub fn members(&self) -> (usize, usize) {
        self.tallies.members()
    }

    /// Whose connections have priority from now on.
    pub fn set_committee(&self, committee: BTreeSet<PublicKey>) {
        // Who is admitted from here on is counted by the new committee, who was before is below.
        self.tallies.set_committee(committee);
        self.for_each(|peer| {
            let mut kind = peer.kind.lock();
            *kind = self.tallies.reclassify(&peer.counted(), *kind);
        });
    }

    /// The live connection to a peer.
    #[must_use]
    pub fn live(&self, peer: PeerId) -> Option<Arc<Peer>> {
        self.slots.get(&peer).and_then(|slot| slot.live.clone())
    }

    /// Calls `visit` with every live connection; it must not call the registry.
    pub fn for_each(&self, mut visit: impl FnMut(&Arc<Peer>)) {
        for slot in &self.slots {
            if let Some(peer) = &slot.live {
                visit(peer);
            }
        }
    }

    /// All live connections.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let mut peers = Vec::new();
        self.for_each(|peer| peers.push(Arc::clone(peer)));
        peers
    }

    /// Under which id a process that has proven `key` is entered: the key, unless another process with
    /// it is connected from another address, or it is this node's own.
    pub fn identity(&self, key: PeerId, instance: u64, address: SocketAddr) -> PeerId {
        let held = self.slots.get(&key).and_then(|slot| slot.live.clone());
        // At one address there is one process: the other one has ended and its successor takes its place.
        let is_second = held.is_some_and(|live| {
            live.instance != instance && live.address != address && live.connection.close_reason().is_none()
        });
        if !is_second && key != self.own {
            return key;
        }
        tracing::warn!(%address, key = %key.0.short(), "two processes use one network key");
        PeerId(PublicKey(hash(Domain::PEER, &[&key.0.0, &instance.to_le_bytes()]).0))
    }

    /// The connection to the process at `address` that came second with its key: what it proves says
    /// nothing of whether it is connected.
    pub fn second_at(&self, address: SocketAddr) -> Option<PeerId> {
        let all = self.all();
        let second = |peer: &&Arc<Peer>| {
            peer.address == address && crate::network::tls::peer_of(&peer.connection) != Some(peer.id)
        };
        all.iter().find(second).map(|peer| peer.id)
    }

    /// Permission to say hello to `peer`; `None` when it is connected or being dialled.
    pub fn begin_dial(&self, peer: PeerId) -> Option<DialPermit<'_>> {
        let mut slot = self.slots.entry(peer).or_default();
        if slot.dialing || slot.live.is_some() {
            return None;
        }
        slot.dialing = true;
        drop(slot);
        Some(DialPermit { registry: self, peer })
    }

    /// Enters a connection whose hello was just received; returns the one it replaces.
    ///
    /// # Errors
    /// [`Refusal`] when the peer's own connection wins or there is no room.
    pub fn admit_inbound(&self, peer: &Arc<Peer>) -> Result<Option<Arc<Peer>>, Refusal> {
        let mut slot = self.slots.entry(peer.id).or_default();
        let own_wins = self.own < peer.id;
        let crossing = match &slot.live {
            // The hello of a process that answered ours was on its way before it did.
            Some(live) => {
                own_wins
                    && !live.inbound
                    && live.instance == peer.instance
                    && live.connection.close_reason().is_none()
            }
            None => own_wins && slot.dialing,
        };
        let refusal = if crossing {
            Some(Refusal::new(CloseCode::Duplicate, "duplicate connection: both ends dialled"))
        } else {
            self.enter(&slot, peer).err()
        };
        if let Some(refusal) = refusal {
            drop(slot);
            self.change(peer.id, |_| ());
            return Err(refusal);
        }
        Ok(slot.live.replace(Arc::clone(peer)))
    }

    /// Enters a connection this node dialled and the peer has answered; returns the one it replaces.
    /// The answer always wins: the peer has entered this connection and holds no other.
    pub fn admit_outbound(&self, peer: &Arc<Peer>) -> Option<Arc<Peer>> {
        let mut slot = self.slots.entry(peer.id).or_default();
        // There is no limit to what this node dials itself.
        let _never_refused = self.enter(&slot, peer);
        slot.live.replace(Arc::clone(peer))
    }

    /// Counts a connection that takes a slot, in place of the one in it.
    fn enter(&self, slot: &Slot, peer: &Peer) -> Result<(), Refusal> {
        let replaced = slot.live.as_ref().map(|live| (live.counted(), *live.kind.lock()));
        let replaced = replaced.as_ref().map(|(counted, kind)| (counted, *kind));
        *peer.kind.lock() = self.tallies.enter(&peer.counted(), replaced)?;
        Ok(())
    }

    /// Removes a connection unless another has replaced it already. `told` runs while no connection of
    /// this peer can be admitted; it must not call the registry.
    pub fn remove(&self, peer: &Arc<Peer>, told: impl FnOnce()) {
        self.change(peer.id, |slot| {
            if slot.live.as_ref().is_some_and(|live| Arc::ptr_eq(live, peer)) {
                slot.live = None;
                self.tallies.leave(&peer.counted(), *peer.kind.lock());
            }
            told();
        });
    }

    /// Changes a slot and drops it if nothing is left in it.
    fn change(&self, peer: PeerId, change: impl FnOnce(&mut Slot)) {
        if let dashmap::Entry::Occupied(mut entry) = self.slots.entry(peer) {
            change(entry.get_mut());
            if !entry.get().dialing && entry.get().live.is_none() {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_dialled_is_where_it_came_from_whatever_it_says() {
        let [own, port, other]: [SocketAddr; 3] =
            ["198.51.100.1:5000", "198.51.100.1:24000", "203.0.113.1:24000"]
                .map(|text| text.parse().unwrap());
        assert_eq!(found_at(true, own, port), port);
        assert_eq!(found_at(true, own, other), own);
        assert_eq!(found_at(false, other, other), other);
    }
}
