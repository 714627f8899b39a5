//! The Byzantine kit: a validator that votes for everything towards everyone, a different story each,
//! with its own key only.
//!
//! It sees the chain through an observer's machine and hears all that is sent to it. It votes for
//! conflicting payments, numbers two batches alike, ends its stream and goes on, shows votes to one
//! victim only or just before that victim's freeze, and votes for every block it knows in every round.
//! What it proposes is in [`proposals`], what it answers and forges in [`answers`].

mod answers;
mod proposals;

use crate::keys::Key;
use crate::random::Random;
use crate::scenario::MS;
use masternode::consensus::host::Host;
use masternode::consensus::signer::Signer;
use masternode::consensus::verify::EraContext;
use masternode::primitives::block::Outline;
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::hash::{BlockId, EraTag, Txid};
use masternode::primitives::keys::Signature;
use masternode::primitives::message::Message;
use masternode::primitives::transaction::SharedTransaction;
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
    /// Nothing until one victim is about to freeze; then it is shown votes for everything, the others
    /// an empty last batch.
    Withhold,
}

/// How long before the victim's freeze withheld votes are shown, in microseconds.
const LAST_MOMENT_US: u64 = 25 * MS;

/// What was tried, for the record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tricks {
    pub withheld_quorums: u64,
    pub censored_commits: u64,
    pub hidden_payments_proposed: u64,
    pub light_certificates: u64,
}

/// What a lie is made of.
pub struct Scene<'a> {
    pub context: &'a EraContext,
    pub host: &'a dyn Host,
    pub key: &'a Key,
    /// Payments not in a block yet.
    pub payments: &'a [Txid],
    /// Payments nobody else has been given.
    pub hidden: &'a [SharedTransaction],
    /// Honest nodes.
    pub targets: &'a [usize],
    /// In how many microseconds each honest node that has not frozen in this era will.
    pub freezes: &'a BTreeMap<usize, u64>,
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
    batches_heard: Vec<VoteBatch>,
    shown: bool,
    /// Bodies to give in place of others.
    pub bodies: BTreeMap<Txid, SharedTransaction>,
    pub tricks: Tricks,
    /// Whom a withheld quorum was just shown to.
    pub exposed: Option<usize>,
}

impl Liar {
    /// `withholds` settles its style.
    pub fn new(mut random: Random, withholds: bool) -> Self {
        let drawn = *random.pick(&[
            Style::Everything,
            Style::Split,
            Style::Split,
            Style::Favourite,
            Style::Withhold,
            Style::Withhold,
        ]);
        let style = if withholds { Style::Withhold } else { drawn };
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
            batches_heard: Vec::new(),
            shown: false,
            bodies: BTreeMap::new(),
            tricks: Tricks::default(),
            exposed: None,
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
            Message::VoteBatch(batch) if batch.era_tag == self.era && self.batches_heard.len() < 200 => {
                self.batches_heard.push(batch.clone());
            }
            question => return self.answer(question),
        }
        None
    }

    /// A moment to lie: messages with their receivers.
    pub fn tick(&mut self, scene: &Scene<'_>) -> Vec<(usize, Message)> {
        let Some(me) = scene.context.committee.index_of(&scene.key.public()) else { return Vec::new() };
        if self.era != scene.context.era_tag {
            let fresh = Self::new(self.random.fork(1), false);
            *self = Self {
                era: scene.context.era_tag,
                style: self.style,
                bodies: std::mem::take(&mut self.bodies),
                tricks: self.tricks,
                ..fresh
            };
        }
        let mut lies = Vec::new();
        if scene.host.params().fast_path {
            if self.style == Style::Withhold {
                self.withhold(scene, me, &mut lies);
            } else {
                self.batches(scene, me, &mut lies);
            }
        }
        self.forgeries(scene, &mut lies);
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
            let batch = self.batch(scene, me, sequence, last, prepares, commits);
            lies.push((*target, Message::VoteBatch(batch)));
        }
    }

    /// The victim of this era: the same one for all liars, so that together they make a quorum.
    fn victim(&self, scene: &Scene<'_>) -> usize {
        scene.targets[usize::from(self.era.bytes()[0]) % scene.targets.len()]
    }

    /// In how many microseconds the withheld votes have to be shown, if they still can be.
    pub fn last_moment(&self, scene: &Scene<'_>) -> Option<u64> {
        let waiting = self.style == Style::Withhold && !self.shown && self.era == scene.context.era_tag;
        let due = scene.freezes.get(&self.victim(scene)).filter(|_| waiting)?;
        Some(due.saturating_sub(LAST_MOMENT_US))
    }

    fn withhold(&mut self, scene: &Scene<'_>, me: VoterIndex, lies: &mut Vec<(usize, Message)>) {
        if self.shown || self.last_moment(scene).is_none_or(|wait| wait > 0) {
            return;
        }
        self.shown = true;
        let victim = self.victim(scene);
        self.exposed = Some(victim);
        self.tricks.withheld_quorums += u64::from(!scene.payments.is_empty());
        for target in scene.targets {
            let prepares = if *target == victim { scene.payments.to_vec() } else { Vec::new() };
            let batch = self.batch(scene, me, 0, *target != victim, prepares, Vec::new());
            lies.push((*target, Message::VoteBatch(batch)));
        }
    }

    fn batch(
        &self,
        scene: &Scene<'_>,
        voter: VoterIndex,
        sequence: u32,
        last: bool,
        prepares: Vec<Txid>,
        commits: Vec<Txid>,
    ) -> VoteBatch {
        let signature = Signature([0; 64]);
        let mut batch = VoteBatch { era_tag: self.era, voter, sequence, last, prepares, commits, signature };
        batch.signature = scene.key.sign(&batch.digest());
        batch
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
}
