//! Reads an archive from end to end and checks that its parts belong together, handing each on when it was
//! found right.
//!
//! Checked: the order of the items; each block follows the one before, holds the transactions its header
//! names and carries a certificate for itself; committees are those the headers name; registry, committee and
//! outputs of the state are those of the last header, whose certificate is verified with all signatures. As
//! every header names the one before, that certificate vouches for all blocks when they begin at genesis.
//! Deliberately absent: executing the blocks and their signatures, which is what an import does.

use crate::archive::frames::ArchiveReader;
use crate::archive::{ArchiveError, BlockItem, Head, HeaderItem, Item, StateItem};
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::set_hash::SetHash;
use crate::primitives::amount::Amount;
use crate::primitives::block::{Header, last_commit_root, tx_root};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{Committee, Member};
use crate::primitives::hash::{BlockId, Hash, era_tag};
use crate::primitives::keys::verify_batch;
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction, Transaction, Utxo};
use crate::primitives::vote::Step;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Takes the parts of an archive, each when it was checked.
pub trait Receiver {
    /// The head and the founding document, which is that of the chain in the head.
    ///
    /// # Errors
    /// Ends the reading; so do all others.
    fn begin(&mut self, _head: &Head, _genesis: &Genesis) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// A committee.
    ///
    /// # Errors
    /// As above.
    fn committee(&mut self, _height: u64, _members: &[Member]) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// Unspent outputs, of which only the end tells whether they are right.
    ///
    /// # Errors
    /// As above.
    fn outputs(&mut self, _outputs: &[(OutPoint, Utxo)]) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// What is kept of a block whose transactions are not.
    ///
    /// # Errors
    /// As above.
    fn header(&mut self, _item: &HeaderItem) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// A block with its transactions.
    ///
    /// # Errors
    /// As above.
    fn block(&mut self, _block: BlockItem, _bodies: Vec<SharedTransaction>) -> Result<(), ArchiveError> {
        Ok(())
    }
    /// Called after each item with the height reached and the bytes read.
    fn progress(&mut self, _height: u64, _bytes: u64) {}
}

/// Only checks.
#[derive(Debug)]
pub struct NobodyReceives;
impl Receiver for NobodyReceives {}

/// What an archive was found to hold.
#[derive(Clone, Debug)]
pub struct Summary {
    /// As the archive says, and as is right.
    pub head: Head,
    /// Header of the last block.
    pub header: Header,
    /// The state after it, if the archive holds it.
    pub state: Option<Arc<StateItem>>,
    /// Transactions of the blocks in it.
    pub transactions: u64,
    /// First and last block whose transactions are not in it, and how many such blocks there are.
    pub without_bodies: Option<(u64, u64, u64)>,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads and checks a whole archive.
///
/// # Errors
/// [`ArchiveError`] of what is wrong first, or of the receiver.
pub fn check<R: Read>(
    reader: &mut ArchiveReader<R>,
    receiver: &mut dyn Receiver,
) -> Result<Summary, ArchiveError> {
    let mut progress = Checking::begin(reader, receiver)?;
    while let Some(found) = reader.read()? {
        let at = reader.offset();
        match found {
            Item::State(state) => progress.state(*state)?,
            Item::Committee { height, members } => {
                progress.committee(height, &members)?;
                receiver.committee(height, &members)?;
            }
            Item::Outputs(outputs) => {
                progress.outputs(&outputs)?;
                receiver.outputs(&outputs)?;
            }
            Item::Header(item) => {
                progress.header(&item)?;
                receiver.header(&item)?;
            }
            Item::Block(block) => {
                let bodies = bodies(reader, &block)?;
                let bodies = progress.block(&block, bodies)?;
                receiver.block(*block, bodies)?;
            }
            Item::Head(_) | Item::Genesis(_) | Item::Bodies(_) | Item::End(_) => {
                return Err(progress.wrong(format!("an item before byte {at} is out of place")));
            }
        }
        receiver.progress(progress.last.height, reader.offset());
    }
    progress.finish(reader.offset())
}

/// The transactions that follow a block.
fn bodies<R: Read>(
    reader: &mut ArchiveReader<R>,
    block: &BlockItem,
) -> Result<Vec<Transaction>, ArchiveError> {
    let count = block.outline.header.tx_count as usize;
    let mut bodies = Vec::new();
    while bodies.len() < count {
        match reader.read()? {
            Some(Item::Bodies(more)) if !more.is_empty() => bodies.extend(more),
            _ => {
                let (name, height) = (reader.name().to_owned(), block.outline.header.height);
                let reason = format!("block {height} has {count} transactions, {} follow", bodies.len());
                return Err(ArchiveError::Wrong { name, reason });
            }
        }
    }
    Ok(bodies)
}

/// What is known so far.
struct Checking {
    name: String,
    head: Head,
    genesis: Genesis,
    state: Option<Arc<StateItem>>,
    /// Roots of committees by height, until their block has come.
    committees: BTreeMap<u64, Hash>,
    set_hash: SetHash,
    outputs: u64,
    supply: Option<Amount>,
    /// Header and id of the last block, of genesis before the first; not known before a first block above 1.
    last: Header,
    last_id: Option<BlockId>,
    /// Certificate of the last block.
    tip: Option<Qc>,
    /// Transactions up to the last block, once that is known.
    counted: Option<u64>,
    /// Whether a whole block has come: what follows is whole, too.
    whole: bool,
    transactions: u64,
    without_bodies: Option<(u64, u64, u64)>,
}

impl Checking {
    fn begin<R: Read>(
        reader: &mut ArchiveReader<R>,
        receiver: &mut dyn Receiver,
    ) -> Result<Self, ArchiveError> {
        let name = reader.name().to_owned();
        let wrong = |reason: &str| ArchiveError::Wrong { name: name.clone(), reason: reason.to_owned() };
        let Some(Item::Head(head)) = reader.read()? else {
            return Err(wrong("the archive has no head"));
        };
        let Some(Item::Genesis(genesis)) = reader.read()? else {
            return Err(wrong("the archive has no founding document"));
        };
        genesis.check().map_err(|fault| wrong(&format!("the founding document: {fault}")))?;
        if genesis.chain_id() != head.chain {
            return Err(wrong("the founding document is not that of the chain"));
        }
        if head.from == 0 || head.to.checked_add(1).is_none_or(|end| end < head.from) {
            return Err(wrong("the range of blocks makes no sense"));
        }
        receiver.begin(&head, &genesis)?;
        let first = genesis.state().header;
        let last_id = (head.from == 1).then(|| first.id());
        Ok(Self {
            name,
            last: Header { height: head.from - 1, ..first },
            head: head.clone(),
            genesis: *genesis,
            state: None,
            committees: BTreeMap::new(),
            set_hash: SetHash::new(),
            outputs: 0,
            supply: Some(Amount::ZERO),
            last_id,
            tip: None,
            counted: (head.from == 1).then_some(0),
            whole: false,
            transactions: 0,
            without_bodies: None,
        })
    }

