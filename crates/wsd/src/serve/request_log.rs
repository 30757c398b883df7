//! The request log: one line on stderr for each request, once its reply is sent or given up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};
use wsd_core::{Event, TokensByAuthor};

use super::app::App;
use super::client::Client;
use super::clock::timestamp;
use super::envelope::Usage;
use super::error::ApiError;
use crate::config::LogFormat;

/// The header that names a request, and Anthropic's name of it.
const REQUEST_ID: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];
/// The most bytes of a name that a client chooses.
const MAX_ID_BYTES: usize = 128;

/// The sender of a request, and the line about it.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) log: Arc<RequestLog>,
}

/// The line about one request. It is written when the last holder drops it.
pub(super) struct RequestLog {
    format: LogFormat,
    id: String,
    method: Method,
    route: String,
    arrived: Instant,
    entry: Mutex<Entry>,
}

/// The facts that become known while a request is answered.
#[derive(Default)]
struct Entry {
    client: Option<Client>,
    model: Option<&'static str>,
    status: Option<u16>,
    usage: Usage,
    tokens: TokensByAuthor,
    /// The token at which the base took over.
    switch: Option<usize>,
    first_token_ms: Option<f64>,
    finish_reason: Option<&'static str>,
    /// The refusal or failure.
    error: Option<ApiError>,
}

