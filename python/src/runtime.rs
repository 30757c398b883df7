//! Waiting for Rust's futures from Python's threads.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::{Builder, Runtime};

use crate::error::raise;

/// The longest time until Ctrl-C is noticed.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Threads that move events of asynchronous iterators and of remote models; models compute on
/// threads of their own.
const WORKERS: usize = 2;

/// The runtime of the process, which is made at its first use.
pub(crate) fn runtime(py: Python<'_>) -> PyResult<&'static Runtime> {
    static RUNTIME: PyOnceLock<Runtime> = PyOnceLock::new();
    let build = || Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build().map_err(raise);
    RUNTIME.get_or_try_init(py, build)
}

/// A waker of a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future while other Python threads run. The thread parks with a limit of time, which costs
/// less for each token than a timer of the runtime.
///
/// # Errors
/// The exception of a signal handler, as `KeyboardInterrupt`; the future is then dropped, which
/// ends what it did.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime(py)?;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        let within = || {
            let _context = runtime.enter();
            let end = Instant::now() + SIGNAL_INTERVAL;
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return Some(output);
                }
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return None;
                }
                thread::park_timeout(left);
            }
        };
        match py.detach(within) {
            Some(output) => return Ok(output),
            None => py.check_signals()?,
        }
    }
}
