//! The Byzantine kit: a validator that votes for everything towards everyone, a different story each,
//! with its own key only.
//!
//! It sees the chain through an observer's machine and hears all that is sent to it. It votes for
//! conflicting payments, numbers two batches alike, ends its stream and goes on, shows votes to one
//! victim only, votes for every block it knows in every round, proposes different, late, corrupt and
//! censoring blocks, and re-proposes old ones with whatever prevotes it has gathered.

use crate::keys::Key;
use crate::random::Random;
use masternode::consensus::host::Host;
use masternode::consensus::signer::Signer;
use masternode::consensus::verify::EraContext;
use masternode::primitives::block::Outline;
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::hash::{BlockId, EraTag, Txid};
use masternode::primitives::keys::Signature;
use masternode::primitives::message::{Message, Proposal};
use masternode::primitives::transaction::{OutPoint, SharedTransaction};
use masternode::primitives::vote::{Step, Vote, VoteBatch};
use std::collections::{BTreeMap, BTreeSet};

/// How its payment votes are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// All votes to all.
    Everything,
    /// One of two conflicting payments to some, the other to the rest.
    Split,
    /// Votes to one victim, little to the others.
    Favourite,
}

/// What a lie is made of.
pub struct Scene<'a> {
    pub context: &'a EraContext,
    pub host: &'a dyn Host,
    pub key: &'a Key,
    /// Payments not in a block yet.
    pub payments: &'a [Txid],
    /// Honest nodes.
    pub targets: &'a [usize],
}

/// A liar's memory of the era.
pub struct Liar {
    random: Random,
    style: Style,
    era: EraTag,
    streams: BTreeMap<usize, u32>,
    told: BTreeMap<usize, BTreeSet<Txid>>,
    blocks: BTreeMap<BlockId, Outline>,
    prevotes: BTreeMap<(u32, BlockId), BTreeMap<VoterIndex, Signature>>,
    proposed: BTreeSet<u32>,
    voted: BTreeSet<(usize, u32, Step, Option<BlockId>)>,
    top_round: u32,
}

impl Liar {
    pub fn new(mut random: Random) -> Self {
        let style = *random.pick(&[Style::Everything, Style::Split, Style::Favourite]);
        Self {
            random,
            style,
            era: EraTag::default(),
            streams: BTreeMap::new(),
            told: BTreeMap::new(),
            blocks: BTreeMap::new(),
            prevotes: BTreeMap::new(),
            proposed: BTreeSet::new(),
            voted: BTreeSet::new(),
            top_round: 0,
        }
    }

    /// Takes note of a message; the answer to a question about a block, perhaps.
    pub fn hear(&mut self, message: &Message) -> Option<Message> {
        match message {
            Message::Proposal(proposal) if proposal.era_tag == self.era => {
                self.top_round = self.top_round.max(proposal.round);
                self.blocks.insert(proposal.outline.header.id(), proposal.outline.clone());
            }
            Message::Candidate { era_tag, outline } if *era_tag == self.era => {
                self.blocks.insert(outline.header.id(), outline.clone());
            }
            Message::Vote(vote) if vote.era_tag == self.era => {
                self.top_round = self.top_round.max(vote.round);
                if let (Step::Prevote, Some(block)) = (vote.step, vote.block) {
                    let votes = self.prevotes.entry((vote.round, block)).or_default();
                    votes.insert(vote.voter, vote.signature);
                }
            }
            Message::GetCandidate { era_tag, block } if self.random.chance(700) => {
                let outline = self.blocks.get(block)?.clone();
                return Some(Message::Candidate { era_tag: *era_tag, outline });
            }
            _ => {}
        }
        None
    }

    /// A moment to lie: messages with their receivers.
    pub fn tick(&mut self, scene: &Scene<'_>) -> Vec<(usize, Message)> {
        let Some(me) = scene.context.committee.index_of(&scene.key.public()) else { return Vec::new() };
        if self.era != scene.context.era_tag {
            *self = Self { era: scene.context.era_tag, style: self.style, ..Self::new(self.random.fork(1)) };
        }
        let mut lies = Vec::new();
        if scene.host.params().fast_path {
            self.batches(scene, me, &mut lies);
        }
        self.proposals(scene, me, &mut lies);
        self.votes(scene, me, &mut lies);
        lies
    }

    fn batches(&mut self, scene: &Scene<'_>, me: VoterIndex, lies: &mut Vec<(usize, Message)>) {
        let favourite = scene.targets[self.random.index(scene.targets.len())];
        for target in scene.targets {
            let shown = match self.style {
                Style::Favourite => *target == favourite || self.random.chance(100),
                _ => self.random.chance(600),
            };
            if !shown {
                continue;
            }
            let mut chosen = |permille: u64| -> Vec<Txid> {
                let half = |txid: &Txid| (usize::from(txid.bytes()[0]) + target) % 2 == 0;
                let split = self.style == Style::Split;
                let wanted = scene.payments.iter().filter(|txid| !split || half(txid));
                wanted.copied().filter(|_| self.random.chance(permille)).collect()
            };
            let (prepares, commits) = (chosen(700), chosen(500));
            let told = self.told.entry(*target).or_default();
            let news = prepares.iter().chain(&commits).filter(|txid| told.insert(**txid)).count();
            if news == 0 && !self.random.chance(150) {
                continue;
            }
            let sequence = *self.streams.entry(*target).or_insert(0);
            if self.random.chance(900) {
                self.streams.insert(*target, sequence + 1);
            }
            let last = self.random.chance(80);
            let signature = Signature([0; 64]);
            let mut batch =
                VoteBatch { era_tag: self.era, voter: me, sequence, last, prepares, commits, signature };
            batch.signature = scene.key.sign(&batch.digest());
            lies.push((*target, Message::VoteBatch(batch)));
        }
    }

