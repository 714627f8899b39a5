//! The beginning of a chain, from a TOML file: network, parameters, masternodes, allocations.
//!
//! Invariants: a [`Genesis`] was checked, so every chain it founds can run; the chain id is the hash
//! of its parsed value, so formatting and comments do not matter, while the order of entries does.
//! Absent: reading the file itself; the caller hands over its text and its name for messages.

use crate::ledger::apply::State;
use crate::ledger::registry::{Entry, Registry, check_name};
use crate::ledger::set_hash::SetHash;
use crate::primitives::address::Address;
use crate::primitives::amount::Amount;
use crate::primitives::block::{Coinbase, HEADER_VERSION, Header, last_commit_root, tx_root};
use crate::primitives::chain::NetworkKind;
use crate::primitives::committee::{COMMITTEE_MAX, COMMITTEE_MIN};
use crate::primitives::encoding::{Decode, Encode, encode};
use crate::primitives::hash::{BlockId, ChainId, Domain, KeyHash, MasternodeId, hash};
use crate::primitives::keys::PublicKey;
use crate::primitives::params::Params;
use crate::primitives::tier::Tier;
use crate::primitives::transaction::{OutPoint, TxOutput, Utxo};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Most allocations: a genesis is read whole and its outputs have 32-bit indices.
pub const ALLOCATIONS_MAX: usize = 100_000;

/// A checked genesis.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Genesis {
    /// Kind of the network.
    pub network: NetworkKind,
    /// Name of the network.
    pub name: String,
    /// Time of the genesis block in milliseconds since 1970.
    pub time_ms: u64,
    /// Consensus parameters.
    pub params: Params,
    /// Founding masternodes.
    pub masternodes: Vec<Founder>,
    /// Money given out besides collateral.
    pub allocations: Vec<Allocation>,
}

/// A founding masternode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Founder {
    /// Its name, unique.
    pub name: String,
    /// Key that signs its votes, unique.
    pub vote_key: PublicKey,
    /// Its tier; the collateral is created with the chain.
    pub tier: Tier,
    /// Who owns the collateral.
    pub owner: KeyHash,
    /// Where its rewards go.
    pub payout: KeyHash,
}

/// Money of the first state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Allocation {
    /// Who may spend it.
    pub key_hash: KeyHash,
    /// How much.
    pub amount: Amount,
}

/// Why a text is not a genesis, with the place and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}{}: {fault}", line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct GenesisError {
    /// The file, as given by the caller.
    pub file: String,
    /// Line in the file, from 1; `None` when the fault is of the whole.
    pub line: Option<usize>,
    /// What is wrong with which value, and what to do.
    pub fault: String,
}

