use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::json;
use wsd_core::{ChatRole, Message, Prompt};

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
    let with = |tokens: &[&str]| {
        let mut tokenizer: Value = serde_json::from_str(TOKENIZER).unwrap();
        tokenizer["added_tokens"] = tokens
            .iter()
            .zip(5..)
            .map(|(token, id)| {
                json!({"id": id, "content": token,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
            })
            .collect();
        let changes = [("config.json", "{}"), ("tokenizer.json", &tokenizer.to_string())];
        Checkpoint::open(folder(&changes).path()).unwrap().end_tokens
    };
    assert_eq!(with(&["<|start|>", "<|end|>"]), [3]);
    assert_eq!(with(&["<|return|>", "<|call|>", "<|end|>"]), [5, 6], "<|end|> ends a message of gpt-oss");
    let expected = SpecialTokens { eos: Some("</s>".into()), unk: Some("b".into()), ..SpecialTokens::default() };
    assert_eq!(checkpoint.special, expected);
    assert_eq!(checkpoint.add_bos, Some(false));
    assert_eq!(checkpoint.tokenizer.encode("abab", false).unwrap().len(), 4, "truncation is off");
}

#[test]
fn the_end_of_text_is_that_of_the_tokenizer() {
    let eos = |config: &str, tokenizer_config: &str| {
        let changes = [("config.json", config), ("tokenizer_config.json", tokenizer_config)];
        let checkpoint = Checkpoint::open(folder(&changes).path()).unwrap();
        assert!(checkpoint.end_tokens.contains(&checkpoint.eos().unwrap()));
        let codec = checkpoint.clone().into_codec("m", &TemplateChoice::Plain).unwrap();
        assert_eq!(codec.eos(), checkpoint.eos());
        codec.eos()
    };
    assert_eq!(eos("{}", r#"{"eos_token": "</s>"}"#), Some(4), "named in tokenizer_config.json alone");
    assert_eq!(eos(r#"{"eos_token_id": [7, 5]}"#, r#"{"eos_token": {"content": "</s>"}}"#), Some(4));
    assert_eq!(eos(r#"{"eos_token_id": [7, 5]}"#, "{}"), Some(7));
    assert_eq!(eos("{}", "{}"), Some(2), "a well-known end");
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
    for older in ["tokenizer.model", "vocab.json"] {
        assert!(message(&[("tokenizer.json", ""), (older, "x")]).contains("save_pretrained"));
    }
    assert!(message(&[("tokenizer.json", ""), ("tekken.json", "x")]).contains("or a GGUF file of it"));
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
        other.contains("must begin with \"GGUF\"") && other.contains("\n  hint: a model is a GGUF file, or the folder"),
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

#[test]
fn chats_begin_with_bos_only_if_the_folder_adds_it() {
    let begins = |add: &str| {
        let config = format!(
            r#"{{"bos_token": "a", "add_bos_token": {add}, "chat_template": "{{{{ messages[0].content }}}}"}}"#
        );
        let checkpoint = Checkpoint::open(folder(&[("tokenizer_config.json", config.as_str())]).path()).unwrap();
        let codec = checkpoint.into_codec("m", &TemplateChoice::Own).unwrap();
        let chat = Prompt::Chat(vec![Message::new(ChatRole::User, "b")]);
        [chat, Prompt::Raw("b".into())].map(|prompt| codec.render(&prompt).unwrap().tokens)
    };
    assert_eq!(begins("false"), [vec![1], vec![1]]);
    assert_eq!(begins("null"), [vec![1], vec![1]], "the tokenizer itself adds none");
    assert_eq!(begins("true"), [vec![0, 1], vec![0, 1]]);
    let config = r#"{"bos_token": "a", "add_bos_token": false, "chat_template": "{{ bos_token }}"}"#;
    let checkpoint = Checkpoint::open(folder(&[("tokenizer_config.json", config)]).path()).unwrap();
    let codec = checkpoint.into_codec("m", &TemplateChoice::Plain).unwrap();
    let chat = codec.render(&Prompt::Chat(vec![Message::new(ChatRole::User, "b")])).unwrap();
    assert_eq!(chat.bos, Some(0), "the plain form begins as the model's own template");
}

#[test]
fn a_head_that_differs_from_the_embedding_is_not_tied() {
    let tied = |head: &[f32], declared: serde_json::Value| {
        let matrix = |name: &str, values: &[f32]| {
            Tensor::new(name, Format::F32, vec![2, 1], Format::F32.quantize(values).unwrap()).unwrap()
        };
        let tensors = vec![matrix("model.embed_tokens.weight", &[1.0, 2.0]), matrix("lm_head.weight", head)];
        let config = json!({"tie_word_embeddings": declared}).as_object().cloned().unwrap();
        let tokenizer = tokenizer::parse("tokenizer.json", TOKENIZER.as_bytes()).unwrap();
        Checkpoint::bare("m", config, tensors, tokenizer).checked("m").unwrap().config["tie_word_embeddings"].clone()
    };
    assert_eq!(tied(&[1.0, 2.0], json!(true)), json!(true));
    assert_eq!(tied(&[1.0, 3.0], json!(true)), json!(false));
    assert_eq!(tied(&[1.0, 3.0], json!(null)), json!(false));
    assert_eq!(tied(&[1.0, 2.0], json!(false)), json!(false));
}

#[test]
fn added_tokens_beside_the_tokenizer_count() {
    let open = |config: &str, added: &str| {
        Checkpoint::open(folder(&[("tokenizer_config.json", config), ("added_tokens.json", added)]).path())
    };
    let decoder = r#"{"added_tokens_decoder": {"9": {"content": "<|x|>", "special": true},
        "2": {"content": "<|im_end|>"}, "4": {"content": "</s>", "special": true}}, "unk_token": "<u>"}"#;
    let checkpoint = open(decoder, r#"{"<u>": 7, "<|v|>": 12}"#).unwrap();
    let ids = |text: &str| checkpoint.tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    assert_eq!(ids("a<|x|>b<|im_end|></s><u><|v|>a"), [0, 9, 1, 2, 4, 7, 12, 0]);
    let special = |token: &str| checkpoint.tokenizer.get_added_vocabulary().is_special_token(token);
    assert_eq!(["<|x|>", "<u>", "<|v|>"].map(special), [true, true, false]);
    assert_eq!(checkpoint.tokenizer.decode(&[0, 9, 12, 1], true).unwrap().replace(' ', ""), "a<|v|>b");
    let taken = open(r#"{"added_tokens_decoder": {"1": {"content": "<|x|>"}}}"#, "{}").unwrap_err().to_string();
    assert!(taken.contains("added token `<|x|>` must have a free id, got 1, the id of `b`\n  hint: "), "{taken}");
}

#[test]
fn tensors_that_no_model_needs_are_passed_over() {
    let opened = folder(&[]);
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "ids":{"dtype":"I64","shape":[1],"data_offsets":[4,12]},
        "flag":{"dtype":"BOOL","shape":[1],"data_offsets":[12,13]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 13]].concat();
    fs_err::write(opened.path().join("model.safetensors"), bytes).unwrap();
    let weights = Checkpoint::open(opened.path()).unwrap().weights;
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a"]);
    let error = weights.require(&[("ids".into(), vec![1])]).unwrap_err().to_string();
    assert!(error.contains("`ids` has dtype I64, supported are F32, F16, BF16"), "{error}");
}

#[test]
fn a_decoder_saved_alone_has_the_names_of_the_whole_model() {
    let names = |names: &[&str]| {
        let tensor = |name: &&str| Tensor::new(*name, Format::F32, vec![1], vec![0; 4]).unwrap();
        let tensors = config::with_model_prefix(names.iter().map(tensor).collect());
        tensors.into_iter().map(|tensor| tensor.name).collect::<Vec<_>>().join(" ")
    };
    let alone = ["embed_tokens.weight", "layers.0.mlp.up_proj.weight", "norm.weight", "lm_head.weight"];
    let whole = "model.embed_tokens.weight model.layers.0.mlp.up_proj.weight model.norm.weight lm_head.weight";
    assert_eq!(names(&alone), whole);
    assert_eq!(names(&["model.embed_tokens.weight", "norm.weight"]), "model.embed_tokens.weight norm.weight");
}

#[test]
fn configs_in_the_dialect_of_python_are_read() {
    let text = "\u{feff}{\"eos_token_id\": 7, \"limit\": [0.0, Infinity], \"other\": NaN}";
    let config = Checkpoint::open(folder(&[("config.json", text)]).path()).unwrap().config;
    assert_eq!(
        (&config["eos_token_id"], &config["limit"], &config["other"]),
        (&json!(7), &json!([0.0, null]), &json!(null))
    );
}

#[test]
fn other_things_than_weights_are_refused_with_the_way_out() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n";
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let error = message(&[(file, pointer)]);
        assert!(error.contains(file) && error.contains("it is a Git LFS pointer"), "{error}");
        assert!(error.contains("hint: fetch the content: run `git lfs install`"), "{error}");
    }
    let adapter = r#"{"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}"#;
    let error = message(&[("config.json", ""), ("adapter_config.json", adapter)]);
    assert!(error.contains("a LORA adapter of the model `org/base`") && error.contains("wsd train export"), "{error}");
    for (section, method) in [
        (json!({"quant_method": "gptq", "bits": 4}), "gptq"),
        (json!({"quant_method": "awq"}), "awq"),
        (json!({"quant_method": "fp8"}), "fp8"),
        (json!({"load_in_4bit": true}), "bitsandbytes"),
    ] {
        let error = message(&[("config.json", &json!({"quantization_config": section}).to_string())]);
        let expected =
            format!("config.json: key `quantization_config`: quantization method `{method}` is not supported");
        assert!(error.contains(&expected) && error.contains("or a GGUF file of the same model"), "{error}");
    }
}

#[test]
fn a_tokenizer_that_multiplies_text_is_refused() {
    let mut tokenizer: serde_json::Value = serde_json::from_str(TOKENIZER).unwrap();
    let step = json!({"type": "Replace", "pattern": {"String": "o"}, "content": "o".repeat(1000)});
    tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![step; 4]});
    let error = message(&[("tokenizer.json", &tokenizer.to_string())]);
    assert!(error.contains("tokenizer.json") && error.contains("its normalizer makes of one"), "{error}");
}

#[test]
fn copied_weights_outlive_their_file() {
    let folder = folder(&[]);
    let mapped = Checkpoint::open(folder.path()).unwrap();
    let values: Vec<Vec<u8>> = mapped.weights.iter().map(|tensor| tensor.bytes().to_vec()).collect();
    let copied = mapped.in_memory();
    let file = fs_err::OpenOptions::new().write(true).open(folder.path().join("model.safetensors")).unwrap();
    file.set_len(0).unwrap();
    assert!(copied.weights.iter().map(|tensor| tensor.bytes().to_vec()).eq(values));
}

#[test]
#[cfg(unix)]
fn files_that_never_end_are_refused() {
    for file in ["config.json", "tokenizer.json", "model.safetensors", "tokenizer_config.json"] {
        let folder = folder(&[]);
        let path = folder.path().join(file);
        let _ = fs_err::remove_file(&path);
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("must be a regular file, got a device"), "{error}");
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
