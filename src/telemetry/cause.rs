//! Why votes are missing and rounds stall, as one node knows it. Codes are stable: scripts and log
//! filters may rely on them. Everything in here was measured or heard; what is not known says so.

use crate::primitives::clean::CleanText;
use crate::primitives::hash::{BlockId, Txid};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a vote of a member is missing from the decision of a height, or from a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum MissCause {
    /// It came this long after the decision.
    Late { by_ms: u64 },
    /// No connection, for so long; since this node started if there never was one.
    NotConnected { since_ms: u64 },
    /// Catching up: deciding this height, by its last status.
    Syncing {
        /// In JSON beside the height of the checkpoint, which is another.
        #[serde(rename = "at_height")]
        height: u64,
    },
    /// Not seen to freeze; with the age of the era for this node itself.
    NotFrozen { era_ms: Option<u64> },
    /// Connected, at the height, and not one vote of the era was heard.
    Silent,
    /// It froze, and no vote of the round was heard.
    NoVote,
    /// It prevoted, and no precommit was heard.
    NoPrecommit { round: u32 },
    /// It was last heard in another round.
    OtherRound { round: u32 },
    /// It voted nil.
    VotedNil { round: u32, step: CleanText },
    /// It voted for another block.
    VotedOther { round: u32, step: CleanText },
    /// This node caught up with the block and did not see the votes.
    Unobserved,
    /// This node: connected to less weight than a quorum.
    NoQuorum { connected_weight: u64, quorum_weight: u64 },
    /// This node: no proposal came in time.
    NoProposal { round: u32, proposer: CleanText },
    /// This node: bodies of the proposal were missing; who was asked last for the first of them.
    NoBody { round: u32, missing: u32, asked: Option<CleanText> },
    /// This node: the proposal was refused.
    Refused { round: u32, reason: CleanText },
    /// This node: it prevoted, and heard no quorum of prevotes for one block.
    NoPrevoteQuorum { round: u32, heard_weight: u64, quorum_weight: u64 },
    /// This node: its precommit waited for the vote log; most of that was the sync of the disk.
    Disk { waited_ms: u64, sync_ms: u64 },
    /// This node: its precommit was sent, and the next block does not hold it.
    LeftOut,
    /// This node: it may not sign.
    NotSigning,
}

impl MissCause {
    /// Stable machine-readable name, the `cause` of the JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Late { .. } => "late",
            Self::NotConnected { .. } => "not-connected",
            Self::Syncing { .. } => "syncing",
            Self::NotFrozen { .. } => "not-frozen",
            Self::Silent => "silent",
            Self::NoVote => "no-vote",
            Self::NoPrecommit { .. } => "no-precommit",
            Self::OtherRound { .. } => "other-round",
            Self::VotedNil { .. } => "voted-nil",
            Self::VotedOther { .. } => "voted-other",
            Self::Unobserved => "unobserved",
            Self::NoQuorum { .. } => "no-quorum",
            Self::NoProposal { .. } => "no-proposal",
            Self::NoBody { .. } => "no-body",
            Self::Refused { .. } => "refused",
            Self::NoPrevoteQuorum { .. } => "no-prevote-quorum",
            Self::Disk { .. } => "disk",
            Self::LeftOut => "left-out",
            Self::NotSigning => "not-signing",
        }
    }

    /// At most 17 characters, for a column of a table.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Late { by_ms } => format!("late {}", span(*by_ms)),
            Self::NotConnected { since_ms } => format!("no link {}", span(*since_ms)),
            Self::Syncing { height } => format!("syncing {height}"),
            Self::OtherRound { round } => format!("in round {round}"),
            Self::NoBody { missing, .. } => format!("no body, {missing}"),
            Self::Disk { waited_ms, .. } => format!("disk {}", span(*waited_ms)),
            other => other.code().replace('-', " "),
        }
    }
}

impl fmt::Display for MissCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { by_ms } => write!(f, "late by {}", span(*by_ms)),
            Self::NotConnected { since_ms } => write!(f, "not connected for {}", span(*since_ms)),
            Self::Syncing { height } => write!(f, "syncing, at height {height}"),
            Self::NotFrozen { era_ms: None } => f.write_str("not seen to freeze"),
            Self::NotFrozen { era_ms: Some(age) } => write!(f, "not frozen {} into the era", span(*age)),
            Self::Silent => f.write_str("connected but silent"),
            Self::NoVote => f.write_str("froze, no vote heard"),
            Self::NoPrecommit { .. } => f.write_str("prevoted, no precommit heard"),
            Self::OtherRound { round } => write!(f, "in round {round}"),
            Self::VotedNil { round, step } => write!(f, "{step} nil in round {round}"),
            Self::VotedOther { round, step } => write!(f, "{step} another block in round {round}"),
            Self::Unobserved => f.write_str("not observed, caught up"),
            Self::NoQuorum { connected_weight, quorum_weight } => {
                write!(f, "connected to weight {connected_weight}, quorum {quorum_weight}")
            }
            Self::NoProposal { round, proposer } => write!(f, "no proposal of {proposer} in round {round}"),
            Self::NoBody { missing, asked, .. } => write_bodies(f, *missing, asked.as_ref()),
            Self::Refused { round, reason } => write!(f, "refused the proposal of round {round}: {reason}"),
            Self::NoPrevoteQuorum { round, heard_weight, quorum_weight } => {
                write!(f, "prevotes of weight {heard_weight} in round {round}, quorum {quorum_weight}")
            }
            Self::Disk { waited_ms, sync_ms } => {
                write!(f, "waited {} for the vote log, disk sync {}", span(*waited_ms), span(*sync_ms))
            }
            Self::LeftOut => f.write_str("sent, but left out of the next block"),
            Self::NotSigning => f.write_str("not signing"),
        }
    }
}

