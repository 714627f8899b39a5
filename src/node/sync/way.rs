//! The way to the trusted block: which block each height has, as the headers between said.
//!
//! Invariant: it begins with the block after the tip, and that follows from the tip; a way of another tip
//! names no block at all. Bounded by the length of a route.

use crate::primitives::hash::BlockId;
use crate::primitives::trusted::TrustedHeader;
use std::collections::VecDeque;

/// See the module; empty when there is none.
#[derive(Debug, Default)]
pub struct Way {
    /// The block before the first of the ids.
    from: Option<TrustedHeader>,
    ids: VecDeque<BlockId>,
}

impl Way {
    /// The way of these blocks on `from`, as far as it leads on from the tip.
    #[must_use]
    pub fn new(from: TrustedHeader, ids: VecDeque<BlockId>, tip: TrustedHeader) -> Self {
        let mut way = Self { from: Some(from), ids };
        way.follow(tip);
        way
    }

    /// Whether no block is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether another block is to be at this height.
    #[must_use]
    pub fn is_beside(&self, height: u64, block: BlockId) -> bool {
        let place = self.from.and_then(|from| height.checked_sub(from.height)?.checked_sub(1));
        let place = place.and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.ids.get(place)).is_some_and(|id| *id != block)
    }

    /// The chain has come to `tip`: what lies behind is dropped, and all of it if the tip is not on it.
    pub fn follow(&mut self, tip: TrustedHeader) {
        while let Some(from) = self.from.filter(|from| from.height < tip.height) {
            let next = self.ids.pop_front();
            self.from = next.map(|id| TrustedHeader { height: from.height.saturating_add(1), id });
        }
        if self.from != Some(tip) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::Hash;

    fn block(height: u64) -> TrustedHeader {
        TrustedHeader { height, id: BlockId(Hash([u8::try_from(height).unwrap(); 32])) }
    }

    fn way(tip: TrustedHeader) -> Way {
        Way::new(block(3), (4..=9).map(|height| block(height).id).collect(), tip)
    }

    #[test]
    fn a_way_names_the_blocks_after_the_tip_wherever_on_it_the_tip_is() {
        for tip in 3..9 {
            let mut way = way(block(tip));
            for height in 0..20 {
                let named = (tip + 1..=9).contains(&height);
                assert!(!way.is_beside(height, block(height).id), "{tip} {height}");
                assert_eq!(way.is_beside(height, block(200).id), named, "{tip} {height}");
            }
            if tip < 8 {
                way.follow(block(tip));
                way.follow(block(tip + 1));
                assert!(!way.is_empty() && !way.is_beside(tip + 1, block(200).id));
            }
        }
        assert!(way(block(9)).is_empty());
    }

    #[test]
    fn a_way_that_the_tip_is_not_on_names_nothing() {
        let beside = |height| TrustedHeader { height, id: block(99).id };
        for tip in [block(2), beside(3), beside(5), beside(9), block(10)] {
            assert!(way(tip).is_empty(), "{tip}");
        }
        let mut way = way(block(5));
        way.follow(beside(6));
        assert!(way.is_empty());
    }
}
