//! Small things drawn into a rectangle of a buffer: panes, bars, charts, tables, numbers as text.
//!
//! Every widget clamps its rectangle to the buffer and draws nothing where there is no room; none
//! keeps state or does I/O.

pub mod format;
pub mod meter;
pub mod pane;
pub mod table;
