//! Merkle trees (protocol §2): node `H(0x01, left, right)`, an odd node is promoted unchanged. The leaf
//! count is signed beside the root, so a path, and a proof of several leaves at once, has exactly one
//! shape. Leaves over transaction ids, `H(0x00, phase, index, txid)`, are made here; other leaves are
//! digests that bind their own index.

use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{Domain, Hash, Txid, hash};

/// Which list a leaf belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Phase {
    /// Prepare votes of a batch.
    Prepare,
    /// Commit votes of a batch.
    Commit,
    /// Transactions of a block.
    Body,
}

impl Phase {
    const fn byte(self) -> u8 {
        match self {
            Self::Prepare => 0,
            Self::Commit => 1,
            Self::Body => 2,
        }
    }
}

fn leaf(phase: Phase, index: u32, txid: &Txid) -> Hash {
    hash(Domain::LEAF, &[&[0x00, phase.byte()], &index.to_le_bytes(), txid.bytes()])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    hash(Domain::NODE, &[&[0x01], &left.0, &right.0])
}

fn level_up(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [single] => *single,
            _ => Hash::default(),
        })
        .collect()
}

/// Root of the tree over ready leaves; the zero hash for none. Cost: one hash a leaf.
#[must_use]
pub fn root_of_leaves(leaves: Vec<Hash>) -> Hash {
    let mut level = leaves;
    while level.len() > 1 {
        level = level_up(&level);
    }
    level.first().copied().unwrap_or_default()
}

fn leaves(phase: Phase, txids: &[Txid]) -> Vec<Hash> {
    txids.iter().zip(0u32..).map(|(txid, index)| leaf(phase, index, txid)).collect()
}

/// Root of the tree over `txids`; the zero hash for none. Cost: two hashes a leaf.
#[must_use]
pub fn root(phase: Phase, txids: &[Txid]) -> Hash {
    root_of_leaves(leaves(phase, txids))
}

/// The siblings from leaf `index` up to the root; `None` when there is no such leaf.
#[must_use]
pub fn path(phase: Phase, txids: &[Txid], index: usize) -> Option<Vec<Hash>> {
    txids.get(index)?;
    let mut level = leaves(phase, txids);
    let (mut position, mut siblings) = (index, Vec::new());
    while level.len() > 1 {
        siblings.extend(level.get(position ^ 1).copied());
        level = level_up(&level);
        position /= 2;
    }
    Some(siblings)
}

/// How many siblings the path of leaf `index` of `count` has; `None` when there is no such leaf.
#[must_use]
pub fn path_length(index: u32, count: u32) -> Option<usize> {
    if index >= count {
        return None;
    }
    let (mut position, mut width, mut length) = (index, count, 0);
    while width > 1 {
        length += usize::from(position % 2 == 1 || position + 1 < width);
        position /= 2;
        width = width.div_ceil(2);
    }
    Some(length)
}

/// The root that leaf `index` of `count` leads to by `siblings`; `None` when the path does not have
/// the shape that `index` and `count` dictate.
#[must_use]
pub fn root_of_path(phase: Phase, txid: &Txid, index: u32, count: u32, siblings: &[Hash]) -> Option<Hash> {
    if index >= count {
        return None;
    }
    let mut siblings = siblings.iter();
    let (mut digest, mut position, mut width) = (leaf(phase, index, txid), index, count);
    while width > 1 {
        if position % 2 == 1 {
            digest = node(siblings.next()?, &digest);
        } else if position + 1 < width {
            digest = node(&digest, siblings.next()?);
        }
        position /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none().then_some(digest)
}

/// What proves the leaves at `indices` (strictly ascending) together: the siblings that cannot be
/// computed from them, level by level from the leaves up, each level from left to right. `None` when
/// `indices` is empty, not strictly ascending or beyond the leaves.
#[must_use]
pub fn multi_path(leaves: &[Hash], indices: &[u32]) -> Option<Vec<Hash>> {
    let count = u32::try_from(leaves.len()).ok()?;
    ascending_below(indices.iter().copied(), count).then_some(())?;
    let (mut level, mut known, mut siblings) = (leaves.to_vec(), indices.to_vec(), Vec::new());
    while level.len() > 1 {
        for position in &known {
            let sibling = position ^ 1;
            if known.binary_search(&sibling).is_err() {
                siblings.extend(level.get(usize::try_from(sibling).ok()?).copied());
            }
        }
        level = level_up(&level);
        known = known.into_iter().map(|position| position / 2).collect();
        known.dedup();
    }
    Some(siblings)
}

/// The root that `leaves` (index and digest, indices strictly ascending) of a tree of `count` lead to by
/// the siblings of [`multi_path`]; `None` for any other shape: no leaf, an index out of order or out of
/// range, a sibling missing or left over.
#[must_use]
pub fn root_of_multi_path(leaves: &[(u32, Hash)], count: u32, siblings: &[Hash]) -> Option<Hash> {
    ascending_below(leaves.iter().map(|(index, _)| *index), count).then_some(())?;
    let mut siblings = siblings.iter();
    let (mut level, mut width) = (leaves.to_vec(), count);
    while width > 1 {
        let mut above = Vec::with_capacity(level.len().div_ceil(2));
        let mut known = level.iter().peekable();
        while let Some((position, digest)) = known.next() {
            let parent = if position % 2 == 1 {
                node(siblings.next()?, digest)
            } else if let Some((_, right)) = known.next_if(|(next, _)| *next == position + 1) {
                node(digest, right)
            } else if position + 1 < width {
                node(digest, siblings.next()?)
            } else {
                *digest
            };
            above.push((position / 2, parent));
        }
        level = above;
        width = width.div_ceil(2);
    }
    let (_, root) = level.first()?;
    siblings.next().is_none().then_some(*root)
}

/// Whether there are indices, strictly ascending and all below `count`.
fn ascending_below(indices: impl Iterator<Item = u32> + Clone, count: u32) -> bool {
    let ascending = indices.clone().zip(indices.clone().skip(1)).all(|(left, right)| left < right);
    ascending && indices.last().is_some_and(|last| last < count)
}
