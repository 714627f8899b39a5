//! Signed endpoints of masternodes: which are believed, and members found by them.

use crate::network::endpoints::{Allowance, Endpoints, Heard, STALE_MS};
use crate::network::members::Member;
use crate::network::router;
use crate::network::tests::{Node, PATIENCE, chain, entry, identity, options, start};
use crate::network::wire::Control;
use crate::network::{Identity, NetworkOptions};
use crate::primitives::endpoint::EndpointRecord;
use crate::primitives::keys::SecretKey;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const NOW_MS: u64 = 1_700_000_000_000;
const MINUTE: Duration = Duration::from_secs(60);

fn vote_key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[100 + seed; 32])
}

fn record(seed: u8, port: u16, time_ms: u64) -> EndpointRecord {
    let address = SocketAddr::from(([198, 51, 100, seed], port));
    let network_key = identity(seed).network_key.public();
    EndpointRecord::sign(&vote_key(seed), chain(1), network_key, vec![address], time_ms)
}

fn registered(seeds: &[u8]) -> BTreeSet<crate::primitives::keys::PublicKey> {
    seeds.iter().map(|seed| vote_key(*seed).public()).collect()
}

fn known(seeds: &[u8]) -> Endpoints {
    let endpoints = Endpoints::new(chain(1), Vec::new());
    endpoints.set_registered(registered(seeds), NOW_MS);
    endpoints
}

#[test]
fn the_newest_record_of_a_masternode_counts_and_is_relayed_once() {
    let (endpoints, mut allowance, now) = (known(&[1]), Allowance::default(), Instant::now());
    let ports = |endpoints: &Endpoints| -> Vec<u16> {
        endpoints.of(&vote_key(1).public(), NOW_MS).iter().map(SocketAddr::port).collect()
    };
    let (old, new) = (record(1, 1, NOW_MS - 10), record(1, 2, NOW_MS));
    let mut hear = |record: &EndpointRecord, at| endpoints.hear(record, &mut allowance, at, NOW_MS);
    assert_eq!(hear(&old, now), Heard::New);
    assert_eq!(hear(&old, now + MINUTE), Heard::Ignored, "relayed once");
    assert_eq!(hear(&new, now), Heard::Ignored, "a key that signs without end is not relayed without end");
    assert_eq!(hear(&new, now + MINUTE), Heard::New);
    assert_eq!(hear(&old, now + 2 * MINUTE), Heard::Ignored, "replayed");
    assert_eq!(ports(&endpoints), [2]);
}

#[test]
fn what_no_masternode_has_signed_for_this_chain_now_is_not_kept() {
    let (endpoints, now) = (known(&[1, 2]), Instant::now());
    let hear = |record: &EndpointRecord| endpoints.hear(record, &mut Allowance::default(), now, NOW_MS);
    assert_eq!(hear(&record(3, 1, NOW_MS)), Heard::Ignored, "not in the registry");
    assert_eq!(
        hear(&record(1, 1, NOW_MS + 3_600_000)),
        Heard::Ignored,
        "of the future: it would stay the newest"
    );
    assert_eq!(hear(&record(1, 1, NOW_MS - STALE_MS - 1)), Heard::Ignored, "stale");
    let good = record(1, 1, NOW_MS);
    assert_eq!(hear(&EndpointRecord { time_ms: NOW_MS + 1, ..good.clone() }), Heard::Forged);
    assert_eq!(hear(&EndpointRecord { vote_key: vote_key(2).public(), ..good.clone() }), Heard::Forged);
    let foreign =
        EndpointRecord::sign(&vote_key(1), chain(2), good.network_key, good.addresses.clone(), NOW_MS);
    assert_eq!(hear(&foreign), Heard::Forged, "of another chain");
    assert_eq!(hear(&EndpointRecord { addresses: Vec::new(), ..good.clone() }), Heard::Forged);
    assert!(endpoints.is_empty());
    assert_eq!(hear(&good), Heard::New);
    assert_eq!(endpoints.of(&vote_key(1).public(), NOW_MS + STALE_MS + 1), [], "forgotten in time");
}

#[test]
fn there_is_one_record_a_masternode_and_none_of_those_that_left() {
    let all: Vec<u8> = (1..=50).collect();
    let (endpoints, now) = (known(&all), Instant::now());
    for round in 0..3 {
        for seed in &all {
            let record = record(*seed, 1, NOW_MS + round);
            endpoints.hear(
                &record,
                &mut Allowance::default(),
                now + MINUTE * u32::try_from(round).unwrap(),
                NOW_MS,
            );
        }
    }
    assert_eq!(endpoints.len(), 50);
    endpoints.set_registered(registered(&[1, 2]), NOW_MS);
    assert_eq!(endpoints.len(), 2);
}