/// The file as TOML knows it; every later fault can still name its line.
mod file {
    use super::Tier;
    use crate::primitives::amount::Amount;
    use crate::primitives::chain::NetworkKind;
    use crate::primitives::keys::PublicKey;
    use serde::Deserialize;
    use toml::Spanned;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Genesis {
        pub network: NetworkKind,
        pub name: Spanned<String>,
        pub time_ms: Spanned<u64>,
        #[serde(default)]
        pub params: Option<Spanned<Params>>,
        #[serde(default)]
        pub masternodes: Vec<Masternode>,
        #[serde(default)]
        pub allocations: Vec<Allocation>,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields, default)]
    pub struct Params {
        pub fast_path: Option<bool>,
        pub era_bytes: Option<u64>,
        pub era_signatures: Option<u64>,
        pub block_bytes_max: Option<u64>,
        pub block_signatures_max: Option<u64>,
        pub expiry_blocks_max: Option<u64>,
        pub transaction_bytes_max: Option<u64>,
        pub fee_per_byte_min: Option<u64>,
        pub dust: Option<Spanned<String>>,
        pub block_reward: Option<Spanned<String>>,
        pub halving_blocks: Option<u64>,
        pub unbonding_ms: Option<u64>,
        pub trust_ms: Option<u64>,
        pub slash_percent: Option<u64>,
        pub jail_window_blocks: Option<u64>,
        pub jail_signed_percent: Option<u64>,
        pub jail_cap_percent: Option<u64>,
        pub resume_interval_blocks: Option<u64>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Masternode {
        pub name: Spanned<String>,
        pub vote_key: Spanned<PublicKey>,
        pub tier: Tier,
        pub owner: Spanned<String>,
        pub payout: Spanned<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Allocation {
        pub address: Spanned<String>,
        pub amount: Spanned<String>,
    }

    impl Params {
        /// The parameters with defaults of `network` where the file is silent.
        pub fn over(
            &self,
            mut base: crate::primitives::params::Params,
            amount: impl Fn(&Spanned<String>) -> Result<Amount, super::GenesisError>,
        ) -> Result<crate::primitives::params::Params, super::GenesisError> {
            let set = |to: &mut u64, from: Option<u64>| *to = from.unwrap_or(*to);
            base.fast_path = self.fast_path.unwrap_or(base.fast_path);
            set(&mut base.era_bytes, self.era_bytes);
            set(&mut base.era_signatures, self.era_signatures);
            set(&mut base.block_bytes_max, self.block_bytes_max);
            set(&mut base.block_signatures_max, self.block_signatures_max);
            set(&mut base.expiry_blocks_max, self.expiry_blocks_max);
            set(&mut base.transaction_bytes_max, self.transaction_bytes_max);
            set(&mut base.fee_per_byte_min, self.fee_per_byte_min);
            set(&mut base.halving_blocks, self.halving_blocks);
            set(&mut base.unbonding_ms, self.unbonding_ms);
            set(&mut base.trust_ms, self.trust_ms);
            set(&mut base.slash_percent, self.slash_percent);
            set(&mut base.jail_window_blocks, self.jail_window_blocks);
            set(&mut base.jail_signed_percent, self.jail_signed_percent);
            set(&mut base.jail_cap_percent, self.jail_cap_percent);
            set(&mut base.resume_interval_blocks, self.resume_interval_blocks);
            if let Some(text) = &self.dust {
                base.dust = amount(text)?;
            }
            if let Some(text) = &self.block_reward {
                base.block_reward = amount(text)?;
            }
            Ok(base)
        }
    }
}

/// Turns offsets into lines and makes errors.
struct Place<'a> {
    file: &'a str,
    text: &'a str,
}

impl Place<'_> {
    fn fault(&self, offset: Option<usize>, fault: impl Into<String>) -> GenesisError {
        let line =
            offset.map(|offset| self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1);
        GenesisError { file: self.file.to_owned(), line, fault: fault.into() }
    }

    fn at<T>(&self, value: &toml::Spanned<T>, fault: impl Into<String>) -> GenesisError {
        self.fault(Some(value.span().start), fault)
    }

    fn amount(&self, text: &toml::Spanned<String>) -> Result<Amount, GenesisError> {
        text.get_ref().parse().map_err(|error| self.at(text, format!("{error}")))
    }

    fn address(&self, text: &toml::Spanned<String>, network: NetworkKind) -> Result<KeyHash, GenesisError> {
        let address =
            Address::parse_for(text.get_ref(), network).map_err(|error| self.at(text, format!("{error}")))?;
        Ok(address.key_hash)
    }

    fn name(&self, text: &toml::Spanned<String>) -> Result<String, GenesisError> {
        check_name(text.get_ref()).map_err(|fault| self.at(text, fault))?;
        Ok(text.get_ref().clone())
    }
}

