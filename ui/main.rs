//! The `masternode` program: reads the command line, runs one command, exits with its status.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage, 78 refused because of configuration, data or keys.

mod cli;
mod commands;
mod console;
mod keymap;
mod review;
mod screens;
mod theme;
mod widgets;

use clap::Parser as _;
use std::process::ExitCode;

/// Returns what the database frees after each block to the system, as `.cargo/config.toml` sets it; the
/// allocator of glibc keeps it, several times of what is in use.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    protect_secrets();
    let cli = cli::Cli::parse();
    match commands::execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => commands::output::failure(&failure),
    }
}

/// Files this process makes are for its user alone, and no dump of its memory reaches the disk.
fn protect_secrets() {
    use rustix::process::{Resource, Rlimit, setrlimit, umask};
    umask(rustix::fs::Mode::from_bits_truncate(0o077));
    // Refusing to start without this would help nobody: the system may forbid changing limits.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}
