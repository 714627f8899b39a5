//! What the store is asked for about single blocks and transactions: headers, outlines, bodies,
//! committees. Every byte read is checked against its checksum.

use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::ledger::store::records::{
    BlockRecord, CHUNK_BYTES, FIRST_KEY, Stream, chunk_key, committee_key, parse_committee_key, parse_place,
    place_key, stream_of, unseal,
};
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, Member};
use crate::primitives::encoding::decode_stored;
use crate::primitives::hash::{Hash, Txid};
use crate::primitives::transaction::Transaction;
use std::path::Path;

impl Store {
    /// The header at a height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn header(&self, height: u64) -> Result<Option<Header>, StoreError> {
        Ok(self.record(height)?.map(|record| record.header))
    }

    /// The header at a height with its certificate; `None` for genesis, which has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn certified(&self, height: u64) -> Result<Option<(Header, Qc)>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(None) };
        Ok(record.commit.map(|commit| (record.header, commit)))
    }

    /// Height of the first block that is kept whole: 1, unless the database began with a snapshot or old blocks
    /// were pruned.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn first_block(&self) -> Result<u64, StoreError> {
        let sealed = self.call(|trees| Ok(trees.meta.get(FIRST_KEY)?))?;
        let first = sealed.as_ref().and_then(|sealed| unseal(FIRST_KEY, sealed));
        first
            .and_then(|bytes| decode_stored(bytes).ok())
            .ok_or_else(|| StoreError::corrupt(&self.dir, "the record of the first block is damaged"))
    }

    /// A decided block without bodies, and its certificate; `None` above the stored height and for
    /// genesis, which has none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn outline(&self, height: u64) -> Result<Option<(Outline, Qc)>, StoreError> {
        if height < self.first_block()? {
            return Ok(None);
        }
        match self.read_outline(height) {
            Err(StoreError::NotKept { .. }) => Ok(None),
            read => read,
        }
    }

    pub(super) fn read_outline(&self, height: u64) -> Result<Option<(Outline, Qc)>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(None) };
        let Some(commit) = record.commit else { return Ok(None) };
        let length = u64::from(record.header.tx_count) * 32;
        let bytes = self.range(height, Stream::Ids, 0, length)?;
        let txids = bytes.as_chunks::<32>().0.iter().map(|id| Txid(Hash(*id))).collect();
        Ok(Some((Outline { header: record.header, last_commit: record.last_commit, txids }, commit)))
    }

    /// Bodies of a decided block from index `from` on, in block order: as many as fit `bytes_max`, but
    /// one at least unless there are no more or the block is not kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn bodies(&self, height: u64, from: u32, bytes_max: u64) -> Result<Vec<Transaction>, StoreError> {
        if height < self.first_block()? {
            return Ok(Vec::new());
        }
        match self.read_bodies(height, from, bytes_max) {
            Err(StoreError::NotKept { .. }) => Ok(Vec::new()),
            read => read,
        }
    }

    pub(super) fn read_bodies(
        &self,
        height: u64,
        from: u32,
        bytes_max: u64,
    ) -> Result<Vec<Transaction>, StoreError> {
        let Some(record) = self.record(height)? else { return Ok(Vec::new()) };
        if from >= record.header.tx_count {
            return Ok(Vec::new());
        }
        let ends = self.ends(height, from, record.header.tx_count)?;
        let Some((start, ends)) = ends.split_first() else { return Ok(Vec::new()) };
        let fitting = ends.iter().take_while(|end| *end - start <= bytes_max).count().max(1);
        let ends: Vec<u64> = ends.iter().take(fitting).copied().collect();
        let bytes = self.range(height, Stream::Bodies, *start, ends.last().copied().unwrap_or(*start))?;
        let mut from = 0usize;
        let mut bodies = Vec::with_capacity(ends.len());
        for end in ends {
            let to = usize::try_from(end - start).unwrap_or(usize::MAX);
            let body = bytes.get(from..to).and_then(|bytes| decode_stored(bytes).ok()).ok_or_else(|| {
                StoreError::corrupt(&self.dir, format!("a transaction of block {height} does not decode"))
            })?;
            bodies.push(body);
            from = to;
        }
        Ok(bodies)
    }

    /// Start of transaction `from` and ends of it and all that follow, within the bodies.
    fn ends(&self, height: u64, from: u32, count: u32) -> Result<Vec<u64>, StoreError> {
        let first = u64::from(from.saturating_sub(1)) * 4;
        let bytes = self.range(height, Stream::Ends, first, u64::from(count) * 4)?;
        let ends = bytes.as_chunks::<4>().0.iter().map(|end| u64::from(u32::from_le_bytes(*end)));
        let ends: Vec<u64> =
            if from == 0 { std::iter::once(0).chain(ends).collect() } else { ends.collect() };
        if ends.is_sorted() {
            return Ok(ends);
        }
        Err(StoreError::corrupt(&self.dir, format!("the index of block {height} is out of order")))
    }

    /// A transaction in a decided block, with its height.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn transaction(&self, txid: &Txid) -> Result<Option<(u64, Transaction)>, StoreError> {
        let Some(value) = self.call(|trees| Ok(trees.places.get(place_key(txid))?))? else { return Ok(None) };
        let (height, index) = parse_place(&value).ok_or_else(|| {
            StoreError::corrupt(&self.dir, format!("the place of transaction {txid} is malformed"))
        })?;
        if height > self.height() {
            return Ok(None);
        }
        let first = self.first_block()?;
        if height < first {
            return Err(StoreError::NotKept { height, first });
        }
        let body = self.read_bodies(height, index, 0)?.into_iter().next();
        body.filter(|body| body.id() == *txid).map(|body| Some((height, body))).ok_or_else(|| {
            StoreError::corrupt(&self.dir, format!("transaction {txid} is not in block {height}"))
        })
    }

    /// What is kept of a block for good; `None` above the stored height, though it is being written there.
    pub(super) fn record(&self, height: u64) -> Result<Option<BlockRecord>, StoreError> {
        if height > self.height() {
            return Ok(None);
        }
        let bytes = self.whole(height, Stream::Record, || damaged_block(&self.dir, height))?;
        if bytes.is_empty() {
            return Ok(None);
        }
        decode_stored(&bytes).map(Some).map_err(|_| damaged_block(&self.dir, height))
    }

    /// The committee of a height; `None` above the one after the last block.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn committee(&self, height: u64) -> Result<Option<Committee>, StoreError> {
        if height > self.height().saturating_add(1) {
            return Ok(None);
        }
        let damaged = || StoreError::corrupt(&self.dir, "a committee is incomplete or fails its checksum");
        let changed = self.call(|trees| {
            let last = trees.meta.range(committee_key(0)..=committee_key(height)).next_back().transpose()?;
            let Some((key, sealed)) = last else { return Ok(None) };
            let height = unseal(&key, &sealed).and_then(|_| parse_committee_key(&key));
            Ok(Some(height.ok_or_else(damaged)?))
        })?;
        let Some(changed) = changed else { return Ok(None) };
        let bytes = self.whole(changed, Stream::Committee, damaged)?;
        let members: Vec<Member> = decode_stored(&bytes).map_err(|_| damaged())?;
        Ok(Some(Committee::new(members)))
    }

    /// All bytes of a stream whose length is not kept; empty if there is none.
    pub(super) fn whole(
        &self,
        height: u64,
        stream: Stream,
        damaged: impl Fn() -> StoreError,
    ) -> Result<Vec<u8>, StoreError> {
        self.call(|trees| {
            let mut bytes = Vec::new();
            let first = chunk_key(height, stream, 0);
            for (entry, number) in trees.chunks.scan_prefix(stream_of(&first)).zip(0u32..) {
                let (key, sealed) = entry?;
                let payload = unseal(&key, &sealed).filter(|_| *key == chunk_key(height, stream, number));
                bytes.extend_from_slice(payload.ok_or_else(&damaged)?);
            }
            Ok(bytes)
        })
    }

    /// Bytes `from..to` of a stream that goes when its block is pruned: [`StoreError::NotKept`] when that has
    /// happened since its record was read.
    fn range(&self, height: u64, stream: Stream, from: u64, to: u64) -> Result<Vec<u8>, StoreError> {
        let chunk = CHUNK_BYTES as u64;
        let read = self.call(|trees| {
            let mut bytes = Vec::new();
            for number in from / chunk..to.div_ceil(chunk) {
                let key = chunk_key(height, stream, u32::try_from(number).unwrap_or(u32::MAX));
                let Some(sealed) = trees.chunks.get(key)? else { return Ok(None) };
                bytes.extend_from_slice(
                    unseal(&key, &sealed).ok_or_else(|| damaged_block(&self.dir, height))?,
                );
            }
            Ok(Some(bytes))
        })?;
        let Some(bytes) = read else { return self.lacking(height) };
        let skip = usize::try_from(from % chunk).unwrap_or(0);
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
        let part = bytes.get(skip..skip.saturating_add(length)).map(<[u8]>::to_vec);
        part.ok_or_else(|| damaged_block(&self.dir, height))
    }

    /// Something of a block is not there: the block was pruned a moment ago, or the database is damaged.
    fn lacking<T>(&self, height: u64) -> Result<T, StoreError> {
        let first = self.first_block()?;
        if height < first {
            return Err(StoreError::NotKept { height, first });
        }
        self.call(|_| Err(damaged_block(&self.dir, height).into()))
    }
}

fn damaged_block(dir: &Path, height: u64) -> StoreError {
    StoreError::corrupt(dir, format!("block {height} is incomplete or fails its checksum"))
}
