//! The control socket: a Unix socket `control.sock` in the data directory, for the owner of the node.
//!
//! A frame is a length (four bytes, big-endian) and that many bytes of JSON, at most
//! [`FRAME_BYTES_MAX`]. Every request names its protocol version. The socket has mode 0600 in a
//! directory of mode 0700, and whoever connects must run as the same user (or root): the kernel tells
//! who that is. Connections and requests have deadlines, and there is a bound on how many are open.
//!
//! Deliberately absent: anything that waits for the engine. An attached console has its own frames, see
//! [`attach`].

use crate::config::control_socket_in;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::rpc::attach::{self, ATTACH_VERSION, ATTACHED_MAX};
use crate::rpc::stream::{self, ArchiveRequest};
use crate::rpc::{Backend, BanOutcome, Recounted};
use crate::telemetry::bans::BanInfo;
use crate::telemetry::snapshot::Snapshot;
use futures_util::{SinkExt, StreamExt};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Version of requests and answers.
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest frame in bytes; a snapshot with full tables and 200 members has about half of it.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Connections served at once: a console, a monitor and some commands.
pub const CONNECTIONS_MAX: usize = 16;
/// Longest path a Unix socket address holds, without the final zero (`sun_path`, unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;
/// How long a connection may stay silent.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a client may take to accept an answer.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Characters of a stop reason kept.
const REASON_CHARS_MAX: usize = 200;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The whole picture.
    Status,
    /// Stop in order.
    Stop { reason: String },
    /// Whether anybody is there.
    Ping,
    /// The proof that a transaction is final, from the header at height `trusted` on.
    Proof { txid: Txid, trusted: Option<u64> },
    /// The chain from block `from` to `to` (the newest if absent), with the state after it if `state`.
    Archive { from: u64, to: Option<u64>, state: bool },
    /// Count the stored outputs anew.
    Recount,
    /// Ban a peer by its network key, or addresses, for so many seconds.
    Ban { whom: String, length_s: u64, reason: String },
    /// Lift the bans of a peer or an address, or `all`.
    Unban { whom: String },
    /// All bans.
    ListBanned,
    /// Send pictures, events and log records from now on, in version `attach`, every `period_ms` at most; `operate` to be
    /// allowed more than to look.
    Attach { attach: u32, operate: bool, period_ms: u64 },
}

/// What a node answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status { snapshot: Box<Snapshot> },
    /// To [`Request::Stop`]: it will stop.
    Stopping,
    /// To [`Request::Ping`].
    Pong { pid: u32 },
    /// To [`Request::Proof`]: an encoded [`ProofBundle`](crate::light::bundle::ProofBundle) in hexadecimal.
    Proof { bundle: String },
    /// To [`Request::Archive`]: what follows is described in [`stream`](crate::rpc::stream).
    Archive,
    /// To [`Request::Recount`].
    Recounted { recounted: Recounted },
    /// To [`Request::Ban`].
    Banned { outcome: BanOutcome },
    /// To [`Request::Unban`]: the bans that were lifted.
    Unbanned { lifted: Vec<BanInfo> },
    /// To [`Request::ListBanned`], the newest first.
    Bans { bans: Vec<BanInfo> },
    /// To [`Request::Attach`]: what follows is described in [`attach`].
    Attached { operate: bool, name: CleanText, pid: u32 },
    /// The request was refused, with the reason.
    Refused { reason: String },
}

/// A request or answer as it travels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The content.
    #[serde(flatten)]
    pub body: T,
}

/// Why the socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers on it.
    #[error("another masternode is running in {dir}: stop it with `masternode stop --data-dir {dir}` first")]
    InUse { dir: PathBuf },
    /// Something that is not a socket has its name.
    #[error("{path} is not a socket: move it away")]
    NotASocket { path: PathBuf },
    /// The path does not fit and the system has no way around it.
    #[error(
        "the path {path} has {length} bytes, a socket path at most {SOCKET_PATH_MAX}: use a shorter data directory"
    )]
    PathTooLong { path: PathBuf, length: usize },
    /// The system refused.
    #[error("cannot {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// The address of a control socket. Holds the directory open where the path is too long for an
