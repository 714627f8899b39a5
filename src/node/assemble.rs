//! Puts the [`Snapshot`] together from what the hub measured, the engine described and the parts of
//! the node show.
//!
//! Everything here is read, nothing is decided. What is not known yet is `None`, zero with a state
//! that says why, or an empty list.

use crate::consensus::input::Now;
use crate::consensus::standing::{NOT_REGISTERED, Stage, Standing};
use crate::node::clock_judge::ClockJudge;
use crate::node::host_info::HostProbe;
use crate::node::hub::{Hub, Identity, MachineReport, Phase};
use crate::node::metrics::MemberStats;
use crate::node::space::SpaceLimits;
use crate::primitives::clean::CleanText;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::message::PeerId;
use crate::telemetry::clock::ClockFault;
use crate::telemetry::event::AlertLevel;
use crate::telemetry::histogram::Percentiles;
use crate::telemetry::snapshot::{
    AlertInfo, ChainInfo, ConsensusInfo, FinalityInfo, HostInfo, MemberInfo, NodeInfo, NodeState,
    OPEN_TRANSACTIONS_MAX, OpenTransaction, PeersInfo, PoolInfo, Snapshot, SyncInfo,
};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Most open alerts in a snapshot.
const ALERTS_MAX: usize = 64;
/// How long a peer may be one height ahead before this node calls itself behind: a block takes
/// a moment to arrive everywhere.
const BEHIND_GRACE_US: u64 = 2_000_000;
/// How long a peer may be ahead without anything being caught up with before that is not told any more.
const CLAIM_GRACE_US: u64 = 20_000_000;
/// Blocks the database may lag behind the journal before an operator is told.
const STORE_LAG_HIGH: u64 = 8;
/// Seconds without a block after which a catch-up counts as stalled.
const SYNC_STILL_S: u64 = 30;
/// Most turns looked ahead for this node's next proposal.
const TURNS_MAX: u64 = 10_000;

/// The parts of a node that snapshots read. Each call must be quick and must not wait for the engine.
pub trait Sources: Send + Sync + 'static {
    /// The chain as applied.
    fn chain(&self) -> ChainInfo;
    /// The pool at a moment of the monotonic clock. `rejected` may be left empty: the hub counts.
    fn pool(&self, now_us: u64) -> PoolInfo;
    /// The connections.
    fn peers(&self) -> PeersInfo;
}

/// Makes snapshots and remembers between them what must not be read or raised every time.
#[derive(Debug)]
pub struct Assembler {
    host: HostProbe,
    clocks: ClockJudge,
    data_dir: String,
    behind_since_us: Option<u64>,
    joined_ms: Option<u64>,
    raised_ms: BTreeMap<&'static str, u64>,
}

/// What a node shows before anything is known: `STARTING`.
#[must_use]
pub fn initial_snapshot(identity: &Identity, now: Now) -> Snapshot {
    Snapshot {
        time_ms: now.wall_ms,
        event_sequence: 0,
        node: node_info(identity, &identity.data_dir.display().to_string()),
        state: NodeState::Starting { phase: CleanText::new("opening files") },
        chain: empty_chain(),
        sync: None,
        consensus: empty_consensus(identity),
        finality: FinalityInfo::default(),
        pool: PoolInfo::default(),
        peers: PeersInfo::default(),
        members: Vec::new(),
        checkpoints: Vec::new(),
        host: HostInfo::default(),
        alerts: Vec::new(),
    }
}

