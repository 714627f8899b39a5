//! Pulls the next decided block from a peer that is ahead: outline and certificate first, then the
//! bodies this node does not have.
//!
//! The certificate is checked before anything else is asked for, and every body against the ids it
//! commits to, so a lying peer cannot make this node hold or hash more than one block. One block at a
//! time, from one peer at a time; the machine repeats its wish while it is behind, and a peer that made
//! no progress loses the pull to the next one, which goes on where it stopped.

use crate::consensus::input::Input;
use crate::consensus::trust::Route;
use crate::consensus::verify::{EraContext, verify_decided, verify_real};
use crate::network::Network;
use crate::network::router::Recipients;
use crate::node::lanes::{Lane, Lanes};
use crate::node::route::RoutePull;
use crate::node::verify::{Arrival, OnFault};
use crate::pool::Pool;
use crate::primitives::block::{Block, Header, Outline, tx_root};
use crate::primitives::certificate::Qc;
use crate::primitives::keys::verify_batch;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::{SealedTransaction, SharedTransaction, Transaction};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Events that may wait; answers are at most a megabyte, and only those asked for are kept.
pub const EVENTS_WAITING_MAX: usize = 32;
/// How long a peer may take for each answer before another one gets the pull.
const PROGRESS_MAX: Duration = Duration::from_secs(2);
/// How long a peer may take for a whole block.
const BLOCK_MAX: Duration = Duration::from_secs(60);

/// What happens to pulls.
#[derive(Debug)]
pub enum PullEvent {
    /// The machine wants the block of `height`, and `peer` says it has it.
    Wanted { peer: PeerId, height: u64 },
    /// A peer sent an outline.
    Outline { peer: PeerId, outline: Outline, qc: Qc },
    /// A peer sent bodies.
    Bodies { peer: PeerId, height: u64, from: u32, transactions: Vec<Transaction> },
    /// The machine wants to know whether `peer` holds the way to the trusted block.
    Route { peer: PeerId, route: Route },
    /// A peer sent headers.
    Headers { peer: PeerId, headers: Vec<Header> },
    /// A connection ended.
    Gone(PeerId),
}

/// The pull under way.
struct Pull {
    peer: PeerId,
    height: u64,
    begun: Instant,
    progress: Instant,
    /// Known once the certificate has been checked.
    block: Option<Partial>,
}

/// A certified block with the bodies that are here.
struct Partial {
    outline: Outline,
    qc: Qc,
    bodies: Vec<Option<SharedTransaction>>,
}

/// Carries out pulls, on a thread of its own.
pub struct Puller {
    pub events: Receiver<PullEvent>,
    pub network: Arc<Network>,
    pub pool: Arc<Pool>,
    pub era: Arc<ArcSwap<EraContext>>,
    pub engine: Arc<Lanes<Arrival>>,
    pub on_fault: OnFault,
}

impl Puller {
    /// Works until nobody can want anything any more.
    pub fn run(self) {
        let (mut pull, mut route) = (None, RoutePull::default());
        while let Ok(event) = self.events.recv() {
            match event {
                PullEvent::Route { peer, route: wanted } => route.want(&self.network, peer, wanted),
                PullEvent::Headers { peer, headers } => {
                    if let Some(input) = route.take(&self.network, &self.on_fault, peer, &headers) {
                        // Refused only while the node stops.
                        let _stopping = self.engine.push(Lane::Urgent, Arrival::Input(input));
                    }
                }
                event => {
                    if let PullEvent::Gone(peer) = event {
                        route.gone(peer);
                    }
                    self.on_event(&mut pull, event);
                }
            }
        }
    }

    fn on_event(&self, pull: &mut Option<Pull>, event: PullEvent) {
        match event {
            PullEvent::Wanted { peer, height } => self.on_wanted(pull, peer, height),
            PullEvent::Gone(peer) => {
                if let Some(active) = pull.as_mut().filter(|active| active.peer == peer) {
                    // Nobody: the next wish takes it over at once.
                    active.peer = self.network.own();
                }
            }
            PullEvent::Outline { peer, outline, qc } => {
                let Some(active) = pull.as_mut().filter(|active| active.peer == peer) else { return };
                if active.block.is_some() || outline.header.height != active.height {
                    return;
                }
                match self.certified(outline, qc) {
                    Ok(block) => {
                        active.block = Some(block);
                        active.progress = Instant::now();
                        self.advance(pull);
                    }
                    Err(fault) => self.drop_pull(pull, &fault),
                }
            }
            PullEvent::Bodies { peer, height, from, transactions } => {
                let Some(active) = pull.as_mut().filter(|active| active.peer == peer) else { return };
                let Some(block) = active.block.as_mut().filter(|_| active.height == height) else { return };
                match block.take(from, transactions) {
                    Ok(()) => {
                        active.progress = Instant::now();
                        self.advance(pull);
                    }
                    Err(fault) => self.drop_pull(pull, fault),
                }
            }
            // The way to the trusted block is not a block.
            PullEvent::Route { .. } | PullEvent::Headers { .. } => {}
        }
    }

