//! Variables of chat templates, from a client's side.

use serde_json::{Value, json};
use wsd::config::{Partial, Settings};
use wsd::serve::Keys;
use wsd_core::TemplateVariables;

use super::error;
use super::support::Server;

const TEMPLATE: &str = "{{ messages[-1].content }}{% if enable_thinking %} and a fox and a fox{% endif %}\
                        {% if reasoning_effort == 'low' %} lives{% endif %}";

/// The settings of a strict server whose draft reads this template.
fn settings(folder: &tempfile::TempDir, variables: &Value) -> Settings {
    let template = folder.path().join("form.jinja");
    fs_err::write(&template, TEMPLATE).unwrap();
    let models = json!({"draft_template": template, "chat_template_kwargs": variables});
    let settings = json!({"models": models, "serve": {"strict": true}});
    serde_json::from_value::<Partial>(settings).unwrap().resolve().unwrap()
}

/// The number of tokens in the prompt of an answer.
async fn prompt_tokens(server: &Server, path: &str, more: &Value) -> u64 {
    let question = "What colour is a fox?";
    let mut asked = if path == "/v1/responses" {
        json!({"model": "draft", "input": question, "max_output_tokens": 1})
    } else {
        json!({"model": "draft", "messages": [{"role": "user", "content": question}], "stream": false})
    };
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, reply) = server.post(path, &asked).await;
    assert_eq!(status.as_u16(), 200, "{path} {more}: {reply}");
    let usage = &reply["usage"];
    let counts = [&usage["prompt_tokens"], &usage["input_tokens"], &reply["prompt_eval_count"]];
    let cached = (path == "/v1/messages").then(|| usage["cache_read_input_tokens"].as_u64().unwrap());
    counts.into_iter().find_map(Value::as_u64).unwrap() + cached.unwrap_or(0)
}

#[tokio::test]
async fn every_protocol_sets_what_the_template_reads() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::own(settings(&folder, &json!({})), Keys::default());
    let chat = "/v1/chat/completions";
    let plain = prompt_tokens(&server, chat, &json!({})).await;
    let thinking = prompt_tokens(&server, chat, &json!({"chat_template_kwargs": {"enable_thinking": true}})).await;
    let low = prompt_tokens(&server, chat, &json!({"chat_template_kwargs": {"reasoning_effort": "low"}})).await;
    assert!(plain < low && low < thinking);
    for (path, more, expected) in [
        (chat, json!({"reasoning_effort": "low"}), low),
        (chat, json!({"reasoning_effort": "none"}), plain),
        (chat, json!({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": true}}), thinking),
        ("/v1/responses", json!({"reasoning": {"effort": "low", "summary": "auto"}}), low),
        ("/v1/messages", json!({"max_tokens": 1, "thinking": {"type": "enabled", "budget_tokens": 1024}}), thinking),
        ("/v1/messages", json!({"max_tokens": 1, "thinking": {"type": "disabled"}}), plain),
        ("/api/chat", json!({"think": true}), thinking),
        ("/api/chat", json!({"think": "low"}), low),
    ] {
        assert_eq!(prompt_tokens(&server, path, &more).await, expected, "{path} {more}");
    }
    let host = Server::own(settings(&folder, &json!({"enable_thinking": true})), Keys::default());
    assert_eq!(prompt_tokens(&host, chat, &json!({})).await, thinking);
    assert_eq!(prompt_tokens(&host, chat, &json!({"reasoning_effort": "none"})).await, plain);
}

#[tokio::test]
async fn a_rendering_takes_variables_and_none_of_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::own(settings(&folder, &json!({})), Keys::default());
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let asked = |variables: Value| json!({"model": "draft", "messages": messages, "chat_template_kwargs": variables});
    let (_, reply) = server.post("/apply-template", &asked(json!({"reasoning_effort": "low"}))).await;
    assert_eq!(reply, json!({"prompt": "Hi lives"}));
    for variables in [json!({"messages": []}), json!([1])] {
        let (status, reply) = server.post("/v1/chat/completions", &asked(variables.clone())).await;
        let expected = format!("`chat_template_kwargs` must be {}, got {variables}", TemplateVariables::LIMIT);
        assert_eq!((status.as_u16(), error(&reply)), (400, (expected.as_str(), "chat_template_kwargs")));
    }
}