#[test]
fn one_peer_has_a_bounded_number_of_signatures_checked() {
    let (endpoints, now) = (known(&[1]), Instant::now());
    let forged = EndpointRecord { time_ms: NOW_MS + 1, ..record(1, 1, NOW_MS) };
    let mut allowance = Allowance::default();
    let mut checked = |at| {
        (0..1000).filter(|_| endpoints.hear(&forged, &mut allowance, at, NOW_MS) == Heard::Forged).count()
    };
    assert_eq!(checked(now), 512);
    assert_eq!(checked(now), 0);
    assert_eq!(checked(now + MINUTE), 512);
}

#[test]
fn remembered_records_count_once_the_registry_is_known_and_their_signatures_hold() {
    let forged = EndpointRecord { time_ms: NOW_MS, ..record(2, 1, NOW_MS - 5) };
    let remembered = vec![record(1, 1, NOW_MS - 9), record(1, 7, NOW_MS), forged, record(3, 1, NOW_MS)];
    let endpoints = Endpoints::new(chain(1), remembered.clone());
    assert!(endpoints.is_empty());
    assert_eq!(endpoints.all(NOW_MS), remembered, "kept until then");
    assert_eq!(endpoints.checked(NOW_MS), [], "and not told: who tells what is forged is cut off");
    endpoints.set_registered(registered(&[1, 2]), NOW_MS);
    assert_eq!(endpoints.checked(NOW_MS), [record(1, 7, NOW_MS)]);
    assert_eq!(endpoints.all(NOW_MS), [record(1, 7, NOW_MS)]);
}

fn member(seed: u8) -> Identity {
    Identity { vote_key: Some(vote_key(seed)), ..identity(seed) }
}

/// Makes members 1 and 2 known, without an endpoint in the registry.
fn found(node: &Node) {
    let unknown = |seed| Member { vote_key: vote_key(seed).public(), endpoint: None };
    node.network.set_committee(vec![unknown(1), unknown(2)]);
    node.network.set_registered(registered(&[1, 2]));
}

#[tokio::test]
async fn members_without_an_endpoint_in_the_registry_find_each_other_by_their_word_and_again_after_a_restart()
{
    let directory = tempfile::tempdir().unwrap();
    let hub = start(options(&[]), identity(9)).await;
    let bound = NetworkOptions { outbound_target: 0, ..options(&[hub.address()]) };
    let mut one = start(bound.clone(), member(1)).await;
    assert_eq!(one.up().await, hub.id());
    // The hub comes to know the registry late: what it was told before is asked for again.
    found(&one);
    let remembering = NetworkOptions { peers_file: Some(directory.path().join("peers")), ..bound.clone() };
    let mut two = start(remembering.clone(), member(2)).await;
    assert_eq!(two.up().await, hub.id());
    found(&two);
    found(&hub);
    assert_eq!(two.up().await, one.id());
    assert_eq!(one.up().await, two.id());
    let told = hub.network.endpoints_of(&vote_key(1).public());
    assert_eq!(told, [one.address()]);
    // And without anybody to tell.
    two.network.shutdown(PATIENCE).await;
    hub.network.shutdown(PATIENCE).await;
    one.down().await;
    let mut two = start(NetworkOptions { bootstrap: Vec::new(), ..remembering }, member(2)).await;
    found(&two);
    assert_eq!(two.up().await, one.id());
}

#[tokio::test]
async fn whoever_relays_what_the_key_did_not_sign_is_cut_off() {
    let mut one = start(options(&[]), identity(1)).await;
    let bootstrap = vec![entry(None, one.address())];
    let mut two = start(NetworkOptions { bootstrap, ..options(&[]) }, identity(2)).await;
    one.up().await;
    two.up().await;
    two.network.set_registered(registered(&[1]));
    let now_ms = two.network.context.wall_us() / 1000;
    let forged = EndpointRecord { time_ms: now_ms, ..record(1, 1, now_ms - 1) };
    let peer = one.network.context.registry.live(two.id()).unwrap();
    router::control(&one.network.context, &peer, &Control::Endpoints(vec![forged]));
    let reason = one.down().await;
    assert!(reason.as_str().contains("did not sign for this chain"), "{reason}");
    assert!(two.network.context.endpoints.is_empty());
}

#[tokio::test]
async fn a_masternode_says_anew_where_it_is_when_its_earlier_word_is_wrong() {
    let mut one = start(options(&[]), member(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    one.up().await;
    two.up().await;
    // What an earlier run has said, in the future by this clock, is all that is known of it.
    two.network.set_registered(registered(&[1]));
    let context = &two.network.context;
    let later_ms = context.wall_us() / 1000 + 300_000;
    let network_key = one.id().0;
    let moved = vec![SocketAddr::from(([198, 51, 100, 1], 9))];
    let earlier = EndpointRecord::sign(&vote_key(1), chain(1), network_key, moved, later_ms);
    let long_ago = Instant::now();
    context.endpoints.hear(&earlier, &mut Allowance::default(), long_ago, later_ms);
    found(&one);
    let known = timeout(PATIENCE, async {
        while one.network.endpoints_of(&vote_key(1).public()) != [one.address()]
            || one.network.context.endpoints.all(later_ms)[0].time_ms <= later_ms
        {
            tokio::task::yield_now().await;
        }
    });
    known.await.expect("it did not outbid its earlier word");
}
