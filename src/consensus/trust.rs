//! Weak subjectivity as values (protocol §7): the way of headers from the own tip to a trusted block, and
//! why blocks are not adopted without one.
//!
//! Old signatures cost nothing: whoever has left the committee and has its collateral back may sell them.
//! So a node that was away for longer than the trust period cannot tell the chain from a false one by
//! signatures; a block id that a person vouches for can. When that is asked for is decided in
//! `machine/trust.rs`. A [`Route`] rests on hashes only and cannot be had but by checking them.

use crate::primitives::block::Header;
use crate::primitives::hash::BlockId;
use crate::primitives::message::PeerId;
use crate::primitives::trusted::TrustedHeader;
use std::collections::VecDeque;

/// Most headers in one answer, some 200 KB.
pub const HEADERS_MAX: u16 = 512;

/// Most blocks between the tip and the trusted one: two years of mainnet, 64 MB of ids.
pub const ROUTE_MAX: u64 = 1 << 21;

/// Why what a peer sent is no way to the trusted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteFault {
    /// Not the headers that were asked for: no honest peer sends them.
    #[error("headers that do not lead to the trusted block")]
    Invalid,
    /// The peer holds another block at that height.
    #[error("block {found} at the height of the trusted one")]
    OtherBlock { found: BlockId },
    /// The trusted block is of before the trust period.
    #[error("the trusted block is of {time_ms} ms since 1970, before the trust period")]
    TooOld { time_ms: u64 },
    /// The trusted block follows from another block at the height of the own tip.
    #[error("the trusted block follows from block {found}, not from the own one")]
    Forks { found: BlockId },
}

/// The ids of all blocks from the one after the tip to the trusted one, as they are gathered: from the
/// trusted one downwards, each header fixed by the hash in the one above.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    tip: TrustedHeader,
    trusted: TrustedHeader,
    oldest_ms: u64,
    /// The next header to come.
    next: TrustedHeader,
    ids: VecDeque<BlockId>,
}

impl Route {
    /// Nothing gathered yet; the trusted block must not be of before `oldest_ms`. `None` unless it is
    /// above the tip, by [`ROUTE_MAX`] at most.
    #[must_use]
    pub fn new(tip: TrustedHeader, trusted: TrustedHeader, oldest_ms: u64) -> Option<Self> {
        let distance = trusted.height.checked_sub(tip.height)?;
        (1..=ROUTE_MAX).contains(&distance).then(|| Self {
            tip,
            trusted,
            oldest_ms,
            next: trusted,
            ids: VecDeque::new(),
        })
    }

    /// Whether it is the way between these two.
    #[must_use]
    pub fn is_between(&self, tip: TrustedHeader, trusted: TrustedHeader) -> bool {
        self.tip == tip && self.trusted == trusted
    }

    /// Whether both are the way between the same two.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.is_between(other.tip, other.trusted)
    }

    /// The block it leads to and the trusted one.
    #[must_use]
    pub fn ends(&self) -> (TrustedHeader, TrustedHeader) {
        (self.tip, self.trusted)
    }

    /// The headers to ask for: the height of the last one and how many; `None` when all are there.
    #[must_use]
    pub fn wanted(&self) -> Option<(u64, u16)> {
        let missing = self.next.height.saturating_sub(self.tip.height);
        let count = u16::try_from(missing).unwrap_or(HEADERS_MAX).min(HEADERS_MAX);
        (count > 0).then_some((self.next.height, count))
    }

    /// Takes headers in ascending order: those wanted, for whoever has one of them and not all sends none.
    ///
    /// # Errors
    /// [`RouteFault`]; what was good of them is kept.
    pub fn take(&mut self, headers: &[Header]) -> Result<(), RouteFault> {
        let (last, count) = self.wanted().ok_or(RouteFault::Invalid)?;
        if headers.len() != usize::from(count) {
            return Err(RouteFault::Invalid);
        }
        for header in headers.iter().rev() {
            let id = header.id();
            if header.height != self.next.height {
                return Err(RouteFault::Invalid);
            }
            if id != self.next.id {
                let of_trusted = last == self.trusted.height && self.ids.is_empty();
                return Err(if of_trusted {
                    RouteFault::OtherBlock { found: id }
                } else {
                    RouteFault::Invalid
                });
            }
            if self.ids.is_empty() && header.time_ms < self.oldest_ms {
                return Err(RouteFault::TooOld { time_ms: header.time_ms });
            }
            if header.height == self.tip.height + 1 && header.previous != self.tip.id {
                return Err(RouteFault::Forks { found: header.previous });
            }
            self.ids.push_front(id);
            self.next = TrustedHeader { height: header.height - 1, id: header.previous };
        }
        Ok(())
    }

    /// The ids in ascending order; `None` when some are missing.
    #[must_use]
    pub fn into_ids(self) -> Option<VecDeque<BlockId>> {
        self.wanted().is_none().then_some(self.ids)
    }
}

/// What is wrong with the trusted block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// None is set.
    NoneSet,
    /// This node has passed it.
    Passed(TrustedHeader),
    /// It is of before the trust period.
    TooOld { trusted: TrustedHeader, time_ms: u64 },
    /// It is further away than [`ROUTE_MAX`].
    TooFar(TrustedHeader),
    /// A peer that is ahead has another block there.
    OtherBlock { trusted: TrustedHeader, found: BlockId, peer: PeerId },
}

/// Why no blocks are adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The last block of this node.
    pub tip: TrustedHeader,
    /// How old it may be, in milliseconds.
    pub period_ms: u64,
    /// What is wrong with the trusted block.
    pub why: Distrust,
}

impl Untrusted {
    /// What keeps this node back and what to do.
    #[must_use]
    pub fn explanation(&self) -> String {
        let Self { tip, period_ms, why } = self;
        // No figure that grows: the text stands for one alert.
        let begun = format!(
            "the last block of this node, {height}, is older than the trust period of {period}: keys that have \
             left the committee since could show it a false chain, so it adopts no block and keeps what it has; ",
            height = tip.height,
            period = span(*period_ms)
        );
        let remedy = "set [sync] trusted_block (or --trusted-block) to HEIGHT:ID of a recent block, as the line \
                      `to trust` of an operator's `masternode status` shows it, and start again";
        let rest = match why {
            Distrust::NoneSet => remedy.to_owned(),
            Distrust::Passed(trusted) => {
                format!("the trusted block {} is not above it: {remedy}", trusted.height)
            }
            Distrust::TooOld { trusted, time_ms } => format!(
                "the trusted block {} (time {time_ms} ms since 1970) is older than that too: {remedy}; if it is not, the \
                 clock of this machine is wrong",
                trusted.height
            ),
            Distrust::TooFar(trusted) => format!(
                "the trusted block {} is more than {ROUTE_MAX} blocks above it: start with an empty database",
                trusted.height
            ),
            Distrust::OtherBlock { trusted, found, peer } => format!(
                "the trusted block is {trusted}, and peer {} has block {found} there: one of the two is false. Compare the \
                 id with other operators; if trusted_block is right, peers that have it are waited for",
                peer.0.short()
            ),
        };
        begun + &rest
    }
}

/// A time span in its largest unit, rounded down.
fn span(ms: u64) -> String {
    let minutes = ms / 60_000;
    match (minutes / 1440, minutes / 60, minutes) {
        (days @ 2.., _, _) => format!("{days} days"),
        (_, hours @ 2.., _) => format!("{hours} hours"),
        (_, _, minutes) => format!("{minutes} minutes"),
    }
}
