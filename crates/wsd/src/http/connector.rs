//! Connections to servers, straight or through a proxy.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::Service;

use super::cause;

/// The proxies between this machine and servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Option<Arc<Matcher>>);

impl Proxies {
    /// The proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name, as curl reads
    /// them.
    pub(crate) fn from_env() -> Self {
        Self(Some(Arc::new(Matcher::from_env())))
    }

    /// Returns the proxy for an address.
    fn of(&self, address: &Uri) -> Option<Intercept> {
        self.0.as_ref()?.intercept(address)
    }
}

/// A maker of TCP connections, through a tunnel of the proxy where there is one.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    proxies: Proxies,
}

impl Connector {
    pub(super) fn new(timeout: Duration, proxies: Proxies) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(timeout));
        Self { tcp, proxies }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(context).map_err(|error| cause(&error))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&address) else {
            let connecting = self.tcp.call(address);
            return Box::pin(async { connecting.await.map_err(|error| cause(&error)) });
        };
        if proxy.uri().scheme_str() != Some("http") {
            let message = format!("the proxy must begin with http://, got {}", proxy.uri());
            return Box::pin(async { Err(io::Error::new(io::ErrorKind::InvalidInput, message)) });
        }
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.tcp.clone());
        if let Some(password) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(password.clone());
        }
        let connecting = with_port(&address).map(|address| tunnel.call(address));
        Box::pin(async { connecting?.await.map_err(|error| cause(&error)) })
    }
}

/// Returns host and port of an address. A tunnel takes 443 for the port where none is named.
fn with_port(address: &Uri) -> io::Result<Uri> {
    let no_host = || io::Error::new(io::ErrorKind::InvalidInput, format!("{address} has no host"));
    let host = address.host().ok_or_else(no_host)?;
    let port = address.port_u16().unwrap_or(if address.scheme_str() == Some("http") { 80 } else { 443 });
    format!("http://{host}:{port}/").parse().map_err(|_| no_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(http: &str, no: &str) -> Proxies {
        Proxies(Some(Arc::new(Matcher::builder().http(http.to_owned()).no(no.to_owned()).build())))
    }

    #[test]
    fn a_proxy_that_is_none_is_refused() {
        let mut connector = Connector::new(Duration::from_secs(1), proxies("socks5://127.0.0.1:1", ""));
        let connecting = connector.call(Uri::from_static("http://hub.example/"));
        let error = futures::executor::block_on(connecting).unwrap_err();
        assert!(error.to_string().starts_with("the proxy must begin with http://, got socks5://"), "{error}");
    }

    #[test]
    fn a_tunnel_leads_to_the_port_of_the_scheme() {
        let target = |address: &'static str| with_port(&Uri::from_static(address)).map(|uri| uri.to_string()).ok();
        assert_eq!(target("http://hub.example/x").as_deref(), Some("http://hub.example:80/"));
        assert_eq!(target("https://hub.example/x").as_deref(), Some("http://hub.example:443/"));
        assert_eq!(target("https://[::1]:8443/x").as_deref(), Some("http://[::1]:8443/"));
        assert_eq!(target("/x"), None);
    }

    #[test]
    fn some_addresses_have_no_proxy() {
        let proxies = proxies("http://proxy.example:3128", "127.0.0.1,inside.example");
        let of = |address: &'static str| proxies.of(&Uri::from_static(address)).is_some();
        assert!(of("http://hub.example/a"));
        assert!(!of("http://127.0.0.1:80/") && !of("http://inside.example/") && !of("https://hub.example/"));
        assert!(Proxies::default().of(&Uri::from_static("http://hub.example/")).is_none());
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_with_the_password() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://a:b@{}", listener.local_addr().unwrap());
        let mut connector = Connector::new(Duration::from_secs(5), proxies(&proxy, ""));
        let connecting = tokio::spawn(connector.call(Uri::from_static("http://hub.example/x")));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        let asked = String::from_utf8(asked).unwrap().to_ascii_lowercase();
        assert!(asked.starts_with("connect hub.example:80 http/1.1\r\n"), "{asked}");
        assert!(asked.contains("proxy-authorization: basic ytpi"), "{asked}");
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        connecting.await.unwrap().unwrap();
    }
}
