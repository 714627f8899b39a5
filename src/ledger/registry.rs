//! The masternodes of the chain: tiers, keys, locked collateral and standing, and the committee they
//! form.
//!
//! Invariants: entries are ordered by id; ids, names, vote keys (former ones included) and collateral
//! outpoints are unique; endpoints are unique among those that vote or may again; at least
//! [`COMMITTEE_MIN`] entries are active, jailed or tombstoned, so that no committee is smaller.
//! A registry is bounded by what its entries have locked. Absent: what changes it, see
//! [`specials`](crate::ledger::specials) and [`attendance`](crate::ledger::attendance).

use crate::ledger::attendance::Attendance;
use crate::ledger::planted::{Bug, Planted};
use crate::primitives::clean::CleanText;
use crate::primitives::committee::{COMMITTEE_MAX, COMMITTEE_MIN, Committee, Member};
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{Domain, Hash, KeyHash, MasternodeId, hash};
use crate::primitives::keys::PublicKey;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::OutPoint;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// Longest name of a network or masternode in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Most former keys of one entry that can still be punished; a further change of key waits.
pub const FORMER_KEYS_MAX: usize = 16;

/// A key that an entry no longer votes with but still answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FormerKey {
    /// The key.
    pub key: PublicKey,
    /// Block time in milliseconds since 1970 from which on it is forgotten.
    pub until_ms: u64,
}

/// The last `Resume` of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Resumed {
    /// Height of the block that held it.
    pub height: u64,
    /// Its nonce.
    pub nonce: [u8; 32],
}

/// One registered masternode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// Identity, see [`Entry::new`].
    pub id: MasternodeId,
    /// Name, at most 64 bytes of clean text.
    pub name: String,
    /// Key that signs votes.
    pub vote_key: PublicKey,
    /// Tier.
    pub tier: Tier,
    /// Who owns the collateral.
    pub owner: KeyHash,
    /// Where rewards go.
    pub payout: KeyHash,
    /// The locked output.
    pub collateral: OutPoint,
    /// Where peers reach it.
    pub endpoint: Option<SocketAddr>,
    /// How it stands.
    pub status: MasternodeStatus,
    /// Number of its last change.
    pub sequence: u64,
    /// Keys it still answers for, oldest first, at most [`FORMER_KEYS_MAX`].
    pub former_keys: Vec<FormerKey>,
    /// Its last `Resume`.
    pub resumed: Option<Resumed>,
    /// Who it signed of late.
    pub attendance: Attendance,
}

impl Entry {
    /// An active entry; its id is the hash of name, vote key and collateral at registration.
    #[must_use]
    pub fn new(
        name: String,
        vote_key: PublicKey,
        tier: Tier,
        [owner, payout]: [KeyHash; 2],
        collateral: OutPoint,
    ) -> Self {
        let id = MasternodeId(hash(
            Domain::REGISTRY,
            &[&encode(&name), &vote_key.0, collateral.txid.bytes(), &collateral.index.to_le_bytes()],
        ));
        Self {
            id,
            name,
            vote_key,
            tier,
            owner,
            payout,
            collateral,
            endpoint: None,
            status: MasternodeStatus::Active,
            sequence: 0,
            former_keys: Vec::new(),
            resumed: None,
            attendance: Attendance::default(),
        }
    }

    /// Whether it answers for what `key` signed.
    #[must_use]
    pub fn answers_for(&self, key: &PublicKey) -> bool {
        self.keys().any(|own| own == *key)
    }

    /// Its vote key and the former ones.
    pub fn keys(&self) -> impl Iterator<Item = PublicKey> + '_ {
        std::iter::once(self.vote_key).chain(self.former_keys.iter().map(|former| former.key))
    }
}

/// Checks the name of a network or masternode.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), String> {
    let clean = CleanText::new(name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || clean.as_str() != name || name.trim() != name {
        let shown = CleanText::limited(name, NAME_BYTES_MAX);
        return Err(format!(
            "name `{shown}` has {} bytes: use 1 to {NAME_BYTES_MAX} printable characters without spaces \
             at the ends",
            name.len()
        ));
    }
    Ok(())
}

/// What is looked up by value; made anew only when identities change.
#[derive(Debug, Default, PartialEq, Eq)]
struct Index {
    locked: BTreeSet<OutPoint>,
    keys: BTreeSet<PublicKey>,
    names: BTreeSet<String>,
    endpoints: BTreeSet<SocketAddr>,
}

