//! What the effects thread acts on: network, block pulls, store and hub, none of which makes it wait,
//! but for a store that is more than [`BLOCKS_WAITING_MAX`] blocks behind.

use crate::consensus::output::{Notice, Output, Target};
use crate::consensus::standing::Standing;
use crate::consensus::trust::Route;
use crate::ledger::Ledger;
use crate::ledger::apply::BlockWrite;
use crate::network::Network;
use crate::network::bans::offence::{Charge, Offence};
use crate::network::members::Member;
use crate::network::router::Recipients;
use crate::node::blocks::RecentBlocks;
use crate::node::clock;
use crate::node::effects::Sink;
use crate::node::halt::Halt;
use crate::node::host::WriteQueue;
use crate::node::hub::Hub;
use crate::node::prover::Prover;
use crate::node::relay::Relay;
use crate::node::space::{Space, Writer};
use crate::node::sync::SyncEvent;
use crate::primitives::committee::Member as CommitteeMember;
use crate::primitives::keys::PublicKey;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::message::{Message, PeerId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;

/// Decided blocks that may wait for the database. When more do, effects wait and with them this node's
/// votes: a validator whose disk cannot keep up must not run ahead of it.
pub const BLOCKS_WAITING_MAX: usize = 8;

/// See the module.
pub struct Outlet {
    pub network: Arc<Network>,
    /// Who is sent what is accepted.
    pub relay: Arc<Relay>,
    /// Where pulls of decided blocks are carried out.
    pub pulls: SyncSender<SyncEvent>,
    /// Effects of decided blocks, made by the engine, in order.
    pub writes: Arc<WriteQueue>,
    /// The store thread.
    pub store: SyncSender<BlockWrite>,
    /// Height up to which the store holds every block.
    pub durable: Arc<AtomicU64>,
    /// Decided blocks the store has not yet.
    pub recent: Arc<RecentBlocks>,
    /// What proves the finals of this era; it knows the ledger.
    pub prover: Arc<Prover>,
    pub hub: Arc<Hub>,
    pub halt: Arc<Halt>,
    /// Asked what to do on a full disk.
    pub space: Arc<Space>,
}

impl Outlet {
    fn misbehaved(&self, peer: PeerId, what: &str) {
        // A matter of which chain is trusted; see `Machine::accepts_pulled`.
        self.network.charge(peer, &Charge::new(Offence::Disagreement, "block", what));
    }

    fn store_block(&self, height: u64) {
        // The queue holds this block, as the engine applied it before it said so.
        while let Some(write) = self.writes.pop() {
            let reached = write.diff.header.height;
            self.hub.note_fees(reached, write.diff.fees.units());
            self.recent.add(Arc::clone(&write.block), write.qc.clone());
            // Fails only when the store thread has died, which stops the node by itself.
            let _stopping = self.store.send(write);
            if reached >= height {
                break;
            }
        }
    }
}

/// The committee of the height being decided, with the endpoints in the registry.
pub fn members(ledger: &Ledger) -> Vec<Member> {
    let tip = ledger.tip();
    let member = |member: &CommitteeMember| Member {
        vote_key: member.vote_key,
        endpoint: tip.registry.entry(member.id).and_then(|entry| entry.endpoint),
    };
    tip.next_committee.members().iter().map(member).collect()
}

/// Keys of the masternodes that vote or may again: whose word on where they are is worth keeping.
pub fn registered(ledger: &Ledger) -> BTreeSet<PublicKey> {
    let tip = ledger.tip();
    let may_vote =
        |status: MasternodeStatus| matches!(status, MasternodeStatus::Active | MasternodeStatus::Jailed);
    tip.registry.entries().filter(|entry| may_vote(entry.status)).map(|entry| entry.vote_key).collect()
}

/// What an operator looks for in the log when the node does not sign; `event` does not change.
fn log_notice(notice: &Notice) {
    match notice {
        Notice::Standing(
            standing @ (Standing::Held { .. } | Standing::Resuming { .. } | Standing::Displaced { .. }),
        ) => {
            let (stage, reason) = standing.explanation().unwrap_or_default();
            tracing::warn!(event = "not-signing", %stage, %reason, "not signing");
        }
        Notice::Standing(Standing::Signing) => tracing::info!(event = "signing", "signing"),
        Notice::Standing(Standing::Listening { heard_weight, quorum_weight }) => {
            tracing::info!(event = "listening", heard_weight, quorum_weight, "listening before signing");
        }
        Notice::KeyElsewhere { height, what } => {
            tracing::error!(event = "key-elsewhere", height, %what, "another process signs with this vote key");
        }
        Notice::SameKey { peer } => {
            tracing::error!(event = "same-key", peer = %peer.0.short(), "a peer holds the vote key of this node");
        }
        _ => {}
    }
}

impl Sink for Outlet {
    fn carry_out(&mut self, output: &Output) {
        match output {
            Output::Send { to, message } => {
                let to = match to {
                    Target::All => Recipients::All,
                    Target::AllExcept(peer) => Recipients::AllExcept(*peer),
                    Target::Peer(peer) => Recipients::Peer(*peer),
                };
                match message {
                    Message::Transaction(body) => {
                        let from = if let Recipients::AllExcept(from) = to { Some(from) } else { None };
                        self.relay.accepted(from, body.id(), message);
                    }
                    Message::VoteBatch(batch) if to == Recipients::All => {
                        self.network.send(to, message);
                        self.relay.with(|table| table.voted(batch));
                    }
                    _ => self.network.send(to, message),
                }
            }
            // Asked for again while the node is behind, so a full queue loses nothing.
            Output::PullBlock { peer, height, claimed } => {
                let wanted = SyncEvent::Wanted { peer: *peer, height: *height, claimed: *claimed };
                let _repeated = self.pulls.try_send(wanted);
            }
            Output::PullRoute { peer, tip, trusted, oldest_ms } => {
                let wanted = Route::new(*tip, *trusted, *oldest_ms);
                let wanted = wanted.map(|route| SyncEvent::Route { peer: *peer, route });
                let _repeated = wanted.map(|wanted| self.pulls.try_send(wanted));
            }
            Output::Committed { block, qc, .. } => {
                let height = block.header.height;
                tracing::info!(
                    height,
                    block = %block.id().short(),
                    round = qc.round,
                    transactions = block.header.tx_count,
                    "checkpoint"
                );
                self.store_block(height);
                self.prover.claims.ended(height);
                let members = members(&self.prover.ledger);
                self.relay.set_committee(members.iter().map(|member| member.vote_key).collect());
                self.network.set_committee(members);
                self.network.set_registered(registered(&self.prover.ledger));
            }
            Output::Notice(notice) => log_notice(notice),
            Output::Final { height, claim, .. } => self.prover.claims.add(*height, claim.clone()),
            Output::Misbehaved { peer, what } => self.misbehaved(*peer, what),
            Output::Halt { reason } => tracing::error!(%reason, "halted"),
            Output::Rejected { txid, reason, .. } => {
                tracing::debug!(txid = %txid.short(), %reason, "transaction refused");
            }
            Output::Persist { .. } | Output::Sign { .. } | Output::Replay(_) | Output::Accepted { .. } => {}
        }
    }

    fn synced(&mut self, took_us: u64) {
        self.hub.log_synced(took_us);
    }

    fn observe(&mut self, outputs: &[Output]) {
        self.hub.observe(clock::now(), outputs);
    }

    fn durable_height(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    fn wait_for_space(&mut self, reason: String) -> bool {
        self.space.wait(Writer::Log, reason)
    }

    fn has_space(&mut self) {
        self.space.found(Writer::Log);
    }

    fn failed(&mut self, reason: String) {
        self.halt.set(reason);
    }
}
