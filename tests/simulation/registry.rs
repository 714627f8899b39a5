//! The registry by the text of protocol §1 and §10, worked out from the blocks alone, plainly: who is
//! registered, who is jailed, who votes. What the machines do must agree with it.

use crate::oracle::{Broken, broken};
use masternode::primitives::block::Block;
use masternode::primitives::committee::{COMMITTEE_MAX, COMMITTEE_MIN, Committee};
use masternode::primitives::hash::{KeyHash, MasternodeId};
use masternode::primitives::keys::PublicKey;
use masternode::primitives::masternode::MasternodeStatus as Status;
use masternode::primitives::params::Params;
use masternode::primitives::special::Special;
use masternode::primitives::transaction::{OutPoint, SealedTransaction};
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// A registered masternode.
#[derive(Clone, Debug)]
pub struct Masternode {
    pub id: MasternodeId,
    pub name: String,
    pub vote_key: PublicKey,
    pub weight: u64,
    pub status: Status,
    pub sequence: u64,
    pub collateral: OutPoint,
    pub payout: KeyHash,
    pub endpoint: Option<SocketAddr>,
    pub resumed: Option<(u64, [u8; 32])>,
    /// Whether it signed, of the last blocks for which it was in the committee.
    pub signed: VecDeque<bool>,
}

impl Masternode {
    fn missed(&self) -> u64 {
        self.signed.iter().filter(|signed| !**signed).count() as u64
    }
}

/// A member of a committee.
type Seat = (MasternodeId, PublicKey, u64);

/// All masternodes after the last block applied.
pub struct Registry {
    params: Params,
    masternodes: BTreeMap<MasternodeId, Masternode>,
    /// Who decided the last block, and who decides the next.
    last: Vec<Seat>,
    next: Vec<Seat>,
    /// Of the last block.
    pub jailed: Vec<Masternode>,
    pub changed: bool,
}

impl Registry {
    pub fn new(params: Params, founders: Vec<Masternode>) -> Self {
        let masternodes = founders.into_iter().map(|founder| (founder.id, founder)).collect();
        let mut registry = Self {
            params,
            masternodes,
            last: Vec::new(),
            next: Vec::new(),
            jailed: Vec::new(),
            changed: false,
        };
        registry.next = registry.committee();
        registry
    }

    pub fn find(&self, id: &MasternodeId) -> Option<&Masternode> {
        self.masternodes.get(id)
    }

    pub fn named(&self, name: &str) -> Option<&Masternode> {
        self.masternodes.values().find(|masternode| masternode.name == name)
    }

    /// Whether a key is to vote, or may ask for it.
    pub fn votes(&self, key: &PublicKey) -> bool {
        self.masternodes
            .values()
            .any(|masternode| masternode.vote_key == *key && masternode.status.is_bonded())
    }

    /// Whether enough would be active if this one left; otherwise it has to stay (protocol §1).
    pub fn can_spare(&self, name: &str) -> bool {
        let leaving = self.named(name).is_some_and(|masternode| masternode.status == Status::Active);
        self.count(Status::Active) - usize::from(leaving) >= COMMITTEE_MIN
    }

    /// Weight of those with a status.
    fn weight(&self, belongs: impl Fn(&Status) -> bool) -> u64 {
        let masternodes = self.masternodes.values().filter(|masternode| belongs(&masternode.status));
        masternodes.map(|masternode| masternode.weight).sum()
    }

    fn count(&self, status: Status) -> usize {
        self.masternodes.values().filter(|masternode| masternode.status == status).count()
    }

