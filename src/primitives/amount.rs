//! Amounts of money: unsigned, checked, shown in TIME.

use crate::primitives::encoding::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Units in one TIME.
pub const UNITS_PER_TIME: u64 = 100_000_000;

/// Decimal places of one TIME.
const PLACES: usize = 8;

/// An amount in units of 10⁻⁸ TIME. Serialised as the integer number of units.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(u64);

/// Why a text is not an amount.
#[derive(Debug, thiserror::Error)]
pub enum ParseAmountError {
    /// Not `digits` or `digits.digits`.
    #[error("`{0}` is not an amount: write it as 12 or 12.5, without sign, spaces or unit")]
    Malformed(String),
    /// More than eight decimal places.
    #[error("`{0}` has more than 8 decimal places")]
    TooPrecise(String),
    /// Above [`Amount::MAX`].
    #[error("`{0}` is more than the {max} TIME that can exist", max = Amount::MAX)]
    TooLarge(String),
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The most that can ever exist: 80 billion TIME, so that the sum of two amounts fits 64 bits.
    pub const MAX: Self = Self(80_000_000_000 * UNITS_PER_TIME);

    /// An amount of `units`; `None` above [`Amount::MAX`].
    #[must_use]
    pub const fn from_units(units: u64) -> Option<Self> {
        if units <= Self::MAX.0 { Some(Self(units)) } else { None }
    }

    /// A number of whole TIME; `None` above [`Amount::MAX`].
    #[must_use]
    pub const fn from_time(time: u64) -> Option<Self> {
        match time.checked_mul(UNITS_PER_TIME) {
            Some(units) => Self::from_units(units),
            None => None,
        }
    }

    /// The amount in units.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.0
    }

    /// Whether the value is within [`Amount::MAX`]; decoded amounts need not be.
    #[must_use]
    pub const fn in_range(self) -> bool {
        self.0 <= Self::MAX.0
    }

    /// The sum, `None` above [`Amount::MAX`].
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(units) => Self::from_units(units),
            None => None,
        }
    }

    /// The difference, `None` below zero.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(units) => Some(Self(units)),
            None => None,
        }
    }

    /// The sum of all, `None` above [`Amount::MAX`].
    pub fn checked_sum(amounts: impl IntoIterator<Item = Self>) -> Option<Self> {
        amounts.into_iter().try_fold(Self::ZERO, Self::checked_add)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, units) = (self.0 / UNITS_PER_TIME, self.0 % UNITS_PER_TIME);
        let text = if units == 0 {
            whole.to_string()
        } else {
            format!("{whole}.{units:08}").trim_end_matches('0').to_owned()
        };
        f.pad(&text)
    }
}

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = || text.chars().take(80).collect::<String>();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(ParseAmountError::Malformed(shown()));
        }
        if fraction.len() > PLACES {
            return Err(ParseAmountError::TooPrecise(shown()));
        }
        let too_large = || ParseAmountError::TooLarge(shown());
        let whole: u64 = whole.parse().map_err(|_| too_large())?;
        let units: u64 = format!("{fraction:0<PLACES$}").parse().map_err(|_| too_large())?;
        whole
            .checked_mul(UNITS_PER_TIME)
            .and_then(|scaled| scaled.checked_add(units))
            .and_then(Self::from_units)
            .ok_or_else(too_large)
    }
}
