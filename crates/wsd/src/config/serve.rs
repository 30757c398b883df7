//! `[serve]`: the server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderValue;
use wsd_core::{Error, Recipe, Setting, Values};

/// The tag that Ollama's clients add to a model's name.
pub(crate) const OLLAMA_TAG: &str = ":latest";

/// Returns a model's name without Ollama's tag.
pub(crate) fn without_tag(model: &str) -> &str {
    model.strip_suffix(OLLAMA_TAG).unwrap_or(model)
}

/// The most answers at a time, and the most requests that wait.
const MAX_REQUESTS: u64 = 16_384;
/// The most requests or tokens in a minute that can be set.
const MAX_PER_MINUTE: u64 = 1 << 40;
/// The longest time that can be set, in seconds: a day.
const MAX_SECONDS: u64 = 86_400;

static HOST: Setting = Setting::text("host", "Address to listen on", "ADDRESS").with_default_text("127.0.0.1");
static PORT: Setting = Setting::integer("port", "Port to listen on; 0 takes a free one", 0..=65_535)
    .with_default_integer(8080)
    .with_placeholder("PORT");
/// The setting for the key that clients must send.
static API_KEY: Setting = Setting::text(
    "api_key",
    "The key that clients must send; better given by the environment or a file, where others cannot see it",
    "KEY",
)
.with_env("WSD_API_KEY");
static API_KEY_FILE: Setting =
    Setting::text("api_key_file", "A file of keys that clients may send, one to a line", "FILE");
static INSECURE: Setting = Setting::flag("insecure", "Listen beyond this machine although there is no key", false);
static MAX_CONCURRENT: Setting = Setting::integer(
    "max_concurrent",
    "Answers written at a time; as many again for clients that have none",
    1..=MAX_REQUESTS,
)
.with_default_integer(16);
static MAX_QUEUE: Setting = Setting::integer(
    "max_queue",
    "Requests that may wait beside them; more are refused. Few keep the waiting time short",
    0..=MAX_REQUESTS,
)
.with_default_about("a quarter of the answers written at a time");
static CLIENT_CONCURRENT: Setting = Setting::integer(
    "client_concurrent",
    "Answers written at a time for one client: the holder of a key, or an address where there are no keys",
    1..=MAX_REQUESTS,
)
.with_default_about("as many as there are, shared evenly with clients that wait");
static CLIENT_REQUESTS: Setting =
    Setting::integer("client_requests_per_minute", "Requests in a minute of one client", 1..=MAX_PER_MINUTE)
        .with_default_about("no limit");
static CLIENT_TOKENS: Setting = Setting::integer(
    "client_tokens_per_minute",
    "Tokens of prompts and answers in a minute of one client; the request that passes the limit is completed",
    1..=MAX_PER_MINUTE,
)
.with_default_about("no limit");
static REQUEST_TIMEOUT: Setting = seconds("request_timeout_seconds", "Seconds after which an answer is cut off", 600);
static DRAIN_TIMEOUT: Setting =
    seconds("drain_timeout_seconds", "Seconds that running answers are given when the server is stopped", 90);
static HEADER_TIMEOUT: Setting =
    seconds("header_timeout_seconds", "Seconds that a client may take to send its headers, and then its body", 15);
static KEEP_ALIVE: Setting =
    seconds("keep_alive_seconds", "Seconds of silence after which a stream sends a comment", 5);
static ALLOWED_HOST: Setting = Setting::texts(
    "allowed_host",
    "A further host name of a server that listens to this machine alone and has no key; requests to other names are \
     refused, because they may come from malicious pages. May be repeated",
)
.with_default_about("localhost and addresses")
.with_placeholder("NAME");
static SERVED_MODEL_NAME: Setting = Setting::texts(
    "served_model_name",
    "A further name for the server's strategy, for clients that always ask for one model; may be repeated",
)
.with_placeholder("NAME");
static STRICT: Setting = Setting::flag(
    "strict",
    "Refuse fields of requests that have no effect, which are accepted otherwise (docs/api.md lists them)",
    false,
);
static LOG_REQUESTS: Setting = Setting::choice(
    "log_requests",
    "Write a line about each request on stderr",
    &[("off", "none"), ("text", "names and values"), ("json", "a JSON object")],
)
.speed_only();
static CORS: Setting = Setting::texts(
    "cors",
    "An origin whose pages may call the server, such as `https://chat.example`; may be repeated",
)
.with_placeholder("ORIGIN");

const fn seconds(name: &'static str, about: &'static str, default: u64) -> Setting {
    Setting::integer(name, about, 1..=MAX_SECONDS)
        .with_default_integer(default)
        .with_placeholder("SECONDS")
        .speed_only()
}

