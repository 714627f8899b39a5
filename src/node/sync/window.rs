//! The blocks being caught up with: for each height how far it is, from the outline to the hand-over.
//!
//! Invariant: bodies are held of blocks only that have a quorum's certificate, and in order: a block is
//! certified after the one before it. Bounded by [`BLOCKS_MAX`] and [`BYTES_MAX`]. An answer counts only for
//! what was asked, so whoever answers brings its block further.

use crate::consensus::input::Verified;
use crate::node::blocks::PAGE_BYTES;
use crate::primitives::block::{Block, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::message::PeerId;
use crate::primitives::transaction::{SealedTransaction, SharedTransaction, Transaction};
use std::collections::BTreeMap;

/// Most blocks pulled at a time.
pub const BLOCKS_MAX: u64 = 64;
/// Most bytes of blocks held, by what their outlines say; the next block is always pulled.
pub const BYTES_MAX: u64 = 48 << 20;
/// Bytes of bodies in an answer that does not end its block, at least, from whoever does not dawdle: a
/// server sends a page less the transaction that did not fit any more.
const PART_BYTES_MIN: u64 = PAGE_BYTES / 4;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub peer: PeerId,
    pub lack: Lack,
    pub since_us: u64,
}

/// How far a block is.
pub enum Stage {
    /// Its outline is to be pulled.
    Unknown,
    /// It waits until the block before is certified.
    Outlined { peer: PeerId, outline: Box<Outline>, qc: Qc },
    /// Its bodies are being pulled.
    Certified(Box<Partial>),
    /// Its signatures are being checked.
    Checking,
    /// It waits for its turn.
    Ready { peer: PeerId, block: Box<Verified<(Block, Qc)>> },
    /// The engine has it since then.
    Handed { at_us: u64 },
}

/// One height.
pub struct Slot {
    pub stage: Stage,
    pub ask: Option<Ask>,
    /// Who failed last: others first.
    pub failed: Option<PeerId>,
    /// Bytes and transactions, once its outline is there.
    pub bytes: u64,
    pub transactions: u64,
}

impl Slot {
    fn new() -> Self {
        Self { stage: Stage::Unknown, ask: None, failed: None, bytes: 0, transactions: 0 }
    }

    /// Whether somebody has to be asked for a part of it.
    #[must_use]
    pub fn lacks(&self) -> Option<Lack> {
        match &self.stage {
            Stage::Unknown => Some(Lack::Outline),
            Stage::Certified(partial) => partial.missing().map(Lack::Bodies),
            _ => None,
        }
    }
}

/// What has to be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    Outline,
    /// Bodies from this index on.
    Bodies(u32),
}

/// How far an answer brought a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// To its end.
    Whole,
    /// By about as much as an answer may hold.
    Page,
    /// By less: many such answers take longer than the block is worth.
    Little,
}

/// A certified block with the bodies that are here.
pub struct Partial {
    pub outline: Outline,
    pub qc: Qc,
    /// Who served the outline.
    pub outlined_by: PeerId,
    /// Who served the last part.
    pub peer: PeerId,
    pub bodies: Vec<Option<SharedTransaction>>,
    /// Everything before it is here.
    filled: usize,
}

impl Partial {
    /// With the bodies that are known here.
    pub fn new(
        outline: Outline,
        qc: Qc,
        peer: PeerId,
        known: impl Fn(&crate::primitives::hash::Txid) -> Option<SharedTransaction>,
    ) -> Self {
        let bodies = outline.txids.iter().map(known).collect();
        let mut partial = Self { outline, qc, outlined_by: peer, peer, bodies, filled: 0 };
        partial.skip();
        partial
    }

    fn skip(&mut self) {
        let rest = self.bodies.get(self.filled..).unwrap_or_default();
        self.filled += rest.iter().take_while(|body| body.is_some()).count();
    }

    /// Index of the first missing body.
    #[must_use]
    pub fn missing(&self) -> Option<u32> {
        (self.filled < self.bodies.len()).then(|| u32::try_from(self.filled).unwrap_or(u32::MAX))
    }

    /// Puts bodies in their places, `from` being the first that is missing.
    ///
    /// # Errors
    /// What is wrong with them: no honest peer sends that.
    pub fn take(&mut self, from: u32, transactions: Vec<Transaction>) -> Result<Brought, &'static str> {
        if transactions.is_empty() {
            return Err("no bodies of a block where some are missing");
        }
        let (mut bytes, count) = (0u64, transactions.len());
        let places = self.outline.txids.iter().zip(self.bodies.iter_mut()).skip(from as usize);
        let mut left = transactions.into_iter();
        for ((txid, place), transaction) in places.zip(left.by_ref()) {
            let sealed = SealedTransaction::new(transaction);
            if sealed.id() != *txid {
                return Err("a transaction that is not the one of the block");
            }
            bytes = bytes.saturating_add(sealed.size());
            *place = Some(sealed);
        }
        self.skip();
        if left.next().is_some() {
            return Err("more bodies than the block has");
        }
        let to_the_end = (from as usize).saturating_add(count) == self.bodies.len();
        Ok(match self.missing() {
            None => Brought::Whole,
            Some(_) if to_the_end || bytes >= PART_BYTES_MIN => Brought::Page,
            Some(_) => Brought::Little,
        })
    }

    /// The whole block; bodies that are missing are left out, so nobody calls it before all are there.
    #[must_use]
    pub fn into_block(self) -> (Block, Qc) {
        let block = Block {
            header: self.outline.header,
            last_commit: self.outline.last_commit,
            transactions: self.bodies.into_iter().flatten().collect(),
        };
        (block, self.qc)
    }
}

/// All heights, from the one the engine decides next on.
#[derive(Default)]
pub struct Window(pub BTreeMap<u64, Slot>);

impl Window {
    /// Opens slots from `next` up to `target`, as many as the bounds allow.
    pub fn open(&mut self, next: u64, target: u64) {
        let (mut bytes, mut last) = (0u64, 0u64);
        for height in next..=target.min(next.saturating_add(BLOCKS_MAX - 1)) {
            if bytes > BYTES_MAX && height > next {
                break;
            }
            let slot = self.0.entry(height).or_insert_with(Slot::new);
            // One that is not known yet is taken to be like the one before.
            last = if matches!(slot.stage, Stage::Unknown) { last } else { slot.bytes };
            bytes = bytes.saturating_add(last);
        }
    }

    /// Frees every slot that waits for `peer`, and forgets what it said without proof.
    pub fn release(&mut self, peer: &PeerId) {
        for slot in self.0.values_mut() {
            if slot.ask.is_some_and(|ask| ask.peer == *peer) {
                slot.ask = None;
                slot.failed = Some(*peer);
            }
            if matches!(&slot.stage, Stage::Outlined { peer: from, .. } if from == peer) {
                slot.stage = Stage::Unknown;
                slot.failed = Some(*peer);
            }
        }
    }
}
