//! The node: everything of the library wired into a running masternode.

pub mod host;
pub mod logging;
