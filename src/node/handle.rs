//! What the rest of the program holds of a running node: look-ups that never enter the engine,
//! submission of transactions, and the order to stop.

use crate::ledger::Ledger;
use crate::light::bundle::ProofBundle;
use crate::network::Network;
use crate::node::archivist::Archivist;
use crate::node::audit;
use crate::node::banned;
use crate::node::clock;
use crate::node::hub::{Fate, FateKind, Hub, Subscription};
use crate::node::log_feed;
use crate::node::logging::ring::LogRing;
use crate::node::prover::Prover;
use crate::node::tasks::{Exit, Stopper};
use crate::node::verify::Verifier;
use crate::pool::{Pool, TxState};
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::primitives::message::PeerId;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{SealedTransaction, Transaction, TxStatus};
use crate::rpc::stream::ArchiveRequest;
use crate::rpc::{Backend, BanOutcome, Recounted};
use crate::telemetry::bans::BanInfo;
use crate::telemetry::event::Event;
use crate::telemetry::log::LogPage;
use crate::telemetry::snapshot::Snapshot;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, broadcast, oneshot, watch};

/// Submissions under way at once; more wait.
pub const SUBMISSIONS_MAX: usize = 4096;

/// Why a transaction was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It was refused.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The node is stopping, or has halted.
    #[error("the node is stopping or has halted and takes no transactions")]
    Stopping,
}

pub(super) struct Shared {
    pub hub: Arc<Hub>,
    pub ledger: Arc<Ledger>,
    pub pool: Arc<Pool>,
    pub verifier: Verifier,
    pub stopper: Stopper,
    pub submissions: Semaphore,
    pub local_address: SocketAddr,
    /// The key of the node and its network, which ends when the node stops.
    pub network: (PeerId, Weak<Network>),
    pub data_dir: PathBuf,
    pub prover: Arc<Prover>,
    pub archivist: Archivist,
    pub finished: watch::Receiver<Option<Exit>>,
}

/// A running node. Cheap to clone; dropping it does not stop the node.
#[derive(Clone)]
pub struct NodeHandle(pub(super) Arc<Shared>);

impl std::fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeHandle(at {})", self.0.local_address)
    }
}

impl NodeHandle {
    /// The newest picture, at most a quarter of a second old.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.hub.snapshot()
    }

    /// All events from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.0.hub.subscribe()
    }

    /// What becomes of all transactions from now on: for whoever waits for many.
    #[must_use]
    pub fn fates(&self) -> broadcast::Receiver<Arc<Fate>> {
        self.0.hub.subscribe_fates()
    }

    /// The hub.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.0.hub
    }

    /// The applied chain.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.0.ledger
    }

    /// The pool.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    /// Address the node listens at.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.0.local_address
    }

    /// Key the node is known by to its peers.
    #[must_use]
    pub fn network_id(&self) -> PeerId {
        self.0.network.0
    }

    /// Where the node keeps its files.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.0.data_dir
    }

    /// How far a transaction has come here; `None` when it is neither in the pool nor remembered.
    #[must_use]
    pub fn tx_status(&self, txid: &Txid) -> Option<TxState> {
        self.0.pool.state(txid, clock::monotonic_us())
    }

    /// Submits a transaction; answers when its signatures were checked and the pool has taken it. It
    /// is relayed and voted on from then on.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit(&self, transaction: Transaction) -> Result<Txid, SubmitError> {
        let _permit = self.0.submissions.acquire().await.map_err(|_| SubmitError::Stopping)?;
        let transaction = SealedTransaction::new(transaction);
        self.0.hub.metrics.transaction_seen(transaction.id(), clock::monotonic_us());
        let (answer, answered) = oneshot::channel();
        self.0.verifier.submit(transaction, answer).map_err(|_| SubmitError::Stopping)?;
        Ok(answered.await.map_err(|_| SubmitError::Stopping)??)
    }

    /// Waits until a transaction is final here, by votes or in a block; `Err` when it is refused or
    /// dropped. Ask after submitting it; one that never comes is waited for until the node stops.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn wait_final(&self, txid: Txid) -> Result<(), SubmitError> {
        let mut fates = self.fates();
        let mut look = true;
        loop {
            if look && let Some(known) = self.settled(&txid) {
                return known;
            }
            look = false;
            match fates.recv().await {
                Ok(fate) => match &fate.kind {
                    FateKind::Final { txids, .. } if txids.contains(&txid) => return Ok(()),
                    FateKind::Block { block } if block.transactions.iter().any(|tx| tx.id() == txid) => {
                        return Ok(());
                    }
                    FateKind::Rejected { txid: refused, reason }
                        if *refused == txid && *reason != Rejection::AlreadyKnown =>
                    {
                        return Err(reason.clone().into());
                    }
                    _ => {}
                },
                Err(broadcast::error::RecvError::Lagged(_)) => look = true,
                Err(broadcast::error::RecvError::Closed) => return Err(SubmitError::Stopping),
            }
        }
    }

    fn settled(&self, txid: &Txid) -> Option<Result<(), SubmitError>> {
        let state = self.tx_status(txid)?;
        match (state.status, state.rejection) {
            (TxStatus::Final | TxStatus::Confirmed, _) => Some(Ok(())),
            (TxStatus::Rejected, Some(reason)) => Some(Err(reason.into())),
            _ => None,
        }
    }

    /// Publishes what `ring` receives from now on among this node's events, until it stops, and shows it to attached
    /// consoles. To be called once, within the runtime.
    pub fn follow_log(&self, ring: LogRing) {
        let _first_wins = self.0.hub.log.set(ring.clone());
        let cancel = self.0.stopper.ordered().clone();
        let node = self.snapshot().node.name.as_str().to_owned();
        let from = ring.next_number();
        tokio::spawn(log_feed::feed(Arc::clone(&self.0.hub), ring, from, node, cancel));
    }

    /// Orders the node to stop; returns at once.
    pub fn stop(&self, reason: &str) {
        self.0.stopper.stop(0, reason);
    }

    /// Waits until the node has stopped and everything is on disk.
    pub async fn stopped(&self) -> Exit {
        let mut finished = self.0.finished.clone();
        match finished.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone(),
            // The runtime went away under the node.
            Err(_) => None,
        }
        .unwrap_or_else(|| Exit { code: 1, reason: "the node was cut off".to_owned() })
    }
}

