//! Tests of the bridge: for every division into chunks, the base's ids equal those of encoding
//! prompt and draft at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use wsd_core::{BosTokens, Bridge, HfTokenizer, Prompt, TextCodec, Token};

/// Tokenizers of every kind: byte-level, byte fallback, characters without fallback, several
/// pre-tokenizers and normalizers. `tokenizers/llama2` is left out, because three of its merges are
/// damaged and the Python library refuses it too.
const TOKENIZERS: &[&str] = &[
    "tokenizers/smollm2_135m/tokenizer.json",
    "tokenizers/mistral_7b_v0.2/tokenizer.json",
    "tokenizers/gpt_neox_20b_pythia/20B_tokenizer.json",
    "tokenizers/phi-2/tokenizer.json",
    "tokenizers/phi-3-mini/tokenizer.json",
    "tokenizers/minimind_6400/tokenizer.json",
    "tokenizers/gpt2/roberta-base_tokenizer.json",
    "weights/hf_stories260k/tokenizer.json",
    "weights/hf_babyllama_tok105/tokenizer.json",
    "weights/random_llama/tokenizer.json",
    "weights/random_qwen3/tokenizer.json",
];

const TEXTS: &[&str] = &[
    " there was a little girl named Lily. She didn't like 12345 rainy days, did she?",
    "Sure! Here's how:\n\n1. Mix 250 g of flour;\n2. add water...\n\n\n   Done -- it's easy.",
    "   three spaces first\n\n\ttabs\there \r\nand CRLF\r\n\r\nend   ",
    "fn main() {\n    let x = vec![1, 22, 333];\n\n    println!(\"{:?}\", x); // ok\n}\n",
    "def f(a, b=3.14159):\n\tif a >= b:\n\t\treturn {'k': [a] * 2}\n\n\nprint(f(1_000_000))",
    "你好，世界！今天天气很好。我们去公园吧，然后喝茶。",
    "こんにちは、元気ですか？ ｶﾀｶﾅ と がぎぐ テスト。한국어도 됩니다. 각각",
    "👩‍👩‍👧‍👦 family 👍🏽 thumbs 🇩🇪🇫🇷 flags ❤️ heart",
    "cafe\u{301} nai\u{308}ve Å \u{212B} ﬁne ½ x² ŝ s\u{302} e\u{301}\u{323} and résumé",
    "Привет, мир! Ελληνικά κείμενα. עברית ועוד. हिन्दी में लिखा हुआ। ไทยภาษา",
    "<|im_end|> <|endoftext|></s><s>[INST] <|user|>\n hi <|end|> <unk> [User]",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!!!!!????????......----____====",
    "\u{FEFF}bom \u{200B}zero\u{200D}width \u{A0}nbsp \u{2028}line \u{2581}under\u{2581} \u{0}nul",
    "http://example.org/a_b-c?d=e&f=%20g#h 10,000.50 -7 1e-9 0x1F 2024-02-29T12:34:56Z",
];

const PROMPTS: &[&str] =
    &["Once upon a time", "\n\n[User]\nHello there\n\n[Assistant]\n", "x = ", "你", "a\u{301}", "12"];

fn data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("WSD_DATA").map_or(beside, PathBuf::from);
    folder.is_dir().then_some(folder)
}

/// Loads the available tokenizers, at least the repository's own.
fn texts() -> Vec<(String, TextCodec)> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama/tokenizer.json");
    let mut paths = vec![own];
    match data() {
        Some(folder) => paths.extend(TOKENIZERS.iter().map(|name| folder.join(name))),
        None => eprintln!("skipped: no data folder (set WSD_DATA); only the repository's own tokenizer is tried"),
    }
    let load = |path: PathBuf| {
        let name = path.display().to_string();
        let tokenizer = HfTokenizer::parse(&name, &fs_err::read(&path).unwrap()).unwrap();
        let bos = tokenizer.leading_token();
        (name.clone(), TextCodec::new(name, Arc::new(tokenizer), None, BosTokens { chat: bos, raw: bos }))
    };
    paths.into_iter().map(load).collect()
}

