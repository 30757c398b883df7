//! Byte-level BPE (`tokenizer.ggml.model` = `gpt2`). The file holds tokens and merges, but only a
//! name for the pre-tokenizer. The table has the expressions that the published `tokenizer.json`
//! files use under these names.

use serde_json::{Value, json};
use tokenizers::models::bpe::BPE;

use super::architecture::Architecture;
use super::metadata::Metadata;
use super::tokens::TokenTable;
use crate::error::{Error, Result};

/// A pre-tokenizer: it cuts text into pieces that no merge crosses.
pub(super) struct Cut {
    /// The values of `tokenizer.ggml.pre` that name it.
    names: &'static [&'static str],
    /// Regular expressions applied in turn; each match becomes a piece.
    splits: &'static [&'static str],
    /// The expression of GPT-2 is applied last.
    gpt2: bool,
    /// Text is normalized to Unicode form C first.
    nfc: bool,
    /// A piece that is a token becomes that token without merges.
    ignore_merges: bool,
    /// A text begins with BOS if the file does not decide.
    pub(super) add_bos: bool,
}

/// The size of the vocabulary of Llama 3.
const LLAMA3_TOKENS: usize = 128_256;

const PLAIN: Cut = Cut { names: &[], splits: &[], gpt2: false, nfc: false, ignore_merges: false, add_bos: false };

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
);
/// Cased letters, escaped because several change under Unicode normalization.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[",
    r"A-Za-z\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}",
    r"\x{370}-\x{373}\x{376}\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}",
    r"\x{3A3}-\x{3F5}\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}",
    r"\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}",
    r"\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}",
    r"\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}",
    r"\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}",
    r"\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}\x{212A}-\x{212D}\x{212F}-\x{2134}",
    r"\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}\x{2184}\x{2C00}-\x{2C7B}\x{2C7E}-\x{2CE4}",
    r"\x{2CEB}-\x{2CEE}\x{2CF2}\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}\x{A771}-\x{A787}",
    r"\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}\x{FF41}-\x{FF5A}",
    r"\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}",
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}",
    r"]+",
);
const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+";
const DEEPSEEK_EAST_ASIAN: &str = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+";
const DEEPSEEK3_EAST_ASIAN: &str = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+";
const DEEPSEEK3: &str = concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"##,
    r##"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
);

