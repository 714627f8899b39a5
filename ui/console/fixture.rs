//! A realistic picture for tests: four members at 200 tx/s, one of them slow, at a fixed time.

use crate::console::message::Message;
use crate::console::source::{Events, Phase};
use crate::console::state::State;
use crate::console::update::update;
use crate::theme::{ColorMode, Look, Themes};
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::clean::CleanText;
use masternode::primitives::hash::{BlockId, ChainId, Hash, Txid};
use masternode::primitives::keys::PublicKey;
use masternode::primitives::transaction::TxStatus;
use masternode::telemetry::cause::{MissCause, PaymentGap};
use masternode::telemetry::clock::ClockInfo;
use masternode::telemetry::event::{AlertLevel, Event, EventKind};
use masternode::telemetry::histogram::Percentiles;
use masternode::telemetry::log::{LogLevel, LogPage, LogRecord};
use masternode::telemetry::reach::ReachInfo;
use masternode::telemetry::snapshot::{
    AlertInfo, ChainInfo, CheckpointInfo, ConsensusInfo, FinalityInfo, HostInfo, MemberInfo, MissInfo,
    NodeInfo, NodeState, OpenTransaction, PeerInfo, PeersInfo, PoolEntryInfo, PoolInfo, RejectionInfo,
    SignMark, Snapshot,
};
use std::sync::Arc;

/// 2026-01-02 14:03:22 UTC.
pub const NOW_MS: u64 = 1_767_362_602_000;
const HEIGHT: u64 = 1_204_129;

fn digest(seed: u64) -> Hash {
    let mut bytes = [0; 32];
    let mut value = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut bytes {
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        *byte = value.to_le_bytes()[3];
    }
    Hash(bytes)
}

fn percentiles(count: u64, p50_us: u64, p95_us: u64, p99_us: u64, max_us: u64) -> Percentiles {
    Percentiles { count, p50_us, p95_us, p99_us, max_us }
}

fn marks(voter: u16) -> Vec<SignMark> {
    (0..96u32)
        .map(|index| match (voter, index) {
            (1, 70) | (2, 31) => SignMark::Late,
            (1, 71) => SignMark::Missed,
            (3, 60..=68) => SignMark::Absent,
            (3, 69..=72) => SignMark::Missed,
            _ => SignMark::Signed,
        })
        .collect()
}

fn misses(voter: u16) -> Option<MissInfo> {
    let cause = match voter {
        1 => MissCause::Silent,
        2 => MissCause::Late { by_ms: 312 },
        3 => MissCause::NotConnected { since_ms: 12_000 },
        _ => return None,
    };
    Some(MissInfo { height: HEIGHT - 23, cause })
}

fn member(voter: u16, own: u16) -> MemberInfo {
    MemberInfo {
        voter,
        name: CleanText::new(&format!("node-{}", voter + 1)),
        vote_key: PublicKey(digest(voter.into()).0),
        weight: 1,
        own: voter == own,
        connected: true,
        stream_head: 118 + u32::from(voter),
        last_vote_age_ms: Some(12 + 7 * u64::from(voter)),
        votes: 1_284_220 - 311 * u64::from(voter),
        signed: marks(voter),
        last_miss: misses(voter),
        misses: Vec::new(),
    }
}

fn peer(index: u16) -> PeerInfo {
    let number = u64::from(index);
    PeerInfo {
        id: digest(number + 900).to_string(),
        address: CleanText::new(&format!("127.0.0.1:{}", 24_200 + 10 * index)),
        inbound: index.is_multiple_of(2),
        voter: (index < 4).then_some(index),
        name: CleanText::new(&format!("node-{}", index + 1)),
        agent: CleanText::new("masternode/0.1.0"),
        height: HEIGHT - u64::from(index == 3) * 5,
        rtt_us: (index != 5).then_some(310 + 12_400 * number),
        jitter_us: (index != 5).then_some(20 + 900 * number),
        clock_offset_ms: (index != 5).then(|| if index == 4 { 1_240 } else { i64::from(index) - 2 }),
        clock_error_ms: (index != 5).then_some(6 * number),
        bytes_in: 48_200_100 + 1_234_567 * number,
        bytes_out: 51_020_044 + 934_567 * number,
        dropped: u64::from(index == 3) * 14,
        age_ms: 754_000 + 61_000 * number,
    }
}

