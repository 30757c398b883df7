//! Constrained answers and calls of tools, from a client's side.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::error;
use super::support::{Server, ask, chat, events};

const PATH: &str = "/v1/chat/completions";

fn person() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age"],
        "properties": {"name": {"enum": ["Ann", "Bob"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    })
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": "A tool", "parameters": person()}})
}

/// Joins the deltas of a stream into a message.
fn joined(chunks: &[Value]) -> (Value, Value) {
    let (mut text, mut calls, mut reason) = (String::new(), Vec::<Value>::new(), Value::Null);
    for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
        text += choice["delta"]["content"].as_str().unwrap_or_default();
        for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = part["index"].as_u64().unwrap() as usize;
            if index == calls.len() {
                assert!(part["id"].as_str().is_some_and(|id| id.len() == 9) && part["type"] == "function");
                calls.push(json!({"name": part["function"]["name"], "arguments": ""}));
            }
            let arguments = calls[index]["arguments"].as_str().unwrap().to_owned();
            calls[index]["arguments"] = json!(arguments + part["function"]["arguments"].as_str().unwrap());
        }
        if !choice["finish_reason"].is_null() {
            reason = choice["finish_reason"].clone();
        }
    }
    (json!({"content": text, "calls": calls}), reason)
}

#[tokio::test]
async fn answers_are_valid_under_every_strategy() {
    let server = Server::builtin();
    let format = json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": person()}});
    for model in ["wsd", "base", "draft", "nudging", "speculative"] {
        for temperature in [0.0, 1.0] {
            let asked = json!({"model": model, "response_format": format, "temperature": temperature, "seed": 3});
            let (status, reply) = server.post(PATH, &chat(asked)).await;
            assert_eq!(status, StatusCode::OK, "{model}: {reply}");
            let text = reply["choices"][0]["message"]["content"].as_str().unwrap();
            let value: Value = serde_json::from_str(text).expect(text);
            assert!(
                jsonschema::is_valid(&person(), &value) && reply["choices"][0]["finish_reason"] == "stop",
                "{reply}"
            );
        }
    }
}

#[tokio::test]
async fn the_base_continues_the_draft_s_json() {
    let server = Server::builtin();
    let mut switched = 0;
    for seed in 0..6 {
        let wsd = json!({"threshold": 0.0001, "window": 3, "tokens": true});
        let asked = json!({"response_format": {"type": "json_schema", "json_schema": {"schema": person()}},
                           "seed": seed, "temperature": 1.0, "wsd": wsd, "logprobs": true});
        let (_, reply) = server.post(PATH, &chat(asked)).await;
        let choice = &reply["choices"][0];
        assert!(jsonschema::is_valid(
            &person(),
            &serde_json::from_str(choice["message"]["content"].as_str().unwrap()).unwrap()
        ));
        switched += usize::from(choice["wsd"]["by"]["base"].as_u64().unwrap_or(0) > 0);
    }
    assert!(switched > 0, "no hand-over within an answer");
}

#[tokio::test]
async fn every_field_of_a_constraint_is_followed() {
    let server = Server::builtin();
    for (fields, fits) in [
        (json!({"guided_choice": ["red", "green"]}), "^(red|green)$"),
        (json!({"guided_regex": "[ab]{3}"}), "^[ab]{3}$"),
        (json!({"grammar": "root ::= \"x\" [yz]{2}"}), "^x[yz]{2}$"),
        (json!({"grammar": "start: \"x\" /[yz]{2}/"}), "^x[yz]{2}$"),
        (json!({"structured_outputs": {"choice": ["one"]}}), "^one$"),
    ] {
        let pattern = json!({"type": "string", "pattern": fits});
        let (status, reply) = server.post(PATH, &chat(fields.clone())).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        assert!(jsonschema::is_valid(&pattern, &reply["choices"][0]["message"]["content"]), "{fields}: {reply}");
        let (status, reply) = server.post("/v1/completions", &ask(json!({"prompt": "A fox"}), fields.clone())).await;
        assert_eq!(status, StatusCode::OK, "{reply}");
        assert!(jsonschema::is_valid(&pattern, &reply["choices"][0]["text"]), "{fields}: {reply}");
    }
}

