//! From options to the configuration of the node that is meant.
//!
//! Order: `--config`, else `masternode.toml` in `--data-dir`, else the same in the default data
//! directory of `--network`. Options then override what the file says.

use crate::cli::{NetworkArg, NodeArgs};
use crate::commands::Failure;
use masternode::config::{CONFIG_FILE_NAME, Config, default_data_dir};
use masternode::ledger::genesis::Genesis;
use masternode::primitives::chain::NetworkKind;
use std::path::{Path, PathBuf};

/// Largest genesis file read, in bytes: room for the most allocations there may be.
const GENESIS_BYTES_MAX: u64 = 64 << 20;

/// The configuration of the node `args` name.
///
/// # Errors
/// [`Failure::Refused`] when there is none or it is wrong, with the file and the remedy.
pub fn config(args: &NodeArgs) -> Result<Config, Failure> {
    let wanted = network(args)?;
    let file = config_file(args)?;
    if !file.exists() {
        let remedy = match &args.config {
            Some(_) => "name an existing file with --config",
            None => "make a node with `masternode init`, or name one with --data-dir, --network or --config",
        };
        return Err(Failure::Refused(format!("{}: no such configuration: {remedy}", file.display())));
    }
    let mut config = Config::load(&file).map_err(Failure::refused)?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != config.network) {
        return Err(Failure::Refused(format!(
            "{}: the node is of {}, not of {wanted}: use another data directory for another network",
            file.display(),
            config.network
        )));
    }
    if let Some(directory) = &args.data_dir {
        config.data_dir = absolute(directory)?;
    }
    if let Some(NetworkArg::Genesis(file)) = &args.network {
        config.genesis = absolute(file)?;
    }
    Ok(config)
}

/// The network that is meant, if one is named.
///
/// # Errors
/// [`Failure::Refused`] when the genesis that names it is wrong.
pub fn network(args: &NodeArgs) -> Result<Option<NetworkKind>, Failure> {
    Ok(match &args.network {
        None => None,
        Some(NetworkArg::Kind(kind)) => Some(*kind),
        Some(NetworkArg::Genesis(file)) => Some(genesis(file)?.network),
    })
}

/// The configuration file that is meant, whether or not it is there.
///
/// # Errors
/// As [`config`].
pub fn config_file(args: &NodeArgs) -> Result<PathBuf, Failure> {
    match &args.config {
        Some(file) => Ok(file.clone()),
        None => Ok(directory(args, network(args)?)?.join(CONFIG_FILE_NAME)),
    }
}

/// The data directory that is meant when no configuration file is named.
fn directory(args: &NodeArgs, network: Option<NetworkKind>) -> Result<PathBuf, Failure> {
    match &args.data_dir {
        Some(directory) => absolute(directory),
        None => default_directory(network.unwrap_or(NetworkKind::Mainnet)),
    }
}

/// The default data directory of a network.
///
/// # Errors
/// [`Failure::Refused`] when there is no home.
pub fn default_directory(network: NetworkKind) -> Result<PathBuf, Failure> {
    default_data_dir(network).ok_or_else(|| {
        Failure::Refused("neither XDG_DATA_HOME nor HOME is set: name a directory with --data-dir".to_owned())
    })
}

/// `path` from the root.
///
/// # Errors
/// [`Failure::Failed`] without a current directory.
pub fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// Reads and checks a genesis file.
///
/// # Errors
/// [`Failure::Refused`] with file, line and remedy.
pub fn genesis(file: &Path) -> Result<Genesis, Failure> {
    let shown = file.display();
    let unreadable = |error: std::io::Error| {
        Failure::Refused(format!(
            "{shown}: cannot be read: {error}. Copy the genesis file of your network here, or found one with \
             `masternode genesis create`"
        ))
    };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > GENESIS_BYTES_MAX {
        return Err(Failure::Refused(format!(
            "{shown}: {size} bytes, a genesis has at most {GENESIS_BYTES_MAX}: this is another file"
        )));
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::Refused(format!("{shown}: not text: this is no genesis file, copy it again"))
    })?;
    Genesis::parse(&text, &shown.to_string()).map_err(Failure::refused)
}
