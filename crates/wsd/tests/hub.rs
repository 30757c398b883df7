//! Resolution, download and caching of models, with a fake hub on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fs_err as fs;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use wsd::hub::{AccessToken, HubError, HubOptions, Progress, resolve};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Debug, Clone)]
struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body that are sent before the connection closes.
    sent: usize,
}

impl Answer {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, headers: Vec::new(), sent: body.len(), body }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn cut(self, sent: usize) -> Self {
        Self { sent: sent.min(self.sent), ..self }
    }

    /// The file, or the requested range of it.
    fn file(request: &Request, body: &[u8]) -> Self {
        let Some(range) = request.headers.get("range") else { return Self::new(200, body) };
        let offset: usize = range["bytes=".len()..].trim_end_matches('-').parse().unwrap();
        if offset >= body.len() {
            return Self::new(416, "");
        }
        Self::new(206, &body[offset..])
            .with("content-range", format!("bytes {offset}-{}/{}", body.len() - 1, body.len()))
    }
}

type Handler = Box<dyn Fn(&Request, usize) -> Answer + Send + Sync>;

/// A server that answers with a function of the request and of the number of earlier requests with
/// the same method and path.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(handler: Handler) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler) = (Arc::clone(&requests), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || serve(&stream.unwrap(), &seen, &handler));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn count(&self, method: &str, end: &str) -> usize {
        self.requests().iter().filter(|request| request.method == method && request.path.ends_with(end)).count()
    }
}

fn serve(mut stream: &TcpStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())))
        .collect();
    let request = Request { method, path, headers };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|old| old.method == request.method && old.path == request.path).count();
        seen.push(request.clone());
        before
    };
    let answer = handler(&request, before);
    let mut head =
        format!("HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    // In some tests the client disconnects early.
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    if request.method != "HEAD" {
        let _ = stream.write_all(&answer.body[..answer.sent]);
    }
}

type Files = BTreeMap<&'static str, Vec<u8>>;

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_large(file: &str) -> bool {
    file.ends_with(".safetensors") || file.ends_with(".gguf")
}

fn weights() -> Vec<u8> {
    bytes(300_000, 1)
}

fn whole() -> Files {
    Files::from([
        ("README.md", b"not needed".to_vec()),
        ("config.json", b"{\"model_type\":\"x\"}".to_vec()),
        ("consolidated.safetensors", bytes(10, 9)),
        ("model.safetensors", weights()),
        ("tokenizer.json", b"{}".to_vec()),
        ("tokenizer_config.json", b"{\"a\":1}".to_vec()),
    ])
}

fn sharded() -> Files {
    let index = r#"{"weight_map":{"a":"model-1.safetensors","b":"model-2.safetensors","c":"model-1.safetensors"}}"#;
    let mut files = whole();
    files.remove("model.safetensors");
    files.insert("model.safetensors.index.json", index.into());
    files.insert("model-1.safetensors", bytes(2_000, 1));
    files.insert("model-2.safetensors", bytes(3_000, 2));
    files
}

/// The hub's answer about `org/name` with these files. Large ones redirect to `store`.
fn answer(files: &Files, store: &str, request: &Request) -> Answer {
    if let Some(revision) = request.path.strip_prefix("/api/models/org/name/revision/") {
        if ![COMMIT, "main", "refs%2Fpr%2F1"].contains(&revision) {
            return Answer::new(404, "").with("x-error-code", "RevisionNotFound");
        }
        let siblings: Vec<_> = files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
        return Answer::new(200, serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string());
    }
    let Some(file) = request.path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) else {
        return Answer::new(404, "").with("x-error-code", "RepoNotFound");
    };
    match files.get(file) {
        Some(body) if is_large(file) => Answer::new(302, "moved")
            .with("location", format!("{store}/{file}?signature=x"))
            .with("x-linked-etag", format!("\"{}\"", sha256(body)))
            .with("x-linked-size", body.len().to_string()),
        Some(body) => Answer::file(request, body).with("etag", format!("W/\"git-{}-{}\"", file.len(), body.len())),
        None => Answer::new(404, "").with("x-error-code", "EntryNotFound"),
    }
}

