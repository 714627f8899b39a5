//! One machine with all that belongs to it: ledger, disk, clock, connections.

use crate::attendance::Heard;
use crate::chain::{Chain, GENESIS_MS};
use crate::custody;
use crate::disk::Disk;
use crate::keys::Key;
use crate::liar::Liar;
use crate::random::Random;
use crate::scenario::{Mutant, Role, Scenario};
use masternode::consensus::input::Now;
use masternode::consensus::machine::Machine;
use masternode::consensus::signer::Signer;
use masternode::consensus::standing::Start;
use masternode::node::host::ChainHost;
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
    /// Precommits it was given since it is up.
    pub heard: Heard,
    /// Height at which it began to sign, since it is up.
    pub signs_since: Option<u64>,
    /// Whether it has told that another process has its key.
    pub told_of_rival: bool,
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
    /// Effects executed so far, over all lives.
    pub effects: u64,
    /// Its monotonic clock minus simulated time, new in each life, and how much of a second of it
    /// passes in a simulated one.
    monotonic_ahead_us: u64,
    monotonic_permille: u64,
    wall_ahead_ms: i64,
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
            heard: Heard::default(),
            signs_since: None,
            told_of_rival: false,
            connected: BTreeSet::new(),
            pulls: BTreeMap::new(),
            wake_us: None,
            liar: (role == Role::Liar).then(|| Liar::new(random.fork(2), scenario.withhold)),
            shown: u64::MAX,
            effects: 0,
            monotonic_ahead_us: random.below(1_000_000),
            // Further apart a proposer that waits may be too late for the fastest (protocol §14).
            monotonic_permille: if scenario.uneven_clocks { random.between(850, 1200) } else { 1000 },
            wall_ahead_ms: 0,
        };
        actor.set_wall(random, 600);
        if scenario.unrest.as_ref().is_some_and(|unrest| !unrest.orderly) && address < scenario.founders {
            // Who misses height 1 in a new directory has to be let in by the others, of whom enough must
            // not have missed it: that it begins well is assumed.
            actor.disk.found();
        }
        if address >= scenario.founders {
            actor.disk.drawn_since_loss = Some(Vec::new());
        }
        if !scenario.starts_late(address) {
            actor.machine = Some(actor.fresh_machine(scenario, random));
        }
        actor
    }

    /// A machine at the tip of the ledger.
    pub fn fresh_machine(&mut self, scenario: &Scenario, random: &mut Random) -> Machine {
        let signer: Option<Box<dyn Signer>> = match self.role {
            Role::Honest | Role::Twins => Some(Box::new(self.key.clone())),
            Role::Observer | Role::Liar | Role::Silent => None,
        };
        let start = if scenario.unrest.is_some() && self.role == Role::Honest {
            custody::begin(&mut self.disk, random)
        } else {
            // Nodes keep their logs; what is lost on purpose is a planted fault.
            Start::Whole { since: vec![None], nonce: [0; 32] }
        };
        let mut machine = Machine::new(signer, scenario.timing, &self.host, start);
        if let Mutant::Machine(bug) = scenario.mutant {
            machine.plant(bug);
        }
        machine
    }

    /// A new life begins with another clock and no connections.
    pub fn reset(&mut self, chain: &Chain, random: &mut Random) {
        self.host = chain.host();
        self.connected.clear();
        self.pulls.clear();
        self.wake_us = None;
        self.signs_since = None;
        self.heard = Heard::default();
        self.monotonic_ahead_us = random.below(1_000_000);
    }

    /// Its clocks at a simulated time.
    pub fn now(&self, at_us: u64) -> Now {
        Now {
            monotonic_us: at_us * self.monotonic_permille / 1000 + self.monotonic_ahead_us,
            wall_ms: (GENESIS_MS + 1 + at_us / 1000).saturating_add_signed(self.wall_ahead_ms),
        }
    }

    /// The simulated time at which its monotonic clock shows `monotonic_us`.
    pub fn when(&self, monotonic_us: u64) -> u64 {
        // Rounded up: a wake-up must not come before its time.
        (monotonic_us.saturating_sub(self.monotonic_ahead_us) * 1000).div_ceil(self.monotonic_permille)
    }

    /// Its wall clock jumps to somewhere within so many milliseconds of the truth.
    pub fn set_wall(&mut self, random: &mut Random, most_ms: u64) {
        let ahead = i64::try_from(random.below(2 * most_ms)).expect("small");
        self.wall_ahead_ms = ahead - i64::try_from(most_ms).expect("small");
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
