//! Requests of peers that are answered one after the other, on a thread of their own.
//!
//! A few requests of each peer wait; what is beyond is dropped, and the peer asks again or asks another.
//! Nobody gets more bytes a second than the [`budget`] allows: others' requests go first meanwhile.
//! Bounded by [`WAITING_MAX`].

pub mod budget;

use crate::network::Network;
use crate::network::router::Recipients;
use crate::node::clock;
use crate::primitives::encoding::encode;
use crate::primitives::message::{Message, PeerId};
use budget::{Budget, Rate};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Requests of all peers that may wait in the queue, and as many again that wait for the budget of whoever
/// sent them: more than all peers of a large node ask for at a time.
const WAITING_MAX: usize = 1024;
/// How soon it is looked again whether a peer has read what it was sent.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);
/// What an answer costs besides its bytes, so that many empty ones are paid for too.
const ANSWER_BYTES: u64 = 4096;

/// What peers may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests of one peer that may wait.
    pub of_peer_max: u32,
    /// What one peer is sent.
    pub rate: Rate,
}

/// Takes requests, few of each peer.
#[derive(Clone, Debug)]
pub struct Desk {
    queue: SyncSender<(PeerId, Message)>,
    waiting: Waiting,
    of_peer_max: u32,
}

/// Requests of each peer that were not answered yet.
#[derive(Clone, Debug, Default)]
struct Waiting(Arc<Mutex<HashMap<PeerId, u32>>>);

impl Waiting {
    /// One more of a peer, if it has less than `most`.
    fn add(&self, peer: PeerId, most: u32) -> bool {
        let mut waiting = self.0.lock();
        let of_peer = waiting.entry(peer).or_default();
        let may = *of_peer < most;
        *of_peer += u32::from(may);
        may
    }

    fn remove(&self, peer: PeerId) {
        let mut waiting = self.0.lock();
        if let Some(of_peer) = waiting.get_mut(&peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                waiting.remove(&peer);
            }
        }
    }
}

impl Desk {
    /// Takes a request, or drops it.
    pub fn ask(&self, peer: PeerId, request: Message) {
        if self.waiting.add(peer, self.of_peer_max) && self.queue.try_send((peer, request)).is_err() {
            self.waiting.remove(peer);
        }
    }
}

/// Whom answers go to.
pub type Send = Box<dyn Fn(PeerId, &Message) + std::marker::Send>;

/// Whether a peer has to read first.
pub type Behind = Box<dyn Fn(PeerId) -> bool + std::marker::Send>;

/// Who does not read what it was sent over the network is behind.
#[must_use]
pub fn behind_by(network: &Arc<Network>) -> Behind {
    let network = Arc::clone(network);
    Box::new(move |peer| network.is_behind(peer))
}

/// Sends over the network.
#[must_use]
pub fn send_by(network: &Arc<Network>) -> Send {
    let network = Arc::clone(network);
    Box::new(move |peer, message| network.send(Recipients::Peer(peer), message))
}

/// See the module.
pub struct Served {
    requests: Receiver<(PeerId, Message)>,
    waiting: Waiting,
    rate: Rate,
    send: Send,
    behind: Behind,
}

impl Served {
    /// A queue, and where requests go. Answers go to `send`.
    #[must_use]
    pub fn new(limits: Limits, send: Send) -> (Desk, Self) {
        let (queue, requests) = sync_channel(WAITING_MAX);
        let waiting = Waiting::default();
        let desk = Desk { queue, waiting: waiting.clone(), of_peer_max: limits.of_peer_max };
        (desk, Self { requests, waiting, rate: limits.rate, send, behind: Box::new(|_| false) })
    }

    /// Nothing is made for whoever is `behind` until it is no longer: an answer costs work and memory.
    #[must_use]
    pub fn unless(self, behind: Behind) -> Self {
        Self { behind, ..self }
    }