    fn committee(&self) -> Vec<Seat> {
        let heaviest = |belongs: fn(&Status) -> bool| {
            let mut chosen: Vec<&Masternode> =
                self.masternodes.values().filter(|masternode| belongs(&masternode.status)).collect();
            chosen.sort_by_key(|masternode| (Reverse(masternode.weight), masternode.id));
            chosen
        };
        let mut chosen = heaviest(|status| *status == Status::Active);
        chosen.truncate(COMMITTEE_MAX);
        let lacking = COMMITTEE_MIN.saturating_sub(chosen.len());
        let others = heaviest(|status| matches!(status, Status::Jailed | Status::Tombstoned { .. }));
        chosen.extend(others.into_iter().take(lacking));
        let mut seats: Vec<Seat> = chosen.into_iter().map(|one| (one.id, one.vote_key, one.weight)).collect();
        seats.sort_unstable();
        seats
    }

    /// What a block changes.
    pub fn apply(&mut self, block: &Block) -> Result<(), Broken> {
        self.attend(block);
        // Every transaction stands on the registry before the block, whatever others of it do.
        let active = self.count(Status::Active);
        for transaction in &block.transactions {
            if let Ok(Some(special)) = transaction.special() {
                self.change(block, transaction, special, active)?;
            }
        }
        self.jail();
        let (now_ms, unbonding_ms) = (block.header.time_ms, self.params.unbonding_ms);
        let needed: Vec<MasternodeId> = self.committee().into_iter().map(|(id, ..)| id).collect();
        self.masternodes.retain(|id, masternode| match masternode.status {
            Status::Unbonding { since_ms } | Status::Tombstoned { since_ms } => {
                now_ms < since_ms + unbonding_ms || needed.contains(id)
            }
            Status::Active | Status::Jailed => true,
        });
        let next = self.committee();
        self.changed = next != self.next;
        self.last = std::mem::replace(&mut self.next, next);
        self.check_cap(block.header.height)
    }

    fn attend(&mut self, block: &Block) {
        let Some(commit) = &block.last_commit else { return };
        let voters = commit.votes().unwrap_or_default();
        let window = usize::try_from(self.params.jail_window_blocks).expect("small");
        for (index, (id, ..)) in self.last.iter().enumerate() {
            let Some(masternode) = self.masternodes.get_mut(id) else { continue };
            if masternode.status != Status::Active {
                continue;
            }
            masternode.signed.push_back(voters.iter().any(|(voter, _)| usize::from(*voter) == index));
            if masternode.signed.len() > window {
                masternode.signed.pop_front();
            }
        }
    }

    fn change(
        &mut self,
        block: &Block,
        tx: &SealedTransaction,
        special: &Special,
        active: usize,
    ) -> Result<(), Broken> {
        let (height, since_ms) = (block.header.height, block.header.time_ms);
        if let Special::Register(registration) = special {
            let name = registration.name.clone();
            let Some(output) = tx.body().outputs.get(registration.collateral as usize) else {
                return broken("registry", format!("`{name}` is registered at {height} without collateral"));
            };
            let taken = |one: &Masternode| one.name == name || one.vote_key == registration.vote_key;
            if output.value != registration.tier.collateral() || self.masternodes.values().any(taken) {
                return broken("registry", format!("`{name}` cannot be registered at {height}"));
            }
            let collateral = OutPoint { txid: tx.id(), index: registration.collateral };
            let entry = masternode::ledger::registry::Entry::new(
                name.clone(),
                registration.vote_key,
                registration.tier,
                [output.key_hash, registration.payout],
                collateral,
            );
            let masternode = Masternode {
                id: entry.id,
                name,
                vote_key: registration.vote_key,
                weight: registration.tier.weight(),
                status: Status::Active,
                sequence: 0,
                collateral,
                payout: registration.payout,
                endpoint: registration.endpoint,
                resumed: None,
                signed: VecDeque::new(),
            };
            self.masternodes.insert(masternode.id, masternode);
            return Ok(());
        }
        let id = special.validator().unwrap_or_default();
        let Some(found) = self.masternodes.get_mut(&id) else {
            return broken("registry", format!("block {height} changes {id:?}, which is not registered"));
        };
        let (sequence, may) = match special {
            Special::Update(update) => (update.sequence, found.status.is_bonded()),
            Special::Unbond(unbonding) => (unbonding.sequence, found.status.is_bonded() && active > 3),
            Special::Resume(resume) => {
                let first = found.resumed.map_or(0, |(last, _)| last + self.params.resume_interval_blocks);
                (resume.sequence, found.status.is_bonded() && height >= first)
            }
            _ => (found.sequence + 1, !matches!(found.status, Status::Tombstoned { .. })),
        };
        // A jailed one may leave with three others active; then it was not counted.
        let jailed_leaves = matches!(special, Special::Unbond(_)) && found.status == Status::Jailed;
        if sequence != found.sequence + 1 || !(may || jailed_leaves && active >= 3) {
            return broken("registry", format!("block {height}: {special:?} on {found:?}"));
        }
        match special {
            Special::Update(update) => {
                found.sequence += 1;
                found.vote_key = update.vote_key.map_or(found.vote_key, |(key, _)| key);
                found.payout = update.payout.unwrap_or(found.payout);
                found.endpoint = update.endpoint.or(found.endpoint);
            }
            Special::Unbond(_) => {
                found.sequence += 1;
                found.status = Status::Unbonding { since_ms };
            }
            Special::Resume(resume) => {
                found.sequence += 1;
                found.status = Status::Active;
                found.resumed = Some((height, resume.nonce));
                found.signed.clear();
                found.vote_key = resume.new_vote_key.map_or(found.vote_key, |(key, _)| key);
            }
            Special::Evidence(_) => {
                found.status = Status::Tombstoned { since_ms };
                found.collateral = OutPoint { txid: tx.id(), index: 0 };
            }
            Special::Register(_) => {}
        }
        Ok(())
    }

