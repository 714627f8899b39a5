//! Life of an accepted connection: its streams, its pings, its end.
//!
//! One supervisor a connection. It tells the node `Up` before the first message and `Down` after the
//! last, and when a connection replaces another of the same peer, the old one's `Down` comes first.
//! One writer and one reader task a stream; a reader waits for room in the node's event channel, which
//! through flow control slows the sender of that class and no other. Messages are decoded and checked
//! for their class here; what they mean is the node's business.

use crate::network::NetworkEvent;
use crate::network::bans::offence::{Charge, Offence};
use crate::network::context::Context;
use crate::network::endpoints;
use crate::network::governor::{Kind, Ruling};
use crate::network::handshake::{self, CloseCode, Hello};
use crate::network::judging;
use crate::network::peers::Peer;
use crate::network::queue::Taken;
use crate::network::reach;
use crate::network::router;
use crate::network::wire::{ADDRESSES_MAX, Class, Control, FRAME_HEADER, FRAME_MAX, FrameError, FrameReader};
use crate::primitives::encoding::decode;
use crate::primitives::message::{ANNOUNCED_MAX, Message};
use bytes::Bytes;
use quinn::{ReadError, RecvStream, SendStream};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// A peer whose transport answers but whose program does not is given up after this, or after four
/// pings if that is longer.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);

/// Starts the life of a connection the registry has admitted. `replaced` is the one it replaces,
/// `reply` the answer still owed to a dialler.
pub fn start(
    context: &Arc<Context>,
    peer: Arc<Peer>,
    replaced: Option<Arc<Peer>>,
    reply: Option<(SendStream, Hello)>,
) {
    let context_of_task = Arc::clone(context);
    context.tasks.spawn(supervise(context_of_task, peer, replaced, reply).in_current_span());
}

async fn supervise(
    context: Arc<Context>,
    peer: Arc<Peer>,
    replaced: Option<Arc<Peer>>,
    reply: Option<(SendStream, Hello)>,
) {
    let tasks = TaskTracker::new();
    tasks.close();
    if let Some((mut stream, hello)) = reply {
        tasks.spawn(async move {
            // A failure here is a lost connection, noticed below.
            if handshake::send(&mut stream, &hello).await.is_ok() {
                let _ = stream.finish();
            }
        });
    }
    if let Some(old) = replaced {
        old.close(CloseCode::Replaced, "replaced by a newer connection of the same peer");
        old.gone.cancelled().await;
    }
    if let Some(room) = context.room().await {
        room.send(NetworkEvent::Up {
            peer: peer.id,
            vote_key: peer.vote_key,
            address: peer.address,
            inbound: peer.inbound,
            name: peer.name.clone(),
            agent: peer.agent.clone(),
            height: peer.height.load(Relaxed),
        });
    }
    for class in Class::ALL {
        tasks.spawn(write(Arc::clone(&context), Arc::clone(&peer), class).in_current_span());
    }
    tasks.spawn(accept_streams(Arc::clone(&context), Arc::clone(&peer), tasks.clone()).in_current_span());
    tasks.spawn(ping(Arc::clone(&context), Arc::clone(&peer)).in_current_span());
    if peer.inbound {
        context.book.hear(&[peer.listen], peer.address.ip());
    } else {
        context.book.dialled(peer.listen);
    }
    introduce(&context, &peer);

    let error = peer.connection.closed().await;
    peer.ended.cancel();
    tasks.wait().await;
    let down = NetworkEvent::Down { peer: peer.id, address: peer.address, reason: peer.end_reason(&error) };
    let room = context.room().await;
    // Told under the registry's guard: nobody can admit the next connection before the node knows.
    context.registry.remove(&peer, || {
        if let Some(room) = room {
            room.send(down);
        }
    });
    peer.gone.cancel();
    // What is connected when the node stops are the anchors of its next start.
    if !peer.inbound && !context.stop.is_cancelled() {
        context.book.lost(peer.listen);
    }
    context.book.changed();
}

