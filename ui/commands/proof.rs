//! `masternode proof get|verify`: a proof that a payment is final, for somebody who runs no node.
//!
//! `get` asks a running node and checks what it says before it is written. `verify` needs the file and a
//! trusted block id only: no node, no network, no configuration.

use crate::cli::{ProofGetArgs, ProofVerifyArgs};
use crate::commands::{Failure, Outcome, locate, output};
use masternode::light::bundle::{Proof, ProofBundle};
use masternode::light::finality::Shown;
use masternode::light::{BUNDLE_BYTES_MAX, ProofError};
use masternode::primitives::keys::verify_batch;
use masternode::primitives::trusted::TrustedHeader;
use masternode::rpc::client::ControlClient;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// # Errors
/// [`Failure::Failed`] when no node runs there, the transaction is not final there, the trusted header is
/// not of its chain, or the file is there already.
pub fn get(args: &ProofGetArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let bundle =
        client.proof(args.txid, args.trusted.map(|header| header.height)).map_err(Failure::failed)?;
    let own = TrustedHeader { height: bundle.header().height, id: bundle.header().id() };
    let trusted = args.trusted.unwrap_or(own);
    let shown = check(&bundle, trusted)
        .map_err(|error| Failure::Failed(format!("what the node answered proves nothing: {error}")))?;
    if shown.txid != args.txid {
        return Err(Failure::Failed(format!("the node answered with a proof for {}", shown.txid)));
    }
    let file = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.proof", args.txid)));
    let bytes = bundle.to_bytes();
    write_new(&file, &bytes)?;
    if args.json {
        return print_json(&serde_json::json!({
            "file": file,
            "bytes": bytes.len(),
            "txid": shown.txid,
            "kind": kind(&bundle),
            "height": shown.height,
            "trusted": trusted.to_string(),
        }));
    }
    output::write(&format!(
        "{}: {}, {} bytes\ncheck it with `masternode proof verify {} --trusted {trusted}`, where the trusted \
         block must be one the verifier knows from elsewhere\n",
        file.display(),
        told(&bundle, &shown),
        bytes.len(),
        file.display(),
    ))
}

/// # Errors
/// [`Failure::Failed`] when the file proves nothing, with the field at fault.
pub fn verify(args: &ProofVerifyArgs) -> Outcome {
    let chain = match &args.genesis {
        Some(file) => Some(locate::genesis(file)?.chain_id()),
        None => None,
    };
    let bytes = read(&args.file)?;
    let verdict = ProofBundle::from_bytes(&bytes).and_then(|bundle| {
        if let Some(expected) = chain.filter(|chain| *chain != bundle.chain) {
            return Err(ProofError::OtherChain { found: bundle.chain, expected });
        }
        check(&bundle, args.trusted).map(|shown| (bundle, shown))
    });
    let file = args.file.display();
    match verdict {
        Ok((bundle, shown)) if args.json => print_json(&serde_json::json!({
            "valid": true,
            "txid": shown.txid,
            "kind": kind(&bundle),
            "height": shown.height,
            "weight": shown.weight,
            "total_weight": shown.total,
            "chain": bundle.chain,
            "trusted": args.trusted.to_string(),
        })),
        Ok((bundle, shown)) => output::write(&format!(
            "valid: {}, by {} of weight {}, on chain {}\n",
            told(&bundle, &shown),
            shown.weight,
            shown.total,
            bundle.chain
        )),
        Err(error) => {
            if args.json {
                print_json(&serde_json::json!({ "valid": false, "reason": error.to_string() }))?;
            }
            Err(Failure::Failed(format!("{file}: {error}")))
        }
    }
}

fn check(bundle: &ProofBundle, trusted: TrustedHeader) -> Result<Shown, ProofError> {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    bundle.verify(trusted, now_ms, &verify_batch)
}

fn kind(bundle: &ProofBundle) -> &'static str {
    match &bundle.proof {
        Proof::Finality(_) => "finality",
        Proof::Block(_) => "block",
    }
}

fn told(bundle: &ProofBundle, shown: &Shown) -> String {
    match &bundle.proof {
        Proof::Finality(_) => format!("transaction {} is final in era {}", shown.txid, shown.height),
        Proof::Block(_) => format!("transaction {} is in block {}", shown.txid, shown.height),
    }
}

fn print_json(value: &serde_json::Value) -> Outcome {
    output::write(&format!("{value}\n"))
}

/// Reads a file, a little more than a proof may have at most.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file);
    opened
        .and_then(|open| open.take(BUNDLE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::Failed(format!("{}: cannot be read: {error}", file.display())))?;
    Ok(bytes)
}

fn write_new(file: &Path, bytes: &[u8]) -> Outcome {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).open(file);
    opened.and_then(|mut open| open.write_all(bytes)).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::Failed(format!(
            "{}: already there and never overwritten: name another file with --out",
            file.display()
        )),
        _ => Failure::Failed(format!("{}: cannot be written: {error}", file.display())),
    })
}
