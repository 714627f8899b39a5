//! Bans as the node tells them: events, log lines, alerts.

use crate::network::bans::BanNews;
use crate::network::bans::table::Ban;
use crate::node::clock;
use crate::node::hub::Hub;
use crate::primitives::clean::CleanText;
use crate::telemetry::bans::BanInfo;
use crate::telemetry::event::{AlertLevel, EventKind};

/// A ban as a value for others.
#[must_use]
pub fn described(ban: &Ban) -> BanInfo {
    BanInfo {
        subject: CleanText::new(&ban.subject.to_string()),
        since_ms: ban.since_ms,
        until_ms: ban.until_ms,
        automatic: ban.automatic,
        reason: ban.reason.clone(),
        evidence: ban.evidence.clone(),
        address: ban.address.map(|ip| CleanText::new(&ip.to_string())),
    }
}

/// Tells what has happened.
pub fn tell(hub: &Hub, news: &BanNews) {
    let kind = match news {
        BanNews::Banned(ban) => {
            let (subject, reason, evidence) = (ban.subject, &ban.reason, &ban.evidence);
            let minutes = ban.until_ms.saturating_sub(ban.since_ms) / 60_000;
            tracing::warn!(event = "ban", %subject, minutes, automatic = ban.automatic, %reason, %evidence, "banned");
            EventKind::PeerBanned(described(ban))
        }
        BanNews::Over { ban, lifted } => {
            tracing::info!(event = "unban", subject = %ban.subject, lifted, "a ban is over");
            EventKind::PeerUnbanned { subject: CleanText::new(&ban.subject.to_string()), lifted: *lifted }
        }
        BanNews::MemberHeld { key, vote_key, ms, charge } => alert(&format!(
            "committee member {} (peer {}) sends {} again and again ({}): members are not banned, it is kept out for {} s \
             each time; tell its operator",
            vote_key.short(),
            key.short(),
            charge.offence.words(),
            charge.evidence(),
            ms / 1000
        )),
        BanNews::BreakerOpen { wanted, peers } => {
            let number = |count: &usize| u32::try_from(*count).unwrap_or(u32::MAX);
            let text = format!(
                "{wanted} of {peers} peers would have been banned within a minute: automatic bans are stopped for some \
                 minutes; if the peers are honest, this node is at fault: compare its version with theirs, check its memory"
            );
            hub.publish(clock::wall_ms(), alert(&text));
            EventKind::BreakerOpen { wanted: number(wanted), peers: number(peers) }
        }
    };
    hub.publish(clock::wall_ms(), kind);
}

fn alert(text: &str) -> EventKind {
    tracing::warn!(event = "bans", "{text}");
    EventKind::Alert { level: AlertLevel::Warning, text: CleanText::new(text) }
}
