//! `masternode init`: keys, configuration and a public file for a new node, and what to do next.
//!
//! Writes only into a data directory of its own and overwrites nothing. When a step fails, the remedy
//! names what is already there.

use crate::cli::InitArgs;
use crate::commands::genesis::PublicFile;
use crate::commands::{Failure, Outcome, locate, output, passphrase};
use masternode::config::{CONFIG_FILE_NAME, Config};
use masternode::primitives::address::Address;
use masternode::primitives::keys::PublicKey;
use masternode::wallet::keystore::{self, Passphrase};
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The documented settings, which the new file repeats.
const EXAMPLE: &str = include_str!("../../masternode.example.toml");

/// # Errors
/// [`Failure::Refused`] when the directory already holds a node or cannot be used.
pub fn execute(args: &InitArgs) -> Outcome {
    let directory = match &args.data_dir {
        Some(directory) => locate::absolute(directory)?,
        None => locate::default_directory(args.network)?,
    };
    let config_file = directory.join(CONFIG_FILE_NAME);
    if config_file.exists() {
        return Err(Failure::Refused(format!(
            "{}: a node is already set up here; use another --data-dir, or move this one away and keep its keys",
            config_file.display()
        )));
    }
    if let Some(payout) = &args.payout {
        Address::parse_for(payout, args.network)
            .map_err(|error| Failure::Usage(format!("--payout: {error}")))?;
    }
    let config = settings(args, &directory)?;
    let secret = new_passphrase(args, &config)?;
    make_directory(&directory)?;
    let [vote, network, wallet] =
        [config.vote_key_path(), config.network_key_path(), config.wallet_key_path()]
            .map(|file| new_key(&file, secret.as_ref()));
    let (vote, network, wallet) = (vote?, network?, wallet?);
    let owner = Address { network: args.network, key_hash: wallet.key_hash() }.to_string();
    let public = PublicFile {
        name: args.name.clone(),
        network: args.network,
        tier: args.tier,
        vote_key: vote,
        payout: args.payout.clone().unwrap_or_else(|| owner.clone()),
        owner,
        network_key: network,
    };
    let public_file = directory.join(public.file_name());
    write_new(&public_file, &public.to_toml()?, 0o644)?;
    write_new(&config_file, &config_text(&config)?, 0o600)?;
    output::write(&next_steps(args, &config, &public, &public_file, secret.is_some()))
}

/// The configuration the new file stands for.
fn settings(args: &InitArgs, directory: &Path) -> Result<Config, Failure> {
    let mut config = Config::defaults(args.network);
    config.name.clone_from(&args.name);
    directory.clone_into(&mut config.data_dir);
    if let Some(listen) = args.listen {
        config.p2p.listen = listen;
    }
    for peer in &args.bootstrap {
        config.p2p.bootstrap.push(peer.parse().map_err(Failure::failed)?);
    }
    if let Some(file) = &args.passphrase_file {
        config.keys.passphrase_file = Some(locate::absolute(file)?);
    }
    Ok(config)
}

/// The passphrase for the new keys; none only when that was asked for.
fn new_passphrase(args: &InitArgs, config: &Config) -> Result<Option<Passphrase>, Failure> {
    if args.no_passphrase {
        return Ok(None);
    }
    let given = Passphrase::given(config.passphrase_path().as_deref()).map_err(Failure::refused)?;
    match given {
        Some(passphrase) => {
            passphrase.check_strength().map_err(Failure::refused)?;
            Ok(Some(passphrase))
        }
        None if !args.non_interactive && std::io::stdin().is_terminal() => passphrase::chosen().map(Some),
        None => Err(Failure::Usage(format!(
            "the keys need a passphrase: give --passphrase-file FILE, set {}, or leave them unencrypted with \
             --no-passphrase",
            keystore::PASSPHRASE_VARIABLE
        ))),
    }
}

/// Makes the data directory, or takes an empty one of the user's; others get no access.
fn make_directory(directory: &Path) -> Outcome {
    let refused = |reason: String| Failure::Refused(format!("{}: {reason}", directory.display()));
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| refused(format!("cannot be made: {error}. Name another with --data-dir")))?;
    let io = |error: std::io::Error| refused(format!("{error}. Check that the directory is yours"));
    let mode = directory.metadata().map_err(io)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    if std::fs::read_dir(directory).map_err(io)?.next().is_some() {
        return Err(refused(format!("others may enter (mode {mode:03o}): run `chmod 700` on it first")));
    }
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).map_err(io)
}

fn new_key(file: &Path, passphrase: Option<&Passphrase>) -> Result<PublicKey, Failure> {
    let key = keystore::generate().map_err(Failure::failed)?;
    keystore::create(file, &key, passphrase).map_err(Failure::refused)?;
    Ok(key.public())
}

