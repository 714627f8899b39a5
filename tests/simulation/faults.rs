//! What goes wrong in a run besides crashes: partitions, nodes cut off one by one, late starts, clocks
//! that jump, and the moments at which Byzantine validators act. And the pace that is due without them.

use crate::actor::Actor;
use crate::chain::GENESIS_MS;
use crate::liar::Scene;
use crate::oracle::{Broken, broken};
use crate::scenario::{MS, Role};
use crate::world::{Event, World};
use masternode::primitives::certificate::Qc;
use masternode::primitives::hash::Txid;
use std::collections::BTreeMap;

/// How far apart honest nodes may enter a height for it to be one without trouble.
const TOGETHER_US: u64 = 60 * MS;

impl World {
    /// Queues the faults of the environment.
    pub fn plan_faults(&mut self) {
        let calm_at_us = self.scenario.calm_at_us;
        for _ in 0..self.scenario.partitions {
            let begin = self.random.between(100 * MS, calm_at_us);
            let end = begin + self.random.between(200 * MS, 3000 * MS);
            let relink = begin + self.random.between(50 * MS, 1500 * MS);
            self.at(begin, Event::Partition);
            self.at(relink, Event::Relink);
            self.at(end.min(calm_at_us), Event::Heal);
        }
        if self.scenario.swizzle {
            self.plan_swizzle();
        }
        self.plan_troubles();
        for node in self.scenario.late.clone() {
            let at_us = self.random.between(calm_at_us / 4, calm_at_us);
            let actor = self.actors.iter().position(|actor| actor.address == node);
            self.oracle.coverage.late_joiners += 1;
            self.at(at_us, Event::Restart { actor: actor.expect("honest nodes have a machine") });
        }
        for _ in 0..self.scenario.clock_jumps {
            let at_us = self.random.between(100 * MS, calm_at_us);
            let actor = self.random.index(self.actors.len());
            self.at(at_us, Event::ClockJump { actor });
        }
        if self.scenario.blackout {
            let at_us = self.random.between(500 * MS, calm_at_us);
            self.at(at_us, Event::Blackout);
        }
    }

    /// Nodes are cut off one after the other and come back in another order.
    fn plan_swizzle(&mut self) {
        let mut nodes: Vec<usize> = (0..self.scenario.nodes()).collect();
        self.random.shuffle(&mut nodes);
        nodes.truncate(self.random.index(nodes.len()) + 1);
        let mut at_us = self.random.between(200 * MS, self.scenario.calm_at_us / 2);
        for cut in [true, false] {
            for node in &nodes {
                at_us += self.random.between(10 * MS, 250 * MS);
                self.at(at_us.min(self.scenario.calm_at_us), Event::Alone { node: *node, cut });
            }
            self.random.shuffle(&mut nodes);
        }
        self.oracle.coverage.swizzles += 1;
    }

