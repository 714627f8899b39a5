//! The machine: one node's whole consensus state and the dispatch of its inputs (protocol §4).
//!
//! The rules live beside it: [`fast_path`] (§4.1), [`checkpoint`] and [`proposer`] (§4.2), [`commit`]
//! (the step to the next era), [`exchange`] (status and answers to pulls), [`restore`] (§3, restart),
//! [`standing`] (§10, whether it may sign).
//! Invariants: outputs are returned in the order they must take effect; own votes are made only by
//! `flush` and `cast`, which persist them first; nothing is signed but in good standing, and after
//! `halt` nothing more.

mod admission;
pub mod audit;
mod causes;
mod checkpoint;
mod commit;
mod era;
mod evidence;
mod exchange;
mod fast_path;
mod gaps;
mod offences;
mod peers;
mod proposer;
mod pulls;
mod restore;
mod standing;
#[cfg(test)]
mod tests;
mod timers;
mod trust;
mod weights;

use crate::consensus::host::Host;
use crate::consensus::input::{Input, Now, Verified};
use crate::consensus::output::{Notice, Output, Record, Target};
use crate::consensus::planted::Bug;
use crate::consensus::rounds::Rounds;
use crate::consensus::signer::Signer;
use crate::consensus::standing::{Standing, Start};
use crate::consensus::timing::Timing;
use crate::consensus::trust::Untrusted;
use crate::consensus::verify::EraContext;
use crate::primitives::block::{Block, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::{BlockId, EraTag, Txid};
use crate::primitives::keys::Signature;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::transaction::SharedTransaction;
use crate::primitives::trusted::TrustedHeader;
use causes::Watch;
use era::Era;
use evidence::Cases;
use offences::Offences;
use peers::{FutureMessages, Peers};
use pulls::Pulls;
use standing::{KeyWatch, Post};
use std::collections::BTreeMap;
use std::sync::Arc;
use timers::Timers;
use trust::TrustWatch;

pub use restore::RestoreError;

/// A node's whole consensus state.
pub struct Machine {
    signer: Option<Box<dyn Signer>>,
    timing: Timing,
    context: Arc<EraContext>,
    /// Index in the current committee; `None` for an observer.
    me: Option<VoterIndex>,
    now: Now,
    started: bool,
    /// While the log is replayed nothing is sent, persisted or voted.
    replaying: bool,
    halted: Option<String>,
    /// Whether the vote key may be used.
    key_watch: KeyWatch,
    /// Whose blocks may be adopted after a long absence.
    trust: TrustWatch,
    outputs: Vec<Output>,
    era: Era,
    checkpoint: Checkpoint,
    last_commit: Option<LastCommit>,
    peers: Peers,
    pulls: Pulls,
    future: FutureMessages,
    timers: Timers,
    offences: Offences,
    cases: Cases,
}

/// Where a node is within a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum RoundStep {
    Propose,
    Prevote,
    Precommit,
}

/// State of the checkpoint of the current height.
#[derive(Debug)]
struct Checkpoint {
    round: u32,
    step: RoundStep,
    round_started_us: u64,
    rounds: Rounds,
    locked: Option<(BlockId, u32)>,
    valid: Option<(BlockId, u32, Qc)>,
    candidates: BTreeMap<BlockId, Candidate>,
    /// Round in which this node failed to build a block: its timer ends it.
    build_failed: Option<u32>,
    /// When the proposer last looked whether everything commit-voted is backed.
    backing_checked_us: Option<u64>,
    watch: Watch,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            round: 0,
            step: RoundStep::Propose,
            round_started_us: 0,
            rounds: Rounds::default(),
            locked: None,
            valid: None,
            candidates: BTreeMap::new(),
            build_failed: None,
            backing_checked_us: None,
            watch: Watch::default(),
        }
    }
}

/// A block that may be decided at this height.
#[derive(Debug)]
struct Candidate {
    outline: Outline,
    /// Bodies still missing; empty once `block` is there.
    missing: std::collections::BTreeSet<Txid>,
    bodies: BTreeMap<Txid, SharedTransaction>,
    /// When the missing bodies were last searched for.
    searched_us: Option<u64>,
    block: Option<Arc<Block>>,
    verdict: Option<Result<(), String>>,
    persisted: bool,
}

