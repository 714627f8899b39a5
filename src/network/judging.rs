//! What follows when a peer did something: its score, the end of its connection, a ban; and the orders of the
//! operator. Every charge against a connected peer passes here, and only the first of a connection counts: what was
//! sent before it ended may be many copies of one mistake.

use crate::network::bans::offence::{Charge, Offence};
use crate::network::bans::subject::{Subject, SubjectError};
use crate::network::bans::table::{Ban, Full, Offender, Verdict};
use crate::network::context::Context;
use crate::network::handshake::{CloseCode, Refusal};
use crate::network::peers::Peer;
use crate::network::{Network, NetworkEvent, tls};
use crate::primitives::keys::PublicKey;
use crate::primitives::message::PeerId;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often it is looked for bans that are over.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// Fewest digits of a key by which a connected peer is found.
const DIGITS_MIN: usize = 8;

/// Why an order cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error("{count} connected peers have a key that begins with `{digits}`: give more digits")]
    Ambiguous { digits: String, count: usize },
    #[error("`{0}` is this node itself")]
    Itself(String),
    #[error(transparent)]
    Full(#[from] Full),
}

/// What came of an order to ban.
#[derive(Clone, Debug)]
pub struct Ordered {
    pub ban: Ban,
    /// Connections ended by it.
    pub disconnected: usize,
    /// Of those, with members of the committee.
    pub members: usize,
}

/// The key that a peer has proven; two processes may share one.
fn proven_key(peer: &Peer) -> PublicKey {
    tls::peer_of(&peer.connection).unwrap_or(peer.id).0
}

/// Ends the connection of a peer for what it did and counts that.
pub fn charge(context: &Context, peer: &Arc<Peer>, code: CloseCode, charge: &Charge) {
    if !peer.close(code, charge.what.as_str()) {
        return;
    }
    let (key, ip) = (proven_key(peer), peer.address.ip());
    let (mut peers, mut beside_member) = (0, false);
    context.registry.for_each(|other| {
        peers += 1;
        beside_member |= other.is_member() && other.address.ip() == ip;
    });
    let who =
        Offender { key, vote_key: peer.vote_key, is_member: peer.is_member(), ip, beside_member, peers };
    judge(context, &who, charge);
}

/// Counts a hello that no honest node says.
pub fn false_hello(context: &Context, peer: PeerId, address: SocketAddr, refusal: &Refusal) {
    if !matches!(refusal.code, Some(CloseCode::BadHello | CloseCode::BadCertificate)) {
        return;
    }
    let (inbound, outbound) = context.registry.counts();
    let peers = inbound + outbound + 1;
    let ip = address.ip();
    let who = Offender { key: peer.0, vote_key: None, is_member: false, ip, beside_member: true, peers };
    judge(context, &who, &Charge::new(Offence::BadHello, "hello", refusal.text.as_str()));
}

fn judge(context: &Context, who: &Offender, charge: &Charge) {
    let (peer, offence, evidence) = (who.key.short(), charge.offence.code(), charge.evidence());
    match context.bans.offend(who, charge) {
        Verdict::Held { ms } => {
            tracing::warn!(event = "offence", %peer, offence, %evidence, held_ms = ms, "disconnecting a peer");
        }
        Verdict::Member { ms } => {
            tracing::error!(event = "offence", %peer, offence, %evidence, held_ms = ms, "disconnecting a committee member");
        }
        Verdict::Breaker { ms, .. } => {
            tracing::warn!(event = "offence", %peer, offence, %evidence, held_ms = ms, "not banned: too many were");
        }
        Verdict::Banned(bans) => {
            tracing::warn!(event = "offence", %peer, offence, %evidence, "banning a peer");
            for ban in bans {
                end_banned(context, &ban, true);
            }
        }
    }
}

