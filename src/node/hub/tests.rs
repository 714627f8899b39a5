//! The hub driven by outputs as the machine makes them.

use super::*;
use crate::consensus::output::Notice;
use crate::consensus::standing::Standing;
use crate::light::claim::FinalityClaim;
use crate::primitives::amount::Amount;
use crate::primitives::block::{HEADER_VERSION, Header};
use crate::primitives::committee::Member;
use crate::primitives::evidence::{Evidence, Offence, VoteHead};
use crate::primitives::hash::{BlockId, EraTag, Hash, MasternodeId};
use crate::primitives::keys::{PublicKey, SecretKey, Signature};
use crate::primitives::transaction::{
    SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxStatus,
};
use crate::primitives::vote::Step;
use crate::telemetry::reach::ReachInfo;
use crate::telemetry::snapshot::{
    ChainInfo, PeerInfo, PeersInfo, PoolEntryInfo, PoolInfo, RejectionInfo, SignMark,
};

mod causes;

const NAMES: [&str; 4] = ["alpha", "bravo", "charlie", "delta"];

fn committee() -> Arc<Committee> {
    let members = (1u8..).zip(NAMES).map(|(number, name)| {
        let vote_key = SecretKey::from_seed(&[number; 32]).public();
        let id = MasternodeId(Hash([number; 32]));
        Member { id, vote_key, weight: 1, payout: vote_key.key_hash(), name: name.to_owned() }
    });
    Arc::new(Committee::new(members.collect()))
}

pub fn hub() -> Arc<Hub> {
    let identity = Identity {
        name: CleanText::new("alpha"),
        network: NetworkKind::Devnet,
        chain: ChainId::default(),
        vote_key: Some(SecretKey::from_seed(&[1; 32]).public()),
        p2p_address: "127.0.0.1:24200".to_owned(),
        data_dir: PathBuf::from("/nonexistent/node1"),
        timing: Timing::of(NetworkKind::Devnet),
        params: Params::of(NetworkKind::Devnet),
        space: crate::node::settings::space_limits(&crate::config::Config::defaults(NetworkKind::Devnet)),
    };
    Hub::new(identity, committee(), at(0))
}

fn at(ms: u64) -> Now {
    Now { monotonic_us: 1_000_000 + ms * 1000, wall_ms: 1_700_000_000_000 + ms }
}

fn payment(number: u64) -> SharedTransaction {
    SealedTransaction::new(Transaction {
        version: TRANSACTION_VERSION,
        kind: TransactionKind::Payment,
        expiry: number,
        inputs: Vec::new(),
        outputs: Vec::new(),
        payload: Vec::new(),
    })
}

fn block(height: u64, transactions: Vec<SharedTransaction>) -> Arc<Block> {
    let header = Header {
        version: HEADER_VERSION,
        height,
        previous: BlockId::default(),
        time_ms: at(0).wall_ms,
        proposer: MasternodeId(Hash([2; 32])),
        tx_root: Hash::default(),
        tx_count: u32::try_from(transactions.len()).unwrap(),
        body_bytes: 500,
        last_commit_root: Hash::default(),
        utxo_hash: Hash([7; 32]),
        utxo_count: 3,
        supply: Amount::ZERO,
        registry_root: Hash::default(),
        committee_root: Hash::default(),
        next_committee_root: Hash::default(),
        params_root: Hash::default(),
    };
    Arc::new(Block { header, last_commit: None, transactions })
}

fn final_of(txid: Txid) -> Output {
    let header = Arc::new(block(0, Vec::new()).header.clone());
    let claim =
        FinalityClaim { txid, transaction: None, header, committee: committee(), batches: Vec::new() };
    Output::Final { height: 1, txid, claim }
}

fn committed(block: &Arc<Block>) -> Output {
    let votes = [0, 1, 2].map(|voter| (voter, Signature([0; 64]))).to_vec();
    let qc = Qc::new(0, Step::Precommit, block.id(), votes);
    Output::Committed { block: Arc::clone(block), qc, next: committee() }
}

