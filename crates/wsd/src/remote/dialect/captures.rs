//! Replies recorded from real servers, read by their dialect and compared with transformers on the
//! same checkpoint. The recordings are kept beside the folder that `WSD_DATA` names, outside the
//! repository.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use wsd_core::Sampling;

use super::llama_server::LlamaServer;
use super::openai::OpenAi;
use super::sglang::SgLang;
use super::tests::ids;
use super::vllm::Vllm;
use super::*;
use crate::remote::fault::Fault;
use crate::remote::sse::EventParser;

/// Folders of recordings, the dialect that reads them, and the number of each kind: scores, replies
/// without the requested scores, continuations, replies of the tokenizer, refusals. The rest is of
/// routes that are not used here.
const FOLDERS: [(&str, &dyn Dialect, [usize; 5]); 10] = [
    ("vllm", &Vllm, [7, 0, 8, 3, 13]),
    ("vllm_specdecode", &Vllm, [2, 0, 3, 0, 0]),
    ("vllm_router", &Vllm, [1, 0, 2, 2, 4]),
    ("sglang", &SgLang, [8, 0, 9, 2, 6]),
    ("sglang_router", &SgLang, [1, 0, 1, 0, 11]),
    ("llama_server", &LlamaServer, [7, 0, 2, 3, 5]),
    ("llama_server_spec", &LlamaServer, [0, 0, 2, 0, 0]),
    ("vllm", &OpenAi, [1, 0, 18, 0, 13]),
    ("sglang", &OpenAi, [1, 0, 2, 0, 6]),
    ("llama_cpp_python_example_server", &OpenAi, [0, 4, 1, 0, 2]),
];

/// Settings that may differ from ours: the recordings score and continue in one request, with and
/// without a stream, and show special tokens.
const IGNORED: [&str; 8] = [
    "max_tokens",
    "max_new_tokens",
    "n_predict",
    "stream",
    "logprob_start_len",
    "temperature",
    "parse_special",
    "skip_special_tokens",
];

/// Log-probability of the first token after the first sequence.
const FIRST_LOGPROB: f64 = -3.3883;

/// A recorded request with its reply.
struct Capture {
    name: String,
    path: String,
    body: Value,
    status: u64,
    /// The JSON of the reply, or the events of a stream.
    replies: Vec<Value>,
    /// The reply as it was sent.
    text: String,
}

impl Capture {
    fn open(file: &Path) -> Self {
        let value: Value = serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap();
        let (request, response) = (&value["request"], &value["response"]);
        let chunks = response["sse_chunks"].as_array().into_iter().flatten();
        let stream: String = chunks.map(|chunk| chunk[1].as_str().unwrap()).collect();
        let events = EventParser::default().push(stream.as_bytes()).unwrap();
        let events = events.iter().filter(|event| *event != b"[DONE]");
        let text = match (&response["json"], &response["text"]) {
            (Value::Null, Value::Null) => stream.clone(),
            (Value::Null, text) => text.as_str().unwrap().to_owned(),
            (json, _) => json.to_string(),
        };
        Self {
            name: format!("{}", file.file_stem().unwrap().display()),
            path: request["path"].as_str().unwrap().to_owned(),
            body: request["body"].clone(),
            status: response["status"].as_u64().unwrap_or_default(),
            replies: match &response["json"] {
                Value::Null => events.filter_map(|event| serde_json::from_slice(event).ok()).collect(),
                json => vec![json.clone()],
            },
            text,
        }
    }

    fn model(&self) -> &str {
        self.body["model"].as_str().unwrap_or("base")
    }

    /// A setting of the request, at the top level or among the sampling parameters.
    fn setting(&self, name: &str) -> &Value {
        match &self.body["sampling_params"][name] {
            Value::Null => &self.body[name],
            value => value,
        }
    }

