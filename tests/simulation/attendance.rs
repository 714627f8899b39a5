//! What protocol §10 promises those who sign: an honest proposer leaves out no precommit that it has.

use crate::oracle::{Broken, Oracle, broken};
use masternode::primitives::committee::VoterIndex;
use masternode::primitives::hash::{BlockId, EraTag};
use masternode::primitives::keys::PublicKey;
use masternode::primitives::message::Proposal;
use masternode::primitives::vote::{Step, Vote};
use std::collections::{BTreeMap, BTreeSet};

/// The precommits a machine was given since it is up.
#[derive(Default)]
pub struct Heard(BTreeMap<(u32, BlockId), BTreeSet<(VoterIndex, EraTag)>>);

impl Heard {
    pub fn note(&mut self, vote: &Vote) {
        if let (Step::Precommit, Some(block)) = (vote.step, vote.block) {
            self.0.entry((vote.round, block)).or_default().insert((vote.voter, vote.era_tag));
        }
    }

    /// Forgets all but what was heard of a block just decided.
    pub fn keep(&mut self, block: BlockId) {
        self.0.retain(|(_, heard), _| *heard == block);
    }

    /// A block of its own: who of the honest is missing in its last commit?
    pub fn check(
        &self,
        proposal: &Proposal,
        oracle: &Oracle,
        is_honest: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), Broken> {
        let Some(commit) = proposal.outline.last_commit.as_ref().filter(|_| proposal.valid_round < 0) else {
            return Ok(());
        };
        let counted = commit.votes().unwrap_or_default();
        let heard = self.0.get(&(commit.round, commit.block)).into_iter().flatten();
        let missing = heard
            .filter(|(voter, _)| counted.iter().all(|(counted, _)| counted != voter))
            .filter_map(|(voter, tag)| oracle.committee(*tag)?.member(*voter))
            .find(|member| is_honest(&member.vote_key));
        match missing {
            Some(member) => {
                let (name, height) = (&member.name, proposal.outline.header.height);
                broken(
                    "attendance",
                    format!("block {height} leaves out the precommit of {name}, who is honest"),
                )
            }
            None => Ok(()),
        }
    }
}
