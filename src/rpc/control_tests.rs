//! The control socket as clients meet it.

use super::*;
use crate::light::bundle::ProofBundle;
use crate::rpc::client::{ClientError, ControlClient};
use crate::telemetry::event::Event;
use crate::telemetry::log::{LogLevel, LogPage, LogRecord};
use parking_lot::Mutex;
use std::io::{Read, Write};
use tokio::sync::broadcast;

pub(in crate::rpc) struct Fixed {
    pub snapshot: Mutex<Arc<Snapshot>>,
    pub stopped: Mutex<Option<CleanText>>,
    pub noted: Mutex<Vec<String>>,
    pub events: broadcast::Sender<Arc<Event>>,
    pub history: Mutex<Vec<Arc<Event>>>,
    pub log: Mutex<Vec<(u64, LogRecord)>>,
}

fn page(records: Vec<(u64, LogRecord)>, from: u64) -> LogPage {
    let next = records.last().map_or(from, |(last, _)| last + 1);
    let skipped = records.first().map_or(0, |(first, _)| first.saturating_sub(from));
    LogPage { records, next, skipped }
}

impl Backend for Fixed {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.lock())
    }
    fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.events.subscribe()
    }
    fn history(&self) -> Vec<Arc<Event>> {
        self.history.lock().clone()
    }
    fn log_number(&self) -> u64 {
        self.log.lock().last().map_or(0, |(last, _)| last + 1)
    }
    fn logs(&self, from: u64, max: usize) -> LogPage {
        let log = self.log.lock();
        page(log.iter().filter(|(number, _)| *number >= from).take(max).cloned().collect(), from)
    }
    fn warnings(&self, max: usize) -> LogPage {
        let log = self.log.lock();
        let warnings = log.iter().filter(|(_, record)| record.level >= LogLevel::Warn);
        page(warnings.take(max).cloned().collect(), 0)
    }
    fn proof(&self, txid: &Txid, trusted: Option<u64>) -> Result<ProofBundle, String> {
        Err(format!("{txid} from {trusted:?} on is not known"))
    }
    fn archive(&self, request: ArchiveRequest, out: &mut dyn Write) -> Result<(), String> {
        let bytes: Vec<u8> = (0..request.from).map(|n| n.to_le_bytes()[0]).collect();
        // As a disk gives it: in parts that fit nothing.
        bytes.chunks(1013).try_for_each(|part| out.write_all(part)).map_err(|error| error.to_string())?;
        if request.state { Err("the disk is tired".to_owned()) } else { Ok(()) }
    }
    fn recount(&self) -> Result<Recounted, String> {
        Ok(Recounted { height: 7, state_hash: Default::default(), outputs: 9 })
    }
    fn ban(&self, whom: &str, length_s: u64, reason: &str) -> Result<BanOutcome, String> {
        Ok(BanOutcome { ban: ban(whom, length_s, reason), disconnected: 2, members: 1 })
    }
    fn unban(&self, whom: &str) -> Result<Vec<BanInfo>, String> {
        if whom == "all" { self.bans() } else { Err(format!("`{whom}` is nobody")) }
    }
    fn bans(&self) -> Result<Vec<BanInfo>, String> {
        Ok(vec![ban("203.0.113.0/24", 60, "noise")])
    }
    fn note(&self, by: &str, order: &str, outcome: &str) {
        self.noted.lock().push(format!("{by}: {order}: {outcome}"));
    }
    fn stop(&self, reason: CleanText) {
        *self.stopped.lock() = Some(reason);
    }
}

fn ban(subject: &str, length_s: u64, reason: &str) -> BanInfo {
    BanInfo {
        subject: subject.into(),
        since_ms: 1000,
        until_ms: 1000 + 1000 * length_s,
        automatic: false,
        reason: reason.into(),
        evidence: CleanText::default(),
        address: None,
    }
}

#[test]
fn bans_are_ordered_lifted_and_listed_over_the_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    with_server(dir.path(), &fixed(), |dir| {
        let mut client = ControlClient::connect(&dir).expect("connected");
        let outcome = client.ban("198.51.100.7", 7, "spam").expect("banned");
        assert_eq!((outcome.ban, outcome.members), (ban("198.51.100.7", 7, "spam"), 1));
        let listed = client.bans().expect("listed");
        assert_eq!(client.unban("all").expect("lifted"), listed);
        let refused = client.unban("x").expect_err("nobody");
        assert!(refused.to_string().contains("`x` is nobody"), "{refused}");
    });
}

pub(in crate::rpc) fn snapshot() -> Snapshot {
    serde_json::from_str(include_str!("../../tests/golden/snapshot.json")).expect("a valid snapshot")
}

pub(in crate::rpc) fn fixed() -> Arc<Fixed> {
    Arc::new(Fixed {
        snapshot: Mutex::new(Arc::new(snapshot())),
        stopped: Mutex::new(None),
        noted: Mutex::default(),
        events: broadcast::Sender::new(8),
        history: Mutex::default(),
        log: Mutex::default(),
    })
}

