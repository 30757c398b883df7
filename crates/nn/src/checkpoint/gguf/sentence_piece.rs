//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`): pieces with scores. The scores order the
//! ways to build a piece of two others, which makes them a list of merges. `SentencePieceExtractor`
//! of transformers derives the same list.

use std::{cmp::Reverse, collections::HashMap};

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;

use super::metadata::Metadata;
use super::tokens::{Kind, TokenTable};
use crate::error::Result;

/// The character that stands for a space in a piece.
const SPACE: &str = "\u{2581}";
/// The longest piece with merges, in characters. Real pieces stay below 64; the work for a piece
/// grows with the square of its length.
const MAX_MERGED_CHARS: usize = 256;
/// The most merges accepted; Gemma has 0.6 million.
const MAX_MERGES: usize = 1 << 22;

/// Replaces spaces by `▁`, and with `prefix` puts one before the text.
pub(super) fn normalizer(prefix: bool) -> Value {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if prefix {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    }
}

pub(super) fn decoder(prefix: bool) -> Value {
    let mut stages = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        stages.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": stages})
}

pub(super) fn model(metadata: &Metadata<'_>, table: &TokenTable<'_>) -> Result<BPE> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.needed(key, metadata.floats(key)?)?;
    if scores.len() != table.tokens.len() {
        let reason = format!("has {} values for {} tokens", scores.len(), table.tokens.len());
        return Err(metadata.fault(key, reason));
    }
    let merges = merges(table, &scores).ok_or_else(|| {
        metadata.fault("tokenizer.ggml.tokens", format!("its pieces must have at most {MAX_MERGES} merges"))
    })?;
    build(table, merges).map_err(|error| metadata.fault("tokenizer.ggml.tokens", error.to_string()))
}

fn build(table: &TokenTable<'_>, merges: Vec<(String, String)>) -> tokenizers::Result<BPE> {
    let mut builder = BPE::builder()
        .vocab_and_merges(table.ids(), merges)
        .byte_fallback(table.kinds.contains(&Kind::Byte))
        .fuse_unk(true);
    if let Some(unknown) = table.unknown {
        builder = builder.unk_token(table.tokens[unknown as usize].to_owned());
    }
    builder.build()
}

/// Lists all ways to build a piece of two others, best score first, then longest parts. Returns
/// `None` if they exceed [`MAX_MERGES`].
fn merges(table: &TokenTable<'_>, scores: &[f64]) -> Option<Vec<(String, String)>> {
    let ids: HashMap<&str, usize> = table.tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges = Vec::new();
    for (piece, token) in table.tokens.iter().enumerate() {
        let built = matches!(table.kinds[piece], Kind::Normal | Kind::UserDefined);
        if !built || token.chars().nth(MAX_MERGED_CHARS).is_some() {
            continue;
        }
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let known = splits.filter_map(|(left, right)| Some((*ids.get(left)?, *ids.get(right)?)));
        let mut known: Vec<_> = known.map(|(left, right)| (piece, left, right)).collect();
        known.sort_unstable();
        merges.append(&mut known);
        if merges.len() > MAX_MERGES {
            return None;
        }
    }
    let chars = |id: usize| table.tokens[id].chars().count();
    merges.sort_by(|first, second| {
        let lengths = |merge: &(usize, usize, usize)| Reverse((chars(merge.1), chars(merge.2)));
        scores[second.0].total_cmp(&scores[first.0]).then_with(|| lengths(first).cmp(&lengths(second)))
    });
    let token = |id: usize| table.tokens[id].to_owned();
    Some(merges.into_iter().map(|(_, left, right)| (token(left), token(right))).collect())
}

#[cfg(test)]
mod tests {
    use tokenizers::{AddedToken, NormalizerWrapper, Tokenizer};

    use super::*;
    use crate::checkpoint::{gguf::tests::TEXTS, tests::shared, tokenizer};

