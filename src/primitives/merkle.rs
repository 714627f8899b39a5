//! Merkle trees over transaction ids (protocol §2): leaf `H(0x00, phase, index, txid)`, node
//! `H(0x01, left, right)`, an odd node is promoted unchanged. The leaf count is signed beside the
//! root, so a path has exactly one shape.

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

fn leaves(phase: Phase, txids: &[Txid]) -> Vec<Hash> {
    txids.iter().zip(0u32..).map(|(txid, index)| leaf(phase, index, txid)).collect()
}

/// Root of the tree over `txids`; the zero hash for none. Cost: two hashes a leaf.
#[must_use]
pub fn root(phase: Phase, txids: &[Txid]) -> Hash {
    let mut level = leaves(phase, txids);
    while level.len() > 1 {
        level = level_up(&level);
    }
    level.first().copied().unwrap_or_default()
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
