//! The network: authenticated QUIC connections between nodes, messages in and out.
//!
//! Everything a node needs is [`Network`] and the events it sends. Who is who is settled by TLS (a peer
//! is its ed25519 key), which network by the hello (the hash of the genesis). Invariants: at most one
//! connection a pair; every queue, frame and list is bounded; sending never blocks and receiving slows
//! the sender down; everything spawned ends with [`Network::shutdown`].
//!
//! In reading order: `wire` (frames, classes), `tls`, `handshake`, `endpoint` (socket), `queue`, `peers`
//! (registry), `tallies` (counts and limits), `pings` (what they measure), `connection` (life of one), `standstill`
//! (was this node away?), `listener`, `dialer`, `members` (links to the committee), `netgroup`, `discovery`
//! (addresses), `endpoints` (where masternodes say they are), `reach` (can others dial this node?), `bans` (scores,
//! who is kept out), `judging`, `governor` (what one peer may send), `router`.
//! Absent: what messages mean, and which peers are members of the committee.

pub mod bans;
pub mod connection;
pub mod context;
pub mod dialer;
pub mod discovery;
pub mod endpoint;
pub mod endpoints;
pub mod governor;
pub mod handshake;
pub mod judging;
pub mod listener;
pub mod members;
pub mod netgroup;
pub mod peers;
pub mod pings;
pub mod queue;
pub mod reach;
pub mod router;
pub mod standstill;
pub mod tallies;
pub mod tls;
pub mod wire;

#[cfg(test)]
mod tests;

use crate::network::bans::{BanCounts, BanNews, Bans};
use crate::network::context::Context;
use crate::network::discovery::{AddressBook, Remembered};
use crate::network::endpoints::Endpoints;
use crate::network::governor::Budgets;
use crate::network::handshake::{AGENT_MAX, CloseCode, NAME_CHARS_MAX, PROTOCOL, VoteCertificate};
use crate::network::members::Member;
use crate::network::peers::{PeerSnapshot, Registry, Terms, Traffic};
use crate::network::reach::{Reach, Reachability};
use crate::network::router::Recipients;
use crate::primitives::chain::NetworkKind;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::ChainId;
use crate::primitives::keys::{PublicKey, SecretKey};
use crate::primitives::message::{Message, PeerId};
use crate::primitives::params::Params;
use arc_swap::ArcSwap;
use dashmap::DashMap;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// How often changed addresses are written to the peers file.
const SAVE_INTERVAL: Duration = Duration::from_secs(60);

/// Longest wait at shutdown for peers to confirm the end of their connections.
const FAREWELL: Duration = Duration::from_millis(300);

/// A peer to stay connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// The only network key to accept there; `None` for any.
    pub key: Option<PublicKey>,
    /// `host:port`, resolved at each try.
    pub address: String,
}

/// Settings of a network.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// UDP address to listen at; port 0 for any free one.
    pub listen: SocketAddr,
    /// Peers to stay connected to.
    pub bootstrap: Vec<Bootstrap>,
    /// Address told to peers; `None` for the listening one as they see it.
    pub advertise: Option<SocketAddr>,
    /// Most connections dialled by peers, those of the committee apart.
    pub inbound_max: usize,
    /// Most of them from one /24 or /64; loopback and the committee are not counted.
    pub of_site_max: usize,
    /// Connections this node dials, bootstrap peers included, while it knows addresses.
    pub outbound_target: usize,
    /// Artificial delay of every message sent, for development networks; zero otherwise.
    pub latency: Duration,
    /// Artificial error of the wall clock towards peers, for tests; zero otherwise.
    pub clock_error_ms: i64,
    /// Where learned addresses are kept between runs.
    pub peers_file: Option<PathBuf>,
    /// What one peer may send.
    pub budgets: Budgets,
    /// Where bans are kept between runs.
    pub bans_file: Option<PathBuf>,
    /// Time between pings.
    pub ping_interval: Duration,
    /// Time between short connections that find out whether a learned address is worth keeping.
    pub feeler_interval: Duration,
    /// Time after the start, and after each round without an answer, until peers are asked to dial back.
    pub probe_delay: Duration,
}

