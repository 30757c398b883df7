//! Calls into libraries that panic on some files.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `call` and turns a panic in it into an error. Values that `call` was changing when it
/// panicked must not be used afterwards.
///
/// # Errors
/// The panic's message.
///
/// ```
/// assert_eq!(wsd_core::guard(|| 1), Ok(1));
/// # std::panic::set_hook(Box::new(|_| assert!(wsd_core::is_guarded())));
/// assert_eq!(wsd_core::guard(|| panic!("no {}", "way")), Err::<(), _>("no way".into()));
/// assert!(!wsd_core::is_guarded());
/// ```
pub fn guard<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|panic| message(panic.as_ref()))
}

/// Tells whether this thread is inside of [`guard`], where a panic is expected and a panic hook
/// should not print it.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
