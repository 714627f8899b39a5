//! Accepting connections: a permit first, then TLS, then the hello, each within one deadline.

use crate::network::NetworkEvent;
use crate::network::connection;
use crate::network::context::{Context, canonical};
use crate::network::handshake::{self, CloseCode, HANDSHAKE_TIMEOUT, Hello, Refusal};
use crate::network::judging;
use crate::network::netgroup::{Netgroup, Site};
use crate::network::peers::Peer;
use crate::primitives::message::PeerId;
use parking_lot::Mutex;
use quinn::{Connection, Incoming, SendStream};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Handshakes under way at once, before any cryptography is done for them.
const HANDSHAKES_MAX: usize = 64;
/// Of those from one /24 or /64; loopback is not counted.
const OF_SITE_MAX: usize = 8;
/// Of those from one /16 or /32, which hold thousands of sites and may have one owner.
const OF_GROUP_MAX: usize = HANDSHAKES_MAX / 2;
/// Handshakes besides, for addresses at which the committee or a bootstrap peer is: strangers who fill all
/// others keep no validator out.
const RESERVED: usize = 32;
/// With fewer permits left, who dials must first show that packets to its address arrive (RFC 9000 §8.1.2):
/// forged addresses then cost a packet each and no permit.
const RETRY_BELOW: usize = HANDSHAKES_MAX / 2;

/// Handshakes under way by origin; at most [`HANDSHAKES_MAX`] of each kind.
#[derive(Default)]
struct Origins {
    sites: BTreeMap<Site, usize>,
    groups: BTreeMap<Netgroup, usize>,
}

/// What handshakes there may be.
struct Gate {
    permits: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    origins: Arc<Mutex<Origins>>,
}

/// The right to a handshake; given back when dropped.
struct Permit {
    _one_of_all: OwnedSemaphorePermit,
    counted: Option<(Site, Netgroup, Arc<Mutex<Origins>>)>,
}

impl Gate {
    fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            reserved: Arc::new(Semaphore::new(RESERVED)),
            origins: Arc::default(),
        }
    }

    /// Whether who comes must first show that packets to its address arrive.
    fn is_busy(&self) -> bool {
        self.permits.available_permits() < RETRY_BELOW
    }

    /// `None` when too many are under way, in all or from one site or group.
    fn admit(&self, ip: IpAddr) -> Option<Permit> {
        let one_of_all = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let Some(site) = Site::of(ip) else {
            return Some(Permit { _one_of_all: one_of_all, counted: None });
        };
        let group = Netgroup::of(SocketAddr::new(ip, 0));
        let mut origins = self.origins.lock();
        let of_site = origins.sites.get(&site).copied().unwrap_or_default();
        let of_group = origins.groups.get(&group).copied().unwrap_or_default();
        if of_site >= OF_SITE_MAX || of_group >= OF_GROUP_MAX {
            return None;
        }
        *origins.sites.entry(site).or_default() += 1;
        *origins.groups.entry(group).or_default() += 1;
        let counted = Some((site, group, Arc::clone(&self.origins)));
        Some(Permit { _one_of_all: one_of_all, counted })
    }

    /// One of those kept for who is known to be where it comes from.
    fn admit_known(&self) -> Option<Permit> {
        let one_of_all = Arc::clone(&self.reserved).try_acquire_owned().ok()?;
        Some(Permit { _one_of_all: one_of_all, counted: None })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((site, group, origins)) = &self.counted else { return };
        let mut origins = origins.lock();
        give_back(&mut origins.sites, site);
        give_back(&mut origins.groups, group);
    }
}

fn give_back<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Accepts connections until shutdown.
pub async fn listen(context: Arc<Context>) {
    let gate = Gate::new();
    loop {
        let incoming = tokio::select! {
            () = context.stop.cancelled() => return,
            incoming = context.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else {
            if !context.stop.is_cancelled() {
                tracing::error!(address = %context.options.listen, "the socket failed: no peer can connect");
            }
            return;
        };
        // Before anything is spent on it.
        if context.bans.refuses_address(incoming.remote_address().ip(), false) {
            tracing::debug!(address = %incoming.remote_address(), "refused: the address is banned");
            incoming.refuse();
            continue;
        }
        if gate.is_busy() && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "no retry was sent");
            }
            continue;
        }
        let ip = incoming.remote_address().ip();
        let known = || incoming.remote_address_validated() && context.knows(ip);
        match gate.admit(ip).or_else(|| known().then(|| gate.admit_known()).flatten()) {
            Some(permit) => {
                context.tasks.spawn(welcome(Arc::clone(&context), incoming, permit).in_current_span());
            }
            None => {
                tracing::debug!(address = %incoming.remote_address(), "refused: too many handshakes");
                incoming.refuse();
            }
        }
    }
}

