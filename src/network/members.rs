//! Connections to the committee: every member is dialled at the endpoints it says it is reached at and at the one the
//! registry names, in turn, until it is connected, whatever else is connected. Votes go straight from each member to each, so the committee is
//! a full mesh.

use crate::network::context::{Context, canonical};
use crate::network::dialer::{Dialled, LOOK_INTERVAL, backoff, dial};
use crate::network::endpoints;
use crate::network::handshake::Refusal;
use crate::primitives::keys::PublicKey;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

/// A member of the committee as the registry has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub vote_key: PublicKey,
    /// Where it says it is reached, signed by its owner; `None` if it does not.
    pub endpoint: Option<SocketAddr>,
}

/// What is known of dialling one.
#[derive(Clone, Copy, Debug)]
struct Attempts {
    failures: u32,
    next_try: Instant,
    dialing: bool,
}

type Dials = Arc<Mutex<BTreeMap<PublicKey, Attempts>>>;

/// Keeps dialling until shutdown.
pub async fn dial_members(context: Arc<Context>) {
    let dials = Dials::default();
    let mut awake = context.wake_dials.subscribe();
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            _ = awake.changed() => at_once(&dials),
            () = sleep(LOOK_INTERVAL) => {}
        }
        for (member, address, failures) in take_due(&context, &dials) {
            let dial = dial_one(Arc::clone(&context), Arc::clone(&dials), member, address, failures);
            context.tasks.spawn(dial.in_current_span());
        }
    }
}

/// Forgets the pauses between attempts, after a time in which none could succeed.
fn at_once(dials: &Dials) {
    for attempts in dials.lock().values_mut() {
        (attempts.failures, attempts.next_try) = (0, Instant::now());
    }
}

fn take_due(context: &Context, dials: &Dials) -> Vec<(PublicKey, SocketAddr, u32)> {
    let members = context.members.load();
    let own = context.vote.as_ref().map(|vote| vote.key);
    let mut connected = BTreeSet::new();
    context.registry.for_each(|peer| connected.extend(peer.vote_key));
    let mut dials = dials.lock();
    dials.retain(|key, _| members.iter().any(|member| member.vote_key == *key));
    let now = Instant::now();
    let mut due = Vec::new();
    for member in members.iter() {
        let key = member.vote_key;
        if Some(key) == own || connected.contains(&key) {
            continue;
        }
        let attempts = dials.entry(key).or_insert(Attempts { failures: 0, next_try: now, dialing: false });
        if attempts.dialing || attempts.next_try > now {
            continue;
        }
        let addresses = addresses(context, member);
        let turn = usize::try_from(attempts.failures).unwrap_or_default() % addresses.len().max(1);
        if let Some(address) = addresses.get(turn) {
            attempts.dialing = true;
            due.push((key, *address, attempts.failures));
        }
    }
    due
}

/// Where a member may be: its own word, then the registry's.
fn addresses(context: &Context, member: &Member) -> Vec<SocketAddr> {
    let said = context.endpoints.of(&member.vote_key, context.wall_us() / 1000);
    let said = said.into_iter().filter(|address| endpoints::may_dial(context, *address));
    let mut addresses: Vec<SocketAddr> = said.map(canonical).collect();
    if let Some(endpoint) = member.endpoint.map(canonical).filter(|endpoint| !addresses.contains(endpoint)) {
        addresses.push(endpoint);
    }
    addresses
}

async fn dial_one(
    context: Arc<Context>,
    dials: Dials,
    member: PublicKey,
    address: SocketAddr,
    failures: u32,
) {
    let wakes = *context.wake_dials.borrow();
    let missed = match dial(&context, address, context.pinned_key(address), failures).await {
        Dialled::Connected(peer) if peer.vote_key == Some(member) => None,
        Dialled::Connected(_) | Dialled::Itself => Some("somebody else is there".into()),
        // Whoever that is; if it is the member, nothing is due any more.
        Dialled::Already(_) => Some("the one there is connected already".into()),
        Dialled::Failed(Refusal { text, .. }) => Some(text),
    };
    // What failed because this node stood still is no failure of the member.
    let stood_still = wakes != *context.wake_dials.borrow();
    let failures = missed.as_ref().map_or(0, |_| if stood_still { 0 } else { failures.saturating_add(1) });
    if let Some(reason) = missed {
        tracing::debug!(member = %member.short(), %address, %reason, "a committee member was not reached");
    }
    let attempts = Attempts { failures, next_try: Instant::now() + backoff(failures), dialing: false };
    dials.lock().insert(member, attempts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primitives::keys::SecretKey;
    use std::time::Duration;

    #[test]
    fn nobody_waits_for_a_dial_after_a_standstill() {
        let (now, dials) = (Instant::now(), Dials::default());
        let key = SecretKey::from_seed(&[1; 32]).public();
        let waiting = Attempts { failures: 9, next_try: now + Duration::from_secs(30), dialing: false };
        dials.lock().insert(key, waiting);
        at_once(&dials);
        let attempts = dials.lock()[&key];
        assert!(attempts.failures == 0 && attempts.next_try <= Instant::now(), "{attempts:?}");
    }
}