/// The certificate of the block before, with every further precommit that arrives.
#[derive(Debug)]
struct LastCommit {
    era_tag: EraTag,
    height: u64,
    id: BlockId,
    /// The block itself; `None` after a restart from a ledger that had applied it.
    block: Option<Arc<Block>>,
    round: u32,
    votes: BTreeMap<VoterIndex, Signature>,
    /// When it was decided here, on the monotonic clock; 0 in an earlier life.
    decided_us: u64,
}

/// What the machine is doing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Height being decided.
    pub height: u64,
    /// Current round, 0 before the freeze.
    pub round: u32,
    /// `era`, `propose`, `prevote` or `precommit`.
    pub step: &'static str,
    /// Whether this node has frozen.
    pub frozen: bool,
    /// When the era began, on the monotonic clock.
    pub era_started_us: u64,
    /// Bytes prepared in this era.
    pub era_bytes: u64,
    /// For each voter, batches held without a gap.
    pub stream_heads: Vec<u32>,
    /// Voters of connected peers, own included.
    pub connected: Vec<bool>,
    /// Greatest height a connected peer says it is deciding, own included.
    pub best_height: u64,
    /// Height each connected peer said last that it is deciding.
    pub peer_heights: Vec<(PeerId, u64)>,
    /// Where the node stands with its vote key.
    pub standing: Standing,
    /// Why no blocks are adopted, if none are.
    pub untrusted: Option<Untrusted>,
    /// Why the node has stopped, if it has.
    pub halted: Option<String>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Machine").field(&self.view()).finish()
    }
}

impl Machine {
    /// A machine at the host's tip that has not started; `signer` is `None` for an observer, for which
    /// `start` has no meaning.
    #[must_use]
    pub fn new(signer: Option<Box<dyn Signer>>, timing: Timing, host: &dyn Host, start: Start) -> Self {
        let context = Arc::new(EraContext::after(host.chain(), &host.tip()));
        let me = signer.as_ref().and_then(|signer| context.committee.index_of(&signer.public()));
        let era = Era::new(&context.committee, host.params(), 0, timing.era_us);
        Self {
            signer,
            timing,
            context,
            me,
            now: Now::default(),
            started: false,
            replaying: false,
            halted: None,
            key_watch: KeyWatch::new(start),
            trust: TrustWatch::new(host.params().trust_ms),
            outputs: Vec::new(),
            era,
            checkpoint: Checkpoint::default(),
            last_commit: LastCommit::of_tip(host),
            peers: Peers::default(),
            pulls: Pulls::default(),
            future: FutureMessages::default(),
            timers: Timers::default(),
            offences: Offences::at(&host.tip()),
            cases: Cases::default(),
        }
    }

    /// Names the block that the operator vouches for (protocol §7).
    #[must_use]
    pub fn trusting(mut self, trusted: Option<TrustedHeader>) -> Self {
        self.trust.trusted = trusted;
        self
    }

    /// One input, its effects in order.
    pub fn step(&mut self, host: &mut dyn Host, now: Now, input: Input) -> Vec<Output> {
        self.now = now;
        match input {
            Input::Start => self.on_start(host),
            Input::Wake => {}
            Input::Transaction { from, transaction } => {
                self.on_transaction(host, from, transaction.get());
            }
            Input::Message { from, message } => self.on_message(host, from, message),
            Input::Decided { from, block } => self.on_decided(host, from, block),
            Input::Route { from, route } => self.on_route(from, route),
            Input::PeerUp { peer, vote_key } => {
                self.peers.up(peer, vote_key, &self.context.committee);
                let status = Message::Status(self.status());
                self.send(Target::Peer(peer), status);
                self.offer_pending(host, peer);
                self.notice_twin(peer, vote_key);
            }
            Input::Hold { reason } => self.hold(host, reason),
            Input::PeerDown { peer } => {
                self.peers.down(&peer, self.now.monotonic_us);
                self.future.forget(&peer);
                self.key_watch.down(&peer);
            }
        }
        if self.started {
            self.fire_timers(host);
            self.advance(host);
            self.pursue_cases(host);
        }
        std::mem::take(&mut self.outputs)
    }

