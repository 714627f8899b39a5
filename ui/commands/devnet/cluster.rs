//! The nodes of a devnet: started together, compared with each other, stopped in order.

use crate::commands::devnet::founding::Founded;
use crate::commands::devnet::payer::Entrance;
use crate::commands::devnet::purse::Coin;
use masternode::config::Config;
use masternode::ledger::genesis::Genesis;
use masternode::node::handle::NodeHandle;
use masternode::node::start::{NodeError, NodeOptions, start};
use masternode::primitives::hash::Hash;
use masternode::primitives::keys::SecretKey;
use masternode::primitives::transaction::SharedTransaction;
use masternode::wallet::keystore::{self, KeystoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            .map(|config| tokio::spawn(start_one(config.clone(), founded.genesis.clone())))
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

    /// Unspent outputs of the payer's keys, at most `max` for each.
    pub fn coins(&self, keys: &[SecretKey], max: usize) -> Vec<Coin> {
        let Some(node) = self.nodes.first() else { return Vec::new() };
        let of_key = |(number, key): (usize, &SecretKey)| {
            let unspent = node.ledger().unspent_of(&key.public().key_hash(), max);
            unspent.into_iter().map(move |(outpoint, utxo)| Coin { outpoint, value: utxo.value, key: number })
        };
        keys.iter().enumerate().flat_map(of_key).collect()
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

    /// Stops all nodes at once, each in its order, and waits for the last.
    pub async fn stop(&self, reason: &str) {
        for node in &self.nodes {
            node.stop(reason);
        }
        for node in &self.nodes {
            let exit = node.stopped().await;
            if exit.code != 0 {
                tracing::error!(node = ?node, reason = exit.reason, "a node ended with a fault");
            }
        }
    }
}

async fn start_one(config: Config, genesis: Genesis) -> Result<NodeHandle, ClusterError> {
    let vote_key = Some(keystore::load(&config.vote_key_path(), None)?);
    let network_key = keystore::load(&config.network_key_path(), None)?;
    let name = config.name.clone();
    let options = NodeOptions { config, genesis, network_key, vote_key };
    start(options).await.map_err(|source| ClusterError::Start { name, source })
}
