//! The owners of masternodes: they register, change and unbond them by real special transactions, one
//! after the other, and hand in anew what had no effect.

use crate::chain::{Chain, endpoint};
use crate::keys::Key;
use crate::random::Random;
use crate::registry::{Masternode, Registry};
use crate::scenario::{MS, Scenario};
use crate::unrest::Trouble;
use crate::workload::EXPIRY;
use crate::world::{Event, World};
use masternode::consensus::signer::Signer;
use masternode::primitives::amount::Amount;
use masternode::primitives::hash::{ChainId, KeyHash};
use masternode::primitives::keys::Signature;
use masternode::primitives::special::{Registration, RegistryUpdate, Special, Unbonding};
use masternode::primitives::tier::Tier;
use masternode::primitives::transaction::{
    SealedTransaction, SharedTransaction, TRANSACTION_VERSION, Transaction, TxInput, TxOutput,
};
use std::collections::VecDeque;

const BLANK: Signature = Signature([0; 64]);

/// Paid for a registration.
const FEE: u64 = 5000;

/// Blocks after which a change without effect is handed in anew.
const PATIENCE_BLOCKS: u64 = 3;

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Register(usize),
    Leave(usize),
    Rekey(usize),
    Payout(usize),
    Endpoint(usize),
    /// A masternode without a machine is registered, or leaves.
    Ghost(usize),
    GhostLeaves(usize),
}

/// Changes that wait for the one before.
#[derive(Default)]
pub struct Lane {
    waiting: VecDeque<Step>,
    /// The one under way, and at which height it was handed in last.
    open: Option<(Step, Option<u64>)>,
}

/// All changes of a run.
#[derive(Default)]
pub struct Registrar {
    lanes: Vec<Lane>,
}

impl Registrar {
    /// The changes of a scenario.
    pub fn new(scenario: &Scenario, random: &mut Random) -> Self {
        let Some(unrest) = &scenario.unrest else { return Self::default() };
        let mut steps: Vec<Step> = unrest.joiners.iter().map(|node| Step::Register(*node)).collect();
        for (node, trouble) in &unrest.troubles {
            match trouble {
                Trouble::Leaves => steps.push(Step::Leave(*node)),
                Trouble::Rekeyed => steps.push(Step::Rekey(*node)),
                _ => {}
            }
        }
        for _ in 0..unrest.updates {
            let node = random.index(scenario.founders);
            steps.push(if random.chance(500) { Step::Payout(node) } else { Step::Endpoint(node) });
        }
        random.shuffle(&mut steps);
        let ghosts = (0..unrest.ghosts).flat_map(|ghost| {
            // Two of them are there at a time.
            ghost.checked_sub(2).map(Step::GhostLeaves).into_iter().chain([Step::Ghost(ghost)])
        });
        let lane = |waiting| Lane { waiting, open: None };
        Self { lanes: vec![lane(ghosts.collect()), lane(steps.into())] }
    }

    /// Changes handed in that are due and have had no effect.
    pub fn open(&self, registry: &Registry) -> Vec<Step> {
        let open = self.lanes.iter().filter_map(|lane| lane.open.map(|(step, _)| step));
        open.filter(|step| !step.has_to_stay(registry)).collect()
    }
}

impl Step {
    fn name(self) -> String {
        match self {
            Self::Register(node)
            | Self::Leave(node)
            | Self::Rekey(node)
            | Self::Payout(node)
            | Self::Endpoint(node) => format!("node {node}"),
            Self::Ghost(ghost) | Self::GhostLeaves(ghost) => format!("ghost {ghost}"),
        }
    }

    /// Whether nothing is left to be done.
    fn is_done(self, registry: &Registry, chain: &Chain) -> bool {
        let found = registry.named(&self.name());
        if let Self::Register(_) | Self::Ghost(_) = self {
            return found.is_some();
        }
        let Some(found) = found.filter(|found| found.status.is_bonded()) else { return true };
        match self {
            Self::Rekey(node) => found.vote_key == chain.next_key(node).public(),
            Self::Payout(node) => found.payout == payout(chain, node),
            Self::Endpoint(node) => found.endpoint == Some(endpoint(node)),
            _ => false,
        }
    }

