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

/// How signatures are checked: [`verify_batch`], or a fake one in simulations. The answers are in the
/// order of the checks.
pub type Checker<'a> = &'a dyn Fn(&[SignatureCheck]) -> Vec<bool>;

/// Checks many signatures at once, about 13 µs each in batches of 256. A batch that fails is halved
/// until the bad ones are found, so one bad signature costs little and the answer for every element is
/// exactly that of [`PublicKey::verify`].
#[must_use]
pub fn verify_batch(checks: &[SignatureCheck]) -> Vec<bool> {
    // Below this a batch costs as much as single checks.
    const WORTH_BATCHING: usize = 8;
    if checks.len() < WORTH_BATCHING {
        return checks.iter().map(|check| check.key.verify(&check.digest, &check.signature)).collect();
    }
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
    let (left, right) = checks.split_at(checks.len() / 2);
    let mut valid = verify_batch(left);
    valid.extend(verify_batch(right));
    valid
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

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
    use curve25519_dalek::scalar::Scalar;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha512};

    /// Non-canonical encodings of points of small order: `y` not reduced, or a sign without an `x`.
    const NON_CANONICAL: [&str; 6] = [
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];

    fn small_order_encodings() -> Vec<[u8; 32]> {
        let canonical = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes());
        canonical.chain(NON_CANONICAL.iter().map(|text| parse_hex(text).unwrap())).collect()
    }

    fn check(key: [u8; 32], digest: Hash, r: [u8; 32], s: [u8; 32]) -> SignatureCheck {
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(&s);
        SignatureCheck { key: PublicKey(key), digest, signature: Signature(signature) }
    }

    /// A signature valid by the equation with the cofactor only: key and nonce carry torsion.
    fn mixed_order(secret: u64, key_torsion: usize, nonce_torsion: usize, digest: Hash) -> SignatureCheck {
        let (a, r) = (Scalar::from(secret), Scalar::from(secret.wrapping_mul(31) | 1));
        let key = (ED25519_BASEPOINT_POINT * a + EIGHT_TORSION[key_torsion]).compress().to_bytes();
        let nonce = (ED25519_BASEPOINT_POINT * r + EIGHT_TORSION[nonce_torsion]).compress().to_bytes();
        let wide: [u8; 64] =
            Sha512::new().chain_update(nonce).chain_update(key).chain_update(digest.0).finalize().into();
        let s = r + Scalar::from_bytes_mod_order_wide(&wide) * a;
        check(key, digest, nonce, s.to_bytes())
    }

    fn single(check: &SignatureCheck) -> bool {
        check.key.verify(&check.digest, &check.signature)
    }

    #[test]
    fn the_vectors_of_rfc_8032_are_reproduced() {
        let mut checked = 0;
        let vectors = include_str!("../../tests/golden/rfc8032.txt");
        for line in vectors.lines().filter(|line| !line.starts_with('#')) {
            let [seed, public, message, signature] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let key = SecretKey::from_seed(&parse_hex(seed).unwrap());
            let message = hex::decode(message.trim_start_matches('-')).unwrap();
            assert_eq!(key.public().to_string(), public);
            assert_eq!(hex::encode(key.0.sign(&message).to_bytes()), signature);
            let signature = Signature(parse_hex(signature).unwrap());
            assert!(key.public().verify_message(&message, &signature));
            let mut other = message.clone();
            other.push(0);
            assert!(!key.public().verify_message(&other, &signature));
            checked += 1;
        }
        assert_eq!(checked, 5);
    }

    #[test]
    fn every_small_order_signature_is_valid_by_zip_215_alone_and_in_a_batch() {
        let encodings = small_order_encodings();
        let digest = Hash([7; 32]);
        let checks: Vec<_> = encodings
            .iter()
            .flat_map(|key| encodings.iter().map(|r| check(*key, digest, *r, [0; 32])))
            .collect();
        assert_eq!(checks.len(), 196);
        assert!(checks.iter().all(single));
        assert!(verify_batch(&checks).into_iter().all(|valid| valid));
    }

    #[test]
    fn signatures_with_torsion_are_valid_alone_and_in_a_batch_though_others_refuse_them() {
        let checks: Vec<_> = (0..64)
            .map(|i| mixed_order(u64::try_from(i).unwrap() + 1, i / 8, i % 8, Hash([9; 32])))
            .collect();
        assert!(checks.iter().all(single));
        assert!(verify_batch(&checks).into_iter().all(|valid| valid));
        // The reason this rule exists: the equation without the cofactor refuses most of them.
        let strict = |check: &&SignatureCheck| {
            use ed25519_dalek::Verifier as _;
            let signature = ed25519_dalek::Signature::from_bytes(&check.signature.0);
            let key = ed25519_dalek::VerifyingKey::from_bytes(&check.key.0);
            key.is_ok_and(|key| key.verify(&check.digest.0, &signature).is_ok())
        };
        assert!(checks.iter().filter(strict).count() < 32);
    }

    #[test]
    fn a_scalar_that_is_not_reduced_is_refused_alone_and_in_a_batch() {
        // The order of the group, little-endian: s + order has the same effect as s.
        let order: [u8; 32] =
            parse_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
        let key = SecretKey::from_seed(&[3; 32]);
        let good =
            SignatureCheck { key: key.public(), digest: Hash([1; 32]), signature: key.sign(&Hash([1; 32])) };
        let mut bad = good;
        let mut carry = 0u16;
        for (byte, add) in bad.signature.0[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            (*byte, carry) = (sum.to_le_bytes()[0], sum >> 8);
        }
        assert!(single(&good) && !single(&bad));
        assert_eq!(verify_batch(&[good, good, bad, good, good]), [true, true, false, true, true]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_batch_answers_exactly_as_single_checks_do(
            picks in prop::collection::vec((0..5u8, any::<u64>(), 0..8usize, 0..8usize, 0..64usize), 0..24),
        ) {
            let small = small_order_encodings();
            let checks: Vec<_> = picks.into_iter().map(|(kind, secret, i, j, at)| {
                let digest = Hash([secret.to_le_bytes()[0]; 32]);
                let mut made = match kind {
                    0 => check(small[i], digest, small[j], [0; 32]),
                    1 => mixed_order(secret, i, j, digest),
                    _ => mixed_order(secret, 0, 0, digest),
                };
                match kind {
                    3 => made.signature.0[at] ^= 1 << i,
                    4 => made.key.0[at / 2] ^= 1 << i,
                    _ => {}
                }
                made
            }).collect();
            let singly: Vec<bool> = checks.iter().map(single).collect();
            prop_assert_eq!(verify_batch(&checks), singly);
        }
    }
}