/// address, so it must live as long as the address is used.
#[derive(Debug)]
pub struct SocketAddress {
    /// The path to give to the system.
    pub path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl SocketAddress {
    /// The address of the socket in `data_dir`. A path longer than [`SOCKET_PATH_MAX`] is reached
    /// through `/proc/self/fd`.
    ///
    /// # Errors
    /// [`ControlError`] when the directory cannot be opened or the path does not fit.
    pub fn of(data_dir: &Path) -> Result<Self, ControlError> {
        let path = control_socket_in(data_dir);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(Self { path, _directory: None });
        }
        let length = path.as_os_str().len();
        let directory = rustix::fs::open(data_dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| ControlError::Io {
                action: "open",
                path: data_dir.to_path_buf(),
                source: error.into(),
            })?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        if !short.exists() {
            return Err(ControlError::PathTooLong { path, length });
        }
        Ok(Self { path: control_socket_in(&short), _directory: Some(directory) })
    }
}

/// An open control socket; removed from the directory when dropped.
#[derive(Debug)]
pub struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlServer {
    /// Opens the socket in `data_dir`, replacing that of a dead process. The caller holds the lock of
    /// the directory, so that two nodes cannot race here. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn bind(data_dir: &Path) -> Result<Self, ControlError> {
        let path = control_socket_in(data_dir);
        let io = |action| {
            let path = path.clone();
            move |source| ControlError::Io { action, path, source }
        };
        let address = SocketAddress::of(data_dir)?;
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("look at")(error)),
            Ok(found) if !found.file_type().is_socket() => return Err(ControlError::NotASocket { path }),
            Ok(_) if std::os::unix::net::UnixStream::connect(&address.path).is_ok() => {
                return Err(ControlError::InUse { dir: data_dir.to_path_buf() });
            }
            Ok(_) => std::fs::remove_file(&path).map_err(io("remove the stale"))?,
        }
        let listener = UnixListener::bind(&address.path).map_err(io("open"))?;
        let server = Self { listener, path: path.clone() };
        // The directory is private already; this guards against one that was opened up.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(io("protect"))?;
        Ok(server)
    }

    /// Serves until `cancel`. Connections open then are closed.
    pub async fn serve(self, backend: Arc<dyn Backend>, cancel: CancellationToken) {
        let mut connections = JoinSet::new();
        let places = Arc::new(Semaphore::new(ATTACHED_MAX));
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => {
                        let served = converse(stream, Arc::clone(&backend), Arc::clone(&places));
                        connections.spawn(served.in_current_span());
                    }
                    Err(error) => {
                        tracing::warn!(%error, "control socket: cannot accept a connection");
                        // Out of files, most likely: give others a moment to close theirs.
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "control socket cannot be removed");
        }
    }
}

/// Whether a user may control the node of this process.
fn may_control(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw() || uid == 0
}

async fn converse(stream: UnixStream, backend: Arc<dyn Backend>, places: Arc<Semaphore>) {
    let mut frames = Framed::new(stream, codec());
    let by = match frames.get_ref().peer_cred() {
        Ok(peer) if may_control(peer.uid()) => format!("user {}", peer.uid()),
        Ok(peer) => {
            let reason = format!("user {} may not control this node", peer.uid());
            tracing::warn!(reason, "control socket: refused");
            let _closing_anyway = reply(&mut frames, Answer::Refused { reason }).await;
            return;
        }
        Err(error) => {
            tracing::warn!(%error, "control socket: the system does not say who connected");
            return;
        }
    };
    // Silence, an oversized frame and the end of the connection are the same here.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(IDLE_MAX, frames.next()).await {
        let answered = match understand(&frame) {
            Ok(Request::Archive { from, to, state }) => {
                send_archive(&mut frames, &backend, ArchiveRequest { from, to, state }).await
            }
            Ok(Request::Attach { attach, operate, period_ms }) => {
                let wanted = (attach, operate, period_ms);
                match attached(&mut frames, (&backend, &by), &places, wanted).await {
                    // Refused: it may ask something else.
                    Ok(false) => Ok(()),
                    _ => return,
                }
            }
            request => {
                let answer = obey(request, None, &backend, &by).await;
                reply(&mut frames, answer).await
            }
        };
        if answered.is_err() {
            return;
        }
    }
}

