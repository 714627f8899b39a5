//! Notices that this node itself stood still: the process was stopped or starved, or the machine suspended.
//!
//! A node that was away for 90 s must not take its peers for dead, nor wait out the pauses between dials that
//! grew meanwhile. The monotonic clock goes on while a process is stopped and stands while the machine is
//! suspended; the boot clock goes on in both. A tick that comes late by either tells. The same ticks tell when
//! the wall clock was set: what was read of the peers' clocks against the old one is worth nothing.
//! Deliberately absent: anything that would blame a peer for the time this node was away.

use crate::network::NetworkEvent;
use crate::network::context::{Context, wall_us};
use crate::network::endpoint::IDLE_TIMEOUT;
use crate::network::handshake::CloseCode;
use rustix::time::clock_gettime;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the clocks are compared.
const TICK: Duration = Duration::from_secs(1);
/// A tick later than this is a standstill; less is a busy machine, and no connection is lost by it.
const LATE: Duration = Duration::from_secs(5);
/// Jump of the wall clock against the others that makes readings of peers' clocks void.
const STEP_US: u64 = 200_000;

/// The clocks at one moment, each from an origin of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Stands while the machine is suspended.
    pub monotonic: Duration,
    /// Does not.
    pub boot: Duration,
    /// Microseconds since 1970; can be set.
    pub wall_us: u64,
}

/// What two ticks tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noticed {
    /// The node stood still for about this long; `suspended` with the whole machine.
    Standstill { lasted: Duration, suspended: bool },
    /// The wall clock was set.
    ClockSet,
}

/// Compares each reading of the clocks with the one before.
#[derive(Debug)]
pub struct Watch {
    before: Clocks,
}

impl Watch {
    /// Begins at a reading.
    #[must_use]
    pub fn new(now: Clocks) -> Self {
        Self { before: now }
    }

    /// Takes the reading of a tick.
    pub fn look(&mut self, now: Clocks) -> Option<Noticed> {
        let before = std::mem::replace(&mut self.before, now);
        let awake = now.monotonic.saturating_sub(before.monotonic);
        let passed = now.boot.saturating_sub(before.boot).max(awake);
        let lasted = passed.saturating_sub(TICK);
        if lasted > LATE {
            return Some(Noticed::Standstill { lasted, suspended: passed - awake > awake });
        }
        let passed_us = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let expected = before.wall_us.saturating_add(passed_us);
        (now.wall_us.abs_diff(expected) > STEP_US).then_some(Noticed::ClockSet)
    }
}

fn boot_clock() -> Duration {
    #[cfg(target_os = "linux")]
    const BOOT: rustix::time::ClockId = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    const BOOT: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
    let time = clock_gettime(BOOT);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Watches until shutdown.
pub async fn watch(context: Arc<Context>) {
    let origin = Instant::now();
    let read = || Clocks { monotonic: origin.elapsed(), boot: boot_clock(), wall_us: wall_us() };
    let mut watch = Watch::new(read());
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match watch.look(read()) {
            Some(Noticed::Standstill { lasted, suspended }) => awake(&context, lasted, suspended).await,
            Some(Noticed::ClockSet) => {
                tracing::info!("the wall clock was set: the clocks of the peers are read anew");
                context.registry.for_each(|peer| peer.gauge.lock().forget_clock());
                context.wake_pings.send_modify(|count| *count += 1);
            }
            None => {}
        }
    }
}

/// Starts afresh with everybody after this node was away.
async fn awake(context: &Context, lasted: Duration, suspended: bool) {
    let what = if suspended { "the machine was suspended" } else { "this process stood still" };
    let seconds = lasted.as_secs();
    tracing::warn!(seconds, suspended, "{what}: peers get a fresh allowance");
    context.registry.for_each(|peer| {
        peer.pings.lock().forgive();
        peer.gauge.lock().forget_clock();
    });
    if lasted >= IDLE_TIMEOUT {
        // All of them have given this node up by now, and none can say so. Whoever has not is told why.
        for peer in context.registry.all() {
            peer.close(CloseCode::Requested, &format!("{what} here for {seconds} s: connecting anew"));
        }
    }
    context.book.dial_at_once();
    context.wake_pings.send_modify(|count| *count += 1);
    context.wake_dials.send_modify(|count| *count += 1);
    if let Some(room) = context.room().await {
        room.send(NetworkEvent::StoodStill { lasted, suspended });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn clocks(monotonic: Duration, boot: Duration, wall: Duration) -> Clocks {
        let wall_us = 1_700_000_000_000_000 + u64::try_from(wall.as_micros()).unwrap();
        Clocks { monotonic, boot, wall_us }
    }

    fn still(lasted: Duration, suspended: bool) -> Option<Noticed> {
        Some(Noticed::Standstill { lasted, suspended })
    }

    #[test]
    fn a_stopped_process_and_a_suspended_machine_are_noticed_and_told_apart() {
        let mut watch = Watch::new(clocks(S, S, S));
        assert_eq!(watch.look(clocks(2 * S, 2 * S, 2 * S)), None);
        // Stopped: every clock went on.
        assert_eq!(watch.look(clocks(93 * S, 93 * S, 93 * S)), still(90 * S, false));
        assert_eq!(watch.look(clocks(94 * S, 94 * S, 94 * S)), None, "once only");
        // Suspended: the monotonic clock stood.
        assert_eq!(watch.look(clocks(95 * S, 185 * S, 185 * S)), still(90 * S, true));
        assert_eq!(watch.look(clocks(96 * S, 186 * S, 186 * S)), None);
    }

    #[test]
    fn a_busy_machine_is_no_standstill() {
        let mut watch = Watch::new(clocks(S, S, S));
        for tick in 1..10u32 {
            // Each tick four seconds late.
            let at = S + 5 * S * tick;
            assert_eq!(watch.look(clocks(at, at, at)), None);
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_is_noticed_and_one_that_is_slewed_is_not() {
        let mut watch = Watch::new(clocks(S, S, 100 * S));
        assert_eq!(watch.look(clocks(2 * S, 2 * S, 100 * S)), Some(Noticed::ClockSet));
        assert_eq!(watch.look(clocks(3 * S, 3 * S, 101 * S)), None);
        assert_eq!(watch.look(clocks(4 * S, 4 * S, 102 * S + S / 2)), Some(Noticed::ClockSet));
        assert_eq!(watch.look(clocks(5 * S, 5 * S, 103 * S + S / 2 + S / 100)), None);
    }
}