impl Genesis {
    /// Parses and checks the text of a genesis file; `file` is named in errors.
    ///
    /// # Errors
    /// [`GenesisError`] with file, line, the offending value and the remedy.
    pub fn parse(text: &str, file: &str) -> Result<Self, GenesisError> {
        let place = Place { file, text };
        let raw: file::Genesis = toml::from_str(text)
            .map_err(|error| place.fault(error.span().map(|span| span.start), error.message()))?;
        let base = Params::of(raw.network);
        let params = match &raw.params {
            Some(given) => {
                let params = given.get_ref().over(base, |text| place.amount(text))?;
                params.check().map_err(|error| place.at(given, error.to_string()))?;
                params
            }
            None => base,
        };
        let masternodes = founders(&place, &raw)?;
        let allocations = allocations(&place, &raw, params.dust)?;
        let name = place.name(&raw.name)?;
        let time_ms = *raw.time_ms.get_ref();
        let genesis = Self { network: raw.network, name, time_ms, params, masternodes, allocations };
        genesis.check().map_err(|fault| place.fault(None, fault))?;
        Ok(genesis)
    }

    /// Checks a genesis made in memory by the rules a file is held to.
    ///
    /// # Errors
    /// What is wrong and what to do.
    pub fn check(&self) -> Result<(), String> {
        check_name(&self.name)?;
        self.params.check().map_err(|error| error.to_string())?;
        let count = self.masternodes.len();
        if count < COMMITTEE_MIN {
            return Err(format!(
                "{count} masternodes: consensus needs {COMMITTEE_MIN} or more, add [[masternodes]] entries"
            ));
        }
        if count > COMMITTEE_MAX {
            return Err(format!("{count} masternodes: a committee has at most {COMMITTEE_MAX}"));
        }
        if self.allocations.len() > ALLOCATIONS_MAX {
            return Err(format!("{} allocations: at most {ALLOCATIONS_MAX}", self.allocations.len()));
        }
        self.check_founders()?;
        for allocation in &self.allocations {
            check_allocation(allocation.amount, self.params.dust)?;
        }
        match self.supply() {
            Some(_) => Ok(()),
            None => Err(format!(
                "collateral and allocations add up to more than the {} TIME that can exist: lower them",
                Amount::MAX
            )),
        }
    }

    fn check_founders(&self) -> Result<(), String> {
        let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
        for founder in &self.masternodes {
            check_name(&founder.name)?;
            check_vote_key(&founder.vote_key)?;
            if names.insert(&founder.name, ()).is_some() {
                return Err(format!("two masternodes are named `{}`: names are unique", founder.name));
            }
            if keys.insert(founder.vote_key, ()).is_some() {
                return Err(shared_key(&founder.vote_key));
            }
        }
        Ok(())
    }

    /// Money in existence at the start, collateral included; `None` above [`Amount::MAX`].
    #[must_use]
    pub fn supply(&self) -> Option<Amount> {
        Amount::checked_sum(self.outputs().into_iter().map(|output| output.value))
    }

    /// Identity of the chain: the hash of all of this.
    #[must_use]
    pub fn chain_id(&self) -> ChainId {
        ChainId(hash(Domain::GENESIS, &[&encode(self)]))
    }

    /// All first outputs: collateral in order of the masternodes, then the allocations.
    fn outputs(&self) -> Vec<TxOutput> {
        let locked = self
            .masternodes
            .iter()
            .map(|founder| TxOutput { value: founder.tier.collateral(), key_hash: founder.owner });
        let given = self
            .allocations
            .iter()
            .map(|allocation| TxOutput { value: allocation.amount, key_hash: allocation.key_hash });
        locked.chain(given).collect()
    }

    /// The outputs as they stand in the set: all of the coinbase of height 0.
    #[must_use]
    pub fn utxos(&self) -> Vec<(OutPoint, Utxo)> {
        Coinbase { height: 0, outputs: self.outputs() }.creates()
    }

