//! Catching up: pulls decided blocks from several peers at a time and hands them to the engine in order.
//!
//! A window of heights is open. For each the outline with its certificate is pulled, checked against the
//! committee that the header before names, then the bodies page by page, from whichever peer has the least
//! to do; whole blocks go to the checkers, then to the engine. So a lying peer cannot make this node hold
//! or hash more than what a quorum signed, and it is known who lied: an outline is judged after the one
//! before it was, a body by its id. A peer that does not answer loses the block to another and is asked
//! last for a while; nobody is cut off for being slow.
//!
//! The machine repeats its wish while it is behind; without it everything here is dropped after
//! [`GOAL_US`], so the phase cannot stay. What the engine does not adopt is pulled anew. Also pulls the
//! headers that lead to a trusted block ([`route`]).

mod check;
mod peers;
mod progress;
pub mod route;

mod window;

use crate::consensus::input::Input;
use crate::consensus::trust::Route;
use crate::consensus::verify::{EraContext, verify_outline};
use crate::network::Network;
use crate::network::bans::offence::{Charge, Offence};
use crate::network::router::Recipients;
use crate::node::charges;
use crate::node::clock;
use crate::node::hub::Hub;
use crate::node::lanes::{Lane, Lanes};
use crate::node::verify::{Arrival, OnFault};
use crate::pool::Pool;
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::{BlockId, Hash};
use crate::primitives::keys::verify_batch;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::Transaction;
use crate::telemetry::event::{AlertLevel, EventKind};
use arc_swap::ArcSwap;
use check::{Checked, Checkers, Job};
use peers::Sources;
use progress::Progress;
use route::RoutePull;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use window::{Ask, Lack, Partial, Stage, Window};

pub use check::Worker;

/// Events that may wait; answers are at most a megabyte but for outlines, and only those asked for are
/// kept.
pub const EVENTS_WAITING_MAX: usize = 64;
/// How long a peer may take for each answer before another one is asked, in microseconds.
const ANSWER_US: u64 = 4_000_000;
/// How long a wish of the machine counts, in microseconds: it is repeated every second.
const GOAL_US: u64 = 5_000_000;
/// How long the engine may take to adopt a block before it is pulled anew, in microseconds.
const ADOPT_US: u64 = 10_000_000;
/// Blocks handed to the engine and not adopted.
const HANDED_MAX: usize = 4;
/// Blocks adopted that the database does not have yet: beyond it the disk is waited for.
const LAG_MAX: u64 = 16;
/// How often progress is told, in microseconds.
const REPORT_US: u64 = 1_000_000;
/// Behind by fewer blocks is no catch-up worth telling.
const TOLD_FROM: u64 = 2;
/// Pause between two looks at the clock and at the checkers while there is something to do.
const TICK: Duration = Duration::from_millis(5);

/// What happens to a catch-up.
#[derive(Debug)]
pub enum SyncEvent {
    /// The machine wants the block of `height`; `peer` says it has the blocks up to `claimed`.
    Wanted { peer: PeerId, height: u64, claimed: u64 },
    /// A peer sent an outline.
    Outline { peer: PeerId, outline: Outline, qc: Qc },
    /// A peer sent bodies.
    Bodies { peer: PeerId, height: u64, from: u32, transactions: Vec<Transaction> },
    /// A peer does not keep blocks below `oldest`.
    NotKept { peer: PeerId, height: u64, oldest: u64 },
    /// The machine wants to know whether `peer` holds the way to the trusted block.
    Route { peer: PeerId, route: Route },
    /// A peer sent headers.
    Headers { peer: PeerId, headers: Vec<Header> },
    /// A connection ended.
    Gone(PeerId),
}

/// What a catch-up works with.
pub struct Syncer {
    pub network: Arc<Network>,
    pub pool: Arc<Pool>,
    pub era: Arc<ArcSwap<EraContext>>,
    pub engine: Arc<Lanes<Arrival>>,
    pub on_fault: OnFault,
    pub hub: Arc<Hub>,
    /// Height up to which the database holds every block.
    pub durable: Arc<AtomicU64>,
}

