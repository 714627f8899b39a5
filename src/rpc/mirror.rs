//! The other end of an attached console: asks to attach over any stream of bytes and keeps the picture that the node's
//! frames describe. Blocking; deadlines are those of the stream.

use crate::primitives::clean::CleanText;
use crate::rpc::attach::{ATTACH_VERSION, Downward, Upward};
use crate::rpc::control::{Answer, Envelope, FRAME_BYTES_MAX, PROTOCOL_VERSION, Request};
use crate::telemetry::patch::{PatchError, apply};
use crate::telemetry::snapshot::Snapshot;
use serde::{Deserialize as _, Serialize};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Characters of the other side's reasons that are shown.
const REASON_CHARS_MAX: usize = 500;

/// Why a console is not attached, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The stream ended.
    #[error("the connection was closed")]
    Closed,
    /// The node refuses.
    #[error("the masternode refused: {0}")]
    Refused(CleanText),
    /// The node lets this client go.
    #[error("the masternode closed the console: {0}")]
    Ended(CleanText),
    /// What came is no frame of this version.
    #[error(
        "what came is not understood ({0}): use the `masternode` program of the same release on both sides"
    )]
    Garbled(CleanText),
    /// The system.
    #[error("the connection failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for MirrorError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Self::Closed
            }
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Self::Io(io::Error::other("no sign of life from the other side"))
            }
            _ => Self::Io(error),
        }
    }
}

impl From<PatchError> for MirrorError {
    fn from(error: PatchError) -> Self {
        garbled(error)
    }
}

fn garbled(reason: impl std::fmt::Display) -> MirrorError {
    MirrorError::Garbled(CleanText::limited(&reason.to_string(), REASON_CHARS_MAX))
}

/// Whom a console was attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub name: CleanText,
    /// Process of the node, on its machine.
    pub pid: u32,
    /// Whether orders are taken.
    pub operate: bool,
}

/// Reads one frame.
///
/// # Errors
/// [`MirrorError`]; also for a frame that claims more than [`FRAME_BYTES_MAX`].
pub fn read_frame(from: &mut impl Read) -> Result<Vec<u8>, MirrorError> {
    let mut head = [0; 4];
    from.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(garbled(format!("a frame of {length} bytes")));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes one frame.
///
/// # Errors
/// [`MirrorError`].
pub fn write_frame(to: &mut impl Write, content: &[u8]) -> Result<(), MirrorError> {
    let length = u32::try_from(content.len()).map_err(garbled)?;
    to.write_all(&[&length.to_be_bytes(), content].concat())?;
    Ok(to.flush()?)
}

fn encoded(content: &impl Serialize) -> Result<Vec<u8>, MirrorError> {
    serde_json::to_vec(content).map_err(garbled)
}

/// The frame that asks to attach.
///
/// # Errors
/// None that can happen; see [`MirrorError`].
pub fn hello(operate: bool, period_ms: u64) -> Result<Vec<u8>, MirrorError> {
    let body = Request::Attach { attach: ATTACH_VERSION, operate, period_ms };
    encoded(&Envelope { version: PROTOCOL_VERSION, body })
}

/// Understands the answer to [`hello`].
///
/// # Errors
/// [`MirrorError`].
pub fn greeted(frame: &[u8]) -> Result<Host, MirrorError> {
    let answer: Envelope<Answer> = serde_json::from_slice(frame).map_err(garbled)?;
    match answer.body {
        Answer::Attached { operate, name, pid } => Ok(Host { name, pid, operate }),
        Answer::Refused { reason } => {
            Err(MirrorError::Refused(CleanText::limited(&reason, REASON_CHARS_MAX)))
        }
        _ => Err(garbled("an answer to something else")),
    }
}

/// The frame of an order.
///
/// # Errors
/// None that can happen; see [`MirrorError`].
pub fn order(number: u64, request: Request) -> Result<Vec<u8>, MirrorError> {
    encoded(&Upward { order: number, request })
}

/// What a frame brought.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A newer picture; `again` when this side was too slow and was given a whole one.
    Picture { snapshot: Arc<Snapshot>, again: bool },
    /// Anything but pictures and changes, as it came.
    Other(Downward),
    /// A sign of life.
    Nothing,
}

/// The picture of a node, kept by changes.
#[derive(Debug, Default)]
pub struct Mirror {
    picture: Value,
}

impl Mirror {
    /// Takes a frame in.
    ///
    /// # Errors
    /// [`MirrorError`]; the connection is of no more use then.
    pub fn take(&mut self, frame: &[u8]) -> Result<News, MirrorError> {
        let again = match serde_json::from_slice(frame).map_err(garbled)? {
            Downward::Picture { again, picture } => {
                self.picture = picture;
                again
            }
            Downward::Change { change: Some(change) } => {
                apply(&mut self.picture, change)?;
                false
            }
            Downward::Change { change: None } => return Ok(News::Nothing),
            Downward::Ending { reason } => {
                return Err(MirrorError::Ended(CleanText::limited(&reason, REASON_CHARS_MAX)));
            }
            other => return Ok(News::Other(other)),
        };
        let snapshot = Snapshot::deserialize(&self.picture).map_err(garbled)?;
        Ok(News::Picture { snapshot: Arc::new(snapshot), again })
    }
}
