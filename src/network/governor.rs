//! The governor: how much one peer may send, by kind of message, in messages and in bytes.
//!
//! A budget is a bucket: so much at once, so much a second. Whoever has used it up is slowed down, by not reading its
//! stream any further; that alone costs it nothing more. Only a peer that has to be slowed down again and again
//! ([`FLOOD`]) is charged, and no honest node is slowed down once: the budgets are twice what the protocol's own
//! bounds let it send, with everything that may wait in its queues at once on top, and answers are allowed as they were
//! asked for. Time is an argument. Cost: one uncontended lock and a few additions a message.
//!
//! What bounds an honest sender, in the order of [`Budgets::of`]:
//!
//! * *votes*: two batches a tick (§8) of at least 1 ms; on each status of ours, at most four a second, the votes of two
//!   rounds and two steps of 200 voters; prepares for `L` and commits for twice that in an era of at least 1 s, 32 bytes
//!   each; proposals, in answer to a status within 16 MB a second and 32 MB at once.
//! * *requests*: 131,072 pulls under way and 32,768 of what was announced, asked for up to 8 times each; ids of bodies,
//!   32 bytes each, travel together.
//! * *transactions*: what one engine has accepted, 20 µs each, each sent or announced once.
//! * *answers*: what was asked for, and 4 MB of waiting transactions when the connection begins.
//! * *control*: two pings and pongs in 5 s; one address for each connection the peer takes, of which each costs it half
//!   a millisecond of cryptography, and one list of 64 when ours begins; of each key in the registry one endpoint record
//!   in 30 s, and 10 lists of them for each of the 6 questions of a minute; a question for records in 5 s, a probe a
//!   minute and its answer. In its queue 64 KiB wait.

use crate::network::wire::FRAME_MAX;
use crate::primitives::message::Message;
use crate::primitives::params::Params;
use std::time::Duration;
use tokio::time::Instant;

/// A peer that was slowed down for so long within a minute sends more than any honest node can.
pub const FLOOD: Duration = Duration::from_secs(10);
/// That minute.
const FLOOD_WINDOW: Duration = Duration::from_secs(60);
/// Longest pause for one message, so that a large one does not make a connection look dead.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Largest committee.
const VOTERS: u64 = 200;
/// No smaller transaction has a signature and an output.
const TRANSACTION_MIN: u64 = 150;
/// Bytes that may wait at the sender in the class of votes; see `peers`.
const QUEUED: u64 = 2 << 20;
/// Bytes each waiting frame is charged there at least.
const QUEUED_FRAME_MIN: u64 = 64;
/// The same in the class of control.
const CONTROL_QUEUED: u64 = 64 << 10;
/// Connections a node can take in a second; two cores took 250 (docs/reliability.md).
const ACCEPTED_PER_SECOND: u64 = 2000;
/// Far more masternodes than there are votes in a committee.
const REGISTERED: u64 = 4096;
/// Credit of answers that were asked for and did not come: so much of it is kept.
const ANSWERS_MAX: u64 = 256 << 20;

/// Kinds of messages that have a budget of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the network itself.
    Control,
    /// Signed statements and status: the costly ones to check.
    Votes,
    /// Questions.
    Requests,
    /// Transactions being relayed.
    Transactions,
    /// Answers.
    Answers,
}

impl Kind {
    /// The kind of a message.
    #[must_use]
    pub const fn of(message: &Message) -> Self {
        match message {
            Message::VoteBatch(_)
            | Message::Proposal(_)
            | Message::Vote(_)
            | Message::Pol { .. }
            | Message::Commit { .. }
            | Message::Status(_) => Self::Votes,
            Message::GetTransactions(_)
            | Message::GetStream { .. }
            | Message::GetCertificate { .. }
            | Message::GetCandidate { .. }
            | Message::GetBlock { .. }
            | Message::GetBlockBodies { .. }
            | Message::GetSnapshots
            | Message::GetSnapshotManifest { .. }
            | Message::GetSnapshotPart { .. }
            | Message::GetLinks { .. }
            | Message::GetHeaders { .. } => Self::Requests,
            Message::Transaction(_) | Message::Announce(_) => Self::Transactions,
            Message::Transactions(_)
            | Message::Stream(_)
            | Message::Certificate { .. }
            | Message::Candidate { .. }
            | Message::Block { .. }
            | Message::BlockBodies { .. }
            | Message::BlockNotKept { .. }
            | Message::Snapshots(_)
            | Message::SnapshotManifest { .. }
            | Message::SnapshotPart { .. }
            | Message::Links { .. }
            | Message::Headers(_) => Self::Answers,
        }
    }