    #[test]
    fn better_scores_merge_first_and_control_tokens_never() {
        let tokens = vec!["<s>", "a", "b", "ab", "aba", "<", "s>"];
        let mut kinds = vec![Kind::Normal; tokens.len()];
        kinds[0] = Kind::Control;
        let table = TokenTable { tokens, kinds, unknown: None };
        let merges = merges(&table, &[0.0, 0.0, 0.0, -2.0, -1.0, 0.0, 0.0]).unwrap();
        assert_eq!(merges, [("ab".to_owned(), "a".to_owned()), ("a".to_owned(), "b".to_owned())]);
    }

    /// Reads the pieces of a SentencePiece model: field 1 of the protocol buffer, with text, score
    /// and type in its fields 1 to 3.
    fn pieces(model: &[u8]) -> Vec<(&str, f64, u64)> {
        let mut pieces = Vec::new();
        for (field, _, bytes) in fields(model) {
            if field != 1 {
                continue;
            }
            let mut piece = ("", 0.0, 1);
            for (field, number, bytes) in fields(bytes) {
                match field {
                    1 => piece.0 = std::str::from_utf8(bytes).unwrap(),
                    2 => piece.1 = f32::from_le_bytes(bytes.try_into().unwrap()).into(),
                    _ => piece.2 = number,
                }
            }
            pieces.push(piece);
        }
        pieces
    }

    /// Splits a protocol buffer into fields: number, value of an integer, bytes of anything else.
    fn fields(mut rest: &[u8]) -> Vec<(u64, u64, &[u8])> {
        let integer = |rest: &mut &[u8]| {
            let length = rest.iter().position(|byte| byte & 128 == 0).unwrap() + 1;
            let value = rest[..length].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 127));
            *rest = &rest[length..];
            value
        };
        let mut fields = Vec::new();
        while !rest.is_empty() {
            let tag = integer(&mut rest);
            let (value, length) = match tag & 7 {
                0 => (integer(&mut rest), 0),
                2 => (0, integer(&mut rest) as usize),
                5 => (0, 4),
                other => panic!("wire type {other}"),
            };
            fields.push((tag >> 3, value, &rest[..length]));
            rest = &rest[length..];
        }
        fields
    }

    #[test]
    fn published_models_give_the_ids_of_their_published_tokenizers() {
        // Phi-3 has the pieces of Llama 2, whose tokenizer.json in the shared data is damaged.
        for (name, published) in [("llama2", "phi-3-mini"), ("mistral_7b_v0.2", "mistral_7b_v0.2")] {
            let Some(folder) = shared("tokenizers") else { return };
            let model_file = fs_err::read(folder.join(name).join("tokenizer.model")).unwrap();
            let published = fs_err::read(folder.join(published).join("tokenizer.json")).unwrap();
            let published = tokenizer::parse(name, &published).unwrap();
            let pieces = pieces(&model_file);
            let kinds = [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];
            let table = TokenTable {
                tokens: pieces.iter().map(|piece| piece.0).collect(),
                kinds: pieces.iter().map(|piece| kinds[piece.2 as usize - 1]).collect(),
                unknown: Some(0),
            };
            let scores: Vec<_> = pieces.iter().map(|piece| piece.1).collect();
            let model = build(&table, merges(&table, &scores).unwrap()).unwrap();
            let mut own = Tokenizer::new(model);
            let normalizer: NormalizerWrapper = serde_json::from_value(normalizer(true)).unwrap();
            own.with_normalizer(Some(normalizer)).unwrap();
            own.add_special_tokens(
                ["<unk>", "<s>", "</s>"].map(|token| AddedToken::from(token, true).normalized(false)),
            )
            .unwrap();
            let long = include_str!("../../../../../LICENSE");
            for text in TEXTS.into_iter().filter(|text| !text.contains("</s>")).chain([long]) {
                let ids = |tokenizer: &Tokenizer| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
                assert_eq!(ids(&own), ids(&published), "{name}: {text:?}");
            }
        }
    }
}
