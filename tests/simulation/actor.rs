//! One machine with all that belongs to it: ledger, disk, clock, connections.

use crate::chain::{Chain, GENESIS_MS};
use crate::disk::Disk;
use crate::keys::Key;
use crate::liar::Liar;
use crate::own::Own;
use crate::random::Random;
use crate::scenario::{Role, Scenario};
use masternode::consensus::input::Now;
use masternode::consensus::machine::Machine;
use masternode::consensus::signer::Signer;
use masternode::consensus::standing::Start;
use masternode::node::host::ChainHost;
use masternode::primitives::hash::EraTag;
use std::collections::{BTreeMap, BTreeSet};

/// One running machine. Twins are two actors at one address.
pub struct Actor {
    /// The node it speaks for.
    pub address: usize,
    pub role: Role,
    pub key: Key,
    /// `None` while it is down.
    pub machine: Option<Machine>,
    pub host: ChainHost,
    pub disk: Disk,
    /// What it sent in each era, over all lives.
    pub own: BTreeMap<EraTag, Own>,
    /// Nodes it is connected to.
    pub connected: BTreeSet<usize>,
    /// Blocks asked for, with the time until the answer counts as lost.
    pub pulls: BTreeMap<(usize, u64), u64>,
    /// When the next wake-up is queued.
    pub wake_us: Option<u64>,
    /// The kit of a liar.
    pub liar: Option<Liar>,
    /// For twins: which nodes it is shown to, as bits.
    pub shown: u64,
    /// Its monotonic clock minus simulated time; new in each life.
    monotonic_ahead_us: u64,
    wall_ahead_ms: u64,
}

impl Actor {
    pub fn new(scenario: &Scenario, chain: &Chain, address: usize, random: &mut Random) -> Self {
        let role = scenario.roles[address];
        let mut actor = Self {
            address,
            role,
            key: chain.keys[address].clone(),
            machine: None,
            host: chain.host(),
            disk: Disk::default(),
            own: BTreeMap::new(),
            connected: BTreeSet::new(),
            pulls: BTreeMap::new(),
            wake_us: None,
            liar: (role == Role::Liar).then(|| Liar::new(random.fork(2))),
            shown: u64::MAX,
            monotonic_ahead_us: random.below(1_000_000),
            wall_ahead_ms: random.below(600),
        };
        actor.machine = Some(actor.fresh_machine(scenario));
        actor
    }

    /// A machine at the tip of the ledger.
    pub fn fresh_machine(&self, scenario: &Scenario) -> Machine {
        let signer: Option<Box<dyn Signer>> = match self.role {
            Role::Honest | Role::Twins => Some(Box::new(self.key.clone())),
            Role::Observer | Role::Liar | Role::Silent => None,
        };
        // Nodes keep their logs; what is lost on purpose is a planted fault.
        let start = Start::Whole { since: vec![None], nonce: [0; 32] };
        Machine::new(signer, scenario.timing, &self.host, start)
    }

    /// A new life begins with another clock and no connections.
    pub fn reset(&mut self, chain: &Chain, random: &mut Random) {
        self.host = chain.host();
        self.connected.clear();
        self.pulls.clear();
        self.wake_us = None;
        self.monotonic_ahead_us = random.below(1_000_000);
    }

    /// Its clocks at a simulated time.
    pub fn now(&self, at_us: u64) -> Now {
        Now {
            monotonic_us: at_us + self.monotonic_ahead_us,
            wall_ms: GENESIS_MS + 1 + at_us / 1000 + self.wall_ahead_ms,
        }
    }

    /// The simulated time at which its monotonic clock shows `monotonic_us`.
    pub fn when(&self, monotonic_us: u64) -> u64 {
        monotonic_us.saturating_sub(self.monotonic_ahead_us)
    }

    /// Whether its machine runs.
    pub fn is_up(&self) -> bool {
        self.machine.is_some()
    }

    /// Height of the last block on its disk.
    pub fn height(&self) -> u64 {
        self.disk.blocks.len() as u64
    }
}