impl NetworkOptions {
    /// The defaults with a listening address.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            bootstrap: Vec::new(),
            advertise: None,
            inbound_max: 117,
            of_site_max: 4,
            outbound_target: 8,
            latency: Duration::ZERO,
            clock_error_ms: 0,
            peers_file: None,
            bans_file: None,
            budgets: Budgets::of(&Params::of(NetworkKind::Mainnet)),
            ping_interval: Duration::from_secs(5),
            feeler_interval: Duration::from_secs(120),
            probe_delay: Duration::from_secs(15),
        }
    }
}

/// Who the node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Key of the transport; its public half is the node's [`PeerId`].
    pub network_key: SecretKey,
    /// Key it votes with, which certifies the network key; `None` for an observer.
    pub vote_key: Option<SecretKey>,
    /// Hash of the genesis.
    pub chain: ChainId,
    /// Name told to peers; cut at 64 characters.
    pub name: String,
    /// Program and version told to peers: at most 256 bytes of printable ASCII.
    pub agent: String,
}

/// What the network tells the node.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all events are messages; a box each would cost more")]
pub enum NetworkEvent {
    /// A peer has passed the handshake. Precedes all its messages.
    Up {
        peer: PeerId,
        /// Vote key that has certified the peer's network key.
        vote_key: Option<PublicKey>,
        address: SocketAddr,
        inbound: bool,
        name: CleanText,
        agent: CleanText,
        height: u64,
    },
    /// Its connection has ended. Follows all its messages and precedes its next `Up`.
    Down { peer: PeerId, address: SocketAddr, reason: CleanText },
    /// A connection was refused by this node or by the other end.
    Refused { address: SocketAddr, reason: CleanText },
    /// Something about bans.
    Bans(BanNews),
    /// This node itself was away for about `lasted`: the process was stopped or starved, or, when `suspended`,
    /// the whole machine. No peer is to blame for what was missed meanwhile.
    StoodStill { lasted: Duration, suspended: bool },
    /// Peers have dialled this node back, or tried to.
    Reachability(Reachability),
    /// A message, decoded and otherwise unchecked.
    Message { peer: PeerId, message: Message },
}

/// Why the network cannot start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The socket could not be opened.
    #[error("cannot listen at udp {address}: {source}; {remedy}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What to do.
        remedy: &'static str,
        source: io::Error,
    },
    /// TLS refused the key.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A bootstrap entry is not `host:port`.
    #[error("bootstrap peer `{0}` is not host:port, for example 203.0.113.5:24000")]
    Bootstrap(CleanText),
    /// The agent cannot be sent.
    #[error("agent `{0}` is not printable ascii of at most {AGENT_MAX} bytes")]
    Agent(CleanText),
    /// The peers file exists and cannot be read.
    #[error("cannot read the peers file {file}: {source}; make it readable or delete it")]
    PeersFile {
        /// The file.
        file: PathBuf,
        source: io::Error,
    },
}

impl NetworkError {
    /// Failure to open the socket, with the remedy.
    #[must_use]
    pub fn listen(address: SocketAddr, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => {
                "another program uses this port: stop it or choose another in the configuration"
            }
            io::ErrorKind::AddrNotAvailable => "no interface of this machine has this address: correct it",
            io::ErrorKind::PermissionDenied => "choose a port above 1023",
            _ if address.is_ipv6() => "correct the address; without ipv6 on this machine listen at 0.0.0.0",
            _ => "correct the listening address in the configuration",
        };
        Self::Listen { address, remedy, source }
    }
}

/// Figures of the network; reading them costs no lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections dialled by peers.
    pub inbound: usize,
    /// Connections dialled by this node.
    pub outbound: usize,
    /// Those of each with members of the committee; the others are observers.
    pub members_in: usize,
    pub members_out: usize,
    /// Bytes of frames received and sent since start, without what QUIC adds.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Messages dropped because a peer was slow or the message too large.
    pub dropped: u64,
    /// How often a peer was slowed down because it sent more than it may.
    pub throttled: u64,
    /// Addresses known.
    pub known_addresses: usize,
    /// Who is kept out.
    pub bans: BanCounts,
}

/// A running network. Dropping it closes all connections at once; [`Network::shutdown`] waits for it.
pub struct Network {
    context: Arc<Context>,
    local: SocketAddr,
}