    /// The token ids sent, where they were one list.
    fn list(&self) -> Option<Vec<Token>> {
        let list = ["prompt", "token_ids", "input_ids"].iter().find_map(|name| self.body[name].as_array());
        list?.iter().map(|id| token(id).ok()).collect()
    }

    fn number(&self, names: &[&str]) -> Option<usize> {
        names.iter().find_map(|name| self.setting(name).as_u64()).map(|number| number as usize)
    }

    fn sampling(&self) -> Sampling {
        let temperature = self.setting("temperature").as_f64().unwrap_or(1.0) as f32;
        let seed = ["seed", "sampling_seed"].iter().find_map(|name| self.setting(name).as_u64());
        let top_k = self.number(&["top_k"]).unwrap_or(0);
        Sampling { temperature, top_k, seed: seed.unwrap_or(0), ..Sampling::default() }
    }

    /// Checks that our request equals the recorded one in every field that both have.
    fn assert_agrees(&self, post: &Post) {
        assert_eq!(post.path, self.path, "{}", self.name);
        assert_agree(&post.body, &self.body, &self.name);
    }
}

fn assert_agree(ours: &Value, theirs: &Value, place: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let both = theirs.iter().filter_map(|(key, value)| Some((key, ours.get(key)?, value)));
            both.filter(|(key, ..)| !IGNORED.contains(&key.as_str()))
                .for_each(|(key, ours, theirs)| assert_agree(ours, theirs, &format!("{place}, {key}")));
        }
        (Value::Number(ours), Value::Number(theirs)) => assert_eq!(ours.as_f64(), theirs.as_f64(), "{place}"),
        _ => assert_eq!(ours, theirs, "{place}"),
    }
}

/// A sequence with its scores and its greedy continuation, by transformers.
#[derive(Deserialize)]
struct Sequence {
    ids: Vec<Token>,
    logprobs: Vec<Option<f64>>,
    greedy: Vec<Token>,
}

#[derive(Deserialize)]
struct Reference {
    a: Sequence,
    b: Sequence,
}

impl Reference {
    fn open(folder: &Path) -> Self {
        serde_json::from_slice(&fs_err::read(folder.join("hf_reference.json")).unwrap()).unwrap()
    }

    fn find(&self, fits: impl Fn(&Sequence) -> bool) -> Option<&Sequence> {
        [&self.a, &self.b].into_iter().find(|sequence| fits(sequence))
    }

    /// The scores of a list that is a prefix of one of the sequences.
    fn scores(&self, list: &[Token]) -> Option<&[Option<f64>]> {
        let sequence = self.find(|sequence| sequence.ids.starts_with(list))?;
        Some(&sequence.logprobs[..list.len()])
    }

    /// The greedy continuation of a list.
    fn greedy(&self, list: &[Token]) -> Option<&[Token]> {
        self.find(|sequence| sequence.ids == list).map(|sequence| sequence.greedy.as_slice())
    }

    /// A list with the next token appended.
    fn next(&self, list: &[Token]) -> Option<Vec<Token>> {
        let whole = |sequence: &Sequence| [sequence.ids.as_slice(), &sequence.greedy].concat();
        let sequence = self.find(|sequence| whole(sequence).starts_with(list))?;
        Some(whole(sequence)[..=list.len()].to_vec())
    }
}

/// A recorded score request, with the list it scores.
struct Scored {
    list: Vec<Token>,
    from: usize,
    top: usize,
    scoring: Scoring,
}

