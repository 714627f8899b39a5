//! Reads an archive from end to end and checks that its parts belong together, handing each on when it was
//! found right.
//!
//! Checked: the order of the items; each block follows the one before, holds the transactions its header
//! names and carries a certificate for itself; registry, committee and outputs of the state are those of the last
//! header. An archive with a state also has the committees, and they are those the headers name; the
//! certificate of every block that hands over to another committee, and that of the last block, are verified with
//! all signatures. So every committee was appointed by the one before, from the one of the genesis on, and as
//! every header names the one before, the certificates vouch for all blocks. Of an archive that begins later
//! nobody tells who may sign its first block: [`Summary::rests_on`] is for people to compare.
//!
//! Deliberately absent: executing the blocks and verifying the other signatures, which is what an import does;
//! and any protection against keys of committees that have left long ago (protocol §7).

use crate::archive::frames::ArchiveReader;
use crate::archive::{ArchiveError, BlockItem, Head, HeaderItem, Item, StateItem};
use crate::ledger::genesis::Genesis;
use crate::ledger::registry::Registry;
use crate::ledger::set_hash::SetHash;
use crate::primitives::amount::Amount;
use crate::primitives::block::{Header, last_commit_root, tx_root};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{COMMITTEE_MAX, Committee, Member};
use crate::primitives::encoding::encode;
use crate::primitives::hash::{BlockId, Hash, era_tag};
use crate::primitives::keys::verify_batch;
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction, Utxo};
use crate::primitives::vote::Step;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

/// Most memberships of all committees of an archive, 8 bytes each: a committee of 200 that changes ten times a day
/// for 90 years.
const MEMBERSHIPS_MAX: usize = 1 << 26;

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

impl Summary {
    /// The first block in it, if that is not the first of the chain: nothing in the archive tells whether it is of
    /// the chain.
    #[must_use]
    pub fn rests_on(&self) -> Option<u64> {
        (self.head.from > 1).then_some(self.head.from)
    }
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
                let bodies = bodies(reader, &block, progress.genesis.params.block_bytes_max)?;
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

/// The transactions that follow a block: no more than it has ids, and no more bytes than its header says.
fn bodies<R: Read>(
    reader: &mut ArchiveReader<R>,
    block: &BlockItem,
    bytes_max: u64,
) -> Result<Vec<SharedTransaction>, ArchiveError> {
    let (header, count) = (&block.outline.header, block.outline.txids.len());
    let name = reader.name().to_owned();
    let wrong = |what: String| {
        let reason = format!("block {}: {what}", header.height);
        Err(ArchiveError::Wrong { name: name.clone(), reason })
    };
    if header.tx_count as usize != count || header.body_bytes > bytes_max {
        return wrong(format!(
            "{count} ids follow, its header says {} transactions of {} bytes, and a block has at most {bytes_max}",
            header.tx_count, header.body_bytes
        ));
    }
    let (mut bodies, mut bytes) = (Vec::new(), 0u64);
    while bodies.len() < count {
        let more = match reader.read()? {
            Some(Item::Bodies(more)) if !more.is_empty() => more,
            _ => return wrong(format!("it has {count} transactions, {} follow", bodies.len())),
        };
        for transaction in more {
            let sealed = SealedTransaction::new(transaction);
            bytes = bytes.saturating_add(sealed.size());
            bodies.push(sealed);
        }
        if bytes > header.body_bytes || bodies.len() > count {
            return wrong("more transactions follow than it has".to_owned());
        }
    }
    Ok(bodies)
}

/// A committee of the archive that has not begun yet.
struct Appointed {
    root: Hash,
    members: Vec<Arc<Member>>,
}

/// What is known so far.
struct Checking {
    name: String,
    head: Head,
    genesis: Genesis,
    state: Option<Arc<StateItem>>,
    /// Committees by height, until their block has come.
    committees: BTreeMap<u64, Appointed>,
    /// Their members by hash, each once: most are in many of them.
    members: BTreeMap<Hash, Arc<Member>>,
    memberships: usize,
    /// The committee of the last block, of an archive with a state.
    current: Option<Committee>,
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
        // Only a chain that has no block yet may have none in its archive.
        if head.from == 0 || head.to < head.from && (head.from, head.to) != (1, 0) {
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
            members: BTreeMap::new(),
            memberships: 0,
            current: None,
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
        if !is_sound(&state.committee) {
            return Err(self.wrong("the committee of the state is none that can be"));
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
        self.memberships = self.memberships.saturating_add(members.len());
        if !is_sound(members) || self.memberships > MEMBERSHIPS_MAX {
            return Err(self.wrong(format!("the committee of height {height} is none that can be")));
        }
        let root = Committee::new(members.to_vec()).root();
        let known = |member: &Member| {
            let hash = Hash(*blake3::hash(&encode(member)).as_bytes());
            Arc::clone(self.members.entry(hash).or_insert_with(|| Arc::new(member.clone())))
        };
        let members = members.iter().map(known).collect();
        self.committees.insert(height, Appointed { root, members });
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
        if let Some(committee) = &self.current
            && header.next_committee_root != header.committee_root
        {
            self.certified(header, commit, committee)?;
        }
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

    /// Whether a quorum of its committee has signed a block.
    fn certified(&self, header: &Header, commit: &Qc, committee: &Committee) -> Result<(), ArchiveError> {
        let wrong = |what: String| self.wrong(format!("the certificate of block {}{what}", header.height));
        let tag = era_tag(self.head.chain, header.height, header.previous);
        let checks = commit.checks(tag, committee).map_err(|error| wrong(format!(": {error}")))?;
        if !verify_batch(&checks).iter().all(|good| *good) {
            return Err(wrong(" has a signature that is not valid".to_owned()));
        }
        Ok(())
    }

    fn block(
        &mut self,
        block: &BlockItem,
        bodies: Vec<SharedTransaction>,
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
        let same = bodies.iter().map(|body| body.id()).eq(outline.txids.iter().copied());
        let bytes: u64 = bodies.iter().map(|body| body.size()).sum();
        if !same || bytes != header.body_bytes {
            return Err(wrong("its transactions are not those of its header"));
        }
        self.whole = true;
        self.transactions += u64::from(header.tx_count);
        Ok(bodies)
    }

    /// With a state, every committee that begins has to be in the archive, and no other. It is the current one
    /// from here on.
    fn committee_known(&mut self, header: &Header) -> Result<(), ArchiveError> {
        let height = header.height;
        // Of the first block in it nobody can tell.
        let begins = height == self.head.from || self.last.next_committee_root != self.last.committee_root;
        if !self.head.state {
            return Ok(());
        }
        match self.committees.remove(&height) {
            Some(given) if given.root == header.committee_root => {
                let members = given.members.iter().map(|member| Member::clone(member));
                self.current = Some(Committee::new(members.collect()));
                Ok(())
            }
            None if !begins => Ok(()),
            _ => Err(self.wrong(format!("block {height}: its committee is missing or another one"))),
        }
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
            Some(given) => given.root == last.next_committee_root,
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
        self.certified(last, tip, &Committee::new(state.committee.clone()))
    }
}

/// Whether members can be a committee at all: few enough, and their weights can be added.
fn is_sound(members: &[Member]) -> bool {
    let total = members.iter().try_fold(0u64, |sum, member| sum.checked_add(member.weight));
    members.len() <= COMMITTEE_MAX && total.is_some_and(|total| total <= u64::MAX / 4)
}
