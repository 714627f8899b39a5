//! Double spends: two payments of one coin, handed to two nodes at the same moment.
//!
//! Neither is the right one; what must hold is that never both become final and that exactly one of
//! the pair is in a block soon after, so that the coin's owner is not stuck (protocol §11, S1 and
//! liveness (c)).

use crate::commands::devnet::payer::{Entrance, Payer};
use crate::commands::devnet::report::DoubleSpends;
use masternode::primitives::transaction::OutPoint;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two pairs.
const BETWEEN: Duration = Duration::from_millis(100);
/// How often the blocks are looked at while waiting.
const LOOK: Duration = Duration::from_millis(20);

/// Hands in `pairs` pairs, each to two nodes in turn; returns the coins they spend.
pub async fn run<N: Entrance>(payer: &Payer<N>, nodes: &[Arc<N>], pairs: u64) -> Vec<OutPoint> {
    let mut coins = Vec::new();
    let count = nodes.len().max(1);
    for number in 0..pairs {
        let turn = usize::try_from(number).unwrap_or(0);
        let (first, second) = (nodes.get(turn % count), nodes.get((turn + 1) % count));
        let (Some(first), Some(second)) = (first, second) else { break };
        if let Some((coin, [left, right])) = payer.rivals() {
            coins.push(coin.outpoint);
            // Whichever comes later may be refused as a conflict by a node that knows the other.
            let _verdicts = tokio::join!(first.submit(left), second.submit(right));
        }
        tokio::time::sleep(BETWEEN).await;
    }
    coins
}

/// Waits until every coin is spent in a block, and counts those spent by exactly one of the pair.
pub async fn settled<N: Entrance>(payer: &Payer<N>, coins: &[OutPoint], patience: Duration) -> DoubleSpends {
    let until = Instant::now() + patience;
    loop {
        let spenders: Vec<usize> =
            payer.with_tally(|tally| coins.iter().map(|coin| tally.spenders_in_blocks(coin)).collect());
        if spenders.iter().all(|count| *count > 0) || Instant::now() >= until {
            let once = spenders.iter().filter(|count| **count == 1).count();
            return DoubleSpends { tried: coins.len() as u64, settled_once: once as u64 };
        }
        tokio::time::sleep(LOOK).await;
    }
}
