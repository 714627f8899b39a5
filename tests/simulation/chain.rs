//! The one place that knows how a chain is founded and a ledger is made in memory.

use crate::keys::Key;
use crate::registry::Masternode;
use crate::scenario::{Load, Mutant, Scenario};
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
use masternode::primitives::hash::ChainId;
use masternode::primitives::keys::PublicKey;
use masternode::primitives::params::{BLOCK_RESERVE_BYTES, Params};
use masternode::primitives::tier::Tier;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
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
    mutant: Mutant,
    /// Tiers of the validators.
    pub tiers: Vec<Tier>,
    /// Keys of masternodes that have no machine.
    pub ghosts: Vec<Key>,
    /// The vote keys that may follow the first ones.
    next_keys: Vec<Key>,
    /// Whose key each is, later ones included; of a directory and its copy, the original's.
    nodes: BTreeMap<PublicKey, usize>,
    /// What those who are registered later pay their collateral with, by their first key.
    pub collateral_coins: BTreeMap<PublicKey, Coin>,
}

/// Where a validator says that it is reached.
pub fn endpoint(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4000 + u16::try_from(node).expect("few")))
}

impl Chain {
    /// Founds the chain of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        let key = |owner, index| Key::new(scenario.real_keys, owner, index);
        let original = |node| scenario.copied_from(node).unwrap_or(node);
        let keys: Vec<Key> = (0..scenario.nodes()).map(|node| key("validator", original(node))).collect();
        let unrest = scenario.unrest.as_ref();
        let next_keys: Vec<Key> =
            (0..unrest.map_or(0, |_| scenario.tiers.len())).map(|node| key("next validator", node)).collect();
        let ghosts: Vec<Key> =
            (0..unrest.map_or(0, |unrest| unrest.ghosts)).map(|ghost| key("ghost", ghost)).collect();
        let owners: Vec<Key> =
            (0..OWNERS).map(|owner| Key::new(scenario.real_keys, "owner", owner)).collect();
        let masternodes = scenario
            .tiers
            .iter()
            .take(scenario.founders)
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
        let money = (0..OWNERS * COINS_EACH).map(|index| Allocation {
            key_hash: owners[index % OWNERS].public().key_hash(),
            amount: Amount::from_units(1_000_000_000 + index as u64).expect("within range"),
        });
        let joiners: Vec<(PublicKey, Tier)> = (scenario.founders..scenario.tiers.len())
            .map(|node| (keys[node].public(), scenario.tiers[node]))
            .chain(ghosts.iter().map(|key| (key.public(), Tier::Bronze)))
            .collect();
        let collaterals = joiners.iter().map(|(key, tier)| Allocation {
            key_hash: key.key_hash(),
            amount: Amount::from_units(tier.collateral().units() + 10_000).expect("within range"),
        });
        let allocations = money.chain(collaterals).collect();
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
        let all = keys.iter().enumerate().chain(next_keys.iter().enumerate()).rev();
        Self {
            id: genesis.chain_id(),
            header: genesis.state().header,
            nodes: all.map(|(node, key)| (key.public(), node)).collect(),
            collateral_coins: collateral_coins(&genesis, &joiners),
            mutant: scenario.mutant,
            tiers: scenario.tiers.clone(),
            genesis,
            keys,
            next_keys,
            ghosts,
            owners,
            coins,
        }
    }

    /// The validator that a vote key is or will be of.
    pub fn node_of(&self, key: &PublicKey) -> Option<usize> {
        self.nodes.get(key).copied()
    }

    /// The vote key a validator may get.
    pub fn next_key(&self, node: usize) -> Key {
        self.next_keys[node].clone()
    }

    /// The masternodes the chain begins with.
    pub fn founders(&self) -> Vec<Masternode> {
        let state = self.genesis.state();
        let founder = |entry: &masternode::ledger::registry::Entry| Masternode {
            id: entry.id,
            name: entry.name.clone(),
            vote_key: entry.vote_key,
            weight: entry.tier.weight(),
            status: entry.status,
            sequence: 0,
            collateral: entry.collateral,
            payout: entry.payout,
            endpoint: entry.endpoint,
            resumed: None,
            signed: VecDeque::new(),
        };
        state.registry.entries().map(founder).collect()
    }

    /// A ledger and pool at genesis.
    pub fn host(&self) -> ChainHost {
        let ledger = Arc::new(Ledger::in_memory(&self.genesis));
        if let Mutant::Registry(bug) = self.mutant {
            ledger.plant(bug);
        }
        ChainHost::new(ledger, Arc::new(Pool::new(PoolLimits::default())))
    }
}

fn params(scenario: &Scenario) -> Params {
    // No run fills the window, unless it is about that: Byzantine weight is drawn close to a third of all,
    // and the assumption of protocol §10 is a third of what is left when some are jailed.
    let mut base = Params {
        fast_path: scenario.fast_path,
        expiry_blocks_max: 1000,
        jail_window_blocks: 1000,
        ..Params::of(NetworkKind::Devnet)
    };
    if let Some(unrest) = &scenario.unrest {
        base.jail_window_blocks = unrest.jail_window;
        base.jail_cap_percent = unrest.jail_cap;
        base.resume_interval_blocks = unrest.resume_interval;
        base.unbonding_ms = unrest.unbonding_ms;
        base.trust_ms = base.trust_ms.min(unrest.unbonding_ms - 1);
    }
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

fn collateral_coins(genesis: &Genesis, joiners: &[(PublicKey, Tier)]) -> BTreeMap<PublicKey, Coin> {
    if joiners.is_empty() {
        return BTreeMap::new();
    }
    let coin = |(outpoint, utxo): (_, masternode::primitives::transaction::Utxo)| {
        let (key, _) = joiners.iter().find(|(key, _)| key.key_hash() == utxo.key_hash)?;
        Some((*key, Coin { outpoint, value: utxo.value.units(), owner: 0 }))
    };
    genesis.utxos().into_iter().filter_map(coin).collect()
}

/// What hosts in memory are used for here.
pub fn as_host(host: &mut ChainHost) -> &mut dyn Host {
    host
}
