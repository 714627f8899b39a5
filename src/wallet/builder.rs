//! Builds and signs payments: coin choice, change, fee, as pure functions.
//!
//! Knows nothing of the ledger: the caller offers coins it believes unspent. The fee follows the
//! encoded size exactly, so a payment built here is never refused for its fee.

use crate::primitives::amount::Amount;
use crate::primitives::encoding::encode;
use crate::primitives::hash::{ChainId, KeyHash};
use crate::primitives::keys::{SecretKey, Signature};
use crate::primitives::params::Params;
use crate::primitives::special::{Registration, Special};
use crate::primitives::transaction::{
    OutPoint, TRANSACTION_VERSION, Transaction, TransactionKind, TxInput, TxOutput,
};

/// An unspent output with the key that may spend it.
#[derive(Clone, Copy, Debug)]
pub struct Coin<'a> {
    /// The output.
    pub outpoint: OutPoint,
    /// Its value.
    pub value: Amount,
    /// The key it is locked to.
    pub key: &'a SecretKey,
}

/// What to pay.
#[derive(Clone, Debug)]
pub struct Payment {
    /// Receivers and amounts, at least one.
    pub outputs: Vec<TxOutput>,
    /// Who receives the change.
    pub change_to: KeyHash,
    /// Last height at which the payment may be included.
    pub expiry: u64,
    /// Fee in units per encoded byte; at least the network's least is paid.
    pub fee_per_byte: u64,
}

/// A signed payment with what it costs.
#[derive(Clone, Debug)]
pub struct BuiltPayment {
    /// The signed transaction.
    pub transaction: Transaction,
    /// What it pays to the proposer.
    pub fee: Amount,
    /// What comes back; zero when the rest was below dust and went to the fee.
    pub change: Amount,
}

/// Why no payment can be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    #[error("a payment needs at least one receiver")]
    NoOutputs,
    #[error("{value} TIME for receiver {index} is below the least output of {dust} TIME")]
    Dust { index: usize, value: Amount, dust: Amount },
    #[error("the amounts add up to more money than can exist")]
    Overflow,
    #[error("the coins hold {available} TIME, the payment needs {needed} TIME with its fee")]
    Insufficient { available: Amount, needed: Amount },
    #[error(
        "the payment has {size} bytes, at most {max} are allowed: pay less at once, or join small coins first"
    )]
    TooLarge { size: u64, max: u64 },
}

/// Builds and signs a payment from `coins`. One coin that covers the payment is taken if there is one
/// (the smallest such), else the largest coins first, so that the payment stays small.
///
/// # Errors
/// [`BuildError`]. Cost: sorting the coins and one signature an input.
pub fn build(
    chain: ChainId,
    params: &Params,
    coins: &[Coin<'_>],
    payment: &Payment,
) -> Result<BuiltPayment, BuildError> {
    choose(chain, params, coins, &Plan { payment, registers: None })
}

/// What a transaction pays, and what it registers with the vote key that proves possession.
#[derive(Clone, Copy)]
pub(super) struct Plan<'a> {
    pub payment: &'a Payment,
    pub registers: Option<(&'a Registration, &'a SecretKey)>,
}