    /// Whether it is to leave and too few would remain.
    fn has_to_stay(self, registry: &Registry) -> bool {
        matches!(self, Self::Leave(_) | Self::GhostLeaves(_)) && !registry.can_spare(&self.name())
    }

    fn transaction(self, registry: &Registry, chain: &Chain) -> Option<SharedTransaction> {
        let body = match self {
            Self::Register(node) => register(chain, self.name(), &chain.keys[node], chain.tiers[node]),
            Self::Ghost(ghost) => register(chain, self.name(), &chain.ghosts[ghost], Tier::Bronze),
            Self::Leave(node) => unbond(chain.id, registry.named(&self.name())?, &chain.keys[node]),
            Self::GhostLeaves(ghost) => unbond(chain.id, registry.named(&self.name())?, &chain.ghosts[ghost]),
            Self::Rekey(node) => {
                let next = chain.next_key(node);
                update(chain, node, registry.named(&self.name())?, |update| {
                    update.vote_key = Some((next.public(), BLANK));
                })
            }
            Self::Payout(node) => update(chain, node, registry.named(&self.name())?, |update| {
                update.payout = Some(payout(chain, node));
            }),
            Self::Endpoint(node) => update(chain, node, registry.named(&self.name())?, |update| {
                update.endpoint = Some(endpoint(node));
            }),
        };
        Some(SealedTransaction::new(body))
    }
}

fn payout(chain: &Chain, node: usize) -> KeyHash {
    chain.owners[node % chain.owners.len()].public().key_hash()
}

fn carrying(special: &Special, inputs: Vec<TxInput>, outputs: Vec<TxOutput>) -> Transaction {
    let (kind, payload) = special.encode();
    Transaction { version: TRANSACTION_VERSION, kind, expiry: EXPIRY, inputs, outputs, payload }
}

fn register(chain: &Chain, name: String, key: &Key, tier: Tier) -> Transaction {
    let coin = chain.collateral_coins[&key.public()];
    let owner = key.public().key_hash();
    let mut registration = Registration {
        name,
        vote_key: key.public(),
        tier,
        payout: owner,
        endpoint: None,
        collateral: 0,
        possession: BLANK,
    };
    let change = Amount::from_units(coin.value - tier.collateral().units() - FEE).expect("it was provided");
    let outputs = vec![
        TxOutput { value: tier.collateral(), key_hash: owner },
        TxOutput { value: change, key_hash: owner },
    ];
    let inputs = vec![TxInput { outpoint: coin.outpoint, public_key: key.public(), signature: BLANK }];
    let blank = Special::Register(registration.clone());
    let digest = carrying(&blank, inputs.clone(), outputs.clone()).authorisation_digest(chain.id, &blank);
    registration.possession = key.sign(&digest);
    let mut transaction = carrying(&Special::Register(registration), inputs, outputs);
    let digest = transaction.spend_digest(chain.id);
    transaction.inputs[0].signature = key.sign(&digest);
    transaction
}

fn update(
    chain: &Chain,
    node: usize,
    found: &Masternode,
    change: impl FnOnce(&mut RegistryUpdate),
) -> Transaction {
    let owner = &chain.keys[node];
    let mut update = RegistryUpdate {
        validator: found.id,
        sequence: found.sequence + 1,
        owner_key: owner.public(),
        vote_key: None,
        payout: None,
        endpoint: None,
        signature: BLANK,
    };
    change(&mut update);
    let blank = Special::Update(update.clone());
    let digest = carrying(&blank, Vec::new(), Vec::new()).authorisation_digest(chain.id, &blank);
    update.signature = owner.sign(&digest);
    if let Some((_, possession)) = &mut update.vote_key {
        *possession = chain.next_key(node).sign(&digest);
    }
    carrying(&Special::Update(update), Vec::new(), Vec::new())
}

fn unbond(chain: ChainId, found: &Masternode, owner: &Key) -> Transaction {
    let mut unbonding = Unbonding {
        validator: found.id,
        sequence: found.sequence + 1,
        owner_key: owner.public(),
        signature: BLANK,
    };
    let blank = Special::Unbond(unbonding.clone());
    let digest = carrying(&blank, Vec::new(), Vec::new()).authorisation_digest(chain, &blank);
    unbonding.signature = owner.sign(&digest);
    carrying(&Special::Unbond(unbonding), Vec::new(), Vec::new())
}

