//! The names by which a server for this machine alone may be called.
//!
//! A page of anyone's can have its own name lead to 127.0.0.1 once it is loaded (DNS rebinding); for the browser the server is then
//! part of that page's site. The page cannot choose what the browser writes into `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::App;
use super::error::ApiError;

/// Let through who calls the server by a name of its own. Where there are keys, these say who may call.
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

/// The name in a `Host` header, without its port.
fn name(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    &host[..end.unwrap_or(host.len())]
}

/// An address cannot be led elsewhere, and browsers keep `localhost` to this machine.
fn is_local(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let name = name.to_ascii_lowercase();
    address.parse::<IpAddr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_can_be_foreign() {
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
