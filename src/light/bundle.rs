//! A proof as a file: the headers from a trusted one to the one the proof rests on, and the proof.

use crate::light::block::{BlockProof, Link};
use crate::light::client::LightClient;
use crate::light::finality::{FinalityProof, Shown};
use crate::light::{BUNDLE_BYTES_MAX, ProofError};
use crate::primitives::block::Header;
use crate::primitives::encoding::{Decode, Encode, decode, encode};
use crate::primitives::hash::ChainId;
use crate::primitives::keys::Checker;
use crate::primitives::params::Params;
use crate::primitives::trusted::TrustedHeader;

/// First bytes of every bundle.
pub const MAGIC: [u8; 8] = *b"TCMNPROO";

/// The only version of the format.
pub const BUNDLE_VERSION: u16 = 1;

/// Either proof.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Proof {
    /// Final in an era whose block the prover did not have yet.
    Finality(Box<FinalityProof>),
    /// In a block.
    Block(Box<BlockProof>),
}

/// A proof with its way from a trusted header.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProofBundle {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`BUNDLE_VERSION`].
    pub version: u16,
    /// The chain; every signature below covers it.
    pub chain: ChainId,
    /// Consensus parameters, bound by the trusted header: they say how long it may be trusted.
    pub params: Params,
    /// The trusted header, there exactly when it is not the one in the proof.
    pub start: Option<Header>,
    /// Headers to verify before that of the proof, ascending. For a finality proof the last one is the
    /// header in the proof itself, unless that is the trusted one.
    pub links: Vec<Link>,
    /// The proof.
    pub proof: Proof,
}

impl ProofBundle {
    /// A bundle of this version; `start` as the field says.
    #[must_use]
    pub fn new(
        chain: ChainId,
        params: Params,
        start: Option<Header>,
        links: Vec<Link>,
        proof: Proof,
    ) -> Self {
        Self { magic: MAGIC, version: BUNDLE_VERSION, chain, params, start, links, proof }
    }

    /// The file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ProofError::NotABundle`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProofError> {
        let fault = |reason: String| Err(ProofError::NotABundle(reason));
        if bytes.len() > BUNDLE_BYTES_MAX {
            return fault(format!("{} bytes, the most is {BUNDLE_BYTES_MAX}", bytes.len()));
        }
        if !bytes.starts_with(&MAGIC) {
            return fault("it does not begin with TCMNPROO".to_owned());
        }
        let bundle: Self = match decode::<Self, { 2 * BUNDLE_BYTES_MAX }>(bytes) {
            Ok(bundle) => bundle,
            Err(error) => return fault(error.to_string()),
        };
        if bundle.version != BUNDLE_VERSION {
            return fault(format!("version {}, this program reads {BUNDLE_VERSION}", bundle.version));
        }
        Ok(bundle)
    }

    /// The header the proof rests on: of the block before the era, or of the block.
    #[must_use]
    pub fn header(&self) -> &Header {
        match &self.proof {
            Proof::Finality(proof) => &proof.header,
            Proof::Block(proof) => &proof.link.certified.header,
        }
    }

    /// Verifies everything from the trusted header on, with nothing else; the trust period is that of the
    /// parameters, which the trusted header binds. The era of a finality proof must be
    /// the one right after the last header of the bundle. `now_ms` is milliseconds since 1970.
    ///
    /// # Errors
    /// [`ProofError`] naming what is at fault.
    pub fn verify(
        &self,
        trusted: TrustedHeader,
        now_ms: u64,
        checker: Checker<'_>,
    ) -> Result<Shown, ProofError> {
        let first = self.start.as_ref().unwrap_or_else(|| self.header());
        if first.height != trusted.height {
            return Err(self.other_start(first.height, trusted.height));
        }
        let found = first.id();
        if found != trusted.id {
            return Err(ProofError::OtherHeader { height: first.height, found, expected: trusted.id });
        }
        if self.params.root() != first.params_root {
            return Err(ProofError::malformed("params", "not those the trusted header names"));
        }
        let rests_on_first = self.header().id() == found;
        if rests_on_first && (self.start.is_some() || !self.links.is_empty()) {
            return Err(ProofError::malformed("start", "there though the proof holds the trusted header"));
        }
        let mut client = LightClient::new(self.chain, self.params.trust_ms, first.clone());
        for link in &self.links {
            client.accept(link, now_ms, checker)?;
        }
        match &self.proof {
            Proof::Finality(proof) => client.finality(proof, now_ms, checker),
            Proof::Block(proof) => client.block(proof, now_ms, checker),
        }
    }

    /// Why a bundle that begins at one header is of no use to who trusts another.
    fn other_start(&self, found: u64, trusted: u64) -> ProofError {
        match &self.proof {
            Proof::Finality(proof) if proof.header.height < trusted => {
                ProofError::Stale { era: proof.era(), verified: trusted }
            }
            _ => ProofError::OtherStart { found, trusted },
        }
    }
}
