//! From the network to whoever handles it: votes and connections to the checking workers, transactions
//! that are new to their other lane, answers about decided blocks to the pull, requests for them to the
//! server, everything worth telling to the hub.
//!
//! Waits only for room for urgent things, which slows peers down; transactions that find no room are
//! dropped and come again when others vote for them.

use crate::network::NetworkEvent;
use crate::node::banned;
use crate::node::clock;
use crate::node::hub::Hub;
use crate::node::lanes::Lane;
use crate::node::relay::Relay;
use crate::node::served::Desk;
use crate::node::snapshots::server::is_request;
use crate::node::sources::reach_info;
use crate::node::sync::SyncEvent;
use crate::node::verify::{Places, Verifier, Work};
use crate::pool::Pool;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::{SealedTransaction, SharedTransaction, Transaction};
use crate::telemetry::event::EventKind;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use tokio::sync::mpsc;

/// Events of the network that may wait here; messages are bounded by the frame size.
pub const EVENTS_WAITING_MAX: usize = 1024;
/// Transactions remembered as being checked, in each of two generations.
const SEEN_MAX: usize = 65_536;
/// Least age at which a transaction is forgotten: one that was refused for a passing reason may then
/// come again.
const SEEN_US: u64 = 2_000_000;

/// Transactions seen of late, so that the copies of all other peers are not checked again.
#[derive(Debug, Default)]
struct Seen {
    young: HashSet<Txid>,
    old: HashSet<Txid>,
    turned_us: u64,
}

/// What is remembered between events.
#[derive(Debug, Default)]
struct Memory {
    seen: Seen,
    /// What each connected peer has waiting to be checked.
    places: HashMap<PeerId, Places>,
}

impl Seen {
    fn contains(&mut self, txid: &Txid, now_us: u64) -> bool {
        if self.young.len() >= SEEN_MAX || now_us.saturating_sub(self.turned_us) > SEEN_US {
            self.old = std::mem::take(&mut self.young);
            self.turned_us = now_us;
        }
        self.young.contains(txid) || self.old.contains(txid)
    }

    fn insert(&mut self, txid: Txid) {
        self.young.insert(txid);
    }
}

/// See the module.
pub struct Router {
    /// What happened before the node was there.
    pub early: Vec<NetworkEvent>,
    pub events: mpsc::Receiver<NetworkEvent>,
    pub verifier: Verifier,
    pub pool: Arc<Pool>,
    pub pulls: SyncSender<SyncEvent>,
    pub server: Desk,
    pub snapshots: Desk,
    pub hub: Arc<Hub>,
    pub relay: Arc<Relay>,
}

impl Router {
    /// Routes until the network is gone.
    pub async fn run(mut self) {
        let mut memory = Memory::default();
        for event in std::mem::take(&mut self.early) {
            self.on_event(&mut memory, event).await;
        }
        while let Some(event) = self.events.recv().await {
            self.on_event(&mut memory, event).await;
        }
    }

    async fn on_event(&self, memory: &mut Memory, event: NetworkEvent) {
        match event {
            NetworkEvent::Message { peer, message } => self.on_message(memory, peer, message).await,
            NetworkEvent::Up { peer, vote_key, address, inbound, name, agent, height } => {
                tracing::info!(peer = %peer.0.short(), %address, inbound, %name, %agent, height, "peer connected");
                let address = CleanText::new(&address.to_string());
                let kind = EventKind::PeerConnected { peer: peer.to_string(), address, inbound, name };
                self.hub.publish(clock::wall_ms(), kind);
                self.relay.with(|table| table.up(peer, vote_key));
                self.urgent(peer, Work::Up { peer, vote_key }).await;
            }
            NetworkEvent::Down { peer, address, reason } => {
                tracing::info!(peer = %peer.0.short(), %address, %reason, "peer disconnected");
                let address = CleanText::new(&address.to_string());
                let kind = EventKind::PeerDisconnected { peer: peer.to_string(), address, reason };
                self.hub.publish(clock::wall_ms(), kind);
                memory.places.remove(&peer);
                self.relay.with(|table| table.down(&peer));
                self.urgent(peer, Work::Down { peer }).await;
                // A full queue keeps a pull until its deadline.
                let _later = self.pulls.try_send(SyncEvent::Gone(peer));
            }
            NetworkEvent::Bans(news) => banned::tell(&self.hub, &news),
            NetworkEvent::StoodStill { lasted, suspended } => {
                self.hub.stood_still(clock::now(), lasted, suspended);
            }
            NetworkEvent::Reachability(found) => {
                self.hub.publish(clock::wall_ms(), EventKind::Reachability(reach_info(found)));
                self.hub.request_refresh();
            }
            NetworkEvent::Refused { address, reason } => {
                tracing::warn!(%address, %reason, "connection refused");
                let address = CleanText::new(&address.to_string());
                self.hub.publish(clock::wall_ms(), EventKind::PeerRefused { address, reason });
            }
        }
    }

