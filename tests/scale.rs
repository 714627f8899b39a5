//! What a payment costs as the committee grows: machines with real keys, signatures and ledgers in one
//! process, on links with a delay, without sockets and disks.
//!
//! ```text
//! MASTERNODE_SCALE=4,16,64,150 cargo test --release --test scale -- --nocapture
//! ```
//!
//! Time is simulated: every message takes [`LINK_US`], every durable record [`SYNC_US`], and a node is busy
//! for as long as its checks and its machine really took on one core here. `MASTERNODE_SCALE_LOAD` payments
//! a second (200) are handed in for `MASTERNODE_SCALE_SECONDS` (2). That all are final and in one chain is
//! asserted; bytes, processor time and time to finality are printed, and kept in docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use masternode::consensus::host::Host as _;
use masternode::consensus::input::{Input, Now};
use masternode::consensus::machine::Machine;
use masternode::consensus::output::{Output, Target};
use masternode::consensus::standing::Start;
use masternode::consensus::timing::Timing;
use masternode::consensus::verify::{verify_decided, verify_real, verify_transactions};
use masternode::ledger::Ledger;
use masternode::ledger::genesis::{Allocation, Founder, Genesis};
use masternode::node::host::ChainHost;
use masternode::pool::{Pool, PoolLimits};
use masternode::primitives::amount::Amount;
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::encoding::encode;
use masternode::primitives::hash::{BlockId, Txid};
use masternode::primitives::keys::{SecretKey, Signature, verify_batch};
use masternode::primitives::message::{Message, PeerId};
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind,
    TxInput, TxOutput, Utxo,
};
use rustix::time::{ClockId, clock_gettime};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

const MS: u64 = 1000;
/// One way.
const LINK_US: u64 = 50 * MS;
/// A group of records made durable.
const SYNC_US: u64 = MS;
/// All have heard each other by then.
const FIRST_PAYMENT_US: u64 = 1500 * MS;
/// From one block to the next freeze.
const ERA_US: u64 = 3000 * MS;
/// Simulated time after which something is wrong.
const END_US: u64 = 60_000 * MS;
const GENESIS_MS: u64 = 1_700_000_000_000;
/// Bytes of a frame before its payload.
const FRAME_HEADER: u64 = 4;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// Processor time of this thread in nanoseconds.
fn processor_ns() -> u64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

/// What a message is sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Bodies of payments on their way to all.
    Relay,
    /// Vote batches.
    Votes,
    /// Proposals, votes on blocks, commits, and what is asked for to judge a proposal.
    Checkpoint,
    /// What does not depend on payments.
    Status,
}

fn purpose(message: &Message) -> Purpose {
    match message {
        Message::Transaction(_) => Purpose::Relay,
        Message::VoteBatch(_) => Purpose::Votes,
        Message::Status(_) => Purpose::Status,
        _ => Purpose::Checkpoint,
    }
}

struct Node {
    key: SecretKey,
    host: ChainHost,
    machine: Machine,
    inbox: Vec<(usize, Rc<Message>)>,
    submitted: Vec<SharedTransaction>,
    seen: HashSet<Txid>,
    /// Busy until then.
    free_us: u64,
    works: bool,
    wakes_at: Option<u64>,
}

enum Event {
    Arrive { from: usize, to: Rc<[usize]>, message: Rc<Message> },
    Submit { node: usize, payment: SharedTransaction },
    Decided { node: usize, height: u64 },
    Work { node: usize },
    Wake { node: usize },
}

/// What a run has shown.
#[derive(Default)]
struct Figures {
    bytes: BTreeMap<Purpose, u64>,
    checking_ns: u64,
    machine_ns: u64,
    /// From the submission at a node to finality there.
    finality_us: Vec<u64>,
    /// Of the second block on: the commit certificate.
    certificate_bytes: u64,
}

struct World {
    nodes: Vec<Node>,
    peers: HashMap<PeerId, usize>,
    at_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    next_event: u64,
    blocks: BTreeMap<u64, (Block, Qc)>,
    ids: BTreeMap<u64, BlockId>,
    /// Where and when a payment was handed in.
    open: HashMap<Txid, (usize, u64)>,
    figures: Figures,
}

