//! Threads for the work of answers: rendering prompts, encoding, decoding. The threads that serve
//! connections do nothing that takes long, whatever clients send.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::error::ApiError;

/// Events that may be buffered between the threads.
const READ_AHEAD: usize = 16;

/// The threads, apart from those that serve connections.
pub(super) struct Work(Option<Runtime>);

impl Work {
    /// Starts the threads. If the system has none left, those of the caller do the work.
    pub(super) fn new() -> Self {
        Self(Builder::new_multi_thread().thread_name("wsd-answer").enable_all().build().ok())
    }

    /// Returns the same stream, which is computed on these threads. Dropping it stops the work.
    pub(super) fn stream<T: Send + 'static>(&self, mut events: BoxStream<'static, T>) -> BoxStream<'static, T> {
        let handle = self.0.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone());
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let task = handle.spawn(async move {
            while let Some(event) = events.next().await {
                if sender.send(event).await.is_err() {
                    return;
                }
            }
        });
        let state = (receiver, Task(task.abort_handle()));
        let events = stream::unfold(state, |(mut receiver, task)| async move {
            let event = receiver.recv().await?;
            Some((event, (receiver, task)))
        });
        events.boxed()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime may not wait for its threads within another one.
            runtime.shutdown_background();
        }
    }
}

/// Runs work that may take long on a thread of its own, so that no connection waits for it.
pub(super) async fn off_reactor<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::internal()))
}

/// A task that ends when it is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
