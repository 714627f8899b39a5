//! What a validator has on disk: the log of its machine, with what of it is surely durable, and the
//! blocks of its ledger. The index over the log says what the log proves.

use crate::custody::Instance;
use crate::oracle::Voters;
use masternode::consensus::output::Record;
use masternode::consensus::standing::Nonce;
use masternode::node::instance::Since;
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::committee::Committee;
use masternode::primitives::hash::{BlockId, EraTag, Txid};
use masternode::primitives::merkle::Phase;
use masternode::primitives::transaction::SealedTransaction;
use masternode::primitives::vote::VoteBatch;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Log and blocks of one validator.
#[derive(Clone, Default)]
pub struct Disk {
    /// Every record ever written, oldest first, with its height.
    pub log: Vec<(u64, Record)>,
    /// So many records survive a crash for sure.
    pub durable: usize,
    /// So many records have passed the rules for own messages.
    pub checked: usize,
    /// Blocks applied, from height 1 on.
    pub blocks: Vec<(Arc<Block>, Qc)>,
    /// So many blocks were there after a crash, so they stay: the log may lack what decided them.
    pub stored: usize,
    /// What the log holds.
    pub index: Index,
    /// Height the log begins at; 0 when there is none.
    pub log_from: u64,
    /// The file `instance`, if there is one.
    pub instance: Option<Instance>,
    /// The sign floor.
    pub floor: Option<u64>,
    /// On no disk, for the check: the numbers drawn since the log was lost, if it was.
    pub drawn_since_loss: Option<Vec<Nonce>>,
}

/// What can be looked up in a log.
#[derive(Clone, Default)]
pub struct Index {
    bodies: BTreeSet<Txid>,
    prepares: BTreeMap<(EraTag, Txid), Voters>,
    certificates: BTreeSet<Txid>,
    candidates: BTreeSet<BlockId>,
    pols: BTreeSet<(u32, BlockId)>,
    decided: BTreeSet<(u64, BlockId)>,
}

impl Disk {
    /// Writes a record; it is durable only after the next [`Disk::sync`].
    pub fn write(&mut self, height: u64, record: Record) {
        self.index.add(height, &record);
        self.log.push((height, record));
    }

    /// The files of a founder that has begun to sign.
    pub fn found(&mut self) {
        (self.log_from, self.floor) = (1, Some(1));
        self.instance = Some(Instance { since: Since::Registration, drawn: Vec::new(), moved: false });
    }

    /// Height the log has come to.
    pub fn newest(&self) -> u64 {
        let next =
            |(height, record): &(u64, Record)| height + u64::from(matches!(record, Record::Decided(_)));
        self.log.last().map_or(0, next).max(self.log_from)
    }

    /// All records written so far are durable. Returns the own messages among those that were not.
    pub fn sync(&mut self) -> Vec<Record> {
        self.durable = self.log.len();
        let new = self.log.get(self.checked..).unwrap_or_default();
        self.checked = self.log.len();
        let own = |(_, record): &&(u64, Record)| {
            matches!(record, Record::OwnBatch(_) | Record::Vote(_) | Record::Proposal(_))
        };
        let own = new.iter().filter(own).map(|(_, record)| record.clone()).collect();
        self.floor = self.floor.max(Some(self.newest()));
        own
    }

    /// Keeps the first records only.
    pub fn cut(&mut self, keep: usize) {
        self.log.truncate(keep);
        self.durable = self.log.len();
        self.checked = self.checked.min(keep);
        self.index = Index::default();
        for (height, record) in &self.log {
            self.index.add(*height, record);
        }
    }
}

impl Index {
    fn add(&mut self, height: u64, record: &Record) {
        match record {
            Record::OwnBatch(batch) | Record::PeerBatch(batch) => self.support(batch),
            Record::Body(body) => {
                self.bodies.insert(body.id());
            }
            Record::Prepared(certificate) if certificate.phase == Phase::Prepare => {
                self.certificates.insert(certificate.txid);
            }
            Record::Prepared(_) | Record::Proposal(_) | Record::Vote(_) => {}
            Record::Candidate { outline, bodies } => {
                self.bodies.extend(bodies.iter().map(|body| SealedTransaction::new(body.clone()).id()));
                if outline.txids.iter().all(|txid| self.bodies.contains(txid)) {
                    self.candidates.insert(outline.header.id());
                }
            }
            Record::Pol(qc) => {
                self.pols.insert((qc.round, qc.block));
            }
            Record::Decided(qc) => {
                self.decided.insert((height, qc.block));
            }
        }
    }

    fn support(&mut self, batch: &VoteBatch) {
        for txid in &batch.prepares {
            self.prepares.entry((batch.era_tag, *txid)).or_default().add(batch.voter);
        }
    }

    pub fn has_body(&self, txid: &Txid) -> bool {
        self.bodies.contains(txid)
    }

    /// Whether the log proves that a quorum prepared the payment.
    pub fn proves_prepared(&self, era: EraTag, txid: &Txid, committee: &Committee) -> bool {
        self.certificates.contains(txid)
            || self.prepares.get(&(era, *txid)).is_some_and(|voters| voters.are_quorum(committee))
    }

    /// Whether the log holds the block with all its bodies.
    pub fn has_candidate(&self, block: &BlockId) -> bool {
        self.candidates.contains(block)
    }

    pub fn has_pol(&self, round: u32, block: &BlockId) -> bool {
        self.pols.contains(&(round, *block))
    }

    pub fn has_decided(&self, height: u64, block: &BlockId) -> bool {
        self.decided.contains(&(height, *block))
    }
}
