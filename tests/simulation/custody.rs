//! What becomes of a vote key's files, and what a start makes of them (protocol §10, safe start): logs
//! lost, old or copied, keys replaced. The judgement is the node's own.

use crate::actor::Actor;
use crate::disk::Disk;
use crate::keys::Key;
use crate::oracle::Broken;
use crate::random::Random;
use crate::scenario::{MS, Role};
use crate::unrest::{Loss, Trouble};
use crate::world::{Event, World};
use masternode::consensus::machine::Machine;
use masternode::consensus::signer::Signer;
use masternode::consensus::standing::{Nonce, Standing, Start};
use masternode::node::instance::{Finding, Since};
use masternode::node::traces::Traces;
use masternode::primitives::keys::PublicKey;
use std::collections::BTreeMap;

/// Numbers of earlier lives that are remembered, with the present one.
const DRAWN_MAX: usize = 8;

/// The file `instance`.
#[derive(Clone, Debug)]
pub struct Instance {
    pub since: Since,
    pub drawn: Vec<Nonce>,
    /// It lies elsewhere than it was written.
    pub moved: bool,
}

/// Judges what is on disk as a node does, and writes down the number drawn for this life.
pub fn begin(disk: &mut Disk, random: &mut Random) -> Start {
    let finding = match disk.instance.take() {
        None => Finding::Absent,
        Some(Instance { moved: true, .. }) => Finding::Unusable("a copy".to_owned()),
        Some(Instance { since, drawn, .. }) => Finding::Intact { since, drawn },
    };
    let traces = Traces {
        finding,
        floor: Ok(disk.floor),
        log: disk.log_from.checked_sub(1).map(|_| (disk.log_from, disk.newest())),
        closed: None,
        stored: disk.blocks.len() as u64,
    };
    let judged = traces.judge();
    if judged.log_is_useless {
        disk.cut(0);
    }
    if judged.log_is_useless || disk.log_from == 0 {
        disk.log_from = disk.blocks.len() as u64 + 1;
        disk.stored = disk.blocks.len();
    }
    disk.floor = disk.floor.max(Some(disk.blocks.len() as u64 + 1));
    let (since, mut drawn) = (judged.since, judged.drawn);
    let mut nonce: Nonce = [0; 32];
    nonce.chunks_mut(8).for_each(|part| part.copy_from_slice(&random.next().to_le_bytes()));
    drawn.drain(..drawn.len().saturating_sub(DRAWN_MAX - 1));
    let tried = drawn.clone();
    drawn.push(nonce);
    disk.drawn_since_loss.iter_mut().for_each(|drawn| drawn.push(nonce));
    let whole = |last: Option<Nonce>| {
        let since = std::iter::once(last).chain(tried.iter().copied().map(Some)).collect();
        Start::Whole { since, nonce }
    };
    let start = match since.clone() {
        Since::Never => Start::Fresh { tried, nonce },
        Since::Lost(reason) => Start::Lost { reason, tried, nonce },
        Since::Registration => whole(None),
        Since::Resume(last) => whole(Some(last)),
    };
    disk.instance = Some(Instance { since, drawn, moved: false });
    start
}

impl World {
    /// Queues what happens to the files of single validators.
    pub fn plan_troubles(&mut self) {
        let Some(unrest) = self.scenario.unrest.clone() else { return };
        let calm_at_us = self.scenario.calm_at_us;
        for (node, trouble) in unrest.troubles {
            let actor = self.actor_of(node);
            let at_us = self.random.between(800 * MS, calm_at_us - 500 * MS);
            match trouble {
                Trouble::Loses(loss) => {
                    let backup_us = self.random.between(300 * MS, at_us);
                    self.at(backup_us, Event::Backup { actor });
                    self.at(at_us, Event::Lose { actor, loss });
                    if self.random.chance(300) {
                        let again_us = self.random.between(at_us, calm_at_us);
                        self.at(again_us, Event::Lose { actor, loss });
                    }
                }
                Trouble::Absent => {
                    let until_us = at_us + self.random.between(1500 * MS, 8000 * MS);
                    self.at(at_us, Event::Absent { actor, until_us });
                }
                Trouble::Copied => {
                    let copy = unrest.copies.iter().find(|(_, original)| *original == node);
                    let copy = self.actor_of(copy.expect("each has one").0);
                    self.at(at_us, Event::Copy { from: actor, to: copy });
                }
                Trouble::Rekeyed | Trouble::Leaves => {}
            }
        }
        for node in unrest.joiners {
            let at_us = self.random.between(200 * MS, calm_at_us);
            let actor = self.actor_of(node);
            self.oracle.coverage.late_joiners += 1;
            self.at(at_us, Event::Restart { actor });
        }
    }

    /// The first machine at an address.
    pub fn actor_of(&self, node: usize) -> usize {
        let actor = self.actors.iter().position(|actor| actor.address == node);
        actor.expect("nodes that follow the rules have a machine")
    }

    /// A backup of a directory is made.
    pub fn back_up(&mut self, actor: usize) {
        let state = &self.actors[actor];
        let mut backup = state.disk.clone();
        backup.cut(state.disk.durable);
        self.backups.insert(actor, backup);
        self.trace.note(self.at_us, 12, || format!("{} is backed up", state.address));
    }