/// Tells the peer of other nodes, and the others of the peer, so that a mesh forms within a round trip, and asks it
/// where masternodes are.
fn introduce(context: &Context, peer: &Arc<Peer>) {
    let (mut dialled, mut claimed) = (Vec::new(), Vec::new());
    context.registry.for_each(|other| {
        if other.id != peer.id {
            if other.inbound { &mut claimed } else { &mut dialled }.push(other.listen);
        }
    });
    let addresses = introductions(peer.listen, dialled, context.book.reached(ADDRESSES_MAX), &claimed);
    if !addresses.is_empty() {
        router::control(context, peer, &Control::Peers(addresses));
    }
    router::control(context, peer, &Control::GetEndpoints);
    let news = Control::Peers(vec![peer.listen]);
    for other in context.registry.all() {
        if other.id != peer.id {
            router::control(context, &other, &news);
        }
    }
}

/// What a newcomer at `own` is told, most trusted first: where this node has found peers, and in half of the
/// room at most where those who dialled say they are.
fn introductions(
    own: SocketAddr,
    dialled: Vec<SocketAddr>,
    reached: Vec<SocketAddr>,
    claimed: &[SocketAddr],
) -> Vec<SocketAddr> {
    let claims = claimed.len().min(ADDRESSES_MAX / 2);
    let mut addresses = Vec::new();
    let mut add = |from: &[SocketAddr], most: usize| {
        for address in from {
            if addresses.len() < most && *address != own && !addresses.contains(address) {
                addresses.push(*address);
            }
        }
    };
    add(&dialled, ADDRESSES_MAX - claims);
    add(&reached, ADDRESSES_MAX - claims);
    add(claimed, ADDRESSES_MAX);
    addresses
}

/// Writes what waits in one class, in order, as soon as it may leave.
async fn write(context: Arc<Context>, peer: Arc<Peer>, class: Class) {
    let Ok(mut stream) = peer.connection.open_uni().await else { return };
    let _ = stream.set_priority(class.priority());
    let queue = peer.queue(class);
    if stream.write_chunk(Bytes::copy_from_slice(&[class.byte()])).await.is_err() {
        return;
    }
    loop {
        match queue.take(Instant::now()) {
            Taken::Batch(mut buffers) => {
                let bytes: usize = buffers.iter().map(Bytes::len).sum();
                if stream.write_all_chunks(&mut buffers).await.is_err() {
                    return;
                }
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                peer.bytes_out.fetch_add(bytes, Relaxed);
                context.traffic.bytes_out.fetch_add(bytes, Relaxed);
            }
            Taken::NotBefore(due) => tokio::select! {
                () = peer.ended.cancelled() => return,
                () = sleep_until(due) => {}
            },
            Taken::Nothing => tokio::select! {
                () = peer.ended.cancelled() => return,
                () = queue.arrived() => {}
            },
        }
    }
}

/// Takes the peer's streams, one a class; the transport allows no more.
async fn accept_streams(context: Arc<Context>, peer: Arc<Peer>, tasks: TaskTracker) {
    let seen = Arc::new(AtomicU8::new(0));
    while let Ok(stream) = peer.connection.accept_uni().await {
        let reading = read(Arc::clone(&context), Arc::clone(&peer), Arc::clone(&seen), stream);
        tasks.spawn(reading.in_current_span());
    }
}

/// Reads one stream to the end of the connection.
async fn read(context: Arc<Context>, peer: Arc<Peer>, seen: Arc<AtomicU8>, stream: RecvStream) {
    let mut reader = FrameReader::new(stream, FRAME_MAX);
    let fault = match reader.first_byte().await {
        Ok(Some(byte)) => match Class::from_byte(byte) {
            Some(class) if seen.fetch_or(1 << byte, Relaxed) & (1 << byte) == 0 => {
                match read_class(&context, &peer, class, &mut reader).await {
                    Ok(()) => return,
                    Err(fault) => fault.inside(class),
                }
            }
            Some(class) => {
                BadFrame::sent("stream", format!("bad frame: a second stream of {}", class.name()))
            }
            None => BadFrame::sent("stream", format!("bad frame: a stream of unknown class {byte}")),
        },
        Ok(None) => BadFrame::cut("bad frame: a stream without a class".to_owned()),
        Err(FrameError::Lost(ReadError::ConnectionLost(_))) => return,
        Err(error) => BadFrame::cut(format!("bad frame: {error}")),
    };
    let code = if fault.0.offence == Offence::Flood { CloseCode::Flood } else { CloseCode::BadFrame };
    judging::charge(&context, &peer, code, &fault.0);
}