fn view(height: u64, connected: [bool; 4]) -> View {
    View {
        height,
        round: 0,
        step: "era",
        frozen: false,
        era_started_us: at(0).monotonic_us,
        era_bytes: 1234,
        stream_heads: vec![5, 4, 3, 2],
        connected: connected.to_vec(),
        best_height: height,
        peer_heights: Vec::new(),
        standing: Standing::Signing,
        untrusted: None,
        halted: None,
    }
}

struct Fixed;

impl Sources for Fixed {
    fn chain(&self) -> ChainInfo {
        ChainInfo {
            height: 11,
            block: BlockId(Hash([1; 32])),
            block_time_ms: at(0).wall_ms,
            state_hash: Hash([7; 32]),
            utxo_count: 3,
            supply: Amount::from_time(1000).expect("in range"),
            transactions: 42,
            store_lag: 9,
        }
    }

    fn pool(&self, _now_us: u64) -> PoolInfo {
        let txid = Txid(Hash([3; 32]));
        PoolInfo {
            transactions: 1,
            bytes: 250,
            fee_histogram: vec![(1000, 1)],
            entries: vec![PoolEntryInfo {
                txid,
                status: TxStatus::Prepared,
                size: 250,
                fee: 500,
                inputs: 1,
                outputs: 2,
                value: Amount::from_time(3).expect("in range"),
                age_ms: 8,
            }],
            rejections: vec![RejectionInfo {
                txid,
                code: CleanText::new("conflict"),
                reason: CleanText::new("spent"),
                age_ms: 3,
            }],
            ..PoolInfo::default()
        }
    }

    fn peers(&self) -> PeersInfo {
        let peer = |number: i64| PeerInfo {
            id: format!("{number:064x}"),
            address: CleanText::new("127.0.0.1:24202"),
            inbound: false,
            voter: None,
            name: CleanText::new("bravo"),
            agent: CleanText::new("masternode/0.1.0"),
            height: 11,
            rtt_us: Some(180),
            jitter_us: None,
            clock_offset_ms: Some(number * 1000),
            clock_error_ms: Some(1),
            bytes_in: 10,
            bytes_out: 20,
            dropped: 0,
            age_ms: 900,
        };
        let reach = Some(ReachInfo { time_ms: 1_700_000_000_000, port: 24202, reached: 0, tried: 5 });
        PeersInfo { outbound: 3, reach, list: vec![peer(3), peer(9), peer(4)], ..PeersInfo::default() }
    }
}

fn drain(subscription: &mut Subscription) -> Vec<Arc<Event>> {
    std::iter::from_fn(|| subscription.try_next()).collect()
}

fn refresh(hub: &Hub, now: Now) -> Arc<Snapshot> {
    hub.refresh(&mut Assembler::new(&hub.identity), now);
    hub.snapshot()
}

#[test]
fn event_numbers_have_no_gaps_and_a_slow_subscriber_knows_how_many_it_lost() {
    let hub = hub();
    hub.enter(Phase::Running);
    let mut subscription = hub.subscribe();
    for number in 0..EVENTS_KEPT as u64 + 10 {
        hub.publish(number, EventKind::Frozen { height: number, era_ms: 0 });
    }
    let events = drain(&mut subscription);
    assert_eq!(subscription.missed(), 10);
    assert_eq!(hub.metrics.events_missed.load(Ordering::Relaxed), 10);
    let numbers: Vec<u64> = events.iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, (11..=EVENTS_KEPT as u64 + 10).collect::<Vec<u64>>());
    assert_eq!(hub.event_sequence(), EVENTS_KEPT as u64 + 10);
}

#[test]
fn numbers_go_on_while_nobody_listens() {
    let hub = hub();
    hub.publish(0, EventKind::Frozen { height: 1, era_ms: 0 });
    let mut subscription = hub.subscribe();
    hub.publish(0, EventKind::Frozen { height: 2, era_ms: 0 });
    assert_eq!(drain(&mut subscription).first().map(|event| event.sequence), Some(2));
}

