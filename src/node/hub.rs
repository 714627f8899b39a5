//! Where a node tells the outside what happens: numbered events, fates of transactions, and the
//! current [`Snapshot`].
//!
//! The engine's thread of effects hands every batch of outputs to [`Hub::observe`] once it has taken
//! effect; the hub measures, translates to events (per batch and per decision, never per signature)
//! and passes them to whoever subscribed. Numbers of events have no gaps; a slow subscriber loses
//! the oldest events, is told how many, and takes a fresh snapshot. Nobody here ever waits for a
//! subscriber. Deliberately absent: any decision of the node; nothing reads the hub to act on it.

use crate::consensus::input::Now;
use crate::consensus::machine::View;
use crate::consensus::output::Output;
use crate::consensus::timing::Timing;
use crate::node::assemble::{Assembler, Sources, initial_snapshot};
use crate::node::logging::ring::LogRing;
use crate::node::metrics::{Decision, Metrics};
use crate::node::space::SpaceLimits;
use crate::primitives::block::Block;
use crate::primitives::certificate::Qc;
use crate::primitives::chain::NetworkKind;
use crate::primitives::clean::CleanText;
use crate::primitives::committee::Committee;
use crate::primitives::hash::{ChainId, Txid};
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::telemetry::event::{AlertLevel, Event, EventKind};
use crate::telemetry::snapshot::{AlertInfo, NodeState, Snapshot, Standstill, SyncInfo};
use arc_swap::{ArcSwap, ArcSwapOption};
use notices::{Attendance, Stalls};
use parking_lot::Mutex;
use past::Past;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

/// Events kept for a slow subscriber: half a second of a node under 2,000 payments a second.
const EVENTS_KEPT: usize = 4096;
/// Fates kept for a slow subscriber; one carries a whole batch.
const FATES_KEPT: usize = 4096;
/// How often the snapshot is made anew without a reason.
const REFRESH: Duration = Duration::from_millis(250);
/// Least time between two snapshots, however many reasons there are.
const REFRESH_LEAST: Duration = Duration::from_millis(25);
/// How often the engine describes the machine, in microseconds.
const REPORT_EVERY_US: u64 = 200_000;
/// Most alerts that stand until the node stops (equivocations, halts).
const STANDING_ALERTS_MAX: usize = 32;
/// Most blocks whose fees are noted before they are observed.
const NOTED_FEES_MAX: usize = 64;

/// Who the node is; does not change while it runs.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: CleanText,
    pub network: NetworkKind,
    pub chain: ChainId,
    /// Key it votes with; `None` for an observer.
    pub vote_key: Option<PublicKey>,
    /// Where it listens, as shown to people.
    pub p2p_address: String,
    pub data_dir: PathBuf,
    pub timing: Timing,
    pub params: Params,
    /// Below which free space on the disk the operator is told.
    pub space: SpaceLimits,
}

/// What became of transactions, for whoever waits for one.
#[derive(Clone, Debug)]
pub struct Fate {
    /// When it became so here.
    pub now: Now,
    /// With a block, the time since the first freeze seen here; `None` for one caught up.
    pub pause_us: Option<u64>,
    /// What it is.
    pub kind: FateKind,
}

/// See [`Fate`].
#[derive(Clone, Debug)]
pub enum FateKind {
    /// Final by a commit quorum of era `height`.
    Final { height: u64, txids: Vec<Txid> },
    /// In a decided block, hence final, whether it was before or not.
    Block { block: Arc<Block> },
    /// Refused or dropped.
    Rejected { txid: Txid, reason: Rejection },
}

/// What the machine is doing, as the engine last described it.
#[derive(Clone, Debug)]
pub struct MachineReport {
    /// When it was described.
    pub now: Now,
    /// The description.
    pub view: View,
    /// Prepare and commit weight of open payments, newest first.
    pub open: Vec<(Txid, u64, u64)>,
}

/// How far the node's life has come; the rest of [`NodeState`] follows from the machine.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Opening files, replaying, listening.
    Starting(CleanText),
    /// The engine runs.
    Running,
    /// Shutting down.
    Stopping,
}

