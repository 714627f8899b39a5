//! What special transactions must satisfy and what they do to the registry (protocol §1, §5, §10).
//! Pure.
//!
//! Joint validity: each is judged by the registry after the block before, the parameters and the
//! height alone. What two of one block could spoil for each other they both claim: the masternode
//! they change, a new vote key, name or endpoint, and the one unbonding of a block. So those that are
//! valid singly and claim nothing twice are valid together, and in any order have the same effect.
//! What remains — jail, lapse of former keys, release of collateral — follows from the registry and
//! the time of the block and can make no transaction of that block invalid.
//!
//! Absent: signatures, which are verified before anything gets here, and inputs, outputs and fee of a
//! registration, which are those of a payment, see [`validate`](crate::ledger::validate).

use crate::ledger::attendance::{self, Attendance};
use crate::ledger::planted::Bug;
use crate::ledger::registry::{Entry, FORMER_KEYS_MAX, FormerKey, Registry, Resumed, check_name};
use crate::primitives::certificate::Qc;
use crate::primitives::committee::{COMMITTEE_MIN, Committee};
use crate::primitives::hash::{Hash, MasternodeId};
use crate::primitives::keys::PublicKey;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::special::{Registration, RegistryUpdate, Resume, Special, Unbonding};
use crate::primitives::transaction::{OutPoint, SealedTransaction, SharedTransaction, Transaction};

/// Everything that can be said of a special transaction without the state, the rules of payments
/// excepted.
///
/// # Errors
/// The [`Rejection`] of the first fault.
pub fn stateless_special_ok(transaction: &SealedTransaction, special: &Special) -> Result<(), Rejection> {
    if let Some(key) = special.new_vote_key()
        && !key.is_point()
    {
        return Err(Rejection::NotAKey { key });
    }
    let body = transaction.body();
    match special {
        Special::Register(registration) => {
            check_name(&registration.name).map_err(|reason| Rejection::BadName { reason })?;
            check_collateral(body, registration)
        }
        _ if !body.inputs.is_empty() || !body.outputs.is_empty() => Err(Rejection::UnexpectedMoney),
        // The digest is of no account here: what counts is that the statements exclude each other.
        Special::Evidence(_) => special.checks(Hash::default()).map(|_| ()),
        Special::Update(_) | Special::Unbond(_) | Special::Resume(_) => Ok(()),
    }
}

fn check_collateral(body: &Transaction, registration: &Registration) -> Result<(), Rejection> {
    let (index, expected) = (registration.collateral, registration.tier.collateral());
    let output = usize::try_from(index).ok().and_then(|index| body.outputs.get(index));
    match output {
        Some(output) if output.value == expected => Ok(()),
        _ => Err(Rejection::WrongCollateral { index, expected }),
    }
}

/// Checks a special transaction against the registry after the block before, for a block of `height`.
/// A payment passes.
///
/// # Errors
/// The [`Rejection`] of the first fault.
pub fn check_special(
    registry: &Registry,
    params: &Params,
    height: u64,
    transaction: &SealedTransaction,
) -> Result<(), Rejection> {
    match transaction.special().map_err(Clone::clone)? {
        None => Ok(()),
        Some(Special::Register(registration)) => check_registration(registry, registration),
        Some(Special::Update(update)) => check_update(registry, update),
        Some(Special::Unbond(unbonding)) => check_unbonding(registry, unbonding),
        Some(Special::Resume(resume)) => check_resume(registry, params, height, resume),
        Some(Special::Evidence(evidence)) => {
            let entry = known(registry, evidence.offender)?;
            if matches!(entry.status, MasternodeStatus::Tombstoned { .. }) {
                return Err(wrong_status(entry));
            }
            if !entry.answers_for(&evidence.vote_key) {
                return Err(Rejection::NotVoteKey { id: entry.id });
            }
            Ok(())
        }
    }
}

fn check_registration(registry: &Registry, registration: &Registration) -> Result<(), Rejection> {
    if registry.knows_name(&registration.name) {
        return Err(Rejection::NameInUse { name: registration.name.clone() });
    }
    fresh_key(registry, &registration.vote_key)?;
    fresh_endpoint(registry, registration.endpoint.as_ref())
}

fn check_update(registry: &Registry, update: &RegistryUpdate) -> Result<(), Rejection> {
    let entry = next_change(registry, update.validator, update.sequence)?;
    owned(entry, &update.owner_key)?;
    bonded(entry)?;
    if let Some((key, _)) = &update.vote_key {
        may_change_key(registry, entry, key)?;
    }
    fresh_endpoint(registry, update.endpoint.as_ref())
}

