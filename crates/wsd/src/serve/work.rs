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
/// The most bytes of a body that is parsed by the thread that serves its connection, and whose work need
/// not wait for that of other bodies: encoding them takes milliseconds.
pub(super) const SMALL_BODY: usize = 16 << 10;

/// The threads, apart from those that serve connections. What is heavy, large bodies and grammars, has
/// one thread together, so that it takes one processor from the engines, the memory of one body at a
/// time, and no turn from what is light.
pub(super) struct Work {
    light: Option<Runtime>,
    heavy: Option<Runtime>,
}

impl Work {
    /// Starts the threads. If the system has none left, those of the caller do the work.
    pub(super) fn new() -> Self {
        let light = Builder::new_multi_thread().thread_name("wsd-answer").enable_all().build();
        let heavy = Builder::new_multi_thread().worker_threads(1).thread_name("wsd-heavy").enable_all().build();
        Self { light: light.ok(), heavy: heavy.ok() }
    }

    /// Returns the same stream, which is computed on these threads. Dropping it stops the work.
    pub(super) fn stream<T: Send + 'static>(
        &self,
        is_heavy: bool,
        mut events: BoxStream<'static, T>,
    ) -> BoxStream<'static, T> {
        let threads = if is_heavy { &self.heavy } else { &self.light };
        let handle = threads.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone());
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

    /// Runs the work on a body of so many bytes where no connection waits for it, that on large ones
    /// one after the other.
    pub(super) async fn of_body<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        match &self.heavy {
            Some(heavy) if bytes > SMALL_BODY => {
                let task = heavy.spawn(async { work() });
                // Work that has not begun is left undone if its client is gone.
                let _task = Task(task.abort_handle());
                task.await.unwrap_or_else(|_| Err(ApiError::internal()))
            }
            _ => off_reactor(work).await,
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // A runtime may not wait for its threads within another one.
        [self.light.take(), self.heavy.take()].into_iter().flatten().for_each(Runtime::shutdown_background);
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn what_is_light_does_not_wait_for_what_is_heavy() {
        let (work, (release, wait)) = (Work::new(), std::sync::mpsc::channel());
        let slow = move || wait.recv().map_err(|_| ApiError::internal());
        let mut heavy = Box::pin(work.of_body(SMALL_BODY + 1, slow));
        assert!(heavy.as_mut().now_or_never().is_none());
        let mut behind = work.stream(true, stream::iter([2]).boxed());
        assert_eq!(work.of_body(SMALL_BODY, || Ok(3)).await.unwrap(), 3);
        assert_eq!(work.stream(false, stream::iter([4]).boxed()).next().await, Some(4));
        assert!(behind.next().now_or_never().is_none());
        release.send(1).unwrap();
        assert_eq!((heavy.await.unwrap(), behind.next().await), (1, Some(2)));
    }
}
