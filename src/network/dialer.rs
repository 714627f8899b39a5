//! Dialling: bootstrap peers for ever, addresses learned from peers while connections are wanted.
//!
//! Attempts at one address are spaced by an exponential, jittered backoff. A dial that finds its peer
//! already connected ends before the hello; a node that finds itself stops trying.

use crate::network::context::{Context, canonical};
use crate::network::discovery::Connected;
use crate::network::handshake::{self, CloseCode, HANDSHAKE_TIMEOUT, Refusal, close};
use crate::network::judging;
use crate::network::netgroup::Netgroup;
use crate::network::peers::{DialPermit, Peer};
use crate::network::tls::SERVER_NAME;
use crate::network::{Bootstrap, connection, listener};
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use quinn::Connection;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// First pause after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest pause between attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Patience of a first attempt: a peer that is just starting is soon tried afresh.
const FIRST_PATIENCE: Duration = Duration::from_secs(2);
/// Time for a name to resolve.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried in a row.
const RESOLVED_MAX: usize = 8;
/// How often learned addresses are looked through for one that is due.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Learned addresses dialled at once.
const LEARNED_DIALS_MAX: usize = 16;

/// How a dial ended.
pub enum Dialled {
    Connected(Arc<Peer>),
    /// That peer is connected, or becoming so, another way.
    Already(PeerId),
    /// The address is this node's own.
    Itself,
    Failed(Refusal),
}

/// Pause before attempt `failures + 1`.
#[must_use]
pub fn backoff(failures: u32) -> Duration {
    let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(16)).min(BACKOFF_MAX);
    pause.mul_f64(rand::random_range(0.75..1.25))
}

/// Keeps a connection to one bootstrap peer until shutdown.
pub async fn keep_bootstrap(context: Arc<Context>, peer: Bootstrap) {
    let Bootstrap { key, address: entry } = peer;
    let mut failures = 0;
    // What was logged last: a new kind of failure is told, the hundredth of one kind is not.
    let mut told = None;
    let mut awake = context.wake_dials.subscribe();
    while !context.stop.is_cancelled() {
        match dial_name(&context, &entry, key, failures).await {
            Dialled::Connected(peer) => {
                (failures, told) = (0, None);
                wait(&context, peer.gone.cancelled()).await;
            }
            Dialled::Already(id) => {
                (failures, told) = (0, None);
                if let Some(peer) = context.registry.live(id) {
                    wait(&context, peer.gone.cancelled()).await;
                }
            }
            Dialled::Itself => {
                tracing::debug!(%entry, "a bootstrap entry is this node itself");
                return;
            }
            Dialled::Failed(refusal) => {
                if told != Some(refusal.code) {
                    match refusal.code {
                        Some(CloseCode::WrongKey) => {
                            tracing::warn!(%entry, reason = %refusal, "bootstrap peer refused, trying on");
                        }
                        _ => {
                            tracing::info!(%entry, reason = %refusal, "bootstrap peer not reached, trying on");
                        }
                    }
                    told = Some(refusal.code);
                }
                failures = failures.saturating_add(1);
            }
        }
        tokio::select! {
            () = wait(&context, sleep(backoff(failures))) => {}
            // Back from a standstill, or somebody was pardoned.
            _ = awake.changed() => failures = 0,
        }
    }
}

/// Waits for something or for shutdown.
async fn wait(context: &Context, something: impl Future<Output = ()>) {
    tokio::select! {
        () = context.stop.cancelled() => {}
        () = something => {}
    }
}

/// Resolves a name, afresh at each try, and dials its addresses in turn.
async fn dial_name(context: &Arc<Context>, entry: &str, key: Option<PublicKey>, failures: u32) -> Dialled {
    let unresolved = |reason: &dyn std::fmt::Display| {
        Dialled::Failed(Refusal {
            code: None,
            text: format!("`{entry}` cannot be resolved: {reason}").into(),
        })
    };
    let looked_up = tokio::select! {
        () = context.stop.cancelled() => return unresolved(&"shutting down"),
        looked_up = timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(entry)) => looked_up,
    };
    let addresses: Vec<SocketAddr> = match looked_up {
        Ok(Ok(addresses)) => addresses.map(canonical).take(RESOLVED_MAX).collect(),
        Ok(Err(error)) => return unresolved(&error),
        Err(_) => return unresolved(&"no answer"),
    };
    if let Some(key) = key {
        context.pins.insert(entry.to_owned(), (key, addresses.clone()));
    }
    let mut outcome = unresolved(&"no addresses");
    for address in addresses {
        outcome = dial(context, address, key, failures).await;
        if !matches!(outcome, Dialled::Failed(_)) {
            break;
        }
    }
    outcome
}