impl Network {
    /// Opens the socket and starts listening and dialling. `height` is read whenever a peer is told
    /// how far this node is; `events` is bounded by the node and slows peers down when full.
    ///
    /// # Errors
    /// [`NetworkError`] naming the setting and the remedy.
    #[allow(clippy::unused_async, reason = "the callers' contract; it needs a runtime in any case")]
    pub async fn start(
        options: NetworkOptions,
        identity: Identity,
        height: Arc<AtomicU64>,
        events: mpsc::Sender<NetworkEvent>,
    ) -> Result<Self, NetworkError> {
        check(&options, &identity)?;
        let tls = tls::configure(&identity.network_key, PROTOCOL)?;
        let mut remembered = match &options.peers_file {
            Some(file) => discovery::load(file)
                .map_err(|source| NetworkError::PeersFile { file: file.clone(), source })?,
            None => Remembered::default(),
        };
        let endpoint = endpoint::open(options.listen, &tls, &identity.network_key)?;
        let local = endpoint.local_addr().map_err(|source| NetworkError::listen(options.listen, source))?;
        let network_key = identity.network_key.public();
        let sign = |key| VoteCertificate::sign(key, identity.chain, &network_key);
        let context = Arc::new(Context {
            own: PeerId(network_key),
            chain: identity.chain,
            vote: identity.vote_key.as_ref().map(sign),
            name: identity.name.chars().take(NAME_CHARS_MAX).collect(),
            agent: identity.agent,
            instance: rand::random(),
            advertised: options.advertise.unwrap_or(local),
            endpoint,
            client: endpoint::client_config(&tls),
            registry: Registry::new(PeerId(network_key), options.inbound_max, options.of_site_max),
            members: ArcSwap::default(),
            endpoints: Endpoints::new(identity.chain, std::mem::take(&mut remembered.endpoints)),
            reach: Reach::default(),
            book: AddressBook::new(remembered),
            bans: Bans::open(options.bans_file.clone()),
            pins: DashMap::new(),
            traffic: Traffic::default(),
            terms: Terms::new(options.budgets),
            height,
            events,
            wake_pings: watch::Sender::default(),
            wake_dials: watch::Sender::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            options,
        });
        context.tasks.spawn(listener::listen(Arc::clone(&context)).in_current_span());
        context.tasks.spawn(dialer::dial_learned(Arc::clone(&context)).in_current_span());
        context.tasks.spawn(members::dial_members(Arc::clone(&context)).in_current_span());
        context.tasks.spawn(standstill::watch(Arc::clone(&context)).in_current_span());
        let announcing = endpoints::announce(Arc::clone(&context), identity.vote_key);
        context.tasks.spawn(announcing.in_current_span());
        context.tasks.spawn(reach::ask(Arc::clone(&context)).in_current_span());
        context.tasks.spawn(dialer::feel(Arc::clone(&context)).in_current_span());
        for entry in &context.options.bootstrap {
            let keeping = dialer::keep_bootstrap(Arc::clone(&context), entry.clone());
            context.tasks.spawn(keeping.in_current_span());
        }
        context.tasks.spawn(judging::keep_bans(Arc::clone(&context)).in_current_span());
        context.tasks.spawn(keep_addresses(Arc::clone(&context)).in_current_span());
        Ok(Self { context, local })
    }

    /// Who is in the committee and where: its members are dialled and have priority from now on.
    pub fn set_committee(&self, members: Vec<Member>) {
        let keys: BTreeSet<PublicKey> = members.iter().map(|member| member.vote_key).collect();
        self.context.bans.spare(&keys);
        self.context.registry.set_committee(keys);
        self.context.members.store(Arc::new(members));
    }

    /// Which vote keys are in the registry: where these masternodes say they are is kept and relayed.
    pub fn set_registered(&self, keys: BTreeSet<PublicKey>) {
        self.context.endpoints.set_registered(keys, self.context.wall_us() / 1000);
    }

    /// What peers have found that this node asked to dial it back; `None` until some tried.
    #[must_use]
    pub fn reachability(&self) -> Option<Reachability> {
        self.context.reach.found()
    }

    /// Where this masternode or another one says it is reached.
    #[must_use]
    pub fn endpoints_of(&self, key: &PublicKey) -> Vec<SocketAddr> {
        self.context.endpoints.of(key, self.context.wall_us() / 1000)
    }

    /// Queues a message for peers without blocking, encoding it once. What does not fit a peer's queue
    /// is dropped and counted; a peer that falls behind with votes is disconnected.
    pub fn send(&self, to: Recipients, message: &Message) {
        router::send(&self.context, to, message);
    }

