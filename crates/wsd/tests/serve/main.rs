//! The server from its clients' side: router and sockets, streams and refusals.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod clients;
mod connections;
mod protocols;
mod settings;
mod structured;
#[path = "../support/mod.rs"]
mod support;
mod variables;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Server, ask, chat, events, long, settings};
use wsd::serve::Keys;
use wsd_core::{THRESHOLD, WINDOW};

fn error(body: &Value) -> (&str, &str) {
    (body["error"]["message"].as_str().unwrap(), body["error"]["param"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn an_answer_names_the_author_of_each_token() {
    let server = Server::builtin();
    let (status, reply) = server.post("/v1/chat/completions", &chat(json!({"wsd": {"tokens": true}}))).await;
    assert_eq!((status, &reply["object"]), (StatusCode::OK, &json!("chat.completion")), "{reply}");
    let (choice, usage) = (&reply["choices"][0], &reply["usage"]);
    let tokens = choice["wsd"]["tokens"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(choice["message"]["content"], json!(text));
    assert_eq!(usage["completion_tokens"], json!(tokens.len()));
    let at = choice["wsd"]["handover"]["at"].as_u64().unwrap() as usize;
    assert!(tokens[..=at].iter().all(|token| token["by"] == "draft"));
    assert!(tokens[at + 1..].iter().all(|token| token["by"] == "base"));
    assert_eq!(choice["wsd"]["by"], json!({"draft": at + 1, "base": tokens.len() - at - 1}));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error() {
    let (server, message) = (Server::breaking(), "the server failed to answer; its log has the cause");
    let (status, reply) = server.post("/v1/completions", &json!({"prompt": "ab", "max_tokens": 20})).await;
    assert_eq!((status, error(&reply).0), (StatusCode::INTERNAL_SERVER_ERROR, message), "{reply}");
    let text = server.text("/v1/completions", &json!({"prompt": "ab", "max_tokens": 20, "stream": true})).await;
    assert!(text.contains(message) && !text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn a_limit_of_minus_one_is_none() {
    let server = Server::builtin();
    for (path, asked) in [
        ("/v1/chat/completions", chat(json!({"max_tokens": -1}))),
        ("/v1/chat/completions", chat(json!({"max_completion_tokens": -1}))),
        ("/v1/completions", json!({"prompt": "A fox", "max_tokens": -1})),
    ] {
        let (status, reply) = server.post(path, &asked).await;
        assert_eq!(status, StatusCode::OK, "{path}: {reply}");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop", "{path}: {reply}");
    }
}

#[tokio::test]
async fn wrong_types_are_named_with_the_right_one() {
    let server = Server::builtin();
    let prompt = "must be a string, a list of strings, a list of token ids, or a list of such lists";
    for (path, asked, message) in [
        ("/v1/completions", json!({"prompt": {"text": "a"}}), format!("`prompt` {prompt}, got {{\"text\":\"a\"}}")),
        ("/v1/completions", json!({"prompt": "a", "echo": 1}), "`echo` must be true or false, got 1".into()),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": 3}]}),
            "`messages[0].content` must be a string or a list of text parts, got 3".into(),
        ),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "robot", "content": "a"}]}),
            "`messages[0].role` must be `system`, `developer`, `user`, `assistant` or `tool`, got \"robot\"".into(),
        ),
        ("/v1/chat/completions", json!({"messages": "a"}), "`messages` must be a list, got \"a\"".into()),
    ] {
        let (status, reply) = server.post(path, &asked).await;
        assert_eq!((status, error(&reply).0), (StatusCode::BAD_REQUEST, &*message), "{path}");
    }
}

#[tokio::test]
async fn a_stream_is_the_answer_in_pieces() {
    let server = Server::builtin();
    let (_, whole) = server.post("/v1/chat/completions", &chat(json!({}))).await;
    let asked = json!({"stream": true, "stream_options": {"include_usage": true}, "wsd": {"tokens": true}});
    let body = server.text("/v1/chat/completions", &chat(asked)).await;
    let (chunks, done) = events(&body);
    assert!(done, "the last line is [DONE]");
    let choices: Vec<_> = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).collect();
    assert_eq!(choices[0]["delta"]["role"], "assistant");
    let text: String = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    assert_eq!(json!(text), whole["choices"][0]["message"]["content"]);
    assert_eq!(
        choices.iter().filter(|choice| choice["wsd"]["handover"]["at"].is_u64()).count(),
        2,
        "at the switch, and last"
    );
    assert_eq!(choices.last().unwrap()["finish_reason"], whole["choices"][0]["finish_reason"]);
    // Times stand in the chunk that ends the answer, and nowhere else.
    let timed: Vec<_> = chunks.iter().filter(|chunk| chunk["timings"].is_object()).collect();
    assert!(timed.len() == 1 && timed[0]["choices"][0]["finish_reason"].is_string(), "{timed:?}");
    assert_eq!(timed[0]["timings"]["predicted_n"], whole["timings"]["predicted_n"]);
    let last = chunks.last().unwrap();
    // The later request finds more of the prompt in the cache.
    let counts = |usage: &Value| ["prompt_tokens", "completion_tokens", "total_tokens"].map(|name| usage[name].clone());
    assert_eq!((&last["choices"], counts(&last["usage"])), (&json!([]), counts(&whole["usage"])));
    assert!(chunks.iter().all(|chunk| chunk["id"] == last["id"] && chunk["object"] == "chat.completion.chunk"));
}

