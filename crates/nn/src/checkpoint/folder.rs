//! A Hugging Face folder, on disk or embedded.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use wsd_core::Input;

use super::{
    Checkpoint, added_tokens,
    bytes::Bytes,
    config::{normal_form, text_tensor_name, with_model_prefix},
    json, names, refusals,
    safetensors::{self, Stored},
    special::SpecialTokens,
    tensor::Tensor,
    tokenizer,
    weights::Weights,
};
use crate::error::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A source of files by name.
#[derive(Clone, Copy)]
enum Folder<'a> {
    Disk(&'a Path),
    Embedded { name: &'a str, files: &'a [(&'a str, &'static [u8])] },
}

/// Opens a folder on disk.
pub(super) fn open(path: &Path) -> Result<Checkpoint> {
    read(Folder::Disk(path))
}

/// Opens a folder embedded in the program.
pub(super) fn open_embedded(name: &str, files: &[(&str, &'static [u8])]) -> Result<Checkpoint> {
    read(Folder::Embedded { name, files })
}

/// Opens a folder without its weights; it needs to hold a tokenizer and nothing else.
pub(super) fn open_text(path: &Path) -> Result<Checkpoint> {
    let config = Folder::Disk(path).json("config.json")?.unwrap_or_default();
    untrained(path, normal_form(config))
}

/// Makes a model without weights from a configuration and the tokenizer of a folder.
pub(super) fn untrained(path: &Path, config: Map<String, Value>) -> Result<Checkpoint> {
    Ok(assemble(Folder::Disk(path), config, Weights::default())?.with_end_tokens())
}

fn read(folder: Folder<'_>) -> Result<Checkpoint> {
    let config: Map<String, Value> = folder.json("config.json")?.ok_or_else(|| folder.missing("config.json"))?;
    refusals::refuse_quantized(&folder.place("config.json"), &config)?;
    let several_models = config.contains_key("text_config");
    let config = normal_form(config);
    let Stored { mut tensors, unread } = folder.tensors()?;
    if several_models {
        let text = |tensor: Tensor| text_tensor_name(&tensor.name).map(|name| tensor.renamed(name));
        tensors = tensors.into_iter().filter_map(text).collect();
    }
    let weights = Weights::new(folder.place(""), with_model_prefix(tensors)).with_unread(unread);
    let weights = names::in_our_spelling(&config, weights)?;
    let checkpoint = assemble(folder, config, weights)?;
    checkpoint.checked(&folder.place("config.json"))
}

/// Makes a checkpoint of a configuration, weights and the small files of a folder.
fn assemble(folder: Folder<'_>, config: Map<String, Value>, weights: Weights) -> Result<Checkpoint> {
    let tokenizer_json = folder.small("tokenizer.json")?.ok_or_else(|| folder.missing("tokenizer.json"))?;
    let tokenizer_config: Map<String, Value> = folder.json("tokenizer_config.json")?.unwrap_or_default();
    let special_tokens_map = folder.json("special_tokens_map.json")?.unwrap_or_default();
    let place = folder.place("tokenizer.json");
    let lists = added_tokens::Lists {
        tokenizer_json: &place,
        tokenizer_config: &tokenizer_config,
        special_tokens_map: &special_tokens_map,
        added_tokens: &folder.json("added_tokens.json")?.unwrap_or_default(),
    };
    Ok(Checkpoint {
        name: folder.name(),
        config,
        weights,
        tokenizer: added_tokens::complete(tokenizer::parse(&place, &tokenizer_json)?, &lists)?,
        chat_template: folder.chat_template(&tokenizer_config)?,
        special: SpecialTokens::from_files([&tokenizer_config, &special_tokens_map]),
        end_tokens: Vec::new(),
        generation_config: folder.json("generation_config.json")?.unwrap_or_default(),
        add_bos: tokenizer_config.get("add_bos_token").and_then(Value::as_bool),
        warnings: Vec::new(),
    })
}

impl<'a> Folder<'a> {
    /// Returns the path of a file for messages; an empty name stands for the folder.
    fn place(self, file: &str) -> String {
        match self {
            Self::Disk(path) if file.is_empty() => path.display().to_string(),
            Self::Disk(path) => path.join(file).display().to_string(),
            Self::Embedded { name, .. } if file.is_empty() => name.into(),
            Self::Embedded { name, .. } => format!("{name}/{file}"),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Disk(path) => {
                let whole = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
                whole.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
            }
            Self::Embedded { name, .. } => name.into(),
        }
    }

    fn embedded(files: &[(&str, &'static [u8])], file: &str) -> Option<&'static [u8]> {
        files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
    }

    /// Reads a small file; returns `None` if it does not exist.
    fn small(self, file: &str) -> Result<Option<Cow<'static, [u8]>>> {
        match self {
            Self::Embedded { files, .. } => Ok(Self::embedded(files, file).map(Cow::Borrowed)),
            Self::Disk(path) => match Input::DESCRIPTION.read(&path.join(file)) {
                Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }

    fn json<T: DeserializeOwned>(self, file: &str) -> Result<Option<T>> {
        let Some(bytes) = self.small(file)? else { return Ok(None) };
        json::parse(&bytes).map(Some).map_err(|error| Error::malformed(&self.place(file), "JSON", error.to_string()))
    }

    fn map(self, file: &str) -> Result<Bytes> {
        match self {
            Self::Disk(path) => Bytes::map(&path.join(file)),
            Self::Embedded { files, .. } => {
                Self::embedded(files, file).map(Bytes::from).ok_or_else(|| self.missing(file))
            }
        }
    }

    /// Lists the names of the files.
    fn names(self) -> BTreeSet<String> {
        match self {
            Self::Disk(path) => fs_err::read_dir(path)
                .map(|entries| {
                    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
                })
                .unwrap_or_default(),
            Self::Embedded { files, .. } => files.iter().map(|(name, _)| (*name).to_owned()).collect(),
        }
    }

    fn missing(self, file: &str) -> Error {
        let names = self.names();
        let gguf = names.iter().find(|name| name.ends_with(".gguf"));
        let adapter = self.json("adapter_config.json").ok().flatten().filter(|_| file == "config.json");
        let hint = match (file, gguf) {
            _ if adapter.is_some() => refusals::adapter_hint(&adapter.unwrap_or_default()),
            (_, Some(gguf)) => format!("name the file itself: {}", self.place(gguf)),
            ("tokenizer.json", _) if names.contains("tokenizer.model") || names.contains("vocab.json") => {
                "its tokenizer has an older form; convert it with \
                 transformers' AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)"
                    .into()
            }
            ("tokenizer.json", _) if names.contains("tekken.json") => {
                "it has only Mistral's tekken.json; take tokenizer.json from a conversion of the model to \
                 transformers, or a GGUF file of it"
                    .into()
            }
            ("tokenizer.json", _) => "copy it from the repository the model came from".into(),
            _ => "a checkpoint is a folder with config.json, tokenizer.json and safetensors, or a GGUF file".into(),
        };
        Error::MissingFile { file: self.place(""), missing: file.into(), hint }
    }

    fn chat_template(self, tokenizer_config: &Map<String, Value>) -> Result<Option<String>> {
        if let Some(template) = self.small("chat_template.jinja")? {
            let template = String::from_utf8(template.into_owned());
            let place = self.place("chat_template.jinja");
            return template.map(Some).map_err(|error| Error::malformed(&place, "text", error.to_string()));
        }
        let own: Map<String, Value> = self.json("chat_template.json")?.unwrap_or_default();
        Ok(own.get("chat_template").or_else(|| tokenizer_config.get("chat_template")).and_then(default_template))
    }

    /// Reads the tensors of the single file or of all shards.
    fn tensors(self) -> Result<Stored> {
        let names = self.names();
        if names.contains(SINGLE) {
            return self.shard(SINGLE);
        }
        match self.json::<Index>(INDEX)? {
            Some(index) => self.shards(&names, &index.weight_map),
            None => {
                names.iter().try_for_each(|name| refusals::refuse_pickle(Path::new(&self.place(name))))?;
                Err(self.missing(&format!("{SINGLE} (or {INDEX})")))
            }
        }
    }

    fn shard(self, file: &str) -> Result<Stored> {
        safetensors::read(&self.place(file), &self.map(file)?)
    }

    fn shards(self, present: &BTreeSet<String>, weight_map: &BTreeMap<String, String>) -> Result<Stored> {
        let fault = |at: &str, reason: String| Error::malformed(&self.place(INDEX), at, reason);
        let shards: BTreeSet<&str> = weight_map.values().map(String::as_str).collect();
        if let Some(shard) = shards.iter().find(|shard| shard.contains(['/', '\\', ':']) || shard.starts_with('.')) {
            return Err(fault("key `weight_map`", format!("a shard must be a file of the same folder, got {shard:?}")));
        }
        let missing: Vec<_> = shards.iter().copied().filter(|shard| !present.contains(*shard)).collect();
        if !missing.is_empty() {
            let hint = format!("{INDEX} lists {} shards; fetch the missing ones", shards.len());
            return Err(Error::MissingFile { file: self.place(""), missing: missing.join(", "), hint });
        }
        let mut all = Stored::default();
        for shard in shards {
            let listed = |tensor: &Tensor| weight_map.get(&tensor.name).is_some_and(|file| file == shard);
            let stored = self.shard(shard)?;
            all.tensors.extend(stored.tensors.into_iter().filter(listed));
            all.unread.extend(stored.unread);
        }
        let found: BTreeSet<&str> =
            all.tensors.iter().map(|tensor| &tensor.name).chain(all.unread.keys()).map(String::as_str).collect();
        let absent = weight_map.iter().filter(|(name, _)| !found.contains(name.as_str()));
        let problems: Vec<_> = absent.map(|(name, shard)| format!("`{name}` is not in {shard}")).collect();
        if problems.is_empty() { Ok(all) } else { Err(Error::Tensors { file: self.place(INDEX), problems }) }
    }
}

/// The content of `model.safetensors.index.json`.
#[derive(serde::Deserialize)]
struct Index {
    /// The shard of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// Returns the template itself, or the one called `default` from a list of named templates.
fn default_template(value: &Value) -> Option<String> {
    let template = match value {
        Value::Array(named) => named.iter().find(|entry| entry["name"] == "default")?.get("template")?,
        template => template,
    };
    template.as_str().map(str::to_owned)
}
