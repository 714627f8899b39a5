//! Where masternodes say they are reached, by their own signed word: kept, relayed, asked for, said.
//!
//! Invariants: one record a key and only of keys in the registry, so no more than there are masternodes; a record
//! is believed only when its key signed it for this chain, and relayed once, when it is new; a key is heard at most
//! once in [`QUIET`], however often it signs; an old record is forgotten. What costs nothing is checked before the
//! signature, and a signature that does not hold is the teller's doing: whoever relays has checked it.
//! Absent: dialling, see `members`; the registry, which the node tells.

use crate::network::context::Context;
use crate::network::netgroup::is_local;
use crate::network::peers::Peer;
use crate::network::router;
use crate::network::wire::{Control, RECORDS_MAX};
use crate::primitives::endpoint::EndpointRecord;
use crate::primitives::hash::ChainId;
use crate::primitives::keys::{PublicKey, SecretKey};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// A record older than this is of a masternode that has stopped saying where it is.
pub const STALE_MS: u64 = 14 * 24 * 3_600_000;
/// How far ahead of the own clock a record may be signed.
const AHEAD_MS: u64 = 10 * 60_000;
/// A key is heard at most so often.
const QUIET: Duration = Duration::from_secs(30);
/// How often the own record is signed anew though nothing has changed.
const RENEW_MS: u64 = 3_600_000;
/// How often it is looked at whether something is to be said or asked.
const LOOK: Duration = Duration::from_secs(1);
/// Answers to one peer in [`CHECKS_PERIOD`].
const ANSWERS_MAX: u32 = 6;
/// Most records in the answer to one request; all of a committee, and far below what a queue of control messages
/// holds.
const ANSWER_MAX: usize = 160;
/// Pauses between two rounds of asking, while something is not known: the first, and the longest of those that
/// double, for some masternodes may say nothing ever.
const ASK_MIN: Duration = Duration::from_secs(5);
const ASK_MAX: Duration = Duration::from_secs(30 * 60);
/// Peers asked in a round.
const ASKED_MAX: usize = 3;
/// Signatures checked for one peer in [`CHECKS_PERIOD`]; more are not looked at.
const CHECKS_MAX: u32 = 512;
const CHECKS_PERIOD: Duration = Duration::from_secs(60);

struct Held {
    record: EndpointRecord,
    /// When it was taken; `None` for what was remembered from an earlier run.
    taken: Option<Instant>,
}

#[derive(Default)]
struct Inner {
    registered: BTreeSet<PublicKey>,
    held: BTreeMap<PublicKey, Held>,
    /// Remembered from an earlier run, until the registry is known.
    remembered: Vec<EndpointRecord>,
    /// The registry has keys it had not before.
    news: bool,
}

/// What one peer may still cost; one a connection.
#[derive(Debug, Default)]
pub struct Allowance {
    checked: u32,
    answered: u32,
    since: Option<Instant>,
    probed: Option<Instant>,
}

impl Allowance {
    fn renew(&mut self, now: Instant) {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= CHECKS_PERIOD) {
            (self.since, self.checked, self.answered) = (Some(now), 0, 0);
        }
    }

    fn may_check(&mut self, now: Instant) -> bool {
        self.renew(now);
        let may = self.checked < CHECKS_MAX;
        self.checked += u32::from(may);
        may
    }

    /// Whether it may be dialled back now; if so it is not again for a minute.
    pub fn may_probe(&mut self, now: Instant) -> bool {
        let may = self.probed.is_none_or(|probed| now.duration_since(probed) >= CHECKS_PERIOD);
        if may {
            self.probed = Some(now);
        }
        may
    }

    fn may_ask(&mut self, now: Instant) -> bool {
        self.renew(now);
        let may = self.answered < ANSWERS_MAX;
        self.answered += u32::from(may);
        may
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Kept, and to be relayed.
    New,
    /// Known, older than a known one, too soon after it, of no masternode, or of another time: nobody's fault.
    Ignored,
    /// Not signed by its key for this chain, or not of the right form.
    Forged,
}

/// See the module.
pub struct Endpoints {
    chain: ChainId,
    inner: Mutex<Inner>,
}

impl Endpoints {
    /// None yet; `remembered` counts once the registry is known.
    #[must_use]
    pub fn new(chain: ChainId, remembered: Vec<EndpointRecord>) -> Self {
        Self { chain, inner: Mutex::new(Inner { remembered, ..Inner::default() }) }
    }