#[tokio::test]
async fn logprobs_are_the_same_in_a_stream() {
    let server = Server::builtin();
    let asked = json!({"logprobs": true, "top_logprobs": 3});
    let (_, whole) = server.post("/v1/chat/completions", &chat(asked.clone())).await;
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert!(content.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 3));
    // The base takes its most likely token.
    let last = content.last().unwrap();
    assert_eq!(
        (&last["token"], &last["logprob"]),
        (&last["top_logprobs"][0]["token"], &last["top_logprobs"][0]["logprob"])
    );
    let mut asked = chat(asked);
    asked["stream"] = json!(true);
    let (chunks, _) = events(&server.text("/v1/chat/completions", &asked).await);
    let lists = chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(lists.flatten().cloned().collect::<Vec<_>>(), content);
}

#[tokio::test]
async fn echoed_prompts_are_scored_by_the_base() {
    let server = Server::builtin();
    let ids: Vec<u32> = serde_json::from_value(
        server.post("/tokenize", &json!({"prompt": "A fox is red.", "model": "base"})).await.1["tokens"].clone(),
    )
    .unwrap();
    let asked = |prompt: Value, max_tokens: usize| {
        let limits = json!({"max_tokens": max_tokens});
        ask(json!({"prompt": prompt, "echo": true, "logprobs": 1}), limits)
    };
    let (status, by_text) = server.post("/v1/completions", &asked(json!("A fox is red."), 0)).await;
    assert_eq!(status, StatusCode::OK, "{by_text}");
    let (_, by_ids) = server.post("/v1/completions", &asked(json!(ids), 0)).await;
    let (_, more) = server.post("/v1/completions", &asked(json!([ids, ids]), 2)).await;
    let logprobs = &by_text["choices"][0]["logprobs"];
    let values = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!((values.len(), &values[0]), (ids.len(), &Value::Null));
    assert_eq!(logprobs, &by_ids["choices"][0]["logprobs"]);
    assert_eq!(logprobs["text_offset"].as_array().unwrap().len(), ids.len());
    for choice in more["choices"].as_array().unwrap() {
        let longer = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!((&longer[..ids.len()], longer.len()), (&values[..], ids.len() + 2));
        assert!(choice["text"].as_str().unwrap().starts_with("A fox is red."));
    }
    // lm-evaluation-harness looks for the most likely token by its text.
    let tops = logprobs["top_logprobs"].as_array().unwrap();
    for (token, top) in logprobs["tokens"].as_array().unwrap().iter().zip(tops).skip(1) {
        assert!(top.get(token.as_str().unwrap()).is_some(), "{token} {top}");
    }
}

