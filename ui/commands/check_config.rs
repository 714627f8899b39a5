//! `masternode check-config FILE`: everything about a configuration that can be checked at rest.

use crate::cli::CheckConfigArgs;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::config::Config;
use masternode::wallet::keystore;
use std::fmt::Write as _;

/// # Errors
/// [`Failure::Refused`] when the file is wrong, or what it names is there and wrong. Files that are not
/// there yet are only mentioned: they may belong to another machine.
pub fn execute(args: &CheckConfigArgs) -> Outcome {
    let config = Config::load(&args.file).map_err(Failure::refused)?;
    let mut text = String::new();
    if args.print {
        text = toml::to_string(&config).map_err(Failure::failed)?;
        return output::write(&text);
    }
    let genesis = config.genesis_path();
    if genesis.exists() {
        let founded = locate::genesis(&genesis)?;
        if founded.network != config.network {
            return Err(Failure::Refused(format!(
                "{}: founds a {}, but {} sets network = \"{}\": use the genesis file of your network",
                genesis.display(),
                founded.network,
                args.file.display(),
                config.network
            )));
        }
        let _ = writeln!(text, "{}: ok, chain {}", genesis.display(), founded.chain_id());
    } else {
        let _ = writeln!(text, "{}: not there yet", genesis.display());
    }
    for file in [config.vote_key_path(), config.network_key_path()] {
        match keystore::inspect(&file) {
            Ok((public, encrypted)) => {
                let kind = if encrypted { "encrypted" } else { "NOT encrypted" };
                let _ = writeln!(text, "{}: ok, {kind}, public key {public}", file.display());
            }
            Err(keystore::KeystoreError::Missing(_)) => {
                let _ = writeln!(text, "{}: not there yet", file.display());
            }
            Err(error) => return Err(Failure::refused(error)),
        }
    }
    let (file, network, directory) = (args.file.display(), config.network, config.data_dir.display());
    let _ = writeln!(text, "{file}: ok, {network} node `{}` in {directory}", config.name);
    output::write(&text)
}
