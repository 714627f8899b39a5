//! What makes a transaction, and the transactions of a block together, valid (protocol §1, §5). Pure.
//!
//! Joint validity: a transaction is checked against the state after the previous block, its own inputs
//! and the consensus parameters alone, never against other transactions of the era. So transactions
//! that are valid singly and claim nothing twice are valid together. In-block parents are payments
//! only: what a special transaction makes can be spent from the next block on.
//!
//! Absent: signatures, which are verified in batches before anything gets here, and pool policy,
//! which never enters validity. In-block cycles need no check: an id commits to the ids of the
//! transactions whose outputs it spends, so a cycle would be a collision of the hash.

use crate::ledger::registry::Registry;
use crate::ledger::specials::{check_special, stateless_special_ok};
use crate::primitives::amount::Amount;
use crate::primitives::hash::Txid;
use crate::primitives::params::Params;
use crate::primitives::rejection::Rejection;
use crate::primitives::transaction::{
    OutPoint, SealedTransaction, SharedTransaction, TRANSACTION_VERSION, TransactionKind, Utxo,
};

/// What transactions of one block are checked against, besides the outputs.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Consensus parameters of the block.
    pub params: &'a Params,
    /// Height of the block.
    pub height: u64,
    /// Registry after the block before: its collateral cannot be spent, and special transactions are
    /// judged by it.
    pub registry: &'a Registry,
}

/// Everything that can be said of a transaction without the state.
///
/// # Errors
/// The [`Rejection`] of the first fault.
pub fn stateless_ok(params: &Params, transaction: &SealedTransaction) -> Result<(), Rejection> {
    let body = transaction.body();
    if body.version != TRANSACTION_VERSION {
        return Err(Rejection::UnknownVersion { found: body.version, known: TRANSACTION_VERSION });
    }
    let max = match body.kind {
        TransactionKind::Evidence => params.evidence_bytes_max(),
        _ => params.transaction_bytes_max,
    };
    if transaction.size() > max {
        return Err(Rejection::Oversized { size: transaction.size(), max });
    }
    if let Some(special) = transaction.special().map_err(Clone::clone)? {
        stateless_special_ok(transaction, special)?;
    } else if !body.payload.is_empty() {
        return Err(Rejection::UnexpectedPayload { bytes: body.payload.len() });
    }
    if moves_money(body.kind) { check_money(params, transaction) } else { Ok(()) }
}

/// Whether transactions of a kind have inputs, outputs and a fee.
const fn moves_money(kind: TransactionKind) -> bool {
    matches!(kind, TransactionKind::Payment | TransactionKind::Register)
}

/// The form of inputs and outputs.
fn check_money(params: &Params, transaction: &SealedTransaction) -> Result<(), Rejection> {
    let body = transaction.body();
    if body.inputs.is_empty() {
        return Err(Rejection::NoInputs);
    }
    if body.outputs.is_empty() {
        return Err(Rejection::NoOutputs);
    }
    if body.inputs.len() > 1 {
        let spent: Vec<OutPoint> = transaction.spends().collect();
        if let Some(outpoint) = first_duplicate(spent) {
            return Err(Rejection::DuplicateInput { outpoint });
        }
    }
    check_outputs(params, transaction).map(|_| ())
}

/// The sum of the outputs, each of which must be above zero and dust.
fn check_outputs(params: &Params, transaction: &SealedTransaction) -> Result<Amount, Rejection> {
    let mut sum = Amount::ZERO;
    for (output, index) in transaction.body().outputs.iter().zip(0u32..) {
        if output.value == Amount::ZERO {
            return Err(Rejection::ZeroOutput { index });
        }
        if output.value < params.dust {
            return Err(Rejection::DustOutput { index, value: output.value, dust: params.dust });
        }
        sum = sum.checked_add(output.value).ok_or(Rejection::OutputOverflow)?;
    }
    Ok(sum)
}

