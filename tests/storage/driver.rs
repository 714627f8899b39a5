//! The process that is killed: store, vote log, floor and machine of a node, opened, compared and replayed
//! as a node does, then fed with blocks as fast as they are stored. It says on its standard output
//! what it has found and what it has made durable; whatever it has said has to be there after the next
//! start.
//!
//! It is this test program again, told by `STORAGE_DRIVER_DIR` to be the driver.

use crate::chain::{genesis, key, next_block};
use masternode::consensus::machine::Machine;
use masternode::consensus::output::Record;
use masternode::consensus::standing::Start;
use masternode::consensus::timing::Timing;
use masternode::ledger::Ledger;
use masternode::ledger::store::folder::StoreError;
use masternode::ledger::store::{Store, StoreOptions};
use masternode::node::effects::Log as _;
use masternode::node::floor::{SignFloor, VoteLog, VoteLogError};
use masternode::node::host::ChainHost;
use masternode::node::instance::{Finding, Since};
use masternode::node::journal::{Journal, JournalError};
use masternode::node::traces::Traces;
use masternode::pool::{Pool, PoolLimits};
use masternode::primitives::chain::NetworkKind;
use masternode::primitives::hash::{Txid, era_tag};
use masternode::primitives::keys::Signature;
use masternode::primitives::vote::VoteBatch;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

/// Names the directory, and makes this process a driver.
pub const DIR: &str = "STORAGE_DRIVER_DIR";
/// After so many blocks it stops in order.
pub const BLOCKS: &str = "STORAGE_DRIVER_BLOCKS";
/// Without that, after so many: more than any run takes that is to be killed, so that a kill that does not
/// come fails the test.
const BLOCKS_MOST: u64 = 2_000;
/// Exit status of a driver that may not sign.
pub const LOST: i32 = 3;
/// Exit status of one that cannot run safely.
pub const REFUSED: i32 = 78;

/// Votes in each era.
const VOTES: u32 = 3;

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "DRIVER {what}").and_then(|()| out.flush()).unwrap();
}

fn end(code: i32, what: &str) -> ! {
    say(what);
    #[expect(clippy::exit, reason = "the process is not a test")]
    std::process::exit(code)
}

fn store_failed(error: &StoreError) -> ! {
    let code = if error.may_pass() { 1 } else { REFUSED };
    end(code, &format!("refused {error}"))
}

fn log_failed(error: &VoteLogError) -> ! {
    let code = match error {
        VoteLogError::Journal(JournalError::Damaged { .. } | JournalError::Foreign { .. }) => REFUSED,
        _ => 1,
    };
    end(code, &format!("refused {error}"))
}

/// Does what `work` does, again and again as long as the disk is full, as a node does.
fn durably(log: &mut VoteLog, work: impl Fn(&mut VoteLog) -> Result<(), VoteLogError>) {
    let mut told = false;
    loop {
        match work(log) {
            Err(error) if error.is_full() => {
                if !std::mem::replace(&mut told, true) {
                    say("full");
                }
                std::thread::yield_now();
            }
            Err(error) => log_failed(&error),
            Ok(()) => return,
        }
    }
}

fn vote(ledger: &Ledger, sequence: u32) -> Record {
    let tip = ledger.tip();
    let voter = tip.next_committee.index_of(&key(1).public()).unwrap();
    let mut batch = VoteBatch {
        era_tag: era_tag(ledger.chain(), tip.header.height + 1, tip.block),
        voter,
        sequence,
        last: false,
        prepares: Vec::new(),
        commits: Vec::<Txid>::new(),
        signature: Signature([0; 64]),
    };
    batch.signature = key(1).sign(&batch.digest());
    Record::OwnBatch(batch)
}

/// Everything open, and how many votes of the era are in the log.
struct Open {
    store: Store,
    ledger: Arc<Ledger>,
    host: ChainHost,
    writes: Arc<masternode::node::host::WriteQueue>,
    log: VoteLog,
    voted: u32,
}

