//! Sending: whom a message is for, encoded once for all of them, never blocking.

use crate::network::context::Context;
use crate::network::governor::Kind;
use crate::network::peers::Peer;
use crate::network::wire::{Class, Control, frame};
use crate::primitives::message::{Message, PeerId};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every connected peer.
    All,
    /// Every connected peer but one.
    AllExcept(PeerId),
    /// One peer; nobody if it is not connected.
    Peer(PeerId),
}

/// Queues a message. What does not fit a peer's queue is dropped and counted.
pub fn send(context: &Context, to: Recipients, message: &Message) {
    let frame = match frame(message) {
        Ok(frame) => frame,
        Err(error) => {
            context.traffic.dropped.fetch_add(1, Relaxed);
            tracing::error!(kind = message.name(), %error, "message not sent");
            return;
        }
    };
    let class = Class::of(message);
    let due = context.due();
    let is_question = Kind::of(message) == Kind::Requests;
    let push = |peer: &Arc<Peer>| {
        if is_question {
            peer.governor.lock().asked(message);
        }
        if !peer.push(class, frame.clone(), due) {
            context.traffic.dropped.fetch_add(1, Relaxed);
        }
    };
    match to {
        Recipients::All => context.registry.for_each(push),
        Recipients::AllExcept(except) => context.registry.for_each(|peer| {
            if peer.id != except {
                push(peer);
            }
        }),
        Recipients::Peer(peer) => {
            if let Some(peer) = context.registry.live(peer) {
                push(&peer);
            }
        }
    }
}

/// Queues a message of the network itself for one peer.
pub fn control(context: &Context, peer: &Arc<Peer>, control: &Control) {
    let queued = frame(control).is_ok_and(|frame| peer.push(Class::Control, frame, context.due()));
    if !queued {
        context.traffic.dropped.fetch_add(1, Relaxed);
    }
}
