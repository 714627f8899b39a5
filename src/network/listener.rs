//! Accepting connections: a permit first, then TLS, then the hello, each within one deadline.

use crate::network::NetworkEvent;
use crate::network::connection;
use crate::network::context::{Context, canonical};
use crate::network::handshake::{self, CloseCode, HANDSHAKE_TIMEOUT, Hello, Refusal};
use crate::network::judging;
use crate::network::netgroup::Site;
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
/// With fewer permits left, who dials must first show that packets to its address arrive (RFC 9000 §8.1.2):
/// forged addresses then cost a packet each and no permit.
const RETRY_BELOW: usize = HANDSHAKES_MAX / 2;

/// Handshakes under way by site; at most [`HANDSHAKES_MAX`].
type Sites = Arc<Mutex<BTreeMap<Site, usize>>>;

/// The right to a handshake; given back when dropped.
struct Permit {
    _one_of_all: OwnedSemaphorePermit,
    site: Option<Site>,
    sites: Sites,
}

impl Permit {
    /// `None` when too many are under way, in all or from one site.
    fn take(permits: &Arc<Semaphore>, sites: &Sites, ip: IpAddr) -> Option<Self> {
        let one_of_all = Arc::clone(permits).try_acquire_owned().ok()?;
        let site = Site::of(ip);
        if let Some(site) = site {
            let mut sites = sites.lock();
            let count = sites.entry(site).or_default();
            if *count >= OF_SITE_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Self { _one_of_all: one_of_all, site, sites: Arc::clone(sites) })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(site) = self.site else { return };
        let mut sites = self.sites.lock();
        if let Some(count) = sites.get_mut(&site) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                sites.remove(&site);
            }
        }
    }
}

/// Accepts connections until shutdown.
pub async fn listen(context: Arc<Context>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let sites = Sites::default();
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
        if permits.available_permits() < RETRY_BELOW && incoming.may_retry() {
            if let Err(error) = incoming.retry() {
                tracing::debug!(%error, "no retry was sent");
            }
            continue;
        }
        match Permit::take(&permits, &sites, incoming.remote_address().ip()) {
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
        Ok(Err(error)) => return report(&context, address, Refusal::of(&error)).await,
        Err(_) => return report(&context, address, too_late()).await,
    };
    let greeted = timeout_at(deadline, greet(&context, &connection, address)).await;
    // From here to the start of the connection nothing is awaited, so an admitted peer is supervised.
    let refusal = match greeted.unwrap_or_else(|_| Err(too_late())) {
        Ok((id, hello, stream)) => {
            let ended = CancellationToken::new();
            let id = context.registry.identity(id, hello.instance, address);
            let peer = Arc::new(Peer::new(id, &hello, connection.clone(), address, true, ended));
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