#[test]
fn the_finals_of_a_batch_make_one_event_with_measured_latencies() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let mut fates = hub.subscribe_fates();
    let (one, two) = (payment(1).id(), payment(2).id());
    hub.metrics.transaction_seen(one, at(0).monotonic_us);
    hub.metrics.transaction_seen(two, at(3).monotonic_us);
    hub.observe(at(10), &[final_of(one), final_of(two)]);
    let events = drain(&mut subscription);
    let kinds: Vec<&EventKind> = events.iter().map(|event| &event.kind).collect();
    let [EventKind::Final { count: 2, fastest_us: 7000, slowest_us: 10_000, newest }] = kinds.as_slice()
    else {
        panic!("unexpected events: {kinds:?}");
    };
    assert_eq!(*newest, two);
    let fate = fates.try_recv().expect("one fate");
    let FateKind::Final { height: 1, txids } = &fate.kind else { panic!("unexpected fate {fate:?}") };
    assert_eq!(*txids, [one, two]);
}

#[test]
fn a_payment_is_counted_final_once_whether_by_votes_or_by_its_block() {
    let hub = hub();
    let (voted, silent) = (payment(1), payment(2));
    hub.observe(at(5), &[final_of(voted.id())]);
    hub.observe(at(9), &[committed(&block(1, vec![voted, silent]))]);
    assert_eq!(hub.metrics.final_total.load(Ordering::Relaxed), 2);
}

#[test]
fn the_pause_of_a_checkpoint_runs_from_the_first_freeze_seen() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    let votes = |last| {
        Output::Notice(Notice::Votes { voter: 2, sequence: 4, last, prepares: 3, commits: 2, own: false })
    };
    hub.observe(at(1), &[votes(false)]);
    hub.observe(at(2), &[votes(true)]);
    hub.observe(at(5), &[Output::Notice(Notice::Frozen { height: 1, era_us: 5_000_000 })]);
    hub.note_fees(1, 77);
    hub.observe(at(32), &[committed(&block(1, Vec::new()))]);
    let events = drain(&mut subscription);
    let Some(EventKind::Checkpoint { height, proposer, fees, signed_weight, total_weight, pause_ms, .. }) =
        events.last().map(|event| event.kind.clone())
    else {
        panic!("the last event is no checkpoint: {events:?}");
    };
    assert_eq!((height, proposer.as_str(), fees, signed_weight, total_weight), (1, "bravo", 77, 3, 4));
    assert!((pause_ms - 30.0).abs() < 0.001, "paused {pause_ms} ms");
    hub.observe(at(40), &[committed(&block(2, Vec::new()))]);
    let (_, _, checkpoints) = hub.metrics.participation();
    assert_eq!(checkpoints.last().and_then(|newest| newest.pause_ms), None, "the second was caught up");
}

#[test]
fn rejections_are_counted_by_code_and_gossip_of_known_transactions_is_none() {
    let hub = hub();
    let peer = Some(PeerId(SecretKey::from_seed(&[9; 32]).public()));
    let rejected = |from, reason| Output::Rejected { txid: Txid::default(), from, reason };
    hub.observe(at(0), &[rejected(peer, Rejection::AlreadyKnown), rejected(peer, Rejection::NoInputs)]);
    hub.observe(at(0), &[rejected(None, Rejection::NoInputs), rejected(None, Rejection::NoOutputs)]);
    let counted: Vec<(String, u64)> =
        hub.metrics.rejections().into_iter().map(|(code, count)| (code.into(), count)).collect();
    assert_eq!(counted, [("no-inputs".to_owned(), 2), ("no-outputs".to_owned(), 1)]);
}

#[test]
fn the_state_follows_the_machine_and_says_who_is_missing() {
    let hub = hub();
    let state = |now| refresh(&hub, now).state.clone();
    assert!(matches!(state(at(0)), NodeState::Starting { .. }));
    hub.enter(Phase::Running);
    hub.report(at(1), view(1, [true, true, false, false]), Vec::new());
    let waiting = state(at(1));
    assert_eq!(waiting.label(), "WAITING FOR QUORUM 2/3");
    let NodeState::WaitingForQuorum { missing, .. } = waiting else { panic!("not waiting: {waiting:?}") };
    assert_eq!(missing.iter().map(CleanText::as_str).collect::<Vec<_>>(), ["charlie", "delta"]);
    hub.report(at(2), view(1, [true, true, true, false]), Vec::new());
    assert_eq!(state(at(2)), NodeState::Signing);
    hub.report(at(3), View { best_height: 9, ..view(2, [true; 4]) }, Vec::new());
    assert_eq!(state(at(3)), NodeState::Signing, "anybody can claim to be ahead");
    let sync = SyncInfo {
        height: 1,
        target: 8,
        blocks_per_second: 0.0,
        transactions_per_second: 0.0,
        eta_s: None,
        still_s: 0,
        peers: Vec::new(),
    };
    hub.sync.store(Some(Arc::new(sync)));
    assert_eq!(state(at(3)), NodeState::Syncing { height: 1, target: 8 });
    hub.observe(at(4), &[Output::Halt { reason: "two blocks of one height".to_owned() }]);
    assert_eq!(state(at(4)).label(), "HALTED");
    hub.enter(Phase::Stopping);
    assert_eq!(state(at(5)), NodeState::Stopping);
}