    /// Whose records are kept from now on.
    pub fn set_registered(&self, registered: BTreeSet<PublicKey>, now_ms: u64) {
        let mut inner = self.inner.lock();
        if inner.registered == registered {
            return;
        }
        inner.news |= !registered.is_subset(&inner.registered);
        inner.held.retain(|key, _| registered.contains(key));
        inner.registered = registered;
        for record in std::mem::take(&mut inner.remembered) {
            let better =
                inner.held.get(&record.vote_key).is_none_or(|held| held.record.time_ms < record.time_ms);
            let fresh = is_fresh(&record, now_ms);
            if better && fresh && inner.registered.contains(&record.vote_key) && record.verify(self.chain) {
                inner.held.insert(record.vote_key, Held { record, taken: None });
            }
        }
    }

    /// Takes a record that a peer told at `now`.
    pub fn hear(
        &self,
        record: &EndpointRecord,
        allowance: &mut Allowance,
        now: Instant,
        now_ms: u64,
    ) -> Heard {
        if !record.is_sound() {
            return Heard::Forged;
        }
        if !self.is_wanted(record, now, now_ms) || !allowance.may_check(now) {
            return Heard::Ignored;
        }
        // Without the lock: it takes a while.
        if !record.verify(self.chain) {
            return Heard::Forged;
        }
        let mut inner = self.inner.lock();
        if !wanted(&inner, record, now) {
            return Heard::Ignored;
        }
        inner.held.insert(record.vote_key, Held { record: record.clone(), taken: Some(now) });
        Heard::New
    }

    fn is_wanted(&self, record: &EndpointRecord, now: Instant, now_ms: u64) -> bool {
        is_fresh(record, now_ms) && wanted(&self.inner.lock(), record, now)
    }

    /// Addresses a masternode says it is reached at; none when it has not said so of late.
    #[must_use]
    pub fn of(&self, key: &PublicKey, now_ms: u64) -> Vec<SocketAddr> {
        let inner = self.inner.lock();
        let fresh = inner.held.get(key).filter(|held| is_fresh(&held.record, now_ms));
        fresh.map(|held| held.record.addresses.clone()).unwrap_or_default()
    }

    /// All whose signature was checked and that is worth telling.
    #[must_use]
    pub fn checked(&self, now_ms: u64) -> Vec<EndpointRecord> {
        let inner = self.inner.lock();
        let fresh = inner.held.values().filter(|held| is_fresh(&held.record, now_ms));
        fresh.map(|held| held.record.clone()).collect()
    }

    /// All that is worth keeping, checked or not.
    #[must_use]
    pub fn all(&self, now_ms: u64) -> Vec<EndpointRecord> {
        let inner = self.inner.lock();
        let fresh = inner.held.values().filter(|held| is_fresh(&held.record, now_ms));
        let waiting = inner.remembered.iter().filter(|record| is_fresh(record, now_ms));
        fresh.map(|held| &held.record).chain(waiting).cloned().collect()
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.lock().held.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn held(&self, key: &PublicKey) -> Option<EndpointRecord> {
        self.inner.lock().held.get(key).map(|held| held.record.clone())
    }

    fn is_registered(&self, key: &PublicKey) -> bool {
        self.inner.lock().registered.contains(key)
    }

    fn put_own(&self, record: EndpointRecord) {
        self.inner.lock().held.insert(record.vote_key, Held { record, taken: None });
    }

    /// Whether nothing is known of some masternode, and whether any is new since the last call.
    fn lacking(&self) -> (bool, bool) {
        let mut inner = self.inner.lock();
        let lacking = inner.registered.iter().any(|key| !inner.held.contains_key(key));
        (lacking, std::mem::take(&mut inner.news))
    }
}

fn is_fresh(record: &EndpointRecord, now_ms: u64) -> bool {
    record.time_ms <= now_ms.saturating_add(AHEAD_MS) && record.time_ms >= now_ms.saturating_sub(STALE_MS)
}

/// Of a masternode, newer than what is known, and not at once after it.
fn wanted(inner: &Inner, record: &EndpointRecord, now: Instant) -> bool {
    let newer = inner.held.get(&record.vote_key).is_none_or(|held| {
        held.record.time_ms < record.time_ms
            && held.taken.is_none_or(|taken| now.saturating_duration_since(taken) >= QUIET)
    });
    newer && inner.registered.contains(&record.vote_key)
}

/// Takes what a peer told and relays what is new.
///
/// # Errors
/// What no honest peer sends.
pub fn on_records(context: &Context, peer: &Arc<Peer>, records: &[EndpointRecord]) -> Result<(), String> {
    if records.len() > RECORDS_MAX {
        return Err(format!("{} endpoint records where {RECORDS_MAX} are allowed", records.len()));
    }
    let (now, now_ms) = (Instant::now(), context.wall_us() / 1000);
    for record in records {
        match context.endpoints.hear(record, &mut peer.allowance.lock(), now, now_ms) {
            Heard::New => {
                tracing::debug!(masternode = %record.vote_key.short(), addresses = ?record.addresses, "endpoint heard");
                context.book.touch();
                let news = Control::Endpoints(vec![record.clone()]);
                for other in context.registry.all().iter().filter(|other| other.id != peer.id) {
                    router::control(context, other, &news);
                }
            }
            Heard::Ignored => {}
            Heard::Forged => {
                let key = record.vote_key.short();
                return Err(format!("an endpoint record that key {key} did not sign for this chain"));
            }
        }
    }
    Ok(())
}

/// Answers with what is known, a part of it where that is much.
pub fn on_request(context: &Context, peer: &Arc<Peer>) {
    use rand::seq::SliceRandom as _;
    if !peer.allowance.lock().may_ask(Instant::now()) {
        return;
    }
    let mut records = context.endpoints.checked(context.wall_us() / 1000);
    records.shuffle(&mut rand::rng());
    for some in records.get(..ANSWER_MAX).unwrap_or(&records).chunks(RECORDS_MAX) {
        router::control(context, peer, &Control::Endpoints(some.to_vec()));
    }
}

/// Says where this masternode is, and asks where others are, until shutdown.
pub async fn announce(context: Arc<Context>, vote_key: Option<SecretKey>) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut next_ask, mut pause, mut said) = (Instant::now(), ASK_MIN, false);
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Some(vote_key) = &vote_key
            && let Some(record) = own_record(&context, vote_key, said)
        {
            said = true;
            context.endpoints.put_own(record.clone());
            tracing::info!(addresses = ?record.addresses, "telling where this masternode is reached");
            context.book.touch();
            let news = Control::Endpoints(vec![record]);
            context.registry.all().iter().for_each(|peer| router::control(&context, peer, &news));
        }
        let (lacking, news) = context.endpoints.lacking();
        if news {
            (next_ask, pause) = (Instant::now(), ASK_MIN);
        }
        if lacking && Instant::now() >= next_ask && ask(&context) {
            next_ask = Instant::now() + pause;
            pause = pause.saturating_mul(2).min(ASK_MAX);
        }
    }
}

