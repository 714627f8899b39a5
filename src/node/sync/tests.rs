//! Tests of a catch-up by itself: peers are what the test says they sent, the engine is what it adopts.

use super::*;
use crate::config::Config;
use crate::consensus::host::Host as _;
use crate::ledger::Ledger;
use crate::network::bans::offence::Charge;
use crate::node::host::ChainHost;
use crate::node::hub::Identity;
use crate::node::settings;
use crate::node::sync::peers::REQUESTS_MAX;
use crate::node::tests::servers::{self, Chain};
use crate::node::tests::{genesis, payment};
use crate::pool::PoolLimits;
use crate::primitives::chain::NetworkKind;
use crate::primitives::keys::PublicKey;
use parking_lot::Mutex;
use std::sync::mpsc::{SyncSender, channel, sync_channel};

const S: u64 = 1_000_000;

fn peer(number: u8) -> PeerId {
    PeerId(PublicKey([number; 32]))
}

/// A node that catches up with `chain`, at a moment.
struct World {
    chain: Chain,
    host: ChainHost,
    sync: Sync,
    workers: Vec<Worker>,
    sent: Receiver<(PeerId, Message)>,
    cut_off: Arc<Mutex<Vec<PeerId>>>,
    now_us: u64,
    _events: SyncSender<SyncEvent>,
}

impl World {
    /// Blocks with so many payments each.
    fn new(blocks: &[usize]) -> Self {
        let genesis = genesis(4);
        let mut coins = 0..;
        let mut payments =
            |count: usize| coins.by_ref().take(count).map(|coin| payment(&genesis, coin)).collect();
        let blocks = blocks.iter().map(|count| payments(*count)).collect();
        let chain = servers::chain(&genesis, genesis.time_ms + 100, blocks);
        let pool = Arc::new(Pool::new(PoolLimits::default()));
        let host = ChainHost::new(Arc::new(Ledger::in_memory(&genesis)), Arc::clone(&pool));
        let era = EraContext::after(genesis.chain_id(), &host.tip());
        let config = Config::defaults(NetworkKind::Devnet);
        let identity = Identity {
            name: CleanText::new("test"),
            network: NetworkKind::Devnet,
            chain: genesis.chain_id(),
            vote_key: None,
            p2p_address: String::new(),
            data_dir: std::path::PathBuf::new(),
            timing: settings::timing(&config),
            params: genesis.params.clone(),
            space: settings::space_limits(&config),
        };
        let (sender, sent) = channel();
        let cut_off: Arc<Mutex<Vec<PeerId>>> = Arc::default();
        let lying = Arc::clone(&cut_off);
        let syncer = Syncer {
            send: Box::new(move |peer, request: &Message| sender.send((peer, request.clone())).unwrap()),
            pool,
            era: Arc::new(ArcSwap::from_pointee(era)),
            engine: Arc::new(Lanes::new(64, 64)),
            on_fault: Arc::new(move |peer, _: &Charge| lying.lock().push(peer)),
            hub: Hub::new(identity, Arc::clone(&host.tip().next_committee), clock::now()),
            durable: Arc::new(AtomicU64::new(u64::MAX)),
        };
        let (events, wishes) = sync_channel(1);
        let (sync, workers) = Sync::new(syncer, wishes);
        Self { chain, host, sync, workers, sent, cut_off, now_us: S, _events: events }
    }

    fn tell(&mut self, event: SyncEvent) {
        self.sync.on_event(event, self.now_us);
        self.sync.advance(self.now_us);
    }

    /// A peer says it has all blocks, or so many.
    fn claims(&mut self, number: u8, claimed: u64) {
        let height = self.sync.with.era.load().height;
        self.tell(SyncEvent::Wanted { peer: peer(number), height, claimed });
    }

    fn asked(&self) -> Vec<(PeerId, Message)> {
        self.sent.try_iter().collect()
    }

