//! Signature checks off the engine: what waits is gathered and checked as one batch, on threads of its
//! own.
//!
//! Everything of one peer goes through one worker and keeps its order within its lane; transactions may
//! be overtaken by votes. Known transactions were dropped before ([`router`](crate::node::router)).
//! A message that fails here was made or passed on by a faulty peer, so the peer is named and cut off.
//! Deliberately absent: any state of the consensus; the era to check against is read once a batch.

use crate::consensus::input::{Input, Verified};
use crate::consensus::output::Output;
use crate::consensus::verify::{EraContext, verify_real, verify_transactions};
use crate::network::bans::offence::Charge;
use crate::node::charges::{self, Mark};
use crate::node::clock;
use crate::node::hub::Hub;
use crate::node::lanes::{Lane, Lanes, Taken, Waiting};
use crate::primitives::hash::{EraTag, Txid};
use crate::primitives::keys::{PublicKey, verify_batch};
use crate::primitives::message::{Message, PeerId};
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::SharedTransaction;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::oneshot;

/// Messages that may wait for a worker; beyond it the network slows its peers down.
const MESSAGES_WAITING_MAX: usize = 8192;
/// Transactions that may wait for a worker, a few seconds of its work; beyond it peers' are dropped and
/// pulled later if they gather votes.
const TRANSACTIONS_WAITING_MAX: usize = 16_384;
/// Of those, most of one peer, 20 ms of work: whoever sends more than can be checked must not make others wait.
const TRANSACTIONS_OF_PEER_MAX: usize = 1024;
/// Messages of one peer that name an era not yet entered and are passed on, in each era. A member sends its votes of
/// the next era when it is ahead; of anybody else more are dropped here, which costs little, and pulled when the era
/// begins.
const FORESIGHT_MAX: u32 = 256;
/// Most messages checked at once, so that the first one does not wait long.
const MESSAGES_AT_ONCE: usize = 512;
/// Most transactions checked at once: 3 ms of work, at the best cost a signature.
const TRANSACTIONS_AT_ONCE: usize = 256;

/// Who waits for the fate of a submitted transaction.
pub type Answer = oneshot::Sender<Result<Txid, Rejection>>;

/// What is to be checked.
#[derive(Debug)]
pub enum Work {
    /// A peer connected; in order with its messages.
    Up { peer: PeerId, vote_key: Option<PublicKey> },
    /// A connection ended.
    Down { peer: PeerId },
    /// A message of the protocol.
    Message { from: PeerId, message: Message },
    /// A transaction of a peer, or submitted here (`from: None`).
    Transaction {
        from: Option<PeerId>,
        transaction: SharedTransaction,
        answer: Option<Answer>,
        /// What the peer has in the queue; given back when this is taken.
        place: Option<Place>,
    },
}