fn checkpoint(back: u64) -> CheckpointInfo {
    CheckpointInfo {
        height: HEIGHT - 1 - back,
        block: BlockId(digest(HEIGHT - back)),
        round: u32::from(back == 24),
        proposer: CleanText::new(&format!("node-{}", 1 + (HEIGHT - 1 - back) % 4)),
        time_ms: NOW_MS - 1_800 - 5_060 * back,
        transactions: 1_012 + u32::try_from(back * 37 % 80).unwrap_or(0),
        bytes: 214_000 + 311 * (back * 37 % 80),
        fees: 214_000 + 311 * (back * 37 % 80),
        signed_weight: if back == 24 { 3 } else { 4 },
        total_weight: 4,
        pause_ms: (back < 90).then_some(41.0 + (back * 13 % 29) as f64),
        state_hash: digest(HEIGHT + back),
    }
}

fn pool() -> PoolInfo {
    let states = [
        TxStatus::Pending,
        TxStatus::Prepared,
        TxStatus::Certified,
        TxStatus::Final,
        TxStatus::Final,
        TxStatus::Final,
    ];
    let entries = (0..256u64)
        .map(|index| PoolEntryInfo {
            txid: Txid(digest(5_000 + index)),
            status: states[usize::try_from(index).unwrap_or(0).min(states.len() - 1)],
            size: 212 + index * 17 % 300,
            fee: 212 + index * 17 % 300,
            inputs: 1 + u32::from(index % 5 == 0),
            outputs: 2,
            value: Amount::from_units(1_250_000_000 + index * 7_000_001).unwrap_or_default(),
            age_ms: 4 + index * 5,
        })
        .collect();
    let rejection = |seed, code: &str, reason: &str, age_ms| RejectionInfo {
        txid: Txid(digest(seed)),
        code: CleanText::new(code),
        reason: CleanText::new(reason),
        age_ms,
    };
    PoolInfo {
        transactions: 652,
        bytes: 138_204,
        transactions_max: 100_000,
        bytes_max: 64_000_000,
        pending: 2,
        prepared: 3,
        certified: 1,
        finalised: 646,
        orphans: 0,
        added: 48_862,
        evicted: 0,
        rejected: vec![(CleanText::new("spent"), 41), (CleanText::new("bad-signature"), 2)],
        fee_histogram: vec![(1_000, 601), (2_000, 40), (5_000, 9), (10_000, 2)],
        entries,
        rejections: vec![
            rejection(1, "spent", "input 4f21ac09:0 is already spent by 77aa01be", 1_900),
            rejection(2, "bad-signature", "input 0 is not signed by the key its output is locked to", 64_000),
        ],
    }
}

fn consensus() -> ConsensusInfo {
    let open = (0..12u64).map(|index| OpenTransaction {
        txid: Txid(digest(5_000 + index)),
        prepare_weight: (1 + index).min(4),
        commit_weight: index.saturating_sub(3).min(4),
        age_ms: 2 + 3 * index,
    });
    ConsensusInfo {
        height: HEIGHT,
        round: 0,
        step: CleanText::new("era"),
        frozen: false,
        proposer: CleanText::new("node-2"),
        era_age_ms: 1_800,
        era_ms: 5_000,
        own_turn_in: Some(3),
        total_weight: 4,
        quorum_weight: 3,
        connected_weight: 4,
        era_bytes_used: 138_204,
        era_bytes_max: 6_291_456,
        open: open.collect(),
        votes_sent: 12_844,
        votes_received: 38_511,
        rounds_failed: 1,
        stall: None,
        prepares_missed: vec![(PaymentGap::Frozen, 3)],
        commits_missed: Vec::new(),
        loop_lag: percentiles(4_000, 90, 410, 1_900, 4_400),
        journal_sync: percentiles(900, 1_400, 2_900, 5_200, 9_800),
    }
}

