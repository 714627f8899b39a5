//! What addresses have in common with those their owner could have as cheaply.
//!
//! An attacker buys addresses by the block. A [`Netgroup`] is a block one owner commonly holds; diversity is
//! counted in netgroups. Addresses of this machine and of private networks are the operator's own: each is a
//! group of its own.

use std::net::{IpAddr, SocketAddr};

/// A block of addresses: /16 of IPv4, /32 of IPv6, or a single local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netgroup {
    V4([u8; 2]),
    V6([u8; 4]),
    /// An address with its port: local networks have no owners to tell apart.
    Local(SocketAddr),
}

impl Netgroup {
    /// The group of an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        if is_local(address.ip()) {
            return Self::Local(address);
        }
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Self::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.octets();
                Self::V6([a, b, c, d])
            }
        }
    }

    /// Distinct bytes for distinct groups, to be hashed.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(block) => [&[4], block.as_slice()].concat(),
            Self::V6(block) => [&[6], block.as_slice()].concat(),
            Self::Local(address) => address_bytes(*address),
        }
    }
}

/// Distinct bytes for distinct addresses, to be hashed.
#[must_use]
pub fn address_bytes(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(address.port().to_le_bytes());
    bytes
}

/// Whether an address means this machine or a private network, which only its owner can use.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Whom limits of connections count as one: /24 of IPv4, /64 of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    V4([u8; 3]),
    V6([u8; 8]),
}

impl Site {
    /// The site of an address; `None` for this machine, whose programs are the operator's own.
    #[must_use]
    pub fn of(ip: IpAddr) -> Option<Self> {
        match ip.to_canonical() {
            ip if ip.is_loopback() => None,
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Some(Self::V4([a, b, c]))
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Some(Self::V6([a, b, c, d, e, f, g, h]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Netgroup {
        Netgroup::of(text.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_block_are_one_group_and_local_ones_are_not() {
        assert_eq!(group("198.51.100.1:1"), group("198.51.7.9:2"));
        assert_ne!(group("198.51.100.1:1"), group("198.52.100.1:1"));
        assert_eq!(group("[::ffff:198.51.100.1]:1"), group("198.51.100.1:1"));
        assert_eq!(group("[2001:db8:1::1]:1"), group("[2001:db8:ffff::2]:1"));
        assert_ne!(group("[2001:db8::1]:1"), group("[2001:db9::1]:1"));
        for (one, other) in [("127.0.0.1:1", "127.0.0.1:2"), ("10.0.0.1:1", "10.0.0.2:1")] {
            assert_ne!(group(one), group(other));
            assert_ne!(group(one).bytes(), group(other).bytes());
        }
    }

    #[test]
    fn a_site_is_a_24_or_a_64_and_this_machine_is_none() {
        let site = |text: &str| Site::of(text.parse().unwrap());
        assert_eq!(site("198.51.100.1"), site("198.51.100.200"));
        assert_ne!(site("198.51.100.1"), site("198.51.101.1"));
        assert_eq!(site("10.1.2.3"), Some(Site::V4([10, 1, 2])));
        assert_eq!(site("2001:db8::1"), site("2001:db8::ffff:1"));
        assert_ne!(site("2001:db8::1"), site("2001:db8:0:1::1"));
        assert_eq!(site("127.0.0.1"), None);
        assert_eq!(site("::1"), None);
        assert_eq!(site("::ffff:127.0.0.1"), None);
    }
}
