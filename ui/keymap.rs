//! The one registry of what keys do: it feeds key handling, the hints, the help screen and the danger level.
//!
//! A row is `{ action, keys, where, description, danger }`. Nothing else in the console compares keys,
//! except text being typed into the filter. The same key may mean different things in different
//! contexts, never two things in one; a test checks that.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Screens, in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    Overview,
    Votes,
    Peers,
    Pool,
    Chain,
    Logs,
    Host,
    Help,
    Fleet,
}

impl Screen {
    /// All of them, in the order of the tab line.
    pub const ALL: [Self; 9] = [
        Self::Fleet,
        Self::Overview,
        Self::Votes,
        Self::Peers,
        Self::Pool,
        Self::Chain,
        Self::Logs,
        Self::Host,
        Self::Help,
    ];

    /// Key and name for the tab line.
    pub const fn tab(self) -> (char, &'static str) {
        match self {
            Self::Overview => ('1', "Overview"),
            Self::Votes => ('2', "Votes"),
            Self::Peers => ('3', "Peers"),
            Self::Pool => ('4', "Pool"),
            Self::Chain => ('5', "Chain"),
            Self::Logs => ('8', "Logs"),
            Self::Host => ('9', "Host"),
            Self::Help => ('?', "Help"),
            Self::Fleet => ('0', "Fleet"),
        }
    }
}

/// What an operator can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Show(Screen),
    NextPane,
    PreviousPane,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    Filter,
    Sort,
    SortReverse,
    LevelUp,
    LevelDown,
    Freeze,
    Zoom,
    Palette,
    Copy,
    Acknowledge,
    PreviousNode,
    NextNode,
    AllNodes,
    Node(u8),
    Theme,
    Repaint,
    Detach,
    Quit,
    Suspend,
}

impl Action {
    /// What the palette calls it; `None` for what makes sense as a key only.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Show(Screen::Overview) => "overview",
            Self::Show(Screen::Votes) => "votes",
            Self::Show(Screen::Peers) => "peers",
            Self::Show(Screen::Pool) => "pool",
            Self::Show(Screen::Chain) => "chain",
            Self::Show(Screen::Logs) => "logs",
            Self::Show(Screen::Host) => "host",
            Self::Show(Screen::Help) => "help",
            Self::Show(Screen::Fleet) => "fleet",
            Self::Filter => "filter",
            Self::Sort => "sort",
            Self::SortReverse => "reverse",
            Self::Freeze => "freeze",
            Self::Zoom => "zoom",
            Self::Copy => "copy",
            Self::Acknowledge => "acknowledge",
            Self::PreviousNode => "previous-node",
            Self::NextNode => "next-node",
            Self::AllNodes => "all-nodes",
            Self::Theme => "theme",
            Self::Repaint => "repaint",
            Self::Detach => "detach",
            Self::Quit => "quit",
            Self::Suspend => "suspend",
            Self::NextPane
            | Self::PreviousPane
            | Self::Up
            | Self::Down
            | Self::Left
            | Self::Right
            | Self::PageUp
            | Self::PageDown
            | Self::First
            | Self::Last
            | Self::Open
            | Self::Back
            | Self::LevelUp
            | Self::LevelDown
            | Self::Palette
            | Self::Node(_) => return None,
        })
    }
}

/// How much harm an action can do; decides how it is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Danger {
    /// Nothing to confirm.
    None,
    /// Ends a service: asked in a dialog whose default is to cancel.
    Service,
}

/// Where a row applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    Everywhere,
    /// Screens with a list.
    Lists,
    /// Lists that can be sorted.
    Tables,
    /// The log screen.
    Logs,
    /// The list of alerts.
    Alerts,
    /// Several nodes.
    SeveralNodes,
    /// The caller can run on without a console.
    Detachable,
}

impl Context {
    /// Heading on the help screen.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Everywhere => "Everywhere",
            Self::Lists => "In lists",
            Self::Tables => "In tables",
            Self::Logs => "In the log",
            Self::Alerts => "In the alerts",
            Self::SeveralNodes => "Several nodes",
            Self::Detachable => "Leaving",
        }
    }
}

/// One key with its modifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub KeyCode, pub KeyModifiers);

