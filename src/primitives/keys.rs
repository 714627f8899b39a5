//! Ed25519 keys: signing (RFC 8032) and the one verification rule of the network (ZIP-215).
//!
//! Libraries disagree on crafted signatures, and so do single and batched verification within one
//! library; a network whose nodes disagree splits. Every signature is therefore verified here, by the
//! ZIP-215 rules (<https://zips.z.cash/zip-0215>), which batching does not change. Only 32-byte
//! domain-separated digests are ever signed.

use crate::primitives::encoding::{Decode, Encode};
use crate::primitives::hash::{Domain, Hash, KeyHash, ParseHexError, hash, parse_hex};
use ed25519_dalek::Signer as _;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A secret key; wiped from memory when dropped and never shown.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

/// A public key as its 32-byte encoding, not necessarily a point of the curve.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PublicKey(pub [u8; 32]);

/// A signature as its 64-byte encoding.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Signature(pub [u8; 64]);

/// One signature to be checked.
#[derive(Clone, Copy, Debug)]
pub struct SignatureCheck {
    /// Claimed signer.
    pub key: PublicKey,
    /// Digest that was signed.
    pub digest: Hash,
    /// The signature.
    pub signature: Signature,
}

impl SecretKey {
    /// The key of a 32-byte seed (RFC 8032 §5.1.5). The seed must come from a secure generator.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The seed, for the key file and the transport certificate.
    #[must_use]
    pub fn seed(&self) -> zeroize::Zeroizing<[u8; 32]> {
        zeroize::Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a digest; deterministic (RFC 8032).
    #[must_use]
    pub fn sign(&self, digest: &Hash) -> Signature {
        Signature(self.0.sign(&digest.0).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl PublicKey {
    /// What outputs to this key are locked to.
    #[must_use]
    pub fn key_hash(&self) -> KeyHash {
        KeyHash(hash(Domain::KEY, &[&self.0]))
    }

    /// Whether `signature` is this key's over `digest`, by the ZIP-215 rules. About 30 µs.
    #[must_use]
    pub fn verify(&self, digest: &Hash, signature: &Signature) -> bool {
        self.verify_message(&digest.0, signature)
    }

    /// As [`PublicKey::verify`] for a message of any length; only published test vectors and the
    /// transport handshake need one.
    #[must_use]
    pub fn verify_message(&self, message: &[u8], signature: &Signature) -> bool {
        VerificationKey::try_from(self.0)
            .and_then(|key| key.verify(&ed25519_zebra::Signature::from(signature.0), message))
            .is_ok()
    }

    /// Whether these bytes encode a point of the curve (by ZIP-215), so that a signature can verify.
    #[must_use]
    pub fn is_point(&self) -> bool {
        VerificationKey::try_from(self.0).is_ok()
    }

    /// The first eight hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

/// Checks many signatures at once, about 13 µs each in batches of 256; when the batch fails each is
/// checked singly, so the answer is exactly that of [`PublicKey::verify`] for every element.
#[must_use]
pub fn verify_batch(checks: &[SignatureCheck]) -> Vec<bool> {
    // Below this a batch costs as much as single checks.
    const WORTH_BATCHING: usize = 4;
    if checks.len() >= WORTH_BATCHING {
        let mut verifier = batch::Verifier::new();
        for check in checks {
            verifier.queue((
                VerificationKeyBytes::from(check.key.0),
                ed25519_zebra::Signature::from(check.signature.0),
                &check.digest.0,
            ));
        }
        if verifier.verify(rand::rng()).is_ok() {
            return vec![true; checks.len()];
        }
    }
    checks.iter().map(|check| check.key.verify(&check.digest, &check.signature)).collect()
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex::encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.short())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({}..)", hex::encode(self.0.first_chunk::<4>().unwrap_or(&[0; 4])))
    }
}

impl std::str::FromStr for PublicKey {
    type Err = ParseHexError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
