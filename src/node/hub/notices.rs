//! What the machine tells for people, as events: named, with what only the node knows added, and
//! repeats held back.

use super::Hub;
use crate::consensus::cause::{Absence, Gap, OwnAbsence, StallReason as Stall};
use crate::consensus::input::Now;
use crate::consensus::output::Notice;
use crate::node::metrics::{OwnPart, OwnPrecommit, Settled};
use crate::primitives::certificate::Qc;
use crate::primitives::clean::CleanText;
use crate::primitives::committee::{Committee, VoterIndex};
use crate::primitives::hash::Txid;
use crate::primitives::masternode::MasternodeStatus;
use crate::primitives::vote::Step;
use crate::telemetry::cause::{
    GapCount, MissCause, MissedVote, PaymentGap, SplitVote, StallReason, StalledRound, name_all,
};
use crate::telemetry::event::{AlertLevel, EventKind};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Longest reason of a refusal kept, in characters.
const REASON_CHARS_MAX: usize = 256;

/// What was told of the height being decided, until its block is observed.
#[derive(Debug, Default)]
pub(super) struct Attendance {
    /// Members without a precommit, this node included.
    absent: Option<(u64, BTreeMap<VoterIndex, MissCause>)>,
    /// Height and round of this node's newest precommit for a block, and how it was sent.
    precommit: Option<(u64, u32, OwnPrecommit)>,
}

/// Stalled steps of one height. At most one a step is kept, so it stays small.
#[derive(Debug, Default)]
pub struct Stalls {
    height: u64,
    /// For each step its last stall: what was the same is only counted.
    told: BTreeMap<&'static str, StalledRound>,
    /// The last one.
    pub newest: Option<StalledRound>,
}

impl Stalls {
    /// Takes a stalled step in; whether to tell it. Repeats are told at powers of two.
    fn take(&mut self, step: &'static str, mut stall: StalledRound) -> Option<StalledRound> {
        if self.height != stall.height {
            *self = Self { height: stall.height, ..Self::default() };
        }
        let same = |before: &&StalledRound| {
            let voters = |round: &StalledRound| -> Vec<(u16, &'static str)> {
                round.missing.iter().map(|missed| (missed.voter, missed.cause.code())).collect()
            };
            before.reason.code() == stall.reason.code() && voters(before) == voters(&stall)
        };
        stall.repeats = self.told.get(step).filter(same).map_or(0, |before| before.repeats.saturating_add(1));
        self.told.insert(step, stall.clone());
        self.newest = Some(stall.clone());
        (stall.repeats == 0 || stall.repeats.is_power_of_two()).then_some(stall)
    }

    /// The height is decided.
    fn end(&mut self) {
        *self = Self::default();
    }
}