impl Assembler {
    /// Nothing read yet.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        Self {
            host: HostProbe::new(identity.data_dir.clone()),
            clocks: ClockJudge::default(),
            data_dir: identity.data_dir.display().to_string(),
            behind_since_us: None,
            joined_ms: None,
            raised_ms: BTreeMap::new(),
        }
    }

    /// The node at `now`.
    pub fn assemble(&mut self, hub: &Hub, now: Now) -> Snapshot {
        let now_us = now.monotonic_us;
        let event_sequence = hub.event_sequence();
        let machine = hub.machine.load_full();
        let machine = machine.as_deref();
        let (committee, stats, checkpoints) = hub.metrics.participation();
        let sources = hub.sources.get();
        let mut pool = sources.map(|sources| sources.pool(now_us)).unwrap_or_default();
        pool.rejected = hub.metrics.rejections();
        let mut peers = sources.map(|sources| sources.peers()).unwrap_or_default();
        renew_heights(&mut peers, machine.map_or(&[], |machine| &machine.view.peer_heights));
        let chain = sources.map_or_else(empty_chain, |sources| sources.chain());
        let own = hub.identity.vote_key.and_then(|key| committee.index_of(&key));
        let state = self.state(hub, machine, &committee, own, now_us);
        if self.joined_ms.is_none()
            && matches!(
                state,
                NodeState::Signing
                    | NodeState::NotSigning { .. }
                    | NodeState::Observing
                    | NodeState::NeedsTrustedBlock { .. }
                    | NodeState::Syncing { .. }
            )
        {
            self.joined_ms = Some(now_us.saturating_sub(hub.started.monotonic_us) / 1000);
        }
        let mut host = self.host.read(now_us);
        host.clock = self.clocks.judge(&peers.list, now_us);
        host.standstill = hub.standstill.load_full().map(|standstill| *standstill);
        let mut node = node_info(&hub.identity, &self.data_dir);
        node.voter = own;
        node.uptime_ms = now_us.saturating_sub(hub.started.monotonic_us) / 1000;
        node.startup_ms = self.joined_ms.unwrap_or(0);
        let mut snapshot = Snapshot {
            time_ms: now.wall_ms,
            event_sequence,
            node,
            consensus: consensus_info(hub, machine, &committee, own, now_us),
            finality: finality_info(hub, now_us),
            members: members(&committee, &stats, machine, own, now_us),
            state,
            chain,
            sync: hub.sync.load_full().map(|sync| SyncInfo::clone(&sync)),
            pool,
            peers,
            checkpoints,
            host,
            alerts: hub.standing_alerts.lock().iter().cloned().collect(),
        };
        let conditions = conditions(&snapshot, hub.identity.timing.skew_ms, &hub.identity.space);
        self.raise(&mut snapshot, conditions);
        snapshot
    }

    fn state(
        &mut self,
        hub: &Hub,
        machine: Option<&MachineReport>,
        committee: &Committee,
        own: Option<VoterIndex>,
        now_us: u64,
    ) -> NodeState {
        let phase = hub.phase.lock().clone();
        if matches!(phase, Phase::Stopping) {
            return NodeState::Stopping;
        }
        let halted = hub.halted.lock().clone();
        let halted = halted.or_else(|| machine.and_then(|m| m.view.halted.as_deref().map(CleanText::new)));
        if let Some(reason) = halted {
            return NodeState::Halted { reason };
        }
        let machine = match (phase, machine) {
            (Phase::Starting(phase), _) => return NodeState::Starting { phase },
            (_, None) => return NodeState::Starting { phase: CleanText::new("starting the engine") },
            (_, Some(machine)) => machine,
        };
        let view = &machine.view;
        if let Some(untrusted) = &view.untrusted {
            return NodeState::NeedsTrustedBlock { reason: CleanText::new(&untrusted.explanation()) };
        }
        let ahead = view.best_height.saturating_sub(view.height);
        let behind_since_us = match ahead {
            0 => {
                self.behind_since_us = None;
                None
            }
            _ => Some(*self.behind_since_us.get_or_insert(now_us)),
        };
        let behind_us = behind_since_us.map_or(0, |since_us| now_us - since_us);
        // What is caught up with is known where that is done. One block is not told there, and who claims to
        // be ahead and sends nothing for long does not keep this state up.
        let target = hub.sync.load().as_ref().map(|sync| sync.target);
        let late = (BEHIND_GRACE_US + 1..=CLAIM_GRACE_US).contains(&behind_us);
        if let Some(target) = target.or_else(|| late.then(|| view.best_height.saturating_sub(1))) {
            return NodeState::Syncing { height: view.height.saturating_sub(1), target };
        }
        let connected_weight = connected_weight(committee, machine);
        if connected_weight < committee.quorum() {
            let missing = committee.indices().zip(committee.members());
            let missing = missing
                .filter(|(index, _)| !is_connected(machine, *index))
                .map(|(_, member)| CleanText::limited(&member.name, 64))
                .collect();
            return NodeState::WaitingForQuorum {
                connected_weight,
                quorum_weight: committee.quorum(),
                total_weight: committee.total(),
                missing,
            };
        }
        standing_state(&view.standing, own.is_some())
    }

    /// Adds the alerts of conditions that hold, each with the time it began.
    fn raise(&mut self, snapshot: &mut Snapshot, conditions: Vec<(&'static str, AlertLevel, String)>) {
        self.raised_ms.retain(|key, _| conditions.iter().any(|(open, _, _)| open == key));
        for (key, level, text) in conditions {
            let time_ms = *self.raised_ms.entry(key).or_insert(snapshot.time_ms);
            snapshot.alerts.push(AlertInfo { time_ms, level, text: CleanText::new(&text) });
        }
        snapshot.alerts.sort_by_key(|alert| alert.time_ms);
        let excess = snapshot.alerts.len().saturating_sub(ALERTS_MAX);
        snapshot.alerts.drain(..excess);
    }
}

