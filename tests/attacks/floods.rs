//! The floods, one function each: what strangers do to two of four masternodes, at the rate of the scale.

use crate::field::{Field, TARGETS};
use crate::strangers::{Ends, Stranger, Strangers};
use bytes::Bytes;
use masternode::network::wire::{ADDRESSES_MAX, Class, Control, frame};
use masternode::primitives::hash::{BlockId, EraTag, Hash, Txid};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::message::Message;
use masternode::primitives::transaction::{OutPoint, Transaction};
use masternode::primitives::vote::{Step, Vote};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Connections a second, and for how long.
    pub connections: u64,
    pub connecting: Duration,
    pub slow: usize,
    /// How long slow peers stay.
    pub slowness: Duration,
    pub frames: u64,
    /// False signatures a second, and for how long.
    pub signatures: u64,
    pub signing: Duration,
    pub orphans: u64,
    pub votes: u64,
    pub addresses: u64,
}

impl Scale {
    /// What docs/reliability.md names.
    pub const FULL: Self = Self {
        connections: 2000,
        connecting: Duration::from_secs(15),
        slow: 500,
        slowness: Duration::from_secs(20),
        frames: 10_000,
        signatures: 20_000,
        signing: Duration::from_secs(15),
        orphans: 100_000,
        votes: 1_000_000,
        addresses: 100_000,
    };
    /// The same in a few seconds each.
    pub const SHORT: Self = Self {
        connections: 1000,
        connecting: Duration::from_secs(2),
        slow: 150,
        slowness: Duration::from_secs(2),
        frames: 300,
        signatures: 5000,
        signing: Duration::from_secs(2),
        orphans: 5000,
        votes: 30_000,
        addresses: 12_800,
    };
}

/// What was done, and what became of whoever did it.
#[derive(Debug, Default)]
pub struct Flood {
    pub sent: AtomicU64,
    pub ends: Ends,
}

impl Flood {
    fn sent(&self, count: u64) {
        self.sent.fetch_add(count, Relaxed);
    }
}

/// Who attacks whom with what.
pub struct Attack<'a> {
    pub field: &'a Field,
    pub strangers: Arc<Strangers>,
    pub scale: Scale,
    /// A payment that would be good.
    pub payment: Transaction,
}

