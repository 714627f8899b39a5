//! A file layer that fails on purpose, for `tests/storage`: a library put in front of the C library with
//! `LD_PRELOAD`, so that the real program is tested as it is.
//!
//! It acts on files below `STORAGE_SHIM_DIR` (but for logs, lock and sockets) and takes its orders from a
//! page shared with the test, `STORAGE_SHIM_CONTROL`: at which operation to kill the process, from which
//! on to fail and with what. With `STORAGE_SHIM_LOG` it notes every change of files and folders and every
//! sync, from which the test works out what a power cut leaves. Nothing is really synced: what a sync
//! promised is for the test to keep. One operation at a time.

#![allow(
    unsafe_code,
    clippy::missing_safety_doc,
    clippy::undocumented_unsafe_blocks,
    clippy::not_unsafe_ptr_arg_deref,
    clippy::indexing_slicing,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    clippy::cast_possible_truncation
)]

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A part of a gathered write.
#[repr(C)]
pub struct IoVec {
    base: *const c_void,
    length: usize,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
    fn readlink(path: *const c_char, into: *mut c_char, size: usize) -> isize;
    fn lseek64(file: c_int, offset: i64, whence: c_int) -> i64;
    fn fcntl(file: c_int, command: c_int, ...) -> c_int;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
    fn getpid() -> c_int;
    fn mmap(
        at: *mut c_void,
        size: usize,
        protection: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
}

const RTLD_NEXT: *mut c_void = usize::MAX as *mut c_void;
const O_CREAT: c_int = 0o100;
const O_TRUNC: c_int = 0o1000;
const O_APPEND: c_int = 0o2000;
const F_GETFL: c_int = 3;
const AT_FDCWD: c_int = -100;

/// The words of the shared page.
mod word {
    pub const OPERATIONS: usize = 0;
    pub const KILL_AT: usize = 1;
    pub const KILL_PART: usize = 2;
    pub const FAIL_FROM: usize = 3;
    pub const ERROR: usize = 4;
    pub const FAILED: usize = 5;
}

struct Setup {
    dir: PathBuf,
    page: &'static [AtomicU64; 8],
    /// File of the notes, or -1.
    log: c_int,
}

static SETUP: OnceLock<Option<Setup>> = OnceLock::new();
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

macro_rules! real {
    ($name:literal, $type:ty) => {{
        static FOUND: AtomicU64 = AtomicU64::new(0);
        let mut found = FOUND.load(Ordering::Relaxed);
        if found == 0 {
            found = unsafe { dlsym(RTLD_NEXT, $name.as_ptr()) } as u64;
            FOUND.store(found, Ordering::Relaxed);
        }
        unsafe { std::mem::transmute::<usize, $type>(found as usize) }
    }};
}

type Open = extern "C" fn(*const c_char, c_int, u32) -> c_int;
type OpenAt = extern "C" fn(c_int, *const c_char, c_int, u32) -> c_int;
type Write = extern "C" fn(c_int, *const c_void, usize) -> isize;
type PWrite = extern "C" fn(c_int, *const c_void, usize, i64) -> isize;
type OfFile = extern "C" fn(c_int) -> c_int;
type Truncate = extern "C" fn(c_int, i64) -> c_int;
type Paths = extern "C" fn(*const c_char, *const c_char) -> c_int;
type OnePath = extern "C" fn(*const c_char) -> c_int;

fn setup() -> Option<&'static Setup> {
    let made = SETUP.get_or_init(|| {
        let variable = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
        let dir = PathBuf::from(variable("STORAGE_SHIM_DIR")?);
        let open = real!(c"open64", Open);
        let path = |text: OsString| CString::new(text.into_vec()).ok();
        let control = path(variable("STORAGE_SHIM_CONTROL")?)?;
        let file = open(control.as_ptr(), 2, 0);
        let page = unsafe { mmap(null_mut(), 64, 3, 1, file, 0) };
        if file < 0 || page as isize == -1 {
            return None;
        }
        let log = match variable("STORAGE_SHIM_LOG").and_then(path) {
            Some(log) => open(log.as_ptr(), 1 | O_CREAT | O_APPEND, 0o600),
            None => -1,
        };
        Some(Setup { dir, page: unsafe { &*page.cast::<[AtomicU64; 8]>() }, log })
    });
    made.as_ref()
}

fn bytes_of<'a>(pointer: *const c_void, length: usize) -> &'a [u8] {
    unsafe { std::slice::from_raw_parts(pointer.cast(), length) }
}

fn path_of(pointer: *const c_char) -> PathBuf {
    PathBuf::from(OsString::from_vec(unsafe { CStr::from_ptr(pointer) }.to_bytes().to_vec()))
}

