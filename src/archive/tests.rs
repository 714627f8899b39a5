//! What must hold of archives: they come back as written, and every change is noticed; a state is of one
//! height though blocks come in while it is read.

use crate::archive::check::{NobodyReceives, Receiver, Summary, check};
use crate::archive::frames::{ArchiveReader, ArchiveWriter};
use crate::archive::source::{Source, Wish};
use crate::archive::{ArchiveError, BlockItem, Head, HeaderItem, Item, StateItem};
use crate::ledger::Ledger;
use crate::ledger::apply::BlockWrite;
use crate::ledger::genesis::Genesis;
use crate::ledger::store::{Store, StoreOptions};
use crate::ledger::tests::{extend, founder, funds, genesis_with, key, sealed};
use crate::primitives::block::Header;
use crate::primitives::certificate::Qc;
use crate::primitives::committee::Committee;
use crate::primitives::hash::era_tag;
use crate::primitives::transaction::{OutPoint, SharedTransaction, Utxo};
use crate::primitives::vote::{Step, vote_digest};
use std::path::Path;
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions { cache_bytes: 4 << 20 };

fn write_of(ledger: &Ledger, transactions: Vec<SharedTransaction>) -> BlockWrite {
    let (block, qc, diff) = extend(ledger, transactions);
    BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }
}

/// A store with blocks 1 to `count`, each spending one fund.
fn filled(dir: &Path, genesis: &Genesis, count: usize) -> (Arc<Store>, Ledger) {
    let store = Store::open(dir, genesis, OPTIONS).unwrap();
    let ledger = store.load().unwrap();
    for fund in funds(genesis).iter().take(count) {
        store.commit(&write_of(&ledger, vec![sealed(fund, 5000, 0)])).unwrap();
    }
    (Arc::new(store), ledger)
}

fn written(store: &Arc<Store>, genesis: &Genesis, wish: Wish) -> Vec<u8> {
    Source::new(store, genesis).write(wish, 7, Vec::new(), "test").unwrap().1
}

fn checked(bytes: &[u8]) -> Result<Summary, ArchiveError> {
    check(&mut ArchiveReader::new(bytes, "test")?, &mut NobodyReceives)
}

fn items(bytes: &[u8]) -> Vec<Item> {
    let mut reader = ArchiveReader::new(bytes, "test").unwrap();
    std::iter::from_fn(|| reader.read().unwrap()).collect()
}

fn rewritten(items: &[Item]) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Vec::new(), "test").unwrap();
    items.iter().for_each(|item| writer.item(item).unwrap());
    writer.finish().unwrap()
}

#[derive(Default)]
struct Collected {
    outputs: Vec<(OutPoint, Utxo)>,
    heights: Vec<u64>,
}

impl Receiver for Collected {
    fn outputs(&mut self, outputs: &[(OutPoint, Utxo)]) -> Result<(), ArchiveError> {
        self.outputs.extend(outputs);
        Ok(())
    }
    fn block(&mut self, block: BlockItem, bodies: Vec<SharedTransaction>) -> Result<(), ArchiveError> {
        assert_eq!(bodies.len(), block.outline.txids.len());
        self.heights.push(block.outline.header.height);
        Ok(())
    }
}

#[test]
fn everything_of_a_chain_comes_back_and_every_part_of_it_is_right() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(5));
    let (store, ledger) = filled(dir.path(), &genesis, 4);
    let bytes = written(&store, &genesis, Wish::EVERYTHING);
    let mut collected = Collected::default();
    let summary = check(&mut ArchiveReader::new(&bytes[..], "test").unwrap(), &mut collected).unwrap();
    assert_eq!(collected.heights, [1, 2, 3, 4]);
    assert_eq!(collected.outputs.len() as u64, ledger.tip().header.utxo_count);
    assert_eq!(summary.header, ledger.tip().header);
    assert_eq!((summary.transactions, summary.without_bodies, summary.bytes), (4, None, bytes.len() as u64));
    let Head { from, to, tip, state, made_ms, .. } = summary.head;
    assert_eq!((from, to, tip, state, made_ms), (1, 4, ledger.tip().block, true, 7));
    // A part of it, and a chain that has no blocks yet.
    let part = written(&store, &genesis, Wish { from: 2, to: Some(3), state: false });
    assert_eq!(checked(&part).unwrap().header.height, 3);
    let empty = tempfile::tempdir().unwrap();
    let (store, _) = filled(empty.path(), &genesis, 0);
    assert_eq!(checked(&written(&store, &genesis, Wish::EVERYTHING)).unwrap().header.height, 0);
    assert!(
        Source::new(&store, &genesis)
            .write(Wish { from: 3, to: None, state: false }, 7, Vec::new(), "x")
            .is_err()
    );
}

