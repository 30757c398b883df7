//! A fake server of a remote engine: it speaks one of their dialects, computes with an engine given
//! to it, and fails on demand.

#![allow(dead_code, reason = "each test, and the example, uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a fake server fails by panicking")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wsd_core::{Engine, Generation, Sampled, Sampling, Step, Stop, Token};

/// The engine whose dialect it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vllm,
    SgLang,
    LlamaServer,
    OpenAi {
        /// It returns scores of an echoed prompt.
        echoes: bool,
    },
    ChatOnly,
}

/// A fault in the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    ResetAtOnce,
    ResetInHead,
    ResetInBody,
    Slow,
    Truncated,
    WrongShape,
    Nan,
    Null,
    WrongLength,
    Refusal,
    Failure,
    Busy {
        retry_after: &'static str,
    },
    Stall,
    CutUtf8,
    WrongIds,
    /// A `Date` header that is thousands of years off.
    Clock,
}

#[derive(Default)]
struct State {
    /// The fault of the next replies, and their number.
    fault: Mutex<Option<(Fault, usize)>>,
    /// Requests received: path and body.
    posted: Mutex<Vec<(String, Value)>>,
    /// The `x-session-id` of each request.
    session_ids: Mutex<Vec<String>>,
    connections: AtomicUsize,
    /// Records no requests.
    forgetful: AtomicBool,
    /// Replies in progress.
    working: AtomicUsize,
    /// Replies whose client disconnected before the end.
    aborted: AtomicUsize,
}

pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    kind: Kind,
    engine: Arc<dyn Engine>,
    /// Time for each token.
    pause: Duration,
    state: Arc<State>,
    listening: Option<JoinHandle<()>>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StandIn {
    pub(crate) async fn start(kind: Kind, engine: Arc<dyn Engine>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), kind, engine, Duration::ZERO).await
    }

    pub(crate) async fn start_at(address: SocketAddr, kind: Kind, engine: Arc<dyn Engine>, pause: Duration) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut stand_in = Self { address, kind, engine, pause, state: Arc::default(), listening: None };
        stand_in.listen(listener);
        stand_in
    }

    fn listen(&mut self, listener: TcpListener) {
        let (kind, engine, pause, state) = (self.kind, self.engine.clone(), self.pause, self.state.clone());
        self.listening = Some(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                state.connections.fetch_add(1, Ordering::SeqCst);
                let connection = Connection { stream, kind, engine: engine.clone(), pause, state: state.clone() };
                connections.spawn(connection.run());
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Records no requests, for a server that runs long.
    pub(crate) fn without_records(self) -> Self {
        self.state.forgetful.store(true, Ordering::SeqCst);
        self
    }

    /// Stops listening and closes all connections.
    pub(crate) fn stop(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
    }

    /// Listens again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        for _ in 0..100 {
            if let Ok(listener) = TcpListener::bind(self.address).await {
                return self.listen(listener);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the port is taken");
    }

    /// The address in the form that `--base` takes.
    pub(crate) fn url(&self) -> String {
        let scheme = match self.kind {
            Kind::Vllm => "vllm",
            Kind::SgLang => "sglang",
            Kind::LlamaServer => "llama-server",
            Kind::OpenAi { .. } | Kind::ChatOnly => "openai",
        };
        format!("{scheme}+http://{}/{}", self.address, self.engine.card().name)
    }

    /// Puts a fault into the next `times` replies.
    pub(crate) fn fail(&self, fault: Fault, times: usize) {
        *self.state.fault.lock().unwrap() = Some((fault, times));
    }

    pub(crate) fn heal(&self) {
        *self.state.fault.lock().unwrap() = None;
    }

    pub(crate) fn posted(&self) -> Vec<(String, Value)> {
        self.state.posted.lock().unwrap().clone()
    }

    pub(crate) fn session_ids(&self) -> Vec<String> {
        self.state.session_ids.lock().unwrap().clone()
    }

    pub(crate) fn working(&self) -> usize {
        self.state.working.load(Ordering::SeqCst)
    }

    pub(crate) fn aborted(&self) -> usize {
        self.state.aborted.load(Ordering::SeqCst)
    }
}

struct Connection {
    stream: TcpStream,
    kind: Kind,
    engine: Arc<dyn Engine>,
    pause: Duration,
    state: Arc<State>,
}

struct Request {
    path: String,
    head: String,
    body: Value,
}

/// A reply in progress; on drop it is counted as aborted unless it has ended.
struct InProgress<'a> {
    state: &'a State,
    ended: bool,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.state.working.fetch_sub(1, Ordering::SeqCst);
        if !self.ended {
            self.state.aborted.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Connection {
    async fn run(mut self) {
        while let Some(request) = self.read().await {
            if self.answer(request).await.is_none() {
                return;
            }
        }
    }

    async fn read(&mut self) -> Option<Request> {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            match self.stream.read(&mut buffer).await {
                Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            match self.stream.read(&mut buffer).await {
                Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
                _ => return None,
            }
        }
        let path = String::from_utf8_lossy(&bytes[..end]).split(' ').nth(1)?.to_owned();
        Some(Request { path, head, body: serde_json::from_slice(&bytes[end..end + length]).unwrap_or_default() })
    }

    /// The fault of this reply. Only routes that generate or score have faults.
    fn fault(&self, path: &str) -> Option<Fault> {
        if !matches!(path, "/v1/completions" | "/generate" | "/completion") {
            return None;
        }
        let mut fault = self.state.fault.lock().unwrap();
        let (kind, left) = fault.as_mut()?;
        let kind = *kind;
        *left -= 1;
        if *left == 0 {
            *fault = None;
        }
        Some(kind)
    }

    async fn answer(&mut self, request: Request) -> Option<()> {
        let fault = self.fault(&request.path);
        if !self.state.forgetful.load(Ordering::SeqCst) {
            let id = request.head.lines().find_map(|line| line.strip_prefix("x-session-id: "));
            self.state.session_ids.lock().unwrap().extend(id.map(str::to_owned));
            self.state.posted.lock().unwrap().push((request.path.clone(), request.body.clone()));
        }
        match fault {
            Some(Fault::ResetAtOnce) => return None,
            Some(Fault::ResetInHead) => {
                self.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le").await.ok()?;
                return None;
            }
            Some(Fault::Slow) => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                return None;
            }
            Some(Fault::Refusal) => return self.send(422, "", b"Failed to deserialize the JSON body".to_vec()).await,
            Some(Fault::Failure) => {
                let body = json!({"error": {"message": "EngineCore encountered an issue", "code": 500}});
                return self.send(500, "", body.to_string().into()).await;
            }
            Some(Fault::Busy { retry_after }) => {
                let header = format!("Retry-After: {retry_after}\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
                return self.send(429, &header, b"{\"detail\": \"too many\"}".to_vec()).await;
            }
            _ => {}
        }
        if request.body["stream"] == true {
            return self.stream(&request, fault).await;
        }
        self.state.working.fetch_add(1, Ordering::SeqCst);
        let state = self.state.clone();
        let mut progress = InProgress { state: &state, ended: false };
        let (status, reply) = tokio::select! {
            reply = reply(self.kind, self.engine.clone(), self.pause, &request) => reply,
            _ = closed(&mut self.stream) => return None,
        };
        progress.ended = true;
        let bytes = spoil(reply, fault).to_vec();
        let header = if fault == Some(Fault::Clock) { "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n" } else { "" };
        if fault == Some(Fault::ResetInBody) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            self.stream.write_all(&[head.as_bytes(), &bytes[..bytes.len() / 2]].concat()).await.ok()?;
            return None;
        }
        if fault == Some(Fault::Stall) {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            self.stream.write_all(&[head.as_bytes(), &bytes[..bytes.len() / 2]].concat()).await.ok()?;
            tokio::time::sleep(Duration::from_secs(30)).await;
            return None;
        }
        self.send(status, header, bytes).await
    }

    async fn send(&mut self, status: u16, headers: &str, body: Vec<u8>) -> Option<()> {
        let head = format!(
            "HTTP/1.1 {status} Status\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()
    }

    async fn stream(&mut self, request: &Request, fault: Option<Fault>) -> Option<()> {
        self.state.working.fetch_add(1, Ordering::SeqCst);
        let state = self.state.clone();
        let mut progress = InProgress { state: &state, ended: false };
        let date = if fault == Some(Fault::Clock) { "Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n" } else { "" };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{date}Transfer-Encoding: chunked\r\n\r\n");
        self.stream.write_all(head.as_bytes()).await.ok()?;
        let request = Continuation::of(self.kind, &request.body);
        let mut session = self.engine.open(&request.list).await.unwrap();
        let generation = request.generation();
        let mut steps = session.generate(&generation);
        let (mut so_far, mut sent) = (Vec::new(), 0);
        loop {
            let step = tokio::select! {
                step = paused(&mut steps, self.pause) => step.unwrap(),
                _ = closed(&mut self.stream) => return None,
            };
            let (new, stop) = match step {
                Step::Token(sampled) => (Some(sampled), None),
                Step::End(stop) => (None, Some(stop)),
            };
            so_far.extend(new.clone());
            let event = spoil(event(self.kind, &request, &so_far, new.as_ref(), stop), fault.filter(|_| sent >= 1));
            let event = [b"data: ", event.as_slice(), b"\n\n"].concat();
            match fault {
                Some(Fault::ResetInBody | Fault::Truncated) if sent == 2 => return None,
                Some(Fault::Stall) if sent == 2 => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    return None;
                }
                _ => self.chunk(&event).await?,
            }
            sent += 1;
            if stop.is_some() {
                break;
            }
        }
        self.chunk(b"data: [DONE]\n\n").await?;
        progress.ended = true;
        self.stream.write_all(b"0\r\n\r\n").await.ok()
    }

    async fn chunk(&mut self, bytes: &[u8]) -> Option<()> {
        let head = format!("{:x}\r\n", bytes.len());
        self.stream.write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).await.ok()
    }
}