    /// The founding masternodes with their collateral.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let txid = Coinbase { height: 0, outputs: self.outputs() }.id();
        let entry = |(founder, index): (&Founder, u32)| {
            let collateral = OutPoint { txid, index };
            let keys = [founder.owner, founder.payout];
            Entry::new(founder.name.clone(), founder.vote_key, founder.tier, keys, collateral)
        };
        Registry::new(self.masternodes.iter().zip(0u32..).map(entry).collect())
    }

    /// The state after the genesis block.
    #[must_use]
    pub fn state(&self) -> State {
        let registry = self.registry();
        let committee = Arc::new(registry.committee());
        let mut set_hash = SetHash::new();
        let utxos = self.utxos();
        utxos.iter().for_each(|(outpoint, utxo)| set_hash.add(outpoint, utxo));
        let chain = self.chain_id();
        let header = Header {
            version: HEADER_VERSION,
            height: 0,
            // Nothing comes before; naming the chain makes every later id depend on all of the genesis.
            previous: BlockId(chain.0),
            time_ms: self.time_ms,
            proposer: MasternodeId::default(),
            tx_root: tx_root(&[]),
            tx_count: 0,
            body_bytes: 0,
            last_commit_root: last_commit_root(None),
            utxo_hash: set_hash.digest(),
            utxo_count: utxos.len() as u64,
            supply: self.supply().unwrap_or_default(),
            registry_root: registry.root(),
            committee_root: committee.root(),
            next_committee_root: committee.root(),
            params_root: self.params.root(),
        };
        State {
            chain,
            block: header.id(),
            header,
            commit: None,
            set_hash,
            registry: Arc::new(registry),
            committee: Arc::clone(&committee),
            next_committee: committee,
            transactions: 0,
        }
    }

    /// The text of a genesis file that parses to this value, with comments for its readers.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_toml(&mut text);
        text
    }

    fn write_toml(&self, text: &mut String) -> std::fmt::Result {
        let quoted = |value: &str| toml::Value::String(value.to_owned()).to_string();
        let address = |key_hash| Address { network: self.network, key_hash };
        writeln!(text, "# Genesis of a TimeCoin network. Every node needs exactly this content: its hash")?;
        writeln!(text, "# {} is the chain id.", self.chain_id())?;
        writeln!(text, "\n# mainnet, testnet or devnet: sets address prefixes and default ports.")?;
        writeln!(text, "network = \"{}\"", self.network)?;
        writeln!(text, "name = {}", quoted(&self.name))?;
        writeln!(text, "# Time of the genesis block in milliseconds since 1970.")?;
        writeln!(text, "time_ms = {}", self.time_ms)?;
        self.write_params(text)?;
        writeln!(
            text,
            "\n# Founding masternodes, 3 or more. The collateral of the tier (bronze 1,000 TIME,"
        )?;
        writeln!(
            text,
            "# silver 10,000, gold 100,000; vote weight 1, 10, 100) is created locked to `owner`."
        )?;
        for founder in &self.masternodes {
            writeln!(text, "\n[[masternodes]]\nname = {}", quoted(&founder.name))?;
            writeln!(text, "vote_key = \"{}\"\ntier = \"{}\"", founder.vote_key, founder.tier)?;
            writeln!(text, "owner = \"{}\"", address(founder.owner))?;
            writeln!(text, "payout = \"{}\"", address(founder.payout))?;
        }
        if !self.allocations.is_empty() {
            writeln!(text, "\n# Money given out at the start, in TIME.")?;
        }
        for allocation in &self.allocations {
            writeln!(text, "\n[[allocations]]\naddress = \"{}\"", address(allocation.key_hash))?;
            writeln!(text, "amount = \"{}\"", allocation.amount)?;
        }
        Ok(())
    }

    fn write_params(&self, text: &mut String) -> std::fmt::Result {
        let params = &self.params;
        writeln!(text, "\n# Consensus parameters; a line left out takes the default of the network kind.")?;
        writeln!(text, "[params]")?;
        writeln!(
            text,
            "fast_path = {}              # vote on payments between checkpoints",
            params.fast_path
        )?;
        writeln!(
            text,
            "era_bytes = {}              # one validator may prepare in an era",
            params.era_bytes
        )?;
        writeln!(text, "era_signatures = {}", params.era_signatures)?;
        writeln!(
            text,
            "block_bytes_max = {}        # at least 2 * era_bytes + 262144",
            params.block_bytes_max
        )?;
        writeln!(
            text,
            "block_signatures_max = {}   # at least 2 * era_signatures",
            params.block_signatures_max
        )?;
        writeln!(
            text,
            "expiry_blocks_max = {}      # how far ahead a transaction may expire",
            params.expiry_blocks_max
        )?;
        writeln!(text, "transaction_bytes_max = {}", params.transaction_bytes_max)?;
        writeln!(text, "fee_per_byte_min = {}       # in units of 0.00000001 TIME", params.fee_per_byte_min)?;
        writeln!(text, "dust = \"{}\"               # least value of an output, in TIME", params.dust)?;
        writeln!(text, "block_reward = \"{}\"       # new money a block, in TIME", params.block_reward)?;
        writeln!(text, "halving_blocks = {}         # 0: the reward never halves", params.halving_blocks)?;
        let keys = [
            ("unbonding_ms", params.unbonding_ms, "collateral of who left stays locked and at risk so long"),
            ("trust_ms", params.trust_ms, "age of a header to start from at most; less than unbonding_ms"),
            ("slash_percent", params.slash_percent, "of the collateral burns with evidence"),
            ("jail_window_blocks", params.jail_window_blocks, "over which signatures are counted"),
            ("jail_signed_percent", params.jail_signed_percent, "of them are to be signed, else jail"),
            ("jail_cap_percent", params.jail_cap_percent, "of the registered weight is jailed at most"),
            ("resume_interval_blocks", params.resume_interval_blocks, "between two resumes at least"),
        ];
        for (key, value, comment) in keys {
            writeln!(text, "{:<28} # {comment}", format!("{key} = {value}"))?;
        }
        Ok(())
    }
}