impl Hub {
    pub(super) fn observe_notice(&self, now: Now, notice: &Notice) {
        let name = |voter: VoterIndex| self.member_name(voter);
        match notice {
            Notice::Votes { voter, sequence, last, prepares, commits, own } => {
                let votes = u64::from(*prepares) + u64::from(*commits);
                self.metrics.votes_counted(*voter, votes, *own, now.monotonic_us);
                if *last {
                    self.first_freeze(now);
                }
                let (voter, sequence, last, own) = (*voter, *sequence, *last, *own);
                let (prepares, commits, name) = (*prepares, *commits, name(voter));
                let kind = EventKind::Votes { voter, name, sequence, last, prepares, commits, own };
                self.publish(now.wall_ms, kind);
            }
            // Quorum meters come with the snapshot; one event a payment would be too many.
            Notice::Certified { .. } => {}
            Notice::Frozen { height, era_us } => {
                self.first_freeze(now);
                self.publish(now.wall_ms, EventKind::Frozen { height: *height, era_ms: *era_us / 1000 });
            }
            Notice::RoundStarted { height, round, proposer } => {
                if *round > 0 {
                    self.metrics.rounds_failed.fetch_add(1, Ordering::Relaxed);
                }
                let (height, round, proposer) = (*height, *round, name(*proposer));
                self.publish(now.wall_ms, EventKind::RoundStarted { height, round, proposer });
            }
            Notice::Proposed { height, round, block, transactions, own } => {
                let (height, round, block, own) = (*height, *round, *block, *own);
                let kind = EventKind::Proposed { height, round, block, transactions: *transactions, own };
                self.publish(now.wall_ms, kind);
            }
            Notice::ProposalRefused { height, round, reason } => {
                let text = format!("proposal of height {height}, round {round} refused: {reason}");
                self.alert_once(now, AlertLevel::Warning, &text);
            }
            Notice::RoundStalled { .. } => self.observe_stall(now, notice),
            Notice::Attendance { height, absent, own } => {
                self.observe_attendance(now, *height, absent, own.as_ref());
            }
            Notice::Cast { height, round, step, block, at_us } => {
                if *step == Step::Precommit && block.is_some() {
                    let waited_us = now.monotonic_us.saturating_sub(*at_us);
                    let sync_us = self.sync_us.load(Ordering::Relaxed);
                    let precommit = OwnPrecommit { waited_us, sync_us };
                    self.era.lock().attendance.precommit = Some((*height, *round, precommit));
                }
            }
            Notice::PaymentVotesMissed { height, prepares, commits } => {
                self.observe_payment_gaps(now, *height, prepares, commits);
            }
            Notice::LatePrecommit { height, voter, late_us } => {
                self.metrics.late_precommit(*height, *voter, *late_us);
            }
            // The state of the snapshot tells it.
            Notice::Standing(_) => self.changed.notify_one(),
            Notice::KeyElsewhere { height, what } => self.observe_key_elsewhere(now, *height, what),
            Notice::SameKey { peer } => {
                let text =
                    format!("peer {} holds the vote key of this node: stop one of the two", peer.0.short());
                self.alert_standing(now, &text);
            }
            Notice::Seat { height, voter, status } => self.observe_seat(now, *height, *voter, *status),
            Notice::Equivocation { .. } | Notice::EvidenceHandedIn { .. } | Notice::Convicted { .. } => {
                self.observe_offence(now, notice);
            }
        }
    }

    /// Somebody signed what excludes each other: the offence, its evidence as a transaction, its end.
    fn observe_offence(&self, now: Now, notice: &Notice) {
        match notice {
            Notice::Equivocation { name, evidence } => {
                let what = evidence.offence.name();
                tracing::error!(masternode = %name, %what, era = ?evidence.era_tag, "signed what excludes each other");
                self.alert_standing(now, &format!("masternode {name} signed {what}: evidence is handed in"));
            }
            Notice::EvidenceHandedIn { name, txid } => {
                let text = format!("evidence against masternode {name} is handed in as transaction {txid}");
                tracing::warn!(masternode = %name, %txid, "evidence handed in");
                self.alert_once(now, AlertLevel::Notice, &text);
            }
            Notice::Convicted { name, what, own: true } => self.alert_standing(
                now,
                &format!(
                    "this masternode, {name}, is convicted: its key signed {what}; it never votes again and a part of \
                     the collateral is burned. Stop this process, find out where else the key was used, and register \
                     anew with a new key; the rest of the collateral is free after the unbonding period"
                ),
            ),
            Notice::Convicted { name, what, own: false } => {
                let text = format!("masternode {name} is convicted: it signed {what}, a part of its collateral burns");
                self.alert_once(now, AlertLevel::Warning, &text);
            }
            _ => {}
        }
    }

    /// A message of this node's key that this node did not send.
    fn observe_key_elsewhere(&self, now: Now, height: u64, what: &str) {
        let text = format!("another process signs with this node's vote key: {what} in era {height}");
        self.alert_once(now, AlertLevel::Critical, &text);
    }