/// The score request in a recording, if it is one.
fn scored(dialect: &dyn Dialect, capture: &Capture, reference: &Reference) -> Option<Scored> {
    let list = capture.list()?;
    match (dialect.facts().scheme, capture.path.as_str()) {
        ("vllm", "/v1/completions") if capture.body["stream"] != true => {
            Some(Scored { list, from: 1, top: capture.number(&["prompt_logprobs"])?, scoring: Scoring::Prompt })
        }
        ("vllm", "/inference/v1/generate") => {
            let from = capture.number(&["prompt_logprob_start"])? + 1;
            Some(Scored { list, from, top: 0, scoring: Scoring::Rows })
        }
        ("sglang", "/generate") => {
            let top = capture.number(&["top_logprobs_num"]).unwrap_or(0);
            let from = capture.number(&["logprob_start_len"])? + 1;
            Some(Scored { list, from, top, scoring: Scoring::Prompt })
        }
        ("llama-server", "/completion")
            if capture.body["post_sampling_probs"].is_null() && capture.body["n_predict"] == 1 =>
        {
            let (width, list) = (capture.number(&["n_probs"])?, reference.next(&list)?);
            let ascii_token = token(&capture.body["logit_bias"][0][0]).unwrap_or(17);
            Some(Scored { from: list.len() - 1, list, top: 0, scoring: Scoring::Forced { width, ascii_token } })
        }
        ("openai", "/v1/completions") if capture.body["echo"] == true => {
            Some(Scored { list, from: 1, top: 0, scoring: Scoring::Prompt })
        }
        _ => None,
    }
}

/// Reads the scores of a score request and compares them with transformers. `Some(false)` means
/// that the dialect finds no scores in the reply.
fn score(dialect: &dyn Dialect, capture: &Capture, reference: &Reference) -> Option<bool> {
    let Scored { list, from, top, scoring } = scored(dialect, capture, reference)?;
    let request = ScoreRequest { model: capture.model(), list: &list, from, top, scoring };
    if dialect.facts().scheme != "openai" {
        capture.assert_agrees(&dialect.score(&request).unwrap());
    }
    if capture.status != 200 {
        return None;
    }
    let Ok(Some(scores)) = dialect.parse_scores(&request, &capture.replies[0]) else { return Some(false) };
    assert_eq!(ids(&scores), list[from..], "{}", capture.name);
    assert!(scores.iter().all(|scored| scored.top.len() == top), "{}", capture.name);
    // llama-server was recorded with its default KV cache, of 16 bits.
    let tolerance = if dialect.facts().scheme == "llama-server" { 2e-3 } else { 1e-4 };
    for (i, want) in reference.scores(&list).into_iter().flatten().enumerate().skip(from) {
        let (got, want) = (scores[i - from].logprob.unwrap(), want.unwrap());
        assert!((got - want).abs() < tolerance, "{}: {got} instead of {want} at {i}", capture.name);
    }
    Some(true)
}

/// Reads a continuation and compares it with transformers. Returns false for other recordings.
fn generate(dialect: &dyn Dialect, capture: &Capture, reference: &Reference) -> bool {
    let (Some(list), true) = (capture.list(), capture.status == 200 && is_continuation(dialect, capture)) else {
        return false;
    };
    let request = GenerateRequest {
        model: capture.model(),
        list: &list,
        max_tokens: capture.number(&["max_tokens", "max_new_tokens", "n_predict"]).unwrap_or(16),
        sampling: capture.sampling(),
        top: capture.number(&["top_logprobs_num", "logprobs", "n_probs"]).unwrap_or(0),
        end_tokens: &[1],
    };
    capture.assert_agrees(&dialect.generate(&request));
    let (mut written, mut text, mut stop) = (Vec::new(), None, None);
    for reply in &capture.replies {
        let delta = dialect.parse_delta(&request, reply, written.len());
        let delta = delta.unwrap_or_else(|error| panic!("{}: {error}", capture.name));
        written.extend(delta.tokens);
        text = text.or(delta.text);
        stop = stop.or(delta.stop);
    }
    assert!(stop.is_some(), "{}: it does not end", capture.name);
    if let (Some(greedy), None, 0.0) = (reference.greedy(&list), &text, request.sampling.temperature) {
        assert_eq!(ids(&written), greedy[..request.max_tokens], "{}", capture.name);
        if let Some(first) = written[0].logprob.filter(|_| list.len() <= 9) {
            assert!((first - FIRST_LOGPROB).abs() < 1e-3, "{}: {first}", capture.name);
        }
    }
    true
}

