//! What must hold in every state (the names of protocol §11), and what must be reached in some state so that
//! nothing holds only because nothing happens.

use crate::rules::Protocol;
use crate::state::{A, B, Block, C, HONEST, SECOND_PROCESS, World};
use stateright::Property;

pub const S1: &str = "S1 final payments never conflict, ancestors included";
pub const S2: &str = "S2 every committable block holds every final payment";
pub const S3: &str = "S3 at most one block is committable";
pub const S4: &str = "S4 the next era never contradicts the block";
pub const L0: &str = "L0 some proposal is acceptable to every honest validator";

impl Protocol {
    fn finals_agree(&self, world: &World) -> bool {
        let finals = self.finals(world, 0) | self.finals(world, 1);
        !self.in_conflict(self.with_parents(finals))
    }

    fn block_holds_finals(&self, world: &World) -> bool {
        let finals = self.finals(world, 0);
        finals == 0 || self.committable(world).all(|block| finals & !block.payments() == 0)
    }

    fn one_block(&self, world: &World) -> bool {
        self.committable(world).nth(1).is_none()
    }

    fn next_era_follows_block(&self, world: &World) -> bool {
        let next = self.finals(world, 1);
        let follows = |block: Block| next & block.payments() == 0 && self.applies(next | block.payments());
        next == 0 || self.committable(world).all(follows)
    }

    /// What liveness rests on: an honest proposer that knows what all honest validators hold can propose
    /// something they all prevote, fresh or with a prevote quorum that exists.
    fn not_wedged(&self, world: &World) -> bool {
        let all = |accepts: &dyn Fn(usize) -> bool| (0..HONEST).filter(|slot| self.runs(*slot)).all(accepts);
        let acceptable = |block: Block| {
            all(&|slot| self.accepts_fresh(&world.processes[slot], block))
                || (0..self.rounds).any(|valid| {
                    self.proof_of_lock(world, valid, block)
                        && all(&|slot| self.accepts_again(world, &world.processes[slot], block, valid))
                })
        };
        self.blocks.iter().copied().any(acceptable) || self.committable(world).next().is_some()
    }

    fn all_but_b_final_and_in_block(&self, world: &World) -> bool {
        let expected = self.all_payments() & !B;
        self.finals(world, 0) == expected && self.committable(world).any(|block| block.payments() == expected)
    }

    fn certified_but_left_out(&self, world: &World) -> bool {
        let certified = self.certified(world, 0) & A != 0;
        certified && self.committable(world).any(|block| block.payments() & (A | B) == 0)
    }

    /// Some process prevoted, as a re-proposal, a block without a payment it had commit-voted.
    fn subset_waived(&self, world: &World) -> bool {
        world.processes.iter().any(|process| {
            let commits = process.memory.commit_voted;
            process.prevotes.iter().flatten().any(|block| commits & !block.payments() != 0)
        })
    }

    fn decided_in_last_round(&self, world: &World) -> bool {
        self.committable(world).any(|block| self.decided_in(world, self.rounds - 1, block))
    }

    fn rival_final_in_next_era(&self, world: &World) -> bool {
        self.certified(world, 0) & A != 0 && self.finals(world, 1) & B != 0
    }

    fn child_final_in_next_era(&self, world: &World) -> bool {
        self.finals(world, 1) == C && self.committable(world).any(|block| block.payments() == A)
    }

    /// A payment is final in the next era with the vote of the process that was started without its log,
    /// after the process it replaced had voted in the era before.
    fn resumed_vote_counts(&self, world: &World) -> bool {
        let resumed = world.processes[SECOND_PROCESS].commits[1];
        self.finals(world, 1) & resumed != 0 && world.processes[0].commits[0] != 0
    }

    /// The rules of protocol §11, and what this scenario must reach.
    pub fn all_properties(&self) -> Vec<Property<Protocol>> {
        let mut properties = vec![
            Property::always(S1, Protocol::finals_agree),
            Property::always(S2, Protocol::block_holds_finals),
            Property::always(S3, Protocol::one_block),
            Property::always(S4, Protocol::next_era_follows_block),
            Property::always(L0, Protocol::not_wedged),
            Property::sometimes("R1 decided in the last round", Protocol::decided_in_last_round),
        ];
        let mut reached = |applies: bool, name, condition| {
            if applies {
                properties.push(Property::sometimes(name, condition));
            }
        };
        let rivals = self.in_conflict(A | B);
        reached(
            self.fast_path,
            "R2 all but B final, and in the block",
            Protocol::all_but_b_final_and_in_block as fn(&_, &_) -> _,
        );
        reached(
            self.fast_path,
            "R3 A certified, neither A nor B in the block",
            Protocol::certified_but_left_out,
        );
        reached(
            self.fast_path && self.rounds > 1,
            "R4 the subset rule waived for a re-proposal",
            Protocol::subset_waived,
        );
        reached(
            self.next_era && rivals,
            "R5 B final in the next era, A certified before",
            Protocol::rival_final_in_next_era,
        );
        reached(
            self.next_era && self.all_payments() & C != 0,
            "R6 C final in the next era, A in the block",
            Protocol::child_final_in_next_era,
        );
        reached(
            self.second_process,
            "R7 final with the vote of the process that resumed",
            Protocol::resumed_vote_counts,
        );
        properties
    }
}
