//! Long answers on the control socket: an archive of the chain, as it is read from the database.
//!
//! After the answer `archive` come frames of bytes instead of JSON. The first byte says what the rest is: a
//! piece of the archive, nothing more (the archive is complete), or in words why it could not be completed.
//! The node reads ahead of a slow client by a few pieces and no more.

use crate::rpc::Backend;
use bytes::Bytes;
use futures_util::SinkExt as _;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Bytes of the archive in one frame.
const PIECE_BYTES: usize = 256 << 10;
/// Pieces read ahead.
const PIECES_WAITING_MAX: usize = 4;
/// How long a client may take for one piece: its disk may be busy for a while.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// How much less the reading thread counts than those that vote.
const NICE: i32 = 10;
/// Characters of a reason that are sent.
const REASON_CHARS_MAX: usize = 2000;

/// First byte of a frame: a piece follows.
pub const PIECE: u8 = 0;
/// First byte of a frame: the archive is complete.
pub const COMPLETE: u8 = 1;
/// First byte of a frame: the reason why it is not follows.
pub const FAILED: u8 = 2;

/// Which part of the chain is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveRequest {
    /// First block.
    pub from: u64,
    /// Last block; the newest if `None`.
    pub to: Option<u64>,
    /// Whether the state after the newest block is wanted.
    pub state: bool,
}

/// Gathers what is written into pieces and hands them on, waiting for the client.
struct Pieces {
    sender: Sender<Bytes>,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(sender: Sender<Bytes>) -> Self {
        let mut pieces = Self { sender, piece: Vec::with_capacity(PIECE_BYTES + 1) };
        pieces.piece.push(PIECE);
        pieces
    }

    fn send(&self, frame: Vec<u8>) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked for it has gone");
        self.sender.blocking_send(frame.into()).map_err(gone)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (PIECE_BYTES + 1).saturating_sub(self.piece.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.piece.extend_from_slice(taken);
        if self.piece.len() > PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.len() > 1 {
            let mut next = Vec::with_capacity(PIECE_BYTES + 1);
            next.push(PIECE);
            let full = std::mem::replace(&mut self.piece, next);
            self.send(full)?;
        }
        Ok(())
    }
}

/// Starts to read the archive on a thread of its own, which ends when nobody takes the pieces any more.
///
/// # Errors
/// When the system has no thread to give.
pub fn start(backend: Arc<dyn Backend>, request: ArchiveRequest) -> io::Result<Receiver<Bytes>> {
    let (sender, pieces) = channel(PIECES_WAITING_MAX);
    let span = tracing::Span::current();
    std::thread::Builder::new().name("archive".to_owned()).spawn(move || {
        let _node = span.enter();
        // On Linux this is the thread's own; where it is refused the reading is only less polite.
        let _as_it_was = rustix::process::nice(NICE);
        let mut out = Pieces::new(sender);
        let end = match backend
            .archive(request, &mut out)
            .and_then(|()| out.flush().map_err(|error| error.to_string()))
        {
            Ok(()) => vec![COMPLETE],
            Err(reason) => {
                let reason: String = reason.chars().take(REASON_CHARS_MAX).collect();
                tracing::warn!(%reason, "control socket: an archive of the chain was not completed");
                [&[FAILED], reason.as_bytes()].concat()
            }
        };
        // Whoever asked may be gone.
        let _unheard = out.send(end);
    })?;
    Ok(pieces)
}

/// Sends the pieces.
///
/// # Errors
/// When the client is gone or does not take them.
pub async fn send(
    frames: &mut Framed<UnixStream, LengthDelimitedCodec>,
    mut pieces: Receiver<Bytes>,
) -> io::Result<()> {
    while let Some(piece) = pieces.recv().await {
        match tokio::time::timeout(PIECE_MAX, frames.send(piece)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}
