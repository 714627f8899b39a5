//! The node: everything of the library wired into a running masternode.

pub mod archivist;
pub mod assemble;
pub mod audit;
pub mod banned;
pub mod blocks;
pub mod charges;
pub mod clock;
pub mod clock_judge;
pub mod data_dir;
pub mod effects;
pub mod engine;
pub mod floor;
pub mod halt;
pub mod handle;
pub mod host;
pub mod host_info;
pub mod hub;
pub mod instance;
pub mod journal;
pub mod lanes;
mod log_feed;
pub mod logging;
pub mod metrics;
mod opening;
pub mod outlet;
pub mod prover;
pub mod pruner;
pub mod relay;
pub mod restored;
mod router;
pub mod served;
pub mod settings;
pub mod snapshots;
pub mod sources;
pub mod space;
pub mod start;
pub mod sync;
pub mod tasks;
pub mod traces;
pub mod verify;
pub mod watch;

#[cfg(test)]
mod tests;
