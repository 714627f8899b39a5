//! Addresses: a key hash for people, in bech32m (BIP-350) with a prefix that names the network.

use crate::primitives::chain::NetworkKind;
use crate::primitives::hash::{Hash, KeyHash};
use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use std::fmt;

/// Version byte before the key hash; other values are reserved.
const VERSION: u8 = 0;

/// Where an output can be sent: a key hash on one network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The network whose coins it receives.
    pub network: NetworkKind,
    /// Hash of the key that may spend them.
    pub key_hash: KeyHash,
}

/// Why a text is not an address.
#[derive(Debug, thiserror::Error)]
pub enum ParseAddressError {
    /// Wrong characters, length or checksum: most likely mistyped.
    #[error("`{text}` is not an address: {reason}")]
    Malformed {
        /// The refused text, cut to 100 characters.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address of another network.
    #[error("`{text}` is an address of {found}, this is {expected}")]
    WrongNetwork {
        /// The refused text.
        text: String,
        /// The network it is for.
        found: NetworkKind,
        /// The network it was given to.
        expected: NetworkKind,
    },
}

impl Address {
    /// Parses an address of any network.
    ///
    /// # Errors
    /// [`ParseAddressError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, ParseAddressError> {
        let malformed =
            |reason: String| ParseAddressError::Malformed { text: text.chars().take(100).collect(), reason };
        let parsed = CheckedHrpstring::new::<Bech32m>(text).map_err(|error| malformed(error.to_string()))?;
        let network = NetworkKind::ALL
            .into_iter()
            .find(|kind| parsed.hrp() == hrp(*kind))
            .ok_or_else(|| malformed(format!("unknown prefix `{}`", parsed.hrp())))?;
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let [VERSION, digest @ ..] = bytes.as_slice() else {
            return Err(malformed("unknown address version".to_owned()));
        };
        let digest: [u8; 32] =
            digest.try_into().map_err(|_| malformed(format!("{} bytes of data, not 33", bytes.len())))?;
        let address = Self { network, key_hash: KeyHash(Hash(digest)) };
        // Padding bits make several texts decode to one value; only the canonical one is accepted.
        if address.to_string() == text.to_lowercase() {
            Ok(address)
        } else {
            Err(malformed("non-zero padding".to_owned()))
        }
    }

    /// Parses an address of `network`.
    ///
    /// # Errors
    /// [`ParseAddressError`], also for an address of another network.
    pub fn parse_for(text: &str, network: NetworkKind) -> Result<Self, ParseAddressError> {
        let address = Self::parse(text)?;
        if address.network == network {
            return Ok(address);
        }
        Err(ParseAddressError::WrongNetwork {
            text: text.to_owned(),
            found: address.network,
            expected: network,
        })
    }
}

fn hrp(network: NetworkKind) -> Hrp {
    Hrp::parse_unchecked(match network {
        NetworkKind::Mainnet => "time",
        NetworkKind::Testnet => "ttime",
        NetworkKind::Devnet => "dtime",
    })
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut data = vec![VERSION];
        data.extend_from_slice(self.key_hash.bytes());
        match bech32::encode::<Bech32m>(hrp(self.network), &data) {
            Ok(text) => f.pad(&text),
            Err(_) => Err(fmt::Error),
        }
    }
}
