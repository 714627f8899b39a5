//! The nodes of a devnet: started together, compared with each other, stopped in order.

use crate::commands::devnet::founding::Founded;
use crate::commands::devnet::payer::Entrance;
use crate::commands::devnet::purse::Coin;
use masternode::config::Config;
use masternode::ledger::genesis::Genesis;
use masternode::node::handle::NodeHandle;
use masternode::node::logging::node_span;
use masternode::node::start::{NodeError, NodeOptions, start};
use masternode::primitives::hash::Hash;
use masternode::primitives::keys::SecretKey;
use masternode::primitives::transaction::SharedTransaction;
use masternode::wallet::keystore::{self, KeystoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument as _;

/// How often the nodes are compared while they are expected to agree.
const LOOK: Duration = Duration::from_millis(5);

/// Why the nodes cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("{name}: {source}")]
    Start { name: String, source: NodeError },
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    #[error("{name}: its start was cut off: {reason}")]
    CutOff { name: String, reason: String },
}

impl ClusterError {
    /// Exit code of the process, as for a single node.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { source, .. } => source.exit_code(),
            Self::Keystore(_) => 78,
            Self::CutOff { .. } => 1,
        }
    }
}

/// Where the nodes stand.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    pub heights: Vec<u64>,
    pub state_hashes: Vec<Hash>,
}

/// See the module.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Arc<NodeHandle>>,
}

impl Entrance for NodeHandle {
    async fn submit(&self, payment: SharedTransaction) -> Result<(), String> {
        match NodeHandle::submit(self, payment.body().clone()).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Cluster {
    /// Starts all nodes at once; when one fails, those that run are stopped again.
    ///
    /// # Errors
    /// [`ClusterError`] of the first that failed.
    pub async fn start(founded: &Founded) -> Result<Self, ClusterError> {
        let starting: Vec<_> = founded
            .configs
            .iter()
            .map(|config| {
                tokio::spawn(
                    start_one(config.clone(), founded.genesis.clone()).instrument(node_span(&config.name)),
                )
            })
            .collect();
        let mut cluster = Self { nodes: Vec::new() };
        let mut failed = None;
        for (task, config) in starting.into_iter().zip(&founded.configs) {
            let name = config.name.clone();
            match task.await {
                Ok(Ok(node)) => cluster.nodes.push(Arc::new(node)),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(error) => {
                    failed = failed.or(Some(ClusterError::CutOff { name, reason: error.to_string() }));
                }
            }
        }
        match failed {
            None => Ok(cluster),
            Some(error) => {
                cluster.stop("another node of the devnet failed to start").await;
                Err(error)
            }
        }
    }

    /// The nodes in order.
    pub fn nodes(&self) -> &[Arc<NodeHandle>] {
        &self.nodes
    }

    /// Greatest height of any node.
    pub fn highest(&self) -> u64 {
        self.nodes.iter().map(|node| node.ledger().tip().header.height).max().unwrap_or(0)
    }

    /// Outputs of the payer's keys that nothing spends, in the ledger or in the pool of any node, at most
    /// `max` for each key.
    pub fn coins(&self, keys: &[SecretKey], max: usize) -> Vec<Coin> {
        let Some(node) = self.nodes.first() else { return Vec::new() };
        let is_free =
            |coin: &Coin| self.nodes.iter().all(|node| node.pool().spenders(&coin.outpoint).is_empty());
        let of_key = |(number, key): (usize, &SecretKey)| {
            let unspent = node.ledger().unspent_of(&key.public().key_hash(), max);
            unspent.into_iter().map(move |(outpoint, utxo)| Coin { outpoint, value: utxo.value, key: number })
        };
        keys.iter().enumerate().flat_map(of_key).filter(is_free).collect()
    }

    fn standing(&self) -> Standing {
        let tips: Vec<_> = self.nodes.iter().map(|node| node.ledger().tip()).collect();
        Standing {
            heights: tips.iter().map(|tip| tip.header.height).collect(),
            state_hashes: tips.iter().map(|tip| tip.header.utxo_hash).collect(),
        }
    }

    /// Waits until all nodes are at one height, `least` or above, and returns where they stand: at that
    /// moment, or when patience is over.
    pub async fn agree(&self, least: u64, patience: Duration) -> Standing {
        let until = Instant::now() + patience;
        loop {
            let standing = self.standing();
            let (lowest, highest) = (standing.heights.iter().min(), standing.heights.iter().max());
            if (lowest == highest && lowest.is_some_and(|height| *height >= least)) || Instant::now() >= until
            {
                return standing;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a block above the present ones has taken in every payment that is under way: until all
    /// nodes are at its height and no pool holds anything, or patience is over.
    pub async fn absorb(&self, patience: Duration) {
        let (least, until) = (self.highest() + 1, Instant::now() + patience);
        loop {
            let standing = self.agree(least, until.saturating_duration_since(Instant::now())).await;
            // Looked at before the heights are again: a block that comes in between is waited for too.
            let is_open = self.nodes.iter().any(|node| !node.pool().is_empty());
            let is_settled = !is_open && self.standing().heights == standing.heights;
            if is_settled || Instant::now() >= until {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops all nodes at once, each in its order, and waits for the last.
    pub async fn stop(&self, reason: &str) {
        for node in &self.nodes {
            node.stop(reason);
        }
        for node in &self.nodes {
            let exit = node.stopped().await;
            if exit.code != 0 {
                tracing::error!(node = %node.snapshot().node.name, reason = exit.reason, "a node ended with a fault");
            }
        }
    }

    /// Waits until the last node has stopped, whoever ordered it.
    ///
    /// # Errors
    /// Why those stopped that did not do so by order.
    pub async fn stopped(&self) -> Result<(), String> {
        let mut faults = Vec::new();
        for node in &self.nodes {
            let exit = node.stopped().await;
            if exit.code != 0 {
                faults.push(format!("{}: {}", node.snapshot().node.name, exit.reason));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

async fn start_one(config: Config, genesis: Genesis) -> Result<NodeHandle, ClusterError> {
    let vote_key = Some(keystore::load(&config.vote_key_path(), None)?);
    let network_key = keystore::load(&config.network_key_path(), None)?;
    let name = config.name.clone();
    let options = NodeOptions { config, genesis, network_key, vote_key };
    start(options).await.map_err(|source| ClusterError::Start { name, source })
}
