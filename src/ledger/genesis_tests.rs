//! What must hold of genesis files: faults name file, line, value and remedy; formatting does not
//! matter; a written file parses to the same genesis.

use super::*;
use crate::ledger::tests::{genesis_with, key};

fn text() -> String {
    genesis_with(2).to_toml()
}

/// The error of a genesis in which `from`, which must be there, was replaced by `to`.
fn broken(from: &str, to: &str) -> GenesisError {
    let text = text();
    assert!(text.contains(from), "`{from}` is not in the text");
    Genesis::parse(&text.replacen(from, to, 1), "genesis.toml").unwrap_err()
}

fn line_of(part: &str) -> usize {
    text().lines().position(|line| line.contains(part)).unwrap() + 1
}

#[test]
fn a_written_genesis_parses_to_itself() {
    let genesis = genesis_with(2);
    let parsed = Genesis::parse(&genesis.to_toml(), "genesis.toml").unwrap();
    assert_eq!(parsed, genesis);
    assert_eq!(parsed.chain_id(), genesis.chain_id());
    let odd = Genesis { name: "a \"quoted\" näme \\ #1".to_owned(), ..genesis };
    assert_eq!(Genesis::parse(&odd.to_toml(), "genesis.toml").unwrap(), odd);
}

#[test]
fn formatting_does_not_change_the_chain_but_every_value_does() {
    let reformatted: String = text()
        .lines()
        .map(|line| line.split(" # ").next().unwrap_or_default().trim().replace(" = ", "="))
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| format!("\t{line}\r\n"))
        .collect();
    let chain = genesis_with(2).chain_id();
    assert_eq!(Genesis::parse(&reformatted, "x").unwrap().chain_id(), chain);
    for (from, to) in [
        ("name = \"test\"", "name = \"toast\""),
        ("time_ms = 1000000", "time_ms = 1000001"),
        ("fast_path = true", "fast_path = false"),
        ("tier = \"bronze\"", "tier = \"gold\""),
        ("amount = \"100\"", "amount = \"100.00000001\""),
        ("name = \"node-1\"", "name = \"node-9\""),
    ] {
        let changed = Genesis::parse(&text().replacen(from, to, 1), "x").unwrap();
        assert_ne!(changed.chain_id(), chain, "{from}");
    }
}

#[test]
fn parameters_left_out_take_the_default_of_the_network() {
    let text = text();
    let (head, rest) = text.split_once("[params]").unwrap();
    let tail = &rest[rest.find("[[masternodes]]").unwrap()..];
    let bare = Genesis::parse(&format!("{head}{tail}"), "x").unwrap();
    assert_eq!(bare.params, Params::of(NetworkKind::Devnet));
    let one = Genesis::parse(&format!("{head}[params]\ndust = \"0.5\"\n{tail}"), "x").unwrap();
    assert_eq!(one.params, Params { dust: "0.5".parse().unwrap(), ..bare.params });
}

#[test]
fn every_fault_names_file_line_value_and_remedy() {
    let second_key = key(2).public().to_string();
    let first_key = key(1).public().to_string();
    let not_a_point = {
        let mut bytes = [0u8; 32];
        bytes[0] = 2;
        while PublicKey(bytes).is_point() {
            bytes[0] += 1;
        }
        PublicKey(bytes).to_string()
    };
    let cases = [
        ("network = \"devnet\"", "network = \"moonnet\"", line_of("network ="), "moonnet"),
        ("time_ms = 1000000", "time_ms = -1", line_of("time_ms"), ""),
        ("tier = \"bronze\"", "tier = \"tin\"", line_of("tier ="), "`tin`"),
        ("amount = \"100\"", "amount = \"1e2\"", line_of("amount ="), "`1e2` is not an amount"),
        ("amount = \"100\"", "amount = \"0\"", line_of("amount ="), "at least the dust limit"),
        ("amount = \"100\"", "amount = \"80000000001\"", line_of("amount ="), "80000000001"),
        ("owner = \"dtime1", "owner = \"dtime1x", line_of("owner ="), "is not an address"),
        ("name = \"node-2\"", "name = \"node-1\"", line_of("name = \"node-2\""), "names are unique"),
        ("name = \"node-2\"", "name = \"\"", line_of("name = \"node-2\""), "1 to 64 printable"),
        ("name = \"node-2\"", "name = \"\\u001b[2J\"", line_of("name = \"node-2\""), "printable"),
        (&second_key, &first_key, line_of(&second_key), "each needs its own"),
        (&second_key, &not_a_point, line_of(&second_key), "masternode init"),
        (&second_key, "abcd", line_of(&second_key), "`abcd` is not 64 hexadecimal digits"),
        ("dust = ", "dusk = ", line_of("dust ="), "dusk"),
        ("block_bytes_max = ", "block_bytes_max = 1 #", line_of("[params]"), "block_bytes_max"),
    ];
    for (from, to, line, word) in cases {
        let error = broken(from, to);
        assert_eq!((error.file.as_str(), error.line), ("genesis.toml", Some(line)), "{to}: {error}");
        assert!(error.fault.contains(word), "{to}: {error}");
        assert!(error.to_string().starts_with(&format!("genesis.toml:{line}: ")), "{error}");
    }
}

