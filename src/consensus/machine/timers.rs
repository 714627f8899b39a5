//! Deadlines of the machine, on the monotonic clock in microseconds.

use super::{Machine, RoundStep};
use crate::consensus::host::Host;
use crate::consensus::output::Target;
use crate::primitives::message::Message;
use crate::primitives::vote::Step;

/// Pending deadlines; those of rounds belong to the current round and are dropped when it changes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    pub(super) era_end: Option<u64>,
    pub(super) status: Option<u64>,
    pub(super) propose: Option<u64>,
    pub(super) prevote: Option<u64>,
    pub(super) precommit: Option<u64>,
    /// When the proposer looks again whether it can build.
    pub(super) build: Option<u64>,
}

impl Timers {
    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<u64> {
        [self.era_end, self.status, self.propose, self.prevote, self.precommit, self.build]
            .into_iter()
            .flatten()
            .min()
    }

    /// Drops the deadlines of a round.
    pub(super) fn clear_round(&mut self) {
        (self.propose, self.prevote, self.precommit, self.build) = (None, None, None, None);
    }
}

/// Takes a deadline that has passed.
fn take_due(slot: &mut Option<u64>, now_us: u64) -> bool {
    let due = slot.is_some_and(|at| at <= now_us);
    if due {
        *slot = None;
    }
    due
}

impl Machine {
    /// Acts on every deadline that has passed.
    pub(super) fn fire_timers(&mut self, host: &mut dyn Host) {
        let now_us = self.now.monotonic_us;
        // A member that must not sign yet ends the era when it may.
        if take_due(&mut self.timers.era_end, now_us) && self.takes_part() {
            self.freeze(host);
        }
        if take_due(&mut self.timers.status, now_us) {
            let status = Message::Status(self.status());
            self.send(Target::All, status);
            self.timers.status = Some(now_us + self.timing.status_us);
            self.want_certified_bodies(host);
            self.watch_round();
        }
        // A passed build deadline only has to let `advance` look again.
        take_due(&mut self.timers.build, now_us);
        self.fire_round_timers(now_us);
        self.retry_paced(host);
        if self.flush_due().is_some_and(|due| due <= now_us) {
            self.flush(host, false);
        }
        self.send_due_pulls(host);
    }

    /// `on Timer Propose(r)`, `Prevote(r)`, `Precommit(r)` of protocol §4.2.
    fn fire_round_timers(&mut self, now_us: u64) {
        if take_due(&mut self.timers.propose, now_us) && self.checkpoint.step == RoundStep::Propose {
            self.notice_stalled_step();
            self.checkpoint.step = RoundStep::Prevote;
            self.cast(Step::Prevote, None);
        }
        if take_due(&mut self.timers.prevote, now_us) && self.checkpoint.step == RoundStep::Prevote {
            self.notice_stalled_step();
            self.checkpoint.step = RoundStep::Precommit;
            self.cast(Step::Precommit, None);
        }
        if take_due(&mut self.timers.precommit, now_us) {
            self.notice_stalled(Some(Step::Precommit));
            self.start_round(self.checkpoint.round.saturating_add(1));
        }
    }
}
