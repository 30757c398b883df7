//! Every setting on every surface: HTTP requests, `/openapi.json`, `/v1/models`,
//! `docs/settings.md`.
//!
//! `UPDATE_DOCS=1 cargo test -p wsd --test serve settings` rewrites `docs/settings.md`.

use serde_json::{Value, json};
use wsd::config::SECTIONS;
use wsd_core::{Kind, RECIPES, SAMPLING, SEED, STRATEGY, Setting, TERMS, strategy_settings};

use crate::support::{Server, chat};

/// The settings in the `wsd` object of a request, and those beside it.
fn request_settings() -> [(&'static str, Vec<&'static Setting>); 2] {
    let strategy: &'static Setting = &STRATEGY;
    let nested = [strategy].into_iter().chain(strategy_settings()).filter(|setting| !setting.host_only).collect();
    [("wsd.", nested), ("", SAMPLING.iter().chain(TERMS).copied().collect())]
}

/// A request with one setting.
fn request(prefix: &str, setting: &Setting, value: &Value) -> Value {
    let settings = json!({ setting.name: value });
    // A short answer, unless the value says otherwise.
    let mut request = chat(json!({"max_completion_tokens": 1}));
    if prefix.is_empty() {
        request[setting.name] = value.clone();
    } else {
        request["wsd"] = settings;
    }
    request
}

/// A value within the limits and one outside.
fn samples(setting: &Setting) -> (Value, Value) {
    match setting.kind {
        Kind::Integer { min, max } => (json!(min), json!(max + 1)),
        Kind::Number { max, .. } => (json!(max), json!(max + 1.0)),
        Kind::Seed => (json!(-7), json!(1.5)),
        Kind::Flag => (json!(true), json!("yes")),
        Kind::Choice(words) => (json!(words.last().unwrap().0), json!("no such word")),
        Kind::Text => (json!("x"), json!(1)),
        Kind::Texts => (json!(["x"]), json!([""])),
        Kind::Object => (json!({"x": 1}), json!([])),
    }
}

