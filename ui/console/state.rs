//! Everything the console knows: data of the nodes, where the operator is, the time. No I/O.
//!
//! Invariants: every list is bounded; what a detail shows is bound by identity ([`RowKey`]), never by
//! a row's position; while frozen, `live` goes on and `shown()` stands still.

use crate::console::palette::Palette;
use crate::console::source::{Events, LinkState, Phase};
use crate::keymap::{Context, Screen};
use crate::theme::Look;
use masternode::primitives::clean::CleanText;
use masternode::primitives::hash::Txid;
use masternode::telemetry::event::{Event, EventKind};
use masternode::telemetry::log::{LogLevel, LogPage, LogRecord};
use masternode::telemetry::snapshot::{AlertInfo, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;

/// Lines of the vote stream kept for a node: some seconds at full load, more than a screen.
pub const STREAM_MAX: usize = 512;
/// Log records kept for the screen; the node's ring and the files hold more.
pub const LOGS_MAX: usize = 5_000;
/// Records of WARN and above kept beside, so that chatter cannot push them out.
pub const WARNINGS_MAX: usize = 1_000;
/// Longest filter an operator can type.
pub const FILTER_CHARS_MAX: usize = 80;
/// Alerts remembered as acknowledged: a node has at most 64 that stand.
const ACKNOWLEDGED_MAX: usize = 1_024;
/// A snapshot older than this is shown as stale.
pub const STALE_MS: u64 = 5_000;

/// A list with a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListId {
    Members,
    Stream,
    Open,
    Peers,
    Pool,
    Rejections,
    Chain,
    Logs,
    Help,
    Fleet,
    Alerts,
    Audit,
}

const LISTS: usize = 12;

impl ListId {
    /// The lists of a screen in the order of `Tab`.
    pub const fn of(screen: Screen) -> &'static [Self] {
        match screen {
            Screen::Overview => &[],
            Screen::Votes => &[Self::Stream, Self::Open, Self::Members],
            Screen::Peers => &[Self::Peers],
            Screen::Pool => &[Self::Pool, Self::Rejections],
            Screen::Chain => &[Self::Chain],
            Screen::Logs => &[Self::Logs],
            Screen::Help => &[Self::Help],
            Screen::Fleet => &[Self::Fleet],
            Screen::Host => &[Self::Alerts, Self::Audit],
        }
    }

    /// Lists that grow at their end and are followed there.
    pub const fn follows(self) -> bool {
        matches!(self, Self::Stream | Self::Logs)
    }

    /// Columns that can be sorted; 0 when the order is fixed.
    pub const fn sortable(self) -> usize {
        match self {
            Self::Peers => 8,
            Self::Pool => 5,
            Self::Chain => 6,
            Self::Open => 4,
            _ => 0,
        }
    }
}

/// Identity of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowKey {
    Peer(String),
    Transaction(Txid),
    Rejection(Txid),
    Height(u64),
    Member(u16),
    /// Number of an event or a log record.
    Number(u64),
    /// One of several nodes.
    Node(usize),
    /// An alert, by when it began and what it says.
    Alert(u64, String),
}

/// Cursor, order and filter of one list.
#[derive(Clone, Debug, Default)]
pub struct ListState {
    /// The selected row; `None` is the first one, or the end of a list that is followed.
    pub selected: Option<RowKey>,
    /// Where it was, for when it is gone.
    pub index: usize,
    /// Column it is sorted by; `None` is the list's own order.
    pub sort: Option<usize>,
    pub descending: bool,
    pub filter: String,
    /// Columns scrolled to the right.
    pub column: usize,
}

/// One line of the vote stream or the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub number: u64,
    pub record: Arc<LogRecord>,
}

/// Data of one node.
#[derive(Clone, Debug, Default)]
pub struct NodeData {
    pub name: CleanText,
    pub snapshot: Option<Arc<Snapshot>>,
    /// Events of consensus and of bans, oldest first, at most [`STREAM_MAX`].
    pub stream: VecDeque<Arc<Event>>,
    /// Consensus events so far.
    pub streamed: u64,
    /// Events lost because the console was slow.
    pub missed: u64,
    pub link: LinkState,
}

/// Log records of the process.
#[derive(Clone, Debug, Default)]
pub struct LogData {
    pub lines: VecDeque<Logged>,
    pub warnings: VecDeque<Logged>,
    /// Records so far.
    pub received: u64,
    /// Records the node's ring had dropped before the console read them.
    pub skipped: u64,
    /// Number to ask from next.
    pub next: u64,
}