async fn closed(stream: &mut TcpStream) {
    // A client sends nothing during a reply, so a read ends when it disconnects.
    let mut buffer = [0; 64];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

async fn paused(
    steps: &mut futures::stream::BoxStream<'_, wsd_core::Result<Step>>,
    pause: Duration,
) -> wsd_core::Result<Step> {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
    steps.next().await.unwrap()
}

/// Applies the fault to a reply.
fn spoil(reply: Value, fault: Option<Fault>) -> Vec<u8> {
    let text = reply.to_string();
    let spoilt = match fault {
        Some(Fault::WrongShape) => json!({"hello": ["world"]}).to_string(),
        Some(Fault::Nan) => without_negatives(&text, "NaN"),
        Some(Fault::Null) => without_negatives(&text, "null"),
        Some(Fault::Truncated) => text[..text.len() / 2].to_owned(),
        Some(Fault::WrongLength | Fault::WrongIds) => spoil_ids(reply, fault == Some(Fault::WrongIds)).to_string(),
        Some(Fault::CutUtf8) => {
            let (head, tail) = text.split_at(text.find("text\":\"").map_or(1, |at| at + 7));
            return [head.as_bytes(), b"\xF0\x9F", tail.as_bytes()].concat();
        }
        _ => text,
    };
    spoilt.into_bytes()
}

/// Replaces every negative number in the text. A minus in an exponent belongs to its number.
fn without_negatives(text: &str, by: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | '-');
    let (mut spoilt, mut left) = (String::new(), text);
    while let Some(at) = left.find('-') {
        let rest = left[at..].trim_start_matches(is_part);
        let is_number = left[at + 1..].starts_with(|c: char| c.is_ascii_digit());
        spoilt.push_str(&left[..at]);
        spoilt.push_str(if is_number { by } else { "-" });
        left = if is_number { rest } else { &left[at + 1..] };
    }
    spoilt + left
}

