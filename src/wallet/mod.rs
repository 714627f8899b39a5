//! The operator's keys and money: key files on disk, payments out of coins.
//!
//! The library never asks anybody for a passphrase; the binary does.

pub mod builder;
pub mod keystore;
