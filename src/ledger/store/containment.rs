//! Panics of the database library, caught and kept off the screen.
//!
//! Damaged files make sled panic where it should return an error. Such a panic becomes a text for a
//! typed error; the panic hook stays silent for it, on the calling thread only.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// Longest panic message kept, in characters.
const TEXT_CHARS_MAX: usize = 200;

thread_local! {
    /// Whether this thread is inside a contained call.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    /// What the last contained panic said.
    static PANIC_TEXT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Whether a panic on this thread now is one the store contains and reports as an error. A panic hook
/// installed later than this one (to restore a terminal, say) should let such a panic pass.
#[must_use]
pub fn contains_panic() -> bool {
    CONTAINED.with(Cell::get)
}

/// Keeps the panic hook silent for contained panics: users see the error, not the panic. Once a process.
pub fn contain_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if contains_panic() {
                let payload = info.payload();
                let text = payload.downcast_ref::<String>().cloned();
                let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                PANIC_TEXT.with(|last| *last.borrow_mut() = text);
            } else {
                previous(info);
            }
        }));
    });
}

/// Runs `work`; a panic in it becomes its message.
pub fn contained<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let outer = CONTAINED.with(|contained| contained.replace(true));
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINED.with(|contained| contained.set(outer));
    result.map_err(|_| {
        let text = PANIC_TEXT.with(|last| last.borrow_mut().take());
        text.unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect()
    })
}
