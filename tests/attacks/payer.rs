//! Honest load: an observer of this process, connected to every daemon, hands in payments at a steady rate,
//! whatever became of those before, and measures how long each takes to be final.

use crate::field::{Field, NAMES, PAYER};
use crate::program::until;
use masternode::config::{BootstrapPeer, Config};
use masternode::node::handle::NodeHandle;
use masternode::node::start::{NodeOptions, start};
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::ChainId;
use masternode::primitives::keys::SecretKey;
use masternode::primitives::params::Params;
use masternode::primitives::transaction::{OutPoint, SealedTransaction, Transaction, TxOutput};
use masternode::wallet::builder::{Coin, Payment, build_from_all};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

type Coins = Mutex<VecDeque<(OutPoint, Amount)>>;

/// Payments of a stretch of time.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// Microseconds from submission to final, of each.
    pub finals_us: Vec<u64>,
    /// Submitted and refused.
    pub refused: Vec<String>,
}

impl Stretch {
    /// A percentile in milliseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.finals_us.clone();
        sorted.sort_unstable();
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).map_or(f64::NAN, |us| *us as f64 / 1000.0)
    }
}

struct Shared {
    node: NodeHandle,
    key: SecretKey,
    chain: ChainId,
    params: Params,
    coins: Coins,
    stretch: Mutex<Stretch>,
    under_way: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn build(&self, outpoint: OutPoint, value: Amount) -> Transaction {
        let own = self.key.public().key_hash();
        let payment = Payment {
            outputs: vec![TxOutput { value: Amount::from_units(10_000).unwrap(), key_hash: own }],
            change_to: own,
            expiry: self.node.ledger().tip().header.height + 90,
            fee_per_byte: 2,
        };
        let coin = Coin { outpoint, value, key: &self.key };
        build_from_all(self.chain, &self.params, &[coin], &payment).unwrap().transaction
    }

    /// Pays and waits until it is final.
    async fn pay(&self, outpoint: OutPoint, value: Amount) {
        let payment = self.build(outpoint, value);
        let begun = Instant::now();
        let txid = match self.node.submit(payment.clone()).await {
            Ok(txid) => txid,
            Err(error) => return self.stretch.lock().unwrap().refused.push(error.to_string()),
        };
        match self.node.wait_final(txid).await {
            Ok(()) => {
                let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
                self.stretch.lock().unwrap().finals_us.push(took);
                let outputs = payment.outputs.iter().zip(0u32..);
                if let Some((output, index)) = outputs.max_by_key(|(output, _)| output.value) {
                    self.coins.lock().unwrap().push_back((OutPoint { txid, index }, output.value));
                }
            }
            Err(error) => self.stretch.lock().unwrap().refused.push(error.to_string()),
        }
    }
}

/// See the module.
pub struct Payer {
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
}

impl Payer {
    /// Joins the network and begins to pay `per_second`.
    pub fn join(field: &Field, key: SecretKey, coins: usize, per_second: u32) -> Self {
        let mut config = Config::defaults(NetworkKind::Devnet);
        config.name = PAYER.to_owned();
        config.data_dir = field.root().join(PAYER);
        config.p2p.listen = field.ground.payer();
        config.consensus.era_ms = 1000;
        let peer = |node: usize| {
            let address = field.address(node);
            BootstrapPeer { key: None, host: address.ip().to_string(), port: address.port() }
        };
        config.p2p.bootstrap = (0..NAMES.len()).map(peer).collect();
        let genesis = field.genesis.clone();
        let network_key = SecretKey::from_seed(&[77; 32]);
        let options = NodeOptions { config, genesis, network_key, vote_key: None };
        let (runtime, node) = field.ground.at(field.ground.payer_place(), || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let node = runtime.block_on(start(options)).unwrap();
            (runtime, node)
        });
        until("the payer is connected to every daemon", || {
            let peers = &node.snapshot().peers;
            (peers.inbound + peers.outbound >= NAMES.len() as u64).then_some(())
        });
        let unspent = node.ledger().unspent_of(&key.public().key_hash(), coins);
        let coins = unspent.into_iter().map(|(outpoint, utxo)| (outpoint, utxo.value)).collect();
        let shared = Arc::new(Shared {
            node,
            key,
            chain: field.chain(),
            params: field.genesis.params.clone(),
            coins: Mutex::new(coins),
            stretch: Mutex::default(),
            under_way: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        runtime.spawn(pay_steadily(Arc::clone(&shared), per_second));
        Self { runtime, shared }
    }

    /// Ends the stretch and begins the next one. A payment counts where it ends.
    pub fn take(&self) -> Stretch {
        std::mem::take(&mut *self.shared.stretch.lock().unwrap())
    }

    /// A payment of a coin that nobody else uses, not handed in.
    pub fn draft(&self) -> Transaction {
        let (outpoint, value) = self.shared.coins.lock().unwrap().pop_front().expect("a coin");
        self.shared.build(outpoint, value)
    }

    /// Waits until a stretch holds so many payments.
    #[track_caller]
    pub fn until_paid(&self, payments: usize) {
        until(&format!("{payments} payments are final"), || {
            (self.shared.stretch.lock().unwrap().finals_us.len() >= payments).then_some(())
        });
    }

    /// The payments of as long as `seconds`.
    pub fn stretch(&self, length: Duration) -> Stretch {
        let end = Instant::now() + length;
        self.take();
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.take()
    }

    /// Stops paying, waits until everything handed in is final, and leaves the network.
    pub fn leave(self) {
        self.shared.stop.store(true, Relaxed);
        until("every payment is final", || (self.shared.under_way.load(Relaxed) == 0).then_some(()));
        self.shared.node.stop("the drills are over");
        let exit = self.runtime.block_on(self.shared.node.stopped());
        assert_eq!(exit.code, 0, "{}", exit.reason);
    }

    /// Whether something is in the pool of the payer, or remembered.
    pub fn knows(&self, transaction: &Transaction) -> bool {
        self.shared.node.tx_status(&SealedTransaction::new(transaction.clone()).id()).is_some()
    }
}

async fn pay_steadily(shared: Arc<Shared>, per_second: u32) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    while !shared.stop.load(Relaxed) {
        ticks.tick().await;
        let coin = shared.coins.lock().unwrap().pop_front();
        let Some((outpoint, value)) = coin else {
            shared.stretch.lock().unwrap().refused.push("no coin is free".to_owned());
            continue;
        };
        let shared = Arc::clone(&shared);
        shared.under_way.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            shared.pay(outpoint, value).await;
            shared.under_way.fetch_sub(1, Relaxed);
        });
    }
}