/// Replaces the ids with wrong ones, or removes the first of each list.
fn spoil_ids(mut reply: Value, other: bool) -> Value {
    for path in [
        "/choices/0/token_ids",
        "/choices/0/prompt_logprobs",
        if other { "/choices/0/logprobs/tokens" } else { "/choices/0/logprobs/token_logprobs" },
        "/output_ids",
        "/tokens",
        "/meta_info/input_token_logprobs",
        "/completion_probabilities/0/top_logprobs",
    ] {
        let Some(Value::Array(list)) = reply.pointer_mut(path) else { continue };
        for entry in list.iter_mut().filter(|_| other) {
            *entry = match entry {
                Value::Number(_) => json!(999_999),
                Value::String(_) => json!("token_id:999999"),
                Value::Object(row) if row.contains_key("id") => json!({"id": 999_999, "logprob": -1.0}),
                Value::Object(_) => json!({"999999": {"logprob": -1.0}}),
                Value::Array(_) => json!([-1.0, 999_999, null]),
                _ => continue,
            };
        }
        if !other && !list.is_empty() {
            list.remove(0);
        }
    }
    reply
}

/// A parsed request for a continuation or scores.
struct Continuation {
    list: Vec<Token>,
    max_tokens: usize,
    sampling: Sampling,
    top: usize,
}

impl Continuation {
    fn of(kind: Kind, body: &Value) -> Self {
        let (list, limit, settings) = match kind {
            Kind::SgLang => ("input_ids", "max_new_tokens", &body["sampling_params"]),
            Kind::LlamaServer => ("prompt", "n_predict", body),
            _ => ("prompt", "max_tokens", body),
        };
        let number = |name: &str| settings[name].as_f64().unwrap_or(0.0);
        let sampling = Sampling {
            temperature: number("temperature") as f32,
            seed: settings["seed"].as_u64().or(settings["sampling_seed"].as_u64()).unwrap_or(0),
            ..Sampling::default()
        };
        let top = ["logprobs", "n_probs", "top_logprobs_num"].iter().find_map(|name| body[name].as_u64()).unwrap_or(0);
        Self {
            list: body[list]
                .as_array()
                .map(|ids| ids.iter().map(|id| id.as_u64().unwrap() as Token).collect())
                .unwrap_or_default(),
            max_tokens: number(limit) as usize,
            sampling,
            top: top as usize,
        }
    }

    fn generation(&self) -> Generation {
        let sampling = self.sampling.clone();
        Generation { max_tokens: self.max_tokens.max(1), sampling, top_logprobs: self.top, guide: None }
    }
}

fn reason(stop: Option<Stop>) -> Value {
    match stop {
        None => Value::Null,
        Some(Stop::End) => json!("stop"),
        Some(Stop::Length) => json!("length"),
    }
}

