//! Scores and bans of the peers of one node: what the [`table`] decides, kept in a file and carried out.
//!
//! Who may not connect is known before its handshake costs anything: addresses are looked at before TLS, keys right
//! after it. News are for the node to tell; the file is written by one writer at a time, after every change.
//! Absent: what an offence is (callers name it with a [`Charge`](offence::Charge)), and ending connections.

pub mod file;
pub mod offence;
pub mod subject;
pub mod table;

#[cfg(test)]
mod tests;

use crate::durable::WriteError;
use crate::network::bans::offence::Charge;
use crate::network::bans::subject::Subject;
use crate::network::bans::table::{Ban, Full, Moment, Offender, Table, Verdict};
use crate::network::handshake::{CloseCode, Refusal};
use crate::primitives::keys::PublicKey;
use parking_lot::Mutex;
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;
use tokio::time::Instant;

/// News not yet told; the oldest are lost.
const NEWS_MAX: usize = 256;

/// What the node is told.
#[derive(Clone, Debug, PartialEq)]
pub enum BanNews {
    /// Somebody is banned from now on.
    Banned(Ban),
    /// A ban is over: its time was up, or the operator lifted it (`lifted`).
    Over { ban: Ban, lifted: bool },
    /// The score of a member of the committee calls for a ban, which members do not get: it is kept out for `ms`.
    MemberHeld { key: PublicKey, vote_key: PublicKey, ms: u64, charge: Charge },
    /// Automatic bans are stopped for a while: `wanted` of `peers` within a minute.
    BreakerOpen { wanted: usize, peers: usize },
}

/// Figures; reading them costs no lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BanCounts {
    /// Bans in force.
    pub bans: usize,
    /// Offences since start that count.
    pub offences: u64,
    /// Automatic bans since start.
    pub automatic: u64,
    /// Connections refused since start because of a ban.
    pub refused: u64,
    pub breaker_open: bool,
}

/// See the module.
pub struct Bans {
    table: Mutex<Table>,
    begun: Instant,
    file: Option<PathBuf>,
    /// Held while the file is written, so that an older state never replaces a newer one.
    writing: Mutex<()>,
    unsaved: AtomicBool,
    /// Bans, and those of them that are about addresses.
    counts: (AtomicUsize, AtomicUsize),
    offences: AtomicU64,
    automatic: AtomicU64,
    refused: AtomicU64,
    news: Mutex<VecDeque<BanNews>>,
    changed: Notify,
}

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    crate::network::context::wall_us() / 1000
}

impl Bans {
    /// The bans of `file`, if there is one. Blocks for reading it.
    #[must_use]
    pub fn open(path: Option<PathBuf>) -> Self {
        let kept = path.as_deref().map(file::load).unwrap_or_default();
        let now = Moment { monotonic_ms: 0, wall_ms: wall_ms() };
        let bans = Self {
            table: Mutex::new(Table::new(kept, now)),
            begun: Instant::now(),
            file: path,
            writing: Mutex::default(),
            unsaved: AtomicBool::new(false),
            counts: Default::default(),
            offences: AtomicU64::new(0),
            automatic: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            news: Mutex::default(),
            changed: Notify::new(),
        };
        bans.count(&bans.table.lock());
        bans
    }

    fn now(&self) -> Moment {
        let monotonic_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment { monotonic_ms, wall_ms: wall_ms() }
    }

    fn count(&self, table: &Table) {
        let (bans, ranges) = table.counts();
        self.counts.0.store(bans, Relaxed);
        self.counts.1.store(ranges, Relaxed);
    }