    /// How many messages one counts as: an announcement as many as it names.
    #[must_use]
    pub fn units(message: &Message) -> u64 {
        match message {
            Message::Announce(ids) => (ids.len() as u64).max(1),
            _ => 1,
        }
    }

    /// Name for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Votes => "votes",
            Self::Requests => "requests",
            Self::Transactions => "transactions",
            Self::Answers => "answers",
        }
    }
}

/// So much a second, and so much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u64,
    pub burst: u64,
}

/// Budget of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub messages: Rate,
    pub bytes: Rate,
}

/// Budgets of all kinds, the same for every peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budgets {
    pub control: Budget,
    pub votes: Budget,
    pub requests: Budget,
    pub transactions: Budget,
    pub answers: Budget,
    /// How long a peer may have to be slowed down; [`FLOOD`] but in tests.
    pub patience: Duration,
}

impl Budgets {
    /// The budgets that follow from the parameters of a network; see the module.
    #[must_use]
    pub fn of(params: &Params) -> Self {
        const MIB: u64 = 1 << 20;
        let rate = |per_second: u64, burst: u64| Rate { per_second, burst };
        let queued_frames = QUEUED / QUEUED_FRAME_MIN;
        let frame = FRAME_MAX as u64;

        let batches = 2 * 1000;
        let statements = 4 * 2 * 2 * VOTERS;
        let votes_per_second = 2 * (batches + statements + 100);
        let vote_bytes = params.era_bytes.saturating_mul(3) / TRANSACTION_MIN * 32;
        let proposals = (16 * MIB, 32 * MIB);
        let votes = Budget {
            messages: rate(votes_per_second, votes_per_second + queued_frames),
            bytes: rate(
                vote_bytes.saturating_add(batches * 256 + statements * 256 + proposals.0).saturating_mul(2),
                (proposals.1 + QUEUED + frame).saturating_mul(2).saturating_add(vote_bytes),
            ),
        };

        let pulls = 131_072u64 + 32_768;
        let tries = 8;
        let requests = Budget {
            messages: rate(2 * pulls, 2 * pulls * tries),
            bytes: rate(2 * pulls * 40, 2 * pulls * 80 * tries),
        };

        let engine = 50_000;
        let transactions = Budget {
            messages: rate(2 * engine, 2 * engine + queued_frames),
            bytes: rate(64 * MIB, 64 * MIB + 2 * params.evidence_bytes_max()),
        };

        // Besides what is asked for: see `Governor::asked`.
        let answers = Budget { messages: rate(100, 4096), bytes: rate(MIB, 8 * MIB + 2 * frame) };
        let told = ACCEPTED_PER_SECOND + REGISTERED / 30 + 10;
        let control = Budget {
            messages: rate(2 * told, 2 * told + 2 * (60 + CONTROL_QUEUED / QUEUED_FRAME_MIN)),
            bytes: rate(8 * MIB, 16 * MIB),
        };
        Self { control, votes, requests, transactions, answers, patience: FLOOD }
    }

    fn find(&self, kind: Kind) -> &Budget {
        match kind {
            Kind::Control => &self.control,
            Kind::Votes => &self.votes,
            Kind::Requests => &self.requests,
            Kind::Transactions => &self.transactions,
            Kind::Answers => &self.answers,
        }
    }
}