    /// This node's key entered or left the committee.
    fn observe_seat(
        &self,
        now: Now,
        height: u64,
        voter: Option<VoterIndex>,
        status: Option<MasternodeStatus>,
    ) {
        let text = match (voter, status) {
            (Some(_), _) => format!("this node votes from height {height} on"),
            (None, Some(status)) => {
                format!("this node no longer votes from height {height} on: its masternode is {status}")
            }
            (None, None) => {
                format!("this node no longer votes from height {height} on: no masternode votes with its key")
            }
        };
        tracing::warn!(height, "{text}");
        self.alert_once(now, AlertLevel::Warning, &text);
    }

    /// How long the sync of the vote log took that what is observed next waited for, in microseconds.
    pub fn log_synced(&self, took_us: u64) {
        self.sync_us.store(took_us, Ordering::Relaxed);
    }

    pub(super) fn member_name(&self, voter: VoterIndex) -> CleanText {
        let committee = self.metrics.committee();
        committee.member(voter).map_or_else(
            || CleanText::new(&format!("voter {voter}")),
            |member| CleanText::limited(&member.name, 64),
        )
    }

    fn first_freeze(&self, now: Now) {
        self.era.lock().first_freeze_us.get_or_insert(now.monotonic_us);
    }

    fn own_voter(&self, committee: &Committee) -> Option<VoterIndex> {
        self.identity.vote_key.and_then(|key| committee.index_of(&key))
    }

    // Missed votes -----------------------------------------------------------------------------------

    fn observe_attendance(
        &self,
        now: Now,
        height: u64,
        absent: &[(VoterIndex, Absence)],
        own: Option<&OwnAbsence>,
    ) {
        let committee = self.metrics.committee();
        let own_voter = self.own_voter(&committee);
        let mut causes: BTreeMap<VoterIndex, MissCause> =
            absent.iter().map(|(voter, absence)| (*voter, self.cause_of(now, *voter, *absence))).collect();
        if let (Some(voter), Some(own)) = (own_voter, own) {
            causes.insert(voter, self.own_cause(own));
        }
        self.era.lock().attendance.absent = Some((height, causes));
    }

    /// Who missed the height just decided, and this node's own part in it. What the machine did not tell
    /// (it only does for heights it decides in this life) was not observed.
    pub(super) fn attendance_of(
        &self,
        height: u64,
        committee: &Committee,
        qc: &Qc,
    ) -> (BTreeMap<VoterIndex, MissCause>, Option<OwnPart>) {
        self.stalls.lock().end();
        let attendance = std::mem::take(&mut self.era.lock().attendance);
        let told = attendance.absent.filter(|(told, _)| *told == height).map(|(_, causes)| causes);
        let absent =
            told.unwrap_or_else(|| committee.indices().map(|voter| (voter, MissCause::Unobserved)).collect());
        let precommit = attendance.precommit.filter(|(at, round, _)| *at == height && *round == qc.round);
        let own = self.own_voter(committee).map(|own| (own, precommit.map(|(_, _, precommit)| precommit)));
        (absent, own)
    }

    /// Publishes and logs who missed a height.
    pub(super) fn tell_missed(&self, now: Now, settled: Settled) {
        let Settled { height, missed, total_weight } = settled;
        if missed.is_empty() {
            return;
        }
        let missed_weight: u64 = missed.iter().map(|missed| missed.weight).sum();
        let own = self.own_voter(&self.metrics.committee());
        let own = missed.iter().find(|missed| Some(missed.voter) == own).map(|missed| &missed.cause);
        let names = name_all(&missed);
        match own {
            // One line a block while catching up would drown the rest.
            Some(MissCause::Syncing { .. }) => tracing::debug!(height, missed_weight, %names, "votes missed"),
            Some(cause) => tracing::warn!(height, missed_weight, own = cause.code(), %names, "votes missed"),
            None => tracing::info!(height, missed_weight, %names, "votes missed"),
        }
        self.publish(now.wall_ms, EventKind::VotesMissed { height, missed, missed_weight, total_weight });
    }

