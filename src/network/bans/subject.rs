//! Whom a ban is about: a network key, or a range of addresses.

use crate::primitives::keys::PublicKey;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Fewest bits of a range of IPv4 and IPv6 that may be banned: less is half the world, hence a slip.
const BITS_MIN: (u8, u8) = (8, 16);

/// A range of addresses, the bits beyond its prefix zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    ip: IpAddr,
    bits: u8,
}

/// Who is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A peer by its network key, wherever it comes from.
    Key(PublicKey),
    /// Whoever comes from these addresses.
    Range(Range),
}

/// Why a text is no subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("`{0}` is neither a peer key of 64 hexadecimal digits nor an IP address, alone or with /PREFIX")]
    Unknown(String),
    #[error("a prefix of {bits} bits in `{text}`: {least} to {most} are allowed")]
    Prefix { text: String, bits: u8, least: u8, most: u8 },
}

impl Range {
    /// What one owner has at `ip` at least: the address of IPv4, the /64 of IPv6.
    #[must_use]
    pub fn around(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        Self::masked(ip, if ip.is_ipv4() { 32 } else { 64 })
    }

    fn masked(ip: IpAddr, bits: u8) -> Self {
        let ip = match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
                IpAddr::from((u32::from(ip) & mask).to_be_bytes())
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
                IpAddr::from((u128::from(ip) & mask).to_be_bytes())
            }
        };
        Self { ip, bits }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_ipv4() == self.ip.is_ipv4() && Self::masked(ip, self.bits).ip == self.ip
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.bits <= other.bits { self.contains(other.ip) } else { other.contains(self.ip) }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = if self.ip.is_ipv4() { 32 } else { 128 };
        if self.bits == whole { write!(f, "{}", self.ip) } else { write!(f, "{}/{}", self.ip, self.bits) }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "{key}"),
            Self::Range(range) => write!(f, "{range}"),
        }
    }
}

impl FromStr for Range {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || SubjectError::Unknown(text.chars().take(80).collect());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let given: IpAddr = address.parse().map_err(|_| unknown())?;
        // IPv4 written as IPv6 is IPv4, its prefix too.
        let ip = given.to_canonical();
        let bits =
            if ip.is_ipv4() == given.is_ipv4() { bits } else { bits.map(|bits| bits.saturating_sub(96)) };
        let (least, most) = if ip.is_ipv4() { (BITS_MIN.0, 32) } else { (BITS_MIN.1, 128) };
        let bits = bits.unwrap_or(most);
        if !(least..=most).contains(&bits) {
            return Err(SubjectError::Prefix { text: text.to_owned(), bits, least, most });
        }
        Ok(Self::masked(ip, bits))
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut key = [0; 32];
        if hex::decode_to_slice(text, &mut key).is_ok() {
            return Ok(Self::Key(PublicKey(key)));
        }
        text.parse().map(Self::Range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_read_back_as_they_are_shown() {
        let key = "ab".repeat(32);
        for text in [key.as_str(), "203.0.113.5", "203.0.113.0/24", "2001:db8::1", "2001:db8::/32"] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        assert_eq!("203.0.113.77/24".parse::<Subject>().unwrap().to_string(), "203.0.113.0/24");
        assert_eq!("::ffff:203.0.113.5".parse::<Subject>().unwrap().to_string(), "203.0.113.5");
    }

    #[test]
    fn a_slip_that_would_ban_the_world_or_nobody_is_refused() {
        for text in [
            "",
            "peer",
            "abcd",
            "203.0.113.5/7",
            "0.0.0.0/0",
            "203.0.113.5/33",
            "::/0",
            "2001:db8::/15",
            "1.2.3.4/",
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_contains_its_addresses_however_they_are_written() {
        let range = |text: &str| text.parse::<Range>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(range("203.0.113.0/24").contains(ip("::ffff:203.0.113.9")));
        assert!(!range("203.0.113.0/24").contains(ip("203.0.114.9")));
        assert!(
            range("2001:db8::/32").contains(ip("2001:db8:ffff::1"))
                && !range("2001:db8::/32").contains(ip("1.2.3.4"))
        );
        assert!(Range::around(ip("2001:db8::1")).contains(ip("2001:db8::2")));
        assert!(!Range::around(ip("203.0.113.1")).contains(ip("203.0.113.2")));
        assert!(
            range("203.0.0.0/16").overlaps(&range("203.0.113.5"))
                && range("203.0.113.5").overlaps(&range("203.0.0.0/16"))
        );
        assert!(!range("203.0.113.4").overlaps(&range("203.0.113.5")));
    }
}
