//! The rules of protocol §3 and §4 an honest validator keeps, over all its lives.
//!
//! They are checked when a record becomes durable: what is durable may be sent at any time, what is not
//! may still be lost and replaced. Once passed, a message counts for ever, whatever becomes of the log.

use crate::disk::Disk;
use crate::oracle::{Broken, Oracle, broken};
use masternode::primitives::hash::{BlockId, EraTag, Hash, Txid};
use masternode::primitives::message::{Message, Proposal};
use masternode::primitives::transaction::OutPoint;
use masternode::primitives::vote::{Step, Vote, VoteBatch};
use std::collections::{BTreeMap, BTreeSet};

/// Everything one honest validator has signed in one era.
#[derive(Default)]
pub struct Own {
    /// The node that signs.
    signer: Option<usize>,
    stream: Vec<Hash>,
    ended: bool,
    locks: BTreeMap<OutPoint, Txid>,
    /// `CV`, with what its members spend.
    pub commits: BTreeSet<Txid>,
    spent: BTreeMap<OutPoint, Txid>,
    votes: BTreeMap<(u32, Step), Option<BlockId>>,
    proposals: BTreeMap<u32, BlockId>,
}

impl Own {
    /// Of several processes with one key one at most signs in an era.
    pub fn is_by(&mut self, node: usize) -> Result<(), Broken> {
        let first = *self.signer.get_or_insert(node);
        if first == node { Ok(()) } else { broken("two signers", format!("{first} signs in this era, too")) }
    }

    /// Whether anything was signed.
    pub fn has_signed(&self) -> bool {
        !self.stream.is_empty() || !self.votes.is_empty()
    }

    /// Whether the last batch was sent.
    pub fn is_frozen(&self) -> bool {
        self.ended
    }

    /// What the validator sends as its own must be durable, and has passed the rules below then.
    pub fn sends(&self, message: &Message) -> Result<(), Broken> {
        let (known, what) = match message {
            Message::VoteBatch(batch) => {
                (self.stream.get(batch.sequence as usize) == Some(&batch.digest()), "batch")
            }
            Message::Proposal(proposal) => {
                (self.proposals.get(&proposal.round) == Some(&proposal.outline.header.id()), "proposal")
            }
            Message::Vote(vote) => (self.votes.get(&(vote.round, vote.step)) == Some(&vote.block), "vote"),
            _ => return Ok(()),
        };
        if known { Ok(()) } else { broken("log before send", format!("{what} is not in the log")) }
    }

    /// A batch of its own stream is durable: it may have been sent, or be sent at any time.
    pub fn batch(&mut self, batch: &VoteBatch, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
        let digest = batch.digest();
        let sequence = batch.sequence as usize;
        match self.stream.get(sequence) {
            Some(first) if *first == digest => return Ok(()),
            Some(_) => return broken("stream", format!("two batches with number {sequence}")),
            None if self.ended => return broken("stream", format!("batch {sequence} after the last one")),
            None if sequence != self.stream.len() => {
                return broken("stream", format!("batch {sequence} after only {}", self.stream.len()));
            }
            None => {}
        }
        if !self.votes.is_empty() || !self.proposals.is_empty() {
            return broken("freeze", format!("batch {sequence} after votes of a round"));
        }
        self.stream.push(digest);
        self.ended = batch.last;
        for txid in &batch.prepares {
            self.prepare(txid, oracle, disk)?;
        }
        for txid in &batch.commits {
            self.commit(batch.era_tag, txid, oracle, disk)?;
        }
        Ok(())
    }

    fn prepare(&mut self, txid: &Txid, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
        let Some(body) = oracle.bodies.get(txid) else {
            return broken("prepare", format!("{txid:?} is prepared and was never a valid payment"));
        };
        if !disk.index.has_body(txid) {
            return broken("log before send", format!("{txid:?} is prepared without its body in the log"));
        }
        for outpoint in body.spends() {
            let first = *self.locks.entry(outpoint).or_insert(*txid);
            if first != *txid {
                return broken(
                    "input lock",
                    format!("{first:?} and {txid:?} prepared, both spend {outpoint}"),
                );
            }
        }
        Ok(())
    }

