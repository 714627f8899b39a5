//! The other end of the control socket, for commands: blocking, with deadlines, and errors that say
//! what to do.

use crate::light::bundle::ProofBundle;
use crate::primitives::clean::CleanText;
use crate::primitives::hash::Txid;
use crate::rpc::control::{
    Answer, ControlError, Envelope, FRAME_BYTES_MAX, PROTOCOL_VERSION, Request, SocketAddress,
};
use crate::rpc::stream::{ArchiveRequest, COMPLETE, FAILED, PIECE};
use crate::rpc::{BanOutcome, Recounted};
use crate::telemetry::bans::BanInfo;
use crate::telemetry::snapshot::Snapshot;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a node may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long it may take to count all outputs of a large chain.
const RECOUNT_MAX: Duration = Duration::from_secs(3600);
/// How long it may take to read one more piece of an archive from a busy disk.
const PIECE_MAX: Duration = Duration::from_secs(120);

/// Why a node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error(
        "no masternode is running in {dir} (no control.sock): start it with `masternode run --data-dir {dir}`"
    )]
    NotRunning { dir: PathBuf },
    /// There is a socket and nobody listens.
    #[error(
        "no masternode is running in {dir} (control.sock is left over from one that died): start it with `masternode run --data-dir {dir}`"
    )]
    Stale { dir: PathBuf },
    /// The socket belongs to another user.
    #[error(
        "the masternode in {dir} belongs to another user: run this as that user, for example with `sudo -u`"
    )]
    Denied { dir: PathBuf },
    /// No answer in time.
    #[error("the masternode in {dir} does not answer within {seconds} s: see its log in {dir}/logs", seconds = ANSWER_MAX.as_secs())]
    Silent { dir: PathBuf },
    /// It closed the connection.
    #[error(
        "the masternode in {dir} closed the connection: it is busy with other commands or stopping, try again"
    )]
    Closed { dir: PathBuf },
    /// It refused the request.
    #[error("the masternode in {dir} refused: {reason}")]
    Refused { dir: PathBuf, reason: String },
    /// The answer makes no sense.
    #[error(
        "the answer of the masternode in {dir} is not understood ({reason}): use the `masternode` program of the same release"
    )]
    Garbled { dir: PathBuf, reason: String },
    /// The path of the socket cannot be used.
    #[error(transparent)]
    Address(#[from] ControlError),
    /// The system refused.
    #[error("cannot talk to the masternode in {dir}: {source}")]
    Io { dir: PathBuf, source: io::Error },
}

/// A connection to a running node.
#[derive(Debug)]
pub struct ControlClient {
    stream: UnixStream,
    dir: PathBuf,
}

/// A connection to the node that runs in `data_dir`, without deadlines.
///
/// # Errors
/// [`ClientError`].
pub fn stream(data_dir: &Path) -> Result<UnixStream, ClientError> {
    let dir = data_dir.to_path_buf();
    if !data_dir.is_dir() {
        return Err(ClientError::NotRunning { dir });
    }
    let address = SocketAddress::of(data_dir)?;
    UnixStream::connect(&address.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClientError::NotRunning { dir },
        io::ErrorKind::ConnectionRefused => ClientError::Stale { dir },
        io::ErrorKind::PermissionDenied => ClientError::Denied { dir },
        _ => ClientError::Io { dir, source: error },
    })
}