    /// When the machine wants to be woken, on the monotonic clock in microseconds.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let pulls = self.pulls.next_due();
        [self.timers.next(), pulls, self.flush_due()].into_iter().flatten().min()
    }

    /// What to check signatures against now; changes with each `Committed`.
    #[must_use]
    pub fn era(&self) -> Arc<EraContext> {
        Arc::clone(&self.context)
    }

    /// What the machine is doing. Cost: O(committee + peers).
    #[must_use]
    pub fn view(&self) -> View {
        let step = match (self.era.frozen, self.checkpoint.step) {
            (false, _) => "era",
            (true, RoundStep::Propose) => "propose",
            (true, RoundStep::Prevote) => "prevote",
            (true, RoundStep::Precommit) => "precommit",
        };
        let mut connected = vec![false; self.context.committee.len()];
        for voter in self.peers.voters().chain(self.me) {
            if let Some(slot) = connected.get_mut(usize::from(voter)) {
                *slot = true;
            }
        }
        View {
            height: self.context.height,
            round: self.checkpoint.round,
            step,
            frozen: self.era.frozen,
            era_started_us: self.era.started_us,
            era_bytes: self.era.bytes,
            stream_heads: self.era.stream_heads(),
            connected,
            best_height: self.peers.best_height().max(self.context.height),
            peer_heights: self.peers.heights(),
            standing: self.standing(),
            untrusted: self.untrusted(),
            halted: self.halted.clone(),
        }
    }

    /// Prepare and commit weight of up to `max` payments of this era that are not final.
    #[must_use]
    pub fn open_transactions(&self, max: usize) -> Vec<(Txid, u64, u64)> {
        self.era.open(max)
    }

    /// Whether this node signs: a member in good standing, not halted, not replaying.
    fn signs(&self) -> Option<VoterIndex> {
        let may_sign = self.key_watch.post == Post::Signing && self.halted.is_none() && !self.replaying;
        self.me.filter(|_| may_sign)
    }

    fn on_start(&mut self, host: &mut dyn Host) {
        self.started = true;
        self.era.started_us = self.now.monotonic_us;
        self.era.bucket.start(self.now.monotonic_us);
        self.timers.status = Some(self.now.monotonic_us);
        self.readmit_bodies(host);
        self.announce_finals(host);
        self.tell_untold_offences();
        self.notice_own_conviction(host);
        if !self.era.frozen {
            self.timers.era_end = Some(self.now.monotonic_us + self.timing.era_us);
            self.resume_era(host);
        }
        self.take_post(host);
    }

    fn on_message(&mut self, host: &mut dyn Host, from: PeerId, message: Verified<Message>) {
        let checked_in = message.era;
        let message = message.into_inner();
        if let Some(tag) = era_of(&message, &self.context) {
            let stray = matches!(message, Message::VoteBatch(_)) && self.is_past(tag);
            if stray && self.has_bug(Bug::VotesAcrossEras) {
                return self.dispatch(host, from, message);
            }
            if tag != self.context.era_tag {
                if self.is_of_last_height(&message, tag) {
                    // Checked in its own era or in the one after, against the committee of its own.
                    if checked_in == tag || checked_in == self.context.era_tag {
                        self.on_late(&message);
                    } else {
                        self.outputs.push(Output::Replay(vec![(from, message)]));
                    }
                } else if !self.is_past(tag) {
                    let is_voter = self.peers.voter_of(&from).is_some();
                    self.future.keep(from, is_voter, tag, message);
                }
                return;
            }
            if checked_in != tag {
                self.outputs.push(Output::Replay(vec![(from, message)]));
                return;
            }
        }
        self.dispatch(host, from, message);
    }

    fn dispatch(&mut self, host: &mut dyn Host, from: PeerId, message: Message) {
        match message {
            Message::Transaction(body) => {
                let sealed = crate::primitives::transaction::SealedTransaction::new(body);
                self.on_transaction(host, Some(from), &sealed);
            }
            Message::Transactions(bodies) => {
                for body in bodies {
                    let sealed = crate::primitives::transaction::SealedTransaction::new(body);
                    self.on_transaction(host, Some(from), &sealed);
                }
            }
            Message::VoteBatch(batch) => self.on_batch(host, Some(from), batch),
            Message::Stream(batches) => self.on_stream(host, from, batches),
            Message::Proposal(proposal) => self.on_proposal(host, proposal),
            Message::Vote(vote) => self.on_vote(&vote),
            Message::Pol { qc, .. } => self.on_pol(from, &qc),
            Message::Commit { height, qc } => self.on_commit_certificate(host, from, height, &qc),
            Message::Status(status) => self.on_status(host, from, &status),
            Message::GetTransactions(txids) => self.answer_transactions(host, from, &txids),
            Message::GetStream { voter, from: sequence, .. } => self.answer_stream(from, voter, sequence),
            Message::GetCertificate { txid, .. } => self.answer_certificate(from, &txid),
            Message::Certificate { certificate, .. } => self.on_certificate(host, certificate),
            Message::GetCandidate { block, .. } => self.answer_candidate(from, block),
            Message::Candidate { outline, .. } => self.on_candidate(host, from, &outline),
            // Decided blocks are pulled and served by the node, which answers with `Input::Decided`;
            // snapshots and headers of old blocks never come here.
            Message::GetBlock { .. }
            | Message::Block { .. }
            | Message::GetBlockBodies { .. }
            | Message::BlockBodies { .. }
            | Message::BlockNotKept { .. }
            | Message::GetSnapshots
            | Message::Snapshots(_)
            | Message::GetSnapshotManifest { .. }
            | Message::SnapshotManifest { .. }
            | Message::GetSnapshotPart { .. }
            | Message::SnapshotPart { .. }
            | Message::GetLinks { .. }
            | Message::Links { .. }
            | Message::GetHeaders { .. }
            | Message::Headers(_)
            // So is what peers tell of transactions they hand out.
            | Message::Announce(_) => {}
        }
    }

    fn send(&mut self, to: Target, message: Message) {
        if !self.replaying {
            self.outputs.push(Output::Send { to, message });
        }
    }

    fn persist(&mut self, record: Record) {
        if !self.replaying {
            self.outputs.push(Output::Persist { height: self.context.height, record });
        }
    }

    fn notice(&mut self, notice: Notice) {
        if !self.replaying {
            self.outputs.push(Output::Notice(notice));
        }
    }

    fn halt(&mut self, reason: String) {
        if self.halted.is_none() {
            self.halted = Some(reason.clone());
            self.outputs.push(Output::Halt { reason });
        }
    }
}

/// The era a message belongs to, if it belongs to one.
fn era_of(message: &Message, context: &EraContext) -> Option<EraTag> {
    match message {
        Message::VoteBatch(batch) => Some(batch.era_tag),
        Message::Proposal(proposal) => Some(proposal.era_tag),
        Message::Vote(vote) => Some(vote.era_tag),
        Message::Pol { era_tag, .. }
        | Message::GetStream { era_tag, .. }
        | Message::GetCertificate { era_tag, .. }
        | Message::Certificate { era_tag, .. }
        | Message::GetCandidate { era_tag, .. }
        | Message::Candidate { era_tag, .. } => Some(*era_tag),
        // All batches of a stream are of one era; strays are filtered when they are counted.
        Message::Stream(batches) => batches.first().map(|batch| batch.era_tag),
        // A certificate was checked only if it is for the height of the context it was checked in.
        Message::Commit { height, .. } if *height == context.height => Some(context.era_tag),
        Message::Commit { height, qc } if context.is_fork(*height, qc) => {
            context.previous_era.as_ref().map(|(tag, _)| *tag)
        }
        _ => None,
    }
}
