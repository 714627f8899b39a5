//! Lies in answer to pulls, and forgeries: what an honest node must refuse or outlive.

use super::{Liar, Scene};
use masternode::consensus::signer::Signer;
use masternode::primitives::certificate::{Certificate, Qc};
use masternode::primitives::committee::{Committee, VoterIndex};
use masternode::primitives::keys::Signature;
use masternode::primitives::merkle::Phase;
use masternode::primitives::message::Message;
use masternode::primitives::transaction::SharedTransaction;
use masternode::primitives::vote::{Step, Vote, VoteBatch};

impl Liar {
    /// A lie in answer to a question, perhaps; what was asked for honestly is answered by its eyes.
    pub(super) fn answer(&mut self, question: &Message) -> Option<Message> {
        if !self.random.chance(600) {
            return None;
        }
        match question {
            Message::GetCandidate { era_tag, block } => {
                if let Some(outline) = self.blocks.get(block).filter(|_| self.random.chance(600)) {
                    return Some(Message::Candidate { era_tag: *era_tag, outline: outline.clone() });
                }
                let known: Vec<_> = self.blocks.values().cloned().collect();
                let mut outline = (!known.is_empty()).then(|| self.random.pick(&known).clone())?;
                if self.random.chance(200) {
                    outline.header.supply = outline.header.supply.checked_sub(outline.header.supply)?;
                }
                Some(Message::Candidate { era_tag: *era_tag, outline })
            }
            Message::GetTransactions(txids) => {
                // Some of what only it has, or bodies of something else.
                let asked = self.random.chance(700);
                let fits = |body: &&SharedTransaction| txids.contains(&body.id()) == asked;
                let bodies: Vec<_> =
                    self.bodies.values().filter(fits).take(2).map(|body| body.body().clone()).collect();
                (!bodies.is_empty()).then_some(Message::Transactions(bodies))
            }
            Message::GetStream { .. } => {
                // Batches of somebody else, or of nobody.
                let mut batches: Vec<VoteBatch> = self.batches_heard.iter().rev().take(3).cloned().collect();
                if self.random.chance(300) {
                    batches.iter_mut().for_each(|batch| batch.sequence += 1);
                }
                (!batches.is_empty()).then_some(Message::Stream(batches))
            }
            Message::GetCertificate { era_tag, txid } => {
                let proofs = self.batches_heard.iter().filter_map(|batch| batch.proof(Phase::Prepare, txid));
                let mut proofs: Vec<_> = proofs.collect();
                // One voter several times, as if that made a quorum.
                proofs.extend(proofs.clone());
                let certificate = Certificate { txid: *txid, phase: Phase::Prepare, proofs };
                Some(Message::Certificate { era_tag: *era_tag, certificate })
            }
            _ => None,
        }
    }

    /// Takes votes out of the certificate of a block that is served; whether it did.
    pub fn forge(&mut self, qc: &mut Qc) -> bool {
        if !self.random.chance(300) {
            return false;
        }
        let votes = qc.votes().unwrap_or_default();
        let kept = self.random.index(votes.len().max(1));
        *qc = Qc::new(qc.round, qc.step, qc.block, votes.into_iter().take(kept).collect());
        true
    }

    /// What cannot be signed or does not carry weight: others' votes, certificates that are too light.
    pub(super) fn forgeries(&mut self, scene: &Scene<'_>, lies: &mut Vec<(usize, Message)>) {
        if !self.random.chance(120) {
            return;
        }
        let target = *self.random.pick(scene.targets);
        let committee = &scene.context.committee;
        let voter = VoterIndex::try_from(self.random.index(committee.len())).expect("few");
        let block = self.blocks.keys().next().copied();
        let round = self.top_round;
        let signature = scene.key.sign(&Default::default());
        let era_tag = self.era;
        lies.push((
            target,
            match self.random.below(4) {
                0 => Message::Vote(Vote { era_tag, round, step: Step::Precommit, block, voter, signature }),
                1 => {
                    let prepares = scene.payments.to_vec();
                    let (sequence, last, commits) = (0, true, Vec::new());
                    Message::VoteBatch(VoteBatch {
                        era_tag,
                        voter,
                        sequence,
                        last,
                        prepares,
                        commits,
                        signature,
                    })
                }
                2 => {
                    let Some((_, qc)) = self.light_pol(scene, u32::MAX) else { return };
                    Message::Pol { era_tag, qc }
                }
                _ => {
                    let Some((_, qc)) = self.light_pol(scene, u32::MAX) else { return };
                    let qc = Qc { step: Step::Precommit, ..qc };
                    Message::Commit { height: scene.context.height, qc }
                }
            },
        ));
    }
}

/// A commit certificate with as few precommits as still make a quorum.
pub(super) fn censored(qc: Qc, committee: &Committee) -> Qc {
    let mut votes: Vec<(VoterIndex, Signature)> = qc.votes().unwrap_or_default();
    let mut weight: u64 = votes.iter().map(|(voter, _)| committee.weight(*voter)).sum();
    votes.retain(|(voter, _)| {
        let spare = weight - committee.weight(*voter) >= committee.quorum();
        weight -= if spare { committee.weight(*voter) } else { 0 };
        !spare
    });
    Qc::new(qc.round, qc.step, qc.block, votes)
}
