//! Everything that is hashed, signed, stored or sent, and the one encoding of it.
//!
//! Values only: no clock, socket, file or task. A type here means the same thing to every node, so a
//! change of its encoding is a change of the protocol; the golden vectors in `tests/golden/` guard it.

pub mod address;
pub mod amount;
pub mod block;
pub mod certificate;
pub mod chain;
pub mod clean;
pub mod committee;
pub mod encoding;
pub mod endpoint;
pub mod evidence;
pub mod hash;
pub mod keys;
pub mod masternode;
pub mod merkle;
pub mod message;
pub mod params;
pub mod rejection;
pub mod special;
pub mod tier;
pub mod transaction;
pub mod trusted;
pub mod vote;
