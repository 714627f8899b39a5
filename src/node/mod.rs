//! The running node: the only module that knows all others and wires them together.

pub mod clock;
pub mod journal;