/// All registered masternodes. A copy shares the entries with its original.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    entries: Vec<Arc<Entry>>,
    /// Keys that are never registered again, ascending.
    tombstoned_keys: Arc<BTreeSet<PublicKey>>,
    index: Arc<Index>,
    /// The fault planted in tests of the tests.
    pub(super) planted: Planted,
}

/// A registry as it is stored: the entries by id, then the tombstoned keys ascending.
pub type RegistryParts = (Vec<Arc<Entry>>, Vec<PublicKey>);

impl Registry {
    /// The registry of `entries`, in any order. Uniqueness is the genesis' duty.
    #[must_use]
    pub fn new(entries: Vec<Entry>) -> Self {
        Self::from_parts((entries.into_iter().map(Arc::new).collect(), Vec::new()))
    }

    /// The registry of what [`Registry::parts`] gave.
    #[must_use]
    pub fn from_parts((mut entries, tombstoned): RegistryParts) -> Self {
        entries.sort_by_key(|entry| entry.id);
        let tombstoned_keys = Arc::new(tombstoned.into_iter().collect());
        let mut registry =
            Self { entries, tombstoned_keys, index: Arc::default(), planted: Planted::default() };
        registry.reindex();
        registry
    }

    /// What is stored and hashed of it.
    #[must_use]
    pub fn parts(&self) -> RegistryParts {
        (self.entries.clone(), self.tombstoned_keys.iter().copied().collect())
    }

