//! Addresses of other nodes: heard from peers, remembered between runs.
//!
//! Invariants: the list is bounded; addresses nobody could be reached at are refused on entry; hearsay
//! never displaces an address at which a peer was reached; the file is replaced atomically and a
//! damaged one costs only the addresses in it. Absent: netgroup buckets, anchors and feelers.

use crate::network::context::canonical;
use crate::primitives::message::PeerId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most addresses kept: several times the largest committee.
pub const ADDRESSES_KEPT_MAX: usize = 1024;
/// Attempts after which an address never reached is forgotten.
const FAILURES_MAX: u32 = 8;
/// Largest file read, in bytes: every address at its longest.
const FILE_MAX: u64 = 64 * ADDRESSES_KEPT_MAX as u64;

/// One known address.
struct Known {
    /// Peer last reached here.
    peer: Option<PeerId>,
    /// Failures since it was last reached.
    failures: u32,
    next_try: Instant,
    dialing: bool,
    own: bool,
}

/// The list.
pub struct AddressBook {
    known: Mutex<BTreeMap<SocketAddr, Known>>,
    count: AtomicUsize,
    unsaved: AtomicBool,
    changed: Notify,
}

impl AddressBook {
    /// A list of these addresses, cut at the bound.
    #[must_use]
    pub fn new(addresses: Vec<SocketAddr>) -> Self {
        let book = Self {
            known: Mutex::default(),
            count: AtomicUsize::new(0),
            unsaved: AtomicBool::new(false),
            changed: Notify::new(),
        };
        {
            let mut known = book.known.lock();
            for address in addresses {
                book.enter(&mut known, canonical(address));
            }
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
        let mut news = false;
        {
            let mut known = self.known.lock();
            for address in addresses {
                let address = canonical(*address);
                if plausible(address, teller.to_canonical()) {
                    news |= self.enter(&mut known, address);
                }
            }
        }
        if news {
            self.changed();
        }
    }

    /// Enters an address unless it is known or there is no room; true if it is new.
    fn enter(&self, known: &mut BTreeMap<SocketAddr, Known>, address: SocketAddr) -> bool {
        if known.contains_key(&address) {
            return false;
        }
        if known.len() >= ADDRESSES_KEPT_MAX {
            let hopeless = known
                .iter()
                .filter(|(_, entry)| entry.peer.is_none() && entry.failures > 0 && !entry.dialing)
                .max_by_key(|(_, entry)| entry.failures)
                .map(|(address, _)| *address);
            match hopeless {
                Some(hopeless) => known.remove(&hopeless),
                None => return false,
            };
        }
        let entry = Known { peer: None, failures: 0, next_try: Instant::now(), dialing: false, own: false };
        known.insert(address, entry);
        self.count.store(known.len(), Relaxed);
        self.unsaved.store(true, Relaxed);
        true
    }

    /// A peer was reached at this address.
    pub fn reached_at(&self, address: SocketAddr, peer: PeerId) {
        let mut known = self.known.lock();
        self.enter(&mut known, address);
        if let Some(entry) = known.get_mut(&address) {
            entry.peer = Some(peer);
            entry.failures = 0;
            self.unsaved.store(true, Relaxed);
        }
    }

    /// A dial begun with [`AddressBook::take_due`] has found `peer` there.
    pub fn succeeded(&self, address: SocketAddr, peer: PeerId) {
        self.reached_at(address, peer);
        self.end_dial(address, |entry| entry.next_try = Instant::now());
    }

    /// A dial has found nobody; nothing is tried before `next_try`.
    pub fn failed(&self, address: SocketAddr, next_try: Instant) {
        self.end_dial(address, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.next_try = next_try;
        });
        let mut known = self.known.lock();
        if known.get(&address).is_some_and(|entry| entry.peer.is_none() && entry.failures >= FAILURES_MAX) {
            known.remove(&address);
            self.count.store(known.len(), Relaxed);
            self.unsaved.store(true, Relaxed);
        }
    }