/// One row of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    pub action: Action,
    pub keys: &'static [Key],
    /// The keys as shown.
    pub label: &'static str,
    pub context: Context,
    pub description: &'static str,
    pub danger: Danger,
}

const fn char(character: char) -> Key {
    Key(KeyCode::Char(character), KeyModifiers::NONE)
}

const fn control(character: char) -> Key {
    Key(KeyCode::Char(character), KeyModifiers::CONTROL)
}

const fn plain(code: KeyCode) -> Key {
    Key(code, KeyModifiers::NONE)
}

const fn row(
    action: Action,
    keys: &'static [Key],
    label: &'static str,
    context: Context,
    description: &'static str,
) -> Binding {
    Binding { action, keys, label, context, description, danger: Danger::None }
}

use Context::{Alerts, Detachable, Everywhere, Lists, Logs, SeveralNodes, Tables};

/// Every key of the console.
pub const REGISTRY: &[Binding] = &[
    row(Action::Show(Screen::Overview), &[char('1')], "1", Everywhere, "overview"),
    row(Action::Show(Screen::Votes), &[char('2')], "2", Everywhere, "votes, quorum meters, masternodes"),
    row(Action::Show(Screen::Peers), &[char('3')], "3", Everywhere, "peers"),
    row(Action::Show(Screen::Pool), &[char('4')], "4", Everywhere, "transaction pool"),
    row(Action::Show(Screen::Chain), &[char('5')], "5", Everywhere, "checkpoints"),
    row(Action::Show(Screen::Logs), &[char('8')], "8", Everywhere, "log"),
    row(Action::Show(Screen::Host), &[char('9')], "9", Everywhere, "host, alerts, orders"),
    row(Action::Show(Screen::Help), &[char('?'), plain(KeyCode::F(12))], "?", Everywhere, "this help"),
    row(Action::NextPane, &[plain(KeyCode::Tab)], "Tab", Everywhere, "next pane"),
    row(Action::PreviousPane, &[plain(KeyCode::BackTab)], "Shift-Tab", Everywhere, "previous pane"),
    row(Action::Back, &[plain(KeyCode::Esc)], "Esc", Everywhere, "back one level; never leaves the console"),
    row(Action::Freeze, &[char(' ')], "Space", Everywhere, "freeze the screen, or let it run on"),
    row(Action::Palette, &[char(':')], ":", Everywhere, "palette: any command by its name"),
    row(Action::Zoom, &[char('z')], "z", Everywhere, "the pane on the whole screen, or all of them"),
    row(Action::Theme, &[char('t')], "t", Everywhere, "next theme"),
    row(Action::Repaint, &[control('l')], "Ctrl-L", Everywhere, "paint the whole screen anew"),
    Binding {
        action: Action::Quit,
        keys: &[char('q'), control('c')],
        label: "q Ctrl-C",
        context: Everywhere,
        description: "leave: asks what to do with the node",
        danger: Danger::Service,
    },
    row(Action::Suspend, &[control('z')], "Ctrl-Z", Everywhere, "suspend an attached console; never a node"),
    row(Action::Detach, &[char('d')], "d", Detachable, "detach: close the console, the node runs on"),
    row(Action::Show(Screen::Fleet), &[char('0')], "0", SeveralNodes, "all nodes, the worst first"),
    row(Action::PreviousNode, &[char('[')], "[", SeveralNodes, "previous node"),
    row(Action::NextNode, &[char(']')], "]", SeveralNodes, "next node"),
    row(Action::AllNodes, &[char('A')], "A", SeveralNodes, "log of all nodes, or of the one on screen"),
    row(Action::Node(1), &[plain(KeyCode::F(1)), alt('1')], "F1 Alt-1", SeveralNodes, "node 1"),
    row(Action::Node(2), &[plain(KeyCode::F(2)), alt('2')], "F2 Alt-2", SeveralNodes, "node 2"),
    row(Action::Node(3), &[plain(KeyCode::F(3)), alt('3')], "F3 Alt-3", SeveralNodes, "node 3"),
    row(Action::Node(4), &[plain(KeyCode::F(4)), alt('4')], "F4 Alt-4", SeveralNodes, "node 4"),
    row(Action::Node(5), &[plain(KeyCode::F(5)), alt('5')], "F5 Alt-5", SeveralNodes, "node 5"),
    row(Action::Node(6), &[plain(KeyCode::F(6)), alt('6')], "F6 Alt-6", SeveralNodes, "node 6"),
    row(Action::Node(7), &[plain(KeyCode::F(7)), alt('7')], "F7 Alt-7", SeveralNodes, "node 7"),
    row(Action::Node(8), &[plain(KeyCode::F(8)), alt('8')], "F8 Alt-8", SeveralNodes, "node 8"),
    row(Action::Up, &[char('k'), plain(KeyCode::Up)], "k Up", Lists, "up"),
    row(Action::Down, &[char('j'), plain(KeyCode::Down)], "j Down", Lists, "down"),
    row(
        Action::Left,
        &[char('h'), plain(KeyCode::Left)],
        "h Left",
        Lists,
        "pane to the left; log: scroll left",
    ),
    row(
        Action::Right,
        &[char('l'), plain(KeyCode::Right)],
        "l Right",
        Lists,
        "pane to the right; log: scroll right",
    ),
    row(Action::PageUp, &[control('u'), plain(KeyCode::PageUp)], "Ctrl-U PgUp", Lists, "ten up"),
    row(Action::PageDown, &[control('d'), plain(KeyCode::PageDown)], "Ctrl-D PgDn", Lists, "ten down"),
    row(Action::First, &[char('g'), plain(KeyCode::Home)], "g Home", Lists, "first"),
    row(Action::Last, &[char('G'), plain(KeyCode::End)], "G End", Lists, "last; log: follow"),
    row(Action::Open, &[plain(KeyCode::Enter)], "Enter", Lists, "detail of the selected row"),
    row(Action::Filter, &[char('/')], "/", Lists, "filter by text, `!text` leaves out"),
    row(Action::Copy, &[char('y')], "y", Lists, "copy the row's name to the clipboard"),
    row(Action::Acknowledge, &[char('a')], "a", Alerts, "acknowledge: seen, count it no more"),
    row(Action::Sort, &[char('s')], "s", Tables, "sort by the next column"),
    row(Action::SortReverse, &[char('S')], "S", Tables, "reverse the order"),
    row(Action::LevelUp, &[char('+'), char('=')], "+", Logs, "fewer: raise the least level"),
    row(Action::LevelDown, &[char('-')], "-", Logs, "more: lower the least level"),
];