fn check_unbonding(registry: &Registry, unbonding: &Unbonding) -> Result<(), Rejection> {
    let entry = next_change(registry, unbonding.validator, unbonding.sequence)?;
    owned(entry, &unbonding.owner_key)?;
    bonded(entry)?;
    let rest = registry.active() - usize::from(entry.status == MasternodeStatus::Active);
    if rest < COMMITTEE_MIN {
        return Err(Rejection::CommitteeTooSmall { rest, least: COMMITTEE_MIN });
    }
    Ok(())
}

fn check_resume(registry: &Registry, params: &Params, height: u64, resume: &Resume) -> Result<(), Rejection> {
    let entry = next_change(registry, resume.validator, resume.sequence)?;
    if entry.vote_key != resume.vote_key {
        return Err(Rejection::NotVoteKey { id: entry.id });
    }
    bonded(entry)?;
    let earliest = entry.resumed.map_or(0, |last| last.height.saturating_add(params.resume_interval_blocks));
    if height < earliest {
        return Err(Rejection::ResumeTooSoon { id: entry.id, earliest });
    }
    match &resume.new_vote_key {
        Some((key, _)) => may_change_key(registry, entry, key),
        None => Ok(()),
    }
}

fn known(registry: &Registry, id: MasternodeId) -> Result<&Entry, Rejection> {
    registry.entry(id).ok_or(Rejection::UnknownMasternode { id })
}

fn next_change(registry: &Registry, id: MasternodeId, found: u64) -> Result<&Entry, Rejection> {
    let entry = known(registry, id)?;
    let expected = entry.sequence.saturating_add(1);
    if found == expected { Ok(entry) } else { Err(Rejection::WrongSequence { id, found, expected }) }
}

fn owned(entry: &Entry, owner_key: &PublicKey) -> Result<(), Rejection> {
    if owner_key.key_hash() == entry.owner { Ok(()) } else { Err(Rejection::NotOwner { id: entry.id }) }
}

fn bonded(entry: &Entry) -> Result<(), Rejection> {
    if entry.status.is_bonded() { Ok(()) } else { Err(wrong_status(entry)) }
}

fn wrong_status(entry: &Entry) -> Rejection {
    Rejection::WrongStatus { id: entry.id, status: entry.status }
}

fn fresh_key(registry: &Registry, key: &PublicKey) -> Result<(), Rejection> {
    if registry.knows_key(key) { Err(Rejection::KeyInUse { key: *key }) } else { Ok(()) }
}

fn fresh_endpoint(registry: &Registry, endpoint: Option<&std::net::SocketAddr>) -> Result<(), Rejection> {
    match endpoint.filter(|endpoint| registry.knows_endpoint(endpoint)) {
        Some(endpoint) => Err(Rejection::EndpointInUse { endpoint: *endpoint }),
        None => Ok(()),
    }
}

fn may_change_key(registry: &Registry, entry: &Entry, key: &PublicKey) -> Result<(), Rejection> {
    fresh_key(registry, key)?;
    let count = entry.former_keys.len();
    if count >= FORMER_KEYS_MAX {
        return Err(Rejection::TooManyFormerKeys { id: entry.id, count });
    }
    Ok(())
}

/// What a block brings to the registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryStep<'a> {
    /// Consensus parameters of the block.
    pub params: &'a Params,
    /// Its height.
    pub height: u64,
    /// Its time in milliseconds since 1970.
    pub time_ms: u64,
    /// Who decided the block before.
    pub committee: &'a Committee,
    /// Who of them signed it, as the block says.
    pub last_commit: Option<&'a Qc>,
    /// Its transactions, each checked by [`check_special`] against the registry before it, with
    /// distinct claims.
    pub transactions: &'a [SharedTransaction],
}

/// A collateral of which a part is to be burned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burn {
    /// The collateral as it was.
    pub collateral: OutPoint,
    /// What names the rest of it.
    pub rest: OutPoint,
}

/// The registry after a block.
#[derive(Clone, Debug)]
pub struct RegistryChange {
    /// The registry.
    pub registry: Registry,
    /// What evidence burns, in the order of the transactions.
    pub burns: Vec<Burn>,
}

/// The registry after a block: first who signed the block before, then the special transactions, then
/// jail, then what time ends. Cost: a copy of each committee member's entry, and with special
/// transactions a pass over all entries.
#[must_use]
pub fn registry_after(registry: &Registry, step: &RegistryStep<'_>) -> RegistryChange {
    let mut next = registry.clone();
    if let Some(last_commit) = step.last_commit {
        attendance::record(&mut next, step.params, step.committee, last_commit);
    }
    let mut burns = Vec::new();
    let mut specials = 0u64;
    for transaction in step.transactions {
        if let Ok(Some(special)) = transaction.special() {
            specials += 1;
            burns.extend(apply(&mut next, step, transaction, special));
        }
    }
    attendance::jail(&mut next, step.params);
    let lapsed = end_what_time_ends(&mut next, step);
    if specials > 0 || lapsed {
        next.reindex();
    }
    RegistryChange { registry: next, burns }
}

