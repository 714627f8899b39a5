//! `masternode export` and `import`: blocks as a file or stream, for audit and for a compact database.

use crate::cli::{ExportArgs, ImportArgs};
use crate::commands::backup::be_polite;
use crate::commands::progress::Teller;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::archive::check::Summary;
use masternode::archive::source::Wish;
use masternode::tools::blocks::{Imported, audit, export_file, export_stream, import};
use masternode::tools::{Progress, ToolError};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// # Errors
/// [`Failure`]; nothing is left under the name of the file then.
pub fn export(args: &ExportArgs) -> Outcome {
    be_polite();
    let config = locate::config(&args.node)?;
    let genesis = locate::genesis(&config.genesis_path())?;
    let wish = Wish { from: args.from.unwrap_or(1), to: args.to, state: false };
    if args.to.is_some_and(|to| to < wish.from) {
        return Err(Failure::Usage(format!("--to is below --from, {}: no block is between", wish.from)));
    }
    let mut teller = Teller::new("export");
    let mut tell = |progress: Progress| teller.tell(progress);
    if is_stream(&args.file) {
        return Ok(export_stream(&config, &genesis, wish, std::io::stdout().lock(), &mut tell)?);
    }
    let summary = export_file(&config, &genesis, wish, &args.file, &mut tell)?;
    output::write(&format!("{}: {}", args.file.display(), told(&summary)))
}

/// # Errors
/// [`Failure`] naming the block at fault; those before it are imported.
pub fn execute(args: &ImportArgs) -> Outcome {
    be_polite();
    let mut teller = Teller::new("import");
    let mut tell = |progress: Progress| teller.tell(progress);
    let (input, name): (Box<dyn Read>, String) = match is_stream(&args.file) {
        true => (Box::new(std::io::stdin().lock()), "standard input".to_owned()),
        false => {
            let opened = File::open(&args.file).map_err(ToolError::io("be read", &args.file))?;
            (Box::new(opened), args.file.display().to_string())
        }
    };
    let (imported, place) = if args.check {
        (audit(input, &name, &mut tell)?, None)
    } else {
        let config = locate::config(&args.node)?;
        let genesis = locate::genesis(&config.genesis_path())?;
        (import(&config, &genesis, input, &name, &mut tell)?, Some(config.data_dir))
    };
    output::write(&done(&name, &imported, place.as_deref()))
}

fn is_stream(file: &Path) -> bool {
    file == Path::new("-")
}

fn told(summary: &Summary) -> String {
    let head = &summary.head;
    let mut text = format!(
        "blocks {} to {} of chain {}, {} transactions, {} bytes, read back and right\n",
        head.from, head.to, head.chain, summary.transactions, summary.bytes
    );
    if let Some((first, last, _)) = summary.without_bodies {
        let _ = writeln!(
            text,
            "missing: the transactions of blocks {first} to {last}, which this node does not keep (storage.prune_blocks, or \
             it began with a snapshot): `masternode import` needs an export of a node that has them"
        );
    }
    text
}

fn done(name: &str, imported: &Imported, place: Option<&Path>) -> String {
    let (summary, blocks) = (&imported.summary, imported.blocks);
    let (header, chain) = (&summary.header, summary.head.chain);
    let what = format!(
        "every block executed and every signature verified up to block {} {}, state hash {}, chain {chain}",
        header.height,
        header.id(),
        header.utxo_hash
    );
    match place {
        None => format!(
            "{name}: {blocks} blocks, {what}\ncompare the chain with the one you know from elsewhere\n"
        ),
        Some(place) => {
            format!("{}: {blocks} blocks imported, {} were there; {what}\n", place.display(), imported.known)
        }
    }
}
