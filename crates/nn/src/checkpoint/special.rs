//! Special tokens.

use serde_json::{Map, Value};
use tokenizers::Tokenizer;

/// The special tokens of a vocabulary, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that begins a text.
    pub bos: Option<String>,
    /// The token that ends a text.
    pub eos: Option<String>,
    /// The token that pads a batch.
    pub pad: Option<String>,
    /// The token for text outside of the vocabulary.
    pub unk: Option<String>,
}

impl SpecialTokens {
    /// Reads the tokens from `tokenizer_config.json`, or else from `special_tokens_map.json`.
    pub(super) fn from_files(files: [&Map<String, Value>; 2]) -> Self {
        let token = |role: &str| {
            let value = files.iter().find_map(|file| file.get(role))?;
            let text = value.get("content").unwrap_or(value);
            text.as_str().map(str::to_owned)
        };
        Self { bos: token("bos_token"), eos: token("eos_token"), pad: token("pad_token"), unk: token("unk_token") }
    }
}

/// Tokens that end an answer in published models, including models whose config omits them.
const WELL_KNOWN_ENDS: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    MESSAGE_END,
    "<|eom_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    HARMONY_ENDS[0],
    HARMONY_ENDS[1],
];
/// The token that ends an answer of Phi-3, and a message of gpt-oss, whose answers have several.
const MESSAGE_END: &str = "<|end|>";
/// The tokens that end an answer of gpt-oss: its text, and a call.
const HARMONY_ENDS: [&str; 2] = ["<|return|>", "<|call|>"];

/// Returns the ids in `eos_token_id` of a config, which is a number or a list.
pub(super) fn declared_ends(config: &Map<String, Value>) -> impl Iterator<Item = u32> {
    let declared = config.get("eos_token_id").into_iter();
    let declared = declared.flat_map(|ids| ids.as_array().map_or(std::slice::from_ref(ids), Vec::as_slice));
    declared.filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok())
}

/// Collects all ids that end an answer, in ascending order: `ids`, those in `eos_token_id` of the
/// configs, EOS, and the well-known ones that are special tokens of the vocabulary.
pub(super) fn end_tokens(
    tokenizer: &Tokenizer,
    special: &SpecialTokens,
    configs: [&Map<String, Value>; 2],
    mut ids: Vec<u32>,
) -> Vec<u32> {
    ids.extend(configs.into_iter().flat_map(declared_ends));
    ids.extend(special.eos.as_ref().and_then(|eos| tokenizer.token_to_id(eos)));
    let added = tokenizer.get_added_vocabulary();
    let is_harmony = HARMONY_ENDS.iter().all(|token| added.is_special_token(token));
    let ends = |token: &&str| added.is_special_token(token) && !(is_harmony && *token == MESSAGE_END);
    let well_known = WELL_KNOWN_ENDS.into_iter().filter(ends);
    ids.extend(well_known.filter_map(|token| tokenizer.token_to_id(token)));
    ids.sort_unstable();
    ids.dedup();
    ids
}
