//! Attached consoles over the real socket, with a node that does what the test says.

use super::*;
use crate::config::control_socket_in;
use crate::rpc::client::ControlClient;
use crate::rpc::control::tests::{fixed, snapshot, with_server};
use crate::rpc::mirror::{Host, Mirror, MirrorError, News, greeted, hello, order, read_frame, write_frame};
use crate::telemetry::log::LogLevel;
use crate::telemetry::snapshot::{PoolEntryInfo, Snapshot};
use std::path::Path;

/// A client of the test; reads fail after a time that is far above what anything needs.
struct Client {
    stream: std::os::unix::net::UnixStream,
    mirror: Mirror,
}

impl Client {
    fn connect(dir: &Path) -> Self {
        let stream = std::os::unix::net::UnixStream::connect(control_socket_in(dir)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        Self { stream, mirror: Mirror::default() }
    }

    fn attach(dir: &Path, operate: bool) -> (Self, Host) {
        let mut client = Self::connect(dir);
        let host = client.greet(&hello(operate, 0).expect("encoded")).expect("attached");
        (client, host)
    }

    fn greet(&mut self, hello: &[u8]) -> Result<Host, MirrorError> {
        write_frame(&mut self.stream, hello)?;
        greeted(&read_frame(&mut self.stream)?)
    }

    fn next(&mut self) -> News {
        let frame = read_frame(&mut self.stream).expect("a frame");
        self.mirror.take(&frame).expect("understood")
    }

    /// Reads until `wanted` gives something.
    fn until<T>(&mut self, mut wanted: impl FnMut(News) -> Option<T>) -> T {
        for _ in 0..100_000 {
            if let Some(found) = wanted(self.next()) {
                return found;
            }
        }
        panic!("never came");
    }

    fn picture(&mut self) -> (Arc<Snapshot>, bool) {
        self.until(|news| match news {
            News::Picture { snapshot, again } => Some((snapshot, again)),
            _ => None,
        })
    }

    fn order(&mut self, number: u64, request: Request) -> Answer {
        write_frame(&mut self.stream, &order(number, request).expect("encoded")).expect("sent");
        self.until(|news| match news {
            News::Other(Downward::Answer { order, answer }) if order == number => Some(answer),
            _ => None,
        })
    }
}

fn event(sequence: u64) -> Arc<Event> {
    Arc::new(Event {
        sequence,
        time_ms: sequence,
        kind: EventKind::RoundStarted { height: sequence, round: 1, proposer: "north".into() },
    })
}

fn record(level: LogLevel, text: &str) -> LogRecord {
    LogRecord { time_ms: 1, level, target: "t".into(), message: text.into(), fields: Vec::new() }
}

fn sequences(news: News) -> Option<(u64, Vec<u64>)> {
    match news {
        News::Other(Downward::Events { missed, events }) => {
            Some((missed, events.iter().map(|event| event.sequence).collect()))
        }
        _ => None,
    }
}

#[test]
fn a_console_gets_the_past_first_and_then_what_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = fixed();
    *node.history.lock() = (1..4).map(event).collect();
    // A warning that 2,000 records have pushed out of what a new console is given is given beside it.
    *node.log.lock() = (0..2_000).map(|n| (n, record(LogLevel::Info, &n.to_string()))).collect();
    node.log.lock()[7].1.level = LogLevel::Warn;
    let shown = Arc::clone(&node);
    with_server(dir.path(), &node, move |dir| {
        let (mut client, host) = Client::attach(&dir, false);
        assert_eq!((host.pid, host.operate), (std::process::id(), false));
        assert_eq!(client.next(), News::Picture { snapshot: Arc::new(snapshot()), again: false });
        assert_eq!(client.until(sequences), (0, vec![1, 2, 3]));
        let mut numbers = Vec::new();
        while numbers.last() != Some(&1_999) {
            client.until(|news| match news {
                News::Other(Downward::Logs { skipped, records }) => {
                    assert_eq!(skipped, 0);
                    numbers.extend(records.iter().map(|(number, _)| *number));
                    Some(())
                }
                _ => None,
            });
        }
        assert_eq!(numbers, [7].into_iter().chain(1_000..2_000).collect::<Vec<_>>());

        let mut newer = snapshot();
        newer.chain.height += 1;
        newer.checkpoints.pop();
        *shown.snapshot.lock() = Arc::new(newer.clone());
        assert_eq!(client.picture(), (Arc::new(newer), false));
        shown.events.send(event(4)).expect("heard");
        assert_eq!(client.until(sequences), (0, vec![4]));
        shown.log.lock().push((2_000, record(LogLevel::Error, "new")));
        let new = client.until(|news| match news {
            News::Other(Downward::Logs { skipped: 0, records }) => Some(records),
            _ => None,
        });
        assert_eq!(new, [(2_000, record(LogLevel::Error, "new"))]);
    });
}

