//! Crashes before any effect, what they leave on disk, and starts from that.

use crate::actor::Actor;
use crate::duties;
use crate::oracle::{Broken, broken};
use crate::scenario::{MS, Mutant};
use crate::world::{Event, World};
use masternode::consensus::input::Input;
use masternode::consensus::output::{Output, Record};
use masternode::consensus::signer::Signer;
use masternode::primitives::hash::era_tag;
use masternode::primitives::message::Message;

impl World {
    /// Whether the process dies before this effect.
    pub fn crash_strikes(&mut self, actor: usize, next: &Output) -> bool {
        let state = &mut self.actors[actor];
        let counts = match next {
            Output::Persist { .. } | Output::Send { .. } | Output::Committed { .. } => true,
            Output::Sign { .. } => self.scenario.unrest.is_some(),
            _ => false,
        };
        if !state.role.is_honest() || !counts {
            return false;
        }
        state.effects += 1;
        if self.scenario.crash_at == Some((state.address, state.effects - 1)) {
            self.oracle.coverage.crashes_by_number += 1;
            return true;
        }
        if self.crashes_left == 0 {
            return false;
        }
        let delicate = match next {
            Output::Persist { record, .. } => match record {
                Record::OwnBatch(batch) => batch.last || !batch.commits.is_empty(),
                Record::Body(_) | Record::PeerBatch(_) => false,
                _ => true,
            },
            Output::Send { message, .. } => match message {
                Message::VoteBatch(batch) => batch.last || !batch.commits.is_empty(),
                Message::Vote(_) | Message::Proposal(_) => true,
                _ => false,
            },
            Output::Committed { .. } | Output::Sign { .. } => true,
            _ => false,
        };
        let permille =
            if delicate { self.scenario.crash_delicate_permille } else { self.scenario.crash_permille };
        self.random.chance(permille)
    }

    /// The process dies here and now, by chance.
    pub fn crash(&mut self, actor: usize) {
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.stop(actor, None);
    }

    /// The process dies, until then or for a while.
    pub fn stop(&mut self, actor: usize, until_us: Option<u64>) {
        self.oracle.coverage.crashes += 1;
        let state = &mut self.actors[actor];
        self.trace.note(self.at_us, 8, || format!("{} crashes", state.address));
        state.machine = None;
        state.connected.clear();
        let lost = (state.disk.log.len() - state.disk.durable) as u64;
        let kept = match self.scenario.kept_permille {
            Some(permille) => lost * permille / 1000,
            None => self.random.between(0, lost),
        };
        let keep = state.disk.durable + usize::try_from(kept).expect("small");
        self.oracle.coverage.torn_logs += u64::from(keep < state.disk.log.len());
        let keep = planted(self.scenario.mutant, keep, state, &mut self.random);
        state.disk.cut(keep);
        // The store of blocks may lag behind the log, which still holds what decided them.
        let behind = if self.random.chance(300) { self.random.between(1, 3) } else { 0 };
        let blocks = state.disk.blocks.len().saturating_sub(usize::try_from(behind).expect("small"));
        state.disk.blocks.truncate(blocks.max(state.disk.stored));
        state.disk.stored = state.disk.blocks.len();
        let pause = *self.random.pick(&[5 * MS, 50 * MS, 400 * MS, 2000 * MS]);
        let dark = self.random.between(1, 300 * MS);
        self.at(until_us.unwrap_or(self.at_us + pause), Event::Restart { actor });
        self.at(self.at_us + dark, Event::Relink);
    }

    /// The process starts again from what is on disk.
    pub fn restart(&mut self, actor: usize) -> Result<(), Broken> {
        if self.actors[actor].is_up() {
            return Ok(());
        }
        self.oracle.coverage.restarts += 1;
        let address = self.actors[actor].address;
        for other in 0..self.actors.len() {
            if self.actors[other].is_up() && self.actors[other].connected.remove(&address) {
                let peer = self.peers[address];
                self.step(other, Input::PeerDown { peer })?;
            }
        }
        let state = &mut self.actors[actor];
        state.reset(&self.chain, &mut self.random);
        for (block, qc) in &state.disk.blocks {
            if let Err(fault) = crate::chain::as_host(&mut state.host).commit(block, qc) {
                return broken("restore", format!("{address} cannot apply its own block: {fault}"));
            }
        }
        let mut machine = state.fresh_machine(&self.scenario, &mut self.random);
        let restored = machine.restore(&mut state.host, state.disk.log.clone());
        let blocks = match restored {
            Ok(blocks) => blocks,
            Err(_) if self.scenario.mutant == Mutant::TailLost || self.scenario.safety_only => Vec::new(),
            Err(error) => return broken("restore", format!("{address}: {error}")),
        };
        self.oracle.coverage.restarts_compared += 1;
        if !matches!(self.scenario.mutant, Mutant::TailLost | Mutant::LogLost) {
            let same = duties::check_restored(&self.actors[actor], &machine, &self.oracle);
            self.tolerate(same)?;
        }
        let state = &mut self.actors[actor];
        let signed = self.own.get(&(state.key.public(), machine.era().era_tag));
        self.oracle.coverage.restarts_in_mid_height += u64::from(signed.is_some_and(|own| own.has_signed()));
        self.oracle.coverage.restarts_frozen += u64::from(signed.is_some_and(|own| own.is_frozen()));
        self.oracle.enter(&machine.era());
        state.machine = Some(machine);
        self.trace.note(self.at_us, 9, || format!("{address} restarts"));
        for (block, qc) in blocks {
            let tag = era_tag(self.chain.id, block.header.height, block.header.previous);
            self.oracle.commit(tag, &block, &qc)?;
            self.actors[actor].disk.blocks.push((block, qc));
        }
        // What survived counts from now on, sent again or not: a payment may be final by it.
        for record in self.actors[actor].disk.sync() {
            let kept = self.check_own_record(actor, &record)?;
            self.tolerate(kept)?;
        }
        self.step(actor, Input::Start)?;
        self.relink()
    }
}

/// What the log has left after the fault a mutant plants.
fn planted(mutant: Mutant, keep: usize, state: &Actor, random: &mut crate::random::Random) -> usize {
    let floor = state.disk.log.iter().rposition(|(_, record)| matches!(record, Record::Decided(_)));
    let floor = floor.map_or(0, |at| at + 1).min(keep);
    match mutant {
        Mutant::LogLost => floor,
        Mutant::TailLost => {
            let lost = usize::try_from(random.between(1, 6)).expect("small");
            keep.saturating_sub(lost).max(floor)
        }
        Mutant::None | Mutant::TooManyByzantine | Mutant::Machine(_) | Mutant::Registry(_) => keep,
    }
}
