//! From a state and the contents of a block to the state after it (protocol §2 header, §5). Pure.
//!
//! One function computes the outcome of a block; building takes the header from it, validating
//! compares the given header with it field by field, committing applies its lists. So the three can
//! never disagree.
//!
//! Absent: signatures, see [`validate`](crate::ledger::validate), and the upper bound of a block's
//! time, which depends on the clock and binds fresh proposals only.

use crate::ledger::registry::Registry;
use crate::ledger::rewards::payout;
use crate::ledger::set_hash::SetHash;
use crate::ledger::specials::{Burn, RegistryStep, registry_after};
use crate::ledger::validate::{BodyEffect, BodyError, Rules, check_body};
use crate::primitives::amount::Amount;
use crate::primitives::block::{Block, Coinbase, HEADER_VERSION, Header, last_commit_root, tx_root};
use crate::primitives::certificate::{CertificateError, Qc};
use crate::primitives::committee::Committee;
use crate::primitives::hash::{BlockId, ChainId, MasternodeId, Txid, era_tag};
use crate::primitives::params::Params;
use crate::primitives::transaction::{OutPoint, SharedTransaction, Utxo};
use crate::primitives::vote::Step;
use std::sync::Arc;

/// The end of the chain: what a block is applied to, besides the unspent outputs themselves.
#[derive(Clone, Debug)]
pub struct State {
    /// The network.
    pub chain: ChainId,
    /// Header of the last block.
    pub header: Header,
    /// Its id.
    pub block: BlockId,
    /// Its commit certificate; `None` for genesis.
    pub commit: Option<Qc>,
    /// Set hash of all unspent outputs.
    pub set_hash: SetHash,
    /// The masternodes.
    pub registry: Arc<Registry>,
    /// Committee of the last block.
    pub committee: Arc<Committee>,
    /// Committee of the next block.
    pub next_committee: Arc<Committee>,
    /// Transactions in all blocks since genesis, coinbases not counted.
    pub transactions: u64,
}

/// What a proposer decides about a block; all else follows.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Who builds it.
    pub proposer: MasternodeId,
    /// Its time in milliseconds since 1970.
    pub time_ms: u64,
    /// Certificate of the block before.
    pub last_commit: Option<&'a Qc>,
    /// Transactions in ascending order of id.
    pub transactions: &'a [SharedTransaction],
}

/// Everything a valid block changes.
#[derive(Clone, Debug)]
pub struct BlockDiff {
    /// Its header.
    pub header: Header,
    /// Its id.
    pub block: BlockId,
    /// What it pays its proposer.
    pub coinbase: Coinbase,
    /// Fees of its transactions.
    pub fees: Amount,
    /// Outputs taken out of the set. Outputs made and spent within the block are in neither list.
    pub spent: Vec<(OutPoint, Utxo)>,
    /// Outputs put into the set, the coinbase's among them.
    pub created: Vec<(OutPoint, Utxo)>,
    /// The set hash after it.
    pub set_hash: SetHash,
    /// The masternodes after it.
    pub registry: Arc<Registry>,
    /// Committee of the block itself; what it signs for is the next block's last commit.
    pub committee: Arc<Committee>,
    /// Committee of the block after it.
    pub next_committee: Arc<Committee>,
    /// Transactions in all blocks up to this one.
    pub transactions: u64,
}

/// A decided block with what it changes: what the store commits at once.
#[derive(Clone, Debug)]
pub struct BlockWrite {
    /// The block.
    pub block: Arc<Block>,
    /// Its commit certificate.
    pub qc: Qc,
    /// Its effect on the state before it.
    pub diff: Arc<BlockDiff>,
}

