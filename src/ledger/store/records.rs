//! What the store keeps under which key, as bytes; nothing here touches a disk.
//!
//! Everything of a block, and the registry after the last one, is a byte stream, cut into chunks of
//! [`CHUNK_BYTES`]: small enough that a full database leaf stays below the size from which sled writes
//! separate files, which it never syncs. Every chunk and the tip carry a checksum over key and value,
//! because sled's own checks miss some damage and swapped values altogether.

use crate::ledger::registry::RegistryParts;
use crate::primitives::amount::Amount;
use crate::primitives::block::Header;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Member;
use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{BlockId, Hash, KeyHash, Txid};
use crate::primitives::transaction::{OutPoint, Utxo};

/// Version of everything in this file. A change of layout needs a new number.
pub const FORMAT: u32 = 5;

/// The oldest version that [`migrate`](super::migrate) brings to the present one.
pub const OLDEST_FORMAT: u32 = 3;

/// Key of the tip in the meta tree; its value is sealed.
pub const TIP_KEY: &[u8] = b"tip";

/// Key in the meta tree of the height of the first block kept whole; its value is sealed.
pub const FIRST_KEY: &[u8] = b"first block";

/// Payload of a chunk. A leaf of sled 0.34 holds up to 20 items before it splits, and 20 of these stay
/// below the 128 KiB from which it would spill into a separate file.
pub const CHUNK_BYTES: usize = 5 << 10;

/// Bytes of a checksum: damage, not forgery, is what it is against.
const CHECKSUM_BYTES: usize = 16;

/// The byte streams of a block, and the one beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The encoded [`BlockRecord`].
    Record = 0,
    /// Transaction ids, 32 bytes each, ascending.
    Ids = 1,
    /// End of each transaction in the bodies, 4 bytes little-endian each.
    Ends = 2,
    /// Encoded transactions one after the other.
    Bodies = 3,
    /// The encoded [`RegistryRecord`] after the last block, under [`REGISTRY_PLACE`] instead of a
    /// height.
    Registry = 4,
    /// The encoded members of the committee of a height and of those after it until the next change;
    /// [`committee_key`] finds the change.
    Committee = 5,
}

/// Prefix of the keys in the meta tree that tell at which heights the committee changed.
const COMMITTEE_PREFIX: [u8; 10] = *b"committee ";

/// Key in the meta tree that says that the committee of `height` is not that of the height before.
pub fn committee_key(height: u64) -> [u8; 18] {
    let mut key = [0; 18];
    let parts = COMMITTEE_PREFIX.into_iter().chain(height.to_be_bytes());
    key.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    key
}

/// The height of a [`committee_key`]; `None` for other bytes.
pub fn parse_committee_key(key: &[u8]) -> Option<u64> {
    let height = key.strip_prefix(&COMMITTEE_PREFIX)?;
    Some(u64::from_be_bytes(height.try_into().ok()?))
}

/// Where the registry is: at the height of genesis, rewritten with each block.
pub const REGISTRY_PLACE: u64 = 0;

/// The masternodes after the last block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RegistryRecord {
    /// What the registry is made of.
    pub parts: RegistryParts,
    /// Committee of the last block, which signs for the next block's last commit.
    pub committee: Vec<Member>,
}

/// What is kept of a block besides its transactions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BlockRecord {
    /// Its header.
    pub header: Header,
    /// The certificate in it.
    pub last_commit: Option<Qc>,
    /// Its own certificate; `None` for genesis.
    pub commit: Option<Qc>,
    /// Transactions in all blocks up to this one.
    pub transactions: u64,
}

/// The last block, rewritten with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TipRecord {
    /// Its height.
    pub height: u64,
    /// Its id.
    pub block: BlockId,
}

/// Key of a chunk: height, stream, number, each big-endian so that they sort.
pub fn chunk_key(height: u64, stream: Stream, number: u32) -> [u8; 13] {
    let mut key = [0; 13];
    let parts = height.to_be_bytes().into_iter().chain([stream as u8]).chain(number.to_be_bytes());
    key.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    key
}