/// The settings of `[serve]`, in the order of the help.
pub(super) static SETTINGS: &[&Setting] = &[
    &HOST,
    &PORT,
    &API_KEY,
    &API_KEY_FILE,
    &INSECURE,
    &MAX_CONCURRENT,
    &MAX_QUEUE,
    &CLIENT_CONCURRENT,
    &CLIENT_REQUESTS,
    &CLIENT_TOKENS,
    &REQUEST_TIMEOUT,
    &DRAIN_TIMEOUT,
    &HEADER_TIMEOUT,
    &KEEP_ALIVE,
    &ALLOWED_HOST,
    &CORS,
    &SERVED_MODEL_NAME,
    &STRICT,
    &LOG_REQUESTS,
];

/// Sources of the API keys.
#[derive(Clone, Default)]
pub struct KeySource {
    /// A key itself.
    pub key: Option<String>,
    /// A file of keys, one to a line.
    pub file: Option<PathBuf>,
}

/// The form of the request log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// None is written.
    Off,
    /// Names and values.
    Text,
    /// A JSON object for each request.
    Json,
}

/// The server's address, limits and permissions.
#[derive(Clone)]
pub struct ServeSettings {
    /// Address to listen on.
    pub address: SocketAddr,
    /// The keys that clients must send.
    pub keys: KeySource,
    /// True to listen beyond loopback without a key.
    pub insecure: bool,
    /// Answers written at a time.
    pub max_concurrent: usize,
    /// Requests that wait beside them.
    pub max_queue: usize,
    /// Answers written at a time for one client.
    pub client_concurrent: Option<usize>,
    /// Requests in a minute of one client.
    pub client_requests: Option<usize>,
    /// Tokens of prompts and answers in a minute of one client.
    pub client_tokens: Option<usize>,
    /// Time from a request to the end of its answer.
    pub request_timeout: Duration,
    /// Time for running answers when the server is stopped.
    pub drain_timeout: Duration,
    /// Time for a request's headers, and again for its body.
    pub header_timeout: Duration,
    /// Silence after which a stream sends a comment, so that the connection stays open.
    pub keep_alive: Duration,
    /// Further names of the server.
    pub allowed_hosts: Vec<String>,
    /// Origins whose pages may call.
    pub cors: Vec<HeaderValue>,
    /// Further names of the server's strategy.
    pub served_names: Vec<String>,
    /// True to refuse fields without effect.
    pub strict: bool,
    /// The form of the request log.
    pub log_requests: LogFormat,
}

impl ServeSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a host that is no address, an origin that is none, or a name that is taken.
    pub(super) fn parse(values: &Values) -> Result<Self, Error> {
        let origin = |origin: String| match HeaderValue::from_str(&origin) {
            Ok(value) if origin.contains("://") => Ok(value),
            _ => {
                let limit = "an origin such as https://chat.example".into();
                Err(Error::Setting { name: CORS.name, limit, value: origin })
            }
        };
        let host: String = values.get(&HOST);
        let address = if host == "localhost" { Ok(Ipv4Addr::LOCALHOST.into()) } else { host.parse::<IpAddr>() };
        let limit = "an IP address, such as 0.0.0.0 for all of this machine, or localhost";
        let host = address.map_err(|_| Error::Setting { name: HOST.name, limit: limit.into(), value: host })?;
        let served_names: Vec<String> = values.get(&SERVED_MODEL_NAME);
        if let Some(taken) = served_names.iter().find(|name| Recipe::find(without_tag(name)).is_ok()) {
            let limit = "no name of a strategy, which keeps its own".into();
            return Err(Error::Setting { name: SERVED_MODEL_NAME.name, limit, value: taken.clone() });
        }
        let seconds = |setting| Duration::from_secs(values.get(setting));
        let max_concurrent: usize = values.get(&MAX_CONCURRENT);
        Ok(Self {
            address: SocketAddr::new(host, values.get(&PORT)),
            keys: KeySource {
                key: values.get(&API_KEY),
                file: values.get::<Option<String>>(&API_KEY_FILE).map(PathBuf::from),
            },
            insecure: values.get(&INSECURE),
            max_concurrent,
            // The last request in the queue then waits for about a quarter of an answer.
            max_queue: values.get::<Option<_>>(&MAX_QUEUE).unwrap_or_else(|| max_concurrent.div_ceil(4)),
            client_concurrent: values.get(&CLIENT_CONCURRENT),
            client_requests: values.get(&CLIENT_REQUESTS),
            client_tokens: values.get(&CLIENT_TOKENS),
            request_timeout: seconds(&REQUEST_TIMEOUT),
            drain_timeout: seconds(&DRAIN_TIMEOUT),
            header_timeout: seconds(&HEADER_TIMEOUT),
            keep_alive: seconds(&KEEP_ALIVE),
            allowed_hosts: values.get(&ALLOWED_HOST),
            cors: values.get::<Vec<_>>(&CORS).into_iter().map(origin).collect::<Result<_, _>>()?,
            served_names,
            strict: values.get(&STRICT),
            log_requests: match values.get(&LOG_REQUESTS) {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => LogFormat::Off,
            },
        })
    }
}
