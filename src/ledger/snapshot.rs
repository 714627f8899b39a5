//! Snapshots of the state after a block (protocol §7): how one is cut into parts, and how every part is
//! checked against the header it belongs to. Pure.
//!
//! A snapshot is a [`Manifest`] and its parts: first the registry, then the unspent outputs in ascending
//! order, [`OUTPUTS_PER_CHUNK`] to a part. All of it follows from the state and the block, so every node
//! makes the same one, byte for byte, and a part may come from anybody who holds the manifest of the same
//! digest. Whoever serves a part that its own manifest does not describe lies, and so does whoever serves
//! a manifest that the header does not fit; only that *single* sums of a fitting manifest are right shows
//! when a part arrives.
//!
//! Absent: whether the header is to be trusted (the light client's), files and peers (`node/snapshots`).

use crate::ledger::apply::State;
use crate::ledger::registry::{Registry, RegistryParts};
use crate::ledger::set_hash::{BYTES as SUM_BYTES, SetHash};
use crate::primitives::amount::Amount;
use crate::primitives::block::Header;
use crate::primitives::certificate::{CertificateError, Qc};
use crate::primitives::committee::{COMMITTEE_MAX, Committee, Member};
use crate::primitives::encoding::{Decode, Encode, decode, decode_stored, encode};
use crate::primitives::hash::{ChainId, Domain, Hash, KeyHash, MasternodeId, Txid, era_tag, hash};
use crate::primitives::keys::{Checker, PublicKey};
use crate::primitives::params::Params;
use crate::primitives::transaction::{OutPoint, Utxo};
use crate::primitives::vote::Step;
use std::sync::Arc;

/// The only version of a manifest.
pub const MANIFEST_VERSION: u16 = 1;
/// Bytes of an unspent output in a part: transaction id, index, units, key hash, height.
pub const OUTPUT_BYTES: usize = 32 + 4 + 8 + 32 + 8;
/// Outputs in each part but the last: 672 KiB, of which the sum in the manifest is 0.3 %.
pub const OUTPUTS_PER_CHUNK: usize = 8192;
/// Bytes of the registry in each of its parts but the last.
pub const REGISTRY_PART_BYTES: usize = 512 << 10;
/// Largest registry, so that a forged length allocates nothing: some 100,000 entries.
pub const REGISTRY_BYTES_MAX: u64 = 64 << 20;
/// Largest manifest: a set of 130 million outputs.
pub const MANIFEST_BYTES_MAX: usize = 32 << 20;
/// Greatest total weight of a committee.
const WEIGHT_MAX: u64 = 1 << 32;

/// Why a snapshot, or a part of one, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The manifest does not have the form of one.
    #[error("the snapshot manifest is malformed: {0}")]
    Malformed(String),
    /// The manifest describes another state than the header.
    #[error("the snapshot's {what} is {found}, header {height} says {expected}")]
    OtherState { height: u64, what: &'static str, found: String, expected: String },
    /// A part that is not the one the manifest describes.
    #[error("part {part} of the snapshot is wrong: {reason}")]
    WrongPart { part: u32, reason: &'static str },
    /// The certificate is not one of the block.
    #[error("the commit certificate of the snapshot's block proves nothing: {0}")]
    Commit(#[from] CertificateError),
    /// A signature of the certificate does not verify.
    #[error("a signature of the commit certificate of the snapshot's block is not valid")]
    BadSignature,
}

/// A committee member as `committee_root` binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Seat {
    /// Registry identity.
    pub id: MasternodeId,
    /// The key it voted with.
    pub vote_key: PublicKey,
    /// Its weight.
    pub weight: u64,
}

/// What a snapshot consists of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u16,
    /// Header of the block it is the state after.
    pub header: Header,
    /// The committee that decided that block, ordered by id; bound by `committee_root`.
    pub committee: Vec<Seat>,
    /// Bytes of the encoded registry.
    pub registry_bytes: u64,
    /// Digest of each part of the registry.
    pub registry: Vec<Hash>,
    /// Sum over the outputs of each chunk, all lanes little-endian, one after the other.
    pub sums: Vec<u8>,
}

