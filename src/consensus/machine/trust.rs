//! Whose blocks are adopted after a long absence (protocol §7, weak subjectivity).
//!
//! A tip older than the trust period is *stale*. Nobody ahead: the chain stood still or begins, and goes on
//! by votes or with the next block, for which nothing is needed. Somebody *far ahead* (two blocks or more,
//! which a node that runs does not see): such a claim costs nothing, so it is proved by pulling the next
//! block, whose certificate must be good; then nothing is adopted without a trusted block. A block that the
//! committee makes now, before the eyes of this node, proves nothing of the kind: anybody could gather its
//! certificate. With a trusted block above the tip the headers down to the tip are pulled first, and only
//! the blocks they name are adopted.
//! Invariant: a block at the height of the trusted one with another id is never adopted.

use super::Machine;
use crate::consensus::output::Output;
use crate::consensus::trust::{Distrust, ROUTE_MAX, Route, RouteFault, Untrusted};
use crate::primitives::hash::BlockId;
use crate::primitives::message::PeerId;
use crate::primitives::trusted::TrustedHeader;
use std::collections::VecDeque;

/// Blocks by which a peer is far ahead: one is what every node is late by at times.
const FAR_BLOCKS: u64 = 2;

/// How long a claim to be far ahead may keep a node with a stale tip from adopting a block while it is not
/// proved. Honest peers answer at once; claims of liars must not stop a chain that stood still.
const CLAIM_US: u64 = 10_000_000;

/// Age up to which a block may be one that is being made, in milliseconds; at most half the trust period. A
/// chain that is far ahead has such a block at this height only if it stood still until then, and nobody
/// has left the committee since.
pub(super) const MAKING_MS: u64 = 600_000;

/// A decided block of this height as it was shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighted {
    pub(super) id: BlockId,
    pub(super) time_ms: u64,
}

/// What is known of the trusted block and of those ahead.
#[derive(Debug)]
pub(super) struct TrustWatch {
    pub(super) trusted: Option<TrustedHeader>,
    period_ms: u64,
    /// Since when somebody is far ahead at this height while the tip is stale.
    claimed_us: Option<u64>,
    /// What a quorum has decided at this height, by the word of somebody who is far ahead.
    shown: Option<Sighted>,
    /// The blocks to adopt next, up to the trusted one.
    route: VecDeque<BlockId>,
    fault: Option<Distrust>,
}

impl TrustWatch {
    pub(super) fn new(period_ms: u64) -> Self {
        Self { trusted: None, period_ms, claimed_us: None, shown: None, route: VecDeque::new(), fault: None }
    }

    /// The height is decided.
    pub(super) fn end_height(&mut self) {
        self.route.pop_front();
        self.claimed_us = None;
        self.shown = None;
        self.fault = None;
    }
}

impl Machine {
    pub(super) fn tip_id(&self) -> TrustedHeader {
        TrustedHeader { height: self.context.height.saturating_sub(1), id: self.context.previous }
    }

    /// Since when a block must be to be recent.
    fn oldest_ms(&self) -> u64 {
        self.now.wall_ms.saturating_sub(self.trust.period_ms)
    }

    /// Whether the tip is older than the trust period and somebody is, or has been proved to be, far ahead.
    fn needs_trust(&self) -> bool {
        let stale = self.context.header.time_ms < self.oldest_ms();
        let far = self.peers.best_height() >= self.context.height.saturating_add(FAR_BLOCKS);
        stale && (far || self.claim_is_proved())
    }

    /// Whether a quorum has decided this height before and elsewhere. Votes may show later that a block was
    /// being made when it was shown.
    fn claim_is_proved(&self) -> bool {
        self.trust.shown.is_some_and(|shown| !self.is_being_made(shown))
    }

    /// Whether the committee of this height makes this block now: it is young, and was proposed or
    /// precommitted here.
    fn is_being_made(&self, block: Sighted) -> bool {
        let age_ms = MAKING_MS.min(self.trust.period_ms / 2);
        let young = block.time_ms >= self.now.wall_ms.saturating_sub(age_ms);
        let quorum = self.quorum();
        let mut rounds = self.checkpoint.rounds.iter();
        young
            && rounds.any(|(_, round)| {
                let proposed = round.proposal.as_ref().map(|proposal| proposal.outline.header.id());
                proposed == Some(block.id) || round.precommits.quorum(quorum) == Some(Some(block.id))
            })
    }

    /// The trusted block if it is above the tip.
    fn destination(&self) -> Option<TrustedHeader> {
        self.trust.trusted.filter(|trusted| trusted.height >= self.context.height)
    }

