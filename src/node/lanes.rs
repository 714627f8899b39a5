//! A bounded queue with two lanes: what is urgent (votes, connections, blocks) overtakes what is bulky
//! (transactions). Each lane keeps its order.
//!
//! Producers are threads, which wait for room, or tasks, which are told when there is none and wait for
//! [`Lanes::room`]. One consumer, a thread.

use crate::node::clock::monotonic_us;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::time::Instant;
use tokio::sync::Notify;

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Urgent,
    Bulk,
}

/// What was taken and when it had come in, on the monotonic clock in microseconds.
#[derive(Debug)]
pub struct Waiting<T> {
    pub since_us: u64,
    pub item: T,
}

/// How a take ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Something was taken.
    Some,
    /// The time was up.
    Nothing,
    /// Closed and empty.
    Closed,
}

#[derive(Debug)]
struct State<T> {
    urgent: VecDeque<Waiting<T>>,
    bulk: VecDeque<Waiting<T>>,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Lanes<T> {
    state: Mutex<State<T>>,
    urgent_max: usize,
    bulk_max: usize,
    filled: Condvar,
    freed: Condvar,
    freed_for_task: Notify,
}

impl<T> Lanes<T> {
    /// An empty queue with the bounds of its lanes.
    #[must_use]
    pub fn new(urgent_max: usize, bulk_max: usize) -> Self {
        Self {
            state: Mutex::new(State { urgent: VecDeque::new(), bulk: VecDeque::new(), closed: false }),
            urgent_max,
            bulk_max,
            filled: Condvar::new(),
            freed: Condvar::new(),
            freed_for_task: Notify::new(),
        }
    }

    fn bound(&self, lane: Lane) -> usize {
        match lane {
            Lane::Urgent => self.urgent_max,
            Lane::Bulk => self.bulk_max,
        }
    }

    /// Adds an item, waiting for room; gives it back when the queue is closed. For threads.
    pub fn push(&self, lane: Lane, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        while !state.closed && state.lane(lane).len() >= self.bound(lane) {
            self.freed.wait(&mut state);
        }
        self.add(state, lane, item)
    }

    /// Adds an item if there is room; gives it back otherwise.
    pub fn try_push(&self, lane: Lane, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.lane(lane).len() >= self.bound(lane) {
            return Err(item);
        }
        self.add(state, lane, item)
    }

    /// Adds an item whatever the bound: for what is bounded where it comes from.
    pub fn force(&self, lane: Lane, item: T) -> Result<(), T> {
        self.add(self.state.lock(), lane, item)
    }

    fn add(&self, mut state: parking_lot::MutexGuard<'_, State<T>>, lane: Lane, item: T) -> Result<(), T> {
        if state.closed {
            return Err(item);
        }
        state.lane(lane).push_back(Waiting { since_us: monotonic_us(), item });
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits until something was taken since the last call. For one task; may return early.
    pub async fn room(&self) {
        self.freed_for_task.notified().await;
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Takes what waits, urgent things first, at most so many of each; waits for something until
    /// `until`, for ever if `None`.
    pub fn take(&self, into: &mut Vec<Waiting<T>>, most: (usize, usize), until: Option<Instant>) -> Taken {
        let mut state = self.state.lock();
        while state.urgent.is_empty() && state.bulk.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            match until {
                None => self.filled.wait(&mut state),
                Some(until) => {
                    if self.filled.wait_until(&mut state, until).timed_out()
                        && state.urgent.is_empty()
                        && state.bulk.is_empty()
                    {
                        return if state.closed { Taken::Closed } else { Taken::Nothing };
                    }
                }
            }
        }
        let (urgent, bulk) = (most.0.min(state.urgent.len()), most.1.min(state.bulk.len()));
        into.extend(state.urgent.drain(..urgent));
        into.extend(state.bulk.drain(..bulk));
        drop(state);
        self.freed.notify_all();
        self.freed_for_task.notify_one();
        Taken::Some
    }

    /// Takes no more; what is inside is still handed out.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.freed.notify_all();
        self.freed_for_task.notify_one();
    }
}

impl<T> State<T> {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Waiting<T>> {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(lanes: &Lanes<u32>, most: (usize, usize)) -> Vec<u32> {
        let mut taken = Vec::new();
        lanes.take(&mut taken, most, Some(Instant::now()));
        taken.into_iter().map(|waiting| waiting.item).collect()
    }

    #[test]
    fn urgent_things_overtake_bulky_ones_and_each_lane_keeps_its_order() {
        let lanes = Lanes::new(8, 8);
        for (lane, item) in [(Lane::Bulk, 1), (Lane::Urgent, 2), (Lane::Bulk, 3), (Lane::Urgent, 4)] {
            lanes.try_push(lane, item).unwrap();
        }
        assert_eq!(items(&lanes, (9, 1)), [2, 4, 1]);
        assert_eq!(items(&lanes, (9, 9)), [3]);
    }

    #[test]
    fn a_full_lane_refuses_and_leaves_the_other_open() {
        let lanes = Lanes::new(1, 1);
        lanes.try_push(Lane::Bulk, 1).unwrap();
        assert_eq!(lanes.try_push(Lane::Bulk, 2), Err(2));
        lanes.try_push(Lane::Urgent, 3).unwrap();
        lanes.force(Lane::Urgent, 4).unwrap();
        assert_eq!(items(&lanes, (9, 9)), [3, 4, 1]);
    }

    #[test]
    fn a_closed_queue_hands_out_what_it_holds_and_then_says_so() {
        let lanes = Lanes::new(8, 8);
        lanes.try_push(Lane::Bulk, 1).unwrap();
        lanes.close();
        assert_eq!(lanes.push(Lane::Urgent, 2), Err(2));
        assert_eq!(items(&lanes, (9, 9)), [1]);
        assert_eq!(lanes.take(&mut Vec::new(), (9, 9), None), Taken::Closed);
    }
}
