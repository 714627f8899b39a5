//! Answers peers that begin with a snapshot, on a thread of its own: what is kept, manifests, parts, and
//! the headers that lead to them.
//!
//! What is not kept is answered with emptiness, so that nobody waits for it.

use crate::network::Network;
use crate::node::prover::Prover;
use crate::node::served::budget::Rate;
use crate::node::served::{Desk, Limits, Send, Served, behind_by, send_by};
use crate::node::snapshots::shelf::{Kept, Shelf, ShelfError};
use crate::primitives::encoding::encode;
use crate::primitives::hash::Hash;
use crate::primitives::message::{Message, SNAPSHOT_OFFERS_MAX};
use std::sync::Arc;

/// What one peer may ask for (protocol §7).
const LIMITS: Limits = Limits { of_peer_max: 8, rate: Rate { bytes: 64 << 20, burst_bytes: 64 << 20 } };
/// Bytes of links in one answer; a verifier asks for the rest.
const LINKS_BYTES_MAX: usize = 2 << 20;

/// Whether a message is a request for the server.
#[must_use]
pub const fn is_request(message: &Message) -> bool {
    matches!(
        message,
        Message::GetSnapshots
            | Message::GetSnapshotManifest { .. }
            | Message::GetSnapshotPart { .. }
            | Message::GetLinks { .. }
    )
}

/// See the module.
pub struct SnapshotServer {
    served: Served,
    shelf: Arc<Shelf>,
    prover: Arc<Prover>,
}

impl SnapshotServer {
    /// A server and where its requests go.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, prover: Arc<Prover>, network: &Arc<Network>) -> (Desk, Self) {
        let (desk, server) = Self::sending(shelf, prover, send_by(network));
        (desk, Self { served: server.served.unless(behind_by(network)), ..server })
    }

    /// A server whose answers go to `send`.
    #[must_use]
    pub fn sending(shelf: Arc<Shelf>, prover: Arc<Prover>, send: Send) -> (Desk, Self) {
        let (desk, served) = Served::new(LIMITS, send);
        (desk, Self { served, shelf, prover })
    }

    /// Answers until nobody asks any more.
    pub fn run(&self) {
        self.served.run(|request| self.answer(request));
    }

    pub(super) fn answer(&self, request: &Message) -> Option<Message> {
        Some(match request {
            Message::GetSnapshots => {
                let mut offers = self.shelf.offers();
                offers.truncate(SNAPSHOT_OFFERS_MAX);
                Message::Snapshots(offers)
            }
            Message::GetSnapshotManifest { manifest, page } => {
                let bytes = self.read(*manifest, |kept| kept.page(*page));
                Message::SnapshotManifest { manifest: *manifest, page: *page, bytes }
            }
            Message::GetSnapshotPart { manifest, part } => {
                let bytes = self.read(*manifest, |kept| kept.part(*part));
                Message::SnapshotPart { manifest: *manifest, part: *part, bytes }
            }
            Message::GetLinks { from, to } => Message::Links { from: *from, links: self.links(*from, *to) },
            _ => return None,
        })
    }

    /// Something of a snapshot; empty when it is not kept. What is damaged is not kept any more.
    fn read(
        &self,
        manifest: Hash,
        read: impl FnOnce(&Kept) -> Result<Option<Vec<u8>>, ShelfError>,
    ) -> Vec<u8> {
        let Some(kept) = self.shelf.find(manifest) else { return Vec::new() };
        match read(&kept) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be read");
                self.shelf.discard(&kept);
                Vec::new()
            }
        }
    }

    fn links(&self, from: u64, to: u64) -> Vec<Vec<u8>> {
        let links = match self.prover.links_between(from, to) {
            Ok(links) => links,
            Err(error) => {
                tracing::debug!(from, to, %error, "no links for a peer");
                return Vec::new();
            }
        };
        let mut bytes = 0usize;
        let encoded = links.iter().map(encode);
        let fits = |link: &Vec<u8>| {
            bytes = bytes.saturating_add(link.len());
            bytes <= LINKS_BYTES_MAX
        };
        encoded.take_while(fits).collect()
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
pub(super) mod tests;