/// Why a block is not valid on a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    #[error("header field `{field}` is {found}, the rules give {expected}")]
    Header { field: &'static str, found: String, expected: String },
    #[error("block time {time_ms} ms is not later than its parent's {parent_ms} ms")]
    NotLater { time_ms: u64, parent_ms: u64 },
    #[error("proposer {0} is not a member of the committee")]
    UnknownProposer(MasternodeId),
    #[error("the certificate of the block before is missing")]
    MissingCommit,
    #[error("block 1 carries a certificate, but genesis has none")]
    UnexpectedCommit,
    #[error("the last commit is for block {found}, the block before is {expected}")]
    WrongCommit { found: BlockId, expected: BlockId },
    #[error("the last commit holds prevotes, not precommits")]
    NotPrecommits,
    #[error("the last commit proves nothing: {0}")]
    Commit(#[from] CertificateError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("fees of {fees} TIME exceed the supply of {supply} TIME")]
    Supply { fees: Amount, supply: Amount },
    #[error("collateral {outpoint}, of which evidence burns a part, is not among the unspent outputs")]
    Collateral { outpoint: OutPoint },
    #[error("an unspent output count of {count} with {created} created and {spent} spent is impossible")]
    Count { count: u64, created: u64, spent: u64 },
}

/// Computes what the block of `contents` does to `state`, whose unspent outputs `utxo` reads.
/// Cost: about 2 µs for each output spent or created and 1 µs for each transaction.
///
/// # Errors
/// [`BlockError`] naming the first broken rule.
pub fn outcome(
    state: &State,
    params: &Params,
    contents: &Contents<'_>,
    utxo: &dyn Fn(&OutPoint) -> Option<Utxo>,
) -> Result<BlockDiff, BlockError> {
    let height = state.header.height + 1;
    if contents.time_ms <= state.header.time_ms {
        return Err(BlockError::NotLater { time_ms: contents.time_ms, parent_ms: state.header.time_ms });
    }
    check_last_commit(state, contents.last_commit)?;
    let proposer = state
        .next_committee
        .members()
        .iter()
        .find(|member| member.id == contents.proposer)
        .ok_or(BlockError::UnknownProposer(contents.proposer))?;
    let rules = Rules { params, height, registry: &state.registry };
    let mut effect = check_body(&rules, contents.transactions, utxo)?;
    let change = registry_after(
        &state.registry,
        &RegistryStep {
            params,
            height,
            time_ms: contents.time_ms,
            committee: &state.committee,
            last_commit: contents.last_commit,
            transactions: contents.transactions,
        },
    );
    let supply = burn_all(state, params, &change.burns, utxo, &mut effect)?;
    let BodyEffect { bytes, fees, spent, mut created } = effect;
    let paid =
        payout(params, height, supply, fees, proposer.payout).ok_or(BlockError::Supply { fees, supply })?;
    let next_committee = same_or_new(&state.next_committee, change.registry.committee());
    created.extend(paid.coinbase.creates());
    let set_hash = set_hash_after(&state.set_hash, &spent, &created);
    let ids: Vec<Txid> = contents.transactions.iter().map(|transaction| transaction.id()).collect();
    let header = Header {
        version: HEADER_VERSION,
        height,
        previous: state.block,
        time_ms: contents.time_ms,
        proposer: contents.proposer,
        tx_root: tx_root(&ids),
        tx_count: u32::try_from(ids.len()).unwrap_or(u32::MAX),
        body_bytes: bytes,
        last_commit_root: last_commit_root(contents.last_commit),
        utxo_hash: set_hash.digest(),
        utxo_count: count_after(state.header.utxo_count, created.len() as u64, spent.len() as u64)?,
        supply: paid.supply,
        registry_root: change.registry.root(),
        committee_root: state.header.next_committee_root,
        next_committee_root: next_committee.root(),
        params_root: params.root(),
    };
    Ok(BlockDiff {
        block: header.id(),
        coinbase: paid.coinbase,
        fees,
        spent,
        created,
        set_hash,
        registry: Arc::new(change.registry),
        committee: Arc::clone(&state.next_committee),
        next_committee,
        transactions: state.transactions + ids.len() as u64,
        header,
    })
}

fn set_hash_after(before: &SetHash, spent: &[(OutPoint, Utxo)], created: &[(OutPoint, Utxo)]) -> SetHash {
    let mut set_hash = before.clone();
    spent.iter().for_each(|(outpoint, utxo)| set_hash.remove(outpoint, utxo));
    created.iter().for_each(|(outpoint, utxo)| set_hash.add(outpoint, utxo));
    set_hash
}

/// Takes each collateral that evidence is about out of the set and puts the rest of it in; returns the
/// money that then exists.
fn burn_all(
    state: &State,
    params: &Params,
    burns: &[Burn],
    utxo: &dyn Fn(&OutPoint) -> Option<Utxo>,
    effect: &mut BodyEffect,
) -> Result<Amount, BlockError> {
    let height = state.header.height + 1;
    let mut supply = state.header.supply;
    for burn in burns {
        let impossible = BlockError::Collateral { outpoint: burn.collateral };
        let whole = utxo(&burn.collateral).ok_or_else(|| impossible.clone())?;
        let percent = u128::from(params.slash_percent);
        let burned = u64::try_from(u128::from(whole.value.units()) * percent / 100).ok();
        let burned = burned.and_then(Amount::from_units).ok_or_else(|| impossible.clone())?;
        let value = whole.value.checked_sub(burned).ok_or_else(|| impossible.clone())?;
        supply = supply.checked_sub(burned).ok_or(impossible)?;
        effect.spent.push((burn.collateral, whole));
        effect.created.push((burn.rest, Utxo { value, height, ..whole }));
    }
    Ok(supply)
}

/// The committee, shared with the one before if it is the same.
fn same_or_new(before: &Arc<Committee>, after: Committee) -> Arc<Committee> {
    if **before == after { Arc::clone(before) } else { Arc::new(after) }
}

fn count_after(count: u64, created: u64, spent: u64) -> Result<u64, BlockError> {
    let after = count.checked_add(created).and_then(|sum| sum.checked_sub(spent));
    after.ok_or(BlockError::Count { count, created, spent })
}

/// The form of the certificate of the block before: there, for that block, of a quorum of its
/// committee. Its signatures are verified elsewhere.
fn check_last_commit(state: &State, commit: Option<&Qc>) -> Result<(), BlockError> {
    let Some(qc) = commit else {
        return if state.header.height == 0 { Ok(()) } else { Err(BlockError::MissingCommit) };
    };
    if state.header.height == 0 {
        return Err(BlockError::UnexpectedCommit);
    }
    if qc.block != state.block {
        return Err(BlockError::WrongCommit { found: qc.block, expected: state.block });
    }
    if qc.step != Step::Precommit {
        return Err(BlockError::NotPrecommits);
    }
    let era = era_tag(state.chain, state.header.height, state.header.previous);
    qc.checks(era, &state.committee)?;
    Ok(())
}

/// `valid_block` of protocol §5 without signatures: computes the outcome of `block` and compares
/// every header field with it.
///
/// # Errors
/// [`BlockError`] naming the first broken rule.
pub fn valid_block(
    state: &State,
    params: &Params,
    block: &Block,
    utxo: &dyn Fn(&OutPoint) -> Option<Utxo>,
) -> Result<BlockDiff, BlockError> {
    check_links(state, &block.header)?;
    let contents = Contents {
        proposer: block.header.proposer,
        time_ms: block.header.time_ms,
        last_commit: block.last_commit.as_ref(),
        transactions: &block.transactions,
    };
    let diff = outcome(state, params, &contents, utxo)?;
    compare_headers(&block.header, &diff.header)?;
    Ok(diff)
}

/// The fields that are cheap to check, before anything that costs.
fn check_links(state: &State, header: &Header) -> Result<(), BlockError> {
    same("version", &header.version, &HEADER_VERSION)?;
    same("height", &header.height, &(state.header.height + 1))?;
    same("previous", &header.previous.0, &state.block.0)
}

fn compare_headers(found: &Header, expected: &Header) -> Result<(), BlockError> {
    same("tx_root", &found.tx_root, &expected.tx_root)?;
    same("tx_count", &found.tx_count, &expected.tx_count)?;
    same("body_bytes", &found.body_bytes, &expected.body_bytes)?;
    same("last_commit_root", &found.last_commit_root, &expected.last_commit_root)?;
    same("utxo_count", &found.utxo_count, &expected.utxo_count)?;
    same("supply", &found.supply, &expected.supply)?;
    same("utxo_hash", &found.utxo_hash, &expected.utxo_hash)?;
    same("registry_root", &found.registry_root, &expected.registry_root)?;
    same("committee_root", &found.committee_root, &expected.committee_root)?;
    same("next_committee_root", &found.next_committee_root, &expected.next_committee_root)?;
    same("params_root", &found.params_root, &expected.params_root)?;
    assert!(found == expected, "every field is computed or compared above");
    Ok(())
}

fn same<T: PartialEq + std::fmt::Display>(
    field: &'static str,
    found: &T,
    expected: &T,
) -> Result<(), BlockError> {
    if found == expected {
        return Ok(());
    }
    Err(BlockError::Header { field, found: found.to_string(), expected: expected.to_string() })
}
