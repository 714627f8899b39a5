//! Address list, peers file and queue by themselves.

use crate::network::discovery::buckets::{BUCKET_MAX, GROUP_BUCKETS, SOURCE_BUCKETS};
use crate::network::discovery::{AddressBook, Connected, Remembered, load, plausible, save};
use crate::network::handshake::CloseCode;
use crate::network::netgroup::Netgroup;
use crate::network::queue::{Queue, Taken};
use crate::network::tests::{chain, identity};
use crate::network::wire::Class;
use crate::primitives::endpoint::EndpointRecord;
use crate::primitives::message::{Message, PeerId, Status};
use bytes::Bytes;
use std::collections::BTreeSet;
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

fn book(addresses: &[&str]) -> AddressBook {
    let hearsay = addresses.iter().map(|text| (address(text), address(text).ip()));
    AddressBook::new(Remembered { secret: Some([1; 32]), new: hearsay.collect(), ..Remembered::default() })
}

fn connected(peer: PeerId, at: SocketAddr) -> Connected {
    Connected { peers: vec![(peer, at)], groups: BTreeSet::from([Netgroup::of(at)]) }
}

fn peer() -> PeerId {
    PeerId(identity(1).network_key.public())
}

/// All the addresses in it.
fn all(book: &AddressBook) -> BTreeSet<SocketAddr> {
    let remembered = book.unsaved().unwrap();
    remembered.tried.into_iter().chain(remembered.new.into_iter().map(|(address, _)| address)).collect()
}

#[test]
fn a_liar_fills_its_own_buckets_and_displaces_nobody() {
    let teller: IpAddr = "203.0.113.5".parse().unwrap();
    let book = book(&[]);
    let (good, heard) = (address("198.51.100.1:1"), address("192.0.2.1:1"));
    book.reached_at(good, peer());
    book.hear(&[heard], "198.51.100.7".parse().unwrap());
    let flood = (0..100_000u32).map(|n| SocketAddr::from(((0x0b00_0000 + n * 701).to_be_bytes(), 24000)));
    for some in flood.collect::<Vec<_>>().chunks(1000) {
        book.hear(some, teller);
    }
    let most = usize::try_from(SOURCE_BUCKETS).unwrap() * BUCKET_MAX;
    assert!(book.len() <= most + 2 && book.len() > most / 2, "{} of {most}", book.len());
    let kept = all(&book);
    assert!(kept.contains(&good) && kept.contains(&heard));
}

#[test]
fn hearsay_tried_in_vain_makes_room_and_other_hearsay_does_not() {
    let teller: IpAddr = "203.0.113.5".parse().unwrap();
    let book = book(&[]);
    // One group, so one bucket.
    let many: Vec<_> = (1..=20u16).map(|port| SocketAddr::from(([198, 51, 100, 2], port))).collect();
    book.hear(&many, teller);
    assert_eq!(book.len(), BUCKET_MAX);
    let (failed, failures) = book.take_due(Instant::now(), 1, &Connected::default()).pop().unwrap();
    assert_eq!(failures, 0);
    let newcomer = address("198.51.100.3:1");
    book.hear(&[newcomer], teller);
    assert!(!all(&book).contains(&newcomer));
    book.failed(failed, Instant::now() + Duration::from_secs(1));
    book.hear(&[newcomer], teller);
    let kept = all(&book);
    assert!(kept.contains(&newcomer) && !kept.contains(&failed));
    assert_eq!(kept.len(), BUCKET_MAX);
}

#[test]
fn a_tried_address_loses_its_place_only_when_it_fails_a_test() {
    let book = book(&[]);
    // Of one group, far more than its tried buckets hold.
    let many: Vec<_> = (1..=200u16).map(|port| SocketAddr::from(([198, 51, 100, 2], port))).collect();
    for address in &many {
        book.reached_at(*address, peer());
    }
    let tried = book.unsaved().unwrap().tried;
    assert!(tried.len() <= usize::try_from(GROUP_BUCKETS).unwrap() * BUCKET_MAX);
    let tested = book.take_feeler(Instant::now(), &Connected::default()).unwrap();
    assert!(tried.contains(&tested), "the test is of a tried one");
    book.succeeded(tested, peer());
    assert_eq!(book.unsaved().unwrap().tried, tried);
    let failing = book.take_feeler(Instant::now(), &Connected::default()).unwrap();
    book.failed(failing, Instant::now() + Duration::from_secs(60));
    let after = book.unsaved().unwrap().tried;
    assert_eq!(after.len(), tried.len());
    assert!(!after.contains(&failing));
}

#[test]
fn outbound_connections_go_to_different_netgroups() {
    let book = book(&["198.51.100.1:1", "198.51.7.7:1", "203.0.113.1:1", "192.0.2.1:1"]);
    let taken = address("192.0.2.200:1");
    let due = book.take_due(Instant::now(), 8, &connected(peer(), taken));
    let groups: BTreeSet<Netgroup> = due.iter().map(|(address, _)| Netgroup::of(*address)).collect();
    assert_eq!((due.len(), groups.len()), (2, 2), "{due:?}");
    assert!(!groups.contains(&Netgroup::of(taken)));
}

