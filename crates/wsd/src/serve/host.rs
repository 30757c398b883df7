//! Host names of a server that listens to this machine alone.
//!
//! A malicious page can make its own name resolve to 127.0.0.1 once it is loaded (DNS rebinding).
//! For the browser the server then belongs to the page's site. The page cannot choose the `Host`
//! header, though, so a name that is not the server's own reveals it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::app::App;
use super::error::ApiError;

/// Refuses requests to a host name that is not the server's, unless there are keys, which protect
/// it better.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if app.keys.is_empty() && app.serve.address.ip().is_loopback() {
        // A proxy reads the address in the request line, a server the header: both must be known.
        let line = request.uri().authority().map(Authority::as_str);
        let headers = request.headers().get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or("?"));
        if let Some(host) = line.into_iter().chain(headers).find(|host| !is_own(host, &app.serve.allowed_hosts)) {
            return ApiError::foreign_host(host).into_response();
        }
    }
    next.run(request).await
}

/// Tells whether a host, with or without a port, is this server's.
fn is_own(host: &str, allowed: &[String]) -> bool {
    name(host).is_some_and(|name| is_local(name) || allowed.iter().any(|own| own.eq_ignore_ascii_case(name)))
}

/// Returns the name in a host, without the port (RFC 3986, section 3.2.2). Returns `None` for
/// anything else around the name.
fn name(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (port.is_empty() || port.strip_prefix(':').is_some_and(is_port)).then_some(name)
}

/// Tells whether a name always means this machine or an address: nobody can redirect an address,
/// and browsers resolve `localhost` to this machine.
fn is_local(name: &str) -> bool {
    if let Some(address) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = name.to_ascii_lowercase();
    name.parse::<Ipv4Addr>().is_ok() || name == "localhost" || name.ends_with(".localhost")
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
            ("localhost:", true),
            ("localhost:80:90", false),
            ("localhost:evil.example", false),
            ("localhost:999999", false),
            ("localhost, evil.example", false),
            ("evil.example@localhost", false),
            ("localhost@evil.example", false),
            ("[::1]evil.example", false),
            ("[::1]:80.evil.example", false),
            ("[evil.example]", false),
            ("[127.0.0.1]", false),
            ("[[::1]]", false),
            ("[::1", false),
            ("::1", false),
            ("127.1", false),
        ] {
            assert_eq!(is_own(host, &[]), local, "{host}");
        }
        assert!(is_own("Chat.Example:80", &["chat.example".into()]) && !is_own("chat.example.", &[]));
    }
}