impl ControlClient {
    /// Connects to the node that runs in `data_dir`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn connect(data_dir: &Path) -> Result<Self, ClientError> {
        let client = Self { stream: stream(data_dir)?, dir: data_dir.to_path_buf() };
        client.deadline(ANSWER_MAX)?;
        Ok(client)
    }

    /// The whole picture of the node.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn status(&mut self) -> Result<Snapshot, ClientError> {
        match self.ask(Request::Status)? {
            Answer::Status { snapshot } => Ok(*snapshot),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Whether the node is there; its process id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn ping(&mut self) -> Result<u32, ClientError> {
        match self.ask(Request::Ping)? {
            Answer::Pong { pid } => Ok(pid),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The proof that a transaction is final, from the header at height `trusted` on. It is not verified.
    ///
    /// # Errors
    /// [`ClientError`]; refused with the reason when there is none.
    pub fn proof(&mut self, txid: Txid, trusted: Option<u64>) -> Result<ProofBundle, ClientError> {
        let bundle = match self.ask(Request::Proof { txid, trusted })? {
            Answer::Proof { bundle } => bundle,
            other => return Err(self.unexpected(&other)),
        };
        let garbled = |reason: String| ClientError::Garbled { dir: self.dir.clone(), reason };
        let bytes = hex::decode(bundle).map_err(|error| garbled(error.to_string()))?;
        ProofBundle::from_bytes(&bytes).map_err(|error| garbled(error.to_string()))
    }

    /// Asks the node to stop in order; returns when it has agreed, not when it is gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stop(&mut self, reason: &str) -> Result<(), ClientError> {
        match self.ask(Request::Stop { reason: reason.to_owned() })? {
            Answer::Stopping => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// After [`ControlClient::stop`]: waits until the node has closed the connection, which it does
    /// last, or `patience` is over; returns whether it has.
    ///
    /// # Errors
    /// [`ClientError::Io`] when the connection cannot be watched.
    pub fn wait_gone(mut self, patience: Duration) -> Result<bool, ClientError> {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.deadline(left)?;
            match self.stream.read(&mut [0; 64]) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                Err(error) if is_timeout(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ClientError::Io { dir: self.dir, source }),
            }
        }
    }

    /// Has the node count its stored outputs anew, which takes about 5 µs for each.
    ///
    /// # Errors
    /// [`ClientError`]; refused with the reason when they are not what the chain says.
    pub fn recount(&mut self) -> Result<Recounted, ClientError> {
        self.deadline(RECOUNT_MAX)?;
        let answer = self.ask(Request::Recount);
        self.deadline(ANSWER_MAX)?;
        match answer? {
            Answer::Recounted { recounted } => Ok(recounted),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Bans a peer or addresses for so many seconds.
    ///
    /// # Errors
    /// [`ClientError`]; refused with the reason when nobody is meant by `whom`.
    pub fn ban(&mut self, whom: &str, length_s: u64, reason: &str) -> Result<BanOutcome, ClientError> {
        match self.ask(Request::Ban { whom: whom.to_owned(), length_s, reason: reason.to_owned() })? {
            Answer::Banned { outcome } => Ok(outcome),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Lifts bans, and forgets scores and back-offs with them; the bans that were lifted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn unban(&mut self, whom: &str) -> Result<Vec<BanInfo>, ClientError> {
        match self.ask(Request::Unban { whom: whom.to_owned() })? {
            Answer::Unbanned { lifted } => Ok(lifted),
            other => Err(self.unexpected(&other)),
        }
    }

    /// All bans, the newest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn bans(&mut self) -> Result<Vec<BanInfo>, ClientError> {
        match self.ask(Request::ListBanned)? {
            Answer::Bans { bans } => Ok(bans),
            other => Err(self.unexpected(&other)),
        }
    }

    /// An archive of the chain, to be read to its end.
    ///
    /// # Errors
    /// [`ClientError`]; what goes wrong later is an error of the reading.
    pub fn archive(mut self, request: ArchiveRequest) -> Result<ArchiveStream, ClientError> {
        let ArchiveRequest { from, to, state } = request;
        match self.ask(Request::Archive { from, to, state })? {
            Answer::Archive => {}
            other => return Err(self.unexpected(&other)),
        }
        self.deadline(PIECE_MAX)?;
        Ok(ArchiveStream { client: self, piece: Vec::new(), at: 0, complete: false })
    }

    fn ask(&mut self, request: Request) -> Result<Answer, ClientError> {
        let dir = self.dir.clone();
        let garbled = |reason: String| ClientError::Garbled { dir: dir.clone(), reason };
        let bytes = serde_json::to_vec(&Envelope { version: PROTOCOL_VERSION, body: request })
            .map_err(|error| garbled(error.to_string()))?;
        let length = u32::try_from(bytes.len()).map_err(|error| garbled(error.to_string()))?;
        self.write(&length.to_be_bytes())?;
        self.write(&bytes)?;
        let mut head = [0; 4];
        self.read(&mut head)?;
        let length = u32::from_be_bytes(head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(garbled(format!("a frame of {length} bytes")));
        }
        let mut frame = vec![0; length];
        self.read(&mut frame)?;
        let envelope: Envelope<Answer> =
            serde_json::from_slice(&frame).map_err(|error| garbled(error.to_string()))?;
        match envelope.body {
            Answer::Refused { reason } => Err(ClientError::Refused { dir, reason }),
            answer => Ok(answer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).map_err(|error| self.failed(error))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ClientError> {
        self.stream.read_exact(bytes).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> ClientError {
        let dir = self.dir.clone();
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                ClientError::Closed { dir }
            }
            _ if is_timeout(&error) => ClientError::Silent { dir },
            _ => ClientError::Io { dir, source: error },
        }
    }

    fn unexpected(&self, answer: &Answer) -> ClientError {
        let reason = match answer {
            Answer::Status { .. } => "a status nobody asked for",
            Answer::Stopping => "a stop nobody asked for",
            Answer::Pong { .. } => "a pong nobody asked for",
            Answer::Proof { .. } => "a proof nobody asked for",
            Answer::Archive => "an archive nobody asked for",
            Answer::Recounted { .. } => "a count nobody asked for",
            Answer::Banned { .. } => "a ban nobody asked for",
            Answer::Unbanned { .. } => "an end of bans nobody asked for",
            Answer::Bans { .. } => "bans nobody asked for",
            Answer::Attached { .. } => "an attachment nobody asked for",
            Answer::Refused { reason } => reason,
        };
        ClientError::Garbled { dir: self.dir.clone(), reason: reason.to_owned() }
    }

    fn deadline(&self, patience: Duration) -> Result<(), ClientError> {
        self.stream
            .set_read_timeout(Some(patience))
            .and_then(|()| self.stream.set_write_timeout(Some(patience)))
            .map_err(|source| ClientError::Io { dir: self.dir.clone(), source })
    }
}

/// An archive on its way; ends where the node says that it is complete.
#[derive(Debug)]
pub struct ArchiveStream {
    client: ControlClient,
    piece: Vec<u8>,
    at: usize,
    complete: bool,
}

impl ArchiveStream {
    fn next_piece(&mut self) -> io::Result<()> {
        let failed = |client: &ControlClient, error| io::Error::other(client.failed(error).to_string());
        let mut head = [0; 4];
        self.client.stream.read_exact(&mut head).map_err(|error| failed(&self.client, error))?;
        let length = u32::from_be_bytes(head) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(io::Error::other(format!("a piece of {length} bytes is more than a frame holds")));
        }
        self.piece.resize(length, 0);
        self.client.stream.read_exact(&mut self.piece).map_err(|error| failed(&self.client, error))?;
        self.at = 1;
        match self.piece.split_first() {
            Some((&PIECE, _)) => Ok(()),
            Some((&COMPLETE, [])) => {
                self.complete = true;
                Ok(())
            }
            Some((&FAILED, reason)) => {
                let reason = CleanText::limited(&String::from_utf8_lossy(reason), 2000);
                Err(io::Error::other(format!("the masternode could not go on: {reason}")))
            }
            _ => Err(io::Error::other("a piece is not understood: use the program of the same release")),
        }
    }
}

impl Read for ArchiveStream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.piece.len() && !self.complete {
            self.next_piece()?;
        }
        let rest = self.piece.get(self.at..).unwrap_or_default();
        let taken = rest.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(rest) {
            *to = *from;
        }
        self.at += taken;
        Ok(taken)
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
