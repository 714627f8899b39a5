//! Scores, bans, breaker and file, with times as arguments.

use crate::network::bans::file::{load, save};
use crate::network::bans::offence::{Charge, Offence};
use crate::network::bans::subject::Subject;
use crate::network::bans::table::{
    BAN_MS, BAN_MS_MAX, BANS_MAX, BREAKER_MS, Ban, Full, HALF_LIFE_MS, KEYS_OF_ADDRESS, Moment, Offender,
    SUSPECT_MS, SUSPECTS_MAX, Table, Verdict,
};
use crate::primitives::keys::PublicKey;
use std::collections::BTreeSet;

const PUBLIC: &str = "203.0.113.5";

fn key(number: u64) -> PublicKey {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    PublicKey(bytes)
}

fn at(ms: u64) -> Moment {
    Moment { monotonic_ms: ms, wall_ms: 1_700_000_000_000 + ms }
}

/// A stranger among a thousand peers.
fn stranger(number: u64, ip: &str) -> Offender {
    let ip = ip.parse().unwrap();
    Offender { key: key(number), vote_key: None, is_member: false, ip, beside_member: false, peers: 1000 }
}

fn bad() -> Charge {
    Charge::new(Offence::BadFrame, "frame", "nonsense").sample(&[0xab; 40]).height(7)
}

/// Offends until something else than being held comes of it; how many times it took.
fn until_ban(table: &mut Table, who: &Offender, now: Moment) -> (usize, Verdict) {
    for times in 1..100 {
        match table.offend(who, &bad(), now) {
            Verdict::Held { .. } => {}
            verdict => return (times, verdict),
        }
    }
    panic!("never banned");
}

fn banned(verdict: Verdict) -> Vec<Ban> {
    match verdict {
        Verdict::Banned(bans) => bans,
        other => panic!("not banned: {other:?}"),
    }
}

fn manual(subject: &str, now: Moment) -> Ban {
    Ban {
        subject: subject.parse().unwrap(),
        since_ms: now.wall_ms,
        until_ms: now.wall_ms + 1000,
        automatic: false,
        reason: "noise".into(),
        evidence: Default::default(),
        address: None,
        vote_key: None,
    }
}

#[test]
fn three_offences_in_a_row_lead_to_a_ban_with_reason_and_evidence_and_one_does_not() {
    let mut table = Table::default();
    let (times, verdict) = until_ban(&mut table, &stranger(1, PUBLIC), at(0));
    assert_eq!(times, 3);
    let bans = banned(verdict);
    assert_eq!(bans.len(), 1, "one key is no reason to ban an address");
    assert_eq!(bans[0].subject, Subject::Key(key(1)));
    assert_eq!(bans[0].until_ms - bans[0].since_ms, BAN_MS);
    assert_eq!(bans[0].evidence.as_str(), format!("nonsense; frame {} at height 7", "ab".repeat(16)));
    assert!(table.of_key(&key(1), at(BAN_MS - 1)).is_some());
    assert!(table.of_key(&key(1), at(BAN_MS)).is_none());
    assert!(table.of_key(&key(2), at(0)).is_none());
}

#[test]
fn disagreement_never_leads_to_a_ban_however_often() {
    let mut table = Table::default();
    let charge = Charge::new(Offence::Disagreement, "block", "not the next block");
    for ms in 0..10_000 {
        let Verdict::Held { ms } = table.offend(&stranger(1, PUBLIC), &charge, at(ms)) else {
            panic!("judged")
        };
        assert!(ms <= 5000, "kept out for {ms} ms");
    }
    assert!(table.score(&key(1), at(0)) <= 0.0);
}

#[test]
fn scores_halve_with_time_and_outlive_the_connection_by_an_hour() {
    let mut table = Table::default();
    table.offend(&stranger(1, PUBLIC), &bad(), at(0));
    let score = |table: &Table, ms| table.score(&key(1), at(ms));
    assert!((score(&table, HALF_LIFE_MS) - 20.0).abs() < 0.01);
    // So many offences so far apart never add up.
    for number in 1..50 {
        let verdict = table.offend(&stranger(1, PUBLIC), &bad(), at(number * HALF_LIFE_MS));
        assert!(matches!(
            verdict,
            Verdict::Held { ms: 1000 | 2000 | 4000 | 8000 | 16_000 | 32_000 | 60_000 }
        ));
    }
    let last = 49 * HALF_LIFE_MS;
    table.end(at(last + SUSPECT_MS - 1));
    assert_eq!(table.suspects(), 1);
    table.end(at(last + SUSPECT_MS));
    assert_eq!(table.suspects(), 0);
}

#[test]
fn whoever_is_cut_off_stays_out_longer_each_time() {
    let mut table = Table::default();
    let charge = Charge::new(Offence::Flood, "votes", "too many");
    let held: Vec<Verdict> = (0..3).map(|_| table.offend(&stranger(1, PUBLIC), &charge, at(0))).collect();
    assert_eq!(held, [1000, 2000, 4000].map(|ms| Verdict::Held { ms }));
    assert_eq!((table.held(&key(1), at(3999)), table.held(&key(1), at(4000))), (Some(1), None));
}

