//! Where a masternode says it is reached, signed with its vote key.
//!
//! The registry may hold an endpoint, but changing it takes a transaction of the owner; this record is what the
//! running masternode itself says. It binds nothing on chain and proves only that the key said so: whether
//! somebody is there is for whoever dials to find out. The newest one of a key counts.

use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{ChainId, Domain, Hash, hash};
use crate::primitives::keys::{PublicKey, SecretKey, Signature};
use std::net::SocketAddr;

/// Most addresses in a record: one of each IP version, twice.
pub const RECORD_ADDRESSES_MAX: usize = 4;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EndpointRecord {
    /// Key of the masternode.
    pub vote_key: PublicKey,
    /// Network key of its process.
    pub network_key: PublicKey,
    /// Where it listens, at least one and at most [`RECORD_ADDRESSES_MAX`].
    pub addresses: Vec<SocketAddr>,
    /// Its wall clock when it signed, in milliseconds since 1970: the larger is the newer.
    pub time_ms: u64,
    /// The vote key's signature over [`EndpointRecord::digest`].
    pub signature: Signature,
}

impl EndpointRecord {
    /// Signs a record.
    #[must_use]
    pub fn sign(
        vote_key: &SecretKey,
        chain: ChainId,
        network_key: PublicKey,
        addresses: Vec<SocketAddr>,
        time_ms: u64,
    ) -> Self {
        let signature = Signature([0; 64]);
        let mut record = Self { vote_key: vote_key.public(), network_key, addresses, time_ms, signature };
        record.signature = vote_key.sign(&record.digest(chain));
        record
    }

    /// What is signed: `H("endpoint record", chain id, vote key, network key, time, addresses)`.
    #[must_use]
    pub fn digest(&self, chain: ChainId) -> Hash {
        let (time, addresses) = (self.time_ms.to_le_bytes(), encode(&self.addresses));
        hash(Domain::ENDPOINT, &[chain.bytes(), &self.vote_key.0, &self.network_key.0, &time, &addresses])
    }

    /// Whether its form is right: a few addresses, each of which could be one of a node. Cheap.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let usable = |address: &SocketAddr| {
            let ip = address.ip();
            address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
        };
        (1..=RECORD_ADDRESSES_MAX).contains(&self.addresses.len()) && self.addresses.iter().all(usable)
    }

    /// Whether the key has signed it for `chain`. Cost: one signature check.
    #[must_use]
    pub fn verify(&self, chain: ChainId) -> bool {
        self.vote_key.verify(&self.digest(chain), &self.signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> EndpointRecord {
        let network_key = SecretKey::from_seed(&[2; 32]).public();
        let addresses = vec!["198.51.100.7:24000".parse().unwrap(), "[2001:db8::7]:24000".parse().unwrap()];
        EndpointRecord::sign(
            &SecretKey::from_seed(&[1; 32]),
            chain(1),
            network_key,
            addresses,
            1_700_000_000_000,
        )
    }

    fn chain(byte: u8) -> ChainId {
        ChainId(Hash([byte; 32]))
    }

    #[test]
    fn a_signature_covers_every_field_and_the_chain() {
        let good = record();
        assert!(good.is_sound() && good.verify(chain(1)));
        assert!(!good.verify(chain(2)), "of another network");
        let other = SecretKey::from_seed(&[3; 32]).public();
        let moved = vec![good.addresses[0]];
        for forged in [
            EndpointRecord { vote_key: other, ..good.clone() },
            EndpointRecord { network_key: other, ..good.clone() },
            EndpointRecord { addresses: moved, ..good.clone() },
            EndpointRecord { time_ms: good.time_ms + 1, ..good.clone() },
        ] {
            assert!(!forged.verify(chain(1)), "{forged:?}");
        }
    }

    #[test]
    fn addresses_are_few_and_could_be_those_of_a_node() {
        let with = |texts: &[&str]| EndpointRecord {
            addresses: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..record()
        };
        assert!(with(&["127.0.0.1:1"]).is_sound());
        for bad in [&[][..], &["0.0.0.0:1"], &["198.51.100.7:0"], &["224.0.0.1:1"], &["198.51.100.7:1"; 5]] {
            assert!(!with(bad).is_sound(), "{bad:?}");
        }
    }

    #[test]
    fn the_digest_is_part_of_the_protocol() {
        assert_eq!(
            record().digest(chain(1)).to_string(),
            "0511c6becc3d8c680efb24757073e621cb13df85e487f4054673116af75b2052"
        );
    }
}
