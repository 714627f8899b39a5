//! Pulls the headers between this node's tip and the trusted block, from one peer at a time.
//!
//! Also compares the trusted block with what the database has, at the start.
//!
//! Every header is fixed by the hash in the one above it, so no peer is believed and what one sent is good
//! for the next; a peer that sends something else is cut off, one that sends nothing loses the pull.

use crate::consensus::input::Input;
use crate::consensus::trust::{Route, RouteFault};
use crate::ledger::store::Store;
use crate::ledger::store::folder::StoreError;
use crate::network::Network;
use crate::network::bans::offence::{Charge, Offence};
use crate::network::router::Recipients;
use crate::node::verify::OnFault;
use crate::primitives::block::Header;
use crate::primitives::hash::BlockId;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::trusted::TrustedHeader;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a peer may take for an answer before another one gets the pull.
const ANSWER_MAX: Duration = Duration::from_secs(2);

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
pub struct RoutePull(Option<Active>);

#[derive(Debug)]
struct Active {
    /// `None` when the peer has gone: the next wish takes it over.
    peer: Option<PeerId>,
    asked: Instant,
    route: Route,
}

impl RoutePull {
    /// The machine wants this route and says that `peer` is ahead.
    pub fn want(&mut self, network: &Network, peer: PeerId, wanted: Route) {
        let route = match self.0.take() {
            Some(active) if active.route.is_same(&wanted) => {
                if active.peer.is_some() && active.asked.elapsed() < ANSWER_MAX {
                    self.0 = Some(active);
                    return;
                }
                active.route
            }
            _ => wanted,
        };
        self.ask(network, peer, route);
    }

    fn ask(&mut self, network: &Network, peer: PeerId, route: Route) {
        if let Some((last, count)) = route.wanted() {
            network.send(Recipients::Peer(peer), &Message::GetHeaders { last, count });
            self.0 = Some(Active { peer: Some(peer), asked: Instant::now(), route });
        }
    }

    /// Takes an answer; what the machine has to know of it.
    pub fn take(
        &mut self,
        network: &Network,
        on_fault: &OnFault,
        peer: PeerId,
        headers: &[Header],
    ) -> Option<Input> {
        let mut active = self.0.take_if(|active| active.peer == Some(peer))?;
        if headers.is_empty() {
            // It does not have them (any more): somebody else may.
            active.peer = None;
            self.0 = Some(active);
            return None;
        }
        match active.route.take(headers) {
            Ok(()) if active.route.wanted().is_none() => {
                Some(Input::Route { from: peer, route: Ok(active.route) })
            }
            Ok(()) => {
                self.ask(network, peer, active.route);
                None
            }
            Err(fault @ RouteFault::Invalid) => {
                on_fault(peer, &false_headers(headers, &fault));
                active.peer = None;
                self.0 = Some(active);
                None
            }
            Err(fault) => {
                tracing::warn!(event = "trusted-block", peer = %peer.0.short(), %fault, "no way to the trusted block");
                Some(Input::Route { from: peer, route: Err(fault) })
            }
        }
    }

    /// A connection ended.
    pub fn gone(&mut self, peer: PeerId) {
        if let Some(active) = self.0.as_mut().filter(|active| active.peer == Some(peer)) {
            active.peer = None;
        }
    }
}
