//! The terminal on a real pty: painted, restored, and lost in each of the ways a terminal is lost.

use super::{ENTER, FRAME_BEGIN, FRAME_END, Guard, LEAVE, Lost, Terminal, is_own_panic};
use crate::console::fixture::running;
use crate::theme::ColorMode;
use portable_pty::{MasterPty, PtySize, native_pty_system};
use rustix::fs::OFlags;
use rustix::termios::LocalModes;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The panic hook is one for the process, so these tests run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The side of the terminal, and that of the program, non-blocking.
fn pty() -> (Box<dyn MasterPty + Send>, OwnedFd) {
    let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
    let pair = native_pty_system().openpty(size).unwrap();
    let name = pair.master.tty_name().unwrap();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    (pair.master, rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap())
}

/// Reads until `end` was seen.
fn read_until(master: &dyn MasterPty, end: &[u8]) -> Vec<u8> {
    let mut reader = master.try_clone_reader().unwrap();
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    while !seen.windows(end.len()).any(|window| window == end) {
        let length = reader.read(&mut part).unwrap();
        assert!(length > 0, "closed before {end:?}");
        seen.extend_from_slice(&part[..length]);
    }
    seen
}

fn is_canonical(fd: &OwnedFd) -> bool {
    rustix::termios::tcgetattr(fd).unwrap().local_modes.contains(LocalModes::ICANON)
}

#[test]
fn the_terminal_is_painted_in_synchronized_frames_and_given_back() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (master, inside) = pty();
    let watcher = rustix::io::dup(&inside).unwrap();
    let mut terminal = Terminal::on(inside, Arc::default()).unwrap();
    assert!(!is_canonical(&watcher));
    assert_eq!(terminal.size(), (80, 24));
    read_until(master.as_ref(), ENTER);

    let mut state = running(ColorMode::Ansi256, false);
    terminal.paint(&state).unwrap();
    let first = read_until(master.as_ref(), FRAME_END);
    assert!(first.starts_with(FRAME_BEGIN));
    let mut screen = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
    screen.process(&first);
    assert!(screen.screen().contents().contains("SIGNING"));
    assert!(first.len() <= 6_000, "the first frame has {} bytes", first.len());

    // Nothing changed: nothing is written. One clock tick: a few bytes.
    let before = terminal.written;
    terminal.paint(&state).unwrap();
    assert_eq!(terminal.written, before);
    state.now_ms += 1_000;
    terminal.paint(&state).unwrap();
    assert!(
        (1..200).contains(&(terminal.written - before)),
        "{} bytes for a tick",
        terminal.written - before
    );

    drop(terminal);
    read_until(master.as_ref(), LEAVE);
    assert!(is_canonical(&watcher));
}

#[test]
fn a_closed_terminal_is_noticed_when_waiting_reading_and_writing() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (master, inside) = pty();
    let mut terminal = Terminal::on(inside, Arc::default()).unwrap();
    drop(master);
    assert_eq!(terminal.wait(Duration::from_secs(5)), Err(Lost::Closed));
    assert_eq!(terminal.read(&mut [0; 16]), Err(Lost::Closed));
    let state = running(ColorMode::Truecolor, false);
    assert_eq!(terminal.paint(&state), Err(Lost::Closed));
}

#[test]
fn a_terminal_that_takes_nothing_is_given_up_and_the_stop_is_heard_meanwhile() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_master, inside) = pty();
    let saved = rustix::termios::tcgetattr(&inside).unwrap();
    let guard = Guard { fd: inside, saved, restored: AtomicBool::new(true) };
    let much = vec![b'x'; 1 << 20];
    // The master is never read, so the pty's buffer of some kilobytes fills.
    let told = AtomicBool::new(false);
    assert_eq!(guard.write(&much, Duration::from_millis(50), &told), Err(Lost::Stalled));
    told.store(true, Ordering::Relaxed);
    assert_eq!(guard.write(&much, Duration::from_secs(3600), &told), Err(Lost::Told));
}

#[test]
fn a_caught_panic_of_another_thread_leaves_the_terminal_alone() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (_master, inside) = pty();
    let watcher = rustix::io::dup(&inside).unwrap();
    let terminal = Terminal::on(inside, Arc::default()).unwrap();
    assert!(std::thread::spawn(|| panic!("a node task fails")).join().is_err());
    assert!(!is_canonical(&watcher), "still raw: the console goes on");
    drop(terminal);
    assert!(is_canonical(&watcher));
}

#[test]
fn a_panic_of_the_console_restores_the_terminal() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (master, inside) = pty();
    let watcher = rustix::io::dup(&inside).unwrap();
    let (ready, open) = std::sync::mpsc::channel();
    let console = std::thread::spawn(move || {
        let terminal = Terminal::on(inside, Arc::default()).unwrap();
        ready.send(()).unwrap();
        std::panic::panic_any(format!("the console fails with {} bytes", terminal.written));
    });
    open.recv().unwrap();
    assert!(console.join().is_err());
    read_until(master.as_ref(), LEAVE);
    assert!(is_canonical(&watcher));
}

#[test]
fn only_the_console_thread_s_panics_are_its_own() {
    let here = std::thread::current().id();
    let there = std::thread::spawn(|| std::thread::current().id()).join().unwrap();
    assert!(is_own_panic(here, here) && !is_own_panic(here, there));
}

#[test]
fn what_is_copied_is_encoded_as_terminals_expect() {
    for (text, expected) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"), ("ü>", "w7w+")]
    {
        assert_eq!(super::base64(text.as_bytes()), expected);
    }
}