#[tokio::test]
async fn requests_take_every_setting_and_refuse_values_outside_its_limits_by_name() {
    let server = Server::builtin();
    for (prefix, settings) in request_settings() {
        for setting in settings {
            let (good, bad) = samples(setting);
            let (status, reply) = server.post("/v1/chat/completions", &request(prefix, setting, &good)).await;
            assert_eq!(status.as_u16(), 200, "{}: {reply}", setting.name);
            let (status, reply) = server.post("/v1/chat/completions", &request(prefix, setting, &bad)).await;
            let name = format!("{prefix}{}", setting.name);
            assert_eq!((status.as_u16(), &reply["error"]["param"]), (400, &json!(name)), "{reply}");
            let message = reply["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(&format!("`{name}` must be {}, got ", setting.limit())), "{message}");
        }
    }
}

#[tokio::test]
async fn settings_of_the_host_are_refused_and_not_told() {
    let server = Server::builtin();
    let (_, document) = server.send("GET", "/openapi.json", &[], String::new()).await;
    let (_, models) = server.send("GET", "/v1/models", &[], String::new()).await;
    let settings: Vec<_> = strategy_settings().into_iter().filter(|setting| setting.host_only).collect();
    assert!(!settings.is_empty());
    for setting in settings {
        let (status, reply) = server.post("/v1/chat/completions", &request("wsd.", setting, &samples(setting).0)).await;
        let message = reply["error"]["message"].as_str().unwrap();
        let refusal = format!("`wsd.{}` is set by the server's host alone\n  hint: leave it out", setting.name);
        assert_eq!((status.as_u16(), message), (400, &*refusal));
        assert!(document["components"]["schemas"]["Wsd"]["properties"][setting.name].is_null());
        assert!(!models.to_string().contains(setting.name));
    }
}

#[tokio::test]
async fn the_openapi_document_has_every_setting_with_its_limits() {
    let server = Server::builtin();
    let (_, document) = server.send("GET", "/openapi.json", &[], String::new()).await;
    for (prefix, settings) in request_settings() {
        let schemas = if prefix.is_empty() { &["ChatRequest", "CompletionRequest"][..] } else { &["Wsd"] };
        for (schema, setting) in schemas.iter().flat_map(|schema| settings.iter().map(move |setting| (schema, setting)))
        {
            let property = &document["components"]["schemas"][schema]["properties"][setting.name];
            let limits = match setting.kind {
                // Clients of vLLM and of llama-server send -1 for all tokens.
                Kind::Integer { max, .. } if ["top_k", "dry_penalty_last_n"].contains(&setting.name) => {
                    json!({"minimum": -1, "maximum": max})
                }
                Kind::Integer { min, max } => json!({"minimum": min, "maximum": max}),
                Kind::Number { min, max, above_min: true } => json!({"exclusiveMinimum": min, "maximum": max}),
                Kind::Number { min, max, above_min: false } => json!({"minimum": min, "maximum": max}),
                Kind::Choice(words) => {
                    let words = words.iter().map(|(word, _)| json!(word)).chain([Value::Null]);
                    json!({"enum": words.collect::<Vec<_>>()})
                }
                _ => json!({}),
            };
            assert!(property.is_object(), "{schema} lacks {}", setting.name);
            for (key, limit) in limits.as_object().unwrap() {
                assert_eq!(&property[key], limit, "{schema}.{}.{key}", setting.name);
            }
        }
    }
}

#[tokio::test]
async fn the_models_list_every_setting_with_its_default() {
    let server = Server::builtin();
    let (_, models) = server.send("GET", "/v1/models", &[], String::new()).await;
    let mut models: Vec<_> = models["data"].as_array().unwrap().iter().collect();
    for recipe in RECIPES {
        // The built-in base has no draft head, so this is no model to choose; its refusal tells why.
        if recipe.name == "head" {
            let (status, reply) = server.post("/v1/chat/completions", &chat(json!({"model": "head"}))).await;
            assert!(status == 400 && reply["error"]["message"].as_str().unwrap().contains("--head"), "{reply}");
            continue;
        }
        let model = models.remove(0);
        assert_eq!(model["id"], json!(recipe.name));
        let defaults = model["wsd"]["defaults"].as_object().unwrap();
        for setting in recipe.settings.iter().chain(TERMS).chain(SAMPLING) {
            // Each request without a seed gets one of its own.
            let is_told = setting.name != SEED.name && !setting.host_only;
            let default = is_told.then(|| json!(setting.default));
            assert_eq!(defaults.get(setting.name), default.as_ref(), "{} of {}", setting.name, recipe.name);
        }
    }
    assert!(models.is_empty(), "{models:?}");
}

/// The tables of all settings.
fn document() -> String {
    let mut text = String::from(
        "# Settings\n\n<!-- Written by `UPDATE_DOCS=1 cargo test -p wsd --test serve settings`. -->\n\n\
         Each setting is a key of `wsd.toml` and an option of the commands, with hyphens for underscores:\n\
         `max_tokens = 100` under `[decode]` is `--max-tokens 100`. An option overrides the file. HTTP\n\
         requests may set those of `[decode]` under `wsd`, and `max_tokens`, `stop` and those of `[sampling]`\n\
         beside it.\n",
    );
    // A vertical bar would end a cell, and `<` may begin an element.
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "\\<");
    for section in SECTIONS {
        let only = if section.is_server_only { ", for `wsd serve` alone" } else { "" };
        text.push_str(&format!("\n## {}: `[{}]`{only}\n\n", section.heading, section.name));
        text.push_str("| setting | meaning | value | default |\n|---|---|---|---|\n");
        for setting in section.settings() {
            let default = match (setting.default_about, setting.default_text()) {
                (Some(about), _) => cell(about),
                (None, Some(value)) => format!("`{value}`"),
                (None, None) => "none".to_owned(),
            };
            let row = [format!("`{}`", setting.name), cell(setting.about), cell(&setting.limit()), default];
            text.push_str(&format!("| {} |\n", row.join(" | ")));
        }
    }
    text
}

#[test]
fn the_document_has_every_setting() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs_err::write(path, document()).unwrap();
    }
    let hint = "run `UPDATE_DOCS=1 cargo test -p wsd --test serve settings`";
    assert_eq!(fs_err::read_to_string(path).unwrap(), document(), "docs/settings.md is out of date: {hint}");
}