/// Transactions of one peer that wait to be checked.
#[derive(Clone, Debug, Default)]
pub struct Places(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub struct Place(Places);

impl Places {
    /// One more, if the peer has less than its share.
    #[must_use]
    pub fn take(&self) -> Option<Place> {
        let taken = self.0.fetch_add(1, Relaxed);
        let place = Place(self.clone());
        (taken < TRANSACTIONS_OF_PEER_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

/// What goes on to the engine.
#[derive(Debug)]
pub enum Arrival {
    /// An input of the machine.
    Input(Input),
    /// A transaction submitted here, with who waits for its fate.
    Submitted { transaction: Verified<SharedTransaction>, answer: Answer },
}

/// What a fault leads to: counted, told, the peer cut off.
pub type OnFault = Arc<dyn Fn(PeerId, &Charge) + Send + Sync>;

/// The queues of all workers.
#[derive(Clone, Debug)]
pub struct Verifier {
    workers: Vec<Arc<Lanes<Work>>>,
}

impl Verifier {
    /// Queues for as many workers as make sense here: checking takes half of the cores at most, the
    /// engine and the network need the rest.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let queue = || Arc::new(Lanes::new(MESSAGES_WAITING_MAX, TRANSACTIONS_WAITING_MAX));
        Self { workers: std::iter::repeat_with(queue).take((cores / 2).clamp(1, 4)).collect() }
    }

    /// The queue of each worker.
    #[must_use]
    pub fn queues(&self) -> &[Arc<Lanes<Work>>] {
        &self.workers
    }

    /// The queue of a peer.
    #[must_use]
    pub fn queue_of(&self, peer: &PeerId) -> Option<&Arc<Lanes<Work>>> {
        let [first, ..] = peer.0.0;
        self.workers.get(usize::from(first) % self.workers.len().max(1))
    }

    /// Takes a transaction submitted here. Bounded by the caller; given back when the node stops.
    pub fn submit(&self, transaction: SharedTransaction, answer: Answer) -> Result<(), Work> {
        let [first, ..] = *transaction.id().bytes();
        let work = Work::Transaction { from: None, transaction, answer: Some(answer), place: None };
        match self.workers.get(usize::from(first) % self.workers.len().max(1)) {
            Some(queue) => queue.force(Lane::Bulk, work),
            None => Err(work),
        }
    }

    /// Takes messages again that came for an era not yet entered; the machine bounds them.
    pub fn again(&self, messages: Vec<(PeerId, Message)>) {
        for (from, message) in messages {
            if let Some(queue) = self.queue_of(&from) {
                // Refused only while the node stops.
                let _stopping = queue.force(Lane::Urgent, Work::Message { from, message });
            }
        }
    }

    /// Takes nothing more.
    pub fn close(&self) {
        self.workers.iter().for_each(|queue| queue.close());
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

/// One worker.
pub struct Worker {
    /// Where its work comes from.
    pub queue: Arc<Lanes<Work>>,
    /// Where what is good goes.
    pub engine: Arc<Lanes<Arrival>>,
    /// What to check against.
    pub era: Arc<ArcSwap<EraContext>>,
    /// What happens to whoever sent something bad.
    pub on_fault: OnFault,
    /// Told of refused transactions.
    pub hub: Arc<Hub>,
}

/// Connected peers of a worker: their vote key, and how many messages of each in this era were ahead of it.
#[derive(Debug, Default)]
struct Foresight {
    peers: BTreeMap<PeerId, (Option<PublicKey>, EraTag, u32)>,
}

impl Foresight {
    /// Whether a message goes on; see [`FORESIGHT_MAX`].
    fn passes(&mut self, from: &PeerId, message: &Message, era: &EraContext) -> bool {
        let Some(tag) = era_of(message) else { return true };
        let past = era.previous_era.as_ref().is_some_and(|(past, _)| *past == tag);
        let Some((vote_key, counted_in, count)) = self.peers.get_mut(from).filter(|_| !past) else {
            return true;
        };
        if tag == era.era_tag || vote_key.is_some_and(|key| era.committee.index_of(&key).is_some()) {
            return true;
        }
        if *counted_in != era.era_tag {
            (*counted_in, *count) = (era.era_tag, 0);
        }
        *count = count.saturating_add(1);
        *count <= FORESIGHT_MAX
    }
}

/// The era a statement names.
fn era_of(message: &Message) -> Option<EraTag> {
    match message {
        Message::VoteBatch(batch) => Some(batch.era_tag),
        Message::Proposal(proposal) => Some(proposal.era_tag),
        Message::Vote(vote) => Some(vote.era_tag),
        Message::Stream(batches) => batches.first().map(|batch| batch.era_tag),
        Message::Pol { era_tag, .. }
        | Message::Certificate { era_tag, .. }
        | Message::Candidate { era_tag, .. } => Some(*era_tag),
        _ => None,
    }
}

/// Something of the urgent lane, in its order.
enum Urgent {
    Ready(Input),
    ToCheck(PeerId, Mark),
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub fn run(&self) {
        let mut taken = Vec::new();
        let mut foresight = Foresight::default();
        while self.queue.take(&mut taken, (MESSAGES_AT_ONCE, TRANSACTIONS_AT_ONCE), None) != Taken::Closed {
            self.check(&mut taken, &mut foresight);
        }
    }

    fn check(&self, taken: &mut Vec<Waiting<Work>>, foresight: &mut Foresight) {
        let era = self.era.load_full();
        let (mut urgent, mut messages) = (Vec::new(), Vec::new());
        let (mut bulk, mut transactions) = (Vec::new(), Vec::new());
        for waiting in taken.drain(..) {
            match waiting.item {
                Work::Up { peer, vote_key } => {
                    foresight.peers.insert(peer, (vote_key, era.era_tag, 0));
                    urgent.push(Urgent::Ready(Input::PeerUp { peer, vote_key }));
                }
                Work::Down { peer } => {
                    foresight.peers.remove(&peer);
                    urgent.push(Urgent::Ready(Input::PeerDown { peer }));
                }
                Work::Message { from, message } if !foresight.passes(&from, &message, &era) => {}
                Work::Message { from, message } => {
                    urgent.push(Urgent::ToCheck(from, charges::mark(&message)));
                    messages.push(message);
                }
                Work::Transaction { from, transaction, answer, place } => {
                    drop(place);
                    bulk.push((from, answer));
                    transactions.push(transaction);
                }
            }
        }
        self.pass_messages(urgent, messages, &era);
        self.pass_transactions(bulk, transactions, &era);
    }

    fn pass_messages(&self, urgent: Vec<Urgent>, messages: Vec<Message>, era: &EraContext) {
        let mut checked = verify_real(messages, era).into_iter();
        for item in urgent {
            let input = match item {
                Urgent::Ready(input) => input,
                Urgent::ToCheck(from, mark) => match checked.next() {
                    Some(Ok(message)) => Input::Message { from, message },
                    Some(Err(fault)) => {
                        (self.on_fault)(from, &charges::of_message(mark, &fault));
                        continue;
                    }
                    None => unreachable!("one answer a message"),
                },
            };
            // Refused only while the node stops.
            let _stopping = self.engine.push(Lane::Urgent, Arrival::Input(input));
        }
    }

    fn pass_transactions(
        &self,
        bulk: Vec<(Option<PeerId>, Option<Answer>)>,
        transactions: Vec<SharedTransaction>,
        era: &EraContext,
    ) {
        let checked = verify_transactions(transactions, era, &verify_batch);
        for ((from, answer), result) in bulk.into_iter().zip(checked) {
            let transaction = match result {
                Ok(transaction) => transaction,
                Err((transaction, index)) => {
                    self.refuse(from, answer, transaction.id(), Rejection::BadSignature { index });
                    continue;
                }
            };
            let arrival = match answer {
                Some(answer) => Arrival::Submitted { transaction, answer },
                None => Arrival::Input(Input::Transaction { from, transaction }),
            };
            let _stopping = self.engine.push(Lane::Bulk, arrival);
        }
    }

    fn refuse(&self, from: Option<PeerId>, answer: Option<Answer>, txid: Txid, reason: Rejection) {
        if let Some(peer) = from {
            (self.on_fault)(peer, &charges::of_transaction(&txid, &reason));
        }
        let refused = Output::Rejected { txid, from, reason: reason.clone() };
        self.hub.observe(clock::now(), std::slice::from_ref(&refused));
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _gone = answer.send(Err(reason));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::host::Host as _;
    use crate::ledger::Ledger;
    use crate::ledger::genesis::{Founder, Genesis};
    use crate::node::host::ChainHost;
    use crate::pool::{Pool, PoolLimits};
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::hash::Hash;
    use crate::primitives::keys::{SecretKey, Signature};
    use crate::primitives::params::Params;
    use crate::primitives::tier::Tier;
    use crate::primitives::vote::{Step, Vote};

    fn era() -> EraContext {
        let founder = |number: u8| Founder {
            name: format!("node{number}"),
            vote_key: SecretKey::from_seed(&[number; 32]).public(),
            tier: Tier::Bronze,
            owner: SecretKey::from_seed(&[3; 32]).public().key_hash(),
            payout: SecretKey::from_seed(&[3; 32]).public().key_hash(),
        };
        let genesis = Genesis {
            network: NetworkKind::Devnet,
            name: "verify".to_owned(),
            time_ms: 1,
            params: Params::of(NetworkKind::Devnet),
            masternodes: (1..=4).map(founder).collect(),
            allocations: Vec::new(),
        };
        let pool = Arc::new(Pool::new(PoolLimits::default()));
        let host = ChainHost::new(Arc::new(Ledger::in_memory(&genesis)), pool);
        EraContext::after(host.chain(), &host.tip())
    }

    fn vote(era_tag: EraTag) -> Message {
        let signature = Signature([0; 64]);
        Message::Vote(Vote { era_tag, round: 0, step: Step::Prevote, block: None, voter: 0, signature })
    }

    #[test]
    fn a_stranger_is_ahead_with_few_messages_an_era_and_a_member_with_any_number() {
        let mut era = era();
        let (member, stranger) = (PeerId(PublicKey([1; 32])), PeerId(PublicKey([2; 32])));
        let mut foresight = Foresight::default();
        let key = SecretKey::from_seed(&[1; 32]).public();
        foresight.peers.insert(member, (Some(key), era.era_tag, 0));
        foresight.peers.insert(stranger, (None, era.era_tag, 0));
        let ahead = vote(EraTag(Hash([9; 32])));
        let mut passed = |who: &PeerId, message: &Message, era: &EraContext| {
            (0..1000).filter(|_| foresight.passes(who, message, era)).count()
        };
        assert_eq!(passed(&member, &ahead, &era), 1000);
        assert_eq!(passed(&stranger, &ahead, &era), FORESIGHT_MAX as usize);
        assert_eq!(passed(&stranger, &vote(era.era_tag), &era), 1000, "of this era all are checked");
        era.era_tag = EraTag(Hash([5; 32]));
        assert_eq!(passed(&stranger, &ahead, &era), FORESIGHT_MAX as usize, "in the next era again");
    }

    #[test]
    fn a_peer_has_its_share_of_the_queue_and_gets_it_back_as_it_is_checked() {
        let places = Places::default();
        let mut taken: Vec<Place> = (0..5000).map_while(|_| places.take()).collect();
        assert_eq!(taken.len(), TRANSACTIONS_OF_PEER_MAX);
        assert!(places.take().is_none() && places.take().is_none());
        taken.pop();
        assert!(places.take().is_some());
        drop(taken);
        assert_eq!(places.0.load(Relaxed), 0);
    }
}