/// Applies one special transaction; evidence burns.
fn apply(
    registry: &mut Registry,
    step: &RegistryStep<'_>,
    transaction: &SealedTransaction,
    special: &Special,
) -> Option<Burn> {
    let (since_ms, txid) = (step.time_ms, transaction.id());
    let keeps_window = registry.planted.has(Bug::ResumeKeepsWindow);
    match special {
        Special::Register(registration) => register(registry, transaction, registration),
        Special::Update(update) => registry.change(update.validator, |entry| {
            entry.sequence = update.sequence;
            entry.payout = update.payout.unwrap_or(entry.payout);
            entry.endpoint = update.endpoint.or(entry.endpoint);
            change_key(entry, step, update.vote_key.map(|(key, _)| key));
        }),
        Special::Unbond(unbonding) => registry.change(unbonding.validator, |entry| {
            entry.sequence = unbonding.sequence;
            entry.status = MasternodeStatus::Unbonding { since_ms };
        }),
        Special::Resume(resume) => registry.change(resume.validator, |entry| {
            entry.sequence = resume.sequence;
            entry.status = MasternodeStatus::Active;
            entry.resumed = Some(Resumed { height: step.height, nonce: resume.nonce });
            if !keeps_window {
                entry.attendance = Attendance::default();
            }
            change_key(entry, step, resume.new_vote_key.map(|(key, _)| key));
        }),
        Special::Evidence(evidence) => {
            let entry = registry.entry(evidence.offender)?;
            let keys: Vec<PublicKey> = entry.keys().collect();
            let burn = Burn { collateral: entry.collateral, rest: OutPoint { txid, index: 0 } };
            registry.tombstone(keys);
            registry.change(evidence.offender, |entry| {
                entry.status = MasternodeStatus::Tombstoned { since_ms };
                entry.collateral = burn.rest;
            });
            return Some(burn);
        }
    }
    None
}

fn register(registry: &mut Registry, transaction: &SealedTransaction, registration: &Registration) {
    let index = registration.collateral;
    let output = usize::try_from(index).ok().and_then(|index| transaction.body().outputs.get(index));
    let Some(owner) = output.map(|output| output.key_hash) else { return };
    let entry = Entry::new(
        registration.name.clone(),
        registration.vote_key,
        registration.tier,
        [owner, registration.payout],
        OutPoint { txid: transaction.id(), index },
    );
    registry.insert(Entry { endpoint: registration.endpoint, ..entry });
}

/// Makes `key` the vote key, if there is a new one; the entry answers for the old one for a time.
fn change_key(entry: &mut Entry, step: &RegistryStep<'_>, key: Option<PublicKey>) {
    if let Some(key) = key {
        let until_ms = step.time_ms.saturating_add(step.params.unbonding_ms);
        entry.former_keys.push(FormerKey { key: std::mem::replace(&mut entry.vote_key, key), until_ms });
    }
}

/// Forgets former keys and drops entries whose time is over, which frees their collateral; whether
/// there were any. An entry that fills up the committee stays until it does not.
fn end_what_time_ends(registry: &mut Registry, step: &RegistryStep<'_>) -> bool {
    let now_ms = step.time_ms;
    let is_over = |entry: &Entry| match entry.status {
        MasternodeStatus::Unbonding { since_ms } | MasternodeStatus::Tombstoned { since_ms } => {
            now_ms >= since_ms.saturating_add(step.params.unbonding_ms)
        }
        MasternodeStatus::Active | MasternodeStatus::Jailed => false,
    };
    let lapsing: Vec<MasternodeId> = registry
        .entries()
        .filter(|entry| entry.former_keys.iter().any(|former| former.until_ms <= now_ms))
        .map(|entry| entry.id)
        .collect();
    for id in &lapsing {
        registry.change(*id, |entry| entry.former_keys.retain(|former| former.until_ms > now_ms));
    }
    if !registry.entries().any(is_over) {
        return !lapsing.is_empty();
    }
    let committee = registry.committee();
    let needed = |id| committee.members().iter().any(|member| member.id == id);
    registry.retain(|entry| !is_over(entry) || needed(entry.id));
    true
}

#[cfg(test)]
#[path = "specials_tests.rs"]
mod tests;
