//! How many connections there are of each kind, and whether one more may come.
//!
//! Members of the committee have priority slots: they count against no limit, so a flood of strangers cannot
//! keep a validator out. A vote key can certify any number of network keys, so only a few connections of one
//! vote key count as a member's. Reading the counts costs no lock; changing them happens under one short one,
//! once a connection.

use crate::network::handshake::{CloseCode, Refusal};
use crate::network::netgroup::Site;
use crate::primitives::keys::PublicKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Connections of one vote key that have priority: the validator and its successor while one replaces the
/// other, with room for a second process that must be told it is one.
pub const OF_MEMBER_MAX: u32 = 4;

/// What a connection counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Member,
    Observer,
}

/// Who is at the other end, as far as counting goes.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub vote_key: Option<PublicKey>,
    pub ip: IpAddr,
    pub inbound: bool,
}

#[derive(Debug, Default)]
struct Inner {
    committee: BTreeSet<PublicKey>,
    /// Connections that count as a member's, by vote key.
    of_member: BTreeMap<PublicKey, u32>,
    /// Inbound connections of observers, by site.
    of_site: BTreeMap<Site, usize>,
}

/// The counts.
#[derive(Debug)]
pub struct Tallies {
    inbound_max: usize,
    of_site_max: usize,
    inner: Mutex<Inner>,
    /// Inbound members, inbound observers, outbound members, outbound observers.
    counts: [AtomicUsize; 4],
}

impl Tallies {
    /// No connections; of observers at most `inbound_max` dialled by them, and `of_site_max` from one site.
    #[must_use]
    pub fn new(inbound_max: usize, of_site_max: usize) -> Self {
        Self { inbound_max, of_site_max, inner: Mutex::default(), counts: Default::default() }
    }

    /// Connections dialled by peers and by this node.
    #[must_use]
    pub fn by_direction(&self) -> (usize, usize) {
        let [inbound, inbound_others, outbound, outbound_others] = &self.counts;
        let sum = |one: &AtomicUsize, other: &AtomicUsize| one.load(Relaxed) + other.load(Relaxed);
        (sum(inbound, inbound_others), sum(outbound, outbound_others))
    }

    /// Those of each with members of the committee.
    #[must_use]
    pub fn members(&self) -> (usize, usize) {
        let [inbound, _, outbound, _] = &self.counts;
        (inbound.load(Relaxed), outbound.load(Relaxed))
    }

    /// Whose connections have priority from now on; those there are must be [reclassified](Self::reclassify).
    pub fn set_committee(&self, committee: BTreeSet<PublicKey>) {
        self.inner.lock().committee = committee;
    }

    /// Counts a connection, which replaces one of `replaced` in the same step.
    ///
    /// # Errors
    /// [`Refusal`] of an inbound one when there is no room; then nothing has changed.
    pub fn enter(&self, peer: &Counted, replaced: Option<(&Counted, Kind)>) -> Result<Kind, Refusal> {
        let mut inner = self.inner.lock();
        if let Some((replaced, kind)) = replaced {
            self.uncount(&mut inner, replaced, kind);
        }
        let kind = inner.kind(peer);
        let refusal = (peer.inbound && kind == Kind::Observer).then(|| self.no_room(&inner, peer)).flatten();
        if let Some(refusal) = refusal {
            if let Some((replaced, kind)) = replaced {
                self.count(&mut inner, replaced, kind);
            }
            return Err(refusal);
        }
        self.count(&mut inner, peer, kind);
        Ok(kind)
    }

    /// Uncounts a connection.
    pub fn leave(&self, peer: &Counted, kind: Kind) {
        self.uncount(&mut self.inner.lock(), peer, kind);
    }

    /// What a connection counts as after the committee has changed. Nobody loses its connection by it.
    pub fn reclassify(&self, peer: &Counted, kind: Kind) -> Kind {
        let mut inner = self.inner.lock();
        self.uncount(&mut inner, peer, kind);
        let kind = inner.kind(peer);
        self.count(&mut inner, peer, kind);
        kind
    }

    fn no_room(&self, inner: &Inner, peer: &Counted) -> Option<Refusal> {
        let [_, observers, _, _] = &self.counts;
        let (count, most) = (observers.load(Relaxed), self.inbound_max);
        if count >= most {
            let text = format!("too many inbound connections: {count} of {most}");
            return Some(Refusal::new(CloseCode::TooManyInbound, &text));
        }
        let count = Site::of(peer.ip).and_then(|site| inner.of_site.get(&site)).copied().unwrap_or_default();
        (count >= self.of_site_max).then(|| {
            let text = format!(
                "too many connections from the network of {}: {count} of {}",
                peer.ip, self.of_site_max
            );
            Refusal::new(CloseCode::TooManyOfSite, &text)
        })
    }

    fn count(&self, inner: &mut Inner, peer: &Counted, kind: Kind) {
        self.counter(peer, kind).fetch_add(1, Relaxed);
        match (kind, peer.vote_key) {
            (Kind::Member, Some(key)) => *inner.of_member.entry(key).or_default() += 1,
            _ if peer.inbound => {
                if let Some(site) = Site::of(peer.ip) {
                    *inner.of_site.entry(site).or_default() += 1;
                }
            }
            _ => {}
        }
    }