/// Serves `backend` in `dir` while `client` runs on another thread.
pub(in crate::rpc) fn with_server<T: Send + 'static>(
    dir: &Path,
    backend: &Arc<Fixed>,
    client: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let server = ControlServer::bind(dir).expect("bound");
        let cancel = CancellationToken::new();
        let serving = tokio::spawn(server.serve(Arc::clone(backend) as Arc<dyn Backend>, cancel.clone()));
        let dir = dir.to_path_buf();
        let answer = tokio::task::spawn_blocking(move || client(dir)).await.expect("the client ran");
        cancel.cancel();
        serving.await.expect("the server ended");
        answer
    })
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn status_ping_and_stop_reach_the_node_and_the_socket_goes_with_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = fixed();
    let (pid, status, socket_mode) = with_server(dir.path(), &backend, |dir| {
        let mut client = ControlClient::connect(&dir).expect("connected");
        let pid = client.ping().expect("a pong");
        let status = client.status().expect("a snapshot");
        let refused = client.proof(Txid::default(), Some(7)).expect_err("not known");
        assert!(refused.to_string().contains("Some(7) on is not known"), "{refused}");
        assert_eq!(client.recount().expect("counted").outputs, 9);
        client.stop("the test is over").expect("accepted");
        (pid, status, mode(&control_socket_in(&dir)))
    });
    assert_eq!(pid, std::process::id());
    assert_eq!(status, snapshot());
    assert_eq!(socket_mode, 0o600);
    assert_eq!(backend.stopped.lock().as_ref().map(CleanText::as_str), Some("the test is over"));
    assert!(!control_socket_in(dir.path()).exists());
}

#[test]
fn an_archive_comes_whole_in_pieces_or_says_why_not_and_the_node_outlives_a_client_that_goes() {
    let dir = tempfile::tempdir().expect("a directory");
    let expected: Vec<u8> = (0..3_000_000u64).map(|n| n.to_le_bytes()[0]).collect();
    with_server(dir.path(), &fixed(), move |dir| {
        let ask = |state| {
            let request = ArchiveRequest { from: 3_000_000, to: None, state };
            ControlClient::connect(&dir).expect("connected").archive(request).expect("begun")
        };
        let mut got = Vec::new();
        ask(false).read_to_end(&mut got).expect("complete");
        assert!(got == expected);
        got.clear();
        let error = ask(true).read_to_end(&mut got).expect_err("failed at the end");
        assert!(error.to_string().contains("the disk is tired"), "{error}");
        assert!(expected.starts_with(&got));
        let mut first = [0; 10];
        ask(false).read_exact(&mut first).expect("begun");
        ControlClient::connect(&dir).expect("connected").ping().expect("a pong");
    });
}

#[test]
fn the_socket_of_a_dead_process_is_replaced_and_that_of_a_live_one_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = control_socket_in(dir.path());
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a dropped listener leaves its file");
    with_server(dir.path(), &fixed(), |dir| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
        let _inside = runtime.enter();
        let second = ControlServer::bind(&dir);
        assert!(matches!(second, Err(ControlError::InUse { .. })));
        ControlClient::connect(&dir).expect("the first is unharmed").ping().expect("a pong");
    });
}

#[test]
fn a_file_in_the_place_of_the_socket_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = control_socket_in(dir.path());
    std::fs::write(&path, "precious").expect("written");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
    let _inside = runtime.enter();
    assert!(matches!(ControlServer::bind(dir.path()), Err(ControlError::NotASocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
}

#[test]
fn a_directory_with_a_very_long_path_works_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let long = dir.path().join("x".repeat(120)).join("y".repeat(120));
    std::fs::create_dir_all(&long).expect("created");
    let pid = with_server(&long, &fixed(), |dir| {
        ControlClient::connect(&dir).expect("connected").ping().expect("a pong")
    });
    assert_eq!(pid, std::process::id());
    assert!(!control_socket_in(&long).exists());
}

#[test]
fn without_a_node_the_client_says_where_it_looked_and_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let missing = ControlClient::connect(dir.path()).expect_err("nobody is there");
    assert!(matches!(missing, ClientError::NotRunning { .. }));
    let text = missing.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains("masternode run --data-dir"), "{text}");
    drop(std::os::unix::net::UnixListener::bind(control_socket_in(dir.path())).expect("bound"));
    let dead = ControlClient::connect(dir.path()).expect_err("nobody listens");
    assert!(matches!(dead, ClientError::Stale { .. }), "{dead}");
}

/// Sends `payload` as a frame and returns the answer.
fn raw(dir: &Path, payload: &[u8]) -> Answer {
    let mut stream = std::os::unix::net::UnixStream::connect(control_socket_in(dir)).expect("connected");
    let length = u32::try_from(payload.len()).expect("short");
    stream.write_all(&length.to_be_bytes()).expect("sent");
    stream.write_all(payload).expect("sent");
    let mut head = [0; 4];
    stream.read_exact(&mut head).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut answer).expect("an answer");
    serde_json::from_slice::<Envelope<Answer>>(&answer).expect("valid").body
}

#[test]
fn other_versions_and_nonsense_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let backend = fixed();
    with_server(dir.path(), &backend, |dir| {
        let refused = |payload: &[u8]| match raw(&dir, payload) {
            Answer::Refused { reason } => reason,
            other => panic!("not refused: {other:?}"),
        };
        assert!(refused(br#"{"version":2,"method":"dance"}"#).contains("version 2"));
        assert!(refused(br#"{"version":1,"method":"dance"}"#).contains("dance"));
        assert!(refused(b"\xff\x00 nonsense").contains("not understood"));
    });
    assert!(backend.stopped.lock().is_none());
}

#[test]
fn a_frame_that_claims_too_much_ends_the_connection_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    with_server(dir.path(), &fixed(), |dir| {
        let mut stream = std::os::unix::net::UnixStream::connect(control_socket_in(&dir)).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream.write_all(&u32::MAX.to_be_bytes()).expect("sent");
        assert_eq!(stream.read(&mut [0; 1]).expect("closed, not timed out"), 0);
    });
}
