//! What became of the payments of a devnet: latencies, refusals, and whether two final transactions
//! ever spent one output.
//!
//! Pure bookkeeping over the fates all nodes tell. The search for conflicts looks at what every node
//! calls final and at every block, against the bodies submitted here; it assumes nothing about the
//! nodes. It remembers the spent outputs of the last million payments or so, in two generations, so
//! that a devnet may run for days.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates, counts and shares are positive and far below 2^53"
)]

use masternode::primitives::block::Block;
use masternode::primitives::hash::Txid;
use masternode::primitives::transaction::{OutPoint, SharedTransaction};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// Entries of each of two generations of bodies and spent outputs.
const GENERATION_MAX: usize = 1_000_000;
/// Most latencies kept; percentiles are of the first so many.
const SAMPLES_MAX: usize = 4_000_000;

/// Most checkpoints remembered: days of a devnet.
const PAUSES_MAX: usize = 100_000;

/// A payment on its way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    node: usize,
    scheduled_us: u64,
    submitted_us: u64,
}

/// From when to when a payment was under way.
#[derive(Clone, Copy, Debug)]
struct Sample {
    scheduled_us: u64,
    submitted_us: u64,
    final_us: u64,
}

/// A map that forgets its oldest half when full.
#[derive(Debug)]
struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K, V> Default for Generations<K, V> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq, V> Generations<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn find(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }
}