/// True for a continuation on the route and with the fields that we use.
fn is_continuation(dialect: &dyn Dialect, capture: &Capture) -> bool {
    let is_null = |names: &[&str]| names.iter().all(|name| capture.body[name].is_null());
    match (dialect.facts().scheme, capture.path.as_str()) {
        ("vllm", "/v1/completions") => capture.body["return_token_ids"] == true,
        ("sglang", "/generate") => capture.body["sampling_params"]["max_new_tokens"] != 0,
        // We send no stop strings, which add a stop type of their own.
        ("llama-server", "/completion") => capture.body["return_tokens"] == true && is_null(&["stream", "stop"]),
        ("openai", "/v1/completions") => is_null(&["echo", "stream"]),
        _ => false,
    }
}

/// Reads a reply of the tokenizer and compares the request with ours. Returns false for other
/// recordings.
fn tokenize(dialect: &dyn Dialect, capture: &Capture, reference: &Reference) -> bool {
    if capture.status != 200 {
        return false;
    }
    let sequence = &reference.a.ids[1..];
    let asked = match (capture.path.as_str(), ["prompt", "content"].iter().find_map(|name| capture.body[name].as_str()))
    {
        ("/tokenize", Some(text)) => {
            assert!(sequence.starts_with(&tokens(&capture.replies[0]).unwrap()), "{}", capture.name);
            let begin = ["add_special_tokens", "add_special"].iter().any(|name| capture.body[name] == true);
            dialect.tokenize("base", text, begin)
        }
        ("/detokenize", _) => {
            let ids: Vec<_> =
                array(&capture.body["tokens"], "tokens").unwrap().iter().map(|id| token(id).unwrap()).collect();
            assert!(
                text(&capture.replies[0]).unwrap().contains("The license is granted to the user."),
                "{}",
                capture.name
            );
            dialect.detokenize("base", &ids)
        }
        _ => None,
    };
    asked.inspect(|post| capture.assert_agrees(post)).is_some()
}

/// Reads the message of a refusal. Returns false for other recordings.
fn refuse(capture: &Capture) -> bool {
    if capture.status == 200 {
        return false;
    }
    let Fault::Status { said, .. } = Fault::status(capture.status as u16, capture.text.as_bytes(), None) else {
        panic!("{}: not a status", capture.name);
    };
    let said = said.trim_end_matches('…');
    assert!(!said.starts_with('{'), "{}: {said}", capture.name);
    let quoted = json!(said).to_string();
    let words = [said, quoted.trim_matches('"')];
    assert!(words.iter().any(|words| capture.text.contains(words)), "{}: {said}", capture.name);
    true
}

fn recordings() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from).join("../reference/remote_captures");
    if !folder.is_dir() {
        eprintln!("skipped: no recordings beside the data folder (set WSD_DATA)");
        return None;
    }
    Some(folder)
}

#[test]
fn every_recorded_reply_is_read() {
    let Some(folder) = recordings() else { return };
    let reference = Reference::open(&folder);
    for (name, dialect, want) in FOLDERS {
        let files = fs_err::read_dir(folder.join(name)).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| path.extension().is_some_and(|kind| kind == "json"));
        let mut counts = [0; 5];
        for capture in files.map(|file| Capture::open(&file)).filter(|capture| capture.status > 0) {
            let scored = score(dialect, &capture, &reference);
            let is = [
                scored == Some(true),
                scored == Some(false),
                generate(dialect, &capture, &reference),
                tokenize(dialect, &capture, &reference),
                refuse(&capture),
            ];
            counts.iter_mut().zip(is).for_each(|(count, is)| *count += usize::from(is));
        }
        assert_eq!(counts, want, "{name}, read as {}", dialect.facts().name);
    }
}
