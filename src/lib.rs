//! The masternode: a full node of the TimeCoin payment network, as a library.
//!
//! Modules in reading order; each may use only those above it, as `docs/architecture.md` draws it and
//! `tests/architecture.rs` enforces. The library knows nothing of terminals or command lines: those
//! live in the binary (`ui/`).

pub mod primitives;

pub mod light;

pub mod telemetry;

pub mod durable;

pub mod config;

pub mod ledger;

pub mod archive;

pub mod pool;

pub mod consensus;

pub mod wallet;

pub mod network;

pub mod rpc;

pub mod node;

pub mod tools;
