//! The control socket: a Unix socket `control.sock` in the data directory, for the owner of the node.
//!
//! A frame is a length (four bytes, big-endian) and that many bytes of JSON, at most
//! [`FRAME_BYTES_MAX`]. Every request names its protocol version. The socket has mode 0600 in a
//! directory of mode 0700, and whoever connects must run as the same user (or root): the kernel tells
//! who that is. Connections and requests have deadlines, and there is a bound on how many are open.
//!
//! Deliberately absent: anything that waits for the engine, and the console's event stream.

use crate::config::control_socket_in;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
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
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(converse(stream, Arc::clone(&backend)).in_current_span());
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

async fn converse(stream: UnixStream, backend: Arc<dyn Backend>) {
    let mut frames = Framed::new(stream, codec());
    match frames.get_ref().peer_cred() {
        Ok(peer) if may_control(peer.uid()) => {}
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
    }
    // Silence, an oversized frame and the end of the connection are the same here.
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(IDLE_MAX, frames.next()).await {
        let answered = match understand(&frame) {
            Ok(Request::Archive { from, to, state }) => {
                send_archive(&mut frames, &backend, ArchiveRequest { from, to, state }).await
            }
            request => {
                let answer = respond(request, &backend).await;
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
        Ok(request @ (Request::Ban { .. } | Request::Unban { .. } | Request::ListBanned)) => {
            let backend = Arc::clone(backend);
            let answered = tokio::task::spawn_blocking(move || keep_out(request, backend.as_ref())).await;
            let answered = answered.map_err(|failed| failed.to_string()).flatten();
            return answered.unwrap_or_else(|reason| Answer::Refused { reason });
        }
        Ok(Request::Recount) => {
            let backend = Arc::clone(backend);
            let counted = tokio::task::spawn_blocking(move || backend.recount()).await;
            return match counted.map_err(|failed| failed.to_string()).flatten() {
                Ok(recounted) => Answer::Recounted { recounted },
                Err(reason) => Answer::Refused { reason },
            };
        }
        Ok(Request::Proof { txid, trusted }) => {
            let backend = Arc::clone(backend);
            // Proofs are read from the disk.
            tokio::task::spawn_blocking(move || backend.proof(&txid, trusted)).await
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
mod tests {
    use super::*;
    use crate::light::bundle::ProofBundle;
    use crate::rpc::client::{ClientError, ControlClient};
    use parking_lot::Mutex;
    use std::io::{Read, Write};

    struct Fixed {
        snapshot: Arc<Snapshot>,
        stopped: Mutex<Option<CleanText>>,
    }

    impl Backend for Fixed {
        fn snapshot(&self) -> Arc<Snapshot> {
            Arc::clone(&self.snapshot)
        }
        fn proof(&self, txid: &Txid, trusted: Option<u64>) -> Result<ProofBundle, String> {
            Err(format!("{txid} from {trusted:?} on is not known"))
        }
        fn archive(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String> {
            let bytes: Vec<u8> = (0..request.from).map(|n| n.to_le_bytes()[0]).collect();
            // As a disk gives it: in parts that fit nothing.
            bytes.chunks(1013).try_for_each(|part| out.write_all(part)).map_err(|error| error.to_string())?;
            if request.state { Err("the disk is tired".to_owned()) } else { Ok(()) }
        }
        fn recount(&self) -> Result<Recounted, String> {
            Ok(Recounted { height: 7, state_hash: Default::default(), outputs: 9 })
        }
        fn ban(&self, whom: &str, length_s: u64, reason: &str) -> Result<BanOutcome, String> {
            Ok(BanOutcome { ban: ban(whom, length_s, reason), disconnected: 2, members: 1 })
        }
        fn unban(&self, whom: &str) -> Result<Vec<BanInfo>, String> {
            if whom == "all" { self.bans() } else { Err(format!("`{whom}` is nobody")) }
        }
        fn bans(&self) -> Result<Vec<BanInfo>, String> {
            Ok(vec![ban("203.0.113.0/24", 60, "noise")])
        }
        fn stop(&self, reason: CleanText) {
            *self.stopped.lock() = Some(reason);
        }
    }

    fn ban(subject: &str, length_s: u64, reason: &str) -> BanInfo {
        BanInfo {
            subject: subject.into(),
            since_ms: 1000,
            until_ms: 1000 + 1000 * length_s,
            automatic: false,
            reason: reason.into(),
            evidence: CleanText::default(),
            address: None,
        }
    }

    #[test]
    fn bans_are_ordered_lifted_and_listed_over_the_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        with_server(dir.path(), &fixed(), |dir| {
            let mut client = ControlClient::connect(&dir).expect("connected");
            let outcome = client.ban("198.51.100.7", 7, "spam").expect("banned");
            assert_eq!((outcome.ban, outcome.members), (ban("198.51.100.7", 7, "spam"), 1));
            let listed = client.bans().expect("listed");
            assert_eq!(client.unban("all").expect("lifted"), listed);
            let refused = client.unban("x").expect_err("nobody");
            assert!(refused.to_string().contains("`x` is nobody"), "{refused}");
        });
    }

    fn snapshot() -> Snapshot {
        serde_json::from_str(include_str!("../../tests/golden/snapshot.json")).expect("a valid snapshot")
    }

    fn fixed() -> Arc<Fixed> {
        Arc::new(Fixed { snapshot: Arc::new(snapshot()), stopped: Mutex::new(None) })
    }

    /// Serves `backend` in `dir` while `client` runs on another thread.
    fn with_server<T: Send + 'static>(
        dir: &Path,
        backend: &Arc<Fixed>,
        client: impl FnOnce(PathBuf) -> T + Send + 'static,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let server = ControlServer::bind(dir).expect("bound");
            let cancel = CancellationToken::new();
            let serving = tokio::spawn(server.serve(Arc::clone(backend) as Arc<dyn Backend>, cancel.clone()));
            let dir = dir.to_path_buf();
            let answer = tokio::task::spawn_blocking(move || client(dir)).await.expect("the client ran");
            cancel.cancel();
            serving.await.expect("the server ended");
            answer
        })
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn status_ping_and_stop_reach_the_node_and_the_socket_goes_with_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = fixed();
        let (pid, status, socket_mode) = with_server(dir.path(), &backend, |dir| {
            let mut client = ControlClient::connect(&dir).expect("connected");
            let pid = client.ping().expect("a pong");
            let status = client.status().expect("a snapshot");
            let refused = client.proof(Txid::default(), Some(7)).expect_err("not known");
            assert!(refused.to_string().contains("Some(7) on is not known"), "{refused}");
            assert_eq!(client.recount().expect("counted").outputs, 9);
            client.stop("the test is over").expect("accepted");
            (pid, status, mode(&control_socket_in(&dir)))
        });
        assert_eq!(pid, std::process::id());
        assert_eq!(status, snapshot());
        assert_eq!(socket_mode, 0o600);
        assert_eq!(backend.stopped.lock().as_ref().map(CleanText::as_str), Some("the test is over"));
        assert!(!control_socket_in(dir.path()).exists());
    }

    #[test]
    fn an_archive_comes_whole_in_pieces_or_says_why_not_and_the_node_outlives_a_client_that_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let expected: Vec<u8> = (0..3_000_000u64).map(|n| n.to_le_bytes()[0]).collect();
        with_server(dir.path(), &fixed(), move |dir| {
            let ask = |state| {
                let request = ArchiveRequest { from: 3_000_000, to: None, state };
                ControlClient::connect(&dir).expect("connected").archive(request).expect("begun")
            };
            let mut got = Vec::new();
            ask(false).read_to_end(&mut got).expect("complete");
            assert!(got == expected);
            got.clear();
            let error = ask(true).read_to_end(&mut got).expect_err("failed at the end");
            assert!(error.to_string().contains("the disk is tired"), "{error}");
            assert!(expected.starts_with(&got));
            let mut first = [0; 10];
            ask(false).read_exact(&mut first).expect("begun");
            ControlClient::connect(&dir).expect("connected").ping().expect("a pong");
        });
    }

    #[test]
    fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = control_socket_in(dir.path());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a dropped listener leaves its file");
        with_server(dir.path(), &fixed(), |dir| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
            let _inside = runtime.enter();
            let second = ControlServer::bind(&dir);
            assert!(matches!(second, Err(ControlError::InUse { .. })));
            ControlClient::connect(&dir).expect("the first is unharmed").ping().expect("a pong");
        });
    }

    #[test]
    fn a_file_in_the_place_of_the_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = control_socket_in(dir.path());
        std::fs::write(&path, "precious").expect("written");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        let _inside = runtime.enter();
        assert!(matches!(ControlServer::bind(dir.path()), Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn a_directory_with_a_very_long_path_works_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let long = dir.path().join("x".repeat(120)).join("y".repeat(120));
        std::fs::create_dir_all(&long).expect("created");
        let pid = with_server(&long, &fixed(), |dir| {
            ControlClient::connect(&dir).expect("connected").ping().expect("a pong")
        });
        assert_eq!(pid, std::process::id());
        assert!(!control_socket_in(&long).exists());
    }

    #[test]
    fn without_a_node_the_client_says_where_it_looked_and_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let missing = ControlClient::connect(dir.path()).expect_err("nobody is there");
        assert!(matches!(missing, ClientError::NotRunning { .. }));
        let text = missing.to_string();
        assert!(text.contains(&dir.path().display().to_string()), "{text}");
        assert!(text.contains("masternode run --data-dir"), "{text}");
        drop(std::os::unix::net::UnixListener::bind(control_socket_in(dir.path())).expect("bound"));
        let dead = ControlClient::connect(dir.path()).expect_err("nobody listens");
        assert!(matches!(dead, ClientError::Stale { .. }), "{dead}");
    }

    /// Sends `payload` as a frame and returns the answer.
    fn raw(dir: &Path, payload: &[u8]) -> Answer {
        let mut stream = std::os::unix::net::UnixStream::connect(control_socket_in(dir)).expect("connected");
        let length = u32::try_from(payload.len()).expect("short");
        stream.write_all(&length.to_be_bytes()).expect("sent");
        stream.write_all(payload).expect("sent");
        let mut head = [0; 4];
        stream.read_exact(&mut head).expect("an answer");
        let mut answer = vec![0; u32::from_be_bytes(head) as usize];
        stream.read_exact(&mut answer).expect("an answer");
        serde_json::from_slice::<Envelope<Answer>>(&answer).expect("valid").body
    }

    #[test]
    fn other_versions_and_nonsense_are_refused_with_a_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let backend = fixed();
        with_server(dir.path(), &backend, |dir| {
            let refused = |payload: &[u8]| match raw(&dir, payload) {
                Answer::Refused { reason } => reason,
                other => panic!("not refused: {other:?}"),
            };
            assert!(refused(br#"{"version":2,"method":"dance"}"#).contains("version 2"));
            assert!(refused(br#"{"version":1,"method":"dance"}"#).contains("dance"));
            assert!(refused(b"\xff\x00 nonsense").contains("not understood"));
        });
        assert!(backend.stopped.lock().is_none());
    }

    #[test]
    fn a_frame_that_claims_too_much_ends_the_connection_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        with_server(dir.path(), &fixed(), |dir| {
            let mut stream =
                std::os::unix::net::UnixStream::connect(control_socket_in(&dir)).expect("connected");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
            stream.write_all(&u32::MAX.to_be_bytes()).expect("sent");
            assert_eq!(stream.read(&mut [0; 1]).expect("closed, not timed out"), 0);
        });
    }
}
