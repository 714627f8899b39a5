//! Scores and bans as one pure table: time is an argument.
//!
//! Invariants: scores and bans are bounded; a score halves every [`HALF_LIFE_MS`] and outlives the connection by
//! [`SUSPECT_MS`]; an automatic ban ends within [`BAN_MS_MAX`]; a member of the committee is never banned
//! automatically; a range of addresses is, only after several keys from it were, never one of this machine or of a
//! private network and never while a member is connected from it; while the breaker is open nobody is.

use crate::network::bans::offence::Charge;
use crate::network::bans::subject::{Range, Subject};
use crate::network::netgroup::is_local;
use crate::primitives::clean::CleanText;
use crate::primitives::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// A score from here on leads to a ban.
pub const BAN_SCORE: f64 = 100.0;
/// In this time a score halves.
pub const HALF_LIFE_MS: u64 = 10 * 60_000;
/// For so long after the last offence, or the end of the ban, a peer is remembered.
pub const SUSPECT_MS: u64 = 60 * 60_000;
/// First ban of a key; each further one while it is remembered is four times as long.
pub const BAN_MS: u64 = 60 * 60_000;
/// Longest automatic ban.
pub const BAN_MS_MAX: u64 = 24 * 60 * 60_000;
/// Longest ban by the operator: ten years.
pub const MANUAL_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60_000;
/// Different keys that were banned within [`SUSPECT_MS`] before their common address is: behind one address there
/// may be many who have nothing to do with each other.
pub const KEYS_OF_ADDRESS: usize = 3;
/// The ban of such an address.
const ADDRESS_BAN_MS: u64 = 60 * 60_000;
/// Automatic bans are counted over this time for the breaker.
const BREAKER_WINDOW_MS: u64 = 60_000;
/// One of so many peers may be banned in that time, and one in any case.
const BREAKER_SHARE: usize = 4;
/// For so long the breaker stays open.
pub const BREAKER_MS: u64 = 5 * 60_000;
/// First time that a peer which was cut off is not let in again; doubled with each offence up to the limits, of which
/// the second is for what weighs nothing.
const HOLD_MS: u64 = 1000;
const HOLD_MS_MAX: u64 = 60_000;
const HOLD_LIGHT_MS_MAX: u64 = 5000;
/// Peers remembered; the one with the lowest score is forgotten for a new one.
pub const SUSPECTS_MAX: usize = 4096;
/// Bans at a time; the automatic one that ends first makes room.
pub const BANS_MAX: usize = 1024;

/// Both clocks in milliseconds: monotonic for scores, since 1970 for bans, which outlive the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub monotonic_ms: u64,
    pub wall_ms: u64,
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    #[serde(with = "as_text")]
    pub subject: Subject,
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// Milliseconds since 1970.
    pub until_ms: u64,
    /// By this node, not by its operator.
    pub automatic: bool,
    pub reason: CleanText,
    /// The last offence, or nothing.
    pub evidence: CleanText,
    /// Where a banned key was seen last.
    pub address: Option<IpAddr>,
    /// Vote key that had certified a banned key.
    pub vote_key: Option<PublicKey>,
}

mod as_text {
    use crate::network::bans::subject::Subject;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(subject: &Subject, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(subject)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Subject, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Who did something.
#[derive(Clone, Copy, Debug)]
pub struct Offender {
    /// Network key that TLS has proven.
    pub key: PublicKey,
    /// Vote key that has certified it.
    pub vote_key: Option<PublicKey>,
    /// Whether that is one of the committee.
    pub is_member: bool,
    pub ip: IpAddr,
    /// Whether a member of the committee is connected from the same address.
    pub beside_member: bool,
    /// Connections there are, this one included.
    pub peers: usize,
}

impl Offender {
    /// Whose score it is: a vote key can certify any number of network keys.
    #[must_use]
    pub fn account(&self) -> PublicKey {
        self.vote_key.filter(|_| self.is_member).unwrap_or(self.key)
    }
}

/// What follows from an offence; the connection ends in each case but that of a flood below a ban.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Not let in again for this long.
    Held { ms: u64 },
    /// Banned: the key, and its address if that was one too many.
    Banned(Vec<Ban>),
    /// Its score calls for a ban and it is a member of the committee: held.
    Member { ms: u64 },
    /// Its score calls for a ban and the breaker is open; `opened` by this very one, with how many peers it would
    /// have been of how many.
    Breaker { ms: u64, opened: Option<(usize, usize)> },
}

/// Memory of one account.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// Network key and address it came with last.
    key: PublicKey,
    ip: IpAddr,
    score: f64,
    /// When that was its score, and of its last offence.
    at_ms: u64,
    /// Offences in a row.
    offences: u32,
    /// Bans it has had.
    bans: u32,
    /// Not let in before.
    held_until_ms: u64,
    /// Forgotten then.
    until_ms: u64,
}

