//! `masternode devnet`: a whole network of real nodes in one process, with payments.

use crate::cli::DevnetArgs;
use crate::commands::{Failure, Outcome};

/// # Errors
/// [`Failure::Failed`] when the network cannot be started or does not agree.
pub fn execute(args: &DevnetArgs) -> Outcome {
    Err(Failure::Failed(format!("this build cannot run {} nodes yet", args.nodes)))
}
