//! Addresses of other nodes: heard from peers, tried, remembered between runs.
//!
//! Invariants: the book is bounded by its buckets; addresses nobody could be reached at are refused on entry;
//! hearsay never displaces an address at which a peer was reached; of two outbound connections made from it no
//! two go to one netgroup. An address that would displace a tried one waits until that one was tried again and
//! failed. Absent: bootstrap peers and committee endpoints, which are dialled by themselves.

pub mod buckets;
mod file;

pub use crate::network::discovery::file::{Remembered, load, save};

use crate::network::context::canonical;
use crate::network::discovery::buckets::{BUCKET_MAX, Bucket, Buckets, Placed};
use crate::network::netgroup::{Netgroup, is_local};
use crate::primitives::message::PeerId;
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Attempts after which an address never reached is forgotten.
const FAILURES_MAX: u32 = 8;
/// Addresses that may wait for the test of a tried one.
const CONTENDERS_MAX: usize = 16;
/// Connections restored first after a restart, so that a restart is no chance to surround the node.
pub const ANCHORS_MAX: usize = 2;

/// One known address.
struct Known {
    bucket: Bucket,
    /// Who told it; the address itself when a peer was found there unasked.
    teller: IpAddr,
    /// Peer last reached here.
    peer: Option<PeerId>,
    /// Failures since it was last reached.
    failures: u32,
    next_try: Instant,
    dialing: bool,
    own: bool,
}

impl Known {
    /// Hearsay that was tried in vain.
    fn is_hopeless(&self) -> bool {
        self.peer.is_none() && self.failures > 0 && !self.dialing
    }
}

struct Tables {
    known: BTreeMap<SocketAddr, Known>,
    buckets: Buckets,
    /// By the tried address whose place it wants.
    contenders: BTreeMap<SocketAddr, SocketAddr>,
    /// Connections to restore first.
    anchors: Vec<SocketAddr>,
    /// Live connections that this node dialled, the oldest first; as many as there are connections.
    outbound: Vec<SocketAddr>,
}

/// The book.
pub struct AddressBook {
    tables: Mutex<Tables>,
    count: AtomicUsize,
    unsaved: AtomicBool,
    changed: Notify,
}

/// Connections there are when addresses to dial are chosen.
#[derive(Clone, Debug, Default)]
pub struct Connected {
    /// Every live connection: the peer and where it listens.
    pub peers: Vec<(PeerId, SocketAddr)>,
    /// Netgroups of those this node dialled.
    pub groups: BTreeSet<Netgroup>,
}

impl AddressBook {
    /// The book of what was remembered; with another secret every address would go elsewhere.
    #[must_use]
    pub fn new(remembered: Remembered) -> Self {
        let tables = Tables {
            known: BTreeMap::new(),
            buckets: Buckets::new(remembered.secret.unwrap_or_else(rand::random)),
            contenders: BTreeMap::new(),
            anchors: remembered.anchors.iter().copied().map(canonical).take(ANCHORS_MAX).collect(),
            outbound: Vec::new(),
        };
        let book = Self {
            tables: Mutex::new(tables),
            count: AtomicUsize::new(0),
            unsaved: AtomicBool::new(false),
            changed: Notify::new(),
        };
        {
            let mut tables = book.tables.lock();
            for address in remembered.tried.into_iter().chain(remembered.anchors).map(canonical) {
                tables.remember_tried(address);
            }
            for (address, teller) in remembered.new {
                tables.enter(canonical(address), teller);
            }
            book.note(&tables, true);
        }
        book.unsaved.store(false, Relaxed);
        book
    }

    /// How many addresses are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Whether no address is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes addresses told by a peer at `teller`; refuses what could not be dialled.
    pub fn hear(&self, addresses: &[SocketAddr], teller: IpAddr) {
        let teller = teller.to_canonical();
        let mut news = false;
        {
            let mut tables = self.tables.lock();
            for address in addresses {
                let address = canonical(*address);
                if plausible(address, teller) {
                    news |= tables.enter(address, teller);
                }
            }
            self.note(&tables, news);
        }
        if news {
            self.changed();
        }
    }