fn write_bodies(f: &mut fmt::Formatter<'_>, missing: u32, asked: Option<&CleanText>) -> fmt::Result {
    write!(f, "{missing} bodies of the proposal missing")?;
    asked.map_or(Ok(()), |name| write!(f, ", asked {name}"))
}

/// A member whose vote is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedVote {
    pub voter: u16,
    pub name: CleanText,
    pub weight: u64,
    #[serde(flatten)]
    pub cause: MissCause,
}

impl fmt::Display for MissedVote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.cause)
    }
}

/// A list of members with causes, in words; what is beyond the first eight is only counted.
#[must_use]
pub fn name_all(missed: &[MissedVote]) -> String {
    const NAMED_MAX: usize = 8;
    let mut names: Vec<String> = missed.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    if let Some(more) = missed.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    names.join(", ")
}

/// Why a round has no decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "kebab-case")]
pub enum StallReason {
    /// Nothing came from the proposer.
    NoProposal { proposer: CleanText, why: MissCause },
    /// This node is the proposer: streams it waits for, or why no block could be built.
    NotReady { incomplete: Vec<CleanText>, fault: Option<CleanText> },
    /// Bodies of the proposal are missing here.
    NoBody {
        proposer: CleanText,
        /// In JSON beside the members that are missing.
        #[serde(rename = "missing_bodies")]
        missing: u32,
        asked: Option<CleanText>,
    },
    /// This node refused the proposal.
    Refused { text: CleanText },
    /// A quorum voted nil.
    Nil,
    /// A quorum voted, for different things; `None` is nil. Most weight first, at most eight.
    Split { votes: Vec<SplitVote> },
    /// Votes of less than a quorum were heard.
    NoQuorum,
    /// Others went on to this round.
    Overtaken { next: u32 },
}

/// Weight behind one block or nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitVote {
    pub block: Option<BlockId>,
    pub weight: u64,
}

impl StallReason {
    /// Stable machine-readable name, the `reason` of the JSON.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoProposal { .. } => "no-proposal",
            Self::NotReady { .. } => "not-ready",
            Self::NoBody { .. } => "no-body",
            Self::Refused { .. } => "refused",
            Self::Nil => "nil",
            Self::Split { .. } => "split",
            Self::NoQuorum => "no-quorum",
            Self::Overtaken { .. } => "overtaken",
        }
    }
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProposal { proposer, why } => write!(f, "no proposal of {proposer} ({why})"),
            Self::NotReady { fault: Some(fault), .. } => write!(f, "{fault}"),
            Self::NotReady { incomplete, .. } => {
                let names: Vec<&str> = incomplete.iter().take(8).map(CleanText::as_str).collect();
                write!(f, "own proposal waits for the streams of {}", names.join(", "))
            }
            Self::NoBody { missing, asked, .. } => write_bodies(f, *missing, asked.as_ref()),
            Self::Refused { text } => write!(f, "proposal refused: {text}"),
            Self::Nil => f.write_str("a quorum voted nil"),
            Self::Split { votes } => {
                f.write_str("votes split")?;
                for (index, vote) in votes.iter().enumerate() {
                    let block = vote.block.map_or_else(|| "nil".to_owned(), |block| block.short());
                    write!(f, "{} {} for {block}", if index == 0 { ":" } else { "," }, vote.weight)?;
                }
                Ok(())
            }
            Self::NoQuorum => f.write_str("no quorum heard"),
            Self::Overtaken { next } => write!(f, "others are in round {next}"),
        }
    }
}

/// A round that has no decision yet, and whose weight is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StalledRound {
    pub height: u64,
    pub round: u32,
    /// `propose`, `prevote` or `precommit`.
    pub step: CleanText,
    #[serde(flatten)]
    pub reason: StallReason,
    pub missing: Vec<MissedVote>,
    pub missing_weight: u64,
    /// Weight heard in this step.
    pub heard_weight: u64,
    pub quorum_weight: u64,
    /// How often the same was true of this height before; only some of the repeats are told.
    pub repeats: u32,
}

impl fmt::Display for StalledRound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        // Where the proposer is missing the reason has named it.
        let named = matches!(self.reason, StallReason::NoProposal { .. });
        if !self.missing.is_empty() && !named {
            write!(f, "; weight {} missing: {}", self.missing_weight, name_all(&self.missing))?;
        }
        Ok(())
    }
}