    async fn on_message(&self, memory: &mut Memory, peer: PeerId, message: Message) {
        match message {
            Message::Transaction(transaction) => {
                let transaction = SealedTransaction::new(transaction);
                self.relay.with(|table| table.arrived(&peer, &transaction.id()));
                self.on_transaction(memory, peer, transaction);
            }
            Message::Transactions(bodies) => {
                let wanted = self.take_announced(memory, peer, bodies);
                if !wanted.is_empty() {
                    self.urgent(peer, Work::Message { from: peer, message: Message::Transactions(wanted) })
                        .await;
                }
            }
            Message::Announce(ids) => {
                let now_us = clock::monotonic_us();
                self.relay.with(|table| ids.iter().for_each(|txid| table.has(&peer, txid)));
                let lacking: Vec<Txid> =
                    ids.into_iter().filter(|txid| !self.is_known(memory, txid, now_us)).collect();
                self.relay.told(peer, &lacking);
            }
            Message::VoteBatch(batch) => {
                self.relay.with(|table| table.heard(&peer, &batch));
                self.urgent(peer, Work::Message { from: peer, message: Message::VoteBatch(batch) }).await;
            }
            request @ (Message::GetBlock { .. }
            | Message::GetBlockBodies { .. }
            | Message::GetHeaders { .. }) => {
                self.server.ask(peer, request);
            }
            // What does not fit is asked for again.
            Message::Block { outline, qc } => {
                let _again = self.pulls.try_send(SyncEvent::Outline { peer, outline, qc });
            }
            Message::BlockBodies { height, from, transactions } => {
                let event = SyncEvent::Bodies { peer, height, from, transactions };
                let _again = self.pulls.try_send(event);
            }
            Message::BlockNotKept { height, oldest } => {
                let _again = self.pulls.try_send(SyncEvent::NotKept { peer, height, oldest });
            }
            Message::Headers(headers) => {
                let _again = self.pulls.try_send(SyncEvent::Headers { peer, headers });
            }
            request if is_request(&request) => self.snapshots.ask(peer, request),
            message => self.urgent(peer, Work::Message { from: peer, message }).await,
        }
    }

    /// Whether a transaction needs no looking at.
    fn is_known(&self, memory: &mut Memory, txid: &Txid, now_us: u64) -> bool {
        let refused_for_good =
            || self.pool.rejection(txid, now_us).is_some_and(|reason| !reason.is_temporary());
        memory.seen.contains(txid, now_us)
            || self.pool.contains(txid)
            || self.pool.confirmed_height(txid).is_some()
            || refused_for_good()
    }

    /// Takes the bodies that were asked for because they were announced: they wait with the other transactions. The
    /// others go on; they are what a vote or a block needs.
    fn take_announced(
        &self,
        memory: &mut Memory,
        peer: PeerId,
        bodies: Vec<Transaction>,
    ) -> Vec<Transaction> {
        let mut others = Vec::new();
        for body in bodies {
            let txid = body.id();
            if self.relay.with(|table| table.arrived(&peer, &txid)) {
                self.on_transaction(memory, peer, SealedTransaction::new(body));
            } else {
                others.push(body);
            }
        }
        others
    }

    fn on_transaction(&self, memory: &mut Memory, peer: PeerId, transaction: SharedTransaction) {
        let now_us = clock::monotonic_us();
        let txid = transaction.id();
        if self.is_known(memory, &txid, now_us) {
            return;
        }
        self.hub.metrics.transaction_seen(txid, now_us);
        // A peer that sends more than can be checked loses what is too much, and makes nobody else wait.
        let Some(place) = memory.places.entry(peer).or_default().take() else { return };
        let work = Work::Transaction { from: Some(peer), transaction, answer: None, place: Some(place) };
        if let Some(queue) = self.verifier.queue_of(&peer)
            && queue.try_push(Lane::Bulk, work).is_ok()
        {
            memory.seen.insert(txid);
        }
    }

    async fn urgent(&self, peer: PeerId, work: Work) {
        let Some(queue) = self.verifier.queue_of(&peer) else { return };
        let mut work = work;
        while let Err(back) = queue.try_push(Lane::Urgent, work) {
            if queue.is_closed() {
                return;
            }
            work = back;
            queue.room().await;
        }
    }
}