/// Writes a file that must not exist yet, synced.
///
/// # Errors
/// [`Failure::Refused`] when it exists or cannot be written.
pub fn write_new(file: &Path, text: &str, mode: u32) -> Outcome {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    opened
        .and_then(|mut open| {
            // Past the umask: a public file is meant to be read by others.
            open.set_permissions(std::fs::Permissions::from_mode(mode))?;
            open.write_all(text.as_bytes())?;
            open.sync_all()
        })
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => Failure::Refused(format!(
                "{}: already there and never overwritten: move it away",
                file.display()
            )),
            _ => Failure::Refused(format!("{}: cannot be written: {error}", file.display())),
        })
}

/// The example with the defaults of the network commented out and the chosen settings in place.
fn config_text(config: &Config) -> Result<String, Failure> {
    let table = |config: &Config| toml::Table::try_from(config).map_err(Failure::failed);
    let (mut chosen, defaults) = (table(config)?, table(&Config::defaults(config.network))?);
    chosen.insert("data_dir".to_owned(), toml::Value::String(".".to_owned()));
    let mut text = format!(
        "# Configuration of the masternode `{}`. Settings that begin with # have their default on {}.\n\
         # Remove the # of what you change.\n",
        config.name, config.network
    );
    let mut section = None;
    // The head of the example speaks of the example.
    for line in EXAMPLE.lines().skip_while(|line| line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = Some(name);
        }
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let of = |table: &toml::Table| match section {
            None => table.get(key).cloned(),
            Some(section) => table.get(section).and_then(|section| section.get(key)).cloned(),
        };
        let (value, default) = (of(&chosen), of(&defaults));
        let always = section.is_none() && matches!(key, "name" | "network" | "data_dir");
        let mark = if always || value != default { "" } else { "# " };
        let shown = value.map(|value| value.to_string()).unwrap_or_default();
        let _ = writeln!(text, "{mark}{key} = {shown}");
    }
    Ok(text)
}

fn next_steps(
    args: &InitArgs,
    config: &Config,
    public: &PublicFile,
    public_file: &Path,
    encrypted: bool,
) -> String {
    let directory = config.data_dir.display();
    let keys: PathBuf = config.data_dir.join("keys");
    let warning = if encrypted { "" } else { " They are NOT encrypted." };
    let genesis = config.genesis_path();
    format!(
        "Node `{name}` of {network} is set up in {directory}\n\n\
         \x20 vote key     {vote}\n\
         \x20 network key  {network_key}\n\
         \x20 owner        {owner}\n\
         \x20 payout       {payout}\n\n\
         Next:\n\
         \x20 1. Back up {keys}: the keys cannot be made again.{warning}\n\
         \x20 2. Send {public} to whoever founds the network. It holds no secret. With\n\
         \x20    the files of all founders they run\n\
         \x20      masternode genesis create *.masternode.toml\n\
         \x20 3. Put the genesis.toml you get back at {genesis}\n\
         \x20 4. Name the other nodes in {config_file}:\n\
         \x20      [p2p]\n\
         \x20      bootstrap = [\"KEY@HOST:PORT\", ..]\n\
         \x20    The others name this node as\n\
         \x20      \"{network_key}@HOST:{port}\"\n\
         \x20 5. masternode check-config {config_file}\n\
         \x20    masternode run --data-dir {directory}\n",
        name = args.name,
        network = args.network,
        vote = public.vote_key,
        network_key = public.network_key,
        owner = public.owner,
        payout = public.payout,
        keys = keys.display(),
        public = public_file.display(),
        genesis = genesis.display(),
        config_file = config.data_dir.join(CONFIG_FILE_NAME).display(),
        port = config.p2p.listen.port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use masternode::primitives::chain::NetworkKind;

    #[test]
    fn the_new_file_stands_for_the_chosen_settings_and_documents_the_others() {
        for network in NetworkKind::ALL {
            let mut config = Config::defaults(network);
            config.name = "north \"1\"".to_owned();
            config.p2p.bootstrap.push("seed.example:24200".parse().unwrap());
            config.p2p.listen = "127.0.0.1:9".parse().unwrap();
            config.keys.passphrase_file = Some(PathBuf::from("/etc/phrase"));
            let text = config_text(&config).unwrap();
            config.data_dir = PathBuf::from(".");
            assert_eq!(Config::parse(&text, "new").unwrap(), config);
            // With every setting active it still stands for the same: the commented ones are defaults.
            let active: String = text
                .lines()
                .map(|line| match line.strip_prefix("# ") {
                    Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => rest,
                    _ => line,
                })
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(Config::parse(&active, "active").unwrap(), config);
            assert!(text.contains("\n# era_ms = ") && text.contains("\n# Seconds between two pings"));
        }
    }
}
