//! Conversations as targets, with templates of every kind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

use wsd_core::{ChatRole, Message};
use wsd_nn::{Checkpoint, TemplateChoice};
use wsd_train::data::{ExampleReader, TrainingRow, read_rows};
use wsd_train::{Encoder, Error, Objective};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// A template like Phi-3's: a finished text ends with another token.
const CLOSED: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% else %}<|endoftext|>{% endif %}";
/// A template like Qwen 3's: only the last answer has its reasoning.
const REASONING: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n\
    {% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}\
    {{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
/// A template like DeepSeek R1's: the generation prompt opens a reasoning that finished answers do not have.
const OPENED: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}";
/// The last message decides about the first.
const SHIFTING: &str = "{{ messages[-1]['role'] }}: {% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}";

fn checkpoint() -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../nn/tests/fixtures/llama")).unwrap()
}

fn encoder(source: &str, max_len: Option<usize>) -> Encoder {
    let template = TemplateChoice::Source { name: "template".into(), text: source.into() };
    // Some templates write a BOS token.
    let mut checkpoint = checkpoint();
    checkpoint.special.bos = Some("<|endoftext|>".into());
    Encoder::try_new(&checkpoint, &template, 300, max_len).unwrap()
}

fn conversation() -> Vec<Message> {
    [(ChatRole::User, "a"), (ChatRole::Assistant, "b"), (ChatRole::User, "c"), (ChatRole::Assistant, "d")]
        .map(|(role, content)| Message::new(role, content))
        .into()
}

/// The targets of each sequence, as text.
fn learned(source: &str, targets: &[usize], max_len: Option<usize>) -> Vec<Vec<String>> {
    let sequences = encoder(source, max_len).chat(&conversation(), targets).unwrap();
    let tokenizer = checkpoint().tokenizer;
    let text = |tokens: &[u32]| tokenizer.decode(tokens, false).unwrap();
    sequences
        .iter()
        .map(|sequence| sequence.target_ranges.iter().map(|range| text(&sequence.tokens[range.clone()])).collect())
        .collect()
}

#[test]
fn every_answer_is_learned_as_it_is_written() {
    let think = "<think>\n\n</think>\n\n";
    let (first, last) = (format!("{think}b<|im_end|>"), format!("{think}d<|im_end|>"));
    for (source, expected) in [
        (CHATML, vec![vec!["b<|im_end|>", "d<|im_end|>"]]),
        (CLOSED, vec![vec!["b<|im_end|>", "d<|im_end|>\n<|endoftext|>"]]),
        (OPENED, vec![vec!["b<|im_end|>", "d<|im_end|>"]]),
        (REASONING, vec![vec![&*first], vec![&*last]]),
    ] {
        assert_eq!(learned(source, &[1, 3], None), expected, "{source}");
    }
    assert_eq!(learned(CHATML, &[1], None), [["b<|im_end|>"]]);
    assert_eq!(learned(REASONING, &[3], None), [[last]]);
    let error = encoder(SHIFTING, None).chat(&conversation(), &[3]).unwrap_err().to_string();
    assert!(error.contains("renders the messages before message 4 differently when it follows"), "{error}");
}

#[test]
fn answers_beyond_the_maximum_length_are_left_out() {
    let lengths: Vec<_> =
        encoder(REASONING, None).chat(&conversation(), &[1, 3]).unwrap().iter().map(|s| s.tokens.len()).collect();
    assert_eq!(learned(REASONING, &[1, 3], Some(lengths[0])).len(), 1);
    assert!(encoder(REASONING, Some(3)).chat(&conversation(), &[1, 3]).is_err());
}

/// Without a chat template, chats are refused one by one where other rows can be learned from.
#[test]
fn chats_without_a_template_are_refused_beside_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let [chats, texts] = ["chats.jsonl", "texts.jsonl"].map(|name| folder.path().join(name));
    let chat = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    fs_err::write(&chats, format!("{chat}\n{{}}\n{chat}\n")).unwrap();
    fs_err::write(&texts, "{\"prompt\": \"a\", \"completion\": \"b\"}\n").unwrap();
    let mut checkpoint = checkpoint();
    checkpoint.chat_template = None;
    let encoder = Encoder::try_new(&checkpoint, &TemplateChoice::Own, 300, None).unwrap();
    let encoder = encoder.with_template_setting("model.template");
    let reader = ExampleReader { objective: Objective::find("sft").unwrap(), encoder: &encoder, packing: None };
    let told = "`model.template` must be plain or a Jinja file, got own\n  hint: the files of `";

    let error = reader.read(std::slice::from_ref(&chats), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Setting { .. }) && error.to_string().starts_with(told), "{error}");
    for files in [[chats.clone(), texts.clone()], [texts.clone(), chats.clone()]] {
        let mut refused = Vec::new();
        assert_eq!(reader.read(&files, &mut refused).unwrap().len(), 1);
        let found: Vec<_> = refused.iter().map(|row| (&row.file, row.line, row.reason.starts_with(told))).collect();
        assert_eq!(found.len(), 3);
        assert!([(&chats, 1, true), (&chats, 2, false), (&chats, 3, true)].iter().all(|row| found.contains(row)));
    }
}

/// Rows of several answers, with the stock templates of published models.
#[test]
fn published_templates_learn_conversations() {
    let data = std::env::var_os("WSD_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let rows = data.join("bugs/training/multi_turn.jsonl");
    if !rows.exists() {
        println!("skipped: there is no {}", rows.display());
        return;
    }
    let rows = read_rows(&rows).unwrap().read;
    for template in [
        "trl/qwen3.jinja",
        "trl/phi3.jinja",
        "trl/qwen2_5.jinja",
        "trl/llama3.jinja",
        "trl/gemma3.jinja",
        "llama_cpp/Qwen-QwQ-32B.jinja",
        "llama_cpp/deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja",
        "llama_cpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja",
        "llama_cpp/microsoft-Phi-3.5-mini-instruct.jinja",
        "llama_cpp/HuggingFaceTB-SmolLM3-3B.jinja",
    ] {
        let source = fs_err::read_to_string(data.join("chat_templates").join(template)).unwrap();
        let encoder = encoder(&source, None);
        let reader = ExampleReader { objective: Objective::find("sft").unwrap(), encoder: &encoder, packing: None };
        for (_, row) in &rows {
            let TrainingRow::Chat { messages, targets } = row else { panic!("{row:?}") };
            let examples = reader.examples(row).unwrap_or_else(|error| panic!("{template}: {error}"));
            let mut texts = Vec::new();
            for sequence in examples.iter().flat_map(|example| &example.sequences) {
                let text = |range: &std::ops::Range<usize>| {
                    checkpoint().tokenizer.decode(&sequence.tokens[range.clone()], false).unwrap()
                };
                texts.extend(sequence.target_ranges.iter().map(text));
            }
            assert_eq!(texts.len(), targets.len(), "{template}: {texts:?}");
            for (text, target) in texts.iter().zip(targets) {
                assert!(text.contains(&messages[*target].content), "{template}: {texts:?}");
            }
        }
    }
}