/// Replaces the usual answer where it returns one.
type Twist = fn(&Request, usize) -> Option<Answer>;

fn usual(_: &Request, _: usize) -> Option<Answer> {
    None
}

/// A hub, a storage host and an empty cache.
struct World {
    hub: Server,
    store: Server,
    folder: TempDir,
}

impl World {
    fn new(files: Files, at_hub: Twist, at_store: Twist) -> Self {
        let stored = files.clone();
        let store = Server::start(Box::new(move |request, before| {
            let file = request.path.trim_start_matches('/').split('?').next().unwrap();
            at_store(request, before).unwrap_or_else(|| Answer::file(request, &stored[file]))
        }));
        let address = store.address.clone();
        let hub = Server::start(Box::new(move |request, before| {
            at_hub(request, before).unwrap_or_else(|| answer(&files, &address, request))
        }));
        Self { hub, store, folder: tempfile::tempdir().unwrap() }
    }

    fn options(&self) -> HubOptions {
        HubOptions {
            cache: self.folder.path().join("hub"),
            endpoint: self.hub.address.clone(),
            token: AccessToken::from_text("hf_secret"),
            offline: false,
            attempts: 3,
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_secs(2),
            timeout: Duration::from_secs(5),
        }
    }

    fn resolve(&self, name: &str) -> Result<PathBuf, HubError> {
        resolve(name, &self.options(), &mut Tally::default())
    }

    fn error(&self, name: &str) -> String {
        self.resolve(name).unwrap_err().to_string()
    }

    fn requests(&self) -> usize {
        self.hub.requests().len() + self.store.requests().len()
    }

    fn repository(&self) -> PathBuf {
        self.options().cache.join("models--org--name")
    }

    fn blob(&self, bytes: &[u8]) -> PathBuf {
        self.repository().join("blobs").join(sha256(bytes))
    }
}

#[derive(Default)]
struct Tally {
    started: Vec<(String, Option<u64>)>,
    bytes: u64,
    finished: usize,
    waited: Vec<String>,
}

