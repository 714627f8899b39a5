//! Whatever a peer sends, the checks and the machine take it without a panic: every sample message with every
//! few bytes of it replaced by extremes, at a node with a block before it and one without.

use crate::samples;
use masternode::consensus::host::Host as _;
use masternode::consensus::input::{Input, Now};
use masternode::consensus::machine::Machine;
use masternode::consensus::output::Output;
use masternode::consensus::standing::Start;
use masternode::consensus::timing::Timing;
use masternode::consensus::verify::verify_messages;
use masternode::ledger::Ledger;
use masternode::ledger::genesis::{Founder, Genesis};
use masternode::node::host::ChainHost;
use masternode::pool::{Pool, PoolLimits};
use masternode::primitives::certificate::Qc;
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::encoding::{decode, encode};
use masternode::primitives::hash::{Hash, era_tag};
use masternode::primitives::keys::SecretKey;
use masternode::primitives::message::{Message, PeerId};
use masternode::primitives::params::Params;
use masternode::primitives::tier::Tier;
use masternode::primitives::vote::{Step, vote_digest};
use std::sync::Arc;

const LIMIT: usize = 4 << 20;
const GENESIS_MS: u64 = 1_700_000_000_000;

fn founders() -> Vec<SecretKey> {
    (1..=4).map(samples::key).collect()
}

fn host() -> ChainHost {
    let founder = |key: &SecretKey| Founder {
        name: format!("node {}", key.public()),
        vote_key: key.public(),
        tier: Tier::Bronze,
        owner: key.public().key_hash(),
        payout: key.public().key_hash(),
    };
    let genesis = Genesis {
        network: NetworkKind::Devnet,
        name: "hostile".to_owned(),
        time_ms: GENESIS_MS,
        params: Params::of(NetworkKind::Devnet),
        masternodes: founders().iter().map(founder).collect(),
        allocations: Vec::new(),
    };
    ChainHost::new(Arc::new(Ledger::in_memory(&genesis)), Arc::new(Pool::new(PoolLimits::default())))
}

fn add_block(host: &mut ChainHost) {
    let tip = host.tip();
    let block =
        host.build(tip.next_committee.members()[0].id, GENESIS_MS + 1000, tip.commit, Vec::new()).unwrap();
    let digest = vote_digest(era_tag(host.chain(), 1, tip.block), 0, Step::Precommit, Some(block.id()));
    let vote = |key: &SecretKey| (tip.next_committee.index_of(&key.public()).unwrap(), key.sign(&digest));
    let mut votes: Vec<_> = founders().iter().map(vote).collect();
    votes.sort_unstable_by_key(|(voter, _)| *voter);
    let qc = Qc::new(0, Step::Precommit, block.id(), votes);
    host.commit(&Arc::new(block), &qc).unwrap();
}

/// Every sample, and the same with what names its era replaced by this one.
fn seeds(tag: Hash) -> Vec<Vec<u8>> {
    let named = samples::tag();
    let ours = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len().saturating_sub(31) {
            if bytes[at..at + 32] == named.0.0 {
                bytes[at..at + 32].copy_from_slice(&tag.0);
            }
        }
        bytes
    };
    samples::messages().iter().map(encode).flat_map(|bytes| [ours(&bytes), bytes]).collect()
}

#[test]
fn no_message_makes_the_checks_or_the_machine_panic() {
    let all_good = |checks: &[_]| vec![true; checks.len()];
    let none_good = |checks: &[_]| vec![false; checks.len()];
    for blocks in 0..2 {
        let mut host = host();
        if blocks > 0 {
            add_block(&mut host);
        }
        let start = Start::Whole { since: vec![None], nonce: [1; 32] };
        let signer = Some(Box::new(samples::key(1)) as _);
        let mut machine = Machine::new(signer, Timing::of(NetworkKind::Devnet), &host, start);
        let mut monotonic_us = 1000;
        let mut now = || {
            monotonic_us += 100;
            Now { monotonic_us, wall_ms: GENESIS_MS + 5000 + monotonic_us / 1000 }
        };
        machine.step(&mut host, now(), Input::Start);
        let from = PeerId(samples::key(200).public());
        machine.step(&mut host, now(), Input::PeerUp { peer: from, vote_key: None });
        let (mut taken, mut refused) = (0, 0);
        for seed in seeds(machine.era().era_tag.0) {
            for at in 0..=seed.len() {
                for (width, byte) in [(1, 0), (2, 0xff), (4, 0xff), (8, 0xff), (8, 0)] {
                    let mut bytes = seed.clone();
                    let Some(place) = bytes.get_mut(at..at + width) else { continue };
                    place.fill(byte);
                    let Ok(message) = decode::<Message, LIMIT>(&bytes) else { continue };
                    let era = machine.era();
                    let _refused = verify_messages(vec![message.clone()], &era, &none_good);
                    match verify_messages(vec![message], &era, &all_good).remove(0) {
                        Ok(message) => {
                            let outputs = machine.step(&mut host, now(), Input::Message { from, message });
                            assert!(!outputs.iter().any(|output| matches!(output, Output::Halt { .. })));
                            taken += 1;
                        }
                        Err(_) => refused += 1,
                    }
                }
            }
            machine.step(&mut host, now(), Input::Wake);
        }
        assert!(taken > 10_000 && refused > 1000, "{taken} taken, {refused} refused");
    }
}
