//! What snapshots read of ledger, pool and network: atomics and concurrent maps, never the engine.

use crate::ledger::Ledger;
use crate::network::Network;
use crate::network::reach::Reachability;
use crate::node::assemble::Sources;
use crate::pool::Pool;
use crate::telemetry::reach::ReachInfo;
use crate::telemetry::snapshot::{ChainInfo, PeerInfo, PeersInfo, PoolInfo};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// As it is shown.
#[must_use]
pub fn reach_info(found: Reachability) -> ReachInfo {
    let Reachability { time_ms, port, reached, tried } = found;
    ReachInfo { time_ms, port, reached, tried }
}

/// The parts of a running node.
pub struct NodeSources {
    pub ledger: Arc<Ledger>,
    pub pool: Arc<Pool>,
    /// Weak: the network ends when the node stops, snapshots may go on.
    pub network: Weak<Network>,
    pub inbound_max: u64,
    /// Height up to which the store holds every block.
    pub durable: Arc<AtomicU64>,
}

impl Sources for NodeSources {
    fn chain(&self) -> ChainInfo {
        let tip = self.ledger.tip();
        let header = &tip.header;
        ChainInfo {
            height: header.height,
            block: tip.block,
            block_time_ms: header.time_ms,
            state_hash: header.utxo_hash,
            utxo_count: header.utxo_count,
            supply: header.supply,
            transactions: tip.transactions,
            store_lag: header.height.saturating_sub(self.durable.load(Ordering::Acquire)),
        }
    }

    fn pool(&self, now_us: u64) -> PoolInfo {
        self.pool.pool_info(now_us)
    }

    fn peers(&self) -> PeersInfo {
        let Some(network) = self.network.upgrade() else { return PeersInfo::default() };
        let counts = network.counts();
        let committee = Arc::clone(&self.ledger.tip().next_committee);
        let list = network.peers().into_iter().map(|peer| PeerInfo {
            id: peer.peer.to_string(),
            address: peer.address.to_string().into(),
            inbound: peer.inbound,
            voter: peer.vote_key.and_then(|key| committee.index_of(&key)),
            name: peer.name,
            agent: peer.agent,
            height: peer.height,
            rtt_us: peer.measured.rtt_us,
            jitter_us: peer.measured.jitter_us,
            clock_offset_ms: peer.measured.offset_us.map(|us| us / 1000),
            clock_error_ms: peer.measured.offset_error_us.map(|us| us.div_ceil(1000)),
            bytes_in: peer.bytes_in,
            bytes_out: peer.bytes_out,
            dropped: peer.dropped,
            age_ms: peer.age_ms,
        });
        PeersInfo {
            inbound: counts.inbound as u64,
            outbound: counts.outbound as u64,
            members_in: counts.members_in as u64,
            members_out: counts.members_out as u64,
            inbound_max: self.inbound_max,
            known_addresses: counts.known_addresses as u64,
            reach: network.reachability().map(reach_info),
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            throttled: counts.throttled,
            bans: counts.bans.bans as u64,
            offences: counts.bans.offences,
            automatic_bans: counts.bans.automatic,
            refused_banned: counts.bans.refused,
            ban_breaker_open: counts.bans.breaker_open,
            list: list.collect(),
        }
    }
}