    fn cause_of(&self, now: Now, voter: VoterIndex, absence: Absence) -> MissCause {
        let committee = self.metrics.committee();
        if self.own_voter(&committee) == Some(voter) {
            // A node that must not sign runs as an observer, to which its own member is a stranger.
            return MissCause::NotSigning;
        }
        match absence {
            Absence::NotSigning => MissCause::NotSigning,
            Absence::VotedNil { round, step } => MissCause::VotedNil { round, step: voted_word(step) },
            Absence::VotedOther { round, step } => MissCause::VotedOther { round, step: voted_word(step) },
            Absence::Unobserved => MissCause::Unobserved,
            Absence::NotConnected { since_us } => {
                let since_us = since_us.unwrap_or(self.started.monotonic_us);
                MissCause::NotConnected { since_ms: now.monotonic_us.saturating_sub(since_us) / 1000 }
            }
            Absence::Behind { height } => MissCause::Syncing { height },
            Absence::NoPrecommit { round } => MissCause::NoPrecommit { round },
            Absence::OtherRound { round } => MissCause::OtherRound { round },
            Absence::NoVote => MissCause::NoVote,
            Absence::NotFrozen => MissCause::NotFrozen { era_ms: None },
            Absence::Silent => MissCause::Silent,
        }
    }

    fn own_cause(&self, own: &OwnAbsence) -> MissCause {
        match own {
            OwnAbsence::NotSigning => MissCause::NotSigning,
            OwnAbsence::Behind { best } => MissCause::Syncing { height: *best },
            OwnAbsence::NoQuorum { connected, quorum } => {
                MissCause::NoQuorum { connected_weight: *connected, quorum_weight: *quorum }
            }
            OwnAbsence::NotFrozen { era_us } => MissCause::NotFrozen { era_ms: Some(*era_us / 1000) },
            OwnAbsence::NoProposal { round, proposer } => {
                MissCause::NoProposal { round: *round, proposer: self.member_name(*proposer) }
            }
            OwnAbsence::NoBodies { round, missing, asked } => MissCause::NoBody {
                round: *round,
                missing: *missing,
                asked: asked.map(|voter| self.member_name(voter)),
            },
            OwnAbsence::Refused { round, reason } => {
                MissCause::Refused { round: *round, reason: CleanText::limited(reason, REASON_CHARS_MAX) }
            }
            OwnAbsence::NoPrevoteQuorum { round, heard, quorum } => {
                MissCause::NoPrevoteQuorum { round: *round, heard_weight: *heard, quorum_weight: *quorum }
            }
        }
    }

    // Stalled rounds ---------------------------------------------------------------------------------

    fn observe_stall(&self, now: Now, notice: &Notice) {
        let Notice::RoundStalled { height, round, step, reason, missing, heard, quorum } = notice else {
            return;
        };
        let committee = self.metrics.committee();
        let missing: Vec<MissedVote> = missing
            .iter()
            .map(|(voter, absence)| MissedVote {
                voter: *voter,
                name: self.member_name(*voter),
                weight: committee.weight(*voter),
                cause: self.cause_of(now, *voter, *absence),
            })
            .collect();
        let step = step.map_or("propose", step_word);
        let stall = StalledRound {
            height: *height,
            round: *round,
            step: CleanText::new(step),
            reason: self.stall_reason(now, reason),
            missing_weight: missing.iter().map(|missed| missed.weight).sum(),
            missing,
            heard_weight: *heard,
            quorum_weight: *quorum,
            repeats: 0,
        };
        let told = self.stalls.lock().take(step, stall);
        if let Some(stall) = told {
            let (missing_weight, reason, repeats) =
                (stall.missing_weight, stall.reason.code(), stall.repeats);
            tracing::warn!(height, round, step, reason, missing_weight, heard, quorum, repeats, text = %stall, "round stalled");
            self.publish(now.wall_ms, EventKind::RoundStalled(stall));
        }
    }