// lm-evaluation-harness requests one token and drops the last score, whatever the answer is.
#[tokio::test]
async fn an_echo_has_the_end_of_text_token_of_an_answer_that_ends_at_once() {
    let server = Server::builtin();
    let tokens = async |text: &Value| {
        let (_, reply) = server.post("/tokenize", &json!({"prompt": text, "add_special_tokens": false})).await;
        serde_json::from_value::<Vec<u32>>(reply["tokens"].clone()).unwrap()
    };
    let info: Value =
        serde_json::from_str(&server.text_as("GET", "/tokenizer_info", "", String::new()).await.1).unwrap();
    let (ids, end) = (tokens(&json!("A fox is red.")).await, tokens(&info["eos_token"]).await);
    let scored = |prompt: &[u32], max_tokens: usize| {
        ask(json!({"model": "base", "prompt": prompt, "echo": true, "logprobs": 2}), json!({"max_tokens": max_tokens}))
    };
    let (_, whole) = server.post("/v1/completions", &scored(&[&ids[..], &end[..]].concat(), 0)).await;
    for max_tokens in [1, 4] {
        let mut body = scored(&ids, max_tokens);
        body["logit_bias"] = json!({end[0].to_string(): 100});
        let (status, ended) = server.post("/v1/completions", &body).await;
        assert_eq!(status, StatusCode::OK, "{ended}");
        let choice = &ended["choices"][0];
        assert_eq!(choice["logprobs"], whole["choices"][0]["logprobs"]);
        assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!("A fox is red."), &json!("stop")));
        assert_eq!(ended["usage"]["completion_tokens"], json!(0));
    }
}

#[tokio::test]
async fn n_answers_have_seeds_that_follow_each_other() {
    let server = Server::builtin();
    let random = |seed: u64, n: usize| chat(json!({"temperature": 1.0, "seed": seed, "n": n, "max_tokens": 12}));
    let (_, three) = server.post("/v1/chat/completions", &random(5, 3)).await;
    for (i, choice) in three["choices"].as_array().unwrap().iter().enumerate() {
        let (_, one) = server.post("/v1/chat/completions", &random(5 + i as u64, 1)).await;
        assert_eq!((&choice["message"], &choice["index"]), (&one["choices"][0]["message"], &json!(i)));
        assert_eq!(choice["wsd"]["seed"], json!(5 + i));
    }
    let mut streamed = random(5, 3);
    streamed["stream"] = json!(true);
    let (chunks, _) = events(&server.text("/v1/chat/completions", &streamed).await);
    for (i, choice) in three["choices"].as_array().unwrap().iter().enumerate() {
        let mine =
            chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()).filter(|c| c["index"] == json!(i));
        let text: String = mine.filter_map(|choice| choice["delta"]["content"].as_str()).collect();
        assert_eq!(json!(text), choice["message"]["content"]);
    }
}

