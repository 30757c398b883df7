//! Tests of written files.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::super::container;
use crate::{Checkpoint, Format, Tensor, Weights};

/// Our metadata equal those of llama.cpp's converter, except for keys it takes from other sources.
#[test]
fn the_metadata_is_that_of_the_converter() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for name in ["llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "phi3_longrope", "olmo2"] {
        let Ok(theirs) = fs_err::read(fixtures.join(format!("gguf/{name}-f16.gguf"))) else { continue };
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        Checkpoint::open(&fixtures.join(name)).unwrap().save_gguf(file.path(), Format::F16).unwrap();
        let [theirs, ours] = [theirs, fs_err::read(file.path()).unwrap()].map(crate::checkpoint::Bytes::from);
        let [theirs, ours] = [&theirs, &ours].map(|bytes| container::parse(name, bytes).unwrap());
        for (key, value) in &theirs.metadata {
            // Names may differ, and keys with a default value may be absent.
            if !["general.name", "attention.sliding_window", "original_context_length"]
                .iter()
                .any(|end| key.ends_with(end))
            {
                assert_eq!(ours.metadata.get(key).map(described), Some(described(value)), "{name}: {key}");
            }
        }
        let tensors = |container: &container::Container<'_>| {
            container.tensors.iter().map(|tensor| format!("{tensor:?}")).collect::<Vec<_>>()
        };
        assert_eq!(tensors(&ours), tensors(&theirs), "{name}");
    }
}

/// A file written again from a file, with a buffer that no model reads, is the same model.
#[test]
fn files_are_written_again() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    for name in ["llama-f16.gguf", "phi3_longrope-f16.gguf", "gemma3_text-f16.gguf", "mistral-f16.gguf"] {
        let mut first = Checkpoint::open(&fixtures.join(name)).unwrap();
        let buffer = Tensor::new("model.rotary_emb.inv_freq", Format::F32, vec![1], vec![0; 4]).unwrap();
        first.weights = Weights::new(name, first.weights.iter().cloned().chain([buffer]));
        let recommended = json!({"do_sample": true, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.05});
        first.generation_config = recommended.as_object().unwrap().clone();
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        first.save_gguf(file.path(), Format::F16).unwrap();
        let again = Checkpoint::open(file.path()).unwrap();
        assert_eq!(again.config, first.config, "{name}");
        assert_eq!(again.sampling(), first.sampling(), "{name}");
        let names = |checkpoint: &Checkpoint| checkpoint.weights.names().map(str::to_owned).collect::<Vec<_>>();
        let kept: Vec<_> = names(&first).into_iter().filter(|name| !name.contains("inv_freq")).collect();
        assert_eq!(names(&again).iter().collect::<BTreeSet<_>>(), kept.iter().collect(), "{name}");
    }
}

/// Tokenizers without a normalizer put the space before a text where they cut it; a stated choice of
/// BOS precedes the tokenizer's own.
#[test]
fn the_space_before_a_text_and_bos_are_written() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut checkpoint = Checkpoint::open(&fixtures.join("mistral")).unwrap();
    for (scheme, adds_bos) in [("first", true), ("never", false)] {
        let mut tokenizer = serde_json::to_value(&checkpoint.tokenizer).unwrap();
        tokenizer["model"]["byte_fallback"] = true.into();
        tokenizer["normalizer"] = Value::Null;
        tokenizer["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
        checkpoint.tokenizer = serde_json::from_value(tokenizer).unwrap();
        checkpoint.add_bos = Some(adds_bos);
        let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
        checkpoint.save_gguf(file.path(), Format::F16).unwrap();
        let written = Checkpoint::open(file.path()).unwrap();
        assert_eq!(written.add_bos, Some(adds_bos));
        let ids = |checkpoint: &Checkpoint| checkpoint.tokenizer.encode("Once upon", false).unwrap().get_ids().to_vec();
        assert_eq!(ids(&written), ids(&checkpoint), "{scheme}");
    }
}

fn described(value: &container::Value<'_>) -> String {
    match value {
        container::Value::Array(array) => format!("{:?}", array.values().collect::<Vec<_>>()),
        value => format!("{value:?}"),
    }
}

#[test]
fn divisors_become_the_published_scaling_they_are_from() {
    let scaling = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192});
    let mut checkpoint = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama")).unwrap();
    checkpoint.config.insert("rope_theta".into(), 500000.0.into());
    checkpoint.config.insert("rope_scaling".into(), scaling.clone());
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    checkpoint.save_gguf(file.path(), Format::F16).unwrap();
    let opened = Checkpoint::open(file.path()).unwrap();
    assert!(opened.config.contains_key("wsd_rope_factors"));
    let standard = opened.in_standard_form().unwrap();
    assert_eq!(standard.config["rope_scaling"], scaling);
    assert!(!standard.config.keys().any(|key| key.starts_with("wsd_")));
    let other = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf/llama-f16.gguf"));
    assert!(other.unwrap().in_standard_form().unwrap_err().to_string().contains("those of Llama 3.1 to 3.3"));
}