/// The picture of node `own` (0 to 3).
pub fn snapshot(own: u16) -> Snapshot {
    Snapshot {
        time_ms: NOW_MS,
        event_sequence: 40,
        node: NodeInfo {
            name: CleanText::new(&format!("node-{}", own + 1)),
            version: "0.1.0".to_owned(),
            network: NetworkKind::Devnet,
            chain: ChainId(digest(77)),
            vote_key: Some(PublicKey(digest(own.into()).0)),
            voter: Some(own),
            p2p_address: "127.0.0.1:24200".to_owned(),
            data_dir: "/tmp/devnet/node-1".to_owned(),
            pid: 4242,
            uptime_ms: 754_000,
            startup_ms: 840,
        },
        state: NodeState::Signing,
        chain: ChainInfo {
            height: HEIGHT - 1,
            block: BlockId(digest(HEIGHT)),
            block_time_ms: NOW_MS - 1_800,
            state_hash: digest(HEIGHT),
            utxo_count: 20_441,
            supply: Amount::from_time(1_000_151).unwrap_or_default(),
            transactions: 48_210,
            store_lag: 0,
        },
        sync: None,
        consensus: consensus(),
        finality: FinalityInfo {
            latency: percentiles(12_000, 8_140, 14_900, 22_300, 61_000),
            total: 48_856,
            per_second: 203,
            history: (0..120u64)
                .map(|index| 180 + index * 37 % 41 - u64::from(index % 25 == 0) * 150)
                .collect(),
            checkpoint_pause: percentiles(48, 52_000, 81_000, 96_000, 312_000),
        },
        pool: pool(),
        peers: peers(),
        members: (0..4).map(|voter| member(voter, own)).collect(),
        checkpoints: (0..96).rev().map(checkpoint).collect(),
        host: HostInfo {
            cpu_percent: Some(12.4),
            rss_bytes: Some(142_000_000),
            open_files: Some(61),
            disk_free_bytes: Some(31_000_000_000),
            data_bytes: Some(12_400_000),
            clock: ClockInfo { offset_ms: Some(2), compared: 3, fault: None },
            standstill: None,
        },
        alerts: vec![AlertInfo {
            time_ms: NOW_MS - 95_000,
            level: AlertLevel::Warning,
            text: CleanText::new("node-4 missed 4 of the last 32 checkpoints"),
        }],
    }
}

fn peers() -> PeersInfo {
    PeersInfo {
        inbound: 3,
        outbound: 3,
        members_in: 2,
        members_out: 2,
        inbound_max: 64,
        known_addresses: 12,
        reach: Some(ReachInfo { time_ms: NOW_MS - 60_000, port: 24_200, reached: 3, tried: 3 }),
        bytes_in: 148_200_100,
        bytes_out: 151_020_044,
        bans: 2,
        list: (0..6).map(peer).collect(),
        ..PeersInfo::default()
    }
}

fn event(sequence: u64, back_ms: u64, kind: EventKind) -> Arc<Event> {
    Arc::new(Event { sequence, time_ms: NOW_MS - back_ms, kind })
}