fn open(dir: &Path) -> Open {
    let journal_dir = dir.join("journal");
    let floor = SignFloor::read(dir, Some(key(1).public()))
        .unwrap_or_else(|error| end(LOST, &format!("lost {error}")));
    let options = StoreOptions { cache_bytes: 4 << 20 };
    let store =
        Store::open(&dir.join("db"), &genesis(), options).unwrap_or_else(|error| store_failed(&error));
    let heights = Journal::heights(&journal_dir).unwrap_or_else(|error| log_failed(&error.into()));
    let log_end = Journal::found_end(&journal_dir).unwrap_or_else(|error| log_failed(&error.into()));
    let is_new = store.height() == 0 && heights.is_none() && floor.height().is_none();
    // Whether the directory is a copy is no matter here: it is one after each power cut.
    let since = if is_new { Since::Never } else { Since::Registration };
    let traces = Traces {
        finding: Finding::Intact { since, drawn: Vec::new() },
        floor: Ok(floor.height()),
        log: heights,
        closed: floor.log_end().map(|was| (was, log_end)),
        stored: store.height(),
    };
    if let Since::Lost(reason) = traces.judge().since {
        end(LOST, &format!("lost {reason}"));
    }
    let ledger = Arc::new(store.load().unwrap_or_else(|error| store_failed(&error)));
    let opening = if floor.log_end().is_some() { Journal::open_closed } else { Journal::open };
    let opened = opening(&journal_dir, ledger.chain(), store.height() + 1);
    let (journal, recovered) = opened.unwrap_or_else(|error| end(LOST, &format!("lost {error}")));
    let pool = Arc::new(Pool::new(PoolLimits::default()));
    let (mut host, writes) = ChainHost::with_writes(Arc::clone(&ledger), pool);
    let start = Start::Whole { since: vec![None], nonce: [1; 32] };
    let mut machine = Machine::new(Some(Box::new(key(1))), Timing::of(NetworkKind::Devnet), &host, start);
    let records = recovered.records;
    let restored = machine.restore(&mut host, records.clone());
    restored.unwrap_or_else(|error| end(LOST, &format!("lost {}: {error}", journal_dir.display())));
    while let Some(write) = writes.pop() {
        store.commit(&write).unwrap_or_else(|error| store_failed(&error));
    }
    let height = ledger.tip().header.height + 1;
    let own = records.iter().filter(|(of, record)| *of == height && matches!(record, Record::OwnBatch(_)));
    let voted = u32::try_from(own.count()).unwrap();
    let log = VoteLog::new(journal, Some(floor), None, height).unwrap_or_else(|error| log_failed(&error));
    ledger.recount().unwrap();
    Open { store, ledger, host, writes, log, voted }
}

/// Runs until it is killed, or has stored as many blocks as it was told to.
pub fn drive(dir: &Path) -> ! {
    use masternode::consensus::host::Host as _;
    let Open { store, ledger, mut host, writes, mut log, mut voted } = open(dir);
    let tip = ledger.tip();
    say(&format!("found {} {} {voted}", tip.header.height, tip.block.0));
    let blocks = std::env::var(BLOCKS).ok().and_then(|text| text.parse().ok()).unwrap_or(BLOCKS_MOST);
    for _ in 0..blocks {
        let height = ledger.tip().header.height + 1;
        for sequence in voted..VOTES {
            log.stage(height, &vote(&ledger, sequence));
            durably(&mut log, |log| log.commit());
            say(&format!("voted {height} {}", sequence + 1));
        }
        voted = 0;
        let (block, qc, _) = next_block(&ledger);
        let bodies = block.transactions.iter().map(|transaction| transaction.body().clone()).collect();
        log.stage(height, &Record::Candidate { outline: block.outline(), bodies });
        durably(&mut log, |log| log.commit());
        log.stage(height, &Record::Decided(qc.clone()));
        durably(&mut log, |log| log.commit());
        say(&format!("decided {height} {}", block.id().0));
        host.commit(&Arc::new(block), &qc).unwrap();
        let write = writes.pop().unwrap();
        let mut stored = store.commit(&write);
        while stored.as_ref().is_err_and(StoreError::is_full) {
            say("full");
            std::thread::yield_now();
            stored = store.reopen().and_then(|()| store.commit(&write));
        }
        stored.unwrap_or_else(|error| store_failed(&error));
        let durable = store.height();
        durably(&mut log, |log| log.next_height(height + 1, durable));
    }
    durably(&mut log, VoteLog::close);
    drop(store);
    end(0, "ended")
}
