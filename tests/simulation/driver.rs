//! What the node's engine does around a machine, here with crashes and checks: verify what arrives,
//! step, execute outputs one by one in order, and start again from disk.

use crate::actor::Actor;
use crate::duties;
use crate::keys::checker;
use crate::oracle::{Broken, Oracle, broken};
use crate::scenario::{MS, Mutant, Role};
use crate::trace::{describe, fingerprint};
use crate::world::{Event, Packet, World};
use masternode::consensus::input::Input;
use masternode::consensus::output::{Output, Record, Target};
use masternode::consensus::signer::Signer;
use masternode::consensus::verify::{verify_decided, verify_messages, verify_transactions};
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::hash::era_tag;
use masternode::primitives::keys::PublicKey;
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
                    self.oracle.coverage.lying_answers += 1;
                    self.emit(actor, &[from], answer)?;
                }
                self.receive(actor, from, message.clone())
            }
            Packet::Transaction(transaction) => self.receive_transaction(actor, Some(from), transaction),
            Packet::Pull { height } => {
                let index = usize::try_from(*height).expect("small").wrapping_sub(1);
                let found = self.actors[actor].disk.blocks.get(index).cloned();
                if let Some((block, mut qc)) = found {
                    if let Some(liar) = &mut self.actors[actor].liar
                        && liar.forge(&mut qc)
                    {
                        self.oracle.coverage.forged_decisions += 1;
                    }
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
        let Some(machine) = &self.actors[actor].machine else { return false };
        let me = machine.era().committee.index_of(&self.actors[actor].key.public());
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
                    if let Message::Vote(vote) = message.get() {
                        self.actors[actor].heard.note(vote);
                    }
                    let from = self.peers[from];
                    self.step(actor, Input::Message { from, message })?;
                }
                Err(fault) if self.scenario.honest(from) => {
                    self.tolerate(broken(
                        "accused",
                        format!("node {from} is honest and sent {name}: {fault}"),
                    ))?;
                }
                Err(_) => self.oracle.coverage.refused_messages += 1,
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
                self.tolerate(broken("accused", format!("node {from} is honest and served a block: {fault}")))
            }
            Err(_) => {
                self.oracle.coverage.refused_messages += 1;
                Ok(())
            }
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
            return self.check_duties(actor);
        }
        Ok(())
    }

    /// What an honest machine owes after each step; the comparison with its log now and then.
    fn check_duties(&mut self, actor: usize) -> Result<(), Broken> {
        let state = &self.actors[actor];
        if !state.role.is_honest() {
            return Ok(());
        }
        let mut kept = duties::check_memory(state, self.oracle.params());
        if state.role == Role::Honest && self.oracle.coverage.steps.is_multiple_of(29) {
            kept = kept.and(duties::check_running(state, &self.oracle));
        }
        self.tolerate(kept)
    }

    /// In a run that is about safety alone, breaches of other rules are let pass. Where too many are
    /// Byzantine safety is bound to break: the first conflict is noted, and the run goes on to see who is
    /// proved guilty; nobody honest may be.
    pub fn tolerate(&mut self, result: Result<(), Broken>) -> Result<(), Broken> {
        const CONFLICT: [&str; 4] = ["S1", "S2", "S3", "lemma 1"];
        if self.scenario.mutant == Mutant::TooManyByzantine {
            return result.or_else(|fault| match fault.rule {
                "accused" | "evidence" => Err(fault),
                rule => {
                    if CONFLICT.contains(&rule) {
                        self.conflict.get_or_insert(fault);
                    }
                    Ok(())
                }
            });
        }
        const SAFETY: [&str; 8] = ["S1", "S2", "S3", "lemma 1", "state", "final", "liveness", "pace"];
        result.or_else(|fault| {
            if self.scenario.safety_only && !SAFETY.contains(&fault.rule) { Ok(()) } else { Err(fault) }
        })
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
                output => {
                    let done = self.effect(actor, output);
                    self.tolerate(done)?;
                }
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
            Output::PullBlock { peer, height, .. } => {
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
            Output::Notice(notice) if honest => self.notice(actor, &notice),
            Output::Sign { since, next } if honest => self.begins_to_sign(actor, since, next),
            _ => Ok(()),
        }
    }

    fn persist(&mut self, actor: usize, height: u64, record: Record) -> Result<(), Broken> {
        if let Record::Candidate { outline, .. } = &record {
            self.oracle.learn(outline);
        }
        let state = &mut self.actors[actor];
        self.trace.note(self.at_us, height ^ 0x77, || {
            let name = format!("{record:?}");
            format!("{} persists {:.60}", state.address, name)
        });
        state.disk.write(height, record);
        Ok(())
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
        state.heard.keep(id);
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
            let known = self.oracle.chain.len();
            self.oracle.commit(tag, &block, &qc)?;
            let honest =
                |key: &PublicKey| self.chain.node_of(key).is_some_and(|node| self.scenario.honest(node));
            if let Some(key) = self.oracle.convicted.iter().find(|key| honest(key)) {
                let node = self.chain.node_of(key);
                return broken("accused", format!("block {height} convicts {node:?}, who is honest"));
            }
            if let Some(machine) = &self.actors[actor].machine
                && machine.era().height == height + 1
            {
                self.oracle.check_next(&machine.era(), honest)?;
            }
            if self.oracle.chain.len() > known {
                self.change_registry();
            }
            self.check_resumes(&block)?;
            self.check_ledger(actor, height)?;
            self.check_pace(actor, height, &qc)?;
            self.look_for_the_end();
        }
        Ok(())
    }

    /// Every node at a height has the state all others have there, in every field of the header.
    fn check_ledger(&self, actor: usize, height: u64) -> Result<(), Broken> {
        let state = &self.actors[actor];
        let held = state.host.ledger().tip();
        let known = usize::try_from(held.header.height).ok().and_then(|at| self.oracle.chain.get(at - 1));
        match known {
            Some(block) if block.header != held.header => {
                broken("state", format!("the ledger of node {} differs at {height}", state.address))
            }
            _ => Ok(()),
        }
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
        for record in self.actors[actor].disk.sync() {
            let kept = self.check_own_record(actor, &record)?;
            self.tolerate(kept)?;
        }
        let Actor { address, key, .. } = &self.actors[actor];
        let (era, voter) = match message {
            Message::VoteBatch(batch) => (batch.era_tag, Some(batch.voter)),
            Message::Proposal(proposal) => (proposal.era_tag, proposer(&self.oracle, proposal)),
            Message::Vote(vote) => (vote.era_tag, Some(vote.voter)),
            _ => return Ok(()),
        };
        let me = self.oracle.committee(era).and_then(|committee| committee.index_of(&key.public()));
        if voter != me {
            // Others' messages are passed on; only its own are its own.
            return Ok(());
        }
        let own = self.own.entry((key.public(), era)).or_default();
        let sent = own.sends(message).map_err(|fault| named(*address, fault));
        self.tolerate(sent)
    }

    /// An own record has become durable. The outer result is about what everybody sent, the inner one
    /// about what this validator did.
    pub fn check_own_record(&mut self, actor: usize, record: &Record) -> Result<Result<(), Broken>, Broken> {
        let Actor { disk, address, key, .. } = &self.actors[actor];
        let oracle = &mut self.oracle;
        let era = match record {
            Record::OwnBatch(batch) => batch.era_tag,
            Record::Proposal(proposal) => proposal.era_tag,
            Record::Vote(vote) => vote.era_tag,
            _ => return Ok(Ok(())),
        };
        let (chain, scenario) = (&self.chain, &self.scenario);
        let honest = |key: &PublicKey| chain.node_of(key).is_some_and(|node| scenario.honest(node));
        let own = self.own.entry((key.public(), era)).or_default();
        let alone = own.is_by(*address);
        let kept = match record {
            Record::OwnBatch(batch) => {
                // Its own prepare counts towards the quorum it relies on.
                oracle.count_batch(batch)?;
                let kept = own.batch(batch, oracle, disk);
                kept.and_then(|()| oracle.unite(batch.era_tag, &batch.commits))
            }
            Record::Proposal(proposal) => {
                oracle.coverage.reproposals += u64::from(proposal.valid_round >= 0);
                oracle.learn(&proposal.outline);
                let kept = own.proposal(proposal, oracle, disk);
                kept.and(self.actors[actor].heard.check(proposal, oracle, honest))
            }
            Record::Vote(vote) => {
                let kept = own.vote(vote, oracle, disk);
                oracle.count_vote(vote)?;
                kept
            }
            _ => Ok(()),
        };
        Ok(kept.and(alone).map_err(|fault| named(*address, fault)))
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
        // What is signed in another's name is nobody's vote.
        let own = |tag, voter| {
            let key = self.actors[actor].key.public();
            self.oracle.committee(tag).and_then(|committee| committee.index_of(&key)) == Some(voter)
        };
        match &message {
            Message::VoteBatch(batch) if !honest && own(batch.era_tag, batch.voter) => {
                self.oracle.count_batch(batch)?;
            }
            Message::Vote(vote) if !honest && own(vote.era_tag, vote.voter) => {
                self.oracle.count_vote(vote)?;
            }
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
        if voter != self.oracle.committee(tag).and_then(|committee| committee.index_of(&key.public())) {
            return;
        }
        let address = *address;
        let value = u64::from_le_bytes(*value.0.first_chunk().expect("a hash is longer"));
        let first = *self.signed.entry((address, tag, place, number)).or_insert(value);
        self.oracle.coverage.equivocations += u64::from(first != value);
    }

    fn transmit(&mut self, actor: usize, to: &[usize], packet: Packet) {
        let packet = Rc::new(packet);
        let kind = packet.held();
        let from = self.actors[actor].address;
        for node in to {
            for receiver in 0..self.actors.len() {
                if self.actors[receiver].address != *node {
                    continue;
                }
                for delay in self.network.copies(from, *node, kind) {
                    let event = Event::Deliver { actor: receiver, from, packet: Rc::clone(&packet) };
                    self.at(self.at_us + delay, event);
                }
            }
        }
    }
}

/// Why a valid payment may be refused by one node for a while.
fn excusable(reason: &Rejection) -> bool {
    reason.is_temporary()
}

fn named(address: usize, fault: Broken) -> Broken {
    Broken { what: format!("node {address}: {}", fault.what), ..fault }
}

/// Who must have signed a proposal.
fn proposer(oracle: &Oracle, proposal: &Proposal) -> Option<VoterIndex> {
    oracle.committee(proposal.era_tag)?.proposer(proposal.outline.header.height, proposal.round)
}
