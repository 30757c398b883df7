//! A client's connection: limits on headers and slow readers, and an end that loses no answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tower::util::MapRequest;

use super::app::App;

/// The most bytes of request line and headers.
const MAX_HEADER_BYTES: usize = 32 << 10;
/// The most header lines.
const MAX_HEADERS: usize = 100;
/// Time after which a client that reads nothing counts as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for an answer to a client that has closed its side of the connection: it may still read,
/// or be gone.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(1);
/// Time, and bytes, for the rest of a body that nobody reads. Closing at once would reset the
/// connection, and the client would lose the answer.
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 64 << 20;

/// The other end of a connection, as an extension of its requests.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// Set where the rest of a request's body will not be read.
    unread: Arc<AtomicBool>,
}

impl Peer {
    /// Tells the connection that the rest of a body will not be read.
    pub(super) fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }
}

/// Starts the protocol on a connection.
pub(super) fn open(
    app: &App,
    router: Router,
    stream: TcpStream,
    address: SocketAddr,
) -> impl GracefulConnection<Error = hyper::Error> + Send + use<> {
    // Sends each token at once instead of collecting small packets (Nagle's algorithm).
    let _ = stream.set_nodelay(true);
    let peer = Peer { address: address.ip().to_canonical(), unread: Arc::default() };
    let timed = TimedStream { stream, peer: peer.clone(), is_asked: false, timer: None, end: End::Open };
    let service = MapRequest::new(router, move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        request
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.serve.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(timed), TowerToHyperService::new(service))
}

/// A connection that fails when its other end stops reading, and that closes without a reset.
struct TimedStream {
    stream: TcpStream,
    peer: Peer,
    /// True after bytes were read and before any are written: a request waits for its answer.
    is_asked: bool,
    /// The timer of a write that makes no progress, or of a read that has ended early.
    timer: Option<Pin<Box<Sleep>>>,
    end: End,
}

/// The end of a connection.
enum End {
    Open,
    /// The answer is complete; so many bytes of the request may still be read and dropped.
    Lingers(Pin<Box<Sleep>>, usize),
}

impl TimedStream {
    /// Fails a write that has made no progress within the limit.
    fn watch<T>(&mut self, context: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            (self.timer, self.is_asked) = (None, false);
            return progress;
        }
        let stalled = self.timer.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what is left of a request and drops it, up to the limits.
    fn linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let End::Lingers(deadline, left) = &mut self.end else { return Poll::Ready(()) };
        let mut scratch = [0; 16 << 10];
        while *left > 0 && deadline.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for TimedStream {
    /// Reads. An end that comes while a request waits for its answer is told late.
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.is_asked = true;
        } else if self.is_asked {
            let left = self.timer.get_or_insert_with(|| Box::pin(sleep(HALF_CLOSED_TIME)));
            ready!(left.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
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
        if let End::Open = self.end {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.peer.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
            self.end = End::Lingers(Box::pin(sleep(LINGER_TIME)), LINGER_BYTES);
        }
        self.linger(cx).map(Ok)
    }
}
