//! Consensus, sans-IO: `docs/protocol.md` as one pure state machine.
//!
//! [`machine::Machine`] takes an [`input::Input`] with the time and returns [`output::Output`]s to be
//! executed in order, a `Send` only when every `Persist` before it is durable. It reads the ledger and
//! the pool through [`host::Host`]. No clock, disk, socket or randomness in here: the same inputs give
//! the same outputs, which is what the simulation in `tests/simulation` rests on.

pub mod cause;
mod conflicts;
pub mod host;
pub mod input;
pub mod machine;
pub mod output;
pub mod planted;
mod rounds;
pub mod signer;
pub mod standing;
mod stream;
mod tally;
pub mod timing;
pub mod trust;
pub mod verify;
