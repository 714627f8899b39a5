//! Address list, peers file and queue by themselves.

use crate::network::discovery::{ADDRESSES_KEPT_MAX, AddressBook, load, plausible, save};
use crate::network::queue::{Queue, Taken};
use crate::network::tests::identity;
use crate::primitives::message::PeerId;
use bytes::Bytes;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::time::Instant;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_that_lead_nowhere_are_refused() {
    let public: IpAddr = "203.0.113.5".parse().unwrap();
    let private: IpAddr = "10.0.0.1".parse().unwrap();
    let loopback: IpAddr = "127.0.0.1".parse().unwrap();
    assert!(plausible(address("198.51.100.7:24000"), public));
    assert!(plausible(address("10.0.0.2:24000"), private));
    assert!(plausible(address("127.0.0.1:24000"), loopback));
    for (bad, teller) in [
        ("0.0.0.0:24000", public),
        ("198.51.100.7:0", public),
        ("224.0.0.1:24000", public),
        ("255.255.255.255:24000", public),
        ("[ff02::1]:24000", public),
        ("10.0.0.2:24000", public),
        ("127.0.0.1:24000", public),
        ("127.0.0.1:24000", private),
        ("[fd00::1]:24000", public),
    ] {
        assert!(!plausible(address(bad), teller), "{bad} from {teller}");
    }
}

#[test]
fn hearsay_fills_the_list_to_its_bound_and_displaces_only_the_hopeless() {
    let teller: IpAddr = "203.0.113.5".parse().unwrap();
    let peer = PeerId(identity(1).network_key.public());
    let book = AddressBook::new(Vec::new());
    let good = address("198.51.100.1:1");
    book.reached_at(good, peer);
    let many: Vec<_> = (1..=2000u16).map(|port| SocketAddr::from(([198, 51, 100, 2], port))).collect();
    book.hear(&many, teller);
    assert_eq!(book.len(), ADDRESSES_KEPT_MAX);
    // One fails; the next address heard takes its place.
    let (failed, failures) = book.take_due(Instant::now(), 1, &[(peer, good)]).pop().unwrap();
    assert_eq!(failures, 0);
    book.failed(failed, Instant::now() + Duration::from_secs(1));
    let newcomer = address("198.51.100.3:1");
    book.hear(&[newcomer], teller);
    let kept = book.unsaved().unwrap();
    assert!(kept.contains(&newcomer) && kept.contains(&good) && !kept.contains(&failed));
    assert_eq!(book.len(), ADDRESSES_KEPT_MAX);
}

#[test]
fn an_address_never_reached_is_forgotten_and_one_reached_is_kept() {
    let peer = PeerId(identity(1).network_key.public());
    let book = AddressBook::new(vec![address("198.51.100.1:1"), address("198.51.100.2:1")]);
    book.reached_at(address("198.51.100.2:1"), peer);
    for _ in 0..20 {
        for (due, _) in book.take_due(Instant::now(), 2, &[]) {
            book.failed(due, Instant::now());
        }
    }
    book.reached_at(address("198.51.100.2:1"), peer);
    assert_eq!(book.unsaved().unwrap(), [address("198.51.100.2:1")]);
}

#[test]
fn no_address_is_dialled_twice_at_once_or_while_connected() {
    let peer = PeerId(identity(1).network_key.public());
    let (first, second) = (address("198.51.100.1:1"), address("198.51.100.2:1"));
    let book = AddressBook::new(vec![first, second]);
    assert_eq!(book.take_due(Instant::now(), 2, &[(peer, first)]), [(second, 0)]);
    assert_eq!(book.take_due(Instant::now(), 2, &[(peer, first)]), []);
    book.succeeded(second, peer);
    assert_eq!(book.take_due(Instant::now(), 2, &[(peer, first)]), [], "the peer is connected elsewhere");
    book.is_own(second);
    assert_eq!(book.take_due(Instant::now(), 2, &[(peer, first)]), [], "the address is our own");
}

#[test]
fn the_peers_file_survives_damage_and_a_missing_one_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peers");
    assert!(load(&file).unwrap().is_empty());
    let addresses = [address("198.51.100.1:24000"), address("[2001:db8::1]:24000")];
    save(&file, &addresses).unwrap();
    assert_eq!(load(&file).unwrap(), addresses);
    let mut damaged = std::fs::read(&file).unwrap();
    damaged.splice(0..0, *b"\xff\xfe nonsense\n");
    std::fs::write(&file, damaged).unwrap();
    assert_eq!(load(&file).unwrap(), addresses);
}

fn take(queue: &Queue, now: Instant) -> Vec<u8> {
    match queue.take(now) {
        Taken::Batch(buffers) => buffers.concat(),
        Taken::NotBefore(_) | Taken::Nothing => Vec::new(),
    }
}

#[test]
fn a_queue_keeps_order_across_sizes_and_refuses_what_does_not_fit() {
    let queue = Queue::new(100_000);
    let now = Instant::now();
    let mut expected = Vec::new();
    for size in [10usize, 40_000, 20, 30, 30_000] {
        let frame = vec![u8::try_from(size % 251).unwrap(); size];
        expected.extend_from_slice(&frame);
        assert!(queue.push(Bytes::from(frame), None));
    }
    // The frame that crosses the bound is still taken, the next one is not.
    let crossing = vec![9; 40_000];
    expected.extend_from_slice(&crossing);
    assert!(queue.push(Bytes::from(crossing), None));
    assert!(!queue.push(Bytes::from_static(b"x"), None));
    assert_eq!(take(&queue, now), expected);
    assert_eq!(queue.bytes(), 0);
    assert!(queue.push(Bytes::from_static(b"x"), None), "what was taken makes room");
}

#[test]
fn delayed_frames_leave_no_earlier_than_due() {
    let queue = Queue::new(1000);
    let now = Instant::now();
    let later = now + Duration::from_millis(50);
    assert!(queue.push(Bytes::from_static(b"a"), Some(now)));
    assert!(queue.push(Bytes::from_static(b"b"), Some(later)));
    assert_eq!(take(&queue, now), b"a");
    assert!(matches!(queue.take(now), Taken::NotBefore(due) if due == later));
    assert_eq!(take(&queue, later), b"b");
    assert!(matches!(queue.take(later), Taken::Nothing));
}