    /// The entries ordered by id.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter().map(Arc::as_ref)
    }

    /// The entry with this id.
    #[must_use]
    pub fn entry(&self, id: MasternodeId) -> Option<&Entry> {
        self.position(id).and_then(|position| self.entries.get(position)).map(Arc::as_ref)
    }

    fn position(&self, id: MasternodeId) -> Option<usize> {
        self.entries.binary_search_by_key(&id, |entry| entry.id).ok()
    }

    /// The entry that votes with `key`. Cost: a pass over all entries.
    #[must_use]
    pub fn voting_with(&self, key: &PublicKey) -> Option<&Entry> {
        self.entries().find(|entry| entry.vote_key == *key)
    }

    /// Number of active entries.
    #[must_use]
    pub fn active(&self) -> usize {
        self.entries().filter(|entry| entry.status == MasternodeStatus::Active).count()
    }

    /// Whether an output is collateral and therefore not spendable by payments.
    #[must_use]
    pub fn is_locked(&self, outpoint: &OutPoint) -> bool {
        self.index.locked.contains(outpoint)
    }

    /// Whether a key is or was the vote key of an entry, or is tombstoned.
    #[must_use]
    pub fn knows_key(&self, key: &PublicKey) -> bool {
        self.index.keys.contains(key) || self.tombstoned_keys.contains(key)
    }

    /// Whether a name is taken.
    #[must_use]
    pub fn knows_name(&self, name: &str) -> bool {
        self.index.names.contains(name)
    }

    /// Whether an entry that votes, or may again, is reached at `endpoint`.
    #[must_use]
    pub fn knows_endpoint(&self, endpoint: &SocketAddr) -> bool {
        self.index.endpoints.contains(endpoint)
    }

    /// The committee of the next height: up to [`COMMITTEE_MAX`] active entries, greatest weight
    /// first, then smallest id. When fewer than [`COMMITTEE_MIN`] are active, jailed and tombstoned
    /// ones fill it up to that number in the same order: a committee of two would be no committee.
    #[must_use]
    pub fn committee(&self) -> Committee {
        let heaviest = |belongs: &dyn Fn(&Entry) -> bool| -> Vec<&Entry> {
            let mut found: Vec<&Entry> = self.entries().filter(|entry| belongs(entry)).collect();
            found.sort_by_key(|entry| (Reverse(entry.tier.weight()), entry.id));
            found
        };
        let votes = |entry: &Entry| match entry.status {
            MasternodeStatus::Active => true,
            MasternodeStatus::Jailed => self.planted.has(Bug::JailedVotes),
            MasternodeStatus::Unbonding { .. } => self.planted.has(Bug::UnbondingVotes),
            MasternodeStatus::Tombstoned { .. } => false,
        };
        let mut chosen = heaviest(&votes);
        chosen.truncate(COMMITTEE_MAX);
        if chosen.len() < COMMITTEE_MIN {
            let others = heaviest(&|entry| {
                matches!(entry.status, MasternodeStatus::Jailed | MasternodeStatus::Tombstoned { .. })
            });
            chosen.extend(others.into_iter().take(COMMITTEE_MIN - chosen.len()));
        }
        let member = |entry: &Entry| Member {
            id: entry.id,
            vote_key: entry.vote_key,
            weight: entry.tier.weight(),
            payout: entry.payout,
            name: entry.name.clone(),
        };
        Committee::new(chosen.into_iter().map(member).collect())
    }

    /// `registry_root` of the header. The kind byte keeps it apart from entry ids, which share the
    /// domain. Cost: hashing some 300 bytes an entry, and its window.
    #[must_use]
    pub fn root(&self) -> Hash {
        hash(Domain::REGISTRY, &[&[0xff; 8], &encode(&self.parts())])
    }

    // What follows changes a registry; [`Registry::reindex`] ends a change of identities.

    /// Changes the entry with this id, if there is one.
    pub(super) fn change(&mut self, id: MasternodeId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.position(id).and_then(|position| self.entries.get_mut(position)) {
            change(Arc::make_mut(entry));
        }
    }

    /// Adds an entry, whose id is new.
    pub(super) fn insert(&mut self, entry: Entry) {
        if let Err(position) = self.entries.binary_search_by_key(&entry.id, |known| known.id) {
            self.entries.insert(position, Arc::new(entry));
        }
    }

    /// Drops all entries that are not to stay.
    pub(super) fn retain(&mut self, stays: impl Fn(&Entry) -> bool) {
        self.entries.retain(|entry| stays(entry));
    }

    /// Bars keys for good.
    pub(super) fn tombstone(&mut self, keys: impl IntoIterator<Item = PublicKey>) {
        Arc::make_mut(&mut self.tombstoned_keys).extend(keys);
    }

    /// Makes the look-ups fit the entries again.
    pub(super) fn reindex(&mut self) {
        let bonded = self.entries().filter(|entry| entry.status.is_bonded());
        let index = Index {
            locked: self.entries().map(|entry| entry.collateral).collect(),
            keys: self.entries().flat_map(Entry::keys).collect(),
            names: self.entries().map(|entry| entry.name.clone()).collect(),
            endpoints: bonded.filter_map(|entry| entry.endpoint).collect(),
        };
        self.index = Arc::new(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::Txid;
    use crate::primitives::keys::SecretKey;

    fn entry(seed: u8, tier: Tier) -> Entry {
        let collateral = OutPoint { txid: Txid(Hash([9; 32])), index: u32::from(seed) };
        let key = SecretKey::from_seed(&[seed; 32]).public();
        Entry::new(format!("node-{seed}"), key, tier, [KeyHash::default(); 2], collateral)
    }

    #[test]
    fn the_committee_carries_the_weights_of_the_tiers() {
        let registry =
            Registry::new(vec![entry(1, Tier::Bronze), entry(2, Tier::Silver), entry(3, Tier::Gold)]);
        let committee = registry.committee();
        assert_eq!((committee.len(), committee.total(), committee.quorum()), (3, 111, 75));
        for member in committee.members() {
            let found = registry.entry(member.id).expect("every member is registered");
            assert_eq!((found.vote_key, found.tier.weight()), (member.vote_key, member.weight));
        }
    }

    #[test]
    fn root_and_order_do_not_depend_on_the_order_given() {
        let (a, b) = (entry(1, Tier::Bronze), entry(2, Tier::Gold));
        let forward = Registry::new(vec![a.clone(), b.clone()]);
        assert_eq!(forward, Registry::new(vec![b.clone(), a.clone()]));
        assert_ne!(forward.root(), Registry::new(vec![a]).root());
    }

    #[test]
    fn only_collateral_is_locked() {
        let registry = Registry::new(vec![entry(1, Tier::Bronze), entry(2, Tier::Gold)]);
        let outpoint = |index| OutPoint { txid: Txid(Hash([9; 32])), index };
        assert!(registry.is_locked(&outpoint(1)) && registry.is_locked(&outpoint(2)));
        assert!(!registry.is_locked(&outpoint(3)));
    }
}