/// Where a node stands that is connected and at the height of its peers.
fn standing_state(standing: &Standing, is_member: bool) -> NodeState {
    if let Some((stage, reason)) = standing.explanation()
        && !matches!(standing, Standing::Resuming { stage: Stage::Barred { status: NOT_REGISTERED }, .. })
    {
        return NodeState::NotSigning { stage: CleanText::new(&stage), reason: CleanText::new(&reason) };
    }
    match standing {
        Standing::Listening { heard_weight, quorum_weight } if is_member => {
            NodeState::Listening { heard_weight: *heard_weight, quorum_weight: *quorum_weight }
        }
        Standing::Signing if is_member => NodeState::Signing,
        _ => NodeState::Observing,
    }
}

fn is_connected(machine: &MachineReport, voter: VoterIndex) -> bool {
    machine.view.connected.get(usize::from(voter)).copied().unwrap_or(false)
}

fn connected_weight(committee: &Committee, machine: &MachineReport) -> u64 {
    committee.indices().filter(|i| is_connected(machine, *i)).map(|i| committee.weight(i)).sum()
}

fn node_info(identity: &Identity, data_dir: &str) -> NodeInfo {
    NodeInfo {
        name: identity.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        network: identity.network,
        chain: identity.chain,
        vote_key: identity.vote_key,
        voter: None,
        p2p_address: identity.p2p_address.clone(),
        data_dir: data_dir.to_owned(),
        pid: std::process::id(),
        uptime_ms: 0,
        startup_ms: 0,
    }
}

fn empty_chain() -> ChainInfo {
    ChainInfo {
        height: 0,
        block: Default::default(),
        block_time_ms: 0,
        state_hash: Default::default(),
        utxo_count: 0,
        supply: Default::default(),
        transactions: 0,
        store_lag: 0,
    }
}

fn empty_consensus(identity: &Identity) -> ConsensusInfo {
    ConsensusInfo {
        height: 0,
        round: 0,
        step: CleanText::default(),
        frozen: false,
        proposer: CleanText::default(),
        era_age_ms: 0,
        era_ms: identity.timing.era_us / 1000,
        own_turn_in: None,
        total_weight: 0,
        quorum_weight: 0,
        connected_weight: 0,
        era_bytes_used: 0,
        era_bytes_max: identity.params.era_bytes,
        open: Vec::new(),
        votes_sent: 0,
        votes_received: 0,
        rounds_failed: 0,
        stall: None,
        prepares_missed: Vec::new(),
        commits_missed: Vec::new(),
        loop_lag: Percentiles::default(),
        journal_sync: Percentiles::default(),
    }
}

