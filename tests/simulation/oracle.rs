//! The safety rules over everything ever sent by anyone: S1, S2, S3, the certificates they rest on,
//! and the state of the chain, recounted.
//!
//! Checks are incremental: each looks only at what one message or block adds.

use crate::coverage::Coverage;
use crate::registry::{Masternode, Registry};
use masternode::consensus::verify::EraContext;
use masternode::ledger::rewards::payout;
use masternode::ledger::set_hash::SetHash;
use masternode::primitives::amount::Amount;
use masternode::primitives::block::{Block, Outline};
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::{Committee, VoterIndex};
use masternode::primitives::hash::{BlockId, EraTag, Txid};
use masternode::primitives::keys::PublicKey;
use masternode::primitives::params::Params;
use masternode::primitives::special::Special;
use masternode::primitives::transaction::{OutPoint, SharedTransaction, Utxo};
use masternode::primitives::vote::{Step, Vote, VoteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Short name of the rule, as in `docs/protocol.md`.
    pub rule: &'static str,
    /// What happened.
    pub what: String,
}

/// A broken rule as an error.
pub fn broken<T>(rule: &'static str, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, what: what.into() })
}

/// Distinct voters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Voters(u128);

impl Voters {
    /// Counts a voter once.
    pub fn add(&mut self, voter: VoterIndex) {
        self.0 |= 1u128 << voter;
    }

    pub fn weight(self, committee: &Committee) -> u64 {
        committee
            .indices()
            .filter(|voter| self.0 >> voter & 1 == 1)
            .map(|voter| committee.weight(voter))
            .sum()
    }

    pub fn are_quorum(self, committee: &Committee) -> bool {
        self.weight(committee) >= committee.quorum()
    }
}

/// What all honest validators commit-voted in one era, taken together.
#[derive(Default)]
struct Union {
    members: BTreeSet<Txid>,
    spends: BTreeMap<OutPoint, Txid>,
    bytes: u64,
    signatures: u64,
}

/// Everything sent in one era.
pub struct Era {
    pub height: u64,
    pub committee: Arc<Committee>,
    union: Union,
    prepares: BTreeMap<Txid, Voters>,
    commits: BTreeMap<Txid, Voters>,
    certified: BTreeMap<OutPoint, Txid>,
    /// Who was prepared first for each output, and whether a rival was, too.
    contested: BTreeMap<OutPoint, (Txid, bool)>,
    finals: BTreeSet<Txid>,
    votes: BTreeMap<(u32, Step, Option<BlockId>), Voters>,
    committable: BTreeSet<BlockId>,
}

/// Knows everything ever sent and checks what must hold of it.
pub struct Oracle {
    params: Params,
    pub eras: BTreeMap<EraTag, Era>,
    /// Bodies of all payments that were made.
    pub bodies: BTreeMap<Txid, SharedTransaction>,
    /// What each known block holds.
    pub contents: BTreeMap<BlockId, BTreeSet<Txid>>,
    /// Who spends each output, over all final payments, their ancestors, and blocks.
    spender: BTreeMap<OutPoint, Txid>,
    /// The block with a precommit quorum at each height.
    committable: BTreeMap<u64, BlockId>,
    /// Payments in blocks, by the height of the block.
    pub included: BTreeMap<Txid, u64>,
    /// The decided blocks, applied.
    pub chain: Vec<Arc<Block>>,
    utxos: BTreeMap<OutPoint, Utxo>,
    supply: Amount,
    /// The registry by the text.
    pub registry: Registry,
    /// Vote keys of validators convicted by evidence in a block.
    pub convicted: BTreeSet<PublicKey>,
    pub coverage: Coverage,
}

