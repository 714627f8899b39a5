//! BLAKE3-256 with domain separation, and the named identifiers made of it (protocol §1).
//!
//! A domain is a BLAKE3 `derive_key` context, so digests of different kinds can never collide by
//! construction. Parts are concatenated without separators: every caller passes parts of fixed width
//! or canonical encodings, which delimit themselves.

use crate::primitives::encoding::{Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// What a digest is of. The contexts are part of the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Domain(&'static str);

impl Domain {
    pub const ERA: Self = Self("timecoin masternode v1 era tag");
    pub const BATCH: Self = Self("timecoin masternode v1 vote batch");
    pub const VOTE: Self = Self("timecoin masternode v1 checkpoint vote");
    pub const PROPOSAL: Self = Self("timecoin masternode v1 proposal");
    pub const LEAF: Self = Self("timecoin masternode v1 merkle leaf");
    pub const NODE: Self = Self("timecoin masternode v1 merkle node");
    pub const TXID: Self = Self("timecoin masternode v1 transaction id");
    pub const SPEND: Self = Self("timecoin masternode v1 spend authorisation");
    pub const AUTHORISATION: Self = Self("timecoin masternode v1 authorisation");
    pub const LOCK: Self = Self("timecoin masternode v1 lock key");
    pub const RESUME: Self = Self("timecoin masternode v1 resume nonce");
    pub const COINBASE: Self = Self("timecoin masternode v1 coinbase");
    pub const BLOCK: Self = Self("timecoin masternode v1 block id");
    pub const LAST_COMMIT: Self = Self("timecoin masternode v1 last commit");
    pub const KEY: Self = Self("timecoin masternode v1 key hash");
    pub const UTXO: Self = Self("timecoin masternode v1 utxo");
    pub const UTXO_SET: Self = Self("timecoin masternode v1 utxo set");
    pub const REGISTRY: Self = Self("timecoin masternode v1 registry");
    pub const COMMITTEE: Self = Self("timecoin masternode v1 committee");
    pub const MEMBER: Self = Self("timecoin masternode v1 committee member");
    pub const PARAMS: Self = Self("timecoin masternode v1 parameters");
    pub const GENESIS: Self = Self("timecoin masternode v1 genesis");
    pub const PEER: Self = Self("timecoin masternode v1 peer identity");
    pub const ENDPOINT: Self = Self("timecoin masternode v1 endpoint record");
    pub const SNAPSHOT: Self = Self("timecoin masternode v1 snapshot");
    pub const JOURNAL: Self = Self("timecoin masternode v1 journal record");
    pub const FLOOR: Self = Self("timecoin masternode v1 sign floor");

    /// A hasher that has absorbed nothing but the domain.
    #[must_use]
    pub fn hasher(self) -> blake3::Hasher {
        blake3::Hasher::new_derive_key(self.0)
    }
}

/// `H(domain, parts)`: BLAKE3-256 over the concatenation of `parts`.
#[must_use]
pub fn hash(domain: Domain, parts: &[&[u8]]) -> Hash {
    let mut hasher = domain.hasher();
    for part in parts {
        hasher.update(part);
    }
    Hash(*hasher.finalize().as_bytes())
}

/// A 32-byte digest; shown and serialised as 64 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Hash(pub [u8; 32]);

/// A text that is not the expected number of hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not {digits} hexadecimal digits")]
pub struct ParseHexError {
    /// The refused text, cut to 80 characters.
    pub text: String,
    /// How many digits were expected.
    pub digits: usize,
}

/// Parses exactly `N` bytes of hexadecimal.
///
/// # Errors
/// [`ParseHexError`] naming the text.
pub fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseHexError> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes)
        .map_err(|_| ParseHexError { text: text.chars().take(80).collect(), digits: 2 * N })?;
    Ok(bytes)
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Hash);

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub fn bytes(&self) -> &[u8; 32] {
                &self.0.0
            }

            /// The first eight hexadecimal digits, for people.
            #[must_use]
            pub fn short(&self) -> String {
                hex::encode(self.0.0.first_chunk::<4>().unwrap_or(&[0; 4]))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseHexError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )*};
}

identifiers! {
    /// Identity of a transaction: the hash of all of it, signatures included.
    Txid;
    /// Identity of a block: the hash of its header.
    BlockId;
    /// Era tag `E_h` (protocol §1): names one era of one history.
    EraTag;
    /// Identity of a network: the hash of its genesis.
    ChainId;
    /// Hash of a public key; what an output is locked to and what an address shows.
    KeyHash;
    /// Identity of a registry entry (a masternode), stable over key changes.
    MasternodeId;
}

/// `E_h = H("era", chain_id, h, id(block h-1))`.
#[must_use]
pub fn era_tag(chain: ChainId, height: u64, previous: BlockId) -> EraTag {
    EraTag(hash(Domain::ERA, &[chain.bytes(), &height.to_le_bytes(), previous.bytes()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_blake3_vectors_are_reproduced() {
        let vectors = include_str!("../../tests/golden/blake3.txt");
        let domain = Domain("BLAKE3 2019-12-27 16:29:52 test vectors context");
        let mut checked = 0;
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let [length, plain, derived] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let input: Vec<u8> = (0..=250u8).cycle().take(length.parse().unwrap()).collect();
            assert_eq!(blake3::hash(&input).to_hex().as_str(), plain);
            let (left, right) = input.split_at(input.len() / 3);
            assert_eq!(hash(domain, &[left, right]).to_string(), derived, "length {length}");
            checked += 1;
        }
        assert_eq!(checked, 12);
    }

    #[test]
    fn an_era_tag_depends_on_chain_height_and_history() {
        let chain = |byte| ChainId(Hash([byte; 32]));
        let block = |byte| BlockId(Hash([byte; 32]));
        let tag = era_tag(chain(1), 7, block(2));
        for other in
            [era_tag(chain(3), 7, block(2)), era_tag(chain(1), 8, block(2)), era_tag(chain(1), 7, block(3))]
        {
            assert_ne!(tag, other);
        }
    }
}