const CUTS: &[Cut] = &[
    Cut {
        names: &[
            "gpt-2",
            "default",
            "gpt2",
            "olmo",
            "mpt",
            "phi-2",
            "jais",
            "modern-bert",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
        ],
        gpt2: true,
        ..PLAIN
    },
    Cut {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "pixtral",
            "falcon-h1",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        splits: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Cut { names: &["dbrx", "olmo2", "smaug-bpe", "chatglm-bpe", "glm4"], splits: &[LLAMA3], ..PLAIN },
    Cut {
        names: &["qwen2", "qwen3", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "kormo", "f2llmv2"],
        splits: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        splits: &[r"\p{N}"],
        gpt2: true,
        ..PLAIN
    },
    Cut { names: &["tekken"], splits: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Cut { names: &["gpt-4o", "llama4", "kanana2", "talkie"], splits: &[GPT4O], ..PLAIN },
    Cut {
        names: &["deepseek-llm"],
        splits: &["[\r\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, r"\s+$", DEEPSEEK_EAST_ASIAN, r"\p{N}+"],
        ..PLAIN
    },
    Cut {
        names: &["deepseek-coder"],
        splits: &["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_EAST_ASIAN, r"\p{N}"],
        ..PLAIN
    },
    Cut { names: &["deepseek-v3"], splits: &[r"\p{N}{1,3}", DEEPSEEK3_EAST_ASIAN, DEEPSEEK3], ..PLAIN },
];

impl Cut {
    /// Finds the pre-tokenizer that a file names, or else that of the models whose first files, of
    /// before May 2024, name none; the default is that of GPT-2.
    pub(super) fn of(metadata: &Metadata<'_>, architecture: &Architecture, tokens: usize) -> Result<&'static Self> {
        let unnamed = match architecture.name {
            "qwen2" => "qwen2",
            "llama" if tokens == LLAMA3_TOKENS => "llama-bpe",
            _ => "default",
        };
        let name = metadata.string("tokenizer.ggml.pre")?.unwrap_or(unnamed);
        CUTS.iter().find(|cut| cut.names.contains(&name)).ok_or_else(|| Error::Unsupported {
            file: metadata.file.into(),
            what: "pre-tokenizer (`tokenizer.ggml.pre`)".into(),
            found: name.into(),
            supported: CUTS.iter().flat_map(|cut| cut.names).copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// Finds the pre-tokenizer that equals the stages of a `tokenizer.json`.
    pub(super) fn in_tokenizer(tokenizer: &Value) -> Option<&'static Self> {
        let stages = match &tokenizer["pre_tokenizer"] {
            Value::Object(stage) if stage["type"] == "Sequence" => stage["pretokenizers"].as_array()?.clone(),
            stage => vec![stage.clone()],
        };
        let (bytes, before) = stages.split_last()?;
        let split = |stage: &Value| match stage["type"].as_str()? {
            "Split" if stage["behavior"] == "Isolated" => stage["pattern"]["Regex"].as_str().map(str::to_owned),
            "Digits" if stage["individual_digits"] == true => Some(r"\p{N}".to_owned()),
            _ => None,
        };
        let splits: Vec<_> = before.iter().map(split).collect::<Option<_>>()?;
        let nfc = match tokenizer["normalizer"]["type"].as_str() {
            None => false,
            Some("NFC") => true,
            Some(_) => return None,
        };
        // `use_regex`, true by default, applies the expression of GPT-2.
        let gpt2 = bytes["use_regex"] != false;
        let ignore_merges = tokenizer["model"]["ignore_merges"] == true;
        let same =
            |cut: &&Self| (cut.gpt2, cut.nfc, cut.ignore_merges) == (gpt2, nfc, ignore_merges) && cut.splits == splits;
        CUTS.iter().find(same).filter(|_| bytes["type"] == "ByteLevel" && bytes["add_prefix_space"] != true)
    }

    /// Returns the name to write.
    pub(super) fn name(&self) -> &'static str {
        self.names[0]
    }

    pub(super) fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }

    pub(super) fn pre_tokenizer(&self) -> Value {
        let split = |regex: &&str| {
            let pattern = json!({"Regex": regex});
            json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false})
        };
        let bytes =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": self.gpt2});
        let stages: Vec<_> = self.splits.iter().map(split).chain([bytes]).collect();
        json!({"type": "Sequence", "pretokenizers": stages})
    }

    pub(super) fn decoder() -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true})
    }

    pub(super) fn model(&self, metadata: &Metadata<'_>, table: &TokenTable<'_>) -> Result<BPE> {
        let key = "tokenizer.ggml.merges";
        let merges = metadata.needed(key, metadata.strings(key)?)?;
        let merges = merges.into_iter().map(|merge| match merge.split_once(' ') {
            Some((left, right)) => Ok((left.to_owned(), right.to_owned())),
            None => {
                Err(metadata.fault(key, format!("a merge must be two tokens with a space between them, got {merge:?}")))
            }
        });
        BPE::builder()
            .vocab_and_merges(table.ids(), merges.collect::<Result<Vec<_>>>()?)
            .ignore_merges(self.ignore_merges)
            .build()
            .map_err(|error| metadata.fault(key, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{
        PreTokenizerWrapper,
        tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer},
    };

    use super::*;
    use crate::checkpoint::{gguf::tests::TEXTS, tests::shared};

    fn pieces(stage: &Value, text: &str) -> Vec<String> {
        let pre_tokenizer: PreTokenizerWrapper = serde_json::from_value(stage.clone()).unwrap();
        let mut pieces = PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut pieces).unwrap();
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|split| split.0.into())
            .collect()
    }

    #[test]
    fn every_expression_compiles_and_loses_no_text() {
        for cut in CUTS {
            let pieces = pieces(&cut.pre_tokenizer(), "It's 12345 x\r\n\n  y! 你好 🎉");
            let bytes: usize = pieces.iter().map(|piece| piece.chars().count()).sum();
            assert_eq!(bytes, "It's 12345 x\r\n\n  y! 你好 🎉".len(), "{:?}: {pieces:?}", cut.names);
        }
    }

    #[test]
    fn digits_are_cut_as_named() {
        let digits = |name: &str| {
            let cut = CUTS.iter().find(|cut| cut.names.contains(&name)).unwrap();
            pieces(&cut.pre_tokenizer(), "12345").len()
        };
        assert_eq!(["gpt-2", "llama-bpe", "qwen2", "smollm", "deepseek-llm"].map(digits), [1, 2, 5, 5, 1]);
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = CUTS.iter().flat_map(|cut| cut.names).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn pieces_equal_those_of_published_tokenizers() {
        for (folder, name) in [("smollm2_135m", "smollm"), ("phi-2", "phi-2"), ("minimind_6400", "gpt-2")] {
            let Some(folder) = shared(&format!("tokenizers/{folder}")) else { return };
            let Ok(json) = fs_err::read(folder.join("tokenizer.json")) else { continue };
            let published: Value = serde_json::from_slice(&json).unwrap();
            let cut = CUTS.iter().find(|cut| cut.names.contains(&name)).unwrap();
            for text in TEXTS {
                let expected = pieces(&published["pre_tokenizer"], text);
                assert_eq!(pieces(&cut.pre_tokenizer(), text), expected, "{name}: {text:?}");
            }
        }
    }
}
