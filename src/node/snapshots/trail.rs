//! From what this node trusts to the header of a snapshot: by certificates forwards, as a light client, or
//! by hashes backwards from a trusted block above it.
//!
//! Whatever a peer sends is checked before it counts, so a block found here is of the chain however many
//! peers lie, as long as what was trusted is. Headers are asked of one peer at a time, for as long as it
//! leads on fast enough; the next one goes on where it stopped.

use crate::consensus::trust::{Route, RouteFault};
use crate::light::ProofError;
use crate::light::block::Link;
use crate::light::client::LightClient;
use crate::node::clock;
use crate::node::snapshots::peers::{Happened, Peers, Stopping};
use crate::node::snapshots::plan::Patience;
use crate::node::sync::route::false_headers;
use crate::primitives::block::Header;
use crate::primitives::encoding::decode;
use crate::primitives::hash::{BlockId, ChainId};
use crate::primitives::keys::verify_batch;
use crate::primitives::message::{Message, PeerId};
use crate::primitives::trusted::TrustedHeader;
use std::collections::BTreeMap;

/// Largest link that is decoded: two committees of 200.
const LINK_BYTES_MAX: usize = 256 << 10;
/// Answers one peer may give to lead to one header.
const ANSWERS_MAX: usize = 8192;
/// Time a peer gets for every block it leads on, in microseconds: whoever is honest sends hundreds of headers
/// at a time, or the few that suffice.
const GAIN_US: u64 = 10_000;
/// Longest time a peer gets to lead to one header, in microseconds.
const GUIDE_MAX_US: u64 = 600_000_000;

/// Why a header was not reached.
#[derive(Debug, thiserror::Error)]
pub enum TrailError {
    /// What is trusted is too old, or names another block than the chain has.
    #[error("{0}")]
    Trust(String),
    /// Nobody led there.
    #[error("no peer led from the trusted block to block {height}")]
    Nobody { height: u64 },
    #[error("the node is stopping")]
    Stopping,
}

impl From<Stopping> for TrailError {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// What this node trusts at its start.
#[derive(Clone, Debug)]
pub enum Anchor {
    /// A header it has: that of the genesis.
    Header(Box<Header>),
    /// A block somebody vouched for.
    Block(TrustedHeader),
}

/// See the module.
pub struct Trail {
    chain: ChainId,
    trust_ms: u64,
    anchor: Anchor,
    /// Once the header of the anchor is here.
    client: Option<LightClient>,
    /// Blocks found to be of the chain.
    known: BTreeMap<u64, BlockId>,
    /// The way backwards that the last peers did not complete.
    route: Option<Route>,
    patience: Patience,
}

/// How long a peer may lead.
#[derive(Clone, Copy, Debug)]
struct Leash {
    begun_us: u64,
    /// Where it began, and how long it gets at least.
    from: u64,
    least_us: u64,
}

impl Leash {
    /// When it ends for a peer that has led to `height`.
    fn ends_us(&self, height: u64) -> u64 {
        let gained = height.abs_diff(self.from);
        let span_us = self.least_us.saturating_add(gained.saturating_mul(GAIN_US)).min(GUIDE_MAX_US);
        self.begun_us.saturating_add(span_us)
    }
}

/// What became of a question.
enum Asked {
    Done,
    /// It does not have it, or did not answer.
    Without,
}

impl Trail {
    /// A trail that begins at `anchor`.
    #[must_use]
    pub fn new(chain: ChainId, trust_ms: u64, anchor: Anchor, patience: Patience) -> Self {
        let (mut known, mut client) = (BTreeMap::new(), None);
        match &anchor {
            Anchor::Header(header) => {
                client = Some(LightClient::new(chain, trust_ms, Header::clone(header)));
                known.insert(header.height, header.id());
            }
            Anchor::Block(trusted) => drop(known.insert(trusted.height, trusted.id)),
        }
        Self { chain, trust_ms, anchor, client, known, route: None, patience }
    }

    /// The block of the chain at a height, if it was found.
    #[must_use]
    pub fn known(&self, height: u64) -> Option<BlockId> {
        self.known.get(&height).copied()
    }