impl Progress for Tally {
    fn start(&mut self, file: &str, total: Option<u64>) {
        self.started.push((file.into(), total));
        self.bytes = 0;
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    fn finish(&mut self) {
        self.finished += 1;
    }
    fn note(&mut self, reason: &str) {
        self.waited.push(reason.into());
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_model_is_laid_out_as_huggingface_hub_does_and_fetched_once() {
    let world = World::new(whole(), usual, usual);
    let mut tally = Tally::default();
    let path = resolve("org/name", &world.options(), &mut tally).unwrap();
    assert_eq!(path, world.repository().join("snapshots").join(COMMIT));
    assert_eq!(names(&path), ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    assert_eq!(fs::read_to_string(world.repository().join("refs/main")).unwrap(), COMMIT);
    let mut blobs = vec!["git-11-18".to_owned(), "git-14-2".into(), "git-21-7".into(), sha256(&weights())];
    blobs.sort();
    assert_eq!(names(&world.repository().join("blobs")), blobs);
    #[cfg(unix)]
    assert_eq!(fs::read_link(path.join("config.json")).unwrap(), Path::new("../../blobs/git-11-18"));
    assert_eq!((tally.finished, tally.bytes), (4, 300_000));
    assert_eq!(tally.started[3], ("model.safetensors".into(), Some(300_000)));

    let before = world.requests();
    assert_eq!(world.resolve("org/name").unwrap(), path);
    assert_eq!(world.resolve("org/name@main").unwrap(), path);
    assert_eq!(world.resolve(&format!("org/name@{COMMIT}")).unwrap(), path);
    assert_eq!(resolve("org/name", &HubOptions { offline: true, ..world.options() }, &mut tally).unwrap(), path);
    assert_eq!(wsd::hub::text_files("org/name", &world.options()).unwrap(), Some(path.clone()));
    assert_eq!(wsd::hub::text_files(path.to_str().unwrap(), &world.options()).unwrap(), Some(path));
    for unknown in ["org/other", "no name at all", "/nowhere"] {
        assert_eq!(wsd::hub::text_files(unknown, &world.options()).unwrap(), None);
    }
    assert_eq!(world.requests(), before, "what is cached needs no request");
}

#[test]
fn the_token_is_sent_to_the_hub_only() {
    let world = World::new(whole(), usual, usual);
    world.resolve("org/name").unwrap();
    let token = |request: &Request| request.headers.get("authorization").cloned();
    assert!(world.hub.requests().iter().all(|request| token(request).as_deref() == Some("Bearer hf_secret")));
    assert!(!world.store.requests().is_empty());
    assert!(world.store.requests().iter().all(|request| token(request).is_none()));
}

#[test]
fn a_redirect_on_the_hub_itself_is_followed_with_the_token() {
    let small = ["config.json", "tokenizer.json", "model.safetensors"];
    let files: Files = small.into_iter().map(|file| (file, file.into())).collect();
    let hub = Server::start(Box::new(move |request, _| {
        if let Some(rest) = request.path.strip_prefix("/org/name/resolve/") {
            return Answer::new(307, "").with("location", format!("/moved/{rest}")).with("etag", "W/\"no\"");
        }
        match request.path.strip_prefix(&format!("/moved/{COMMIT}/")) {
            Some(file) => Answer::file(request, &files[file]).with("etag", format!("\"e-{file}\"")),
            None => answer(&files, "", request),
        }
    }));
    let world = World::new(whole(), usual, usual);
    let options = HubOptions { endpoint: hub.address.clone(), ..world.options() };
    resolve("org/name", &options, &mut Tally::default()).unwrap();
    let blobs = names(&world.repository().join("blobs"));
    assert_eq!(blobs, ["e-config.json", "e-model.safetensors", "e-tokenizer.json"]);
    assert!(hub.requests().iter().all(|request| request.headers.contains_key("authorization")));
    assert_eq!(world.requests(), 0, "only the given endpoint is used");
}

#[test]
fn shards_come_from_the_index_and_a_missing_one_is_fetched() {
    let world = World::new(sharded(), usual, usual);
    let name = "org/name@refs/pr/1";
    let path = world.resolve(name).unwrap();
    let second = &sharded()["model-2.safetensors"];
    assert_eq!(&fs::read(path.join("model-2.safetensors")).unwrap(), second);
    assert!(!path.join("consolidated.safetensors").exists());
    assert_eq!(fs::read_to_string(world.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);
    assert_eq!(world.store.requests().len(), 2);

    fs::remove_file(world.blob(second)).unwrap();
    let offline = HubOptions { offline: true, ..world.options() };
    let message = resolve(name, &offline, &mut Tally::default()).unwrap_err().to_string();
    assert!(message.contains("missing model-2.safetensors") && message.contains("models--org--name"), "{message}");
    assert_eq!(world.resolve(name).unwrap(), path);
    assert_eq!(world.store.requests().len(), 3, "only the missing shard is fetched");
}

#[test]
fn an_index_that_names_an_absent_shard_is_refused() {
    let mut files = sharded();
    files.remove("model-2.safetensors");
    let world = World::new(files, usual, usual);
    let message = world.error("org/name");
    assert!(message.contains("names model-2.safetensors, which the repository does not hold"), "{message}");
    assert!(!world.repository().join("refs/main").exists(), "an incomplete revision is not recorded");
}

#[test]
fn one_gguf_file_is_fetched_alone() {
    let mut files = whole();
    files.insert("Q4/m.gguf", b"GGUF and more".to_vec());
    let world = World::new(files, usual, usual);
    let path = world.resolve("org/name:Q4/m.gguf").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"GGUF and more");
    assert_eq!(names(&world.repository().join("blobs")).len(), 1);
    let before = world.requests();
    assert_eq!(world.resolve("org/name:Q4/m.gguf").unwrap(), path);
    assert_eq!(world.resolve(path.to_str().unwrap()).unwrap(), path, "a path that exists wins");
    assert_eq!(world.requests(), before);
    let message = world.error("org/name:m.gguf");
    assert!(message.contains("file `m.gguf`") && message.contains("its GGUF files are Q4/m.gguf"), "{message}");
    assert_eq!(world.resolve("org/name").unwrap(), world.repository().join("snapshots").join(COMMIT));
}

#[test]
fn a_broken_connection_is_resumed_where_it_broke() {
    let cut: Twist = |request, before| (before < 6).then(|| Answer::file(request, &weights()).cut(40_000));
    let world = World::new(whole(), usual, cut);
    let mut tally = Tally::default();
    let path = resolve("org/name", &world.options(), &mut tally).unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = world.store.requests().iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges.len(), 7, "more failures than `attempts`, but each with progress");
    assert_eq!((ranges[0].as_deref(), ranges[6].as_deref()), (None, Some("bytes=240000-")));
    assert_eq!(tally.bytes, 300_000);
}

#[test]
fn a_partial_file_of_an_earlier_run_is_continued() {
    let world = World::new(whole(), usual, usual);
    let partial = world.blob(&weights()).with_extension("incomplete");
    fs::create_dir_all(world.repository().join("blobs")).unwrap();
    let cases = [
        ("begun", weights()[..1000].to_vec(), vec![Some("bytes=1000-")]),
        ("longer than the file", vec![0; 400_000], vec![None]),
        ("complete but not renamed", weights(), vec![]),
        ("other bytes", vec![7; 1000], vec![Some("bytes=1000-"), None]),
        ("other bytes of the full length", vec![7; 300_000], vec![None]),
    ];
    for (case, left, ranges) in cases {
        let before = world.store.requests().len();
        fs::write(&partial, left).unwrap();
        let path = world.resolve("org/name").unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights(), "{case}");
        assert!(!partial.exists(), "{case}");
        let asked = world.store.requests();
        let asked: Vec<_> =
            asked[before..].iter().map(|request| request.headers.get("range").map(String::as_str)).collect();
        assert_eq!(asked, ranges, "{case}");
        fs::remove_file(world.blob(&weights())).unwrap();
    }
}

#[test]
fn a_server_that_cannot_resume_restarts_and_does_not_loop() {
    let once: Twist = |_, before| Some(Answer::new(200, weights()).cut(if before == 0 { 100_000 } else { 300_000 }));
    let world = World::new(whole(), usual, once);
    let path = world.resolve("org/name").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());

    let world = World::new(whole(), usual, |_, _| Some(Answer::new(200, weights()).cut(100_000)));
    let message = world.error("org/name");
    assert!(message.contains("model.safetensors") && message.contains("cannot be read"), "{message}");
    assert_eq!(world.store.requests().len(), 3);
}

#[test]
fn a_range_other_than_the_one_asked_for_is_not_appended() {
    let shifted: Twist = |request, _| {
        let range = request.headers.contains_key("range");
        range.then(|| Answer::new(206, &weights()[5..]).with("content-range", "bytes 5-299999/300000"))
    };
    let world = World::new(whole(), usual, shifted);
    fs::create_dir_all(world.repository().join("blobs")).unwrap();
    fs::write(world.blob(&weights()).with_extension("incomplete"), &weights()[..1000]).unwrap();
    let path = world.resolve("org/name").unwrap();
    assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn damaged_bytes_are_refused_and_removed() {
    let damaged: Twist = |_, _| {
        let mut body = weights();
        body[1234] ^= 1;
        Some(Answer::new(200, body))
    };
    let world = World::new(whole(), usual, damaged);
    let message = world.error("org/name");
    assert!(message.contains("is damaged") && message.contains(&sha256(&weights())), "{message}");
    assert_eq!(world.store.requests().len(), 1);
    let blobs = names(&world.repository().join("blobs"));
    assert!(blobs.iter().all(|name| name.starts_with("git-")), "{blobs:?}");
}

#[test]
fn a_body_of_another_length_is_refused() {
    let twists: [Twist; 2] =
        [|_, _| Some(Answer::new(200, bytes(200_000, 1))), |_, _| Some(Answer::new(200, bytes(400_000, 1)))];
    for twist in twists {
        let message = World::new(whole(), usual, twist).error("org/name");
        assert!(message.contains("must have 300000 bytes, got"), "{message}");
    }
}

#[test]
fn refusals_have_hints() {
    let cases: [(Twist, &[&str]); 5] = [
        (
            |_, _| Some(Answer::new(403, "").with("x-error-code", "GatedRepo").with("x-error-message", "ask first")),
            &["gated: ask first", "accept the licence on http", "/org/name", "HF_TOKEN", "403"],
        ),
        (|_, _| Some(Answer::new(401, "")), &["private or gated, or does not exist", "HF_TOKEN", "401"]),
        (|_, _| Some(Answer::new(404, "").with("x-error-code", "RepoNotFound")), &["repository `org/name` is not on"]),
        (|_, _| Some(Answer::new(404, "")), &["`org/name` at revision `main` is not on", "no local file"]),
        (|_, _| Some(Answer::new(200, "<html>a portal</html>")), &["/api/models/org/name/revision/main is malformed"]),
    ];
    for (twist, parts) in cases {
        let world = World::new(whole(), twist, usual);
        let message = world.error("org/name");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!message.contains("hf_secret"));
        assert_eq!(world.requests(), 1, "a refusal is not repeated");
    }
    let message = World::new(whole(), usual, usual).error("org/name@v9");
    assert!(message.contains("revision `v9` of `org/name`"), "{message}");
}

#[test]
fn a_busy_hub_is_retried_and_then_given_up() {
    let busy: Twist = |request, before| match before {
        0 if request.path.starts_with("/api") => Some(Answer::new(429, "").with("retry-after", "1")),
        1 if request.path.starts_with("/api") => Some(Answer::new(503, "")),
        _ => None,
    };
    let world = World::new(whole(), busy, usual);
    let start = Instant::now();
    let mut tally = Tally::default();
    resolve("org/name", &world.options(), &mut tally).unwrap();
    // The first line tells that the name is looked for on the hub.
    let first = &tally.waited[1];
    assert!(first.contains("HTTP 429") && first.ends_with("trying again in 1.0 s"), "{:?}", tally.waited);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After counts");
    assert_eq!(world.hub.count("GET", "/revision/main"), 3);

    let world = World::new(whole(), |_, _| Some(Answer::new(500, "")), usual);
    assert!(world.error("org/name").contains("HTTP 500"));
    assert_eq!(world.requests(), 3);

    let world = World::new(whole(), |_, _| Some(Answer::new(429, "").with("retry-after", "3600")), usual);
    assert!(world.error("org/name").contains("asks to wait 3600 s"));
    assert_eq!(world.requests(), 1, "an hour is not waited for");
}

#[test]
fn an_expired_signed_address_is_renewed() {
    let world = World::new(whole(), usual, |_, before| (before == 0).then(|| Answer::new(403, "expired")));
    world.resolve("org/name").unwrap();
    assert_eq!(world.hub.count("GET", "/model.safetensors"), 2);
}

#[test]
fn a_server_without_a_reply_is_given_up() {
    let slow: Twist = |_, _| {
        std::thread::sleep(Duration::from_secs(2));
        None
    };
    let world = World::new(whole(), slow, usual);
    let options = HubOptions { timeout: Duration::from_millis(100), ..world.options() };
    let message = resolve("org/name", &options, &mut Tally::default()).unwrap_err().to_string();
    assert!(message.contains("cannot be read") && message.contains("the reply did not come within 0.2 s"), "{message}");
    assert_eq!(world.requests(), 3);
}

#[test]
fn a_refused_connection_is_retried_once() {
    let world = World::new(whole(), usual, usual);
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = HubOptions { endpoint: format!("http://{address}"), attempts: 5, ..world.options() };
    let mut tally = Tally::default();
    let message = resolve("org/name", &options, &mut tally).unwrap_err().to_string();
    assert!(message.contains("cannot be read") && message.contains("hint: check the network"), "{message}");
    assert_eq!(tally.waited.len(), 2, "a refused connection is retried once: {:?}", tally.waited);
}

#[test]
fn offline_sends_no_request_and_names_the_folder_searched() {
    let world = World::new(whole(), usual, usual);
    let options = HubOptions { offline: true, ..world.options() };
    let message = resolve("org/name", &options, &mut Tally::default()).unwrap_err().to_string();
    for part in ["`org/name`", "missing revision `main`", "models--org--name", "hint: run once without --offline"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(world.requests(), 0);
    assert!(!options.cache.exists(), "a search creates nothing");
}

#[test]
fn two_processes_download_each_file_once() {
    let slow: Twist = |_, _| {
        std::thread::sleep(Duration::from_millis(300));
        None
    };
    let world = World::new(whole(), usual, slow);
    let run = || {
        let mut tally = Tally::default();
        let path = resolve("org/name", &world.options(), &mut tally).unwrap();
        assert_eq!(fs::read(path.join("model.safetensors")).unwrap(), weights());
        tally.waited
    };
    let waited = std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.map(|thread| thread.join().unwrap()).concat()
    });
    let second = "model.safetensors: waiting for another process that downloads it";
    assert!(waited.iter().any(|reason| reason == second), "{waited:?}");
    assert_eq!(world.store.requests().len(), 1);
    assert_eq!(names(&world.repository().join("blobs")).len(), 4, "no temporary file is left");
    assert_eq!(names(&world.repository().join("snapshots").join(COMMIT)).len(), 4);
}