    /// A peer was reached at this address.
    pub fn reached_at(&self, address: SocketAddr, peer: PeerId) {
        let mut tables = self.tables.lock();
        tables.reached(canonical(address), peer);
        self.note(&tables, true);
    }

    /// A dial begun with [`AddressBook::take_due`] or [`AddressBook::take_feeler`] has found `peer` there.
    pub fn succeeded(&self, address: SocketAddr, peer: PeerId) {
        self.reached_at(address, peer);
        let mut tables = self.tables.lock();
        tables.contenders.remove(&address);
        if let Some(entry) = tables.known.get_mut(&address) {
            entry.dialing = false;
            entry.next_try = Instant::now();
        }
    }

    /// A dial has found nobody; nothing is tried before `next_try`.
    pub fn failed(&self, address: SocketAddr, next_try: Instant) {
        let mut tables = self.tables.lock();
        tables.failed(address, next_try);
        self.note(&tables, true);
    }

    /// A dial has found this very node; the entry stays so that it is not learned again.
    pub fn is_own(&self, address: SocketAddr) {
        if let Some(entry) = self.tables.lock().known.get_mut(&address) {
            (entry.dialing, entry.own) = (false, true);
        }
    }

    /// Addresses to be dialled now with their failures, so that at most `wanted` are being dialled at once:
    /// anchors first, then tried ones and hearsay in turn, each in random order. Whoever is connected by key
    /// or by address is left out, and so are netgroups that are connected or being dialled. Each must be ended
    /// by [`AddressBook::succeeded`], [`AddressBook::failed`] or [`AddressBook::is_own`].
    pub fn take_due(&self, now: Instant, wanted: usize, connected: &Connected) -> Vec<(SocketAddr, u32)> {
        if wanted == 0 {
            return Vec::new();
        }
        let mut tables = self.tables.lock();
        let mut groups = connected.groups.clone();
        let under_way = tables.known.iter().filter(|(_, entry)| entry.dialing);
        let under_way: Vec<SocketAddr> = under_way.map(|(address, _)| *address).collect();
        groups.extend(under_way.iter().map(|address| Netgroup::of(*address)));
        let mut due = Vec::new();
        for address in tables.candidates(now, connected) {
            if under_way.len() + due.len() >= wanted {
                break;
            }
            if !groups.insert(Netgroup::of(address)) {
                continue;
            }
            if let Some(entry) = tables.known.get_mut(&address) {
                entry.dialing = true;
                due.push((address, entry.failures));
            }
        }
        due
    }

    /// An address to be tried with a short connection: a tried one whose place another wants, or hearsay.
    /// It must be ended as those of [`AddressBook::take_due`].
    pub fn take_feeler(&self, now: Instant, connected: &Connected) -> Option<SocketAddr> {
        let mut tables = self.tables.lock();
        let contested = tables.contenders.keys().copied().find(|address| {
            tables.known.get(address).is_some_and(|entry| !entry.dialing && entry.next_try <= now)
        });
        let address = contested.or_else(|| {
            let candidates = tables.candidates(now, connected);
            candidates.into_iter().find(|address| {
                tables.known.get(address).is_some_and(|entry| matches!(entry.bucket, Bucket::New(_)))
            })
        })?;
        tables.known.get_mut(&address)?.dialing = true;
        Some(address)
    }

    /// Up to `max` addresses at which peers were reached and have not failed since, in random order.
    #[must_use]
    pub fn reached(&self, max: usize) -> Vec<SocketAddr> {
        let mut reached: Vec<SocketAddr> = {
            let tables = self.tables.lock();
            let good = tables.known.iter().filter(|(_, entry)| entry.peer.is_some() && entry.failures == 0);
            good.map(|(address, _)| *address).collect()
        };
        reached.shuffle(&mut rand::rng());
        reached.truncate(max);
        reached
    }

