//! What a console that comes later is told of the time before it: two rings of events, so that the many about votes
//! cannot push out the few about peers, bans, alerts and states.

use crate::telemetry::event::{Event, EventKind};
use std::collections::VecDeque;
use std::sync::Arc;

/// Events about votes and rounds kept: some seconds under load, hours without.
const VOTES_KEPT: usize = 512;
/// Others kept.
const OTHERS_KEPT: usize = 256;

/// See the module.
#[derive(Default)]
pub(super) struct Past {
    /// Number of the last event, whether or not it is kept.
    pub sequence: u64,
    votes: VecDeque<Arc<Event>>,
    others: VecDeque<Arc<Event>>,
}

impl Past {
    /// Whether such an event is kept: not those of the pool, which every picture shows, nor log records, which have a
    /// ring of their own.
    pub fn remembers(&self, kind: &EventKind) -> bool {
        !matches!(
            kind,
            EventKind::PoolAdded { .. }
                | EventKind::PoolRejected { .. }
                | EventKind::Log(_)
                | EventKind::Sync(_)
        )
    }

    /// Keeps an event that is to be remembered. Cost: well under a microsecond.
    pub fn take(&mut self, event: &Arc<Event>) {
        if !self.remembers(&event.kind) {
            return;
        }
        let (ring, most) = match event.kind {
            EventKind::Votes { .. } | EventKind::Final { .. } => (&mut self.votes, VOTES_KEPT),
            _ => (&mut self.others, OTHERS_KEPT),
        };
        ring.push_back(Arc::clone(event));
        if ring.len() > most {
            ring.pop_front();
        }
    }

    /// All that are kept, oldest first.
    pub fn list(&self) -> Vec<Arc<Event>> {
        let mut all: Vec<_> = self.votes.iter().chain(&self.others).cloned().collect();
        all.sort_by_key(|event| event.sequence);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::hash::Txid;

    fn event(sequence: u64, kind: EventKind) -> Arc<Event> {
        Arc::new(Event { sequence, time_ms: 0, kind })
    }

    fn final_ones() -> EventKind {
        EventKind::Final { count: 1, fastest_us: 1, slowest_us: 1, newest: Txid::default() }
    }

    #[test]
    fn votes_push_out_no_alert_and_the_pool_pushes_out_nothing() {
        let mut past = Past::default();
        past.take(&event(1, EventKind::StoodStill { lasted_ms: 9, suspended: false }));
        for sequence in 2..5000 {
            past.take(&event(sequence, final_ones()));
            past.take(&event(sequence, EventKind::PoolAdded { txid: Txid::default(), size: 1, fee: 1 }));
        }
        let kept: Vec<u64> = past.list().iter().map(|event| event.sequence).collect();
        assert_eq!(kept.len(), 1 + VOTES_KEPT);
        assert!(kept.is_sorted() && kept.first() == Some(&1) && kept.last() == Some(&4999));
    }
}