/// What is wrong with what was read.
struct BadFrame(Charge);

impl BadFrame {
    /// Something no honest peer sends.
    fn sent(kind: &'static str, text: String) -> Self {
        Self(Charge::new(Offence::BadFrame, kind, &text))
    }

    /// A stream that ended early: a process that dies may leave one behind.
    fn cut(text: String) -> Self {
        Self(Charge::new(Offence::Disagreement, "stream", &text))
    }

    /// With the first bytes of the frame.
    fn bytes(self, payload: &[u8]) -> Self {
        Self(self.0.sample(payload))
    }

    /// Said of a stream of this class.
    fn inside(mut self, class: Class) -> Self {
        if self.0.offence == Offence::Flood {
            return self;
        }
        self.0.what = format!("bad frame in {}: {}", class.name(), self.0.what).into();
        self
    }
}

impl From<FrameError> for BadFrame {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong { .. } => Self::sent("frame", error.to_string()),
            FrameError::Cut | FrameError::Lost(_) => Self::cut(error.to_string()),
        }
    }
}

/// Reads the frames of a class; returns what is wrong with them, or nothing when the connection ended
/// or the network shuts down.
async fn read_class(
    context: &Arc<Context>,
    peer: &Arc<Peer>,
    class: Class,
    reader: &mut FrameReader,
) -> Result<(), BadFrame> {
    loop {
        let payload = match reader.next().await {
            Ok(Some(payload)) => payload,
            Ok(None) => return Err(BadFrame::cut("the stream ended before the connection".to_owned())),
            Err(FrameError::Lost(ReadError::ConnectionLost(_))) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let no_message =
            |error: &dyn std::fmt::Display| BadFrame::sent("frame", error.to_string()).bytes(&payload);
        let bytes = u64::try_from(FRAME_HEADER + payload.len()).unwrap_or(u64::MAX);
        peer.bytes_in.fetch_add(bytes, Relaxed);
        context.traffic.bytes_in.fetch_add(bytes, Relaxed);
        if class == Class::Control {
            let control = decode::<Control, FRAME_MAX>(&payload).map_err(|error| no_message(&error))?;
            govern(context, peer, (Kind::Control, 1), payload.len()).await?;
            on_control(context, peer, control).map_err(|error| no_message(&error))?;
            continue;
        }
        let message = decode::<Message, FRAME_MAX>(&payload).map_err(|error| no_message(&error))?;
        if Class::of(&message) != class {
            return Err(BadFrame::sent(message.name(), format!("{} does not belong here", message.name())));
        }
        if let Message::Announce(ids) = &message
            && ids.len() > ANNOUNCED_MAX
        {
            let text = format!("{} announced where {ANNOUNCED_MAX} are allowed", ids.len());
            return Err(BadFrame::sent(message.name(), text));
        }
        let size = payload.len();
        // The frame's memory is not kept while the node is busy.
        drop(payload);
        govern(context, peer, (Kind::of(&message), Kind::units(&message)), size).await?;
        match context.room().await {
            Some(room) => room.send(NetworkEvent::Message { peer: peer.id, message }),
            None => return Ok(()),
        }
    }
}

/// Takes a message from the peer's budget, and its time when there is none left: nothing more of this stream is read
/// meanwhile, and through flow control the peer has to wait.
async fn govern(
    context: &Context,
    peer: &Peer,
    (kind, units): (Kind, u64),
    bytes: usize,
) -> Result<(), BadFrame> {
    let ruling = peer.governor.lock().take_units(kind, units, bytes, Instant::now());
    match ruling {
        Ruling::Fine => Ok(()),
        Ruling::Wait(pause) => {
            context.traffic.throttled.fetch_add(1, Relaxed);
            tokio::select! {
                () = peer.ended.cancelled() => {}
                () = sleep_until(Instant::now() + pause) => {}
            }
            Ok(())
        }
        Ruling::Flood => {
            let text =
                format!("more {} than any honest node sends, also after it was slowed down", kind.name());
            Err(BadFrame(Charge::new(Offence::Flood, kind.name(), &text)))
        }
    }
}

fn on_control(context: &Arc<Context>, peer: &Arc<Peer>, control: Control) -> Result<(), String> {
    match control {
        Control::Ping { number, height } => {
            peer.height.store(height, Relaxed);
            let own_height = context.height.load(Relaxed);
            let pong = Control::Pong { number, height: own_height, wall_ms: context.wall_us() / 1000 };
            router::control(context, peer, &pong);
        }
        Control::Pong { number, height, wall_ms } => {
            peer.height.store(height, Relaxed);
            if let Some(rtt) = peer.pings.lock().answered(number, Instant::now()) {
                let rtt_us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
                // The pong was stamped half a round trip ago, in whole milliseconds.
                let theirs = i128::from(wall_ms) * 1000 + 500 + i128::from(rtt_us / 2);
                let offset = theirs - i128::from(context.wall_us());
                peer.gauge.lock().take(rtt_us, i64::try_from(offset).unwrap_or(i64::MAX));
            }
        }
        Control::Peers(addresses) if addresses.len() > ADDRESSES_MAX => {
            return Err(format!("{} addresses where {ADDRESSES_MAX} are allowed", addresses.len()));
        }
        Control::Peers(addresses) => context.book.hear(&addresses, peer.address.ip()),
        Control::Endpoints(records) => endpoints::on_records(context, peer, &records)?,
        Control::GetEndpoints => endpoints::on_request(context, peer),
        Control::Probe { nonce, port } => reach::on_request(context, peer, nonce, port),
        Control::Probed { nonce, outcome, at } => context.reach.on_answer(peer.id, nonce, outcome, at),
    }
    Ok(())
}

/// Pings at once and then at intervals, and gives up a peer that stops answering.
async fn ping(context: Arc<Context>, peer: Arc<Peer>) {
    let every = context.options.ping_interval.max(Duration::from_millis(1));
    let timeout = PONG_TIMEOUT.max(every.saturating_mul(4));
    let mut awake = context.wake_pings.subscribe();
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = peer.ended.cancelled() => return,
            _ = ticks.tick() => {}
            // The sender lives as long as the context this task holds.
            _ = awake.changed() => {}
        }
        let (number, silent) = peer.pings.lock().sent(Instant::now(), every);
        if silent > timeout {
            peer.close(CloseCode::NoPong, &format!("no pong for {} s", silent.as_secs()));
            return;
        }
        let ping = Control::Ping { number, height: context.height.load(Relaxed) };
        router::control(&context, &peer, &ping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_take_half_of_what_a_newcomer_is_told_at_most_when_others_were_reached() {
        let at = |group: u8| move |n: u8| SocketAddr::from(([198, 51, group, n], 24000));
        let dialled: Vec<_> = (0..4).map(at(1)).collect();
        let reached: Vec<_> = (0..64).map(at(2)).collect();
        let claimed: Vec<_> = (0..117).map(at(3)).collect();
        let own = at(2)(0);
        let told = introductions(own, dialled.clone(), reached.clone(), &claimed);
        let of = |group: u8| {
            told.iter().filter(|address| address.to_string().contains(&format!(".{group}."))).count()
        };
        assert_eq!((told.len(), of(3)), (ADDRESSES_MAX, ADDRESSES_MAX / 2));
        assert!(dialled.iter().all(|address| told.contains(address)) && !told.contains(&own));
        // A few claims of honest newcomers are told beside whatever was reached.
        let told = introductions(own, dialled, reached, &claimed[..2]);
        assert_eq!(told.len(), ADDRESSES_MAX);
        assert!(claimed[..2].iter().all(|address| told.contains(address)));
    }
}
