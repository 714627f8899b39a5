//! From the configuration to the settings of the parts.

use crate::config::Config;
use crate::consensus::timing::Timing;
use crate::network::governor::Budgets;
use crate::network::{Bootstrap, NetworkOptions};
use crate::node::space::SpaceLimits;
use crate::pool::PoolLimits;
use crate::primitives::params::Params;
use std::time::Duration;

/// Timers of the machine.
#[must_use]
pub fn timing(config: &Config) -> Timing {
    let timers = &config.consensus;
    let us = |ms: u64| ms.saturating_mul(1000);
    Timing {
        era_us: us(timers.era_ms),
        tick_us: us(timers.tick_ms),
        grace_us: us(timers.grace_ms),
        propose_us: us(timers.propose_ms),
        propose_step_us: us(timers.propose_step_ms),
        prevote_us: us(timers.prevote_ms),
        prevote_step_us: us(timers.prevote_step_ms),
        precommit_us: us(timers.precommit_ms),
        precommit_step_us: us(timers.precommit_step_ms),
        skew_ms: timers.skew_ms,
        ..Timing::of(config.network)
    }
}

/// Bounds of the pool.
#[must_use]
pub fn pool_limits(config: &Config) -> PoolLimits {
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    PoolLimits {
        transactions_max: size(config.pool.transactions_max),
        bytes_max: config.pool.bytes_max,
        orphans_max: size(config.pool.orphans_max),
        ..PoolLimits::default()
    }
}

/// Settings of the network with these parameters.
#[must_use]
pub fn network_options(config: &Config, params: &Params) -> NetworkOptions {
    let p2p = &config.p2p;
    let bootstrap = p2p.bootstrap.iter().map(|peer| Bootstrap {
        key: peer.key,
        address: match peer.host.contains(':') {
            true => format!("[{}]:{}", peer.host, peer.port),
            false => format!("{}:{}", peer.host, peer.port),
        },
    });
    NetworkOptions {
        bootstrap: bootstrap.collect(),
        advertise: p2p.advertise,
        inbound_max: p2p.inbound_max as usize,
        of_site_max: p2p.inbound_of_network_max as usize,
        outbound_target: p2p.outbound_target as usize,
        latency: Duration::from_millis(p2p.latency_ms),
        peers_file: Some(config.peers_path()),
        bans_file: Some(config.bans_path()),
        budgets: Budgets::of(params),
        ping_interval: Duration::from_secs(p2p.ping_interval_s.max(1)),
        ..NetworkOptions::new(p2p.listen)
    }
}

/// Free space below which something happens.
#[must_use]
pub fn space_limits(config: &Config) -> SpaceLimits {
    let storage = &config.storage;
    SpaceLimits {
        warn_bytes: storage.free_warn_bytes,
        vote_bytes: storage.free_vote_bytes,
        stop_bytes: storage.free_stop_bytes,
    }
}
