//! Logs under review: files of this program and of others, plain and JSON lines, rotated, packed and growing.
//!
//! [`stream`] prints what passes a filter, for pipes; [`pages`] shows any part of gigabytes at once, for the
//! viewer. Everything read is cleaned before it can reach a terminal.

pub mod blocks;
pub mod files;
pub mod filter;
pub mod line;
pub mod pages;
pub mod stream;
pub mod time;