/// An event of a stream. It includes the end token, as in these engines.
fn event(kind: Kind, request: &Continuation, so_far: &[Sampled], new: Option<&Sampled>, stop: Option<Stop>) -> Value {
    let end = (stop == Some(Stop::End)).then_some(Sampled { token: 0, logprob: Some(-0.5), top: vec![] });
    if kind == Kind::SgLang {
        let all: Vec<_> = so_far.iter().chain(end.as_ref()).collect();
        let rows: Vec<_> = all.iter().map(|sampled| json!([sampled.logprob, sampled.token, null])).collect();
        let ids: Vec<_> = all.iter().map(|sampled| sampled.token).collect();
        let reason = match stop {
            None => Value::Null,
            Some(Stop::End) => json!({"type": "stop", "matched": 0}),
            Some(Stop::Length) => json!({"type": "length", "length": ids.len()}),
        };
        let meta = json!({"finish_reason": reason, "completion_tokens": ids.len(), "output_token_logprobs": rows});
        return json!({"text": "…", "output_ids": ids, "meta_info": meta});
    }
    let new: Vec<_> = new.into_iter().chain(end.as_ref()).collect();
    let names: Vec<_> = new.iter().map(|sampled| format!("token_id:{}", sampled.token)).collect();
    let tops: Vec<_> = new
        .iter()
        .map(|sampled| {
            sampled.top.iter().map(|(id, p)| (format!("token_id:{id}"), json!(p))).collect::<serde_json::Map<_, _>>()
        })
        .collect();
    let values: Vec<_> = new.iter().map(|sampled| sampled.logprob).collect();
    let logprobs = json!({"tokens": names, "token_logprobs": values, "top_logprobs": tops});
    let prompt = if so_far.len() <= 1 { json!(request.list) } else { Value::Null };
    json!({"object": "text_completion", "choices": [{
        "index": 0, "text": "…", "logprobs": logprobs, "finish_reason": reason(stop), "stop_reason": null,
        "prompt_token_ids": prompt, "token_ids": new.iter().map(|sampled| sampled.token).collect::<Vec<_>>(),
    }]})
}

/// The whole reply to a request without a stream.
async fn reply(kind: Kind, engine: Arc<dyn Engine>, pause: Duration, request: &Request) -> (u16, Value) {
    let body = &request.body;
    let (card, tokenizer) = (engine.card(), engine.codec().tokenizer());
    let owner = match kind {
        Kind::Vllm => "vllm",
        Kind::SgLang => "sglang",
        Kind::LlamaServer => "llamacpp",
        _ => "somebody",
    };
    let missing = || (404, json!({"detail": "Not Found"}));
    match (request.path.as_str(), kind) {
        ("/v1/models", _) => {
            let meta = json!({"n_ctx": card.max_len, "n_vocab": card.vocab});
            let model = json!({"id": card.name, "owned_by": owner, "max_model_len": card.max_len, "meta": meta});
            (200, json!({"object": "list", "data": [model]}))
        }
        (_, Kind::ChatOnly) => missing(),
        ("/props", Kind::LlamaServer) => {
            (200, json!({"default_generation_settings": {"n_ctx": card.max_len}, "eos_token": "</s>"}))
        }
        ("/tokenize", Kind::Vllm | Kind::SgLang | Kind::LlamaServer) => {
            let text = body["prompt"].as_str().or(body["content"].as_str()).unwrap();
            match tokenizer.encode(text) {
                Ok(tokens) => (200, json!({"tokens": tokens})),
                Err(error) => (400, json!({"error": {"message": error.to_string()}})),
            }
        }
        ("/detokenize", Kind::Vllm | Kind::SgLang | Kind::LlamaServer) => {
            let tokens: Vec<Token> = serde_json::from_value(body["tokens"].clone()).unwrap();
            (200, json!({"prompt": tokenizer.decode(&tokens).unwrap()}))
        }
        ("/v1/completions", Kind::Vllm) => {
            let top = body["prompt_logprobs"].as_u64().unwrap_or(0) as usize;
            let scored = score(engine.as_ref(), &Continuation::of(kind, body).list, 1, top).await;
            let row = |scored: &Sampled| {
                let top = scored.top.iter().map(|&(id, p)| (id, Some(p)));
                let entries = top.chain([(scored.token, scored.logprob)]);
                entries
                    .map(|(id, p)| (id.to_string(), json!({"logprob": p, "rank": 1})))
                    .collect::<serde_json::Map<_, _>>()
            };
            let rows: Vec<_> =
                std::iter::once(Value::Null).chain(scored.iter().map(|scored| Value::Object(row(scored)))).collect();
            (200, json!({"choices": [{"index": 0, "text": "…", "finish_reason": "length", "prompt_logprobs": rows}]}))
        }
        ("/generate", Kind::SgLang) => {
            let (request, from) = (Continuation::of(kind, body), body["logprob_start_len"].as_u64().unwrap() as usize);
            let scored = score(engine.as_ref(), &request.list, from + 1, 0).await;
            let rows = scored.iter().map(|scored| json!([scored.logprob, scored.token, null]));
            let rows: Vec<_> = std::iter::once(json!([null, request.list[from], null])).chain(rows).collect();
            let meta = json!({"input_token_logprobs": rows, "completion_tokens": 0});
            (200, json!({"text": "", "output_ids": [], "meta_info": meta}))
        }
        ("/completion", Kind::LlamaServer) => (200, completion(engine.as_ref(), pause, body).await),
        ("/v1/completions", Kind::OpenAi { echoes }) => (200, text_completion(engine.as_ref(), body, echoes).await),
        _ => missing(),
    }
}

