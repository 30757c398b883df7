//! The targets: each reads bytes from outside as the program does, and tells the outcome in words.

mod grammars;
mod requests;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest as _, Sha256};
use wsd::config::Partial;
use wsd_core::{ChatRole, ChatTemplate, Message, Prompt, Specials};
use wsd_nn::{Checkpoint, TemplateChoice, arch};
use wsd_train::{Layout, Objective, RunFile, Trainer, TrainerOptions};

/// A reader of one kind of input.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Inputs of our own to begin with.
    pub(crate) seeds: fn() -> Result<Vec<Vec<u8>>>,
    make: fn() -> Result<Run>,
}

/// Reads an input and returns the outcome.
pub(crate) type Run = Box<dyn Fn(&[u8]) -> String>;

impl Target {
    /// Prepares the reader.
    pub(crate) fn open(&self) -> Result<Run> {
        (self.make)()
    }
}

/// Every target.
pub(crate) static TARGETS: &[Target] = &[
    Target {
        name: "gguf",
        seeds: || files("crates/nn/tests/fixtures/gguf", ".gguf"),
        make: || in_file("m.gguf", open),
    },
    Target { name: "safetensors", seeds: || fixture("model.safetensors"), make: || in_folder("model.safetensors") },
    Target { name: "config", seeds: || fixture("config.json"), make: || in_folder("config.json") },
    Target { name: "tokenizer", seeds: || fixture("tokenizer.json"), make: || in_folder("tokenizer.json") },
    Target {
        name: "tokenizer-config",
        seeds: || fixture("tokenizer_config.json"),
        make: || in_folder("tokenizer_config.json"),
    },
    Target { name: "template", seeds: templates, make: || Ok(Box::new(template)) },
    Target { name: "requests", seeds: requests::seeds, make: requests::open },
    Target { name: "schemas", seeds: grammars::schemas, make: grammars::open_schemas },
    Target { name: "grammars", seeds: grammars::grammars, make: grammars::open_grammars },
    Target { name: "calls", seeds: grammars::calls, make: || Ok(Box::new(grammars::call)) },
    Target { name: "upstream", seeds: upstream_seeds, make: || Ok(Box::new(wsd::remote::read_any_reply)) },
    Target { name: "prompt-rows", seeds: rows, make: || Ok(Box::new(prompt_rows)) },
    Target { name: "training-rows", seeds: rows, make: || in_file("rows.jsonl", training_rows) },
    Target { name: "data-rows", seeds: rows, make: || in_file("rows.jsonl", data_rows) },
    Target { name: "settings", seeds: settings, make: || in_file("wsd.toml", |path| told(Partial::load(Some(path)))) },
    Target { name: "run-file", seeds: run_files, make: || in_file("run.toml", run_file) },
    Target { name: "training-checkpoint", seeds: states, make: training_checkpoint },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the files of a folder of the repository with this end of their names.
fn files(folder: &str, end: &str) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(root().join(folder))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            found.push(fs_err::read(path)?);
        }
    }
    Ok(found)
}

/// Reads a file of the checkpoint fixtures.
fn fixture(file: &str) -> Result<Vec<Vec<u8>>> {
    let names = ["llama", "qwen3", "gemma3_text", "phi3_longrope"];
    let fixtures = root().join("crates/nn/tests/fixtures");
    let paths = names.map(|name| fixtures.join(name).join(file));
    Ok(paths.iter().filter(|path| path.exists()).map(fs_err::read).collect::<Result<_, _>>()?)
}

/// The words of a result.
fn told<T, E: Display>(result: Result<T, E>) -> String {
    result.map_or_else(|error| error.to_string(), |_| "read".into())
}

/// Makes a target that reads a file.
fn in_file(name: &'static str, read: fn(&Path) -> String) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    Ok(Box::new(move |input| {
        let path = folder.path().join(name);
        match fs_err::write(&path, input) {
            Ok(()) => read(&path),
            Err(error) => error.to_string(),
        }
    }))
}

