//! Tests of fetching a snapshot from peers in memory, honest and lying, and of what is left in between.

use super::*;
use crate::ledger::set_hash::SetHash;
use crate::ledger::snapshot::outputs;
use crate::ledger::store::Store;
use crate::network::NetworkEvent;
use crate::node::snapshots::maker::tests::Chain;
use crate::node::snapshots::peers::Wire;
use crate::node::snapshots::server::SnapshotServer;
use crate::node::snapshots::server::tests::server_over;
use crate::node::snapshots::trail::Anchor;
use crate::primitives::block::Header;
use crate::primitives::encoding::encode;
use crate::primitives::hash::BlockId;
use crate::primitives::keys::PublicKey;
use crate::primitives::trusted::TrustedHeader;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[path = "fetch_tries_tests.rs"]
mod tries;

/// Peers answer within the call that asks them, so these times only end what nobody answers.
const PATIENCE: Patience = Patience {
    answer_us: 300_000,
    part_us: 900_000,
    peers_us: 2_000_000,
    others_us: 0,
    guide_us: 20_000_000,
};
/// Three chunks and the registry.
const ALLOCATIONS: usize = 2 * 8192 + 100;
const PARTS: u32 = 4;
const BLOCKS: usize = 4;

fn peer(seed: u8) -> PeerId {
    PeerId(PublicKey([seed; 32]))
}

/// What a peer makes of the answer an honest one would give; `None` keeps silent.
type Twist = Box<dyn Fn(&Message, Option<Message>) -> Option<Message> + Send + Sync>;

/// What a liar makes of a part.
type Lie = fn(u32, Vec<u8>) -> Option<Vec<u8>>;

/// Peers in memory, all over one chain.
struct Net {
    server: Mutex<SnapshotServer>,
    headers: BTreeMap<u64, Header>,
    events: mpsc::Sender<NetworkEvent>,
    peers: Mutex<BTreeMap<PeerId, Twist>>,
    /// Parts asked for, of whom.
    asked: Mutex<Vec<(PeerId, u32)>>,
    cut_off: Mutex<Vec<PeerId>>,
}

impl Net {
    fn up(&self, seed: u8, twist: Twist) {
        self.peers.lock().insert(peer(seed), twist);
        let address = "127.0.0.1:1".parse().unwrap();
        let up = NetworkEvent::Up {
            peer: peer(seed),
            vote_key: None,
            address,
            inbound: false,
            name: Default::default(),
            agent: Default::default(),
            height: BLOCKS as u64,
        };
        self.events.try_send(up).unwrap();
    }

    fn down(&self, id: PeerId) {
        if self.peers.lock().remove(&id).is_some() {
            let address = "127.0.0.1:1".parse().unwrap();
            let down = NetworkEvent::Down { peer: id, address, reason: Default::default() };
            self.events.try_send(down).unwrap();
        }
    }

    fn honest_answer(&self, request: &Message) -> Option<Message> {
        if let Message::GetHeaders { last, count } = request {
            let first = (last + 1).saturating_sub(u64::from(*count));
            let headers = (first..=*last).map(|height| self.headers.get(&height).cloned());
            return Some(Message::Headers(headers.collect::<Option<_>>().unwrap_or_default()));
        }
        self.server.lock().answer(request)
    }

    fn asked_of(&self, seed: u8) -> usize {
        self.asked.lock().iter().filter(|(id, _)| *id == peer(seed)).count()
    }

    fn cut_off(&self) -> Vec<PeerId> {
        let mut cut_off = self.cut_off.lock().clone();
        cut_off.dedup();
        cut_off
    }
}

impl Wire for Net {
    fn send(&self, to: PeerId, message: &Message) {
        if let Message::GetSnapshotPart { part, .. } = message {
            self.asked.lock().push((to, *part));
        }
        let honest = self.honest_answer(message);
        let peers = self.peers.lock();
        let Some(twist) = peers.get(&to) else { return };
        if let Some(message) = twist(message, honest) {
            self.events.try_send(NetworkEvent::Message { peer: to, message }).unwrap();
        }
    }

    fn cut_off(&self, id: PeerId, _: &crate::network::bans::offence::Charge) {
        self.cut_off.lock().push(id);
        self.down(id);
    }
}

fn honest() -> Twist {
    Box::new(|_, answer| answer)
}