    /// Says that a dial may be due: an address is new or a connection has ended.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`AddressBook::changed`]. Cancelling loses nothing.
    pub async fn wait_for_change(&self) {
        self.changed.notified().await;
    }

    /// Forgets the pauses between attempts, after a time in which none could succeed.
    pub fn dial_at_once(&self) {
        let now = Instant::now();
        for entry in self.tables.lock().known.values_mut() {
            entry.next_try = entry.next_try.min(now);
        }
        self.changed();
    }

    /// Something that is kept with the addresses has changed.
    pub fn touch(&self) {
        self.unsaved.store(true, Relaxed);
    }

    /// A connection this node dialled is up.
    pub fn dialled(&self, address: SocketAddr) {
        self.tables.lock().outbound.push(canonical(address));
        self.unsaved.store(true, Relaxed);
    }

    /// Such a connection was lost, not ended by this node's shutdown.
    pub fn lost(&self, address: SocketAddr) {
        let address = canonical(address);
        let mut tables = self.tables.lock();
        if let Some(place) = tables.outbound.iter().position(|held| *held == address) {
            tables.outbound.remove(place);
        }
        self.unsaved.store(true, Relaxed);
    }

    /// What is worth keeping, if it has changed since the last call.
    #[must_use]
    pub fn unsaved(&self) -> Option<Remembered> {
        if !self.unsaved.swap(false, Relaxed) {
            return None;
        }
        let tables = self.tables.lock();
        let mut remembered = Remembered {
            secret: Some(*tables.buckets.secret()),
            anchors: tables.outbound.iter().copied().take(ANCHORS_MAX).collect(),
            ..Remembered::default()
        };
        for (address, entry) in tables.known.iter().filter(|(_, entry)| !entry.own) {
            match entry.bucket {
                Bucket::Tried(_) => remembered.tried.push(*address),
                Bucket::New(_) => remembered.new.push((*address, entry.teller)),
            }
        }
        Some(remembered)
    }

    fn note(&self, tables: &Tables, changed: bool) {
        self.count.store(tables.known.len(), Relaxed);
        if changed {
            self.unsaved.store(true, Relaxed);
        }
    }
}

impl Tables {
    /// Enters hearsay unless it is known or there is no room; true if it is new.
    fn enter(&mut self, address: SocketAddr, teller: IpAddr) -> bool {
        if self.known.contains_key(&address) {
            return false;
        }
        let bucket = self.buckets.new_bucket(address, Netgroup::of(SocketAddr::new(teller, 0)));
        let known = &self.known;
        let hopeless = |held: SocketAddr| known.get(&held).is_none_or(Known::is_hopeless);
        match self.buckets.put(address, bucket, hopeless) {
            Placed::NoRoom => return false,
            Placed::Instead(gone) => drop(self.known.remove(&gone)),
            Placed::In => {}
        }
        self.insert(address, bucket, teller);
        true
    }

    /// Enters an address that was in the tried table before.
    fn remember_tried(&mut self, address: SocketAddr) {
        let bucket = self.buckets.tried_bucket(address);
        if !self.known.contains_key(&address) && self.buckets.put(address, bucket, |_| false) == Placed::In {
            self.insert(address, bucket, address.ip());
        }
    }

    fn insert(&mut self, address: SocketAddr, bucket: Bucket, teller: IpAddr) {
        let (peer, failures, next_try) = (None, 0, Instant::now());
        let entry = Known { bucket, teller, peer, failures, next_try, dialing: false, own: false };
        self.known.insert(address, entry);
    }

    /// A peer was reached: the address goes to its tried bucket, or waits for the test of one in there.
    fn reached(&mut self, address: SocketAddr, peer: PeerId) {
        let tried = self.buckets.tried_bucket(address);
        if !self.known.contains_key(&address) && !self.enter(address, address.ip()) {
            // No room among hearsay, which a proven address does not need.
            if self.make_tried(address, tried) {
                self.insert(address, tried, address.ip());
            }
        }
        let Some(entry) = self.known.get_mut(&address) else { return };
        entry.peer = Some(peer);
        entry.failures = 0;
        let bucket = entry.bucket;
        if bucket != tried && self.make_tried(address, tried) {
            self.buckets.take(address, bucket);
            if let Some(entry) = self.known.get_mut(&address) {
                entry.bucket = tried;
            }
        }
    }

