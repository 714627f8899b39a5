//! The command line: names, options and their help, and nothing of what they do.
//!
//! Names are relied on by scripts: they change only with a deprecation.

pub mod logs;

use crate::cli::logs::LogsArgs;
use crate::commands::bans;
use crate::console::source::target::SshTarget;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand, ValueHint};
use masternode::config::ColorChoice;
use masternode::config::reading;
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::Txid;
use masternode::primitives::tier::Tier;
use masternode::primitives::trusted::TrustedHeader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

const EXIT_STATUS: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 78 refused because of \
                           configuration, data or keys (file and remedy are on the standard error).";

/// Masternode of the TimeCoin payment network, with its operator console.
///
/// Without a command it runs the node, as `masternode run` does. To see it at work right away, with
/// four nodes on this machine: `masternode devnet`.
#[derive(Debug, Parser)]
#[command(name = "masternode", version, after_help = EXIT_STATUS, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node, with the console unless told otherwise
    Run(RunArgs),
    /// Run a whole network of real nodes on this machine, with payments
    Devnet(DevnetArgs),
    /// Make keys and a configuration for a new node
    Init(InitArgs),
    /// Found a network, or look at its founding document
    #[command(subcommand)]
    Genesis(GenesisCommand),
    /// Get a proof that a payment is final, or check one without a node
    #[command(subcommand)]
    Proof(ProofCommand),
    /// Open the console on a running node; leaving it never stops the node
    Attach(AttachArgs),
    /// Review logs: of a node, or any files, on the screen or for pipes
    Logs(LogsArgs),
    /// Play in the console what `attach --record` has written
    Replay(ReplayArgs),
    /// Show how a running node is doing
    Status(StatusArgs),
    /// Stop a running node in order
    Stop(StopArgs),
    /// Keep a peer or addresses out of a running node
    Ban(BanArgs),
    /// Let a peer or addresses in again, forgetting scores and back-offs
    Unban(UnbanArgs),
    /// Show who is kept out of a running node, until when and why
    Listbanned(ListBannedArgs),
    /// Look for faults of a node and its machine, changing nothing
    Doctor(DoctorArgs),
    /// Copy the chain of a node, running or not, into a folder that is verified
    Backup(BackupArgs),
    /// Make the database of a node from a backup, verified before and after
    Restore(RestoreArgs),
    /// Write blocks with their certificates to a file, for audit or for another node
    Export(ExportArgs),
    /// Execute and verify every block of an export, into a data directory or without storing anything
    Import(ImportArgs),
    /// Check a configuration file without starting anything
    CheckConfig(CheckConfigArgs),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page in roff
    Man,
}

/// Which node is meant: by configuration file, data directory or network.
#[derive(Clone, Debug, Default, Args)]
pub struct NodeArgs {
    /// Configuration file [default: masternode.toml in the data directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Data directory [default: ~/.local/share/masternode/NETWORK]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// mainnet, testnet, devnet, or the genesis file of a private network
    #[arg(long, value_name = "NETWORK|FILE")]
    pub network: Option<NetworkArg>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Block you trust, learned from another operator: for a node that is new or was away for long
    #[arg(long, value_name = "HEIGHT:ID")]
    pub trusted_block: Option<TrustedHeader>,
    /// Log levels by module, as in info,masternode::network=debug
    #[arg(long, value_name = "FILTER", value_parser = log_filter)]
    pub log_level: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ScreenArgs {
    /// Run without the console and never touch the terminal
    #[arg(long)]
    pub no_tui: bool,
    #[command(flatten)]
    pub look: LookArgs,
}

/// How the console looks.
#[derive(Clone, Debug, Default, Args)]
pub struct LookArgs {
    /// Theme of the console: dark, light, high-contrast, okabe, ansi16, mono, nord, gruvbox, solarized-dark, solarized-light,
    /// or one of your own
    #[arg(long, value_name = "NAME")]
    pub theme: Option<String>,
    /// How many colours to use
    #[arg(long, value_name = "WHEN", value_parser = color_parser())]
    pub color: Option<ColorChoice>,
}

const ATTACH_HELP: &str = "Without --operate the node refuses every order from this console. ssh:// runs `masternode attach \
                           --stdio` on the other machine over your own ssh: nothing listens on the network for it.";

#[derive(Clone, Debug, Args)]
#[command(after_help = ATTACH_HELP)]
pub struct AttachArgs {
    /// A node on another machine, over your own ssh [default: the node on this machine that the options name]
    #[arg(value_name = "ssh://USER@HOST[:PORT][/DIR]")]
    pub target: Option<SshTarget>,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Control socket of the node, wherever it is
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with = "target")]
    pub socket: Option<PathBuf>,
    /// All nodes of `console.fleet` in the configuration, one line each, the worst first
    #[arg(long, conflicts_with_all = ["target", "socket", "stdio"])]
    pub fleet: bool,
    /// Be able to give orders, as to stop the node, instead of looking only
    #[arg(long)]
    pub operate: bool,
    /// Hand the console's bytes between the standard streams and the node: for the far end of ssh
    #[arg(long, conflicts_with = "target")]
    pub stdio: bool,
    /// Also write what the console is sent to a new file, to be played by `masternode replay`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["fleet", "stdio"])]
    pub record: Option<PathBuf>,
    /// What `masternode` is called on the other machine
    #[arg(long, value_name = "PROGRAM", default_value = "masternode")]
    pub remote_program: String,
    #[command(flatten)]
    pub look: LookArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// The recording
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// How many times as fast
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub speed: u16,
    #[command(flatten)]
    pub look: LookArgs,
}

