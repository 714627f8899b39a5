//! The event loop of a run: a queue ordered by simulated time, the faults of the environment, and the
//! end of the run.

use crate::actor::Actor;
use crate::chain::Chain;
use crate::coverage::Coverage;
use crate::disk::Disk;
use crate::network::Network;
use crate::oracle::{Broken, Oracle, broken};
use crate::own::Own;
use crate::random::Random;
use crate::registrar::Registrar;
use crate::scenario::{Held, MS, Mutant, Role, Scenario};
use crate::trace::Trace;
use crate::unrest::Loss;
use crate::workload::Workload;
use masternode::consensus::input::Input;
use masternode::consensus::signer::Signer;
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::hash::{Domain, EraTag, Txid, hash};
use masternode::primitives::keys::PublicKey;
use masternode::primitives::message::{Message, PeerId};
use masternode::primitives::transaction::SharedTransaction;
use masternode::primitives::vote::Step;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;
use std::sync::Arc;

/// How long after faults stop everything must be settled, in simulated microseconds.
const SETTLE_MAX_US: u64 = 90_000 * MS;

/// How long a run in which too many are Byzantine goes on after faults stop, to see what is proved.
const REMORSE_US: u64 = 3000 * MS;

/// Blocks every node must add after faults stop.
const BLOCKS_AFTER_CALM: u64 = 2;

/// What travels.
pub enum Packet {
    Message(Message),
    Transaction(SharedTransaction),
    Pull { height: u64 },
    Decided { block: Arc<Block>, qc: Qc },
}

impl Packet {
    /// Its kind, if it is one that may be held back.
    pub fn held(&self) -> Option<Held> {
        match self {
            Self::Message(Message::VoteBatch(_)) => Some(Held::Batches),
            Self::Message(Message::Proposal(_)) => Some(Held::Proposals),
            Self::Message(Message::Vote(vote)) => Some(match vote.step {
                Step::Prevote => Held::Prevotes,
                Step::Precommit => Held::Precommits,
            }),
            _ => None,
        }
    }
}

/// What happens at a time.
pub enum Event {
    Deliver { actor: usize, from: usize, packet: Rc<Packet> },
    Wake { actor: usize },
    Submit { node: usize, transaction: SharedTransaction },
    Retry,
    Restart { actor: usize },
    Crash { actor: usize },
    Partition,
    Heal,
    Alone { node: usize, cut: bool },
    ClockJump { actor: usize },
    Relink,
    Blackout,
    Backup { actor: usize },
    Lose { actor: usize, loss: Loss },
    Copy { from: usize, to: usize },
    Absent { actor: usize, until_us: u64 },
    Lie { actor: usize },
    Calm,
}

struct Queued {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// How a run ended.
pub struct Outcome {
    pub coverage: Coverage,
    pub trace_hash: u64,
    pub story: String,
    pub broken: Option<Broken>,
    /// Nodes some honest node holds evidence against.
    pub proven: BTreeSet<usize>,
    /// Effects of each node that follows the rules.
    pub effects: Vec<u64>,
}

/// A run.
pub struct World {
    pub scenario: Scenario,
    pub chain: Chain,
    pub workload: Workload,
    pub actors: Vec<Actor>,
    pub oracle: Oracle,
    pub network: Network,
    pub random: Random,
    pub trace: Trace,
    pub at_us: u64,
    pub crashes_left: u64,
    /// For liars and twins: what each of their keys has signed for a place, to count equivocations.
    pub signed: BTreeMap<(usize, EraTag, &'static str, u32), u64>,
    /// What each key of an honest validator has signed in each era, over all lives and copies.
    pub own: BTreeMap<(PublicKey, EraTag), Own>,
    pub registrar: Registrar,
    /// Backups of directories.
    pub backups: BTreeMap<usize, Disk>,
    pub peers: Vec<PeerId>,
    pub handed_in: BTreeSet<Txid>,
    /// When the honest nodes entered each height.
    pub entered: BTreeMap<u64, BTreeMap<usize, u64>>,
    /// The first conflict of a run in which too many are Byzantine, and who was proved guilty.
    pub conflict: Option<Broken>,
    pub proven: BTreeSet<usize>,
    pub calm: bool,
    finished: bool,
    calm_height: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
}

impl World {
    /// Runs a scenario to its end.
    pub fn run(scenario: Scenario, in_words: bool) -> Outcome {
        let mut world = Self::new(scenario, in_words);
        let result = world.live();
        let story = world.trace.story();
        Outcome {
            coverage: world.oracle.coverage.clone(),
            trace_hash: world.trace.hash(),
            story,
            effects: world.effects(),
            broken: result.err().or(world.conflict),
            proven: world.proven,
        }
    }

