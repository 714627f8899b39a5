//! What a run explores: payments with their coins, weights by era, bounds, and the rules left out.

use crate::state::{A, B, Block, C, ERAS, HONEST, PAYMENT_SETS, Payments, SECOND_PROCESS};

/// A set of coins, one bit each.
pub type Coins = u8;
const COIN: Coins = 1;
const OTHER_COIN: Coins = 2;
const CHANGE: Coins = 4;
/// What can be spent before anything happened.
const FIRST_COINS: Coins = COIN | OTHER_COIN;

#[derive(Clone, Copy, Debug)]
pub struct Payment {
    pub bit: Payments,
    pub spends: Coins,
    pub makes: Coins,
}

const fn payment(bit: Payments, spends: Coins, makes: Coins) -> Payment {
    Payment { bit, spends, makes }
}

/// A and B spend one coin.
pub const CONFLICT: &[Payment] = &[payment(A, COIN, 0), payment(B, COIN, 0)];
/// The same, and C spends what A makes.
pub const CHAIN: &[Payment] = &[payment(A, COIN, CHANGE), payment(B, COIN, 0), payment(C, CHANGE, 0)];
/// The same, and C has a coin of its own.
pub const INDEPENDENT: &[Payment] = &[payment(A, COIN, 0), payment(B, COIN, 0), payment(C, OTHER_COIN, 0)];
/// B spends the coins of both A and C.
pub const OVERLAP: &[Payment] =
    &[payment(A, COIN, 0), payment(B, COIN | OTHER_COIN, 0), payment(C, OTHER_COIN, 0)];
/// A and C, without conflict.
pub const HARMONY: &[Payment] = &[payment(A, COIN, 0), payment(C, OTHER_COIN, 0)];

/// Weights of one era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committee {
    pub honest: [u8; HONEST],
    pub byzantine: u8,
}

/// Three honest validators and a Byzantine one, of equal weight.
pub const EQUAL: Committee = Committee { honest: [1, 1, 1], byzantine: 1 };
/// Honest weights 2, 2, 1; Byzantine 2 of 7.
pub const WEIGHTED: Committee = Committee { honest: [2, 2, 1], byzantine: 2 };
/// Two honest validators, one with half of the weight.
pub const HEAVY: Committee = Committee { honest: [2, 1, 0], byzantine: 1 };
/// Half of the weight is Byzantine: more than the protocol allows.
pub const HALF_BYZANTINE: Committee = Committee { honest: [1, 1, 0], byzantine: 2 };

impl Committee {
    pub fn total(&self) -> u8 {
        self.honest.iter().sum::<u8>() + self.byzantine
    }

    /// `Q` of protocol §1.
    pub fn quorum(&self) -> u8 {
        2 * self.total() / 3 + 1
    }
}

/// The rules a scenario may leave out. The last four are parts of the log a restart must find again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A quorum is `floor(2W/3) + 1`, not one less (§1).
    Quorum,
    /// One prepare a coin and era (§4.1, locks).
    CoinLock,
    /// No vote on payments after the last batch, which goes before the first vote of the checkpoint (§4.1).
    Freeze,
    /// A fresh proposal holds all the voter commit-voted (§4.2, CV subset of B).
    Subset,
    /// A re-proposal comes with the prevote quorum of its round (§4.2, POL).
    ProofOfLock,
    /// Prevotes agree with the lock (§4.2, locked).
    BftLock,
    /// Final needs a quorum of commit votes, not of prepares (§4.1, count).
    SecondPhase,
    /// A vote counts in one era (§1, era tag).
    EraTag,
    /// A vote of the next era rests on the state after the block (§4.1, prepare).
    NewState,
    /// A child is prepared when its parent is prepared here or certified (§4.1, prepare).
    ParentAtPrepare,
    /// A child is commit-voted after its parent (§4.1, commit_vote).
    ParentAtCommit,
    /// Without its log a process signs nothing until a block holds its `Resume` (§10, safe start).
    SilentUntilResume,
    /// A process stops when a block holds a `Resume` of its key with another's nonce (§10, safe start).
    StopWhenDisplaced,
    LogHoldsPrepares,
    LogHoldsCommitVotes,
    LogHoldsFreeze,
    LogHoldsLock,
}

