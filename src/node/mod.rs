//! The node: everything of the library wired into a running masternode.

pub mod clock;
pub mod journal;
pub mod logging;