impl Suspect {
    fn score_at(&self, now_ms: u64) -> f64 {
        let halves = now_ms.saturating_sub(self.at_ms) as f64 / HALF_LIFE_MS as f64;
        self.score * (-halves).exp2()
    }
}

/// Scores and bans.
#[derive(Debug, Default)]
pub struct Table {
    suspects: BTreeMap<PublicKey, Suspect>,
    bans: BTreeMap<Subject, Ban>,
    /// When whose score called for a ban.
    called: VecDeque<(u64, PublicKey)>,
    breaker_until_ms: u64,
}

/// A table of bans that is full of the operator's own.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {BANS_MAX} bans already: lift some with `masternode unban`, or ban a range of addresses")]
pub struct Full;

impl Table {
    /// With the bans of an earlier run.
    #[must_use]
    pub fn new(bans: Vec<Ban>, now: Moment) -> Self {
        let mut table = Self::default();
        for mut ban in bans.into_iter().take(BANS_MAX) {
            // A clock that was wrong then must not make it longer.
            let longest = if ban.automatic { BAN_MS_MAX } else { MANUAL_MS_MAX };
            ban.until_ms = ban.until_ms.min(now.wall_ms.saturating_add(longest));
            if ban.until_ms > now.wall_ms {
                table.bans.insert(ban.subject, ban);
            }
        }
        table
    }

    /// Counts an offence.
    pub fn offend(&mut self, who: &Offender, charge: &Charge, now: Moment) -> Verdict {
        self.make_room(now);
        let now_ms = now.monotonic_ms;
        let weight = charge.offence.weight();
        let fresh = Suspect {
            key: who.key,
            ip: who.ip,
            score: 0.0,
            at_ms: now_ms,
            offences: 0,
            bans: 0,
            held_until_ms: 0,
            until_ms: 0,
        };
        let suspect = self.suspects.entry(who.account()).or_insert(fresh);
        (suspect.key, suspect.ip) = (who.key, who.ip);
        let quiet = now_ms.saturating_sub(suspect.at_ms) > HALF_LIFE_MS;
        suspect.offences = if quiet { 1 } else { suspect.offences.saturating_add(1) };
        suspect.score = suspect.score_at(now_ms) + weight;
        suspect.at_ms = now_ms;
        suspect.until_ms = now_ms.saturating_add(SUSPECT_MS);
        let longest = if weight > 0.0 { HOLD_MS_MAX } else { HOLD_LIGHT_MS_MAX };
        let ms = (HOLD_MS << (suspect.offences - 1).min(16)).min(longest);
        suspect.held_until_ms = suspect.held_until_ms.max(now_ms.saturating_add(ms));
        if weight <= 0.0 || suspect.score < BAN_SCORE {
            return Verdict::Held { ms };
        }
        if who.is_member {
            return Verdict::Member { ms };
        }
        match self.may_ban(who, now_ms) {
            Ok(()) => Verdict::Banned(self.ban_automatically(who, charge, now)),
            Err(opened) => Verdict::Breaker { ms, opened },
        }
    }

    /// Whether the breaker lets this ban pass; otherwise whether it opened by this, and at how many of how many.
    fn may_ban(&mut self, who: &Offender, now_ms: u64) -> Result<(), Option<(usize, usize)>> {
        while self.called.front().is_some_and(|(at, _)| now_ms.saturating_sub(*at) > BREAKER_WINDOW_MS)
            || self.called.len() >= SUSPECTS_MAX
        {
            self.called.pop_front();
        }
        self.called.push_back((now_ms, who.key));
        let wanted: BTreeSet<PublicKey> = self.called.iter().map(|(_, key)| *key).collect();
        // Those banned in this minute are no longer among the connections.
        let peers = who.peers.max(1) + wanted.len() - 1;
        if self.breaker_until_ms > now_ms {
            return Err(None);
        }
        if wanted.len() > (peers / BREAKER_SHARE).max(1) {
            self.breaker_until_ms = now_ms.saturating_add(BREAKER_MS);
            return Err(Some((wanted.len(), peers)));
        }
        Ok(())
    }