    /// Votes for every block known, in the rounds in use: of all to all, or one block a target.
    fn votes(&mut self, scene: &Scene<'_>, me: VoterIndex, lies: &mut Vec<(usize, Message)>) {
        let known: Vec<BlockId> = self.blocks.keys().copied().collect();
        let victim = *self.random.pick(scene.targets);
        for round in self.top_round..=self.top_round + 1 {
            for target in scene.targets {
                let blocks = match self.style {
                    // The two halves of the network are to decide differently.
                    Style::Split if !known.is_empty() => vec![Some(known[target % known.len()])],
                    Style::Favourite if *target != victim => vec![None],
                    _ => known.iter().copied().map(Some).collect(),
                };
                for (block, step) in
                    blocks.into_iter().flat_map(|block| [(block, Step::Prevote), (block, Step::Precommit)])
                {
                    if self.random.chance(300) || !self.voted.insert((*target, round, step, block)) {
                        continue;
                    }
                    lies.push((*target, Message::Vote(self.vote(scene, me, round, step, block))));
                }
            }
        }
    }

    fn vote(
        &mut self,
        scene: &Scene<'_>,
        me: VoterIndex,
        round: u32,
        step: Step,
        block: Option<BlockId>,
    ) -> Vote {
        let signature = Signature([0; 64]);
        let mut vote = Vote { era_tag: self.era, round, step, block, voter: me, signature };
        vote.signature = scene.key.sign(&vote.digest());
        if let (Step::Prevote, Some(block)) = (step, block) {
            self.prevotes.entry((round, block)).or_default().insert(me, vote.signature);
        }
        vote
    }

    fn proposals(&mut self, scene: &Scene<'_>, me: VoterIndex, lies: &mut Vec<(usize, Message)>) {
        let committee = &scene.context.committee;
        for round in self.top_round..=self.top_round + 1 {
            let mine = committee.proposer(scene.context.height, round) == Some(me);
            if !mine || self.random.chance(300) || !self.proposed.insert(round) {
                continue;
            }
            let mut stories: Vec<Proposal> = Vec::new();
            for _ in 0..self.random.between(1, 2) {
                let outline = self.build(scene, me);
                stories.extend(outline.map(|outline| self.sign(scene, round, -1, outline, None)));
            }
            stories.extend(self.repropose(scene, round));
            let apart = self.style == Style::Split && self.random.chance(700);
            for target in scene.targets {
                for (place, story) in stories.iter().enumerate() {
                    let theirs = target % stories.len() == place;
                    if if apart { theirs } else { self.random.chance(550) } {
                        lies.push((*target, Message::Proposal(story.clone())));
                    }
                }
            }
        }
    }

    fn sign(
        &mut self,
        scene: &Scene<'_>,
        round: u32,
        valid_round: i32,
        outline: Outline,
        pol: Option<Qc>,
    ) -> Proposal {
        self.blocks.insert(outline.header.id(), outline.clone());
        let signature = Signature([0; 64]);
        let mut proposal = Proposal { era_tag: self.era, round, valid_round, outline, pol, signature };
        proposal.signature = scene.key.sign(&proposal.digest());
        proposal
    }

    /// Some payments that are valid together, in no particular order, some left out.
    fn build(&mut self, scene: &Scene<'_>, me: VoterIndex) -> Option<Outline> {
        let mut pending: Vec<SharedTransaction> = scene.host.pending();
        self.random.shuffle(&mut pending);
        let left_out = *self.random.pick(&[0, 100, 500, 1000]);
        let (mut claimed, mut made, mut taken) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        for _ in 0..2 {
            for transaction in &pending {
                let resolve = |outpoint: &OutPoint| scene.host.utxo(outpoint).or(made.get(outpoint).copied());
                if transaction.spends().all(|outpoint| resolve(&outpoint).is_some())
                    && transaction.claims().all(|claim| !claimed.contains(&claim))
                    && !taken.iter().any(|other: &SharedTransaction| other.id() == transaction.id())
                    && scene.host.check_transaction(transaction, &resolve).is_ok()
                    && !self.random.chance(left_out)
                {
                    claimed.extend(transaction.claims());
                    if !transaction.is_special() {
                        made.extend(transaction.creates(scene.context.height));
                    }
                    taken.push(transaction.clone());
                }
            }
        }
        let tip = scene.host.tip();
        let time_ms = tip.time_ms + self.random.between(1, 1500);
        let proposer = scene.context.committee.member(me)?.id;
        let mut outline = scene.host.build(proposer, time_ms, tip.commit, taken).ok()?.outline();
        if self.random.chance(120) {
            outline.header.utxo_count += 1;
        }
        Some(outline)
    }

    /// An old block with whatever prevotes were gathered for it, or none.
    fn repropose(&mut self, scene: &Scene<'_>, round: u32) -> Option<Proposal> {
        let old: Vec<(u32, BlockId)> = self.prevotes.keys().copied().filter(|(at, _)| *at < round).collect();
        if old.is_empty() || self.random.chance(400) {
            return None;
        }
        let (at, block) = *self.random.pick(&old);
        let outline = self.blocks.get(&block)?.clone();
        let votes = self.prevotes.get(&(at, block))?.iter().map(|(voter, signature)| (*voter, *signature));
        let qc = Qc::new(at, Step::Prevote, block, votes.collect());
        let enough = qc.checks(self.era, &scene.context.committee).is_ok();
        let pol = enough.then_some(qc);
        Some(self.sign(scene, round, i32::try_from(at).ok()?, outline, pol))
    }
}