/// What the blocks of a height are checked against, with the root of its committee.
struct Known {
    context: Arc<EraContext>,
    root: Hash,
}

/// A catch-up under way, on a thread of its own.
pub struct Sync {
    with: Syncer,
    events: Receiver<SyncEvent>,
    checkers: Checkers,
    sources: Sources,
    window: Window,
    /// By height, from the one the engine decides next on.
    known: BTreeMap<u64, Known>,
    progress: Progress,
    route: RoutePull,
    /// Height of the first and ids of all blocks on the way to the trusted one.
    way: (u64, VecDeque<BlockId>),
    wanted_us: u64,
    reported_us: u64,
}

impl Sync {
    /// Nothing under way, with the work of the checking threads.
    #[must_use]
    pub fn new(with: Syncer, events: Receiver<SyncEvent>) -> (Self, Vec<Worker>) {
        let (checkers, workers) = Checkers::new();
        let sync = Self {
            with,
            events,
            checkers,
            sources: Sources::default(),
            window: Window::default(),
            known: BTreeMap::new(),
            progress: Progress::default(),
            route: RoutePull::default(),
            way: (0, VecDeque::new()),
            wanted_us: 0,
            reported_us: 0,
        };
        (sync, workers)
    }

    /// Works until nobody can want anything any more.
    pub fn run(mut self) {
        loop {
            let idle = self.window.0.is_empty() && !self.checkers.is_busy() && !self.progress.is_running();
            let event = match idle {
                true => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => self.events.recv_timeout(TICK),
            };
            let now_us = clock::monotonic_us();
            match event {
                Ok(event) => self.on_event(event, now_us),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for event in self.events.try_iter().take(EVENTS_WAITING_MAX).collect::<Vec<_>>() {
                self.on_event(event, now_us);
            }
            while let Some(checked) = self.checkers.answer() {
                self.on_checked(checked);
            }
            self.advance(now_us);
        }
    }

    fn on_event(&mut self, event: SyncEvent, now_us: u64) {
        match event {
            SyncEvent::Wanted { peer, height, claimed } => {
                // The engine may have gone on since: what was wished for then is still ahead.
                let next = self.with.era.load().height;
                if height <= next && claimed >= next {
                    self.wanted_us = now_us;
                    self.sources.claims(peer, claimed, now_us);
                }
            }
            SyncEvent::Outline { peer, outline, qc } => self.on_outline(peer, outline, qc),
            SyncEvent::Bodies { peer, height, from, transactions } => {
                self.on_bodies(peer, height, from, transactions);
            }
            SyncEvent::NotKept { peer, height, oldest } => {
                self.sources.keeps_from(&peer, oldest.max(height.saturating_add(1)));
                if self.take_ask(height, &peer)
                    && let Some(slot) = self.window.0.get_mut(&height)
                {
                    slot.failed = Some(peer);
                }
            }
            SyncEvent::Route { peer, route } => self.route.want(&self.with.network, peer, route),
            SyncEvent::Headers { peer, headers } => self.on_headers(peer, &headers),
            SyncEvent::Gone(peer) => {
                self.route.gone(peer);
                self.sources.remove(&peer);
                self.window.release(&peer);
            }
        }
    }

    fn on_headers(&mut self, peer: PeerId, headers: &[Header]) {
        let answer = self.route.take(&self.with.network, &self.with.on_fault, peer, headers);
        let Some(input) = answer else { return };
        if let Input::Route { route: Ok(route), .. } = &input {
            let first = self.with.era.load().height;
            self.way = (first, route.clone().into_ids().unwrap_or_default());
            self.reset();
        }
        self.push(input);
    }

    /// Whether `peer` was asked for a part of this block; it is not any more.
    fn take_ask(&mut self, height: u64, peer: &PeerId) -> bool {
        let slot = self.window.0.get_mut(&height);
        let asked = slot.and_then(|slot| slot.ask.take_if(|ask| ask.peer == *peer)).is_some();
        if asked {
            self.sources.answered(peer);
        }
        asked
    }

    fn on_outline(&mut self, peer: PeerId, outline: Outline, qc: Qc) {
        let height = outline.header.height;
        if !self.take_ask(height, &peer) {
            return;
        }
        if let Some(slot) = self.window.0.get_mut(&height)
            && matches!(slot.stage, Stage::Unknown)
        {
            slot.bytes = outline.header.body_bytes.saturating_add(64 * outline.txids.len() as u64);
            slot.transactions = u64::from(outline.header.tx_count);
            slot.stage = Stage::Outlined { peer, outline: Box::new(outline), qc };
        }
    }

    fn on_bodies(&mut self, peer: PeerId, height: u64, from: u32, transactions: Vec<Transaction>) {
        if !self.take_ask(height, &peer) {
            return;
        }
        let Some(slot) = self.window.0.get_mut(&height) else { return };
        let Stage::Certified(partial) = &mut slot.stage else { return };
        match partial.take(from, transactions) {
            Ok(()) => {
                partial.peer = peer;
                if partial.missing().is_none() {
                    self.sources.served(&peer);
                }
            }
            Err(fault) => {
                // Against the outline of somebody else: the two may see different chains.
                let own = partial.outlined_by == peer;
                let offence = if own { Offence::FalseBlock } else { Offence::Disagreement };
                let charge = Charge::new(offence, "block-bodies", fault).height(height);
                self.blame(peer, height, &charge);
            }
        }
    }

    fn on_checked(&mut self, checked: Checked) {
        let Checked { height, peer, result } = checked;
        let Some(slot) = self.window.0.get_mut(&height) else { return };
        if !matches!(slot.stage, Stage::Checking) {
            return;
        }
        match result {
            Ok(block) => slot.stage = Stage::Ready { peer, block: Box::new(block) },
            Err(fault) => {
                // Certificate and ids were checked before, so a quorum signed this. It need not be of the
                // chain, with keys that have left, so the node goes on without whoever follows it.
                let text = format!(
                    "block {height} of peer {} has the certificate of a quorum and is not valid ({fault}): if every peer \
                     has it, update, or compare the versions of the operators",
                    peer.0.short()
                );
                self.with.hub.alert_standing(clock::now(), &text);
                let charge = Charge::new(Offence::Disagreement, "block", &fault.to_string()).height(height);
                self.blame(peer, height, &charge);
                self.reset();
            }
        }
    }

    /// A peer sent what no honest peer sends: it is cut off, named, and its blocks go to others.
    fn blame(&mut self, peer: PeerId, height: u64, charge: &Charge) {
        let text = format!(
            "peer {} sent {} (block {height}): disconnected, others are asked",
            peer.0.short(),
            charge.what
        );
        self.with.hub.publish(
            clock::wall_ms(),
            EventKind::Alert { level: AlertLevel::Warning, text: CleanText::new(&text) },
        );
        (self.with.on_fault)(peer, charge);
        self.sources.remove(&peer);
        self.window.release(&peer);
    }

    fn push(&self, input: Input) {
        // Refused only while the node stops.
        let _stopping = self.with.engine.push(Lane::Urgent, Arrival::Input(input));
    }

    /// Drops all blocks; they are pulled anew.
    fn reset(&mut self) {
        for slot in self.window.0.values() {
            if let Some(ask) = slot.ask {
                self.sources.answered(&ask.peer);
            }
        }
        self.window.0.clear();
        self.known.clear();
    }

    /// Everything that can be done now.
    fn advance(&mut self, now_us: u64) {
        let next = self.follow_engine(now_us);
        self.sources.expire(now_us);
        let target = self.sources.target(now_us);
        if now_us.saturating_sub(self.wanted_us) > GOAL_US || target < next {
            self.reset();
            self.progress.end();
            self.with.hub.sync.store(None);
            return;
        }
        if !self.progress.is_running() {
            self.progress.begin(now_us, next.saturating_sub(1));
        }
        self.drop_late(now_us);
        self.window.open(next, target);
        self.certify(next);
        self.ask(now_us);
        self.check();
        self.hand(next, now_us);
        self.report(now_us, target);
    }

    /// Takes note of what the engine has adopted; the height it decides next.
    fn follow_engine(&mut self, now_us: u64) -> u64 {
        let era = self.with.era.load_full();
        let next = era.height;
        let expected = self.known.get(&next).map(|known| known.context.era_tag);
        let first = self.known.first_key_value().map(|(first, _)| *first);
        if expected == Some(era.era_tag) && first == Some(next) {
            return next;
        }
        let left = self.window.0.split_off(&next);
        let past = std::mem::replace(&mut self.window.0, left);
        let transactions = past.values().map(|slot| slot.transactions).sum();
        self.progress.adopted(now_us, next.saturating_sub(1), transactions);
        for ask in past.values().filter_map(|slot| slot.ask) {
            self.sources.answered(&ask.peer);
        }
        if expected.is_some_and(|expected| expected != era.era_tag) {
            // The chain went on by another block than the one that was pulled.
            self.reset();
        }
        self.known = self.known.split_off(&next);
        let root = era.committee.root();
        self.known.entry(next).or_insert(Known { context: era, root });
        while self.way.0 < next && !self.way.1.is_empty() {
            self.way.1.pop_front();
            self.way.0 += 1;
        }
        next
    }

    /// Requests that were not answered in time go to others; blocks that the engine did not adopt are
    /// pulled anew.
    fn drop_late(&mut self, now_us: u64) {
        let mut late = Vec::new();
        let mut refused = false;
        for (height, slot) in &mut self.window.0 {
            if let Some(ask) = slot.ask.take_if(|ask| now_us.saturating_sub(ask.since_us) > ANSWER_US) {
                slot.failed = Some(ask.peer);
                late.push((*height, ask.peer));
            }
            refused |=
                matches!(slot.stage, Stage::Handed { at_us } if now_us.saturating_sub(at_us) > ADOPT_US);
        }
        for (height, peer) in late {
            if self.sources.stalled(&peer, now_us) {
                let text = format!(
                    "peer {} did not send block {height} within {} s: others are asked",
                    peer.0.short(),
                    ANSWER_US / 1_000_000
                );
                tracing::warn!(event = "sync-stalled-peer", peer = %peer.0.short(), height, "{text}");
                let kind = EventKind::Alert { level: AlertLevel::Notice, text: CleanText::new(&text) };
                self.with.hub.publish(clock::wall_ms(), kind);
            }
        }
        if refused {
            tracing::debug!("the engine did not adopt a block that was pulled");
            self.reset();
        }
    }

    /// Judges outlines, each after the one before it.
    fn certify(&mut self, next: u64) {
        for height in next.. {
            let Some(known) = self.known.get(&height) else { return };
            let Some(slot) = self.window.0.get_mut(&height) else { return };
            if let Stage::Outlined { peer, outline, qc } = &slot.stage {
                let peer = *peer;
                let beside = self.way.1.front().is_some()
                    && height
                        .checked_sub(self.way.0)
                        .and_then(|place| self.way.1.get(usize::try_from(place).ok()?))
                        .is_some_and(|id| *id != outline.header.id());
                let judged = match beside {
                    true => {
                        let what = "a block beside the way to the trusted one";
                        Err(Charge::new(Offence::Disagreement, "block", what).height(height))
                    }
                    false => verify_outline(outline, qc, &known.context, &verify_batch)
                        .map_err(|fault| charges::of_outline(height, &fault)),
                };
                if let Err(charge) = judged {
                    self.blame(peer, height, &charge);
                    return;
                }
                let Stage::Outlined { peer, outline, qc } =
                    std::mem::replace(&mut slot.stage, Stage::Unknown)
                else {
                    return;
                };
                let header = Arc::new(outline.header.clone());
                let partial = Partial::new(*outline, qc, peer, |txid| self.with.pool.body(txid));
                slot.stage = Stage::Certified(Box::new(partial));
                // Otherwise the committee changes: the engine will say to whom.
                if let Some(context) = known.context.successor(header, known.root) {
                    let root = known.root;
                    self.known.insert(height + 1, Known { context: Arc::new(context), root });
                }
            } else if matches!(slot.stage, Stage::Unknown) {
                return;
            }
        }
    }

    /// Asks for what is missing, lowest heights first.
    fn ask(&mut self, now_us: u64) {
        for (height, slot) in &mut self.window.0 {
            let Some(lack) = slot.lacks().filter(|_| slot.ask.is_none()) else { continue };
            let except = slot.failed.filter(|failed| self.sources.others_have(*height, failed));
            let Some(peer) = self.sources.choose(*height, except, now_us) else { continue };
            let height = *height;
            let request = match lack {
                Lack::Outline => Message::GetBlock { height },
                Lack::Bodies(from) => Message::GetBlockBodies { height, from },
            };
            slot.ask = Some(Ask { peer, since_us: now_us });
            self.sources.asked(&peer);
            self.with.network.send(Recipients::Peer(peer), &request);
        }
    }

    /// Gives whole blocks to the checkers.
    fn check(&mut self) {
        for (height, slot) in &mut self.window.0 {
            if self.checkers.is_full() {
                return;
            }
            let whole = matches!(&slot.stage, Stage::Certified(partial) if partial.missing().is_none());
            let Some(known) = self.known.get(height).filter(|_| whole) else { continue };
            let Stage::Certified(partial) = std::mem::replace(&mut slot.stage, Stage::Checking) else {
                continue;
            };
            let peer = partial.peer;
            let (block, qc) = partial.into_block();
            let context = Arc::clone(&known.context);
            self.checkers.submit(Job { height: *height, peer, block, qc, context });
        }
    }

    /// Hands blocks to the engine in order, no more than the disk keeps up with.
    fn hand(&mut self, next: u64, now_us: u64) {
        let lag = next.saturating_sub(1).saturating_sub(self.with.durable.load(Ordering::Acquire));
        if lag > LAG_MAX {
            return;
        }
        for height in next..next.saturating_add(HANDED_MAX as u64) {
            let Some(slot) = self.window.0.get_mut(&height) else { return };
            match &slot.stage {
                Stage::Handed { .. } => {}
                Stage::Ready { .. } => {
                    let handed = Stage::Handed { at_us: now_us };
                    if let Stage::Ready { peer, block } = std::mem::replace(&mut slot.stage, handed) {
                        self.push(Input::Decided { from: peer, block: *block });
                    }
                }
                _ => return,
            }
        }
    }

    fn report(&mut self, now_us: u64, target: u64) {
        if now_us.saturating_sub(self.reported_us) < REPORT_US {
            return;
        }
        self.reported_us = now_us;
        let info = self.progress.info(now_us, target, self.sources.described(now_us));
        let info = info.filter(|info| info.target >= info.height.saturating_add(TOLD_FROM));
        if let Some(info) = &info {
            let rate = info.transactions_per_second;
            tracing::info!(
                event = "sync",
                height = info.height,
                target,
                rate,
                eta_s = info.eta_s,
                "catching up"
            );
            self.with.hub.publish(clock::wall_ms(), EventKind::Sync(info.clone()));
        }
        self.with.hub.sync.store(info.map(Arc::new));
    }
}
