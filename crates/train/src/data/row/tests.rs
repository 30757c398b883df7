use super::*;

fn chat_of(messages: &[(ChatRole, &str)], target: usize) -> TrainingRow {
    let messages = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
    TrainingRow::Chat { messages, targets: vec![target] }
}

#[test]
fn every_form_is_read() {
    use ChatRole::{Assistant, System, User};
    let completion = |prompt: &str, completion: &str| TrainingRow::Completion {
        prompt: prompt.into(),
        completion: completion.into(),
    };
    let pair = |chosen, rejected| TrainingRow::Preference(Box::new(PreferencePair { chosen, rejected }));
    let hi = |answer, from| chat_of(&[(User, "Hi"), (Assistant, answer)], from);
    for (text, row) in [
        (r#"{"text": "a"}"#, TrainingRow::Text("a".into())),
        (r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}"#, hi("Yo", 1)),
        (
            r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},
                {"role": "user", "content": "c"}, {"role": "assistant", "content": "d", "weight": 1}]}"#,
            chat_of(&[(User, "a"), (Assistant, "b"), (User, "c"), (Assistant, "d")], 3),
        ),
        (r#"{"prompt": "a", "completion": "b"}"#, completion("a", "b")),
        (
            r#"{"prompt": [{"role": "user", "content": "Hi"}],
                "completion": [{"role": "assistant", "content": "Yo"}]}"#,
            hi("Yo", 1),
        ),
        (r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#, pair(completion("a", "b"), completion("a", "c"))),
        (
            r#"{"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
                "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}]}"#,
            pair(hi("Yo", 1), hi("No", 1)),
        ),
        (
            r#"{"system": "S", "instruction": "Hi", "input": "there", "output": "Yo", "history": [["a", "b"]]}"#,
            chat_of(&[(System, "S"), (User, "a"), (Assistant, "b"), (User, "Hi\nthere"), (Assistant, "Yo")], 4),
        ),
        (r#"{"instruction": "Hi", "input": "", "chosen": "Yo", "rejected": "No"}"#, pair(hi("Yo", 1), hi("No", 1))),
        (
            r#"{"prompt": "a", "completion": "b", "label": false}"#,
            TrainingRow::Labelled { answer: Box::new(completion("a", "b")), wanted: false },
        ),
        (
            r#"{"prompt": "a", "completions": ["b", "c\n"], "labels": [true, 0.5]}"#,
            TrainingRow::Steps {
                prompt: Prompt::Raw("a".into()),
                steps: vec!["b".into(), "c".into()],
                labels: vec![1.0, 0.5],
            },
        ),
        (r#"{"prompt": "Hi", "output": "Yo", "wsd": {}}"#, hi("Yo", 1)),
        (r#"{"messages": [{"role": "user", "content": "Hi"}], "output": "Yo", "id": 3}"#, hi("Yo", 1)),
        (r#"{"prompt": "Hi", "chosen": "Yo", "output": "No"}"#, pair(hi("Yo", 1), hi("No", 1))),
        (
            r#"{"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Yo"},
                "rejected": {"from": "gpt", "value": "No"}}"#,
            pair(hi("Yo", 1), hi("No", 1)),
        ),
    ] {
        assert_eq!(TrainingRow::parse(text).unwrap(), row, "{text}");
    }
}

#[test]
fn faults_name_the_key() {
    for (row, want) in [
        ("[]", "not a JSON object: invalid type: sequence, expected a map at line 1 column 0"),
        (r#"{"question": "?"}"#, "has `question`; a row has `text`;"),
        (r#"{"text": ""}"#, "`text` is empty"),
        (r#"{"prompt": "a", "completion": 3}"#, "`completion` must be a text"),
        (r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, "`rejected` is the same as `chosen`"),
        (r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, "`messages` has no assistant message"),
        (r#"{"messages": [{"role": "tool", "content": "Hi"}]}"#, "`messages` has a message of `tool`"),
        (r#"{"messages": [{"role": "user", "content": 1}]}"#, "whose `content` is not a text"),
        (
            r#"{"messages": [{"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 0}]}"#,
            "`messages` has no assistant message to learn",
        ),
        (
            r#"{"messages": [{"role": "user", "content": "a"},
                {"role": "assistant", "content": "b", "weight": 0.5}]}"#,
            "a message of the assistant whose `weight` must be 0 or 1, got 0.5",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
                "rejected": [{"role": "user", "content": "R"}, {"role": "assistant", "content": "B"}]}"#,
            "`chosen` must answer the same messages as the other conversation, up to one of the assistant; they \
             differ at message 1",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],
                "rejected": [{"role": "user", "content": "Q"}, {"role": "user", "content": "B"},
                {"role": "assistant", "content": "C"}]}"#,
            "`rejected` must answer the same messages",
        ),
        (r#"{"messages": []}"#, "`messages` must be a list of messages"),
        (r#"{"prompt": "a", "completion": "b", "label": "yes"}"#, "`label` must be true or false, got \"yes\""),
        (r#"{"prompt": "a", "completions": ["b"], "labels": [1, 0]}"#, "one for each of the 1 `completions`"),
        (r#"{"prompt": "a", "completions": [""], "labels": [1]}"#, "`completions` must be a list of texts"),
        (r#"{"prompt": "a", "chosen": "b", "output": "b"}"#, "`output` is the same as `chosen`"),
    ] {
        let error = TrainingRow::parse(row).unwrap_err().to_string();
        assert!(error.contains(want), "{row}: {error}");
    }
}
