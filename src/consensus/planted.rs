//! Faults that can be planted in a machine, to prove that the simulation finds them (protocol §12).
//!
//! Planting needs the feature `planted-bugs`, which only this package's own tests switch on. Without it
//! the answer to "is it planted?" is the constant `false`, so that no branch of a fault is left.

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The lock of the rounds is ignored when a proposal is judged.
    ForgottenLock,
    /// Votes go on after the last batch of the era.
    VotesAfterLast,
    /// Takes part in rounds before its own last batch.
    RoundsBeforeLast,
    /// A fresh block is prevoted though it leaves out commit-voted payments.
    NoSubsetRule,
    /// A prevote certificate is believed without a quorum in it.
    UncheckedPol,
    /// Every quorum is one unit of weight too small.
    QuorumOffByOne,
    /// Voters are counted, not their weights.
    CountsHeads,
    /// Batches of the era before count in the current one.
    VotesAcrossEras,
    /// A payment is commit-voted before its parents of the same era.
    ParentsIgnored,
    /// A vote repeated in another batch counts again.
    VoterCountedTwice,
    /// A payment is prepared though a conflicting one was.
    NoInputLock,
    /// A payment is called final when a quorum has prepared it.
    FinalAtPrepareQuorum,
    /// The budget of bytes and signatures of an era is ignored.
    NoBudget,
    /// A block takes up fewer certified payments than an era may have.
    SmallBlocks,
    /// A vote is sent before it is in the log.
    SendsBeforeLogging,
    /// What proves a certificate is not in the log when its commit vote is sent.
    UnloggedCertificate,
    /// The lock of the rounds is lost in a restart.
    RestartForgetsLock,
    /// That the last batch was sent is lost in a restart.
    RestartForgetsLast,
    /// The commit votes are lost in a restart.
    RestartForgetsCommits,
    /// The locks on inputs are lost in a restart.
    RestartForgetsInputLocks,
    /// The own stream begins anew after a restart.
    RestartResetsSequence,
    /// Any `Resume` of the own key is taken for the own one.
    ResumesWithoutItsNonce,
    /// Signs with the log it has before it has heard the others.
    SignsBeforeListening,
    /// A lost log is taken for a whole one.
    LostLogSigns,
    /// In a new directory it signs at any height.
    NewDirectorySigns,
    /// Signs as soon as its `Resume` is handed in.
    SignsBeforeItsResume,
    /// The `Resume` of somebody else is ignored.
    DisplacedGoesOn,
    /// The committee of the height before decides this one, too.
    CommitteeOfLastHeight,
    /// When the committee gets smaller, the one before still votes.
    LeaversStillVote,
    /// A precommit that comes after the decision is not kept for the next block.
    LatePrecommitsIgnored,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// All of them.
    pub const ALL: [Self; 30] = [
        Self::ForgottenLock,
        Self::VotesAfterLast,
        Self::RoundsBeforeLast,
        Self::NoSubsetRule,
        Self::UncheckedPol,
        Self::QuorumOffByOne,
        Self::CountsHeads,
        Self::VotesAcrossEras,
        Self::ParentsIgnored,
        Self::VoterCountedTwice,
        Self::NoInputLock,
        Self::FinalAtPrepareQuorum,
        Self::NoBudget,
        Self::SmallBlocks,
        Self::SendsBeforeLogging,
        Self::UnloggedCertificate,
        Self::RestartForgetsLock,
        Self::RestartForgetsLast,
        Self::RestartForgetsCommits,
        Self::RestartForgetsInputLocks,
        Self::RestartResetsSequence,
        Self::ResumesWithoutItsNonce,
        Self::SignsBeforeListening,
        Self::LostLogSigns,
        Self::NewDirectorySigns,
        Self::SignsBeforeItsResume,
        Self::DisplacedGoesOn,
        Self::CommitteeOfLastHeight,
        Self::LeaversStillVote,
        Self::LatePrecommitsIgnored,
    ];
}

/// The fault planted in one machine, if any; nothing at all without the feature.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// Whether this fault is planted.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn has(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Whether this fault is planted: never.
    #[cfg(not(feature = "planted-bugs"))]
    pub(super) const fn has(self, _: Bug) -> bool {
        false
    }

    /// This fault and no other.
    #[cfg(feature = "planted-bugs")]
    pub(super) const fn of(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }
}