/// The part of a chunk's key that all chunks of its stream share.
pub fn stream_of(key: &[u8; 13]) -> &[u8] {
    key.get(..9).unwrap_or(key)
}

/// `value` with the checksum over `key` and itself.
pub fn seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + CHECKSUM_BYTES);
    sealed.extend_from_slice(value);
    sealed.extend_from_slice(&checksum(key, value));
    sealed
}

/// The value in `sealed`; `None` when the checksum does not fit.
pub fn unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, sum) = sealed.split_last_chunk::<CHECKSUM_BYTES>()?;
    (*sum == checksum(key, value)).then_some(value)
}

fn checksum(key: &[u8], value: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// Bytes of a transaction id in the key of an output. Sled keeps keys of up to 22 bytes in place and
/// allocates for each longer one, again and again; 144 bits leave no collision to be found.
const ID_IN_KEY: usize = 18;

/// Key of an unspent output: the first 18 bytes of its transaction id, and its index.
pub fn outpoint_key(outpoint: &OutPoint) -> [u8; 22] {
    let mut key = [0; 22];
    let id = outpoint.txid.bytes().iter().copied().take(ID_IN_KEY);
    key.iter_mut().zip(id.chain(outpoint.index.to_be_bytes())).for_each(|(to, from)| *to = from);
    key
}

/// An unspent output under its key: the rest of the transaction id, then the output. Without a
/// checksum: the set hash covers all of it.
pub fn utxo_value(outpoint: &OutPoint, utxo: &Utxo) -> [u8; 62] {
    let mut value = [0; 62];
    let rest = outpoint.txid.bytes().iter().copied().skip(ID_IN_KEY);
    let parts = rest.chain(utxo.value.units().to_le_bytes());
    let parts = parts.chain(*utxo.key_hash.bytes()).chain(utxo.height.to_le_bytes());
    value.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    value
}

/// The output of a key and its value; `None` for other bytes.
pub fn parse_utxo(key: &[u8], value: &[u8]) -> Option<(OutPoint, Utxo)> {
    let (first, index) = key.split_first_chunk::<ID_IN_KEY>()?;
    let (rest, value) = value.split_first_chunk::<{ 32 - ID_IN_KEY }>()?;
    let mut txid = [0; 32];
    txid.iter_mut().zip(first.iter().chain(rest)).for_each(|(to, from)| *to = *from);
    let outpoint = OutPoint { txid: Txid(Hash(txid)), index: u32::from_be_bytes(index.try_into().ok()?) };
    let (units, value) = value.split_first_chunk::<8>()?;
    let (key_hash, height) = value.split_first_chunk::<32>()?;
    let utxo = Utxo {
        value: Amount::from_units(u64::from_le_bytes(*units))?,
        key_hash: KeyHash(Hash(*key_hash)),
        height: u64::from_le_bytes(height.try_into().ok()?),
    };
    Some((outpoint, utxo))
}

/// Key of the place of a transaction: the first 20 bytes of its id, short for the same reason. The
/// reader compares the whole id with the transaction it finds.
pub fn place_key(txid: &Txid) -> [u8; 20] {
    let mut key = [0; 20];
    key.iter_mut().zip(txid.bytes()).for_each(|(to, from)| *to = *from);
    key
}

/// Where a transaction is: height and index in the block.
pub fn place_value(height: u64, index: u32) -> [u8; 12] {
    let mut value = [0; 12];
    let parts = height.to_be_bytes().into_iter().chain(index.to_be_bytes());
    value.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    value
}

/// Height and index of a place; `None` for other bytes.
pub fn parse_place(value: &[u8]) -> Option<(u64, u32)> {
    let (height, index) = value.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*height), u32::from_be_bytes(index.try_into().ok()?)))
}
