//! Servers to test, and clients that misbehave.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tower::ServiceExt as _;
use wsd::config::{Partial, Settings};
use wsd::models;
use wsd::serve::{App, Keys, router, serve};
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{Models, Need, Recipe, Seat};

/// Longest wait; anything slower counts as hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The default settings with the given `[serve]` section.
pub(crate) fn settings(serve: Value) -> Settings {
    serde_json::from_value::<Partial>(Value::from_iter([("serve", serve)])).unwrap().resolve().unwrap()
}

/// The needs of WSD.
fn wsd() -> &'static [Need] {
    Recipe::find("wsd").unwrap().needs
}

/// The built-in pair of models, loaded once.
fn builtin() -> Models {
    static MODELS: OnceLock<Models> = OnceLock::new();
    let load = || models::load(&settings(json!({})), wsd(), 64, &mut ()).unwrap();
    MODELS.get_or_init(load).clone()
}

/// A scripted pair of models that never ends a text, and does `work` for each token.
fn scripted(work: impl Fn(&[u32]) + Copy + Send + Sync + 'static) -> Models {
    let pieces = Arc::new(Pieces::letters("ab"));
    let model = |name| {
        let rows = move |tokens: &[u32]| {
            work(tokens);
            vec![f32::NEG_INFINITY, f32::NEG_INFINITY, tokens.len() as f32 % 2.0, 0.5]
        };
        Arc::new(Scripted::new(name, pieces.clone(), rows).with_context(1 << 20))
    };
    Models::default().with(Seat::BASE, model("base")).with(Seat::DRAFT, model("draft"))
}

pub(crate) struct Server {
    app: Arc<App>,
    router: Router,
}

impl Server {
    pub(crate) fn new(settings: Settings, keys: Keys) -> Self {
        Self::of(builtin(), settings, keys)
    }

    fn of(models: Models, settings: Settings, keys: Keys) -> Self {
        let state = Arc::new(App::new(models, settings, None, keys));
        Self { router: router(state.clone()), app: state }
    }

    pub(crate) fn builtin() -> Self {
        Self::with(json!({}))
    }

    /// A server with a pair of models of its own, which no other test warms.
    pub(crate) fn own(settings: Settings, keys: Keys) -> Self {
        let models = models::load(&settings, wsd(), 64, &mut ()).unwrap();
        Self::of(models, settings, keys)
    }

    /// A server whose answers never end, for clients with keys.
    pub(crate) fn slow_with_keys(serve: Value, keys: Keys) -> Self {
        Self::of(scripted(|_| std::thread::sleep(Duration::from_millis(1))), settings(serve), keys)
    }

    /// Sends a request with a key; returns the status and the body.
    pub(crate) async fn text_as(&self, method: &str, path: &str, key: &str, body: String) -> (u16, String) {
        let key = format!("Bearer {key}");
        let response = self.raw(method, path, &[("authorization", &key)], body).await;
        (response.status().as_u16(), self::body(response).await)
    }

    /// Waits until the text of the metrics, asked for with a key, meets the condition.
    pub(crate) async fn until_as(&self, key: &str, meets: impl Fn(&str) -> bool) {
        let waiting = async {
            while !meets(&self.text_as("GET", "/metrics", key, String::new()).await.1) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "the metrics never met the condition");
    }

    pub(crate) fn with(serve: Value) -> Self {
        Self::new(settings(serve), Keys::default())
    }

    /// A server whose answers never end.
    pub(crate) fn slow(serve: Value) -> Self {
        Self::of(scripted(|_| std::thread::sleep(Duration::from_millis(1))), settings(serve), Keys::default())
    }

    /// A server whose models panic in the middle of an answer.
    pub(crate) fn breaking() -> Self {
        let models = scripted(|tokens| assert!(tokens.len() < 9, "a fault of this test"));
        Self::of(models, settings(json!({})), Keys::default())
    }

