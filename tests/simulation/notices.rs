//! What machines tell of themselves and of others, and what it has to be true of.

use crate::custody::Instance;
use crate::keys::checker;
use crate::oracle::{Broken, broken};
use crate::world::World;
use masternode::consensus::output::Notice;
use masternode::consensus::standing::{Nonce, Standing};
use masternode::node::instance::Since;
use masternode::primitives::block::Block;
use masternode::primitives::evidence::{Evidence, Offence};
use masternode::primitives::hash::{Domain, hash};
use masternode::primitives::special::Special;

impl World {
    /// A notice for people.
    pub fn notice(&mut self, actor: usize, notice: &Notice) -> Result<(), Broken> {
        let address = self.actors[actor].address;
        match notice {
            Notice::Votes { .. } => return Ok(()),
            Notice::ProposalRefused { .. } => self.oracle.coverage.refused_proposals += 1,
            Notice::Equivocation { evidence, .. } => self.accused(address, evidence)?,
            Notice::Standing(Standing::Displaced { .. }) => {
                self.actors[actor].told_of_rival = true;
                self.oracle.coverage.displaced += 1;
            }
            Notice::KeyElsewhere { .. } => {
                self.actors[actor].told_of_rival = true;
                self.oracle.coverage.rivals_sighted += 1;
            }
            _ => {}
        }
        self.trace.note(self.at_us, 6, || format!("{address} notes {notice:?}"));
        Ok(())
    }

    /// Evidence must prove what it says, of a validator that lies.
    fn accused(&mut self, address: usize, evidence: &Evidence) -> Result<(), Broken> {
        let coverage = &mut self.oracle.coverage;
        coverage.equivocations_noticed += 1;
        *match &evidence.offence {
            Offence::Batches(..) => &mut coverage.evidence_of_batches,
            Offence::Payments { .. } => &mut coverage.evidence_of_payments,
            Offence::Votes { .. } => &mut coverage.evidence_of_votes,
            Offence::Proposals { .. } => &mut coverage.evidence_of_proposals,
        } += 1;
        let what = evidence.offence.name();
        let node = self.chain.node_of(&evidence.vote_key);
        if node.is_none_or(|node| self.scenario.honest(node)) {
            return broken("accused", format!("{address} says honest {node:?} signed {what}"));
        }
        self.proven.extend(node);
        let checker = checker(self.scenario.real_keys);
        match evidence.checks() {
            Ok(checks) if checker(&checks).iter().all(|valid| *valid) => Ok(()),
            checked => broken("evidence", format!("{address} has no proof of {what}: {checked:?}")),
        }
    }

    /// From now on the machine signs; its directory says so before anything is signed.
    ///
    /// Protocol §10: after a loss only if a block holds a number drawn since.
    pub fn begins_to_sign(&mut self, actor: usize, since: Option<Nonce>, next: Nonce) -> Result<(), Broken> {
        let state = &mut self.actors[actor];
        if let Some(drawn) = state.disk.drawn_since_loss.as_mut().filter(|_| self.scenario.unrest.is_some()) {
            if since.is_none_or(|since| !follows(&since, drawn, state.disk.blocks.len() as u64)) {
                let what = format!("{} signs since {since:?}, its log was lost since", state.address);
                return broken("custody", what);
            }
            drawn.push(next);
        }
        if since.is_some() {
            state.disk.floor = Some(state.disk.newest());
        }
        let since = since.map_or(Since::Registration, Since::Resume);
        state.disk.instance = Some(Instance { since, drawn: vec![next], moved: false });
        state.signs_since = state.machine.as_ref().map(|machine| machine.era().height);
        Ok(())
    }

    /// A validator with a whole log that nobody else signs for has no reason to ask to be let back.
    pub fn check_resumes(&mut self, block: &Block) -> Result<(), Broken> {
        for transaction in &block.transactions {
            let Ok(Some(Special::Resume(resume))) = transaction.special() else { continue };
            let node = self.chain.node_of(&resume.vote_key);
            let honest = node.is_none_or(|node| self.scenario.honest(node));
            self.oracle.coverage.resumes += u64::from(!honest);
            if honest && self.scenario.unrest.is_none() {
                let height = block.header.height;
                return broken("standing", format!("block {height} lets {node:?} back, who is honest"));
            }
        }
        Ok(())
    }
}

/// Whether a number was drawn, or made of one of these when a block had used that up.
fn follows(number: &Nonce, drawn: &[Nonce], height: u64) -> bool {
    let after =
        |used: &Nonce| (1..=height).any(|at| hash(Domain::RESUME, &[used, &at.to_le_bytes()]).0 == *number);
    drawn.contains(number) || drawn.iter().any(after)
}
