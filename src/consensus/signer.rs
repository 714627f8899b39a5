//! Who signs for the machine.

use crate::primitives::hash::Hash;
use crate::primitives::keys::{PublicKey, SecretKey, Signature};

/// A vote key. Signing is deterministic, so replay gives the same bytes.
pub trait Signer: Send {
    /// The public half.
    fn public(&self) -> PublicKey;

    /// Signs a digest.
    fn sign(&self, digest: &Hash) -> Signature;
}

impl Signer for SecretKey {
    fn public(&self) -> PublicKey {
        Self::public(self)
    }

    fn sign(&self, digest: &Hash) -> Signature {
        Self::sign(self, digest)
    }
}
