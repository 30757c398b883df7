//! Bodies of requests on every route that takes one: the first line is the path.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;
use wsd::config::Partial;
use wsd::models::builtin_pair;
use wsd::serve::{App, Keys, router};

use super::Run;

pub(crate) fn seeds() -> Result<Vec<Vec<u8>>> {
    Ok([
        r#"/v1/chat/completions
{"model": "wsd", "messages": [{"role": "user", "content": "What is red?"}], "max_tokens": 3, "n": 1, "seed": 5,
"logprobs": true, "top_logprobs": 2, "stop": ["x"], "temperature": 0.5, "wsd": {"window": 6, "tokens": true}}"#,
        r#"/v1/chat/completions
{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "b"}],
"continue_final_message": true, "stream": true, "stream_options": {"include_usage": true},
"max_completion_tokens": 2}"#,
        r#"/v1/completions
{"model": "base", "prompt": [[7, 8, 9], [5]], "echo": true, "logprobs": 1, "max_tokens": 0, "n": 2}"#,
        r#"/v1/completions
{"prompt": "A fox", "max_tokens": 2, "stream": true, "top_k": 3, "cache_salt": "s"}"#,
        r#"/tokenize
{"prompt": "A fox is red.", "add_special_tokens": false, "return_token_strs": true}"#,
        r#"/tokenize
{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]}"#,
        "/detokenize\n{\"tokens\": [7, 8, 9]}",
        r#"/v1/chat/completions
{"messages": [{"role": "user", "content": "a", "name": "x"}], "max_tokens": 2, "logit_bias": {"7": -5},
"presence_penalty": 1, "frequency_penalty": -1, "typical_p": 0.5, "top_n_sigma": 1, "xtc_probability": 0.5,
"repeat_penalty": 1.1, "metadata": {"a": 1}, "store": true}"#,
        r#"/v1/responses
{"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}, {"type": "reasoning"},
{"type": "function_call_output", "call_id": "c", "output": "x"}], "instructions": "b", "max_output_tokens": 2,
"previous_response_id": null, "tools": [{"type": "web_search"}], "text": {"format": {"type": "text"}}}"#,
        r#"/v1/messages
{"model": "wsd", "max_tokens": 2, "system": [{"type": "text", "text": "a"}], "stop_sequences": ["x"], "stream": true,
"messages": [{"role": "user", "content": [{"type": "text", "text": "b"}, {"type": "tool_result", "tool_use_id": "c",
"content": "d"}]}], "tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}}"#,
        r#"/v1/messages/count_tokens
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [{"type": "thinking"}]}]}"#,
        r#"/v1/embeddings
{"model": "base", "input": ["a", "b"], "encoding_format": "base64", "wsd": {"pooling": "last"}}"#,
        r#"/api/chat
{"model": "wsd:latest", "messages": [{"role": "user", "content": "a"}], "options": {"num_predict": 2, "num_ctx": 9},
"format": "", "keep_alive": "5m", "stream": true}"#,
        r#"/api/generate
{"model": "base", "prompt": "a", "raw": true, "options": {"num_predict": 2, "stop": ["x"]}, "stream": false}"#,
        "/api/show\n{\"model\": \"wsd\"}",
        "/apply-template\n{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
        "/tokenize\n{\"content\": \"a\", \"with_pieces\": true}",
    ]
    .map(|text| text.into())
    .into())
}

/// Makes a target that posts the input to a server of the built-in pair. A fault of the server ends
/// the process.
pub(crate) fn open() -> Result<Run> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let settings = Partial::default().resolve()?;
    let app = Arc::new(App::new(builtin_pair()?, settings, Some(1), Keys::default()));
    let router = router(app);
    Ok(Box::new(move |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let (path, body) = text.split_once('\n').unwrap_or((&text, ""));
        let request = Request::post(path.trim()).header("content-type", "application/json");
        let Ok(request) = request.body(Body::from(body.to_owned())) else { return "no path".into() };
        runtime.block_on(async {
            let Ok(response) = router.clone().oneshot(request).await;
            let status = response.status().as_u16();
            assert!(status != 500, "the server failed");
            let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let message = message.and_then(|reply| Some(reply["error"]["message"].as_str()?.to_owned()));
            format!("{} {}", if status == 200 { "ok" } else { "refused" }, message.unwrap_or_default())
        })
    }))
}
