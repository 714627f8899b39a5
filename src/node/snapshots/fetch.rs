//! Takes a snapshot from peers: chooses one, finds out whether its block is of the chain, fetches manifest
//! and parts from whoever keeps them, and fills a database.
//!
//! Nothing is believed: the header is reached from what the node trusts, the manifest is checked against the
//! header, every part against the manifest, the whole against the header again. Who sends what does not fit
//! is cut off and never asked again. A snapshot of which a part is not to be had is discarded with those who
//! offer it. Ends with a filled database or a reason to go on with blocks; what was fetched is there again
//! at the next try.

use crate::ledger::snapshot::{Checked, MANIFEST_BYTES_MAX, Manifest, SnapshotError};
use crate::ledger::store::StoreOptions;
use crate::network::bans::offence::{Charge, Offence};
use crate::node::clock;
use crate::node::snapshots::PAGE_BYTES;
use crate::node::snapshots::incoming::{self, Incoming, IncomingError};
use crate::node::snapshots::peers::{Happened, Peers, Stopping};
use crate::node::snapshots::plan::{Patience, Plan};
use crate::node::snapshots::trail::{Trail, TrailError};
use crate::primitives::certificate::Qc;
use crate::primitives::hash::{ChainId, Hash};
use crate::primitives::keys::verify_batch;
use crate::primitives::message::{Message, PeerId, SnapshotOffer};
use crate::primitives::params::Params;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Snapshots that are tried before the node goes on with blocks.
const TRIES_MAX: usize = 16;
/// Parts that may wait to be checked while more are asked for: 6 MB.
const UNCHECKED_MAX: usize = 8;
/// How often deadlines are looked at.
const TICK_US: u64 = 100_000;

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum NoSnapshot {
    #[error("no peer offers one")]
    NotOffered,
    #[error("none of those offered could be fetched")]
    NoneUsable,
    #[error("{0}")]
    Trust(String),
    #[error(transparent)]
    Local(IncomingError),
    #[error("the node is stopping")]
    Stopping,
}

/// Why this snapshot was not taken.
enum Failed {
    /// Another may be.
    Try(String),
    Give(NoSnapshot),
}

impl From<Stopping> for Failed {
    fn from(_: Stopping) -> Self {
        Self::Give(NoSnapshot::Stopping)
    }
}

impl From<Stopping> for NoSnapshot {
    fn from(_: Stopping) -> Self {
        Self::Stopping
    }
}

/// What is fetched, and where to.
#[derive(Clone, Debug)]
pub struct Target {
    pub chain: ChainId,
    pub params: Params,
    /// Folder of the parts and of the database being filled.
    pub folder: PathBuf,
    pub options: StoreOptions,
    pub patience: Patience,
    /// Threads that check parts.
    pub workers: usize,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Height of the snapshot.
    pub height: u64,
    /// Parts that are here, and all.
    pub parts: (u32, u32),
    /// Bytes of all parts.
    pub bytes: u64,
    /// Peers that keep it.
    pub sources: usize,
}

/// A database filled from a snapshot.
#[derive(Debug)]
pub struct Filled {
    /// Where it is.
    pub folder: PathBuf,
    /// Height of the block it is the state after.
    pub height: u64,
}

/// See the module.
pub struct Fetch<'a> {
    pub peers: &'a mut Peers,
    pub trail: Trail,
    pub target: Target,
    pub progress: &'a (dyn Fn(Progress) + Sync),
}

/// A part to check.
struct Job {
    part: u32,
    /// Who brought it, with its bytes; `None` for one from before.
    brought: Option<(PeerId, Vec<u8>)>,
}

type Checking = JoinSet<(u32, Option<PeerId>, Result<(), IncomingError>)>;