impl NodeHandle {
    /// A page of the log without the records of other nodes of the process.
    fn own_log(&self, page: impl FnOnce(&LogRing) -> LogPage) -> LogPage {
        let mut page = self.0.hub.log.get().map(page).unwrap_or_default();
        let snapshot = self.snapshot();
        page.records.retain(|(_, record)| log_feed::is_of(record, snapshot.node.name.as_str()));
        page
    }

    fn network(&self) -> Result<Arc<Network>, String> {
        self.0.network.1.upgrade().ok_or_else(|| "the node is stopping".to_owned())
    }
}

impl Backend for NodeHandle {
    fn ban(&self, whom: &str, length_s: u64, reason: &str) -> Result<BanOutcome, String> {
        let length = Duration::from_secs(length_s);
        let ordered = self.network()?.ban(whom, length, reason).map_err(|error| error.to_string())?;
        Ok(BanOutcome {
            ban: banned::described(&ordered.ban),
            disconnected: ordered.disconnected as u64,
            members: ordered.members as u64,
        })
    }

    fn unban(&self, whom: &str) -> Result<Vec<BanInfo>, String> {
        let lifted = self.network()?.unban(whom).map_err(|error| error.to_string())?;
        Ok(lifted.iter().map(banned::described).collect())
    }

    fn bans(&self) -> Result<Vec<BanInfo>, String> {
        Ok(self.network()?.bans().iter().map(banned::described).collect())
    }

    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.hub.receiver()
    }

    fn history(&self) -> Vec<Arc<Event>> {
        self.0.hub.history()
    }

    fn log_number(&self) -> u64 {
        self.0.hub.log.get().map_or(0, LogRing::next_number)
    }

    fn logs(&self, from: u64, max: usize) -> LogPage {
        self.own_log(|ring| ring.since(from, max))
    }

    fn warnings(&self, max: usize) -> LogPage {
        let mut page = self.own_log(|ring| ring.warnings_since(0, usize::MAX));
        page.records.drain(..page.records.len().saturating_sub(max));
        page
    }

    fn proof(&self, txid: &Txid, trusted: Option<u64>) -> Result<ProofBundle, String> {
        self.0.prover.prove(txid, trusted).map_err(|error| error.to_string())
    }

    fn archive(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String> {
        self.0.archivist.write(request, out)
    }

    fn recount(&self) -> Result<Recounted, String> {
        self.0.archivist.recount()
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.0.hub.snapshot()
    }

    fn note(&self, by: &str, order: &str, outcome: &str) {
        let entry = audit::Entry {
            time_ms: clock::now().wall_ms,
            by: CleanText::limited(by, 64),
            order: CleanText::limited(order, 400),
            outcome: CleanText::limited(outcome, 400),
        };
        audit::note(&self.0.data_dir, &entry);
    }

    fn stop(&self, reason: CleanText) {
        self.0.stopper.stop(0, &format!("asked to stop over the control socket: {reason}"));
    }
}
