//! Requests to the hub: redirects, refusals and retries.

use std::io;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, Response, Uri, header as name};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::time::timeout;

use super::error::HubError;
use super::name::HubName;
use super::options::HubOptions;
use super::progress::Progress;
use crate::http::{Cut, HttpClient, Parts, Proxies, USER_AGENT, cause, client, wait};

/// Most redirects followed, so that a loop ends.
const REDIRECT_LIMIT: usize = 10;
/// Attempts where no connection can be made: one retry, for a server or a network that is starting.
const UNREACHABLE_ATTEMPTS: u32 = 2;

pub(super) type Reply = Response<Body>;

/// The failure of one attempt.
pub(super) enum Failure {
    /// Another attempt would fail too.
    Permanent(HubError),
    /// Another attempt may succeed.
    Transient {
        error: HubError,
        /// Pause that the server requests.
        wait: Option<Duration>,
        /// The attempt received bytes that no earlier one had.
        progressed: bool,
    },
}

impl Failure {
    pub(super) fn transient(error: HubError) -> Self {
        Self::Transient { error, wait: None, progressed: false }
    }

    /// The failure of a connection. An untrusted certificate, a server without TLS or a proxy that is
    /// none is permanent: a retry cannot change it.
    fn connection(url: &str, source: io::Error, is_connect: bool) -> Self {
        let is_permanent = matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput);
        let error = HubError::Connection { url: url.into(), source, is_connect };
        if is_permanent { Self::Permanent(error) } else { Self::transient(error) }
    }
}

impl<E: Into<HubError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Permanent(error.into())
    }
}

/// A request for one address.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub(super) url: &'a str,
    /// The resource at the address, in words for messages.
    pub(super) subject: &'a str,
    /// Request the headers only.
    pub(super) head: bool,
    /// First byte requested; 0 means the whole file.
    pub(super) offset: u64,
}

/// The body of a reply, read part by part.
pub(super) struct Body(Option<Parts>);

impl Body {
    /// Returns the next part; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        let Some(mut parts) = self.0.take() else { return Ok(None) };
        let (parts, part) = wait(async move {
            let part = parts.next().await;
            (parts, part)
        })?;
        let part = part.map_err(cut)?;
        self.0 = part.is_some().then_some(parts);
        Ok(part)
    }

    /// Reads the whole body, of at most `limit` bytes.
    pub(super) fn read(self, limit: usize) -> io::Result<Vec<u8>> {
        let Some(mut parts) = self.0 else { return Ok(Vec::new()) };
        wait(async move { parts.collect(limit).await })?.map_err(cut)
    }
}

fn cut(cut: Cut) -> io::Error {
    match cut {
        Cut::Late(limit) => late("the next part of the reply", limit),
        Cut::Broken(error) => error,
        Cut::TooLong(limit) => io::Error::other(format!("the reply is longer than {limit} bytes")),
    }
}

fn late(what: &str, limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} did not come within {:.1} s", limit.as_secs_f32()))
}

/// A client of the hub for one model.
pub(super) struct Client<'a> {
    http: HttpClient,
    pub(super) options: &'a HubOptions,
    pub(super) name: HubName,
}

impl<'a> Client<'a> {
    /// Sets up a client, with the proxies that the environment names.
    ///
    /// # Errors
    /// [`HubError::Endpoint`] for an endpoint that is not http or https; [`HubError::Connection`] where
    /// TLS cannot be set up.
    pub(super) fn open(options: &'a HubOptions, name: HubName) -> Result<Self, HubError> {
        if !["http://", "https://"].iter().any(|scheme| options.endpoint.starts_with(scheme)) {
            return Err(HubError::Endpoint { endpoint: options.endpoint.clone() });
        }
        let no_tls = |error: rustls::Error| HubError::Connection {
            url: options.endpoint.clone(),
            source: io::Error::other(error.to_string()),
            is_connect: true,
        };
        let http = client(options.timeout, Proxies::from_env()).map_err(no_tls)?;
        Ok(Self { http, options, name })
    }