    /// What an honest peer answers.
    fn answer(&self, request: &Message) -> Message {
        servers::answer(&self.chain, request).unwrap()
    }

    fn answers(&mut self, peer: PeerId, answer: Message) {
        self.tell(match answer {
            Message::Block { outline, qc } => SyncEvent::Outline { peer, outline, qc },
            Message::BlockBodies { height, from, transactions } => {
                SyncEvent::Bodies { peer, height, from, transactions }
            }
            Message::BlockNotKept { height, oldest } => SyncEvent::NotKept { peer, height, oldest },
            Message::Headers(headers) => SyncEvent::Headers { peer, headers },
            other => panic!("{other:?}"),
        });
    }

    /// Checks what waits to be checked.
    fn check(&mut self) {
        while self.sync.checkers.is_busy() {
            for worker in &self.workers {
                worker.run_waiting();
            }
            while let Some(checked) = self.sync.checkers.answer() {
                self.sync.on_checked(checked);
            }
            self.sync.advance(self.now_us);
        }
    }

    /// The engine adopts blocks up to a height.
    fn adopt(&mut self, height: u64) {
        while self.host.tip().height < height {
            let at = usize::try_from(self.host.tip().height).unwrap();
            let (block, qc) = self.chain[at].clone();
            self.host.commit(&Arc::new(block), &qc).unwrap();
        }
        let context = EraContext::after(self.host.chain(), &self.host.tip());
        self.sync.with.era.store(Arc::new(context));
        self.sync.advance(self.now_us);
    }

    /// Requests are answered by `of` until nobody is asked any more; who was asked what.
    fn serve(&mut self, of: impl Fn(&Self, PeerId, &Message) -> Option<Message>) -> Vec<(PeerId, Message)> {
        let mut all = Vec::new();
        loop {
            self.check();
            let asked = self.asked();
            if asked.is_empty() || all.len() > 1000 {
                return all;
            }
            for (peer, request) in asked {
                if let Some(answer) = of(self, peer, &request) {
                    self.answers(peer, answer);
                }
                all.push((peer, request));
            }
        }
    }

    /// Heights that were handed to the engine.
    fn handed(&self) -> Vec<u64> {
        let handed = self.sync.window.0.iter().filter(|(_, slot)| matches!(slot.stage, Stage::Handed { .. }));
        handed.map(|(height, _)| *height).collect()
    }
}

/// Only the first bodies, whatever was asked for.
fn from_the_start(world: &World, request: &Message) -> Message {
    let first = match request {
        Message::GetBlockBodies { height, .. } => Message::GetBlockBodies { height: *height, from: 0 },
        other => other.clone(),
    };
    few(world.answer(&first))
}

/// Of bodies the first one only.
fn few(answer: Message) -> Message {
    match answer {
        Message::BlockBodies { height, from, mut transactions } => {
            transactions.truncate(1);
            Message::BlockBodies { height, from, transactions }
        }
        other => other,
    }
}

#[test]
fn a_peer_that_sends_the_same_bodies_over_and_over_loses_the_block_to_another() {
    let mut world = World::new(&[5, 5]);
    world.claims(1, 2);
    let asked = world.serve(|world, _, request| Some(from_the_start(world, request)));
    assert!(asked.len() < 10, "{asked:?}");
    assert!(world.handed().is_empty());
    world.claims(2, 2);
    world.now_us += ANSWER_US + 1;
    world.claims(2, 2);
    world.serve(|world, from, request| match from == peer(1) {
        true => Some(from_the_start(world, request)),
        false => Some(world.answer(request)),
    });
    assert_eq!(world.handed(), [1, 2]);
    assert!(world.cut_off.lock().is_empty());
}

