//! The state of the newest block as an archive wants it: masternodes and outputs of one height, and the
//! committees that led to it.

use crate::ledger::registry::Registry;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{Stream, chunk_key, committee_key, parse_committee_key, unseal};
use crate::ledger::store::scan::Scan;
use crate::primitives::block::Header;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, Member};
use std::ops::Bound;
use std::sync::Arc;

/// Header, certificate of the block before, own certificate, transactions up to it.
pub type Kept = (Header, Option<Qc>, Qc, u64);

/// The state after one block, while others are stored. Keeps the database open.
#[derive(Debug)]
pub struct View {
    /// Header of the block.
    pub header: Header,
    /// The masternodes after it.
    pub registry: Registry,
    /// Its committee.
    pub committee: Committee,
    /// Its outputs, ascending.
    pub outputs: Scan,
}

impl Store {
    /// The state after the last stored block. While the masternodes are read no block is stored: they are
    /// rewritten with each, and between the writing of a block and its sync those of the next one are there
    /// already. Cost: reads the masternodes, the outputs later.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn view(self: &Arc<Self>) -> Result<View, StoreError> {
        let _no_block_meanwhile = self.writing.lock();
        let outputs = self.scan()?;
        let height = outputs.height();
        let missing = || StoreError::corrupt(self.dir(), format!("block {height} is not there"));
        let header = self.header(height)?.ok_or_else(missing)?;
        let (registry, committee) = self.registry()?;
        if registry.root() != header.registry_root || committee.root() != header.committee_root {
            return Err(StoreError::corrupt(self.dir(), "the registry is not that of the last block"));
        }
        Ok(View { header, registry, committee, outputs })
    }

    /// The first block of which anything is kept: 1, unless the database began with a snapshot. The next one
    /// when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn first_header(&self) -> Result<u64, StoreError> {
        self.call(|trees| {
            let first = trees.chunks.range(chunk_key(1, Stream::Record, 0)..).next().transpose()?;
            let height = first.and_then(|(key, _)| Some(u64::from_be_bytes(*key.first_chunk()?)));
            Ok(height.map_or(1, |height| height.min(self.height().saturating_add(1))))
        })
    }

    /// What is kept for good of a block: header, certificate of the block before, its own certificate, and the
    /// number of transactions up to it. `None` for genesis and above the stored height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept_of(&self, height: u64) -> Result<Option<Kept>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(None) };
        let (header, last_commit, transactions) = (record.header, record.last_commit, record.transactions);
        Ok(record.commit.map(|commit| (header, last_commit, commit, transactions)))
    }

    /// Transactions in all blocks up to a height; `None` above the stored height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transactions_up_to(&self, height: u64) -> Result<Option<u64>, StoreError> {
        Ok(self.record(height)?.map(|record| record.transactions))
    }

    /// The first height after `after` at which the committee changed, with its committee; height 1 counts.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn committee_change_after(&self, after: u64) -> Result<Option<(u64, Vec<Member>)>, StoreError> {
        let damaged = || StoreError::corrupt(self.dir(), "a committee is incomplete or fails its checksum");
        let height = self.call(|trees| {
            let range = (Bound::Excluded(committee_key(after)), Bound::Included(committee_key(u64::MAX)));
            let Some((key, sealed)) = trees.meta.range(range).next().transpose()? else { return Ok(None) };
            let height = unseal(&key, &sealed).and_then(|_| parse_committee_key(&key));
            Ok(Some(height.ok_or_else(damaged)?))
        })?;
        // Of a block that is being written nothing is told.
        let stored = self.height().saturating_add(1);
        let Some(height) = height.filter(|height| *height <= stored) else { return Ok(None) };
        let committee = self.committee(height)?.ok_or_else(damaged)?;
        Ok(Some((height, committee.members().to_vec())))
    }
}