    pub fn set_alone(&mut self, node: usize, cut: bool) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        self.network.set_alone(node, cut);
        self.trace.note(self.at_us, 11, || format!("{node} is {}", if cut { "cut off" } else { "back" }));
        // Connections outlive short cuts.
        if cut && self.random.chance(500) { Ok(()) } else { self.relink() }
    }

    pub fn clock_jump(&mut self, actor: usize) {
        if self.calm {
            return;
        }
        let most_ms = *self.random.pick(&[2000, 20_000, 600_000]);
        self.actors[actor].set_wall(&mut self.random, most_ms);
        self.oracle.coverage.clock_jumps += 1;
        let address = self.actors[actor].address;
        self.trace.note(self.at_us, 10, || format!("the wall clock of {address} jumps"));
    }

    /// A Byzantine validator acts.
    pub fn lie(&mut self, actor: usize) -> Result<(), Broken> {
        if self.calm && !self.scenario.liars_go_on {
            return Ok(());
        }
        let payments: Vec<Txid> =
            self.open_payments().into_iter().filter(|txid| self.handed_in.contains(txid)).take(20).collect();
        let targets: Vec<usize> =
            (0..self.scenario.nodes()).filter(|node| self.scenario.honest(*node)).collect();
        let freezes = self.freezes();
        let Some(mut liar) = self.actors[actor].liar.take() else { return Ok(()) };
        let before = liar.tricks;
        let state = &self.actors[actor];
        let mut pause = self.random.between(10 * MS, 90 * MS);
        let mut lies = Vec::new();
        if let Some(machine) = &state.machine {
            let context = machine.era();
            let scene = Scene {
                context: &context,
                host: &state.host,
                key: &state.key,
                payments: &payments,
                hidden: &self.workload.hidden,
                targets: &targets,
                freezes: &freezes,
            };
            lies = liar.tick(&scene);
            pause = liar.last_moment(&scene).map_or(pause, |wait| wait.clamp(MS, pause));
        }
        let (tricks, coverage) = (liar.tricks, &mut self.oracle.coverage);
        coverage.withheld_quorums += tricks.withheld_quorums - before.withheld_quorums;
        coverage.censored_commits += tricks.censored_commits - before.censored_commits;
        coverage.light_certificates += tricks.light_certificates - before.light_certificates;
        coverage.hidden_payments_proposed +=
            tricks.hidden_payments_proposed - before.hidden_payments_proposed;
        let exposed = liar.exposed.take();
        self.actors[actor].liar = Some(liar);
        for (target, message) in lies {
            self.emit(actor, &[target], message)?;
        }
        if let Some(node) = exposed.filter(|_| self.scenario.crash_favourites && self.crashes_left > 0) {
            let victim = self.actors.iter().position(|actor| actor.address == node);
            let at_us = self.at_us + self.random.between(5 * MS, 150 * MS);
            self.at(at_us, Event::Crash { actor: victim.expect("honest nodes have a machine") });
        }
        self.at(self.at_us + pause, Event::Lie { actor });
        Ok(())
    }

    /// In how many microseconds each honest node that has not frozen yet will.
    fn freezes(&self) -> BTreeMap<usize, u64> {
        let honest = self.actors.iter().filter(|actor| actor.role == Role::Honest);
        honest
            .filter_map(|actor| {
                let view = actor.machine.as_ref()?.view();
                let end_us = actor.when(view.era_started_us + self.scenario.timing.era_us);
                (!view.frozen).then(|| (actor.address, end_us.saturating_sub(self.at_us)))
            })
            .collect()
    }

    /// A node has decided a height: without faults it was due in the first round of an honest proposer
    /// with timeouts above the delays, or one later.
    pub fn check_pace(&mut self, actor: usize, height: u64, qc: &Qc) -> Result<(), Broken> {
        let (address, at_us) = (self.actors[actor].address, self.at_us);
        self.entered.entry(height + 1).or_default().insert(address, at_us);
        let Some(entered) = self.entered.get(&height) else { return Ok(()) };
        let honest = self.actors.iter().filter(|actor| actor.role.is_honest()).count();
        let (first, last) = (entered.values().min(), entered.values().max());
        let (Some(first), Some(last)) = (first, last) else { return Ok(()) };
        // Until then messages from before are still on their way.
        let settled = self.scenario.calm_at_us + 5000 * MS;
        if !self.calm || *first < settled || last - first > TOGETHER_US || entered.len() < honest {
            return Ok(());
        }
        // One honest validator with a wrong clock may be a quorum by itself; once its block is the parent,
        // only `SKEW * 2^round` paces the heights until all clocks have caught up.
        let parent = usize::try_from(height).ok().and_then(|at| self.oracle.chain.get(at.checked_sub(2)?));
        let plausible_ms = GENESIS_MS + at_us / 1000 + self.scenario.timing.skew_ms;
        if parent.is_some_and(|parent| parent.header.time_ms > plausible_ms) {
            return Ok(());
        }
        let Some(due) = self.first_good_round(height) else { return Ok(()) };
        self.oracle.coverage.heights_paced += 1;
        if qc.round > due + 1 {
            let what = format!("height {height} was decided in round {}, due in {due}", qc.round);
            return broken("pace", what);
        }
        Ok(())
    }

    fn first_good_round(&self, height: u64) -> Option<u32> {
        let tag = self.oracle.eras.iter().find(|(_, era)| era.height == height).map(|(tag, _)| *tag)?;
        let committee = self.oracle.committee(tag)?;
        let timing = &self.scenario.timing;
        (0..100).find(|round| {
            let proposer = committee.proposer(height, *round).and_then(|voter| committee.member(voter));
            let key = proposer.map(|member| member.vote_key);
            let ready = |actor: &&Actor| {
                actor.role.is_honest()
                    && Some(signer_key(&actor.key)) == key
                    && actor.signs_since.is_some_and(|since| since < height)
            };
            let wait_us = timing.propose_us + u64::from(*round) * timing.propose_step_us;
            let needed_us = 2 * (timing.pull_us + timing.grace_us + timing.tick_us);
            self.actors.iter().any(|actor| ready(&actor)) && wait_us / 2 > needed_us
        })
    }
}

fn signer_key(key: &crate::keys::Key) -> masternode::primitives::keys::PublicKey {
    masternode::consensus::signer::Signer::public(key)
}