/// The request in a frame, or why there is none.
fn understand(frame: &[u8]) -> Result<Request, String> {
    /// The version alone, so that a newer request is refused for its version.
    #[derive(Deserialize)]
    struct VersionOnly {
        version: u32,
    }
    let not_understood = |error: serde_json::Error| format!("the request is not understood: {error}");
    let VersionOnly { version } = serde_json::from_slice(frame).map_err(not_understood)?;
    if version != PROTOCOL_VERSION {
        return Err(format!(
            "the request has protocol version {version}, this node speaks {PROTOCOL_VERSION}: use the `masternode` program of the same release"
        ));
    }
    let envelope: Envelope<Request> = serde_json::from_slice(frame).map_err(not_understood)?;
    Ok(envelope.body)
}

async fn send_archive(
    frames: &mut Framed<UnixStream, LengthDelimitedCodec>,
    backend: &Arc<dyn Backend>,
    request: ArchiveRequest,
) -> io::Result<()> {
    let pieces = match stream::start(Arc::clone(backend), request) {
        Ok(pieces) => pieces,
        Err(error) => return reply(frames, Answer::Refused { reason: error.to_string() }).await,
    };
    reply(frames, Answer::Archive).await?;
    stream::send(frames, pieces).await
}

/// Serves a console; `false` if it was refused.
async fn attached(
    frames: &mut Framed<UnixStream, LengthDelimitedCodec>,
    (backend, by): (&Arc<dyn Backend>, &str),
    places: &Semaphore,
    (version, operate, period_ms): (u32, bool, u64),
) -> io::Result<bool> {
    if version != ATTACH_VERSION {
        let reason = format!(
            "version {version} of attaching is not spoken here, version {ATTACH_VERSION} is: use the `masternode` program \
             of the same release"
        );
        return reply(frames, Answer::Refused { reason }).await.map(|()| false);
    }
    let Ok(_place) = places.try_acquire() else {
        let reason = format!("{ATTACHED_MAX} consoles are attached already: leave one of them");
        return reply(frames, Answer::Refused { reason }).await.map(|()| false);
    };
    let name = backend.snapshot().node.name.clone();
    reply(frames, Answer::Attached { operate, name, pid: std::process::id() }).await?;
    tracing::info!(operate, "a console was attached");
    let ended = attach::serve(frames, (backend, &format!("{by}, console")), operate, period_ms).await;
    match &ended {
        Ok(()) => tracing::info!("a console was detached"),
        Err(error) => tracing::info!(%error, "a console has gone"),
    }
    ended.map(|()| true)
}

/// What the audit trail calls an order; `None` for what changes nothing.
fn described(request: &Request) -> Option<String> {
    Some(match request {
        Request::Stop { reason } => format!("stop ({reason})"),
        Request::Ban { whom, length_s, reason } => format!("ban {whom} for {length_s} s ({reason})"),
        Request::Unban { whom } => format!("unban {whom}"),
        _ => return None,
    })
}

/// Answers a request, or refuses it for the reason in `forbidden`; an order is noted in the audit trail either way.
pub(super) async fn obey(
    request: Result<Request, String>,
    forbidden: Option<String>,
    backend: &Arc<dyn Backend>,
    by: &str,
) -> Answer {
    let order = request.as_ref().ok().and_then(described);
    // What cannot fail and ends this connection is noted first.
    if let (Ok(Request::Stop { .. }), None, Some(order)) = (&request, &forbidden, &order) {
        noted(backend, by, order, "done").await;
        return respond(request, backend).await;
    }
    let answer = match forbidden {
        Some(reason) => Answer::Refused { reason },
        None => respond(request, backend).await,
    };
    let Some(order) = order else { return answer };
    let outcome = match &answer {
        Answer::Refused { reason } => format!("refused: {reason}"),
        _ => "done".to_owned(),
    };
    noted(backend, by, &order, &outcome).await;
    answer
}