#[tokio::test]
async fn prefill_parts_and_strategies() {
    let server = Server::builtin();
    let part = |text: &str| json!({"type": "text", "text": text});
    let user = json!({"role": "user", "content": [part("What colour "), part("is a fox?")]});
    let (_, parts) = server.post("/v1/chat/completions", &json!({"model": "draft", "messages": [user]})).await;
    let (_, plain) = server.post("/v1/chat/completions", &chat(json!({"wsd": {"strategy": "draft"}}))).await;
    assert_eq!(parts["choices"][0]["message"], plain["choices"][0]["message"]);
    assert_eq!((&parts["model"], &plain["model"]), (&json!("draft"), &json!("draft")));
    let begun = json!({"role": "assistant", "content": "A fox"});
    let (status, prefilled) = server
        .post(
            "/v1/chat/completions",
            &json!({"messages": [user, begun], "continue_final_message": true, "stop": ["."]}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{prefilled}");
    assert!(!prefilled["choices"][0]["message"]["content"].as_str().unwrap().contains('.'));
    assert_eq!(prefilled["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn refusals_name_the_parameter() {
    let server = Server::builtin();
    let messages = |extra: Value| chat(extra);
    let text = |extra: Value| ask(json!({"prompt": "A fox"}), extra);
    for (path, body, status, param) in [
        ("/v1/chat/completions", messages(json!({"temprature": 1})), 400, "temprature"),
        ("/v1/chat/completions", messages(json!({"frequency_penalty": 2.5})), 400, "frequency_penalty"),
        ("/v1/chat/completions", messages(json!({"logit_bias": {"5": 101}})), 400, "logit_bias"),
        ("/v1/chat/completions", messages(json!({"response_format": {"type": "xml"}})), 400, "response_format.type"),
        ("/v1/chat/completions", messages(json!({"tools": [{"type": "function"}]})), 400, "tools[0].function"),
        ("/v1/chat/completions", messages(json!({"temperature": -1})), 400, "temperature"),
        ("/v1/chat/completions", messages(json!({"temperature": "hot"})), 400, "temperature"),
        // Both would round to 100 in single precision; the second needs an exact parser too.
        ("/v1/chat/completions", messages(json!({"temperature": 100.000_001})), 400, "temperature"),
        ("/v1/chat/completions", messages(json!({"temperature": 100.000_000_000_000_01})), 400, "temperature"),
        ("/v1/chat/completions", messages(json!({"min_p": -1e-60})), 400, "min_p"),
        ("/v1/chat/completions", messages(json!({"top_p": 0})), 400, "top_p"),
        ("/v1/chat/completions", messages(json!({"n": 17})), 400, "n"),
        ("/v1/chat/completions", messages(json!({"n": 0})), 400, "n"),
        ("/v1/chat/completions", messages(json!({"max_tokens": 0})), 400, "max_tokens"),
        ("/v1/chat/completions", messages(json!({"max_tokens": -2})), 400, "max_tokens"),
        ("/v1/chat/completions", messages(json!({"max_completion_tokens": -3})), 400, "max_completion_tokens"),
        ("/v1/chat/completions", messages(json!({"top_logprobs": 2})), 400, "top_logprobs"),
        ("/v1/chat/completions", messages(json!({"logprobs": true, "top_logprobs": 21})), 400, "top_logprobs"),
        ("/v1/chat/completions", messages(json!({"stop": vec!["a"; 17]})), 400, "stop"),
        ("/v1/chat/completions", messages(json!({"stop": "a".repeat(257)})), 400, "stop"),
        ("/v1/chat/completions", messages(json!({"stop": ""})), 400, "stop"),
        ("/v1/completions", text(json!({"stop": ["a", ""]})), 400, "stop"),
        ("/v1/chat/completions", messages(json!({"stream_options": {"include_usage": true}})), 400, "stream_options"),
        ("/v1/chat/completions", messages(json!({"wsd": {"windw": 3}})), 400, "wsd.windw"),
        ("/v1/chat/completions", messages(json!({"wsd": {"threshold": 1.5}})), 400, "wsd.threshold"),
        ("/v1/chat/completions", messages(json!({"wsd": {"strategy": "magic"}})), 400, "wsd.strategy"),
        ("/v1/chat/completions", messages(json!({"wsd": 1})), 400, "wsd"),
        ("/v1/chat/completions", messages(json!({"model": "gpt-4"})), 404, "model"),
        ("/v1/chat/completions", messages(json!({"continue_final_message": true})), 400, "continue_final_message"),
        ("/v1/chat/completions", json!({"messages": []}), 400, "messages"),
        ("/v1/chat/completions", json!({}), 400, "messages"),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            400,
            "messages[0].tool_call_id",
        ),
        ("/v1/chat/completions", json!({"messages": [{"role": "user"}]}), 400, "messages[0].content"),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            400,
            "messages[0].content[0].type",
        ),
        ("/v1/completions", text(json!({"best_of": 2})), 400, "best_of"),
        ("/v1/completions", text(json!({"use_beam_search": true})), 400, "use_beam_search"),
        ("/v1/completions", text(json!({"stop_token_ids": [1]})), 400, "stop_token_ids"),
        ("/v1/completions", text(json!({"max_tokens": 0})), 400, "max_tokens"),
        ("/v1/completions", text(json!({"logprobs": true})), 400, "logprobs"),
        ("/v1/completions", json!({"prompt": []}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": vec!["a"; 129]}), 400, "prompt"),
        ("/v1/completions", json!({"prompt": vec!["a"; 100], "n": 2}), 400, "n"),
        ("/v1/completions", json!({"prompt": [99_999_999]}), 400, ""),
        ("/v1/completions", json!({"prompt": [7, 8, 9], "model": "base", "n": 17}), 400, "n"),
        ("/v1/completions", json!({"prompt": long(600)}), 400, ""),
        ("/v1/completions", json!({"prompt": long(600), "stream": true}), 400, ""),
        ("/detokenize", json!({"tokens": [99_999_999]}), 400, ""),
        ("/tokenize", json!({"prompt": "a", "moddel": "x"}), 400, "moddel"),
    ] {
        let (got, reply) = server.post(path, &body).await;
        assert_eq!((got.as_u16(), error(&reply).1), (status, param), "{body}\n{reply}");
        let named = param.is_empty() || error(&reply).0.contains(param.rsplit('.').next().unwrap());
        assert!(named || status == 404, "{reply}");
    }
}

#[tokio::test]
async fn parameters_without_effect_are_accepted() {
    let server = Server::builtin();
    let extra = json!({
        "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "tools": null,
        "response_format": {"type": "text"}, "user": "someone", "top_k": -1, "store": false, "max_tokens": 2,
        "stop": null, "seed": -3, "skip_special_tokens": true, "stop_token_ids": [], "bad_words": [],
        "length_penalty": 1.0, "use_beam_search": false, "include_stop_str_in_output": false,
    });
    let (status, reply) = server.post("/v1/chat/completions", &chat(extra)).await;
    assert_eq!((status, &reply["choices"][0]["wsd"]["seed"]), (StatusCode::OK, &json!(-3)), "{reply}");
}

#[tokio::test]
async fn bodies_must_be_small_json_objects() {
    let server = Server::builtin();
    let path = "/v1/chat/completions";
    for (media, body, status) in [
        ("text/plain", "{}".to_owned(), 415),
        ("application/json", "{".to_owned(), 400),
        ("application/json", "[]".to_owned(), 400),
        ("application/json; charset=utf-8", "[".repeat(10_000), 400),
        ("application/json", " ".repeat((2 << 20) + 1), 413),
    ] {
        let (got, reply) = server.send("POST", path, &[("content-type", media)], body).await;
        assert_eq!(got.as_u16(), status, "{reply}");
        assert!(reply["error"]["message"].is_string());
    }
    let (status, reply) = server.send("GET", path, &[], String::new()).await;
    let want = "/v1/chat/completions does not take GET; it takes POST, with a body of JSON";
    assert_eq!((status, error(&reply).0), (StatusCode::METHOD_NOT_ALLOWED, want), "{reply}");
    assert_eq!(server.send("GET", "/nowhere", &[], String::new()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_route_but_health_needs_the_key() {
    let server = Server::new(settings(json!({})), Keys::new(["open sesame"]));
    let open = Server::builtin();
    let (_, document) = open.send("GET", "/openapi.json", &[], String::new()).await;
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 9);
    let own = ["/app.js", "/markdown.js", "/page.json", "/style.css", "/nowhere"];
    for path in paths.keys().map(String::as_str).chain(own) {
        let method = if document["paths"][path]["post"].is_object() { "POST" } else { "GET" };
        let at = path.replace("{model}", "wsd");
        let want = |keyless: StatusCode| if path == "/health" { StatusCode::OK } else { keyless };
        for header in [None, Some("Bearer wrong"), Some("open sesame")] {
            let headers: Vec<_> = header.iter().map(|&value| ("authorization", value)).collect();
            let (status, _) = server.send(method, &at, &headers, "{}".into()).await;
            assert_eq!(status, want(StatusCode::UNAUTHORIZED), "{path} {header:?}");
        }
        let (status, _) = server.send(method, &at, &[("authorization", "Bearer open sesame")], "{}".into()).await;
        assert_ne!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn a_server_for_this_machine_answers_to_its_own_names() {
    let open = Server::with(json!({"allowed_host": ["chat.example"]}));
    let keyed = Server::new(settings(json!({})), Keys::new(["open sesame"]));
    for (host, status) in [
        ("localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("[::1]:8080", 200),
        ("chat.example", 200),
        ("evil.example:8080", 403),
    ] {
        let headers = [("host", host), ("authorization", "Bearer open sesame")];
        assert_eq!(open.send("GET", "/v1/models", &headers, String::new()).await.0.as_u16(), status, "{host}");
        assert_eq!(open.send("GET", "/health", &headers, String::new()).await.0.as_u16(), 200, "{host}");
        assert_eq!(keyed.send("GET", "/v1/models", &headers, String::new()).await.0.as_u16(), 200, "a key is enough");
    }
}

#[tokio::test]
async fn the_models_list_the_server_s_defaults() {
    let mut settings = settings(json!({}));
    settings.values = settings.values.with(&WINDOW, 4usize).unwrap().with(&THRESHOLD, 0.7).unwrap();
    let server = Server::new(settings, Keys::default());
    let (_, models) = server.send("GET", "/v1/models", &[], String::new()).await;
    let defaults = &models["data"][0]["wsd"]["defaults"];
    assert_eq!((&defaults["window"], &defaults["threshold"]), (&json!(4), &json!(0.7)));
    let (_, reply) = server.post("/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(reply["wsd"]["handover"]["window"], json!(4));
}

#[tokio::test]
async fn sixteen_concurrent_answers_are_the_same_as_alone() {
    let server = Server::builtin();
    let questions = ["What colour is a fox?", "Where does a duck live?", "What does a cow eat?", "Is a bear big?"];
    let asked = |i: usize| {
        let strategy = ["wsd", "base", "draft", "wsd"][i / 4];
        json!({"model": strategy, "messages": [{"role": "user", "content": questions[i % 4]}], "logprobs": true})
    };
    let mut alone = Vec::new();
    for i in 0..16 {
        alone.push(server.post("/v1/chat/completions", &asked(i)).await.1["choices"][0].clone());
    }
    let together = futures::future::join_all((0..16).map(|i| {
        let (server, asked) = (&server, asked(i));
        async move { server.post("/v1/chat/completions", &asked).await.1["choices"][0].clone() }
    }))
    .await;
    for (alone, together) in alone.iter().zip(&together) {
        assert_eq!((&alone["message"], &alone["logprobs"]), (&together["message"], &together["logprobs"]));
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let server = Server::slow(json!({"max_concurrent": 1, "max_queue": 1}));
    let address = server.listen().await;
    let endless = json!({"prompt": "ab", "max_tokens": 100_000, "stream": true});
    let first = support::open(address, "/v1/completions", &endless).await;
    let second = support::open(address, "/v1/completions", &endless).await;
    server.until(|metrics| metrics.contains("vllm:num_requests_waiting{} 1")).await;
    let refused = support::read_some(&mut support::open(address, "/v1/completions", &endless).await).await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1\r\n"), "{refused}");
    // The refused request changed nothing.
    server
        .until(|metrics| {
            ["running{} 1", "waiting{} 1"].iter().all(|tail| metrics.contains(&format!("vllm:num_requests_{tail}")))
        })
        .await;
    // The first client leaves, and the second gets its slot.
    drop(first);
    server.until(|metrics| metrics.contains("vllm:num_requests_waiting{} 0")).await;
    drop(second);
    server.idle().await;
}

#[tokio::test]
async fn a_dropped_connection_frees_its_slot_and_disturbs_no_other() {
    let server = Server::slow(json!({}));
    let address = server.listen().await;
    let endless = |stream: bool| json!({"prompt": "ab", "max_tokens": 100_000, "stream": stream});
    let mut neighbor = support::open(address, "/v1/completions", &endless(true)).await;
    for stream in [true, false] {
        let gone = support::open(address, "/v1/completions", &endless(stream)).await;
        server.until(|metrics| metrics.contains("vllm:num_requests_running{} 2")).await;
        drop(gone);
        server.until(|metrics| metrics.contains("vllm:num_requests_running{} 1")).await;
    }
    assert!(support::read_some(&mut neighbor).await.contains("data: "), "the other stream continues");
    drop(neighbor);
    server.idle().await;
}

#[tokio::test]
async fn an_answer_has_a_deadline() {
    let server = Server::slow(json!({"request_timeout_seconds": 1}));
    let endless = json!({"prompt": "ab", "max_tokens": 100_000});
    let (status, reply) = server.post("/v1/completions", &endless).await;
    assert_eq!((status.as_u16(), &reply["error"]["code"]), (504, &json!("timeout")));
    let body = server.text("/v1/completions", &ask(endless, json!({"stream": true}))).await;
    let (chunks, done) = events(&body);
    assert_eq!((&chunks.last().unwrap()["error"]["code"], done), (&json!("timeout"), false));
    server.idle().await;
}

#[tokio::test]
async fn a_silent_stream_sends_keep_alives() {
    let server = Server::silent(json!({"keep_alive_seconds": 1, "request_timeout_seconds": 4}));
    let address = server.listen().await;
    let mut stream = support::open(address, "/v1/completions", &json!({"prompt": "ab", "stream": true})).await;
    let mut heard = String::new();
    while heard.matches(": keep-alive").count() < 2 {
        heard.push_str(&support::read_some(&mut stream).await);
    }
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
    assert!(heard.to_ascii_lowercase().contains("transfer-encoding: chunked"), "{heard}");
}

#[tokio::test]
async fn slow_clients_are_disconnected() {
    let server = Server::with(json!({"header_timeout_seconds": 1}));
    let address = server.listen().await;
    let half_header = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n";
    let half_body = format!("{half_header}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{");
    for text in ["", half_header, &half_body] {
        let mut stream = support::connect(address, text).await;
        support::read_to_end(&mut stream).await;
    }
    let huge = format!("{half_header}X: {}\r\n\r\n", "a".repeat(100_000));
    let mut stream = support::connect(address, &huge).await;
    assert!(support::read_to_end(&mut stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_stopped_server_completes_running_answers() {
    let server = Server::with(json!({}));
    let (address, stop) = server.listen_until_stopped().await;
    let asked = json!({"model": "base", "prompt": "A fox", "max_tokens": 60, "stream": true});
    let mut running = support::open(address, "/v1/completions", &asked).await;
    let first = support::read_some(&mut running).await;
    let ended = stop();
    let rest = first + &support::read_to_end(&mut running).await;
    assert!(rest.contains("[DONE]"), "{rest}");
    assert_eq!(tokio::time::timeout(support::PATIENCE, ended).await.unwrap().unwrap(), 0, "nobody was cut off");
    let (ready, _) = server.send("GET", "/ready", &[], String::new()).await;
    let (late, _) = server.post("/v1/completions", &json!({"prompt": "A fox"})).await;
    assert_eq!((ready.as_u16(), late.as_u16()), (503, 503));
}

#[tokio::test]
async fn the_page_requests_nothing_from_other_servers() {
    let server = Server::builtin();
    let scripts = ["/app.js", "/chart.js", "/markdown.js", "/store.js"].map(|path| (path, "text/javascript"));
    for (path, media) in [("/", "text/html"), ("/style.css", "text/css")].into_iter().chain(scripts) {
        let response = server.raw("GET", path, &[], String::new()).await;
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert!(header("content-type").starts_with(media));
        assert!(header("content-security-policy").starts_with("default-src 'none'"));
        let text = support::body(response).await;
        assert!(!text.contains("https://") && !text.replace("http://www.w3.org/2000/svg", "").contains("http://"));
        let unsafe_words = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("];
        assert!(unsafe_words.iter().all(|word| !text.contains(word)), "{path} would parse a model's text");
    }
}

#[tokio::test]
async fn the_page_knows_the_models_and_questions_to_try() {
    let (status, page) = Server::builtin().send("GET", "/page.json", &[], String::new()).await;
    assert_eq!((status.as_u16(), &page["models"]["draft"]["name"]), (200, &json!("builtin:draft")));
    assert!(page["models"]["base"]["parameters"].as_u64() > Some(2_000_000), "{page}");
    assert!(page["about"].as_str().unwrap().contains("a toy"));
    assert_eq!(page["examples"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_draft_that_ends_before_the_switch_is_told() {
    let server = Server::builtin();
    let request = chat(json!({"max_tokens": 6, "wsd": {"max_draft_tokens": 3, "tokens": true}}));
    let (_, reply) = server.post("/v1/chat/completions", &request).await;
    let end = json!({"at": 3, "reason": "length"});
    assert_eq!((&reply["choices"][0]["wsd"]["draft_end"], &reply["wsd"]["draft_end"]), (&end, &end));
    let mut streamed = request.clone();
    streamed["stream"] = json!(true);
    let response = server.raw("POST", "/v1/chat/completions", &[], streamed.to_string()).await;
    let text = support::body(response).await;
    assert_eq!(text.matches(r#""draft_end":{"at":3,"reason":"length"}"#).count(), 2, "{text}");
}

#[tokio::test]
async fn only_listed_origins_may_call() {
    let origin = [("origin", "https://chat.example")];
    for (named, want) in [(json!([]), None), (json!(["https://chat.example"]), Some("https://chat.example"))] {
        let server = Server::with(json!({"cors": named}));
        let response = server.raw("GET", "/v1/models", &origin, String::new()).await;
        let allowed = response.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!(allowed, want);
    }
}
