//! Several clients of one server: what each may take, and what none learns about others.

use serde_json::{Value, json};
use wsd::serve::Keys;

use super::support::{self, Server, ask, chat, settings};

/// Token ids of a prompt that fills the context of the built-in pair.
fn ids() -> Vec<u32> {
    (10..500).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_answers_repeat_one_list_and_long_replies_are_refused_before_any_work() {
    let server = Server::builtin();
    let echo = |extra: Value| ask(json!({"model": "base", "prompt": [ids(), [5, 6, 7]], "echo": true, "n": 3}), extra);
    let (status, reply) = server.post("/v1/completions", &echo(json!({"logprobs": 2, "max_tokens": 0}))).await;
    assert_eq!(status, 200, "{reply}");
    let choices = reply["choices"].as_array().unwrap();
    let indices: Vec<_> = choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5]);
    for (choice, first) in choices.iter().zip([0, 0, 0, 3, 3, 3]) {
        assert_eq!((&choice["text"], &choice["logprobs"]), (&choices[first]["text"], &choices[first]["logprobs"]));
    }
    assert_eq!(reply["usage"]["prompt_tokens"], json!(490 + 3));
    let values = choices[0]["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!((values.len(), &values[0]), (490, &Value::Null));

    let large = json!({"prompt": vec![ids(); 8], "n": 16, "logprobs": 20, "max_tokens": 400, "echo": true});
    let (status, reply) = server.post("/v1/completions", &large).await;
    assert_eq!((status.as_u16(), &reply["error"]["param"]), (400, &json!("logprobs")), "{reply}");
    assert!(reply["error"]["message"].as_str().unwrap().contains("within about 67108864 bytes, got "), "{reply}");
}

#[tokio::test]
async fn keys_and_salts_do_not_share_prefixes() {
    let server = Server::own(settings(json!({})), Keys::new(["alice", "bob"]));
    let reused = async || {
        let (_, text) = server.text_as("GET", "/metrics", "alice", String::new()).await;
        let values = text.lines().filter(|line| line.starts_with("wsd_engine_reused_tokens{"));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let ask = async |key: &str, salt: Option<&str>| {
        let body = json!({"model": "base", "prompt": ids()[..300], "max_tokens": 1, "cache_salt": salt});
        let (status, reply) = server.text_as("POST", "/v1/completions", key, body.to_string()).await;
        assert_eq!(status, 200, "{reply}");
        let reply: Value = serde_json::from_str(&reply).unwrap();
        reply["choices"][0]["text"].clone()
    };
    let mut seen = reused().await;
    let mut texts = Vec::new();
    for (key, salt, shares) in [
        ("alice", None, false),
        ("bob", None, false),
        ("alice", None, true),
        ("bob", Some("s"), false),
        ("alice", Some("s"), false),
        ("bob", Some("s"), true),
    ] {
        texts.push(ask(key, salt).await);
        let now = reused().await;
        assert_eq!(now > seen, shares, "{key} {salt:?}");
        seen = now;
    }
    assert!(texts.iter().all(|text| *text == texts[0]));
    let (status, reply) =
        server.text_as("POST", "/v1/completions", "bob", json!({"prompt": "a", "cache_salt": ""}).to_string()).await;
    assert!(status == 400 && reply.contains("`cache_salt` must have 1 to 256 bytes"), "{reply}");
}

#[tokio::test]
async fn a_client_that_waits_gets_the_next_slot() {
    let keys = Keys::new(["alice", "bob", "carol", "dave"]);
    let server = Server::slow_with_keys(json!({"max_concurrent": 2, "max_queue": 4}), keys);
    let address = server.listen().await;
    let endless = json!({"prompt": "ab", "max_tokens": 100_000, "stream": true});
    let mut flood = Vec::new();
    for _ in 0..6 {
        flood.push(support::open_as(address, "/v1/completions", "alice", &endless).await);
    }
    server.until_as("alice", |metrics| metrics.contains("vllm:num_requests_waiting{} 4")).await;
    // The queue is full of alice's requests, and still carol's and dave's are admitted, to the spare slots,
    // and bob's is next.
    let _carol = support::open_as(address, "/v1/completions", "carol", &endless).await;
    let _dave = support::open_as(address, "/v1/completions", "dave", &endless).await;
    server.until_as("alice", |metrics| metrics.contains("vllm:num_requests_running{} 4")).await;
    let mut bob = support::open_as(address, "/v1/completions", "bob", &endless).await;
    server.until_as("alice", |metrics| metrics.contains("vllm:num_requests_waiting{} 5")).await;
    flood.drain(..2);
    assert!(support::read_some(&mut bob).await.starts_with("HTTP/1.1 200"));
    let mut heard = String::new();
    while !heard.contains("data: ") {
        heard.push_str(&support::read_some(&mut bob).await);
    }
}

#[tokio::test]
async fn a_client_has_its_share_of_a_minute() {
    let server = Server::new(settings(json!({"client_tokens_per_minute": 20})), Keys::new(["alice", "bob"]));
    let post = async |key: &str| {
        let body = chat(json!({"max_tokens": 8})).to_string();
        server.text_as("POST", "/v1/chat/completions", key, body).await
    };
    assert_eq!(post("alice").await.0, 200);
    let (status, reply) = post("alice").await;
    assert!(status == 429 && reply.contains("20 tokens a minute"), "{reply}");
    assert_eq!(post("bob").await.0, 200);
}

#[test]
#[cfg(unix)]
fn files_that_cannot_be_keys_are_refused_before_anything_is_loaded() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    for (content, mode, reason) in [
        ("secret-one\n", 0o666, "everybody may change it (mode 666)\n  hint: chmod 600"),
        ("secret-one\nsecret two\n", 0o600, "line 2: a key must be 1 to 4096 visible ASCII characters"),
        ("\n\n", 0o600, "the API key is empty"),
        ("<!doctype html>", 0o600, "it is an HTML page"),
    ] {
        fs_err::write(&path, content).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wsd"));
        let output = command.args(["serve", "--port", "0", "--api-key-file"]).arg(&path).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(reason) && !told.contains("secret"), "{told}");
    }
}
