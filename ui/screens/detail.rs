//! The detail of one row, found by identity in the data on screen: what is gone says so.

use crate::console::state::{RowKey, State};
use crate::keymap::Screen;
use crate::screens::{MARKS, chain, direction, mark, pool, votes};
use crate::theme::roles::Role;
use crate::widgets::format::{UNKNOWN, age, bytes, clock_precise, count, latency, money, offset};
use crate::widgets::pane::Canvas;
use masternode::telemetry::snapshot::{AlertInfo, PeerInfo, Snapshot};
use ratatui::text::Line;

/// A name and its value; the value may be a finished line.
type Field = (&'static str, Line<'static>);

fn field(name: &'static str, value: impl Into<String>) -> Field {
    (name, Line::from(value.into()))
}

/// Draws the detail over the whole screen.
pub fn draw(canvas: &mut Canvas<'_>, state: &State) {
    let Some(key) = &state.detail else { return };
    let found = match (key, state.snapshot()) {
        (RowKey::Number(number), _) => numbered(state, *number),
        (_, None) => None,
        (RowKey::Peer(id), Some(snapshot)) => peer(canvas, snapshot, id),
        (RowKey::Transaction(_), Some(snapshot)) => transaction(canvas, snapshot, key),
        (RowKey::Rejection(txid), Some(snapshot)) => {
            let found = snapshot.pool.rejections.iter().find(|entry| entry.txid == *txid);
            found.map(|entry| {
                let fields = vec![
                    field("id", entry.txid.to_string()),
                    field("code", entry.code.to_string()),
                    field("reason", entry.reason.to_string()),
                    field("refused", format!("{} ago", age(entry.age_ms))),
                ];
                ("Rejection", fields)
            })
        }
        (RowKey::Height(height), Some(snapshot)) => checkpoint(canvas, snapshot, *height),
        (RowKey::Member(voter), Some(snapshot)) => member(canvas, snapshot, *voter),
        // A node is opened, not described.
        (RowKey::Node(_), _) => None,
        (RowKey::Alert(time_ms, text), Some(snapshot)) => alert(state, snapshot, *time_ms, text),
    };
    let (title, fields) = found.unwrap_or_else(|| ("Detail", vec![field("gone", gone(key))]));
    let mut pane = canvas.pane(title, "j/k next row, Esc closes", true);
    let names = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let room = pane.width().saturating_sub(names).max(1);
    let mut row = 0;
    for (name, value) in fields {
        let label = Line::from(pane.span(name, Role::Dim));
        pane.line(row, &label);
        // A hash or a message longer than the pane goes on in the next rows.
        if value.width() <= room || value.spans.len() > 1 {
            pane.line_at(names, row, &value);
            row += 1;
            continue;
        }
        let characters: Vec<char> = value.spans.iter().flat_map(|span| span.content.chars()).collect();
        for part in characters.chunks(room) {
            let text: String = part.iter().collect();
            let line = Line::from(pane.span(text, Role::Text));
            pane.line_at(names, row, &line);
            row += 1;
        }
    }
}

fn gone(key: &RowKey) -> String {
    let what = match key {
        RowKey::Peer(_) => "this peer is no longer connected",
        RowKey::Transaction(_) => "this transaction is no longer listed: in a block, replaced or evicted",
        RowKey::Rejection(_) => "this rejection is no longer remembered",
        RowKey::Height(_) => "this checkpoint is no longer among the newest",
        RowKey::Member(_) => "this member left the committee",
        RowKey::Node(_) => "this node is not shown any more",
        RowKey::Alert(..) => "this alert does not stand any more",
        RowKey::Number(_) => "this record is no longer in memory; the log files have it",
    };
    what.to_owned()
}