    /// Answers with what `answer` says, nothing where it says nothing, until nobody asks any more.
    pub fn run(&self, answer: impl Fn(&Message) -> Option<Message>) {
        let mut pending = Pending { requests: VecDeque::new(), budget: Budget::new(self.rate) };
        loop {
            while pending.requests.len() < WAITING_MAX
                && let Ok(request) = self.requests.try_recv()
            {
                pending.requests.push_back(request);
            }
            let now_us = clock::monotonic_us();
            let wait = match pending.take(now_us, &self.behind) {
                Ok((peer, request)) => {
                    let bytes = self.respond(peer, answer(&request));
                    pending.budget.spend(peer, bytes, now_us);
                    continue;
                }
                Err(wait) => wait,
            };
            if pending.requests.len() >= WAITING_MAX {
                std::thread::sleep(wait);
                continue;
            }
            match self.requests.recv_timeout(wait) {
                Ok(request) => pending.requests.push_back(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Sends an answer; the bytes it costs.
    fn respond(&self, peer: PeerId, answer: Option<Message>) -> u64 {
        let bytes = answer.map_or(0, |answer| {
            (self.send)(peer, &answer);
            encode(&answer).len() as u64
        });
        self.waiting.remove(peer);
        bytes.saturating_add(ANSWER_BYTES)
    }
}

/// Requests that wait for their turn or for the budget of their peer.
struct Pending {
    requests: VecDeque<(PeerId, Message)>,
    budget: Budget,
}

impl Pending {
    /// The first request whose peer may be sent something now, or how long to wait for one.
    fn take(&mut self, now_us: u64, behind: &dyn Fn(PeerId) -> bool) -> Result<(PeerId, Message), Duration> {
        let wait = |(peer, _): &(PeerId, Message)| {
            let paid = self.budget.wait(peer, now_us);
            if paid.is_zero() && behind(*peer) { BEHIND_PAUSE } else { paid }
        };
        let ready = self.requests.iter().position(|request| wait(request).is_zero());
        let earliest = self.requests.iter().map(wait).min();
        ready.and_then(|at| self.requests.remove(at)).ok_or(earliest.unwrap_or(Duration::from_secs(3600)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::PublicKey;
    use std::sync::mpsc::channel;

    const LIMITS: Limits = Limits { of_peer_max: 4, rate: Rate { bytes: 1 << 20, burst_bytes: 2 << 20 } };

    fn peer(seed: u8) -> PeerId {
        PeerId(PublicKey([seed; 32]))
    }

    fn links(bytes: usize) -> Message {
        Message::Links { from: 0, links: vec![vec![0; bytes]] }
    }

    #[test]
    fn one_peer_cannot_fill_the_queue_of_the_others() {
        let (sender, sent) = channel();
        let (desk, served) =
            Served::new(LIMITS, Box::new(move |peer, _: &Message| sender.send(peer).unwrap()));
        for _ in 0..1000 {
            desk.ask(peer(1), Message::GetSnapshots);
        }
        desk.ask(peer(2), Message::GetSnapshots);
        drop(desk);
        served.run(|_| Some(Message::Snapshots(Vec::new())));
        let sent: Vec<_> = sent.try_iter().collect();
        assert_eq!(sent, [vec![peer(1); LIMITS.of_peer_max as usize], vec![peer(2)]].concat());
        assert!(served.waiting.0.lock().is_empty());
    }

    #[test]
    fn who_was_sent_its_share_waits_and_others_go_first() {
        let (_, served) = Served::new(LIMITS, Box::new(|_, _| {}));
        let mut pending = Pending { requests: VecDeque::new(), budget: Budget::new(LIMITS.rate) };
        let request = |seed| (peer(seed), Message::GetSnapshots);
        pending.requests.extend([request(1), request(1), request(2)]);
        let (first, _) = pending.take(0, &|_| false).unwrap();
        assert_eq!(first, peer(1));
        let bytes = served.respond(first, Some(links(3 << 20)));
        assert!(bytes > 3 << 20);
        pending.budget.spend(first, bytes, 0);
        assert_eq!(pending.take(0, &|_| false).unwrap().0, peer(2));
        let wait = pending.take(0, &|_| false).unwrap_err();
        assert!(wait >= Duration::from_secs(1), "{wait:?}");
        assert_eq!(pending.take(2_000_000, &|_| false).unwrap().0, peer(1));
        assert_eq!(served.respond(peer(1), None), ANSWER_BYTES, "asking is not free");
    }

    #[test]
    fn who_does_not_read_is_made_no_answer_until_it_does_and_holds_up_nobody() {
        let mut pending = Pending { requests: VecDeque::new(), budget: Budget::new(LIMITS.rate) };
        pending.requests.extend([1, 2].map(|seed| (peer(seed), Message::GetSnapshots)));
        let behind = |who| who == peer(1);
        assert_eq!(pending.take(0, &behind).unwrap().0, peer(2));
        assert_eq!(pending.take(0, &behind), Err(BEHIND_PAUSE));
        assert_eq!(pending.take(0, &|_| false).unwrap().0, peer(1));
    }
}
