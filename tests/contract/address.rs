//! Addresses (BIP-350) and amounts as people write them.

use bech32::Bech32m;
use bech32::primitives::decode::{CheckedHrpstring, UncheckedHrpstring};
use masternode::primitives::address::{Address, ParseAddressError};
use masternode::primitives::amount::{Amount, ParseAmountError};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{Hash, KeyHash};
use proptest::prelude::*;

/// Valid Bech32m strings of BIP-350.
const VALID: [&str; 7] = [
    "A1LQFN3A",
    "a1lqfn3a",
    "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11sg7hg6",
    "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
    "11llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllludsr8",
    "split1checkupstagehandshakeupstreamerranterredcaperredlc445v",
    "?1v759aa",
];

/// Invalid Bech32m strings of BIP-350.
const INVALID: [&str; 14] = [
    "\u{20}1xj0phk",
    "\u{7f}1g6xzxy",
    "\u{80}1vctc34",
    "an84characterslonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber11d6pts4",
    "qyrz8wqd2c9m",
    "1qyrz8wqd2c9m",
    "y1b0jsk6g",
    "lt1igcx5c0",
    "in1muywd",
    "mm1crxm3i",
    "au1s5cgom",
    "M1VUXWEZ",
    "16plkw9",
    "1p2gdwpf",
];

fn address(network: NetworkKind, byte: u8) -> Address {
    Address { network, key_hash: KeyHash(Hash([byte; 32])) }
}

#[test]
fn the_checksum_is_that_of_bip_350() {
    for text in VALID {
        assert!(UncheckedHrpstring::new(text).unwrap().has_valid_checksum::<Bech32m>(), "{text}");
    }
    for text in INVALID {
        assert!(CheckedHrpstring::new::<Bech32m>(text).is_err(), "{text:?}");
    }
    for text in VALID.into_iter().chain(INVALID) {
        assert!(Address::parse(text).is_err(), "{text:?} is of no network of ours");
    }
}

#[test]
fn addresses_show_their_network_and_are_refused_on_another() {
    for (network, prefix) in [
        (NetworkKind::Mainnet, "time1q"),
        (NetworkKind::Testnet, "ttime1q"),
        (NetworkKind::Devnet, "dtime1q"),
    ] {
        let text = address(network, 0xa7).to_string();
        assert!(text.starts_with(prefix), "{text}");
        assert_eq!(Address::parse(&text).unwrap(), address(network, 0xa7));
        assert_eq!(Address::parse(&text.to_uppercase()).unwrap(), address(network, 0xa7));
        for other in NetworkKind::ALL.into_iter().filter(|other| *other != network) {
            let error = Address::parse_for(&text, other);
            assert!(matches!(error, Err(ParseAddressError::WrongNetwork { .. })), "{text}");
        }
    }
}

#[test]
fn mixed_case_other_versions_and_other_lengths_are_refused() {
    let text = address(NetworkKind::Mainnet, 1).to_string();
    assert!(Address::parse(&text.replacen('q', "Q", 1)).is_err());
    let hrp = bech32::Hrp::parse("time").unwrap();
    for data in [vec![1; 33], vec![0; 32], vec![0; 34], vec![0], vec![]] {
        let text = bech32::encode::<Bech32m>(hrp, &data).unwrap();
        assert!(Address::parse(&text).is_err(), "{data:?}");
    }
    let good = [vec![0], vec![1; 32]].concat();
    assert!(Address::parse(&bech32::encode::<Bech32m>(hrp, &good).unwrap()).is_ok());
    assert!(
        Address::parse(&bech32::encode::<bech32::Bech32>(hrp, &good).unwrap()).is_err(),
        "the older checksum"
    );
}

#[test]
fn amounts_are_refused_with_their_reason() {
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1 ", "0x1", "1.2.3", "١"] {
        assert!(matches!(text.parse::<Amount>(), Err(ParseAmountError::Malformed(_))), "{text:?}");
    }
    assert!(matches!("0.000000001".parse::<Amount>(), Err(ParseAmountError::TooPrecise(_))));
    for text in ["80000000000.00000001", "99999999999999999999999", "18446744073709551616"] {
        assert!(matches!(text.parse::<Amount>(), Err(ParseAmountError::TooLarge(_))), "{text}");
    }
    assert_eq!("80000000000".parse::<Amount>().unwrap(), Amount::MAX);
    assert_eq!("0.00000001".parse::<Amount>().unwrap().units(), 1);
    assert_eq!("007.50".parse::<Amount>().unwrap().to_string(), "7.5");
}

#[test]
fn sums_and_differences_never_leave_the_range() {
    let one = Amount::from_units(1).unwrap();
    assert_eq!(Amount::MAX.checked_add(one), None);
    assert_eq!(Amount::ZERO.checked_sub(one), None);
    assert_eq!(Amount::checked_sum([Amount::MAX, Amount::ZERO]), Some(Amount::MAX));
    assert_eq!(Amount::checked_sum([one, Amount::MAX]), None);
    assert_eq!(Amount::from_units(Amount::MAX.units() + 1), None);
    assert_eq!(Amount::from_time(u64::MAX), None);
}

proptest! {
    #[test]
    fn an_amount_reads_back_as_it_is_shown(units in 0..=Amount::MAX.units()) {
        let amount = Amount::from_units(units).unwrap();
        prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
    }

    #[test]
    fn any_text_parses_or_is_refused_without_panic(text in ".{0,40}") {
        if let Ok(amount) = text.parse::<Amount>() {
            prop_assert!(amount.in_range());
        }
        let _ = Address::parse(&text);
    }

    #[test]
    fn up_to_four_wrong_letters_in_an_address_are_noticed(
        bytes in any::<[u8; 32]>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..32), 1..5),
    ) {
        let address = Address { network: NetworkKind::Mainnet, key_hash: KeyHash(Hash(bytes)) };
        let good = address.to_string();
        prop_assert_eq!(Address::parse(&good).unwrap(), address);
        let mut letters: Vec<u8> = good.clone().into_bytes();
        for (at, letter) in edits {
            let data = "time1".len();
            let at = data + at.index(letters.len() - data);
            letters[at] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l"[letter];
        }
        let bad = String::from_utf8(letters).unwrap();
        prop_assert_eq!(Address::parse(&bad).is_ok(), bad == good);
    }
}
