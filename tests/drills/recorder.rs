//! Connects to every process and keeps what each signs. Votes are pushed by their author alone (what is
//! handed on is asked for first), so whoever sent one has signed it.

use masternode::network::{Bootstrap, Identity, Network, NetworkEvent, NetworkOptions};
use masternode::primitives::committee::Committee;
use masternode::primitives::hash::{ChainId, EraTag, Hash};
use masternode::primitives::keys::SecretKey;
use masternode::primitives::message::{Message, PeerId};
use masternode::primitives::vote::Step;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;

/// What one voter may sign once in an era: batch, proposal, prevote and precommit by their number.
type Place = (EraTag, u16, u8, u32);

#[derive(Default)]
struct Seen {
    signed: BTreeMap<Place, Hash>,
    /// Where each peer is. A process has one socket for all it sends, while its id changes when it
    /// reconnects after another one with its key has gone.
    addresses: BTreeMap<PeerId, SocketAddr>,
    /// Who signed with a key in an era.
    authors: BTreeMap<(EraTag, u16), SocketAddr>,
    faults: Vec<String>,
}

impl Seen {
    fn note(&mut self, from: PeerId, place: Place, digest: Hash) {
        let (era, voter, kind, number) = place;
        if self.signed.insert(place, digest).is_some_and(|before| before != digest) {
            self.faults.push(format!("voter {voter} signed two messages {kind}/{number} of {era}"));
        }
        let from = self.addresses.get(&from).copied().expect("nobody speaks before it is up");
        let author = *self.authors.entry((era, voter)).or_insert(from);
        if author != from {
            self.faults.push(format!(
                "two processes signed as voter {voter} in {era}: at {author}, and {kind}/{number} at {from}"
            ));
        }
    }

    fn on_message(&mut self, from: PeerId, message: &Message, committee: &Committee) {
        match message {
            Message::VoteBatch(batch) => {
                self.note(from, (batch.era_tag, batch.voter, 0, batch.sequence), batch.digest());
            }
            Message::Vote(vote) => {
                let kind = if vote.step == Step::Prevote { 1 } else { 2 };
                self.note(from, (vote.era_tag, vote.voter, kind, vote.round), vote.digest());
            }
            Message::Proposal(proposal) => {
                let height = proposal.outline.header.height;
                if let Some(voter) = committee.proposer(height, proposal.round) {
                    self.note(from, (proposal.era_tag, voter, 3, proposal.round), proposal.digest());
                }
            }
            _ => {}
        }
    }
}

/// See the module.
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
    _runtime: tokio::runtime::Runtime,
}

impl Recorder {
    /// Listens to whoever listens at `ports`, now or later. The committee does not change in drills.
    pub fn start(chain: ChainId, committee: Arc<Committee>, ports: &[u16]) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bootstrap =
            ports.iter().map(|port| Bootstrap { key: None, address: format!("127.0.0.1:{port}") });
        let options = NetworkOptions {
            bootstrap: bootstrap.collect(),
            ..NetworkOptions::new("127.0.0.1:0".parse().unwrap())
        };
        let identity = Identity {
            network_key: SecretKey::from_seed(&rand::random()),
            vote_key: None,
            chain,
            name: "recorder".to_owned(),
            agent: "drills".to_owned(),
        };
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (sender, mut events) = mpsc::channel(1024);
        let shared = Arc::clone(&seen);
        let network =
            runtime.block_on(Network::start(options, identity, Arc::new(AtomicU64::new(0)), sender)).unwrap();
        runtime.spawn(async move {
            let _connected = network;
            while let Some(event) = events.recv().await {
                let mut seen = shared.lock().unwrap();
                match event {
                    NetworkEvent::Up { peer, address, .. } => drop(seen.addresses.insert(peer, address)),
                    NetworkEvent::Message { peer, message } => seen.on_message(peer, &message, &committee),
                    NetworkEvent::Down { .. }
                    | NetworkEvent::Refused { .. }
                    | NetworkEvent::Bans(_)
                    | NetworkEvent::StoodStill { .. }
                    | NetworkEvent::Reachability(_) => {}
                }
            }
        });
        Self { seen, _runtime: runtime }
    }

    /// How many messages of voters were recorded; panics if any of them must not be.
    #[track_caller]
    pub fn check(&self) -> usize {
        let seen = self.seen.lock().unwrap();
        assert!(seen.faults.is_empty(), "{}", seen.faults.join("\n"));
        assert!(!seen.signed.is_empty(), "nothing was recorded");
        seen.signed.len()
    }
}
