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

mod way;
mod window;

use crate::consensus::input::Input;
use crate::consensus::trust::Route;
use crate::consensus::verify::{EraContext, verify_outline};
use crate::network::bans::offence::{Charge, Offence};
use crate::node::charges;
use crate::node::clock;
use crate::node::hub::Hub;
use crate::node::lanes::{Lane, Lanes};
use crate::node::served::Send;
use crate::node::verify::{Arrival, OnFault};
use crate::pool::Pool;
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Hash;
use crate::primitives::keys::verify_batch;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::Transaction;
use crate::primitives::trusted::TrustedHeader;
use crate::telemetry::event::{AlertLevel, EventKind};
use arc_swap::ArcSwap;
use check::{Checked, Checkers, Job};
use peers::Sources;
use progress::Progress;
use route::RoutePull;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;
use way::Way;
use window::{Ask, Brought, Lack, Partial, Stage, Window};

pub use check::Worker;

/// Events that may wait; answers are at most a megabyte but for outlines, and only those asked for are
/// kept.
pub const EVENTS_WAITING_MAX: usize = 64;
/// How long a peer may take for each answer before another one is asked, in microseconds.
const ANSWER_US: u64 = 4_000_000;
/// How long a wish of the machine counts, in microseconds: it is repeated every second.
const GOAL_US: u64 = 5_000_000;
/// How long the way to the trusted block is kept when nobody is ahead any more, in microseconds.
const WAY_US: u64 = 60_000_000;
/// How long the engine may take to adopt a block before it is pulled anew, in microseconds.
const ADOPT_US: u64 = 10_000_000;
/// Blocks handed to the engine and not adopted.
const HANDED_MAX: usize = 4;
/// Blocks adopted that the database does not have yet: beyond it the disk is waited for.
const LAG_MAX: u64 = 16;
/// How often progress is told, in microseconds.
const REPORT_US: u64 = 1_000_000;
/// How often it is told that nobody keeps the blocks this node needs, in microseconds.
const NOT_KEPT_US: u64 = 600_000_000;
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
    /// Where requests go.
    pub send: Send,
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