    /// The process stops, and its files are lost.
    pub fn lose(&mut self, actor: usize, loss: Loss) {
        let begun = |node: usize| self.actors[self.actor_of(node)].height() > 0;
        let all_begun = (0..self.scenario.founders)
            .filter(|node| self.scenario.honest(*node) && self.scenario.trouble(*node).is_none())
            .all(begun);
        // In the first height a new directory signs as soon as it hears a quorum: somebody has to begin.
        if self.calm || self.actors[actor].height() == 0 || !all_begun {
            return;
        }
        if self.actors[actor].is_up() {
            // What was sent has arrived before the snapshot signs.
            let pause_us = self.random.between(if loss == Loss::Snapshot { 600 * MS } else { MS }, 1500 * MS);
            self.stop(actor, Some(self.at_us + pause_us));
        }
        self.trace.note(self.at_us, 13, || format!("{} loses {loss:?}", self.actors[actor].address));
        let coverage = &mut self.oracle.coverage;
        let disk = &mut self.actors[actor].disk;
        match loss {
            Loss::Log => {
                coverage.lost_logs += 1;
                disk.cut(0);
                disk.log_from = 0;
                // Where nothing was signed since the loss before, nothing more is lost.
                let signed = |instance: &Instance| !matches!(instance.since, Since::Never | Since::Lost(_));
                if disk.instance.as_ref().is_some_and(signed) {
                    disk.drawn_since_loss = Some(Vec::new());
                }
            }
            Loss::Directory => {
                coverage.lost_directories += 1;
                *disk = Disk { drawn_since_loss: Some(Vec::new()), ..Disk::default() };
            }
            Loss::Backup | Loss::Snapshot => {
                let Some(backup) = self.backups.get(&actor) else { return };
                coverage.backups_restored += u64::from(loss == Loss::Backup);
                coverage.snapshots_restored += u64::from(loss == Loss::Snapshot);
                *disk = backup.clone();
                if loss == Loss::Backup {
                    disk.drawn_since_loss = Some(Vec::new());
                }
                if let Some(instance) = &mut disk.instance {
                    instance.moved |= loss == Loss::Backup;
                }
            }
        }
    }

    /// A copy of a directory is started elsewhere.
    pub fn copy(&mut self, from: usize, to: usize) -> Result<(), Broken> {
        let mut disk = self.actors[from].disk.clone();
        if let Some(instance) = &mut disk.instance {
            instance.moved = true;
        }
        disk.cut(self.actors[from].disk.durable);
        disk.drawn_since_loss = Some(Vec::new());
        self.actors[to].disk = disk;
        self.oracle.coverage.copied_directories += 1;
        self.trace.note(self.at_us, 14, || {
            format!("{} is a copy of {}", self.actors[to].address, self.actors[from].address)
        });
        self.restart(to)
    }

    /// The machine is replaced by one with another vote key, with the blocks or without.
    pub fn change_key(&mut self, actor: usize, key: Key) {
        self.oracle.coverage.vote_keys_replaced += 1;
        if self.actors[actor].is_up() {
            let pause_us = self.random.between(MS, 300 * MS);
            self.stop(actor, Some(self.at_us + pause_us));
        }
        self.trace.note(self.at_us, 15, || format!("{} gets another key", self.actors[actor].address));
        let keeps_blocks = self.random.chance(500);
        let state = &mut self.actors[actor];
        let blocks = if keeps_blocks { std::mem::take(&mut state.disk.blocks) } else { Vec::new() };
        state.key = key;
        let drawn_since_loss = Some(Vec::new());
        state.disk = Disk { stored: blocks.len(), blocks, drawn_since_loss, ..Disk::default() };
    }

    /// The process is stopped for long.
    pub fn go_absent(&mut self, actor: usize, until_us: u64) {
        if self.actors[actor].is_up() {
            self.oracle.coverage.absences += 1;
            self.stop(actor, Some(until_us));
        }
    }

    /// An operator reads why nobody signs with a key, and starts the process anew.
    pub fn restart_displaced(&mut self) {
        if self.scenario.unrest.is_none() || self.idle_keys().is_empty() {
            return;
        }
        for actor in 0..self.actors.len() {
            let state = &self.actors[actor];
            let key = state.key.public();
            let displaced = |machine: &Machine| matches!(machine.view().standing, Standing::Displaced { .. });
            let signs = |other: &Actor| {
                other.role == Role::Honest
                    && other.key.public() == key
                    && other
                        .machine
                        .as_ref()
                        .is_some_and(|machine| machine.view().standing == Standing::Signing)
            };
            if state.role == Role::Honest
                && state.machine.as_ref().is_some_and(displaced)
                && !self.actors.iter().any(signs)
            {
                self.oracle.coverage.displaced_restarted += 1;
                self.stop(actor, Some(self.at_us + 5 * MS));
            }
        }
    }

    /// What honest keys lack at the end: each one that may vote is signed with by one process, and any
    /// other process with it has told that it is not the one.
    pub fn idle_keys(&self) -> Vec<String> {
        let mut keys: BTreeMap<PublicKey, Vec<(&Actor, Standing)>> = BTreeMap::new();
        for actor in self.actors.iter().filter(|actor| actor.role == Role::Honest) {
            let Some(machine) = &actor.machine else { continue };
            keys.entry(actor.key.public()).or_default().push((actor, machine.view().standing));
        }
        let mut idle = Vec::new();
        for (key, processes) in keys {
            let signs = |(_, standing): &&(&Actor, Standing)| *standing == Standing::Signing;
            let signing = processes.iter().filter(signs).count();
            let told =
                processes.iter().filter(|process| !signs(process)).all(|(actor, _)| actor.told_of_rival);
            if self.oracle.registry.votes(&key) && (signing != 1 || !told) {
                let standings = processes.iter().map(|(actor, standing)| (actor.address, standing));
                idle.push(format!("{:?}", standings.collect::<Vec<_>>()));
            }
        }
        idle
    }
}