#[test]
fn a_console_that_lost_events_is_told_how_many_and_gets_a_whole_picture() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = fixed();
    let shown = Arc::clone(&node);
    with_server(dir.path(), &node, move |dir| {
        let (mut client, _) = Client::attach(&dir, false);
        client.picture();
        // The channel of the test holds 8, the history the last 3.
        *shown.history.lock() = (98..101).map(event).collect();
        (1..101).map(event).for_each(|event| drop(shown.events.send(event)));
        let mut again = false;
        let (missed, kept) = client.until(|news| {
            again |= matches!(news, News::Picture { again: true, .. });
            sequences(news)
        });
        assert!(again);
        assert_eq!(kept, (93..101).collect::<Vec<_>>());
        assert_eq!(missed, 92);
    });
}

#[test]
fn a_console_that_does_not_read_holds_nobody_up_and_starts_anew_when_it_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = fixed();
    let shown = Arc::clone(&node);
    with_server(dir.path(), &node, move |dir| {
        let (mut stalled, _) = Client::attach(&dir, false);
        stalled.picture();
        let (mut reading, _) = Client::attach(&dir, false);
        reading.picture();
        // Pictures that are far more than a socket holds, and other each time.
        let began = std::time::Instant::now();
        let mut last = 0;
        while began.elapsed() < 2 * SLOW {
            last += 1;
            let mut next = snapshot();
            next.chain.height = last;
            next.pool.entries = (0..2_000).map(|n| entry(last * 10_000 + n)).collect();
            *shown.snapshot.lock() = Arc::new(next);
            assert_eq!(reading.picture().0.chain.height, last);
            ControlClient::connect(&dir).expect("connected").ping().expect("a pong");
        }
        let (picture, _) = stalled.until(|news| match news {
            News::Picture { snapshot, again: true } => Some((snapshot, true)),
            _ => None,
        });
        assert_eq!(picture.chain.height, last);
    });
}

fn entry(number: u64) -> PoolEntryInfo {
    serde_json::from_value(serde_json::json!({
        "txid": format!("{number:064x}"), "status": "pending", "size": number, "fee": number, "inputs": 1,
        "outputs": 2, "value": snapshot().chain.supply, "age_ms": number
    }))
    .expect("an entry")
}

