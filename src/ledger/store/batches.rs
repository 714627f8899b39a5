//! What one write changes, tree by tree.

use crate::ledger::apply::{BlockWrite, State};
use crate::ledger::registry::Registry;
use crate::ledger::store::records::{
    BlockRecord, CHUNK_BYTES, FIRST_KEY, REGISTRY_PLACE, RegistryRecord, Stream, TIP_KEY, TipRecord,
    chunk_key, committee_key, outpoint_key, place_key, place_value, seal, utxo_value,
};
use crate::primitives::committee::Committee;
use crate::primitives::encoding::encode;
use crate::primitives::hash::Txid;
use crate::primitives::transaction::{OutPoint, Transaction, Utxo};
use std::collections::HashMap;

/// All changes of one write, tree by tree.
#[derive(Default)]
pub struct Batches {
    pub meta: sled::Batch,
    pub utxos: sled::Batch,
    pub chunks: sled::Batch,
    pub places: sled::Batch,
}

impl Batches {
    /// The first state of a chain.
    pub fn of_genesis(state: State, utxos: &[(OutPoint, Utxo)]) -> Self {
        let mut batches = Self::default();
        for (outpoint, utxo) in utxos {
            batches.utxos.insert(outpoint_key(outpoint).as_slice(), utxo_value(outpoint, utxo).as_slice());
        }
        batches.meta.insert(FIRST_KEY, seal(FIRST_KEY, &encode(&1u64)));
        batches.registry(&state.registry, &state.committee, 0);
        batches.committee(1, &state.next_committee);
        let record = BlockRecord { header: state.header, last_commit: None, commit: None, transactions: 0 };
        batches.record(&record);
        batches
    }

    /// The state after a block whose transactions are not kept, without its unspent outputs.
    pub fn of_state(state: &State) -> Self {
        let mut batches = Self::default();
        let height = state.header.height;
        batches.registry(&state.registry, &state.committee, 0);
        batches.committee(height, &state.committee);
        batches.committee(height.saturating_add(1), &state.next_committee);
        batches.record(&BlockRecord {
            header: state.header.clone(),
            last_commit: None,
            commit: state.commit.clone(),
            transactions: state.transactions,
        });
        batches
    }

    /// Decided blocks, one after the other, and their effect; `registry_chunks` hold the registry before them.
    /// An output that one of them creates and another spends is never written.
    pub fn of_blocks(writes: &[&BlockWrite], registry_chunks: u32) -> Self {
        let mut batches = Self::default();
        let mut created: HashMap<OutPoint, Utxo> = HashMap::new();
        for write in writes {
            batches.block(write);
            for (outpoint, _) in &write.diff.spent {
                if created.remove(outpoint).is_none() {
                    batches.utxos.remove(outpoint_key(outpoint).as_slice());
                }
            }
            created.extend(write.diff.created.iter().copied());
        }
        for (outpoint, utxo) in &created {
            batches.utxos.insert(outpoint_key(outpoint).as_slice(), utxo_value(outpoint, utxo).as_slice());
        }
        if let Some(last) = writes.last() {
            batches.registry(&last.diff.registry, &last.diff.committee, registry_chunks);
        }
        batches
    }

    /// What is kept of a block for good.
    fn block(&mut self, BlockWrite { block, qc, diff }: &BlockWrite) {
        let height = diff.header.height;
        self.record(&BlockRecord {
            header: diff.header.clone(),
            last_commit: block.last_commit.clone(),
            commit: Some(qc.clone()),
            transactions: diff.transactions,
        });
        if diff.header.next_committee_root != diff.header.committee_root {
            self.committee(height.saturating_add(1), &diff.next_committee);
        }
        self.ids(height, block.transactions.iter().map(|transaction| transaction.id()));
        self.bodies(height, block.transactions.iter().map(|transaction| transaction.body()));
    }

    /// The ids of a block's transactions, in their order, and where each is found.
    pub(super) fn ids(&mut self, height: u64, txids: impl Iterator<Item = Txid>) {
        let mut ids = Vec::new();
        for (txid, index) in txids.zip(0u32..) {
            ids.extend_from_slice(txid.bytes());
            self.places.insert(place_key(&txid).as_slice(), place_value(height, index).as_slice());
        }
        self.stream(height, Stream::Ids, &ids);
    }

    /// The transactions of a block, and where each ends.
    pub(super) fn bodies<'a>(
        &mut self,
        height: u64,
        transactions: impl Iterator<Item = &'a Transaction>,
    ) -> usize {
        let (mut ends, mut bodies) = (Vec::new(), Vec::new());
        for transaction in transactions {
            bodies.extend_from_slice(&encode(transaction));
            // A body has at most 32 MiB, so its length fits.
            ends.extend_from_slice(&u32::try_from(bodies.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        self.stream(height, Stream::Ends, &ends);
        self.stream(height, Stream::Bodies, &bodies);
        bodies.len()
    }

    /// The record of a block, and that it is the last one.
    pub(super) fn record(&mut self, record: &BlockRecord) {
        let (height, block) = (record.header.height, record.header.id());
        self.stream(height, Stream::Record, &encode(record));
        self.meta.insert(TIP_KEY, seal(TIP_KEY, &encode(&TipRecord { height, block })));
    }

    /// The masternodes after the block, in place of those that filled `before` chunks.
    pub(super) fn registry(&mut self, registry: &Registry, committee: &Committee, before: u32) {
        let record = RegistryRecord { parts: registry.parts(), committee: committee.members().to_vec() };
        let bytes = encode(&record);
        self.stream(REGISTRY_PLACE, Stream::Registry, &bytes);
        let now = u32::try_from(bytes.len().div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX);
        for number in now..before {
            self.chunks.remove(&chunk_key(REGISTRY_PLACE, Stream::Registry, number));
        }
    }

    /// The committee of `height`, which is another than before: kept for good, for proofs.
    pub(super) fn committee(&mut self, height: u64, committee: &Committee) {
        self.stream(height, Stream::Committee, &encode(&committee.members().to_vec()));
        let key = committee_key(height);
        self.meta.insert(&key, seal(&key, &[]));
    }

    fn stream(&mut self, height: u64, stream: Stream, bytes: &[u8]) {
        for (chunk, number) in bytes.chunks(CHUNK_BYTES).zip(0u32..) {
            let key = chunk_key(height, stream, number);
            self.chunks.insert(&key, seal(&key, chunk));
        }
    }
}
