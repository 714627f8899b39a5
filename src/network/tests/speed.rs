//! Delay and throughput: bounds wide enough for a loaded machine, figures printed for people
//! (`cargo test --lib network::tests::speed -- --nocapture`).

use crate::network::router::Recipients;
use crate::network::tests::{identity, options, start, status};
use crate::network::{NetworkEvent, NetworkOptions};
use crate::primitives::message::Message;
use std::time::{Duration, Instant};

fn height(event: &NetworkEvent) -> Option<u64> {
    match event {
        NetworkEvent::Message { message: Message::Status(status), .. } => Some(status.height),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_messages_a_second_arrive_within_milliseconds() {
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    one.up().await;
    let begun = Instant::now();
    let sending = tokio::task::spawn_blocking(move || {
        let mut sent = Vec::new();
        for number in 0..2000u32 {
            let due = begun + Duration::from_millis(1) * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            sent.push(Instant::now());
            two.network.send(Recipients::All, &status(u64::from(number)));
        }
        (two, sent)
    });
    let mut received = Vec::new();
    for number in 0..2000 {
        assert_eq!(one.until(height).await, number);
        received.push(Instant::now());
    }
    let (_two, sent) = sending.await.unwrap();
    let mut delays: Vec<_> = received.iter().zip(&sent).map(|(at, from)| at.duration_since(*from)).collect();
    delays.sort();
    println!("one way: p50 {:?}, p95 {:?}, p99 {:?}", delays[1000], delays[1900], delays[1980]);
    assert!(delays[1000] < Duration::from_millis(20), "{:?}", delays[1000]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_small_messages_arrive_in_order() {
    const MESSAGES: u64 = 100_000;
    let mut one = start(options(&[]), identity(1)).await;
    let mut two = start(options(&[one.address()]), identity(2)).await;
    two.up().await;
    let peer = two.network.context.registry.all().pop().unwrap();
    let begun = Instant::now();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            while peer.queue(crate::network::wire::Class::Votes).bytes() > 1 << 20 {
                tokio::task::yield_now().await;
            }
            two.network.send(Recipients::All, &status(number));
        }
        two
    });
    for number in 0..MESSAGES {
        assert_eq!(one.until(height).await, number);
    }
    let took = begun.elapsed();
    let size = crate::network::wire::frame(&status(0)).unwrap().len();
    println!("{:.0} messages of {size} bytes a second", f64::from(100_000u32) / took.as_secs_f64());
    assert!(took < Duration::from_secs(60), "{took:?}");
    sending.await.unwrap();
}

#[tokio::test]
async fn artificial_latency_delays_every_message_and_costs_no_throughput() {
    let latency = Duration::from_millis(60);
    let mut one = start(options(&[]), identity(1)).await;
    let delayed = NetworkOptions { latency, ..options(&[one.address()]) };
    let mut two = start(delayed, identity(2)).await;
    two.up().await;
    let mut sent = Vec::new();
    for number in 0..1000 {
        sent.push(Instant::now());
        two.network.send(Recipients::All, &status(number));
    }
    for (number, sent) in sent.iter().enumerate() {
        assert_eq!(one.until(height).await, number as u64);
        assert!(sent.elapsed() >= latency);
    }
    // One after the other they would have taken a minute.
    assert!(sent[0].elapsed() < Duration::from_secs(20), "{:?}", sent[0].elapsed());
}