fn founders(place: &Place<'_>, raw: &file::Genesis) -> Result<Vec<Founder>, GenesisError> {
    let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
    let mut founders = Vec::with_capacity(raw.masternodes.len());
    for node in &raw.masternodes {
        let name = place.name(&node.name)?;
        if names.insert(name.clone(), ()).is_some() {
            return Err(
                place.at(&node.name, format!("a second masternode is named `{name}`: names are unique"))
            );
        }
        let vote_key = *node.vote_key.get_ref();
        check_vote_key(&vote_key).map_err(|fault| place.at(&node.vote_key, fault))?;
        if keys.insert(vote_key, ()).is_some() {
            return Err(place.at(&node.vote_key, shared_key(&vote_key)));
        }
        let owner = place.address(&node.owner, raw.network)?;
        let payout = place.address(&node.payout, raw.network)?;
        founders.push(Founder { name, vote_key, tier: node.tier, owner, payout });
    }
    Ok(founders)
}

fn allocations(
    place: &Place<'_>,
    raw: &file::Genesis,
    dust: Amount,
) -> Result<Vec<Allocation>, GenesisError> {
    let read = |entry: &file::Allocation| {
        let key_hash = place.address(&entry.address, raw.network)?;
        let amount = place.amount(&entry.amount)?;
        check_allocation(amount, dust).map_err(|fault| place.at(&entry.amount, fault))?;
        Ok(Allocation { key_hash, amount })
    };
    raw.allocations.iter().map(read).collect()
}

fn check_allocation(amount: Amount, dust: Amount) -> Result<(), String> {
    if amount == Amount::ZERO || amount < dust || !amount.in_range() {
        return Err(format!(
            "an allocation of {amount} TIME: it must be at least the dust limit of {dust} TIME"
        ));
    }
    Ok(())
}

fn check_vote_key(key: &PublicKey) -> Result<(), String> {
    if key.is_point() {
        return Ok(());
    }
    Err(format!("vote_key `{key}` is not a public key: take it from the output of `masternode init`"))
}

fn shared_key(key: &PublicKey) -> String {
    format!("two masternodes share the vote_key `{key}`: each needs its own")
}

#[cfg(test)]
#[path = "genesis_tests.rs"]
mod tests;
