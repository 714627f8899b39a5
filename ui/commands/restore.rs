//! `masternode restore DIR`: the database of a data directory from a backup.

use crate::cli::RestoreArgs;
use crate::commands::progress::Teller;
use crate::commands::{Outcome, locate, output};
use masternode::config::{CONFIG_FILE_NAME, Config};
use masternode::ledger::store::StoreOptions;
use masternode::tools::backup::KEYS_FOLDER_NAME;
use masternode::tools::manifest::Manifest;
use masternode::tools::restore::{RestoreOrder, Restored, configuration, inspect, restore};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// # Errors
/// [`Failure`](crate::commands::Failure).
pub fn execute(args: &RestoreArgs) -> Outcome {
    let mut teller = Teller::new("restore");
    if args.check {
        let (manifest, rests_on) = inspect(&args.backup)?;
        let mut text = format!(
            "{}: whole, made at {} of {}, height {}, state hash {}\n",
            args.backup.display(),
            manifest.made,
            manifest.node,
            manifest.height,
            manifest.state_hash
        );
        text += &beginning(rests_on, &manifest);
        return output::write(&text);
    }
    let data_dir = data_dir(args)?;
    let config = configuration(&data_dir, &args.backup)?;
    let cache_bytes = config.map_or(StoreOptions::default().cache_bytes, |config| config.storage.cache_bytes);
    let order =
        RestoreOrder { backup: &args.backup, data_dir: &data_dir, cache_bytes, set_aside: args.set_aside };
    let restored = restore(order, &mut |progress| teller.tell(progress))?;
    output::write(&told(&data_dir, &restored))
}

/// The directory that is meant: as for every command, and without any option the usual one of the network
/// that the backup is of.
fn data_dir(args: &RestoreArgs) -> Result<PathBuf, crate::commands::Failure> {
    let mut node = args.node.clone();
    let file = locate::config_file(&node)?;
    if node.config.is_some() || (file.exists() && node.data_dir.is_none()) {
        return Ok(locate::config(&node)?.data_dir);
    }
    if let Some(named) = node.data_dir.take() {
        return locate::absolute(&named);
    }
    let copied = args.backup.join(CONFIG_FILE_NAME);
    let network = match locate::network(&node)? {
        Some(network) => network,
        None => Config::load(&copied).map_err(crate::commands::Failure::refused)?.network,
    };
    locate::default_directory(network)
}

/// What the backup does not show, if it does not begin with the genesis.
fn beginning(rests_on: Option<u64>, manifest: &Manifest) -> String {
    rests_on.map_or_else(String::new, |first| {
        format!(
            "the beginning was not checked: the backup begins with block {first}, and nothing in it shows that this one is of \
             the chain; compare with another operator: block {} is {}\n",
            manifest.height, manifest.block
        )
    })
}

fn joined(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}

fn told(data_dir: &Path, restored: &Restored) -> String {
    let (dir, manifest) = (data_dir.display(), &restored.manifest);
    let mut text = format!(
        "{dir}: restored to height {} from the backup of {}, {}; state hash recounted\n",
        manifest.height, manifest.node, manifest.made
    );
    text += &beginning(restored.rests_on, manifest);
    for (was, now) in &restored.set_aside {
        let _ = writeln!(text, "set aside: {} is now {}", was.display(), now.display());
    }
    if !restored.copied.is_empty() {
        let _ = writeln!(text, "from the backup: {}", joined(&restored.copied));
    }
    let keys = data_dir.join(KEYS_FOLDER_NAME);
    if restored.missing_keys.iter().any(|key| key.starts_with(&keys)) {
        let _ = writeln!(text, "missing: put your copy of the folder `keys` to {dir}/keys before you start");
    } else if !restored.missing_keys.is_empty() {
        let missing = joined(&restored.missing_keys);
        let _ = writeln!(text, "missing: put your copies of {missing} there before you start");
    }
    let _ = writeln!(
        text,
        "next: make sure that no other process uses these keys, then `masternode run --data-dir {dir}`. It follows the \
         chain at first and signs again when that has let it, by itself; see `masternode status`"
    );
    text
}
