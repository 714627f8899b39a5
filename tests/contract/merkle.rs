//! Merkle paths prove membership of exactly one leaf at one place of one list.

use masternode::primitives::hash::{Hash, Txid};
use masternode::primitives::merkle::{Phase, path, root, root_of_path};
use proptest::prelude::*;

fn txids(count: usize) -> Vec<Txid> {
    (0..count).map(|number| Txid(Hash(*blake3::hash(&number.to_le_bytes()).as_bytes()))).collect()
}

#[test]
fn every_leaf_of_every_small_tree_has_a_path_to_the_root() {
    for count in 0..70usize {
        let list = txids(count);
        let whole = root(Phase::Prepare, &list);
        let leaves = u32::try_from(count).unwrap();
        for (index, txid) in (0u32..).zip(&list) {
            let siblings = path(Phase::Prepare, &list, usize::try_from(index).unwrap()).unwrap();
            assert_eq!(root_of_path(Phase::Prepare, txid, index, leaves, &siblings), Some(whole));
        }
        assert_eq!(path(Phase::Prepare, &list, count), None);
    }
    assert_eq!(root(Phase::Body, &[]), Hash::default());
}

#[test]
fn a_path_has_exactly_one_shape() {
    let list = txids(11);
    let siblings = path(Phase::Commit, &list, 10).unwrap();
    let prove = |siblings: &[Hash]| root_of_path(Phase::Commit, &list[10], 10, 11, siblings);
    assert!(prove(&siblings).is_some());
    assert_eq!(prove(&siblings[1..]), None, "too short");
    let longer: Vec<Hash> = siblings.iter().copied().chain([Hash::default()]).collect();
    assert_eq!(prove(&longer), None, "too long");
    assert_eq!(root_of_path(Phase::Commit, &list[10], 11, 11, &siblings), None, "beyond the last leaf");
    assert_eq!(root_of_path(Phase::Commit, &list[10], 0, 0, &[]), None, "no leaves");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_but_the_leaf_in_its_place_leads_to_the_root(
        count in 2usize..200,
        at in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        sibling in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let list = txids(count);
        let (at, other) = (at.index(count), other.index(count));
        let whole = root(Phase::Prepare, &list);
        let siblings = path(Phase::Prepare, &list, at).unwrap();
        let (index, leaves) = (u32::try_from(at).unwrap(), u32::try_from(count).unwrap());
        let prove = |txid: &Txid, index, siblings: &[Hash]| root_of_path(Phase::Prepare, txid, index, leaves, siblings);
        prop_assert_eq!(prove(&list[at], index, &siblings), Some(whole));
        if other != at {
            prop_assert_ne!(prove(&list[other], index, &siblings), Some(whole));
            prop_assert_ne!(prove(&list[at], u32::try_from(other).unwrap(), &siblings), Some(whole));
        }
        let mut altered = siblings.clone();
        altered[sibling.index(siblings.len())].0[0] ^= 1 << bit;
        prop_assert_ne!(prove(&list[at], index, &altered), Some(whole));
        prop_assert_ne!(root_of_path(Phase::Commit, &list[at], index, leaves, &siblings), Some(whole));
        prop_assert_ne!(root(Phase::Commit, &list), whole);
        let mut swapped = list.clone();
        swapped.swap(at, other);
        prop_assert_eq!(root(Phase::Prepare, &swapped) == whole, at == other);
    }
}