    fn commit(&mut self, tag: EraTag, txid: &Txid, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
        let Some(body) = oracle.bodies.get(txid) else {
            return broken("commit", format!("{txid:?} is commit-voted and was never a valid payment"));
        };
        if !oracle.is_certified(tag, txid) {
            return broken("commit", format!("{txid:?} is commit-voted without a prepare quorum"));
        }
        let proven = oracle.committee(tag).is_some_and(|of| disk.index.proves_prepared(tag, txid, of));
        if !disk.index.has_body(txid) || !proven {
            return broken(
                "log before send",
                format!("{txid:?} is commit-voted without body or P in the log"),
            );
        }
        let height = oracle.eras.get(&tag).map_or(0, |era| era.height);
        for parent in oracle.parents_in_era(txid, height) {
            if !self.commits.contains(&parent) {
                return broken("closure", format!("{txid:?} is commit-voted before its parent {parent:?}"));
            }
        }
        for outpoint in body.spends() {
            let first = *self.spent.entry(outpoint).or_insert(*txid);
            if first != *txid {
                return broken(
                    "commit",
                    format!("{first:?} and {txid:?} commit-voted, both spend {outpoint}"),
                );
            }
        }
        self.commits.insert(*txid);
        Ok(())
    }

    /// A proposal of its own is durable.
    pub fn proposal(&mut self, proposal: &Proposal, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
        let (round, block) = (proposal.round, proposal.outline.header.id());
        if !disk.index.has_candidate(&block) {
            return broken(
                "log before send",
                format!("proposal of round {round} without its block in the log"),
            );
        }
        if oracle.fast_path() && !self.ended {
            return broken("freeze", format!("proposal of round {round} before the last batch"));
        }
        let first = *self.proposals.entry(round).or_insert(block);
        if first == block {
            return Ok(());
        }
        broken("double proposal", format!("{first:?} and {block:?} in round {round}"))
    }

    /// A prevote or precommit of its own is durable.
    pub fn vote(&mut self, vote: &Vote, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
        let Vote { era_tag, round, step, block, .. } = *vote;
        if oracle.fast_path() && !self.ended {
            return broken("freeze", format!("{step:?} of round {round} before the last batch"));
        }
        match self.votes.get(&(round, step)) {
            Some(first) if *first == block => return Ok(()),
            Some(first) => {
                return broken(
                    "double vote",
                    format!("{step:?} of round {round} for {first:?} and {block:?}"),
                );
            }
            None => {}
        }
        if let Some((later, _)) = self.votes.keys().find(|(later, _)| *later > round) {
            return broken("rounds", format!("{step:?} of round {round} after a vote of round {later}"));
        }
        match (step, block) {
            (Step::Prevote, Some(block)) => self.prevote(era_tag, round, block, oracle)?,
            (Step::Precommit, Some(block)) => precommit(era_tag, round, block, oracle, disk)?,
            (_, None) => {}
        }
        self.votes.insert((round, step), block);
        Ok(())
    }

    /// Subset rule and lock rule.
    fn prevote(&self, tag: EraTag, round: u32, block: BlockId, oracle: &Oracle) -> Result<(), Broken> {
        let Some(contents) = oracle.contents.get(&block) else {
            return broken("prevote", format!("{block:?} is prevoted and nobody ever built it"));
        };
        let missing = self.commits.iter().find(|txid| !contents.contains(txid));
        if let Some(txid) = missing.filter(|_| !oracle.has_pol(tag, block, 0, round)) {
            return broken("subset rule", format!("{block:?} prevoted in round {round} without {txid:?}"));
        }
        let lock = self.votes.iter().rev().find_map(|((round, step), vote)| match step {
            Step::Precommit => vote.map(|block| (*round, block)),
            Step::Prevote => None,
        });
        match lock {
            Some((at, locked)) if locked != block && !oracle.has_pol(tag, block, at, round) => broken(
                "lock",
                format!("{block:?} prevoted in round {round}, locked on {locked:?} in round {at}"),
            ),
            _ => Ok(()),
        }
    }
}

fn precommit(tag: EraTag, round: u32, block: BlockId, oracle: &Oracle, disk: &Disk) -> Result<(), Broken> {
    if !oracle.has_quorum(tag, round, Step::Prevote, Some(block)) {
        return broken(
            "precommit",
            format!("{block:?} precommitted in round {round} without a prevote quorum"),
        );
    }
    if !disk.index.has_candidate(&block) || !disk.index.has_pol(round, &block) {
        return broken("log before send", format!("{block:?} precommitted without block or POL in the log"));
    }
    Ok(())
}
