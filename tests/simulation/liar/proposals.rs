//! Proposals of a liar: different ones to different nodes, early, late, corrupt, censoring, of payments
//! nobody else has, and old blocks with whatever prevotes were gathered.

use super::answers::censored;
use super::{Liar, Scene, Style};
use masternode::consensus::signer::Signer;
use masternode::primitives::block::Outline;
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::hash::BlockId;
use masternode::primitives::keys::Signature;
use masternode::primitives::message::{Message, Proposal};
use masternode::primitives::transaction::{OutPoint, SharedTransaction};
use masternode::primitives::vote::Step;
use std::collections::{BTreeMap, BTreeSet};

impl Liar {
    pub(super) fn proposals(&mut self, scene: &Scene<'_>, me: VoterIndex, lies: &mut Vec<(usize, Message)>) {
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
        let hidden = self.random.chance(250);
        if hidden {
            pending.extend(scene.hidden.iter().cloned());
        }
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
        let time_ms = tip.time_ms + *self.random.pick(&[0, 1, 1, 500, 1500, 1500, 600_000]);
        let proposer = scene.context.committee.member(me)?.id;
        let mut commit = tip.commit;
        if self.random.chance(300) {
            commit = commit.map(|qc| censored(qc, &tip.committee));
            self.tricks.censored_commits += u64::from(commit.is_some());
        }
        let kept = |tx: &SharedTransaction| scene.hidden.iter().any(|other| other.id() == tx.id());
        self.tricks.hidden_payments_proposed += u64::from(taken.iter().any(kept));
        let mut outline = scene.host.build(proposer, time_ms, commit, taken).ok()?.outline();
        if self.random.chance(120) {
            outline.header.utxo_count += 1;
        }
        Some(outline)
    }

    /// An old block with whatever prevotes were gathered for it, too few as well.
    fn repropose(&mut self, scene: &Scene<'_>, round: u32) -> Option<Proposal> {
        if self.random.chance(400) {
            return None;
        }
        let (block, qc) = self.light_pol(scene, round)?;
        let outline = self.blocks.get(&block)?.clone();
        let valid_round = i32::try_from(qc.round).ok()?;
        Some(self.sign(scene, round, valid_round, outline, Some(qc)))
    }

    /// The prevotes gathered for some block in a round below `below`, be they a quorum or not.
    pub(super) fn light_pol(&mut self, scene: &Scene<'_>, below: u32) -> Option<(BlockId, Qc)> {
        let old: Vec<(u32, BlockId)> = self.prevotes.keys().copied().filter(|(at, _)| *at < below).collect();
        if old.is_empty() {
            return None;
        }
        let (at, block) = *self.random.pick(&old);
        let votes = self.prevotes.get(&(at, block))?.iter().map(|(voter, signature)| (*voter, *signature));
        let qc = Qc::new(at, Step::Prevote, block, votes.collect());
        self.tricks.light_certificates += u64::from(qc.checks(self.era, &scene.context.committee).is_err());
        Some((block, qc))
    }
}
