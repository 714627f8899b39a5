//! The configuration file `masternode.toml`: every setting, in the order of `masternode.example.toml`,
//! with its defaults.
//!
//! A setting that the file leaves out has the default of its network. Unknown settings, wrong types and
//! values outside their range are refused with file, line and remedy (see [`reading`]). Nothing here
//! touches the network or starts anything; command line overrides are applied by the binary.

pub mod names;
pub mod reading;

use crate::primitives::chain::NetworkKind;
use crate::primitives::keys::PublicKey;
use crate::primitives::trusted::TrustedHeader;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Name of the configuration file in the data directory.
pub const CONFIG_FILE_NAME: &str = "masternode.toml";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name shown to the operator and to peers; at most 64 printable characters.
    pub name: String,
    /// Kind of network: sets ports, address prefix and default timers.
    pub network: NetworkKind,
    /// Directory of everything the node stores. Absolute once loaded; as written in
    /// [`Config::defaults`], where it is empty.
    pub data_dir: PathBuf,
    /// The founding document of the network, relative to `data_dir`.
    pub genesis: PathBuf,
    /// Connections to other nodes.
    pub p2p: P2pConfig,
    /// Catching up with the others.
    pub sync: SyncConfig,
    /// Local timers of the protocol (§6); any positive value is safe.
    pub consensus: TimerConfig,
    /// Bounds of the transaction pool; local policy, never consensus.
    pub pool: PoolConfig,
    /// The database.
    pub storage: StorageConfig,
    /// Key files.
    pub keys: KeysConfig,
    /// Log files and records.
    pub log: LogConfig,
    /// The operator console.
    pub console: ConsoleConfig,
}

/// `[p2p]`: connections to other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct P2pConfig {
    /// UDP address to listen on.
    pub listen: SocketAddr,
    /// Address told to other nodes and signed by a masternode; `None` tells them what they see.
    #[serde(with = "empty_is_none")]
    pub advertise: Option<SocketAddr>,
    /// Nodes to dial at start and whenever connections are lost.
    pub bootstrap: Vec<BootstrapPeer>,
    /// Most connections accepted from others, those of the committee apart.
    pub inbound_max: u32,
    /// Most of them from one /24 of IPv4 or /64 of IPv6; loopback is not counted.
    pub inbound_of_network_max: u32,
    /// Connections the node tries to keep to others.
    pub outbound_target: u32,
    /// Artificial delay of every message sent, in milliseconds; only on a devnet.
    pub latency_ms: u64,
    /// Time between two pings of a peer, in seconds.
    pub ping_interval_s: u64,
}

/// `[sync]`: catching up with the others, protocol §7.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// A block of the chain that the operator vouches for; `None` where nobody has to.
    #[serde(with = "empty_is_none")]
    pub trusted_block: Option<TrustedHeader>,
    /// Whether a node without blocks begins with a snapshot of the state.
    pub snapshot: SnapshotSync,
}

/// Whether a node without blocks begins with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotSync {
    /// If it trusts a block and peers offer one.
    Auto,
    /// Never: it pulls all blocks.
    Off,
}

/// `[consensus]`: timers in milliseconds, protocol §6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerConfig {
    /// `ERA`: from the commit of a block to the freeze before the next.
    pub era_ms: u64,
    /// `TICK`: how long votes gather before a batch is signed.
    pub tick_ms: u64,
    /// `GRACE`: how long a proposer waits for the streams of a slow minority.
    pub grace_ms: u64,
    /// `T_PROPOSE` of round 0.
    pub propose_ms: u64,
    /// Added to `T_PROPOSE` each round.
    pub propose_step_ms: u64,
    /// `T_PREVOTE` of round 0.
    pub prevote_ms: u64,
    /// Added to `T_PREVOTE` each round.
    pub prevote_step_ms: u64,
    /// `T_PRECOMMIT` of round 0.
    pub precommit_ms: u64,
    /// Added to `T_PRECOMMIT` each round.
    pub precommit_step_ms: u64,
    /// `SKEW`: how far ahead of the own clock the time of a proposal may be, doubled each round.
    pub skew_ms: u64,
}

/// `[pool]`: bounds of the transaction pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// Most transactions held.
    pub transactions_max: u64,
    /// Most encoded bytes held.
    pub bytes_max: u64,
    /// Most transactions held whose inputs are not known yet.
    pub orphans_max: u64,
    /// Most rejected transactions remembered.
    pub rejections_max: u64,
    /// How long a rejection is remembered, in seconds.
    pub rejection_ttl_s: u64,
}