/// Honest but for what it does to parts.
fn parts(change: impl Fn(u32, Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static) -> Twist {
    Box::new(move |_, answer| match answer {
        Some(Message::SnapshotPart { manifest, part, bytes }) => {
            change(part, bytes).map(|bytes| Message::SnapshotPart { manifest, part, bytes })
        }
        other => other,
    })
}

struct World {
    dir: tempfile::TempDir,
    chain: Chain,
    net: Arc<Net>,
    received: Option<mpsc::Receiver<NetworkEvent>>,
    stop: CancellationToken,
    patience: Patience,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (server, chain) = server_over(dir.path(), ALLOCATIONS, BLOCKS);
        let headers =
            (0..=BLOCKS as u64).map(|height| (height, chain.store.header(height).unwrap().unwrap()));
        let headers = headers.collect();
        let (events, received) = mpsc::channel(4096);
        let net = Net {
            server: Mutex::new(server),
            headers,
            events,
            peers: Mutex::default(),
            asked: Mutex::default(),
            cut_off: Mutex::default(),
        };
        let (net, received, stop) = (Arc::new(net), Some(received), CancellationToken::new());
        Self { dir, chain, net, received, stop, patience: PATIENCE }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("incoming")
    }

    fn genesis_anchor(&self) -> Anchor {
        Anchor::Header(Box::new(self.chain.genesis.state().header))
    }

    fn trusted(&self, height: u64) -> Anchor {
        Anchor::Block(TrustedHeader { height, id: self.net.headers[&height].id() })
    }

    async fn fetch(&mut self) -> Result<Filled, NoSnapshot> {
        let anchor = self.genesis_anchor();
        self.fetch_from(anchor).await
    }

    async fn fetch_from(&mut self, anchor: Anchor) -> Result<Filled, NoSnapshot> {
        self.fetch_telling(anchor, &|_| {}).await
    }

    async fn fetch_telling(
        &mut self,
        anchor: Anchor,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Filled, NoSnapshot> {
        let wire: Arc<dyn Wire> = Arc::clone(&self.net) as _;
        let mut peers = Peers::new(wire, self.received.take().unwrap(), self.stop.clone());
        let chain = self.chain.genesis.chain_id();
        let fetch = Fetch {
            peers: &mut peers,
            // The chain of these tests was founded in 1970.
            trail: Trail::new(chain, u64::MAX, anchor, self.patience),
            target: Target {
                chain,
                params: self.chain.genesis.params.clone(),
                folder: self.folder(),
                options: StoreOptions { cache_bytes: 4 << 20 },
                patience: self.patience,
                workers: 2,
            },
            progress,
        };
        let outcome = fetch.run().await;
        self.received = Some(peers.into_events().0);
        outcome
    }

    /// The filled database is the state of the chain.
    fn check(&self, filled: &Filled) {
        assert_eq!(filled.height, BLOCKS as u64);
        let store = open(&filled.folder, &self.chain);
        let (found, expected) = (store.load().unwrap().tip(), self.chain.ledger.tip());
        assert_eq!((&found.header, &found.registry), (&expected.header, &expected.registry));
        assert_eq!((&found.committee, &found.commit), (&expected.committee, &expected.commit));
    }
}

fn open(folder: &Path, chain: &Chain) -> Store {
    Store::open(folder, &chain.genesis, StoreOptions { cache_bytes: 4 << 20 }).unwrap()
}

#[tokio::test]
async fn honest_peers_share_the_work_and_the_state_is_theirs() {
    let mut world = World::new();
    (1..=3).for_each(|seed| world.net.up(seed, honest()));
    let last = Mutex::new(None);
    let filled =
        world.fetch_telling(world.genesis_anchor(), &|progress| *last.lock() = Some(progress)).await.unwrap();
    world.check(&filled);
    let asked = world.net.asked.lock().clone();
    assert_eq!(asked.len(), PARTS as usize, "{asked:?}");
    assert!((1..=3).all(|seed| world.net.asked_of(seed) > 0), "{asked:?}");
    assert!(world.net.cut_off().is_empty());
    let progress = last.lock().unwrap();
    assert_eq!((progress.parts, progress.sources, progress.height), ((PARTS, PARTS), 3, BLOCKS as u64));
}

#[tokio::test]
async fn a_peer_that_sends_a_wrong_part_is_cut_off_and_the_others_bring_it() {
    let lies: [Lie; 4] = [
        // A byte changed, cut short, another part, something made up.
        |_, mut bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Some(bytes)
        },
        |_, bytes| Some(bytes[..bytes.len() - 1].to_vec()),
        |_, bytes| Some(outputs(&bytes).flat_map(|_| [0; 84]).collect()),
        |part, _| Some(vec![7; part as usize + 1]),
    ];
    for lie in lies {
        let mut world = World::new();
        world.net.up(1, parts(lie));
        world.net.up(2, honest());
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        assert_eq!(world.net.cut_off(), [peer(1)]);
    }
}

