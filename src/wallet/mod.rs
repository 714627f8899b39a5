//! The operator's keys and money: key files on disk, payments and registry changes out of coins and keys.
//!
//! The library never asks anybody for a passphrase; the binary does.

pub mod builder;
pub mod keystore;
pub mod special;
