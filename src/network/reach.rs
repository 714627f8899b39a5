//! Can others dial this node? It asks a few peers to try, and tries for those that ask.
//!
//! A peer dials the one that asks at the address it sees it at, never at another, so that nobody can be made to
//! send packets to a third party; from a socket of its own, for the way back through a firewall that the
//! connection opened is open to its socket only; and learns no more than whether the same network key answers
//! there. Invariants: one try a connection and a site in [`TRY_EVERY`], a few at once, each short. What peers
//! say is counted, not believed: one of five that lies shows as one of five.

use crate::network::NetworkEvent;
use crate::network::context::{Context, canonical};
use crate::network::handshake::{CloseCode, close};
use crate::network::netgroup::{Netgroup, Site};
use crate::network::peers::Peer;
use crate::network::router;
use crate::network::tls::{SERVER_NAME, peer_of};
use crate::network::wire::{Control, ProbeOutcome};
use crate::primitives::message::PeerId;
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

/// Peers asked at a time.
const ASKED_MAX: usize = 5;
/// Fewest that must have dialled an address for it to be told to others.
const CONFIRMED_MIN: usize = 2;
/// Time for the answers of a round: connecting, and the way of the question and back.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Time to connect.
const TRY_WITHIN: Duration = Duration::from_secs(4);
/// Least time between two tries for one peer, or one site.
const TRY_EVERY: Duration = Duration::from_secs(60);
/// Tries under way at once, for all peers.
const TRIES_MAX: usize = 4;
/// Sites remembered.
const SITES_MAX: usize = 1024;
/// Lowest port dialled for others: below are services of the system that speak no QUIC.
const PORT_MIN: u16 = 1024;
/// Time from one question to the next.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// The same while nobody, or nobody who tried, came through.
const AGAIN_SOON: Duration = Duration::from_secs(5 * 60);
/// How long the farewell of a try may take.
const FAREWELL: Duration = Duration::from_millis(300);

/// What the peers that were asked last have found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reachability {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// UDP port that was dialled.
    pub port: u16,
    /// How many came through, of those that tried.
    pub reached: u32,
    pub tried: u32,
}

/// Questions under way, and answers.
#[derive(Debug, Default)]
struct Round {
    asked: BTreeMap<u64, PeerId>,
    answers: Vec<(ProbeOutcome, SocketAddr)>,
}

/// Both sides of the question.
#[derive(Debug)]
pub struct Reach {
    round: Mutex<Round>,
    answered: Notify,
    found: Mutex<Option<(Reachability, Option<SocketAddr>)>>,
    tries: Arc<Semaphore>,
    sites: Mutex<BTreeMap<Site, Instant>>,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            round: Mutex::default(),
            answered: Notify::new(),
            found: Mutex::default(),
            tries: Arc::new(Semaphore::new(TRIES_MAX)),
            sites: Mutex::default(),
        }
    }
}

impl Reach {
    /// What was found last.
    #[must_use]
    pub fn found(&self) -> Option<Reachability> {
        self.found.lock().as_ref().map(|(found, _)| found.clone())
    }

    /// An address at which several peers have reached this node.
    #[must_use]
    pub fn confirmed(&self) -> Option<SocketAddr> {
        self.found.lock().as_ref().and_then(|(_, address)| *address)
    }

    /// Takes the answer to a question of the round under way.
    pub fn on_answer(&self, peer: PeerId, nonce: u64, outcome: ProbeOutcome, at: SocketAddr) {
        let mut round = self.round.lock();
        if round.asked.get(&nonce) == Some(&peer) {
            round.asked.remove(&nonce);
            round.answers.push((outcome, canonical(at)));
            self.answered.notify_one();
        }
    }

    /// Whether a site may be dialled now; if so it is not again for a while.
    fn may_try(&self, ip: IpAddr, now: Instant) -> bool {
        let Some(site) = Site::of(ip) else { return true };
        let mut sites = self.sites.lock();
        sites.retain(|_, tried| now.saturating_duration_since(*tried) < TRY_EVERY);
        if sites.contains_key(&site) || sites.len() >= SITES_MAX {
            return false;
        }
        sites.insert(site, now);
        true
    }
}

