//! Accepting connections: a permit first, then TLS, then the hello, each within one deadline.

use crate::network::NetworkEvent;
use crate::network::connection;
use crate::network::context::{Context, canonical};
use crate::network::handshake::{self, CloseCode, HANDSHAKE_TIMEOUT, Hello, Refusal};
use crate::network::peers::Peer;
use crate::primitives::message::PeerId;
use quinn::{Connection, Incoming, SendStream};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Handshakes under way at once, before any cryptography is done for them.
const HANDSHAKES_MAX: usize = 64;

/// Accepts connections until shutdown.
pub async fn listen(context: Arc<Context>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
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
        match Arc::clone(&permits).try_acquire_owned() {
            Ok(permit) => {
                context.tasks.spawn(welcome(Arc::clone(&context), incoming, permit).in_current_span());
            }
            Err(_) => {
                tracing::debug!(address = %incoming.remote_address(), "refused: too many handshakes");
                incoming.refuse();
            }
        }
    }
}

async fn welcome(context: Arc<Context>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let address = canonical(incoming.remote_address());
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let connection = match timeout_at(deadline, async { incoming.accept()?.await }).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return report(&context, address, Refusal::of(&error)).await,
        Err(_) => return report(&context, address, too_late()).await,
    };
    let greeted = timeout_at(deadline, greet(&context, &connection)).await;
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
    report(&context, address, refusal).await;
}

/// Receives and checks the hello of a dialler.
async fn greet(context: &Context, connection: &Connection) -> Result<(PeerId, Hello, SendStream), Refusal> {
    let peer = handshake::identify(connection)?;
    let (send, receive) = connection.accept_bi().await.map_err(|error| Refusal::of(&error))?;
    let hello = handshake::receive(receive).await?;
    hello.check(context.chain, context.instance, peer)?;
    Ok((peer, hello, send))
}

fn too_late() -> Refusal {
    let seconds = HANDSHAKE_TIMEOUT.as_secs();
    Refusal::new(CloseCode::HandshakeTimeout, &format!("the handshake took longer than {seconds} s"))
}

/// Tells the node of a refusal, unless it is what happens in every healthy network.
pub async fn report(context: &Context, address: SocketAddr, refusal: Refusal) {
    if matches!(refusal.code, Some(CloseCode::Duplicate | CloseCode::ShuttingDown)) {
        tracing::debug!(%address, reason = %refusal, "connection not kept");
    } else if let Some(room) = context.room().await {
        room.send(NetworkEvent::Refused { address, reason: refusal.text });
    }
}
