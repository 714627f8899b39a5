//! The reward of a block in whole units: new money, halved at intervals, plus all fees, to the
//! proposer. Pure integer arithmetic; supply stays exact to the unit.

use crate::primitives::amount::Amount;
use crate::primitives::block::Coinbase;
use crate::primitives::hash::KeyHash;
use crate::primitives::params::Params;
use crate::primitives::transaction::TxOutput;

/// What a block pays its proposer and what that does to the money in existence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payout {
    /// The coinbase of the block.
    pub coinbase: Coinbase,
    /// Money in existence after the block.
    pub supply: Amount,
}

/// New money of the block at `height` (1 and up), before fees: halved every `halving_blocks`, zero
/// after 64 halvings.
#[must_use]
pub fn block_reward(params: &Params, height: u64) -> Amount {
    let halvings = height.saturating_sub(1).checked_div(params.halving_blocks).unwrap_or(0);
    let units = u32::try_from(halvings).ok().and_then(|by| params.block_reward.units().checked_shr(by));
    units.and_then(Amount::from_units).unwrap_or_default()
}

/// The coinbase of the block at `height` and the supply after it. `supply` is the money in existence
/// before, of which `fees` was not given to any output of the block's transactions.
///
/// New money is cut so that the supply never passes [`Amount::MAX`]. When reward and fees together
/// are zero or below dust there is no output: nothing is created and the fees cease to exist.
/// `None` when `fees` exceed `supply`, which no valid state allows.
#[must_use]
pub fn payout(params: &Params, height: u64, supply: Amount, fees: Amount, to: KeyHash) -> Option<Payout> {
    let room = Amount::MAX.checked_sub(supply).unwrap_or_default();
    let reward = block_reward(params, height).min(room);
    let rest = supply.checked_sub(fees)?;
    let value = reward.checked_add(fees)?;
    if value == Amount::ZERO || value < params.dust {
        return Some(Payout { coinbase: Coinbase { height, outputs: Vec::new() }, supply: rest });
    }
    let outputs = vec![TxOutput { value, key_hash: to }];
    Some(Payout { coinbase: Coinbase { height, outputs }, supply: rest.checked_add(value)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::chain::NetworkKind;
    use proptest::prelude::*;

    fn units(units: u64) -> Amount {
        Amount::from_units(units).unwrap()
    }

    fn params() -> Params {
        Params {
            block_reward: units(100),
            halving_blocks: 10,
            dust: units(5),
            ..Params::of(NetworkKind::Devnet)
        }
    }

    #[test]
    fn the_reward_halves_after_each_interval_and_ends() {
        let rewards = [1, 10, 11, 20, 21, 71, 700].map(|height| block_reward(&params(), height).units());
        assert_eq!(rewards, [100, 100, 50, 50, 25, 0, 0]);
        assert_eq!(block_reward(&params(), u64::MAX).units(), 0);
    }

    #[test]
    fn an_interval_of_zero_never_halves() {
        let params = Params { halving_blocks: 0, ..params() };
        assert_eq!(block_reward(&params, u64::MAX).units(), 100);
    }

    #[test]
    fn a_payout_below_dust_creates_nothing_and_burns_the_fees() {
        let paid = payout(&params(), 1000, units(1_000), units(4), KeyHash::default()).unwrap();
        assert_eq!(paid, Payout { coinbase: Coinbase { height: 1000, outputs: vec![] }, supply: units(996) });
    }

    #[test]
    fn the_reward_is_cut_at_the_largest_supply() {
        let before = units(Amount::MAX.units() - 30);
        let paid = payout(&params(), 1, before, units(7), KeyHash::default()).unwrap();
        assert_eq!(paid.supply, Amount::MAX);
        assert_eq!(paid.coinbase.outputs[0].value, units(37));
    }

    #[test]
    fn fees_above_the_supply_are_refused() {
        assert_eq!(payout(&params(), 1, units(5), units(6), KeyHash::default()), None);
    }

    proptest! {
        #[test]
        fn supply_changes_by_exactly_what_the_outputs_gain(
            height in 1u64..100, before in 0..=Amount::MAX.units(), share in 0u64..=1000,
        ) {
            let fees = units(u64::try_from(u128::from(before) * u128::from(share) / 1000).unwrap());
            let paid = payout(&params(), height, units(before), fees, KeyHash::default()).unwrap();
            let created: u64 = paid.coinbase.outputs.iter().map(|output| output.value.units()).sum();
            // Outputs before held `before`; the transactions left `before - fees` of it.
            prop_assert_eq!(paid.supply.units(), before - fees.units() + created);
            prop_assert!(paid.supply.in_range());
        }
    }
}