/// Forty events, oldest first.
pub fn events() -> Vec<Arc<Event>> {
    let mut list = Vec::new();
    list.push(event(1, 1_900, EventKind::Frozen { height: HEIGHT - 1, era_ms: 5_001 }));
    list.push(event(
        2,
        1_880,
        EventKind::RoundStarted { height: HEIGHT - 1, round: 0, proposer: CleanText::new("node-1") },
    ));
    let block = BlockId(digest(HEIGHT));
    list.push(event(
        3,
        1_850,
        EventKind::Proposed { height: HEIGHT - 1, round: 0, block, transactions: 1_012, own: true },
    ));
    list.push(event(
        4,
        1_801,
        EventKind::Checkpoint {
            height: HEIGHT - 1,
            block,
            round: 0,
            proposer: CleanText::new("node-1"),
            transactions: 1_012,
            fees: 214_000,
            signed_weight: 4,
            total_weight: 4,
            pause_ms: 41.2,
        },
    ));
    for index in 5..40u64 {
        let kind = if index % 5 == 0 {
            EventKind::Final { count: 11, fastest_us: 4_100, slowest_us: 12_300, newest: Txid(digest(index)) }
        } else {
            let voter = u16::try_from(index % 4).unwrap_or(0);
            EventKind::Votes {
                voter,
                name: CleanText::new(&format!("node-{}", voter + 1)),
                sequence: 80 + u32::try_from(index).unwrap_or(0),
                last: false,
                prepares: 3,
                commits: 2,
                own: voter == 0,
            }
        };
        list.push(event(index, 1_500 - 30 * index, kind));
    }
    list
}

/// Log records numbered from 0.
pub fn logs() -> LogPage {
    let record = |back_ms, level, target: &str, message: &str, fields: &[(&str, &str)]| LogRecord {
        time_ms: NOW_MS - back_ms,
        level,
        target: CleanText::new(target),
        message: CleanText::new(message),
        fields: fields.iter().map(|(name, value)| (CleanText::new(name), CleanText::new(value))).collect(),
    };
    let mut records = vec![
        record(
            754_000,
            LogLevel::Info,
            "masternode::node",
            "joined the network",
            &[("node", "node-1"), ("chain", "9f02ab31")],
        ),
        record(
            753_100,
            LogLevel::Debug,
            "masternode::network::dialer",
            "dialing",
            &[("address", "127.0.0.1:24210")],
        ),
        record(
            95_000,
            LogLevel::Warn,
            "masternode::consensus",
            "round timed out",
            &[("height", "1204104"), ("round", "0"), ("missing", "node-4")],
        ),
        record(
            64_000,
            LogLevel::Error,
            "masternode::rpc",
            "transaction refused \u{1b}[31mred",
            &[("code", "bad-signature")],
        ),
    ];
    for index in 0..60u64 {
        let height = (HEIGHT - 13 + index / 5).to_string();
        records.push(record(
            60_000 - index * 1_000,
            LogLevel::Info,
            "masternode::node::engine",
            "checkpoint decided",
            &[("height", &height), ("transactions", "1012"), ("pause_ms", "41")],
        ));
    }
    let records: Vec<(u64, LogRecord)> = (0..).zip(records).collect();
    LogPage { next: records.len() as u64, records, skipped: 0 }
}

/// The shipped themes for a kind of terminal.
pub fn looks(mode: ColorMode, ascii: bool) -> Vec<Look> {
    let themes = Themes::shipped().unwrap();
    themes.names().iter().map(|name| themes.look(name, mode, ascii).unwrap()).collect()
}

/// A console that knows nothing yet, of `nodes` nodes.
pub fn fresh(nodes: usize, mode: ColorMode, ascii: bool) -> State {
    let names = (1..=nodes).map(|node| CleanText::new(&format!("node-{node}"))).collect();
    State::new(CleanText::new("masternode"), names, looks(mode, ascii), 0, NOW_MS)
}

/// A console on a devnet of four nodes that runs.
pub fn running(mode: ColorMode, ascii: bool) -> State {
    let mut state = fresh(4, mode, ascii);
    for node in 0..4u16 {
        let snapshot = Arc::new(snapshot(node));
        update(&mut state, Message::Snapshot { node: node.into(), snapshot });
        update(
            &mut state,
            Message::Events { node: node.into(), events: Events { list: events(), missed: 0 } },
        );
    }
    update(&mut state, Message::Logs(logs()));
    state
}

/// Steps of starting up.
pub fn phases() -> Vec<Phase> {
    [("reading the configuration", 900), ("opening the database", 870), ("replaying the journal", 120)]
        .into_iter()
        .map(|(name, back)| Phase { name: CleanText::new(name), began_ms: NOW_MS - back })
        .collect()
}
