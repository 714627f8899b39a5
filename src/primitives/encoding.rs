//! The one canonical binary encoding: fixed field order, little-endian fixed-width integers, lists
//! and byte strings prefixed by their length as `u64`, enum variants by a `u32`, no trailing bytes.
//!
//! Every value has exactly one encoding and every decoder is bounded, so decode then encode gives the
//! same bytes and a forged length cannot make the process allocate. This file is the only one that
//! names `bincode`.

use bincode::config;
pub use bincode::{Decode, Encode};

/// Why bytes are not a value of the expected type.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, hold an unknown variant, or claim more than the limit.
    #[error("malformed encoding of {len} bytes: {reason}")]
    Malformed {
        /// Length of the input in bytes.
        len: usize,
        /// What the decoder found.
        reason: String,
    },
    /// A whole value was read and bytes are left over.
    #[error("{extra} trailing bytes after a complete value")]
    Trailing {
        /// Number of bytes left.
        extra: usize,
    },
}

/// The encoding of `value`.
///
/// # Panics
/// Never for the types of this crate: encoding fails only for values that hold locks or clocks.
#[must_use]
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    match bincode::encode_to_vec(value, config::legacy()) {
        Ok(bytes) => bytes,
        Err(error) => unreachable!("types with a derived encoding always encode: {error}"),
    }
}

/// Decodes exactly one value from all of `bytes`, reading and allocating at most `LIMIT` bytes.
///
/// # Errors
/// [`DecodeError`] when the bytes are not exactly one encoding of `T` within the limit.
pub fn decode<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (value, used): (T, usize) = bincode::decode_from_slice(bytes, config::legacy().with_limit::<LIMIT>())
        .map_err(|error| DecodeError::Malformed { len: bytes.len(), reason: error.to_string() })?;
    match bytes.len() - used {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing { extra }),
    }
}

/// Largest encoding read from the node's own disk, in bytes: a full mainnet body with room to spare.
pub const STORED_LIMIT: usize = 64 << 20;

/// [`decode`] with the limit for values the node itself has written.
///
/// # Errors
/// As [`decode`].
pub fn decode_stored<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode::<T, STORED_LIMIT>(bytes)
}