#[test]
fn bans_grow_with_each_one_up_to_a_day() {
    let mut table = Table::default();
    let mut now = 0;
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let ban = banned(until_ban(&mut table, &stranger(1, PUBLIC), at(now)).1).remove(0);
        lengths.push(ban.until_ms - ban.since_ms);
        now += lengths.last().unwrap() + 1;
        table.end(at(now));
    }
    assert_eq!(lengths, [BAN_MS, 4 * BAN_MS, 16 * BAN_MS, BAN_MS_MAX]);
}

#[test]
fn a_member_of_the_committee_is_kept_out_for_a_minute_at_most_and_never_banned() {
    let mut table = Table::default();
    for number in 0..40 {
        // Another network key each time changes nothing.
        let member = Offender { vote_key: Some(key(9)), is_member: true, ..stranger(number, PUBLIC) };
        match table.offend(&member, &bad(), at(number)) {
            Verdict::Held { ms } | Verdict::Member { ms } => assert!(ms <= 60_000),
            other => panic!("{other:?}"),
        }
    }
    assert!(table.bans().is_empty());
    assert!(table.held(&key(9), at(40)).is_some());
}

#[test]
fn who_joins_the_committee_is_let_in_again_unless_the_operator_banned_it() {
    let mut table = Table::default();
    let future = Offender { vote_key: Some(key(9)), ..stranger(1, PUBLIC) };
    banned(until_ban(&mut table, &future, at(0)).1);
    table.ban(manual(&key(2).to_string(), at(0)), at(0)).unwrap();
    assert!(table.lift_members(&BTreeSet::from([key(8)])).is_empty());
    assert_eq!(table.lift_members(&BTreeSet::from([key(9)])).len(), 1);
    assert!(table.of_key(&key(1), at(1)).is_none() && table.of_key(&key(2), at(1)).is_some());
}

#[test]
fn an_address_is_banned_after_several_keys_and_never_one_of_this_machine_or_of_a_member() {
    let keys = KEYS_OF_ADDRESS as u64;
    let ban_all = |ip: &str, beside_member| {
        let mut table = Table::default();
        let all = (0..keys).flat_map(|number| {
            let who = Offender { beside_member, ..stranger(number, ip) };
            banned(until_ban(&mut table, &who, at(number)).1)
        });
        let all: Vec<Ban> = all.collect();
        (all.len() as u64, table)
    };
    let (count, table) = ban_all(PUBLIC, false);
    assert_eq!(count, keys + 1);
    let ip = PUBLIC.parse().unwrap();
    assert!(table.of_address(ip, false, at(keys)).is_some());
    assert!(table.of_address(ip, true, at(keys)).is_none(), "what this node dials is its own choice");
    assert!(table.of_address("203.0.113.6".parse().unwrap(), false, at(keys)).is_none());
    for local in ["127.0.0.1", "::1", "10.0.0.7", "192.168.1.1", "fd00::1"] {
        assert_eq!(ban_all(local, false).0, keys, "{local}");
    }
    assert_eq!(ban_all(PUBLIC, true).0, keys, "a member of the committee is there");
    // One /64 is one owner.
    let (count, table) = ban_all("2001:db8::1", false);
    assert_eq!(count, keys + 1);
    assert!(table.of_address("2001:db8::ffff".parse().unwrap(), false, at(keys)).is_some());
}

#[test]
fn the_breaker_stops_bans_when_more_than_a_quarter_of_the_peers_would_be_banned_in_a_minute() {
    let mut table = Table::default();
    let of_twelve = |number| Offender { peers: 12, ..stranger(number, PUBLIC) };
    // Addresses apart: three bans of twelve, and the next is one too many.
    for (number, peers) in [(0, 12), (1, 11), (2, 10)] {
        let who = Offender { ip: format!("198.51.100.{number}").parse().unwrap(), ..of_twelve(number) };
        let who = Offender { peers, ..who };
        banned(until_ban(&mut table, &who, at(0)).1);
    }
    let fourth = Offender { peers: 9, ..of_twelve(3) };
    let (_, verdict) = until_ban(&mut table, &fourth, at(1));
    assert!(matches!(verdict, Verdict::Breaker { opened: Some((4, 12)), .. }), "{verdict:?}");
    assert!(table.is_breaker_open(at(1)));
    let (_, verdict) = until_ban(&mut table, &of_twelve(4), at(100_000));
    assert!(matches!(verdict, Verdict::Breaker { opened: None, .. }), "{verdict:?}");
    assert!(table.of_key(&key(4), at(100_000)).is_none());
    let later = BREAKER_MS + 200_000;
    assert!(!table.is_breaker_open(at(later)));
    banned(until_ban(&mut table, &of_twelve(5), at(later)).1);
}