/// A manifest of the right form, whose sums, committee and parameters are those of its header.
#[derive(Clone, Debug)]
pub struct Checked {
    manifest: Manifest,
    id: Hash,
    committee: Committee,
}

impl Manifest {
    /// The manifest of a state; `sums` are those of its chunks, in order.
    #[must_use]
    pub fn of(header: Header, committee: &Committee, registry: &[u8], sums: Vec<u8>) -> Self {
        let seat = |member: &Member| Seat { id: member.id, vote_key: member.vote_key, weight: member.weight };
        Self {
            version: MANIFEST_VERSION,
            header,
            committee: committee.members().iter().map(seat).collect(),
            registry_bytes: registry.len() as u64,
            registry: registry.chunks(REGISTRY_PART_BYTES).map(part_digest).collect(),
            sums,
        }
    }

    /// Digest of the manifest: what parts are asked for by.
    #[must_use]
    pub fn id(&self) -> Hash {
        hash(Domain::SNAPSHOT, &[&encode(self)])
    }

    /// The manifest in `bytes`.
    ///
    /// # Errors
    /// [`SnapshotError::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        decode::<Self, MANIFEST_BYTES_MAX>(bytes).map_err(|error| SnapshotError::Malformed(error.to_string()))
    }

    /// Checks everything that can be checked without a part: form, parameters, committee, and that the sums
    /// of all chunks add up to `utxo_hash`. Cost: adding 2 KiB a chunk.
    ///
    /// # Errors
    /// [`SnapshotError`]; whoever sent it as the manifest of this header lies.
    pub fn check(self, params: &Params) -> Result<Checked, SnapshotError> {
        let malformed = |reason: &str| Err(SnapshotError::Malformed(reason.to_owned()));
        if self.version != MANIFEST_VERSION {
            return malformed("its version is not known");
        }
        let parts = self.registry_bytes.div_ceil(REGISTRY_PART_BYTES as u64);
        if self.registry_bytes > REGISTRY_BYTES_MAX || self.registry.len() as u64 != parts {
            return malformed("its registry has not the parts of its size");
        }
        let chunks = self.header.utxo_count.div_ceil(OUTPUTS_PER_CHUNK as u64);
        let (sums, rest) = self.sums.as_chunks::<SUM_BYTES>();
        if sums.len() as u64 != chunks || !rest.is_empty() {
            return malformed("it has not one sum for each chunk of its outputs");
        }
        let mut whole = SetHash::new();
        sums.iter().for_each(|sum| whole.combine(&SetHash::from_bytes(sum)));
        self.same("sum over all chunks", whole.digest(), self.header.utxo_hash)?;
        let committee = self.committee()?;
        self.same("committee", committee.root(), self.header.committee_root)?;
        self.same("parameters", params.root(), self.header.params_root)?;
        Ok(Checked { id: self.id(), committee, manifest: self })
    }

    /// The committee without names and payouts, which its root does not bind.
    fn committee(&self) -> Result<Committee, SnapshotError> {
        let ordered = self.committee.is_sorted_by(|a, b| a.id < b.id);
        let weight = self.committee.iter().try_fold(0u64, |sum, seat| sum.checked_add(seat.weight));
        let usable = (1..=COMMITTEE_MAX).contains(&self.committee.len())
            && ordered
            && weight.is_some_and(|weight| weight <= WEIGHT_MAX);
        if !usable {
            return Err(SnapshotError::Malformed("its committee is none".to_owned()));
        }
        let member = |seat: &Seat| Member {
            id: seat.id,
            vote_key: seat.vote_key,
            weight: seat.weight,
            payout: KeyHash::default(),
            name: String::new(),
        };
        Ok(Committee::new(self.committee.iter().map(member).collect()))
    }

    fn same(&self, what: &'static str, found: Hash, expected: Hash) -> Result<(), SnapshotError> {
        if found == expected {
            return Ok(());
        }
        let (found, expected) = (found.to_string(), expected.to_string());
        Err(SnapshotError::OtherState { height: self.header.height, what, found, expected })
    }
}

