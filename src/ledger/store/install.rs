//! A database made of a state and blocks that were checked elsewhere, instead of block by block.
//!
//! It is made in a folder of its own and is no database before [`Installer::finish`] has synced it and
//! written its marker: a folder without the marker is what an interrupted installation left. Whoever
//! installs opens it afterwards and has [`Store::load`](crate::ledger::store::Store::load) recount it.
//! Absent: any check of what is installed.

use crate::durable::sync_folder;
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::store::batches::Batches;
use crate::ledger::store::failure::guarded;
use crate::ledger::store::folder::{StoreError, write_marker};
use crate::ledger::store::records::{BlockRecord, FIRST_KEY, FORMAT, outpoint_key, seal, utxo_value};
use crate::ledger::store::redo;
use crate::ledger::store::view::Kept;
use crate::ledger::store::{CHAIN_KEY, StoreOptions, Trees, open_trees};
use crate::primitives::block::Outline;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, Member};
use crate::primitives::encoding::encode;
use crate::primitives::transaction::{OutPoint, Transaction, Utxo};
use std::path::{Path, PathBuf};

/// What waits to be written is written when it has reached this many bytes, which bounds the memory taken.
const PENDING_BYTES_MAX: usize = 4 << 20;

/// A database in the making.
pub struct Installer {
    dir: PathBuf,
    genesis: Genesis,
    trees: Trees,
    pending: Batches,
    pending_bytes: usize,
    /// The first block that is whole.
    first: u64,
}

impl std::fmt::Debug for Installer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Installer({})", self.dir.display())
    }
}

impl Installer {
    /// Begins a database in `dir`, which must not exist.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn create(dir: &Path, genesis: &Genesis, options: StoreOptions) -> Result<Self, StoreError> {
        crate::ledger::store::containment::contain_panics();
        std::fs::create_dir(dir).map_err(|error| StoreError::io(dir, &error))?;
        let trees = guarded(dir, || open_trees(dir, options))?;
        let state = genesis.state();
        let mut pending = Batches::default();
        pending.record(&BlockRecord {
            header: state.header,
            last_commit: None,
            commit: None,
            transactions: 0,
        });
        pending.committee(1, &state.next_committee);
        let genesis = genesis.clone();
        Ok(Self { dir: dir.to_owned(), genesis, trees, pending, pending_bytes: 0, first: 1 })
    }

    /// Adds unspent outputs of the state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outputs(&mut self, outputs: &[(OutPoint, Utxo)]) -> Result<(), StoreError> {
        for (outpoint, utxo) in outputs {
            let (key, value) = (outpoint_key(outpoint), utxo_value(outpoint, utxo));
            self.pending.utxos.insert(key, value.as_slice());
            self.pending_bytes += key.len() + value.len();
        }
        self.write_if(PENDING_BYTES_MAX)
    }

    /// Adds the committee of a height that is not that of the height before.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn committee(&mut self, height: u64, members: Vec<Member>) -> Result<(), StoreError> {
        self.pending_bytes += members.len() * size_of::<Member>();
        self.pending.committee(height, &Committee::new(members));
        self.write_if(PENDING_BYTES_MAX)
    }

    /// Adds a block of which only this is kept; before all whole blocks.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn header(&mut self, (header, last_commit, commit, transactions): Kept) -> Result<(), StoreError> {
        self.first = header.height.saturating_add(1);
        self.pending_bytes += 1024;
        self.pending.record(&BlockRecord { header, last_commit, commit: Some(commit), transactions });
        self.write_if(PENDING_BYTES_MAX)
    }

    /// Adds the next block, the last of which is the tip; `transactions` are those of all blocks up to it, and
    /// `bodies` those of its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn block(
        &mut self,
        outline: Outline,
        commit: Qc,
        transactions: u64,
        bodies: &[Transaction],
    ) -> Result<(), StoreError> {
        let height = outline.header.height;
        self.pending_bytes += 1024 + outline.txids.len() * 64;
        self.pending.ids(height, outline.txids.iter().copied());
        self.pending_bytes += self.pending.bodies(height, bodies.iter());
        let (header, last_commit) = (outline.header, outline.last_commit);
        self.pending.record(&BlockRecord { header, last_commit, commit: Some(commit), transactions });
        self.write_if(PENDING_BYTES_MAX)
    }

    fn write_if(&mut self, bytes_max: usize) -> Result<(), StoreError> {
        if self.pending_bytes < bytes_max {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        guarded(&self.dir, || {
            redo::apply(&self.dir, &self.trees, pending)?;
            self.trees.db.flush()?;
            Ok(())
        })
    }

    /// Completes the database with the masternodes after the last block and the committee of that block, and
    /// makes it durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn finish(mut self, registry: &Registry, committee: &Committee) -> Result<(), StoreError> {
        let chain = self.genesis.chain_id();
        self.pending.registry(registry, committee, 0);
        self.pending.meta.insert(FIRST_KEY, seal(FIRST_KEY, &encode(&self.first)));
        self.pending.meta.insert(CHAIN_KEY, seal(CHAIN_KEY, &encode(&(chain, FORMAT))));
        self.write_if(0)?;
        let Self { dir, trees, .. } = self;
        guarded(&dir, || {
            trees.sync(&dir)?;
            drop(trees);
            Ok(())
        })?;
        sync_folder(&dir).map_err(|error| StoreError::io(&error.path, &error.source))?;
        write_marker(&dir, chain)
    }
}
