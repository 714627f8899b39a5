//! Pulls the headers between this node's tip and the trusted block, from one peer at a time.
//!
//! Also compares the trusted block with what the database has, at the start.
//!
//! Every header is fixed by the hash in the one above it, so no peer is believed and what one sent is good
//! for the next; a peer that sends something else is cut off, one that sends nothing loses the pull, and
//! others go before it for a while, however often it says that it is ahead. Time is an argument.

use crate::consensus::input::Input;
use crate::consensus::trust::{Route, RouteFault};
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::network::bans::offence::{Charge, Offence};
use crate::node::served::Send;
use crate::node::verify::OnFault;
use crate::primitives::block::Header;
use crate::primitives::hash::BlockId;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::trusted::TrustedHeader;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How long a peer may take for an answer before another one gets the pull, in microseconds.
const ANSWER_US: u64 = 2_000_000;
/// How long others go before who did not answer when the pull is to be had, in microseconds: everybody says
/// once a second that it is ahead.
const OTHERS_US: u64 = 2_000_000;
/// For how long others go before it, in microseconds.
const LATE_US: u64 = 600_000_000;
/// Peers remembered for that; more are not connected.
const LATE_MAX: usize = 4096;
/// How long a pull is kept that the machine does not wish for any more, in microseconds.
const KEPT_US: u64 = 60_000_000;

/// Why a node does not start with its trusted block.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(
        "the trusted block is {trusted}, and the database in {folder} has block {found} at that height: compare the id \
         with other operators; if trusted_block in [sync] is right, move {folder} away and start again; if not, correct it",
        folder = folder.display()
    )]
    OtherBlock { trusted: TrustedHeader, found: BlockId, folder: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether the chain as stored passes through the trusted block, or has not come there.
///
/// # Errors
/// [`TrustError`].
pub fn check_stored(store: &Store, trusted: Option<TrustedHeader>) -> Result<(), TrustError> {
    let Some(trusted) = trusted else { return Ok(()) };
    match store.header(trusted.height)?.map(|header| header.id()) {
        Some(found) if found != trusted.id => {
            Err(TrustError::OtherBlock { trusted, found, folder: store.dir().to_owned() })
        }
        _ => Ok(()),
    }
}

/// The charge for headers that do not lead to the trusted block. Which way that is may be this node's error, and they
/// may be the late answer to an earlier question; that each follows from the one before is the sender's to see to.
#[must_use]
pub fn false_headers(headers: &[Header], fault: &RouteFault) -> Charge {
    let linked = headers
        .iter()
        .zip(headers.iter().skip(1))
        .all(|(one, next)| next.previous == one.id() && Some(next.height) == one.height.checked_add(1));
    let offence = if linked { Offence::Disagreement } else { Offence::FalseHeaders };
    let height = headers.last().map_or(0, |header| header.height);
    Charge::new(offence, "headers", &fault.to_string()).height(height)
}

/// The pull, if one is under way. Bounded by the length of a [`Route`].
#[derive(Debug, Default)]
pub struct RoutePull {
    active: Option<Active>,
    /// Since when nobody has been pulled from.
    free_us: u64,
    wanted_us: u64,
    /// Who did not bring what it was asked for, and until when that counts.
    late: BTreeMap<PeerId, u64>,
}

#[derive(Debug)]
struct Active {
    /// `None` when the peer has gone or does not answer: the next wish takes it over.
    peer: Option<PeerId>,
    asked_us: u64,
    route: Route,
}

impl RoutePull {
    /// Whether a pull is under way.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.active.is_some()
    }

    /// The machine wants this route and says that `peer` is ahead.
    pub fn want(&mut self, send: &Send, peer: PeerId, wanted: Route, now_us: u64) {
        self.wanted_us = now_us;
        if self.active.as_ref().is_none_or(|active| !active.route.is_same(&wanted)) {
            self.active = Some(Active { peer: None, asked_us: now_us, route: wanted });
        }
        let Some(active) = &mut self.active else { return };
        if let Some(asked) = active.peer {
            if now_us.saturating_sub(active.asked_us) < ANSWER_US {
                return;
            }
            active.peer = None;
            self.set_late(asked, now_us);
        }
        let is_late = self.late.get(&peer).is_some_and(|until_us| *until_us > now_us);
        if is_late && now_us.saturating_sub(self.free_us) < OTHERS_US {
            return;
        }
        self.ask(send, peer, now_us);
    }

    fn ask(&mut self, send: &Send, peer: PeerId, now_us: u64) {
        let Some(active) = &mut self.active else { return };
        if let Some((last, count)) = active.route.wanted() {
            send(peer, &Message::GetHeaders { last, count });
            (active.peer, active.asked_us) = (Some(peer), now_us);
        }
    }

    /// The peer that was pulled from lets others go first.
    fn set_late(&mut self, peer: PeerId, now_us: u64) {
        self.free_us = now_us;
        self.late.retain(|_, until_us| *until_us > now_us);
        if self.late.len() < LATE_MAX {
            self.late.insert(peer, now_us.saturating_add(LATE_US));
        }
    }

    /// Takes an answer; what the machine has to know of it.
    pub fn take(
        &mut self,
        send: &Send,
        on_fault: &OnFault,
        peer: PeerId,
        headers: &[Header],
        now_us: u64,
    ) -> Option<Input> {
        let active = self.active.as_mut().filter(|active| active.peer == Some(peer))?;
        if headers.is_empty() {
            // It does not have them (any more): somebody else may.
            active.peer = None;
            self.set_late(peer, now_us);
            return None;
        }
        let taken = active.route.take(headers);
        let fault = match taken {
            Ok(()) if active.route.wanted().is_none() => {
                let route = self.active.take()?.route;
                return Some(Input::Route { from: peer, route: Ok(route) });
            }
            Ok(()) => {
                self.late.remove(&peer);
                self.ask(send, peer, now_us);
                return None;
            }
            Err(fault) => fault,
        };
        active.peer = None;
        self.set_late(peer, now_us);
        if fault == RouteFault::Invalid {
            on_fault(peer, &false_headers(headers, &fault));
            return None;
        }
        self.active = None;
        tracing::warn!(event = "trusted-block", peer = %peer.0.short(), %fault, "no way to the trusted block");
        Some(Input::Route { from: peer, route: Err(fault) })
    }

    /// A connection ended.
    pub fn gone(&mut self, peer: PeerId, now_us: u64) {
        if let Some(active) = self.active.as_mut().filter(|active| active.peer == Some(peer)) {
            active.peer = None;
            self.free_us = now_us;
        }
    }

    /// Drops a pull that has not been wished for in a minute: the machine needs no way any more.
    pub fn expire(&mut self, now_us: u64) {
        if now_us.saturating_sub(self.wanted_us) > KEPT_US {
            self.active = None;
        }
    }
}
