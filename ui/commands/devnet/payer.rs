//! The devnet's faucet and payer: real keys, real signed payments, at scheduled times.
//!
//! The load is open: payment k is due at `start + k / rate` whatever became of those before it, so a
//! stall of the network shows in the latencies instead of thinning out the load. Payments go to the
//! nodes in turn; about a fifth spend an output of a payment that is not final yet. What became of
//! each is learnt from the fates every node publishes.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates, counts and shares are positive and far below 2^53"
)]

use crate::commands::devnet::purse::{Coin, Purse};
use crate::commands::devnet::tally::Tally;
use masternode::node::clock::{instant_of, monotonic_us};
use masternode::node::hub::{Fate, FateKind};
use masternode::primitives::amount::Amount;
use masternode::primitives::hash::{ChainId, Txid};
use masternode::primitives::keys::SecretKey;
use masternode::primitives::params::Params;
use masternode::primitives::rejection::Rejection;
use masternode::primitives::transaction::{SealedTransaction, SharedTransaction, TxOutput};
use masternode::wallet::builder::{self, Payment};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, broadcast};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Share of payments that spend an output not final yet, in percent.
const CHAINED_PERCENT: u32 = 20;
/// Most outputs of a payment that splits a coin: 36 KB.
const SPLIT_MAX: usize = 900;
/// Most payments handed to nodes and not answered; above it the payer waits, which shows as lateness.
const UNANSWERED_MAX: usize = 8192;
/// Pause before looking for a coin again when there is none.
const NO_COIN_PAUSE: Duration = Duration::from_millis(5);
/// Encoded size of a payment with two inputs and one output.
const JOINING_BYTES: u64 = 342;
/// Keys the payer owns; payments go from one to another.
const KEYS: u8 = 16;

/// A node that payments are handed to.
pub trait Entrance: Send + Sync + 'static {
    /// Hands in a payment; returns when it is accepted or refused.
    fn submit(&self, payment: SharedTransaction) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why the payer cannot pay.
#[derive(Debug, thiserror::Error)]
pub enum PayerError {
    #[error("the faucet has no coins: allocate some to it in the genesis, or start with an empty --data-dir")]
    NoCoins,
    #[error("the faucet's coins were not split within {0:?}: see the nodes' logs")]
    Unfunded(Duration),
    #[error("the faucet cannot split its coins: {0}")]
    Split(builder::BuildError),
    #[error("a node refused the faucet's payment: {0}")]
    Refused(String),
}

/// What the payer knows, shared with the tasks that follow the nodes.
#[derive(Debug, Default)]
struct Books {
    purse: Purse,
    tally: Tally,
    /// Payments of the faucet with the nodes that call them final. They are not part of the load, and
    /// under way until every node has them, as their outputs are spent anywhere.
    splits: HashMap<Txid, HashSet<usize>>,
    nodes: usize,
    height: u64,
    /// Fates lost because the payer was slow; the figures are then incomplete.
    missed: u64,
}

/// A payment ready to be handed in.
struct Draft {
    payment: SharedTransaction,
    node: usize,
}

/// See the module.
pub struct Payer<N> {
    nodes: Vec<Arc<N>>,
    keys: Vec<SecretKey>,
    chain: ChainId,
    params: Params,
    books: Arc<Mutex<Books>>,
    /// Something ended: a payment, a split.
    progress: Arc<Notify>,
}

impl<N: Entrance> Payer<N> {
    /// A payer at `nodes`, which are at `height`. It owns `coins`, locked to `keys`.
    pub fn new(
        nodes: Vec<Arc<N>>,
        chain: ChainId,
        params: Params,
        keys: Vec<SecretKey>,
        coins: Vec<Coin>,
        height: u64,
    ) -> Self {
        let mut books = Books { height, nodes: nodes.len(), ..Books::default() };
        for coin in coins {
            books.purse.add(coin);
        }
        Self {
            nodes,
            keys,
            chain,
            params,
            books: Arc::new(Mutex::new(books)),
            progress: Arc::new(Notify::new()),
        }
    }