/// Names a request, by its own header if that is printable, and logs it.
pub(super) async fn trace(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let own = request.headers().get(&REQUEST_ID[0]).and_then(|id| id.to_str().ok());
    let own = own.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    let id = own.map_or_else(|| app.next_id("req_"), str::to_owned);
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let log = Arc::new(RequestLog {
        format: app.serve.log_requests,
        id: id.clone(),
        method: request.method().clone(),
        route,
        arrived: Instant::now(),
        entry: Mutex::default(),
    });
    request.extensions_mut().insert(log.clone());
    let mut response = next.run(request).await;
    {
        let mut entry = log.entry();
        entry.status = Some(response.status().as_u16());
        entry.error = response.extensions().get().cloned();
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        for name in REQUEST_ID {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

impl RequestLog {
    fn entry(&self) -> MutexGuard<'_, Entry> {
        self.entry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the sender.
    pub(super) fn sent_by(&self, client: Client) {
        self.entry().client = Some(client);
    }

    /// Notes the model.
    pub(super) fn asks(&self, model: &'static str) {
        self.entry().model = Some(model);
    }

    /// Notes an event of an answer to the prompt with index `prompt`. A prompt with several answers
    /// counts once.
    pub(super) fn record(&self, prompt: usize, event: &Event) {
        let mut entry = self.entry();
        entry.usage.push(prompt, event);
        match event {
            Event::Token(token) => {
                let milliseconds = self.milliseconds();
                entry.first_token_ms.get_or_insert(milliseconds);
                entry.tokens.add(token.by, 1);
            }
            Event::Handover(handover) => entry.switch = entry.switch.or(Some(handover.at)),
            Event::Done(reason) => entry.finish_reason = Some(reason.name()),
            _ => {}
        }
    }

    /// Milliseconds since the request, to a microsecond.
    fn milliseconds(&self) -> f64 {
        self.arrived.elapsed().as_micros() as f64 / 1000.0
    }

    /// The facts by name; those that do not apply are null.
    fn fields(&self) -> Vec<(String, Value)> {
        let entry = self.entry();
        let (prompt, cached) = (entry.usage.prompt(), entry.usage.cached());
        let is_answer = prompt > 0;
        let number = |tokens: usize| if is_answer { json!(tokens) } else { Value::Null };
        let by: Vec<_> = entry.tokens.iter().map(|(author, tokens)| (format!("{author}_tokens"), tokens)).collect();
        let written = by.iter().map(|(_, tokens)| tokens).sum();
        let fields = [
            ("time", json!(timestamp())),
            ("id", json!(self.id)),
            ("client", json!(entry.client.map(|client| client.to_string()))),
            ("method", json!(self.method.as_str())),
            ("route", json!(self.route)),
            ("status", json!(entry.status)),
            ("model", json!(entry.model)),
            ("prompt_tokens", number(prompt)),
            ("cached_tokens", number(cached)),
            ("completion_tokens", number(written)),
        ];
        let ends = [
            ("switch", json!(entry.switch)),
            ("first_token_ms", json!(entry.first_token_ms)),
            ("total_ms", json!(self.milliseconds())),
            ("finish_reason", json!(entry.finish_reason)),
            ("error", json!(entry.error.as_ref().map(ApiError::code))),
            ("param", json!(entry.error.as_ref().and_then(ApiError::param))),
        ];
        let named = |(name, value): (&str, Value)| (name.to_owned(), value);
        let authors = by.into_iter().map(|(name, tokens)| (name, number(tokens)));
        fields.into_iter().map(named).chain(authors).chain(ends.into_iter().map(named)).collect()
    }

    /// The line in the chosen format; `None` if requests are not logged.
    fn line(&self) -> Option<String> {
        match self.format {
            LogFormat::Off => None,
            LogFormat::Json => Some(Value::Object(self.fields().into_iter().collect()).to_string()),
            LogFormat::Text => {
                let fields = self.fields();
                let shown = fields.iter().filter(|(_, value)| !value.is_null());
                // What a client wrote cannot look like another field, or another line.
                let is_word = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
                let text = |value: &Value| value.as_str().filter(is_word).map_or(value.to_string(), str::to_owned);
                Some(shown.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        // A client that left before the status was sent has 499, as in nginx.
        const GONE: u16 = 499;
        self.entry().status.get_or_insert(GONE);
        if let Some(line) = self.line() {
            eprintln!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use wsd_core::{FinishReason, Handover, Rule, Seat, TokenRecord};

    use super::*;

    fn log(format: LogFormat) -> RequestLog {
        RequestLog {
            format,
            id: "req-1".into(),
            method: Method::POST,
            route: "/v1/chat/completions".into(),
            arrived: Instant::now(),
            entry: Mutex::default(),
        }
    }

    #[test]
    fn a_line_tells_who_asked_and_who_wrote() {
        let log = log(LogFormat::Json);
        log.sent_by(Client::Key(3));
        log.asks("wsd");
        let token = |seat| Event::Token(TokenRecord::unscored(7, seat));
        let handover = Handover::new(1, 0.9, Rule::parse(2, 0.8).unwrap());
        for event in [
            Event::Prompt { tokens: 12 },
            token(Seat::DRAFT),
            token(Seat::DRAFT),
            Event::Handover(handover),
            token(Seat::BASE),
            Event::Reused { tokens: 5 },
            Event::Done(FinishReason::Stop),
            // A second answer to the same prompt, which it finds in the cache.
            Event::Prompt { tokens: 12 },
            Event::Reused { tokens: 11 },
        ] {
            log.record(0, &event);
        }
        log.entry().status = Some(200);
        let line: Value = serde_json::from_str(&log.line().unwrap()).unwrap();
        for (name, value) in [
            ("id", json!("req-1")),
            ("client", json!("key 3")),
            ("status", json!(200)),
            ("model", json!("wsd")),
            ("prompt_tokens", json!(12)),
            ("cached_tokens", json!(5)),
            ("completion_tokens", json!(3)),
            ("draft_tokens", json!(2)),
            ("base_tokens", json!(1)),
            ("switch", json!(1)),
            ("finish_reason", json!("stop")),
        ] {
            assert_eq!(line[name], value, "{name}: {line}");
        }
        assert!(line["first_token_ms"].is_number() && line["total_ms"].is_number());
    }

    #[test]
    fn the_short_form_leaves_out_what_does_not_apply() {
        let text = log(LogFormat::Text).line().unwrap();
        assert!(text.contains(" id=req-1 method=POST route=/v1/chat/completions total_ms="), "{text}");
        assert!(!text.contains("null") && !text.contains("switch"), "{text}");
        let refused = log(LogFormat::Text);
        refused.entry().error = Some(ApiError::unknown("x\nid=req-2", "is not a parameter"));
        let text = refused.line().unwrap();
        assert!(text.ends_with(r#" error=unknown_parameter param="x\nid=req-2""#), "{text}");
        assert_eq!(log(LogFormat::Off).line(), None);
    }
}
