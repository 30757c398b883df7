//! OpenAI's Responses, Anthropic's Messages, Ollama's routes, embeddings, and what all replies have.

use axum::http::StatusCode;
use base64::Engine as _;
use serde_json::{Value, json};
use wsd::serve::{IGNORED, Keys, Place};

use crate::support::{self, Server, ask, chat, settings};

/// The answer of the pair to the question of `chat`.
async fn answer(server: &Server) -> String {
    let (_, reply) = server.post("/v1/chat/completions", &chat(json!({}))).await;
    reply["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The named events of a stream.
fn named_events(body: &str) -> Vec<(String, Value)> {
    let block = |block: &str| {
        // Some clients expect the name before the data.
        let (event, data) = block.split_once('\n')?;
        let (event, data) = (event.strip_prefix("event: ")?, data.strip_prefix("data: ")?);
        Some((event.to_owned(), serde_json::from_str(data).unwrap()))
    };
    body.split("\n\n").filter_map(block).collect()
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    let mut names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

#[tokio::test]
async fn a_response_is_the_chat_answer() {
    let server = Server::builtin();
    let text = answer(&server).await;
    let part = json!({"type": "input_text", "text": "What colour is a fox?"});
    for input in [
        json!("What colour is a fox?"),
        json!([{"role": "user", "content": "What colour is a fox?"}]),
        json!([{"type": "reasoning", "id": "r"}, {"type": "message", "role": "user", "content": [part]}]),
    ] {
        let asked = json!({"model": "wsd", "input": input, "metadata": {"a": "b"}, "tools": [{"type": "web_search"}]});
        let (status, reply) = server.post("/v1/responses", &asked).await;
        assert_eq!((status, &reply["object"]), (StatusCode::OK, &json!("response")), "{reply}");
        assert_eq!(reply["output"][0]["content"][0]["text"], json!(text));
        assert_eq!((&reply["status"], &reply["metadata"]["a"]), (&json!("completed"), &json!("b")));
        assert!(reply["usage"]["input_tokens"].as_u64().unwrap() > 0);
        assert!(reply["wsd"]["handover"]["at"].is_u64());
    }
    let (_, cut) = server.post("/v1/responses", &json!({"input": "What is red?", "max_output_tokens": 2})).await;
    assert_eq!(cut["incomplete_details"]["reason"], "max_output_tokens", "{cut}");
    let (_, empty) = server.post("/v1/responses", &json!({"input": [], "max_output_tokens": 1})).await;
    assert_eq!(empty["object"], "response", "{empty}");
}

#[tokio::test]
async fn a_response_streams_the_official_sequence() {
    let server = Server::builtin();
    let body = server.text("/v1/responses", &json!({"input": "What colour is a fox?", "stream": true})).await;
    let events = named_events(&body);
    assert_eq!(
        names(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
    );
    for (index, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(index)));
    }
    let pieces: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
    let last = &events.last().unwrap().1["response"];
    assert_eq!(
        (json!(pieces), json!(answer(&server).await)),
        (last["output"][0]["content"][0]["text"].clone(), json!(pieces))
    );
    assert_eq!(last["id"], events[0].1["response"]["id"]);
}

#[tokio::test]
async fn a_response_goes_on_from_an_earlier_one_of_the_same_client() {
    let server = Server::new(settings(json!({})), Keys::new(["alice", "bob"]));
    let post = |key: &'static str, asked: Value| {
        let server = &server;
        async move {
            let (status, body) = server.text_as("POST", "/v1/responses", key, asked.to_string()).await;
            (status, serde_json::from_str::<Value>(&body).unwrap())
        }
    };
    let (_, first) = post("alice", json!({"input": "What colour is a fox?", "instructions": "Be brief."})).await;
    let again = json!({"input": "And a frog?", "previous_response_id": first["id"]});
    let (status, second) = post("alice", again.clone()).await;
    assert_eq!((status, &second["previous_response_id"]), (200, &first["id"]), "{second}");
    let earlier = json!([
        {"role": "user", "content": "What colour is a fox?"},
        {"role": "assistant", "content": first["output"][0]["content"]},
        {"role": "user", "content": "And a frog?"},
    ]);
    let (_, whole) = post("alice", json!({"input": earlier, "store": false})).await;
    assert_eq!(whole["usage"]["input_tokens"], second["usage"]["input_tokens"], "without the instructions");
    assert_eq!(whole["output"][0]["content"], second["output"][0]["content"]);
    for (key, id) in [("bob", &first["id"]), ("alice", &whole["id"])] {
        let (status, refused) = post(key, json!({"input": "a", "previous_response_id": id})).await;
        assert_eq!((status, &refused["error"]["code"]), (404, &json!("previous_response_not_found")));
    }
}

#[tokio::test]
async fn a_message_is_the_chat_answer() {
    let server = Server::builtin();
    let text = answer(&server).await;
    let block = json!([{"type": "text", "text": "What colour is a fox?", "cache_control": {"type": "ephemeral"}}]);
    for content in [json!("What colour is a fox?"), block] {
        let asked = json!({
            "model": "wsd", "max_tokens": 100, "messages": [{"role": "user", "content": content}],
            "metadata": {"user_id": "x"}, "thinking": {"type": "disabled"},
        });
        let (status, reply) = server.post("/v1/messages?beta=true", &asked).await;
        assert_eq!((status, &reply["type"], &reply["role"]), (StatusCode::OK, &json!("message"), &json!("assistant")));
        assert_eq!(reply["content"], json!([{"type": "text", "text": text}]));
        assert_eq!((&reply["stop_reason"], &reply["stop_sequence"]), (&json!("end_turn"), &Value::Null));
        let counts = ["input_tokens", "cache_read_input_tokens"].map(|name| reply["usage"][name].as_u64().unwrap());
        let (_, counted) = server.post("/v1/messages/count_tokens", &asked).await;
        assert_eq!(counted, json!({"input_tokens": counts[0] + counts[1]}));
    }
    let word = text.split(' ').nth(2).unwrap();
    let stopped = json!({
        "messages": [{"role": "user", "content": "What colour is a fox?"}], "stop_sequences": ["never", word],
    });
    let (_, reply) = server.post("/v1/messages", &stopped).await;
    assert_eq!((&reply["stop_reason"], &reply["stop_sequence"]), (&json!("stop_sequence"), &json!(word)), "{reply}");
    let (_, cut) = server.post("/v1/messages", &ask(stopped, json!({"stop_sequences": [], "max_tokens": 2}))).await;
    assert_eq!(cut["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_message_streams_from_start_to_stop() {
    let server = Server::builtin();
    let messages = json!([{"role": "user", "content": "What colour is a fox?"}]);
    let asked = json!({"messages": messages, "max_tokens": 100, "stream": true});
    let events = named_events(&server.text("/v1/messages", &asked).await);
    assert_eq!(
        names(&events),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    let text: String = events.iter().filter_map(|(_, data)| data["delta"]["text"].as_str()).collect();
    assert_eq!(text, answer(&server).await);
    let delta = &events[events.len() - 2].1;
    assert_eq!(delta["delta"]["stop_reason"], "end_turn");
    assert!(delta["usage"]["output_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn a_system_text_and_earlier_thoughts_are_read() {
    let server = Server::builtin();
    let user = |text: &str| json!({"role": "user", "content": text});
    let thought = json!({"type": "thinking", "thinking": "hm", "signature": "s"});
    let said = json!({"role": "assistant", "content": [thought, {"type": "text", "text": "Red."}]});
    let messages = json!([user("What colour is a fox?"), said, user("And a frog?")]);
    let system = json!([{"type": "text", "text": "Be brief."}]);
    let (_, reply) = server.post("/v1/messages", &json!({"system": system, "messages": messages})).await;
    let plain = json!([
        {"role": "system", "content": "Be brief."}, user("What colour is a fox?"),
        {"role": "assistant", "content": "Red."}, user("And a frog?"),
    ]);
    let (_, other) = server.post("/v1/chat/completions", &json!({"messages": plain})).await;
    assert_eq!(reply["content"][0]["text"], other["choices"][0]["message"]["content"]);
}

#[tokio::test]
async fn errors_have_the_form_of_the_protocol() {
    let server = Server::builtin();
    let said = json!([{"role": "user", "content": "a"}]);
    let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
    for (body, status, kind, words) in [
        (json!({"messages": image}), 400, "invalid_request_error", "messages[0].content[0].type"),
        (json!({"messages": image}), 400, "invalid_request_error", "got image: the models here read no image"),
        (json!({"messages": []}), 400, "invalid_request_error", "messages"),
        (json!({"model": "claude", "messages": said}), 404, "not_found_error", "claude"),
        (
            json!({"messages": [{"role": "user", "content": "a"}], "stop_sequences": 3}),
            400,
            "invalid_request_error",
            "stop_sequences",
        ),
    ] {
        let (got, reply) = server.post("/v1/messages", &body).await;
        assert_eq!((got.as_u16(), &reply["type"], &reply["error"]["type"]), (status, &json!("error"), &json!(kind)));
        assert!(reply["error"]["message"].as_str().unwrap().contains(words), "{reply}");
    }
    for field in [json!({"images": ["AA=="]}), json!({"context": [1]}), json!({"suffix": "a"})] {
        let name = field.as_object().unwrap().keys().next().unwrap().clone();
        let (got, reply) = server.post("/api/generate", &field).await;
        assert_eq!(got, StatusCode::BAD_REQUEST, "{reply}");
        let message = format!("`{name}` is not supported by this server; leave it out");
        assert!(reply["error"].as_str().unwrap().starts_with(&message), "{reply}");
    }
    let (got, reply) = server.post("/api/chat", &json!({"model": "none", "messages": []})).await;
    assert!(got == StatusCode::NOT_FOUND && reply["error"].is_string(), "{reply}");
    let (_, reply) = server.post("/api/chat", &json!({"messages": [], "options": {"temperature": -1}})).await;
    assert!(reply["error"].as_str().unwrap().starts_with("`options.temperature` must be"), "{reply}");
    let keyed = Server::new(settings(json!({})), Keys::new(["sesame"]));
    let (got, reply) = keyed.post("/v1/messages", &json!({})).await;
    assert_eq!((got.as_u16(), &reply["error"]["type"]), (401, &json!("authentication_error")));
    let (got, _) = keyed.send("POST", "/v1/messages", &[("x-api-key", "sesame")], "{}".into()).await;
    assert_eq!(got, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn ollama_clients_chat_and_generate() {
    let server = Server::builtin();
    let text = answer(&server).await;
    let messages = json!([{"role": "user", "content": "What colour is a fox?"}]);
    let asked = json!({
        "model": "wsd:latest", "messages": messages, "keep_alive": "5m",
        "options": {"num_ctx": 4096, "num_predict": -2},
    });
    let body = server.text("/api/chat", &asked).await;
    let lines: Vec<Value> = body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let streamed: String = lines.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(streamed, text);
    let last = lines.last().unwrap();
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("stop")));
    assert!(last["eval_count"].as_u64().unwrap() > 5 && last["total_duration"].as_u64().unwrap() > 0);
    assert!(lines.iter().rev().skip(1).all(|line| line["done"] == false));
    let (_, whole) = server.post("/api/chat", &ask(asked, json!({"stream": false}))).await;
    assert_eq!(whole["message"], json!({"role": "assistant", "content": text}));
    let asked = json!({"model": "wsd", "prompt": "What colour is a fox?", "stream": false});
    let (_, generated) = server.post("/api/generate", &asked).await;
    assert_eq!(generated["response"], json!(text));
    let raw =
        json!({"model": "base", "prompt": "A fox is", "raw": true, "stream": false, "options": {"num_predict": 3}});
    let (_, generated) = server.post("/api/generate", &raw).await;
    let (_, plain) =
        server.post("/v1/completions", &json!({"model": "base", "prompt": "A fox is", "max_tokens": 3})).await;
    assert_eq!((&generated["response"], &generated["done_reason"]), (&plain["choices"][0]["text"], &json!("length")));
    let (_, tags) = server.send("GET", "/api/tags", &[], String::new()).await;
    assert_eq!(tags["models"][0]["name"], "wsd:latest");
    let (_, show) = server.post("/api/show", &json!({"model": "wsd:latest"})).await;
    assert!(show["model_info"]["wsd.context_length"].is_u64() && show["capabilities"][0] == "completion");
    let (_, running) = server.send("GET", "/api/ps", &[], String::new()).await;
    let names = |list: &Value| -> Vec<Value> {
        list["models"].as_array().unwrap().iter().map(|model| model["name"].clone()).collect()
    };
    assert_eq!(names(&running), names(&tags), "every model is loaded");
    assert!(running["models"][0]["size"].as_u64() > Some(0) && running["models"][0]["context_length"].is_u64());
    let (_, version) = server.send("GET", "/api/version", &[], String::new()).await;
    assert!(version["version"].is_string());
}

#[tokio::test]
async fn curl_without_a_media_type_may_ask_as_ollama_s_examples_do() {
    let server = Server::builtin();
    let form = ("content-type", "application/x-www-form-urlencoded");
    let body = json!({"model": "wsd", "prompt": "Hello", "stream": false, "options": {"num_predict": 2}}).to_string();
    let post = async |path: &str, headers: &[(&'static str, &'static str)]| {
        server.send("POST", path, headers, body.clone()).await.0.as_u16()
    };
    assert_eq!(post("/api/generate", &[form]).await, 200);
    assert_eq!(post("/api/generate", &[form, ("origin", "http://evil.example")]).await, 415);
    assert_eq!(post("/api/generate", &[form, ("origin", "null")]).await, 415);
    assert_eq!(post("/v1/chat/completions", &[form]).await, 415);
}

#[tokio::test]
async fn a_client_with_a_name_of_its_own_for_the_model_is_answered() {
    let server = Server::with(json!({"served_model_name": ["gpt-4o", "llama3:latest"]}));
    for name in ["gpt-4o", "llama3:latest", "llama3", "base:latest"] {
        let asked = json!({"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2});
        assert_eq!(server.post("/v1/chat/completions", &asked).await.0, StatusCode::OK, "{name}");
    }
    let (_, tags) = server.send("GET", "/api/tags", &[], String::new()).await;
    let tags: Vec<_> = tags["models"].as_array().unwrap().iter().map(|model| &model["name"]).collect();
    assert!(tags.ends_with(&[&json!("gpt-4o:latest"), &json!("llama3:latest")]), "{tags:?}");
    let (_, list) = server.send("GET", "/v1/models", &[], String::new()).await;
    assert!(list["data"].as_array().unwrap().iter().any(|model| model["id"] == "gpt-4o"), "{list}");
    let other = json!({"model": "gpt-5", "messages": [{"role": "user", "content": "Hello"}]});
    let (status, reply) = server.post("/v1/chat/completions", &other).await;
    let message = reply["error"]["message"].as_str().unwrap();
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(message.ends_with("gpt-4o, llama3:latest, got gpt-5; did you mean `gpt-4o`?"), "{message}");
}

#[tokio::test]
async fn embeddings_are_hidden_states_of_length_one() {
    let server = Server::builtin();
    let (status, reply) = server.post("/v1/embeddings", &json!({"input": ["A fox is red.", "A frog"]})).await;
    assert_eq!((status, reply["data"].as_array().unwrap().len()), (StatusCode::OK, 2), "{reply}");
    assert!(reply["wsd"]["pooling"] == "mean" && reply["wsd"]["about"].as_str().unwrap().contains("not trained"));
    let vector = |reply: &Value| -> Vec<f64> { serde_json::from_value(reply["data"][0]["embedding"].clone()).unwrap() };
    let mean = vector(&reply);
    assert!((mean.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
    let asked = json!({"input": "A fox is red.", "encoding_format": "base64", "model": "base"});
    let (_, encoded) = server.post("/v1/embeddings", &asked).await;
    let bytes = encoded["data"][0]["embedding"].as_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).unwrap();
    let floats: Vec<f64> = bytes.as_chunks::<4>().0.iter().map(|chunk| f64::from(f32::from_le_bytes(*chunk))).collect();
    assert!(floats.len() == mean.len() && floats.iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-6));
    let (_, last) = server.post("/v1/embeddings", &json!({"input": "A fox is red.", "wsd": {"pooling": "last"}})).await;
    assert_ne!(vector(&last), mean);
    for (asked, param) in [
        (json!({"input": []}), "input"),
        (json!({"input": "a", "dimensions": 3}), "dimensions"),
        (json!({"input": "a", "encoding_format": "int8"}), "encoding_format"),
        (json!({"input": "a", "model": "text-embedding-3-small"}), "model"),
    ] {
        let (_, refused) = server.post("/v1/embeddings", &asked).await;
        assert_eq!(refused["error"]["param"], json!(param), "{refused}");
    }
}

#[tokio::test]
async fn fields_without_effect_are_accepted_and_refused_by_a_strict_server() {
    let (server, strict) = (Server::builtin(), Server::with(json!({"strict": true})));
    let plain = answer(&server).await;
    for row in IGNORED {
        let value = json!({"anything": [1, "x"]});
        let (path, asked) = match row.place {
            Place::Request => ("/v1/chat/completions", chat(json!({row.field: value}))),
            Place::StreamOptions => {
                ("/v1/chat/completions", chat(json!({"stream": true, "stream_options": {row.field: value}})))
            }
            Place::Options => ("/api/chat", chat(json!({"stream": false, "options": {row.field: value}}))),
            Place::Message => {
                let message = json!({"role": "user", "content": "What colour is a fox?", row.field: value});
                ("/v1/chat/completions", json!({"messages": [message]}))
            }
        };
        let (status, reply) = server.post(path, &asked).await;
        assert_eq!(status, StatusCode::OK, "{}: {reply}", row.field);
        if row.place == Place::Message {
            assert_eq!(reply["choices"][0]["message"]["content"], json!(plain), "{}", row.field);
        }
        let (status, reply) = strict.post(path, &asked).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{}", row.field);
        assert!(reply.to_string().contains(row.field) && reply.to_string().contains("leave it out"), "{reply}");
    }
}

#[tokio::test]
async fn penalties_and_biases_change_the_text() {
    let server = Server::builtin();
    let tokens = |reply: &Value| -> Vec<u64> {
        let tokens = reply["choices"][0]["wsd"]["tokens"].as_array().unwrap().iter();
        tokens.map(|token| token["id"].as_u64().unwrap()).collect()
    };
    let asked = |more: Value| ask(chat(json!({"model": "base", "wsd": {"tokens": true}})), more);
    let plain = tokens(&server.post("/v1/chat/completions", &asked(json!({}))).await.1);
    for bias in [json!({plain[0].to_string(): -100}), json!([[plain[0], -100.0]])] {
        let (status, biased) = server.post("/v1/chat/completions", &asked(json!({"logit_bias": bias}))).await;
        assert_eq!(status, StatusCode::OK, "{biased}");
        assert!(!tokens(&biased).contains(&plain[0]));
    }
    // Nothing repeats under the strongest penalty, as far as the words last.
    let strong = json!({"repeat_penalty": 100.0, "max_tokens": 8});
    let (_, other) = server.post("/v1/chat/completions", &asked(strong)).await;
    let mut once = tokens(&other);
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), tokens(&other).len());
    // No token follows the same one twice under DRY from one token on.
    let repeats = |tokens: &[u64]| {
        let pairs: Vec<_> = tokens.windows(2).collect();
        (1..pairs.len()).any(|end| pairs[..end].contains(&pairs[end]))
    };
    let dry = json!({
        "dry_multiplier": 100, "dry_base": 1.5, "dry_allowed_length": 1, "dry_penalty_last_n": -1,
        "dry_sequence_breakers": [], "max_tokens": 60, "wsd": {"tokens": true},
    });
    let off = ask(dry.clone(), json!({"dry_multiplier": 0}));
    // Every token ends a sequence here.
    let breakers: Vec<_> = " aeiou.rntsflxdh".chars().map(String::from).collect();
    let broken = ask(dry.clone(), json!({"dry_sequence_breakers": breakers}));
    let mut texts = Vec::new();
    for (body, is_repeated) in [(off, true), (broken, true), (dry, false)] {
        let again = json!({"model": "base", "prompt": "A fox is red. A fox is red. A fox"});
        let (status, reply) = server.post("/v1/completions", &ask(again, body)).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        assert_eq!(repeats(&tokens(&reply)), is_repeated, "{reply}");
        texts.push(reply["choices"][0]["text"].clone());
    }
    assert!(texts[0] == texts[1] && texts[0] != texts[2], "{texts:?}");
    for (field, value) in [
        ("dry_multiplier", json!(-1)),
        ("dry_base", json!(0.5)),
        ("dry_allowed_length", json!(0)),
        ("dry_penalty_last_n", json!(-2)),
        ("dry_sequence_breakers", json!([""])),
        ("dry_sequence_breakers", json!(vec!["x"; 17])),
        ("dry_sequence_breakers", json!(["x".repeat(257)])),
        ("logit_bias", json!({"5": 101})),
        ("logit_bias", json!({"fox": 1})),
        ("logit_bias", json!([5])),
        ("logit_bias", json!(3)),
        ("frequency_penalty", json!(2.5)),
        ("repeat_penalty", json!(0)),
    ] {
        let (_, refused) = server.post("/v1/chat/completions", &chat(json!({field: value}))).await;
        assert_eq!(refused["error"]["param"], json!(field), "{refused}");
    }
}

#[tokio::test]
async fn replies_tell_cached_tokens_and_times() {
    let server = Server::own(settings(json!({})), Keys::default());
    let asked = json!({"model": "base", "prompt": "A fox is red. A frog is green. A crow is black. A swan is",
        "max_tokens": 4});
    let (_, first) = server.post("/v1/completions", &asked).await;
    let (_, second) = server.post("/v1/completions", &asked).await;
    let cached = |reply: &Value| reply["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!((cached(&first), second["timings"]["cache_n"].as_u64()), (0, Some(cached(&second))));
    assert!(cached(&second) >= 16, "{second}");
    let timings = &second["timings"];
    let prompt = second["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(
        (&timings["prompt_n"], &timings["predicted_n"]),
        (&json!(prompt - cached(&second)), &second["usage"]["completion_tokens"])
    );
    assert!(timings["predicted_ms"].as_f64().unwrap() > 0.0);
    server.until(|metrics| metrics.contains("gen_ai_server_time_per_output_token_seconds_count{")).await;
    server.until(|metrics| metrics.contains(&format!("wsd_cached_tokens_total{{}} {}", cached(&second)))).await;
}

#[tokio::test]
async fn paths_are_found_with_a_slash_and_without_a_version() {
    let server = Server::builtin();
    for path in ["/v1/models", "/v1/models/", "/models", "/models/wsd", "/v1/models/wsd/?x=1"] {
        let (status, reply) = server.send("GET", path, &[], String::new()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {reply}");
    }
    for path in ["/chat/completions", "/v1/chat/completions/"] {
        let (status, _) = server.post(path, &chat(json!({"max_tokens": 1}))).await;
        assert_eq!(status, StatusCode::OK, "{path}");
    }
    let (status, reply) = server.send("GET", "/v1/nowhere", &[], String::new()).await;
    assert!(status == StatusCode::NOT_FOUND && reply.to_string().contains("/openapi.json"), "{reply}");
}

#[tokio::test]
async fn every_reply_has_a_request_id() {
    let server = Server::builtin();
    for path in ["/v1/models", "/nowhere", "/health"] {
        let reply = server.raw("GET", path, &[("x-request-id", "mine-7")], String::new()).await;
        assert_eq!(reply.headers()["x-request-id"], "mine-7", "{path}");
        let long = "x".repeat(500);
        let reply = server.raw("GET", path, &[("x-request-id", &long)], String::new()).await;
        assert!(reply.headers()["x-request-id"].to_str().unwrap().starts_with("req_"), "{path}");
    }
}

#[tokio::test]
async fn llama_server_s_routes_describe_the_model() {
    let server = Server::builtin();
    let (_, props) = server.send("GET", "/props", &[], String::new()).await;
    assert!(props["default_generation_settings"]["n_ctx"].is_u64() && props["total_slots"] == 16, "{props}");
    let (_, slots) = server.send("GET", "/slots", &[], String::new()).await;
    assert_eq!((slots.as_array().unwrap().len(), &slots[0]["is_processing"]), (16, &json!(false)));
    let (_, rendered) = server.post("/apply-template", &chat(json!({}))).await;
    assert!(rendered["prompt"].as_str().unwrap().contains("What colour is a fox?"));
    let function = json!({"name": "look_up", "description": "Looks a word up", "parameters": {"type": "object"}});
    let with_tools = chat(json!({"tools": [{"type": "function", "function": function}]}));
    let (_, with) = server.post("/apply-template", &with_tools).await;
    let told = |reply: &Value| reply["prompt"].as_str().unwrap().contains("look_up");
    assert!(told(&with) && !told(&rendered), "{with}");
    let (_, counted) = server.post("/tokenize", &with_tools).await;
    let (_, without) = server.post("/tokenize", &chat(json!({}))).await;
    assert!(counted["count"].as_u64() > without["count"].as_u64(), "{counted}");
    let (_, by_prompt) =
        server.post("/tokenize", &json!({"prompt": "A fox is red.", "add_special_tokens": false})).await;
    let (_, by_content) = server.post("/tokenize", &json!({"content": "A fox is red."})).await;
    assert_eq!(by_prompt["tokens"], by_content["tokens"]);
    let (_, pieces) = server.post("/tokenize", &json!({"content": "A fox", "with_pieces": true})).await;
    assert_eq!(pieces["tokens"][0]["id"], by_content["tokens"][0]);
    let (_, text) = server.post("/detokenize", &json!({"tokens": by_content["tokens"]})).await;
    assert_eq!((&text["content"], &text["prompt"]), (&json!("A fox is red."), &json!("A fox is red.")));
    let (_, refused) = server.post("/tokenize", &json!({})).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("`content`"), "{refused}");
}

/// The table of fields without effect, as docs/api.md has it.
fn ignored_table() -> String {
    let mut text = String::from("| field | of | reason |\n|---|---|---|\n");
    for row in IGNORED {
        text.push_str(&format!("| `{}` | {} | {} |\n", row.field, row.place.name(), row.reason));
    }
    text
}

#[test]
fn the_document_lists_the_fields_without_effect() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
    let text = fs_err::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- fields without effect -->\n\n", "\n<!-- end -->");
    let (before, rest) = text.split_once(begin).unwrap();
    let (table, after) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs_err::write(path, format!("{before}{begin}{}{end}{after}", ignored_table())).unwrap();
        return;
    }
    assert_eq!(
        table,
        ignored_table(),
        "docs/api.md is out of date: run `UPDATE_DOCS=1 cargo test -p wsd --test serve`"
    );
}

#[tokio::test]
async fn a_dropped_stream_of_any_protocol_frees_its_slot() {
    let server = Server::slow(json!({}));
    let address = server.listen().await;
    for (path, asked) in [
        ("/v1/responses", json!({"input": "ab", "max_output_tokens": 100_000, "stream": true})),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": "ab"}], "max_tokens": 100_000, "stream": true}),
        ),
        ("/api/generate", json!({"prompt": "ab", "raw": true, "options": {"num_predict": 100_000}})),
    ] {
        let mut stream = support::open(address, path, &asked).await;
        let heard = support::read_some(&mut stream).await;
        // The scripted pair has no template for conversations, which the first two are.
        assert!(
            heard.starts_with(if path == "/api/generate" { "HTTP/1.1 200" } else { "HTTP/1.1 400" }),
            "{path}: {heard}"
        );
        drop(stream);
        server.idle().await;
    }
}