fn genesis(members: usize, coins: usize, payer: &SecretKey) -> Genesis {
    let founder = |number: usize| Founder {
        name: format!("node{number}"),
        vote_key: key(number).public(),
        tier: Tier::Bronze,
        owner: key(number).public().key_hash(),
        payout: key(number).public().key_hash(),
    };
    let coin = Allocation { key_hash: payer.public().key_hash(), amount: Amount::from_time(10).unwrap() };
    Genesis {
        network: NetworkKind::Devnet,
        name: "scale".to_owned(),
        time_ms: GENESIS_MS,
        params: Params::of(NetworkKind::Devnet),
        masternodes: (0..members).map(founder).collect(),
        allocations: vec![coin; coins],
    }
}

fn key(number: usize) -> SecretKey {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64).to_le_bytes());
    SecretKey::from_seed(&seed)
}

fn payment(genesis: &Genesis, payer: &SecretKey, (outpoint, coin): (OutPoint, Utxo)) -> SharedTransaction {
    let to = payer.public().key_hash();
    let rest = Amount::from_units(coin.value.units() - 12_000).unwrap();
    let mut payment = Transaction {
        version: TRANSACTION_VERSION,
        kind: TransactionKind::Payment,
        expiry: 90,
        inputs: vec![TxInput { outpoint, public_key: payer.public(), signature: Signature([0; 64]) }],
        outputs: vec![
            TxOutput { value: rest, key_hash: to },
            TxOutput { value: Amount::from_units(10_000).unwrap(), key_hash: to },
        ],
        payload: Vec::new(),
    };
    payment.sign(genesis.chain_id(), payer);
    SealedTransaction::new(payment)
}

impl World {
    fn new(members: usize, genesis: &Genesis) -> Self {
        let timing = Timing { era_us: ERA_US, ..Timing::of(NetworkKind::Testnet) };
        let node = |number: usize| {
            let host = ChainHost::new(
                Arc::new(Ledger::in_memory(genesis)),
                Arc::new(Pool::new(PoolLimits::default())),
            );
            let start = Start::Whole { since: vec![None], nonce: [0; 32] };
            let machine = Machine::new(Some(Box::new(key(number))), timing, &host, start);
            Node {
                key: key(number),
                host,
                machine,
                inbox: Vec::new(),
                submitted: Vec::new(),
                seen: HashSet::new(),
                free_us: 0,
                works: false,
                wakes_at: None,
            }
        };
        let nodes: Vec<Node> = (0..members).map(node).collect();
        let peers = nodes.iter().map(|node| PeerId(node.key.public())).zip(0..).collect();
        Self {
            nodes,
            peers,
            at_us: 0,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            next_event: 0,
            blocks: BTreeMap::new(),
            ids: BTreeMap::new(),
            open: HashMap::new(),
            figures: Figures::default(),
        }
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.queue.push(Reverse((at_us, self.next_event)));
        self.events.insert(self.next_event, event);
        self.next_event += 1;
    }

    fn run(&mut self) {
        for node in 0..self.nodes.len() {
            self.step(node, Input::Start);
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                let vote_key = self.nodes[other].key.public();
                self.step(node, Input::PeerUp { peer: PeerId(vote_key), vote_key: Some(vote_key) });
            }
        }
        while let Some(Reverse((at_us, number))) = self.queue.pop() {
            self.at_us = at_us;
            assert!(at_us < END_US, "{} payments are not final", self.open.len());
            let event = self.events.remove(&number).unwrap();
            self.happen(event);
            let first = self.nodes.iter().map(|node| node.host.tip().height).min().unwrap();
            if self.open.is_empty() && first >= 2 {
                return;
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { from, to, message } => {
                for node in to.iter().copied() {
                    self.nodes[node].inbox.push((from, Rc::clone(&message)));
                    self.begin_work(node);
                }
            }
            Event::Submit { node, payment } => {
                self.open.insert(payment.id(), (node, self.at_us));
                self.nodes[node].submitted.push(payment);
                self.begin_work(node);
            }
            Event::Decided { node, height } => self.take_decided(node, height),
            Event::Work { node } => {
                self.nodes[node].works = false;
                self.work(node);
            }
            Event::Wake { node } => {
                self.nodes[node].wakes_at = None;
                let due = self.nodes[node].machine.next_deadline();
                if due.is_some_and(|due| due <= self.at_us) {
                    self.step(node, Input::Wake);
                } else {
                    self.set_alarm(node);
                }
            }
        }
    }

