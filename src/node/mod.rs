//! The node: everything of the library wired into a running masternode.

pub mod assemble;
pub mod clock;
pub mod effects;
pub mod floor;
pub mod host;
pub mod host_info;
pub mod hub;
pub mod journal;
pub mod lanes;
pub mod logging;
pub mod metrics;