fn path_of_file(file: c_int) -> Option<PathBuf> {
    let link = CString::new(format!("/proc/self/fd/{file}")).ok()?;
    let mut path = vec![0u8; 4096];
    let length = unsafe { readlink(link.as_ptr(), path.as_mut_ptr().cast(), path.len()) };
    path.truncate(usize::try_from(length).ok()?);
    Some(PathBuf::from(OsString::from_vec(path)))
}

fn fail(error: u64) -> isize {
    unsafe { *__errno_location() = error as c_int };
    -1
}

impl Setup {
    fn minds(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.dir) else { return false };
        let first = below.components().next().map(|part| part.as_os_str().as_bytes().to_vec());
        let others: [&[u8]; 4] = [b"logs", b"LOCK", b"control.sock", b"peers"];
        !path.as_os_str().as_bytes().ends_with(b" (deleted)")
            && !first.is_some_and(|first| others.contains(&first.as_slice()))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.page[at]
    }

    fn die(&self) -> ! {
        loop {
            unsafe { kill(getpid(), 9) };
        }
    }

    /// Counts an operation. `Some` when the process is to die in it: how many of 256 parts are done first.
    fn count(&self) -> Option<u64> {
        let number = self.word(word::OPERATIONS).fetch_add(1, Ordering::SeqCst) + 1;
        let dies = self.word(word::KILL_AT).load(Ordering::SeqCst) == number;
        dies.then(|| self.word(word::KILL_PART).load(Ordering::SeqCst))
    }

    /// The error a write, truncation or new file is to end with.
    fn fault(&self) -> Option<u64> {
        let from = self.word(word::FAIL_FROM).load(Ordering::SeqCst);
        let fails = from != 0 && self.word(word::OPERATIONS).load(Ordering::SeqCst) >= from;
        fails.then(|| {
            self.word(word::FAILED).fetch_add(1, Ordering::SeqCst);
            self.word(word::ERROR).load(Ordering::SeqCst)
        })
    }

    fn note(&self, kind: u8, path: &Path, number: u64, bytes: &[u8]) {
        if self.log < 0 {
            return;
        }
        let path = path.as_os_str().as_bytes();
        let mut record = vec![kind];
        record.extend_from_slice(&(path.len() as u32).to_le_bytes());
        record.extend_from_slice(path);
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        record.extend_from_slice(bytes);
        let mut rest: &[u8] = &record;
        while !rest.is_empty() {
            let done = real!(c"write", Write)(self.log, rest.as_ptr().cast(), rest.len());
            rest = rest.get(usize::try_from(done).unwrap_or(0)..).unwrap_or_default();
        }
    }
}