/// [`build`] for any plan.
pub(super) fn choose(
    chain: ChainId,
    params: &Params,
    coins: &[Coin<'_>],
    plan: &Plan<'_>,
) -> Result<BuiltPayment, BuildError> {
    check_outputs(params, plan.payment)?;
    let mut ordered: Vec<&Coin<'_>> = coins.iter().collect();
    ordered.sort_by_key(|coin| (std::cmp::Reverse(coin.value), coin.outpoint));
    if let Some(built) =
        ordered.iter().rev().find_map(|coin| fit(chain, params, std::slice::from_ref(coin), plan).ok())
    {
        return Ok(built);
    }
    let mut last = BuildError::Insufficient { available: Amount::ZERO, needed: wanted(plan.payment)? };
    for count in 1..=ordered.len() {
        match fit(chain, params, ordered.get(..count).unwrap_or_default(), plan) {
            Err(error @ BuildError::Insufficient { .. }) => last = error,
            other => return other,
        }
    }
    Err(last)
}

/// Spends exactly `coins`.
///
/// # Errors
/// [`BuildError`].
pub fn build_from_all(
    chain: ChainId,
    params: &Params,
    coins: &[Coin<'_>],
    payment: &Payment,
) -> Result<BuiltPayment, BuildError> {
    check_outputs(params, payment)?;
    fit(chain, params, &coins.iter().collect::<Vec<_>>(), &Plan { payment, registers: None })
}

fn check_outputs(params: &Params, payment: &Payment) -> Result<(), BuildError> {
    if payment.outputs.is_empty() {
        return Err(BuildError::NoOutputs);
    }
    let dust = params.dust;
    match payment.outputs.iter().enumerate().find(|(_, output)| output.value < dust) {
        Some((index, output)) => Err(BuildError::Dust { index, value: output.value, dust }),
        None => wanted(payment).map(|_| ()),
    }
}

fn wanted(payment: &Payment) -> Result<Amount, BuildError> {
    Amount::checked_sum(payment.outputs.iter().map(|output| output.value)).ok_or(BuildError::Overflow)
}

/// Spends exactly these coins: with change when it is worth an output, else without.
fn fit(
    chain: ChainId,
    params: &Params,
    coins: &[&Coin<'_>],
    plan: &Plan<'_>,
) -> Result<BuiltPayment, BuildError> {
    let payment = plan.payment;
    let available = Amount::checked_sum(coins.iter().map(|coin| coin.value)).ok_or(BuildError::Overflow)?;
    let wanted = wanted(payment)?;
    let rate = payment.fee_per_byte.max(params.fee_per_byte_min);
    let with_change = priced(params, &unsigned(coins, plan, Some(Amount::ZERO)), rate)
        .and_then(|fee| Ok((fee, wanted.checked_add(fee).ok_or(BuildError::Overflow)?)));
    let (change, fee) = match with_change {
        Ok((fee, needed)) if available.checked_sub(needed).is_some_and(|change| change >= params.dust) => {
            (available.checked_sub(needed).unwrap_or(Amount::ZERO), fee)
        }
        _ => {
            let least = priced(params, &unsigned(coins, plan, None), rate)?;
            let needed = wanted.checked_add(least).ok_or(BuildError::Overflow)?;
            let rest = available.checked_sub(needed).ok_or(BuildError::Insufficient { available, needed })?;
            (Amount::ZERO, least.checked_add(rest).ok_or(BuildError::Overflow)?)
        }
    };
    let mut transaction = unsigned(coins, plan, (change > Amount::ZERO).then_some(change));
    if let Some((registration, vote_key)) = plan.registers {
        let blank = Special::Register(registration.clone());
        let possession = vote_key.sign(&transaction.authorisation_digest(chain, &blank));
        transaction.payload = encode(&Registration { possession, ..registration.clone() });
    }
    let digest = transaction.spend_digest(chain);
    for (input, coin) in transaction.inputs.iter_mut().zip(coins) {
        input.signature = coin.key.sign(&digest);
    }
    Ok(BuiltPayment { transaction, fee, change })
}

fn unsigned(coins: &[&Coin<'_>], plan: &Plan<'_>, change: Option<Amount>) -> Transaction {
    let payment = plan.payment;
    let input = |coin: &&Coin<'_>| TxInput {
        outpoint: coin.outpoint,
        public_key: coin.key.public(),
        signature: Signature([0; 64]),
    };
    let change = change.map(|value| TxOutput { value, key_hash: payment.change_to });
    let (kind, payload) = match plan.registers {
        Some((registration, _)) => (TransactionKind::Register, encode(registration)),
        None => (TransactionKind::Payment, Vec::new()),
    };
    Transaction {
        version: TRANSACTION_VERSION,
        kind,
        expiry: payment.expiry,
        inputs: coins.iter().map(input).collect(),
        outputs: payment.outputs.iter().copied().chain(change).collect(),
        payload,
    }
}

/// The fee of a transaction by its size; the encoding is of fixed width, so signing does not change it.
fn priced(params: &Params, transaction: &Transaction, rate: u64) -> Result<Amount, BuildError> {
    let size = u64::try_from(encode(transaction).len()).unwrap_or(u64::MAX);
    let max = params.transaction_bytes_max;
    if size > max {
        return Err(BuildError::TooLarge { size, max });
    }
    size.checked_mul(rate).and_then(Amount::from_units).ok_or(BuildError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::hash::Txid;
    use proptest::prelude::*;

    fn outpoint(index: u32) -> OutPoint {
        OutPoint { txid: Txid::default(), index }
    }

    fn pay(units: u64) -> Payment {
        let value = Amount::from_units(units).unwrap();
        let receiver = KeyHash::default();
        let outputs = vec![TxOutput { value, key_hash: receiver }];
        Payment { outputs, change_to: receiver, expiry: 10, fee_per_byte: 2 }
    }

    fn coins<'a>(key: &'a SecretKey, values: &[u64]) -> Vec<Coin<'a>> {
        let coin = |(index, value): (u32, &u64)| Coin {
            outpoint: outpoint(index),
            value: Amount::from_units(*value).unwrap(),
            key,
        };
        (0u32..).zip(values).map(coin).collect()
    }

    #[test]
    fn the_smallest_single_coin_that_suffices_is_spent() {
        let (params, key) = (Params::of(NetworkKind::Devnet), SecretKey::from_seed(&[1; 32]));
        let coins = coins(&key, &[900_000, 50_000, 70_000, 10]);
        let built = build(ChainId::default(), &params, &coins, &pay(49_990)).unwrap();
        assert_eq!(built.transaction.inputs.len(), 1);
        assert_eq!(built.transaction.inputs[0].outpoint, outpoint(2));
        assert_eq!(built.transaction.outputs.len(), 2);
        let checks = built.transaction.signature_checks(ChainId::default());
        assert!(checks.iter().all(|check| check.key.verify(&check.digest, &check.signature)));
    }

    #[test]
    fn a_rest_below_dust_goes_to_the_fee() {
        let (params, key) = (Params::of(NetworkKind::Devnet), SecretKey::from_seed(&[1; 32]));
        let built = build(ChainId::default(), &params, &coins(&key, &[50_000]), &pay(49_000)).unwrap();
        assert_eq!((built.change, built.fee), (Amount::ZERO, Amount::from_units(1000).unwrap()));
        assert_eq!(built.transaction.outputs.len(), 1);
    }

    #[test]
    fn what_cannot_be_paid_says_why() {
        let (params, key) = (Params::of(NetworkKind::Devnet), SecretKey::from_seed(&[1; 32]));
        let chain = ChainId::default();
        let poor = build(chain, &params, &coins(&key, &[5_000, 6_000]), &pay(20_000));
        assert!(
            matches!(poor, Err(BuildError::Insufficient { available, .. }) if available.units() == 11_000)
        );
        assert!(matches!(build(chain, &params, &[], &pay(20_000)), Err(BuildError::Insufficient { .. })));
        assert!(matches!(build(chain, &params, &[], &pay(999)), Err(BuildError::Dust { index: 0, .. })));
        let mut nobody = pay(20_000);
        nobody.outputs.clear();
        assert_eq!(build(chain, &params, &[], &nobody).unwrap_err(), BuildError::NoOutputs);
        let crumbs = coins(&key, &vec![10_000; 1000]);
        assert!(matches!(build(chain, &params, &crumbs, &pay(9_000_000)), Err(BuildError::TooLarge { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn money_is_conserved_and_the_fee_covers_the_size(
            values in prop::collection::vec(1_000u64..1_000_000, 1..12),
            amount in 1_000u64..3_000_000,
        ) {
            let (params, key) = (Params::of(NetworkKind::Devnet), SecretKey::from_seed(&[1; 32]));
            let coins = coins(&key, &values);
            if let Ok(built) = build(ChainId::default(), &params, &coins, &pay(amount)) {
                let spent: u64 = built.transaction.inputs.iter().map(|input| values[input.outpoint.index as usize]).sum();
                let made: u64 = built.transaction.outputs.iter().map(|output| output.value.units()).sum();
                prop_assert_eq!(spent, made + built.fee.units());
                prop_assert!(built.fee.units() >= 2 * encode(&built.transaction).len() as u64);
                prop_assert!(built.transaction.outputs.iter().all(|output| output.value >= params.dust));
            } else {
                prop_assert!(values.iter().sum::<u64>() < amount + 2 * 4_000);
            }
        }
    }
}
