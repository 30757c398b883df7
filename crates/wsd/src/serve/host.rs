//! Host names of a server that listens to this machine alone.
//!
//! A malicious page can make its own name resolve to 127.0.0.1 once it is loaded (DNS rebinding).
//! For the browser the server then belongs to the page's site. The page cannot choose the `Host`
//! header, though, so a name that is not the server's own reveals it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::error::ApiError;

/// Refuses requests to a host name that is not the server's, unless there are keys, which protect
/// it better.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.keys.is_empty() && app.serve.address.ip().is_loopback() {
        let host = request.headers().get(header::HOST).map(|value| value.to_str().unwrap_or("?"));
        let name = host.map(name);
        let known =
            |name: &str| is_local(name) || app.serve.allowed_hosts.iter().any(|own| own.eq_ignore_ascii_case(name));
        if let Some(name) = name.filter(|name| !known(name)) {
            return ApiError::foreign_host(name).into_response();
        }
    }
    next.run(request).await
}

/// Returns the name in a `Host` header, without the port.
fn name(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    &host[..end.unwrap_or(host.len())]
}

/// Tells whether a name always means this machine or an address: nobody can redirect an address,
/// and browsers resolve `localhost` to this machine.
fn is_local(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_localhost_are_local() {
        for (host, local) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("wsd.localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("192.168.0.7", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("notlocalhost", false),
            ("", false),
        ] {
            assert_eq!(is_local(name(host)), local, "{host}");
        }
    }
}
