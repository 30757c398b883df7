use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::format::Format;

/// Returns a folder of the shared data, or prints that it is skipped and returns `None`.
pub(super) fn shared(part: &str) -> Option<PathBuf> {
    let data = std::env::var_os("WSD_DATA").map(PathBuf::from);
    let data = data.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into());
    let path = data.join(part);
    if !path.exists() {
        eprintln!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

const HEADER: &str = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
const TOKENIZER: &str = r#"{"version":"1.0",
    "truncation":{"direction":"Right","max_length":1,"strategy":"LongestFirst","stride":0},
    "added_tokens":[{"id":2,"content":"<|im_end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,
    "special":true},{"id":3,"content":"<|end|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,
    "special":false}],"model":{"type":"BPE","vocab":{"a":0,"b":1,"<|im_end|>":2,"<|end|>":3,"</s>":4},"merges":[]}}"#;

fn safetensors_of(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 4]].concat()
}

/// Makes a folder of the smallest files that open, with some replaced, or removed if the text is
/// empty.
fn folder(changes: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = [("config.json", r#"{"eos_token_id": 7}"#), ("tokenizer.json", TOKENIZER)];
    fs_err::write(folder.path().join("model.safetensors"), safetensors_of(HEADER)).unwrap();
    for (name, text) in files.iter().chain(changes) {
        fs_err::write(folder.path().join(name), text).unwrap();
        if text.is_empty() {
            fs_err::remove_file(folder.path().join(name)).unwrap();
        }
    }
    folder
}

fn message(changes: &[(&str, &str)]) -> String {
    Checkpoint::open(folder(changes).path()).unwrap_err().to_string()
}

#[test]
fn all_sources_of_end_tokens_are_joined() {
    let changes = [
        ("generation_config.json", r#"{"eos_token_id": [5, 7]}"#),
        ("tokenizer_config.json", r#"{"eos_token": {"content": "</s>"}, "bos_token": null, "add_bos_token": false}"#),
        ("special_tokens_map.json", r#"{"bos_token": "a", "unk_token": {"content": "b"}}"#),
    ];
    let checkpoint = Checkpoint::open(folder(&changes).path()).unwrap();
    assert_eq!(checkpoint.end_tokens, [2, 4, 5, 7], "<|end|> is not a special token here");
    let expected = SpecialTokens { eos: Some("</s>".into()), unk: Some("b".into()), ..SpecialTokens::default() };
    assert_eq!(checkpoint.special, expected);
    assert_eq!(checkpoint.add_bos, Some(false));
    assert_eq!(checkpoint.tokenizer.encode("abab", false).unwrap().len(), 4, "truncation is off");
}

#[test]
fn the_nearest_chat_template_wins() {
    let template = |changes: &[(&str, &str)]| Checkpoint::open(folder(changes).path()).unwrap().chat_template;
    let named = r#"{"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    assert_eq!(template(&[]), None);
    assert_eq!(template(&[("tokenizer_config.json", named)]).as_deref(), Some("D"));
    let own = ("chat_template.json", r#"{"chat_template": "J"}"#);
    assert_eq!(template(&[("tokenizer_config.json", named), own]).as_deref(), Some("J"));
    assert_eq!(template(&[own, ("chat_template.jinja", "X")]).as_deref(), Some("X"));
}

#[test]
fn errors_name_missing_and_damaged_files() {
    assert!(message(&[("config.json", "")]).contains("missing config.json\n  hint: "));
    assert!(message(&[("config.json", ""), ("m.gguf", "x")]).contains("m.gguf"));
    assert!(message(&[("tokenizer.json", "")]).contains("missing tokenizer.json\n  hint: copy it"));
    assert!(message(&[("tokenizer.json", ""), ("tokenizer.model", "x")]).contains("save_pretrained"));
    assert!(message(&[("tokenizer.json", "{}")]).contains("tokenizer.json: tokenizer: "));
    assert!(message(&[("config.json", "{")]).contains("config.json: JSON: EOF"));
    assert!(
        message(&[("config.json", r#"{"num_hidden_layers": 4000000000}"#)])
            .contains("at most 1, the number of tensors")
    );
    assert!(message(&[("model.safetensors", "")]).contains("missing model.safetensors"));
    let pickle = message(&[("model.safetensors", ""), ("pytorch_model.bin", "x")]);
    assert!(pickle.contains("refused: a pickle can run any code") && pickle.contains("safetensors"), "{pickle}");
    let other = Checkpoint::open(&folder(&[]).path().join("model.safetensors")).unwrap_err().to_string();
    assert!(
        other.contains("`safetensors` is not supported\n  hint: supported are a GGUF file, or the folder"),
        "{other}"
    );
    assert!(Checkpoint::open(Path::new("/no/such/place")).unwrap_err().to_string().contains("/no/such/place"));
}

#[test]
fn a_tokenizer_that_panics_is_an_error() {
    let error = tokenizer::guarded("tokenizer.json", || panic!("index out of range")).unwrap_err().to_string();
    assert_eq!(error, "tokenizer.json: tokenizer: the tokenizer library failed on it: index out of range");
}

#[test]
fn shards_are_joined_and_missing_ones_named() {
    let index = |map: serde_json::Value| json!({"weight_map": map}).to_string();
    let open = |map: serde_json::Value| {
        let folder = folder(&[("model.safetensors", ""), ("model.safetensors.index.json", &index(map))]);
        for (file, name) in [("1.safetensors", "a"), ("2.safetensors", "b")] {
            let bytes = safetensors_of(&HEADER.replace("\"a\"", &format!("{name:?}")));
            fs_err::write(folder.path().join(file), bytes).unwrap();
        }
        Checkpoint::open(folder.path()).map(|checkpoint| checkpoint.weights.names().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(open(json!({"a": "1.safetensors", "b": "2.safetensors"})).unwrap(), "a b");
    let missing =
        open(json!({"a": "1.safetensors", "x": "8.safetensors", "y": "9.safetensors"})).unwrap_err().to_string();
    assert!(missing.contains("missing 8.safetensors, 9.safetensors\n  hint: "), "{missing}");
    let absent = open(json!({"a": "1.safetensors", "c": "2.safetensors"})).unwrap_err().to_string();
    assert!(absent.contains("`c` is not in 2.safetensors"), "{absent}");
    let outside = open(json!({"a": "../1.safetensors"})).unwrap_err().to_string();
    assert!(outside.contains("a shard must be a file of the same folder, got \"../1.safetensors\""), "{outside}");
}

#[test]
fn an_embedded_folder_opens_as_one_on_disk() {
    let Some(path) = shared("weights/hf_stories260k") else { return };
    let read = |file: &str| -> &'static [u8] { fs_err::read(path.join(file)).unwrap().leak() };
    let names =
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    let embedded = Checkpoint::from_bytes("stories", &names.map(|name| (name, read(name)))).unwrap();
    let disk = Checkpoint::open(&path).unwrap();
    assert_eq!((embedded.name.as_str(), disk.name.as_str()), ("stories", "hf_stories260k"));
    assert_eq!((&embedded.config, &embedded.end_tokens), (&disk.config, &disk.end_tokens));
    assert!(embedded.weights.iter().map(Tensor::bytes).eq(disk.weights.iter().map(Tensor::bytes)));
    let error = Checkpoint::from_bytes("stories", &[("config.json", b"{}")]).unwrap_err().to_string();
    assert!(error.starts_with("stories: missing model.safetensors"), "{error}");
}

#[test]
fn all_shared_checkpoints_open() {
    let Some(weights) = shared("weights") else { return };
    for entry in fs_err::read_dir(weights).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let checkpoint = Checkpoint::open(&entry.path()).unwrap();
        let name = checkpoint.name.as_str();
        let hidden = checkpoint.config["hidden_size"].as_u64().unwrap() as usize;
        let vocabulary = checkpoint.config["vocab_size"].as_u64().unwrap() as usize;
        let wanted = [("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
        let embedding = checkpoint.weights.require(&wanted).unwrap().remove(0);
        assert_eq!(embedding.format, Format::F32);
        assert!(embedding.to_f32().iter().all(|value| value.is_finite()), "{name}");
        let ends = match name {
            "hf_babyllama_tok105" | "hf_stories260k" => vec![1, 2],
            "random_gemma2" | "random_mistral" => vec![2],
            _ => vec![509, 511],
        };
        assert_eq!(checkpoint.end_tokens, ends, "{name}");
    }
}

#[test]
fn all_fixtures_open() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs_err::read_dir(fixtures).into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in entries.filter(|path| path.join("config.json").exists()) {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert!(checkpoint.weights.get("model.norm.weight").is_some(), "{}", folder.display());
        let bytes: u64 = fs_err::read_dir(&folder)
            .unwrap()
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "safetensors"))
            .map(|entry| entry.metadata().unwrap().len())
            .sum();
        assert!(checkpoint.weights.total_bytes() as u64 > bytes / 2, "{}", folder.display());
    }
}

#[test]
fn empty_files_are_errors() {
    let folder = folder(&[]);
    for name in ["model.safetensors", "empty.gguf"] {
        fs_err::write(folder.path().join(name), "").unwrap();
    }
    assert!(Checkpoint::open(folder.path()).unwrap_err().to_string().contains("at least 8 bytes, got 0"));
    assert!(Checkpoint::open(&folder.path().join("empty.gguf")).is_err());
}

#[test]
fn configs_of_transformers_4_and_5_are_read_alike() {
    let Some(weights) = shared("weights") else { return };
    for name in ["random_gemma2", "random_llama", "random_mistral", "random_qwen2", "random_qwen3"] {
        let read = |file: &str| {
            let text = fs_err::read(weights.join(name).join(file)).unwrap();
            crate::arch::blueprint(&config::normal_form(serde_json::from_slice(&text).unwrap())).unwrap()
        };
        assert_eq!(read("config.json"), read("config_transformers5.json"), "{name}");
    }
}

proptest! {
    #[test]
    fn changed_tokenizers_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut json = TOKENIZER.as_bytes().to_vec();
        for (place, value) in changes {
            let place = place.index(json.len());
            json[place] = value;
        }
        let _ = tokenizer::parse("tokenizer.json", &json);
    }
}