/// Ends the connections of whom a ban is about, the members' too if the operator says so: how many, and how many of
/// them members.
fn end_banned(context: &Context, ban: &Ban, spare_members: bool) -> (usize, usize) {
    let (mut ended, mut members) = (0, 0);
    for peer in context.registry.all() {
        let meant = match ban.subject {
            Subject::Key(key) => proven_key(&peer) == key,
            Subject::Range(range) => range.contains(peer.address.ip()),
        };
        let is_member = peer.is_member();
        if meant
            && !(is_member && spare_members)
            && peer.close(CloseCode::Banned, &format!("banned: {}", ban.reason))
        {
            ended += 1;
            members += usize::from(is_member);
        }
    }
    (ended, members)
}

/// Tells the node what happens to bans, and keeps them on disk.
pub async fn keep_bans(context: Arc<Context>) {
    let mut ticks = interval_at(Instant::now() + LOOK_INTERVAL, LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let last = tokio::select! {
            () = context.stop.cancelled() => true,
            () = context.bans.wait_for_news() => false,
            _ = ticks.tick() => {
                context.bans.end();
                false
            }
        };
        for news in context.bans.take_news() {
            if let Some(room) = context.room().await {
                room.send(NetworkEvent::Bans(news));
            }
        }
        let saving = Arc::clone(&context);
        match tokio::task::spawn_blocking(move || saving.bans.save()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the bans were not written"),
            Err(error) => tracing::warn!(%error, "writing the bans failed"),
        }
        if last {
            return;
        }
    }
}

impl Network {
    /// Ends the connection to a peer for what it did; that counts unless it is a [`Offence::Disagreement`]. Nothing
    /// happens when it is not connected any more.
    pub fn charge(&self, peer: PeerId, what: &Charge) {
        if let Some(peer) = self.context.registry.live(peer) {
            charge(&self.context, &peer, CloseCode::Requested, what);
        }
    }

    /// Bans by order of the operator: a network key in full or by its first digits if it is connected, or an address
    /// with or without a prefix. Ends the connections it is about. Blocks for writing the file.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn ban(&self, whom: &str, length: Duration, reason: &str) -> Result<Ordered, OrderError> {
        let subject = self.subject(whom)?;
        if subject == Subject::Key(self.context.own.0) {
            return Err(OrderError::Itself(whom.to_owned()));
        }
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let ban = self.context.bans.ban(subject, for_ms, reason)?;
        let (disconnected, members) = end_banned(&self.context, &ban, false);
        self.save_bans();
        Ok(Ordered { ban, disconnected, members })
    }

    /// Lifts every ban that keeps out a peer or an address, `all` for everybody's; forgets scores and has everybody
    /// dialled at once. Returns the bans that were lifted. Blocks for writing the file.
    ///
    /// # Errors
    /// [`OrderError`].
    pub fn unban(&self, whom: &str) -> Result<Vec<Ban>, OrderError> {
        let subject = if whom == "all" { None } else { Some(self.subject(whom)?) };
        let lifted = self.context.bans.lift(subject.as_ref());
        self.context.book.dial_at_once();
        self.context.wake_dials.send_modify(|count| *count += 1);
        self.save_bans();
        Ok(lifted)
    }

    /// All bans, the newest first.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.context.bans.list()
    }

    fn save_bans(&self) {
        if let Err(error) = self.context.bans.save() {
            tracing::warn!(%error, "the bans were not written; a restart would forget the last ones");
        }
    }

    /// Whom a text means.
    fn subject(&self, text: &str) -> Result<Subject, OrderError> {
        let text = text.trim();
        let is_digits = text.len() >= DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digits && text.len() < 64 && text.parse::<IpAddr>().is_err() {
            let digits = text.to_ascii_lowercase();
            let connected = self.context.registry.all();
            let connected = connected.iter().map(|peer| proven_key(peer));
            let banned = self.context.bans.list().into_iter().filter_map(|ban| match ban.subject {
                Subject::Key(key) => Some(key),
                Subject::Range(_) => None,
            });
            let known: std::collections::BTreeSet<PublicKey> =
                connected.chain(banned).filter(|key| key.to_string().starts_with(&digits)).collect();
            match (known.len(), known.first()) {
                (1, Some(key)) => return Ok(Subject::Key(*key)),
                (0, _) => {}
                (count, _) => return Err(OrderError::Ambiguous { digits, count }),
            }
        }
        Ok(text.parse()?)
    }
}