impl Oracle {
    pub fn new(params: Params, genesis: Vec<(OutPoint, Utxo)>, founders: Vec<Masternode>) -> Self {
        let supply = Amount::checked_sum(genesis.iter().map(|(_, utxo)| utxo.value)).expect("a real supply");
        Self {
            registry: Registry::new(params.clone(), founders),
            params,
            eras: BTreeMap::new(),
            bodies: BTreeMap::new(),
            contents: BTreeMap::new(),
            spender: BTreeMap::new(),
            committable: BTreeMap::new(),
            included: BTreeMap::new(),
            chain: Vec::new(),
            utxos: genesis.into_iter().collect(),
            supply,
            convicted: BTreeSet::new(),
            coverage: Coverage::default(),
        }
    }

    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Whether payments are voted on, so that there are streams to end.
    pub fn fast_path(&self) -> bool {
        self.params.fast_path
    }

    /// A node has entered an era.
    pub fn enter(&mut self, context: &EraContext) {
        self.eras.entry(context.era_tag).or_insert_with(|| Era {
            height: context.height,
            committee: Arc::clone(&context.committee),
            union: Union::default(),
            prepares: BTreeMap::new(),
            commits: BTreeMap::new(),
            certified: BTreeMap::new(),
            contested: BTreeMap::new(),
            finals: BTreeSet::new(),
            votes: BTreeMap::new(),
            committable: BTreeSet::new(),
        });
    }

    /// A node has entered the era after a block that was applied here: who votes in it.
    pub fn check_next(
        &self,
        context: &EraContext,
        is_honest: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), Broken> {
        if self.chain.len() as u64 + 1 == context.height {
            return self.registry.check_committee(&context.committee, is_honest);
        }
        match self.committee(context.era_tag) {
            Some(first) if *first != *context.committee => {
                broken("committee", format!("two committees of height {}", context.height))
            }
            _ => Ok(()),
        }
    }

    /// Learns what a block holds.
    pub fn learn(&mut self, outline: &Outline) {
        self.contents.entry(outline.header.id()).or_insert_with(|| outline.txids.iter().copied().collect());
    }

    /// Whether a payment is in a block below this height, so that its outputs are not of the era.
    pub fn settled_below(&self, txid: &Txid, height: u64) -> bool {
        self.included.get(txid).is_some_and(|at| *at < height)
    }

    /// The parents of a payment that are not settled before the era.
    pub fn parents_in_era(&self, txid: &Txid, height: u64) -> Vec<Txid> {
        let Some(body) = self.bodies.get(txid) else { return Vec::new() };
        body.spends()
            .map(|outpoint| outpoint.txid)
            .filter(|parent| self.bodies.contains_key(parent) && !self.settled_below(parent, height))
            .collect()
    }

    /// Counts a batch its voter has sent.
    pub fn count_batch(&mut self, batch: &VoteBatch) -> Result<(), Broken> {
        let Some(era) = self.eras.get_mut(&batch.era_tag) else { return Ok(()) };
        let committee = Arc::clone(&era.committee);
        let (mut certified, mut finals) = (Vec::new(), Vec::new());
        for txid in &batch.prepares {
            let voters = era.prepares.entry(*txid).or_default();
            let before = voters.weight(&committee);
            for outpoint in self.bodies.get(txid).filter(|_| before == 0).iter().flat_map(|tx| tx.spends()) {
                let (first, contested) = era.contested.entry(outpoint).or_insert((*txid, false));
                if first != txid && !*contested {
                    *contested = true;
                    self.coverage.conflicts_voted_on += 1;
                }
            }
            voters.add(batch.voter);
            if before < committee.quorum() && voters.are_quorum(&committee) {
                certified.push(*txid);
            }
        }
        for txid in &batch.commits {
            let voters = era.commits.entry(*txid).or_default();
            voters.add(batch.voter);
            if voters.are_quorum(&committee) && era.finals.insert(*txid) {
                finals.push(*txid);
            }
        }
        for txid in certified {
            self.certify(batch.era_tag, txid)?;
        }
        for txid in finals {
            self.finalise(batch.era_tag, txid)?;
        }
        Ok(())
    }

