//! The HTTP client that the hub and remote engines share, and waiting for it without a runtime.

mod blocking;
mod connector;
mod parts;

use std::error::Error;
use std::io;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls_platform_verifier::ConfigVerifierExt as _;

pub(crate) use blocking::wait;
pub(crate) use connector::{Connector, Proxies};
pub(crate) use parts::{Cut, Parts};

/// The name of this program in requests.
pub(crate) const USER_AGENT: &str = concat!("wsd/", env!("CARGO_PKG_VERSION"));
/// Time after which an idle connection is closed: before uvicorn and llama-server do so, after 5 s.
const IDLE_CONNECTION: Duration = Duration::from_secs(4);

/// A client with a pool of connections, bound to the runtime of its first request.
pub(crate) type HttpClient = Client<HttpsConnector<Connector>, Full<Bytes>>;

/// Sets up a client with TLS by the certificates of the system, which include those a company has
/// added.
///
/// # Errors
/// [`rustls::Error`] where the system has no usable certificates.
pub(crate) fn client(connect_timeout: Duration, proxies: Proxies) -> Result<HttpClient, rustls::Error> {
    let tls = rustls::ClientConfig::with_platform_verifier()?;
    let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION)
        .build(https.wrap_connector(Connector::new(connect_timeout, proxies))))
}

/// Returns the innermost cause of an error, with the kind of the I/O error that it is or stands in.
/// The outer errors only report that sending failed.
pub(crate) fn cause(error: &(dyn Error + 'static)) -> io::Error {
    let (mut innermost, mut kind) = (error, io::ErrorKind::Other);
    loop {
        let io = innermost.downcast_ref::<io::Error>();
        kind = io.map_or(kind, io::Error::kind);
        // An I/O error hides the error that it wraps from its sources.
        let wrapped = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
        match wrapped.or_else(|| innermost.source()) {
            Some(next) => innermost = next,
            None => return io::Error::new(kind, innermost.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_cause_is_told_with_its_kind() {
        let inner = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let outer = io::Error::other(inner);
        let cause = cause(&outer);
        assert_eq!(cause.kind(), io::ErrorKind::InvalidData);
        assert_eq!(cause.to_string(), rustls::Error::DecryptError.to_string());
    }
}