    /// Follows what `node` tells about transactions, until it is gone.
    pub fn follow(
        &self,
        node: usize,
        mut fates: broadcast::Receiver<Arc<Fate>>,
    ) -> impl Future<Output = ()> + use<N> {
        let (books, progress) = (Arc::clone(&self.books), Arc::clone(&self.progress));
        async move {
            loop {
                match fates.recv().await {
                    Ok(fate) => {
                        if books.lock().learn(node, &fate) {
                            progress.notify_waiters();
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => books.lock().missed += missed,
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }

    /// Splits coins until there are enough for `rate` payments a second, and waits until they are
    /// final.
    ///
    /// # Errors
    /// [`PayerError`].
    pub async fn fund(&self, rate: f64, patience: Duration) -> Result<(), PayerError> {
        // Each payment binds a coin until it is final; four seconds' worth outlast any checkpoint.
        let wanted = (rate * 4.0).ceil().max(200.0) as usize;
        let funding = async {
            self.split_into(wanted.div_ceil(SPLIT_MAX)).await?;
            self.split_into(wanted).await
        };
        tokio::time::timeout(patience, funding).await.map_err(|_| PayerError::Unfunded(patience))?
    }

    async fn split_into(&self, goal: usize) -> Result<(), PayerError> {
        let have = self.books.lock().purse.len();
        if have == 0 {
            return Err(PayerError::NoCoins);
        }
        let lacking = goal.saturating_sub(have);
        if lacking == 0 {
            return Ok(());
        }
        let coins = lacking.div_ceil(SPLIT_MAX - 1).min(have);
        let pieces = (lacking.div_ceil(coins) + 1).min(SPLIT_MAX);
        for turn in 0..coins {
            let Some(coin) = self.books.lock().purse.take() else { break };
            let draft = self.split(coin, pieces, turn).map_err(PayerError::Split)?;
            let node = self.nodes.get(draft.node).ok_or(PayerError::NoCoins)?;
            node.submit(draft.payment).await.map_err(PayerError::Refused)?;
        }
        loop {
            let changed = self.progress.notified();
            if self.books.lock().splits.is_empty() {
                return Ok(());
            }
            changed.await;
        }
    }

    fn split(&self, coin: Coin, pieces: usize, turn: usize) -> Result<Draft, builder::BuildError> {
        let share = coin.value.units() / (pieces as u64 + 1);
        let amounts = vec![Amount::from_units(share).unwrap_or_default(); pieces.saturating_sub(1)];
        let (payment, keys) = self.build(&[coin], &amounts, self.params.fee_per_byte_min, None)?;
        let node = turn % self.nodes.len().max(1);
        let mut books = self.books.lock();
        books.splits.insert(payment.id(), HashSet::new());
        books.tally.watch(&payment);
        books.purse.sent(&payment, node, &keys);
        Ok(Draft { payment, node })
    }

    /// Builds and signs a payment of `amounts` to random own keys, the change to another, or to
    /// `change_to`.
    fn build(
        &self,
        coins: &[Coin],
        amounts: &[Amount],
        fee_per_byte: u64,
        change_to: Option<usize>,
    ) -> Result<(SharedTransaction, Vec<usize>), builder::BuildError> {
        let random = || rand::random_range(0..self.keys.len().max(1));
        let mut keys: Vec<usize> = amounts.iter().map(|_| random()).collect();
        keys.push(change_to.unwrap_or_else(random));
        let key_hash =
            |key: &usize| self.keys.get(*key).map(|key| key.public().key_hash()).unwrap_or_default();
        let outputs = amounts.iter().zip(&keys);
        let payment = Payment {
            outputs: outputs
                .map(|(value, key)| TxOutput { value: *value, key_hash: key_hash(key) })
                .collect(),
            change_to: keys.last().map(key_hash).unwrap_or_default(),
            expiry: self.books.lock().height + self.params.expiry_blocks_max / 2,
            fee_per_byte,
        };
        let spendable: Vec<builder::Coin<'_>> = coins
            .iter()
            .filter_map(|coin| {
                let key = self.keys.get(coin.key)?;
                Some(builder::Coin { outpoint: coin.outpoint, value: coin.value, key })
            })
            .collect();
        let built = builder::build_from_all(self.chain, &self.params, &spendable, &payment)?;
        Ok((SealedTransaction::new(built.transaction), keys))
    }

    /// Pays `rate` times a second from now on until `cancel`; returns when every node has answered.
    pub async fn run(&self, rate: f64, cancel: CancellationToken) {
        let started_us = monotonic_us();
        let coins_wanted = (rate * 4.0).ceil().max(200.0) as usize;
        let mut answers = JoinSet::new();
        let mut number = 0u64;
        while !cancel.is_cancelled() {
            let due_us = started_us + (number as f64 * 1e6 / rate) as u64;
            if due_us > monotonic_us() {
                tokio::select! {
                    () = tokio::time::sleep_until(instant_of(due_us).into()) => {}
                    () = cancel.cancelled() => break,
                }
            }
            while answers.try_join_next().is_some() {}
            if answers.len() >= UNANSWERED_MAX {
                answers.join_next().await;
            }
            let Some(draft) = self.draft(number, coins_wanted) else {
                tokio::time::sleep(NO_COIN_PAUSE).await;
                continue;
            };
            number += 1;
            self.hand_in(draft, due_us, &mut answers);
        }
        while answers.join_next().await.is_some() {}
    }

    fn hand_in(&self, draft: Draft, due_us: u64, answers: &mut JoinSet<()>) {
        let Draft { payment, node: index } = draft;
        let Some(node) = self.nodes.get(index).cloned() else { return };
        let (books, progress) = (Arc::clone(&self.books), Arc::clone(&self.progress));
        answers.spawn(async move {
            let txid = payment.id();
            books.lock().tally.submit(&payment, index, due_us, monotonic_us());
            let answer = node.submit(payment).await;
            let mut books = books.lock();
            let Err(reason) = answer else {
                books.purse.accepted(txid);
                return;
            };
            if books.tally.reject_at(index, &txid, &reason) {
                books.purse.forget(&txid);
                progress.notify_waiters();
            }
        });
    }

    /// The next payment; `None` when no coin is left that is worth one.
    fn draft(&self, number: u64, coins_wanted: usize) -> Option<Draft> {
        let turn = usize::try_from(number).unwrap_or(0) % self.nodes.len().max(1);
        loop {
            let (node, coins) = {
                let mut books = self.books.lock();
                let chained = rand::random_range(0..100) < CHAINED_PERCENT;
                let (node, first) = match chained.then(|| books.purse.take_unsettled()).flatten() {
                    Some(found) => found,
                    None => (turn, books.purse.take()?),
                };
                // Two outputs a payment make ever more and smaller coins; joining keeps their number.
                let join = books.purse.len() > 2 * coins_wanted;
                let second = if join { books.purse.take() } else { None };
                (node, [Some(first), second].into_iter().flatten().collect::<Vec<Coin>>())
            };
            let total = Amount::checked_sum(coins.iter().map(|coin| coin.value)).unwrap_or_default().units();
            // Fees differ, so that the pool has an order to keep.
            let fee_per_byte = self.params.fee_per_byte_min * rand::random_range(1..=4);
            // A joining payment pays everything to one output, so that nothing comes back as change.
            let paid = if coins.len() > 1 {
                total.saturating_sub(JOINING_BYTES * fee_per_byte)
            } else {
                total / 100 * rand::random_range(20..60)
            };
            let amounts = [Amount::from_units(paid.max(self.params.dust.units())).unwrap_or_default()];
            // A coin too small to pay anything is left behind; there are others.
            let Ok((payment, keys)) = self.build(&coins, &amounts, fee_per_byte, None) else { continue };
            self.books.lock().purse.sent(&payment, node, &keys);
            return Some(Draft { payment, node });
        }
    }

    /// Waits until every payment is final or refused; returns whether that happened in time.
    pub async fn settled(&self, patience: Duration) -> bool {
        let settled = async {
            loop {
                let changed = self.progress.notified();
                if self.books.lock().tally.under_way() == 0 {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, settled).await.is_ok()
    }

    /// Two signed payments of one coin to different keys; `None` when there is no coin.
    pub fn rivals(&self) -> Option<(Coin, [SharedTransaction; 2])> {
        let coin = self.books.lock().purse.take()?;
        let half = [Amount::from_units(coin.value.units() / 2).unwrap_or_default()];
        let fee_per_byte = self.params.fee_per_byte_min;
        let (left, _) = self.build(&[coin], &half, fee_per_byte, Some(0)).ok()?;
        let (right, _) = self.build(&[coin], &half, fee_per_byte, Some(1)).ok()?;
        let mut books = self.books.lock();
        books.tally.watch(&left);
        books.tally.watch(&right);
        books.tally.watch_coin(coin.outpoint);
        Some((coin, [left, right]))
    }

    /// Reads the tally.
    pub fn with_tally<T>(&self, read: impl FnOnce(&Tally) -> T) -> T {
        read(&self.books.lock().tally)
    }

    /// Fates that were lost; above zero the tally is incomplete.
    pub fn fates_missed(&self) -> u64 {
        self.books.lock().missed
    }
}

impl Books {
    /// Takes in what a node tells; returns whether something ended.
    fn learn(&mut self, node: usize, fate: &Fate) -> bool {
        let now_us = fate.now.monotonic_us;
        let mut ended = Vec::new();
        match &fate.kind {
            FateKind::Final { txids, .. } => {
                for txid in txids {
                    if self.tally.final_at(node, txid, now_us) || self.split_final_at(node, txid) {
                        ended.push(*txid);
                    }
                }
            }
            FateKind::Block { block } => {
                self.height = self.height.max(block.header.height);
                ended = self.tally.block_at(node, block, fate.pause_us, now_us);
                let in_block = block.transactions.iter().map(|transaction| transaction.id());
                let splits: Vec<Txid> = in_block.filter(|txid| self.split_final_at(node, txid)).collect();
                ended.extend(splits);
            }
            FateKind::Rejected { reason: Rejection::AlreadyKnown, .. } => {}
            FateKind::Rejected { txid, reason } => {
                if self.tally.reject_at(node, txid, &reason.to_string()) {
                    self.purse.forget(txid);
                    return true;
                }
            }
        }
        for txid in &ended {
            self.purse.settle(txid);
        }
        !ended.is_empty()
    }

    /// Whether this makes a payment of the faucet final at every node.
    fn split_final_at(&mut self, node: usize, txid: &Txid) -> bool {
        let Some(nodes) = self.splits.get_mut(txid) else { return false };
        nodes.insert(node);
        let everywhere = nodes.len() >= self.nodes;
        if everywhere {
            self.splits.remove(txid);
        }
        everywhere
    }
}

/// The payer's keys: the faucet's and others derived from it, so that a kept devnet finds its coins
/// again.
pub fn keys_of(faucet: &SecretKey) -> Vec<SecretKey> {
    let derived = |number: u8| {
        let mut hasher = blake3::Hasher::new_derive_key("timecoin masternode v1 devnet payer key");
        hasher.update(faucet.seed().as_slice());
        hasher.update(&[number]);
        SecretKey::from_seed(hasher.finalize().as_bytes())
    };
    std::iter::once(faucet.clone()).chain((1..KEYS).map(derived)).collect()
}