#[tokio::test]
async fn schemas_that_cannot_be_met_are_refused_with_the_reason() {
    let server = Server::builtin();
    let deep = (0..90).fold(json!({}), |inner, _| json!({"not": inner}));
    for (schema, reason) in [
        (json!({"type": "integer", "minimum": 3, "maximum": 2}), "minimum"),
        (json!({"$ref": "#/nowhere"}), "nowhere"),
        (json!({"enum": vec!["x".repeat(1000); 300]}), "at most 262144 bytes"),
        (deep, "at most 64 levels"),
    ] {
        let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
        let (status, reply) = server.post(PATH, &chat(json!({"response_format": format}))).await;
        assert_eq!((status, error(&reply).1), (StatusCode::BAD_REQUEST, "response_format"), "{reply}");
        assert!(error(&reply).0.contains(reason), "{reply}");
    }
}

#[tokio::test]
async fn forced_calls_follow_the_schema_of_their_tool() {
    let server = Server::builtin();
    for (choice, name) in
        [(json!("required"), None), (json!({"type": "function", "function": {"name": "b"}}), Some("b"))]
    {
        for seed in 0..3 {
            let asked = json!({"tools": [tool("a"), tool("b")], "tool_choice": choice, "temperature": 1.0, "seed": seed,
                               "parallel_tool_calls": false, "max_tokens": 200});
            let (status, reply) = server.post(PATH, &chat(asked.clone())).await;
            assert_eq!(status, StatusCode::OK, "{reply}");
            let message = &reply["choices"][0]["message"];
            assert_eq!(
                (&message["content"], &reply["choices"][0]["finish_reason"]),
                (&Value::Null, &json!("tool_calls"))
            );
            let [call] = message["tool_calls"].as_array().unwrap().as_slice() else { panic!("{message}") };
            assert!(name.is_none_or(|name| call["function"]["name"] == name), "{call}");
            let arguments = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
            assert!(jsonschema::is_valid(&person(), &arguments), "{arguments}");

            let mut asked = chat(asked);
            asked["stream"] = json!(true);
            let (chunks, done) = events(&server.text(PATH, &asked).await);
            let (streamed, reason) = joined(&chunks);
            assert!(done && reason == "tool_calls");
            assert_eq!(streamed, json!({"content": "", "calls": [call["function"]]}));
        }
    }
}

#[tokio::test]
async fn a_call_cut_off_ends_the_stream_well() {
    let server = Server::builtin();
    let asked = json!({"tools": [tool("lookup")], "tool_choice": "required", "max_tokens": 30, "stream": true});
    let (chunks, done) = events(&server.text(PATH, &chat(asked)).await);
    let (streamed, reason) = joined(&chunks);
    assert!(done && reason == "length", "{streamed}");
}

#[tokio::test]
async fn conversations_with_calls_are_read() {
    let server = Server::builtin();
    let call = |arguments: Value| {
        json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "abcdefghi", "type": "function", "function": {"name": "a", "arguments": arguments}},
        ]})
    };
    let asked = json!({"role": "user", "content": "What colour is a fox?"});
    let result = json!({"role": "tool", "tool_call_id": "abcdefghi", "content": "red"});
    let body = |messages: Value| json!({"messages": messages, "tools": [tool("a")], "max_tokens": 3});
    let (status, reply) = server.post(PATH, &body(json!([asked, call(json!("{\"age\": 3}")), result]))).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    for (messages, message) in [
        (json!([asked, call(json!("{}"))]), "`messages` must not end with a call of a tool"),
        (json!([asked, call(json!("{")), result]), "`messages[1].tool_calls[0].function.arguments` must be JSON text"),
        (json!([asked, {"role": "tool", "content": "red"}]), "`messages[1].tool_call_id` must be given"),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "`messages[0].content[0].type` must be `text`, got image_url: the models here read no image",
        ),
        (
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
            "`messages[0].content[0].type` must be `text`, got input_audio: the models here read no audio",
        ),
    ] {
        let (status, reply) = server.post(PATH, &body(messages)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{reply}");
        assert!(error(&reply).0.starts_with(message), "{reply}");
    }
}