    /// Up to which height blocks may be pulled that `peer` says it has; asks for the way to the trusted
    /// block instead when that has to be known first.
    pub(super) fn may_pull(&mut self, peer: PeerId) -> Option<u64> {
        let next = self.context.height;
        let has = self.peers.find(&peer).map_or(next, |peer| peer.height.saturating_sub(1)).max(next);
        if !self.needs_trust() {
            return Some(has);
        }
        self.trust.claimed_us.get_or_insert(self.now.monotonic_us);
        if !self.trust.route.is_empty() {
            return Some(has);
        }
        let (tip, oldest_ms) = (self.tip_id(), self.oldest_ms());
        match self.destination() {
            Some(trusted) if trusted.height - tip.height > ROUTE_MAX => {
                self.trust.fault = Some(Distrust::TooFar(trusted));
                None
            }
            Some(_) if matches!(self.trust.fault, Some(Distrust::TooOld { .. })) => None,
            Some(trusted) => {
                self.outputs.push(Output::PullRoute { peer, tip, trusted, oldest_ms });
                None
            }
            // Without one the next block is pulled to see whether anybody is ahead at all.
            None => (!self.claim_is_proved()).then_some(next),
        }
    }

    /// What a peer holds between the tip and the trusted block.
    pub(super) fn on_route(&mut self, from: PeerId, route: Result<Route, RouteFault>) {
        let (tip, trusted) = (self.tip_id(), self.destination());
        let Some(trusted) = trusted else { return };
        match route {
            Ok(route) if route.is_between(tip, trusted) => {
                if let Some(ids) = route.into_ids() {
                    self.trust.route = ids;
                    self.trust.fault = None;
                    self.pull_block(Some(from));
                }
            }
            // Of an earlier tip.
            Ok(_) => {}
            Err(RouteFault::OtherBlock { found }) => {
                self.trust.fault = Some(Distrust::OtherBlock { trusted, found, peer: from });
            }
            Err(RouteFault::TooOld { time_ms }) => {
                self.trust.fault = Some(Distrust::TooOld { trusted, time_ms });
            }
            Err(RouteFault::Forks { found }) => self.halt(format!(
                "the trusted block {trusted} follows from block {found} at height {height}, where this node has block \
                 {own}: this database is of another chain, or trusted_block is. Compare both ids with other operators; if \
                 trusted_block is right, move the database away and start again",
                height = tip.height,
                own = tip.id
            )),
            Err(RouteFault::Invalid) => {}
        }
    }

    /// Whether a pulled block, which a quorum of this era's committee has signed, may be taken.
    pub(super) fn accepts_pulled(&mut self, from: PeerId, block: Sighted) -> bool {
        let needs_trust = self.needs_trust();
        if needs_trust && let Some(expected) = self.trust.route.front() {
            let on_the_way = *expected == block.id;
            if !on_the_way {
                let what = "a block beside the way to the trusted one";
                self.outputs.push(Output::Misbehaved { peer: from, what });
            }
            return on_the_way;
        }
        if let Some(trusted) = self.beside_trusted(block.id) {
            self.refuse_beside(trusted, block.id, Some(from));
            return false;
        }
        let far = |peer: &super::peers::Peer| peer.height >= self.context.height.saturating_add(FAR_BLOCKS);
        if needs_trust && self.peers.find(&from).is_some_and(|peer| far(peer)) {
            // Its claim is good: there is a chain that goes on. Unless this is the block that is made here.
            self.trust.shown = Some(block);
            return !self.claim_is_proved();
        }
        true
    }

    /// Whether a decided block may be adopted, however it came here.
    pub(super) fn may_adopt(&mut self, block: BlockId) -> bool {
        if self.replaying {
            return true;
        }
        if let Some(trusted) = self.beside_trusted(block) {
            self.refuse_beside(trusted, block, None);
            return false;
        }
        if !self.needs_trust() {
            return true;
        }
        if let Some(expected) = self.trust.route.front() {
            return *expected == block;
        }
        let claimed_us = *self.trust.claimed_us.get_or_insert(self.now.monotonic_us);
        let waited = self.now.monotonic_us >= claimed_us.saturating_add(CLAIM_US);
        !self.claim_is_proved() && self.destination().is_none() && waited
    }

    /// The trusted block, if it is another one of this height than `block`.
    fn beside_trusted(&self, block: BlockId) -> Option<TrustedHeader> {
        let here = self.destination().filter(|trusted| trusted.height == self.context.height);
        here.filter(|trusted| trusted.id != block)
    }

    /// A quorum signed another block than the trusted one.
    fn refuse_beside(&mut self, trusted: TrustedHeader, found: BlockId, peer: Option<PeerId>) {
        let whom = peer.map_or_else(|| "the chain".to_owned(), |peer| format!("peer {}", peer.0.short()));
        self.halt(format!(
            "the trusted block is {trusted}, and {whom} has block {found} at that height, signed by a quorum: it is not \
             adopted. Compare the id with other operators; if trusted_block is wrong, correct it in [sync] and start \
             again; if it is right, whoever signed the other block has left this chain"
        ));
    }

    /// Why no blocks are adopted, for people.
    pub(super) fn untrusted(&self) -> Option<Untrusted> {
        if !self.needs_trust() || !self.trust.route.is_empty() {
            return None;
        }
        let why = match (self.trust.trusted, self.destination()) {
            (_, Some(_)) => self.trust.fault.clone()?,
            _ if !self.claim_is_proved() => return None,
            (Some(trusted), None) => Distrust::Passed(trusted),
            (None, None) => Distrust::NoneSet,
        };
        Some(Untrusted { tip: self.tip_id(), period_ms: self.trust.period_ms, why })
    }
}
