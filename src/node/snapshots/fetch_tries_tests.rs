//! Tests of what peers can do to the tries and the time of a node that fetches a snapshot.

use super::*;

/// Offers a snapshot of its own each time it is asked, made of an honest offer by `change`, and no other.
fn offering(change: impl Fn(&mut SnapshotOffer, u8) + Send + Sync + 'static) -> Twist {
    let count = Mutex::new(0);
    Box::new(move |_, answer| match answer {
        Some(Message::Snapshots(mut offers)) => {
            let mut count = count.lock();
            *count += 1;
            offers.truncate(1);
            offers[0].manifest = Hash([255 - *count; 32]);
            change(&mut offers[0], *count);
            Some(Message::Snapshots(offers))
        }
        other => other,
    })
}

#[tokio::test]
async fn one_peer_cannot_use_up_all_tries_with_snapshots_that_are_not_to_be_had() {
    let digest = |world: &World| match world.net.honest_answer(&Message::GetSnapshots) {
        Some(Message::Snapshots(offers)) => offers[0].manifest,
        other => panic!("{other:?}"),
    };
    for case in 0..3 {
        let mut world = World::new();
        let honest_digest = digest(&world);
        let change = move |offer: &mut SnapshotOffer, count: u8| match case {
            // Of no block.
            0 => offer.height = u64::MAX,
            // Without a manifest.
            1 => {}
            // The manifest of the honest beside no block.
            _ => (offer.height, offer.manifest) = (u64::MAX - u64::from(count), honest_digest),
        };
        world.net.up(1, offering(change));
        world.net.up(2, honest());
        let filled = world.fetch().await.unwrap_or_else(|error| panic!("{case}: {error}"));
        world.check(&filled);
        assert!(!world.net.cut_off().contains(&peer(2)));
    }
}

#[tokio::test]
async fn one_peer_cannot_use_up_all_tries_with_snapshots_it_says_are_gone() {
    let mut world = World::new();
    let lies = manifests(&world, |_, _| Some(Vec::new()));
    world.net.up(1, in_turn(lies));
    world.net.up(2, honest());
    world.patience.part_us = 100_000;
    world.patience.answer_us = 60_000_000;
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
}

/// More lying manifests than there are tries, each with these parts.
fn manifests(world: &World, part: fn(u32, Vec<u8>) -> Option<Vec<u8>>) -> Vec<Twist> {
    let lie = |number| {
        let change = move |manifest: &mut Manifest| (0..=number).for_each(|_| shift_sums(manifest));
        lying_manifest(world, change, part)
    };
    (0..TRIES_MAX + 4).map(lie).collect()
}

/// Another one each time it is asked what it keeps.
fn in_turn(twists: Vec<Twist>) -> Twist {
    let asked = Mutex::new(0);
    Box::new(move |request, answer| {
        let mut asked = asked.lock();
        *asked += usize::from(matches!(request, Message::GetSnapshots));
        twists[(*asked - 1).min(twists.len() - 1)](request, answer)
    })
}

#[tokio::test]
async fn one_peer_cannot_use_up_all_tries_with_manifests_that_lie_about_parts() {
    let mut world = World::new();
    // The lie is another one each time, and nobody serves the parts it is about.
    let lies = manifests(&world, |part, bytes| (part != 1 && part != 2).then_some(bytes));
    world.net.up(1, in_turn(lies));
    world.net.up(2, honest());
    world.patience.part_us = 200_000;
    world.patience.answer_us = 60_000_000;
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
}

#[tokio::test]
async fn how_long_a_manifest_is_is_each_offering_peer_s_own_word() {
    for length in [1, u64::MAX, PAGE_BYTES as u64 + 1] {
        let mut world = World::new();
        let twist: Twist = Box::new(move |_, answer| match answer {
            Some(Message::Snapshots(mut offers)) => {
                offers.iter_mut().for_each(|offer| offer.manifest_bytes = length);
                Some(Message::Snapshots(offers))
            }
            other => other,
        });
        world.net.up(2, honest());
        world.net.up(3, twist);
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        assert!(!world.net.cut_off().contains(&peer(2)));
    }
}

#[tokio::test]
async fn after_a_higher_snapshot_that_was_not_to_be_had_a_lower_one_is_reached() {
    let mut world = World::new();
    (0..2).for_each(|_| drop(world.chain.extend()));
    let top = BLOCKS as u64 + 2;
    let header = |height| (height, world.chain.store.header(height).unwrap().unwrap());
    let headers = (0..=top).map(header).collect();
    let net = Arc::get_mut(&mut world.net).unwrap();
    net.headers = headers;
    let (block, tip) = (net.headers[&top].id(), world.chain.ledger.tip());
    let commit = tip.commit.clone().unwrap();
    assert_eq!(tip.block, block);
    world.net.up(
        1,
        offering(move |offer, _| {
            (offer.height, offer.block, offer.commit) = (top, block, commit.clone());
        }),
    );
    world.net.up(2, honest());
    let filled = world.fetch().await.unwrap();
    assert_eq!(filled.height, BLOCKS as u64);
    assert!(world.net.cut_off().is_empty());
}

#[tokio::test]
async fn who_leads_nowhere_is_left_for_another_when_its_time_is_over() {
    let mut world = World::new();
    world.patience.answer_us = 3_600_000_000;
    world.patience.guide_us = 300_000;
    world.net.up(1, Box::new(|_, answer| answer.filter(|answer| !matches!(answer, Message::Links { .. }))));
    world.net.up(2, honest());
    let fetching = tokio::time::timeout(std::time::Duration::from_secs(60), world.fetch());
    let filled = fetching.await.expect("the silent peer is left").unwrap();
    world.check(&filled);
}
