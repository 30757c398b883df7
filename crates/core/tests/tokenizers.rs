//! Tests of encoding and decoding against the Python package, at once and token by token.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wsd_core::{BosTokens, HfTokenizer, TextCodec, Token, Tokenizer};

#[derive(serde::Deserialize)]
struct Goldens {
    texts: Vec<String>,
    tokenizers: Vec<Golden>,
}

#[derive(serde::Deserialize)]
struct Golden {
    source: String,
    #[serde(default)]
    cases: Vec<Case>,
    error: Option<String>,
}

#[derive(serde::Deserialize)]
struct Case {
    ids: Vec<Token>,
    decoded: String,
}

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

#[test]
fn ids_and_texts_equal_the_python_packages() {
    let Some(data) = data() else {
        eprintln!("skipped: no data folder (set WSD_DATA)");
        return;
    };
    let goldens: Goldens = serde_json::from_str(include_str!("goldens/tokenizers.json")).unwrap();
    for golden in goldens.tokenizers {
        let json = fs_err::read(data.join(&golden.source)).unwrap();
        let tokenizer = HfTokenizer::parse(&golden.source, &json);
        if golden.error.is_some() {
            let error = tokenizer.unwrap_err().to_string();
            assert!(error.contains(&golden.source), "{error}");
            continue;
        }
        let tokenizer = Arc::new(tokenizer.unwrap());
        let text = TextCodec::new(&golden.source, tokenizer.clone(), None, BosTokens::default());
        assert_eq!(golden.cases.len(), goldens.texts.len());
        for (case, original) in golden.cases.iter().zip(&goldens.texts) {
            assert_eq!(tokenizer.encode(original).unwrap(), case.ids, "{}: {original:?}", golden.source);
            assert_eq!(tokenizer.decode(&case.ids).unwrap(), case.decoded, "{}: {original:?}", golden.source);
            let mut detokenizer = text.detokenizer(&[]);
            let mut streamed: String = case.ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
            streamed.push_str(&detokenizer.flush().unwrap());
            assert_eq!(streamed, case.decoded, "{}: token by token", golden.source);
        }
    }
}

#[test]
fn invalid_tokenizer_files_are_errors() {
    for json in ["", "{}", "[1]", r#"{"model":{"type":"BPE","vocab":{"a":4294967295},"merges":[]}}"#, "{\"version\":"] {
        if let Ok(tokenizer) = HfTokenizer::parse("odd.json", json.as_bytes()) {
            assert!(tokenizer.vocabulary().pieces.len() < 10_000);
            let _ = tokenizer.encode("a b");
        }
    }
    let error = HfTokenizer::parse("odd.json", b"{}").unwrap_err().to_string();
    assert!(error.contains("odd.json"), "{error}");
}
