//! What goes into the console's state, and what it asks its loop to do.

use crate::console::source::{Events, LinkState, Phase};
use crossterm::event::KeyEvent;
use masternode::telemetry::log::LogPage;
use masternode::telemetry::snapshot::Snapshot;
use std::sync::Arc;

/// Something that happened to the console.
#[derive(Clone, Debug)]
pub enum Message {
    /// Wall time in milliseconds since 1970.
    Now(u64),
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted; ignored, so that a slip of the mouse cannot operate a node.
    Pasted,
    /// A newer picture of a node.
    Snapshot { node: usize, snapshot: Arc<Snapshot> },
    /// Events of a node.
    Events { node: usize, events: Events },
    /// Log records.
    Logs(LogPage),
    /// How the source stands to a node.
    Link { node: usize, state: LinkState },
    /// Steps of starting up.
    Phases(Vec<Phase>),
}

/// What the loop has to do after an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Forget what is on the terminal and paint everything.
    Repaint,
    /// Give the terminal back and stop this process until it is told to go on.
    Suspend,
    /// Hand a text to the clipboard of the terminal.
    Copy(String),
    /// Leave with this answer.
    Leave(Leaving),
}

/// How the operator left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Stop this node (all nodes of a devnet).
    Stop(usize),
    /// Close the console, leave the node running.
    Detach,
}
