//! What the node's engine does around a machine, here with crashes and checks: verify what arrives,
//! step, execute outputs one by one in order, and start again from disk.

use crate::actor::Actor;
use crate::keys::checker;
use crate::oracle::{Broken, Oracle, broken};
use crate::scenario::{MS, Mutant, Role};
use crate::trace::{describe, fingerprint};
use crate::world::{Event, Packet, World};
use masternode::consensus::input::Input;
use masternode::consensus::output::{Notice, Output, Record, Target};
use masternode::consensus::signer::Signer;
use masternode::consensus::verify::{verify_decided, verify_messages, verify_transactions};
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::evidence::{Evidence, Offence};
use masternode::primitives::hash::era_tag;
use masternode::primitives::message::{Message, PeerId, Proposal};
use masternode::primitives::rejection::Rejection;
use masternode::primitives::transaction::SharedTransaction;
use std::rc::Rc;
use std::sync::Arc;

impl World {
    /// A packet arrives.
    pub fn deliver(&mut self, actor: usize, from: usize, packet: &Packet) -> Result<(), Broken> {
        if !self.actors[actor].is_up() || !self.actors[actor].connected.contains(&from) {
            return Ok(());
        }
        let state = &self.actors[actor];
        if state.role == Role::Twins && (state.shown >> from & 1 == 0 || self.is_of_twin(actor, packet)) {
            return Ok(());
        }
        match packet {
            Packet::Message(message) => {
                let heard = self.actors[actor].liar.as_mut().and_then(|liar| liar.hear(message));
                if let Some(answer) = heard {
                    self.emit(actor, &[from], answer)?;
                }
                self.receive(actor, from, message.clone())
            }
            Packet::Transaction(transaction) => self.receive_transaction(actor, Some(from), transaction),
            Packet::Pull { height } => {
                let index = usize::try_from(*height).expect("small").wrapping_sub(1);
                let found = self.actors[actor].disk.blocks.get(index).cloned();
                if let Some((block, qc)) = found {
                    let to = Target::Peer(self.peers[from]);
                    self.transmit(actor, &self.receivers(actor, to), Packet::Decided { block, qc });
                }
                Ok(())
            }
            Packet::Decided { block, qc } => self.receive_decided(actor, from, block, qc),
        }
    }

    /// Whether a packet would tell a twin of the other, upon which it stops as any validator should.
    fn is_of_twin(&self, actor: usize, packet: &Packet) -> bool {
        let me = self.oracle.committee.index_of(&self.actors[actor].key.public());
        match packet {
            Packet::Message(Message::Vote(vote)) => Some(vote.voter) == me,
            Packet::Message(Message::VoteBatch(batch)) => Some(batch.voter) == me,
            Packet::Message(Message::Stream(batches)) => batches.iter().any(|batch| Some(batch.voter) == me),
            _ => false,
        }
    }