    /// An honest validator has commit-voted: what all of them did must fit into one block (protocol §5).
    pub fn unite(&mut self, tag: EraTag, commits: &[Txid]) -> Result<(), Broken> {
        let Some(era) = self.eras.get_mut(&tag) else { return Ok(()) };
        let before = era.union.bytes;
        for txid in commits {
            let Some(body) = self.bodies.get(txid).filter(|_| era.union.members.insert(*txid)) else {
                continue;
            };
            for outpoint in body.spends() {
                let first = *era.union.spends.entry(outpoint).or_insert(*txid);
                if first != *txid {
                    return broken(
                        "union",
                        format!("{first:?} and {txid:?} spend {outpoint}, both commit-voted"),
                    );
                }
            }
            era.union.bytes += body.size();
            era.union.signatures += body.body().inputs.len() as u64;
        }
        let (bytes, signatures) = (era.union.bytes, era.union.signatures);
        if bytes > 2 * self.params.era_bytes || signatures > 2 * self.params.era_signatures {
            return broken(
                "union",
                format!("{bytes} bytes, {signatures} signatures are commit-voted at {}", era.height),
            );
        }
        let half = self.params.era_bytes / 2;
        if before <= half && bytes > half {
            self.coverage.unions_above_half_a_budget += 1;
        }
        Ok(())
    }

    /// Lemma 1: conflicting payments are never both certified in one era.
    fn certify(&mut self, tag: EraTag, txid: Txid) -> Result<(), Broken> {
        let (Some(era), Some(body)) = (self.eras.get_mut(&tag), self.bodies.get(&txid)) else {
            return Ok(());
        };
        for outpoint in body.spends() {
            let first = *era.certified.entry(outpoint).or_insert(txid);
            if first != txid {
                let height = era.height;
                return broken(
                    "lemma 1",
                    format!("{first:?} and {txid:?} spend {outpoint} and are both certified at {height}"),
                );
            }
        }
        Ok(())
    }

    fn finalise(&mut self, tag: EraTag, txid: Txid) -> Result<(), Broken> {
        self.coverage.payments_final_by_votes += 1;
        let (height, blocks) = match self.eras.get(&tag) {
            Some(era) => (era.height, era.committable.clone()),
            None => return Ok(()),
        };
        if !self.parents_in_era(&txid, height).is_empty() {
            self.coverage.chained_final_by_votes += 1;
        }
        for block in blocks {
            self.check_holds(height, &block, &txid)?;
        }
        self.spend(txid, height)
    }

    /// S1 over all eras and blocks: nothing final conflicts, ancestors included.
    fn spend(&mut self, txid: Txid, height: u64) -> Result<(), Broken> {
        let mut open = vec![txid];
        while let Some(txid) = open.pop() {
            let Some(body) = self.bodies.get(&txid) else {
                return broken("S1", format!("{txid:?} is final and nobody ever made it"));
            };
            for outpoint in body.spends() {
                let first = *self.spender.entry(outpoint).or_insert(txid);
                if first != txid {
                    return broken("S1", format!("{first:?} and {txid:?} both spend {outpoint} for good"));
                }
            }
            open.extend(self.parents_in_era(&txid, height));
        }
        Ok(())
    }

    /// S2: a final payment of the era is in every block of the height that can be committed.
    fn check_holds(&self, height: u64, block: &BlockId, txid: &Txid) -> Result<(), Broken> {
        match self.contents.get(block) {
            Some(contents) if contents.contains(txid) => Ok(()),
            Some(_) => broken("S2", format!("{txid:?} is final in era {height} and not in {block:?}")),
            None => broken("S3", format!("{block:?} has a precommit quorum and nobody ever built it")),
        }
    }

