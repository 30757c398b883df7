//! Selection of the files that a model needs from a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use wsd_nn::gguf_parts;

use super::error::HubError;
use super::name::check_inside;

/// Files that every model needs besides the weights, each with a hint for its absence.
const REQUIRED: &[(&str, &str)] = &[
    ("config.json", "it does not say which architecture this is; name a repository in transformers format"),
    (
        "tokenizer.json",
        "make one with transformers: AutoTokenizer.from_pretrained(..).save_pretrained(folder), then name a folder \
         with all",
    ),
];
/// Files that are used if they exist.
const OPTIONAL: &[&str] = &[
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// File name endings of weights in Python's pickle format.
const PICKLE: &[&str] = &[".bin", ".pt", ".pth", ".ckpt", ".pkl"];

/// Lists the needed files that are not below `snapshot`. A dangling link counts as missing.
pub(super) fn missing(snapshot: &Path, gguf: Option<&str>) -> Result<Vec<String>, HubError> {
    let mut needed: Vec<String> = match gguf {
        Some(file) => gguf_parts(file),
        None => REQUIRED.iter().map(|(file, _)| (*file).into()).collect(),
    };
    if gguf.is_none() {
        if !snapshot.join(WEIGHTS).exists() && snapshot.join(INDEX).exists() {
            needed.extend(shards(&snapshot.join(INDEX))?);
        } else {
            needed.push(WEIGHTS.into());
        }
    }
    needed.retain(|file| !snapshot.join(file).exists());
    Ok(needed)
}

/// Lists the files that a safetensors index names, each once.
pub(super) fn shards(index: &Path) -> Result<Vec<String>, HubError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let malformed = |reason: String| HubError::Malformed { origin: index.display().to_string(), reason };
    let text = wsd_core::Input::DESCRIPTION.read_text(index)?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    let shards: BTreeSet<String> = parsed.weight_map.into_values().collect();
    for shard in &shards {
        check_inside(shard).map_err(|reason| malformed(format!("shard `{shard}` {reason}")))?;
    }
    if shards.is_empty() { Err(malformed("`weight_map` is empty".into())) } else { Ok(shards.into_iter().collect()) }
}

/// The hub's list of the files of a repository.
pub(super) struct Listing<'a> {
    pub(super) repository: &'a str,
    pub(super) files: BTreeSet<String>,
}