    fn on_wanted(&self, pull: &mut Option<Pull>, peer: PeerId, height: u64) {
        if self.era.load().height != height {
            return;
        }
        let now = Instant::now();
        let block = match pull.take() {
            Some(active) if active.height == height => {
                let progressing =
                    active.progress.elapsed() < PROGRESS_MAX && active.begun.elapsed() < BLOCK_MAX;
                let gone = active.peer == self.network.own();
                if progressing && !gone {
                    *pull = Some(active);
                    return;
                }
                active.block
            }
            _ => None,
        };
        let known = block.is_some();
        *pull = Some(Pull { peer, height, begun: now, progress: now, block });
        if known {
            self.advance(pull);
        } else {
            self.network.send(Recipients::Peer(peer), &Message::GetBlock { height });
        }
    }

    fn drop_pull(&self, pull: &mut Option<Pull>, fault: &str) {
        if let Some(active) = pull.take() {
            (self.on_fault)(active.peer, fault);
        }
    }

    /// The block, if its certificate is good and the ids are those it certifies.
    fn certified(&self, outline: Outline, qc: Qc) -> Result<Partial, String> {
        let era = self.era.load_full();
        if qc.block != outline.header.id() || tx_root(&outline.txids) != outline.header.tx_root {
            return Err("a block whose certificate is for something else".to_owned());
        }
        let certificate = Message::Commit { height: outline.header.height, qc: qc.clone() };
        if era.height != outline.header.height {
            return Err("a block that was not asked for".to_owned());
        }
        if let Some(Err(fault)) = verify_real(vec![certificate], &era).pop() {
            return Err(fault.to_string());
        }
        let bodies = outline.txids.iter().map(|txid| self.pool.body(txid)).collect();
        Ok(Partial { outline, qc, bodies })
    }

    /// Asks for the next missing body, or hands the whole block to the engine.
    fn advance(&self, pull: &mut Option<Pull>) {
        let Some(active) = pull.as_ref() else { return };
        let Some(block) = &active.block else { return };
        if let Some(from) = block.bodies.iter().position(Option::is_none) {
            let from = u32::try_from(from).unwrap_or(u32::MAX);
            let request = Message::GetBlockBodies { height: active.height, from };
            self.network.send(Recipients::Peer(active.peer), &request);
            return;
        }
        let Some(Pull { peer, block: Some(block), .. }) = pull.take() else { return };
        let Partial { outline, qc, bodies } = block;
        let whole = Block {
            header: outline.header,
            last_commit: outline.last_commit,
            transactions: bodies.into_iter().flatten().collect(),
        };
        let era = self.era.load_full();
        if era.height != whole.header.height {
            return;
        }
        match verify_decided(whole, qc, &era, &verify_batch) {
            Ok(block) => {
                let input = Input::Decided { from: peer, block };
                // Refused only while the node stops.
                let _stopping = self.engine.push(Lane::Urgent, Arrival::Input(input));
            }
            Err(fault) => (self.on_fault)(peer, &fault.to_string()),
        }
    }
}

impl Partial {
    /// Puts bodies in their places.
    fn take(&mut self, from: u32, transactions: Vec<Transaction>) -> Result<(), &'static str> {
        if transactions.is_empty() {
            return Err("no bodies of a block where some are missing");
        }
        let places = self.outline.txids.iter().zip(self.bodies.iter_mut()).skip(from as usize);
        let mut left = transactions.into_iter();
        for ((txid, place), transaction) in places.zip(left.by_ref()) {
            let sealed = SealedTransaction::new(transaction);
            if sealed.id() != *txid {
                return Err("a transaction that is not the one of the block");
            }
            *place = Some(sealed);
        }
        match left.next() {
            None => Ok(()),
            Some(_) => Err("more bodies than the block has"),
        }
    }
}
