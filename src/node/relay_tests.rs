//! What the relay sends to whom, step by step, with time as an argument.

use super::*;
use crate::primitives::hash::{EraTag, Hash};
use crate::primitives::keys::Signature;

fn peer(seed: u8) -> PeerId {
    PeerId(PublicKey([seed; 32]))
}

/// Vote key of the peer with this seed.
fn vote_key(seed: u8) -> PublicKey {
    PublicKey([seed + 100; 32])
}

fn txid(number: u32) -> Txid {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    Txid(Hash(bytes))
}

fn batch(prepares: Vec<Txid>) -> VoteBatch {
    VoteBatch {
        era_tag: EraTag::default(),
        voter: 0,
        sequence: 0,
        last: false,
        prepares,
        commits: Vec::new(),
        signature: Signature([0; 64]),
    }
}

/// A node with members 1, 2, 3 and observers 11, 12, 13 as peers; itself a member or not.
fn table(is_member: bool) -> Table {
    let mut table = Table::default();
    let committee = (0..4).map(vote_key).collect();
    table.set_committee(committee, is_member.then(|| vote_key(0)));
    for seed in [1, 2, 3] {
        table.up(peer(seed), Some(vote_key(seed)));
    }
    for seed in [11, 12, 13] {
        table.up(peer(seed), None);
    }
    table
}

fn seeds(peers: Vec<PeerId>) -> Vec<u8> {
    peers.into_iter().map(|peer| peer.0.0[0]).collect()
}

/// Who is told of what once everything is due.
fn told(table: &mut Table, now_us: u64) -> Vec<(u8, Vec<Txid>)> {
    let sends = table.due(now_us, |_| false).into_iter().filter_map(|(peer, message)| match message {
        Message::Announce(ids) => Some((peer.0.0[0], ids)),
        _ => None,
    });
    sends.collect()
}

/// What is asked of whom.
fn asked(sends: Sends) -> Vec<(u8, Vec<Txid>)> {
    let asked = sends.into_iter().filter_map(|(peer, message)| match message {
        Message::GetTransactions(ids) => Some((peer.0.0[0], ids)),
        _ => None,
    });
    asked.collect()
}

#[test]
fn where_a_transaction_enters_everybody_is_sent_the_body_and_nobody_told_of_it() {
    for is_member in [true, false] {
        let mut table = table(is_member);
        assert_eq!(seeds(table.accepted(None, txid(1), 0)), [1, 2, 3, 11, 12, 13]);
        assert!(table.accepted(None, txid(1), 0).is_empty(), "once");
        assert!(told(&mut table, u64::MAX).is_empty());
    }
}

#[test]
fn a_member_hands_what_an_observer_brings_to_the_members_and_tells_the_other_observers() {
    let mut table = table(true);
    assert_eq!(seeds(table.accepted(Some(peer(11)), txid(1), 0)), [1, 2, 3]);
    assert_eq!(told(&mut table, TELL_AFTER_US), [(12, vec![txid(1)]), (13, vec![txid(1)])]);
    assert!(told(&mut table, u64::MAX).is_empty(), "once");
}

#[test]
fn who_is_no_entrance_sends_no_bodies() {
    for (is_member, from) in [(true, 1), (false, 1), (false, 11)] {
        let mut table = table(is_member);
        assert!(table.accepted(Some(peer(from)), txid(1), 0).is_empty());
        let to: Vec<u8> = told(&mut table, TELL_AFTER_US).into_iter().map(|(to, _)| to).collect();
        let others: Vec<u8> = [1, 2, 3, 11, 12, 13].into_iter().filter(|to| *to != from).collect();
        assert_eq!(to, others);
    }
}

#[test]
fn many_are_told_together_and_not_before_their_time() {
    let mut table = table(false);
    for number in 0..2000 {
        assert!(table.accepted(Some(peer(1)), txid(number), 0).is_empty());
    }
    assert!(told(&mut table, TELL_AFTER_US - 1).is_empty());
    let told = told(&mut table, TELL_AFTER_US);
    let of_two: Vec<usize> = told.iter().filter(|(to, _)| *to == 2).map(|(_, ids)| ids.len()).collect();
    assert_eq!(of_two, [ANNOUNCED_MAX, 2000 - ANNOUNCED_MAX]);
}

#[test]
fn nobody_is_told_of_what_it_sent_told_of_or_voted_for_nor_of_what_this_node_voted_for() {
    let mut table = table(true);
    table.accepted(Some(peer(1)), txid(1), 0);
    table.has(&peer(2), &txid(1));
    table.heard(&peer(3), &batch(vec![txid(1)]));
    table.told(peer(11), &[txid(1)], 0);
    assert_eq!(told(&mut table, TELL_AFTER_US), [(12, vec![txid(1)]), (13, vec![txid(1)])]);
    table.accepted(Some(peer(1)), txid(2), 0);
    table.voted(&batch(vec![txid(2)]));
    assert!(told(&mut table, u64::MAX).is_empty());
}

#[test]
fn what_is_announced_is_asked_for_once_and_of_another_teller_when_it_does_not_come() {
    let mut table = table(false);
    assert_eq!(table.told(peer(1), &[txid(1)], 0), Some(Message::GetTransactions(vec![txid(1)])));
    for other in [1, 2, 2, 11] {
        assert_eq!(table.told(peer(other), &[txid(1)], 0), None, "asked for already");
    }
    assert!(asked(table.due(DEADLINE_US - 1, |_| false)).is_empty());
    assert_eq!(asked(table.due(DEADLINE_US, |_| false)), [(2, vec![txid(1)])]);
    // Whose connection ends is not waited for.
    table.down(&peer(2));
    assert_eq!(asked(table.due(DEADLINE_US, |_| false)), [(11, vec![txid(1)])]);
    assert!(table.arrived(&peer(11), &txid(1)));
    assert!(!table.arrived(&peer(11), &txid(1)), "what nobody asked for is no answer");
    assert!(asked(table.due(u64::MAX, |_| false)).is_empty());
    assert!(table.peers.values().all(|peer| peer.asked == 0));
}

#[test]
fn what_came_another_way_and_what_nobody_else_has_is_not_asked_for_again() {
    for has in [true, false] {
        let mut table = table(false);
        table.told(peer(1), &[txid(1)], 0);
        if has {
            table.told(peer(2), &[txid(1)], 0);
        }
        assert!(asked(table.due(DEADLINE_US, |_| has)).is_empty());
        assert!(table.wanted.is_empty());
        assert_eq!(table.peers[&peer(1)].asked, 0);
        // Somebody may tell of it again.
        assert!(table.told(peer(3), &[txid(1)], DEADLINE_US).is_some());
    }
}

#[test]
fn no_peer_fills_the_tables_and_none_keeps_others_from_being_asked() {
    let mut table = table(false);
    let many: Vec<Txid> = (0..100_000).map(txid).collect();
    let Some(Message::GetTransactions(ids)) = table.told(peer(1), &many, 0) else { panic!("nothing") };
    assert_eq!(ids.len(), WANTED_OF_PEER_MAX);
    assert!(table.told(peer(2), &[txid(200_000)], 0).is_some());
    for number in 0..100_000 {
        table.accepted(Some(peer(3)), txid(number), 0);
    }
    let bounded = |peer: &Peer| {
        peer.untold.len() <= UNTOLD_MAX && peer.known.young.len() + peer.known.old.len() <= 2 * KNOWN_MAX
    };
    assert!(table.peers.values().all(bounded));
    // What never comes is forgotten, and its place is free.
    table.due(DEADLINE_US, |_| false);
    assert!(table.wanted.is_empty());
}