/// What the screens show.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub nodes: Vec<NodeData>,
    pub logs: LogData,
    pub phases: Vec<Phase>,
}

/// The question on leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuitChoice {
    Detach,
    Stop,
    Cancel,
}

/// A stop that waits for its confirmation: of this node, whatever is on screen by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stopping {
    pub node: usize,
    pub name: CleanText,
    pub typed: String,
}

/// Whose nodes a console shows, and what it may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hosting {
    /// Those of its own process.
    #[default]
    Own,
    /// Of others, to look at.
    View,
    /// What was recorded of one.
    Replay,
    /// Of others, with orders.
    Operate,
}

/// All of it.
#[derive(Debug)]
pub struct State {
    /// Milliseconds since 1970.
    pub now_ms: u64,
    /// When the console started.
    pub started_ms: u64,
    /// What the program calls itself in the header before the node has a name.
    pub title: CleanText,
    /// Whether the caller can run on without a console.
    pub can_detach: bool,
    /// Whose nodes are shown.
    pub hosting: Hosting,
    pub looks: Vec<Look>,
    pub look: usize,
    pub screen: Screen,
    /// Screen to return to from the help.
    pub before_help: Screen,
    pub focus: usize,
    pub lists: [ListState; LISTS],
    /// The row whose detail is open.
    pub detail: Option<RowKey>,
    /// Filter being typed, for the focused list.
    pub input: Option<String>,
    /// The palette, while it is open.
    pub palette: Option<Palette>,
    pub dialog: Option<QuitChoice>,
    /// The name being typed to confirm that a node is stopped, and that node.
    pub stopping: Option<Stopping>,
    /// Least level the log shows.
    pub level: LogLevel,
    /// Whether the focused pane has the whole screen.
    pub zoomed: bool,
    /// Alerts the operator has acknowledged, by node, time and text; the oldest go first.
    pub acknowledged: VecDeque<(usize, u64, String)>,
    /// Whether the log shows the records of every node of the process.
    pub all_nodes: bool,
    pub node: usize,
    pub live: Data,
    pub frozen: Option<Box<Data>>,
    /// A short answer to the last key.
    pub notice: Option<String>,
}

impl State {
    /// The state before anything is known. `looks` must not be empty; `look` is the first used.
    pub fn new(title: CleanText, names: Vec<CleanText>, looks: Vec<Look>, look: usize, now_ms: u64) -> Self {
        let nodes = names.into_iter().map(|name| NodeData { name, ..NodeData::default() }).collect();
        Self {
            now_ms,
            started_ms: now_ms,
            title,
            can_detach: false,
            hosting: Hosting::Own,
            looks,
            look,
            screen: Screen::Overview,
            before_help: Screen::Overview,
            focus: 0,
            lists: std::array::from_fn(|_| ListState::default()),
            detail: None,
            input: None,
            palette: None,
            dialog: None,
            stopping: None,
            level: LogLevel::Info,
            zoomed: false,
            acknowledged: VecDeque::new(),
            all_nodes: false,
            node: 0,
            live: Data { nodes, ..Data::default() },
            frozen: None,
            notice: None,
        }
    }

    /// Whether the operator has acknowledged an alert of the node on screen.
    pub fn is_acknowledged(&self, alert: &AlertInfo) -> bool {
        self.acknowledged.iter().any(|(node, time_ms, text)| {
            *node == self.node && *time_ms == alert.time_ms && text == alert.text.as_str()
        })
    }

    /// Acknowledges an alert of the node on screen.
    pub fn acknowledge(&mut self, time_ms: u64, text: String) {
        let entry = (self.node, time_ms, text);
        if !self.acknowledged.contains(&entry) {
            self.acknowledged.push_back(entry);
        }
        if self.acknowledged.len() > ACKNOWLEDGED_MAX {
            self.acknowledged.pop_front();
        }
    }

    /// The data on screen.
    pub fn shown(&self) -> &Data {
        self.frozen.as_deref().unwrap_or(&self.live)
    }

    /// The node on screen.
    pub fn node_data(&self) -> Option<&NodeData> {
        self.shown().nodes.get(self.node)
    }