    fn wrong(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Wrong { name: self.name.clone(), reason: reason.into() }
    }

    fn state(&mut self, state: StateItem) -> Result<(), ArchiveError> {
        if !self.head.state || self.state.is_some() || self.tip.is_some() {
            return Err(self.wrong("a state is out of place"));
        }
        let header = &state.header;
        let registry = Registry::from_parts(state.registry.clone());
        let committee = Committee::new(state.committee.clone());
        let same = header.height == self.head.to
            && header.id() == self.head.tip
            && header.utxo_count == self.head.outputs
            && header.registry_root == registry.root()
            && header.committee_root == committee.root()
            && header.next_committee_root == registry.committee().root()
            && header.params_root == self.genesis.params.root();
        if !same {
            return Err(self.wrong("registry or committee are not those of the header of the state"));
        }
        self.state = Some(Arc::new(state));
        Ok(())
    }

    fn committee(&mut self, height: u64, members: &[Member]) -> Result<(), ArchiveError> {
        let after = self.committees.last_key_value().map_or(0, |(last, _)| *last);
        if self.state.is_none() || self.tip.is_some() || height <= after {
            return Err(self.wrong(format!("the committee of height {height} is out of place")));
        }
        self.committees.insert(height, Committee::new(members.to_vec()).root());
        Ok(())
    }

    fn outputs(&mut self, outputs: &[(OutPoint, Utxo)]) -> Result<(), ArchiveError> {
        if self.state.is_none() || self.tip.is_some() {
            return Err(self.wrong("unspent outputs are out of place"));
        }
        for (outpoint, utxo) in outputs {
            self.set_hash.add(outpoint, utxo);
            self.supply = self.supply.and_then(|sum| sum.checked_add(utxo.value));
        }
        self.outputs += outputs.len() as u64;
        Ok(())
    }

    /// What every block has, whole or not.
    fn link(&mut self, header: &Header, commit: &Qc, transactions: u64) -> Result<(), ArchiveError> {
        let height = self.last.height + 1;
        let wrong = |what: &str| self.wrong(format!("block {height}: {what}"));
        if header.height != height || height > self.head.to {
            return Err(wrong(&format!("block {} comes in its place", header.height)));
        }
        if self.last_id.is_some_and(|previous| previous != header.previous) {
            return Err(wrong("it does not follow the block before"));
        }
        if self.last_id.is_some() && header.committee_root != self.last.next_committee_root {
            return Err(wrong("its committee is not the one named by the block before"));
        }
        let id = header.id();
        if commit.block != id || commit.step != Step::Precommit {
            return Err(wrong("its certificate is for something else"));
        }
        let count = u64::from(header.tx_count);
        if self.counted.is_some_and(|before| before.checked_add(count) != Some(transactions)) {
            return Err(wrong("its count of transactions is wrong"));
        }
        self.committee_known(header)?;
        self.counted = Some(transactions);
        (self.last, self.last_id, self.tip) = (header.clone(), Some(id), Some(commit.clone()));
        Ok(())
    }

