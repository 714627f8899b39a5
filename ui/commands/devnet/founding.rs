//! Founds a network of nodes on this machine, or finds one that was kept: keys, genesis, a data
//! directory each as any other node has.
//!
//! Depends on nothing of the command line, so that tests found networks the same way.

use masternode::config::{BootstrapPeer, CONFIG_FILE_NAME, Config};
use masternode::ledger::genesis::{Allocation, Founder, Genesis, GenesisError};
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::keys::SecretKey;
use masternode::primitives::params::{BLOCK_RESERVE_BYTES, Params};
use masternode::primitives::tier::Tier;
use masternode::wallet::keystore::{self, KeystoreError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of the first nodes, in order.
const NAMES: [&str; 16] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo",
    "lima", "mike", "november", "oscar", "papa",
];

/// File with the first key of the payer, in the directory of the devnet.
const FAUCET_KEY_FILE: &str = "faucet.key";
/// Where the common log of the nodes goes, in the directory of the devnet.
pub const LOG_DIRECTORY: &str = "logs";
/// What the faucet owns at first, in TIME.
const FAUCET_TIME: u64 = 10_000_000;
/// Most bytes one node may prepare in an era, whatever its length (`block_bytes_max` is bounded).
const ERA_BYTES_MAX: u64 = 11 << 20;

/// What network to found.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Directory of the devnet; node i lives in `node{i}` from 1 on.
    pub root: PathBuf,
    /// Number of nodes, at least 3.
    pub nodes: usize,
    /// UDP port of the first node; the others follow in steps of two.
    pub base_port: u16,
    /// Length of an era.
    pub era: Duration,
    /// Artificial delay of every message.
    pub latency: Duration,
    /// Wall time for the genesis, in milliseconds since 1970.
    pub time_ms: u64,
}

/// A founded network.
#[derive(Debug)]
pub struct Founded {
    /// One configuration a node, as written to its directory.
    pub configs: Vec<Config>,
    /// The genesis all share.
    pub genesis: Genesis,
    /// First key of the payer, from which the others derive.
    pub faucet: SecretKey,
    /// The ports asked for were busy and others were taken.
    pub ports_moved: bool,
    /// The network was there already.
    pub resumed: bool,
}

/// Why a network cannot be founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{path} holds a devnet of {found} nodes, not {asked}: use --nodes {found}, or another --data-dir", path = path.display())]
    OtherSize { path: PathBuf, found: usize, asked: usize },
    #[error("{path} holds other files and no devnet: use an empty or new --data-dir", path = path.display())]
    NotADevnet { path: PathBuf },
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error("the parameters of the devnet do not fit together: {0}")]
    Params(String),
    #[error("cannot write the configuration {path}: {reason}", path = path.display())]
    Config { path: PathBuf, reason: String },
}

/// Founds the network of `plan`, or takes the one that is in its directory with the timers, delay and
/// ports of the plan.
///
/// # Errors
/// [`FoundingError`].
pub fn found(plan: &Plan) -> Result<Founded, FoundingError> {
    let (ports, ports_moved) = free_ports(plan)?;
    let faucet_file = plan.root.join(FAUCET_KEY_FILE);
    let resumed = faucet_file.exists();
    let (faucet, genesis) =
        if resumed { read_existing(plan, &faucet_file)? } else { create(plan, &faucet_file)? };
    let genesis_text = genesis.to_toml();
    let mut configs = Vec::new();
    for (index, _) in ports.iter().enumerate() {
        let config = node_config(plan, index, &ports);
        let text = toml::to_string(&Config { data_dir: PathBuf::from("."), ..config.clone() });
        let path = config.data_dir.join(CONFIG_FILE_NAME);
        let text =
            text.map_err(|error| FoundingError::Config { path: path.clone(), reason: error.to_string() })?;
        write(&path, &text)?;
        if !resumed {
            write(&config.genesis_path(), &genesis_text)?;
        }
        configs.push(config);
    }
    Ok(Founded { configs, genesis, faucet, ports_moved, resumed })
}

/// Directory of a node, by its place from 0 on.
pub fn node_dir(root: &Path, index: usize) -> PathBuf {
    root.join(format!("node{}", index + 1))
}

/// Name of a node, by its place from 0 on.
pub fn node_name(index: usize) -> String {
    NAMES.get(index).map_or_else(|| format!("node{}", index + 1), |name| (*name).to_owned())
}

