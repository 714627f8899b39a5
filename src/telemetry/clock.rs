//! What the peers' clocks say of this node's, and which side is likely at fault.

use crate::primitives::clean::CleanText;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most peers named in a fault.
pub const NAMED_MAX: usize = 4;

/// This node's clock against those of its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockInfo {
    /// Median of the clocks compared with, minus this node's, in milliseconds; `None` until one was read.
    pub offset_ms: Option<i64>,
    /// Clocks compared with: one a member, however many connections it has, and a bounded number of others.
    pub compared: u32,
    /// What is wrong, if it has been for a while.
    pub fault: Option<ClockFault>,
}

/// A peer's clock minus this node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerClock {
    pub name: CleanText,
    pub offset_ms: i64,
}

/// Clocks that differ by more than the limit, by the side that is likely at fault. The figures are those of when
/// it was told last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "at", rename_all = "kebab-case")]
pub enum ClockFault {
    /// This node: `against` of the `of` clocks compared with differ to the same side. `offset_ms` is the peers'
    /// median minus this node's clock.
    Own { offset_ms: i64, against: u32, of: u32 },
    /// Peers: this node's clock agrees with `agree` of the `of` compared with. At most [`NAMED_MAX`] are named of
    /// `count`.
    Peers { off: Vec<PeerClock>, count: u32, agree: u32, of: u32 },
    /// Too few clocks to tell.
    Unclear { off: Vec<PeerClock>, count: u32, of: u32 },
}

/// `1.2 s ahead`, `90 s behind`.
struct Difference(i64);

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ms, side) = (self.0.unsigned_abs(), if self.0 > 0 { "ahead" } else { "behind" });
        match ms {
            0..20_000 => write!(f, "{}.{} s {side}", ms / 1000, ms % 1000 / 100),
            _ => write!(f, "{} s {side}", ms / 1000),
        }
    }
}

fn name_all(f: &mut fmt::Formatter<'_>, off: &[PeerClock], count: u32) -> fmt::Result {
    for (place, peer) in off.iter().enumerate() {
        let comma = if place > 0 { ", " } else { "" };
        write!(f, "{comma}{} ({})", peer.name, Difference(peer.offset_ms))?;
    }
    let named = u32::try_from(off.len()).unwrap_or(u32::MAX);
    match count.saturating_sub(named) {
        0 => Ok(()),
        more => write!(f, " and {more} more"),
    }
}

impl ClockFault {
    /// The fault in a few words, for a line of a screen.
    #[must_use]
    pub fn short(&self) -> String {
        match self {
            Self::Own { offset_ms, against, of } => {
                format!("own clock {} {against} of {of} peers", Difference(offset_ms.saturating_neg()))
            }
            Self::Peers { off, count, .. } => match off.as_slice() {
                [only] => format!("clock of {} is {}", only.name, Difference(only.offset_ms)),
                _ => format!("clocks of {count} peers are off"),
            },
            Self::Unclear { off, .. } => match off.as_slice() {
                [only] => format!("clock of {} is {} of ours", only.name, Difference(only.offset_ms)),
                _ => "the peers' clocks disagree".to_owned(),
            },
        }
    }
}

impl fmt::Display for ClockFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { offset_ms, against, of } => {
                let ours = Difference(offset_ms.saturating_neg());
                write!(
                    f,
                    "this machine's clock is {ours} {against} of {of} peers: check NTP, `timedatectl status`"
                )
            }
            Self::Peers { off, count, agree, of } => {
                f.write_str(if *count == 1 { "the clock of peer " } else { "the clocks of peers " })?;
                name_all(f, off, *count)?;
                let verb = if *count == 1 { "is" } else { "are" };
                write!(f, " {verb} off: ours agrees with {agree} of {of}; tell their operators")
            }
            Self::Unclear { off, count, of } => {
                f.write_str(if *count == 1 { "the clock of peer " } else { "the clocks of peers " })?;
                name_all(f, off, *count)?;
                let verb = if *count == 1 { "differs" } else { "differ" };
                write!(f, " {verb} from ours, and of {of} too few agree to tell who is wrong: check NTP here")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_names_the_side_the_figures_and_the_remedy() {
        let own = ClockFault::Own { offset_ms: 1_240, against: 5, of: 6 };
        assert_eq!(
            own.to_string(),
            "this machine's clock is 1.2 s behind 5 of 6 peers: check NTP, `timedatectl status`"
        );
        let peer = |name: &str, offset_ms| PeerClock { name: CleanText::new(name), offset_ms };
        let off = vec![peer("bravo", -90_000), peer("delta", 700)];
        let peers = ClockFault::Peers { off, count: 3, agree: 5, of: 8 };
        assert_eq!(
            peers.to_string(),
            "the clocks of peers bravo (90 s behind), delta (0.7 s ahead) and 1 more are off: ours agrees with 5 of 8; \
             tell their operators"
        );
        let unclear = ClockFault::Unclear { off: vec![peer("bravo", 900)], count: 1, of: 1 };
        assert!(unclear.to_string().contains("the clock of peer bravo (0.9 s ahead) differs from ours"));
    }
}