impl Listing<'_> {
    /// Lists the files to fetch first: all but the shards, which only the fetched index names.
    /// Weights come last, so a snapshot that has its weights has everything else too.
    pub(super) fn first_files(&self, gguf: Option<&str>) -> Result<Vec<String>, HubError> {
        if let Some(file) = gguf {
            let parts = gguf_parts(file);
            return match parts.iter().find(|part| !self.files.contains(*part)) {
                Some(absent) => Err(self.unusable(
                    format!("it has no {absent}, a part of the model of {file}"),
                    "the upload is not complete; name another file or revision".into(),
                )),
                None => Ok(parts),
            };
        }
        self.check_weights()?;
        for (file, hint) in REQUIRED {
            if !self.files.contains(*file) {
                return Err(self.unusable(format!("it has no {file}"), (*hint).into()));
            }
        }
        let weights = if self.files.contains(WEIGHTS) { WEIGHTS } else { INDEX };
        let names = REQUIRED.iter().map(|(file, _)| *file).chain(OPTIONAL.iter().copied()).chain([weights]);
        Ok(names.filter(|name| self.files.contains(*name)).map(Into::into).collect())
    }

    /// Lists the shards that the index in `snapshot` names; empty where the weights are one file.
    pub(super) fn shards(&self, snapshot: &Path, gguf: Option<&str>) -> Result<Vec<String>, HubError> {
        if gguf.is_some() || self.files.contains(WEIGHTS) {
            return Ok(Vec::new());
        }
        let shards = shards(&snapshot.join(INDEX))?;
        match shards.iter().find(|shard| !self.files.contains(*shard)) {
            Some(absent) => Err(self.unusable(
                format!("{INDEX} names {absent}, which the repository does not hold"),
                "the upload is not complete; name another revision or tell its author".into(),
            )),
            None => Ok(shards),
        }
    }

    /// Lists the GGUF files, for messages.
    pub(super) fn gguf_names(&self) -> Vec<&str> {
        self.ending(&[".gguf"])
    }

    fn check_weights(&self) -> Result<(), HubError> {
        if self.files.contains(WEIGHTS) || self.files.contains(INDEX) {
            return Ok(());
        }
        let (gguf, pickle) = (self.gguf_names(), self.ending(PICKLE));
        if !gguf.is_empty() {
            let hint =
                format!("name one of its GGUF files, {}:FILE, with FILE from: {}", self.repository, gguf.join(", "));
            return Err(self.unusable(format!("it has no {WEIGHTS}, only GGUF weights"), hint));
        }
        if !pickle.is_empty() {
            let reason =
                format!("its weights ({}) are Python pickles, which can run any code when read", pickle.join(", "));
            let hint = "look for a safetensors conversion (another repository, or a pull request of this one: \
                        org/name@refs/pr/1), or convert with transformers: save_pretrained(folder)";
            return Err(self.unusable(reason, hint.into()));
        }
        Err(self
            .unusable(format!("it has neither {WEIGHTS} nor {INDEX}"), "name a repository with a whole model".into()))
    }

    fn ending(&self, endings: &[&str]) -> Vec<&str> {
        let found = |file: &&str| endings.iter().any(|ending| file.to_ascii_lowercase().ends_with(ending));
        self.files.iter().map(String::as_str).filter(found).collect()
    }

    fn unusable(&self, reason: String, hint: String) -> HubError {
        HubError::Unusable { repository: self.repository.into(), reason, hint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[&str]) -> Listing<'static> {
        Listing { repository: "org/name", files: files.iter().map(|file| (*file).into()).collect() }
    }

    #[test]
    fn only_needed_files_are_chosen_and_weights_come_last() {
        let all = ["README.md", "config.json", "consolidated.safetensors", "model.safetensors", "onnx/model.onnx"];
        let all =
            [&all[..], &["pytorch_model.bin", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"]].concat();
        let chosen = listing(&all).first_files(None).unwrap();
        assert_eq!(chosen, ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]);
        let sharded = ["config.json", "model-00001-of-00002.safetensors", INDEX, "tokenizer.json"];
        assert_eq!(listing(&sharded).first_files(None).unwrap(), ["config.json", "tokenizer.json", INDEX]);
        assert_eq!(listing(&["x/m.gguf"]).first_files(Some("x/m.gguf")).unwrap(), ["x/m.gguf"]);
    }

    #[test]
    fn all_parts_of_a_gguf_model_are_chosen() {
        let both = ["q/m-00001-of-00002.gguf", "q/m-00002-of-00002.gguf"];
        for file in both {
            assert_eq!(listing(&both).first_files(Some(file)).unwrap(), both);
            let message = listing(&[file]).first_files(Some(file)).unwrap_err().to_string();
            assert!(message.contains("no q/m-0000"), "{message}");
        }
        assert_eq!(missing(std::path::Path::new("nowhere"), Some(both[1])).unwrap(), both);
        for whole in ["m-1-of-2.gguf", "of-00002.gguf"] {
            assert_eq!(gguf_parts(whole), [whole]);
        }
    }

    #[test]
    fn unusable_repositories_are_refused_with_a_reason() {
        for (files, parts) in [
            (&["config.json", "tokenizer.json", "pytorch_model.bin"][..], ["pickle", "refs/pr/1"]),
            (&["a-Q4.gguf", "b/c.GGUF"][..], ["only GGUF", "a-Q4.gguf, b/c.GGUF"]),
            (&["config.json", "consolidated.safetensors"][..], ["neither", "whole model"]),
            (&["config.json", WEIGHTS][..], ["no tokenizer.json", "save_pretrained"]),
            (&["tokenizer.json", WEIGHTS][..], ["no config.json", "architecture"]),
        ] {
            let message = listing(files).first_files(None).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        }
    }

    #[test]
    fn a_hostile_index_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join(INDEX);
        for (text, part) in [
            (r#"{"weight_map":{"w":"../../x.safetensors"}}"#, "holds `..`"),
            (r#"{"weight_map":{"w":"/etc/x"}}"#, "absolute"),
            (r#"{"weight_map":{}}"#, "empty"),
            (r#"{"weight_map":3}"#, "invalid type"),
            ("", "EOF"),
        ] {
            fs_err::write(&index, text).unwrap();
            let message = missing(folder.path(), None).unwrap_err().to_string();
            assert!(message.contains(part) && message.contains(INDEX), "{message}");
        }
    }
}