/// Work that blocks, off the threads of the network; its records of the log are of the node it is for.
fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> tokio::task::JoinHandle<T> {
    let span = tracing::Span::current();
    tokio::task::spawn_blocking(move || span.in_scope(work))
}

/// A disk that hangs holds up this answer and nothing else.
async fn noted(backend: &Arc<dyn Backend>, by: &str, order: &str, outcome: &str) {
    let (backend, by, order, outcome) =
        (Arc::clone(backend), by.to_owned(), order.to_owned(), outcome.to_owned());
    let _noted = beside(move || backend.note(&by, &order, &outcome)).await;
}

async fn respond(request: Result<Request, String>, backend: &Arc<dyn Backend>) -> Answer {
    let proven = match request {
        Err(reason) => return Answer::Refused { reason },
        Ok(Request::Ping) => return Answer::Pong { pid: std::process::id() },
        Ok(Request::Status) => {
            return Answer::Status { snapshot: Box::new(Snapshot::clone(&backend.snapshot())) };
        }
        Ok(Request::Stop { reason }) => {
            // Answered without waiting: stopping ends this connection, too.
            backend.stop(CleanText::limited(&reason, REASON_CHARS_MAX));
            return Answer::Stopping;
        }
        Ok(Request::Archive { .. }) => return Answer::Archive,
        // Served before it comes here.
        Ok(Request::Attach { .. }) => {
            return Answer::Refused { reason: "a console is attached by a connection of its own".to_owned() };
        }
        Ok(request @ (Request::Ban { .. } | Request::Unban { .. } | Request::ListBanned)) => {
            let backend = Arc::clone(backend);
            let answered = beside(move || keep_out(request, backend.as_ref())).await;
            let answered = answered.map_err(|failed| failed.to_string()).flatten();
            return answered.unwrap_or_else(|reason| Answer::Refused { reason });
        }
        Ok(Request::Recount) => {
            let backend = Arc::clone(backend);
            let counted = beside(move || backend.recount()).await;
            return match counted.map_err(|failed| failed.to_string()).flatten() {
                Ok(recounted) => Answer::Recounted { recounted },
                Err(reason) => Answer::Refused { reason },
            };
        }
        Ok(Request::Proof { txid, trusted }) => {
            let backend = Arc::clone(backend);
            // Proofs are read from the disk.
            beside(move || backend.proof(&txid, trusted)).await
        }
    };
    match proven {
        Ok(Ok(bundle)) => Answer::Proof { bundle: hex::encode(bundle.to_bytes()) },
        Ok(Err(reason)) => Answer::Refused { reason },
        Err(failed) => Answer::Refused { reason: format!("the proof could not be made: {failed}") },
    }
}

/// Orders about bans. Blocks: they are on disk when this returns.
fn keep_out(request: Request, backend: &dyn Backend) -> Result<Answer, String> {
    match request {
        Request::Ban { whom, length_s, reason } => {
            backend.ban(&whom, length_s, &reason).map(|outcome| Answer::Banned { outcome })
        }
        Request::Unban { whom } => backend.unban(&whom).map(|lifted| Answer::Unbanned { lifted }),
        _ => backend.bans().map(|bans| Answer::Bans { bans }),
    }
}

async fn reply(frames: &mut Framed<UnixStream, LengthDelimitedCodec>, answer: Answer) -> io::Result<()> {
    let envelope = Envelope { version: PROTOCOL_VERSION, body: answer };
    let mut bytes = serde_json::to_vec(&envelope)?;
    if bytes.len() > FRAME_BYTES_MAX {
        let reason = format!("the answer has {} bytes, the most is {FRAME_BYTES_MAX}", bytes.len());
        bytes =
            serde_json::to_vec(&Envelope { version: PROTOCOL_VERSION, body: Answer::Refused { reason } })?;
    }
    match tokio::time::timeout(WRITE_MAX, frames.send(bytes::Bytes::from(bytes))).await {
        Ok(sent) => sent,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec()
}

#[cfg(test)]
#[path = "control_tests.rs"]
pub(super) mod tests;
