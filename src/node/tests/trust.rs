//! A node that is new in an old network, over real sockets: a chain that only old keys signed is refused,
//! the one with the trusted block is adopted.

use super::servers::{Chain, chain, server};
use super::*;
use crate::primitives::trusted::TrustedHeader;

fn trusted(chain: &Chain) -> TrustedHeader {
    let (block, _) = chain.last().unwrap();
    TrustedHeader { height: block.header.height, id: block.id() }
}

fn reason(node: &NodeHandle) -> Option<String> {
    match &node.snapshot().state {
        NodeState::NeedsTrustedBlock { reason } => Some(reason.to_string()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_range_chain_signed_by_old_keys_is_refused_and_the_one_with_the_trusted_block_is_adopted() {
    let mut cluster = Cluster::new(4);
    cluster.genesis.time_ms = 1_700_000_000_000;
    let now_ms = clock::wall_ms() - 10_000;
    let (right, forged) = (
        chain(&cluster.genesis, now_ms, vec![vec![]; 5]),
        chain(&cluster.genesis, now_ms - 1, vec![vec![]; 7]),
    );

    // Without a trusted block nothing is adopted, and that is said.
    let liar = server(&cluster, 1, 0, forged.clone()).await;
    let node = cluster.start(0).await;
    let mut events = node.subscribe();
    until(&node, "asking for a trusted block", |node| reason(node).is_some()).await;
    assert!(reason(&node).unwrap().contains("[sync] trusted_block"));
    let snapshot = node.snapshot();
    assert!(snapshot.alerts.iter().any(|alert| alert.text.as_str().contains("--trusted-block")));
    let told = std::iter::from_fn(|| events.try_next());
    assert!(told.into_iter().any(
        |event| matches!(&event.kind, EventKind::State { state } if state.as_str() == "NEEDS TRUSTED BLOCK")
    ));
    assert_eq!(height(&node), 0);
    cluster.stop(0).await;

    // With one the liar is named, and the chain that leads there is adopted from whoever has it.
    let mut options = cluster.options(0);
    options.config.sync.trusted_block = Some(trusted(&right));
    let node = start(options).await.unwrap();
    until(&node, "naming who has another block", |node| {
        reason(node).is_some_and(|text| text.contains(&liar.0.short()))
    })
    .await;
    assert_eq!(height(&node), 0);
    server(&cluster, 2, 0, right.clone()).await;
    until(&node, "the right chain", |node| height(node) == 5).await;
    assert_eq!(node.ledger().tip().block, trusted(&right).id);
    node.stop("seen");
    node.stopped().await;

    // A trusted block that the database contradicts is refused with both ids.
    let mut options = cluster.options(0);
    let wrong = TrustedHeader { height: 3, id: forged[2].0.id() };
    options.config.sync.trusted_block = Some(wrong);
    let error = start(options).await.unwrap_err();
    assert_eq!(error.exit_code(), 78);
    for part in [wrong.to_string(), right[2].0.id().to_string(), "[sync]".to_owned()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
}