    fn tell(&self, news: impl IntoIterator<Item = BanNews>) {
        let mut waiting = self.news.lock();
        for each in news {
            if waiting.len() >= NEWS_MAX {
                waiting.pop_front();
            }
            waiting.push_back(each);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Counts an offence and does what follows, but for ending the connection.
    pub fn offend(&self, who: &Offender, charge: &Charge) -> Verdict {
        if charge.offence.weight() > 0.0 {
            self.offences.fetch_add(1, Relaxed);
        }
        let verdict = {
            let mut table = self.table.lock();
            let verdict = table.offend(who, charge, self.now());
            self.count(&table);
            verdict
        };
        match &verdict {
            Verdict::Banned(bans) => {
                self.automatic.fetch_add(u64::try_from(bans.len()).unwrap_or(u64::MAX), Relaxed);
                self.unsaved.store(true, Relaxed);
                self.tell(bans.iter().cloned().map(BanNews::Banned));
            }
            Verdict::Member { ms } => {
                let (key, vote_key) = (who.key, who.account());
                self.tell([BanNews::MemberHeld { key, vote_key, ms: *ms, charge: charge.clone() }]);
            }
            Verdict::Breaker { opened: Some((wanted, peers)), .. } => {
                self.tell([BanNews::BreakerOpen { wanted: *wanted, peers: *peers }]);
            }
            Verdict::Breaker { .. } | Verdict::Held { .. } => {}
        }
        verdict
    }

    /// Bans by order of the operator, for so long from now; the ban as it stands.
    ///
    /// # Errors
    /// [`Full`].
    pub fn ban(&self, subject: Subject, for_ms: u64, reason: &str) -> Result<Ban, Full> {
        let now = self.now();
        let ban = Ban {
            subject,
            since_ms: now.wall_ms,
            until_ms: now.wall_ms.saturating_add(for_ms.min(table::MANUAL_MS_MAX)),
            automatic: false,
            reason: crate::primitives::clean::CleanText::limited(reason, 200),
            evidence: Default::default(),
            address: None,
            vote_key: None,
        };
        {
            let mut table = self.table.lock();
            table.ban(ban.clone(), now)?;
            self.count(&table);
        }
        self.unsaved.store(true, Relaxed);
        self.tell([BanNews::Banned(ban.clone())]);
        Ok(ban)
    }

    /// Lifts the bans of a subject and forgets its scores; `None` for everybody's.
    pub fn lift(&self, subject: Option<&Subject>) -> Vec<Ban> {
        let lifted = {
            let mut table = self.table.lock();
            let lifted = table.lift(subject);
            self.count(&table);
            lifted
        };
        self.unsaved.store(true, Relaxed);
        self.tell(lifted.iter().cloned().map(|ban| BanNews::Over { ban, lifted: true }));
        lifted
    }

    /// Lifts the automatic bans of who is in the committee from now on.
    pub fn spare(&self, committee: &BTreeSet<PublicKey>) {
        if self.counts.0.load(Relaxed) == 0 {
            return;
        }
        let lifted = {
            let mut table = self.table.lock();
            let lifted = table.lift_members(committee);
            self.count(&table);
            lifted
        };
        if !lifted.is_empty() {
            self.unsaved.store(true, Relaxed);
            self.tell(lifted.into_iter().map(|ban| BanNews::Over { ban, lifted: false }));
        }
    }

    /// Ends what is over. To be called now and then.
    pub fn end(&self) {
        let over = {
            let mut table = self.table.lock();
            let over = table.end(self.now());
            self.count(&table);
            over
        };
        if !over.is_empty() {
            self.unsaved.store(true, Relaxed);
            self.tell(over.into_iter().map(|ban| BanNews::Over { ban, lifted: false }));
        }
    }

    /// Whether nobody may connect from an address, or be dialled there. Without such bans it costs no lock.
    #[must_use]
    pub fn refuses_address(&self, ip: IpAddr, dialled: bool) -> bool {
        if self.counts.1.load(Relaxed) == 0 {
            return false;
        }
        let refused = self.table.lock().of_address(ip, dialled, self.now()).is_some();
        if refused {
            self.refused.fetch_add(1, Relaxed);
        }
        refused
    }

    /// Whether a peer may connect that has proven its network key.
    ///
    /// # Errors
    /// [`Refusal`] saying until when and why not.
    pub fn admits(&self, key: &PublicKey) -> Result<(), Refusal> {
        let now = self.now();
        let table = self.table.lock();
        if let Some(ban) = table.of_key(key, now) {
            self.refused.fetch_add(1, Relaxed);
            let minutes = ban.until_ms.saturating_sub(now.wall_ms).div_ceil(60_000);
            let text = format!("banned for {minutes} more minutes: {}", ban.reason);
            return Err(Refusal::new(CloseCode::Banned, &text));
        }
        held(&table, key, now)
    }

    /// Whether a member of the committee may connect, whatever network key it comes with; the vote key of a stranger
    /// has no account.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn admits_member(&self, vote_key: &PublicKey) -> Result<(), Refusal> {
        held(&self.table.lock(), vote_key, self.now())
    }

    /// All bans, the newest first.
    #[must_use]
    pub fn list(&self) -> Vec<Ban> {
        let now = self.now();
        let mut bans = self.table.lock().bans();
        bans.retain(|ban| ban.until_ms > now.wall_ms);
        bans
    }

    /// Figures.
    #[must_use]
    pub fn counts(&self) -> BanCounts {
        BanCounts {
            bans: self.counts.0.load(Relaxed),
            offences: self.offences.load(Relaxed),
            automatic: self.automatic.load(Relaxed),
            refused: self.refused.load(Relaxed),
            breaker_open: self.table.lock().is_breaker_open(self.now()),
        }
    }

    /// What there is to tell; nothing twice.
    pub fn take_news(&self) -> Vec<BanNews> {
        self.news.lock().drain(..).collect()
    }

    /// Waits for news. Cancelling loses nothing.
    pub async fn wait_for_news(&self) {
        self.changed.notified().await;
    }

    /// Writes the file if anything has changed. Blocks.
    ///
    /// # Errors
    /// [`WriteError`]; then it is tried again with the next change.
    pub fn save(&self) -> Result<(), WriteError> {
        let Some(file) = &self.file else { return Ok(()) };
        let _only_writer = self.writing.lock();
        if !self.unsaved.swap(false, Relaxed) {
            return Ok(());
        }
        file::save(file, &self.list()).inspect_err(|_| self.unsaved.store(true, Relaxed))
    }
}

fn held(table: &Table, account: &PublicKey, now: Moment) -> Result<(), Refusal> {
    match table.held(account, now) {
        Some(ms) => {
            let text = format!("cut off a moment ago: not let in for {ms} ms more");
            Err(Refusal::new(CloseCode::Held, &text))
        }
        None => Ok(()),
    }
}
