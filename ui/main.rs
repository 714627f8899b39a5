//! The `masternode` program: reads the command line, runs one command, exits with its status.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage, 78 refused because of configuration, data or keys.

mod cli;
mod commands;
#[allow(dead_code)]
mod console;
#[allow(dead_code)]
mod keymap;
#[allow(dead_code)]
mod screens;
#[allow(dead_code)]
mod theme;
#[allow(dead_code)]
mod widgets;

use clap::Parser as _;
use std::process::ExitCode;

/// Returns freed memory to the system; the default allocator of glibc keeps what the database frees
/// after each block, several times of what is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
