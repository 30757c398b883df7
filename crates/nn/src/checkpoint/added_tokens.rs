//! Added tokens that a folder lists beside `tokenizer.json`.

use serde_json::{Map, Value, json};
use tokenizers::Tokenizer;

use super::tokenizer;
use crate::error::{Error, Result};

/// The files that list added tokens, with the name of the folder's `tokenizer.json` for messages.
pub(super) struct Lists<'a> {
    pub(super) tokenizer_json: &'a str,
    /// The content of `tokenizer_config.json`: tokens with their properties by id, in
    /// `added_tokens_decoder`.
    pub(super) tokenizer_config: &'a Map<String, Value>,
    /// The content of `special_tokens_map.json`.
    pub(super) special_tokens_map: &'a Map<String, Value>,
    /// The content of `added_tokens.json`: ids by token.
    pub(super) added_tokens: &'a Map<String, Value>,
}

/// Adds the listed tokens that the tokenizer lacks, under their ids. A token that the vocabulary has
/// under another id keeps it, as in transformers.
pub(super) fn complete(tokenizer: Tokenizer, lists: &Lists<'_>) -> Result<Tokenizer> {
    let known = tokenizer.get_added_tokens_decoder();
    let is_known = |entry: &Value| known.values().any(|token| entry["content"] == token.content.as_str());
    let missing: Vec<_> = lists.entries().into_iter().filter(|entry| !is_known(entry)).collect();
    if missing.is_empty() {
        return Ok(tokenizer);
    }
    let file = lists.tokenizer_json;
    let fault = |reason: String| Error::Tokenizer { file: file.into(), reason };
    let mut value = serde_json::to_value(&tokenizer).map_err(|error| fault(error.to_string()))?;
    let mut listed = Vec::with_capacity(missing.len());
    for mut entry in missing {
        let Some((content, id)) = entry["content"].as_str().map(str::to_owned).zip(entry["id"].as_u64()) else {
            continue;
        };
        let id = match tokenizer.token_to_id(&content) {
            Some(own) => own,
            None => u32::try_from(id).map_err(|_| {
                fault(format!("the id of added token `{content}` must be at most {}, got {id}", u32::MAX))
            })?,
        };
        entry["id"] = id.into();
        // The library gives a new token the next free id, unless the vocabulary has it.
        if let Some(vocab) = value["model"]["vocab"].as_object_mut().filter(|_| tokenizer.id_to_token(id).is_none()) {
            vocab.insert(content.clone(), id.into());
        }
        if let Some(added) = value["added_tokens"].as_array_mut() {
            added.push(entry);
        }
        listed.push((content, id));
    }
    let completed = tokenizer::parse(file, value.to_string().as_bytes())?;
    for (content, id) in listed {
        let found = completed.token_to_id(&content);
        if found != Some(id) {
            let owner = completed.id_to_token(id).unwrap_or_default();
            return Err(fault(format!(
                "added token `{content}` must have a free id, got {id}, the id of `{owner}`\n  \
                 hint: correct `added_tokens_decoder` in tokenizer_config.json, or added_tokens.json"
            )));
        }
    }
    Ok(completed)
}

impl Lists<'_> {
    /// Returns all listed tokens as entries of `tokenizer.json`, by ascending id.
    fn entries(&self) -> Vec<Value> {
        let decoder = self.tokenizer_config.get("added_tokens_decoder").and_then(Value::as_object);
        let with_properties = decoder.into_iter().flatten().filter_map(|(id, token)| {
            let flag = |name: &str, default: bool| token.get(name).and_then(Value::as_bool).unwrap_or(default);
            let special = flag("special", false);
            let (content, id) = (token.get("content")?.as_str()?, id.parse::<u64>().ok()?);
            Some(json!({
                "id": id, "content": content, "single_word": flag("single_word", false),
                "lstrip": flag("lstrip", false), "rstrip": flag("rstrip", false),
                "normalized": flag("normalized", !special), "special": special,
            }))
        });
        let mut entries: Vec<_> = with_properties.collect();
        for (content, id) in self.added_tokens {
            if entries.iter().all(|entry| entry["content"] != content.as_str()) {
                let special = self.is_special(content);
                entries.push(json!({
                    "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": !special, "special": special,
                }));
            }
        }
        entries.retain(|entry| entry["content"] != "");
        entries.sort_by_key(|entry| entry["id"].as_u64());
        entries
    }

    /// Tells whether a file names the token in a special role.
    fn is_special(&self, content: &str) -> bool {
        let is = |value: &Value| value.get("content").unwrap_or(value) == content;
        let named = |(role, value): (&String, &Value)| match value {
            Value::Array(several) => role == "additional_special_tokens" && several.iter().any(is),
            value => role.ends_with("_token") && is(value),
        };
        [self.tokenizer_config, self.special_tokens_map].into_iter().flatten().any(named)
    }
}
