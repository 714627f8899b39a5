//! What waits to be written to one stream of one peer: bounded, first in first out, optionally held
//! back for an artificial delay. Pushing never blocks.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes charged for a frame besides its own, so that many tiny frames stay bounded as well.
const FRAME_OVERHEAD: usize = 64;
/// Most bytes taken out at once; more would let a slow stream hold them outside the bound.
const BATCH_BYTES: usize = 256 << 10;
/// Frames up to this size are copied together; one large buffer costs the transport less than many
/// small ones.
const COPY_MAX: usize = 16 << 10;

/// A queue with one consumer.
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    frames: VecDeque<(Option<Instant>, Bytes)>,
    bytes: usize,
}

/// What the consumer finds.
pub enum Taken {
    /// These buffers are to be written in order.
    Batch(Vec<Bytes>),
    /// Nothing may leave before this moment.
    NotBefore(Instant),
    /// Nothing waits.
    Nothing,
}

impl Queue {
    /// Takes frames while fewer than `bytes_max` bytes wait, so at most one frame more than that: a large
    /// proposal is no reason to call a peer slow.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), bytes_max }
    }

    /// Appends a frame that may leave at `due` (`None`: at once). False when there is no room. Moments
    /// of one queue must not decrease.
    pub fn push(&self, frame: Bytes, due: Option<Instant>) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.bytes >= self.bytes_max {
            return false;
        }
        waiting.bytes += frame.len() + FRAME_OVERHEAD;
        waiting.frames.push_back((due, frame));
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Takes all frames that may leave `now`, up to a bound.
    pub fn take(&self, now: Instant) -> Taken {
        let mut frames = Vec::new();
        let mut taken = 0;
        {
            let mut waiting = self.waiting.lock();
            while taken < BATCH_BYTES {
                match waiting.frames.front() {
                    Some((Some(due), _)) if *due > now => {
                        if frames.is_empty() {
                            return Taken::NotBefore(*due);
                        }
                        break;
                    }
                    Some(_) => {}
                    None => break,
                }
                let Some((_, frame)) = waiting.frames.pop_front() else { break };
                waiting.bytes -= frame.len() + FRAME_OVERHEAD;
                taken += frame.len();
                frames.push(frame);
            }
        }
        if frames.is_empty() { Taken::Nothing } else { Taken::Batch(coalesce(frames)) }
    }

    /// Bytes waiting, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }

    /// Waits until something has been pushed since the last wait. Cancelling loses nothing.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}

/// Joins runs of small frames, keeping the order.
fn coalesce(frames: Vec<Bytes>) -> Vec<Bytes> {
    if frames.len() == 1 {
        return frames;
    }
    let mut buffers = Vec::new();
    let mut small = BytesMut::new();
    for frame in frames {
        if frame.len() <= COPY_MAX {
            small.extend_from_slice(&frame);
        } else {
            if !small.is_empty() {
                buffers.push(small.split().freeze());
            }
            buffers.push(frame);
        }
    }
    if !small.is_empty() {
        buffers.push(small.freeze());
    }
    buffers
}
