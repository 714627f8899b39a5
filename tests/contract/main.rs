//! What others rely on: configuration files, published vectors, the bytes on the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod address;
mod committee;
mod config;
mod encoding;
mod hostile;
mod merkle;
mod proofs;
mod samples;