#[test]
fn an_address_of_another_network_is_refused() {
    let address = Address { network: NetworkKind::Testnet, key_hash: KeyHash::default() }.to_string();
    let own = Address { network: NetworkKind::Devnet, key_hash: key(100).public().key_hash() }.to_string();
    let error = broken(&own, &address);
    assert!(error.fault.contains("is an address of testnet, this is devnet"), "{error}");
}

#[test]
fn fewer_than_three_masternodes_are_refused_with_the_remedy() {
    let mut genesis = genesis_with(0);
    genesis.masternodes.truncate(2);
    let error = Genesis::parse(&genesis.to_toml(), "g.toml").unwrap_err();
    assert_eq!(
        error.to_string(),
        "g.toml: 2 masternodes: consensus needs 3 or more, add [[masternodes]] entries"
    );
    assert!(genesis.check().is_err());
}

#[test]
fn more_masternodes_than_a_committee_holds_are_refused() {
    let mut genesis = genesis_with(0);
    genesis.masternodes = (0..=COMMITTEE_MAX)
        .map(|n| {
            let mut seed = [9; 32];
            seed[..8].copy_from_slice(&n.to_le_bytes());
            let vote_key = crate::primitives::keys::SecretKey::from_seed(&seed).public();
            Founder { name: format!("m{n}"), vote_key, ..genesis.masternodes[0].clone() }
        })
        .collect();
    assert!(genesis.check().unwrap_err().contains("at most 200"));
}

#[test]
fn more_money_than_can_exist_is_refused() {
    let mut genesis = genesis_with(1);
    genesis.allocations[0].amount = Amount::MAX;
    let error = Genesis::parse(&genesis.to_toml(), "g.toml").unwrap_err();
    assert!(error.fault.contains("add up to more than the 80000000000 TIME"), "{error}");
}

#[test]
fn the_first_state_holds_collateral_and_allocations() {
    let genesis = genesis_with(2);
    let state = genesis.state();
    assert_eq!(state.header.supply.to_string(), "4200");
    assert_eq!(state.header.utxo_count, 6);
    assert_eq!(state.next_committee.total(), 4);
    for entry in state.registry.entries() {
        let (_, utxo) =
            genesis.utxos().into_iter().find(|(outpoint, _)| *outpoint == entry.collateral).unwrap();
        assert_eq!((utxo.value, utxo.key_hash), (entry.tier.collateral(), entry.owner));
    }
}

#[test]
fn the_chain_id_matches_the_golden_vector() {
    // Parameters spelled out, so that tuning a default does not touch the vector.
    let params = Params {
        fast_path: true,
        era_bytes: 1,
        era_signatures: 2,
        block_bytes_max: 3,
        block_signatures_max: 4,
        expiry_blocks_max: 5,
        transaction_bytes_max: 6,
        fee_per_byte_min: 7,
        dust: Amount::from_units(8).unwrap(),
        block_reward: Amount::from_units(9).unwrap(),
        halving_blocks: 10,
        unbonding_ms: 11,
        trust_ms: 12,
        slash_percent: 13,
        jail_window_blocks: 14,
        jail_signed_percent: 15,
        jail_cap_percent: 16,
        resume_interval_blocks: 17,
    };
    let genesis = Genesis { params, ..genesis_with(2) };
    assert_eq!(
        genesis.chain_id().to_string(),
        "667c49a47b8f1524a2d68e2607c5b40b3d2ceb93d2f9e33108eb0697b1067d81"
    );
}