fn first_duplicate(mut outpoints: Vec<OutPoint>) -> Option<OutPoint> {
    outpoints.sort_unstable();
    outpoints.windows(2).find_map(|pair| match pair {
        [a, b] if a == b => Some(*a),
        _ => None,
    })
}

/// Checks everything about a transaction but its signatures, with inputs found by `resolve`, and
/// returns its fee, which is zero for kinds that move no money.
///
/// # Errors
/// The [`Rejection`] of the first fault.
pub fn check_transaction(
    rules: &Rules<'_>,
    transaction: &SealedTransaction,
    resolve: &dyn Fn(&OutPoint) -> Option<Utxo>,
) -> Result<Amount, Rejection> {
    stateless_ok(rules.params, transaction)?;
    let body = transaction.body();
    if body.expiry < rules.height {
        return Err(Rejection::Expired { expiry: body.expiry, height: rules.height });
    }
    let latest = rules.height.saturating_add(rules.params.expiry_blocks_max);
    if body.expiry > latest {
        return Err(Rejection::ExpiryTooFar { expiry: body.expiry, max: latest });
    }
    check_special(rules.registry, rules.params, rules.height, transaction)?;
    if moves_money(body.kind) { check_fee(rules, transaction, resolve) } else { Ok(Amount::ZERO) }
}

/// Keys and values of inputs and outputs; returns the fee.
fn check_fee(
    rules: &Rules<'_>,
    transaction: &SealedTransaction,
    resolve: &dyn Fn(&OutPoint) -> Option<Utxo>,
) -> Result<Amount, Rejection> {
    let body = transaction.body();
    let mut gathered = Amount::ZERO;
    for (input, index) in body.inputs.iter().zip(0u32..) {
        let outpoint = input.outpoint;
        let utxo = resolve(&outpoint).ok_or(Rejection::UnknownInput { outpoint })?;
        if rules.registry.is_locked(&outpoint) {
            return Err(Rejection::LockedCollateral { outpoint });
        }
        if input.public_key.key_hash() != utxo.key_hash {
            return Err(Rejection::WrongKey { index, outpoint });
        }
        // Distinct unspent outputs never exceed the supply, so this cannot overflow on a sound state.
        gathered = gathered.checked_add(utxo.value).ok_or(Rejection::OutputOverflow)?;
    }
    let given = check_outputs(rules.params, transaction)?;
    let fee = gathered.checked_sub(given).ok_or(Rejection::Overspend { inputs: gathered, outputs: given })?;
    let (size, paid) = (transaction.size(), fee.units());
    let least = rules.params.fee_per_byte_min.saturating_mul(size);
    if paid < least {
        return Err(Rejection::FeeTooLow { fee: paid, least, size });
    }
    Ok(fee)
}

/// Why the transactions of a block are not valid together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("transactions {before:?} and {after:?} at {index} are not strictly ascending")]
    NotAscending { index: usize, before: Txid, after: Txid },
    #[error("the transactions have {bytes} bytes, at most {max} fit a block")]
    TooManyBytes { bytes: u64, max: u64 },
    #[error("the transactions carry {signatures} signatures, at most {max} fit a block")]
    TooManySignatures { signatures: u64, max: u64 },
    #[error("transaction {txid} is not valid: {reason}")]
    Transaction { txid: Txid, reason: Rejection },
    #[error("output {outpoint} is spent twice in the block")]
    DoubleSpend { outpoint: OutPoint },
    #[error("special transactions {first} and {second} exclude each other")]
    Excluded { first: Txid, second: Txid },
    #[error("the fees add up to more money than can exist")]
    FeeOverflow,
}

/// What the transactions of a valid body do, by inputs and outputs, to the set of unspent outputs. Outputs made and spent
/// within the block appear in neither list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyEffect {
    /// Encoded bytes of all transactions.
    pub bytes: u64,
    /// Sum of the fees.
    pub fees: Amount,
    /// Outputs taken out of the set, ascending.
    pub spent: Vec<(OutPoint, Utxo)>,
    /// Outputs put into the set, ascending.
    pub created: Vec<(OutPoint, Utxo)>,
}