    /// Repeats `attempt` with exponential back-off until it succeeds, fails permanently, or fails
    /// `options.attempts` times in a row without progress.
    pub(super) fn retry<T>(
        &self,
        progress: &mut dyn Progress,
        mut attempt: impl FnMut(&mut dyn Progress) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let (mut failures, mut unreachable) = (0, 0);
        loop {
            match attempt(progress) {
                Ok(value) => return Ok(value),
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Transient { error, wait, progressed }) => {
                    failures = if progressed { 1 } else { failures + 1 };
                    let is_connect = matches!(error, HubError::Connection { is_connect: true, .. });
                    unreachable = if is_connect { unreachable + 1 } else { 0 };
                    let doubled = self.options.first_wait.saturating_mul(1 << (failures - 1).min(16));
                    let pause = wait.unwrap_or(doubled.min(self.options.longest_wait));
                    // A machine without a network is told at once; one that had it a moment ago waits.
                    let is_offline = unreachable == failures && failures >= UNREACHABLE_ATTEMPTS;
                    if is_offline || failures >= self.options.attempts || pause > self.options.longest_wait {
                        return Err(error);
                    }
                    let reason = error.to_string();
                    let reason = reason.lines().next().unwrap_or_default();
                    progress.note(&format!("{reason}; trying again in {:.1} s", pause.as_secs_f32()));
                    std::thread::sleep(pause);
                }
            }
        }
    }

    /// Sends a request and follows redirects. Returns the first reply that is not a redirect, or
    /// the first redirect for which `enough(headers, leaves_hub)` holds.
    pub(super) fn send(&self, query: Query<'_>, enough: impl Fn(&HeaderMap, bool) -> bool) -> Result<Reply, Failure> {
        let mut url = query.url.to_owned();
        for _ in 0..REDIRECT_LIMIT {
            let reply = self.hop(&url, query)?;
            if !reply.status().is_redirection() {
                return Ok(reply);
            }
            let next = redirect_target(&url, reply.headers())?;
            if enough(reply.headers(), !self.is_hub(&next)) {
                return Ok(reply);
            }
            url = next;
        }
        let reason = format!("it redirects more than {REDIRECT_LIMIT} times");
        Err(HubError::Malformed { origin: query.url.into(), reason }.into())
    }

    /// Sends one request. The token goes to the hub only: storage hosts get signed addresses and
    /// must not receive it.
    fn hop(&self, url: &str, query: Query<'_>) -> Result<Reply, Failure> {
        let method = if query.head { Method::HEAD } else { Method::GET };
        // Compressed, the reply's length would differ from the file's.
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(name::USER_AGENT, USER_AGENT)
            .header(name::ACCEPT_ENCODING, "identity");
        let hub = self.is_hub(url);
        if let (Some(token), true) = (&self.options.token, hub) {
            request = request.header(name::AUTHORIZATION, token.header());
        }
        if query.offset > 0 {
            request = request.header(name::RANGE, format!("bytes={}-", query.offset));
        }
        let malformed =
            |error: axum::http::Error| HubError::Malformed { origin: url.into(), reason: error.to_string() };
        let request = request.body(Full::default()).map_err(malformed)?;
        let reply = self.call(request).map_err(|(source, is_connect)| Failure::connection(url, source, is_connect))?;
        let status = reply.status().as_u16();
        match status {
            200 | 206 | 301 | 302 | 303 | 307 | 308 | 416 => Ok(reply),
            // A storage host refuses an expired signed address; the hub issues a new one on the
            // next attempt.
            _ if !hub || matches!(status, 408 | 429 | 500..=599) => {
                let wait = header(reply.headers(), "retry-after").and_then(|text| text.trim().parse().ok());
                let detail = wait.map(|seconds: u64| format!(" and asks to wait {seconds} s")).unwrap_or_default();
                let error = HubError::Status { url: url.into(), status, detail };
                Err(Failure::Transient { error, wait: wait.map(Duration::from_secs), progressed: false })
            }
            _ => Err(Failure::Permanent(self.refusal(url, query.subject, status, reply.headers()))),
        }
    }

    /// Sends a request and waits for the beginning of the reply. An error has true beside it if no
    /// connection was made.
    fn call(&self, request: Request<Full<Bytes>>) -> Result<Reply, (io::Error, bool)> {
        // The connector enforces the limit for connecting itself.
        let (http, part) = (self.http.clone(), self.options.timeout);
        let limit = 2 * part;
        let reply = wait(async move { timeout(limit, http.request(request)).await }).map_err(|error| (error, false))?;
        let reply = reply.map_err(|_| (late("the reply", limit), false))?;
        let reply = reply.map_err(|error| (cause(&error), error.is_connect()))?;
        Ok(reply.map(|incoming| Body(Some(Parts::new(incoming, (part, part))))))
    }

    /// The error for a status of 4xx. The hub returns 401 also for a repository that does not
    /// exist, to hide which private ones do.
    fn refusal(&self, url: &str, subject: &str, status: u16, headers: &HeaderMap) -> HubError {
        let code = header(headers, "x-error-code").unwrap_or_default();
        let message = header(headers, "x-error-message").unwrap_or("the hub gives no reason");
        let repository = self.name.repository.clone();
        let page = format!("{}/{repository}", self.options.endpoint);
        let key = if self.options.token.is_some() {
            "check that the HF_TOKEN in use is valid and may read it"
        } else {
            "set HF_TOKEN"
        };
        match (status, code) {
            (401 | 403, "GatedRepo") => HubError::Denied {
                repository,
                status,
                reason: format!("the model is gated: {message}"),
                hint: format!("accept the licence on {page} and {key}"),
            },
            (401 | 403, _) => HubError::Denied {
                repository,
                status,
                reason: format!("the repository is private or gated, or does not exist: {message}"),
                hint: format!(
                    "check the spelling; if it exists, accept the licence on {page} if it asks for one, and {key}"
                ),
            },
            (404, _) => HubError::NotFound {
                what: match code {
                    "RepoNotFound" => format!("repository `{repository}`"),
                    "RevisionNotFound" => format!("revision `{}` of `{repository}`", self.name.revision),
                    _ => subject.to_owned(),
                },
                endpoint: self.options.endpoint.clone(),
                hint: format!("check the spelling against {page}; a private repository needs HF_TOKEN"),
            },
            _ => HubError::Status { url: url.into(), status, detail: format!(": {message}") },
        }
    }

    fn is_hub(&self, url: &str) -> bool {
        origin(url).is_some_and(|origin| Some(origin) == self::origin(&self.options.endpoint))
    }
}

