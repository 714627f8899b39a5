//! One state of the model: what each process has said to the world, what it remembers of that, and the
//! values both are made of.
//!
//! A process stands for an honest validator. The last slot holds a second process that was started with the
//! key of the first validator and without its log; it exists only in scenarios that ask for it. States are
//! small on purpose: a run keeps tens of millions of fingerprints and a frontier of whole states.

use std::fmt;
use std::num::NonZeroU8;

/// Validators that follow the protocol.
pub const HONEST: usize = 3;
/// Slot of the second process that holds the key of slot 0.
pub const SECOND_PROCESS: usize = HONEST;
pub const PROCESSES: usize = HONEST + 1;
pub const ROUNDS_MAX: usize = 3;
/// The era before the checkpoint of the run, and the one after it.
pub const ERAS: usize = 2;

/// A set of payments, one bit each.
pub type Payments = u8;
pub const A: Payments = 1;
pub const B: Payments = 2;
pub const C: Payments = 4;
/// Number of sets of payments.
pub const PAYMENT_SETS: u8 = 8;

/// A block as the protocol sees it: the payments in it, and whether it holds the `Resume` of the second
/// process.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block(NonZeroU8);

impl Block {
    const RESUME: u8 = PAYMENT_SETS;
    /// Always set, so that "no block" costs no byte of its own.
    const PRESENT: u8 = 1 << 7;

    pub fn new(payments: Payments, resume: bool) -> Block {
        let resume = if resume { Block::RESUME } else { 0 };
        Block(NonZeroU8::new(Block::PRESENT | resume | payments).expect("a bit is set"))
    }

    pub fn payments(self) -> Payments {
        self.0.get() & (PAYMENT_SETS - 1)
    }

    pub fn holds_resume(self) -> bool {
        self.0.get() & Block::RESUME != 0
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", names(self.payments()), if self.holds_resume() { "+Resume" } else { "" })
    }
}

/// `{A,C}` for a set of payments.
pub fn names(payments: Payments) -> String {
    let names: Vec<&str> = [(A, "A"), (B, "B"), (C, "C")]
        .iter()
        .filter(|(bit, _)| payments & bit != 0)
        .map(|(_, n)| *n)
        .collect();
    format!("{{{}}}", names.join(","))
}

/// Tendermint's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lock {
    pub block: Block,
    pub round: u8,
}

/// What a process knows of itself. Derived from its log, so it differs from what it has said only where a
/// scenario plants a fault of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Memory {
    /// Payments that hold the lock on their coins, by era.
    pub prepared: [Payments; ERAS],
    /// Payments commit-voted in the first era: what a fresh proposal must contain.
    pub commit_voted: Payments,
    /// Its last batch of the first era is out.
    pub frozen: bool,
    pub lock: Option<Lock>,
}

/// One process: what the world has of it, and what it has of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    pub prepares: [Payments; ERAS],
    pub commits: [Payments; ERAS],
    pub prevotes: [Option<Block>; ROUNDS_MAX],
    pub precommits: [Option<Block>; ROUNDS_MAX],
    pub memory: Memory,
    /// The block it has committed: set, it is in the next era.
    pub decided: Option<Block>,
}

impl Process {
    /// 0 before it committed the block, 1 after.
    pub fn era(&self) -> usize {
        usize::from(self.decided.is_some())
    }

    /// The last round it voted in; it never goes back.
    pub fn round(&self) -> usize {
        let voted = |round: &usize| self.prevotes[*round].is_some() || self.precommits[*round].is_some();
        (0..ROUNDS_MAX).rev().find(voted).unwrap_or(0)
    }
}

/// A state of the run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub processes: [Process; PROCESSES],
    /// Restarts with a faulty log that are still to come.
    pub faulty_restarts: u8,
}