#[tokio::test]
async fn without_an_honest_peer_there_is_no_state_rather_than_a_false_one() {
    let mut world = World::new();
    for seed in 1..=3 {
        world.net.up(
            seed,
            parts(|part, mut bytes| {
                bytes[0] ^= u8::from(part == 2);
                Some(bytes)
            }),
        );
    }
    let error = world.fetch().await.unwrap_err();
    assert!(matches!(error, NoSnapshot::NoneUsable), "{error}");
    assert!(!world.folder().join("db").join("CHAIN").exists());
    assert!(!world.net.cut_off().is_empty());
}

#[tokio::test]
async fn nobody_with_a_snapshot_is_a_reason_to_go_on_with_blocks() {
    let mut world = World::new();
    world.net.up(
        1,
        Box::new(|_, answer| match answer {
            Some(Message::Snapshots(_)) => Some(Message::Snapshots(Vec::new())),
            other => other,
        }),
    );
    assert!(matches!(world.fetch().await, Err(NoSnapshot::NotOffered)));
}

/// A manifest other than the honest one, made by `change`, and a peer that offers it and gives honest parts
/// or, for those in `held`, what `held` gives.
fn lying_manifest(
    world: &World,
    change: impl Fn(&mut Manifest),
    part: impl Fn(u32, Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> Twist {
    let net = Arc::clone(&world.net);
    let Some(Message::Snapshots(offers)) = net.honest_answer(&Message::GetSnapshots) else {
        panic!("offers")
    };
    let honest = offers[0].manifest;
    let request = Message::GetSnapshotManifest { manifest: honest, page: 0 };
    let Some(Message::SnapshotManifest { bytes, .. }) = net.honest_answer(&request) else {
        panic!("manifest")
    };
    let mut manifest = Manifest::from_bytes(&bytes).unwrap();
    change(&mut manifest);
    let (id, encoded) = (manifest.id(), encode(&manifest));
    let server = Arc::downgrade(&world.net);
    Box::new(move |request, answer| match (request, answer) {
        (_, Some(Message::Snapshots(mut offers))) => {
            offers.iter_mut().for_each(|offer| {
                (offer.manifest, offer.manifest_bytes) = (id, encoded.len() as u64);
            });
            Some(Message::Snapshots(offers))
        }
        (_, Some(Message::SnapshotManifest { page, .. })) => {
            Some(Message::SnapshotManifest { manifest: id, page, bytes: encoded.clone() })
        }
        (Message::GetSnapshotPart { part: number, .. }, _) => {
            let request = Message::GetSnapshotPart { manifest: honest, part: *number };
            let honest = server.upgrade().and_then(|net| net.server.lock().answer(&request));
            let Some(Message::SnapshotPart { bytes, .. }) = honest else { panic!("a part") };
            part(*number, bytes).map(|bytes| Message::SnapshotPart { manifest: id, part: *number, bytes })
        }
        (_, other) => other,
    })
}

/// Moves something from one sum to the next, which leaves their total.
fn shift_sums(manifest: &mut Manifest) {
    let sums = manifest.sums.clone();
    let (whole, _) = sums.as_chunks::<2048>();
    let shift = |sum: &[u8; 2048], by: u8| {
        let mut sum = *sum;
        let lane = u16::from_le_bytes([sum[0], sum[1]]);
        let lane = if by == 1 { lane.wrapping_add(1) } else { lane.wrapping_sub(1) };
        sum[..2].copy_from_slice(&lane.to_le_bytes());
        SetHash::from_bytes(&sum).to_bytes()
    };
    manifest.sums[..2048].copy_from_slice(&shift(&whole[0], 1));
    manifest.sums[2048..4096].copy_from_slice(&shift(&whole[1], 2));
}

#[tokio::test]
async fn a_manifest_that_lies_about_single_chunks_is_given_up_with_those_who_offer_it() {
    // With honest parts, which do not fit it; and with silence about them.
    for silent in [false, true] {
        let mut world = World::new();
        for seed in 1..=2 {
            let keep = move |part, bytes| (!silent || part != 1 && part != 2).then_some(bytes);
            let twist = lying_manifest(&world, shift_sums, keep);
            world.net.up(seed, twist);
        }
        world.net.up(3, honest());
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        let cut_off = world.net.cut_off();
        assert_eq!(cut_off.is_empty(), silent, "silence is no proof of a lie: {cut_off:?}");
        assert!(!cut_off.contains(&peer(3)));
        assert!(world.net.asked_of(1) + world.net.asked_of(2) > 0, "the lie was tried first");
    }
}

#[tokio::test]
async fn a_manifest_that_does_not_fit_its_header_costs_its_sender_the_connection() {
    let changes: [fn(&mut Manifest); 4] = [
        |manifest| manifest.sums[5] ^= 1,
        |manifest| manifest.header.supply = Default::default(),
        |manifest| manifest.committee[1].weight = 9,
        |manifest| manifest.registry.clear(),
    ];
    for change in changes {
        let mut world = World::new();
        for seed in 1..=2 {
            let twist = lying_manifest(&world, change, |_, bytes| Some(bytes));
            world.net.up(seed, twist);
        }
        world.net.up(3, honest());
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        let mut cut_off = world.net.cut_off();
        cut_off.sort();
        assert_eq!(cut_off, [peer(1), peer(2)]);
    }
}

#[tokio::test]
async fn a_registry_that_is_not_the_header_s_shows_when_all_is_there_and_everybody_who_offered_it_goes() {
    let mut world = World::new();
    let (mut entries, keys) = world.chain.ledger.tip().registry.parts();
    entries.pop();
    let registry = crate::ledger::registry::Registry::from_parts((entries, keys));
    let lie = crate::ledger::snapshot::registry_bytes(&registry);
    for seed in 1..=2 {
        let bytes = lie.clone();
        let change = |manifest: &mut Manifest| {
            let tip = world.chain.ledger.tip();
            *manifest = Manifest::of(tip.header.clone(), &tip.committee, &lie, manifest.sums.clone());
        };
        let part = move |part, honest| Some(if part == 0 { bytes.clone() } else { honest });
        let twist = lying_manifest(&world, change, part);
        world.net.up(seed, twist);
    }
    world.net.up(3, honest());
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
    let mut cut_off = world.net.cut_off();
    cut_off.sort();
    assert_eq!(cut_off, [peer(1), peer(2)]);
}

#[tokio::test]
async fn offers_of_blocks_that_are_not_of_the_chain_or_with_forged_certificates_are_lies() {
    for forge_commit in [false, true] {
        let mut world = World::new();
        world.net.up(
            1,
            Box::new(move |_, answer| match answer {
                Some(Message::Snapshots(mut offers)) => {
                    for offer in &mut offers {
                        if forge_commit {
                            offer.commit.round += 1;
                        } else {
                            offer.block = BlockId(Hash([9; 32]));
                            offer.manifest = Hash([255; 32]);
                        }
                    }
                    Some(Message::Snapshots(offers))
                }
                other => other,
            }),
        );
        world.net.up(2, honest());
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        assert_eq!(world.net.cut_off(), [peer(1)]);
    }
}

#[tokio::test]
async fn links_that_prove_nothing_cost_their_sender_the_connection() {
    let mut world = World::new();
    world.net.up(
        1,
        Box::new(|_, answer| match answer {
            Some(Message::Links { from, mut links }) => {
                let middle = links[0].len() / 2;
                links[0][middle] ^= 1;
                Some(Message::Links { from, links })
            }
            other => other,
        }),
    );
    world.net.up(2, honest());
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
    assert_eq!(world.net.cut_off(), [peer(1)]);
}

#[tokio::test]
async fn the_block_is_found_from_a_trusted_one_below_at_and_above_the_snapshot() {
    for height in [1, 3, 4] {
        let mut world = World::new();
        world.net.up(1, honest());
        let anchor = world.trusted(height);
        let filled = world.fetch_from(anchor).await.unwrap();
        world.check(&filled);
    }
    // Above it: two more blocks after the snapshot.
    let dir = tempfile::tempdir().unwrap();
    let (server, mut chain) = server_over(dir.path(), ALLOCATIONS, BLOCKS);
    let at_snapshot = chain.ledger.tip();
    (0..2).for_each(|_| drop(chain.extend()));
    let mut world = World::new();
    let top = BLOCKS as u64 + 2;
    let headers = (0..=top).map(|height| (height, chain.store.header(height).unwrap().unwrap())).collect();
    let (events, received) = mpsc::channel(4096);
    world.net = Arc::new(Net {
        server: Mutex::new(server),
        headers,
        events,
        peers: Mutex::default(),
        asked: Mutex::default(),
        cut_off: Mutex::default(),
    });
    world.received = Some(received);
    world.net.up(1, honest());
    let anchor = world.trusted(top);
    let filled = world.fetch_from(anchor).await.unwrap();
    assert_eq!(open(&filled.folder, &chain).load().unwrap().tip().header, at_snapshot.header);
}

#[tokio::test]
async fn a_trusted_block_that_nobody_has_leads_nowhere() {
    for height in [1, 4, 9] {
        let mut world = World::new();
        world.net.up(1, honest());
        let trusted = TrustedHeader { height, id: BlockId(Hash([9; 32])) };
        assert!(world.fetch_from(Anchor::Block(trusted)).await.is_err());
        assert!(!world.folder().join("db").join("CHAIN").exists());
    }
}

#[tokio::test]
async fn what_was_fetched_before_an_interruption_is_not_fetched_again_and_what_was_torn_is() {
    // Interrupted after each number of parts.
    for count in 1..PARTS {
        let mut world = World::new();
        world.net.up(1, honest());
        let stop = world.stop.clone();
        let interrupt = move |progress: Progress| {
            if progress.parts.0 >= count {
                stop.cancel();
            }
        };
        let error = world.fetch_telling(world.genesis_anchor(), &interrupt).await.unwrap_err();
        assert!(matches!(error, NoSnapshot::Stopping), "{error}");
        let left: Vec<u32> =
            (0..PARTS).filter(|part| world.folder().join(format!("part-{part}")).exists()).collect();
        assert!(left.len() >= count as usize, "{left:?}");
        // One of them is torn.
        let torn = world.folder().join(format!("part-{}", left[0]));
        let bytes = std::fs::read(&torn).unwrap();
        std::fs::write(&torn, &bytes[..bytes.len() / 2]).unwrap();
        world.stop = CancellationToken::new();
        world.net.asked.lock().clear();
        while world.received.as_mut().unwrap().try_recv().is_ok() {}
        world.net.up(2, honest());
        let filled = world.fetch().await.unwrap();
        world.check(&filled);
        let mut asked: Vec<u32> = world.net.asked.lock().iter().map(|(_, part)| *part).collect();
        asked.sort_unstable();
        let missing: Vec<u32> = (0..PARTS).filter(|part| !left[1..].contains(part)).collect();
        assert_eq!(asked, missing);
        assert!(world.net.cut_off().is_empty(), "a torn file is nobody's lie");
    }
}

#[tokio::test]
async fn when_the_only_server_disappears_another_takes_its_place() {
    let mut world = World::new();
    let weak = Arc::downgrade(&world.net);
    let served = Mutex::new(0);
    world.net.up(
        1,
        parts(move |_, bytes| {
            let mut served = served.lock();
            *served += 1;
            let Some(net) = weak.upgrade().filter(|_| *served == 2) else {
                return (*served < 2).then_some(bytes);
            };
            // Gone without a word, and somebody else comes.
            let address = "127.0.0.1:1".parse().unwrap();
            let down = NetworkEvent::Down { peer: peer(1), address, reason: Default::default() };
            net.events.try_send(down).unwrap();
            let late = Arc::clone(&net);
            std::thread::spawn(move || late.up(2, honest()));
            None
        }),
    );
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
    assert!(world.net.asked_of(2) > 0 && world.net.cut_off().is_empty());
}

#[tokio::test]
async fn a_peer_that_does_not_keep_the_snapshot_any_more_is_no_liar() {
    let mut world = World::new();
    world.net.up(1, parts(|_, _| Some(Vec::new())));
    world.net.up(2, honest());
    let filled = world.fetch().await.unwrap();
    world.check(&filled);
    assert!(world.net.cut_off().is_empty());
}
