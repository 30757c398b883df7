//! Comparison of GGUF files with the Hugging Face folders they were made from.

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use wsd_core::{ChatRole, Message, Prompt};

use super::writer::{Entry, write};
use crate::{Checkpoint, Format, TemplateChoice};

pub(super) const TEXTS: [&str; 16] = [
    "Once upon a time, there was a little girl named Lily.",
    "",
    " leading space",
    "   three spaces and trailing  ",
    "It's we'll THEY'RE don't",
    "1 12 123 1234567 3.14159",
    "line one\r\nline two\r\n\r\n\tindented\n",
    "fn main() {\n    println!(\"{}\", x + 1);\n}",
    "你好，世界。こんにちは 안녕하세요",
    "naïve café ﬁancé é e\u{301}",
    "🎉👩‍👩‍👧 emoji 🇩🇪",
    "<s>hello</s> world<s>",
    "<|im_start|>user\nHi<|im_end|>\n",
    "under\u{2581}score a\u{a0}b\u{200b}c",
    "ÄÖÜ straße Ελληνικά русский العربية",
    "\0\u{1}\u{7f} ~`!@#$%^&*()_+-=[]{}|;':\",./<>?",
];

/// Returns the folder of a checkpoint fixture.
pub(super) fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Writes a fixture as a GGUF file and reads it back with the 32-bit value of `key` replaced.
fn with_value(name: &str, key: &str, value: u32) -> crate::Result<Checkpoint> {
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    Checkpoint::open(&fixture(name)).unwrap().save_gguf(file.path(), Format::F32).unwrap();
    let mut bytes = fs_err::read(file.path()).unwrap();
    let place = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
    bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
    super::open(Path::new("m.gguf"), &bytes.into())
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    let message = |key: &str, value: f32| {
        let opened = with_value("llama", key, value.to_bits()).unwrap();
        crate::arch::blueprint(&opened.config).unwrap_err().to_string()
    };
    for (key, name, values) in [
        ("rope.freq_base", "rope_theta", [1e38, 1e-45, 0.0, -1.0]),
        ("layer_norm_rms_epsilon", "rms_norm_eps", [1e38, 0.5, 0.0, -1e-5]),
    ] {
        for value in values {
            let message = message(key, value);
            assert!(message.contains(&format!("`{name}` must be a number from ")), "{key} = {value}: {message}");
        }
    }
}

#[test]
fn tensors_that_nobody_reads_are_refused() {
    let message = with_value("llama", "llama.block_count", 1).unwrap_err().to_string();
    assert!(
        message.contains("tensor `model.layers.1.") && message.contains("below `num_hidden_layers` = 1"),
        "{message}"
    );
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    Checkpoint::open(&fixture("llama")).unwrap().save_gguf(file.path(), Format::F32).unwrap();
    let mut bytes = fs_err::read(file.path()).unwrap();
    let name = b"blk.0.attn_norm.weight";
    let place = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[place + 6..][..4].copy_from_slice(b"pool");
    let message = super::open(Path::new("m.gguf"), &bytes.into()).unwrap_err().to_string();
    assert!(message.contains("`blk.0.pool_norm.weight` is no tensor of this architecture"), "{message}");
}

#[test]
fn token_ids_outside_of_the_vocabulary_count_as_absent() {
    for id in [512, u32::MAX] {
        let checkpoint = with_value("llama", "tokenizer.ggml.bos_token_id", id).unwrap();
        assert_eq!((checkpoint.special.bos, checkpoint.config.get("bos_token_id")), (None, None));
        let expected =
            format!("m.gguf: key `tokenizer.ggml.bos_token_id`: must be less than 300, got {id}: treated as absent");
        assert_eq!(checkpoint.warnings, [expected]);
    }
    assert_eq!(with_value("llama", "tokenizer.ggml.bos_token_id", 1).unwrap().warnings, [""; 0]);
}

/// A prompt begins with BOS if the file adds one, in chats too; a file and its folder agree.
#[test]
fn prompts_begin_alike_in_file_and_folder() {
    let chat = Prompt::Chat(vec![Message::new(ChatRole::User, "Once upon a time")]);
    for Pair { file, gguf, folder, .. } in pairs() {
        let first = folder.tokenizer.encode("a", true).unwrap().get_ids()[0];
        let bos = folder.special.bos.as_ref().and_then(|bos| folder.tokenizer.token_to_id(bos));
        let [gguf, folder] = [gguf, folder].map(|it| it.into_codec("m", &TemplateChoice::Plain).unwrap());
        for prompt in [&chat, &Prompt::Raw("Once".into())] {
            let rendered = folder.render(prompt).unwrap();
            assert_eq!(gguf.render(prompt).unwrap(), rendered, "{file}");
            assert_eq!(rendered.bos, bos.filter(|bos| *bos == first), "{file}");
        }
    }
}

