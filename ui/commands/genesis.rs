//! `masternode genesis create|inspect`: founding a private network.
//!
//! Each founder runs `masternode init` and sends its public file; whoever founds the network turns
//! those into one genesis file, the same for all, whose hash is the network's identity.

use crate::cli::{GenesisCreateArgs, GenesisInspectArgs, Grant};
use crate::commands::init::write_new;
use crate::commands::{Failure, Outcome, locate, output};
use masternode::ledger::genesis::{Allocation, Founder, Genesis};
use masternode::primitives::address::Address;
use masternode::primitives::amount::Amount;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::committee::Committee;
use masternode::primitives::hash::KeyHash;
use masternode::primitives::keys::PublicKey;
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest public file read, in bytes; ours have about 600.
const PUBLIC_BYTES_MAX: u64 = 16 << 10;

/// What a founder tells the others, `NAME.masternode.toml`. No secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicFile {
    pub name: String,
    pub network: NetworkKind,
    pub tier: Tier,
    pub vote_key: PublicKey,
    /// Address that owns the collateral.
    pub owner: String,
    /// Address that receives rewards.
    pub payout: String,
    /// For the others' `p2p.bootstrap`; not part of the genesis.
    pub network_key: PublicKey,
}

impl PublicFile {
    /// Its file name: the node's name with anything unusual replaced.
    pub fn file_name(&self) -> String {
        let usual = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
        format!("{}.masternode.toml", self.name.chars().map(usual).collect::<String>())
    }

    /// Its text.
    ///
    /// # Errors
    /// Never for values of this type.
    pub fn to_toml(&self) -> Result<String, Failure> {
        let text = toml::to_string(self).map_err(Failure::failed)?;
        Ok(format!(
            "# Public description of a masternode, for `masternode genesis create`. Holds no secret.\n{text}"
        ))
    }

    fn read(file: &Path) -> Result<Self, Failure> {
        let shown = file.display();
        let unreadable = |error: std::io::Error| {
            Failure::Refused(format!(
                "{shown}: cannot be read: {error}. It is the NAME.masternode.toml that `masternode init` wrote"
            ))
        };
        if std::fs::metadata(file).map_err(unreadable)?.len() > PUBLIC_BYTES_MAX {
            return Err(unreadable(std::io::Error::other("too large")));
        }
        let text = std::fs::read_to_string(file).map_err(unreadable)?;
        toml::from_str(&text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1;
            Failure::Refused(format!(
                "{shown}:{line}: {}. Ask its owner for the NAME.masternode.toml that `masternode init` wrote",
                error.message().replace('\n', ", ")
            ))
        })
    }

    fn founder(&self, file: &Path) -> Result<Founder, Failure> {
        let key_hash = |name: &str, text: &str| -> Result<KeyHash, Failure> {
            let address = Address::parse_for(text, self.network);
            address
                .map(|address| address.key_hash)
                .map_err(|error| Failure::Refused(format!("{}: `{name}`: {error}", file.display())))
        };
        Ok(Founder {
            name: self.name.clone(),
            vote_key: self.vote_key,
            tier: self.tier,
            owner: key_hash("owner", &self.owner)?,
            payout: key_hash("payout", &self.payout)?,
        })
    }
}

/// Writes a genesis file from the founders' public files.
///
/// # Errors
/// [`Failure::Refused`] naming the file that is wrong.
pub fn create(args: &GenesisCreateArgs) -> Outcome {
    let mut network = None;
    let mut masternodes = Vec::new();
    let mut peers = String::new();
    for file in &args.masternodes {
        let public = PublicFile::read(file)?;
        let expected = *network.get_or_insert(public.network);
        if public.network != expected {
            return Err(Failure::Refused(format!(
                "{}: is of {}, the files before it of {expected}: a network has one kind",
                file.display(),
                public.network
            )));
        }
        masternodes.push(public.founder(file)?);
        let _ =
            writeln!(peers, "  \"{}@HOST:{}\"   {}", public.network_key, expected.p2p_port(), public.name);
    }
    let network = network.ok_or_else(|| Failure::Usage("name the founders' public files".to_owned()))?;
    let grants = args.allocate.iter().map(|grant| allocation(grant, network));
    let genesis = Genesis {
        network,
        name: args.name.clone(),
        time_ms: match args.time_ms {
            Some(time_ms) => time_ms,
            None => now_ms()?,
        },
        params: Params { fast_path: !args.no_fast_path, ..Params::of(network) },
        masternodes,
        allocations: grants.collect::<Result<_, _>>()?,
    };
    genesis.check().map_err(Failure::Refused)?;
    write_new(&args.output, &genesis.to_toml(), 0o644)?;
    output::write(&format!(
        "{}\nWritten to {file}. Every node needs exactly this file as genesis.toml in its data directory;\n\
         compare the chain id. For `bootstrap` in [p2p], with each founder's host:\n{peers}",
        summary(&genesis),
        file = args.output.display(),
    ))
}