/// Sends `ids` over the bridge in the given chunks. Returns the base's list, the list expected, and
/// the share of the text that is held back on average.
fn cross(
    draft: &TextCodec,
    base: &TextCodec,
    prompt: &str,
    ids: &[Token],
    chunks: &[usize],
) -> (Vec<Token>, Vec<Token>, f64) {
    let prompt = Prompt::Raw(prompt.to_owned());
    let (draft_prompt, base_prompt) = (draft.render(&prompt).unwrap(), base.render(&prompt).unwrap());
    let mut detokenizer = draft.detokenizer(&draft_prompt.tokens);
    let mut text: String = ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
    text.push_str(detokenizer.flush().unwrap().trim_end_matches('\u{FFFD}'));
    let want = base.encode_after(&base_prompt, &text).unwrap();

    let mut bridge = Bridge::new(draft, base, &draft_prompt, &base_prompt);
    let mut list = base_prompt.tokens.clone();
    let (mut from, mut first, mut held) = (0, true, 0.0);
    for i in 0.. {
        let to = (from + chunks[i % chunks.len()]).min(ids.len());
        let edit = bridge.push(&ids[from..to], to == ids.len()).unwrap();
        assert!(edit.keep == list.len() || first && edit.keep <= list.len(), "a token handed over was taken back");
        first &= edit.append.is_empty();
        list.truncate(edit.keep);
        list.extend(edit.append);
        held += to as f64 / ids.len() as f64 - list.len() as f64 / want.len().max(1) as f64;
        from = to;
        if to == ids.len() {
            return (list, want, held / (i + 1) as f64);
        }
    }
    unreachable!()
}

#[test]
fn chunks_equal_encoding_at_once_for_every_pair_of_tokenizers() {
    let all = texts();
    let (mut crossings, mut passes_ids) = (0, 0);
    for (draft_name, draft) in &all {
        for (base_name, base) in &all {
            if Bridge::passes_ids(draft, base) {
                passes_ids += 1;
                continue;
            }
            for (i, text) in TEXTS.iter().enumerate() {
                let ids = draft.tokenizer().encode(text).unwrap();
                if ids.is_empty() {
                    continue;
                }
                let prompt = PROMPTS[i % PROMPTS.len()];
                for chunks in [&[1][..], &[2, 1, 5], &[8]] {
                    let (got, want, _) = cross(draft, base, prompt, &ids, chunks);
                    assert_eq!(got, want, "{draft_name} to {base_name}: {prompt:?} then {text:?} by {chunks:?}");
                    crossings += 1;
                }
            }
        }
    }
    println!("{crossings} crossings over {} tokenizers, {passes_ids} pairs pass ids", all.len());
}

#[test]
fn the_prompts_last_token_may_join_with_the_draft() {
    let all = texts();
    let mut moved = 0;
    for (_, base) in &all {
        for (_, draft) in all.iter().filter(|(_, draft)| !Bridge::passes_ids(draft, base)) {
            for (prompt, text) in
                [("Once upon a ti", "me there was"), ("12", "34 apples"), ("x =", "= y or\n"), ("\n", "\n\nHi. ok")]
            {
                let prompt_tokens = base.render(&Prompt::Raw(prompt.into())).unwrap().tokens;
                let ids = draft.tokenizer().encode(text).unwrap();
                let (got, want, _) = cross(draft, base, prompt, &ids, &[1]);
                assert_eq!(got, want);
                moved += usize::from(!want.starts_with(&prompt_tokens));
            }
        }
    }
    assert!(all.len() == 1 || moved > 20, "only {moved} seams moved");
}

#[test]
fn less_than_a_quarter_of_the_text_is_held_back() {
    for (draft_name, draft) in &texts() {
        for (base_name, base) in texts().iter().filter(|(_, base)| !Bridge::passes_ids(draft, base)) {
            let ids = draft.tokenizer().encode(TEXTS[0]).unwrap();
            let (.., held) = cross(draft, base, PROMPTS[0], &ids, &[1]);
            assert!(held < 0.25, "{draft_name} to {base_name}: {held:.2} of the text waits on average");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn chunks_equal_encoding_at_once_for_random_texts(
        text in prop_oneof![
            "[ a-c\n.,'0-9]{1,60}",
            "(\\PC|\n| |  |\t){1,40}",
            "([\u{4E00}-\u{4E20}]|。|[가-갂]|[\u{1100}-\u{1102}\u{1161}-\u{1163}]|e\u{301}|👍🏽| ){1,30}",
        ],
        prompt in "[a-z \n]{1,12}",
        chunks in prop::collection::vec(1usize..9, 1..5),
    ) {
        thread_local!(static ALL: Vec<(String, TextCodec)> = texts());
        ALL.with(|all| {
            for (i, (draft_name, draft)) in all.iter().enumerate() {
                let (base_name, base) = &all[(i + 1 + text.len()) % all.len()];
                let ids = draft.tokenizer().encode(&text).unwrap();
                if !ids.is_empty() && !Bridge::passes_ids(draft, base) {
                    let (got, want, _) = cross(draft, base, &prompt, &ids, &chunks);
                    prop_assert_eq!(got, want, "{} to {}", draft_name, base_name);
                }
            }
            Ok(())
        })?;
    }
}
