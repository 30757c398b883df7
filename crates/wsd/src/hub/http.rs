//! Requests to the hub: redirects, refusals, and patience.

use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};

use super::error::HubError;
use super::name::HubName;
use super::options::HubOptions;
use super::progress::Progress;

/// Redirects followed before they are taken for a loop.
const REDIRECT_LIMIT: usize = 10;

pub(super) type Reply = Response<ureq::Body>;

/// Why one attempt failed.
pub(super) enum Failure {
    /// Trying again would not help.
    Lasting(HubError),
    /// Trying again may help.
    Passing {
        error: HubError,
        /// How long the server asks to wait.
        wait: Option<Duration>,
        /// Whether this attempt brought the work forward.
        progressed: bool,
    },
}

impl Failure {
    pub(super) fn passing(error: HubError) -> Self {
        Self::Passing { error, wait: None, progressed: false }
    }

    fn connection(url: &str, source: ureq::Error) -> Self {
        let error = |source| HubError::Connection { url: url.into(), source };
        match source {
            // A certificate that is not trusted, or no TLS at all: neither changes by asking again.
            ureq::Error::Io(ref cause) if cause.kind() == std::io::ErrorKind::InvalidData => {
                Self::Lasting(error(Box::new(source)))
            }
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_)
            | ureq::Error::BodyStalled => Self::passing(error(Box::new(source))),
            _ => Self::Lasting(error(Box::new(source))),
        }
    }
}

impl<E: Into<HubError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Lasting(error.into())
    }
}

/// A request for one address.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) url: &'a str,
    /// What it stands for, in messages.
    pub(super) what: &'a str,
    /// Ask for the headers only.
    pub(super) head: bool,
    /// The first byte wanted; 0 means all.
    pub(super) offset: u64,
}

/// The hub, asked about one model.
pub(super) struct Client<'a> {
    agent: Agent,
    pub(super) options: &'a HubOptions,
    pub(super) name: HubName,
}

impl<'a> Client<'a> {
    pub(super) fn new(options: &'a HubOptions, name: HubName) -> Result<Self, HubError> {
        if !["http://", "https://"].iter().any(|scheme| options.endpoint.starts_with(scheme)) {
            return Err(HubError::Endpoint { endpoint: options.endpoint.clone() });
        }
        let config = Agent::config_builder()
            .user_agent(concat!("wsd/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(options.timeout))
            .timeout_per_read(Some(options.timeout))
            .timeout_per_write(Some(options.timeout))
            // The system's certificates, so that those a company has added count too.
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .build();
        Ok(Self { agent: config.into(), options, name })
    }

    /// Repeats `attempt` until it succeeds, fails for good, or fails `options.attempts` times without moving forward.
    pub(super) fn patiently<T>(
        &self,
        progress: &mut dyn Progress,
        mut attempt: impl FnMut(&mut dyn Progress) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            match attempt(progress) {
                Ok(value) => return Ok(value),
                Err(Failure::Lasting(error)) => return Err(error),
                Err(Failure::Passing { error, wait, progressed }) => {
                    failures = if progressed { 1 } else { failures + 1 };
                    let doubled = self.options.first_wait.saturating_mul(1 << (failures - 1).min(16));
                    let pause = wait.unwrap_or(doubled.min(self.options.longest_wait));
                    if failures >= self.options.attempts || pause > self.options.longest_wait {
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

    /// Asks, following redirects until a reply is none, or `enough(reply, leads_elsewhere)` holds.
    pub(super) fn ask(&self, ask: Ask<'_>, enough: impl Fn(&HeaderMap, bool) -> bool) -> Result<Reply, Failure> {
        let mut url = ask.url.to_owned();
        for _ in 0..REDIRECT_LIMIT {
            let reply = self.hop(&url, ask)?;
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
        Err(HubError::Malformed { origin: ask.url.into(), reason }.into())
    }

    /// One request. The token goes to the hub itself only: storage hosts have signed addresses and must not learn it.
    fn hop(&self, url: &str, ask: Ask<'_>) -> Result<Reply, Failure> {
        let mut request = if ask.head { self.agent.head(url) } else { self.agent.get(url) };
        // A compressed reply would have another length than the file.
        request = request.header("accept-encoding", "identity");
        let hub = self.is_hub(url);
        if let (Some(token), true) = (&self.options.token, hub) {
            request = request.header("authorization", token.header());
        }
        if ask.offset > 0 {
            request = request.header("range", format!("bytes={}-", ask.offset));
        }
        let reply = request.call().map_err(|error| Failure::connection(url, error))?;
        let status = reply.status().as_u16();
        match status {
            200 | 206 | 301 | 302 | 303 | 307 | 308 | 416 => Ok(reply),
            // A storage host refuses a signed address that has expired; asking the hub again gives a new one.
            _ if !hub || matches!(status, 408 | 429 | 500..=599) => {
                let wait = header(reply.headers(), "retry-after").and_then(|text| text.trim().parse().ok());
                let detail = wait.map(|seconds: u64| format!(" and asks to wait {seconds} s")).unwrap_or_default();
                let error = HubError::Status { url: url.into(), status, detail };
                Err(Failure::Passing { error, wait: wait.map(Duration::from_secs), progressed: false })
            }
            _ => Err(Failure::Lasting(self.refusal(url, ask.what, status, reply.headers()))),
        }
    }

    /// What a status of 4xx means. The hub answers 401 for what does not exist too, so as not to tell what is private.
    fn refusal(&self, url: &str, what: &str, status: u16, headers: &HeaderMap) -> HubError {
        let code = header(headers, "x-error-code").unwrap_or_default();
        let said = header(headers, "x-error-message").unwrap_or("the hub gives no reason");
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
                reason: format!("the model is gated: {said}"),
                hint: format!("accept the licence on {page} and {key}"),
            },
            (401 | 403, _) => HubError::Denied {
                repository,
                status,
                reason: format!("the repository is private or gated, or does not exist: {said}"),
                hint: format!(
                    "check the spelling; if it exists, accept the licence on {page} if it asks for one, and {key}"
                ),
            },
            (404, _) => HubError::NotFound {
                what: match code {
                    "RepoNotFound" => format!("repository `{repository}`"),
                    "RevisionNotFound" => format!("revision `{}` of `{repository}`", self.name.revision),
                    _ => what.to_owned(),
                },
                endpoint: self.options.endpoint.clone(),
                hint: format!("check the spelling against {page}; a private repository needs HF_TOKEN"),
            },
            _ => HubError::Status { url: url.into(), status, detail: format!(": {said}") },
        }
    }

    fn is_hub(&self, url: &str) -> bool {
        origin(url).is_some_and(|origin| Some(origin) == self::origin(&self.options.endpoint))
    }
}

/// A header's value where it is text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?.as_str().to_ascii_lowercase()))
}

/// Where a redirect of `url` leads: an absolute address, or a path on the same host.
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