impl Checked {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its digest.
    #[must_use]
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.manifest.header
    }

    /// Number of all parts, and of those of the registry, which come first.
    #[must_use]
    pub fn parts(&self) -> (u32, u32) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let registry = count(self.manifest.registry.len());
        (registry.saturating_add(count(self.manifest.sums.len() / SUM_BYTES)), registry)
    }

    /// Bytes of a part; `None` for one the snapshot does not have.
    #[must_use]
    pub fn part_bytes(&self, part: u32) -> Option<usize> {
        let (parts, registry) = self.parts();
        if part >= parts {
            return None;
        }
        let (whole, each, index) = match part.checked_sub(registry) {
            None => (self.manifest.registry_bytes, REGISTRY_PART_BYTES, part),
            Some(index) => {
                let bytes = self.manifest.header.utxo_count.checked_mul(OUTPUT_BYTES as u64)?;
                (bytes, OUTPUTS_PER_CHUNK * OUTPUT_BYTES, index)
            }
        };
        let left = whole.checked_sub(u64::from(index) * each as u64)?;
        usize::try_from(left.min(each as u64)).ok()
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let outputs = self.manifest.header.utxo_count.saturating_mul(OUTPUT_BYTES as u64);
        self.manifest.registry_bytes.saturating_add(outputs)
    }

    /// Checks a part as it arrives: a part of the registry against its digest, a chunk of outputs against
    /// its sum and its order. Cost: about 2 µs an output.
    ///
    /// # Errors
    /// [`SnapshotError::WrongPart`]; whoever offers this manifest and sent it lies.
    pub fn check_part(&self, part: u32, bytes: &[u8]) -> Result<(), SnapshotError> {
        let wrong = |reason| Err(SnapshotError::WrongPart { part, reason });
        if self.part_bytes(part) != Some(bytes.len()) {
            return wrong("it has not the length of that part");
        }
        let (_, registry) = self.parts();
        let Some(index) = part.checked_sub(registry) else {
            let digest = usize::try_from(part).ok().and_then(|part| self.manifest.registry.get(part));
            return if digest == Some(&part_digest(bytes)) { Ok(()) } else { wrong("its digest is another") };
        };
        let (mut set_hash, mut last) = (SetHash::new(), None);
        for output in outputs(bytes) {
            let Some((outpoint, utxo)) = output else { return wrong("an output is malformed") };
            if last.is_some_and(|last| last >= outpoint) {
                return wrong("its outputs are not in ascending order");
            }
            set_hash.add(&outpoint, &utxo);
            last = Some(outpoint);
        }
        let sums = self.manifest.sums.as_chunks::<SUM_BYTES>().0;
        let sum = usize::try_from(index).ok().and_then(|index| sums.get(index));
        if sum == Some(&set_hash.to_bytes()) { Ok(()) } else { wrong("its outputs have another sum") }
    }

    /// The registry in the bytes of its parts, one after the other.
    ///
    /// # Errors
    /// [`SnapshotError`]; then the manifest lied about its parts.
    pub fn registry(&self, bytes: &[u8]) -> Result<Registry, SnapshotError> {
        let parts: RegistryParts =
            decode_stored(bytes).map_err(|error| SnapshotError::Malformed(error.to_string()))?;
        let registry = Registry::from_parts(parts);
        let header = &self.manifest.header;
        self.manifest.same("registry", registry.root(), header.registry_root)?;
        self.manifest.same("next committee", registry.committee().root(), header.next_committee_root)?;
        Ok(registry)
    }

    /// Checks a commit certificate of the block: a quorum of the committee the header names signed it.
    ///
    /// # Errors
    /// [`SnapshotError`]; whoever offered the snapshot with it lies.
    pub fn check_commit(
        &self,
        chain: ChainId,
        commit: &Qc,
        checker: Checker<'_>,
    ) -> Result<(), SnapshotError> {
        let header = &self.manifest.header;
        if commit.block != header.id() || commit.step != Step::Precommit {
            return Err(SnapshotError::Malformed("its certificate is for something else".to_owned()));
        }
        let checks = commit.checks(era_tag(chain, header.height, header.previous), &self.committee)?;
        let answers = checker(&checks);
        let all = answers.len() == checks.len() && answers.iter().all(|valid| *valid);
        if all { Ok(()) } else { Err(SnapshotError::BadSignature) }
    }

    /// The end of the chain as the snapshot leaves it. Transactions are counted from here on, as nothing
    /// binds how many there were.
    #[must_use]
    pub fn state(&self, chain: ChainId, registry: Registry, commit: Qc) -> State {
        let header = self.manifest.header.clone();
        let mut set_hash = SetHash::new();
        let sums = self.manifest.sums.as_chunks::<SUM_BYTES>().0;
        sums.iter().for_each(|sum| set_hash.combine(&SetHash::from_bytes(sum)));
        let next_committee = Arc::new(registry.committee());
        State {
            chain,
            block: header.id(),
            header,
            commit: Some(commit),
            set_hash,
            committee: Arc::new(self.named_committee(&registry)),
            registry: Arc::new(registry),
            next_committee,
            transactions: 0,
        }
    }

    /// The committee of the block with what the registry after it still knows of its members.
    fn named_committee(&self, registry: &Registry) -> Committee {
        let named = |member: &Member| match registry.entry(member.id) {
            Some(entry) => Member { payout: entry.payout, name: entry.name.clone(), ..member.clone() },
            None => member.clone(),
        };
        Committee::new(self.committee.members().iter().map(named).collect())
    }
}