/// Why this node did not vote for a payment that is in a block all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaymentGap {
    /// It may not sign.
    NotSigning,
    /// It caught up with the block.
    Syncing,
    /// It came after the freeze.
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
    /// Not known: too many at once, or from before a restart.
    Unknown,
}

impl PaymentGap {
    /// Stable machine-readable name, as in the JSON.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotSigning => "not-signing",
            Self::Syncing => "syncing",
            Self::Frozen => "frozen",
            Self::NoBody => "no-body",
            Self::Conflict => "conflict",
            Self::Budget => "budget",
            Self::Paced => "paced",
            Self::Parent => "parent",
            Self::NotCertified => "not-certified",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Votes for payments missing for one cause, and one of the payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapCount {
    pub cause: PaymentGap,
    pub count: u32,
    pub example: Txid,
}

/// A time span for a line of text: `312 ms`, `12 s`, `5 m`, `3 h`, `2 d`.
fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} m", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::snapshot::MissInfo;

    fn every_cause() -> Vec<MissCause> {
        let (round, step, name) = (3, CleanText::new("precommit"), CleanText::new("delta"));
        vec![
            MissCause::Late { by_ms: 312 },
            MissCause::NotConnected { since_ms: 12_000 },
            MissCause::Syncing { height: 123_456_789 },
            MissCause::NotFrozen { era_ms: Some(700) },
            MissCause::Silent,
            MissCause::NoVote,
            MissCause::NoPrecommit { round },
            MissCause::OtherRound { round },
            MissCause::VotedNil { round, step: step.clone() },
            MissCause::VotedOther { round, step },
            MissCause::Unobserved,
            MissCause::NoQuorum { connected_weight: 2, quorum_weight: 3 },
            MissCause::NoProposal { round, proposer: name.clone() },
            MissCause::NoBody { round, missing: 1000, asked: Some(name.clone()) },
            MissCause::Refused { round, reason: name },
            MissCause::NoPrevoteQuorum { round, heard_weight: 2, quorum_weight: 3 },
            MissCause::Disk { waited_ms: 2500, sync_ms: 2400 },
            MissCause::LeftOut,
            MissCause::NotSigning,
        ]
    }

    #[test]
    fn the_code_of_a_cause_is_its_name_in_the_json_and_it_fits_its_column() {
        for cause in every_cause() {
            let json = serde_json::to_value(&cause).unwrap();
            assert_eq!(json["cause"], cause.code());
            assert_eq!(serde_json::from_value::<MissCause>(json).unwrap(), cause);
            assert!(cause.short().chars().count() <= 17, "{} is too long", cause.short());
        }
    }

    fn every_reason() -> Vec<StallReason> {
        let name = CleanText::new("delta");
        vec![
            StallReason::NoProposal { proposer: name.clone(), why: MissCause::NotConnected { since_ms: 5 } },
            StallReason::NotReady { incomplete: vec![name.clone()], fault: None },
            StallReason::NoBody { proposer: name.clone(), missing: 2, asked: None },
            StallReason::Refused { text: name },
            StallReason::Nil,
            StallReason::Split { votes: vec![SplitVote { block: None, weight: 2 }] },
            StallReason::NoQuorum,
            StallReason::Overtaken { next: 4 },
        ]
    }

    #[test]
    fn the_code_of_a_reason_is_its_name_in_the_json() {
        for reason in every_reason() {
            let json = serde_json::to_value(&reason).unwrap();
            assert_eq!(json["reason"], reason.code());
            assert_eq!(serde_json::from_value::<StallReason>(json).unwrap(), reason);
        }
        assert_eq!(serde_json::to_value(PaymentGap::NotCertified).unwrap(), PaymentGap::NotCertified.code());
    }

    /// Written and read as text: a field named twice is refused only there.
    fn reads_back<T>(value: &T)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + fmt::Debug,
    {
        let text = serde_json::to_string(value).unwrap();
        let read = serde_json::from_str::<T>(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(read, *value);
    }

    #[test]
    fn every_cause_and_reason_reads_back_within_what_holds_it() {
        let name = CleanText::new("delta");
        for cause in every_cause() {
            reads_back(&MissInfo { height: 7, cause: cause.clone() });
            reads_back(&MissedVote { voter: 1, name: name.clone(), weight: 2, cause });
        }
        for reason in every_reason() {
            reads_back(&StalledRound {
                height: 7,
                round: 2,
                step: CleanText::new("propose"),
                reason,
                missing: vec![],
                missing_weight: 1,
                heard_weight: 2,
                quorum_weight: 3,
                repeats: 0,
            });
        }
    }

    #[test]
    fn a_long_list_of_missing_members_is_cut_and_says_so() {
        let missed = |number: u16| MissedVote {
            voter: number,
            name: CleanText::new(&format!("node{number}")),
            weight: 1,
            cause: MissCause::Silent,
        };
        let text = name_all(&(0..11).map(missed).collect::<Vec<_>>());
        assert!(text.starts_with("node0 (connected but silent), node1"), "{text}");
        assert!(text.ends_with("node7 (connected but silent), 3 more"), "{text}");
    }
}
