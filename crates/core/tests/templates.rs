//! Tests of published chat templates against the texts that transformers renders, written by
//! `scripts/chat_goldens.py`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use wsd_core::{ChatInputs, ChatTemplate, Error, Message, Specials, TemplateVariables};

/// The goldens' frozen clock, 2026-07-26T12:00:00.
const NOW: (&str, i64) = ("2026-07-26T12:00:00", 1_785_067_200);

/// Templates that need tools: transformers fails when it iterates over `tools`, which is none. This
/// engine iterates over none as over an empty list, so the conversation is rendered without tools.
const ITERATE_OVER_NO_TOOLS: &[&str] = &[
    "chat_templates/llama_cpp/CohereForAI-c4ai-command-r-plus-tool_use.jinja",
    "chat_templates/llama_cpp/NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja",
    "chat_templates/llama_cpp/NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja",
];

type Rendered = wsd_core::Result<String>;

#[derive(Deserialize)]
struct Goldens {
    now: String,
    conversations: BTreeMap<String, Conversation>,
    templates: Vec<Golden>,
}

#[derive(Deserialize)]
struct Conversation {
    messages: Vec<Message>,
    enable_thinking: Option<bool>,
    reasoning_effort: Option<String>,
}

impl Conversation {
    fn variables(&self) -> TemplateVariables {
        let mut variables = TemplateVariables::default();
        self.enable_thinking.iter().for_each(|value| variables.set("enable_thinking", (*value).into()));
        self.reasoning_effort.iter().for_each(|value| variables.set("reasoning_effort", value.as_str().into()));
        variables
    }
}

#[derive(Deserialize)]
struct Golden {
    source: String,
    bos: Option<String>,
    eos: Option<String>,
    pad: Option<String>,
    unk: Option<String>,
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Case {
    Text(String),
    Error(String),
}

fn data() -> PathBuf {
    std::env::var_os("WSD_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from)
}

/// Reads a `.jinja` file, or the `chat_template` of a `tokenizer_config.json`.
fn source(path: &str) -> Option<String> {
    let text = fs_err::read_to_string(data().join(path)).ok()?;
    if !path.ends_with(".json") {
        return Some(text);
    }
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    config["chat_template"].as_str().map(str::to_owned)
}

/// Describes the difference between the rendering of a case and its golden, if there is one.
fn difference(golden: &Golden, case: &Case, (messages, rendered): (&[Message], Rendered)) -> Option<String> {
    match (case, rendered) {
        (Case::Text(expected), Ok(text)) if *expected == text => None,
        (Case::Text(expected), Ok(text)) => Some(format!("expected {expected:?}\n     got {text:?}")),
        (Case::Text(_), Err(error)) => Some(format!("failed: {error}")),
        // The messages of `raise_exception` must be equal; others are the engine's own.
        (Case::Error(reason), Err(Error::Template { message, .. })) => {
            let raised = reason.strip_prefix("TemplateError: ");
            raised.filter(|raised| **raised != message).map(|raised| format!("raises {raised:?}, got {message:?}"))
        }
        (Case::Error(_), Err(error)) => Some(format!("the wrong kind of error: {error}")),
        (Case::Error(_), Ok(text)) if ITERATE_OVER_NO_TOOLS.contains(&golden.source.as_str()) => {
            (!text.contains("France")).then(|| format!("the question is missing: {text:?}"))
        }
        // A conversation that a template refuses is rendered in turns.
        (Case::Error(reason), Ok(text)) if reason.starts_with("TemplateError: ") => {
            let lost = messages.iter().find(|message| !text.contains(&message.content));
            lost.map(|message| format!("`{}` is missing: {text:?}", message.content))
        }
        (Case::Error(reason), Ok(text)) => Some(format!("transformers fails with {reason}, got {text:?}")),
    }
}

#[test]
fn renderings_equal_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/chat_templates.json");
    let Goldens { now, conversations, templates } =
        serde_json::from_str(&fs_err::read_to_string(path).unwrap()).unwrap();
    assert_eq!(now, NOW.0);
    let (mut equal, mut texts, mut skipped, mut wrong) = (0, 0, 0, Vec::new());
    for golden in &templates {
        let Some(source) = source(&golden.source) else {
            skipped += 1;
            continue;
        };
        let specials = Specials {
            bos: golden.bos.clone(),
            eos: golden.eos.clone(),
            pad: golden.pad.clone(),
            unk: golden.unk.clone(),
        };
        let template = ChatTemplate::parse(&golden.source, &source, specials).unwrap().with_date(NOW.1);
        let mut differs = false;
        for (name, case) in &golden.cases {
            texts += usize::from(matches!(case, Case::Text(_)));
            let (messages, variables) = (&conversations[name].messages, conversations[name].variables());
            let default = template.clone().with_variables(&variables).render(messages);
            let given = template.render_with(messages, &ChatInputs { tools: None, variables });
            for rendered in [given, default] {
                if let Some(reason) = difference(golden, case, (messages, rendered)) {
                    differs = true;
                    wrong.push(format!("{} case {name}: {reason}", golden.source));
                }
            }
        }
        equal += usize::from(!differs);
    }
    println!("{equal} of {} templates, {texts} texts; {skipped} skipped", templates.len());
    if skipped > 0 {
        println!("skipped: no such files in {}; WSD_DATA names the data folder", data().display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The variable that tells the test program to print the time.
const PRINT: &str = "WSD_PRINT_LOCAL_TIME";

/// Templates print the time of the zone, as with transformers; each process has one zone.
#[test]
fn the_time_is_that_of_the_zone() {
    let source = "{{ strftime_now('%Y-%m-%dT%H:%M:%S') }}";
    let template = ChatTemplate::parse("clock", source, Specials::default()).unwrap();
    let question = [Message::new(wsd_core::ChatRole::User, "Hi")];
    if std::env::var_os(PRINT).is_some() {
        println!("now: {}", template.render(&question).unwrap());
        return;
    }
    for (zone, hours) in [("XYZ-9", 9), ("UTC0", 0), ("ABC5", -5)] {
        let there = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            template.clone().with_date(now.as_secs() as i64 + hours * 3600).render(&question).unwrap()
        };
        let before = there();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_time_is_that_of_the_zone", "--nocapture"]).env("TZ", zone).env(PRINT, "1");
        let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
        let told = output.split_once("now: ").unwrap().1.lines().next().unwrap().to_owned();
        assert!(before <= told && told <= there(), "{zone}: {told}, expected from {before}");
    }
}