    /// Counts a prevote or precommit its voter has sent.
    pub fn count_vote(&mut self, vote: &Vote) -> Result<(), Broken> {
        let Some(era) = self.eras.get_mut(&vote.era_tag) else { return Ok(()) };
        let voters = era.votes.entry((vote.round, vote.step, vote.block)).or_default();
        voters.add(vote.voter);
        let quorum = vote.step == Step::Precommit && voters.are_quorum(&era.committee);
        let Some(block) = vote.block.filter(|_| quorum) else { return Ok(()) };
        if !era.committable.insert(block) {
            return Ok(());
        }
        let (height, finals) = (era.height, era.finals.clone());
        for txid in finals {
            self.check_holds(height, &block, &txid)?;
        }
        let first = *self.committable.entry(height).or_insert(block);
        if first != block {
            return broken("S3", format!("{first:?} and {block:?} are both committable at {height}"));
        }
        Ok(())
    }

    /// Whether votes of a kind of quorum weight were sent in an era.
    pub fn has_quorum(&self, tag: EraTag, round: u32, step: Step, block: Option<BlockId>) -> bool {
        let Some(era) = self.eras.get(&tag) else { return false };
        era.votes.get(&(round, step, block)).is_some_and(|voters| voters.are_quorum(&era.committee))
    }

    /// The committee of an era somebody entered.
    pub fn committee(&self, tag: EraTag) -> Option<&Committee> {
        self.eras.get(&tag).map(|era| &*era.committee)
    }

    /// Whether a quorum has prevoted the block in a round from `from` on and below `below`.
    pub fn has_pol(&self, tag: EraTag, block: BlockId, from: u32, below: u32) -> bool {
        (from..below).any(|round| self.has_quorum(tag, round, Step::Prevote, Some(block)))
    }

    /// Whether a quorum has prepared the payment in the era.
    pub fn is_certified(&self, tag: EraTag, txid: &Txid) -> bool {
        let Some(era) = self.eras.get(&tag) else { return false };
        era.prepares.get(txid).is_some_and(|voters| voters.are_quorum(&era.committee))
    }

    /// A node says a payment is final: a quorum must have commit-voted it.
    pub fn check_final(&self, height: u64, txid: &Txid) -> Result<(), Broken> {
        if self.eras.values().any(|era| era.height == height && era.finals.contains(txid)) {
            return Ok(());
        }
        broken("final", format!("{txid:?} is called final at {height} without a quorum of commit votes"))
    }

    /// A node has committed a block.
    pub fn commit(&mut self, tag: EraTag, block: &Arc<Block>, qc: &Qc) -> Result<(), Broken> {
        let (id, height) = (block.id(), block.header.height);
        if !self.has_quorum(tag, qc.round, Step::Precommit, Some(id)) {
            return broken("S3", format!("{id:?} committed at {height} without a quorum of precommits"));
        }
        self.learn(&block.outline());
        match self.chain.get(usize::try_from(height).expect("small") - 1) {
            Some(first) if first.header == block.header => Ok(()),
            Some(first) => broken("S3", format!("{:?} and {id:?} committed at {height}", first.id())),
            None => {
                self.coverage.blocks += 1;
                self.coverage.blocks_in_late_rounds += u64::from(qc.round > 0);
                self.apply(block, tag)
            }
        }
    }

