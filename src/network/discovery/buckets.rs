//! Where addresses are kept: two tables of buckets, as in Heilman et al., "Eclipse Attacks on Bitcoin's
//! Peer-to-Peer Network" (USENIX Security 2015), section 7.
//!
//! Hearsay goes to the *new* table, addresses at which a peer was reached to the *tried* one. Which buckets an
//! address may be in depends on a secret, on its netgroup, and, for hearsay, on the netgroup of whoever told
//! it. Invariants: a source group fills at most [`SOURCE_BUCKETS`] of the new buckets and an address group at
//! most [`GROUP_BUCKETS`] of the tried ones, however many addresses it has; hearsay displaces nothing but
//! hearsay that was tried in vain; nothing displaces a tried address but the failure to reach it again.

use crate::network::netgroup::{Netgroup, address_bytes};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Buckets of hearsay.
const NEW_BUCKETS: u64 = 512;
/// New buckets that one source group can put addresses into.
pub const SOURCE_BUCKETS: u64 = 64;
/// Buckets of addresses at which a peer was reached.
const TRIED_BUCKETS: u64 = 64;
/// Tried buckets that one address group can be in.
pub const GROUP_BUCKETS: u64 = 4;
/// Addresses in a bucket.
pub const BUCKET_MAX: usize = 8;

/// A bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    New(u64),
    Tried(u64),
}

/// What came of putting an address into a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is in.
    In,
    /// It is in, and this one is out.
    Instead(SocketAddr),
    /// The bucket is full of better ones.
    NoRoom,
}

/// The tables, by bucket; empty buckets are absent.
#[derive(Debug)]
pub struct Buckets {
    secret: [u8; 32],
    buckets: BTreeMap<Bucket, Vec<SocketAddr>>,
}

impl Buckets {
    /// Empty tables.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, buckets: BTreeMap::new() }
    }

    /// What decides where addresses go; kept between runs, or a restart would reshuffle the tables.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Where hearsay about an address goes.
    #[must_use]
    pub fn new_bucket(&self, address: SocketAddr, source: Netgroup) -> Bucket {
        let (group, source) = (Netgroup::of(address).bytes(), source.bytes());
        let within = self.number(b"new", &[&source, &group]) % SOURCE_BUCKETS;
        Bucket::New(self.number(b"source", &[&source, &within.to_le_bytes()]) % NEW_BUCKETS)
    }

    /// Where an address goes at which a peer was reached.
    #[must_use]
    pub fn tried_bucket(&self, address: SocketAddr) -> Bucket {
        let group = Netgroup::of(address).bytes();
        let within = self.number(b"tried", &[&address_bytes(address)]) % GROUP_BUCKETS;
        Bucket::Tried(self.number(b"group", &[&group, &within.to_le_bytes()]) % TRIED_BUCKETS)
    }

    /// Puts an address into a bucket. When that is full the first one in it of which `may_go` holds leaves.
    pub fn put(
        &mut self,
        address: SocketAddr,
        bucket: Bucket,
        may_go: impl Fn(SocketAddr) -> bool,
    ) -> Placed {
        let held = self.buckets.entry(bucket).or_default();
        if held.contains(&address) {
            return Placed::In;
        }
        if held.len() < BUCKET_MAX {
            held.push(address);
            return Placed::In;
        }
        match held.iter_mut().find(|held| may_go(**held)) {
            Some(place) => Placed::Instead(std::mem::replace(place, address)),
            None => Placed::NoRoom,
        }
    }

    /// Takes an address out of a bucket.
    pub fn take(&mut self, address: SocketAddr, bucket: Bucket) {
        if let Some(held) = self.buckets.get_mut(&bucket) {
            held.retain(|held| *held != address);
            if held.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// The addresses in a bucket.
    #[must_use]
    pub fn held(&self, bucket: Bucket) -> &[SocketAddr] {
        self.buckets.get(&bucket).map_or(&[], Vec::as_slice)
    }

    fn number(&self, purpose: &[u8], parts: &[&[u8]]) -> u64 {
        let mut hasher = blake3::Hasher::new_keyed(&self.secret);
        hasher.update(purpose);
        for part in parts {
            // Lengths keep parts of different sizes apart; all are far below 256 bytes.
            hasher.update(&[u8::try_from(part.len()).unwrap_or(u8::MAX)]).update(part);
        }
        let mut first = [0; 8];
        hasher.finalize_xof().fill(&mut first);
        u64::from_le_bytes(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn public(a: u8, b: u8, c: u8, d: u8) -> SocketAddr {
        SocketAddr::from(([a, b, c, d], 24000))
    }

    #[test]
    fn one_source_group_reaches_few_of_the_new_buckets() {
        let buckets = Buckets::new([1; 32]);
        let source = Netgroup::of(public(203, 0, 113, 1));
        let all: BTreeSet<Bucket> = (11..200u8)
            .flat_map(|a| (0..200u8).map(move |b| public(a, b, 1, 1)))
            .map(|address| buckets.new_bucket(address, source))
            .collect();
        assert!(all.len() <= usize::try_from(SOURCE_BUCKETS).unwrap(), "{}", all.len());
        assert!(all.len() > 40, "they are spread: {}", all.len());
        let other = Netgroup::of(public(198, 51, 100, 1));
        let elsewhere: BTreeSet<Bucket> =
            (11..200u8).map(|a| buckets.new_bucket(public(a, 1, 1, 1), other)).collect();
        assert!(elsewhere.difference(&all).count() > 10, "another source has other buckets");
    }

    #[test]
    fn one_address_group_reaches_few_of_the_tried_buckets() {
        let buckets = Buckets::new([1; 32]);
        let all: BTreeSet<Bucket> = (0..=255u8)
            .flat_map(|c| (0..=255u8).map(move |d| public(198, 51, c, d)))
            .map(|address| buckets.tried_bucket(address))
            .collect();
        assert!(all.len() <= usize::try_from(GROUP_BUCKETS).unwrap());
    }

    #[test]
    fn buckets_of_another_secret_are_others() {
        let (one, other) = (Buckets::new([1; 32]), Buckets::new([2; 32]));
        let differ = (1..=100u8).filter(|b| {
            let address = public(198, *b, 1, 1);
            one.tried_bucket(address) != other.tried_bucket(address)
        });
        assert!(differ.count() > 80);
    }

    #[test]
    fn a_full_bucket_lets_only_those_go_that_may() {
        let mut buckets = Buckets::new([1; 32]);
        let bucket = Bucket::New(3);
        for d in 0..8 {
            assert_eq!(buckets.put(public(1, 1, 1, d), bucket, |_| true), Placed::In);
        }
        let late = public(2, 2, 2, 2);
        assert_eq!(buckets.put(late, bucket, |_| false), Placed::NoRoom);
        let goes = public(1, 1, 1, 5);
        assert_eq!(buckets.put(late, bucket, |held| held == goes), Placed::Instead(goes));
        assert!(buckets.held(bucket).contains(&late) && !buckets.held(bucket).contains(&goes));
        assert_eq!(buckets.put(late, bucket, |_| true), Placed::In, "it is there already");
        buckets.take(late, bucket);
        assert_eq!(buckets.held(bucket).len(), BUCKET_MAX - 1);
    }
}