    fn begin_work(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].works, true) {
            self.at(self.at_us.max(self.nodes[node].free_us), Event::Work { node });
        }
    }

    /// Checks and takes all that has arrived, as the checking workers do: what waits is one batch.
    fn work(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let era = node.machine.era();
        let (mut senders, mut messages, mut payments) = (Vec::new(), Vec::new(), Vec::new());
        for (from, message) in node.inbox.drain(..) {
            match &*message {
                Message::Transaction(body) => {
                    let payment = SealedTransaction::new(body.clone());
                    if node.seen.insert(payment.id()) {
                        payments.push((Some(from), payment));
                    }
                }
                other => {
                    senders.push(from);
                    messages.push(other.clone());
                }
            }
        }
        for payment in node.submitted.drain(..) {
            node.seen.insert(payment.id());
            payments.push((None, payment));
        }
        let begun = processor_ns();
        let checked = verify_real(messages, &era);
        let (origins, bodies): (Vec<_>, Vec<_>) = payments.into_iter().unzip();
        let checked_payments = verify_transactions(bodies, &era, &verify_batch);
        let took_ns = processor_ns() - begun;
        self.figures.checking_ns += took_ns;
        self.nodes[number].free_us = self.at_us + took_ns / 1000;
        for (from, message) in senders.into_iter().zip(checked) {
            let from = PeerId(self.nodes[from].key.public());
            self.step(number, Input::Message { from, message: message.expect("nobody lies") });
        }
        for (from, payment) in origins.into_iter().zip(checked_payments) {
            let from = from.map(|from| PeerId(self.nodes[from].key.public()));
            let transaction = payment.unwrap_or_else(|_| panic!("it was signed"));
            self.step(number, Input::Transaction { from, transaction });
        }
    }

    fn take_decided(&mut self, number: usize, height: u64) {
        let era = self.nodes[number].machine.era();
        let Some((block, qc)) = self.blocks.get(&height).filter(|_| era.height == height).cloned() else {
            return;
        };
        let from = PeerId(self.nodes[(number + 1) % self.nodes.len()].key.public());
        let block = verify_decided(block, qc, &era, &verify_batch).expect("it was decided");
        self.step(number, Input::Decided { from, block });
    }

    fn step(&mut self, number: usize, input: Input) {
        let node = &mut self.nodes[number];
        let now_us = node.free_us.max(self.at_us);
        let now = Now { monotonic_us: now_us, wall_ms: GENESIS_MS + now_us / MS };
        let begun = processor_ns();
        let outputs = node.machine.step(&mut node.host, now, input);
        let took_ns = processor_ns() - begun;
        self.figures.machine_ns += took_ns;
        node.free_us = now_us + took_ns / 1000;
        let mut leaves_us = node.free_us;
        for output in outputs {
            if let Output::Persist { .. } = output {
                leaves_us = self.nodes[number].free_us + SYNC_US;
            } else {
                self.carry_out(number, output, leaves_us);
            }
        }
        self.set_alarm(number);
    }

    fn carry_out(&mut self, number: usize, output: Output, leaves_us: u64) {
        match output {
            Output::Send { to, message } => {
                let other = |node: &usize| *node != number;
                let to: Rc<[usize]> = match to {
                    Target::All => (0..self.nodes.len()).filter(other).collect(),
                    Target::AllExcept(peer) => {
                        let but = self.peers[&peer];
                        (0..self.nodes.len()).filter(other).filter(|node| *node != but).collect()
                    }
                    Target::Peer(peer) => Rc::new([self.peers[&peer]]),
                };
                let bytes = (encode(&message).len() as u64 + FRAME_HEADER) * to.len() as u64;
                *self.figures.bytes.entry(purpose(&message)).or_default() += bytes;
                let message = Rc::new(message);
                self.at(leaves_us + LINK_US, Event::Arrive { from: number, to, message });
            }
            Output::Replay(messages) => {
                for (from, message) in messages {
                    let from = self.peers[&from];
                    self.nodes[number].inbox.push((from, Rc::new(message)));
                }
                self.begin_work(number);
            }
            Output::PullBlock { height, .. } => {
                if let Some((block, _)) = self.blocks.get(&height) {
                    let bytes = encode(&block.outline()).len() as u64;
                    *self.figures.bytes.entry(Purpose::Checkpoint).or_default() += bytes;
                    self.at(leaves_us + 2 * LINK_US, Event::Decided { node: number, height });
                }
            }
            Output::Committed { block, qc, .. } => {
                let height = block.header.height;
                let id = *self.ids.entry(height).or_insert_with(|| block.id());
                assert_eq!(id, block.id(), "one block at height {height}");
                self.figures.certificate_bytes = encode(&qc).len() as u64;
                // Those that the freeze has overtaken are final by the block.
                for payment in &block.transactions {
                    self.settle(number, &payment.id(), leaves_us);
                }
                self.blocks.entry(height).or_insert_with(|| ((*block).clone(), qc));
            }
            Output::Final { txid, .. } => self.settle(number, &txid, leaves_us),
            Output::Misbehaved { what, .. } => panic!("nobody lies: {what}"),
            Output::Halt { reason } => panic!("{reason}"),
            Output::Rejected { reason, .. } => {
                assert!(reason.is_temporary() || reason.to_string().contains("known"), "{reason}");
            }
            _ => {}
        }
    }

    /// A payment is final at a node; what counts is where it was handed in.
    fn settle(&mut self, number: usize, txid: &Txid, at_us: u64) {
        if let Some((_, since)) = self.open.get(txid).filter(|(node, _)| *node == number) {
            self.figures.finality_us.push(at_us - since);
            self.open.remove(txid);
        }
    }

    fn set_alarm(&mut self, number: usize) {
        let node = &self.nodes[number];
        let Some(due) = node.machine.next_deadline() else { return };
        let due = due.max(node.free_us);
        if node.wakes_at.is_none_or(|set| due < set) {
            self.nodes[number].wakes_at = Some(due);
            self.at(due, Event::Wake { node: number });
        }
    }
}