/// What is left of a [`Rate`]; below zero it is owed.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    burst: f64,
    per_second: f64,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { left: rate.burst as f64, burst: rate.burst as f64, per_second: rate.per_second.max(1) as f64 }
    }

    /// Takes an amount; how long until it is paid for.
    fn take(&mut self, amount: f64, elapsed: f64) -> f64 {
        // What was allowed beyond the burst because it was asked for stays.
        if self.left < self.burst {
            self.left = (self.left + elapsed * self.per_second).min(self.burst);
        }
        self.left -= amount;
        if self.left >= 0.0 { 0.0 } else { -self.left / self.per_second }
    }
}

#[derive(Clone, Copy, Debug)]
struct Pair {
    messages: Bucket,
    bytes: Bucket,
    at: Instant,
}

/// What follows from one more message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Go on.
    Fine,
    /// Read no further for this long.
    Wait(Duration),
    /// It was slowed down for [`FLOOD`] and goes on sending.
    Flood,
}

/// The budgets of one connection.
#[derive(Debug)]
pub struct Governor {
    pairs: [Pair; 5],
    /// Time it was slowed down since `window`.
    waited: Duration,
    window: Instant,
    patience: Duration,
}

impl Governor {
    /// Full budgets.
    #[must_use]
    pub fn new(budgets: &Budgets, now: Instant) -> Self {
        let pair = |kind| {
            let budget = budgets.find(kind);
            Pair { messages: Bucket::new(budget.messages), bytes: Bucket::new(budget.bytes), at: now }
        };
        let kinds = [Kind::Control, Kind::Votes, Kind::Requests, Kind::Transactions, Kind::Answers];
        Self { pairs: kinds.map(pair), waited: Duration::ZERO, window: now, patience: budgets.patience }
    }

    fn pair(&mut self, kind: Kind) -> &mut Pair {
        let [control, votes, requests, transactions, answers] = &mut self.pairs;
        match kind {
            Kind::Control => control,
            Kind::Votes => votes,
            Kind::Requests => requests,
            Kind::Transactions => transactions,
            Kind::Answers => answers,
        }
    }

    /// A message of the peer was read.
    pub fn take(&mut self, kind: Kind, bytes: usize, now: Instant) -> Ruling {
        self.take_units(kind, 1, bytes, now)
    }

    /// A message was read that counts as so many ([`Kind::units`]).
    pub fn take_units(&mut self, kind: Kind, units: u64, bytes: usize, now: Instant) -> Ruling {
        let pair = self.pair(kind);
        let elapsed = now.saturating_duration_since(pair.at).as_secs_f64();
        pair.at = now;
        let owed = pair.messages.take(units as f64, elapsed).max(pair.bytes.take(bytes as f64, elapsed));
        if owed <= 0.0 {
            return Ruling::Fine;
        }
        let wait = Duration::from_secs_f64(owed.min(PAUSE_MAX.as_secs_f64()));
        if now.saturating_duration_since(self.window) > FLOOD_WINDOW {
            (self.waited, self.window) = (Duration::ZERO, now);
        }
        self.waited += wait;
        if self.waited > self.patience { Ruling::Flood } else { Ruling::Wait(wait) }
    }