const fn alt(character: char) -> Key {
    Key(KeyCode::Char(character), KeyModifiers::ALT)
}

/// The row a key means where `applies` holds for the row's context.
pub fn lookup(event: KeyEvent, applies: impl Fn(Context) -> bool) -> Option<&'static Binding> {
    // A terminal reports the shift of `G` or `?` inconsistently; the character already says it.
    let modifiers = match event.code {
        KeyCode::Char(_) | KeyCode::BackTab => event.modifiers.difference(KeyModifiers::SHIFT),
        _ => event.modifiers,
    };
    REGISTRY.iter().find(|binding| {
        applies(binding.context)
            && binding.keys.iter().any(|Key(code, held)| *code == event.code && *held == modifiers)
    })
}

#[cfg(test)]
mod tests {
    use super::{Context, REGISTRY};

    #[test]
    fn no_key_means_two_things_in_one_context() {
        for (index, row) in REGISTRY.iter().enumerate() {
            for other in REGISTRY.iter().skip(index + 1) {
                let overlap = row.context == other.context
                    || row.context == Context::Everywhere
                    || other.context == Context::Everywhere;
                let shared = row.keys.iter().find(|key| other.keys.contains(key));
                assert!(
                    !overlap || shared.is_none(),
                    "{:?} and {:?} share {shared:?}",
                    row.action,
                    other.action
                );
            }
        }
    }

    #[test]
    fn every_row_can_be_reached_and_is_explained() {
        for row in REGISTRY {
            assert!(!row.keys.is_empty() && !row.label.is_empty() && !row.description.is_empty(), "{row:?}");
            assert!(row.description.len() <= 46, "too long for 80 columns: {}", row.description);
        }
    }
}
