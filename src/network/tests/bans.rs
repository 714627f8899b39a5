//! Bans over real sockets: offences, orders, restarts.

use crate::network::bans::BanNews;
use crate::network::bans::offence::{Charge, Offence};
use crate::network::handshake::{CloseCode, PROTOCOL, VoteCertificate};
use crate::network::members::Member;
use crate::network::tests::hostile::Bare;
use crate::network::tests::{Node, PATIENCE, chain, identity, options, start};
use crate::network::{NetworkEvent, NetworkOptions};
use crate::primitives::keys::SecretKey;
use crate::primitives::message::PeerId;
use std::time::Duration;
use tokio::time::timeout;

const HOUR: Duration = Duration::from_secs(3600);

fn false_signature() -> Charge {
    Charge::new(Offence::BadSignature, "vote", "vote with an invalid signature")
}

async fn news(node: &mut Node) -> BanNews {
    node.until(|event| match event {
        NetworkEvent::Bans(news) => Some(news.clone()),
        _ => None,
    })
    .await
}

/// Has the peer with a key offend so many times, as soon as it is let in again; what the node says of it.
async fn offend(node: &mut Node, seed: u8, vote: Option<&SecretKey>, times: usize) -> BanNews {
    let mut done = 0;
    let mut told = None;
    timeout(PATIENCE, async {
        while done < times {
            let bare = Bare::connect_as(seed, node.address(), PROTOCOL).await.unwrap();
            let hello = crate::network::handshake::Hello {
                vote: vote.map(|key| VoteCertificate::sign(key, chain(1), &bare.key.public())),
                ..bare.hello()
            };
            // Kept out for a second or two after each.
            if bare.greet(&hello).await.is_err() {
                tokio::task::yield_now().await;
                continue;
            }
            node.up().await;
            node.network.charge(PeerId(bare.key.public()), &false_signature());
            node.network.charge(PeerId(bare.key.public()), &false_signature());
            done += 1;
            // The last one is told of before or after the connection has ended.
            let (mut down, last) = (false, done == times);
            node.until(|event| {
                down |= matches!(event, NetworkEvent::Down { .. });
                if let NetworkEvent::Bans(news) = event {
                    told = Some(news.clone());
                }
                (down && (!last || told.is_some())).then_some(())
            })
            .await;
        }
    })
    .await
    .expect("not let in again");
    told.expect("nothing was told")
}

#[tokio::test]
async fn a_peer_that_offends_again_and_again_is_banned_before_its_hello_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bans");
    let with_file = || NetworkOptions { bans_file: Some(file.clone()), ..options(&[]) };
    let mut node = start(with_file(), identity(1)).await;
    let BanNews::Banned(ban) = offend(&mut node, 60, None, 3).await else { panic!("no ban") };
    let key = SecretKey::from_seed(&[60; 32]).public();
    assert_eq!(ban.subject.to_string(), key.to_string());
    assert!(ban.automatic && ban.evidence.as_str().contains("invalid signature"));
    assert_eq!(node.network.counts().bans.offences, 3, "only the first of a connection counts");
    let refused = |node: &Node| {
        let address = node.address();
        async move {
            let bare = Bare::connect_as(60, address, PROTOCOL).await.unwrap();
            // No hello was said, and the answer is there.
            assert_eq!(bare.close_code().await, Some(CloseCode::Banned));
        }
    };
    refused(&node).await;
    Bare::accepted_as(61, &mut node).await;
    node.network.shutdown(PATIENCE).await;
    let mut again = start(with_file(), identity(1)).await;
    assert_eq!(again.network.bans().len(), 1);
    refused(&again).await;
    assert_eq!(again.network.unban(&key.to_string()).unwrap().len(), 1);
    assert!(matches!(news(&mut again).await, BanNews::Over { lifted: true, .. }));
    Bare::accepted_as(60, &mut again).await;
    again.network.shutdown(PATIENCE).await;
    assert!(start(with_file(), identity(1)).await.network.bans().is_empty(), "lifted for good");
}