    fn receive(&mut self, actor: usize, from: usize, message: Message) -> Result<(), Broken> {
        let Some(machine) = &self.actors[actor].machine else { return Ok(()) };
        let name = message.name();
        let verified = verify_messages(vec![message], &machine.era(), &checker(self.scenario.real_keys));
        for result in verified {
            match result {
                Ok(message) => {
                    let from = self.peers[from];
                    self.step(actor, Input::Message { from, message })?;
                }
                Err(fault) if self.scenario.honest(from) => {
                    return broken("accused", format!("node {from} is honest and sent {name}: {fault}"));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// A transaction arrives from a peer, or from a client here.
    pub fn receive_transaction(
        &mut self,
        actor: usize,
        from: Option<usize>,
        transaction: &SharedTransaction,
    ) -> Result<(), Broken> {
        let Some(machine) = &self.actors[actor].machine else { return Ok(()) };
        let checker = checker(self.scenario.real_keys);
        for result in verify_transactions(vec![Arc::clone(transaction)], &machine.era(), &checker) {
            match result {
                Ok(transaction) => {
                    let from = from.map(|node| self.peers[node]);
                    self.step(actor, Input::Transaction { from, transaction })?;
                }
                Err((transaction, _)) => {
                    self.oracle.coverage.refused_payments += 1;
                    if self.workload.valid.contains_key(&transaction.id()) {
                        return broken("refused", format!("signature of {:?} is good", transaction.id()));
                    }
                }
            }
        }
        Ok(())
    }

    fn receive_decided(&mut self, actor: usize, from: usize, block: &Block, qc: &Qc) -> Result<(), Broken> {
        self.actors[actor].pulls.remove(&(from, block.header.height));
        let Some(machine) = &self.actors[actor].machine else { return Ok(()) };
        let checker = checker(self.scenario.real_keys);
        // A block of another height than the next is late, not wrong.
        let context = machine.era();
        if block.header.height != context.height {
            return Ok(());
        }
        match verify_decided(block.clone(), qc.clone(), &context, &checker) {
            Ok(block) => {
                let before = self.actors[actor].height();
                let from = self.peers[from];
                self.step(actor, Input::Decided { from, block })?;
                let grown = self.actors[actor].height() > before;
                self.oracle.coverage.pulled_blocks += u64::from(grown);
                Ok(())
            }
            Err(fault) if self.scenario.honest(from) => {
                broken("accused", format!("node {from} is honest and served a block: {fault}"))
            }
            Err(_) => Ok(()),
        }
    }

    /// Steps a machine and executes what comes out.
    pub fn step(&mut self, actor: usize, input: Input) -> Result<(), Broken> {
        let state = &mut self.actors[actor];
        let now = state.now(self.at_us);
        let Some(machine) = &mut state.machine else { return Ok(()) };
        let outputs = machine.step(&mut state.host, now, input);
        self.oracle.coverage.steps += 1;
        self.execute(actor, outputs)?;
        if let Some(machine) = &self.actors[actor].machine {
            let context = machine.era();
            self.oracle.enter(&context);
            self.schedule(actor);
        }
        Ok(())
    }

    fn execute(&mut self, actor: usize, outputs: Vec<Output>) -> Result<(), Broken> {
        // The era this step may have entered must be known before its messages are sent.
        if let Some(machine) = &self.actors[actor].machine {
            let context = machine.era();
            self.oracle.enter(&context);
        }
        let mut replays = Vec::new();
        for output in outputs {
            if self.crash_strikes(actor, &output) {
                self.crash(actor);
                return Ok(());
            }
            match output {
                Output::Replay(messages) => replays.extend(messages),
                output => self.effect(actor, output)?,
            }
        }
        for (from, message) in replays {
            self.oracle.coverage.replayed_messages += 1;
            if let Some(from) = self.peers.iter().position(|peer| *peer == from) {
                self.receive(actor, from, message)?;
            }
        }
        Ok(())
    }

    fn effect(&mut self, actor: usize, output: Output) -> Result<(), Broken> {
        let honest = self.actors[actor].role.is_honest();
        let address = self.actors[actor].address;
        match output {
            Output::Persist { height, record } if honest => self.persist(actor, height, record),
            Output::Send { to, message } => self.send(actor, to, message),
            Output::PullBlock { peer, height } => {
                self.pull(actor, peer, height);
                Ok(())
            }
            Output::Committed { block, qc, .. } => self.committed(actor, block, qc),
            Output::Final { height, txid, claim } if honest => {
                self.trace
                    .note(self.at_us, height, || format!("{address} final {} at {height}", txid.short()));
                self.oracle.check_final(height, &txid)?;
                self.check_proof(height, &txid, &claim)
            }
            Output::Rejected { txid, reason, .. } if honest => {
                self.trace.note(self.at_us, 4, || format!("{address} rejects {}: {reason}", txid.short()));
                self.oracle.coverage.refused_payments += 1;
                let valid = self.workload.valid.contains_key(&txid) && !self.oracle.is_doomed(&txid);
                if valid && !excusable(&reason) {
                    return broken("refused", format!("valid {txid:?} is refused for good: {reason}"));
                }
                Ok(())
            }
            Output::Misbehaved { peer, what } if honest => {
                self.trace.note(self.at_us, 5, || format!("{address} accuses {peer}: {what}"));
                match self.peers.iter().position(|known| *known == peer) {
                    Some(node) if self.scenario.honest(node) => {
                        broken("accused", format!("{address} accuses {node}, who is honest: {what}"))
                    }
                    _ => Ok(()),
                }
            }
            Output::Halt { reason } if honest => broken("halt", format!("{address} stops: {reason}")),
            Output::Notice(notice) if honest => self.notice(address, &notice),
            _ => Ok(()),
        }
    }

    fn persist(&mut self, actor: usize, height: u64, record: Record) -> Result<(), Broken> {
        if let Record::Candidate { outline, .. } = &record {
            self.oracle.learn(outline);
        }
        let (state, committee) = (&mut self.actors[actor], &self.oracle.committee);
        self.trace.note(self.at_us, height ^ 0x77, || {
            let name = format!("{record:?}");
            format!("{} persists {:.60}", state.address, name)
        });
        state.disk.write(height, record, committee);
        Ok(())
    }

    fn notice(&mut self, address: usize, notice: &Notice) -> Result<(), Broken> {
        match notice {
            Notice::Votes { .. } => return Ok(()),
            Notice::ProposalRefused { .. } => self.oracle.coverage.refused_proposals += 1,
            Notice::Equivocation { evidence, .. } => self.accused(address, evidence)?,
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
        let node = self.chain.keys.iter().position(|known| known.public() == evidence.vote_key);
        if node.is_none_or(|node| self.scenario.honest(node)) {
            return broken("accused", format!("{address} says honest {node:?} signed {what}"));
        }
        let checker = checker(self.scenario.real_keys);
        match evidence.checks() {
            Ok(checks) if checker(&checks).iter().all(|valid| *valid) => Ok(()),
            checked => broken("evidence", format!("{address} has no proof of {what}: {checked:?}")),
        }
    }

    fn pull(&mut self, actor: usize, peer: PeerId, height: u64) {
        let Some(node) = self.peers.iter().position(|known| *known == peer) else { return };
        let state = &mut self.actors[actor];
        let until = self.at_us + 400 * MS;
        if state.pulls.get(&(node, height)).is_some_and(|busy| *busy > self.at_us) {
            return;
        }
        state.pulls.insert((node, height), until);
        self.trace.note(self.at_us, 7, || format!("{} pulls block {height} from {node}", state.address));
        self.transmit(actor, &[node], Packet::Pull { height });
    }

    fn committed(&mut self, actor: usize, block: Arc<Block>, qc: Qc) -> Result<(), Broken> {
        let state = &mut self.actors[actor];
        let (address, id, height) = (state.address, block.id(), block.header.height);
        state.disk.blocks.push((Arc::clone(&block), qc.clone()));
        let value = u64::from(id.bytes()[0]) << 32 | height;
        self.trace.note(self.at_us, value, || {
            let txids: Vec<_> = block.transactions.iter().map(|tx| tx.id().short()).collect();
            format!("{address} commits h{height} r{} {} of {txids:?}", qc.round, id.short())
        });
        let tag = era_tag(self.chain.id, height, block.header.previous);
        if state.role.is_honest() {
            if !state.disk.index.has_decided(height, &id) || !state.disk.index.has_candidate(&id) {
                return broken("log before send", format!("{address} commits {height}, not in its log"));
            }
            self.oracle.commit(tag, &block, &qc)?;
            self.look_for_the_end();
        }
        Ok(())
    }

    fn send(&mut self, actor: usize, to: Target, message: Message) -> Result<(), Broken> {
        let role = self.actors[actor].role;
        if role == Role::Liar {
            // Its eyes answer what they are asked, now and then.
            if matches!(to, Target::Peer(_)) && self.random.chance(800) {
                let receivers = self.receivers(actor, to);
                return self.emit(actor, &receivers, message);
            }
            return Ok(());
        }
        if role.is_honest() {
            self.check_own(actor, &message)?;
        }
        let receivers = self.receivers(actor, to);
        self.emit(actor, &receivers, message)
    }

    /// The rules an honest validator keeps: over what is durable now, then over what is sent.
    fn check_own(&mut self, actor: usize, message: &Message) -> Result<(), Broken> {
        let Actor { own, disk, address, key, .. } = &mut self.actors[actor];
        let oracle = &mut self.oracle;
        let name = |fault: Broken| Broken { what: format!("node {address}: {}", fault.what), ..fault };
        for record in disk.sync() {
            match &record {
                Record::OwnBatch(batch) => {
                    // Its own prepare counts towards the quorum it relies on.
                    oracle.count_batch(batch)?;
                    own.entry(batch.era_tag).or_default().batch(batch, oracle, disk)
                }
                Record::Proposal(proposal) => {
                    oracle.coverage.reproposals += u64::from(proposal.valid_round >= 0);
                    oracle.learn(&proposal.outline);
                    own.entry(proposal.era_tag).or_default().proposal(proposal, oracle, disk)
                }
                Record::Vote(vote) => {
                    own.entry(vote.era_tag).or_default().vote(vote, oracle, disk).map_err(name)?;
                    oracle.count_vote(vote)
                }
                _ => Ok(()),
            }
            .map_err(name)?;
        }
        let me = oracle.committee.index_of(&key.public());
        let (era, voter) = match message {
            Message::VoteBatch(batch) => (batch.era_tag, Some(batch.voter)),
            Message::Proposal(proposal) => (proposal.era_tag, proposer(oracle, proposal)),
            Message::Vote(vote) => (vote.era_tag, Some(vote.voter)),
            _ => return Ok(()),
        };
        // Others' messages are passed on; only its own are its own.
        if voter == me { own.entry(era).or_default().sends(message).map_err(name) } else { Ok(()) }
    }

    /// The nodes a target means.
    fn receivers(&self, actor: usize, to: Target) -> Vec<usize> {
        let state = &self.actors[actor];
        let node = |peer: PeerId| self.peers.iter().position(|known| *known == peer);
        let connected = state.connected.iter().copied();
        let shown = |node: &usize| state.role != Role::Twins || state.shown >> node & 1 == 1;
        match to {
            Target::All => connected.filter(shown).collect(),
            Target::AllExcept(peer) => {
                let except = node(peer);
                connected.filter(|node| Some(*node) != except).filter(shown).collect()
            }
            Target::Peer(peer) => {
                node(peer).filter(|node| state.connected.contains(node)).into_iter().collect()
            }
        }
    }

    /// Sends a message as the actor's node: everything sent counts, whether it arrives or not.
    pub fn emit(&mut self, actor: usize, to: &[usize], message: Message) -> Result<(), Broken> {
        let (address, honest) = (self.actors[actor].address, self.actors[actor].role.is_honest());
        let print = fingerprint(&message);
        self.trace.note(self.at_us, print, || format!("{address} -> {to:?} {}", describe(&message)));
        if !honest {
            self.note_equivocation(actor, &message);
            if let Message::Proposal(proposal) = &message {
                self.oracle.learn(&proposal.outline);
            }
        }
        match &message {
            Message::VoteBatch(batch) if !honest => self.oracle.count_batch(batch)?,
            Message::Vote(vote) if !honest => self.oracle.count_vote(vote)?,
            _ => {}
        }
        let packet = match message {
            Message::Transaction(body) => {
                Packet::Transaction(masternode::primitives::transaction::SealedTransaction::new(body))
            }
            message => Packet::Message(message),
        };
        self.transmit(actor, to, packet);
        Ok(())
    }

    fn note_equivocation(&mut self, actor: usize, message: &Message) {
        let Actor { address, key, .. } = &self.actors[actor];
        let (tag, place, number, value, voter) = match message {
            Message::VoteBatch(batch) => {
                (batch.era_tag, "batch", batch.sequence, batch.digest(), Some(batch.voter))
            }
            Message::Proposal(proposal) => {
                let voter = proposer(&self.oracle, proposal);
                (proposal.era_tag, "proposal", proposal.round, proposal.digest(), voter)
            }
            Message::Vote(vote) => {
                let place = 2 * vote.round + vote.step as u32;
                (vote.era_tag, "vote", place, vote.digest(), Some(vote.voter))
            }
            _ => return,
        };
        if voter != self.oracle.committee.index_of(&key.public()) {
            return;
        }
        let address = *address;
        let value = u64::from_le_bytes(*value.0.first_chunk().expect("a hash is longer"));
        let first = *self.signed.entry((address, tag, place, number)).or_insert(value);
        self.oracle.coverage.equivocations += u64::from(first != value);
    }

    fn transmit(&mut self, actor: usize, to: &[usize], packet: Packet) {
        let packet = Rc::new(packet);
        let from = self.actors[actor].address;
        for node in to {
            for receiver in 0..self.actors.len() {
                if self.actors[receiver].address != *node {
                    continue;
                }
                for delay in self.network.copies(from, *node) {
                    let event = Event::Deliver { actor: receiver, from, packet: Rc::clone(&packet) };
                    self.at(self.at_us + delay, event);
                }
            }
        }
    }

    fn crash_strikes(&mut self, actor: usize, next: &Output) -> bool {
        if self.crashes_left == 0 || !self.actors[actor].role.is_honest() {
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
            Output::Committed { .. } => true,
            _ => false,
        };
        let permille =
            if delicate { self.scenario.crash_delicate_permille } else { self.scenario.crash_permille };
        self.random.chance(permille)
    }

    /// The process dies here and now.
    pub fn crash(&mut self, actor: usize) {
        self.crashes_left = self.crashes_left.saturating_sub(1);
        self.oracle.coverage.crashes += 1;
        let state = &mut self.actors[actor];
        self.trace.note(self.at_us, 8, || format!("{} crashes", state.address));
        state.machine = None;
        state.connected.clear();
        let lost = (state.disk.log.len() - state.disk.durable) as u64;
        let keep = state.disk.durable + usize::try_from(self.random.between(0, lost)).expect("small");
        self.oracle.coverage.torn_logs += u64::from(keep < state.disk.log.len());
        let keep = planted(self.scenario.mutant, keep, state, &mut self.random);
        state.disk.cut(keep, &self.oracle.committee);
        // The store of blocks may lag behind the log, which still holds what decided them.
        let behind = if self.random.chance(300) { self.random.between(1, 3) } else { 0 };
        let blocks = state.disk.blocks.len().saturating_sub(usize::try_from(behind).expect("small"));
        state.disk.blocks.truncate(blocks.max(state.disk.stored));
        state.disk.stored = state.disk.blocks.len();
        let pause = *self.random.pick(&[5 * MS, 50 * MS, 400 * MS, 2000 * MS]);
        let dark = self.random.between(1, 300 * MS);
        self.at(self.at_us + pause, Event::Restart { actor });
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
        let mut machine = state.fresh_machine(&self.scenario);
        let restored = machine.restore(&mut state.host, state.disk.log.clone());
        let blocks = match restored {
            Ok(blocks) => blocks,
            Err(_) if self.scenario.mutant == Mutant::TailLost => Vec::new(),
            Err(error) => return broken("restore", format!("{address}: {error}")),
        };
        let signed = state.own.get(&machine.era().era_tag);
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
        Mutant::None | Mutant::TooManyByzantine => keep,
    }
}

/// Why a valid payment may be refused by one node for a while.
fn excusable(reason: &Rejection) -> bool {
    reason.is_temporary()
}

/// Who must have signed a proposal.
fn proposer(oracle: &Oracle, proposal: &Proposal) -> Option<VoterIndex> {
    oracle.committee.proposer(proposal.outline.header.height, proposal.round)
}
