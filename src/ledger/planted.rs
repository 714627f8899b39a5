//! Faults that can be planted in the registry, to prove that the simulation finds them (protocol §12).
//!
//! Planting needs the feature `planted-bugs`, which only this package's own tests switch on; see
//! [`consensus::planted`](crate::consensus::planted). A fault goes with the registry from block to block.

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// More is jailed than the cap allows.
    NoJailCap,
    /// Who is jailed keeps its vote.
    JailedVotes,
    /// Who is in the committee and unbonding keeps its vote.
    UnbondingVotes,
    /// The window of a masternode goes on where it was when it was jailed.
    ResumeKeepsWindow,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::NoJailCap, Self::JailedVotes, Self::UnbondingVotes, Self::ResumeKeepsWindow];
}

/// The fault planted in a registry, if any; nothing at all without the feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
