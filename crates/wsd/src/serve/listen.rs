//! Sockets: limits on connections, headers and slow readers, and an orderly end.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::app::App;

/// The most bytes of request line and headers.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// The most header lines.
const MAX_HEADERS: usize = 100;
/// The most connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Time after which a client that reads nothing counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to wait when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` completes, then lets running answers end within the drain time.
pub(super) async fn serve(app: &App, router: &Router, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let place = places.clone().acquire_owned();
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        let (place, Ok((stream, _))) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = connection(app, router.clone(), stream);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // A failing connection affects its client alone.
            let _ = connection.await;
            drop(place);
        });
    }
    app.closing.store(true, Ordering::SeqCst);
    // Health and readiness are still answered, on new connections, until the last answer ends.
    let late = async {
        let mut later = JoinSet::new();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let connection = connection(app, router.clone(), stream);
                later.spawn(async move { connection.await.map_err(drop) });
            }
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = late => {}
        () = sleep(app.serve.drain_timeout) => connections.abort_all(),
    }
}

/// Starts the protocol on a connection.
fn connection(
    app: &App,
    router: Router,
    stream: TcpStream,
) -> http1::Connection<TokioIo<TimedStream>, TowerToHyperService<Router>> {
    // Sends each token at once instead of collecting small packets (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.serve.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(TimedStream { stream, stalled: None }), TowerToHyperService::new(router))
}

/// A connection that fails when its other end stops reading.
struct TimedStream {
    stream: TcpStream,
    /// The timer of a write that makes no progress.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    /// Fails a write that has made no progress within the limit.
    fn watch<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