    /// Whether the address now is in its tried bucket.
    fn make_tried(&mut self, address: SocketAddr, tried: Bucket) -> bool {
        let known = &self.known;
        let failing =
            |held: SocketAddr| known.get(&held).is_none_or(|entry| entry.failures > 0 && !entry.dialing);
        match self.buckets.put(address, tried, failing) {
            Placed::In => true,
            Placed::Instead(gone) => {
                let teller = self.known.remove(&gone).map_or(gone.ip(), |entry| entry.teller);
                self.contenders.remove(&gone);
                self.enter(gone, teller);
                true
            }
            Placed::NoRoom => {
                let untested = |held: &&SocketAddr| !self.contenders.contains_key(*held);
                let tested = self.buckets.held(tried).iter().take(BUCKET_MAX).find(untested).copied();
                if let Some(tested) = tested.filter(|_| self.contenders.len() < CONTENDERS_MAX) {
                    self.contenders.insert(tested, address);
                }
                false
            }
        }
    }

    fn failed(&mut self, address: SocketAddr, next_try: Instant) {
        let Some(entry) = self.known.get_mut(&address) else { return };
        entry.dialing = false;
        entry.failures = entry.failures.saturating_add(1);
        entry.next_try = next_try;
        let (bucket, peer, failures) = (entry.bucket, entry.peer, entry.failures);
        if let Some(contender) = self.contenders.remove(&address) {
            if let Some(peer) = self.known.get(&contender).and_then(|entry| entry.peer) {
                self.reached(contender, peer);
            }
        } else if matches!(bucket, Bucket::New(_)) && peer.is_none() && failures >= FAILURES_MAX {
            self.buckets.take(address, bucket);
            self.known.remove(&address);
        }
    }

    /// Addresses that could be dialled now, in the order in which they should be.
    fn candidates(&self, now: Instant, connected: &Connected) -> Vec<SocketAddr> {
        let is_connected = |address: &SocketAddr, entry: &Known| {
            connected.peers.iter().any(|(id, at)| at == address || Some(*id) == entry.peer)
        };
        let due = self.known.iter().filter(|(address, entry)| {
            !entry.dialing && !entry.own && entry.next_try <= now && !is_connected(address, entry)
        });
        let is_tried = |entry: &Known| matches!(entry.bucket, Bucket::Tried(_));
        let (mut tried, mut new): (Vec<_>, Vec<_>) = due
            .map(|(address, entry)| (*address, is_tried(entry)))
            .partition(|(_, is_tried): &(SocketAddr, bool)| *is_tried);
        tried.shuffle(&mut rand::rng());
        new.shuffle(&mut rand::rng());
        let ranked = tried.iter().enumerate().map(|(rank, (address, _))| (rank, 0, *address));
        let ranked = ranked.chain(new.iter().enumerate().map(|(rank, (address, _))| (rank, 1, *address)));
        let mut ranked: Vec<(bool, usize, u8, SocketAddr)> = ranked
            .map(|(rank, table, address)| (!self.anchors.contains(&address), rank, table, address))
            .collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, _, address)| address).collect()
    }
}

/// Whether a node could listen at an address told by a peer seen at `teller`: no address of private
/// networks from a public peer, for it means another machine there than here.
#[must_use]
pub fn plausible(address: SocketAddr, teller: IpAddr) -> bool {
    /// How local an address is: this machine, this site, the world.
    fn reach(ip: IpAddr) -> u8 {
        match ip {
            ip if ip.is_loopback() => 0,
            ip if is_local(ip) => 1,
            _ => 2,
        }
    }
    let ip = address.ip();
    let unusable =
        ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !unusable && reach(ip) >= reach(teller)
}
