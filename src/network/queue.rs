//! What waits to be written to one stream of one peer: bounded, first in first out, optionally held
//! back for an artificial delay. Pushing never blocks. Queues may share a [`Pool`]: then what all of them hold
//! together is bounded as well, and whoever reads nothing is the first to get no more.

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes charged for a frame besides its own, so that many tiny frames stay bounded as well.
const FRAME_OVERHEAD: usize = 64;
/// Most bytes taken out at once; more would let a slow stream hold them outside the bound.
const BATCH_BYTES: usize = 256 << 10;
/// Frames up to this size are copied together; one large buffer costs the transport less than many
/// small ones.
const COPY_MAX: usize = 16 << 10;

/// Bytes that wait in all queues that share it.
#[derive(Debug)]
pub struct Pool {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Pool {
    /// From `bytes_max` bytes on only empty queues take a frame, from twice as many on none.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }

    /// Bytes waiting, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }

    /// Whether a queue that holds `own` bytes must wait for others to be read.
    fn is_short(&self, own: usize) -> bool {
        let most = if own == 0 { self.bytes_max.saturating_mul(2) } else { self.bytes_max };
        self.bytes() >= most
    }
}

/// A queue with one consumer.
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    bytes_max: usize,
    pool: Option<Arc<Pool>>,
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
        Self::of(bytes_max, None)
    }

    /// The same, with what it holds counted in a pool.
    #[must_use]
    pub fn sharing(bytes_max: usize, pool: &Arc<Pool>) -> Self {
        Self::of(bytes_max, Some(Arc::clone(pool)))
    }

    fn of(bytes_max: usize, pool: Option<Arc<Pool>>) -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), bytes_max, pool }
    }

    /// Appends a frame that may leave at `due` (`None`: at once). False when there is no room. Moments
    /// of one queue must not decrease.
    pub fn push(&self, frame: Bytes, due: Option<Instant>) -> bool {
        let mut waiting = self.waiting.lock();
        let short = self.pool.as_ref().is_some_and(|pool| pool.is_short(waiting.bytes));
        if waiting.bytes >= self.bytes_max || short {
            return false;
        }
        let bytes = frame.len() + FRAME_OVERHEAD;
        waiting.bytes += bytes;
        if let Some(pool) = &self.pool {
            pool.bytes.fetch_add(bytes, Relaxed);
        }
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
                let bytes = frame.len() + FRAME_OVERHEAD;
                waiting.bytes -= bytes;
                if let Some(pool) = &self.pool {
                    pool.bytes.fetch_sub(bytes, Relaxed);
                }
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

impl Drop for Queue {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.bytes.fetch_sub(self.waiting.get_mut().bytes, Relaxed);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_one_pool_are_bounded_together_and_whoever_holds_nothing_still_gets_something() {
        let pool = Arc::new(Pool::new(1000));
        let hoarder = Queue::sharing(1 << 20, &pool);
        let frame = || Bytes::from(vec![0; 136]);
        let taken = (0..100).take_while(|_| hoarder.push(frame(), None)).count();
        assert_eq!((taken, pool.bytes()), (5, 1000));
        let others: Vec<Queue> = (0..100).map(|_| Queue::sharing(1 << 20, &pool)).collect();
        assert_eq!(others.iter().filter(|queue| queue.push(frame(), None)).count(), 5, "each one frame");
        assert!(others.iter().all(|queue| !queue.push(frame(), None)), "and none a second");
        // What is read, or lost with its connection, makes room.
        assert!(matches!(hoarder.take(Instant::now()), Taken::Batch(_)));
        drop(others);
        assert_eq!(pool.bytes(), 0);
        assert!(hoarder.push(frame(), None));
        drop(hoarder);
        assert_eq!(pool.bytes(), 0);
    }
}
