//! The one place that knows how a chain is founded and a ledger is made in memory.

use crate::keys::Key;
use crate::scenario::{Load, Scenario};
use crate::workload::{Coin, OWNERS};
use masternode::consensus::host::Host;
use masternode::consensus::signer::Signer;
use masternode::ledger::Ledger;
use masternode::ledger::genesis::{Allocation, Founder, Genesis};
use masternode::node::host::ChainHost;
use masternode::pool::{Pool, PoolLimits};
use masternode::primitives::amount::Amount;
use masternode::primitives::block::Header;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{ChainId, MasternodeId};
use masternode::primitives::params::{BLOCK_RESERVE_BYTES, Params};
use masternode::primitives::transaction::OutPoint;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Wall time at which all chains begin.
pub const GENESIS_MS: u64 = 1_700_000_000_000;

/// Coins each owner starts with.
const COINS_EACH: usize = 12;

/// The beginning of a run's chain and who owns what.
pub struct Chain {
    pub genesis: Genesis,
    pub id: ChainId,
    /// Header of the genesis.
    pub header: Header,
    /// Vote keys in the order of the nodes.
    pub keys: Vec<Key>,
    pub owners: Vec<Key>,
    pub coins: Vec<Coin>,
}

impl Chain {
    /// Founds the chain of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let keys: Vec<Key> =
            (0..scenario.nodes()).map(|node| Key::new(scenario.real_keys, "validator", node)).collect();
        let owners: Vec<Key> =
            (0..OWNERS).map(|owner| Key::new(scenario.real_keys, "owner", owner)).collect();
        let masternodes = scenario
            .tiers
            .iter()
            .zip(&keys)
            .enumerate()
            .map(|(node, (tier, key))| Founder {
                name: format!("node {node}"),
                vote_key: key.public(),
                tier: *tier,
                owner: key.public().key_hash(),
                payout: key.public().key_hash(),
            })
            .collect();
        let allocations = (0..OWNERS * COINS_EACH)
            .map(|index| Allocation {
                key_hash: owners[index % OWNERS].public().key_hash(),
                amount: Amount::from_units(1_000_000_000 + index as u64).expect("within range"),
            })
            .collect();
        let genesis = Genesis {
            network: NetworkKind::Devnet,
            name: "simulation".to_owned(),
            time_ms: GENESIS_MS,
            params: params(scenario),
            masternodes,
            allocations,
        };
        genesis.check().expect("the simulation founds a chain by the rules");
        let coins = coins(&genesis, &owners);
        Self { id: genesis.chain_id(), header: genesis.state().header, genesis, keys, owners, coins }
    }

    /// What is locked for each validator at genesis.
    pub fn collaterals(&self) -> BTreeMap<MasternodeId, OutPoint> {
        let state = self.genesis.state();
        state.registry.entries().map(|entry| (entry.id, entry.collateral)).collect()
    }

    /// A ledger and pool at genesis.
    pub fn host(&self) -> ChainHost {
        let ledger = Arc::new(Ledger::in_memory(&self.genesis));
        ChainHost::new(ledger, Arc::new(Pool::new(PoolLimits::default())))
    }
}

fn params(scenario: &Scenario) -> Params {
    // No run fills the window: Byzantine weight is drawn close to a third of all, and the assumption of
    // protocol §10 is a third of what is left when some are jailed.
    let base = Params {
        fast_path: scenario.fast_path,
        expiry_blocks_max: 1000,
        jail_window_blocks: 1000,
        ..Params::of(NetworkKind::Devnet)
    };
    if scenario.load == Load::Light {
        return base;
    }
    Params {
        transaction_bytes_max: 1000,
        era_bytes: 8000,
        era_signatures: 64,
        block_bytes_max: 2 * 8000 + BLOCK_RESERVE_BYTES,
        block_signatures_max: 2 * 64,
        ..base
    }
}

fn coins(genesis: &Genesis, owners: &[Key]) -> Vec<Coin> {
    let owner = |hash| owners.iter().position(|key| key.public().key_hash() == hash);
    let coin = |(outpoint, utxo): (_, masternode::primitives::transaction::Utxo)| {
        Some(Coin { outpoint, value: utxo.value.units(), owner: owner(utxo.key_hash)? })
    };
    genesis.utxos().into_iter().filter_map(coin).collect()
}

/// What hosts in memory are used for here.
pub fn as_host(host: &mut ChainHost) -> &mut dyn Host {
    host
}