impl Attack<'_> {
    fn target(&self, number: u64) -> SocketAddr {
        let targets = TARGETS.len() as u64;
        self.field.address(TARGETS[usize::try_from(number % targets).unwrap()])
    }

    /// Connects as fast as the scale says and says no hello.
    pub async fn connections(&self, flood: &Arc<Flood>) {
        let mut tasks = JoinSet::new();
        let config = Strangers::fresh_key();
        let mut ticks = interval(Duration::from_millis(10));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (begun, mut number) = (Instant::now(), 0u64);
        while begun.elapsed() < self.scale.connecting {
            ticks.tick().await;
            let due = self.scale.connections * u64::try_from(begun.elapsed().as_millis()).unwrap() / 1000;
            while number < due {
                number += 1;
                let (to, flood) = (self.target(number), Arc::clone(flood));
                let connecting = self.strangers.endpoint().connect_with(config.clone(), to, "masternode");
                flood.sent(1);
                tasks.spawn(async move {
                    match timeout(Duration::from_secs(3), connecting.unwrap()).await {
                        Ok(Ok(connection)) => {
                            let _silent = timeout(Duration::from_secs(8), connection.closed()).await;
                            flood.ends.add(Stranger { connection }.ended().unwrap_or("kept".to_owned()));
                        }
                        Ok(Err(_)) => flood.ends.add("refused"),
                        Err(_) => flood.ends.add("not answered"),
                    }
                });
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
    }

    /// Peers that ask for much and read nothing.
    pub async fn slow_peers(&self, flood: &Arc<Flood>) {
        let until = Instant::now() + self.scale.slowness;
        let height = self.field.height();
        let mut tasks = JoinSet::new();
        for number in 0..self.scale.slow as u64 {
            let (to, strangers, flood) =
                (self.target(number), Arc::clone(&self.strangers), Arc::clone(flood));
            tasks.spawn(async move {
                let joined = strangers.join(to, Strangers::fresh_key()).await;
                flood.sent(1);
                let stranger = match joined {
                    Ok(stranger) => stranger,
                    Err(how) => return flood.ends.add(how),
                };
                let stream = stranger.stream(Class::Votes).await;
                if let Ok(mut stream) = stream {
                    while Instant::now() < until {
                        for asked in (1..height).rev().take(16) {
                            let question = Message::GetBlockBodies { height: asked, from: 0 };
                            if stream.write_all(&frame(&question).unwrap()).await.is_err() {
                                break;
                            }
                        }
                        sleep_until(Instant::now() + Duration::from_millis(100)).await;
                    }
                    flood.ends.add(stranger.ended().unwrap_or("kept".to_owned()));
                }
            });
        }
        tasks.join_all().await;
    }

    /// Frames that announce 4 GiB, each from a key of its own.
    pub async fn oversized_frames(&self, flood: &Arc<Flood>) {
        let frames = self.scale.frames;
        self.many(16, frames, flood, |stranger, flood| async move {
            let Ok(mut stream) = stranger.stream(Class::Votes).await else { return };
            if stream.write_all(&[0xff; 64]).await.is_ok() {
                flood.sent(1);
            }
            flood.ends.add(stranger.end(Duration::from_secs(10)).await);
        })
        .await;
    }

    /// Payments with false signatures: as many before each is cut off as it can send.
    pub async fn false_signatures(&self, flood: &Arc<Flood>) {
        let until = Instant::now() + self.scale.signing;
        let lanes = 8;
        let gap = Duration::from_secs(BURST * lanes) / u32::try_from(self.scale.signatures).unwrap();
        let mut tasks = JoinSet::new();
        for lane in 0..lanes {
            let (to, strangers, flood) = (self.target(lane), Arc::clone(&self.strangers), Arc::clone(flood));
            let payment = self.payment.clone();
            tasks.spawn(async move {
                let mut ticks = interval(gap);
                while Instant::now() < until {
                    ticks.tick().await;
                    let bytes = forged(&payment, BURST);
                    let stranger = match strangers.join(to, Strangers::fresh_key()).await {
                        Ok(stranger) => stranger,
                        Err(how) => {
                            flood.ends.add(how);
                            continue;
                        }
                    };
                    stranger.listen();
                    let Ok(mut stream) = stranger.stream(Class::Transactions).await else { continue };
                    if stream.write_all(&bytes).await.is_ok() {
                        flood.sent(BURST);
                    }
                    flood.ends.add(stranger.end(Duration::from_secs(10)).await);
                }
            });
        }
        tasks.join_all().await;
    }

    /// Payments with good signatures that spend what nobody made.
    pub async fn orphans(&self, flood: &Arc<Flood>) {
        let key = SecretKey::from_seed(&rand::random());
        let lanes = 8;
        let chain = self.field.chain();
        let each = self.scale.orphans / lanes;
        let mut tasks = JoinSet::new();
        for lane in 0..lanes {
            let (to, strangers, flood) = (self.target(lane), Arc::clone(&self.strangers), Arc::clone(flood));
            let (payment, key) = (self.payment.clone(), key.clone());
            tasks.spawn(async move {
                let bytes: Vec<u8> =
                    (0..each).flat_map(|_| frame(&orphan(&payment, chain, &key)).unwrap()).collect();
                let stranger = match strangers.join(to, Strangers::fresh_key()).await {
                    Ok(stranger) => stranger,
                    Err(how) => return flood.ends.add(how),
                };
                stranger.listen();
                let Ok(mut stream) = stranger.stream(Class::Transactions).await else { return };
                let pieces = bytes.chunks(bytes.len().div_ceil(100).max(1));
                for piece in pieces {
                    if stream.write_all(piece).await.is_err() {
                        break;
                    }
                    flood.sent(each / 100);
                }
                flood.ends.add(read_to_its_end(&stranger, stream).await);
            });
        }
        tasks.join_all().await;
    }

    /// Votes that name eras nobody has reached.
    pub async fn future_votes(&self, flood: &Arc<Flood>) {
        let lanes = 20;
        let each = self.scale.votes / lanes;
        let mut tasks = JoinSet::new();
        for lane in 0..lanes {
            let (to, strangers, flood) = (self.target(lane), Arc::clone(&self.strangers), Arc::clone(flood));
            tasks.spawn(async move {
                let stranger = match strangers.join(to, Strangers::fresh_key()).await {
                    Ok(stranger) => stranger,
                    Err(how) => return flood.ends.add(how),
                };
                stranger.listen();
                let Ok(mut stream) = stranger.stream(Class::Votes).await else { return };
                let mut left = each;
                while left > 0 {
                    let count = left.min(500);
                    let bytes: Vec<u8> = (0..count).flat_map(|_| future_vote()).collect();
                    if stream.write_all(&bytes).await.is_err() {
                        break;
                    }
                    flood.sent(count);
                    left -= count;
                }
                flood.ends.add(read_to_its_end(&stranger, stream).await);
            });
        }
        tasks.join_all().await;
    }

    /// Addresses at which nobody is, or somebody else.
    pub async fn poisoned_addresses(&self, flood: &Arc<Flood>) {
        let lanes = 8;
        let each = self.scale.addresses / lanes / ADDRESSES_MAX as u64;
        let mut tasks = JoinSet::new();
        for lane in 0..lanes {
            let (to, strangers, flood) = (self.target(lane), Arc::clone(&self.strangers), Arc::clone(flood));
            tasks.spawn(async move {
                let stranger = match strangers.join(to, Strangers::fresh_key()).await {
                    Ok(stranger) => stranger,
                    Err(how) => return flood.ends.add(how),
                };
                stranger.listen();
                let Ok(mut stream) = stranger.stream(Class::Control).await else { return };
                for _ in 0..each {
                    let addresses: Vec<SocketAddr> = (0..ADDRESSES_MAX).map(|_| nowhere()).collect();
                    if stream.write_all(&frame(&Control::Peers(addresses)).unwrap()).await.is_err() {
                        break;
                    }
                    flood.sent(ADDRESSES_MAX as u64);
                }
                flood.ends.add(read_to_its_end(&stranger, stream).await);
            });
        }
        tasks.join_all().await;
    }

    /// Does something with `count` strangers, so many at a time.
    async fn many<F: Future<Output = ()> + Send + 'static>(
        &self,
        at_once: u64,
        count: u64,
        flood: &Arc<Flood>,
        act: impl Fn(Stranger, Arc<Flood>) -> F + Copy + Send + Sync + 'static,
    ) {
        let begun = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for lane in 0..at_once {
            let to = self.target(lane);
            let (strangers, flood, begun) =
                (Arc::clone(&self.strangers), Arc::clone(flood), Arc::clone(&begun));
            tasks.spawn(async move {
                while begun.fetch_add(1, Relaxed) < count {
                    match strangers.join(to, Strangers::fresh_key()).await {
                        Ok(stranger) => act(stranger, Arc::clone(&flood)).await,
                        Err(how) => flood.ends.add(how),
                    }
                }
            });
        }
        tasks.join_all().await;
    }
}