#[test]
fn pickles_are_refused_before_anything_is_fetched() {
    let mut files = whole();
    files.remove("model.safetensors");
    files.insert("pytorch_model.bin", b"cos\nsystem".to_vec());
    let world = World::new(files, usual, usual);
    let message = world.error("org/name");
    let parts = ["pytorch_model.bin", "pickles", "hint:"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    assert_eq!(world.requests(), 1);
}

#[test]
fn an_existing_path_wins_and_an_invalid_name_is_refused() {
    let world = World::new(whole(), usual, usual);
    let folder = world.folder.path().join("model");
    fs::create_dir(&folder).unwrap();
    assert_eq!(world.resolve(folder.to_str().unwrap()).unwrap(), folder);
    let file = folder.join("weights.bin");
    fs::write(&file, "PK").unwrap();
    assert_eq!(world.resolve(file.to_str().unwrap()).unwrap(), file);
    assert_eq!(world.error("./no/such/model"), "./no/such/model: there is no such file or folder");
    let message = world.error("no/such/model");
    assert!(
        message.contains("no file or folder has this path") && message.contains("not a hub name because"),
        "{message}"
    );
    let options = HubOptions { endpoint: "hub.example".into(), ..world.options() };
    let message = resolve("org/name", &options, &mut Tally::default()).unwrap_err().to_string();
    assert!(message.contains("HF_ENDPOINT must begin with http"), "{message}");
    assert_eq!(world.requests(), 0);
}