impl Fetch<'_> {
    /// Takes a snapshot.
    ///
    /// # Errors
    /// [`NoSnapshot`].
    pub async fn run(mut self) -> Result<Filled, NoSnapshot> {
        for attempt in 0..TRIES_MAX {
            if attempt > 0 {
                self.peers.ask_again();
            }
            let Some(offer) = self.choose().await? else {
                return Err(if attempt == 0 { NoSnapshot::NotOffered } else { NoSnapshot::NoneUsable });
            };
            let (height, manifest) = (offer.height, offer.manifest);
            self.peers.begin(&offer);
            tracing::info!(event = "snapshot", height, %manifest, bytes = offer.bytes, "taking a snapshot");
            match self.take(offer).await {
                Ok(filled) => return Ok(filled),
                Err(Failed::Give(why)) => return Err(why),
                Err(Failed::Try(why)) => {
                    tracing::warn!(event = "snapshot-discarded", height, %manifest, why, "another snapshot is tried");
                }
            }
        }
        Err(NoSnapshot::NoneUsable)
    }

    /// The best offer: one that was begun before, then the highest, then the one most peers make.
    async fn choose(&mut self) -> Result<Option<SnapshotOffer>, NoSnapshot> {
        let begun = incoming::left_behind(&self.target.folder, &self.target.params);
        let patience = self.target.patience;
        let until_us = clock::monotonic_us().saturating_add(patience.peers_us);
        loop {
            let late = clock::monotonic_us() >= until_us;
            if late || self.peers.all_have_answered(patience.others_us) {
                let best = self.best(begun);
                // Somebody may be ahead and not have answered yet; nobody being ahead is an answer.
                if best.is_some() || late || self.peers.best_height() == 0 || self.nobody_offers() {
                    return Ok(best);
                }
            }
            let tick_us = clock::monotonic_us().saturating_add(TICK_US);
            self.peers.happen(tick_us.min(until_us.max(tick_us))).await?;
        }
    }

    fn nobody_offers(&self) -> bool {
        self.peers.offers().next().is_none()
    }

    fn best(&self, begun: Option<Hash>) -> Option<SnapshotOffer> {
        let usable = |(_, offer): &(PeerId, &SnapshotOffer)| {
            let other = self.trail.known(offer.height).is_some_and(|known| known != offer.block);
            offer.height > 0 && offer.manifest_bytes <= MANIFEST_BYTES_MAX as u64 && !other
        };
        let rank = |offer: &SnapshotOffer| {
            let support = self.peers.offers().filter(|(_, other)| other.manifest == offer.manifest).count();
            (begun == Some(offer.manifest), offer.height, support, offer.manifest)
        };
        let best = self.peers.offers().filter(usable).max_by_key(|(_, offer)| rank(offer));
        best.map(|(_, offer)| offer.clone())
    }

    async fn take(&mut self, offer: SnapshotOffer) -> Result<Filled, Failed> {
        let found = match self.trail.reach(self.peers, offer.height, offer.block).await {
            Ok(found) => found,
            Err(TrailError::Stopping) => return Err(Failed::Give(NoSnapshot::Stopping)),
            Err(TrailError::Trust(why)) => return Err(Failed::Give(NoSnapshot::Trust(why))),
            Err(error @ TrailError::Nobody { .. }) => {
                self.peers.give_up(&offer);
                return Err(Failed::Try(error.to_string()));
            }
        };
        let liars: Vec<PeerId> = self
            .peers
            .offers()
            .filter(|(_, other)| other.height == offer.height && other.block != found)
            .map(|(peer, _)| peer)
            .collect();
        for liar in liars {
            self.peers.disagreed(liar, "snapshots", "a snapshot of a block that is not of the chain");
        }
        if found != offer.block {
            return Err(Failed::Try("its block is not of the chain".to_owned()));
        }
        let checked = self.manifest(&offer).await?;
        let commit = self.commit(&checked)?;
        let incoming = self.open(checked).await?;
        self.parts(&incoming, &offer).await?;
        self.finish(incoming, commit, &offer).await
    }

    /// The manifest, checked: the one left here, or from one of those who keep the snapshot.
    async fn manifest(&mut self, offer: &SnapshotOffer) -> Result<Checked, Failed> {
        let left = incoming::manifest_left(&self.target.folder, offer.manifest, &self.target.params);
        if let Some(checked) = left.filter(|checked| checked.header().id() == offer.block) {
            return Ok(checked);
        }
        let same = self.peers.offers().filter(|(_, other)| {
            other.manifest == offer.manifest && other.block == offer.block && other.height == offer.height
        });
        // Each by its own word of how long it is.
        let same: Vec<(PeerId, u64)> = same.map(|(source, other)| (source, other.manifest_bytes)).collect();
        for (source, length) in same {
            let Some(bytes) = self.manifest_bytes(source, offer.manifest, length).await? else { continue };
            let params = &self.target.params;
            let checked = Manifest::from_bytes(&bytes).and_then(|manifest| {
                if manifest.header.id() != offer.block || manifest.id() != offer.manifest {
                    return Err(SnapshotError::Malformed("it is not the one that was offered".to_owned()));
                }
                manifest.check(params)
            });
            match checked {
                Ok(checked) => return Ok(checked),
                Err(error) => self.peers.contradicted(source, offer.manifest, &error.to_string()),
            }
        }
        self.peers.give_up(offer);
        Err(Failed::Try("nobody has sent its manifest".to_owned()))
    }

    /// All pages of a manifest from one peer; `None` if it does not bring them.
    async fn manifest_bytes(
        &mut self,
        source: PeerId,
        manifest: Hash,
        length: u64,
    ) -> Result<Option<Vec<u8>>, Failed> {
        let mut bytes = Vec::new();
        let pages = length.min(MANIFEST_BYTES_MAX as u64).div_ceil(PAGE_BYTES as u64);
        for page in 0..u32::try_from(pages).unwrap_or(0) {
            self.peers.wire.send(source, &Message::GetSnapshotManifest { manifest, page });
            let until_us = clock::monotonic_us().saturating_add(self.target.patience.answer_us);
            let answer = loop {
                match self.peers.happen(until_us).await? {
                    Happened::Answer(
                        from,
                        Message::SnapshotManifest { manifest: of, page: number, bytes },
                    ) if from == source && of == manifest && number == page => break Some(bytes),
                    Happened::Left(gone) if gone == source => break None,
                    Happened::Nothing => break None,
                    _ => {}
                }
            };
            let Some(answer) = answer.filter(|answer| !answer.is_empty() && answer.len() <= PAGE_BYTES)
            else {
                self.peers.no_longer_keeps(source, manifest);
                return Ok(None);
            };
            bytes.extend(answer);
        }
        Ok(Some(bytes))
    }

    /// A certificate of the block that verifies; who offered one that does not lies.
    fn commit(&mut self, checked: &Checked) -> Result<Qc, Failed> {
        let offers = self.peers.offers().filter(|(_, offer)| offer.manifest == checked.id());
        let offered: Vec<(PeerId, Qc)> = offers.map(|(peer, offer)| (peer, offer.commit.clone())).collect();
        for (peer, commit) in offered {
            match checked.check_commit(self.target.chain, &commit, &verify_batch) {
                Ok(()) => return Ok(commit),
                Err(error) => self.peers.contradicted(peer, checked.id(), &error.to_string()),
            }
        }
        Err(Failed::Try("nobody has a certificate of its block".to_owned()))
    }

    async fn open(&self, checked: Checked) -> Result<Arc<Incoming>, Failed> {
        let Target { folder, params, options, .. } = self.target.clone();
        let opened = blocking(move || Incoming::open(&folder, checked, &params, options)).await;
        opened.map(Arc::new).map_err(|error| Failed::Give(NoSnapshot::Local(error)))
    }

    /// Fetches and checks all parts.
    async fn parts(&mut self, incoming: &Arc<Incoming>, offer: &SnapshotOffer) -> Result<(), Failed> {
        let (count, _) = incoming.checked().parts();
        let mut plan = Plan::new(count, self.target.patience);
        let mut jobs: VecDeque<Job> = VecDeque::new();
        for part in (0..count).filter(|part| incoming.is_left(*part)) {
            plan.found(part);
            jobs.push_back(Job { part, brought: None });
        }
        let mut checking = Checking::new();
        let outcome = self.fetch_all((incoming, offer), &mut plan, &mut jobs, &mut checking).await;
        // What is under way uses the folder.
        while checking.join_next().await.is_some() {}
        outcome
    }

    async fn fetch_all(
        &mut self,
        (incoming, offer): (&Arc<Incoming>, &SnapshotOffer),
        plan: &mut Plan,
        jobs: &mut VecDeque<Job>,
        checking: &mut Checking,
    ) -> Result<(), Failed> {
        loop {
            while checking.len() < self.target.workers.max(1)
                && let Some(job) = jobs.pop_front()
            {
                check(checking, Arc::clone(incoming), job);
            }
            self.tell(incoming.checked(), plan);
            if plan.is_complete() {
                return Ok(());
            }
            self.ask(offer, plan, jobs, checking.is_empty())?;
            let until_us = clock::monotonic_us().saturating_add(TICK_US);
            tokio::select! {
                Some(done) = checking.join_next() => {
                    let (part, peer, result) = done.map_err(|error| {
                        Failed::Give(NoSnapshot::Local(failed_task(&error)))
                    })?;
                    self.checked(plan, part, peer, result)?;
                }
                happened = self.peers.happen(until_us) => {
                    self.on_happened(happened?, incoming.checked().id(), plan, jobs);
                }
            }
        }
    }

    /// Sends the requests that are due, or finds that the snapshot is not to be had.
    fn ask(
        &mut self,
        offer: &SnapshotOffer,
        plan: &mut Plan,
        jobs: &VecDeque<Job>,
        idle: bool,
    ) -> Result<(), Failed> {
        let (manifest, now_us) = (offer.manifest, clock::monotonic_us());
        for source in self.peers.sources(manifest) {
            plan.join(source);
        }
        if let Some(part) = plan.stalled(now_us) {
            self.peers.give_up(offer);
            return Err(Failed::Try(format!("nobody brings its part {part}")));
        }
        if plan.is_alone_too_long(now_us) && jobs.is_empty() && idle {
            self.peers.is_gone(offer);
            return Err(Failed::Try("nobody keeps it any more".to_owned()));
        }
        if jobs.len() < UNCHECKED_MAX {
            for (peer, part) in plan.requests(now_us) {
                self.peers.wire.send(peer, &Message::GetSnapshotPart { manifest, part });
            }
        }
        Ok(())
    }

    fn on_happened(&mut self, happened: Happened, manifest: Hash, plan: &mut Plan, jobs: &mut VecDeque<Job>) {
        match happened {
            Happened::Left(peer) => plan.leave(&peer),
            Happened::Answer(peer, Message::SnapshotPart { manifest: of, part, bytes }) if of == manifest => {
                if !plan.arrived(&peer, part) {
                    return;
                }
                if bytes.is_empty() {
                    plan.refused(part);
                    plan.leave(&peer);
                    self.peers.no_longer_keeps(peer, manifest);
                } else {
                    jobs.push_back(Job { part, brought: Some((peer, bytes)) });
                }
            }
            _ => {}
        }
    }

    /// A part was checked.
    fn checked(
        &mut self,
        plan: &mut Plan,
        part: u32,
        peer: Option<PeerId>,
        result: Result<(), IncomingError>,
    ) -> Result<(), Failed> {
        match (result, peer) {
            (Ok(()), _) => plan.finished(part),
            (Err(error), Some(peer)) if error.is_lie() => {
                plan.refused(part);
                plan.leave(&peer);
                let what = format!("part {part}: {error}");
                self.peers.lied(peer, &Charge::new(Offence::FalseSnapshot, "snapshot-part", &what));
            }
            // What lay here is torn or of a bad sector.
            (Err(error), None) if error.is_lie() => plan.refused(part),
            (Err(error), _) => return Err(Failed::Give(NoSnapshot::Local(error))),
        }
        Ok(())
    }

    fn tell(&self, checked: &Checked, plan: &Plan) {
        (self.progress)(Progress {
            height: checked.header().height,
            parts: (plan.done(), checked.parts().0),
            bytes: checked.bytes(),
            sources: self.peers.sources(checked.id()).len(),
        });
    }

    async fn finish(
        &mut self,
        incoming: Arc<Incoming>,
        commit: Qc,
        offer: &SnapshotOffer,
    ) -> Result<Filled, Failed> {
        let (height, manifest) = (incoming.checked().header().height, incoming.checked().id());
        let Some(incoming) = Arc::into_inner(incoming) else {
            return Err(Failed::Try("its parts are still in use".to_owned()));
        };
        let (chain, folder) = (self.target.chain, self.target.folder.clone());
        match blocking(move || incoming.finish(chain, commit)).await {
            Ok(folder) => Ok(Filled { folder, height }),
            Err(error) if error.is_lie() => {
                // No honest node holds a manifest whose parts do not make up the state.
                for source in self.peers.sources(manifest) {
                    self.peers.contradicted(source, manifest, &error.to_string());
                }
                self.peers.discard(offer);
                let cleared = blocking(move || incoming::clear(&folder)).await;
                cleared.map_err(|error| Failed::Give(NoSnapshot::Local(error)))?;
                Err(Failed::Try(error.to_string()))
            }
            Err(error) => Err(Failed::Give(NoSnapshot::Local(error))),
        }
    }
}

fn check(checking: &mut Checking, incoming: Arc<Incoming>, job: Job) {
    let span = tracing::Span::current();
    checking.spawn_blocking(move || {
        let _node = span.enter();
        let Job { part, brought } = job;
        match brought {
            Some((peer, bytes)) => (part, Some(peer), incoming.accept(part, &bytes)),
            None => (part, None, incoming.resume(part)),
        }
    });
}

fn failed_task(error: &tokio::task::JoinError) -> IncomingError {
    IncomingError::Io {
        action: "check",
        path: PathBuf::from("a part of the snapshot"),
        source: std::io::Error::other(error.to_string()),
    }
}

/// Runs blocking work on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IncomingError> + Send + 'static,
) -> Result<T, IncomingError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed_task(&error)))
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
