//! `masternode ban`, `unban`, `listbanned`: orders about who may connect, to a running node.

use crate::cli::{BanArgs, ListBannedArgs, UnbanArgs};
use crate::commands::{Failure, Outcome, locate, output};
use masternode::rpc::client::ControlClient;
use masternode::telemetry::bans::BanInfo;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest ban: ten years.
const LENGTH_MAX_S: u64 = 10 * 365 * 86_400;

/// A length of time as `90s`, `30m`, `12h` or `7d`.
///
/// # Errors
/// For people.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a length of time: write 90s, 30m, 12h or 7d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text.strip_suffix(unit).unwrap_or_default().parse().map_err(|_| wrong())?;
    let length = number.checked_mul(seconds).filter(|length| (1..=LENGTH_MAX_S).contains(length));
    length.map(Duration::from_secs).ok_or_else(|| format!("`{text}`: from 1s to 3650d are possible"))
}

/// # Errors
/// [`Failure::Failed`] when no node runs there or it refuses.
pub fn ban(args: &BanArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let outcome = client.ban(&args.whom, args.length.as_secs(), &args.reason).map_err(Failure::failed)?;
    if outcome.members > 0 {
        output::note(&format!(
            "masternode: {} of the connections ended are of committee members; if the chain waits for them, lift the ban \
             with `masternode unban {}`",
            outcome.members, outcome.ban.subject
        ));
    }
    output::write(&format!(
        "banned {} for {}, {} connections ended\n",
        outcome.ban.subject,
        span_s(args.length.as_secs()),
        outcome.disconnected
    ))
}

/// # Errors
/// [`Failure::Failed`] when no node runs there or it refuses.
pub fn unban(args: &UnbanArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let lifted = client.unban(&args.whom).map_err(Failure::failed)?;
    let mut text = String::new();
    for ban in &lifted {
        let _ = writeln!(text, "lifted the ban of {}", ban.subject);
    }
    if lifted.is_empty() {
        text.push_str("no ban was in force; scores and back-offs are cleared\n");
    }
    output::write(&text)
}

/// # Errors
/// [`Failure::Failed`] when no node runs there.
pub fn list(args: &ListBannedArgs) -> Outcome {
    let config = locate::config(&args.node)?;
    let mut client = ControlClient::connect(&config.data_dir).map_err(Failure::failed)?;
    let bans = client.bans().map_err(Failure::failed)?;
    if args.json {
        let text = serde_json::to_string(&bans).map_err(Failure::failed)?;
        return output::write(&format!("{text}\n"));
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    output::write(&table(&bans, u64::try_from(now_ms).unwrap_or(u64::MAX)))
}

/// A ban in some lines, the newest first.
fn table(bans: &[BanInfo], now_ms: u64) -> String {
    if bans.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let mut text = String::new();
    for ban in bans {
        let by = if ban.automatic { "by the node" } else { "by the operator" };
        let left = span_s(ban.until_ms.saturating_sub(now_ms) / 1000);
        let _ = writeln!(text, "{}\n  {left} left, {by}: {}", ban.subject, ban.reason);
        if let Some(address) = &ban.address {
            let _ = writeln!(text, "  last seen at {address}");
        }
        if !ban.evidence.as_str().is_empty() {
            let _ = writeln!(text, "  evidence: {}", ban.evidence);
        }
    }
    text
}

fn span_s(s: u64) -> String {
    match (s / 86_400, s / 3600, s / 60) {
        (days @ 2.., _, _) => format!("{days} d {} h", s / 3600 % 24),
        (_, hours @ 1.., _) => format!("{hours} h {} m", s / 60 % 60),
        (_, _, minutes @ 1..) => format!("{minutes} m {} s", s % 60),
        _ => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_with_their_unit_and_nothing_else() {
        let seconds = |text: &str| duration(text).map(|length| length.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("30m"), Ok(1800));
        assert_eq!(seconds("12h"), Ok(43_200));
        assert_eq!(seconds("7d"), Ok(604_800));
        for wrong in ["", "s", "7", "-1h", "1.5h", "0s", "3651d", "99999999999999999999d", "5é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_list_says_until_when_why_and_on_what_evidence() {
        let ban = BanInfo {
            subject: "203.0.113.0/24".into(),
            since_ms: 0,
            until_ms: 3_660_000,
            automatic: true,
            reason: "it sent noise".into(),
            evidence: "bad frame; frame 00ff".into(),
            address: Some("203.0.113.5".into()),
        };
        assert_eq!(
            table(&[ban], 60_000),
            "203.0.113.0/24\n  1 h 0 m left, by the node: it sent noise\n  last seen at 203.0.113.5\n  \
             evidence: bad frame; frame 00ff\n"
        );
        assert_eq!(table(&[], 0), "nobody is banned\n");
    }
}