fn consensus_info(
    hub: &Hub,
    machine: Option<&MachineReport>,
    committee: &Committee,
    own: Option<VoterIndex>,
    now_us: u64,
) -> ConsensusInfo {
    let metrics = &hub.metrics;
    let [prepares_missed, commits_missed] = metrics.payment_gaps();
    let mut info = ConsensusInfo {
        total_weight: committee.total(),
        quorum_weight: committee.quorum(),
        votes_sent: metrics.votes_sent.load(Ordering::Relaxed),
        votes_received: metrics.votes_received.load(Ordering::Relaxed),
        rounds_failed: metrics.rounds_failed.load(Ordering::Relaxed),
        stall: hub.stalls.lock().newest.clone(),
        prepares_missed,
        commits_missed,
        loop_lag: metrics.loop_lag.percentiles(now_us),
        journal_sync: metrics.journal_sync.percentiles(now_us),
        ..empty_consensus(&hub.identity)
    };
    let Some(machine) = machine else { return info };
    let view = &machine.view;
    let name = |voter| committee.member(voter).map(|member| CleanText::limited(&member.name, 64));
    info.height = view.height;
    info.round = view.round;
    info.step = CleanText::new(view.step);
    info.frozen = view.frozen;
    info.proposer = committee.proposer(view.height, view.round).and_then(name).unwrap_or_default();
    info.era_age_ms = now_us.saturating_sub(view.era_started_us) / 1000;
    info.own_turn_in = own.and_then(|own| {
        (0..TURNS_MAX.min(committee.total()))
            .find(|turns| committee.proposer(view.height.saturating_add(*turns), 0) == Some(own))
    });
    info.connected_weight = connected_weight(committee, machine);
    info.era_bytes_used = view.era_bytes;
    info.open = machine
        .open
        .iter()
        .take(OPEN_TRANSACTIONS_MAX)
        .map(|(txid, prepare_weight, commit_weight)| OpenTransaction {
            txid: *txid,
            prepare_weight: *prepare_weight,
            commit_weight: *commit_weight,
            age_ms: metrics.first_seen_us(txid).map_or(0, |seen_us| now_us.saturating_sub(seen_us) / 1000),
        })
        .collect();
    info
}

fn finality_info(hub: &Hub, now_us: u64) -> FinalityInfo {
    let history = hub.metrics.throughput.history(now_us);
    FinalityInfo {
        latency: hub.metrics.finality.percentiles(now_us),
        total: hub.metrics.final_total.load(Ordering::Relaxed),
        per_second: history.last().copied().unwrap_or(0),
        history,
        checkpoint_pause: hub.metrics.checkpoint_pause.percentiles(now_us),
    }
}

fn members(
    committee: &Committee,
    stats: &[MemberStats],
    machine: Option<&MachineReport>,
    own: Option<VoterIndex>,
    now_us: u64,
) -> Vec<MemberInfo> {
    let described = committee.indices().zip(committee.members()).zip(stats);
    described
        .map(|((voter, member), stats)| MemberInfo {
            voter,
            name: CleanText::limited(&member.name, 64),
            vote_key: member.vote_key,
            weight: member.weight,
            own: own == Some(voter),
            connected: own == Some(voter) || machine.is_some_and(|machine| is_connected(machine, voter)),
            stream_head: machine
                .and_then(|machine| machine.view.stream_heads.get(usize::from(voter)).copied())
                .unwrap_or(0),
            last_vote_age_ms: stats.last_vote_us.map(|last_us| now_us.saturating_sub(last_us) / 1000),
            votes: stats.votes,
            signed: stats.marks.iter().copied().collect(),
            last_miss: stats.last_miss.clone(),
            misses: stats.misses.iter().map(|(code, count)| (CleanText::new(code), *count)).collect(),
        })
        .collect()
}

