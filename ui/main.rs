//! The `masternode` program.
fn main() {}