    /// Applies a block to the oracle's own state and compares every state field.
    fn apply(&mut self, block: &Arc<Block>, tag: EraTag) -> Result<(), Broken> {
        let header = &block.header;
        let height = header.height;
        if height != self.chain.len() as u64 + 1 {
            return broken("S3", format!("height {height} is committed before the one below"));
        }
        for transaction in &block.transactions {
            self.utxos.extend(transaction.creates(height));
            self.bodies.entry(transaction.id()).or_insert_with(|| transaction.clone());
        }
        let (mut spent, mut made) = (0u64, 0u64);
        for transaction in &block.transactions {
            for outpoint in transaction.spends() {
                let Some(utxo) = self.utxos.remove(&outpoint) else {
                    return broken("state", format!("{:?} spends {outpoint}, not there", transaction.id()));
                };
                spent += utxo.value.units();
            }
            made += transaction.creates(height).map(|(_, utxo)| utxo.value.units()).sum::<u64>();
        }
        for transaction in &block.transactions {
            self.included.insert(transaction.id(), height);
        }
        for transaction in &block.transactions {
            if let Ok(Some(special)) = transaction.special() {
                self.convict(transaction.id(), special, height)?;
                self.spend(transaction.id(), height)?;
                continue;
            }
            self.spend(transaction.id(), height)?;
            let by_votes = self.eras.get(&tag).is_some_and(|era| era.finals.contains(&transaction.id()));
            self.coverage.payments_in_blocks += 1;
            self.coverage.payments_by_block_only += u64::from(!by_votes);
        }
        let Some(fees) = spent.checked_sub(made).and_then(Amount::from_units) else {
            return broken("state", format!("block {height} makes {made} out of {spent}"));
        };
        self.pay_out(block, tag, fees)?;
        self.chain.push(Arc::clone(block));
        self.registry.apply(block)?;
        self.recount(block)
    }

    /// Evidence burns a part of the collateral of its offender, once.
    fn convict(&mut self, txid: Txid, special: &Special, height: u64) -> Result<(), Broken> {
        let Special::Evidence(evidence) = special else { return Ok(()) };
        let locked = self.registry.find(&evidence.offender).map(|offender| offender.collateral);
        let Some(whole) = locked.and_then(|outpoint| self.utxos.remove(&outpoint)) else {
            return broken("state", format!("no collateral for {evidence:?}"));
        };
        if !self.convicted.insert(evidence.vote_key) {
            return broken("state", format!("convicted twice: {evidence:?}"));
        }
        let burned = whole.value.units() * self.params.slash_percent / 100;
        let amount = |units| Amount::from_units(units).expect("less than what there was");
        let rest = OutPoint { txid, index: 0 };
        self.utxos.insert(rest, Utxo { value: amount(whole.value.units() - burned), height, ..whole });
        self.supply = amount(self.supply.units() - burned);
        self.coverage.convictions += 1;
        Ok(())
    }

    fn pay_out(&mut self, block: &Block, tag: EraTag, fees: Amount) -> Result<(), Broken> {
        let header = &block.header;
        let mut members = self.committee(tag).map(Committee::members).unwrap_or_default().iter();
        let Some(proposer) = members.find(|member| member.id == header.proposer) else {
            return broken("state", format!("block {} is by nobody in the committee", header.height));
        };
        let paid = payout(&self.params, header.height, self.supply, fees, proposer.payout);
        let Some(paid) = paid else { return broken("state", "fees exceed the supply") };
        self.supply = paid.supply;
        self.utxos.extend(paid.coinbase.creates());
        Ok(())
    }

    fn recount(&self, block: &Block) -> Result<(), Broken> {
        let header = &block.header;
        let (mut set, mut money) = (SetHash::new(), 0);
        for (outpoint, utxo) in &self.utxos {
            set.add(outpoint, utxo);
            money += utxo.value.units();
        }
        let height = header.height;
        if set.digest() != header.utxo_hash || self.utxos.len() as u64 != header.utxo_count {
            return broken("state", format!("utxo set of block {height} does not match a recount"));
        }
        if header.supply != self.supply || money != self.supply.units() {
            let (said, known) = (header.supply, self.supply);
            return broken("state", format!("block {height} says {said}, known {known}, counted {money}"));
        }
        Ok(())
    }

    /// Whether a payment can no longer be in a block: a conflicting one is, or a parent cannot.
    pub fn is_doomed(&self, txid: &Txid) -> bool {
        let Some(body) = self.bodies.get(txid) else { return true };
        body.spends().any(|outpoint| {
            let rival = self.spender.get(&outpoint).is_some_and(|first| first != txid);
            let parent = outpoint.txid;
            let orphaned = self.bodies.contains_key(&parent)
                && !self.included.contains_key(&parent)
                && self.is_doomed(&parent);
            rival || orphaned
        })
    }
}