/// Percentiles in milliseconds, of exactly the values measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Spread {
    /// Of durations in microseconds; all zero for none.
    pub fn of(mut durations_us: Vec<u64>) -> Self {
        durations_us.sort_unstable();
        let rank = |share: f64| {
            // Nearest rank: the least value that at least this share does not exceed.
            let count = durations_us.len() as f64;
            let rank = (share * count).ceil().max(1.0) as usize;
            durations_us.get(rank - 1).map_or(0.0, |duration_us| *duration_us as f64 / 1000.0)
        };
        Self { p50: rank(0.50), p95: rank(0.95), p99: rank(0.99), max: rank(1.0) }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tally {
    submitted: u64,
    finals: u64,
    rejected: u64,
    reasons: HashMap<String, u64>,
    under_way: HashMap<Txid, UnderWay>,
    samples: Vec<Sample>,
    inputs: Generations<Txid, Vec<OutPoint>>,
    spent: Generations<OutPoint, Txid>,
    conflicts: HashSet<OutPoint>,
    /// For outputs under watch, the transactions in blocks that spend them.
    watched: HashMap<OutPoint, HashSet<Txid>>,
    /// First freeze to last commit over all nodes, by height.
    pauses: HashMap<u64, (u64, u64)>,
    /// First freeze to commit, each node and checkpoint.
    pause_lengths_us: Vec<u64>,
    first_submit_us: Option<u64>,
    first_final_us: Option<u64>,
    last_final_us: u64,
}

impl Tally {
    /// A payment is about to be submitted to `node`.
    pub fn submit(&mut self, payment: &SharedTransaction, node: usize, scheduled_us: u64, now_us: u64) {
        self.submitted += 1;
        self.first_submit_us.get_or_insert(now_us);
        self.watch(payment);
        let under_way = UnderWay { node, scheduled_us, submitted_us: now_us };
        self.under_way.insert(payment.id(), under_way);
    }

    /// Remembers a body, so that its finality can be checked against others.
    pub fn watch(&mut self, payment: &SharedTransaction) {
        self.inputs.insert(payment.id(), payment.spends().collect());
    }

    /// `node` refused or dropped a transaction. Returns whether that ends a payment's way: what other
    /// nodes think of it does not.
    pub fn reject_at(&mut self, node: usize, txid: &Txid, reason: &str) -> bool {
        let ends = self.under_way.get(txid).is_some_and(|under_way| under_way.node == node);
        if ends {
            self.under_way.remove(txid);
            self.rejected += 1;
            // Reasons name values; more than some distinct ones say nothing new.
            if self.reasons.len() < 100 || self.reasons.contains_key(reason) {
                *self.reasons.entry(reason.to_owned()).or_default() += 1;
            }
        }
        ends
    }

    /// `node` calls a transaction final at `now_us`. Returns whether that ends a payment's way.
    pub fn final_at(&mut self, node: usize, txid: &Txid, now_us: u64) -> bool {
        for outpoint in self.inputs.find(txid).cloned().unwrap_or_default() {
            self.spend(outpoint, *txid);
        }
        match self.under_way.get(txid) {
            Some(under_way) if under_way.node == node => {}
            _ => return false,
        }
        let Some(under_way) = self.under_way.remove(txid) else { return false };
        self.finals += 1;
        self.first_final_us.get_or_insert(now_us);
        self.last_final_us = self.last_final_us.max(now_us);
        if self.samples.len() < SAMPLES_MAX {
            let UnderWay { scheduled_us, submitted_us, .. } = under_way;
            self.samples.push(Sample { scheduled_us, submitted_us, final_us: now_us });
        }
        true
    }

    /// `node` decided a block at `now_us`, `pause_us` after the first freeze it saw. Returns the
    /// payments whose way that ends.
    pub fn block_at(&mut self, node: usize, block: &Block, pause_us: Option<u64>, now_us: u64) -> Vec<Txid> {
        if let Some(pause_us) = pause_us
            && self.pauses.len() < PAUSES_MAX
        {
            let began_us = now_us.saturating_sub(pause_us);
            let pause = self.pauses.entry(block.header.height).or_insert((began_us, now_us));
            *pause = (pause.0.min(began_us), pause.1.max(now_us));
            self.pause_lengths_us.push(pause_us);
        }
        let mut ended = Vec::new();
        for transaction in &block.transactions {
            for outpoint in transaction.spends() {
                self.spend(outpoint, transaction.id());
                if let Some(spenders) = self.watched.get_mut(&outpoint) {
                    spenders.insert(transaction.id());
                }
            }
            if self.final_at(node, &transaction.id(), now_us) {
                ended.push(transaction.id());
            }
        }
        ended
    }

    fn spend(&mut self, outpoint: OutPoint, by: Txid) {
        match self.spent.find(&outpoint) {
            None => self.spent.insert(outpoint, by),
            Some(first) if *first == by => {}
            Some(_) => {
                self.conflicts.insert(outpoint);
            }
        }
    }

    /// From now on, notes which transactions in blocks spend an output.
    pub fn watch_coin(&mut self, outpoint: OutPoint) {
        self.watched.entry(outpoint).or_default();
    }

    /// How many different transactions in blocks spend an output that is under watch.
    pub fn spenders_in_blocks(&self, outpoint: &OutPoint) -> usize {
        self.watched.get(outpoint).map_or(0, HashSet::len)
    }

    /// Payments submitted so far.
    pub fn submitted(&self) -> u64 {
        self.submitted
    }

    /// Payments that are final at the node they were submitted to.
    pub fn finals(&self) -> u64 {
        self.finals
    }

    /// Payments refused.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// When the first payment became final.
    pub fn first_final_us(&self) -> Option<u64> {
        self.first_final_us
    }

    /// Payments neither final nor refused.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Outputs that two final transactions spent.
    pub fn conflicts(&self) -> usize {
        self.conflicts.len()
    }

    /// Why payments were refused, most frequent first.
    pub fn reasons(&self) -> Vec<(String, u64)> {
        let mut reasons: Vec<_> =
            self.reasons.iter().map(|(reason, count)| (reason.clone(), *count)).collect();
        reasons.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
        reasons
    }

    /// Final payments a second between the first submission and the last finality.
    pub fn rate(&self) -> f64 {
        let span_us = self.last_final_us.saturating_sub(self.first_submit_us.unwrap_or(0));
        if span_us == 0 { 0.0 } else { self.finals as f64 * 1e6 / span_us as f64 }
    }

    /// Submission to finality, all payments.
    pub fn finality(&self) -> Spread {
        Spread::of(
            self.samples.iter().map(|sample| sample.final_us.saturating_sub(sample.submitted_us)).collect(),
        )
    }

    /// Scheduled time to finality, all payments: also counts what the payer itself was late.
    pub fn finality_from_schedule(&self) -> Spread {
        Spread::of(
            self.samples.iter().map(|sample| sample.final_us.saturating_sub(sample.scheduled_us)).collect(),
        )
    }

    /// First freeze seen to commit, over all nodes and checkpoints.
    pub fn checkpoint_pause(&self) -> Spread {
        Spread::of(self.pause_lengths_us.clone())
    }

    /// Submission to finality of payments that were never under way between the first freeze and the
    /// last commit of a checkpoint, at any node.
    pub fn finality_outside_checkpoints(&self) -> (usize, Spread) {
        let mut pauses: Vec<(u64, u64)> = self.pauses.values().copied().collect();
        pauses.sort_unstable();
        let outside = |sample: &&Sample| {
            // The first pause that ends after the payment began is the only one it can meet first.
            let next = pauses.partition_point(|(_, end_us)| *end_us < sample.submitted_us);
            pauses.get(next).is_none_or(|(began_us, _)| *began_us > sample.final_us)
        };
        let durations: Vec<u64> = self
            .samples
            .iter()
            .filter(outside)
            .map(|sample| sample.final_us.saturating_sub(sample.submitted_us))
            .collect();
        (durations.len(), Spread::of(durations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use masternode::primitives::block::Header;
    use masternode::primitives::hash::{BlockId, Hash, MasternodeId};
    use masternode::primitives::keys::{PublicKey, Signature};
    use masternode::primitives::transaction::{
        SealedTransaction, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput,
    };

    fn outpoint(number: u8) -> OutPoint {
        OutPoint { txid: Txid(Hash([number; 32])), index: 0 }
    }

    /// A payment of `coin`; `variant` tells rivals apart.
    fn payment(coin: u8, variant: u64) -> SharedTransaction {
        let input = TxInput {
            outpoint: outpoint(coin),
            public_key: PublicKey([0; 32]),
            signature: Signature([0; 64]),
        };
        SealedTransaction::new(Transaction {
            version: TRANSACTION_VERSION,
            kind: TransactionKind::Payment,
            expiry: variant,
            inputs: vec![input],
            outputs: Vec::new(),
            payload: Vec::new(),
        })
    }

    fn block(height: u64, transactions: Vec<SharedTransaction>) -> Block {
        let header = Header {
            version: 1,
            height,
            previous: BlockId::default(),
            time_ms: 0,
            proposer: MasternodeId::default(),
            tx_root: Hash::default(),
            tx_count: 0,
            body_bytes: 0,
            last_commit_root: Hash::default(),
            utxo_hash: Hash::default(),
            utxo_count: 0,
            supply: Default::default(),
            registry_root: Hash::default(),
            committee_root: Hash::default(),
            next_committee_root: Hash::default(),
            params_root: Hash::default(),
        };
        Block { header, last_commit: None, transactions }
    }

    #[test]
    fn a_payment_is_final_when_the_node_it_was_given_to_says_so() {
        let mut tally = Tally::default();
        let one = payment(1, 0);
        tally.submit(&one, 2, 900, 1000);
        assert!(!tally.final_at(0, &one.id(), 3000), "another node");
        assert_eq!((tally.finals(), tally.under_way()), (0, 1));
        assert!(tally.final_at(2, &one.id(), 6000));
        assert!(!tally.final_at(2, &one.id(), 9000), "only once");
        assert_eq!((tally.finals(), tally.under_way(), tally.conflicts()), (1, 0, 0));
        assert_eq!((tally.finality().p50, tally.finality_from_schedule().p50), (5.0, 5.1));
    }

    #[test]
    fn two_final_rivals_are_a_conflict_whichever_nodes_tell() {
        let mut tally = Tally::default();
        let (left, right) = (payment(1, 0), payment(1, 1));
        tally.watch(&left);
        tally.watch(&right);
        tally.final_at(0, &left.id(), 10);
        tally.final_at(1, &left.id(), 11);
        assert_eq!(tally.conflicts(), 0);
        tally.final_at(3, &right.id(), 12);
        assert_eq!(tally.conflicts(), 1);
    }

    #[test]
    fn a_block_that_spends_what_a_final_payment_spent_is_a_conflict_too() {
        let mut tally = Tally::default();
        let (left, right) = (payment(1, 0), payment(1, 1));
        tally.submit(&left, 0, 0, 0);
        tally.final_at(0, &left.id(), 10);
        tally.block_at(1, &block(1, vec![right]), None, 20);
        assert_eq!(tally.conflicts(), 1);
    }

    #[test]
    fn a_payment_that_only_a_block_settles_is_final_with_it() {
        let mut tally = Tally::default();
        let one = payment(1, 0);
        tally.submit(&one, 1, 0, 0);
        assert_eq!(tally.block_at(0, &block(1, vec![one.clone()]), None, 10), []);
        assert_eq!(tally.block_at(1, &block(1, vec![one.clone()]), None, 12), [one.id()]);
    }

    #[test]
    fn payments_that_met_a_checkpoint_anywhere_are_not_outside() {
        let mut tally = Tally::default();
        // Node 0 paused from 100 to 140, node 1 from 110 to 160.
        tally.block_at(0, &block(1, Vec::new()), Some(40), 140);
        tally.block_at(1, &block(1, Vec::new()), Some(50), 160);
        for (coin, submitted_us, final_us) in [(1, 80, 99), (2, 90, 105), (3, 150, 170), (4, 161, 163)] {
            let payment = payment(coin, 0);
            tally.submit(&payment, 0, submitted_us, submitted_us);
            tally.final_at(0, &payment.id(), final_us);
        }
        let (count, spread) = tally.finality_outside_checkpoints();
        assert_eq!((count, spread.p50, spread.max), (2, 0.002, 0.019));
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let spread = Spread::of((1..=100).map(|ms| ms * 1000).collect());
        assert_eq!(spread, Spread { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 });
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        assert_eq!(Spread::of(vec![7000]), Spread { p50: 7.0, p95: 7.0, p99: 7.0, max: 7.0 });
    }

    #[test]
    fn a_refused_payment_is_counted_with_its_reason() {
        let mut tally = Tally::default();
        let one = payment(1, 0);
        tally.submit(&one, 0, 0, 0);
        assert!(!tally.reject_at(1, &one.id(), "another node's opinion"));
        assert!(tally.reject_at(0, &one.id(), "dust-output"));
        assert!(!tally.reject_at(0, &one.id(), "dust-output"));
        assert_eq!((tally.rejected(), tally.under_way()), (1, 0));
        assert_eq!(tally.reasons(), [("dust-output".to_owned(), 1)]);
    }
}
