//! Keys of the simulation: fake ones for speed, real ed25519 in a share of the seeds.
//!
//! A fake signature is a hash of public key and digest. Nothing stops a program from forging one, so
//! the harness must not: only the owner of a key calls [`Key::sign`].

use masternode::consensus::signer::Signer;
use masternode::primitives::hash::Hash;
use masternode::primitives::keys::{PublicKey, SecretKey, Signature, SignatureCheck, verify_batch};

/// A key that signs votes or payments.
#[derive(Clone)]
pub enum Key {
    Fake(PublicKey),
    Real(Box<SecretKey>),
}

impl Key {
    /// The key number `index` of a kind of owner; the same in every run.
    pub fn new(real: bool, owner: &str, index: usize) -> Self {
        let seed = *blake3::hash(format!("{owner} {index}").as_bytes()).as_bytes();
        let secret = SecretKey::from_seed(&seed);
        if real { Self::Real(Box::new(secret)) } else { Self::Fake(secret.public()) }
    }
}

impl Signer for Key {
    fn public(&self) -> PublicKey {
        match self {
            Self::Fake(public) => *public,
            Self::Real(secret) => secret.public(),
        }
    }

    fn sign(&self, digest: &Hash) -> Signature {
        match self {
            Self::Fake(public) => fake_signature(public, digest),
            Self::Real(secret) => secret.sign(digest),
        }
    }
}

fn fake_signature(public: &PublicKey, digest: &Hash) -> Signature {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&public.0).update(&digest.0);
    let mut bytes = [0; 64];
    hasher.finalize_xof().fill(&mut bytes);
    Signature(bytes)
}

/// Checks signatures of the kind of keys in use.
pub fn checker(real: bool) -> fn(&[SignatureCheck]) -> Vec<bool> {
    if real { verify_batch } else { verify_fake }
}

fn verify_fake(checks: &[SignatureCheck]) -> Vec<bool> {
    checks.iter().map(|check| check.signature == fake_signature(&check.key, &check.digest)).collect()
}