#[test]
fn a_peer_that_sends_little_at_a_time_is_asked_when_there_is_no_other() {
    let mut world = World::new(&[5, 5, 5]);
    world.claims(1, 3);
    world.claims(2, 3);
    let asked = world.serve(|world, from, request| {
        let answer = world.answer(request);
        Some(if from == peer(1) { few(answer) } else { answer })
    });
    assert_eq!(world.handed(), [1, 2, 3]);
    let pages = |of: PeerId| {
        let pages = asked
            .iter()
            .filter(|(to, request)| *to == of && matches!(request, Message::GetBlockBodies { .. }));
        pages.count()
    };
    assert!(pages(peer(1)) <= REQUESTS_MAX as usize, "{asked:?}");
    // It is slow and no liar: alone it serves to the end.
    let mut world = World::new(&[5, 5, 5]);
    world.claims(1, 3);
    world.serve(|world, _, request| Some(few(world.answer(request))));
    assert_eq!(world.handed(), [1, 2, 3]);
}

#[test]
fn blocks_without_bodies_count_as_served() {
    let mut world = World::new(&[0, 0]);
    world.claims(1, 2);
    world.serve(|world, _, request| Some(world.answer(request)));
    assert_eq!(world.handed(), [1, 2]);
    assert_eq!(world.sync.sources.described(world.now_us)[0].blocks, 2);
}

#[test]
fn a_phase_ends_when_those_ahead_keep_nothing_that_is_wanted_and_that_is_told() {
    let mut world = World::new(&[0, 0]);
    let mut events = world.sync.with.hub.subscribe();
    world.claims(1, 900);
    world.serve(|_, _, request| match request {
        Message::GetBlock { height } => Some(Message::BlockNotKept { height: *height, oldest: 500 }),
        other => panic!("{other:?}"),
    });
    assert!(world.sync.window.0.is_empty() && world.sync.with.hub.sync.load().is_none());
    let told = std::iter::from_fn(|| events.try_next()).any(|event| match &event.kind {
        EventKind::Alert { text, .. } => {
            text.as_str().contains("needs block 1") && text.as_str().contains("before 500")
        }
        _ => false,
    });
    assert!(told);
    // Somebody who keeps more comes.
    world.claims(2, 2);
    world.serve(|world, from, request| (from == peer(2)).then(|| world.answer(request)));
    assert_eq!(world.handed(), [1, 2]);
}

#[test]
fn what_was_checked_of_a_pull_that_was_dropped_does_not_count_for_the_next() {
    let mut world = World::new(&[3]);
    let serve = |world: &mut World, number: u8| {
        world.claims(number, 1);
        for _ in 0..2 {
            let (to, request) = world.asked().pop().unwrap();
            let answer = world.answer(&request);
            world.answers(to, answer);
        }
        assert!(matches!(world.sync.window.0[&1].stage, Stage::Checking));
    };
    serve(&mut world, 1);
    for worker in &world.workers {
        worker.run_waiting();
    }
    // Dropped before the answer of the checkers is here, and pulled anew from another.
    world.sync.reset();
    world.tell(SyncEvent::Gone(peer(1)));
    serve(&mut world, 2);
    let checked = world.sync.checkers.answer().unwrap();
    world.sync.on_checked(checked);
    assert!(matches!(world.sync.window.0[&1].stage, Stage::Checking), "it is of the first pull");
    world.check();
    assert_eq!(world.handed(), [1]);
    world.adopt(1);
    assert!(world.sync.window.0.is_empty());
}

impl World {
    /// The way from the tip of this moment to the last block.
    fn route(&self) -> Route {
        let (last, _) = self.chain.last().unwrap();
        let trusted = TrustedHeader { height: last.header.height, id: last.id() };
        Route::new(tip(&self.sync.with.era.load()), trusted, 0).unwrap()
    }

    fn wants_route(&mut self, number: u8, route: &Route) -> Vec<(PeerId, Message)> {
        self.tell(SyncEvent::Route { peer: peer(number), route: route.clone() });
        self.asked()
    }
}