    fn effects(&self) -> Vec<u64> {
        let effects =
            |node| self.actors.iter().filter(move |actor| actor.address == node).map(|actor| actor.effects);
        (0..self.scenario.nodes()).map(|node| effects(node).sum()).collect()
    }

    fn new(scenario: Scenario, in_words: bool) -> Self {
        let mut random = Random::new(scenario.seed.wrapping_mul(31) ^ 0x51);
        let chain = Chain::new(&scenario);
        let workload = Workload::new(&scenario, random.fork(3), chain.id, &chain.owners, chain.coins.clone());
        let mut actors = Vec::new();
        for (address, role) in scenario.roles.iter().enumerate() {
            let count = match role {
                Role::Silent => 0,
                Role::Twins => 2,
                Role::Honest | Role::Observer | Role::Liar => 1,
            };
            // Twins are shown to different nodes, some of which may see both.
            let (side, both) = (random.next(), random.next() & random.next() & random.next());
            for twin in 0..count {
                let mut actor = Actor::new(&scenario, &chain, address, &mut random);
                if count == 2 {
                    actor.shown = both | if twin == 0 { side } else { !side };
                }
                if let Some(liar) = &mut actor.liar {
                    let hidden = workload.hidden.iter().chain(workload.valid.values().take(6));
                    liar.bodies = hidden.map(|body| (body.id(), body.clone())).collect();
                }
                actors.push(actor);
            }
        }
        let mut oracle = Oracle::new(chain.genesis.params.clone(), chain.genesis.utxos(), chain.founders());
        oracle.bodies = workload.valid.clone();
        oracle.coverage.runs_without_fast_path += u64::from(!scenario.fast_path);
        oracle.coverage.runs_with_real_keys += u64::from(scenario.real_keys);
        let uneven = scenario.tiers.iter().any(|tier| *tier != scenario.tiers[0]);
        oracle.coverage.runs_with_unequal_weights += u64::from(uneven);
        oracle.coverage.runs_with_unrest += u64::from(scenario.unrest.is_some());
        let peer = |node: usize| PeerId(PublicKey(hash(Domain::PEER, &[&(node as u64).to_le_bytes()]).0));
        Self {
            network: Network::new(&scenario, random.fork(4)),
            registrar: Registrar::new(&scenario, &mut random),
            own: BTreeMap::new(),
            backups: BTreeMap::new(),
            peers: (0..scenario.nodes()).map(peer).collect(),
            crashes_left: scenario.crashes,
            chain,
            workload,
            actors,
            oracle,
            random,
            trace: Trace::new(in_words),
            at_us: 0,
            signed: BTreeMap::new(),
            handed_in: BTreeSet::new(),
            entered: BTreeMap::new(),
            conflict: None,
            proven: BTreeSet::new(),
            calm: false,
            finished: false,
            calm_height: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            scenario,
        }
    }