    fn jail(&mut self) {
        self.jailed.clear();
        let window = self.params.jail_window_blocks;
        let allowed = window * (100 - self.params.jail_signed_percent);
        let due = |one: &&Masternode| {
            let full = one.signed.len() as u64 == window;
            one.status == Status::Active && full && 100 * one.missed() > allowed
        };
        let mut due: Vec<Masternode> = self.masternodes.values().filter(due).cloned().collect();
        due.sort_by_key(|one| (Reverse(one.missed()), one.id));
        let registered = self.weight(|status| status.is_bonded());
        for one in due {
            let jailed = self.weight(|status| *status == Status::Jailed) + one.weight;
            let fits = 100 * jailed <= self.params.jail_cap_percent * registered;
            if fits && self.count(Status::Active) > 3 {
                self.masternodes.get_mut(&one.id).expect("it was found").status = Status::Jailed;
                self.jailed.push(one);
            }
        }
    }

    /// At no time more than the cap is jailed of all that is registered. The tombstoned count: their
    /// weight is missing on the side of the faulty.
    fn check_cap(&self, height: u64) -> Result<(), Broken> {
        let jailed = self.weight(|status| *status == Status::Jailed);
        let registered =
            self.weight(|status| status.is_bonded() || matches!(status, Status::Tombstoned { .. }));
        if 100 * jailed <= self.params.jail_cap_percent * registered {
            return Ok(());
        }
        broken("jail cap", format!("{jailed} of {registered} are jailed at {height}"))
    }

    /// The committee of the next block must be this one, with less than a third Byzantine.
    pub fn check_committee(
        &self,
        committee: &Committee,
        is_honest: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), Broken> {
        let seats: Vec<Seat> =
            committee.members().iter().map(|member| (member.id, member.vote_key, member.weight)).collect();
        if seats != self.next {
            return broken("committee", format!("{seats:?} vote, by the text {:?}", self.next));
        }
        let faulty: u64 =
            seats.iter().filter(|(_, key, _)| !is_honest(key)).map(|(_, _, weight)| weight).sum();
        if 3 * faulty >= committee.total() {
            let total = committee.total();
            return broken("budget", format!("{faulty} of {total} are Byzantine: not a seed to learn from"));
        }
        Ok(())
    }
}