/// The block before the one that is decided next.
fn tip(era: &EraContext) -> TrustedHeader {
    TrustedHeader { height: era.height.saturating_sub(1), id: era.previous }
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
    way: Way,
    wanted_us: u64,
    reported_us: u64,
    /// How often all blocks were dropped: what was checked of an earlier pull does not count.
    pull: u64,
    told_not_kept_us: Option<u64>,
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
            way: Way::default(),
            wanted_us: 0,
            reported_us: 0,
            pull: 0,
            told_not_kept_us: None,
        };
        (sync, workers)
    }

    /// Works until nobody can want anything any more.
    pub fn run(mut self) {
        loop {
            let pulling = !self.window.0.is_empty() || self.progress.is_running() || self.checkers.is_busy();
            let idle = !pulling && !self.route.is_under_way() && self.way.is_empty();
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
                self.on_bodies(peer, height, from, transactions, now_us);
            }
            SyncEvent::NotKept { peer, height, oldest } => {
                if self.take_ask(height, &peer, |_| true)
                    && self.sources.not_kept(&peer, height, oldest, now_us)
                    && let Some(slot) = self.window.0.get_mut(&height)
                {
                    slot.failed = Some(peer);
                }
            }
            SyncEvent::Route { peer, route } => self.route.want(&self.with.send, peer, route, now_us),
            SyncEvent::Headers { peer, headers } => self.on_headers(peer, &headers, now_us),
            SyncEvent::Gone(peer) => {
                self.route.gone(peer, now_us);
                self.sources.remove(&peer);
                self.window.release(&peer);
            }
        }
    }

    fn on_headers(&mut self, peer: PeerId, headers: &[Header], now_us: u64) {
        let answer = self.route.take(&self.with.send, &self.with.on_fault, peer, headers, now_us);
        let Some(input) = answer else { return };
        if let Input::Route { route: Ok(route), .. } = &input {
            // The chain may have gone on while the headers came.
            let (from, _) = route.ends();
            let ids = route.clone().into_ids().unwrap_or_default();
            self.way = Way::new(from, ids, tip(&self.with.era.load()));
            if !self.way.is_empty() {
                self.wanted_us = now_us;
                self.reset();
            }
        }
        self.push(input);
    }

    /// Whether `peer` was asked for this part of this block; it is not any more.
    fn take_ask(&mut self, height: u64, peer: &PeerId, is_part: impl Fn(Lack) -> bool) -> bool {
        let slot = self.window.0.get_mut(&height);
        let asked =
            slot.and_then(|slot| slot.ask.take_if(|ask| ask.peer == *peer && is_part(ask.lack))).is_some();
        if asked {
            self.sources.answered(peer);
        }
        asked
    }

    fn on_outline(&mut self, peer: PeerId, outline: Outline, qc: Qc) {
        let height = outline.header.height;
        if !self.take_ask(height, &peer, |lack| lack == Lack::Outline) {
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

    fn on_bodies(
        &mut self,
        peer: PeerId,
        height: u64,
        from: u32,
        transactions: Vec<Transaction>,
        now_us: u64,
    ) {
        // Bodies from elsewhere on are no answer: whoever sends them has its time to send the right ones.
        if !self.take_ask(height, &peer, |lack| lack == Lack::Bodies(from)) {
            return;
        }
        let Some(slot) = self.window.0.get_mut(&height) else { return };
        let Stage::Certified(partial) = &mut slot.stage else { return };
        match partial.take(from, transactions) {
            Ok(brought) => {
                partial.peer = peer;
                match brought {
                    Brought::Whole => self.sources.served(&peer),
                    Brought::Page => {}
                    Brought::Little => {
                        slot.failed = Some(peer);
                        self.sources.dawdled(&peer, now_us);
                    }
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
        let Checked { height, pull, peer, result } = checked;
        if pull != self.pull {
            return;
        }
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
        self.pull += 1;
    }

    /// Everything that can be done now.
    fn advance(&mut self, now_us: u64) {
        let next = self.follow_engine(now_us);
        self.sources.expire(now_us);
        self.route.expire(now_us);
        if now_us.saturating_sub(self.wanted_us) > WAY_US {
            self.way = Way::default();
        }
        let target = self.sources.target(next, now_us);
        if now_us.saturating_sub(self.wanted_us) > GOAL_US || target < next {
            self.tell_not_kept(next, now_us);
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

    /// Says so when those who are ahead do not keep what this node needs.
    fn tell_not_kept(&mut self, next: u64, now_us: u64) {
        let Some(oldest) = self.sources.oldest_kept(next, now_us) else { return };
        if self.told_not_kept_us.is_some_and(|told_us| now_us.saturating_sub(told_us) < NOT_KEPT_US) {
            return;
        }
        self.told_not_kept_us = Some(now_us);
        let text = format!(
            "this node needs block {next}, and of the peers that are ahead none keeps a block before {oldest}: connect to              one that keeps more, or begin with a snapshot in a new data directory"
        );
        tracing::warn!(event = "sync-not-kept", next, oldest, "{text}");
        let kind = EventKind::Alert { level: AlertLevel::Warning, text: CleanText::new(&text) };
        self.with.hub.publish(clock::wall_ms(), kind);
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
        self.known.entry(next).or_insert_with(|| Known { context: Arc::clone(&era), root });
        self.way.follow(tip(&era));
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
                self.sources.answered(&ask.peer);
                late.push((*height, ask));
            }
            refused |=
                matches!(slot.stage, Stage::Handed { at_us } if now_us.saturating_sub(at_us) > ADOPT_US);
        }
        for (height, Ask { peer, since_us, .. }) in late {
            if self.sources.stalled(&peer, since_us, now_us) {
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
                let judged = match self.way.is_beside(height, outline.header.id()) {
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
                if partial.missing().is_none() {
                    self.sources.served(&peer);
                }
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
            slot.ask = Some(Ask { peer, lack, since_us: now_us });
            self.sources.asked(&peer);
            (self.with.send)(peer, &request);
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
            self.checkers.submit(Job { height: *height, pull: self.pull, peer, block, qc, context });
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

#[cfg(test)]
mod tests;
