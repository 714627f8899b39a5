//! Writes an archive from a store, also while a node goes on storing blocks in it.
//!
//! The store is held while outputs are read and borrowed for one block at a time, and whoever reads ends the
//! writing by failing it, so that a node that stops can close its store. What
//! is written is of one height: the one that the store had in the beginning. Memory: one page of outputs or
//! bodies.

use crate::archive::frames::ArchiveWriter;
use crate::archive::{ArchiveError, BODIES_BYTES, BlockItem, Head, HeaderItem, Item, StateItem};
use crate::ledger::genesis::Genesis;
use crate::ledger::store::Store;
use crate::ledger::store::view::View;
use std::io::Write;
use std::sync::{Arc, Weak};

/// Unspent outputs in one item: 86 KiB.
const PAGE_OUTPUTS: usize = 1024;

/// What is wanted of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// First block; at least 1.
    pub from: u64,
    /// Last block; the newest if `None`.
    pub to: Option<u64>,
    /// Whether the state after the newest block is wanted, which then has to be the last one.
    pub state: bool,
}

impl Wish {
    /// Everything: all blocks and the state.
    pub const EVERYTHING: Self = Self { from: 1, to: None, state: true };
}

/// A store, as long as it is open.
#[derive(Clone, Debug)]
pub struct Source {
    store: Weak<Store>,
    genesis: Genesis,
}

impl Source {
    /// A source over an open store of a chain.
    #[must_use]
    pub fn new(store: &Arc<Store>, genesis: &Genesis) -> Self {
        Self { store: Arc::downgrade(store), genesis: genesis.clone() }
    }

    fn store(&self) -> Result<Arc<Store>, ArchiveError> {
        self.store.upgrade().ok_or_else(|| ArchiveError::Interrupted("the node is stopping".to_owned()))
    }

    /// Writes what is wanted; returns its head. `made_ms` is the time in milliseconds since 1970, `name` what
    /// errors call the archive. Cost: reads all of it from the disk.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub fn write<W: Write>(
        &self,
        wish: Wish,
        made_ms: u64,
        out: W,
        name: &str,
    ) -> Result<(Head, W), ArchiveError> {
        let view = if wish.state { Some(self.store()?.view()?) } else { None };
        let to = match &view {
            Some(view) => view.header.height,
            None => wish.to.unwrap_or(self.store()?.height()),
        };
        let head = self.head(wish, to, made_ms, view.as_ref().map(|view| view.header.utxo_count))?;
        let mut writer = ArchiveWriter::new(out, name)?;
        writer.item(&Item::Head(head.clone()))?;
        writer.item(&Item::Genesis(Box::new(self.genesis.clone())))?;
        if let Some(view) = view {
            self.state(&mut writer, view, to)?;
        }
        for height in head.from..=head.to {
            self.block(&mut writer, height)?;
        }
        Ok((head, writer.finish()?))
    }

    fn head(&self, wish: Wish, to: u64, made_ms: u64, outputs: Option<u64>) -> Result<Head, ArchiveError> {
        let stored = self.store()?.height();
        // What began with a snapshot, or is pruned, has no blocks or headers before.
        let first = self.store()?.first_header()?;
        let from = wish.from.max(first);
        // The chain has no blocks yet.
        let empty = from == 1 && to == 0;
        if to > stored || (from > to && !empty) {
            let reason = format!("blocks {from} to {to} were asked for, this node has {first} to {stored}");
            return Err(ArchiveError::Range { reason });
        }
        let tip = self.store()?.header(to)?.map(|header| header.id());
        let missing = || ArchiveError::Range { reason: format!("block {to} is not there") };
        Ok(Head {
            program: format!("masternode {}", env!("CARGO_PKG_VERSION")),
            made_ms,
            chain: self.genesis.chain_id(),
            from,
            to,
            tip: tip.ok_or_else(missing)?,
            state: outputs.is_some(),
            outputs: outputs.unwrap_or(0),
        })
    }

    fn state<W: Write>(
        &self,
        writer: &mut ArchiveWriter<W>,
        view: View,
        to: u64,
    ) -> Result<(), ArchiveError> {
        writer.item(&Item::State(Box::new(StateItem {
            header: view.header,
            registry: view.registry.parts(),
            committee: view.committee.members().to_vec(),
        })))?;
        self.committees(writer, to)?;
        let mut outputs = Vec::with_capacity(PAGE_OUTPUTS);
        for output in view.outputs {
            outputs.push(output?);
            if outputs.len() == PAGE_OUTPUTS {
                writer.item(&Item::Outputs(std::mem::replace(
                    &mut outputs,
                    Vec::with_capacity(PAGE_OUTPUTS),
                )))?;
            }
        }
        if outputs.is_empty() { Ok(()) } else { writer.item(&Item::Outputs(outputs)) }
    }

    fn committees<W: Write>(&self, writer: &mut ArchiveWriter<W>, to: u64) -> Result<(), ArchiveError> {
        let mut after = 0;
        while let Some((height, members)) = self.store()?.committee_change_after(after)? {
            // Blocks that came since may have changed it again.
            if height > to.saturating_add(1) {
                break;
            }
            writer.item(&Item::Committee { height, members })?;
            after = height;
        }
        Ok(())
    }

    fn block<W: Write>(&self, writer: &mut ArchiveWriter<W>, height: u64) -> Result<(), ArchiveError> {
        let store = self.store()?;
        let missing = || ArchiveError::Range { reason: format!("block {height} is not there") };
        if height < store.first_block()? {
            let (header, last_commit, commit, transactions) = store.kept_of(height)?.ok_or_else(missing)?;
            let item = HeaderItem { header, last_commit, commit, transactions };
            return writer.item(&Item::Header(Box::new(item)));
        }
        let (outline, commit) = store.outline(height)?.ok_or_else(missing)?;
        let transactions = store.transactions_up_to(height)?.ok_or_else(missing)?;
        let count = outline.header.tx_count;
        writer.item(&Item::Block(Box::new(BlockItem { outline, commit, transactions })))?;
        let mut from = 0;
        while from < count {
            let bodies = store.bodies(height, from, BODIES_BYTES)?;
            if bodies.is_empty() {
                return Err(missing());
            }
            from = from.saturating_add(u32::try_from(bodies.len()).unwrap_or(u32::MAX));
            writer.item(&Item::Bodies(bodies))?;
        }
        Ok(())
    }
}
