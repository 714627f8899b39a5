//! The node: what connects the pure parts to sockets, disk and time.

pub mod host;