/// `[storage]`: the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Memory for the database's cache, in bytes.
    pub cache_bytes: u64,
    /// Free bytes on the disk below which the operator is warned.
    pub free_warn_bytes: u64,
    /// Free bytes below which nothing is voted.
    pub free_vote_bytes: u64,
    /// Free bytes below which the node stops.
    pub free_stop_bytes: u64,
    /// Snapshots of the state kept for nodes that begin; 0 for none.
    pub snapshots_kept: u32,
    /// Blocks between two snapshots.
    pub snapshot_blocks: u64,
    /// Most bytes that all snapshots take on disk, besides the newest while the next one is made.
    pub snapshot_bytes_max: u64,
    /// Newest blocks whose transactions are kept; 0 for all. Headers and certificates are always kept.
    pub prune_blocks: u64,
}

/// `[keys]`: key files, relative to the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// File whose first line is the passphrase of the key files; `None` to use
    /// `MASTERNODE_PASSPHRASE` or to ask on the terminal.
    #[serde(with = "empty_is_none")]
    pub passphrase_file: Option<PathBuf>,
    /// Key that signs votes.
    pub vote_key: PathBuf,
    /// Key that identifies the node to its peers.
    pub network_key: PathBuf,
    /// Key that owns the collateral and receives rewards; the running node never reads it.
    pub wallet_key: PathBuf,
}

/// `[log]`: what is logged and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Levels by module, as in `info,masternode::network=debug`.
    pub filter: String,
    /// Format of the files.
    pub format: LogFormat,
    /// Whether to write files to `logs/`, a new one each day.
    pub files: bool,
    /// Most bytes of log files kept; the oldest go first.
    pub total_bytes_max: u64,
    /// Whether to write records to the standard error too; never while the console is shown.
    pub stderr: bool,
}

/// Format of log files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text a record.
    Text,
    /// One JSON object a record.
    Json,
}

/// `[console]`: the operator console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {
    /// Name of a shipped theme or of a file in the configuration directory.
    pub theme: String,
    /// How many colours to use.
    pub color: ColorChoice,
    /// Least time between two repaints for new data, in milliseconds.
    pub refresh_ms: u64,
    /// Nodes of `attach --fleet`: data directories, sockets, or `ssh://USER@HOST[:PORT][/DIR]`.
    pub fleet: Vec<String>,
}

/// How many colours the console uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColorChoice {
    /// What the terminal says it can.
    Auto,
    /// 24 bits.
    Truecolor,
    /// The 256-colour palette.
    Ansi256,
    /// The 16 colours the terminal's own theme defines.
    Ansi16,
    /// None.
    Never,
}

/// A node to dial: `HOST:PORT`, or `KEY@HOST:PORT` to insist on its network key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BootstrapPeer {
    /// The only network key to accept there.
    pub key: Option<PublicKey>,
    /// Host name or address; an IPv6 address without brackets.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// A text that names no node.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names no node: write HOST:PORT or KEY@HOST:PORT, an IPv6 host in brackets")]
pub struct ParsePeerError(String);

impl Config {
    /// The defaults of a network. The data directory is empty: the caller chooses one.
    #[must_use]
    pub fn defaults(network: NetworkKind) -> Self {
        const MIB: u64 = 1 << 20;
        let devnet = network == NetworkKind::Devnet;
        Self {
            name: "masternode".to_owned(),
            network,
            data_dir: PathBuf::new(),
            genesis: PathBuf::from("genesis.toml"),
            p2p: P2pConfig {
                listen: SocketAddr::from((Ipv6Addr::UNSPECIFIED, network.p2p_port())),
                advertise: None,
                bootstrap: Vec::new(),
                inbound_max: 117,
                inbound_of_network_max: 4,
                outbound_target: 8,
                latency_ms: 0,
                ping_interval_s: 5,
            },
            sync: SyncConfig { trusted_block: None, snapshot: SnapshotSync::Auto },
            consensus: TimerConfig::defaults(network),
            pool: PoolConfig {
                transactions_max: 100_000,
                bytes_max: 64 * MIB,
                orphans_max: 2_000,
                rejections_max: 20_000,
                rejection_ttl_s: 600,
            },
            storage: StorageConfig {
                cache_bytes: if devnet { 16 * MIB } else { 128 * MIB },
                free_warn_bytes: 5 << 30,
                free_vote_bytes: 1 << 30,
                free_stop_bytes: 256 * MIB,
                snapshots_kept: 2,
                snapshot_blocks: 1_000,
                snapshot_bytes_max: 8192 * MIB,
                prune_blocks: 0,
            },
            keys: KeysConfig {
                passphrase_file: None,
                vote_key: PathBuf::from("keys/vote.key"),
                network_key: PathBuf::from("keys/network.key"),
                wallet_key: PathBuf::from("keys/wallet.key"),
            },
            log: LogConfig {
                filter: "info".to_owned(),
                format: LogFormat::Text,
                files: true,
                total_bytes_max: 1024 * MIB,
                stderr: false,
            },
            console: ConsoleConfig {
                theme: "dark".to_owned(),
                color: ColorChoice::Auto,
                refresh_ms: 500,
                fleet: Vec::new(),
            },
        }
    }