/// The value of a header, if it is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Scheme, host and port of a URL, in lower case.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// The absolute URL that a redirect of `url` leads to. A redirect from https to http is an error.
fn redirect_target(url: &str, headers: &HeaderMap) -> Result<String, HubError> {
    let malformed = |reason: String| HubError::Malformed { origin: url.into(), reason };
    let location = header(headers, "location").ok_or_else(|| malformed("it redirects without a `location`".into()))?;
    let (scheme, host) = origin(url).ok_or_else(|| malformed("it is not an address".into()))?;
    let target = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{host}{location}")
    } else {
        location.to_owned()
    };
    match origin(&target) {
        Some((to, _)) if to == "https" || to == scheme => Ok(target),
        _ => Err(malformed(format!("it redirects to `{location}`, which is not an address as safe as itself"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_safe_addresses() {
        let target = |from: &str, location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("location", location.parse().unwrap());
            redirect_target(from, &headers).ok()
        };
        let hub = "https://hub.example:8/a/b?c";
        assert_eq!(target(hub, "/x?y=1").as_deref(), Some("https://hub.example:8/x?y=1"));
        assert_eq!(target(hub, "//cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(target(hub, "https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(target(hub, "http://cdn.example/x"), None);
        assert_eq!(target(hub, "ftp://cdn.example/x"), None);
        assert_eq!(target("http://a/b", "http://c/d").as_deref(), Some("http://c/d"));
        assert!(redirect_target(hub, &HeaderMap::new()).is_err());
    }
}