#[test]
fn a_way_that_arrives_after_the_tip_moved_costs_no_honest_peer_its_connection() {
    for moved in 0..3 {
        let mut world = World::new(&[0; 5]);
        let route = world.route();
        let asked = world.wants_route(1, &route);
        let headers = world.answer(&asked[0].1);
        world.adopt(moved);
        world.answers(peer(1), headers);
        assert!(!world.sync.way.is_empty());
        world.claims(2, 5);
        world.serve(|world, _, request| Some(world.answer(request)));
        assert!(world.cut_off.lock().is_empty(), "after {moved}");
        assert_eq!(world.handed(), (moved + 1..=5).take(HANDED_MAX).collect::<Vec<_>>());
    }
}

#[test]
fn whoever_has_a_block_beside_the_way_is_cut_off_before_its_bodies_are_pulled() {
    let (mut world, forged) = (World::new(&[0; 3]), World::new(&[2; 3]));
    let route = world.route();
    let asked = world.wants_route(1, &route);
    let headers = world.answer(&asked[0].1);
    world.answers(peer(1), headers);
    world.claims(2, 3);
    let asked = world.serve(|_, _, request| Some(forged.answer(request)));
    assert_eq!(world.cut_off.lock()[..], [peer(2)]);
    assert!(asked.iter().all(|(_, request)| matches!(request, Message::GetBlock { .. })), "{asked:?}");
}

#[test]
fn a_way_and_its_pull_are_dropped_when_nobody_is_ahead_any_more() {
    let mut world = World::new(&[0; 3]);
    let route = world.route();
    let asked = world.wants_route(1, &route);
    assert!(world.sync.route.is_under_way());
    let later_us = world.now_us + WAY_US + 1;
    world.sync.advance(later_us);
    assert!(!world.sync.route.is_under_way(), "nobody wishes for it");
    world.now_us = later_us;
    world.wants_route(1, &route);
    let headers = world.answer(&asked[0].1);
    world.answers(peer(1), headers);
    assert!(!world.sync.way.is_empty());
    world.sync.advance(later_us + WAY_US + 1);
    assert!(world.sync.way.is_empty());
}

#[test]
fn who_did_not_bring_headers_lets_others_go_first_however_often_it_says_that_it_is_ahead() {
    // In silence, without them, and with another block at the trusted height.
    let other = World::new(&[2; 3]);
    let answers: [Option<Message>; 3] = [
        None,
        Some(Message::Headers(Vec::new())),
        Some(other.answer(&Message::GetHeaders { last: 3, count: 3 })),
    ];
    for answer in answers {
        let mut world = World::new(&[0; 3]);
        let route = world.route();
        let (mut asked_honest, begun_us) = (false, world.now_us);
        for tick in 1..=800 {
            // A hundred times a second the one, once a second the other, which comes second.
            world.now_us = begun_us + tick * 10_000;
            for (to, _) in world.wants_route(1, &route) {
                asked_honest |= to == peer(2);
                if let Some(answer) = answer.clone().filter(|_| to == peer(1)) {
                    world.answers(to, answer);
                }
            }
            if tick % 100 == 0 {
                asked_honest |= world.wants_route(2, &route).iter().any(|(to, _)| *to == peer(2));
            }
        }
        assert!(asked_honest, "{answer:?}");
        // Nobody else being there it is asked again.
        let mut world = World::new(&[0; 3]);
        assert_eq!(world.wants_route(1, &route).len(), 1);
        let again = (1..10).any(|_| {
            world.now_us += S;
            !world.wants_route(1, &route).is_empty()
        });
        assert!(again);
    }
}

#[test]
fn headers_in_pieces_are_no_answer() {
    let mut world = World::new(&[0; 5]);
    let route = world.route();
    world.wants_route(1, &route);
    let piece = world.answer(&Message::GetHeaders { last: 5, count: 1 });
    world.answers(peer(1), piece);
    assert_eq!(world.cut_off.lock()[..], [peer(1)]);
    assert_eq!(world.wants_route(2, &route).len(), 1, "the next one is asked");
}
