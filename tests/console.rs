//! The console of the real program on a terminal of the test: attached to a node of another process, and what becomes of
//! the node when the terminal misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "console/attach.rs"]
mod attach;
#[path = "console/hangups.rs"]
mod hangups;
#[path = "common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
#[path = "console/stage.rs"]
mod stage;
