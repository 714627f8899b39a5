//! The masternodes of the chain: their tiers, keys and locked collateral, and the committee they form.
//!
//! Invariant: entries are ordered by id, and ids, names, vote keys and collateral outpoints are unique.
//! Absent: registration, updates and jail; the registry of a chain is the one of its genesis.

use crate::primitives::committee::{Committee, Member};
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{Domain, Hash, KeyHash, MasternodeId, hash};
use crate::primitives::keys::PublicKey;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::OutPoint;

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
}

impl Entry {
    /// An entry; its id is the hash of name, vote key and collateral at registration.
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
        Self { id, name, vote_key, tier, owner, payout, collateral }
    }
}

/// All registered masternodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    entries: Vec<Entry>,
    /// Collateral outpoints, ascending, for look-ups by binary search.
    locked: Vec<OutPoint>,
}

impl Registry {
    /// The registry of `entries`, in any order. Uniqueness is the genesis' duty.
    #[must_use]
    pub fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by_key(|entry| entry.id);
        let mut locked: Vec<OutPoint> = entries.iter().map(|entry| entry.collateral).collect();
        locked.sort_unstable();
        Self { entries, locked }
    }

    /// The entries ordered by id.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry with this id.
    #[must_use]
    pub fn entry(&self, id: MasternodeId) -> Option<&Entry> {
        let position = self.entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        self.entries.get(position)
    }

    /// Whether an output is collateral and therefore not spendable by payments.
    #[must_use]
    pub fn is_locked(&self, outpoint: &OutPoint) -> bool {
        self.locked.binary_search(outpoint).is_ok()
    }

    /// The committee of the next height.
    #[must_use]
    pub fn committee(&self) -> Committee {
        let member = |entry: &Entry| Member {
            id: entry.id,
            vote_key: entry.vote_key,
            weight: entry.tier.weight(),
            payout: entry.payout,
            name: entry.name.clone(),
        };
        Committee::new(self.entries.iter().map(member).collect())
    }

    /// `registry_root` of the header. The kind byte keeps it apart from entry ids, which share the domain.
    #[must_use]
    pub fn root(&self) -> Hash {
        hash(Domain::REGISTRY, &[&[0xff; 8], &encode(&self.entries)])
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
