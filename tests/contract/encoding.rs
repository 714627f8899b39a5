//! The bytes of the protocol: golden vectors, one encoding a value, bounded decoding of anything.
//!
//! `UPDATE_GOLDEN=1 cargo test --test contract` rewrites `tests/golden/*.hex`; such a difference is a
//! change of the protocol and needs a reason.

use crate::samples;
use masternode::light::bundle::ProofBundle;
use masternode::primitives::block::{Coinbase, Header, Outline, last_commit_root};
use masternode::primitives::certificate::{Certificate, Qc};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::committee::Member;
use masternode::primitives::encoding::{Decode, DecodeError, Encode, decode, decode_stored, encode};
use masternode::primitives::hash::{EraTag, Hash};
use masternode::primitives::message::{Message, Proposal};
use masternode::primitives::params::Params;
use masternode::primitives::special::Special;
use masternode::primitives::transaction::{OutPoint, SealedTransaction, Transaction, Utxo};
use masternode::primitives::vote::{Step, Vote, VoteBatch, VoteProof};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Largest message read in these tests, as on the network.
const LIMIT: usize = 4 << 20;

pub fn golden(name: &str, hex: &str) {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.hex"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, format!("{hex}\n")).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(kept.trim_end(), hex, "{name}: the encoding changed, and with it the protocol");
}

pub fn golden_value<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(name: &str, value: &T) {
    let bytes = encode(value);
    golden(name, &hex::encode(&bytes));
    assert_eq!(decode::<T, LIMIT>(&bytes).unwrap(), *value, "{name}");
}

#[test]
fn every_message_has_its_golden_encoding() {
    let messages = samples::messages();
    let names: BTreeSet<&str> = messages.iter().map(Message::name).collect();
    assert_eq!(names.len(), messages.len(), "one sample a message");
    // The variants are numbered from 0; the number after the last one is none.
    for (number, message) in (0u32..).zip(&messages) {
        assert_eq!(encode(message)[..4], number.to_le_bytes(), "{}", message.name());
        golden_value(&format!("message-{}", message.name()), message);
    }
    let beyond = u32::try_from(messages.len()).unwrap().to_le_bytes();
    assert!(decode::<Message, LIMIT>(&beyond).is_err(), "a message without a sample");
}

#[test]
fn every_stored_and_hashed_value_has_its_golden_encoding() {
    golden_value("transaction", &samples::transaction());
    golden_value("header", &samples::header());
    golden_value("outline", &samples::outline());
    golden_value("coinbase", &samples::coinbase());
    golden_value("vote-batch", &samples::batch(0));
    golden_value("vote-proof", &samples::proof());
    golden_value("vote", &samples::vote(1, Step::Precommit, Some(samples::header().id())));
    golden_value("qc", &samples::qc(&[0, 2, 3]));
    golden_value("certificate", &samples::certificate(&[1, 2, 3]));
    golden_value("proposal", &samples::proposal());
    golden_value("member", &samples::committee().members()[0]);
    golden_value("params-devnet", &Params::of(NetworkKind::Devnet));
    golden_value("params-testnet", &Params::of(NetworkKind::Testnet));
    golden_value("params-mainnet", &Params::of(NetworkKind::Mainnet));
    let outpoint = OutPoint { txid: samples::txid(7), index: 0x0102_0304 };
    golden_value("outpoint", &outpoint);
    let utxo =
        Utxo { value: samples::amount(12_345), key_hash: samples::key(1).public().key_hash(), height: 9 };
    golden_value("utxo", &utxo);
}

#[test]
fn every_digest_and_root_is_golden() {
    let vote = samples::vote(1, Step::Prevote, Some(samples::header().id()));
    let digests = [
        ("era-tag", samples::tag().to_string()),
        ("txid", samples::transaction().id().to_string()),
        ("spend", samples::transaction().spend_digest(samples::chain()).to_string()),
        ("block-id", samples::header().id().to_string()),
        ("coinbase-id", samples::coinbase().id().to_string()),
        ("batch", samples::batch(0).digest().to_string()),
        ("vote", vote.digest().to_string()),
        ("nil-vote", samples::vote(1, Step::Prevote, None).digest().to_string()),
        ("proposal", samples::proposal().digest().to_string()),
        ("committee", samples::committee().root().to_string()),
        ("params", Params::of(NetworkKind::Devnet).root().to_string()),
        ("last-commit", last_commit_root(Some(&samples::qc(&[0, 2, 3]))).to_string()),
        ("key-hash", samples::key(1).public().key_hash().to_string()),
    ];
    for (name, digest) in &digests {
        golden(&format!("digest-{name}"), digest);
    }
    let distinct: BTreeSet<&String> = digests.iter().map(|(_, digest)| digest).collect();
    assert_eq!(distinct.len(), digests.len());
}