#[test]
fn an_archive_written_while_blocks_come_in_is_of_one_height() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(2500));
    let (store, ledger) = filled(dir.path(), &genesis, 1);
    let funds = funds(&genesis);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for part in funds[1..].chunks(60) {
                let spends = part.iter().map(|fund| sealed(fund, 5000, 0)).collect();
                store.commit(&write_of(&ledger, spends)).unwrap();
            }
        });
        let mut heights = std::collections::BTreeSet::new();
        while !writer.is_finished() || heights.is_empty() {
            let source = Source::new(&store, &genesis);
            let bytes = match source.write(Wish::EVERYTHING, 7, Vec::new(), "test") {
                Ok((_, bytes)) => bytes,
                // One that was overtaken by the blocks says so.
                Err(error) if error.to_string().contains("begin another") => continue,
                Err(error) => panic!("{error}"),
            };
            let summary = checked(&bytes).unwrap();
            assert!(summary.state.is_some());
            heights.insert(summary.header.height);
        }
    });
    let last = checked(&written(&store, &genesis, Wish::EVERYTHING)).unwrap();
    assert_eq!(last.header, ledger.tip().header);
}

#[test]
fn every_flipped_bit_and_every_missing_end_is_noticed() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(1));
    let (store, _) = filled(dir.path(), &genesis, 1);
    let bytes = written(&store, &genesis, Wish::EVERYTHING);
    checked(&bytes).unwrap();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let error = checked(&flipped).unwrap_err();
        assert!(error.to_string().contains("test"), "{error}");
        assert!(checked(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(checked(&[&bytes[..], b"x"].concat()).unwrap_err().to_string().contains("follows the end"));
    let mut newer = bytes;
    newer[8] = 9;
    let error = checked(&newer).unwrap_err().to_string();
    assert!(error.contains("version 9") && error.contains("reads 1"), "{error}");
}

#[test]
fn parts_that_do_not_belong_together_are_refused_though_every_checksum_is_right() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(5));
    let (store, _) = filled(dir.path(), &genesis, 4);
    let good = items(&written(&store, &genesis, Wish::EVERYTHING));
    assert!(checked(&rewritten(&good)).is_ok());
    let refused = |words: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut items = good.clone();
        change(&mut items);
        let error = checked(&rewritten(&items)).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    let nth = |items: &[Item], is: &dyn Fn(&Item) -> bool| items.iter().position(is).unwrap();
    let outputs = |item: &Item| matches!(item, Item::Outputs(_));
    let block = |item: &Item| matches!(item, Item::Block(_));
    refused("no head", &|items| drop(items.remove(0)));
    refused("founding document", &|items| items[1] = Item::Genesis(Box::new(genesis_with(6))));
    refused("committee is missing", &|items| {
        items.retain(|item| {
            matches!(item, Item::Head(_) | Item::Genesis(_) | Item::Block(_) | Item::Bodies(_))
        });
    });
    refused("state hash", &|items| {
        if let Item::Outputs(outputs) = &mut items[nth(&good, &outputs)] {
            outputs[0].1.height += 1;
        }
    });
    refused("state hash", &|items| {
        if let Item::Outputs(outputs) = &mut items[nth(&good, &outputs)] {
            outputs.pop();
        }
    });
    refused("committee is missing", &|items| items.retain(|item| !matches!(item, Item::Committee { .. })));
    refused("comes in its place", &|items| {
        let at = nth(&good, &block);
        items.drain(at..at + 2);
    });
    refused("ends with block 3", &|items| items.truncate(good.len() - 2));
    refused("transactions, 0 follow", &|items| drop(items.pop()));
    refused("ids follow", &|items| {
        let at = items.len() - 2;
        if let Item::Block(block) = &mut items[at] {
            block.outline.header.tx_count = u32::MAX;
        }
    });
    refused("and a block has at most", &|items| {
        let at = items.len() - 2;
        if let Item::Block(block) = &mut items[at] {
            block.outline.header.body_bytes = u64::MAX;
        }
    });
    refused("more transactions follow than it has", &|items| {
        let bodies = items.pop().unwrap();
        let Item::Bodies(one) = &bodies else { panic!("{bodies:?}") };
        let transactions = std::iter::repeat_n(one[0].clone(), 3);
        items.push(Item::Bodies(transactions.collect()));
    });
    refused("range of blocks", &|items| {
        if let Item::Head(head) = &mut items[0] {
            (head.from, head.to) = (5, 4);
        }
    });
    refused("none that can be", &|items| {
        let at = nth(&good, &|item| matches!(item, Item::Committee { .. }));
        if let Item::Committee { members, .. } = &mut items[at] {
            members[0].weight = u64::MAX;
        }
    });
    refused("are not those of its header", &|items| {
        let bodies = items.last().unwrap().clone();
        let at = nth(&good, &block);
        items[at + 1] = bodies;
    });
    refused("certificate is for something else", &|items| {
        let at = items.len() - 2;
        if let Item::Block(block) = &mut items[at] {
            block.commit.block = Default::default();
        }
    });
    refused("signature that is not valid", &|items| {
        let at = items.len() - 2;
        if let Item::Block(block) = &mut items[at] {
            block.commit.round += 1;
        }
    });
}

