//! The listening socket: a bound on connections, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::app::App;
use super::connection;
use crate::process;

/// The most connections; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// Time to wait after a connection could not be accepted, as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for answers that were cut off to say so.
const CUT_TIME: Duration = Duration::from_secs(2);

/// Serves until `shutdown` completes, then lets running answers end within the drain time. Returns
/// the number of requests that were cut off after it.
pub(super) async fn serve(
    app: &App,
    router: &Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> usize {
    let graceful = GracefulShutdown::new();
    let door = Door { listener, places: Arc::new(Semaphore::new(max_connections())) };
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, address, place) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            entered = door.enter() => entered,
        };
        let connection = graceful.watch(connection::open(app, router.clone(), stream, address));
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
            let (stream, address, place) = tokio::select! {
                Some(_) = later.join_next() => continue,
                entered = door.enter() => entered,
            };
            let connection = connection::open(app, router.clone(), stream, address);
            later.spawn(async move {
                let _ = connection.await;
                drop(place);
            });
        }
    };
    let drained = graceful.shutdown();
    tokio::pin!(drained, late);
    tokio::select! {
        () = &mut drained => return 0,
        () = &mut late => {}
        () = sleep(app.serve.drain_timeout) => {}
    }
    app.cut.send_replace(true);
    let _ = timeout(CUT_TIME, drained).await;
    connections.abort_all();
    app.cut_requests.load(Ordering::SeqCst)
}

/// Returns the number of connections that may be open, which leaves descriptors for files.
fn max_connections() -> usize {
    let descriptors = process::max_open_files().unwrap_or(usize::MAX);
    MAX_CONNECTIONS.min(descriptors / 4 * 3).max(1)
}

/// The listening socket with the places behind it.
struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Door {
    /// Accepts a connection once there is a place for it. Whatever fails is tried again after a
    /// pause.
    async fn enter(&self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            if let Ok(place) = self.places.clone().acquire_owned().await
                && let Ok((stream, address)) = self.listener.accept().await
            {
                return (stream, address, place);
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }
}