/// Makes a target that reads a checkpoint whose `file` is the input.
fn in_folder(file: &'static str) -> Result<Run> {
    let folder = tempfile::tempdir()?;
    let source = root().join("crates/nn/tests/fixtures/llama");
    for entry in fs_err::read_dir(source)? {
        let path = entry?.path();
        fs_err::copy(&path, folder.path().join(path.file_name().unwrap_or_default()))?;
    }
    Ok(Box::new(move |input| match fs_err::write(folder.path().join(file), input) {
        Ok(()) => open(folder.path()),
        Err(error) => error.to_string(),
    }))
}

/// Opens a checkpoint, and uses what it describes.
fn open(path: &Path) -> String {
    let checkpoint = match Checkpoint::open(path) {
        Ok(checkpoint) => checkpoint,
        Err(error) => return error.to_string(),
    };
    let fits = arch::blueprint(&checkpoint.config)
        .and_then(|blueprint| checkpoint.weights.require(&arch::tensors(&blueprint)).map(drop));
    let text = match checkpoint.into_codec("m", &TemplateChoice::Own) {
        Ok(codec) => {
            let chat = Prompt::Chat(vec![Message::new(ChatRole::User, "Once upon a time")]);
            let texts = [Prompt::Raw("Once upon a time, 12 o'clock".into()), chat];
            let read =
                texts.map(|prompt| codec.render(&prompt).and_then(|text| codec.tokenizer().decode(&text.tokens)));
            read.map(told).concat()
        }
        Err(error) => error.to_string(),
    };
    format!("{} {text}", told(fits))
}

fn templates() -> Result<Vec<Vec<u8>>> {
    let text = fs_err::read_to_string(root().join("crates/core/tests/goldens/chat_templates.json"))?;
    let mut sources =
        vec![b"{% for m in messages %}{{ '{:>4}'.format(m.role) ~ m.content|trim }}{% endfor %}".to_vec()];
    collect_templates(&serde_json::from_str(&text)?, &mut sources);
    Ok(sources)
}

/// Collects every text with Jinja in it.
fn collect_templates(value: &serde_json::Value, sources: &mut Vec<Vec<u8>>) {
    match value {
        serde_json::Value::String(text) if text.contains("{%") => sources.push(text.clone().into_bytes()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect_templates(item, sources)),
        serde_json::Value::Object(fields) => fields.values().for_each(|item| collect_templates(item, sources)),
        _ => {}
    }
}

fn template(input: &[u8]) -> String {
    let specials = Specials { bos: Some("<s>".into()), ..Specials::default() };
    let template = match ChatTemplate::parse("t", &String::from_utf8_lossy(input), specials) {
        Ok(template) => template,
        Err(error) => return error.to_string(),
    };
    let mut chat = vec![Message::new(ChatRole::System, "Be brief."), Message::new(ChatRole::User, "Hi\n")];
    let question = told(template.render(&chat));
    chat.push(Message::new(ChatRole::Assistant, " Hello "));
    format!("{question} {}", told(template.render(&chat)))
}

fn upstream_seeds() -> Result<Vec<Vec<u8>>> {
    let completion = r#"{"choices":[{"index":0,"text":"a","token_ids":[7],"logprobs":{"tokens":["token_id:7"],
        "token_logprobs":[-0.5],"top_logprobs":[{"token_id:7":-0.5}]},"prompt_logprobs":[null,{"7":{"logprob":-1.5}}],
        "finish_reason":"stop"}],"usage":{"prompt_tokens":2}}"#;
    let llama = r#"{"content":"a","tokens":[7],"stop":true,"stop_type":"eos","completion_probabilities":[{"id":7,
        "token":"a","logprob":-0.5,"top_logprobs":[{"id":7,"token":"a","logprob":-0.5}]}]}"#;
    let sglang = r#"{"text":"a","output_ids":[7],"meta_info":{"finish_reason":{"type":"stop"},"output_token_logprobs":
        [[-0.5,7,"a"]],"input_token_logprobs":[[null,5,null],[-1.5,7,"a"]],"output_top_logprobs":[[[-0.5,7,"a"]]]}}"#;
    let stream = format!("data: {}\n\n: keep-alive\n\ndata: [DONE]\n\n", completion.replace('\n', ""));
    Ok([completion, llama, sglang, &stream, r#"{"tokens":[1,2,{"id":3}],"prompt":"a"}"#].map(|text| text.into()).into())
}

fn rows() -> Result<Vec<Vec<u8>>> {
    Ok([
        r#"{"prompt": "a", "completion": "b"}
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 1}]}
{"prompt": "a", "chosen": "b", "rejected": "c"}
"#,
        r#"[{"text": "a"}, {"instruction": "a", "output": "b"}, {"question": "a", "answer": "b"}]"#,
        r#"{"prompt": "a", "id": 1, "seed": 3, "prefill": "b"}"#,
    ]
    .map(|text| text.into())
    .into())
}

