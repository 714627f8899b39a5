//! `masternode completions SHELL` and `masternode man`.

use crate::cli::Cli;
use crate::commands::{Failure, Outcome, output};
use clap::CommandFactory as _;

/// Prints the completion script of a shell.
///
/// # Errors
/// When the standard output cannot be written.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "masternode", &mut script);
    output::write(&String::from_utf8_lossy(&script))
}

/// Prints the manual page: of the program, then of each command.
///
/// # Errors
/// When the standard output cannot be written.
pub fn man() -> Outcome {
    let mut page = Vec::new();
    let mut command = Cli::command();
    command.build();
    clap_mangen::Man::new(command.clone())
        .render(&mut page)
        .and_then(|()| each_command(&command, &mut page))
        .map_err(Failure::failed)?;
    output::write(&String::from_utf8_lossy(&page))
}

/// The sections of every command under `command`.
fn each_command(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        let man = clap_mangen::Man::new(subcommand.clone());
        man.render_synopsis_section(page)?;
        man.render_description_section(page)?;
        man.render_options_section(page)?;
        each_command(subcommand, page)?;
    }
    Ok(())
}
