//! Answers peers that begin with a snapshot, on a thread of its own: what is kept, manifests, parts, and
//! the headers that lead to them.
//!
//! A few requests of each peer wait; what is beyond is dropped, and the peer asks again or asks another.
//! Nobody gets more bytes a second than [`budget`](crate::node::snapshots::budget) allows: others' requests
//! go first meanwhile. What is not kept is answered with emptiness, so that nobody waits for it.

use crate::network::Network;
use crate::network::router::Recipients;
use crate::node::clock;
use crate::node::prover::Prover;
use crate::node::snapshots::budget::Budget;
use crate::node::snapshots::shelf::{Kept, Shelf, ShelfError};
use crate::primitives::encoding::encode;
use crate::primitives::hash::Hash;
use crate::primitives::message::{Message, PeerId, SNAPSHOT_OFFERS_MAX};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// Requests of all peers that may wait.
const REQUESTS_WAITING_MAX: usize = 256;
/// Requests of one peer that may wait.
pub const REQUESTS_OF_PEER_MAX: u32 = 8;
/// Bytes of links in one answer; a verifier asks for the rest.
const LINKS_BYTES_MAX: usize = 2 << 20;
/// What an answer costs besides its bytes, so that many empty ones are paid for too.
const ANSWER_BYTES: u64 = 4096;

/// Takes requests, few of each peer.
#[derive(Clone, Debug)]
pub struct Desk {
    queue: SyncSender<(PeerId, Message)>,
    waiting: Arc<Mutex<HashMap<PeerId, u32>>>,
}

impl Desk {
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

    /// Takes a request, or drops it.
    pub fn ask(&self, peer: PeerId, request: Message) {
        {
            let mut waiting = self.waiting.lock();
            let of_peer = waiting.entry(peer).or_default();
            if *of_peer >= REQUESTS_OF_PEER_MAX {
                return;
            }
            *of_peer += 1;
        }
        if self.queue.try_send((peer, request)).is_err() {
            answered(&self.waiting, peer);
        }
    }
}

fn answered(waiting: &Mutex<HashMap<PeerId, u32>>, peer: PeerId) {
    let mut waiting = waiting.lock();
    if let Some(of_peer) = waiting.get_mut(&peer) {
        *of_peer = of_peer.saturating_sub(1);
        if *of_peer == 0 {
            waiting.remove(&peer);
        }
    }
}

/// Whom answers go to.
pub type Send = Box<dyn Fn(PeerId, &Message) + std::marker::Send>;

/// Sends over the network.
#[must_use]
pub fn send_by(network: &Arc<Network>) -> Send {
    let network = Arc::clone(network);
    Box::new(move |peer, message| network.send(Recipients::Peer(peer), message))
}

/// See the module.
pub struct SnapshotServer {
    requests: Receiver<(PeerId, Message)>,
    waiting: Arc<Mutex<HashMap<PeerId, u32>>>,
    shelf: Arc<Shelf>,
    prover: Arc<Prover>,
    send: Send,
}

impl SnapshotServer {
    /// A server and where its requests go.
    #[must_use]
    pub fn new(shelf: Arc<Shelf>, prover: Arc<Prover>, network: &Arc<Network>) -> (Desk, Self) {
        Self::sending(shelf, prover, send_by(network))
    }

    /// A server whose answers go to `send`.
    #[must_use]
    pub fn sending(shelf: Arc<Shelf>, prover: Arc<Prover>, send: Send) -> (Desk, Self) {
        let (queue, requests) = std::sync::mpsc::sync_channel(REQUESTS_WAITING_MAX);
        let waiting = Arc::default();
        let desk = Desk { queue, waiting: Arc::clone(&waiting) };
        (desk, Self { requests, waiting, shelf, prover, send })
    }

    /// Answers until nobody asks any more.
    pub fn run(&self) {
        let (mut pending, mut budget) = (VecDeque::new(), Budget::default());
        loop {
            while let Ok(request) = self.requests.try_recv() {
                pending.push_back(request);
            }
            let now_us = clock::monotonic_us();
            let ready = pending.iter().position(|(peer, _)| budget.wait(peer, now_us).is_zero());
            if let Some((peer, request)) = ready.and_then(|at| pending.remove(at)) {
                let bytes = self.respond(peer, &request);
                budget.spend(peer, bytes, now_us);
                continue;
            }
            let wait = pending.iter().map(|(peer, _)| budget.wait(peer, now_us)).min();
            match self.requests.recv_timeout(wait.unwrap_or(Duration::from_secs(3600))) {
                Ok(request) => pending.push_back(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Answers a request; the bytes it cost.
    fn respond(&self, peer: PeerId, request: &Message) -> u64 {
        let mut bytes = ANSWER_BYTES;
        if let Some(answer) = self.answer(request) {
            if let Message::SnapshotManifest { bytes: sent, .. } | Message::SnapshotPart { bytes: sent, .. } =
                &answer
            {
                bytes = bytes.saturating_add(sent.len() as u64);
            }
            if let Message::Links { links, .. } = &answer {
                bytes = links.iter().fold(bytes, |sum, link| sum.saturating_add(link.len() as u64));
            }
            (self.send)(peer, &answer);
        }
        answered(&self.waiting, peer);
        bytes
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