    /// A dial has found this very node; the entry stays so that it is not learned again.
    pub fn is_own(&self, address: SocketAddr) {
        self.end_dial(address, |entry| entry.own = true);
    }

    fn end_dial(&self, address: SocketAddr, change: impl FnOnce(&mut Known)) {
        if let Some(entry) = self.known.lock().get_mut(&address) {
            entry.dialing = false;
            change(entry);
        }
    }

    /// Addresses to be dialled now with their failures, so that at most `wanted` are being dialled at
    /// once; whoever is `connected` by key or by address is left out. Each must be ended by
    /// [`AddressBook::succeeded`], [`AddressBook::failed`] or [`AddressBook::is_own`].
    pub fn take_due(
        &self,
        now: Instant,
        wanted: usize,
        connected: &[(PeerId, SocketAddr)],
    ) -> Vec<(SocketAddr, u32)> {
        let mut known = self.known.lock();
        let under_way = known.values().filter(|entry| entry.dialing).count();
        let mut due = Vec::new();
        for (address, entry) in known.iter_mut() {
            if under_way + due.len() >= wanted {
                break;
            }
            let is_connected = || connected.iter().any(|(id, at)| at == address || Some(*id) == entry.peer);
            if !entry.dialing && !entry.own && entry.next_try <= now && !is_connected() {
                entry.dialing = true;
                due.push((*address, entry.failures));
            }
        }
        due
    }

    /// Up to `max` addresses at which peers were reached and have not failed since.
    #[must_use]
    pub fn reached(&self, max: usize) -> Vec<SocketAddr> {
        let known = self.known.lock();
        known
            .iter()
            .filter(|(_, entry)| entry.peer.is_some() && entry.failures == 0)
            .map(|(address, _)| *address)
            .take(max)
            .collect()
    }

    /// Says that a dial may be due: an address is new or a connection has ended.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`AddressBook::changed`]. Cancelling loses nothing.
    pub async fn wait_for_change(&self) {
        self.changed.notified().await;
    }

    /// The addresses worth keeping, if they have changed since the last call.
    #[must_use]
    pub fn unsaved(&self) -> Option<Vec<SocketAddr>> {
        self.unsaved.swap(false, Relaxed).then(|| {
            let known = self.known.lock();
            known.iter().filter(|(_, entry)| !entry.own).map(|(address, _)| *address).collect()
        })
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
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => 1,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => 1,
            _ => 2,
        }
    }
    let ip = address.ip();
    let unusable =
        ip.is_unspecified() || ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    address.port() != 0 && !unusable && reach(ip) >= reach(teller)
}

/// Reads the addresses of a file, one a line; none when it does not exist. Lines that are no address
/// are skipped and counted in the log.
///
/// # Errors
/// When the file exists and cannot be read.
pub fn load(file: &Path) -> io::Result<Vec<SocketAddr>> {
    let mut text = Vec::new();
    match std::fs::File::open(file) {
        Ok(open) => open.take(FILE_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let (good, bad): (Vec<_>, Vec<_>) =
        lines.map(|line| line.trim().parse::<SocketAddr>()).partition(Result::is_ok);
    if !bad.is_empty() {
        tracing::warn!(file = %file.display(), lines = bad.len(), "lines of the peers file are no addresses");
    }
    Ok(good.into_iter().flatten().take(ADDRESSES_KEPT_MAX).collect())
}

/// Writes the addresses so that a crash leaves the old file or the new one.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn save(file: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    let mut text = String::new();
    for address in addresses {
        text.push_str(&address.to_string());
        text.push('\n');
    }
    let fresh = file.with_extension("new");
    let mut open = std::fs::File::create(&fresh)?;
    open.write_all(text.as_bytes())?;
    open.sync_all()?;
    drop(open);
    std::fs::rename(&fresh, file)
}