    /// The genesis file.
    #[must_use]
    pub fn genesis_path(&self) -> PathBuf {
        self.data_dir.join(&self.genesis)
    }

    /// The key that signs votes.
    #[must_use]
    pub fn vote_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.keys.vote_key)
    }

    /// The key that identifies the node to its peers.
    #[must_use]
    pub fn network_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.keys.network_key)
    }

    /// The key that owns the collateral and receives rewards.
    #[must_use]
    pub fn wallet_key_path(&self) -> PathBuf {
        self.data_dir.join(&self.keys.wallet_key)
    }

    /// The file with the passphrase, if one is set.
    #[must_use]
    pub fn passphrase_path(&self) -> Option<PathBuf> {
        self.keys.passphrase_file.as_ref().map(|file| self.data_dir.join(file))
    }

    /// The database.
    #[must_use]
    pub fn database_path(&self) -> PathBuf {
        self.data_dir.join(names::DATABASE)
    }

    /// The snapshots kept for others.
    #[must_use]
    pub fn snapshots_path(&self) -> PathBuf {
        self.data_dir.join(names::SNAPSHOTS)
    }

    /// The addresses of other nodes.
    #[must_use]
    pub fn peers_path(&self) -> PathBuf {
        self.data_dir.join(names::PEERS)
    }

    /// The peers that are not let in.
    #[must_use]
    pub fn bans_path(&self) -> PathBuf {
        self.data_dir.join(names::BANS)
    }

    /// The vote journal.
    #[must_use]
    pub fn journal_path(&self) -> PathBuf {
        self.data_dir.join(names::JOURNAL)
    }

    /// The log files.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.data_dir.join(names::LOGS)
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket_path(&self) -> PathBuf {
        control_socket_in(&self.data_dir)
    }

    /// The file whose lock says that a node uses the directory.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.data_dir.join(names::LOCK)
    }
}

/// The control socket of the node in `data_dir`.
#[must_use]
pub fn control_socket_in(data_dir: &Path) -> PathBuf {
    data_dir.join(names::CONTROL_SOCKET)
}

/// Where a node of `network` stores everything unless told otherwise:
/// `$XDG_DATA_HOME/masternode/NETWORK`, or the same under `~/.local/share`. `None` without a home.
#[must_use]
pub fn default_data_dir(network: NetworkKind) -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base =
        variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")))?;
    Some(base.join("masternode").join(network.name()))
}

impl TimerConfig {
    /// The timers of protocol §6.
    #[must_use]
    pub const fn defaults(network: NetworkKind) -> Self {
        let [era_ms, tick_ms, grace_ms, skew_ms] = match network {
            NetworkKind::Mainnet => [30_000, 20, 200, 1_000],
            NetworkKind::Testnet => [20_000, 20, 150, 2_000],
            NetworkKind::Devnet => [5_000, 10, 50, 5_000],
        };
        let [propose_ms, propose_step_ms, vote_ms, vote_step_ms] = match network {
            NetworkKind::Mainnet | NetworkKind::Testnet => [1_500, 500, 400, 250],
            NetworkKind::Devnet => [500, 250, 200, 100],
        };
        Self {
            era_ms,
            tick_ms,
            grace_ms,
            propose_ms,
            propose_step_ms,
            prevote_ms: vote_ms,
            prevote_step_ms: vote_step_ms,
            precommit_ms: vote_ms,
            precommit_step_ms: vote_step_ms,
            skew_ms,
        }
    }
}

impl FromStr for ColorChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "truecolor" => Self::Truecolor,
            "ansi256" => Self::Ansi256,
            "ansi16" => Self::Ansi16,
            "never" => Self::Never,
            other => {
                return Err(format!("`{other}` is not one of auto, truecolor, ansi256, ansi16, never"));
            }
        })
    }
}

impl FromStr for BootstrapPeer {
    type Err = ParsePeerError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || ParsePeerError(text.chars().take(200).collect());
        let (key, address) = match text.split_once('@') {
            Some((key, address)) => (Some(key.parse().map_err(|_| refused())?), address),
            None => (None, text),
        };
        let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().map_err(|_| refused())?.to_string(),
            None => host.to_owned(),
        };
        let plausible = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || host.len() > 253 || (bracketed.is_none() && !host.chars().all(plausible)) {
            return Err(refused());
        }
        Ok(Self { key, host, port })
    }
}

impl fmt::Display for BootstrapPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "{key}@")?;
        }
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for BootstrapPeer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BootstrapPeer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An optional setting is written as the empty string, so that the example can show every setting.
mod empty_is_none {
    use serde::de::{DeserializeOwned, Error as _, IntoDeserializer};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Serialize, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        let inner: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            text.as_str().into_deserializer();
        T::deserialize(inner).map(Some).map_err(D::Error::custom)
    }
}