/// What an operator should know about this snapshot; a key stands for one alert however often its
/// figures change.
fn conditions(
    snapshot: &Snapshot,
    skew_ms: u64,
    space: &SpaceLimits,
) -> Vec<(&'static str, AlertLevel, String)> {
    let mut found = Vec::new();
    if let NodeState::WaitingForQuorum { missing, .. } = &snapshot.state {
        let names: Vec<&str> = missing.iter().map(CleanText::as_str).collect();
        let text = format!("{}: not connected to {}", snapshot.state.label(), names.join(", "));
        found.push(("quorum", AlertLevel::Warning, text));
    }
    if let NodeState::NotSigning { reason, .. } = &snapshot.state {
        found.push(("standing", AlertLevel::Critical, format!("{}; {reason}", snapshot.state.label())));
    }
    if let NodeState::NeedsTrustedBlock { reason } = &snapshot.state {
        found.push(("trust", AlertLevel::Critical, format!("{}: {reason}", snapshot.state.label())));
    }
    if snapshot.sync.as_ref().is_some_and(|sync| sync.still_s >= SYNC_STILL_S) {
        let text = format!(
            "catching up stands still for more than {SYNC_STILL_S} s: whoever says it is ahead does not send the next \
             block, see sync in `masternode status`"
        );
        found.push(("sync", AlertLevel::Warning, text));
    }
    if let Some(text) = stalled(snapshot) {
        found.push(("stalled", AlertLevel::Warning, text));
    }
    if let Some(free) = snapshot.host.disk_free_bytes.filter(|free| *free < space.warn_bytes) {
        let level = if free < space.vote_bytes { AlertLevel::Critical } else { AlertLevel::Warning };
        // Rounded, so that the alert does not change with every block written.
        let gib = free as f64 / f64::from(1 << 30);
        let text = format!("only {gib:.1} GiB free on the disk of {}", snapshot.node.data_dir);
        found.push(("disk", level, text));
    }
    if let Some(fault) = &snapshot.host.clock.fault {
        let level = match fault {
            // What this node proposes is refused from here on, and the others' proposals by it.
            ClockFault::Own { offset_ms, .. } if offset_ms.unsigned_abs() > skew_ms => AlertLevel::Critical,
            ClockFault::Own { .. } => AlertLevel::Warning,
            ClockFault::Peers { .. } | ClockFault::Unclear { .. } => AlertLevel::Notice,
        };
        found.push(("clock", level, fault.to_string()));
    }
    if let Some(reach) = snapshot.peers.reach.as_ref().filter(|reach| reach.is_doubtful()) {
        // The others dial a member; an observer does well without being dialled.
        let level = match snapshot.node.voter {
            Some(_) if reach.is_closed() => AlertLevel::Warning,
            _ => AlertLevel::Notice,
        };
        found.push(("reach", level, format!("your {reach}")));
    }
    if snapshot.chain.store_lag > STORE_LAG_HIGH {
        let text = "the database falls behind: decided blocks wait in the journal".to_owned();
        found.push(("store", AlertLevel::Warning, text));
    }
    found
}

/// Eras without a checkpoint after which the chain counts as stalled.
const STALLED_ERAS: u64 = 3;

/// Why no checkpoint comes although a quorum is connected: being connected is not voting.
fn stalled(snapshot: &Snapshot) -> Option<String> {
    let consensus = &snapshot.consensus;
    let connected =
        matches!(snapshot.state, NodeState::Signing | NodeState::NotSigning { .. } | NodeState::Observing);
    if !connected || consensus.era_age_ms <= STALLED_ERAS.saturating_mul(consensus.era_ms) {
        return None;
    }
    if let Some(stall) = &consensus.stall {
        let height = consensus.height;
        let (step, round) = (&stall.step, stall.round);
        return Some(format!(
            "no checkpoint at height {height} for more than {STALLED_ERAS} eras: {step} of round {round}: {stall}"
        ));
    }
    let silent = |member: &&MemberInfo| member.last_vote_age_ms.is_none_or(|age| age > consensus.era_age_ms);
    let names: Vec<&str> =
        snapshot.members.iter().filter(silent).map(|member| member.name.as_str()).collect();
    let cause = if names.is_empty() {
        "every member votes but no quorum agrees, see the rounds on the votes screen".to_owned()
    } else {
        format!("no vote since then from {}", names.join(", "))
    };
    let height = consensus.height;
    Some(format!("no checkpoint at height {height} for more than {STALLED_ERAS} eras: {cause}"))
}

/// The handshake told the height at which a peer connected; its statuses tell what it is deciding now.
fn renew_heights(peers: &mut PeersInfo, deciding: &[(PeerId, u64)]) {
    for (id, height) in deciding {
        let id = id.to_string();
        if let Some(peer) = peers.list.iter_mut().find(|peer| peer.id == id) {
            peer.height = peer.height.max(height.saturating_sub(1));
        }
    }
}