    fn header(&mut self, item: &HeaderItem) -> Result<(), ArchiveError> {
        let height = item.header.height;
        let last_commit = item.last_commit.as_ref();
        if self.whole {
            return Err(self.wrong(format!("block {height} is a header alone, after whole blocks")));
        }
        if last_commit.is_some() && item.header.last_commit_root != last_commit_root(last_commit) {
            return Err(
                self.wrong(format!("block {height}: the certificate in it is not that of its header"))
            );
        }
        self.link(&item.header, &item.commit, item.transactions)?;
        let (first, _, count) = self.without_bodies.unwrap_or((height, height, 0));
        self.without_bodies = Some((first, height, count + 1));
        Ok(())
    }

    fn block(
        &mut self,
        block: &BlockItem,
        bodies: Vec<Transaction>,
    ) -> Result<Vec<SharedTransaction>, ArchiveError> {
        let outline = &block.outline;
        let header = &outline.header;
        self.link(header, &block.commit, block.transactions)?;
        let wrong = |what: &str| self.wrong(format!("block {}: {what}", header.height));
        let right = header.tx_root == tx_root(&outline.txids)
            && header.tx_count as usize == outline.txids.len()
            && header.last_commit_root == last_commit_root(outline.last_commit.as_ref());
        if !right {
            return Err(wrong("ids or the certificate in it are not those of its header"));
        }
        let bodies: Vec<_> = bodies.into_iter().map(SealedTransaction::new).collect();
        let same = bodies.iter().map(|body| body.id()).eq(outline.txids.iter().copied());
        let bytes: u64 = bodies.iter().map(|body| body.size()).sum();
        if !same || bytes != header.body_bytes {
            return Err(wrong("its transactions are not those of its header"));
        }
        self.whole = true;
        self.transactions += u64::from(header.tx_count);
        Ok(bodies)
    }

    /// With a state, every committee that begins has to be in the archive, and no other.
    fn committee_known(&mut self, header: &Header) -> Result<(), ArchiveError> {
        let height = header.height;
        // Of the first block in it nobody can tell.
        let begins = height == self.head.from || self.last.next_committee_root != self.last.committee_root;
        let right = match self.committees.remove(&height) {
            Some(given) => given == header.committee_root,
            None => !begins,
        };
        if self.head.state && !right {
            return Err(self.wrong(format!("block {height}: its committee is missing or another one")));
        }
        Ok(())
    }

    fn finish(mut self, bytes: u64) -> Result<Summary, ArchiveError> {
        let (to, last) = (self.head.to, self.last.clone());
        if last.height != to || self.last_id.is_some_and(|id| id != self.head.tip) {
            let reason = format!("it ends with block {}, not with {to}: {}", last.height, self.head.tip);
            return Err(self.wrong(reason));
        }
        if self.head.state {
            self.state_is_of(&last)?;
        }
        Ok(Summary {
            head: self.head,
            header: last,
            state: self.state,
            transactions: self.transactions,
            without_bodies: self.without_bodies,
            bytes,
        })
    }

    fn state_is_of(&mut self, last: &Header) -> Result<(), ArchiveError> {
        let Some(state) = self.state.clone() else { return Err(self.wrong("the state is missing")) };
        let next = self.committees.remove(&last.height.saturating_add(1));
        let begins = last.height == 0 || last.next_committee_root != last.committee_root;
        let right = match next {
            Some(given) => given == last.next_committee_root,
            None => !begins,
        };
        if !right || !self.committees.is_empty() {
            return Err(self.wrong("the committee of the next block is missing or another one"));
        }
        let same = state.header == *last
            && self.outputs == last.utxo_count
            && self.supply == Some(last.supply)
            && self.set_hash.digest() == last.utxo_hash;
        if !same {
            return Err(self.wrong(format!(
                "its {} unspent outputs do not have the state hash {} of block {}",
                self.outputs, last.utxo_hash, last.height
            )));
        }
        let Some(tip) = &self.tip else { return Ok(()) };
        let tag = era_tag(self.head.chain, last.height, last.previous);
        let checks = tip.checks(tag, &Committee::new(state.committee.clone()));
        let checks =
            checks.map_err(|error| self.wrong(format!("the certificate of the last block: {error}")))?;
        if !verify_batch(&checks).iter().all(|good| *good) {
            return Err(self.wrong("the certificate of the last block has a signature that is not valid"));
        }
        Ok(())
    }
}