fn create(plan: &Plan, faucet_file: &Path) -> Result<(SecretKey, Genesis), FoundingError> {
    make_private(&plan.root)?;
    let io = |source| FoundingError::Io { action: "read", path: plan.root.clone(), source };
    // The log of the devnet may have begun.
    let is_foreign = |entry: std::fs::DirEntry| entry.file_name() != LOG_DIRECTORY;
    if std::fs::read_dir(&plan.root).map_err(io)?.flatten().any(is_foreign) {
        return Err(FoundingError::NotADevnet { path: plan.root.clone() });
    }
    let mut masternodes = Vec::new();
    for index in 0..plan.nodes {
        let config =
            Config { data_dir: node_dir(&plan.root, index), ..Config::defaults(NetworkKind::Devnet) };
        make_private(&config.data_dir)?;
        make_private(&config.data_dir.join("keys"))?;
        let (vote, network, wallet) = (keystore::generate()?, keystore::generate()?, keystore::generate()?);
        keystore::create(&config.vote_key_path(), &vote, None)?;
        keystore::create(&config.network_key_path(), &network, None)?;
        keystore::create(&config.wallet_key_path(), &wallet, None)?;
        let owner = wallet.public().key_hash();
        masternodes.push(Founder {
            name: node_name(index),
            vote_key: vote.public(),
            tier: Tier::Bronze,
            owner,
            payout: owner,
        });
    }
    let faucet = keystore::generate()?;
    let genesis = Genesis {
        network: NetworkKind::Devnet,
        name: "devnet".to_owned(),
        time_ms: plan.time_ms,
        params: params(plan.era),
        masternodes,
        allocations: vec![Allocation {
            key_hash: faucet.public().key_hash(),
            amount: Amount::from_time(FAUCET_TIME).unwrap_or_default(),
        }],
    };
    genesis.check().map_err(FoundingError::Params)?;
    // Last, because its presence says that the devnet is complete.
    keystore::create(faucet_file, &faucet, None)?;
    Ok((faucet, genesis))
}

fn read_existing(plan: &Plan, faucet_file: &Path) -> Result<(SecretKey, Genesis), FoundingError> {
    let found = (0..=usize::from(u8::MAX)).take_while(|index| node_dir(&plan.root, *index).is_dir()).count();
    if found != plan.nodes {
        return Err(FoundingError::OtherSize { path: plan.root.clone(), found, asked: plan.nodes });
    }
    let faucet = keystore::load(faucet_file, None)?;
    let path = node_dir(&plan.root, 0).join("genesis.toml");
    let text = std::fs::read_to_string(&path).map_err(|source| FoundingError::Io {
        action: "read",
        path: path.clone(),
        source,
    })?;
    Ok((faucet, Genesis::parse(&text, &path.display().to_string())?))
}

/// Parameters with room for the same load whatever the length of an era.
fn params(era: Duration) -> Params {
    let mut params = Params::of(NetworkKind::Devnet);
    let default_era = Duration::from_secs(5);
    if era > default_era {
        let scaled = u128::from(params.era_bytes) * era.as_millis() / default_era.as_millis();
        params.era_bytes = u64::try_from(scaled).unwrap_or(u64::MAX).min(ERA_BYTES_MAX);
        params.era_signatures = params.era_bytes / 200;
        params.block_bytes_max = 2 * params.era_bytes + BLOCK_RESERVE_BYTES;
        params.block_signatures_max = 2 * params.era_signatures + 1000;
    }
    params
}

fn node_config(plan: &Plan, index: usize, ports: &[u16]) -> Config {
    let mut config = Config::defaults(NetworkKind::Devnet);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    config.name = node_name(index);
    config.data_dir = node_dir(&plan.root, index);
    config.p2p.listen = loopback(ports.get(index).copied().unwrap_or(0));
    let others = ports.iter().enumerate().filter(|(other, _)| *other != index);
    config.p2p.bootstrap = others
        .map(|(_, port)| BootstrapPeer { key: None, host: "127.0.0.1".to_owned(), port: *port })
        .collect();
    config.p2p.outbound_target = u32::try_from(ports.len()).unwrap_or(u32::MAX);
    config.p2p.latency_ms = millis(plan.latency);
    config.consensus.era_ms = millis(plan.era);
    config
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// The ports of the plan, or free ones when any of those is taken; whether they were moved.
fn free_ports(plan: &Plan) -> Result<(Vec<u16>, bool), FoundingError> {
    let step =
        |index: usize| u16::try_from(2 * index).ok().and_then(|offset| plan.base_port.checked_add(offset));
    let wanted: Option<Vec<u16>> = (0..plan.nodes).map(step).collect();
    let is_free = |port: &u16| UdpSocket::bind(loopback(*port)).is_ok();
    if let Some(ports) = wanted.filter(|ports| ports.iter().all(is_free)) {
        return Ok((ports, false));
    }
    // Held together, so that the system gives different ones.
    let sockets: Result<Vec<UdpSocket>, _> = (0..plan.nodes).map(|_| UdpSocket::bind(loopback(0))).collect();
    let ports = sockets.and_then(|sockets| {
        sockets.iter().map(|socket| socket.local_addr().map(|address| address.port())).collect()
    });
    let io =
        |source| FoundingError::Io { action: "open a port on", path: PathBuf::from("127.0.0.1"), source };
    Ok((ports.map_err(io)?, true))
}

fn make_private(directory: &Path) -> Result<(), FoundingError> {
    let io = |source| FoundingError::Io { action: "create", path: directory.to_path_buf(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io)
}

fn write(path: &Path, text: &str) -> Result<(), FoundingError> {
    let io = |source| FoundingError::Io { action: "write", path: path.to_path_buf(), source };
    std::fs::write(path, text).map_err(io)
}