#[derive(Clone, Debug, Args)]
pub struct DevnetArgs {
    /// How many nodes to run, at most 16
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(3..=16))]
    pub nodes: u16,
    /// Payments a second to submit, signed by a built-in payer
    #[arg(long, value_name = "TX_PER_S", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub load: u32,
    /// Stop after this many seconds [default: when told to]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub duration: Option<u64>,
    /// Seconds between two checkpoints
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub checkpoint_interval: u64,
    /// Artificial delay of every message between nodes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub latency: u64,
    /// Where to keep the nodes' data [default: a temporary directory, deleted at the end]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// First UDP port; each node takes the next two [default: free ports]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65_000))]
    pub base_port: Option<u16>,
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Print one JSON object with the results at the end
    #[arg(long, requires = "no_tui", requires = "duration")]
    pub json: bool,
    /// Also spend this many coins twice, at two nodes at the same moment, and see what becomes of them
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    pub double_spends: u64,
    /// Log levels by module, as in info,masternode::network=debug
    #[arg(long, value_name = "FILTER", value_parser = log_filter)]
    pub log_level: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Network the node is for
    #[arg(long, value_name = "NETWORK", default_value = "mainnet", value_parser = network_parser())]
    pub network: NetworkKind,
    /// Data directory to make [default: ~/.local/share/masternode/NETWORK]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: Option<PathBuf>,
    /// Name of the node, shown to its operator and to others
    #[arg(long, default_value = "masternode", value_parser = node_name)]
    pub name: String,
    /// UDP address and port to listen on [default: every address, the network's port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// A node to dial, as HOST:PORT or KEY@HOST:PORT; may be repeated
    #[arg(long, value_name = "PEER", value_parser = bootstrap_peer)]
    pub bootstrap: Vec<String>,
    /// Tier to found or register with: sets collateral and voting weight
    #[arg(long, default_value = "bronze", value_parser = tier_parser())]
    pub tier: Tier,
    /// Address that receives rewards [default: that of the new wallet key]
    #[arg(long, value_name = "ADDRESS")]
    pub payout: Option<String>,
    /// Ask nothing; needs MASTERNODE_PASSPHRASE or one of the two options below
    #[arg(long)]
    pub non_interactive: bool,
    /// File whose first line is the passphrase of the keys; the node will read it at each start
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase", value_hint = ValueHint::FilePath)]
    pub passphrase_file: Option<PathBuf>,
    /// Leave the keys unencrypted: whoever reads the files has them
    #[arg(long)]
    pub no_passphrase: bool,
}

#[derive(Debug, Subcommand)]
pub enum GenesisCommand {
    /// Found a private network from the public files `masternode init` wrote
    Create(GenesisCreateArgs),
    /// Check a genesis file and show what it founds
    Inspect(GenesisInspectArgs),
}

