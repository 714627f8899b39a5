//! Whether a machine that holds a vote key may use it (protocol §10, safe start), as values: what is
//! known at its start, and where it stands.
//!
//! The rules are in `machine/standing.rs`.

use crate::primitives::hash::BlockId;

/// Number drawn at random in one start of one process. The `Resume` that carries it proves that whoever
/// signs after it began after it.
pub type Nonce = [u8; 32];

/// What is known, at a start, of the log of the vote key. `nonce` was drawn in this start and is durable:
/// a `Resume` made in this life carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// The log holds everything that was signed since one of these was the newest `Resume` of the key;
    /// `None` stands for its registration.
    Whole { since: Vec<Option<Nonce>>, nonce: Nonce },
    /// Nothing was ever signed from here; `tried` as below.
    Fresh { tried: Vec<Nonce>, nonce: Nonce },
    /// The log is lost, old or a copy, as `reason` says. Since that was found, these nonces have been
    /// drawn in earlier lives: a `Resume` that carries one of them is this node's own.
    Lost { reason: String, tried: Vec<Nonce>, nonce: Nonce },
}

/// Status of a key that the registry does not know.
pub const NOT_REGISTERED: &str = "not registered";

/// Where a node stands with its vote key. Only `Signing` signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds no vote key.
    Observing,
    /// Waits for the statuses of a quorum at its own height, own weight included.
    Listening { heard_weight: u64, quorum_weight: u64 },
    /// A member of the committee that votes, or would if it were one.
    Signing,
    /// The node has told it not to sign for now.
    Held { reason: String },
    /// Waits to be let back by the chain: the safe start, or a jail term.
    Resuming { reason: String, stage: Stage },
    /// Block `height` holds a `Resume` of another process with this key; nothing is signed after it.
    Displaced { height: u64, block: BlockId },
}

/// How far a `Resume` has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Follows the chain until a whole era has passed without a message of the own key.
    Watching { height: u64 },
    /// Another process signs with the key: what was seen last, and the height it was seen at.
    Sighted { height: u64, what: String },
    /// The `Resume` is in the pool and may be in any block from `height` on.
    Submitted { height: u64 },
    /// The chain allows the next `Resume` of this masternode in block `height`.
    NotBefore { height: u64 },
    /// The registry does not let this key resume: it holds no entry of it, or this status.
    Barred { status: &'static str },
}

impl Standing {
    /// Why it does not sign, in short and with figures, and then what led to it and what to do; `None`
    /// where there is nothing to explain.
    #[must_use]
    pub fn explanation(&self) -> Option<(String, String)> {
        match self {
            Self::Observing | Self::Signing | Self::Listening { .. } => None,
            Self::Held { reason } => Some(("held back".to_owned(), reason.clone())),
            Self::Resuming { reason, stage } => {
                Some((format!("safe start, {}", stage.text()), reason.clone()))
            }
            Self::Displaced { height, block } => Some((
                format!("block {height} holds a resume of another process with this vote key"),
                format!(
                    "block {height} ({block}) let another process sign with this key, so this one only follows: stop \
                     the one that is not wanted; started again, this one takes over when the other is silent for an era"
                ),
            )),
        }
    }
}

impl Stage {
    fn text(&self) -> String {
        match self {
            Self::Watching { height } => format!("watching for other signers with this key in era {height}"),
            Self::Sighted { height, what } => format!(
                "another process signs with this key ({what} in era {height}), so this one does not take over: stop \
                 one of the two"
            ),
            Self::Submitted { height } => {
                format!("waiting for block {height} or a later one to hold the resume")
            }
            Self::NotBefore { height } => {
                format!(
                    "waiting for block {height}, the first that may hold another resume of this masternode"
                )
            }
            Self::Barred { status } => format!("this key cannot resume, its masternode is {status}"),
        }
    }
}