/// Checks the transactions of a block together: strictly ascending by id, within the size bounds,
/// each valid on the state that `utxo` reads or on outputs of payments of this block (at any place: a
/// child may sort before its parent), nothing claimed twice.
///
/// # Errors
/// [`BodyError`] naming the first fault.
pub fn check_body(
    rules: &Rules<'_>,
    transactions: &[SharedTransaction],
    utxo: &dyn Fn(&OutPoint) -> Option<Utxo>,
) -> Result<BodyEffect, BodyError> {
    let ids: Vec<Txid> = transactions.iter().map(|transaction| transaction.id()).collect();
    let bytes = check_form(rules.params, &ids, transactions)?;
    let made_here = |outpoint: &OutPoint| {
        let parent = transactions.get(ids.binary_search(&outpoint.txid).ok()?)?;
        if parent.is_special() {
            return None;
        }
        let output = parent.body().outputs.get(usize::try_from(outpoint.index).ok()?)?;
        Some(Utxo { value: output.value, key_hash: output.key_hash, height: rules.height })
    };
    let resolve = |outpoint: &OutPoint| made_here(outpoint).or_else(|| utxo(outpoint));
    let mut fees = Amount::ZERO;
    let mut inputs = Vec::with_capacity(transactions.len());
    for transaction in transactions {
        let fee = check_transaction(rules, transaction, &resolve)
            .map_err(|reason| BodyError::Transaction { txid: transaction.id(), reason })?;
        fees = fees.checked_add(fee).ok_or(BodyError::FeeOverflow)?;
        inputs.extend(transaction.spends());
    }
    inputs.sort_unstable();
    if let Some(outpoint) = first_duplicate(inputs.clone()) {
        return Err(BodyError::DoubleSpend { outpoint });
    }
    check_locks(transactions)?;
    let outside = |outpoint: &OutPoint| {
        if ids.binary_search(&outpoint.txid).is_ok() { None } else { utxo(outpoint) }
    };
    let spent = inputs.iter().filter_map(|outpoint| Some((*outpoint, outside(outpoint)?))).collect();
    let created = transactions
        .iter()
        .flat_map(|transaction| transaction.creates(rules.height))
        .filter(|(outpoint, _)| inputs.binary_search(outpoint).is_err())
        .collect();
    Ok(BodyEffect { bytes, fees, spent, created })
}

/// No two special transactions claim the same thing.
fn check_locks(transactions: &[SharedTransaction]) -> Result<(), BodyError> {
    let claims = |transaction: &SharedTransaction| {
        let txid = transaction.id();
        transaction.lock_keys().iter().map(move |key| (*key, txid)).collect::<Vec<_>>()
    };
    let mut locks: Vec<(OutPoint, Txid)> = transactions.iter().flat_map(claims).collect();
    locks.sort_unstable();
    let twice = locks.windows(2).find_map(|pair| match pair {
        [(one, first), (other, second)] if one == other && first != second => Some((*first, *second)),
        _ => None,
    });
    match twice {
        Some((first, second)) => Err(BodyError::Excluded { first, second }),
        None => Ok(()),
    }
}

/// Order and size bounds; returns the encoded bytes.
fn check_form(params: &Params, ids: &[Txid], transactions: &[SharedTransaction]) -> Result<u64, BodyError> {
    for (index, pair) in ids.windows(2).enumerate() {
        if let [before, after] = pair
            && before >= after
        {
            return Err(BodyError::NotAscending { index: index + 1, before: *before, after: *after });
        }
    }
    let bytes = transactions.iter().map(|transaction| transaction.size()).sum();
    if bytes > params.block_bytes_max {
        return Err(BodyError::TooManyBytes { bytes, max: params.block_bytes_max });
    }
    let signatures = transactions.iter().map(|transaction| transaction.signature_count()).sum();
    if signatures > params.block_signatures_max {
        return Err(BodyError::TooManySignatures { signatures, max: params.block_signatures_max });
    }
    Ok(bytes)
}