/// A GGUF file with the folder it was made from.
struct Pair {
    file: String,
    gguf: Checkpoint,
    folder: Checkpoint,
    /// Keys with other values, because the file format cannot store them.
    config_changes: Map<String, Value>,
}

impl Pair {
    fn open(file: &Path, folder: &Path, config_changes: Map<String, Value>) -> Self {
        let open = |path| Checkpoint::open(path).unwrap_or_else(|error| panic!("{error}"));
        Self { file: file.display().to_string(), gguf: open(file), folder: open(folder), config_changes }
    }
}

/// Writes every checkpoint fixture as a GGUF file. `config_changes` are the config keys that the
/// converter changes.
fn exported() -> Vec<Pair> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let names = [
        "llama",
        "llama_sharded_bf16",
        "mistral",
        "qwen2",
        "qwen3",
        "gemma2",
        "gemma3_text",
        "gemma3_pattern6",
        "phi3",
        "phi3_longrope",
        "olmo2",
    ];
    let there = names.into_iter().map(|name| fixtures.join(name)).filter(|folder| folder.exists());
    let formats = [Format::F32, Format::F16, Format::BF16, Format::Q8_0];
    let pair = |(folder, format): (std::path::PathBuf, Format)| {
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        Checkpoint::open(&folder).unwrap().save_gguf(file.path(), format).unwrap();
        let changes = match folder.ends_with("mistral") {
            true => json!({"sliding_window": null}),
            false => json!({}),
        };
        Pair::open(file.path(), &folder, changes.as_object().cloned().unwrap())
    };
    there.flat_map(|folder| formats.map(|format| (folder.clone(), format))).map(pair).collect()
}

/// Returns all pairs: our own files, the fixtures, and the shared weights in the folder that
/// `WSD_GGUF` names.
fn pairs() -> Vec<Pair> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let golden = fs_err::read(fixtures.join("gguf/GOLDEN.json")).unwrap_or_else(|_| br#"{"files": {}}"#.to_vec());
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let fixture = |(file, entry): (&String, &Value)| {
        let changes = entry["config_changes"].as_object().cloned().unwrap_or_default();
        let folder = fixtures.join(entry["checkpoint"].as_str().unwrap());
        Pair::open(&fixtures.join("gguf").join(file), &folder, changes)
    };
    let mut pairs: Vec<_> = golden["files"].as_object().unwrap().iter().map(fixture).chain(exported()).collect();
    if let (Some(data), Some(made)) = (std::env::var_os("WSD_DATA"), std::env::var_os("WSD_GGUF")) {
        for (name, folder) in [("stories260k", "hf_stories260k"), ("babyllama", "hf_babyllama_tok105")] {
            for format in ["f32", "q8_0"] {
                let file = Path::new(&made).join(format!("{name}-{format}.gguf"));
                pairs.push(Pair::open(&file, &Path::new(&data).join("weights").join(folder), Map::new()));
            }
        }
    }
    if pairs.is_empty() {
        eprintln!("skipped: no GGUF fixtures");
    }
    pairs
}

#[test]
fn tensors_equal_those_of_the_folder() {
    for Pair { file, mut gguf, folder, .. } in pairs() {
        // The fixture has a scaling of its own, which no config can name.
        gguf.config.shift_remove("wsd_rope_factors");
        let gguf = gguf.in_standard_form().unwrap();
        for original in folder.weights.iter() {
            let Some(tensor) = gguf.weights.get(&original.name) else {
                assert_eq!(original.name, "lm_head.weight", "{file}");
                continue;
            };
            assert_eq!(tensor.shape, original.shape, "{file}: {tensor:?}");
            let expected = original.to_f32();
            let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let tolerance = match tensor.format {
                Format::F32 => 1e-6,
                Format::F16 => 1e-3,
                Format::BF16 | Format::Q8_0 => 1e-2,
                _ => 0.2,
            };
            for (value, expected) in tensor.to_f32().iter().zip(&expected) {
                let distance = (value - expected).abs();
                assert!(distance <= tolerance * largest, "{file}: {tensor:?}: {value} for {expected}");
            }
        }
        let own = |name: &str| folder.weights.get(name).is_none() && !name.starts_with("rope_f");
        assert_eq!(gguf.weights.names().filter(|name| own(name)).collect::<Vec<_>>(), [""; 0], "{file}");
    }
}