impl World {
    /// A block was decided: what it changed, and what is to be changed next.
    pub fn change_registry(&mut self) {
        self.count_changes();
        let height = self.oracle.chain.len() as u64;
        for place in 0..self.registrar.lanes.len() {
            let mut lane = std::mem::take(&mut self.registrar.lanes[place]);
            self.move_on(&mut lane, height);
            self.registrar.lanes[place] = lane;
        }
    }

    fn move_on(&mut self, lane: &mut Lane, height: u64) {
        if let Some((step, _)) = lane.open
            && step.is_done(&self.oracle.registry, &self.chain)
        {
            lane.open = None;
            if let Step::Rekey(node) = step {
                self.rekey(node);
            }
        }
        // Who has to stay gives up; of those without a machine only so many may be there.
        lane.open
            .take_if(|(step, _)| matches!(step, Step::Leave(_)) && step.has_to_stay(&self.oracle.registry));
        if lane.open.is_none() && !self.calm {
            lane.open = lane.waiting.pop_front().map(|step| (step, None));
            if let Some((Step::Rekey(node), _)) = lane.open
                && self.random.chance(400)
            {
                // The new machine is there before the change has effect.
                self.rekey(node);
            }
        }
        let Some((step, tried)) = lane.open else { return };
        if tried.is_some_and(|at| height < at + PATIENCE_BLOCKS) {
            return;
        }
        lane.open = Some((step, Some(height)));
        let Some(transaction) = step.transaction(&self.oracle.registry, &self.chain) else { return };
        self.hand_in(&transaction);
        if let Step::Payout(node) = step
            && self.random.chance(500)
            && let Some(rival) = Step::Endpoint(node).transaction(&self.oracle.registry, &self.chain)
        {
            // Two changes of one number: one of them can be in a block.
            self.hand_in(&rival);
        }
    }

    fn rekey(&mut self, node: usize) {
        let actor = self.actor_of(node);
        let key = self.chain.next_key(node);
        if self.actors[actor].key.public() != key.public() {
            self.change_key(actor, key);
        }
    }

    fn hand_in(&mut self, transaction: &SharedTransaction) {
        let mut nodes: Vec<usize> = (0..self.scenario.nodes()).collect();
        self.random.shuffle(&mut nodes);
        if self.calm {
            nodes.retain(|node| self.scenario.honest(*node));
        } else {
            nodes.truncate(1 + self.random.index(3));
        }
        for node in nodes {
            let at_us = self.at_us + self.random.below(20 * MS);
            self.at(at_us, Event::Submit { node, transaction: transaction.clone() });
        }
    }

    /// What the last block changed, for the record.
    fn count_changes(&mut self) {
        let Some(block) = self.oracle.chain.last().cloned() else { return };
        let coverage = &mut self.oracle.coverage;
        for transaction in &block.transactions {
            match transaction.special() {
                Ok(Some(Special::Register(_))) => coverage.registrations += 1,
                Ok(Some(Special::Update(_))) => coverage.updates += 1,
                Ok(Some(Special::Unbond(_))) => coverage.unbondings += 1,
                Ok(Some(Special::Resume(resume))) => {
                    let node = self.chain.node_of(&resume.vote_key);
                    coverage.honest_resumes += u64::from(node.is_some_and(|node| self.scenario.honest(node)));
                }
                _ => {}
            }
        }
        coverage.committee_changes += u64::from(self.oracle.registry.changed);
        let jailed: Vec<Masternode> = self.oracle.registry.jailed.clone();
        for masternode in jailed {
            let node = self.chain.node_of(&masternode.vote_key);
            let honest = node.is_some_and(|node| self.scenario.honest(node));
            let coverage = &mut self.oracle.coverage;
            coverage.jailed += 1;
            coverage.honest_jailed += u64::from(honest);
            self.trace.note(self.at_us, 16, || format!("{} is jailed", masternode.name));
        }
    }
}