    /// Puts an event into the queue.
    pub fn at(&mut self, at_us: u64, event: Event) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at_us, number: self.queued, event }));
    }

    fn plan(&mut self) {
        let calm_at_us = self.scenario.calm_at_us;
        for submission in std::mem::take(&mut self.workload.plan) {
            for node in submission.nodes {
                let at_us = submission.at_us + self.random.below(3000);
                let transaction = submission.transaction.clone();
                self.at(at_us, Event::Submit { node, transaction });
            }
        }
        self.plan_faults();
        for actor in 0..self.actors.len() {
            if self.actors[actor].liar.is_some() {
                self.at(5 * MS, Event::Lie { actor });
            }
        }
        self.at(1000 * MS, Event::Retry);
        self.at(calm_at_us, Event::Calm);
    }

    fn live(&mut self) -> Result<(), Broken> {
        self.plan();
        for actor in 0..self.actors.len() {
            self.step(actor, Input::Start)?;
        }
        self.relink()?;
        while let Some(Reverse(Queued { at_us, event, .. })) = self.queue.pop() {
            self.at_us = self.at_us.max(at_us);
            if self.scenario.mutant == Mutant::TooManyByzantine
                && self.at_us > self.scenario.calm_at_us + REMORSE_US
            {
                // Nothing is owed any more.
                return Ok(());
            }
            if self.at_us > self.scenario.calm_at_us + SETTLE_MAX_US {
                return self.unsettled();
            }
            let happened = self.happen(event);
            self.tolerate(happened)?;
            if self.finished {
                return Ok(());
            }
        }
        broken("liveness", "nothing is left to happen")
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Deliver { actor, from, packet } => self.deliver(actor, from, &packet),
            Event::Wake { actor } => self.wake(actor),
            Event::Submit { node, transaction } => self.submit(node, &transaction),
            Event::Retry => self.retry(),
            Event::Restart { actor } => self.restart(actor),
            Event::Crash { actor } => {
                if self.actors[actor].is_up() && !self.calm {
                    self.oracle.coverage.crashes_of_favourites += 1;
                    self.crash(actor);
                }
                Ok(())
            }
            Event::Alone { node, cut } => self.set_alone(node, cut),
            Event::ClockJump { actor } => {
                self.clock_jump(actor);
                Ok(())
            }
            Event::Partition => {
                let kind = self.network.partition();
                self.oracle.coverage.partitions += 1;
                self.trace.note(self.at_us, 1, || format!("partition: {kind}"));
                Ok(())
            }
            Event::Heal => {
                self.network.heal();
                self.trace.note(self.at_us, 2, || "partition heals".to_owned());
                self.relink()
            }
            Event::Relink => self.relink(),
            Event::Blackout => {
                for actor in 0..self.actors.len() {
                    if self.actors[actor].role.is_honest() && self.actors[actor].is_up() {
                        self.crash(actor);
                    }
                }
                Ok(())
            }
            Event::Lie { actor } => self.lie(actor),
            Event::Backup { actor } => {
                self.back_up(actor);
                Ok(())
            }
            Event::Lose { actor, loss } => {
                self.lose(actor, loss);
                Ok(())
            }
            Event::Copy { from, to } => self.copy(from, to),
            Event::Absent { actor, until_us } => {
                self.go_absent(actor, until_us);
                Ok(())
            }
            Event::Calm => self.become_calm(),
        }
    }

    fn wake(&mut self, actor: usize) -> Result<(), Broken> {
        self.actors[actor].wake_us = None;
        let due = match &self.actors[actor].machine {
            Some(machine) => machine.next_deadline().map(|at| self.actors[actor].when(at)),
            None => return Ok(()),
        };
        match due {
            Some(due) if due <= self.at_us => self.step(actor, Input::Wake),
            _ => {
                self.schedule(actor);
                Ok(())
            }
        }
    }

    /// Queues the next wake-up of an actor.
    pub fn schedule(&mut self, actor: usize) {
        let state = &mut self.actors[actor];
        let deadline = state.machine.as_ref().and_then(|machine| machine.next_deadline());
        let Some(due) = deadline.map(|at| state.when(at).max(self.at_us)) else { return };
        if state.wake_us.is_none_or(|queued| due < queued) {
            state.wake_us = Some(due);
            self.at(due, Event::Wake { actor });
        }
    }

    /// Hands a payment to a node, as a client does. A node that is down does not get it.
    fn submit(&mut self, node: usize, transaction: &SharedTransaction) -> Result<(), Broken> {
        self.handed_in.insert(transaction.id());
        for actor in 0..self.actors.len() {
            if self.actors[actor].address == node && self.actors[actor].is_up() {
                self.receive_transaction(actor, None, transaction)?;
            }
        }
        Ok(())
    }

    /// Valid payments not in a block that still can be, parents before children.
    pub fn open_payments(&self) -> Vec<Txid> {
        let open = self.workload.order.iter().copied();
        open.filter(|txid| !self.oracle.included.contains_key(txid) && !self.oracle.is_doomed(txid)).collect()
    }

    /// Clients hand in again what was refused for now or may be forgotten: to any node while there are
    /// faults, to all honest ones afterwards.
    fn retry(&mut self) -> Result<(), Broken> {
        for (delay, txid) in (0..).zip(self.open_payments()) {
            if !self.handed_in.contains(&txid) && !self.calm {
                continue;
            }
            for node in 0..self.scenario.nodes() {
                let chosen = if self.calm { self.scenario.honest(node) } else { self.random.chance(40) };
                if chosen {
                    let transaction = self.workload.valid[&txid].clone();
                    self.at(self.at_us + delay * MS, Event::Submit { node, transaction });
                }
            }
        }
        if self.calm {
            self.restart_displaced();
        }
        let pause = if self.calm { 3000 * MS } else { 1000 * MS };
        self.at(self.at_us + pause, Event::Retry);
        Ok(())
    }

    /// Faults stop: the network works, all are up, clients hand in what is open once more.
    fn become_calm(&mut self) -> Result<(), Broken> {
        self.calm = true;
        self.crashes_left = 0;
        self.scenario.crash_at = None;
        self.network.calm();
        self.trace.note(self.at_us, 3, || "faults stop".to_owned());
        for actor in 0..self.actors.len() {
            self.actors[actor].set_wall(&mut self.random, 600);
            self.restart(actor)?;
        }
        self.relink()?;
        self.calm_height = self.oracle.chain.len() as u64 + BLOCKS_AFTER_CALM;
        self.retry()
    }

    /// Looks whether the run has reached its end; called when a block was committed.
    pub fn look_for_the_end(&mut self) {
        let behind =
            |actor: &Actor| actor.role.is_honest() && (!actor.is_up() || actor.height() < self.calm_height);
        let lingers = self.at_us < self.scenario.calm_at_us + self.scenario.linger_us;
        if !self.calm || lingers || self.actors.iter().any(behind) || !self.open_payments().is_empty() {
            return;
        }
        if self.scenario.unrest.is_some()
            && !(self.registrar.open(&self.oracle.registry).is_empty() && self.idle_keys().is_empty())
        {
            return;
        }
        // All must have what settled the last payment.
        let settled = self.oracle.chain.len() as u64;
        if self.actors.iter().filter(|actor| actor.role.is_honest()).any(|actor| actor.height() < settled) {
            return;
        }
        let included = |txid| self.oracle.included.contains_key(txid);
        let settled = self.workload.conflicts.iter().filter(|(a, b)| included(a) != included(b)).count();
        self.oracle.coverage.conflicts_settled += settled as u64;
        self.finished = true;
    }

    fn unsettled(&self) -> Result<(), Broken> {
        let nodes: Vec<String> = self
            .actors
            .iter()
            .map(|actor| match actor.machine.as_ref().map(masternode::consensus::machine::Machine::view) {
                Some(view) => format!(
                    "node {} ({:?}) at height {} round {} step {}",
                    actor.address, actor.role, view.height, view.round, view.step
                ),
                None => format!("node {} ({:?}) is down", actor.address, actor.role),
            })
            .collect();
        let what = format!(
            "open payments {:?}; open changes {:?}; idle keys {:?}; {}",
            self.open_payments(),
            self.registrar.open(&self.oracle.registry),
            if self.scenario.unrest.is_some() { self.idle_keys() } else { Vec::new() },
            nodes.join("; ")
        );
        broken("liveness", what)
    }

    /// Brings connections in line with who is up and which links are cut.
    pub fn relink(&mut self) -> Result<(), Broken> {
        for actor in 0..self.actors.len() {
            for peer in 0..self.scenario.nodes() {
                let address = self.actors[actor].address;
                if peer == address || !self.actors[actor].is_up() {
                    continue;
                }
                let reachable = self.is_up(peer) && !self.network.is_cut(address, peer);
                let id = self.peers[peer];
                if reachable && self.actors[actor].connected.insert(peer) {
                    let vote_key = self.vote_key_at(peer);
                    self.step(actor, Input::PeerUp { peer: id, vote_key })?;
                } else if !reachable && self.actors[actor].connected.remove(&peer) {
                    self.step(actor, Input::PeerDown { peer: id })?;
                }
            }
        }
        Ok(())
    }

    /// The vote key a node proves to hold.
    fn vote_key_at(&self, node: usize) -> Option<PublicKey> {
        if self.scenario.roles[node] == Role::Observer {
            return None;
        }
        let actor = self.actors.iter().find(|actor| actor.address == node);
        Some(actor.map_or(&self.chain.keys[node], |actor| &actor.key).public())
    }

    /// Whether a node can be connected to. The silent one can: it answers nothing.
    fn is_up(&self, node: usize) -> bool {
        self.scenario.roles[node] == Role::Silent
            || self.actors.iter().any(|actor| actor.address == node && actor.is_up())
    }
}
