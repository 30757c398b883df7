//! Waiting for Rust's futures from Python's threads.

use std::pin::pin;
use std::time::Duration;

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

/// Waits for a future while other Python threads run.
///
/// # Errors
/// The exception of a signal handler, as `KeyboardInterrupt`; the future is then dropped, which
/// ends what it did.
pub(crate) fn wait<T: Send>(py: Python<'_>, future: impl Future<Output = T> + Send) -> PyResult<T> {
    let runtime = runtime(py)?;
    let mut future = pin!(future);
    loop {
        let within = || runtime.block_on(async { tokio::time::timeout(SIGNAL_INTERVAL, future.as_mut()).await });
        match py.detach(within) {
            Ok(output) => return Ok(output),
            Err(_) => py.check_signals()?,
        }
    }
}