const LOG_RULES: [Rule; 4] =
    [Rule::LogHoldsPrepares, Rule::LogHoldsCommitVotes, Rule::LogHoldsFreeze, Rule::LogHoldsLock];

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub payments: &'static [Payment],
    /// Committee of each era.
    pub committees: [Committee; ERAS],
    /// Rounds of the checkpoint, at most `ROUNDS_MAX`.
    pub rounds: usize,
    /// Processes that learn the commit certificate go on to vote in the next era.
    pub next_era: bool,
    /// A second process runs with the key of slot 0 and without its log.
    pub second_process: bool,
    pub fast_path: bool,
    /// How many payments fit a block (§5 demands room for all).
    pub room: u32,
    /// Rules left out, one bit each; see `without`.
    pub left_out: u32,
}

/// Two payments in conflict, two rounds, one era, equal weights, all rules.
pub const BASE: Scenario = Scenario {
    payments: CONFLICT,
    committees: [EQUAL; ERAS],
    rounds: 2,
    next_era: false,
    second_process: false,
    fast_path: true,
    room: 3,
    left_out: 0,
};

impl Scenario {
    pub const fn without(mut self, rule: Rule) -> Scenario {
        self.left_out |= 1 << rule as u32;
        self
    }

    pub fn keeps(&self, rule: Rule) -> bool {
        self.left_out & 1 << rule as u32 == 0
    }

    /// Does a restart lose something?
    pub fn log_is_faulty(&self) -> bool {
        LOG_RULES.iter().any(|rule| !self.keeps(*rule))
    }

    pub fn all_payments(&self) -> Payments {
        self.payments.iter().map(|payment| payment.bit).sum()
    }

    fn among(&self, set: Payments) -> impl Iterator<Item = &'static Payment> {
        self.payments.iter().filter(move |payment| payment.bit & set != 0)
    }

    /// Coins the payments of `set` spend.
    pub fn spent_by(&self, set: Payments) -> Coins {
        self.among(set).fold(0, |coins, payment| coins | payment.spends)
    }

    /// Coins the payments of `set` make.
    pub fn made_by(&self, set: Payments) -> Coins {
        self.among(set).fold(0, |coins, payment| coins | payment.makes)
    }

    /// Do two of these payments spend one coin?
    pub fn in_conflict(&self, set: Payments) -> bool {
        let mut spent = 0;
        self.among(set).any(|payment| {
            let again = spent & payment.spends != 0;
            spent |= payment.spends;
            again
        })
    }

    /// Coins that exist once the payments of `set` are applied.
    pub fn coins_after(&self, set: Payments) -> Coins {
        (FIRST_COINS | self.made_by(set)) & !self.spent_by(set)
    }

    /// Payments in play that make a coin `payment` spends.
    pub fn parents(&self, payment: &Payment) -> Payments {
        let parent = |other: &&Payment| other.makes & payment.spends != 0;
        self.payments.iter().filter(parent).map(|other| other.bit).sum()
    }

    /// `set` with all parents (a chain has two links at most).
    pub fn with_parents(&self, set: Payments) -> Payments {
        self.among(set).fold(set, |all, payment| all | self.parents(payment))
    }

    /// Can all of these be applied together, in some order, to the first state?
    pub fn applies(&self, set: Payments) -> bool {
        !self.in_conflict(set) && self.with_parents(set) == set
    }

    /// Every block that is valid by the ledger rules and has room (§5).
    pub fn blocks(&self) -> impl Iterator<Item = Block> {
        let fits = move |set: &Payments| {
            set & !self.all_payments() == 0 && set.count_ones() <= self.room && self.applies(*set)
        };
        let resumes: &[bool] = if self.second_process { &[false, true] } else { &[false] };
        (0..PAYMENT_SETS).filter(fits).flat_map(move |set| resumes.iter().map(move |r| Block::new(set, *r)))
    }

    /// Is there a process in this slot?
    pub fn runs(&self, slot: usize) -> bool {
        match slot {
            SECOND_PROCESS => self.second_process,
            _ => self.committees.iter().any(|committee| committee.honest[slot] > 0),
        }
    }

    /// Slots next to each other whose processes can be swapped without a difference: equal weights in both
    /// eras, and no second process with the key.
    pub fn alike(&self, slot: usize, next: usize) -> bool {
        next < HONEST
            && !(self.second_process && slot == 0)
            && self.committees.iter().all(|committee| committee.honest[slot] == committee.honest[next])
    }
}
