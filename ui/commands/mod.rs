//! One file a command. A command returns; only `main` exits.

pub mod attach;
pub mod backup;
pub mod bans;
pub mod check_config;
pub mod devnet;
pub mod doctor;
pub mod export;
pub mod genesis;
pub mod init;
pub mod locate;
pub mod logs;
pub mod output;
pub mod passphrase;
pub mod progress;
pub mod proof;
pub mod restore;
pub mod run;
pub mod screen;
pub mod shell;
pub mod status;
pub mod stop;

use crate::cli::{Cli, Command, GenesisCommand, ProofCommand};
use masternode::tools::ToolError;

/// Why a command did not do its work; the text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Exit status 1.
    #[error("{0}")]
    Failed(String),
    /// Exit status 2: the options do not go together.
    #[error("{0}")]
    Usage(String),
    /// Exit status 78: configuration, data or keys are at fault, and trying again changes nothing.
    #[error("{0}")]
    Refused(String),
}

/// What a command returns.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// Exit status 1 with this reason.
    pub fn failed(reason: impl std::fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// Exit status 78 with this reason.
    pub fn refused(reason: impl std::fmt::Display) -> Self {
        Self::Refused(reason.to_string())
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        match error.exit_code() {
            1 => Self::failed(error),
            _ => Self::refused(error),
        }
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// The command's [`Failure`].
pub fn execute(cli: Cli) -> Outcome {
    match cli.command {
        None => run::execute(&cli.run),
        Some(Command::Run(args)) => run::execute(&args),
        Some(Command::Devnet(args)) => devnet::execute(&args),
        Some(Command::Init(args)) => init::execute(&args),
        Some(Command::Genesis(GenesisCommand::Create(args))) => genesis::create(&args),
        Some(Command::Genesis(GenesisCommand::Inspect(args))) => genesis::inspect(&args),
        Some(Command::Proof(ProofCommand::Get(args))) => proof::get(&args),
        Some(Command::Proof(ProofCommand::Verify(args))) => proof::verify(&args),
        Some(Command::Attach(args)) => attach::execute(&args),
        Some(Command::Logs(args)) => logs::execute(&args),
        Some(Command::Replay(args)) => attach::replay(&args),
        Some(Command::Status(args)) => status::execute(&args),
        Some(Command::Stop(args)) => stop::execute(&args),
        Some(Command::Ban(args)) => bans::ban(&args),
        Some(Command::Unban(args)) => bans::unban(&args),
        Some(Command::Listbanned(args)) => bans::list(&args),
        Some(Command::Doctor(args)) => doctor::execute(&args),
        Some(Command::Backup(args)) => backup::execute(&args),
        Some(Command::Restore(args)) => restore::execute(&args),
        Some(Command::Export(args)) => export::export(&args),
        Some(Command::Import(args)) => export::execute(&args),
        Some(Command::CheckConfig(args)) => check_config::execute(&args),
        Some(Command::Completions { shell }) => shell::completions(shell),
        Some(Command::Man) => shell::man(),
    }
}
