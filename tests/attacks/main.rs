//! Attack drills: the real program under honest load is flooded by strangers, and what looks like an attack and is
//! none must not cost an honest node its connections.
//!
//! ```text
//! MASTERNODE_ATTACKS=full cargo test --release --test attacks -- --nocapture
//! ```
//!
//! runs everything at the sizes of docs/reliability.md and holds it against all marks, times included; without the
//! variable the same runs in about a minute at smaller sizes, and times are printed only: they depend on what else
//! the machine does. Nodes have network namespaces of their own where the machine allows (root on Linux with `ip`),
//! otherwise everything is on loopback, and so it is with `MASTERNODE_ATTACKS_LOOPBACK` set; the output says which.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

mod field;
mod floods;
mod ground;
mod honest;
mod payer;
mod poison;
#[path = "../common/program.rs"]
#[allow(dead_code, reason = "each test uses a part of it")]
mod program;
mod strangers;
mod watch;

use field::{Field, TARGETS, VICTIM};
use floods::{Attack, Flood, Scale};
use masternode::primitives::keys::SecretKey;
use payer::Payer;
use poison::{Blocks, Poisoned};
use program::until;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use strangers::Strangers;

/// Coins of the payer; each is one payment under way at most.
const COINS: usize = 512;
/// Most addresses in the book: 576 buckets of 8.
const BOOK_MAX: u64 = 4608;

fn is_full() -> bool {
    std::env::var("MASTERNODE_ATTACKS").is_ok_and(|text| text == "full")
}

/// Only the floods whose name holds this.
fn is_chosen(name: &str) -> bool {
    std::env::var("MASTERNODE_ATTACKS_ONLY").map_or(true, |part| name.contains(&part))
}

/// Runs one flood under measurement and holds it against the marks.
fn run(attack: &Attack<'_>, payer: &Payer, name: &str, quiet_ms: f64, misses: &mut Vec<String>) {
    if !is_chosen(name) {
        return;
    }
    let flood = Arc::new(Flood::default());
    let (field, strangers) = (attack.field, &attack.strangers);
    let ((), measured) = watch::during(field, payer, None, || {
        strangers.runtime.block_on(async {
            match name {
                "connections" => attack.connections(&flood).await,
                "slow peers" => attack.slow_peers(&flood).await,
                "frames of 4 GiB" => attack.oversized_frames(&flood).await,
                "false signatures" => attack.false_signatures(&flood).await,
                "orphans" => attack.orphans(&flood).await,
                "future votes" => attack.future_votes(&flood).await,
                _ => attack.poisoned_addresses(&flood).await,
            }
        });
    });
    println!("{name}: {} sent, {}", flood.sent.load(Relaxed), flood.ends);
    println!("  {measured}");
    measured.check(name);
    misses.extend(measured.misses(quiet_ms).into_iter().map(|miss| format!("{name}: {miss}")));
    field.no_honest_bans(name);
    until("the strangers are gone", || {
        let gone = |node: usize| {
            let list = field.status(node)?.peers.list;
            list.iter().all(|peer| peer.name.as_str() != "stranger").then_some(())
        };
        TARGETS.iter().try_for_each(|node| gone(*node))
    });
    for node in TARGETS {
        assert!(field.status(node).unwrap().peers.known_addresses <= BOOK_MAX, "the book has no bound");
    }
}

/// The victim comes back far behind, and strangers serve it true headers with false bodies.
fn far_behind(field: &mut Field, payer: &Payer, strangers: &Arc<Strangers>, blocks: u64) {
    let from = field.status(VICTIM).unwrap().chain.height + 1;
    field.kill(VICTIM);
    let to = from + blocks;
    until("the others go on", || (field.height() >= to).then_some(()));
    let pulled = Arc::new(strangers.runtime.block_on(Blocks::pull(strangers, field, from..=to)));
    assert!(pulled.full() > 0, "only empty blocks");
    let came = Arc::new(Poisoned::default());
    // At first it meets nobody but liars, where the ground allows; else they may come too late to be asked.
    field.ground.estrange(VICTIM, true);
    field.start(VICTIM);
    let field: &Field = field;
    let begun = Instant::now();
    let ((), measured) = watch::during(field, payer, Some(VICTIM), || {
        strangers.runtime.block_on(async {
            let lies = (0..8).map(|kind| {
                poison::lie(Arc::clone(strangers), field, Arc::clone(&pulled), kind, Arc::clone(&came))
            });
            futures_util::future::join_all(lies).await;
        });
        field.ground.estrange(VICTIM, false);
        until("it has caught up", || (field.status(VICTIM)?.chain.height >= to).then_some(()));
    });
    if field.ground.has_namespaces() {
        assert!(came.outlines.load(Relaxed) > 0 && came.bodies.load(Relaxed) > 0, "{came:?}");
    }
    println!(
        "{blocks} blocks behind, poisoned bodies: {} outlines and {} bodies served, caught up after {:.1} s, {}",
        came.outlines.load(Relaxed),
        came.bodies.load(Relaxed),
        begun.elapsed().as_secs_f64(),
        came.ends
    );
    println!("  {measured}");
    measured.check("poisoned bodies");
    let (ours, theirs) = (field.status(VICTIM).unwrap(), field.status(0).unwrap());
    assert_eq!(ours.chain.supply, theirs.chain.supply);
    let took = field.until_whole("a restart far behind");
    println!(
        "restart {blocks} blocks behind: 0 honest bans, all connected again after {:.1} s",
        took.as_secs_f64()
    );
    field.until_signing(VICTIM);
}

#[test]
fn floods_cost_honest_nodes_little_and_nobody_honest_is_banned() {
    let full = is_full();
    let scale = if full { Scale::FULL } else { Scale::SHORT };
    let key = SecretKey::from_seed(&[42; 32]);
    let mut field = Field::found(&key, COINS);
    let payer = Payer::join(&field, key, COINS, 50);
    let strangers = Arc::new(Strangers::at(&field, ground::STRANGERS));
    payer.until_paid(50);
    let quiet = payer.stretch(Duration::from_secs(if full { 20 } else { 4 }));
    let quiet_ms = quiet.percentile(99);
    println!(
        "quiet: {} payments final p50 {:.0} ms p99 {quiet_ms:.0} ms",
        quiet.finals_us.len(),
        quiet.percentile(50)
    );
    let mut misses = Vec::new();
    let payment = payer.draft();
    let attack = Attack { field: &field, strangers: Arc::clone(&strangers), scale, payment };
    for name in [
        "connections",
        "slow peers",
        "frames of 4 GiB",
        "false signatures",
        "orphans",
        "future votes",
        "poisoned addresses",
    ] {
        run(&attack, &payer, name, quiet_ms, &mut misses);
    }
    if is_chosen("honest") {
        honest::relayed_garbage(&field, &payer, &strangers);
        honest::reconnects(&field, &strangers, 50);
        far_behind(&mut field, &payer, &strangers, if full { 60 } else { 8 });
        if full {
            honest::pause(&field, Duration::from_secs(90));
            honest::partition(&field, Duration::from_secs(30));
        }
        honest::wrong_clock(&mut field, 90_000);
    }
    payer.leave();
    field.stop_all();
    for miss in &misses {
        println!("MISSED: {miss}");
    }
    assert!(misses.is_empty() || !full, "{}", misses.join("\n"));
}
