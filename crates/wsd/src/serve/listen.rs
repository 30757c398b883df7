//! From sockets to requests: time limits for headers, silence and slow readers, and an orderly end.

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

use super::App;

/// Bytes of request line and headers.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// Header lines.
const MAX_HEADERS: usize = 100;
/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// A reader that takes nothing for so long has left.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serve until `shutdown` comes, then let running answers end, though not for longer than the drain time.
///
/// # Errors
/// Never after the listener is bound; a failing connection concerns no other.
pub async fn serve(app: Arc<App>, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let router = super::app(app.clone());
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
        let connection = connection(&app, router.clone(), stream);
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // What goes wrong on a connection concerns nobody but its client.
            let _ = connection.await;
            drop(place);
        });
    }
    app.closing.store(true, Ordering::SeqCst);
    // Health and readiness are still told, to who asks on a new connection, until the last answer is out.
    let late = async {
        let mut later = JoinSet::new();
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                let connection = connection(&app, router.clone(), stream);
                later.spawn(async move { connection.await.map_err(drop) });
            }
        }
    };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = late => {}
        () = sleep(app.serve.drain_timeout) => connections.abort_all(),
    }
    Ok(())
}

fn connection(
    app: &App,
    router: Router,
    stream: TcpStream,
) -> http1::Connection<TokioIo<Patient>, TowerToHyperService<Router>> {
    // Tokens are small and should not wait for company.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.serve.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(Patient { stream, stalled: None }), TowerToHyperService::new(router))
}

/// A connection whose other end must not stop reading for long.
struct Patient {
    stream: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// Watch a write: while it makes no progress, time runs.
    fn watch<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.stalled = None;
            return progress;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_PATIENCE)));
        match stalled.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
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