    fn stall_reason(&self, now: Now, reason: &Stall) -> StallReason {
        let name = |voter: &VoterIndex| self.member_name(*voter);
        match reason {
            Stall::NoProposal { proposer, absence } => StallReason::NoProposal {
                proposer: name(proposer),
                why: self.cause_of(now, *proposer, *absence),
            },
            Stall::NotReady { incomplete, fault } => StallReason::NotReady {
                incomplete: incomplete.iter().map(name).collect(),
                fault: fault.as_deref().map(|fault| CleanText::limited(fault, REASON_CHARS_MAX)),
            },
            Stall::NoBodies { proposer, missing, asked } => StallReason::NoBody {
                proposer: name(proposer),
                missing: *missing,
                asked: asked.as_ref().map(name),
            },
            Stall::Refused { reason } => {
                StallReason::Refused { text: CleanText::limited(reason, REASON_CHARS_MAX) }
            }
            Stall::Nil => StallReason::Nil,
            Stall::Split { votes } => StallReason::Split {
                votes: votes
                    .iter()
                    .map(|(block, weight)| SplitVote { block: *block, weight: *weight })
                    .collect(),
            },
            Stall::NoQuorum => StallReason::NoQuorum,
            Stall::Overtaken { round } => StallReason::Overtaken { next: *round },
        }
    }

    // Votes for payments -----------------------------------------------------------------------------

    fn observe_payment_gaps(
        &self,
        now: Now,
        height: u64,
        prepares: &[(Gap, u32, Txid)],
        commits: &[(Gap, u32, Txid)],
    ) {
        let [prepares, commits] = [prepares, commits].map(|gaps| -> Vec<GapCount> {
            let count = |(gap, count, example): &(Gap, u32, Txid)| GapCount {
                cause: payment_gap(*gap),
                count: *count,
                example: *example,
            };
            gaps.iter().map(count).collect()
        });
        self.metrics.payment_votes_missed(&prepares, &commits);
        // Of a node that does not vote at all its state tells already.
        let general = |gap: &GapCount| matches!(gap.cause, PaymentGap::Syncing | PaymentGap::NotSigning);
        if prepares.iter().chain(&commits).all(general) {
            return;
        }
        let words = |gaps: &[GapCount]| {
            gaps.iter()
                .map(|gap| format!("{} {}", gap.count, gap.cause.code()))
                .collect::<Vec<_>>()
                .join(", ")
        };
        tracing::info!(
            height,
            prepares = words(&prepares),
            commits = words(&commits),
            "payment votes missed"
        );
        self.publish(now.wall_ms, EventKind::PaymentVotesMissed { height, prepares, commits });
    }
}

fn step_word(step: Step) -> &'static str {
    match step {
        Step::Prevote => "prevote",
        Step::Precommit => "precommit",
    }
}

fn voted_word(step: Step) -> CleanText {
    CleanText::new(match step {
        Step::Prevote => "prevoted",
        Step::Precommit => "precommitted",
    })
}

fn payment_gap(gap: Gap) -> PaymentGap {
    match gap {
        Gap::NotSigning => PaymentGap::NotSigning,
        Gap::Behind => PaymentGap::Syncing,
        Gap::Frozen => PaymentGap::Frozen,
        Gap::NoBody => PaymentGap::NoBody,
        Gap::Conflict => PaymentGap::Conflict,
        Gap::Budget => PaymentGap::Budget,
        Gap::Paced => PaymentGap::Paced,
        Gap::Parent => PaymentGap::Parent,
        Gap::NotCertified => PaymentGap::NotCertified,
        Gap::Refused => PaymentGap::Refused,
        Gap::Unknown => PaymentGap::Unknown,
    }
}