/// Asks some peers for what they know; false when there is nobody.
fn ask(context: &Context) -> bool {
    use rand::seq::SliceRandom as _;
    let mut peers = context.registry.all();
    peers.shuffle(&mut rand::rng());
    peers.truncate(ASKED_MAX);
    peers.iter().for_each(|peer| router::control(context, peer, &Control::GetEndpoints));
    !peers.is_empty()
}

/// A record of this node when one is due: none was signed, or what it says has changed, or it is old, or an
/// earlier run of this node has signed one that is newer than what peers would take for newest.
fn own_record(context: &Context, vote_key: &SecretKey, said: bool) -> Option<EndpointRecord> {
    let (key, now_ms) = (vote_key.public(), context.wall_us() / 1000);
    let addresses = own_addresses(context);
    if addresses.is_empty() || !context.endpoints.is_registered(&key) {
        return None;
    }
    let network_key = context.own.0;
    let held = context.endpoints.held(&key);
    let time_ms = match &held {
        Some(held) if held.time_ms.saturating_add(RENEW_MS) > now_ms => {
            // Another process with this key has spoken since. Whoever runs both is told elsewhere; here the last
            // word is not fought over.
            let theirs = said && held.network_key != network_key;
            if theirs || (held.network_key == network_key && held.addresses == addresses) {
                return None;
            }
            now_ms.max(held.time_ms.saturating_add(1))
        }
        Some(held) => now_ms.max(held.time_ms.saturating_add(1)),
        None => now_ms,
    };
    Some(EndpointRecord::sign(vote_key, context.chain, network_key, addresses, time_ms))
}

/// Where this node is reached as far as it knows: the setting, a listening address that is one, or what peers have
/// dialled back.
pub fn own_addresses(context: &Context) -> Vec<SocketAddr> {
    let named = Some(context.advertised).filter(|address| !address.ip().is_unspecified());
    named.or_else(|| context.reach.confirmed()).into_iter().collect()
}

/// Whether an address from a record may be dialled: one of this machine or a private network only by a node that is
/// in one itself, for elsewhere it means another machine.
#[must_use]
pub fn may_dial(context: &Context, address: SocketAddr) -> bool {
    if !is_local(address.ip()) || is_local(context.advertised.ip()) {
        return true;
    }
    let mut local = false;
    context.registry.for_each(|peer| local |= is_local(peer.address.ip()));
    local
}