    fn uncount(&self, inner: &mut Inner, peer: &Counted, kind: Kind) {
        self.counter(peer, kind).fetch_sub(1, Relaxed);
        match (kind, peer.vote_key) {
            (Kind::Member, Some(key)) => {
                if let Some(count) = inner.of_member.get_mut(&key) {
                    *count = count.saturating_sub(1);
                }
                inner.of_member.retain(|_, count| *count > 0);
            }
            _ if peer.inbound => {
                let site = Site::of(peer.ip);
                if let Some(count) = site.and_then(|site| inner.of_site.get_mut(&site)) {
                    *count = count.saturating_sub(1);
                }
                inner.of_site.retain(|_, count| *count > 0);
            }
            _ => {}
        }
    }

    fn counter(&self, peer: &Counted, kind: Kind) -> &AtomicUsize {
        let [inbound, inbound_others, outbound, outbound_others] = &self.counts;
        match (peer.inbound, kind) {
            (true, Kind::Member) => inbound,
            (true, Kind::Observer) => inbound_others,
            (false, Kind::Member) => outbound,
            (false, Kind::Observer) => outbound_others,
        }
    }
}

impl Inner {
    fn kind(&self, peer: &Counted) -> Kind {
        let member = peer.vote_key.filter(|key| {
            let held = self.of_member.get(key).copied().unwrap_or_default();
            self.committee.contains(key) && held < OF_MEMBER_MAX
        });
        if member.is_some() { Kind::Member } else { Kind::Observer }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::SecretKey;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_seed(&[seed; 32]).public()
    }

    fn inbound(ip: &str, vote_key: Option<PublicKey>) -> Counted {
        Counted { vote_key, ip: ip.parse().unwrap(), inbound: true }
    }

    #[test]
    fn members_are_let_in_when_strangers_fill_every_slot() {
        let tallies = Tallies::new(2, 4);
        tallies.set_committee(BTreeSet::from([key(1)]));
        for ip in ["198.51.100.1", "203.0.113.1"] {
            assert_eq!(tallies.enter(&inbound(ip, None), None).unwrap(), Kind::Observer);
        }
        let refusal = tallies.enter(&inbound("192.0.2.1", Some(key(2))), None).unwrap_err();
        assert_eq!(refusal.code, Some(CloseCode::TooManyInbound), "no member, whatever it votes with");
        assert!(refusal.text.as_str().contains("too many inbound connections: 2 of 2"));
        assert_eq!(tallies.enter(&inbound("192.0.2.1", Some(key(1))), None).unwrap(), Kind::Member);
        assert_eq!((tallies.by_direction(), tallies.members()), ((3, 0), (1, 0)));
    }

    #[test]
    fn one_site_gets_a_few_slots_and_this_machine_any() {
        let tallies = Tallies::new(100, 2);
        let stranger = inbound("198.51.100.1", None);
        for _ in 0..2 {
            tallies.enter(&stranger, None).unwrap();
        }
        let refusal = tallies.enter(&inbound("198.51.100.99", None), None).unwrap_err();
        assert_eq!(refusal.code, Some(CloseCode::TooManyOfSite));
        assert!(refusal.text.as_str().contains("198.51.100.99: 2 of 2"), "{refusal}");
        assert!(tallies.enter(&inbound("198.51.101.1", None), None).is_ok());
        for _ in 0..9 {
            tallies.enter(&inbound("127.0.0.1", None), None).unwrap();
        }
        tallies.leave(&stranger, Kind::Observer);
        assert!(tallies.enter(&stranger, None).is_ok());
    }

    #[test]
    fn a_connection_that_replaces_another_needs_no_second_slot() {
        let tallies = Tallies::new(1, 1);
        let stranger = inbound("198.51.100.1", None);
        let kind = tallies.enter(&stranger, None).unwrap();
        assert!(tallies.enter(&stranger, Some((&stranger, kind))).is_ok());
        assert_eq!(tallies.by_direction(), (1, 0));
        let other = inbound("203.0.113.1", None);
        assert!(tallies.enter(&other, None).is_err());
        assert_eq!(tallies.by_direction(), (1, 0), "a refusal changes nothing");
    }

    #[test]
    fn a_member_has_priority_for_a_few_connections_only() {
        let tallies = Tallies::new(0, 4);
        tallies.set_committee(BTreeSet::from([key(1)]));
        let member = inbound("198.51.100.1", Some(key(1)));
        for _ in 0..OF_MEMBER_MAX {
            assert_eq!(tallies.enter(&member, None).unwrap(), Kind::Member);
        }
        assert!(tallies.enter(&member, None).is_err());
    }

    #[test]
    fn who_leaves_the_committee_keeps_its_connection_and_loses_its_priority() {
        let tallies = Tallies::new(1, 4);
        let peer = inbound("198.51.100.1", Some(key(1)));
        tallies.set_committee(BTreeSet::from([key(1)]));
        let kind = tallies.enter(&peer, None).unwrap();
        tallies.set_committee(BTreeSet::new());
        assert_eq!(tallies.reclassify(&peer, kind), Kind::Observer);
        assert_eq!((tallies.by_direction(), tallies.members()), ((1, 0), (0, 0)));
        assert!(tallies.enter(&inbound("203.0.113.1", None), None).is_err());
        tallies.set_committee(BTreeSet::from([key(1)]));
        assert_eq!(tallies.reclassify(&peer, Kind::Observer), Kind::Member);
        assert!(tallies.enter(&inbound("203.0.113.1", None), None).is_ok());
    }
}