#[test]
fn the_tokenizer_in_the_file_gives_the_same_ids() {
    for Pair { file, gguf, folder, .. } in pairs() {
        for text in TEXTS {
            let ids = |checkpoint: &Checkpoint, special| {
                checkpoint.tokenizer.encode(text, special).unwrap().get_ids().to_vec()
            };
            assert_eq!(ids(&gguf, false), ids(&folder, false), "{file}: {text:?}");
            let decoded = |checkpoint: &Checkpoint| checkpoint.tokenizer.decode(&ids(&folder, false), false).unwrap();
            assert_eq!(decoded(&gguf), decoded(&folder), "{file}: {text:?}");
            if gguf.add_bos == Some(true) {
                assert_eq!(ids(&gguf, true), ids(&folder, true), "{file}: {text:?}");
            }
        }
    }
}

#[test]
fn the_config_has_the_values_of_the_folder() {
    for Pair { file, gguf, folder, config_changes } in pairs() {
        // The file stores the llama3 scaling as its resulting factors.
        let factors = gguf.config.contains_key("wsd_rope_factors");
        assert_eq!(factors, folder.config.get("rope_scaling").is_some_and(|scaling| scaling["rope_type"] == "llama3"));
        // `eos_token_id` may be a list, and a GGUF file stores its first. Mistral is written as Llama.
        let told_otherwise = |key: &str| {
            ["eos_token_id", "model_type", "architectures"].contains(&key) || (factors && key == "rope_scaling")
        };
        let compared = gguf.config.iter().filter(|(key, _)| !told_otherwise(key));
        for (key, value) in compared {
            let Some(expected) = config_changes.get(key).or(folder.config.get(key)) else { continue };
            assert!(same(value, expected), "{file}: {key}: {value} for {expected}");
        }
    }
}

/// Compares values, numbers to the precision of the file; of two objects, the common keys.
fn same(value: &Value, expected: &Value) -> bool {
    match (value, expected) {
        (Value::Number(value), Value::Number(expected)) => {
            value.as_f64().unwrap() as f32 == expected.as_f64().unwrap() as f32
        }
        (Value::Array(value), Value::Array(expected)) => {
            value.len() == expected.len() && value.iter().zip(expected).all(|(value, expected)| same(value, expected))
        }
        (Value::Object(value), Value::Object(expected)) => {
            value.iter().all(|(key, value)| expected.get(key).is_none_or(|expected| same(value, expected)))
        }
        _ => value == expected,
    }
}

/// Returns GGUF fixtures with both kinds of tokenizer.
fn small_files() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    ["llama-f16.gguf", "mistral-f16.gguf", "phi3_longrope-f16.gguf", "gemma3_text-f16.gguf"]
        .iter()
        .filter_map(|name| fs_err::read(folder.join(name)).ok())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn changed_files_never_panic(
        file in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
    ) {
        let mut files = small_files();
        if !files.is_empty() {
            let mut bytes = files.swap_remove(file.index(files.len()));
            // The metadata precede the weights and are mostly tokens. With many changes no file would pass the first
            // lengths.
            for (place, value) in changes {
                let place = place.index(bytes.len().min(12_000));
                bytes[place] = value;
            }
            if let Ok(checkpoint) = super::open(Path::new("m.gguf"), &bytes.into()) {
                let _ = checkpoint.tokenizer.encode(TEXTS[7], true);
            }
        }
    }
}

/// The converter states parallel layers of all files of StableLM; the second norm says which are not.
#[test]
fn stablelm_has_parallel_layers_where_a_norm_is_missing() {
    for (name, is_parallel) in [("stablelm", false), ("stablelm_parallel", true)] {
        let mut bytes = fs_err::read(fixture(&format!("gguf/{name}-f16.gguf"))).unwrap();
        let key = "stablelm.use_parallel_residual";
        let place = bytes.windows(key.len()).position(|window| window == key.as_bytes()).unwrap() + key.len() + 4;
        bytes[place] = 1;
        let checkpoint = super::open(Path::new("m.gguf"), &bytes.into()).unwrap();
        assert_eq!(checkpoint.config["use_parallel_residual"], is_parallel);
    }
}

#[test]
fn an_adapter_is_no_model() {
    let metadata = [("general.type".to_owned(), Entry::Text("adapter".into()))];
    let mut bytes = Vec::new();
    write(&mut bytes, &metadata, &[], |_| Ok::<_, crate::Error>(Vec::new())).unwrap();
    let message = super::open(Path::new("m.gguf"), &bytes.into()).unwrap_err().to_string();
    assert!(message.contains("--adapter FOLDER"), "{message}");
}
