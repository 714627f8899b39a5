//! What the node tells the outside about itself: plain values shared by node, console, `status` and
//! the control socket.
//!
//! Values only, no channels and no clock. A [`snapshot::Snapshot`] is the whole picture at one
//! moment (gauges, tables); an [`event::Event`] is one thing that happened. Whoever missed events
//! takes a fresh snapshot. All text in here that came from others is [`CleanText`].
//!
//! [`CleanText`]: crate::primitives::clean::CleanText

pub mod bans;
pub mod cause;
pub mod clock;
pub mod event;
pub mod histogram;
pub mod log;
pub mod patch;
pub mod reach;
pub mod snapshot;