#[derive(Clone, Debug, Args)]
pub struct GenesisCreateArgs {
    /// Public file of a founding masternode, NAME.masternode.toml; three or more are needed
    #[arg(value_name = "PUBLIC_FILE", required = true, value_hint = ValueHint::FilePath)]
    pub masternodes: Vec<PathBuf>,
    /// Name of the network
    #[arg(long, default_value = "private", value_parser = node_name)]
    pub name: String,
    /// Money to give out at the start, in TIME; may be repeated
    #[arg(long, value_name = "ADDRESS=AMOUNT", value_parser = Grant::from_str)]
    pub allocate: Vec<Grant>,
    /// Time of the first block, in milliseconds since 1970 [default: now]
    #[arg(long, value_name = "MS")]
    pub time_ms: Option<u64>,
    /// Plain checkpoint consensus, without finality between checkpoints
    #[arg(long)]
    pub no_fast_path: bool,
    /// File to write; an existing one is never overwritten
    #[arg(long, short, value_name = "FILE", default_value = "genesis.toml", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct GenesisInspectArgs {
    /// The genesis file
    #[arg(default_value = "genesis.toml", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum ProofCommand {
    /// Get from a running node the proof that a transaction is final
    Get(ProofGetArgs),
    /// Check a proof with nothing but the file and a block id you trust
    Verify(ProofVerifyArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ProofGetArgs {
    /// Transaction id, 64 hexadecimal digits
    #[arg(value_name = "TXID")]
    pub txid: Txid,
    #[command(flatten)]
    pub node: NodeArgs,
    /// File to write; an existing one is never overwritten [default: TXID.proof]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Block whoever checks the proof trusts already [default: the one the proof rests on]
    #[arg(long, value_name = "HEIGHT:ID")]
    pub trusted: Option<TrustedHeader>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct ProofVerifyArgs {
    /// The proof
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Block you trust, learned from your own node or from people you trust
    #[arg(long, value_name = "HEIGHT:ID")]
    pub trusted: TrustedHeader,
    /// Genesis file of the network the proof has to be of
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub genesis: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// One fact a line, without alignment: for screen readers and scripts
    #[arg(long, conflicts_with = "json")]
    pub plain: bool,
    /// Everything known, as one JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Seconds to wait until the node is gone
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub wait: u64,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = BAN_HELP)]
pub struct BanArgs {
    /// Network key of the peer (the first 8 digits do if it is connected), or an address, alone or with a prefix
    #[arg(value_name = "PEER|IP[/PREFIX]")]
    pub whom: String,
    #[command(flatten)]
    pub node: NodeArgs,
    /// How long: 90s, 30m, 12h or 7d
    #[arg(long = "for", value_name = "DURATION", default_value = "24h", value_parser = bans::duration)]
    pub length: Duration,
    /// Why; shown to the peer and in the list
    #[arg(long, value_name = "TEXT", default_value = "by order of the operator")]
    pub reason: String,
}

const BAN_HELP: &str = "Connections it is about end at once, also those of committee members: their votes then reach this node \
                        only through others. A range of addresses needs at least 8 bits of IPv4, 16 of IPv6. Bans outlive \
                        restarts.";

#[derive(Clone, Debug, Args)]
pub struct UnbanArgs {
    /// Network key, address, address with prefix, or all
    #[arg(value_name = "PEER|IP[/PREFIX]|all")]
    pub whom: String,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Clone, Debug, Args)]
pub struct ListBannedArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = DOCTOR_HELP)]
pub struct DoctorArgs {
    #[command(flatten)]
    pub node: NodeArgs,
    /// Leave out what takes long: opening and recounting the database
    #[arg(long)]
    pub quick: bool,
    /// Of a stopped node, read every stored block too
    #[arg(long, conflicts_with = "quick")]
    pub deep: bool,
    /// Where to copy database and vote log to be opened [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub scratch: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_HELP: &str = "Each finding is ok, note, skipped (could not be looked at, and why), WARNING or ERROR, with place and \
                           remedy. A running node recounts its own database; that of a stopped one is opened as a copy. \
                           Exit status: 0 no warning and no error, 1 warnings only, 78 at least one error: the node does \
                           not start, does not vote, or must not.";

#[derive(Clone, Debug, Args)]
#[command(after_help = BACKUP_HELP)]
pub struct BackupArgs {
    /// Folder to make; it must not exist, or be empty
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub target: PathBuf,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Copy the key files too, as they are: whoever gets the backup gets them
    #[arg(long)]
    pub keys: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const BACKUP_HELP: &str = "The node may be running and goes on voting. The backup holds all blocks, the state of one height, \
                           genesis.toml and masternode.toml, and never the vote log. It gets its name when it was read \
                           back from the disk and its state hash recounted. Exit status: 0 done, 1 failed, 78 the data \
                           of the node is at fault.";

#[derive(Clone, Debug, Args)]
#[command(after_help = RESTORE_HELP)]
pub struct RestoreArgs {
    /// Folder that `masternode backup` has made
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub backup: PathBuf,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Rename what is in the way (db, journal, sign_floor, instance) to NAME.old-1; nothing is deleted
    #[arg(long)]
    pub set_aside: bool,
    /// Only verify the backup
    #[arg(long, conflicts_with = "set_aside")]
    pub check: bool,
}

const RESTORE_HELP: &str = "The node must be stopped. Configuration and keys that are in the data directory stay; what is \
                            missing comes from the backup. The vote log counts as lost: the restored masternode follows \
                            the chain and signs again when that has let it, by itself. Exit status: 0 done, 1 failed, \
                            78 backup or data directory are at fault.";

#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// File to write, an existing one is never overwritten; - for the standard output
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub node: NodeArgs,
    /// First block [default: the first one the node has]
    #[arg(long, value_name = "HEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// Last block [default: the newest one]
    #[arg(long, value_name = "HEIGHT", value_parser = clap::value_parser!(u64).range(1..))]
    pub to: Option<u64>,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = IMPORT_HELP)]