    /// Whether a peer has more bulky answers waiting than it reads: to be made no further ones for now.
    #[must_use]
    pub fn is_behind(&self, peer: PeerId) -> bool {
        self.context.registry.live(peer).is_some_and(|peer| peer.is_behind())
    }

    /// Ends the connection to a peer, telling it why. It may come back.
    pub fn disconnect(&self, peer: PeerId, reason: &str) {
        if let Some(peer) = self.context.registry.live(peer) {
            peer.close(CloseCode::Requested, reason);
        }
    }

    /// Figures of the network.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (inbound, outbound) = self.context.registry.counts();
        let (members_in, members_out) = self.context.registry.members();
        Counts {
            inbound,
            outbound,
            members_in,
            members_out,
            bytes_in: self.context.traffic.bytes_in.load(Relaxed),
            bytes_out: self.context.traffic.bytes_out.load(Relaxed),
            dropped: self.context.traffic.dropped.load(Relaxed),
            known_addresses: self.context.book.len(),
            throttled: self.context.traffic.throttled.load(Relaxed),
            bans: self.context.bans.counts(),
        }
    }

    /// Figures of each connection, by network key.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        let mut peers: Vec<_> = self.context.registry.all().iter().map(|peer| peer.snapshot()).collect();
        peers.sort_by_key(|peer| peer.peer);
        peers
    }

    /// The node's network key.
    #[must_use]
    pub fn own(&self) -> PeerId {
        self.context.own
    }

    /// Address the node listens at, with the real port.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Closes all connections with a reason, keeps the addresses, and waits until every task has ended,
    /// peers have been told and the port is free, for at most `deadline`.
    pub async fn shutdown(self, deadline: Duration) {
        let until = Instant::now() + deadline;
        self.close();
        if timeout_at(until, self.context.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.context.tasks.len(), "the network did not stop in time");
        }
        // Connections linger for late packets, long ones if their round trip was never measured; all
        // that matters here is that the farewells have left.
        let farewell = until.min(Instant::now() + FAREWELL);
        let _ = timeout_at(farewell, self.context.endpoint.wait_idle()).await;
        self.release_port();
        let local = self.local;
        drop(self);
        // The transport's own tasks hold the socket and tell nobody when they let go.
        while std::net::UdpSocket::bind(local).is_err() && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Moves what lingers in the transport to another socket; twice, for it keeps the one before.
    fn release_port(&self) {
        let unspecified = if self.local.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        for _ in 0..2 {
            let moved =
                std::net::UdpSocket::bind(unspecified).and_then(|other| self.context.endpoint.rebind(other));
            if let Err(error) = moved {
                tracing::debug!(%error, "the port is released later");
            }
        }
    }

    fn close(&self) {
        // First: `Down` events need no room in a channel the node may have stopped reading.
        self.context.stop.cancel();
        self.context.tasks.close();
        let code = quinn::VarInt::from_u32(CloseCode::ShuttingDown.number());
        self.context.endpoint.close(code, b"shutting down");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.close();
    }
}

fn check(options: &NetworkOptions, identity: &Identity) -> Result<(), NetworkError> {
    for Bootstrap { address: entry, .. } in &options.bootstrap {
        let port = entry.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(NetworkError::Bootstrap(CleanText::limited(entry, 80)));
        }
    }
    let agent = &identity.agent;
    if agent.len() > AGENT_MAX || !agent.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(NetworkError::Agent(CleanText::limited(agent, 80)));
    }
    Ok(())
}

/// Writes changed addresses to the peers file now and then, and at shutdown.
async fn keep_addresses(context: Arc<Context>) {
    let Some(file) = context.options.peers_file.clone() else { return };
    let mut ticks = interval_at(Instant::now() + SAVE_INTERVAL, SAVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let last = tokio::select! {
            () = context.stop.cancelled() => true,
            _ = ticks.tick() => false,
        };
        if let Some(mut remembered) = context.book.unsaved() {
            remembered.endpoints = context.endpoints.all(context.wall_us() / 1000);
            let target = file.clone();
            let saved = tokio::task::spawn_blocking(move || discovery::save(&target, &remembered)).await;
            match saved {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(file = %file.display(), %error, "the peers file was not written");
                }
                Err(error) => tracing::warn!(%error, "writing the peers file failed"),
            }
        }
        if last {
            return;
        }
    }
}
