//! `masternode run`: the node of a data directory, with the console unless told otherwise.

use crate::cli::RunArgs;
use crate::commands::{Failure, Outcome, locate, passphrase};

/// # Errors
/// [`Failure::Refused`] when configuration, genesis or keys are at fault.
pub fn execute(args: &RunArgs) -> Outcome {
    let mut config = locate::config(&args.node)?;
    if let Some(filter) = &args.log_level {
        config.log.filter.clone_from(filter);
    }
    let genesis = locate::genesis(&config.genesis_path())?;
    let keys = [config.vote_key_path(), config.network_key_path()];
    let _passphrase = passphrase::for_keys(&config, &keys, true)?;
    Err(Failure::Failed(format!("this build cannot run a node of chain {} yet", genesis.chain_id())))
}