    /// A server whose base does not answer, because its one session is taken.
    pub(crate) fn silent(serve: Value) -> Self {
        let models = models::load(&settings(json!({})), wsd(), 1, &mut ()).unwrap();
        let base = models.get(Seat::BASE).unwrap().clone();
        for _ in 0..models::SESSIONS_PER_ANSWER {
            std::mem::forget(futures::executor::block_on(base.open(&[5])).unwrap());
        }
        Self::of(models, settings(serve), Keys::default())
    }

    pub(crate) async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: String) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> (StatusCode, Value) {
        let response = self.raw(method, path, headers, body).await;
        let status = response.status();
        (status, serde_json::from_str(&self::body(response).await).unwrap_or(Value::Null))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send("POST", path, &[], body.to_string()).await
    }

    pub(crate) async fn text(&self, path: &str, body: &Value) -> String {
        self::body(self.raw("POST", path, &[], body.to_string()).await).await
    }

    /// Listens on a free port until the end of the test.
    pub(crate) async fn listen(&self) -> SocketAddr {
        let (address, stop) = self.listen_until_stopped().await;
        std::mem::forget(stop);
        address
    }

    /// Listens until the returned function is called, whose handle finishes when the server has
    /// ended.
    pub(crate) async fn listen_until_stopped(&self) -> (SocketAddr, impl FnOnce() -> tokio::task::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let app = self.app.clone();
        let ended = tokio::spawn(async move {
            let stopped: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async { drop(stopped.await) });
            serve(app, listener, stopped).await
        });
        (address, move || {
            stop.send(()).unwrap();
            ended
        })
    }

    /// Waits until the text of the metrics meets the condition.
    pub(crate) async fn until(&self, meets: impl Fn(&str) -> bool) {
        let waiting = async {
            while !meets(&body(self.raw("GET", "/metrics", &[], String::new()).await).await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!(
                "the metrics never met the condition:\n{}",
                body(self.raw("GET", "/metrics", &[], String::new()).await).await
            );
        }
    }

    /// Waits until no request runs and no engine holds a slot.
    pub(crate) async fn idle(&self) {
        let lines = [
            "vllm:num_requests_running{} 0",
            "wsd_engine_slots{role=\"base\"} 0",
            "wsd_engine_slots{role=\"draft\"} 0",
        ];
        self.until(|text| lines.iter().all(|line| text.contains(line))).await;
    }
}

pub(crate) async fn body(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// A request with further fields.
#[expect(clippy::needless_pass_by_value, reason = "callers build it in place")]
pub(crate) fn ask(mut request: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

pub(crate) fn chat(extra: Value) -> Value {
    ask(json!({"messages": [{"role": "user", "content": "What colour is a fox?"}]}), extra)
}

/// A text of at least `tokens` tokens.
pub(crate) fn long(tokens: usize) -> String {
    "fox ".repeat(tokens)
}

/// The events of a stream, and true if it ended with `[DONE]`.
pub(crate) fn events(body: &str) -> (Vec<Value>, bool) {
    let lines = body.split("\n\n").filter_map(|block| block.strip_prefix("data: "));
    let done = body.ends_with("data: [DONE]\n\n");
    (lines.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect(), done)
}

/// Opens a connection and sends `text`.
pub(crate) async fn connect(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Opens a connection and posts a request.
pub(crate) async fn open(address: SocketAddr, path: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}",
        body.len()
    );
    connect(address, &format!("{head}\r\n\r\n{body}")).await
}

/// Opens a connection and posts a request with a key.
pub(crate) async fn open_as(address: SocketAddr, path: &str, key: &str, body: &Value) -> TcpStream {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n\
         Content-Length: {}",
        body.len()
    );
    connect(address, &format!("{head}\r\n\r\n{body}")).await
}

pub(crate) async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 1 << 16];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
    assert!(read > 0, "the connection was closed");
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}