async fn welcome(context: Arc<Context>, incoming: Incoming, permit: Permit) {
    let address = canonical(incoming.remote_address());
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let connection = match timeout_at(deadline, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => connection,
        failed => {
            drop(permit);
            let refusal = failed.map_or_else(
                |_| too_late(),
                |failed| failed.map_or_else(|error| Refusal::of(&error), |_| too_late()),
            );
            return report(&context, address, refusal).await;
        }
    };
    let greeted = timeout_at(deadline, greet(&context, &connection, address)).await;
    // From here to the start of the connection nothing is awaited, so an admitted peer is supervised.
    let refusal = match greeted.unwrap_or_else(|_| Err(too_late())) {
        Ok((id, hello, stream)) => {
            let ended = CancellationToken::new();
            let id = context.registry.identity(id, hello.instance, address);
            let peer = Peer::new(id, &hello, connection.clone(), address, true, ended, &context.terms);
            let peer = Arc::new(peer);
            match context.registry.admit_inbound(&peer) {
                Ok(replaced) => {
                    let reply = Some((stream, context.hello()));
                    return connection::start(&context, peer, replaced, reply);
                }
                Err(refusal) => refusal,
            }
        }
        Err(refusal) => refusal,
    };
    refusal.close(&connection);
    drop(permit);
    match refusal.code {
        // How often somebody who is banned comes is for it to choose.
        Some(CloseCode::Banned | CloseCode::Held) => {
            tracing::debug!(%address, reason = %refusal, "connection refused");
        }
        _ => report(&context, address, refusal).await,
    }
}

/// Receives and checks the hello of a dialler.
async fn greet(
    context: &Context,
    connection: &Connection,
    address: SocketAddr,
) -> Result<(PeerId, Hello, SendStream), Refusal> {
    let peer = handshake::identify(connection)?;
    context.bans.admits(&peer.0)?;
    let (send, receive) = connection.accept_bi().await.map_err(|error| Refusal::of(&error))?;
    let hello = handshake::receive(receive).await?;
    hello
        .check(context.chain, context.instance, peer)
        .inspect_err(|refusal| judging::false_hello(context, peer, address, refusal))?;
    if let Some(vote) = &hello.vote {
        context.bans.admits_member(&vote.key)?;
    }
    Ok((peer, hello, send))
}

fn too_late() -> Refusal {
    let seconds = HANDSHAKE_TIMEOUT.as_secs();
    Refusal::new(CloseCode::HandshakeTimeout, &format!("the handshake took longer than {seconds} s"))
}

/// Tells the node of a refusal, unless it is what happens in every healthy network.
pub async fn report(context: &Context, address: SocketAddr, refusal: Refusal) {
    if matches!(
        refusal.code,
        Some(CloseCode::Duplicate | CloseCode::ShuttingDown | CloseCode::Feeler | CloseCode::Held)
    ) {
        tracing::debug!(%address, reason = %refusal, "connection not kept");
    } else if let Some(room) = context.room().await {
        room.send(NetworkEvent::Refused { address, reason: refusal.text });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: String) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_site_and_no_group_takes_every_handshake_and_who_is_known_has_some_of_its_own() {
        let gate = Gate::new();
        let of_site: Vec<_> = (0..20).filter_map(|n| gate.admit(ip(format!("2001:db8::{n}")))).collect();
        assert_eq!(of_site.len(), OF_SITE_MAX);
        let of_group: Vec<_> =
            (1..100).filter_map(|n| gate.admit(ip(format!("2001:db8:0:{n}::1")))).collect();
        assert_eq!(of_site.len() + of_group.len(), OF_GROUP_MAX);
        assert!(gate.is_busy() || gate.permits.available_permits() == RETRY_BELOW);
        let others: Vec<_> = (1..100).filter_map(|n| gate.admit(ip(format!("198.{n}.100.1")))).collect();
        assert_eq!(others.len(), HANDSHAKES_MAX - OF_GROUP_MAX);
        assert!(gate.admit(ip("127.0.0.1".to_owned())).is_none(), "all are taken");
        let known: Vec<_> = (0..100).filter_map(|_| gate.admit_known()).collect();
        assert_eq!(known.len(), RESERVED);
        drop((of_site, of_group, others, known));
        let origins = gate.origins.lock();
        assert!(origins.sites.is_empty() && origins.groups.is_empty(), "all were given back");
    }
}
