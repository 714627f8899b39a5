//! What every task of the network shares, and the clock they read.

use crate::network::bans::Bans;
use crate::network::discovery::AddressBook;
use crate::network::endpoints::Endpoints;
use crate::network::handshake::{Hello, PROTOCOL_VERSION, VoteCertificate};
use crate::network::members::Member;
use crate::network::peers::{Registry, Terms, Traffic};
use crate::network::reach::Reach;
use crate::network::{NetworkEvent, NetworkOptions};
use crate::primitives::hash::ChainId;
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use arc_swap::ArcSwap;
use dashmap::DashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::Permit;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// State shared by the tasks of one network.
pub struct Context {
    pub own: PeerId,
    pub chain: ChainId,
    pub vote: Option<VoteCertificate>,
    pub name: String,
    pub agent: String,
    /// Random number of this process.
    pub instance: u64,
    /// Where peers are told to find this node.
    pub advertised: SocketAddr,
    pub options: NetworkOptions,
    pub endpoint: quinn::Endpoint,
    pub client: quinn::ClientConfig,
    pub registry: Registry,
    pub book: AddressBook,
    pub bans: Bans,
    /// The committee.
    pub members: ArcSwap<Vec<Member>>,
    /// Where the keyed entries of `bootstrap` were found last, by `host:port`: no other key is accepted
    /// there. Bounded by the entries, each with the addresses of one look-up.
    pub pins: DashMap<String, (PublicKey, Vec<SocketAddr>)>,
    /// Where masternodes say they are.
    pub endpoints: Endpoints,
    /// Whether this node is reached.
    pub reach: Reach,
    pub traffic: Traffic,
    /// What every connection is subject to.
    pub terms: Terms,
    /// Height of the node's last decided block.
    pub height: Arc<AtomicU64>,
    pub events: mpsc::Sender<NetworkEvent>,
    /// Counts up when every peer is to be pinged at once: their clocks are read anew.
    pub wake_pings: watch::Sender<u64>,
    /// Counts up when no dial waits any longer: what failed while this node was away says nothing.
    pub wake_dials: watch::Sender<u64>,
    pub tasks: TaskTracker,
    /// Cancelled when the network shuts down.
    pub stop: CancellationToken,
}

impl Context {
    /// What this node says of itself now.
    #[must_use]
    pub fn hello(&self) -> Hello {
        Hello {
            version: PROTOCOL_VERSION,
            chain: self.chain,
            instance: self.instance,
            agent: self.agent.clone(),
            name: self.name.clone(),
            listen: self.advertised,
            height: self.height.load(Relaxed),
            wall_ms: self.wall_us() / 1000,
            vote: self.vote.clone(),
        }
    }

    /// Microseconds since 1970 as this node tells peers and compares with theirs.
    #[must_use]
    pub fn wall_us(&self) -> u64 {
        wall_us().saturating_add_signed(self.options.clock_error_ms.saturating_mul(1000))
    }

    /// The only key accepted at an address, if a bootstrap entry names one.
    #[must_use]
    pub fn pinned_key(&self, address: SocketAddr) -> Option<PublicKey> {
        let at = |pin: &(PublicKey, Vec<SocketAddr>)| pin.1.contains(&address).then_some(pin.0);
        self.pins.iter().find_map(|pin| at(pin.value()))
    }

    /// Whether a member of the committee or a bootstrap peer is known to be at an address.
    #[must_use]
    pub fn knows(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let at = |address: &SocketAddr| address.ip().to_canonical() == ip;
        self.members.load().iter().any(|member| member.endpoint.as_ref().is_some_and(at))
            || self.pins.iter().any(|pin| pin.value().1.iter().any(at))
            || self
                .options
                .bootstrap
                .iter()
                .filter_map(|peer| peer.address.parse().ok())
                .any(|peer| at(&peer))
    }

    /// Room for one event, waited for as long as the node is slow; `None` at shutdown.
    pub async fn room(&self) -> Option<Permit<'_, NetworkEvent>> {
        tokio::select! {
            biased;
            room = self.events.reserve() => room.ok(),
            () = self.stop.cancelled() => None,
        }
    }

    /// When a frame queued now may leave; `None` for at once.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        (!self.options.latency.is_zero()).then(|| Instant::now() + self.options.latency)
    }
}

/// Microseconds since 1970 by the wall clock.
#[must_use]
pub fn wall_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX))
}

/// An address as people write it: IPv4 is IPv4 even when a dual-stack socket saw it as IPv6.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
