//! The set hash of all unspent outputs (protocol §7): LtHash16, 1024 lanes of 16 bits over BLAKE3's
//! extendable output.
//!
//! Adding an output adds its 2048 bytes lane by lane, spending subtracts them, so the value depends
//! on the set alone and never on the order of changes. An element costs one extension of BLAKE3 to
//! 2048 bytes, about 2 µs. Absent: any knowledge of blocks or of where outputs are kept.

use crate::primitives::hash::{Domain, Hash, hash};
use crate::primitives::transaction::{OutPoint, Utxo};
use std::fmt;

/// Lanes of the sum.
const LANES: usize = 1024;
/// Bytes of an element and of a sum.
pub const BYTES: usize = 2 * LANES;

/// The sum over a set of unspent outputs; 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SetHash {
    lanes: Box<[u16; LANES]>,
    /// A hasher that has absorbed the domain; cloning it saves hashing the context for each element.
    hasher: DomainHasher,
}

/// The hasher of the element domain, equal to every other.
#[derive(Clone)]
struct DomainHasher(Box<blake3::Hasher>);

impl PartialEq for DomainHasher {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DomainHasher {}

impl Default for SetHash {
    fn default() -> Self {
        Self { lanes: Box::new([0; LANES]), hasher: DomainHasher(Box::new(Domain::UTXO.hasher())) }
    }
}

impl SetHash {
    /// The sum over no outputs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an output into the set.
    pub fn add(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        let element = self.element(outpoint, utxo);
        for (lane, bytes) in self.lanes.iter_mut().zip(element.as_chunks::<2>().0) {
            *lane = lane.wrapping_add(u16::from_le_bytes(*bytes));
        }
    }

    /// Takes an output out of the set; the exact inverse of [`SetHash::add`].
    pub fn remove(&mut self, outpoint: &OutPoint, utxo: &Utxo) {
        let element = self.element(outpoint, utxo);
        for (lane, bytes) in self.lanes.iter_mut().zip(element.as_chunks::<2>().0) {
            *lane = lane.wrapping_sub(u16::from_le_bytes(*bytes));
        }
    }

    /// Joins the sum over a disjoint set.
    pub fn combine(&mut self, other: &Self) {
        for (lane, more) in self.lanes.iter_mut().zip(other.lanes.iter()) {
            *lane = lane.wrapping_add(*more);
        }
    }

    /// `utxo_hash` of the header: the hash of all lanes in little-endian order.
    #[must_use]
    pub fn digest(&self) -> Hash {
        hash(Domain::UTXO_SET, &[&self.to_bytes()])
    }

    /// All lanes in little-endian order.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0u8; BYTES];
        for (pair, lane) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(self.lanes.iter()) {
            *pair = lane.to_le_bytes();
        }
        bytes
    }

