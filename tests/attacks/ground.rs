//! Where the nodes stand: each in a network namespace of its own with an address of its own, joined by a bridge,
//! strangers in one more with hundreds of addresses; or, where the machine allows no namespaces, all on loopback.
//!
//! The bridge is in a namespace too: nothing of the machine's own network is touched, and all of it goes with the
//! test.

use crate::program::free_ports;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::{Command, Output};

/// Addresses of strangers, each in a /24 of its own and five in each /16.
pub const STRANGERS: usize = 500;
const PORT: u16 = 24000;

/// See the module. Places are numbered: first the nodes, then whoever pays, then the strangers.
pub enum Ground {
    Namespaces { name: String, places: usize },
    Loopback { ports: Vec<u16> },
}

/// `ip` with these arguments.
fn ip(arguments: &str) -> Result<(), String> {
    let told = |output: Output| {
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {text}")) }
    };
    Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string()).and_then(told)
}

impl Ground {
    /// Room for `nodes` nodes, a payer and strangers.
    pub fn prepare(nodes: usize) -> Self {
        let places = nodes + 2;
        let name = format!("mn{}", std::process::id());
        let wanted = std::env::var("MASTERNODE_ATTACKS_LOOPBACK").is_err();
        let ground = Self::Namespaces { name: name.clone(), places };
        match if wanted { make(&name, places) } else { Err("as asked for".to_owned()) } {
            Ok(()) => {
                println!("ground: network namespaces, {STRANGERS} addresses of strangers");
                ground
            }
            Err(reason) => {
                drop(ground);
                println!(
                    "ground: loopback, no network namespaces ({reason}); limits by address are not tested"
                );
                Self::Loopback { ports: free_ports(nodes) }
            }
        }
    }

    /// Where a node listens.
    pub fn address(&self, node: usize) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => SocketAddr::new(place(node), PORT),
            Self::Loopback { ports } => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports[node]),
        }
    }

    /// Where the payer is, at any port.
    pub fn payer(&self) -> SocketAddr {
        match self {
            Self::Namespaces { places, .. } => SocketAddr::new(place(places - 2), 0),
            Self::Loopback { .. } => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        }
    }

    /// Where a stranger is, at any port.
    pub fn stranger(&self, number: usize) -> SocketAddr {
        match self {
            Self::Namespaces { .. } => SocketAddr::new(stranger(number % STRANGERS), 0),
            Self::Loopback { .. } => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0),
        }
    }

    /// Does something in a place: sockets, processes and threads made there stay there.
    pub fn at<T: Send>(&self, number: usize, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                if let Self::Namespaces { name, .. } = self {
                    let file = File::open(format!("/run/netns/{name}-{number}")).unwrap();
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                }
                act()
            });
            there.join().unwrap()
        })
    }

    /// The place of the payer.
    pub fn payer_place(&self) -> usize {
        match self {
            Self::Namespaces { places, .. } => places - 2,
            Self::Loopback { .. } => 0,
        }
    }

    /// The place of the strangers.
    pub fn strangers_place(&self) -> usize {
        match self {
            Self::Namespaces { places, .. } => places - 1,
            Self::Loopback { .. } => 0,
        }
    }

    /// Whether strangers have addresses of their own, and nodes can be cut off.
    pub fn has_namespaces(&self) -> bool {
        matches!(self, Self::Namespaces { .. })
    }

    /// Has nothing of a node reach the other nodes and the payer any more, but strangers, or all again.
    pub fn estrange(&self, node: usize, strange: bool) {
        let Self::Namespaces { name, places } = self else { return };
        for other in (0..places - 1).filter(|other| *other != node) {
            let act = if strange { "add" } else { "del" };
            ip(&format!("-n {name}-{node} route {act} blackhole {}/32", place(other))).unwrap();
        }
    }

    /// Cuts these nodes off from all others, themselves included, or joins them again.
    pub fn link(&self, nodes: &[usize], up: bool) {
        let Self::Namespaces { name, .. } = self else { return };
        for node in nodes {
            let state = if up { "up" } else { "down" };
            ip(&format!("-n {name}-hub link set v{node} {state}")).unwrap();
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let Self::Namespaces { name, places } = self else { return };
        for part in (0..*places).map(|place| place.to_string()).chain(["hub".to_owned()]) {
            let _never_made = ip(&format!("netns del {name}-{part}"));
        }
    }
}

/// Nobody's on this machine, and public by their looks: private addresses are exempt from some limits.
fn place(number: usize) -> IpAddr {
    Ipv4Addr::new(11, u8::try_from(number + 1).unwrap(), 0, 1).into()
}

fn stranger(number: usize) -> IpAddr {
    let group = u8::try_from(100 + number / 5).unwrap();
    Ipv4Addr::new(11, group, u8::try_from(number % 5).unwrap(), 7).into()
}

fn make(name: &str, places: usize) -> Result<(), String> {
    let hub = format!("{name}-hub");
    ip(&format!("netns add {hub}"))?;
    ip(&format!("-n {hub} link add bridge type bridge"))?;
    ip(&format!("-n {hub} link set bridge up"))?;
    for number in 0..places {
        let own = format!("{name}-{number}");
        ip(&format!("netns add {own}"))?;
        ip(&format!("-n {hub} link add v{number} type veth peer name eth0 netns {own}"))?;
        ip(&format!("-n {hub} link set v{number} master bridge"))?;
        ip(&format!("-n {hub} link set v{number} up"))?;
        ip(&format!("-n {own} link set lo up"))?;
        ip(&format!("-n {own} link set eth0 up"))?;
        if number + 1 < places {
            ip(&format!("-n {own} addr add {}/8 dev eth0", place(number)))?;
        }
    }
    let strangers = format!("{name}-{}", places - 1);
    let lines: String = (0..STRANGERS).map(|n| format!("addr add {}/8 dev eth0\n", stranger(n))).collect();
    let file = std::env::temp_dir().join(format!("{name}.batch"));
    std::fs::write(&file, lines).map_err(|error| error.to_string())?;
    let added = ip(&format!("-n {strangers} -batch {}", file.display()));
    let _temporary = std::fs::remove_file(&file);
    added
}
