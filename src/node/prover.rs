//! Finds proofs for others (protocol §9): of payments final in the running era from the votes kept here,
//! of those in a block from the store.
//!
//! Reads what everybody may read, never the engine. Everything here blocks and belongs on a thread of its
//! own. What it keeps is bounded: the finals of two eras. Deliberately absent: any verification, which is
//! the receiver's.

use crate::ledger::Ledger;
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::light::BUNDLE_BYTES_MAX;
use crate::light::block::{BlockProof, CertifiedHeader, Link};
use crate::light::bundle::{Proof, ProofBundle};
use crate::light::claim::FinalityClaim;
use crate::node::blocks::RecentBlocks;
use crate::pool::Pool;
use crate::primitives::block::{Header, Outline};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Committee;
use crate::primitives::hash::{Hash, Txid};
use crate::primitives::transaction::{Transaction, TxStatus};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

/// Finals of one era that are kept; a full era of the smallest payments has about two thirds of it.
const CLAIMS_OF_ERA_MAX: usize = 100_000;
/// Headers between the trusted one and the proof; each halves the way or is the last.
const LINKS_MAX: usize = 64;

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Not final, or not yet.
    #[error("transaction {txid} is {status} and not final: ask again when it is")]
    NotFinal { txid: Txid, status: &'static str },
    /// Neither in a block nor in the pool.
    #[error("transaction {txid} is not known to this node: check the id, or ask another node")]
    Unknown { txid: Txid },
    /// The trusted header is above what is to be proven.
    #[error("the transaction is {place}, the trusted header {trusted} is above it: name one at most {most}")]
    TrustedAbove { place: String, trusted: u64, most: u64 },
    /// A block or committee this node does not have.
    #[error("{what} is not stored here: name a newer trusted header, or ask another node")]
    NotHeld { what: String },
    /// The proof would exceed what a file may have.
    #[error("the committee changed too often since the trusted header {trusted}: name a newer one")]
    TooLong { trusted: u64 },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What proves the finals of the running era and the one before.
#[derive(Debug, Default)]
pub struct FinalityClaims(Mutex<BTreeMap<u64, HashMap<Txid, FinalityClaim>>>);

impl FinalityClaims {
    /// Keeps the claim of a payment final in era `height`. Cost: under a microsecond.
    pub fn add(&self, height: u64, claim: FinalityClaim) {
        let mut eras = self.0.lock();
        let era = eras.entry(height).or_default();
        if era.len() < CLAIMS_OF_ERA_MAX {
            era.insert(claim.txid, claim);
        }
    }

    /// Era `height` has ended. Its own claims stay one era more: readers see the end before the block.
    pub fn ended(&self, height: u64) {
        self.0.lock().retain(|era, _| *era >= height);
    }

    /// The newest claim of a payment.
    #[must_use]
    pub fn find(&self, txid: &Txid) -> Option<FinalityClaim> {
        self.0.lock().values().rev().find_map(|era| era.get(txid).cloned())
    }
}

/// See the module.
pub struct Prover {
    /// Readers may see it ahead of what is carried out.
    pub ledger: Arc<Ledger>,
    pool: Arc<Pool>,
    recent: Arc<RecentBlocks>,
    /// Weak: the store closes when the node stops.
    store: Weak<Store>,
    /// Filled by whoever carries out the machine's outputs.
    pub claims: Arc<FinalityClaims>,
}

impl Prover {
    /// A prover over the parts of a node that hold what proofs are made of.
    #[must_use]
    pub fn new(
        ledger: &Arc<Ledger>,
        pool: &Arc<Pool>,
        recent: &Arc<RecentBlocks>,
        store: &Arc<Store>,
    ) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            pool: Arc::clone(pool),
            recent: Arc::clone(recent),
            store: Arc::downgrade(store),
            claims: Arc::default(),
        }
    }

    /// The proof for a transaction from header `trusted` on, or from the header it rests on: a block proof
    /// if it is in a block, else a finality proof. Cost: reads some blocks, hashes some batches.
    ///
    /// # Errors
    /// [`ProveError`].
    pub fn prove(&self, txid: &Txid, trusted: Option<u64>) -> Result<ProofBundle, ProveError> {
        let bundle = match self.place(txid)? {
            Some((height, transaction)) => self.prove_block(height, transaction, trusted)?,
            None => match self.claims.find(txid) {
                Some(claim) => self.prove_finality(claim, trusted)?,
                None => return Err(self.not_final(*txid)),
            },
        };
        if bundle.to_bytes().len() > BUNDLE_BYTES_MAX {
            return Err(ProveError::TooLong { trusted: trusted.unwrap_or_default() });
        }
        Ok(bundle)
    }

    fn not_final(&self, txid: Txid) -> ProveError {
        let status = match self.pool.state(&txid, 0).map(|state| state.status) {
            None => return ProveError::Unknown { txid },
            Some(TxStatus::Pending) => "pending",
            Some(TxStatus::Prepared) => "prepared",
            Some(TxStatus::Certified) => "certified",
            Some(TxStatus::Rejected) => "rejected",
            // Its block or its votes are about to get here.
            Some(TxStatus::Final | TxStatus::Confirmed) => "being recorded",
        };
        ProveError::NotFinal { txid, status }
    }

    fn prove_block(
        &self,
        height: u64,
        transaction: Transaction,
        trusted: Option<u64>,
    ) -> Result<ProofBundle, ProveError> {
        let (outline, _) = self.decided(height)?;
        let (start, mut links) = match trusted.filter(|trusted| *trusted != height) {
            None => (None, vec![Link { certified: self.certified(height)?, overlap: None }]),
            Some(trusted) if trusted > height => {
                let place = format!("in block {height}");
                return Err(ProveError::TrustedAbove { place, trusted, most: height });
            }
            Some(trusted) => {
                let start = self.header(trusted)?;
                let links = self.links(&start, height)?;
                (Some(start), links)
            }
        };
        let not_held = || ProveError::NotHeld { what: format!("block {height}") };
        let link = links.pop().ok_or_else(not_held)?;
        let index = outline.txids.binary_search(&transaction.id()).map_err(|_| not_held())?;
        let index = u32::try_from(index).map_err(|_| not_held())?;
        let proof = BlockProof::new(transaction, link, &outline.txids, index).ok_or_else(not_held)?;
        Ok(self.bundle(start, links, Proof::Block(Box::new(proof))))
    }

    fn prove_finality(
        &self,
        mut claim: FinalityClaim,
        trusted: Option<u64>,
    ) -> Result<ProofBundle, ProveError> {
        let height = claim.header.height;
        let (start, links) = match trusted.filter(|trusted| *trusted != height) {
            None => (None, Vec::new()),
            Some(trusted) if trusted > height => {
                let place = format!("final in era {}", height + 1);
                return Err(ProveError::TrustedAbove { place, trusted, most: height });
            }
            Some(trusted) => {
                let start = self.header(trusted)?;
                let links = self.links(&start, height)?;
                (Some(start), links)
            }
        };
        if claim.transaction.is_none() {
            claim.transaction = self.pool.body(&claim.txid);
        }
        let what = || format!("the body of transaction {}", claim.txid);
        let proof = claim.proof().ok_or_else(|| ProveError::NotHeld { what: what() })?;
        Ok(self.bundle(start, links, Proof::Finality(Box::new(proof))))
    }

    fn bundle(&self, start: Option<Header>, links: Vec<Link>, proof: Proof) -> ProofBundle {
        ProofBundle::new(self.ledger.chain(), self.ledger.params().clone(), start, links, proof)
    }

    /// What leads a verifier that trusts header `from` to header `to`; nothing when that is not above it.
    ///
    /// # Errors
    /// [`ProveError`].
    pub fn links_between(&self, from: u64, to: u64) -> Result<Vec<Link>, ProveError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.links(&self.header(from)?, to)
    }

    /// The fewest headers that lead from `start` to `height`, each signed by enough of the committee known
    /// before it.
    fn links(&self, start: &Header, height: u64) -> Result<Vec<Link>, ProveError> {
        let (mut links, mut known) = (Vec::new(), start.clone());
        while known.height < height {
            if links.len() >= LINKS_MAX {
                return Err(ProveError::TooLong { trusted: start.height });
            }
            let former = self.committee(known.next_committee_root, known.height + 1)?;
            let mut target = height;
            let link = loop {
                match Link::new(self.certified(target)?, &former) {
                    Some(link) => break link,
                    // The next header is signed by the committee it names, so this ends.
                    None if target > known.height + 1 => target = known.height + (target - known.height) / 2,
                    None => {
                        return Err(ProveError::NotHeld { what: format!("the committee of block {target}") });
                    }
                }
            };
            known = link.certified.header.clone();
            links.push(link);
        }
        Ok(links)
    }

    fn certified(&self, height: u64) -> Result<CertifiedHeader, ProveError> {
        let (header, qc) = match self.recent.find(height) {
            Some((block, qc)) => (block.header.clone(), qc),
            None => {
                let found = self.store()?.certified(height)?;
                found.ok_or_else(|| ProveError::NotHeld { what: format!("block {height}") })?
            }
        };
        let committee = self.committee(header.committee_root, height)?;
        let certified = CertifiedHeader::new(header, &qc, &committee);
        certified.ok_or_else(|| ProveError::NotHeld { what: format!("a certificate of block {height}") })
    }

    /// Height and body of a transaction in a decided block.
    fn place(&self, txid: &Txid) -> Result<Option<(u64, Transaction)>, ProveError> {
        if let Some(found) = self.recent.transaction(txid) {
            return Ok(Some(found));
        }
        Ok(self.store()?.transaction(txid)?)
    }

    fn decided(&self, height: u64) -> Result<(Outline, Qc), ProveError> {
        if let Some((block, qc)) = self.recent.find(height) {
            return Ok((block.outline(), qc));
        }
        let found = self.store()?.outline(height)?;
        found.ok_or_else(|| ProveError::NotHeld { what: format!("block {height}") })
    }

    fn header(&self, height: u64) -> Result<Header, ProveError> {
        if let Some((block, _)) = self.recent.find(height) {
            return Ok(block.header.clone());
        }
        let found = self.store()?.header(height)?;
        found.ok_or_else(|| ProveError::NotHeld { what: format!("header {height}") })
    }

    /// The committee of `height` by its root.
    fn committee(&self, root: Hash, height: u64) -> Result<Arc<Committee>, ProveError> {
        let tip = self.ledger.tip();
        if let Some(known) =
            [&tip.next_committee, &tip.committee].into_iter().find(|known| known.root() == root)
        {
            return Ok(Arc::clone(known));
        }
        let stored = self.store()?.committee(height)?.filter(|stored| stored.root() == root);
        let what = || format!("the committee of block {height}");
        stored.map(Arc::new).ok_or_else(|| ProveError::NotHeld { what: what() })
    }

    fn store(&self) -> Result<Arc<Store>, ProveError> {
        self.store.upgrade().ok_or(ProveError::Stopping)
    }
}
