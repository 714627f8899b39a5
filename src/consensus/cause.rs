//! Why a vote or a round is missing, as far as the machine of one node knows. For people: nothing in the
//! protocol depends on it. Connections count as the machine was told; what a disk did is not known here.

use crate::primitives::committee::VoterIndex;
use crate::primitives::hash::BlockId;
use crate::primitives::vote::Step;

/// Why a vote of another member was not heard, what is certain first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is this node itself, which may not sign.
    NotSigning,
    /// It voted nil in the round that decided or stalled.
    VotedNil { round: u32, step: Step },
    /// It voted for another block in that round.
    VotedOther { round: u32, step: Step },
    /// This node took no part in the decision itself, so it cannot tell.
    Unobserved,
    /// No connection to it since a moment of the monotonic clock; `None`: never since this node started.
    NotConnected { since_us: Option<u64> },
    /// Connected, but deciding this lower height by its last status.
    Behind { height: u64 },
    /// It prevoted in that round; its precommit was not heard.
    NoPrecommit { round: u32 },
    /// It was heard in this other round of the height, the highest one.
    OtherRound { round: u32 },
    /// Its last batch of the era is here, and nothing of it since.
    NoVote,
    /// It voted on payments in this era and was not seen to freeze.
    NotFrozen,
    /// Connected, at the height, and not one vote of it was heard in this era.
    Silent,
}

/// Why this node has no precommit in the decision of a height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnAbsence {
    /// It must not sign: halted.
    NotSigning,
    /// It entered the height when others had left it; `best` is the greatest height a peer told.
    Behind { best: u64 },
    /// Weight it is connected to, own included, is below the quorum.
    NoQuorum { connected: u64, quorum: u64 },
    /// It had not frozen, this long after the era began.
    NotFrozen { era_us: u64 },
    /// No proposal of the round came in time.
    NoProposal { round: u32, proposer: VoterIndex },
    /// The proposal came, but this many of its bodies did not; the first of them was last asked of a member.
    NoBodies { round: u32, missing: u32, asked: Option<VoterIndex> },
    /// It refused the proposal.
    Refused { round: u32, reason: String },
    /// It prevoted, and no quorum of prevotes for one block was heard.
    NoPrevoteQuorum { round: u32, heard: u64, quorum: u64 },
}

/// Why a step of a round ended without a quorum, or does not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StallReason {
    /// Nothing came from the proposer.
    NoProposal { proposer: VoterIndex, absence: Absence },
    /// This node is the proposer: streams it waits for, or why no block could be built.
    NotReady { incomplete: Vec<VoterIndex>, fault: Option<String> },
    /// As [`OwnAbsence::NoBodies`].
    NoBodies { proposer: VoterIndex, missing: u32, asked: Option<VoterIndex> },
    /// This node refused the proposal.
    Refused { reason: String },
    /// A quorum voted nil.
    Nil,
    /// A quorum voted, but for different things; most weight first, at most [`SPLIT_MAX`]. `None` is nil.
    Split { votes: Vec<(Option<BlockId>, u64)> },
    /// Votes of less than a quorum were heard.
    NoQuorum,
    /// Others went on to this round.
    Overtaken { round: u32 },
}

/// Most different votes of a step that are told apart.
pub const SPLIT_MAX: usize = 8;

/// Why this node did not vote for a payment that is final all the same, in either phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    /// It may not sign.
    NotSigning,
    /// It caught up with the block and took no part in the era.
    Behind,
    /// The body, or the certificate, came after the freeze.
    Frozen,
    /// The body was not here in time.
    NoBody,
    /// A conflicting payment holds the lock.
    Conflict,
    /// The era's budget was used up.
    Budget,
    /// The pacing held it back until the freeze.
    Paced,
    /// A parent was not voted for, or an input is unknown.
    Parent,
    /// No quorum of prepares was heard.
    NotCertified,
    /// The pool or the rules refused it here.
    Refused,
    /// More payments were left out than are noted, or in an earlier life of this node.
    Unknown,
}