/// Dials addresses learned from peers while fewer connections are outbound than wanted.
pub async fn dial_learned(context: Arc<Context>) {
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = context.book.wait_for_change() => {}
            () = sleep(LOOK_INTERVAL) => {}
        }
        let (_, outbound) = context.registry.counts();
        let wanted = context.options.outbound_target.saturating_sub(outbound).min(LEARNED_DIALS_MAX);
        let connected = connected(&context);
        for (address, failures) in context.book.take_due(Instant::now(), wanted, &connected) {
            let dial = dial_one_learned(Arc::clone(&context), address, failures);
            context.tasks.spawn(dial.in_current_span());
        }
    }
}

/// The connections there are.
fn connected(context: &Context) -> Connected {
    let mut connected = Connected::default();
    context.registry.for_each(|peer| {
        connected.peers.push((peer.id, peer.found_at()));
        if !peer.inbound {
            connected.groups.insert(Netgroup::of(peer.listen));
        }
    });
    connected
}

/// Now and then finds out whether an address is worth keeping: a connection that ends once the other end has
/// proven its key. So there are tried addresses to turn to when connections are lost, and who fills the book
/// with addresses of nobody loses them again.
pub async fn feel(context: Arc<Context>) {
    let period = context.options.feeler_interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let Some(address) = context.book.take_feeler(Instant::now(), &connected(&context)) else { continue };
        tokio::select! {
            () = context.stop.cancelled() => return,
            found = touch(&context, address) => match found {
                Ok(peer) if peer == context.own => context.book.is_own(address),
                Ok(peer) => context.book.succeeded(address, peer),
                Err(refusal) => {
                    tracing::debug!(%address, reason = %refusal, "nobody at a learned address");
                    context.book.failed(address, Instant::now() + BACKOFF_MAX);
                }
            },
        }
    }
}

/// Connects, learns the key of the other end and takes leave.
async fn touch(context: &Arc<Context>, address: SocketAddr) -> Result<PeerId, Refusal> {
    let connection = connect(context, address, Instant::now() + HANDSHAKE_TIMEOUT).await?;
    let found = handshake::identify(&connection);
    close(&connection, CloseCode::Feeler, "only asking whether a node is here");
    found
}

async fn dial_one_learned(context: Arc<Context>, address: SocketAddr, failures: u32) {
    let key = context.pinned_key(canonical(address));
    let wakes = *context.wake_dials.borrow();
    match dial(&context, address, key, failures).await {
        Dialled::Connected(peer) => context.book.succeeded(address, peer.id),
        Dialled::Already(peer) => context.book.succeeded(address, peer),
        Dialled::Itself => context.book.is_own(address),
        Dialled::Failed(refusal) => {
            tracing::debug!(%address, reason = %refusal, "peer not reached");
            // What failed because this node stood still is no failure of whoever is there.
            let failures = if wakes == *context.wake_dials.borrow() { failures.saturating_add(1) } else { 0 };
            context.book.failed(address, Instant::now() + backoff(failures));
        }
    }
}

/// One attempt at one address, at which only `key` is accepted if there is one.
pub async fn dial(
    context: &Arc<Context>,
    address: SocketAddr,
    key: Option<PublicKey>,
    failures: u32,
) -> Dialled {
    let address = canonical(address);
    let outcome = attempt(context, address, key, failures).await;
    if let Dialled::Failed(refusal) = &outcome
        && refusal.code.is_some_and(|code| code != CloseCode::HandshakeTimeout)
    {
        listener::report(context, address, refusal.clone()).await;
    }
    outcome
}

