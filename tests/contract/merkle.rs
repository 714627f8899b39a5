//! Merkle paths prove membership of exactly one leaf at one place of one list.

use masternode::primitives::hash::{Hash, Txid};
use masternode::primitives::merkle::{
    Phase, multi_path, path, path_length, root, root_of_leaves, root_of_multi_path, root_of_path,
};
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
            assert_eq!(path_length(index, leaves), Some(siblings.len()));
            assert_eq!(root_of_path(Phase::Prepare, txid, index, leaves, &siblings), Some(whole));
        }
        assert_eq!(path(Phase::Prepare, &list, count), None);
        assert_eq!(path_length(leaves, leaves), None);
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

/// Leaves of any content.
fn digests(count: usize) -> Vec<Hash> {
    txids(count).into_iter().map(|txid| txid.0).collect()
}

#[test]
fn every_set_of_leaves_of_every_small_tree_is_proven_by_exactly_one_list() {
    for count in 1..=9usize {
        let leaves = digests(count);
        let (whole, width) = (root_of_leaves(leaves.clone()), u32::try_from(count).unwrap());
        for set in 1u32..1 << count {
            let indices: Vec<u32> = (0..width).filter(|index| set & (1 << index) != 0).collect();
            let mut siblings = multi_path(&leaves, &indices).unwrap();
            let chosen: Vec<(u32, Hash)> =
                indices.iter().map(|index| (*index, leaves[usize::try_from(*index).unwrap()])).collect();
            let prove =
                |chosen: &[(u32, Hash)], siblings: &[Hash]| root_of_multi_path(chosen, width, siblings);
            assert_eq!(prove(&chosen, &siblings), Some(whole));
            assert_ne!(prove(&chosen[1..], &siblings), Some(whole), "a leaf less");
            for at in 0..siblings.len() {
                let mut altered = siblings.clone();
                altered[at].0[3] ^= 1;
                assert_ne!(prove(&chosen, &altered), Some(whole));
                altered.remove(at);
                assert_eq!(prove(&chosen, &altered), None, "a sibling less");
            }
            for at in 0..chosen.len() {
                let mut twice = chosen.clone();
                twice.insert(at, chosen[at]);
                assert_eq!(prove(&twice, &siblings), None, "a leaf twice");
            }
            siblings.push(Hash::default());
            assert_eq!(prove(&chosen, &siblings), None, "a sibling too many");
        }
        assert_eq!(multi_path(&leaves, &[]), None);
        assert_eq!(multi_path(&leaves, &[width]), None);
        assert_eq!(root_of_multi_path(&[(width, leaves[0])], width, &[]), None);
        assert_eq!(root_of_multi_path(&[], width, &[whole]), None);
    }
    assert_eq!(multi_path(&digests(5), &[2, 1]), None, "not ascending");
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