/// A chain of `genesis` whose first block, signed by `first`, hands over to a committee with keys 11 to 14, which
/// owns everything in its second block and signs that.
fn handed_over(genesis: &Genesis, first: &[u8]) -> Vec<Item> {
    let (founding, mut theirs) = (genesis.state(), genesis.clone());
    theirs.masternodes = (11..=14).map(founder).collect();
    let (state, outputs) = (theirs.state(), theirs.utxos());
    let (committee, chain) = (&state.next_committee, genesis.chain_id());
    let block = |height, previous, committee_root| Header {
        height,
        previous,
        committee_root,
        params_root: genesis.params.root(),
        ..state.header.clone()
    };
    let signed = |header: &Header, seeds: &[u8], by: &Committee| {
        let digest = vote_digest(
            era_tag(chain, header.height, header.previous),
            0,
            Step::Precommit,
            Some(header.id()),
        );
        let votes = by.indices().zip(by.members()).filter_map(|(voter, member)| {
            let seed = *seeds.iter().find(|seed| key(**seed).public() == member.vote_key)?;
            Some((voter, key(seed).sign(&digest)))
        });
        // Whoever is none of them signs in their place.
        let mut votes: Vec<_> = votes.collect();
        if votes.is_empty() {
            votes = by.indices().zip(seeds).map(|(voter, seed)| (voter, key(*seed).sign(&digest))).collect();
        }
        Qc::new(0, Step::Precommit, header.id(), votes)
    };
    let one = block(1, founding.header.id(), founding.next_committee.root());
    let two = block(2, one.id(), committee.root());
    let commits = [signed(&one, first, &founding.next_committee), signed(&two, &[11, 12, 13, 14], committee)];
    let head = Head {
        program: "forger".to_owned(),
        made_ms: 7,
        chain,
        from: 1,
        to: 2,
        tip: two.id(),
        state: true,
        outputs: outputs.len() as u64,
    };
    let members = committee.members().to_vec();
    let mut items = vec![
        Item::Head(head),
        Item::Genesis(Box::new(genesis.clone())),
        Item::State(Box::new(StateItem {
            header: two.clone(),
            registry: state.registry.parts(),
            committee: members.clone(),
        })),
        Item::Committee { height: 1, members: founding.next_committee.members().to_vec() },
        Item::Committee { height: 2, members },
        Item::Outputs(outputs),
    ];
    items.extend([one, two].into_iter().zip(commits).map(|(header, commit)| {
        Item::Header(Box::new(HeaderItem { header, last_commit: None, commit, transactions: 0 }))
    }));
    items
}