fn alert(state: &State, snapshot: &Snapshot, time_ms: u64, text: &str) -> Found {
    let same = |alert: &&AlertInfo| alert.time_ms == time_ms && alert.text.as_str() == text;
    let alert = snapshot.alerts.iter().find(same)?;
    let seen = if state.is_acknowledged(alert) { "yes, on this console" } else { "no; a acknowledges it" };
    let fields = vec![
        field("level", format!("{:?}", alert.level).to_lowercase()),
        field("since", format!("{} UTC", clock_precise(alert.time_ms))),
        field("alert", alert.text.to_string()),
        field("seen", seen),
    ];
    Some(("Alert", fields))
}

type Found = Option<(&'static str, Vec<Field>)>;

fn peer(canvas: &Canvas<'_>, snapshot: &Snapshot, id: &str) -> Found {
    let peer = snapshot.peers.list.iter().find(|peer| peer.id == id)?;
    let voter = peer.voter.map_or_else(|| "none".to_owned(), |voter| format!("member {voter}"));
    let fields = vec![
        field("name", peer.name.to_string()),
        field("key", peer.id.clone()),
        field("address", peer.address.to_string()),
        field("direction", direction(canvas.look, peer.inbound)),
        field("committee", voter),
        field("agent", peer.agent.to_string()),
        field("height", format!("{} (own {})", count(peer.height), count(snapshot.chain.height))),
        field("round trip", peer.rtt_us.map_or_else(|| UNKNOWN.to_owned(), latency)),
        field("jitter", peer.jitter_us.map_or_else(|| UNKNOWN.to_owned(), latency)),
        field("clock", clock(peer)),
        field("received", bytes(peer.bytes_in)),
        field("sent", bytes(peer.bytes_out)),
        field("dropped", format!("{} messages, because it was slow", count(peer.dropped))),
        field("connected", format!("for {}", age(peer.age_ms))),
    ];
    Some(("Peer", fields))
}

/// `+2 ms against ours, within 6 ms`.
fn clock(peer: &PeerInfo) -> String {
    let error = peer.clock_error_ms.map_or_else(String::new, |error_ms| format!(", within {error_ms} ms"));
    format!("{} against ours{error}", offset(peer.clock_offset_ms))
}

fn transaction(canvas: &Canvas<'_>, snapshot: &Snapshot, key: &RowKey) -> Found {
    let RowKey::Transaction(txid) = key else { return None };
    let entry = snapshot.pool.entries.iter().find(|entry| entry.txid == *txid);
    let open = snapshot.consensus.open.iter().find(|open| open.txid == *txid);
    if entry.is_none() && open.is_none() {
        return None;
    }
    let mut fields = vec![field("id", txid.to_string())];
    if let Some(entry) = entry {
        let rate = entry.fee.saturating_mul(1000) / entry.size.max(1);
        fields.extend([
            ("state", pool::status(canvas.look, entry.status)),
            field("value", format!("{} TIME", entry.value)),
            field("fee", format!("{} ({} units per kB)", money(entry.fee), count(rate))),
            field("size", bytes(entry.size)),
            field("inputs", entry.inputs.to_string()),
            field("outputs", entry.outputs.to_string()),
            field("in pool", format!("for {}", age(entry.age_ms))),
        ]);
    }
    if let Some(open) = open {
        let consensus = &snapshot.consensus;
        let weight = |weight: u64| {
            let reached = if weight >= consensus.quorum_weight { "quorum reached" } else { "no quorum yet" };
            format!("weight {weight} of {}, {reached} ({})", consensus.total_weight, consensus.quorum_weight)
        };
        fields.push(field("prepares", weight(open.prepare_weight)));
        fields.push(field("commits", weight(open.commit_weight)));
        fields.push(field("first seen", format!("{} ago", age(open.age_ms))));
    }
    Some(("Transaction", fields))
}

fn checkpoint(canvas: &Canvas<'_>, snapshot: &Snapshot, height: u64) -> Found {
    let index = snapshot.checkpoints.iter().position(|block| block.height == height)?;
    let block = snapshot.checkpoints.get(index)?;
    // Marks align with the checkpoints at their newest end.
    let back = snapshot.checkpoints.len() - index;
    let mut fields = vec![
        field("height", count(block.height)),
        field("block", block.block.to_string()),
        field("state hash", block.state_hash.to_string()),
        field(
            "decided",
            format!(
                "{} UTC, {} ago",
                clock_precise(block.time_ms),
                age(snapshot.time_ms.saturating_sub(block.time_ms))
            ),
        ),
        field("round", block.round.to_string()),
        field("proposer", block.proposer.to_string()),
        field(
            "content",
            format!("{} transactions, {}", count(block.transactions.into()), bytes(block.bytes)),
        ),
        field("fees", money(block.fees)),
        field("pause", chain::pause(block)),
        ("signed", chain::signed(canvas.look, block)),
    ];
    for member in &snapshot.members {
        let each = member.signed.len().checked_sub(back).and_then(|at| member.signed.get(at));
        let line = each.map_or_else(
            || Line::from(format!("  {} {UNKNOWN}", member.name)),
            |each| {
                let (glyph, role, word) = mark(*each);
                let text = format!(
                    "{} {word:<7} {} (weight {})",
                    canvas.look.glyph(glyph),
                    member.name,
                    member.weight
                );
                Line::from(canvas.span(text, role))
            },
        );
        fields.push(("", line));
    }
    Some(("Checkpoint", fields))
}

fn member(canvas: &Canvas<'_>, snapshot: &Snapshot, voter: u16) -> Found {
    let member = snapshot.members.iter().find(|member| member.voter == voter)?;
    let connected = if member.own {
        "this node"
    } else if member.connected {
        "yes"
    } else {
        "no"
    };
    let mut fields = vec![
        field("name", member.name.to_string()),
        field("member", member.voter.to_string()),
        field("vote key", format!("{}", member.vote_key)),
        field("weight", format!("{} of {}", member.weight, snapshot.consensus.total_weight)),
        field("connected", connected),
        field("stream", format!("{} batches of this era without a gap", count(member.stream_head.into()))),
        field("votes", format!("{} counted since start", count(member.votes))),
        field(
            "last vote",
            member.last_vote_age_ms.map_or_else(|| UNKNOWN.to_owned(), |ms| format!("{} ago", age(ms))),
        ),
    ];
    for each in MARKS {
        let (glyph, role, word) = mark(each);
        let number = member.signed.iter().filter(|other| **other == each).count();
        let text = format!("{} {number} of the last {}", canvas.look.glyph(glyph), member.signed.len());
        fields.push((word, Line::from(canvas.span(text, role))));
    }
    if let Some(miss) = &member.last_miss {
        fields.push(field("last miss", format!("{}: {}", count(miss.height), miss.cause)));
    }
    for (code, number) in &member.misses {
        fields.push(field("cause", format!("{code} {}", count(*number))));
    }
    Some(("Member", fields))
}

fn numbered(state: &State, number: u64) -> Found {
    if state.screen == Screen::Votes {
        let node = state.node_data()?;
        let event = node.stream.iter().find(|event| event.sequence == number)?;
        let (_, text) = votes::describe(&event.kind);
        let fields = vec![
            field("event", count(event.sequence)),
            field("time", format!("{} UTC", clock_precise(event.time_ms))),
            field("what", text),
            field("all of it", serde_json::to_string(&event.kind).unwrap_or_default()),
        ];
        return Some(("Event", fields));
    }
    let logged = state.shown().logs.all().find(|line| line.number == number)?;
    let record = &logged.record;
    let mut fields = vec![
        field("record", count(logged.number)),
        field("time", format!("{} UTC", clock_precise(record.time_ms))),
        field("level", record.level.name()),
        field("module", record.target.to_string()),
        field("message", record.message.to_string()),
    ];
    for (name, value) in &record.fields {
        fields.push(("field", Line::from(format!("{name} = {value}"))));
    }
    Some(("Log record", fields))
}