/// Waits until all that was sent was read: what comes last is a frame for which the node ends the connection.
async fn read_to_its_end(stranger: &Stranger, mut stream: quinn::SendStream) -> String {
    let _cut_off_before = stream.write_all(&[0xff; 64]).await;
    match stranger.end(Duration::from_secs(120)).await.as_str() {
        "BadFrame" => "read to its end".to_owned(),
        other => other.to_owned(),
    }
}

/// Payments in one burst.
const BURST: u64 = 500;

fn forged(payment: &Transaction, count: u64) -> Bytes {
    let one = || {
        let mut payment = payment.clone();
        for input in &mut payment.inputs {
            input.signature = Signature(std::array::from_fn(|_| rand::random()));
        }
        frame(&Message::Transaction(payment)).unwrap()
    };
    (0..count).flat_map(|_| one()).collect::<Vec<u8>>().into()
}

fn orphan(like: &Transaction, chain: masternode::primitives::hash::ChainId, key: &SecretKey) -> Message {
    let mut payment = like.clone();
    for input in &mut payment.inputs {
        input.outpoint = OutPoint { txid: Txid(Hash(rand::random())), index: 0 };
        input.public_key = key.public();
    }
    payment.sign(chain, key);
    Message::Transaction(payment)
}

fn future_vote() -> Bytes {
    let vote = Vote {
        era_tag: EraTag(Hash(rand::random())),
        round: 0,
        step: Step::Prevote,
        block: Some(BlockId(Hash(rand::random()))),
        voter: 0,
        signature: Signature([7; 64]),
    };
    frame(&Message::Vote(vote)).unwrap()
}

fn nowhere() -> SocketAddr {
    let [a, b, c]: [u8; 3] = rand::random();
    // Half of them seem to be near, where nobody answers; the rest have no way to them.
    let first = if a % 2 == 0 { 11 } else { 45 };
    SocketAddr::new(Ipv4Addr::new(first, 200 + a % 50, b, c).into(), 24000)
}
