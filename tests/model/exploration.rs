//! The state graph: every step an honest process may take in a state, and where it leads.

use crate::rules::{Protocol, Shown};
use crate::scenario::Rule;
use crate::state::{Block, HONEST, Lock, Memory, PROCESSES, Payments, Process, World};
use stateright::{Model, Property};

/// A step of the process in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare {
        slot: usize,
        payment: Payments,
    },
    CommitVote {
        slot: usize,
        payment: Payments,
    },
    /// Prevotes a fresh proposal (`valid` is none) or one with a prevote quorum of round `valid`. The last
    /// batch goes before it.
    Prevote {
        slot: usize,
        round: usize,
        valid: Option<usize>,
        block: Block,
    },
    Precommit {
        slot: usize,
        round: usize,
        block: Block,
    },
    /// Learns a commit certificate and enters the next era.
    Decide {
        slot: usize,
        block: Block,
    },
    /// Restarts and finds a part of its log gone.
    RestartWithFaultyLog {
        slot: usize,
    },
}

impl Protocol {
    fn payment_steps(&self, shown: &Shown, slot: usize, process: &Process, steps: &mut Vec<Step>) {
        for payment in self.payments {
            if self.may_prepare(shown, process, payment) {
                steps.push(Step::Prepare { slot, payment: payment.bit });
            }
            if self.may_commit_vote(shown, process, payment) {
                steps.push(Step::CommitVote { slot, payment: payment.bit });
            }
        }
    }

    fn checkpoint_steps(&self, world: &World, slot: usize, process: &Process, steps: &mut Vec<Step>) {
        for round in process.round()..self.rounds {
            if process.precommits[round].is_some() {
                continue;
            }
            let may_prevote = process.prevotes[round].is_none();
            for block in self.blocks.iter().copied() {
                if may_prevote && self.accepts_fresh(process, block) {
                    steps.push(Step::Prevote { slot, round, valid: None, block });
                }
                for earlier in (0..round).filter(|_| may_prevote) {
                    if self.accepts_again(world, process, block, earlier) {
                        steps.push(Step::Prevote { slot, round, valid: Some(earlier), block });
                    }
                }
                if self.proof_of_lock(world, round, block) {
                    steps.push(Step::Precommit { slot, round, block });
                }
            }
        }
    }

    /// The state after a step, processes in their slots.
    pub fn after(&self, world: &World, step: Step) -> World {
        let mut world = world.clone();
        match step {
            Step::Prepare { slot, payment } => {
                let process = &mut world.processes[slot];
                let era = process.era();
                process.prepares[era] |= payment;
                process.memory.prepared[era] |= payment;
            }
            Step::CommitVote { slot, payment } => {
                let process = &mut world.processes[slot];
                let era = process.era();
                process.commits[era] |= payment;
                if era == 0 {
                    process.memory.commit_voted |= payment;
                }
            }
            Step::Prevote { slot, round, block, .. } => {
                let process = &mut world.processes[slot];
                process.memory.frozen = true;
                process.prevotes[round] = Some(block);
            }
            Step::Precommit { slot, round, block } => {
                let process = &mut world.processes[slot];
                process.memory.frozen = true;
                process.precommits[round] = Some(block);
                let round = u8::try_from(round).expect("three rounds at most");
                process.memory.lock = Some(Lock { round, block });
            }
            Step::Decide { slot, block } => world.processes[slot].decided = Some(block),
            Step::RestartWithFaultyLog { slot } => {
                world.faulty_restarts -= 1;
                self.forget(&mut world.processes[slot].memory);
            }
        }
        world
    }

    fn forget(&self, memory: &mut Memory) {
        if !self.keeps(Rule::LogHoldsPrepares) {
            memory.prepared = Default::default();
        }
        if !self.keeps(Rule::LogHoldsCommitVotes) {
            memory.commit_voted = 0;
        }
        if !self.keeps(Rule::LogHoldsFreeze) {
            memory.frozen = false;
        }
        if !self.keeps(Rule::LogHoldsLock) {
            memory.lock = None;
        }
    }

    /// Sorts processes that can be swapped without a difference, so that states equal up to their names
    /// are explored once. Returns, slot by slot, the slot each process came from.
    pub fn renamed(&self, world: &mut World) -> [usize; PROCESSES] {
        let mut from = std::array::from_fn(|slot| slot);
        let mut first = 0;
        while first < HONEST {
            let mut end = first + 1;
            while self.alike(first, end) {
                end += 1;
            }
            from[first..end].sort_by_key(|slot| world.processes[*slot]);
            first = end;
        }
        world.processes = from.map(|slot| world.processes[slot]);
        from
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let faulty_restarts = u8::from(self.log_is_faulty());
        vec![World { processes: [Process::default(); PROCESSES], faulty_restarts }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        let shown = self.shown(world);
        for (slot, process) in world.processes.iter().enumerate().filter(|(slot, _)| self.runs(*slot)) {
            let in_first_era = process.decided.is_none();
            if self.signs(slot, process) {
                if self.fast_path && (in_first_era || self.next_era) {
                    self.payment_steps(&shown, slot, process, steps);
                }
                if in_first_era {
                    self.checkpoint_steps(world, slot, process, steps);
                }
            }
            if in_first_era && self.next_era {
                steps.extend(self.committable(world).map(|block| Step::Decide { slot, block }));
            }
            if world.faulty_restarts > 0 && in_first_era {
                steps.push(Step::RestartWithFaultyLog { slot });
            }
        }
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = self.after(world, step);
        self.renamed(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        self.all_properties()
    }
}
