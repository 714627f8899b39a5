//! Who is connected while a snapshot is fetched, what each offers, and who was found to lie.
//!
//! The connections of that time are those of the node afterwards, so the events of them are kept and handed
//! on. Nothing is asked of a liar again, and nothing it offers counts. Bounded by the connections.

use crate::network::bans::offence::{Charge, Offence};
use crate::network::router::Recipients;
use crate::network::{Network, NetworkEvent};
use crate::node::clock;
use crate::primitives::hash::{BlockId, Hash};
use crate::primitives::message::{Message, PeerId, SnapshotOffer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Most peers that are remembered as useless, and manifests as discarded.
const REMEMBERED_MAX: usize = 4096;

/// How long a peer may take to say what it keeps before nobody waits for it.
const OFFER_MAX_US: u64 = 3_000_000;

/// What fetching needs of the network.
pub trait Wire: Send + Sync {
    /// Sends a message to one peer.
    fn send(&self, peer: PeerId, message: &Message);
    /// Ends the connection to a peer that lied.
    fn cut_off(&self, peer: PeerId, charge: &Charge);
}

impl Wire for Network {
    fn send(&self, peer: PeerId, message: &Message) {
        Self::send(self, Recipients::Peer(peer), message);
    }

    fn cut_off(&self, peer: PeerId, charge: &Charge) {
        self.charge(peer, charge);
    }
}

/// What happened on the network.
#[derive(Debug)]
pub enum Happened {
    /// A peer is there.
    Joined,
    /// A peer is gone.
    Left(PeerId),
    /// A peer said what it keeps.
    Offered(PeerId),
    /// Another answer.
    Answer(PeerId, Message),
    /// Nothing, until the deadline.
    Nothing,
}

/// The node stops.
#[derive(Debug)]
pub struct Stopping;

/// What a snapshot is discarded by: its offer without what honest peers differ in. The manifest alone would
/// let a liar name an honest one beside a block that is not its.
type Which = (u64, BlockId, Hash);

fn which(offer: &SnapshotOffer) -> Which {
    (offer.height, offer.block, offer.manifest)
}

#[derive(Debug)]
struct Peer {
    up: NetworkEvent,
    height: u64,
    /// When it was asked what it keeps.
    asked_us: u64,
    /// `None` until it has answered.
    offers: Option<Vec<SnapshotOffer>>,
}

/// See the module.
pub struct Peers {
    pub wire: Arc<dyn Wire>,
    events: mpsc::Receiver<NetworkEvent>,
    stop: CancellationToken,
    connected: BTreeMap<PeerId, Peer>,
    useless: BTreeSet<PeerId>,
    discarded: BTreeSet<Which>,
    /// The snapshot that is tried, and everybody who has offered it since.
    tried: Option<(Which, BTreeSet<PeerId>)>,
    /// Who has offered a snapshot that was gone later.
    fickle: BTreeSet<PeerId>,
    /// When the last peer came.
    changed_us: u64,
}

impl Peers {
    /// Nobody yet.
    #[must_use]
    pub fn new(wire: Arc<dyn Wire>, events: mpsc::Receiver<NetworkEvent>, stop: CancellationToken) -> Self {
        Self {
            wire,
            events,
            stop,
            connected: BTreeMap::new(),
            useless: BTreeSet::new(),
            discarded: BTreeSet::new(),
            tried: None,
            fickle: BTreeSet::new(),
            changed_us: clock::monotonic_us(),
        }
    }

    /// The channel, and the connections that stand, as the node is to learn of them.
    #[must_use]
    pub fn into_events(self) -> (mpsc::Receiver<NetworkEvent>, Vec<NetworkEvent>) {
        (self.events, self.connected.into_values().map(|peer| peer.up).collect())
    }

    /// Waits for something to happen, until a time of the monotonic clock.
    ///
    /// # Errors
    /// [`Stopping`].
    pub async fn happen(&mut self, until_us: u64) -> Result<Happened, Stopping> {
        let until = Instant::from_std(clock::instant_of(until_us));
        loop {
            let received = tokio::select! {
                () = self.stop.cancelled() => return Err(Stopping),
                received = timeout_at(until, self.events.recv()) => received,
            };
            match received {
                Err(_) => return Ok(Happened::Nothing),
                Ok(None) => return Err(Stopping),
                Ok(Some(event)) => {
                    if let Some(happened) = self.take(event) {
                        return Ok(happened);
                    }
                }
            }
        }
    }

    fn take(&mut self, event: NetworkEvent) -> Option<Happened> {
        match event {
            NetworkEvent::Up { peer, height, .. } => {
                let asked_us = clock::monotonic_us();
                self.connected.insert(peer, Peer { up: event, height, asked_us, offers: None });
                self.changed_us = asked_us;
                self.wire.send(peer, &Message::GetSnapshots);
                Some(Happened::Joined)
            }
            NetworkEvent::Down { peer, .. } => {
                self.connected.remove(&peer);
                Some(Happened::Left(peer))
            }
            NetworkEvent::Refused { address, reason } => {
                tracing::warn!(%address, %reason, "connection refused");
                None
            }
            NetworkEvent::Bans(news) => {
                tracing::warn!(?news, "bans have changed");
                None
            }
            NetworkEvent::StoodStill { .. } | NetworkEvent::Reachability(_) => None,
            NetworkEvent::Message { peer, message } => self.message(peer, message),
        }
    }

    fn message(&mut self, peer: PeerId, message: Message) -> Option<Happened> {
        let connected = self.connected.get_mut(&peer)?;
        match message {
            Message::Snapshots(mut offers) => {
                offers.truncate(crate::primitives::message::SNAPSHOT_OFFERS_MAX);
                if let Some((tried, offering)) = &mut self.tried
                    && offers.iter().any(|offer| which(offer) == *tried)
                    && offering.len() < REMEMBERED_MAX
                {
                    offering.insert(peer);
                }
                connected.offers = Some(offers);
                Some(Happened::Offered(peer))
            }
            Message::Status(status) => {
                connected.height = connected.height.max(status.height.saturating_sub(1));
                None
            }
            // This node has nothing yet, and nobody should wait for it.
            Message::GetSnapshots => {
                self.wire.send(peer, &Message::Snapshots(Vec::new()));
                None
            }
            Message::GetBlock { height } => {
                self.wire.send(peer, &Message::BlockNotKept { height, oldest: u64::MAX });
                None
            }
            answer @ (Message::SnapshotManifest { .. }
            | Message::SnapshotPart { .. }
            | Message::Headers(_)
            | Message::Links { .. }) => Some(Happened::Answer(peer, answer)),
            _ => None,
        }
    }

    /// Asks everybody anew what they keep.
    pub fn ask_again(&mut self) {
        for (peer, connected) in &mut self.connected {
            connected.offers = None;
            connected.asked_us = clock::monotonic_us();
            self.wire.send(*peer, &Message::GetSnapshots);
        }
        self.changed_us = clock::monotonic_us();
    }

    /// Whether there are peers, none came within `quiet_us`, and each has said what it keeps, or was asked
    /// [`OFFER_MAX_US`] ago.
    #[must_use]
    pub fn all_have_answered(&self, quiet_us: u64) -> bool {
        let now_us = clock::monotonic_us();
        let quiet = now_us.saturating_sub(self.changed_us) >= quiet_us;
        let answered = |(id, peer): (&PeerId, &Peer)| {
            let late = now_us.saturating_sub(peer.asked_us) >= OFFER_MAX_US;
            peer.offers.is_some() || late || self.useless.contains(id)
        };
        quiet && !self.connected.is_empty() && self.connected.iter().all(answered)
    }

    /// The greatest height anybody says to be at.
    #[must_use]
    pub fn best_height(&self) -> u64 {
        self.connected.values().map(|peer| peer.height).max().unwrap_or(0)
    }

    /// Offers that count, with whom they are of.
    pub fn offers(&self) -> impl Iterator<Item = (PeerId, &SnapshotOffer)> {
        let useful = self.connected.iter().filter(|(peer, _)| !self.useless.contains(*peer));
        let offers = useful
            .flat_map(|(peer, connected)| connected.offers.iter().flatten().map(move |offer| (*peer, offer)));
        offers.filter(|(_, offer)| !self.discarded.contains(&which(offer)))
    }

    /// Who offers this snapshot.
    #[must_use]
    pub fn sources(&self, manifest: Hash) -> Vec<PeerId> {
        self.offers().filter(|(_, offer)| offer.manifest == manifest).map(|(peer, _)| peer).collect()
    }

    /// Whom to ask about headers: who offers a snapshot of this block first.
    #[must_use]
    pub fn guides(&self, block: BlockId) -> Vec<PeerId> {
        let first = self.offers().filter(|(_, offer)| offer.block == block).map(|(peer, _)| peer);
        let mut guides: Vec<PeerId> = first.collect();
        let others = self.connected.keys().filter(|peer| !self.useless.contains(*peer));
        let others: Vec<PeerId> = others.filter(|peer| !guides.contains(*peer)).copied().collect();
        guides.extend(others);
        guides
    }

    /// A peer no longer keeps a snapshot.
    pub fn no_longer_keeps(&mut self, peer: PeerId, manifest: Hash) {
        if let Some(offers) = self.connected.get_mut(&peer).and_then(|peer| peer.offers.as_mut()) {
            offers.retain(|offer| offer.manifest != manifest);
        }
    }

    /// A peer sent what no honest one sends: it is cut off and never asked again.
    pub fn lied(&mut self, peer: PeerId, charge: &Charge) {
        let what = &charge.what;
        tracing::warn!(event = "lying-peer", peer = %peer.0.short(), %what, "disconnecting a peer that lied about a snapshot");
        self.set_aside(peer);
        self.wire.cut_off(peer, charge);
    }

    /// It contradicts the manifest it offers itself.
    pub fn contradicted(&mut self, peer: PeerId, manifest: Hash, what: &str) {
        let charge = Charge::new(Offence::FalseSnapshot, "snapshot", what).sample(&manifest.0);
        self.lied(peer, &charge);
    }

    /// It sees another chain than the one this node trusts.
    pub fn disagreed(&mut self, peer: PeerId, kind: &'static str, what: &str) {
        self.lied(peer, &Charge::new(Offence::Disagreement, kind, what));
    }

    /// Nothing more is asked of a peer.
    pub fn set_aside(&mut self, peer: PeerId) {
        if self.useless.len() < REMEMBERED_MAX {
            self.useless.insert(peer);
        }
    }

    /// A snapshot is not taken from anybody.
    pub fn discard(&mut self, offer: &SnapshotOffer) {
        if self.discarded.len() < REMEMBERED_MAX {
            self.discarded.insert(which(offer));
        }
    }

    /// A snapshot is tried.
    pub fn begin(&mut self, offer: &SnapshotOffer) {
        let offers = self.offers().filter(|(_, other)| which(other) == which(offer));
        let offering = offers.map(|(peer, _)| peer).collect();
        self.tried = Some((which(offer), offering));
    }

    /// The snapshot that was tried is not to be had: nothing more is asked of whoever has offered it either,
    /// or one peer could offer another such one each time.
    pub fn give_up(&mut self, offer: &SnapshotOffer) {
        for peer in self.end(offer) {
            self.set_aside(peer);
        }
    }

    /// Nobody keeps the snapshot that was tried any more. That happens to honest peers, once.
    pub fn is_gone(&mut self, offer: &SnapshotOffer) {
        for peer in self.end(offer) {
            if self.fickle.len() >= REMEMBERED_MAX || !self.fickle.insert(peer) {
                self.set_aside(peer);
            }
        }
    }

    fn end(&mut self, offer: &SnapshotOffer) -> BTreeSet<PeerId> {
        self.discard(offer);
        self.tried.take().map(|(_, offering)| offering).unwrap_or_default()
    }
}
