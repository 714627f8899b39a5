//! Verdicts on clocks: whose fault, when it is told, and who cannot sway it.

use super::*;

const S: u64 = 1_000_000;

fn peer(number: u16, offset_ms: i64) -> PeerInfo {
    PeerInfo {
        id: format!("peer {number}"),
        address: CleanText::new(&format!("198.{}.1.1:24000", 1 + number)),
        inbound: false,
        voter: None,
        name: CleanText::new(&format!("node-{number}")),
        agent: CleanText::default(),
        height: 1,
        rtt_us: Some(20_000),
        jitter_us: None,
        clock_offset_ms: Some(offset_ms),
        clock_error_ms: Some(10),
        bytes_in: 0,
        bytes_out: 0,
        dropped: 0,
        age_ms: 1_000,
    }
}

fn peers(offsets: &[i64]) -> Vec<PeerInfo> {
    offsets.iter().zip(1..).map(|(offset, number)| peer(number, *offset)).collect()
}

/// The verdict once it stands.
fn judged(peers: &[PeerInfo]) -> Option<ClockFault> {
    let mut judge = ClockJudge::default();
    assert_eq!(judge.judge(peers, S).fault, None, "nothing is told at once");
    judge.judge(peers, S + HOLD_US).fault
}

fn text(fault: Option<ClockFault>) -> String {
    fault.map_or_else(String::new, |fault| fault.to_string())
}

#[test]
fn the_own_clock_is_at_fault_when_most_peers_differ_to_one_side() {
    let fault = judged(&peers(&[1_200, 1_190, 1_210, 1_230, 1_205, 3]));
    assert_eq!(fault, Some(ClockFault::Own { offset_ms: 1_205, against: 5, of: 6 }));
    assert!(text(fault).contains("this machine's clock is 1.2 s behind 5 of 6 peers: check NTP"));
    let fault = judged(&peers(&[-90_000, -90_010, -89_990]));
    assert!(text(fault).contains("this machine's clock is 90 s ahead 3 of 3 peers"));
}

#[test]
fn a_peer_is_at_fault_when_the_others_agree_with_this_node() {
    let fault = judged(&peers(&[2, -1, 5_000, 0, 4, 3]));
    assert!(
        text(fault).starts_with("the clock of peer node-3 (5.0 s ahead) is off: ours agrees with 5 of 6")
    );
}

#[test]
fn one_peer_or_a_quarrel_of_peers_tells_nothing_of_whose_fault_it_is() {
    assert!(matches!(judged(&peers(&[1_000])), Some(ClockFault::Unclear { .. })));
    assert!(matches!(judged(&peers(&[9_000, -9_000])), Some(ClockFault::Unclear { .. })));
    assert!(matches!(judged(&peers(&[9_000, 9_000, 1, -9_000, -9_000])), Some(ClockFault::Unclear { .. })));
    assert_eq!(judged(&[]), None);
}

#[test]
fn a_difference_within_the_error_of_its_measurement_is_none() {
    let far: Vec<PeerInfo> = peers(&[700, 720, 710])
        .into_iter()
        .map(|peer| PeerInfo { clock_error_ms: Some(300), ..peer })
        .collect();
    assert_eq!(judged(&far), None);
}

#[test]
fn a_verdict_must_stand_before_it_is_told_or_taken_back_and_does_not_flap() {
    let mut judge = ClockJudge::default();
    let (wrong, right) = (peers(&[600, 600, 600]), peers(&[0, 0, 0]));
    let is_told =
        |judge: &mut ClockJudge, peers: &[PeerInfo], at_s: u64| judge.judge(peers, at_s * S).fault.is_some();
    // Off and on again within the hold: never told.
    for at_s in 0..60 {
        assert!(!is_told(&mut judge, if at_s % 5 < 4 { &wrong } else { &right }, at_s));
    }
    for at_s in 60..=70 {
        assert_eq!(is_told(&mut judge, &wrong, at_s), at_s == 70, "at {at_s} s");
    }
    // Around the limit nothing changes: it began above 500 ms and ends below 400.
    let around = peers(&[450, 450, 450]);
    for at_s in 71..120 {
        assert!(is_told(&mut judge, &around, at_s));
    }
    for at_s in 120..=130 {
        assert_eq!(is_told(&mut judge, &right, at_s), at_s < 130, "at {at_s} s");
    }
    for at_s in 131..180 {
        assert!(!is_told(&mut judge, &around, at_s), "what does not exceed the limit is not told again");
    }
}

#[test]
fn figures_that_move_are_told_once_a_minute() {
    let mut judge = ClockJudge::default();
    let mut told = BTreeSet::new();
    for at_s in 0..=190u64 {
        let offset_ms = 1_000 + i64::try_from(at_s).unwrap();
        told.extend(judge.judge(&peers(&[offset_ms; 3]), at_s * S).fault.map(|fault| fault.to_string()));
        told.extend(judge.told.as_ref().map(|fault| format!("{fault:?}")));
    }
    let figures = told.iter().filter(|text| text.starts_with("Own")).count();
    assert_eq!(figures, 4, "{told:?}");
}

#[test]
fn members_have_one_voice_a_key_and_nobody_else_is_heard_where_three_are() {
    let mut all: Vec<PeerInfo> =
        (1..=3).map(|number| PeerInfo { voter: Some(number), ..peer(number, 5) }).collect();
    // A fourth member with many connections, and a crowd of strangers.
    for number in 10..40 {
        all.push(PeerInfo { voter: Some(4), ..peer(number, 60_000) });
        all.push(PeerInfo { inbound: true, ..peer(number + 100, 60_000) });
    }
    let mut judge = ClockJudge::default();
    judge.judge(&all, 0);
    let info = judge.judge(&all, HOLD_US);
    assert_eq!((info.offset_ms, info.compared), (Some(5), 4));
    assert!(matches!(info.fault, Some(ClockFault::Peers { count: 1, agree: 3, of: 4, .. })), "{info:?}");
}

#[test]
fn strangers_that_dial_in_cannot_outvote_whom_this_node_chose() {
    let mut all = peers(&[0, 1, 2, 1, 0]);
    for number in 10..200 {
        all.push(PeerInfo { inbound: true, ..peer(number, 60_000) });
    }
    let info = ClockJudge::default().judge(&all, 0);
    assert_eq!(info.compared, 10, "as many as are chosen");
    assert!(!matches!(judged(&all), Some(ClockFault::Own { .. })));
    // One site is one voice, however many addresses it has.
    let one_site: Vec<PeerInfo> = (1..=9)
        .map(|number| PeerInfo {
            inbound: true,
            address: CleanText::new(&format!("203.0.113.{number}:24000")),
            ..peer(number, 60_000)
        })
        .collect();
    assert_eq!(ClockJudge::default().judge(&one_site, 0).compared, 1);
}