    /// The sum that [`SetHash::to_bytes`] wrote.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut set_hash = Self::new();
        for (lane, pair) in set_hash.lanes.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *lane = u16::from_le_bytes(*pair);
        }
        set_hash
    }

    /// `H("utxo", outpoint, value, key_hash, height)`, extended to 2048 bytes. All fields have fixed
    /// width, so their concatenation is canonical.
    fn element(&self, outpoint: &OutPoint, utxo: &Utxo) -> [u8; BYTES] {
        let mut hasher = (*self.hasher.0).clone();
        let mut input = [0u8; 32 + 4 + 8 + 32 + 8];
        let parts: [&[u8]; 5] = [
            outpoint.txid.bytes(),
            &outpoint.index.to_le_bytes(),
            &utxo.value.units().to_le_bytes(),
            utxo.key_hash.bytes(),
            &utxo.height.to_le_bytes(),
        ];
        for (to, from) in input.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        hasher.update(&input);
        let mut element = [0u8; BYTES];
        hasher.finalize_xof().fill(&mut element);
        element
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetHash({})", self.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::amount::Amount;
    use crate::primitives::hash::{KeyHash, Txid};
    use proptest::prelude::*;

    fn output(seed: u64) -> (OutPoint, Utxo) {
        let txid = Txid(hash(Domain::TXID, &[&seed.to_le_bytes()]));
        let value = Amount::from_units(seed % 1_000_000).unwrap();
        (
            OutPoint { txid, index: (seed % 3) as u32 },
            Utxo { value, key_hash: KeyHash(txid.0), height: seed % 100 },
        )
    }

    fn sum(seeds: &[u64]) -> SetHash {
        let mut set = SetHash::new();
        for seed in seeds {
            let (outpoint, utxo) = output(*seed);
            set.add(&outpoint, &utxo);
        }
        set
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_the_order(mut seeds in prop::collection::vec(any::<u64>(), 0..20)) {
            let forward = sum(&seeds);
            seeds.reverse();
            prop_assert_eq!(forward.digest(), sum(&seeds).digest());
        }

        #[test]
        fn removing_undoes_adding(seeds in prop::collection::vec(any::<u64>(), 0..10), extra in any::<u64>()) {
            let before = sum(&seeds);
            let (outpoint, utxo) = output(extra);
            let mut changed = before.clone();
            changed.add(&outpoint, &utxo);
            prop_assert_ne!(before.digest(), changed.digest());
            changed.remove(&outpoint, &utxo);
            prop_assert_eq!(before.digest(), changed.digest());
        }
    }

    #[test]
    fn every_field_of_an_output_counts() {
        let (outpoint, utxo) = output(7);
        let mut digests = std::collections::BTreeSet::new();
        let mut insert = |outpoint: OutPoint, utxo: Utxo| {
            let mut set = SetHash::new();
            set.add(&outpoint, &utxo);
            digests.insert(set.digest());
        };
        insert(outpoint, utxo);
        insert(OutPoint { index: 9, ..outpoint }, utxo);
        insert(OutPoint { txid: Txid::default(), ..outpoint }, utxo);
        insert(outpoint, Utxo { value: Amount::from_units(8).unwrap(), ..utxo });
        insert(outpoint, Utxo { key_hash: KeyHash::default(), ..utxo });
        insert(outpoint, Utxo { height: 8, ..utxo });
        assert_eq!(digests.len(), 6);
    }

    #[test]
    fn two_halves_combine_to_the_whole() {
        let mut left = sum(&[1, 2, 3]);
        left.combine(&sum(&[4, 5]));
        assert_eq!(left.digest(), sum(&[5, 4, 3, 2, 1]).digest());
    }

    #[test]
    fn a_sum_comes_back_from_its_bytes() {
        let set = sum(&[1, 2, 3]);
        assert_eq!(SetHash::from_bytes(&set.to_bytes()), set);
    }

    #[test]
    fn the_element_is_the_extension_of_the_documented_input() {
        // Computed from the definition, independent of the code above.
        let (outpoint, utxo) = output(42);
        let mut hasher = blake3::Hasher::new_derive_key("timecoin masternode v1 utxo");
        hasher.update(outpoint.txid.bytes());
        hasher.update(&outpoint.index.to_le_bytes());
        hasher.update(&utxo.value.units().to_le_bytes());
        hasher.update(utxo.key_hash.bytes());
        hasher.update(&utxo.height.to_le_bytes());
        let mut lanes = [0u8; 2048];
        hasher.finalize_xof().fill(&mut lanes);
        let mut set = SetHash::new();
        set.add(&outpoint, &utxo);
        assert_eq!(set.digest(), hash(Domain::UTXO_SET, &[&lanes]));
    }

    #[test]
    fn the_digest_matches_the_golden_vector() {
        assert_eq!(
            sum(&[]).digest().to_string(),
            "594da8e4c950d04b94964cdee89f25487f602bb5557ede5a0a1be00c4cc753ae"
        );
        assert_eq!(
            sum(&[1, 2, 3]).digest().to_string(),
            "53bbadad2fc0b23f2ffddfa09f35ab7ae34396c9ab902a4889b7ba93f0fc0c26"
        );
    }
}