#[test]
fn a_committee_that_the_one_before_has_not_appointed_is_refused_with_everything_it_has_signed() {
    let genesis = genesis_with(3);
    let summary = checked(&rewritten(&handed_over(&genesis, &[1, 2, 3, 4]))).unwrap();
    assert_eq!((summary.header.height, summary.rests_on()), (2, None));
    for (signers, words) in [(&[11, 12, 13, 14][..], "not valid"), (&[1, 2], "certificate of block 1:")] {
        let error = checked(&rewritten(&handed_over(&genesis, signers))).unwrap_err().to_string();
        assert!(error.contains("block 1") && error.contains(words), "{error}");
    }
    // Its committee instead of that of the genesis, from the first block on.
    let mut items = handed_over(&genesis, &[11, 12, 13, 14]);
    if let Item::Header(first) = &mut items[6] {
        first.header.committee_root = first.header.next_committee_root;
    }
    assert!(checked(&rewritten(&items)).unwrap_err().to_string().contains("not the one named by the block"));
}

#[test]
fn an_archive_that_does_not_begin_with_the_first_block_says_what_it_rests_on() {
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(5));
    let (store, _) = filled(dir.path(), &genesis, 4);
    let part = written(&store, &genesis, Wish { from: 3, to: None, state: false });
    assert_eq!(checked(&part).unwrap().rests_on(), Some(3));
    assert_eq!(checked(&written(&store, &genesis, Wish::EVERYTHING)).unwrap().rests_on(), None);
}

#[test]
fn a_database_made_of_an_archive_is_the_one_it_was_made_of() {
    use crate::ledger::store::install::Installer;
    let (dir, genesis) = (tempfile::tempdir().unwrap(), genesis_with(9));
    let (store, ledger) = filled(dir.path(), &genesis, 5);
    let view = store.view().unwrap();
    let made = dir.path().join("made");
    let mut installer = Installer::create(&made, &genesis, OPTIONS).unwrap();
    let mut after = 0;
    while let Some((height, members)) = store.committee_change_after(after).unwrap() {
        installer.committee(height, members).unwrap();
        after = height;
    }
    for output in view.outputs {
        installer.outputs(&[output.unwrap()]).unwrap();
    }
    for height in 1..=5 {
        let (outline, qc) = store.outline(height).unwrap().unwrap();
        let bodies = store.bodies(height, 0, u64::MAX).unwrap();
        let transactions = store.transactions_up_to(height).unwrap().unwrap();
        installer.block(outline, qc, transactions, &bodies).unwrap();
    }
    assert!(Store::open(&made, &genesis, OPTIONS).is_err(), "nothing before it is finished");
    installer.finish(&view.registry, &view.committee).unwrap();
    let copy = Store::open(&made, &genesis, OPTIONS).unwrap();
    let loaded = copy.load().unwrap();
    assert_eq!(loaded.recount().unwrap(), ledger.recount().unwrap());
    assert_eq!(loaded.tip().transactions, ledger.tip().transactions);
    for height in 0..=5 {
        assert_eq!(copy.outline(height).unwrap(), store.outline(height).unwrap());
        assert_eq!(copy.bodies(height, 0, u64::MAX).unwrap(), store.bodies(height, 0, u64::MAX).unwrap());
        assert_eq!(copy.committee(height + 1).unwrap(), store.committee(height + 1).unwrap());
    }
    let txid = store.outline(3).unwrap().unwrap().0.txids[0];
    assert_eq!(copy.transaction(&txid).unwrap(), store.transaction(&txid).unwrap());
    // And it goes on from there.
    copy.commit(&write_of(&loaded, vec![])).unwrap();
}
