//! What can be shown to a process, and what an honest process may do: the handlers of protocol §4 and the
//! safe start of §10 as guards.

use crate::scenario::{Payment, Rule, Scenario};
use crate::state::{Block, ERAS, HONEST, Payments, Process, SECOND_PROCESS, World};
use std::ops::Deref;

/// Quorums of payments that exist somewhere, by era.
pub struct Shown {
    /// Certified: a quorum prepared it.
    pub certified: [Payments; ERAS],
}

/// The rules for one scenario.
pub struct Protocol {
    scenario: Scenario,
    /// Every block that may be proposed.
    pub blocks: Vec<Block>,
}

impl Deref for Protocol {
    type Target = Scenario;

    fn deref(&self) -> &Scenario {
        &self.scenario
    }
}

impl Protocol {
    pub fn new(scenario: Scenario) -> Protocol {
        Protocol { scenario, blocks: scenario.blocks().collect() }
    }

    /// Honest weight of the keys that voted so, each key once, in the committee of `era`.
    fn weight(&self, world: &World, era: usize, voted: impl Fn(&Process) -> bool) -> u8 {
        (0..HONEST)
            .filter(|slot| {
                voted(&world.processes[*slot])
                    || *slot == 0 && self.second_process && voted(&world.processes[SECOND_PROCESS])
            })
            .map(|slot| self.committees[era].honest[slot])
            .sum()
    }

    /// Can the adversary, who adds its whole weight to every value, show a quorum?
    fn reaches_quorum(&self, world: &World, era: usize, voted: impl Fn(&Process) -> bool) -> bool {
        let committee = &self.committees[era];
        let quorum = committee.quorum() - u8::from(!self.keeps(Rule::Quorum));
        self.weight(world, era, voted) + committee.byzantine >= quorum
    }

    /// Payments for which the votes `of` a process make a quorum in `era`.
    fn quorums(&self, world: &World, era: usize, of: impl Fn(&Process) -> [Payments; ERAS]) -> Payments {
        let counted = |process: &Process| {
            let votes = of(process);
            if self.keeps(Rule::EraTag) { votes[era] } else { votes[0] | votes[1] }
        };
        self.payments
            .iter()
            .map(|payment| payment.bit)
            .filter(|bit| self.reaches_quorum(world, era, |process| counted(process) & bit != 0))
            .sum()
    }

    /// Payments whose certificate can be shown.
    pub fn certified(&self, world: &World, era: usize) -> Payments {
        self.quorums(world, era, |process| process.prepares)
    }

    /// Payments whose finality proof can be shown.
    pub fn finals(&self, world: &World, era: usize) -> Payments {
        match self.keeps(Rule::SecondPhase) {
            true => self.quorums(world, era, |process| process.commits),
            false => self.certified(world, era),
        }
    }

    /// What `actions` asks for again and again.
    pub fn shown(&self, world: &World) -> Shown {
        let next = if self.next_era { self.certified(world, 1) } else { 0 };
        Shown { certified: [self.certified(world, 0), next] }
    }

    /// Can a prevote quorum for the block be shown?
    pub fn proof_of_lock(&self, world: &World, round: usize, block: Block) -> bool {
        self.reaches_quorum(world, 0, |process| process.prevotes[round] == Some(block))
    }

    /// Can a commit certificate of this round be shown?
    pub fn decided_in(&self, world: &World, round: usize, block: Block) -> bool {
        self.reaches_quorum(world, 0, |process| process.precommits[round] == Some(block))
    }

    /// Blocks whose commit certificate can be shown.
    pub fn committable<'a>(&'a self, world: &'a World) -> impl Iterator<Item = Block> + 'a {
        // The adversary has no quorum of its own, so some process precommitted such a block.
        let precommitted = move |block: &Block| {
            world.processes.iter().any(|process| process.precommits.contains(&Some(*block)))
        };
        self.blocks
            .iter()
            .copied()
            .filter(precommitted)
            .filter(|block| (0..self.rounds).any(|round| self.decided_in(world, round, *block)))
    }

    /// Does the process sign at all in its present era? Who starts without its log waits for the block with
    /// its `Resume`; who sees a `Resume` of its key that is not its own stops.
    pub fn signs(&self, slot: usize, process: &Process) -> bool {
        let resumed = process.decided.is_some_and(Block::holds_resume);
        match slot {
            0 => !resumed || !self.keeps(Rule::StopWhenDisplaced),
            SECOND_PROCESS => resumed || !self.keeps(Rule::SilentUntilResume),
            _ => true,
        }
    }

    /// Not frozen; in the next era nothing freezes, as its checkpoint is not part of the model.
    fn votes_on_payments(&self, process: &Process) -> bool {
        process.era() == 1 || !process.memory.frozen || !self.keeps(Rule::Freeze)
    }

    /// `prepare(T)`
    pub fn may_prepare(&self, shown: &Shown, process: &Process, payment: &Payment) -> bool {
        let era = process.era();
        let mine = process.memory.prepared[era];
        let lock_is_free = match self.keeps(Rule::CoinLock) {
            true => self.spent_by(mine) & payment.spends == 0,
            false => mine & payment.bit == 0,
        };
        self.votes_on_payments(process) && lock_is_free && self.coins_exist(shown, process, payment)
    }

    /// Payments in the state the process checks against.
    fn applied(&self, process: &Process) -> Payments {
        match process.decided {
            Some(block) if self.keeps(Rule::NewState) => block.payments(),
            _ => 0,
        }
    }

    /// Is every coin in the state, or made by a parent of this era that is prepared here or certified?
    fn coins_exist(&self, shown: &Shown, process: &Process, payment: &Payment) -> bool {
        let era = process.era();
        let applied = self.applied(process);
        let missing = payment.spends & !self.coins_after(applied);
        let ready = match self.keeps(Rule::ParentAtPrepare) {
            true => process.memory.prepared[era] | shown.certified[era],
            false => self.all_payments(),
        };
        missing & !self.made_by(self.parents(payment) & ready & !applied) == 0
    }

    /// `commit_vote(T)`; what is held of the payment and its certificate is the adversary's choice.
    pub fn may_commit_vote(&self, shown: &Shown, process: &Process, payment: &Payment) -> bool {
        let era = process.era();
        let applied = self.applied(process);
        let parents = self.parents(payment);
        let parents_first = process.commits[era] | applied;
        self.votes_on_payments(process)
            && shown.certified[era] & payment.bit != 0
            && process.commits[era] & payment.bit == 0
            && (!self.keeps(Rule::ParentAtCommit) || parents & !parents_first == 0)
    }

    /// Would it prevote the block as a fresh proposal?
    pub fn accepts_fresh(&self, process: &Process, block: Block) -> bool {
        let holds_my_commits = process.memory.commit_voted & !block.payments() == 0;
        let agrees = process.memory.lock.is_none_or(|lock| lock.block == block);
        (holds_my_commits || !self.keeps(Rule::Subset)) && (agrees || !self.keeps(Rule::BftLock))
    }

    /// Would it prevote the block when proposed again with a prevote quorum of round `valid`?
    pub fn accepts_again(&self, world: &World, process: &Process, block: Block, valid: usize) -> bool {
        let agrees =
            process.memory.lock.is_none_or(|lock| usize::from(lock.round) <= valid || lock.block == block);
        (agrees || !self.keeps(Rule::BftLock))
            && (!self.keeps(Rule::ProofOfLock) || self.proof_of_lock(world, valid, block))
    }
}
