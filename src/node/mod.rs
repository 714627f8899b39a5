//! The running node: the only module that knows all others and wires them together.

pub mod assemble;
pub mod host_info;
pub mod hub;
pub mod logging;
pub mod metrics;