#[test]
fn one_height_behind_is_normal_for_a_moment_and_syncing_when_it_lasts() {
    let hub = hub();
    hub.enter(Phase::Running);
    hub.report(at(0), View { best_height: 6, ..view(5, [true; 4]) }, Vec::new());
    let mut assembler = Assembler::new(&hub.identity);
    hub.refresh(&mut assembler, at(0));
    assert_eq!(hub.snapshot().state, NodeState::Signing);
    hub.refresh(&mut assembler, at(2001));
    assert_eq!(hub.snapshot().state, NodeState::Syncing { height: 4, target: 5 });
}

#[test]
fn a_change_of_state_is_published_once() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    hub.enter(Phase::Running);
    hub.report(at(1), view(1, [true; 4]), Vec::new());
    let mut assembler = Assembler::new(&hub.identity);
    for ms in 1..5 {
        hub.refresh(&mut assembler, at(ms));
    }
    let states: Vec<String> = drain(&mut subscription)
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::State { state } => Some(state.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(states, ["SIGNING"]);
}

#[test]
fn alerts_stand_as_long_as_their_condition_and_keep_the_time_they_began() {
    let hub = hub();
    let mut subscription = hub.subscribe();
    hub.enter(Phase::Running);
    hub.report(at(1), view(1, [true, false, false, false]), Vec::new());
    let mut assembler = Assembler::new(&hub.identity);
    hub.refresh(&mut assembler, at(1));
    hub.refresh(&mut assembler, at(500));
    let open = hub.snapshot().alerts.clone();
    let [alert] = open.as_slice() else { panic!("not one alert: {open:?}") };
    assert_eq!((alert.time_ms, alert.level), (at(1).wall_ms, AlertLevel::Warning));
    assert!(alert.text.as_str().contains("bravo, charlie, delta"), "{}", alert.text);
    let raised = |events: &[Arc<Event>]| {
        events.iter().filter(|event| matches!(event.kind, EventKind::Alert { .. })).count()
    };
    assert_eq!(raised(&drain(&mut subscription)), 1);
    hub.report(at(600), view(1, [true; 4]), Vec::new());
    hub.refresh(&mut assembler, at(600));
    assert_eq!(hub.snapshot().alerts, []);
}

#[test]
fn a_wrong_clock_and_a_standstill_are_told_as_events_and_shown() {
    let hub = hub();
    hub.attach(Arc::new(Fixed));
    let mut subscription = hub.subscribe();
    let mut assembler = Assembler::new(&hub.identity);
    let clock_alerts = |hub: &Hub| -> Vec<String> {
        let texts = hub.snapshot().alerts.iter().map(|alert| alert.text.to_string()).collect::<Vec<_>>();
        texts.into_iter().filter(|text| text.contains("clock")).collect()
    };
    hub.refresh(&mut assembler, at(0));
    assert_eq!(clock_alerts(&hub), [""; 0], "a moment is not enough");
    hub.refresh(&mut assembler, at(10_000));
    let told = clock_alerts(&hub);
    assert!(matches!(told.as_slice(), [text] if text.contains("4.0 s behind 3 of 3 peers")), "{told:?}");
    let raised =
        |event: &Arc<Event>| matches!(&event.kind, EventKind::Alert { text, .. } if text.as_str() == told[0]);
    assert_eq!(drain(&mut subscription).iter().filter(|event| raised(event)).count(), 1);
    hub.refresh(&mut assembler, at(11_000));
    assert!(!drain(&mut subscription).iter().any(raised), "told once");

    hub.stood_still(at(12_000), Duration::from_secs(90), true);
    let kind = EventKind::StoodStill { lasted_ms: 90_000, suspended: true };
    assert!(drain(&mut subscription).iter().any(|event| event.kind == kind));
    hub.refresh(&mut assembler, at(12_500));
    let standstill = hub.snapshot().host.standstill.expect("it is shown");
    assert_eq!((standstill.lasted_ms, standstill.time_ms), (90_000, at(12_000).wall_ms));
}