fn grow_to(members: usize, load: u64, seconds: u64) {
    let count = usize::try_from(load * seconds).unwrap();
    let payer = SecretKey::from_seed(&[9; 32]);
    let genesis = genesis(members, count, &payer);
    let own = payer.public().key_hash();
    let coins = genesis.utxos().into_iter().filter(|(_, utxo)| utxo.key_hash == own).take(count);
    let payments: Vec<SharedTransaction> = coins.map(|coin| payment(&genesis, &payer, coin)).collect();
    let size = encode(payments[0].body()).len();
    let mut world = World::new(members, &genesis);
    for (index, payment) in payments.into_iter().enumerate() {
        let at_us = FIRST_PAYMENT_US + index as u64 * 1_000_000 / load;
        world.at(at_us, Event::Submit { node: index * 7 % members, payment });
    }
    world.run();
    let figures = &mut world.figures;
    assert_eq!(figures.finality_us.len(), count, "all are final where they were handed in");
    figures.finality_us.sort_unstable();
    let part = |share: usize| figures.finality_us[(count - 1) * share / 100] as f64 / 1000.0;
    let each = (members * count) as f64;
    let sent = |purpose| figures.bytes.get(&purpose).copied().unwrap_or(0) as f64 / each;
    println!(
        "| {members} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {} |",
        sent(Purpose::Relay) / size as f64,
        sent(Purpose::Votes),
        sent(Purpose::Checkpoint),
        figures.checking_ns as f64 / 1000.0 / each,
        figures.machine_ns as f64 / 1000.0 / each,
        part(50),
        part(99),
        part(100),
        figures.certificate_bytes,
    );
}

#[test]
fn every_payment_is_final_whatever_the_size_of_the_committee() {
    let sizes = std::env::var("MASTERNODE_SCALE").unwrap_or_else(|_| "4,16".to_owned());
    let (load, seconds) = (setting("MASTERNODE_SCALE_LOAD", 50), setting("MASTERNODE_SCALE_SECONDS", 1));
    println!("{load} payments a second for {seconds} s, links of {} ms", LINK_US / MS);
    println!(
        "| members | bodies sent | votes, bytes | checkpoint, bytes | checks, µs | machine, µs | final p50, ms | p99 | max | certificate, bytes |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for size in sizes.split(',') {
        grow_to(size.trim().parse().unwrap(), load, seconds);
    }
}