#[test]
fn what_was_connected_at_the_end_is_dialled_first() {
    let book = book(&[]);
    let many: Vec<_> = (1..=40u8).map(|block| SocketAddr::from(([198, block, 1, 1], 1))).collect();
    for address in &many {
        book.reached_at(*address, peer());
    }
    for address in &many[..3] {
        book.dialled(*address);
    }
    book.lost(many[0]);
    let remembered = book.unsaved().unwrap();
    assert_eq!(remembered.anchors, many[1..3]);
    let again = AddressBook::new(remembered);
    let due: BTreeSet<_> = again.take_due(Instant::now(), 2, &Connected::default()).into_iter().collect();
    assert_eq!(due, BTreeSet::from([(many[1], 0), (many[2], 0)]));
}

#[test]
fn an_address_never_reached_is_forgotten_and_one_reached_is_kept() {
    let book = book(&["198.51.100.1:1", "203.0.113.2:1"]);
    book.reached_at(address("203.0.113.2:1"), peer());
    for _ in 0..20 {
        for (due, _) in book.take_due(Instant::now(), 2, &Connected::default()) {
            book.failed(due, Instant::now());
        }
    }
    assert_eq!(all(&book), BTreeSet::from([address("203.0.113.2:1")]));
}

#[test]
fn no_address_waits_after_a_standstill() {
    let book = book(&["198.51.100.1:1"]);
    let [(due, _)] = book.take_due(Instant::now(), 2, &Connected::default())[..] else { panic!() };
    book.failed(due, Instant::now() + Duration::from_secs(30));
    assert_eq!(book.take_due(Instant::now(), 2, &Connected::default()), []);
    book.dial_at_once();
    assert_eq!(book.take_due(Instant::now(), 2, &Connected::default()), [(due, 1)]);
}

#[test]
fn no_address_is_dialled_twice_at_once_or_while_connected() {
    let (first, second) = (address("198.51.100.1:1"), address("203.0.113.2:1"));
    let book = book(&["198.51.100.1:1", "203.0.113.2:1"]);
    let connected = connected(peer(), first);
    assert_eq!(book.take_due(Instant::now(), 2, &connected), [(second, 0)]);
    assert_eq!(book.take_due(Instant::now(), 2, &connected), []);
    book.succeeded(second, peer());
    assert_eq!(book.take_due(Instant::now(), 2, &connected), [], "the peer is connected elsewhere");
    book.is_own(second);
    assert_eq!(book.take_due(Instant::now(), 2, &Connected::default()), [(first, 0)], "the other is our own");
}

#[test]
fn the_peers_file_survives_damage_and_a_missing_one_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("peers");
    assert_eq!(load(&file).unwrap(), Remembered::default());
    let remembered = Remembered {
        secret: Some([7; 32]),
        anchors: vec![address("198.51.100.1:24000")],
        tried: vec![address("198.51.100.1:24000"), address("[2001:db8::1]:24000")],
        new: vec![(address("203.0.113.9:1"), "192.0.2.1".parse().unwrap())],
        endpoints: vec![EndpointRecord::sign(
            &identity(1).network_key,
            chain(1),
            identity(2).network_key.public(),
            vec![address("198.51.100.1:24000"); 4],
            1_700_000_000_000,
        )],
    };
    save(&file, &remembered).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it holds a secret");
    assert_eq!(load(&file).unwrap(), remembered);
    let mut damaged = std::fs::read(&file).unwrap();
    damaged.splice(0..0, *b"\xff\xfe nonsense\nsecret 12\ntried nobody\nendpoint 00\n");
    std::fs::write(&file, damaged).unwrap();
    assert_eq!(load(&file).unwrap(), remembered);
    // A line an operator added.
    std::fs::write(&file, "198.51.100.4:24000\n").unwrap();
    assert_eq!(load(&file).unwrap().new, [(address("198.51.100.4:24000"), "198.51.100.4".parse().unwrap())]);
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

#[test]
fn every_reason_to_close_has_a_number_that_the_other_side_knows() {
    let known: Vec<CloseCode> = (0..=255).filter_map(CloseCode::from_number).collect();
    let numbers: Vec<u32> = known.iter().map(|code| code.number()).collect();
    let expected: Vec<u32> = (1..=u32::try_from(known.len()).unwrap()).collect();
    assert_eq!(numbers, expected, "from 1, without a gap: a number is never used again");
    for code in [CloseCode::ShuttingDown, CloseCode::Duplicate, CloseCode::NoPong, CloseCode::TooManyOfSite] {
        assert!(known.contains(&code));
    }
}

/// What is decided must not wait for what is relayed, and nothing for what is caught up with
/// (docs/decisions/0012-classes-of-messages.md).
#[test]
fn what_is_urgent_leaves_before_what_is_not() {
    let order = Class::ALL.map(Class::priority);
    assert!(order.is_sorted_by(|urgent, other| urgent > other), "{order:?}");
    let votes = [
        Message::Status(Status {
            height: 1,
            previous: Default::default(),
            round: 0,
            has_proposal: false,
            prevotes: Vec::new(),
            precommits: Vec::new(),
            stream_heads: Vec::new(),
        }),
        Message::GetTransactions(Vec::new()),
        Message::GetBlock { height: 1 },
    ];
    assert!(votes.iter().all(|message| Class::of(message) == Class::Votes));
    for answer in
        [Message::Transactions(Vec::new()), Message::Headers(Vec::new()), Message::Snapshots(Vec::new())]
    {
        assert_eq!(Class::of(&answer), Class::Bulk);
    }
}