#[test]
fn an_equivocation_is_a_critical_alert_that_stands() {
    let hub = hub();
    let vote = |n| VoteHead { block: None, signature: Signature([n; 64]) };
    let offence = Offence::Votes { round: 0, step: Step::Prevote, votes: [vote(1), vote(2)] };
    let (vote_key, era_tag) = (PublicKey([3; 32]), EraTag::default());
    let evidence = Evidence { offender: MasternodeId::default(), vote_key, era_tag, offence };
    let name = "delta".to_owned();
    let twice = Output::Notice(Notice::Equivocation { name, evidence: Arc::new(evidence) });
    hub.observe(at(1), &[twice.clone(), twice]);
    let snapshot = refresh(&hub, at(2));
    let texts: Vec<_> = snapshot.alerts.iter().map(|alert| (alert.level, alert.text.as_str())).collect();
    assert_eq!(
        texts,
        [(AlertLevel::Critical, "masternode delta signed two prevotes of one round: evidence is handed in")]
    );
}

#[test]
fn a_snapshot_holds_what_every_part_of_the_node_shows() {
    let hub = hub();
    hub.attach(Arc::new(Fixed));
    hub.enter(Phase::Running);
    let open = payment(1).id();
    hub.metrics.transaction_seen(open, at(0).monotonic_us);
    let votes = Notice::Votes { voter: 1, sequence: 0, last: false, prepares: 4, commits: 3, own: false };
    hub.observe(at(1), &[Output::Notice(votes), committed(&block(11, vec![payment(2)]))]);
    hub.report(at(20), view(12, [true, true, true, false]), vec![(open, 2, 1)]);
    let snapshot = refresh(&hub, at(40));
    assert_eq!(snapshot.chain, Fixed.chain());
    assert_eq!((snapshot.node.voter, snapshot.node.uptime_ms, snapshot.node.startup_ms), (Some(0), 40, 40));
    let consensus = &snapshot.consensus;
    assert_eq!((consensus.height, consensus.era_age_ms, consensus.era_ms), (12, 40, 5000));
    assert_eq!((consensus.connected_weight, consensus.quorum_weight, consensus.total_weight), (3, 3, 4));
    assert_eq!((consensus.votes_received, consensus.votes_sent), (7, 0));
    let meter = consensus.open.first().expect("one open payment");
    assert_eq!((meter.txid, meter.prepare_weight, meter.commit_weight, meter.age_ms), (open, 2, 1, 40));
    let own_turn = consensus.own_turn_in.expect("a member has a turn");
    assert_eq!(committee().proposer(12 + own_turn, 0), Some(0));
    let bravo = snapshot.members.get(1).expect("four members");
    assert_eq!((bravo.votes, bravo.last_vote_age_ms, bravo.stream_head), (7, Some(39), 4));
    assert_eq!(bravo.signed, [SignMark::Signed]);
    assert_eq!(snapshot.host.clock.offset_ms, Some(4000), "the median of 3, 4 and 9 s");
    assert_eq!(snapshot.host.clock.compared, 3);
    let alerts: Vec<&str> = snapshot.alerts.iter().map(|alert| alert.text.as_str()).collect();
    assert!(alerts.iter().any(|text| text.contains("database falls behind")), "{alerts:?}");
    let closed = "your port 24202/udp is not reachable from 5 of 5 peers: forward it or open the firewall";
    let alert = snapshot.alerts.iter().find(|alert| alert.text.as_str() == closed);
    assert_eq!(alert.map(|alert| alert.level), Some(AlertLevel::Warning), "a member is dialled: {alerts:?}");
    let text = serde_json::to_string(snapshot.as_ref()).expect("it encodes");
    assert_eq!(serde_json::from_str::<Snapshot>(&text).expect("it decodes"), *snapshot);
    compare_with_golden(snapshot.as_ref().clone());
}