pub struct ImportArgs {
    /// File that `masternode export` has written; - for the standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    #[command(flatten)]
    pub node: NodeArgs,
    /// Only execute and verify, from the genesis in the file on; no node and no directory is needed
    #[arg(long)]
    pub check: bool,
}

const IMPORT_HELP: &str = "The node must be stopped. Blocks that are there already are compared and skipped, so an import that \
                           was interrupted goes on. Imported into an empty data directory the database is as small as it \
                           can be. Exit status: 0 done, 1 failed, 78 a block of the file or the data directory is at fault.";

#[derive(Clone, Debug, Args)]
pub struct CheckConfigArgs {
    /// The configuration file
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print every setting as it takes effect
    #[arg(long)]
    pub print: bool,
}

/// A network by name, or a private one by its genesis file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkArg {
    Kind(NetworkKind),
    Genesis(PathBuf),
}

impl FromStr for NetworkArg {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<NetworkKind>() {
            Ok(kind) => Ok(Self::Kind(kind)),
            Err(_) if text.contains(['/', '.']) => Ok(Self::Genesis(PathBuf::from(text))),
            Err(error) => Err(format!("{error}, or the path of a genesis file")),
        }
    }
}

/// Money given out at the start of a network.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Receiver, checked against the network later.
    pub address: String,
    pub amount: Amount,
}

impl FromStr for Grant {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, amount) =
            text.split_once('=').ok_or_else(|| format!("`{text}` is not ADDRESS=AMOUNT"))?;
        let amount = amount.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { address: address.to_owned(), amount })
    }
}

fn log_filter(text: &str) -> Result<String, String> {
    reading::log_filter(text).map(|()| text.to_owned())
}

fn node_name(text: &str) -> Result<String, String> {
    reading::name(text).map(|()| text.to_owned())
}

fn bootstrap_peer(text: &str) -> Result<String, String> {
    let parsed = text.parse::<masternode::config::BootstrapPeer>();
    parsed.map(|peer| peer.to_string()).map_err(|error| error.to_string())
}

fn network_parser() -> impl clap::builder::TypedValueParser<Value = NetworkKind> {
    PossibleValuesParser::new(NetworkKind::ALL.map(NetworkKind::name))
        .try_map(|text| text.parse::<NetworkKind>())
}

fn tier_parser() -> impl clap::builder::TypedValueParser<Value = Tier> {
    PossibleValuesParser::new(Tier::ALL.map(Tier::name)).try_map(|text| {
        Tier::ALL.into_iter().find(|tier| tier.name() == text).ok_or_else(|| format!("no tier `{text}`"))
    })
}

fn color_parser() -> impl clap::builder::TypedValueParser<Value = ColorChoice> {
    PossibleValuesParser::new(["auto", "truecolor", "ansi256", "ansi16", "never"])
        .try_map(|text| text.parse::<ColorChoice>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_runs_the_node() {
        let cli = Cli::parse_from(["masternode", "--no-tui", "--data-dir", "/x"]);
        assert!(cli.command.is_none() && cli.run.screen.no_tui);
        assert_eq!(cli.run.node.data_dir, Some(PathBuf::from("/x")));
        let named = Cli::parse_from(["masternode", "run", "--network", "devnet"]);
        let Some(Command::Run(run)) = named.command else { panic!("not run") };
        assert_eq!(run.node.network, Some(NetworkArg::Kind(NetworkKind::Devnet)));
    }
}