    fn ban_automatically(&mut self, who: &Offender, charge: &Charge, now: Moment) -> Vec<Ban> {
        let mut length_ms = BAN_MS;
        if let Some(suspect) = self.suspects.get_mut(&who.account()) {
            length_ms = (BAN_MS << (2 * suspect.bans).min(16)).min(BAN_MS_MAX);
            suspect.bans += 1;
            suspect.score = 0.0;
            suspect.until_ms = now.monotonic_ms.saturating_add(length_ms + SUSPECT_MS);
        }
        let ban = |subject, length_ms: u64, reason: String| Ban {
            subject,
            since_ms: now.wall_ms,
            until_ms: now.wall_ms.saturating_add(length_ms),
            automatic: true,
            reason: CleanText::new(&reason),
            evidence: charge.evidence(),
            address: Some(who.ip.to_canonical()),
            vote_key: who.vote_key,
        };
        let reason = format!("it sent {} again and again", charge.offence.words());
        let mut bans = vec![ban(Subject::Key(who.key), length_ms, reason)];
        let range = Range::around(who.ip);
        let recent = now.wall_ms.saturating_sub(SUSPECT_MS);
        let of_address = self.bans.values().filter(|held| {
            let is_key = matches!(held.subject, Subject::Key(key) if key != who.key);
            let from_there = held.address.is_some_and(|ip| range.contains(ip));
            is_key && from_there && held.automatic && held.since_ms >= recent
        });
        if of_address.count() + 1 >= KEYS_OF_ADDRESS && !is_local(who.ip) && !who.beside_member {
            let reason = format!("{KEYS_OF_ADDRESS} peers from there were banned within an hour");
            bans.push(ban(Subject::Range(range), ADDRESS_BAN_MS, reason));
        }
        // A table full of the operator's bans keeps those; the peer is held as one that was cut off.
        bans.retain(|ban| self.insert(ban.clone()).is_ok());
        bans
    }

    /// Bans by order of the operator.
    ///
    /// # Errors
    /// [`Full`].
    pub fn ban(&mut self, ban: Ban, now: Moment) -> Result<(), Full> {
        self.make_room(now);
        self.insert(ban)
    }

    fn insert(&mut self, ban: Ban) -> Result<(), Full> {
        if let Some(held) = self.bans.get(&ban.subject)
            && ban.automatic
            && held.until_ms >= ban.until_ms
        {
            return Ok(());
        }
        if self.bans.len() >= BANS_MAX && !self.bans.contains_key(&ban.subject) {
            let automatic = self.bans.values().filter(|held| held.automatic);
            let first = automatic.min_by_key(|held| held.until_ms).map(|held| held.subject).ok_or(Full)?;
            self.bans.remove(&first);
        }
        self.bans.insert(ban.subject, ban);
        Ok(())
    }

    /// Makes room for one more suspect.
    fn make_room(&mut self, now: Moment) {
        if self.suspects.len() < SUSPECTS_MAX {
            return;
        }
        let now_ms = now.monotonic_ms;
        self.suspects.retain(|_, suspect| suspect.until_ms > now_ms);
        if self.suspects.len() >= SUSPECTS_MAX {
            let scored = self.suspects.iter().map(|(key, suspect)| (suspect.score_at(now_ms), *key));
            let lowest = scored.min_by(|one, other| one.0.total_cmp(&other.0));
            if let Some((_, key)) = lowest {
                self.suspects.remove(&key);
            }
        }
    }

    /// Removes and returns the bans that are over, and forgets who was quiet for long.
    pub fn end(&mut self, now: Moment) -> Vec<Ban> {
        self.suspects.retain(|_, suspect| suspect.until_ms > now.monotonic_ms);
        let over: Vec<Subject> =
            self.bans.values().filter(|ban| ban.until_ms <= now.wall_ms).map(|ban| ban.subject).collect();
        over.iter().filter_map(|subject| self.bans.remove(subject)).collect()
    }

    /// Lifts the automatic bans of who is a member of the committee now. Returns them.
    pub fn lift_members(&mut self, committee: &BTreeSet<PublicKey>) -> Vec<Ban> {
        let of_member =
            |ban: &&Ban| ban.automatic && ban.vote_key.is_some_and(|key| committee.contains(&key));
        let lifted: Vec<Subject> = self.bans.values().filter(of_member).map(|ban| ban.subject).collect();
        lifted.iter().filter_map(|subject| self.bans.remove(subject)).collect()
    }

