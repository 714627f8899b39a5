//! A wall clock that is wrong by `CLOCK_SHIM_MS` milliseconds: a library put in front of the C library with
//! `LD_PRELOAD`, so that the real program is tested as it is. Monotonic clocks are right.

#![allow(unsafe_code, clippy::missing_safety_doc, clippy::undocumented_unsafe_blocks)]

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Seconds and nanoseconds.
#[repr(C)]
pub struct Time {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn getenv(name: *const c_char) -> *const c_char;
    fn atoi(text: *const c_char) -> c_int;
}

type Read = extern "C" fn(c_int, *mut Time) -> c_int;

const CLOCK_REALTIME: c_int = 0;
static REAL: AtomicUsize = AtomicUsize::new(0);

/// As the C library has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Time) -> c_int {
    let mut real = REAL.load(Relaxed);
    if real == 0 {
        let next = usize::MAX as *mut c_void;
        real = unsafe { dlsym(next, c"clock_gettime".as_ptr()) } as usize;
        REAL.store(real, Relaxed);
    }
    let read = unsafe { std::mem::transmute::<usize, Read>(real) };
    let result = read(clock, time);
    if clock == CLOCK_REALTIME && result == 0 {
        let text = unsafe { getenv(c"CLOCK_SHIM_MS".as_ptr()) };
        let error = if text.is_null() { 0 } else { i64::from(unsafe { atoi(text) }) };
        let time = unsafe { &mut *time };
        time.nanoseconds += (error % 1000) * 1_000_000;
        time.seconds += error / 1000 + time.nanoseconds.div_euclid(1_000_000_000);
        time.nanoseconds = time.nanoseconds.rem_euclid(1_000_000_000);
    }
    result
}