/// The setup and the turn, when `path` is to be minded.
fn minded(path: Option<PathBuf>) -> Option<(&'static Setup, PathBuf, MutexGuard<'static, ()>)> {
    let setup = setup()?;
    let path = path.filter(|path| setup.minds(path))?;
    Some((setup, path, ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn written(file: c_int, bytes: &[u8], at: Option<i64>) -> isize {
    let write_at = |bytes: &[u8]| match at {
        Some(at) => real!(c"pwrite64", PWrite)(file, bytes.as_ptr().cast(), bytes.len(), at),
        None => real!(c"write", Write)(file, bytes.as_ptr().cast(), bytes.len()),
    };
    let of_disk = if file > 2 { path_of_file(file) } else { None };
    let Some((setup, path, _turn)) = minded(of_disk) else { return write_at(bytes) };
    let offset = match at {
        Some(at) => at as u64,
        None => {
            let appends = unsafe { fcntl(file, F_GETFL) } & O_APPEND != 0;
            (unsafe { lseek64(file, 0, if appends { 2 } else { 1 }) }) as u64
        }
    };
    if let Some(part) = setup.count() {
        let done = &bytes[..bytes.len() * part.min(256) as usize / 256];
        setup.note(b'W', &path, offset, done);
        write_at(done);
        setup.die();
    }
    if let Some(error) = setup.fault() {
        // The last bytes that found room, as a disk does that fills up in the middle of a write.
        let part = setup.word(word::KILL_PART).load(Ordering::SeqCst).min(255);
        let done = &bytes[..bytes.len() * part as usize / 256];
        if done.is_empty() || setup.word(word::FAILED).load(Ordering::SeqCst) > 1 {
            return fail(error);
        }
        setup.note(b'W', &path, offset, done);
        return write_at(done);
    }
    setup.note(b'W', &path, offset, bytes);
    write_at(bytes)
}

#[unsafe(no_mangle)]
pub extern "C" fn write(file: c_int, bytes: *const c_void, length: usize) -> isize {
    written(file, bytes_of(bytes, length), None)
}

#[unsafe(no_mangle)]
pub extern "C" fn writev(file: c_int, parts: *const IoVec, count: c_int) -> isize {
    let parts = unsafe { std::slice::from_raw_parts(parts, count as usize) };
    let all: Vec<u8> = parts
        .iter()
        .filter(|part| part.length > 0)
        .flat_map(|part| bytes_of(part.base, part.length).to_vec())
        .collect();
    written(file, &all, None)
}

#[unsafe(no_mangle)]
pub extern "C" fn pwrite64(file: c_int, bytes: *const c_void, length: usize, at: i64) -> isize {
    written(file, bytes_of(bytes, length), Some(at))
}

#[unsafe(no_mangle)]
pub extern "C" fn pwrite(file: c_int, bytes: *const c_void, length: usize, at: i64) -> isize {
    written(file, bytes_of(bytes, length), Some(at))
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate64(file: c_int, size: i64) -> c_int {
    let truncate = real!(c"ftruncate64", Truncate);
    let Some((setup, path, _turn)) = minded(path_of_file(file)) else { return truncate(file, size) };
    if setup.count().is_some() {
        setup.die();
    }
    // Making a file shorter needs no space.
    let grows = unsafe { lseek64(file, 0, 1) } < size;
    if let Some(error) = Some(()).filter(|()| grows).and_then(|()| setup.fault()) {
        return fail(error) as c_int;
    }
    setup.note(b'T', &path, size as u64, &[]);
    truncate(file, size)
}

#[unsafe(no_mangle)]
pub extern "C" fn ftruncate(file: c_int, size: i64) -> c_int {
    ftruncate64(file, size)
}

fn synced(file: c_int, really: OfFile) -> c_int {
    let Some((setup, path, _turn)) = minded(path_of_file(file)) else { return really(file) };
    if setup.count().is_some() {
        setup.die();
    }
    setup.note(b'S', &path, 0, &[]);
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    synced(file, real!(c"fsync", OfFile))
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    synced(file, real!(c"fdatasync", OfFile))
}

/// Begins to write pages out; promises nothing.
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(_: c_int, _: i64, _: i64, _: u32) -> c_int {
    0
}

fn opened(path: *const c_char, flags: c_int, really: impl Fn() -> c_int) -> c_int {
    if flags & (O_CREAT | O_TRUNC) == 0 {
        return really();
    }
    let Some((setup, name, _turn)) = minded(Some(path_of(path))) else { return really() };
    let is_new = unsafe { access(path, 0) } != 0;
    if is_new {
        if setup.count().is_some() {
            setup.die();
        }
        if let Some(error) = setup.fault() {
            return fail(error) as c_int;
        }
        setup.note(b'C', &name, 0, &[]);
    } else if flags & O_TRUNC != 0 {
        if setup.count().is_some() {
            setup.die();
        }
        setup.note(b'T', &name, 0, &[]);
    }
    really()
}

#[unsafe(no_mangle)]
pub extern "C" fn open(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    opened(path, flags, || real!(c"open", Open)(path, flags, mode))
}

#[unsafe(no_mangle)]
pub extern "C" fn open64(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    opened(path, flags, || real!(c"open64", Open)(path, flags, mode))
}

#[unsafe(no_mangle)]
pub extern "C" fn openat(at: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    let really = || real!(c"openat", OpenAt)(at, path, flags, mode);
    if at == AT_FDCWD { opened(path, flags, really) } else { really() }
}

#[unsafe(no_mangle)]
pub extern "C" fn openat64(at: c_int, path: *const c_char, flags: c_int, mode: u32) -> c_int {
    openat(at, path, flags, mode)
}

#[unsafe(no_mangle)]
pub extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    let rename = real!(c"rename", Paths);
    let Some((setup, old, _turn)) = minded(Some(path_of(from))) else { return rename(from, to) };
    if setup.count().is_some() {
        setup.die();
    }
    let done = rename(from, to);
    if done == 0 {
        setup.note(b'R', &old, 0, path_of(to).as_os_str().as_bytes());
    }
    done
}

#[unsafe(no_mangle)]
pub extern "C" fn unlink(path: *const c_char) -> c_int {
    let unlink = real!(c"unlink", OnePath);
    let Some((setup, name, _turn)) = minded(Some(path_of(path))) else { return unlink(path) };
    if setup.count().is_some() {
        setup.die();
    }
    let done = unlink(path);
    if done == 0 {
        setup.note(b'U', &name, 0, &[]);
    }
    done
}

#[unsafe(no_mangle)]
pub extern "C" fn mkdir(path: *const c_char, mode: u32) -> c_int {
    let mkdir = real!(c"mkdir", extern "C" fn(*const c_char, u32) -> c_int);
    let Some((setup, name, _turn)) = minded(Some(path_of(path))) else { return mkdir(path, mode) };
    if setup.count().is_some() {
        setup.die();
    }
    let done = mkdir(path, mode);
    if done == 0 {
        setup.note(b'M', &name, 0, &[]);
    }
    done
}