#[test]
fn every_special_transaction_has_its_golden_encoding_and_claims() {
    for (name, transaction) in samples::specials() {
        golden_value(&format!("special-{name}"), &transaction);
        let checks = transaction.signature_checks(samples::chain());
        assert!(checks.iter().all(|check| check.key.verify(&check.digest, &check.signature)), "{name}");
        let sealed = SealedTransaction::new(transaction.clone());
        let special = sealed.special().unwrap().expect("not a payment");
        assert_eq!(special.encode(), (transaction.kind, transaction.payload.clone()), "{name}");
        let digest = transaction.authorisation_digest(samples::chain(), special);
        let claims: Vec<String> = sealed.claims().map(|claim| claim.to_string()).collect();
        golden(&format!("special-{name}-claims"), &format!("{digest} {}", claims.join(" ")));
    }
}

#[test]
fn a_payload_changed_in_any_byte_is_another_one_or_none() {
    for (name, transaction) in samples::specials() {
        let original = Special::of(&transaction).unwrap();
        for at in 0..transaction.payload.len() {
            let mut changed = transaction.clone();
            changed.payload[at] ^= 1;
            if let Ok(special) = Special::of(&changed) {
                assert_ne!(special, original, "{name}, byte {at}");
            }
        }
    }
}

#[test]
fn a_signed_value_is_bound_to_every_field_it_signs() {
    let batch = samples::batch(1);
    let mut altered = vec![batch.clone(); 6];
    altered[0].era_tag = EraTag(Hash([1; 32]));
    altered[1].voter += 1;
    altered[2].sequence += 1;
    altered[3].last = false;
    altered[4].prepares.swap(0, 1);
    altered[5].commits.push(samples::txid(9));
    let digests: BTreeSet<_> = altered.iter().chain([&batch]).map(VoteBatch::digest).collect();
    assert_eq!(digests.len(), 7);

    let transaction = samples::transaction();
    let mut resigned = transaction.clone();
    resigned.inputs[0].signature.0[5] ^= 1;
    assert_ne!(resigned.id(), transaction.id(), "the id covers signatures");
    assert_eq!(resigned.spend_digest(samples::chain()), transaction.spend_digest(samples::chain()));
    let mut other = transaction.clone();
    other.outputs[1].value = samples::amount(2_501);
    assert_ne!(other.spend_digest(samples::chain()), transaction.spend_digest(samples::chain()));
}

#[test]
fn trailing_and_missing_bytes_are_refused() {
    for message in samples::messages() {
        let mut bytes = encode(&message);
        assert!(decode::<Message, LIMIT>(&bytes[..bytes.len() - 1]).is_err(), "{}", message.name());
        bytes.push(0);
        let error = decode::<Message, LIMIT>(&bytes);
        assert!(matches!(error, Err(DecodeError::Trailing { extra: 1 })), "{}: {error:?}", message.name());
    }
}

#[test]
fn a_forged_length_costs_nothing() {
    // A list of transaction ids that claims 2^60 entries.
    let mut bytes = encode(&Message::GetTransactions(Vec::new()));
    let length = bytes.len();
    bytes[length - 8..].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(decode::<Message, LIMIT>(&bytes).is_err());
    assert!(decode_stored::<Message>(&bytes).is_err());
    // One that claims a little more than the limit and one that claims what the frame does not hold.
    for claimed in [u64::try_from(LIMIT).unwrap() / 32 + 1, 2] {
        bytes[length - 8..].copy_from_slice(&claimed.to_le_bytes());
        assert!(decode::<Message, LIMIT>(&bytes).is_err(), "{claimed}");
    }
}

/// Whatever decodes encodes to the same bytes: no value has two encodings.
fn identity<T: Encode + Decode<()>>(bytes: &[u8]) -> Result<bool, TestCaseError> {
    match decode::<T, LIMIT>(bytes) {
        Ok(value) => {
            prop_assert_eq!(encode(&value), bytes);
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

fn all_identities(bytes: &[u8]) -> Result<(), TestCaseError> {
    identity::<Message>(bytes)?;
    identity::<Transaction>(bytes)?;
    identity::<Header>(bytes)?;
    identity::<Outline>(bytes)?;
    identity::<Coinbase>(bytes)?;
    identity::<VoteBatch>(bytes)?;
    identity::<VoteProof>(bytes)?;
    identity::<Vote>(bytes)?;
    identity::<Qc>(bytes)?;
    identity::<Certificate>(bytes)?;
    identity::<Proposal>(bytes)?;
    identity::<Member>(bytes)?;
    identity::<Params>(bytes)?;
    identity::<ProofBundle>(bytes)?;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic_and_decode_only_to_their_own_encoding(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        variant in 0u8..20,
    ) {
        all_identities(&bytes)?;
        let mut tagged = vec![variant, 0, 0, 0];
        tagged.extend_from_slice(&bytes);
        identity::<Message>(&tagged)?;
    }

    #[test]
    fn mutated_messages_never_panic_and_decode_only_to_their_own_encoding(
        which in 0..19usize,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
    ) {
        let mut bytes = encode(&samples::messages()[which]);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if shorten {
            bytes.truncate(cut.index(bytes.len()));
        }
        all_identities(&bytes)?;
    }
}
