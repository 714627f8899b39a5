//! `masternode backup DIR`: the chain of a node in a verified folder.

use crate::cli::BackupArgs;
use crate::commands::progress::Teller;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::tools::backup::{BackupOrder, backup};

/// How much less this work counts than that of a node on the same machine.
const NICE: i32 = 10;

/// Makes this process yield to others, a voting node above all.
pub fn be_polite() {
    // Where it is refused the work is only less polite.
    let _as_it_was = rustix::process::nice(NICE);
}

/// # Errors
/// [`Failure`]; nothing is left under the name of the backup then.
pub fn execute(args: &BackupArgs) -> Outcome {
    be_polite();
    let config = locate::config(&args.node)?;
    let config_file = locate::config_file(&args.node)?;
    let genesis = locate::genesis(&config.genesis_path())?;
    let mut teller = Teller::new("backup");
    let order = BackupOrder {
        config: &config,
        config_file: &config_file,
        genesis: &genesis,
        target: &args.target,
        keys: args.keys,
    };
    let manifest = backup(order, &mut |progress| teller.tell(progress))?;
    if args.json {
        let text = serde_json::to_string(&manifest).map_err(Failure::failed)?;
        return output::write(&format!("{text}\n"));
    }
    let bytes: u64 = manifest.files.iter().map(|file| file.bytes).sum();
    let mut text = format!(
        "{}: verified backup of {}, height {}, {} outputs, {} transactions, {} bytes\n",
        args.target.display(),
        manifest.node,
        manifest.height,
        manifest.outputs,
        manifest.transactions,
        bytes,
    );
    if manifest.blocks_without_transactions > 0 {
        text += &format!(
            "the transactions of {} old blocks are not in it: this node does not keep them (storage.prune_blocks)\n",
            manifest.blocks_without_transactions
        );
    }
    text += match manifest.keys {
        true => "it holds the key files: keep it as safe as them\n",
        false => "it holds no keys: keep a copy of the folder `keys` elsewhere\n",
    };
    output::write(&text)
}
