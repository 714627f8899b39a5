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
use crate::primitives::hash::Txid;
use crate::primitives::keys::{PublicKey, verify_batch};
use crate::primitives::message::{Message, PeerId};
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::SharedTransaction;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Messages that may wait for a worker; beyond it the network slows its peers down.
const MESSAGES_WAITING_MAX: usize = 8192;
/// Transactions that may wait for a worker, a few seconds of its work; beyond it peers' are dropped and
/// pulled later if they gather votes.
const TRANSACTIONS_WAITING_MAX: usize = 16_384;
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
    Transaction { from: Option<PeerId>, transaction: SharedTransaction, answer: Option<Answer> },
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
        let work = Work::Transaction { from: None, transaction, answer: Some(answer) };
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

/// Something of the urgent lane, in its order.
enum Urgent {
    Ready(Input),
    ToCheck(PeerId, Mark),
}

impl Worker {
    /// Works until the queue is closed and empty.
    pub fn run(&self) {
        let mut taken = Vec::new();
        while self.queue.take(&mut taken, (MESSAGES_AT_ONCE, TRANSACTIONS_AT_ONCE), None) != Taken::Closed {
            self.check(&mut taken);
        }
    }

    fn check(&self, taken: &mut Vec<Waiting<Work>>) {
        let era = self.era.load_full();
        let (mut urgent, mut messages) = (Vec::new(), Vec::new());
        let (mut bulk, mut transactions) = (Vec::new(), Vec::new());
        for waiting in taken.drain(..) {
            match waiting.item {
                Work::Up { peer, vote_key } => {
                    urgent.push(Urgent::Ready(Input::PeerUp { peer, vote_key }));
                }
                Work::Down { peer } => urgent.push(Urgent::Ready(Input::PeerDown { peer })),
                Work::Message { from, message } => {
                    urgent.push(Urgent::ToCheck(from, charges::mark(&message)));
                    messages.push(message);
                }
                Work::Transaction { from, transaction, answer } => {
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