async fn attempt(
    context: &Arc<Context>,
    address: SocketAddr,
    key: Option<PublicKey>,
    failures: u32,
) -> Dialled {
    if address == canonical(context.advertised) {
        return Dialled::Itself;
    }
    if let Some(second) = context.registry.second_at(address) {
        return Dialled::Already(second);
    }
    if context.bans.refuses_address(address.ip(), true) {
        let text = format!("{address} is banned by the operator").into();
        return Dialled::Failed(Refusal { code: None, text });
    }
    let patience = FIRST_PATIENCE.saturating_mul(1 << failures.min(8)).min(HANDSHAKE_TIMEOUT);
    let deadline = Instant::now() + patience;
    let connection = match connect(context, address, deadline).await {
        Ok(connection) => connection,
        Err(refusal) => return Dialled::Failed(refusal),
    };
    let identified =
        handshake::identify(&connection).and_then(|id| handshake::expect_key(address, key, id).map(|()| id));
    let id = match identified {
        Ok(id) => id,
        Err(refusal) => {
            refusal.close(&connection);
            return Dialled::Failed(refusal);
        }
    };
    if let Err(refusal) = context.bans.admits(&id.0) {
        refusal.close(&connection);
        // This node's own doing is no news.
        return Dialled::Failed(Refusal { code: None, ..refusal });
    }
    let Some(permit) = context.registry.begin_dial(id) else {
        close(&connection, CloseCode::Duplicate, "already connected");
        return Dialled::Already(id);
    };
    let exchanged = timeout_at(deadline, exchange(context, &connection, &permit, address));
    match exchanged.await.unwrap_or_else(|_| Err(unanswered())) {
        Ok(peer) => Dialled::Connected(peer),
        Err(refusal) => {
            refusal.close(&connection);
            match refusal.code {
                Some(CloseCode::Duplicate) => Dialled::Already(id),
                // Only this node itself may say so.
                Some(CloseCode::SelfConnection) if id == context.own => Dialled::Itself,
                Some(CloseCode::Held) => Dialled::Failed(Refusal { code: None, ..refusal }),
                _ => Dialled::Failed(refusal),
            }
        }
    }
}

/// Connects to an address and proves the keys of both ends.
async fn connect(context: &Context, address: SocketAddr, deadline: Instant) -> Result<Connection, Refusal> {
    let fail = |text: String| Refusal { code: None, text: text.into() };
    let begun = Instant::now();
    let target = reachable(context.endpoint.local_addr().ok(), address)
        .ok_or_else(|| fail(format!("{address} cannot be reached from a socket of the other ip version")))?;
    let connecting = context
        .endpoint
        .connect_with(context.client.clone(), target, SERVER_NAME)
        .map_err(|error| fail(format!("{address} cannot be dialled: {error}")))?;
    match timeout_at(deadline, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Refusal::of(&error)),
        Err(_) => {
            let patience = deadline.duration_since(begun).as_secs();
            Err(fail(format!("no answer from {address} within {patience} s")))
        }
    }
}

/// Says hello, hears the answer and enters the connection; nothing is awaited after it is entered.
async fn exchange(
    context: &Arc<Context>,
    connection: &Connection,
    permit: &DialPermit<'_>,
    address: SocketAddr,
) -> Result<Arc<Peer>, Refusal> {
    let (mut send, receive) = connection.open_bi().await.map_err(|error| Refusal::of(&error))?;
    handshake::send(&mut send, &context.hello()).await?;
    let hello = handshake::receive(receive).await?;
    hello
        .check(context.chain, context.instance, permit.peer())
        .inspect_err(|refusal| judging::false_hello(context, permit.peer(), address, refusal))?;
    if let Some(vote) = &hello.vote {
        context.bans.admits_member(&vote.key)?;
    }
    let id = context.registry.identity(permit.peer(), hello.instance, address);
    let ended = CancellationToken::new();
    let mut peer = Peer::new(id, &hello, connection.clone(), address, false, ended, &context.terms);
    // The address that was just reached is better than any claim.
    peer.listen = address;
    let peer = Arc::new(peer);
    let replaced = context.registry.admit_outbound(&peer);
    context.book.reached_at(address, peer.id);
    connection::start(context, Arc::clone(&peer), replaced, None);
    Ok(peer)
}

fn unanswered() -> Refusal {
    Refusal::new(CloseCode::HandshakeTimeout, "the handshake was not answered in time")
}

/// The address in the family of the local socket; `None` when that cannot be.
fn reachable(local: Option<SocketAddr>, address: SocketAddr) -> Option<SocketAddr> {
    match (local?.ip(), address.ip()) {
        (IpAddr::V6(_), IpAddr::V4(ip)) => {
            Some(SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), address.port()))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => None,
        _ => Some(address),
    }
}
