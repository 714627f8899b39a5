//! This node was away, or its clock is wrong: neither is a peer's fault.

use crate::network::tests::{Node, PATIENCE, identity, options, start};
use crate::network::{NetworkEvent, NetworkOptions};
use std::time::Duration;
use tokio::time::timeout;

/// Both ends live in one process, so both stand still.
async fn stand_still(lasted: Duration) {
    tokio::time::pause();
    tokio::time::advance(lasted).await;
    tokio::time::resume();
}

async fn stood_still(node: &mut Node) -> (u64, bool) {
    node.until(|event| match event {
        NetworkEvent::StoodStill { lasted, suspended } => Some((lasted.as_secs(), *suspended)),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn after_ninety_seconds_of_standstill_the_node_says_so_and_connects_anew_at_once() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    one.up().await;
    two.up().await;
    stand_still(Duration::from_secs(90)).await;
    for node in [&mut one, &mut two] {
        let (seconds, suspended) = stood_still(node).await;
        assert!((85..=120).contains(&seconds) && !suspended, "{seconds} s");
        assert_eq!(*node.network.context.wake_dials.borrow(), 1, "no dial waits any longer");
    }
    assert_eq!((one.up().await, two.up().await), (two.id(), one.id()));
}

#[tokio::test]
async fn a_standstill_shorter_than_the_idle_timeout_costs_no_connection() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    one.up().await;
    two.up().await;
    stand_still(Duration::from_secs(8)).await;
    // Whatever comes first is looked at: no end of the connection.
    for node in [&mut one, &mut two] {
        let event = timeout(PATIENCE, node.events.recv()).await.unwrap().unwrap();
        assert!(matches!(event, NetworkEvent::StoodStill { .. }), "{event:?}");
    }
    assert_eq!((one.network.peers().len(), two.network.peers().len()), (1, 1));
}

#[tokio::test]
async fn a_wrong_clock_is_read_with_its_side_and_its_error() {
    let mut one = start(NetworkOptions { clock_error_ms: -90_000, ..options(&[]) }, identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    one.up().await;
    two.up().await;
    for (node, expected) in [(&one, 90_000_000i64), (&two, -90_000_000)] {
        let read = timeout(PATIENCE, async {
            loop {
                let measured = node.network.peers().first().map(|peer| peer.measured);
                if let Some((offset_us, error_us)) =
                    measured.and_then(|measured| measured.offset_us.zip(measured.offset_error_us))
                {
                    return (offset_us, error_us);
                }
                tokio::task::yield_now().await;
            }
        });
        let (offset_us, error_us) = read.await.expect("no clock was read");
        // Whole milliseconds on the wire.
        assert!((offset_us - expected).unsigned_abs() <= error_us + 2_000, "{offset_us} +- {error_us}");
    }
}