#[test]
fn a_node_with_few_peers_can_ban_one_of_them_a_minute() {
    let mut table = Table::default();
    banned(until_ban(&mut table, &Offender { peers: 2, ..stranger(1, PUBLIC) }, at(0)).1);
    let (_, verdict) = until_ban(&mut table, &Offender { peers: 1, ..stranger(2, PUBLIC) }, at(1));
    assert!(matches!(verdict, Verdict::Breaker { opened: Some((2, 2)), .. }), "{verdict:?}");
}

#[test]
fn lifting_a_ban_lifts_everything_that_keeps_the_peer_out() {
    let ban_address = || {
        let mut table = Table::default();
        for number in 0..3 {
            banned(until_ban(&mut table, &stranger(number, PUBLIC), at(number)).1);
        }
        table.offend(&stranger(1, PUBLIC), &bad(), at(3));
        table
    };
    let ip = PUBLIC.parse().unwrap();
    let mut table = ban_address();
    let lifted = table.lift(Some(&Subject::Key(key(1))));
    assert_eq!(lifted.len(), 2, "the key and the address it was seen at: {lifted:?}");
    assert!(table.of_key(&key(1), at(4)).is_none() && table.of_address(ip, false, at(4)).is_none());
    assert!(table.held(&key(1), at(4)).is_none() && table.score(&key(1), at(4)) <= 0.0);
    assert!(table.of_key(&key(2), at(4)).is_some(), "others stay banned");
    let mut table = ban_address();
    assert_eq!(table.lift(Some(&PUBLIC.parse().unwrap())).len(), 4, "the address and the keys seen there");
    assert_eq!(table.suspects(), 0);
    let mut table = ban_address();
    assert_eq!(table.lift(None).len(), 4);
    assert_eq!((table.suspects(), table.bans().len()), (0, 0));
    // What was lifted starts from nothing.
    assert_eq!(until_ban(&mut table, &stranger(1, PUBLIC), at(5)).0, 3);
}

#[test]
fn lifting_a_member_by_its_network_key_finds_its_score() {
    let mut table = Table::default();
    let member = Offender { vote_key: Some(key(9)), is_member: true, ..stranger(1, PUBLIC) };
    table.offend(&member, &bad(), at(0));
    assert!(table.held(&key(9), at(0)).is_some());
    table.lift(Some(&Subject::Key(key(1))));
    assert!(table.held(&key(9), at(0)).is_none());
}

#[test]
fn the_tables_are_bounded_and_the_operator_s_bans_stay() {
    let mut table = Table::default();
    for number in 0..SUSPECTS_MAX as u64 + 500 {
        table.offend(&stranger(number, PUBLIC), &bad(), at(number));
    }
    assert_eq!(table.suspects(), SUSPECTS_MAX);
    let own = |number: usize| manual(&format!("10.{}.{}.1", number / 256, number % 256), at(0));
    for number in 0..BANS_MAX - 1 {
        table.ban(own(number), at(0)).unwrap();
    }
    banned(until_ban(&mut table, &stranger(1_000_000, PUBLIC), at(0)).1);
    table.ban(own(BANS_MAX), at(0)).unwrap();
    assert!(table.of_key(&key(1_000_000), at(1)).is_none(), "an automatic one makes room");
    assert_eq!(table.ban(own(BANS_MAX + 1), at(0)), Err(Full));
    assert_eq!(table.counts().0, BANS_MAX);
}

#[test]
fn bans_outlive_the_process_and_a_wrong_clock_makes_none_longer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bans");
    let mut table = Table::default();
    table.ban(manual("2001:db8::/32", at(0)), at(0)).unwrap();
    let automatic = banned(until_ban(&mut table, &stranger(1, PUBLIC), at(0)).1);
    save(&file, &table.bans()).unwrap();
    let back = Table::new(load(&file), at(0));
    assert_eq!(back.bans(), table.bans());
    assert!(Table::new(load(&file), at(BAN_MS)).bans().is_empty(), "those that are over are not taken");
    // A year before.
    let past = Moment { monotonic_ms: 0, wall_ms: at(0).wall_ms - 365 * 86_400_000 };
    let cut = Table::new(load(&file), past);
    let ban = cut.of_key(&key(1), past).unwrap();
    assert_eq!(ban.until_ms, past.wall_ms + BAN_MS_MAX);
    assert!(ban.until_ms < automatic[0].until_ms);
}

#[test]
fn a_damaged_file_costs_the_damaged_lines_and_never_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bans");
    assert!(load(&file).is_empty(), "no file");
    save(&file, &[manual("203.0.113.5", at(0)), manual("203.0.113.6", at(0))]).unwrap();
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.truncate(text.len() - 20);
    std::fs::write(&file, text + "\nnonsense\n{}\n\u{1b}[2J").unwrap();
    let subjects: Vec<String> = load(&file).iter().map(|ban| ban.subject.to_string()).collect();
    assert_eq!(subjects, ["203.0.113.5"]);
    std::fs::write(&file, [0xff, 0xfe, 0, 1, 2]).unwrap();
    assert!(load(&file).is_empty());
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(load(&file).is_empty(), "a folder in its place");
}