/// Digest of a part of the registry.
fn part_digest(bytes: &[u8]) -> Hash {
    hash(Domain::SNAPSHOT, &[&[0xff], bytes])
}

/// The encoded registry, as its parts hold it.
#[must_use]
pub fn registry_bytes(registry: &Registry) -> Vec<u8> {
    encode(&registry.parts())
}

/// Appends an output to a chunk.
pub fn write_output(chunk: &mut Vec<u8>, outpoint: &OutPoint, utxo: &Utxo) {
    chunk.extend_from_slice(outpoint.txid.bytes());
    chunk.extend_from_slice(&outpoint.index.to_le_bytes());
    chunk.extend_from_slice(&utxo.value.units().to_le_bytes());
    chunk.extend_from_slice(utxo.key_hash.bytes());
    chunk.extend_from_slice(&utxo.height.to_le_bytes());
}

/// The outputs of a chunk; `None` in place of one that is none.
pub fn outputs(chunk: &[u8]) -> impl Iterator<Item = Option<(OutPoint, Utxo)>> + '_ {
    chunk.chunks(OUTPUT_BYTES).map(read_output)
}

fn read_output(bytes: &[u8]) -> Option<(OutPoint, Utxo)> {
    let (txid, rest) = bytes.split_first_chunk::<32>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (units, rest) = rest.split_first_chunk::<8>()?;
    let (key_hash, height) = rest.split_first_chunk::<32>()?;
    let outpoint = OutPoint { txid: Txid(Hash(*txid)), index: u32::from_le_bytes(*index) };
    let utxo = Utxo {
        value: Amount::from_units(u64::from_le_bytes(*units))?,
        key_hash: KeyHash(Hash(*key_hash)),
        height: u64::from_le_bytes(height.try_into().ok()?),
    };
    Some((outpoint, utxo))
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