#[test]
fn orders_are_for_consoles_that_operate() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = fixed();
    let stopped = Arc::clone(&node);
    with_server(dir.path(), &node, move |dir| {
        let (mut viewer, _) = Client::attach(&dir, false);
        let stop = || Request::Stop { reason: "enough".to_owned() };
        let ban = || Request::Ban { whom: "198.51.100.7".to_owned(), length_s: 7, reason: String::new() };
        for (number, request) in
            [stop(), ban(), Request::Unban { whom: "all".to_owned() }].into_iter().enumerate()
        {
            match viewer.order(number as u64, request) {
                Answer::Refused { reason } => assert!(reason.contains("--operate"), "{reason}"),
                other => panic!("not refused: {other:?}"),
            }
        }
        assert!(stopped.stopped.lock().is_none());
        assert!(matches!(viewer.order(7, Request::ListBanned), Answer::Bans { .. }));
        let again = Request::Attach { attach: ATTACH_VERSION, operate: true, period_ms: 0 };
        assert!(matches!(viewer.order(8, again), Answer::Refused { .. }), "no way up from within");
        write_frame(&mut viewer.stream, b"{nonsense").expect("sent");
        viewer.until(|news| {
            matches!(news, News::Other(Downward::Answer { answer: Answer::Refused { .. }, .. })).then_some(())
        });

        let (mut operator, host) = Client::attach(&dir, true);
        assert!(host.operate);
        assert!(matches!(operator.order(1, ban()), Answer::Banned { .. }));
        assert_eq!(operator.order(2, stop()), Answer::Stopping);
        assert!(stopped.stopped.lock().is_some());
        let user = format!("user {}, console", rustix::process::geteuid().as_raw());
        let refused = "refused: this console only views: attach with `masternode attach --operate`";
        let noted = |order: &str, outcome: &str| format!("{user}: {order}: {outcome}");
        let expected = [
            noted("stop (enough)", refused),
            noted("ban 198.51.100.7 for 7 s ()", refused),
            noted("unban all", refused),
            noted("ban 198.51.100.7 for 7 s ()", "done"),
            noted("stop (enough)", "done"),
        ];
        assert_eq!(*stopped.noted.lock(), expected);
    });
}

#[test]
fn another_version_is_refused_with_both_and_the_connection_can_still_be_used() {
    let dir = tempfile::tempdir().expect("a directory");
    with_server(dir.path(), &fixed(), |dir| {
        let mut client = Client::connect(&dir);
        let hello_of = |attach: u32| {
            format!(r#"{{"version":1,"method":"attach","attach":{attach},"operate":false,"period_ms":250}}"#)
        };
        let refused = client.greet(hello_of(9).as_bytes()).expect_err("another version").to_string();
        assert!(refused.contains("version 9") && refused.contains("version 1 is"), "{refused}");
        client.greet(hello_of(1).as_bytes()).expect("the same connection attaches");
    });
}

#[test]
fn consoles_leave_room_for_commands() {
    let dir = tempfile::tempdir().expect("a directory");
    with_server(dir.path(), &fixed(), |dir| {
        let mut attached: Vec<_> = (0..ATTACHED_MAX).map(|_| Client::attach(&dir, false)).collect();
        let hello = hello(false, 0).expect("encoded");
        let refused = Client::connect(&dir).greet(&hello).expect_err("full").to_string();
        assert!(refused.contains("8 consoles"), "{refused}");
        ControlClient::connect(&dir).expect("connected").ping().expect("a pong");
        drop(attached.pop());
        // The node notices when it next sends something, or at once.
        while Client::connect(&dir).greet(&hello).is_err() {}
    });
}

#[test]
fn frames_are_bounded_and_what_does_not_fit_is_counted() {
    let small = "x".repeat(1000);
    let huge = "y".repeat(FRAME_BYTES_MAX);
    let items: Vec<&str> = (0..1000).map(|n| if n == 500 { huge.as_str() } else { small.as_str() }).collect();
    let frames = batches("logs", "skipped", 2, &items).expect("encoded");
    assert!(frames.len() >= 4 && frames.iter().all(|frame| frame.len() < BATCH_BYTES + 4096));
    let values: Vec<Value> =
        frames.iter().map(|frame| serde_json::from_slice(frame).expect("JSON")).collect();
    let rows: usize = values.iter().map(|value| value["records"].as_array().expect("a list").len()).sum();
    assert_eq!(rows, 999);
    // What is lost is known before the first frame is sent.
    assert_eq!(values.iter().map(|value| value["skipped"].as_u64().expect("a count")).sum::<u64>(), 3);
}