fn prompt_rows(input: &[u8]) -> String {
    told(wsd_lab::data::parse_rows(Path::new("in.jsonl"), input))
}

fn training_rows(path: &Path) -> String {
    match wsd_train::data::read_rows(path) {
        Ok(rows) => rows.refused.first().map_or_else(|| "read".into(), |(_, fault)| fault.to_string()),
        Err(error) => error.to_string(),
    }
}

fn data_rows(path: &Path) -> String {
    match wsd::data::read::Reader::default().read(&[path.into()]) {
        Ok(read) => read.refused.first().map_or_else(|| "read".into(), |refused| refused.reason.clone()),
        Err(error) => error.to_string(),
    }
}

fn settings() -> Result<Vec<Vec<u8>>> {
    let text = "[models]\nbase = \"a\"\nthreads = 2\n[decode]\nthreshold = 0.8\nstop = [\"x\"]\n[sampling]\n\
                temperature = 0.5\nseed = -3\n[serve]\nport = 8080\ncors = [\"https://a\"]\n";
    Ok(vec![text.into()])
}

fn run_files() -> Result<Vec<Vec<u8>>> {
    let text = "output = \"run\"\nseed = 5\nthreads = 2\n[model]\nfrom = \"m\"\ndtype = \"f32\"\n[data]\n\
                train = [\"rows\"]\n[train]\nmax_steps = 3\nlearning_rate = 1e-3\nsave_steps = 5\n[sft]\n";
    Ok(vec![text.into()])
}

fn run_file(path: &Path) -> String {
    Objective::find("sft").map_or_else(|| "no objective".into(), |objective| told(RunFile::read(path, objective)))
}

/// A trainer of the smallest fixture.
fn trainer() -> Result<Trainer> {
    let checkpoint = Checkpoint::open(&root().join("crates/nn/tests/fixtures/llama"))?;
    let blueprint = arch::blueprint(&checkpoint.config)?;
    let weights = Layout::new(&blueprint).read(&checkpoint)?;
    Ok(Trainer::try_new(&blueprint, weights, &TrainerOptions::default())?)
}

fn states() -> Result<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir()?;
    trainer()?.state.save(folder.path(), 1)?;
    Ok(vec![fs_err::read(folder.path().join("checkpoint-0/state.safetensors"))?])
}

/// Makes a target that loads a training state whose checksum fits: damage by a program, not a disk.
fn training_checkpoint() -> Result<Run> {
    let (folder, trainer) = (tempfile::tempdir()?, std::cell::RefCell::new(trainer()?));
    let checkpoint = folder.path().join("checkpoint-0");
    fs_err::create_dir_all(&checkpoint)?;
    Ok(Box::new(move |input| {
        let digits: String = Sha256::digest(input).iter().map(|byte| format!("{byte:02x}")).collect();
        let sum = format!("{digits}  state.safetensors\n");
        let written = fs_err::write(checkpoint.join("state.safetensors"), input)
            .and_then(|()| fs_err::write(checkpoint.join("state.sha256"), sum));
        match written {
            Ok(()) => told(trainer.borrow_mut().state.load_latest(folder.path())),
            Err(error) => error.to_string(),
        }
    }))
}