/// `status --json` is read by scripts: its shape changes only on purpose.
/// `UPDATE_SNAPSHOT=1` rewrites the file.
fn compare_with_golden(mut snapshot: Snapshot) {
    snapshot.node.pid = 1;
    snapshot.node.version = "0.0.0".to_owned();
    snapshot.host.cpu_percent = Some(12.5);
    snapshot.host.rss_bytes = Some(50_000_000);
    snapshot.host.open_files = Some(40);
    snapshot.host.disk_free_bytes = Some(9_000_000_000);
    snapshot.host.data_bytes = Some(4096);
    snapshot.alerts.retain(|alert| !alert.text.as_str().contains("GiB free"));
    let text = serde_json::to_string_pretty(&snapshot).expect("it encodes") + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/snapshot.json");
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(path, &text).expect("written");
    }
    assert_eq!(text, std::fs::read_to_string(path).expect("the golden file"));
}

#[tokio::test]
async fn the_task_keeps_the_snapshot_fresh_and_ends_when_told() {
    let hub = hub();
    hub.enter(Phase::Running);
    hub.report(at(1), view(1, [true; 4]), Vec::new());
    let mut subscription = hub.subscribe();
    let cancel = CancellationToken::new();
    let task = tokio::spawn(Arc::clone(&hub).keep_fresh(|| at(7), cancel.clone()));
    let event = subscription.next().await.expect("the hub lives");
    assert_eq!(event.kind, EventKind::State { state: CleanText::new("SIGNING") });
    cancel.cancel();
    task.await.expect("it ended");
    assert_eq!(hub.snapshot().time_ms, at(7).wall_ms);
}

#[tokio::test]
async fn what_is_logged_is_among_the_events_and_what_other_nodes_log_is_not() {
    use crate::node::log_feed::feed;
    use crate::node::logging::ring::LogRing;
    use crate::telemetry::log::{LogLevel, LogRecord};
    let (hub, ring, cancel) = (hub(), LogRing::default(), CancellationToken::new());
    for node in ["bravo", "alpha"] {
        ring.push(LogRecord {
            time_ms: 7,
            level: LogLevel::Warn,
            target: "test".into(),
            message: node.into(),
            fields: vec![("node".into(), node.into())],
        });
    }
    let mut events = hub.receiver();
    let feeding = tokio::spawn(feed(Arc::clone(&hub), ring, 0, "alpha".to_owned(), cancel.clone()));
    let first = events.recv().await.unwrap();
    assert!(matches!(&first.kind, EventKind::Log(record) if record.message.as_str() == "alpha"), "{first:?}");
    cancel.cancel();
    feeding.await.unwrap();
}

#[test]
fn a_chain_that_stands_though_all_are_connected_is_an_alert_naming_who_does_not_vote() {
    let hub = hub();
    hub.enter(Phase::Running);
    hub.report(at(1), view(1, [true; 4]), Vec::new());
    let votes = |voter| {
        Output::Notice(Notice::Votes { voter, sequence: 0, last: true, prepares: 0, commits: 0, own: false })
    };
    hub.observe(at(10), &[votes(0), votes(1), votes(2)]);
    assert_eq!(refresh(&hub, at(14_000)).alerts, []);
    let alerts = refresh(&hub, at(16_000)).alerts.clone();
    let [alert] = alerts.as_slice() else { panic!("not one alert: {alerts:?}") };
    assert!(alert.text.as_str().ends_with("no vote since then from delta"), "{}", alert.text);
}

#[test]
fn a_peer_is_shown_at_the_height_its_last_status_told() {
    let hub = hub();
    hub.attach(Arc::new(Fixed));
    let mut key = [0; 32];
    key[31] = 9;
    let deciding = (crate::primitives::message::PeerId(crate::primitives::keys::PublicKey(key)), 13);
    hub.report(at(1), View { peer_heights: vec![deciding], ..view(13, [true; 4]) }, Vec::new());
    let heights: Vec<u64> = refresh(&hub, at(2)).peers.list.iter().map(|peer| peer.height).collect();
    assert_eq!(heights, [11, 12, 11]);
}
