//! The node: everything of the library wired into a running masternode.

pub mod assemble;
pub mod host;
pub mod host_info;
pub mod hub;
pub mod logging;
pub mod metrics;
