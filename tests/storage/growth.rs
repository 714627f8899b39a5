//! A ledger of many outputs: space, and a start of the real program on it.

use crate::daemons::Daemons;
use crate::times;
use masternode::ledger::Ledger;
use masternode::ledger::apply::{BlockWrite, Contents, outcome};
use masternode::ledger::genesis::Genesis;
use masternode::ledger::store::{Store, StoreOptions};
use masternode::primitives::amount::Amount;
use masternode::primitives::block::Block;
use masternode::primitives::certificate::Qc;
use masternode::primitives::hash::{Domain, KeyHash, era_tag, hash};
use masternode::primitives::keys::{SecretKey, Signature};
use masternode::primitives::transaction::{
    OutPoint, SealedTransaction, Transaction, TransactionKind, TxInput, TxOutput, Utxo,
};
use masternode::primitives::vote::{Step, vote_digest};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Outputs of one payment: just below the largest transaction.
const OUTPUTS_EACH: u64 = 2_400;
/// Payments of one block.
const PAYMENTS_EACH: usize = 4;

/// Pays the coins of `owner` out to as many keys as there are to be outputs, block by block.
fn grow(store: &Store, ledger: &Ledger, owner: &SecretKey, members: &[SecretKey], outputs: u64) {
    let mine = owner.public().key_hash();
    let mut coins: Vec<(OutPoint, Utxo)> = Vec::new();
    ledger.for_each(|outpoint, utxo| {
        if utxo.key_hash == mine {
            coins.push((*outpoint, *utxo));
        }
    });
    coins.sort_by_key(|(outpoint, _)| *outpoint);
    for coins in coins.chunks(PAYMENTS_EACH) {
        let tip = ledger.tip();
        let height = tip.header.height + 1;
        if tip.header.utxo_count >= outputs {
            return;
        }
        let mut transactions: Vec<_> =
            coins.iter().map(|coin| SealedTransaction::new(payout(owner, coin, height))).collect();
        transactions.sort_by_key(|transaction| transaction.id());
        let contents = Contents {
            proposer: tip.next_committee.members()[0].id,
            time_ms: tip.header.time_ms + 1,
            last_commit: tip.commit.as_ref(),
            transactions: &transactions,
        };
        let diff = outcome(&tip, ledger.params(), &contents, &|outpoint| ledger.utxo(outpoint)).unwrap();
        let digest =
            vote_digest(era_tag(ledger.chain(), height, tip.block), 0, Step::Precommit, Some(diff.block));
        let votes = tip.next_committee.indices().zip(tip.next_committee.members()).map(|(voter, member)| {
            let signer = members.iter().find(|key| key.public() == member.vote_key).unwrap();
            (voter, signer.sign(&digest))
        });
        let qc = Qc::new(0, Step::Precommit, diff.block, votes.collect());
        let block = Block { header: diff.header.clone(), last_commit: tip.commit.clone(), transactions };
        ledger.apply(&diff, qc.clone()).unwrap();
        store.commit(&BlockWrite { block: Arc::new(block), qc, diff: Arc::new(diff) }).unwrap();
    }
}

fn payout(owner: &SecretKey, (outpoint, utxo): &(OutPoint, Utxo), height: u64) -> Transaction {
    let each = (utxo.value.units() - 200_000) / OUTPUTS_EACH;
    let key = |number: u64| {
        let parts: [&[u8]; 3] = [outpoint.txid.bytes(), &outpoint.index.to_le_bytes(), &number.to_le_bytes()];
        KeyHash(hash(Domain::KEY, &parts))
    };
    let output = |number| TxOutput { value: Amount::from_units(each).unwrap(), key_hash: key(number) };
    Transaction {
        version: 1,
        kind: TransactionKind::Payment,
        expiry: height + 10,
        // The ledger does not look at signatures.
        inputs: vec![TxInput {
            outpoint: *outpoint,
            public_key: owner.public(),
            signature: Signature([0; 64]),
        }],
        outputs: (0..OUTPUTS_EACH).map(output).collect(),
        payload: Vec::new(),
    }
}

fn bytes_below(dir: &Path) -> u64 {
    let mut files = Vec::new();
    crate::files_below(dir, &mut files);
    files.iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn a_start_on_many_outputs_counts_them_all_and_votes() {
    let outputs = times(1_000_000, 20_000);
    let owner = SecretKey::from_seed(&[77; 32]);
    let mut daemons = Daemons::unstarted(&owner, outputs / OUTPUTS_EACH + 1);
    let genesis = daemons.genesis();
    let db = daemons.root().join("db");
    let begun = Instant::now();
    {
        let store = Store::open(&db, &genesis, StoreOptions { cache_bytes: 64 << 20 }).unwrap();
        let ledger = store.load().unwrap();
        grow(&store, &ledger, &owner, &daemons.vote_keys(), outputs);
        assert!(ledger.tip().header.utxo_count >= outputs);
        println!(
            "{} outputs in {} blocks, made in {:.1} s",
            ledger.tip().header.utxo_count,
            store.height(),
            begun.elapsed().as_secs_f64()
        );
    }
    count(&db, &genesis);
    let height = {
        let store = Store::open(&db, &genesis, StoreOptions::default()).unwrap();
        store.height()
    };
    println!("database {} MB", bytes_below(&db) / 1_000_000);
    daemons.take_database(&db, height);
    let (signs, processor, peak) = daemons.measure_start();
    println!(
        "from the start of the program to voting {signs:.2} s, of two processors {processor:.2} s, most resident memory \
         {peak} MB"
    );
}

/// How long a store takes to open, to load and to count.
fn count(db: &Path, genesis: &Genesis) {
    let begun = Instant::now();
    let store = Store::open(db, genesis, StoreOptions::default()).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let recount = store.recount().unwrap();
    let counted = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let ledger = store.load().unwrap();
    let loaded = begun.elapsed().as_secs_f64();
    assert_eq!(recount.utxo_hash, ledger.tip().header.utxo_hash);
    let begun = Instant::now();
    let scanned = Arc::new(store).scan().unwrap().filter(Result::is_ok).count() as u64;
    assert_eq!(scanned, recount.utxo_count);
    println!(
        "opened in {opened:.2} s, counted in {counted:.2} s, loaded in {loaded:.2} s, scanned in {:.2} s",
        begun.elapsed().as_secs_f64()
    );
}