/// The progress of an era that events are made of.
#[derive(Default)]
struct EraProgress {
    first_freeze_us: Option<u64>,
    /// Payments of this era that are final by votes.
    finals: HashSet<Txid>,
    /// Fees of blocks about to be observed, by height.
    fees: BTreeMap<u64, u64>,
    attendance: Attendance,
}

/// See the module.
pub struct Hub {
    pub(super) identity: Identity,
    /// All measurements.
    pub metrics: Metrics,
    pub(super) started: Now,
    events: broadcast::Sender<Arc<Event>>,
    /// The last events and their number; held while sending, so that order and numbers agree.
    past: Mutex<Past>,
    fates: broadcast::Sender<Arc<Fate>>,
    snapshot: ArcSwap<Snapshot>,
    pub(super) machine: ArcSwapOption<MachineReport>,
    next_report_us: AtomicU64,
    pub(super) phase: Mutex<Phase>,
    era: Mutex<EraProgress>,
    pub(super) halted: Mutex<Option<CleanText>>,
    pub(super) standing_alerts: Mutex<VecDeque<AlertInfo>>,
    pub(super) sources: OnceLock<Arc<dyn Sources>>,
    /// The log of the process, once somebody has named it.
    pub(super) log: OnceLock<LogRing>,
    /// How long the last sync of the vote log took.
    sync_us: AtomicU64,
    /// The catch-up under way, kept by whoever carries it out.
    pub sync: ArcSwapOption<SyncInfo>,
    /// The last time this node was away.
    pub(super) standstill: ArcSwapOption<Standstill>,
    pub(super) stalls: Mutex<Stalls>,
    changed: Notify,
}

/// A subscriber's end of the events.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Arc<Event>>,
    hub: Arc<Hub>,
    missed: u64,
}

impl Subscription {
    /// The next event; `None` when the node is gone. Events lost before it are added to
    /// [`Subscription::missed`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            match self.receiver.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.count_missed(missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next event if there is one already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        loop {
            match self.receiver.try_recv() {
                Ok(event) => return Some(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => self.count_missed(missed),
                Err(_) => return None,
            }
        }
    }

    /// Events this subscriber was too slow for, since it subscribed.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }

    fn count_missed(&mut self, missed: u64) {
        self.missed += missed;
        self.hub.metrics.events_missed.fetch_add(missed, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub(of {}, {} events)", self.identity.name, self.event_sequence())
    }
}

impl Hub {
    /// A hub without events, whose snapshot says `STARTING`.
    #[must_use]
    pub fn new(identity: Identity, committee: Arc<Committee>, now: Now) -> Arc<Self> {
        let snapshot = initial_snapshot(&identity, now);
        Arc::new(Self {
            metrics: Metrics::new(committee, now.monotonic_us),
            identity,
            started: now,
            events: broadcast::Sender::new(EVENTS_KEPT),
            past: Mutex::default(),
            fates: broadcast::Sender::new(FATES_KEPT),
            snapshot: ArcSwap::from_pointee(snapshot),
            machine: ArcSwapOption::empty(),
            next_report_us: AtomicU64::new(0),
            phase: Mutex::new(Phase::Starting(CleanText::new("opening files"))),
            era: Mutex::new(EraProgress::default()),
            halted: Mutex::new(None),
            standing_alerts: Mutex::new(VecDeque::new()),
            sources: OnceLock::new(),
            log: OnceLock::new(),
            sync_us: AtomicU64::new(0),
            sync: ArcSwapOption::empty(),
            standstill: ArcSwapOption::empty(),
            stalls: Mutex::new(Stalls::default()),
            changed: Notify::new(),
        })
    }

    /// Names the parts of the node that snapshots read; once, when they exist. A second call changes
    /// nothing.
    pub fn attach(&self, sources: Arc<dyn Sources>) {
        let _first_wins = self.sources.set(sources);
        self.changed.notify_one();
    }