fn allocation(grant: &Grant, network: NetworkKind) -> Result<Allocation, Failure> {
    let address = Address::parse_for(&grant.address, network)
        .map_err(|error| Failure::Usage(format!("--allocate: {error}")))?;
    Ok(Allocation { key_hash: address.key_hash, amount: grant.amount })
}

fn now_ms() -> Result<u64, Failure> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .ok_or_else(|| Failure::Failed("the clock stands before 1970: set it, or give --time-ms".to_owned()))
}

/// Shows what a genesis file founds.
///
/// # Errors
/// [`Failure::Refused`] with file, line and remedy when it is none.
pub fn inspect(args: &GenesisInspectArgs) -> Outcome {
    let genesis = locate::genesis(&args.file)?;
    if args.json {
        let text = serde_json::to_string_pretty(&as_json(&genesis)).map_err(Failure::failed)?;
        return output::write(&format!("{text}\n"));
    }
    output::write(&summary(&genesis))
}

fn committee(genesis: &Genesis) -> Committee {
    genesis.registry().committee()
}

fn supply(genesis: &Genesis) -> Amount {
    genesis.supply().unwrap_or(Amount::MAX)
}

fn summary(genesis: &Genesis) -> String {
    let committee = committee(genesis);
    let mut text = format!(
        "chain      {}\nnetwork    {} `{}`\ngenesis    {}\ntime       {} ms since 1970\nsupply     {} TIME\n\
         fast path  {}\nquorum     {} of weight {}\n\n",
        genesis.chain_id(),
        genesis.network,
        genesis.name,
        genesis.state().block,
        genesis.time_ms,
        supply(genesis),
        if genesis.params.fast_path { "on" } else { "off" },
        committee.quorum(),
        committee.total(),
    );
    let address = |key_hash| Address { network: genesis.network, key_hash };
    for founder in &genesis.masternodes {
        let _ = writeln!(
            text,
            "masternode {} ({}, weight {})\n  vote key {}\n  owner    {}\n  payout   {}",
            founder.name,
            founder.tier,
            founder.tier.weight(),
            founder.vote_key,
            address(founder.owner),
            address(founder.payout)
        );
    }
    for allocation in &genesis.allocations {
        let _ = writeln!(text, "allocation {} TIME to {}", allocation.amount, address(allocation.key_hash));
    }
    text
}

/// The `--json` form; amounts in units.
fn as_json(genesis: &Genesis) -> serde_json::Value {
    let committee = committee(genesis);
    let address = |key_hash| Address { network: genesis.network, key_hash }.to_string();
    let founder = |founder: &Founder| {
        serde_json::json!({
            "name": founder.name,
            "vote_key": founder.vote_key,
            "tier": founder.tier,
            "weight": founder.tier.weight(),
            "owner": address(founder.owner),
            "payout": address(founder.payout),
        })
    };
    let grant = |allocation: &Allocation| serde_json::json!({ "address": address(allocation.key_hash), "amount": allocation.amount });
    serde_json::json!({
        "chain": genesis.chain_id(),
        "network": genesis.network,
        "name": genesis.name,
        "time_ms": genesis.time_ms,
        "supply": supply(genesis),
        "quorum_weight": committee.quorum(),
        "total_weight": committee.total(),
        "params": genesis.params,
        "masternodes": genesis.masternodes.iter().map(founder).collect::<Vec<_>>(),
        "allocations": genesis.allocations.iter().map(grant).collect::<Vec<_>>(),
    })
}