    /// Finds the block at `height`, which peers say is `claimed`.
    ///
    /// # Errors
    /// [`TrailError`].
    pub async fn reach(
        &mut self,
        peers: &mut Peers,
        height: u64,
        claimed: BlockId,
    ) -> Result<BlockId, TrailError> {
        for guide in peers.guides(claimed) {
            if let Some(found) = self.known(height) {
                return Ok(found);
            }
            self.ask(peers, guide, height, claimed).await?;
        }
        self.known(height).ok_or(TrailError::Nobody { height })
    }

    async fn ask(
        &mut self,
        peers: &mut Peers,
        guide: PeerId,
        height: u64,
        claimed: BlockId,
    ) -> Result<Asked, TrailError> {
        // What lies below a block that was found follows from it by hashes; certificates lead upwards only.
        let above = self.known.range(height.saturating_add(1)..).next();
        if let Some((&above, &id)) = above {
            let above = TrustedHeader { height: above, id };
            return self.backwards(peers, guide, above, TrustedHeader { height, id: claimed }).await;
        }
        if let Anchor::Block(trusted) = self.anchor
            && self.client.is_none()
        {
            let request = Message::GetHeaders { last: trusted.height, count: 1 };
            let until_us = self.leash(trusted.height).ends_us(trusted.height);
            let Some(Message::Headers(headers)) = self.answer(peers, guide, &request, until_us).await? else {
                return Ok(Asked::Without);
            };
            let Some(header) = headers.into_iter().next() else { return Ok(Asked::Without) };
            if header.id() != trusted.id {
                tracing::warn!(peer = %guide.0.short(), %trusted, "a peer has another block than the trusted one");
                return Ok(Asked::Without);
            }
            self.client = Some(LightClient::new(self.chain, self.trust_ms, header));
        }
        self.forwards(peers, guide, height).await
    }

    fn leash(&self, from: u64) -> Leash {
        Leash { begun_us: clock::monotonic_us(), from, least_us: self.patience.guide_us }
    }

    /// Follows certificates up to `height`, which is above what was found.
    async fn forwards(&mut self, peers: &mut Peers, guide: PeerId, height: u64) -> Result<Asked, TrailError> {
        let mut leash = None;
        for _ in 0..ANSWERS_MAX {
            let Some(from) = self.client.as_ref().map(|client| client.newest().height) else {
                return Ok(Asked::Without);
            };
            if from >= height {
                return Ok(Asked::Done);
            }
            let request = Message::GetLinks { from, to: height };
            let until_us = leash.get_or_insert_with(|| self.leash(from)).ends_us(from);
            let answer = self.answer(peers, guide, &request, until_us).await?;
            let Some(Message::Links { links, .. }) = answer else {
                return Ok(Asked::Without);
            };
            if links.is_empty() {
                return Ok(Asked::Without);
            }
            for link in &links {
                match self.accept(link, height) {
                    Ok(()) => {}
                    Err(ProofError::Expired { .. }) => {
                        return Err(TrailError::Trust(
                            "what is trusted is older than the trust period: give a newer trusted_block"
                                .to_owned(),
                        ));
                    }
                    Err(error) => {
                        let what = format!("a link between headers that proves nothing: {error}");
                        peers.disagreed(guide, "links", &what);
                        return Ok(Asked::Without);
                    }
                }
            }
        }
        Ok(Asked::Without)
    }

    fn accept(&mut self, link: &[u8], height: u64) -> Result<(), ProofError> {
        let malformed = |reason: String| ProofError::Malformed { field: "link", reason };
        let link: Link = decode::<_, LINK_BYTES_MAX>(link).map_err(|error| malformed(error.to_string()))?;
        let Some(client) = &mut self.client else { return Err(malformed("not asked for".to_owned())) };
        if link.certified.header.height > height {
            return Err(malformed("above what was asked for".to_owned()));
        }
        client.accept(&link, clock::wall_ms(), &verify_batch)?;
        self.known.insert(client.newest().height, client.newest().id());
        Ok(())
    }