/// Asks, now and then, until shutdown.
pub async fn ask(context: Arc<Context>) {
    let mut pause = context.options.probe_delay;
    loop {
        tokio::select! {
            () = context.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let found = tokio::select! {
            () = context.stop.cancelled() => return,
            found = ask_some(&context) => found,
        };
        pause = match found {
            Some(found) if found.reached > 0 => AGAIN,
            Some(_) => AGAIN_SOON,
            // Nobody there who would try.
            None => context.options.probe_delay.max(Duration::from_secs(1)),
        };
    }
}

/// One round; `None` when nobody has tried.
async fn ask_some(context: &Context) -> Option<Reachability> {
    let port = context.advertised.port();
    let peers = choose(context);
    if peers.is_empty() {
        return None;
    }
    *context.reach.round.lock() = Round::default();
    for peer in &peers {
        let nonce: u64 = rand::random();
        context.reach.round.lock().asked.insert(nonce, peer.id);
        router::control(context, peer, &Control::Probe { nonce, port });
    }
    let answers = async {
        while !context.reach.round.lock().asked.is_empty() {
            context.reach.answered.notified().await;
        }
    };
    // Whoever does not answer has not tried.
    let _late = timeout(ANSWER_WITHIN, answers).await;
    let round = std::mem::take(&mut *context.reach.round.lock());
    let (found, confirmed) = judge(&round.answers, port, context.wall_us() / 1000)?;
    tracing::info!(port, reached = found.reached, tried = found.tried, "peers have dialled this node back");
    *context.reach.found.lock() = Some((found.clone(), confirmed));
    if let Some(room) = context.room().await {
        room.send(NetworkEvent::Reachability(found.clone()));
    }
    Some(found)
}

/// What answers mean, and an address that several have come through to.
fn judge(
    answers: &[(ProbeOutcome, SocketAddr)],
    port: u16,
    time_ms: u64,
) -> Option<(Reachability, Option<SocketAddr>)> {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let tried = answers.iter().filter(|(outcome, _)| *outcome != ProbeOutcome::NotTried).count();
    if tried == 0 {
        return None;
    }
    let reached: Vec<SocketAddr> =
        answers.iter().filter(|(outcome, _)| *outcome == ProbeOutcome::Reached).map(|(_, at)| *at).collect();
    let most = reached.iter().map(|at| (reached.iter().filter(|other| *other == at).count(), *at)).max();
    let confirmed = most.filter(|(votes, _)| *votes >= CONFIRMED_MIN && 2 * votes > reached.len());
    let found = Reachability { time_ms, port, reached: count(reached.len()), tried: count(tried) };
    Some((found, confirmed.map(|(_, at)| at)))
}

/// Whom to ask: of different netgroups where possible, those this node dialled first.
fn choose(context: &Context) -> Vec<Arc<Peer>> {
    let mut peers = context.registry.all();
    peers.shuffle(&mut rand::rng());
    peers.sort_by_key(|peer| peer.inbound);
    let mut groups = BTreeSet::new();
    let (mut chosen, rest): (Vec<_>, Vec<_>) =
        peers.into_iter().partition(|peer| groups.insert(Netgroup::of(peer.address)));
    chosen.extend(rest);
    chosen.truncate(ASKED_MAX);
    chosen
}

/// Tries for a peer that asks, unless it or somebody near it was tried for just now.
pub fn on_request(context: &Arc<Context>, peer: &Arc<Peer>, nonce: u64, port: u16) {
    let (now, ip) = (Instant::now(), peer.address.ip());
    let at = SocketAddr::new(ip, port);
    let permit = Arc::clone(&context.reach.tries).try_acquire_owned();
    let may = port >= PORT_MIN && peer.allowance.lock().may_probe(now) && context.reach.may_try(ip, now);
    let (Ok(permit), true) = (permit, may) else {
        let answer = Control::Probed { nonce, outcome: ProbeOutcome::NotTried, at };
        return router::control(context, peer, &answer);
    };
    let (context, peer) = (Arc::clone(context), Arc::clone(peer));
    let trying = {
        let context = Arc::clone(&context);
        async move {
            let outcome = tokio::select! {
                () = context.stop.cancelled() => return,
                outcome = try_once(&context, at, &peer) => outcome,
            };
            drop(permit);
            router::control(&context, &peer, &Control::Probed { nonce, outcome, at });
        }
    };
    context.tasks.spawn(trying.in_current_span());
}

/// Connects from a new socket, and looks who answers.
async fn try_once(context: &Context, at: SocketAddr, peer: &Peer) -> ProbeOutcome {
    let own: IpAddr = if at.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let Ok(endpoint) = quinn::Endpoint::client(SocketAddr::new(own, 0)) else {
        return ProbeOutcome::NotTried;
    };
    let Ok(connecting) = endpoint.connect_with(context.client.clone(), at, SERVER_NAME) else {
        return ProbeOutcome::NotTried;
    };
    let outcome = match timeout(TRY_WITHIN, connecting).await {
        Ok(Ok(connection)) => {
            // The key that asked, whatever it is known by here.
            let same = peer_of(&connection).is_some_and(|found| Some(found) == peer_of(&peer.connection));
            close(&connection, CloseCode::Feeler, "only finding out whether this port is reachable");
            if same { ProbeOutcome::Reached } else { ProbeOutcome::NotReached }
        }
        Ok(Err(_)) | Err(_) => ProbeOutcome::NotReached,
    };
    let _gone = timeout(FAREWELL, endpoint.wait_idle()).await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(list: &[(ProbeOutcome, &str)]) -> Vec<(ProbeOutcome, SocketAddr)> {
        list.iter().map(|(outcome, at)| (*outcome, at.parse().unwrap())).collect()
    }

    #[test]
    fn those_that_did_not_try_do_not_count_and_two_confirm_an_address() {
        use ProbeOutcome::{NotReached, NotTried, Reached};
        assert_eq!(judge(&answers(&[(NotTried, "198.51.100.1:24000")]), 24000, 1), None);
        let (found, confirmed) = judge(
            &answers(&[
                (Reached, "198.51.100.1:24000"),
                (Reached, "198.51.100.1:24000"),
                (Reached, "203.0.113.1:24000"),
                (NotReached, "198.51.100.1:24000"),
                (NotTried, "198.51.100.1:24000"),
            ]),
            24000,
            1,
        )
        .unwrap();
        assert_eq!((found.reached, found.tried), (3, 4));
        assert_eq!(confirmed, Some("198.51.100.1:24000".parse().unwrap()));
        // One alone may lie.
        let (_, confirmed) = judge(&answers(&[(Reached, "198.51.100.1:24000")]), 24000, 1).unwrap();
        assert_eq!(confirmed, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_site_is_dialled_once_a_minute_and_the_list_of_sites_is_bounded() {
        let reach = Reach::default();
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        assert!(reach.may_try(ip("198.51.100.1"), Instant::now()));
        assert!(!reach.may_try(ip("198.51.100.200"), Instant::now()), "of the same site");
        assert!(reach.may_try(ip("198.51.101.1"), Instant::now()));
        tokio::time::advance(TRY_EVERY).await;
        assert!(reach.may_try(ip("198.51.100.1"), Instant::now()));
        for number in 0..5_000u32 {
            reach.may_try(IpAddr::V4((0x0b00_0000 + number * 256).into()), Instant::now());
        }
        assert_eq!(reach.sites.lock().len(), SITES_MAX);
    }

    #[test]
    fn only_the_peer_that_was_asked_can_answer_and_only_once() {
        let reach = Reach::default();
        let id = |seed: u8| PeerId(crate::primitives::keys::SecretKey::from_seed(&[seed; 32]).public());
        let at = "198.51.100.1:24000".parse().unwrap();
        reach.round.lock().asked.insert(7, id(1));
        reach.on_answer(id(2), 7, ProbeOutcome::Reached, at);
        reach.on_answer(id(1), 8, ProbeOutcome::Reached, at);
        assert_eq!(reach.round.lock().answers, []);
        reach.on_answer(id(1), 7, ProbeOutcome::NotReached, at);
        reach.on_answer(id(1), 7, ProbeOutcome::Reached, at);
        assert_eq!(reach.round.lock().answers, [(ProbeOutcome::NotReached, at)]);
    }
}