async fn score(engine: &dyn Engine, list: &[Token], from: usize, top: usize) -> Vec<Sampled> {
    engine.open(list).await.unwrap().score_top(from, top).await.unwrap()
}

async fn write(engine: &dyn Engine, request: &Continuation, pause: Duration) -> (Vec<Sampled>, Stop) {
    let (generation, mut session) = (request.generation(), engine.open(&request.list).await.unwrap());
    let (mut written, mut steps) = (Vec::new(), session.generate(&generation));
    loop {
        match paused(&mut steps, pause).await.unwrap() {
            Step::Token(sampled) => written.push(sampled),
            Step::End(stop) => return (written, stop),
        }
    }
}

/// llama-server's `/completion`: with a logit bias it returns the top-k of the next token,
/// otherwise a continuation.
async fn completion(engine: &dyn Engine, pause: Duration, body: &Value) -> Value {
    let request = Continuation::of(Kind::LlamaServer, body);
    let named = |(id, p): &(Token, f64)| json!({"id": id, "token": "x", "bytes": [120], "logprob": p});
    if body["logit_bias"].is_array() {
        let generation = Generation { max_tokens: 1, ..request.generation() };
        let mut session = engine.open(&request.list).await.unwrap();
        let step = session.generate(&generation).next().await.unwrap().unwrap();
        let top = match step {
            Step::Token(sampled) => sampled.top,
            Step::End(_) => vec![],
        };
        let top: Vec<_> = top.iter().map(named).collect();
        let row = json!({"id": 1, "top_logprobs": top});
        return json!({"content": ".", "stop_type": "limit", "completion_probabilities": [row]});
    }
    let (written, stop) = write(engine, &request, pause).await;
    let rows: Vec<_> = written
        .iter()
        .map(|sampled| json!({"id": sampled.token, "logprob": sampled.logprob, "top_logprobs": []}))
        .collect();
    json!({
        "content": "…", "tokens": written.iter().map(|sampled| sampled.token).collect::<Vec<_>>(),
        "tokens_predicted": written.len(), "stop_type": if stop == Stop::End { "eos" } else { "limit" },
        "completion_probabilities": rows,
    })
}

async fn text_completion(engine: &dyn Engine, body: &Value, echoes: bool) -> Value {
    let request = Continuation { top: 0, ..Continuation::of(Kind::OpenAi { echoes }, body) };
    let (written, stop) = write(engine, &request, Duration::ZERO).await;
    let ids: Vec<_> = written.iter().map(|sampled| sampled.token).collect();
    let mut values: Vec<_> = written.iter().map(|sampled| json!(sampled.logprob)).collect();
    let mut names: Vec<_> = ids.iter().map(|id| format!("token_id:{id}")).collect();
    if echoes && body["echo"] == true {
        let scored = score(engine, &request.list, 1, 0).await;
        values.splice(0..0, std::iter::once(Value::Null).chain(scored.iter().map(|scored| json!(scored.logprob))));
        names.splice(0..0, request.list.iter().map(|id| format!("token_id:{id}")));
    }
    let text = engine.codec().tokenizer().decode(&ids).unwrap();
    let logprobs =
        if body["logprobs"].is_u64() { json!({"token_logprobs": values, "tokens": names}) } else { Value::Null };
    json!({"choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason(Some(stop))}]})
}