    /// Follows hashes from a block that was found down to `claimed`.
    async fn backwards(
        &mut self,
        peers: &mut Peers,
        guide: PeerId,
        above: TrustedHeader,
        claimed: TrustedHeader,
    ) -> Result<Asked, TrailError> {
        // What certificates led to was young enough then.
        let is_anchor = matches!(self.anchor, Anchor::Block(trusted) if trusted == above);
        let oldest_ms = if is_anchor { clock::wall_ms().saturating_sub(self.trust_ms) } else { 0 };
        let Some(wanted) = Route::new(claimed, above, oldest_ms) else { return Ok(Asked::Without) };
        let begun = self.route.take().filter(|begun| begun.is_same(&wanted));
        let mut route = begun.unwrap_or(wanted);
        let led = self.lead_back(peers, guide, &mut route).await;
        if matches!(led, Ok(Asked::Without)) {
            self.route = Some(route);
        }
        led
    }

    async fn lead_back(
        &mut self,
        peers: &mut Peers,
        guide: PeerId,
        route: &mut Route,
    ) -> Result<Asked, TrailError> {
        let (claimed, above) = route.ends();
        let mut leash = None;
        while let Some((last, count)) = route.wanted() {
            let request = Message::GetHeaders { last, count };
            let until_us = leash.get_or_insert_with(|| self.leash(last)).ends_us(last);
            let answer = self.answer(peers, guide, &request, until_us).await?;
            let Some(Message::Headers(headers)) = answer else {
                return Ok(Asked::Without);
            };
            if headers.is_empty() {
                return Ok(Asked::Without);
            }
            match route.take(&headers) {
                Ok(()) => {}
                Err(RouteFault::Forks { found }) => {
                    self.known.insert(claimed.height, found);
                    return Ok(Asked::Done);
                }
                Err(RouteFault::TooOld { .. }) => {
                    return Err(TrailError::Trust(format!(
                        "the trusted block {above} is older than the trust period: give a newer trusted_block"
                    )));
                }
                Err(fault @ RouteFault::OtherBlock { .. }) => {
                    tracing::warn!(peer = %guide.0.short(), %above, %fault, "a peer has another block than the trusted one");
                    return Ok(Asked::Without);
                }
                Err(fault @ RouteFault::Invalid) => {
                    peers.lied(guide, &false_headers(&headers, &fault));
                    return Ok(Asked::Without);
                }
            }
        }
        self.known.insert(claimed.height, claimed.id);
        Ok(Asked::Done)
    }

    /// The answer of a peer; `None` if none came in time, or if its time is over.
    async fn answer(
        &self,
        peers: &mut Peers,
        peer: PeerId,
        request: &Message,
        until_us: u64,
    ) -> Result<Option<Message>, Stopping> {
        let now_us = clock::monotonic_us();
        if now_us > until_us {
            return Ok(None);
        }
        peers.wire.send(peer, request);
        let until_us = now_us.saturating_add(self.patience.answer_us).min(until_us);
        loop {
            match peers.happen(until_us).await? {
                Happened::Answer(from, answer) if from == peer && answers(&answer, request) => {
                    return Ok(Some(answer));
                }
                Happened::Left(gone) if gone == peer => return Ok(None),
                Happened::Nothing => return Ok(None),
                _ => {}
            }
        }
    }
}

/// Whether a message answers a request for headers or links.
fn answers(answer: &Message, request: &Message) -> bool {
    match (answer, request) {
        (Message::Headers(headers), Message::GetHeaders { last, .. }) => {
            headers.last().is_none_or(|header| header.height == *last)
        }
        (Message::Links { from, .. }, Message::GetLinks { from: asked, .. }) => from == asked,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_leads_for_as_long_as_it_leads_on() {
        let leash = Leash { begun_us: 5, from: 1000, least_us: 60_000_000 };
        assert_eq!(leash.ends_us(1000), 60_000_005);
        assert_eq!(leash.ends_us(1512), 5 + 60_000_000 + 512 * GAIN_US);
        assert_eq!(leash.ends_us(488), leash.ends_us(1512), "downwards too");
        assert_eq!(leash.ends_us(u64::MAX), 5 + GUIDE_MAX_US);
    }
}