    /// Tells how far the node's life has come.
    pub fn enter(&self, phase: Phase) {
        *self.phase.lock() = phase;
        self.changed.notify_one();
    }

    /// Publishes an event; never waits. Cost: under a microsecond.
    pub fn publish(&self, time_ms: u64, kind: EventKind) {
        let mut past = self.past.lock();
        past.sequence += 1;
        let heard = self.events.receiver_count() > 0;
        if !heard && !past.remembers(&kind) {
            return;
        }
        let event = Arc::new(Event { sequence: past.sequence, time_ms, kind });
        past.take(&event);
        if heard {
            // An error means that the last subscriber left just now.
            let _unheard = self.events.send(event);
        }
    }

    /// What happened lately, oldest first; none of the pool and no log records. Cost: some microseconds.
    #[must_use]
    pub fn history(&self) -> Vec<Arc<Event>> {
        self.past.lock().list()
    }

    /// Number of the last event published.
    #[must_use]
    pub fn event_sequence(&self) -> u64 {
        self.past.lock().sequence
    }

    /// All events from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        Subscription { receiver: self.events.subscribe(), hub: Arc::clone(self), missed: 0 }
    }

    /// All events from now on, for whoever counts its own losses.
    #[must_use]
    pub fn receiver(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }

    /// Fates of all transactions from now on. Lag is reported by the receiver itself.
    #[must_use]
    pub fn subscribe_fates(&self) -> broadcast::Receiver<Arc<Fate>> {
        self.fates.subscribe()
    }

    /// The newest snapshot, at most a quarter of a second old. Cost: one atomic.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Asks for a new snapshot soon.
    pub fn request_refresh(&self) {
        self.changed.notify_one();
    }

    /// Makes a new snapshot at once and stores it. Reads files: for a blocking thread.
    pub fn refresh(&self, assembler: &mut Assembler, now: Now) {
        let before = self.snapshot();
        let snapshot = assembler.assemble(self, now);
        // A new height while catching up is no new state.
        let syncing = |state: &NodeState| matches!(state, NodeState::Syncing { .. });
        let changed = before.state.label() != snapshot.state.label()
            && !(syncing(&before.state) && syncing(&snapshot.state));
        if changed {
            let state = CleanText::new(&snapshot.state.label());
            self.publish(now.wall_ms, EventKind::State { state });
        }
        for alert in snapshot.alerts.iter().filter(|alert| !before.alerts.contains(alert)) {
            self.publish(now.wall_ms, EventKind::Alert { level: alert.level, text: alert.text.clone() });
        }
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Keeps the snapshot fresh until `cancel`; a task of its own. `clock` tells the time.
    pub async fn keep_fresh<C>(self: Arc<Self>, clock: C, cancel: CancellationToken)
    where
        C: Fn() -> Now + Send + Sync + 'static,
    {
        let clock = Arc::new(clock);
        let mut assembler = Assembler::new(&self.identity);
        while !cancel.is_cancelled() {
            let (hub, read_clock) = (Arc::clone(&self), Arc::clone(&clock));
            let span = tracing::Span::current();
            let refreshed = tokio::task::spawn_blocking(move || {
                let _node = span.enter();
                hub.refresh(&mut assembler, read_clock());
                assembler
            });
            assembler = match refreshed.await {
                Ok(assembler) => assembler,
                // It panicked (and was logged); the next one starts afresh.
                Err(_) => Assembler::new(&self.identity),
            };
            tokio::select! {
                () = tokio::time::sleep(REFRESH_LEAST) => {}
                () = cancel.cancelled() => {}
            }
            tokio::select! {
                () = tokio::time::sleep(REFRESH.saturating_sub(REFRESH_LEAST)) => {}
                () = self.changed.notified() => {}
                () = cancel.cancelled() => {}
            }
        }
    }

    /// Whether the engine should call [`Hub::report`] now. Cost: one atomic.
    #[must_use]
    pub fn report_due(&self, now_us: u64) -> bool {
        now_us >= self.next_report_us.load(Ordering::Relaxed)
    }

    /// Takes the engine's description of the machine.
    pub fn report(&self, now: Now, view: View, open: Vec<(Txid, u64, u64)>) {
        self.next_report_us.store(now.monotonic_us + REPORT_EVERY_US, Ordering::Relaxed);
        self.machine.store(Some(Arc::new(MachineReport { now, view, open })));
    }

    /// Notes the fees of a block before its `Committed` output is observed: only whoever applies it
    /// knows the inputs.
    pub fn note_fees(&self, height: u64, fees: u64) {
        let fees_by_height = &mut self.era.lock().fees;
        fees_by_height.insert(height, fees);
        while fees_by_height.len() > NOTED_FEES_MAX {
            fees_by_height.pop_first();
        }
    }

    /// Measures and publishes what a batch of outputs means. To be called once a batch, after it has
    /// taken effect (journal synced), in order. Cost: a few microseconds plus one for each payment.
    pub fn observe(&self, now: Now, outputs: &[Output]) {
        let mut finals: Vec<Txid> = Vec::new();
        let mut final_height = 0;
        for output in outputs {
            match output {
                Output::Final { height, txid, .. } => {
                    final_height = *height;
                    finals.push(*txid);
                }
                Output::Committed { block, qc, next } => {
                    // Finals of the era before the block that ends it.
                    self.observe_finals(now, final_height, std::mem::take(&mut finals));
                    self.observe_block(now, block, qc, next);
                }
                Output::Accepted { txid, size, fee, .. } => {
                    // For whoever did not tell when it arrived.
                    self.metrics.transaction_seen(*txid, now.monotonic_us);
                    let size = u32::try_from(*size).unwrap_or(u32::MAX);
                    let kind = EventKind::PoolAdded { txid: *txid, size, fee: fee.units() };
                    self.publish(now.wall_ms, kind);
                }
                Output::Rejected { txid, from, reason } => self.observe_rejection(now, txid, *from, reason),
                Output::Misbehaved { peer, what } => {
                    let text = format!("peer {} sent what no honest peer sends: {what}", peer.0.short());
                    self.alert_once(now, AlertLevel::Warning, &text);
                }
                Output::Halt { reason } => {
                    *self.halted.lock() = Some(CleanText::new(reason));
                    self.alert_standing(now, &format!("the node has halted: {reason}"));
                    self.changed.notify_one();
                }
                Output::Notice(notice) => self.observe_notice(now, notice),
                Output::Persist { .. }
                | Output::Sign { .. }
                | Output::Send { .. }
                | Output::Replay(_)
                | Output::PullBlock { .. }
                | Output::PullRoute { .. } => {}
            }
        }
        self.observe_finals(now, final_height, finals);
    }

    fn observe_finals(&self, now: Now, height: u64, txids: Vec<Txid>) {
        if txids.is_empty() {
            return;
        }
        self.era.lock().finals.extend(txids.iter().copied());
        self.measure_finals(now, &txids);
        self.send_fate(now, FateKind::Final { height, txids });
    }

    fn measure_finals(&self, now: Now, txids: &[Txid]) {
        let Some(newest) = txids.last().copied() else { return };
        let measured: Vec<u64> =
            txids.iter().filter_map(|txid| self.metrics.transaction_final(txid, now.monotonic_us)).collect();
        let kind = EventKind::Final {
            count: u32::try_from(txids.len()).unwrap_or(u32::MAX),
            fastest_us: measured.iter().copied().min().unwrap_or(0),
            slowest_us: measured.iter().copied().max().unwrap_or(0),
            newest,
        };
        self.publish(now.wall_ms, kind);
    }

    fn observe_block(&self, now: Now, block: &Arc<Block>, qc: &Qc, next: &Arc<Committee>) {
        let height = block.header.height;
        let (first_freeze_us, fees, unseen) = {
            let mut era = self.era.lock();
            let unseen: Vec<Txid> = block
                .transactions
                .iter()
                .map(|transaction| transaction.id())
                .filter(|txid| !era.finals.contains(txid))
                .collect();
            era.finals.clear();
            (era.first_freeze_us.take(), era.fees.remove(&height).unwrap_or(0), unseen)
        };
        // A payment that no quorum voted on is final with its block.
        self.measure_finals(now, &unseen);
        let pause_us = first_freeze_us.map(|freeze_us| now.monotonic_us.saturating_sub(freeze_us));
        let committee = self.metrics.committee();
        let proposer = committee
            .members()
            .iter()
            .find(|member| member.id == block.header.proposer)
            .map_or_else(|| CleanText::new("unknown"), |member| CleanText::new(&member.name));
        let (absent, own) = self.attendance_of(height, &committee, qc);
        let decision = Decision {
            proposer: &proposer,
            fees,
            pause_us,
            absent,
            own,
            in_time_us: self.identity.timing.precommit_us,
            state_hash: block.header.utxo_hash,
        };
        let settled = self.metrics.checkpoint(block, qc, decision, Arc::clone(next), now.monotonic_us);
        if let Some(settled) = settled {
            self.tell_missed(now, settled);
        }
        let signed = qc.votes().unwrap_or_default();
        self.publish(
            now.wall_ms,
            EventKind::Checkpoint {
                height,
                block: block.id(),
                round: qc.round,
                proposer: proposer.clone(),
                transactions: block.header.tx_count,
                fees,
                signed_weight: signed.iter().map(|(voter, _)| committee.weight(*voter)).sum(),
                total_weight: committee.total(),
                pause_ms: pause_us.map_or(0.0, |pause_us| pause_us as f64 / 1000.0),
            },
        );
        self.send_fate_of_block(now, pause_us, FateKind::Block { block: Arc::clone(block) });
        self.changed.notify_one();
    }

    fn observe_rejection(&self, now: Now, txid: &Txid, from: Option<PeerId>, reason: &Rejection) {
        // A copy of a known transaction from a peer is how gossip works, not a rejection.
        if matches!(reason, Rejection::AlreadyKnown) {
            if from.is_none() {
                self.send_fate(now, FateKind::Rejected { txid: *txid, reason: reason.clone() });
            }
            return;
        }
        self.metrics.transaction_rejected(txid, reason.code());
        let (code, text) = (CleanText::new(reason.code()), CleanText::new(&reason.to_string()));
        self.publish(now.wall_ms, EventKind::PoolRejected { txid: *txid, code, reason: text });
        self.send_fate(now, FateKind::Rejected { txid: *txid, reason: reason.clone() });
    }

    fn send_fate(&self, now: Now, kind: FateKind) {
        self.send_fate_of_block(now, None, kind);
    }

    fn send_fate_of_block(&self, now: Now, pause_us: Option<u64>, kind: FateKind) {
        if self.fates.receiver_count() > 0 {
            let _unheard = self.fates.send(Arc::new(Fate { now, pause_us, kind }));
        }
    }

    /// This node was away for `lasted`.
    pub fn stood_still(&self, now: Now, lasted: Duration, suspended: bool) {
        let lasted_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
        self.standstill.store(Some(Arc::new(Standstill { time_ms: now.wall_ms, lasted_ms, suspended })));
        self.publish(now.wall_ms, EventKind::StoodStill { lasted_ms, suspended });
    }

    /// An alert about one moment.
    fn alert_once(&self, now: Now, level: AlertLevel, text: &str) {
        self.publish(now.wall_ms, EventKind::Alert { level, text: CleanText::new(text) });
    }

    /// An alert that stands until the node stops; published with the next snapshot.
    pub fn alert_standing(&self, now: Now, text: &str) {
        let alert =
            AlertInfo { time_ms: now.wall_ms, level: AlertLevel::Critical, text: CleanText::new(text) };
        let mut standing = self.standing_alerts.lock();
        if standing.iter().any(|open| open.text == alert.text) {
            return;
        }
        if standing.len() >= STANDING_ALERTS_MAX {
            standing.pop_front();
        }
        standing.push_back(alert);
        self.changed.notify_one();
    }
}

mod notices;
mod past;
#[cfg(test)]
pub(in crate::node) mod tests;