    /// A question was sent to the peer: its answers are allowed, at their largest.
    pub fn asked(&mut self, question: &Message) {
        let (messages, bytes) = match question {
            // At most a frame for each body, and as much in all as a peer answers at once.
            Message::GetTransactions(ids) => {
                let count = ids.len() as u64;
                (count, count.saturating_mul(FRAME_MAX as u64).min(36 << 20))
            }
            _ if Kind::of(question) == Kind::Requests => (2, 2 * FRAME_MAX as u64),
            _ => return,
        };
        let answers = self.pair(Kind::Answers);
        let more = |bucket: &mut Bucket, amount: u64, most: u64| {
            bucket.left = (bucket.left + amount as f64).min((most as f64).max(bucket.burst));
        };
        more(&mut answers.messages, messages, 1 << 20);
        more(&mut answers.bytes, bytes, ANSWERS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::hash::Hash;
    use crate::primitives::hash::Txid;
    use proptest::prelude::*;

    fn governor(now: Instant) -> Governor {
        Governor::new(&Budgets::of(&Params::of(NetworkKind::Mainnet)), now)
    }

    const MS: Duration = Duration::from_millis(1);

    /// One second of the most an honest validator sends, in one of the parameters' networks: `jitter` of its
    /// milliseconds come together, as after a pause of the receiver.
    fn honest_second(governor: &mut Governor, params: &Params, from: Instant, jitter: u32) -> Vec<Ruling> {
        let mut rulings = Vec::new();
        let votes = usize::try_from(params.era_bytes * 3 / 200 * 32 / 2000).unwrap();
        for ms in 0..1000u32 {
            let now = from + MS * (ms / jitter * jitter);
            // Two batches a tick, with all the votes of an era in one second.
            rulings.push(governor.take(Kind::Votes, 200 + votes, now));
            rulings.push(governor.take(Kind::Votes, 200 + votes, now));
            if ms % 250 == 0 {
                // A status is answered: a proposal and the votes of two rounds and steps.
                rulings.push(governor.take(Kind::Votes, 4 << 20, now));
                rulings.extend((0..800).map(|_| governor.take(Kind::Votes, 250, now)));
            }
            // Every pull of the second.
            rulings.extend((0..131).map(|_| governor.take(Kind::Requests, 80, now)));
            // Everything one engine accepts.
            rulings.extend((0..50).map(|_| governor.take(Kind::Transactions, 400, now)));
            // It catches up: what was asked for, at its largest, at 1000 pages a second.
            governor.asked(&Message::GetBlockBodies { height: 1, from: 0 });
            rulings.push(governor.take(Kind::Answers, FRAME_MAX, now));
        }
        rulings
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn an_honest_sender_at_the_protocol_s_maximum_is_never_slowed_down(
            jitter in 1u32..=900, seconds in 1u32..4, network in 0usize..3,
        ) {
            let network = [NetworkKind::Mainnet, NetworkKind::Testnet, NetworkKind::Devnet][network];
            let params = Params::of(network);
            let begun = Instant::now();
            let mut governor = Governor::new(&Budgets::of(&params), begun);
            // What waited in its queue comes at once.
            for _ in 0..(2 << 20) / (64 + 150) {
                prop_assert_eq!(governor.take(Kind::Votes, 150, begun), Ruling::Fine);
            }
            for second in 0..seconds {
                let from = begun + Duration::from_secs(second.into());
                let rulings = honest_second(&mut governor, &params, from, jitter);
                prop_assert!(rulings.iter().all(|ruling| *ruling == Ruling::Fine));
            }
        }
    }

    #[test]
    fn a_flooder_is_slowed_down_first_and_charged_only_when_it_goes_on() {
        let begun = Instant::now();
        for kind in [Kind::Control, Kind::Votes, Kind::Requests, Kind::Transactions, Kind::Answers] {
            let mut governor = governor(begun);
            let mut waited = Duration::ZERO;
            let mut now = begun;
            let mut flood = false;
            for _ in 0..20_000_000u32 {
                match governor.take(kind, 1 << 10, now) {
                    Ruling::Fine => {}
                    // As fast as it is let.
                    Ruling::Wait(wait) => {
                        waited += wait;
                        now += wait / 2;
                    }
                    Ruling::Flood => {
                        flood = true;
                        break;
                    }
                }
            }
            assert!(flood && waited + PAUSE_MAX > FLOOD, "{}: {waited:?}", kind.name());
        }
    }

    /// Encoded sizes of what travels in the class of control.
    fn control_sizes() -> (usize, usize, usize, usize) {
        use crate::network::wire::{ADDRESSES_MAX, Control, RECORDS_MAX};
        use crate::primitives::encoding::encode;
        use crate::primitives::endpoint::{EndpointRecord, RECORD_ADDRESSES_MAX};
        use crate::primitives::keys::{PublicKey, Signature};
        let address: std::net::SocketAddr = "[2001:db8::1]:24000".parse().unwrap();
        let record = EndpointRecord {
            vote_key: PublicKey([1; 32]),
            network_key: PublicKey([2; 32]),
            addresses: vec![address; RECORD_ADDRESSES_MAX],
            time_ms: 1,
            signature: Signature([0; 64]),
        };
        let size = |control: &Control| encode(control).len();
        (
            size(&Control::Peers(vec![address])),
            size(&Control::Peers(vec![address; ADDRESSES_MAX])),
            size(&Control::Endpoints(vec![record.clone()])),
            size(&Control::Endpoints(vec![record; RECORDS_MAX])),
        )
    }

    #[test]
    fn an_honest_peer_s_addresses_endpoints_and_probes_never_exceed_the_control_budget() {
        let begun = Instant::now();
        let mut governor = governor(begun);
        let (address, addresses, record, records) = control_sizes();
        let mut fine = |count: u64, bytes: usize, now: Instant| {
            for _ in 0..count {
                assert_eq!(governor.take(Kind::Control, bytes, now), Ruling::Fine);
            }
        };
        // What waited in its queue, and what a connection begins with.
        fine(CONTROL_QUEUED / QUEUED_FRAME_MIN, 64, begun);
        fine(1, addresses, begun);
        for second in 0..180u32 {
            // All of a second at once, as after a pause of the receiver.
            let now = begun + Duration::from_secs(1) * second;
            fine(ACCEPTED_PER_SECOND, address, now);
            fine(REGISTERED / 30 + 1, record, now);
            // Pings, pongs, a question for records.
            fine(3, 32, now);
            if second % 60 == 0 {
                // Six answers with all records of a committee, a probe and the answer to one.
                fine(6 * 10, records, now);
                fine(2, 64, now);
            }
        }
    }

    #[test]
    fn an_announcement_counts_as_what_it_names() {
        let begun = Instant::now();
        let mut governor = governor(begun);
        let announced = Message::Announce(vec![Txid(Hash([1; 32])); 1000]);
        assert_eq!((Kind::of(&announced), Kind::units(&announced)), (Kind::Transactions, 1000));
        assert_eq!(Kind::units(&Message::Announce(Vec::new())), 1);
        let burst = Budgets::of(&Params::of(NetworkKind::Mainnet)).transactions.messages.burst;
        let taken = (0..)
            .take_while(|_| governor.take_units(Kind::Transactions, 1000, 32_008, begun) == Ruling::Fine);
        assert_eq!(taken.count() as u64, burst / 1000);
    }

    #[test]
    fn being_slowed_down_now_and_then_is_no_flood() {
        let begun = Instant::now();
        let mut governor = governor(begun);
        for minute in 0..60u32 {
            let now = begun + Duration::from_secs(61) * minute;
            let mut waited = Duration::ZERO;
            while waited < FLOOD / 2 {
                match governor.take(Kind::Answers, FRAME_MAX, now) {
                    Ruling::Wait(wait) => waited += wait,
                    Ruling::Fine => {}
                    Ruling::Flood => panic!("charged"),
                }
            }
        }
    }

    #[test]
    fn answers_are_allowed_as_they_were_asked_for_and_no_more() {
        let begun = Instant::now();
        let mut governor = governor(begun);
        let free =
            (0..).take_while(|_| governor.take(Kind::Answers, FRAME_MAX, begun) == Ruling::Fine).count();
        assert!(free <= 4, "{free} frames that nobody asked for");
        let mut governor = self::governor(begun);
        for _ in 0..10_000 {
            governor.asked(&Message::GetTransactions(vec![Txid(Hash([1; 32]))]));
            assert_eq!(governor.take(Kind::Answers, FRAME_MAX - 1, begun), Ruling::Fine);
        }
        // What was asked for in vain is not kept for ever.
        for _ in 0..10_000 {
            governor.asked(&Message::GetBlock { height: 1 });
        }
        let kept =
            (0..).take_while(|_| governor.take(Kind::Answers, FRAME_MAX, begun) == Ruling::Fine).count();
        assert!(kept <= 256 / 4, "{kept}");
        // Statements of its own open nothing.
        governor.asked(&Message::Commit {
            height: 1,
            qc: crate::primitives::certificate::Qc {
                round: 0,
                step: crate::primitives::vote::Step::Precommit,
                block: Default::default(),
                bitmap: Vec::new(),
                signatures: Vec::new(),
            },
        });
        assert_ne!(governor.take(Kind::Answers, FRAME_MAX, begun), Ruling::Fine);
    }
}