    /// Its picture.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.node_data()?.snapshot.as_deref()
    }

    /// Time of the data on screen: that of the freeze while frozen.
    pub fn data_age_ms(&self) -> u64 {
        self.snapshot().map_or(0, |snapshot| self.now_ms.saturating_sub(snapshot.time_ms))
    }

    /// The log records of the node on screen and those no node of this process owns, oldest first; all
    /// records where the operator wants them.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Logged> {
        let others = self.live.nodes.iter().enumerate().filter(|(index, _)| *index != self.node);
        let others: Vec<&str> = match self.all_nodes {
            true => Vec::new(),
            false => others.map(|(_, node)| node.name.as_str()).collect(),
        };
        let logs = self.shown().logs.all();
        logs.filter(move |logged| logged.record.node().is_none_or(|node| !others.contains(&node)))
    }

    /// The theme in use.
    pub fn current_look(&self) -> Option<&Look> {
        self.looks.get(self.look).or_else(|| self.looks.first())
    }

    /// The list with the focus.
    pub fn focused_list(&self) -> Option<ListId> {
        ListId::of(self.screen).get(self.focus).copied()
    }

    /// Whether the operator may stop the node from here.
    pub fn can_stop(&self) -> bool {
        matches!(self.hosting, Hosting::Own | Hosting::Operate)
    }

    /// State of a list.
    pub fn list(&self, list: ListId) -> &ListState {
        // The array has one entry a list; the first stands in for what cannot be.
        let [first, ..] = &self.lists;
        self.lists.get(list as usize).unwrap_or(first)
    }

    /// State of a list, to change.
    pub fn list_mut(&mut self, list: ListId) -> Option<&mut ListState> {
        self.lists.get_mut(list as usize)
    }

    /// Whether a row of the key registry applies where the operator is.
    pub fn applies(&self, context: Context) -> bool {
        let list = self.focused_list();
        match context {
            Context::Everywhere => true,
            Context::Lists => list.is_some(),
            Context::Tables => list.is_some_and(|list| list.sortable() > 0),
            Context::Logs => self.screen == Screen::Logs,
            Context::Alerts => list == Some(ListId::Alerts),
            Context::SeveralNodes => self.live.nodes.len() > 1,
            Context::Detachable => self.can_detach,
        }
    }

    /// What came while frozen: events of the node on screen and log records.
    pub fn held_back(&self) -> (u64, u64) {
        let Some(frozen) = &self.frozen else { return (0, 0) };
        let streamed = |data: &Data| data.nodes.get(self.node).map_or(0, |node| node.streamed);
        (
            streamed(&self.live).saturating_sub(streamed(frozen)),
            self.live.logs.received.saturating_sub(frozen.logs.received),
        )
    }
}

/// Whether an event belongs to the vote stream.
fn is_consensus(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::Votes { .. }
            | EventKind::Final { .. }
            | EventKind::Frozen { .. }
            | EventKind::RoundStarted { .. }
            | EventKind::Proposed { .. }
            | EventKind::RoundStalled { .. }
            | EventKind::VotesMissed { .. }
            | EventKind::PaymentVotesMissed { .. }
            | EventKind::Checkpoint { .. }
            | EventKind::PeerBanned(_)
            | EventKind::PeerUnbanned { .. }
            | EventKind::BreakerOpen { .. }
    )
}

impl NodeData {
    /// Adds events to the stream.
    pub fn take_events(&mut self, events: Events) {
        self.missed = self.missed.saturating_add(events.missed);
        for event in events.list.into_iter().filter(|event| is_consensus(&event.kind)) {
            self.streamed += 1;
            self.stream.push_back(event);
            if self.stream.len() > STREAM_MAX {
                self.stream.pop_front();
            }
        }
    }
}

impl LogData {
    /// Adds log records.
    pub fn take_page(&mut self, page: LogPage) {
        self.skipped = self.skipped.saturating_add(page.skipped);
        self.next = page.next;
        for (number, record) in page.records {
            self.received += 1;
            let logged = Logged { number, record: Arc::new(record) };
            if logged.record.level >= LogLevel::Warn {
                self.warnings.push_back(logged.clone());
                if self.warnings.len() > WARNINGS_MAX {
                    self.warnings.pop_front();
                }
            }
            self.lines.push_back(logged);
            if self.lines.len() > LOGS_MAX {
                self.lines.pop_front();
            }
        }
    }

    /// Everything kept, oldest first: warnings that outlived their neighbours, then all the rest.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Logged> {
        let oldest = self.lines.front().map_or(u64::MAX, |line| line.number);
        self.warnings.iter().filter(move |line| line.number < oldest).chain(&self.lines)
    }
}
