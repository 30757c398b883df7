//! Waiting for requests on threads without a runtime, and on those of another.

use std::io;
use std::sync::{LazyLock, mpsc};

use tokio::runtime::{Builder, Runtime};

/// The runtime of requests that are waited for. It is never dropped, which a thread of another runtime
/// must not do.
static RUNTIME: LazyLock<io::Result<Runtime>> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).thread_name("wsd-http").enable_all().build());

/// Runs a future on the runtime of requests and blocks the present thread until its end. Must not be
/// called from that runtime, whose only thread it would block.
///
/// # Errors
/// The reason for which the runtime could not be started, or the end of the future by a panic.
pub(crate) fn wait<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    let runtime = RUNTIME.as_ref().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let (sender, receiver) = mpsc::sync_channel(1);
    runtime.spawn(async move {
        // The receiver waits until it has the output.
        let _ = sender.send(future.await);
    });
    receiver.recv().map_err(|_| io::Error::other("the request ended without a result"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_of_another_runtime_can_wait() {
        let slept = async { tokio::time::timeout(std::time::Duration::ZERO, std::future::pending::<()>()).await };
        assert!(wait(slept).unwrap().is_err());
    }
}
