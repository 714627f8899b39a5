//! Whole networks: the devnet command as a user runs it, and separate daemons that are killed.
//!
//! Nothing here sleeps to make a test pass: everything polls with a deadline that is far above what a
//! sound network needs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "devnet/command.rs"]
mod command;
#[path = "devnet/daemons.rs"]
mod daemons;
#[path = "../ui/commands/devnet/founding.rs"]
#[allow(dead_code)]
mod founding;
#[path = "devnet/lifecycle.rs"]
mod lifecycle;
#[path = "common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
#[path = "devnet/proofs.rs"]
mod proofs;
#[path = "devnet/rules.rs"]
mod rules;