#[tokio::test]
async fn other_protocols_report_calls_in_their_own_terms() {
    let server = Server::builtin();
    let valid = |arguments: &Value| assert!(jsonschema::is_valid(&person(), arguments), "{arguments}");
    let parse = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
    let question = json!([{"role": "user", "content": "What colour is a fox?"}]);

    let function = json!({"type": "function", "name": "a", "parameters": person()});
    let asked = json!({"input": "What colour is a fox?", "tools": [function], "tool_choice": "required",
                       "parallel_tool_calls": false, "max_output_tokens": 200});
    let (status, reply) = server.post("/v1/responses", &asked).await;
    let item = &reply["output"][0];
    assert_eq!(
        (status, &item["type"], &item["name"]),
        (StatusCode::OK, &json!("function_call"), &json!("a")),
        "{reply}"
    );
    valid(&parse(&item["arguments"]));
    let result = json!([{"type": "function_call_output", "call_id": item["call_id"], "output": "red"}]);
    let again = json!({"input": result, "previous_response_id": reply["id"], "max_output_tokens": 2});
    assert_eq!(server.post("/v1/responses", &again).await.0, StatusCode::OK);

    let tool_of_messages = json!({"name": "a", "input_schema": person()});
    let choice = json!({"type": "any", "disable_parallel_tool_use": true});
    let asked = json!({"messages": question, "tools": [tool_of_messages], "tool_choice": choice, "max_tokens": 200});
    let (status, reply) = server.post("/v1/messages", &asked).await;
    assert_eq!((status, &reply["stop_reason"]), (StatusCode::OK, &json!("tool_use")), "{reply}");
    assert_eq!((&reply["content"][0]["type"], &reply["content"][0]["name"]), (&json!("tool_use"), &json!("a")));
    valid(&reply["content"][0]["input"]);

    let asked = json!({"messages": question, "tools": [tool("a")], "tool_choice": "required", "stream": false,
                       "parallel_tool_calls": false});
    let (status, reply) = server.post("/api/chat", &asked).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    valid(&reply["message"]["tool_calls"][0]["function"]["arguments"]);
}

#[tokio::test]
async fn a_forced_call_that_is_cut_off_is_neither_text_nor_another_call() {
    let server = Server::builtin();
    let question = json!([{"role": "user", "content": "What colour is a fox?"}]);
    let choice = json!({"type": "function", "function": {"name": "a"}});
    let chat = json!({"messages": question, "tools": [tool("a")], "tool_choice": choice, "max_tokens": 8});
    let (_, reply) = server.post("/v1/chat/completions", &chat).await;
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "length", "{reply}");
    assert!(choice["message"]["content"].as_str().unwrap_or("").is_empty(), "{reply}");

    let messages = json!({"messages": question, "tools": [{"name": "a", "input_schema": person()}],
                          "tool_choice": {"type": "any"}, "max_tokens": 24});
    let (_, reply) = server.post("/v1/messages", &messages).await;
    assert_eq!((&reply["stop_reason"], &reply["content"]), (&json!("max_tokens"), &json!([])), "{reply}");

    let ollama = json!({"messages": question, "tools": [tool("a")], "tool_choice": "required", "stream": false,
                        "options": {"num_predict": 24}});
    let (_, reply) = server.post("/api/chat", &ollama).await;
    assert_eq!((&reply["done_reason"], &reply["message"]["content"]), (&json!("length"), &json!("")), "{reply}");
    assert!(reply["message"]["tool_calls"].is_null(), "{reply}");
}
