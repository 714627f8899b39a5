//! The tools for the data of a node, as operators meet them: the real binary, data directories that real
//! nodes have written, damage of all kinds.
//!
//! The data is made once by a short devnet; every test works on a copy. Nothing here sleeps to make a test
//! pass.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod backup;
mod blocks;
mod chain;
mod doctor;
mod format;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
mod pruning;