    /// Lifts every ban that keeps a subject out, and forgets its scores; `None` for everybody's, and closes the
    /// breaker. Returns the bans that were lifted.
    pub fn lift(&mut self, subject: Option<&Subject>) -> Vec<Ban> {
        let Some(subject) = subject else {
            self.suspects.clear();
            self.called.clear();
            self.breaker_until_ms = 0;
            return std::mem::take(&mut self.bans).into_values().collect();
        };
        let seen_at = self.bans.get(subject).and_then(|ban| ban.address);
        let lifted: Vec<Subject> =
            self.bans.values().filter(|ban| is_about(ban, subject, seen_at)).map(|ban| ban.subject).collect();
        let lifted: Vec<Ban> = lifted.iter().filter_map(|subject| self.bans.remove(subject)).collect();
        // Whoever else came from the same address has earned its own score.
        let keys = lifted.iter().map(|ban| ban.subject).filter(|lifted| matches!(lifted, Subject::Key(_)));
        let keys: Vec<Subject> = keys.chain([*subject]).collect();
        for subject in keys {
            self.forgive(&subject);
        }
        lifted
    }

    /// Forgets the scores of a subject; that of a member is found by either of its keys.
    fn forgive(&mut self, subject: &Subject) {
        let called = &mut self.called;
        self.suspects.retain(|account, suspect| {
            let meant = match subject {
                Subject::Key(key) => account == key || suspect.key == *key,
                Subject::Range(range) => range.contains(suspect.ip),
            };
            if meant {
                called.retain(|(_, key)| *key != suspect.key);
            }
            !meant
        });
    }

    /// The ban that keeps an address out; an automatic one does so only when the address is not this node's choice
    /// (`dialled`): behind it there may be others.
    #[must_use]
    pub fn of_address(&self, ip: IpAddr, dialled: bool, now: Moment) -> Option<&Ban> {
        self.bans.values().find(|ban| {
            let fits = matches!(ban.subject, Subject::Range(range) if range.contains(ip));
            fits && ban.until_ms > now.wall_ms && !(dialled && ban.automatic)
        })
    }

    /// The ban that keeps a network key out.
    #[must_use]
    pub fn of_key(&self, key: &PublicKey, now: Moment) -> Option<&Ban> {
        self.bans.get(&Subject::Key(*key)).filter(|ban| ban.until_ms > now.wall_ms)
    }

    /// For how many milliseconds an account that was cut off is not let in.
    #[must_use]
    pub fn held(&self, account: &PublicKey, now: Moment) -> Option<u64> {
        let until = self.suspects.get(account)?.held_until_ms;
        until.checked_sub(now.monotonic_ms).filter(|left| *left > 0)
    }

    /// The score of an account now.
    #[must_use]
    pub fn score(&self, account: &PublicKey, now: Moment) -> f64 {
        self.suspects.get(account).map_or(0.0, |suspect| suspect.score_at(now.monotonic_ms))
    }

    /// All bans, the newest first.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        let mut bans: Vec<Ban> = self.bans.values().cloned().collect();
        bans.sort_by_key(|ban| std::cmp::Reverse(ban.since_ms));
        bans
    }

    /// How many bans there are, and how many of them are ranges of addresses.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let ranges = self.bans.keys().filter(|subject| matches!(subject, Subject::Range(_)));
        (self.bans.len(), ranges.count())
    }

    /// Whether automatic bans are stopped.
    #[must_use]
    pub fn is_breaker_open(&self, now: Moment) -> bool {
        self.breaker_until_ms > now.monotonic_ms
    }

    /// Peers remembered.
    #[must_use]
    pub fn suspects(&self) -> usize {
        self.suspects.len()
    }
}

/// Whether lifting the ban of `subject`, a key last seen at an address, has to lift this one too: it is the same, or
/// the two keep each other's peers out. The operator's own bans of another kind stay.
fn is_about(ban: &Ban, subject: &Subject, seen_at: Option<IpAddr>) -> bool {
    match (ban.subject, subject) {
        (Subject::Key(key), Subject::Key(subject)) => key == *subject,
        (Subject::Range(range), Subject::Range(subject)) => range.overlaps(subject),
        (Subject::Range(range), Subject::Key(_)) => {
            ban.automatic && seen_at.is_some_and(|ip| range.contains(ip))
        }
        (Subject::Key(_), Subject::Range(range)) => {
            ban.automatic && ban.address.is_some_and(|ip| range.contains(ip))
        }
    }
}