#[tokio::test]
async fn a_member_of_the_committee_is_kept_out_for_a_moment_and_never_banned() {
    let mut node = start(options(&[]), identity(1)).await;
    let vote = SecretKey::from_seed(&[7; 32]);
    node.network.set_committee(vec![Member { vote_key: vote.public(), endpoint: None }]);
    let told = offend(&mut node, 60, Some(&vote), 3).await;
    let BanNews::MemberHeld { vote_key, .. } = told else { panic!("banned: {told:?}") };
    assert_eq!(vote_key, vote.public());
    assert!(node.network.bans().is_empty());
    // With another network key it is the same member.
    let other = Bare::connect_as(61, node.address(), PROTOCOL).await.unwrap();
    let certified = VoteCertificate::sign(&vote, chain(1), &other.key.public());
    let hello = crate::network::handshake::Hello { vote: Some(certified), ..other.hello() };
    assert_eq!(other.greet(&hello).await.unwrap_err().code, Some(CloseCode::Held));
    // The operator pardons it.
    node.network.unban(&SecretKey::from_seed(&[60; 32]).public().to_string()).unwrap();
    let again = Bare::connect_as(62, node.address(), PROTOCOL).await.unwrap();
    let certified = VoteCertificate::sign(&vote, chain(1), &again.key.public());
    again.greet(&crate::network::handshake::Hello { vote: Some(certified), ..again.hello() }).await.unwrap();
}

#[tokio::test]
async fn the_operator_bans_a_connected_peer_by_the_first_digits_and_lifts_it_and_it_comes_back() {
    let mut node = start(options(&[]), identity(1)).await;
    let mut other = start(options(&[node.address()]), identity(2)).await;
    node.up().await;
    other.up().await;
    let digits: String = other.id().to_string().chars().take(10).collect();
    let ordered = node.network.ban(&digits, HOUR, "noise").unwrap();
    assert_eq!((ordered.disconnected, ordered.members), (1, 0));
    assert_eq!(ordered.ban.subject.to_string(), other.id().to_string());
    assert!(other.down().await.as_str().contains("banned: noise"));
    // It dials on and is told why not.
    assert!(other.refused().await.as_str().contains("banned for 60 more minutes: noise"));
    assert_eq!(node.network.counts().inbound, 0);
    assert_eq!(node.network.unban(&digits).unwrap().len(), 1, "by the same digits");
    node.up().await;
    other.up().await;
}

#[tokio::test]
async fn a_banned_address_is_refused_before_tls_and_not_dialled() {
    let mut node = start(options(&[]), identity(1)).await;
    node.network.ban("127.0.0.0/8", HOUR, "noise").unwrap();
    assert!(Bare::connect_as(60, node.address(), PROTOCOL).await.is_err(), "no key was exchanged");
    let other = start(options(&[]), identity(2)).await;
    node.network.context.book.hear(&[other.address()], other.address().ip());
    assert_eq!(node.network.counts().bans.refused, 1);
    timeout(PATIENCE, async {
        while node.network.counts().bans.refused < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("not dialled");
    assert_eq!(node.network.counts().outbound, 0);
    // Lifting it has what is known dialled at once, whatever pause it was in.
    node.network.unban("127.0.0.1").unwrap();
    assert_eq!(node.up().await, other.id());
}

#[tokio::test]
async fn orders_that_mean_nobody_or_everybody_are_refused_with_the_remedy() {
    let node = start(options(&[]), identity(1)).await;
    for (whom, words) in [
        ("somebody", "neither a peer key"),
        ("0.0.0.0/0", "8 to 32 are allowed"),
        ("deadbeef", "neither a peer key"),
        (node.id().to_string().as_str(), "this node itself"),
    ] {
        let error = node.network.ban(whom, HOUR, "").unwrap_err().to_string();
        assert!(error.contains(words), "{whom}: {error}");
    }
    assert!(node.network.unban("all").unwrap().is_empty());
}
