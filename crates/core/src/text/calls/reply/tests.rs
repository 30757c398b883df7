use super::*;
use serde_json::{Value, json};

fn tools(source: &str) -> Tools {
    let tool = |name: &str| {
        let types = json!({"type": "object", "properties": {"zip": {"type": "string"}}});
        json!({"type": "function", "function": {"name": name, "parameters": types}})
    };
    Tools { definitions: vec![tool("add"), tool("get_weather")], format: CallFormat::of_template(source) }
}

/// Reads a text cut into pieces of `length` characters: text, reasoning, calls.
fn read(reply: Reply, text: &str, length: usize) -> (String, String, Vec<(String, String)>) {
    let (mut reply, mut out) = (reply, (String::new(), String::new(), Vec::<(String, String)>::new()));
    let letters: Vec<_> = text.chars().collect();
    let pieces = letters.chunks(length).map(|piece| piece.iter().collect::<String>());
    let mut parts: Vec<_> = pieces.flat_map(|piece| reply.push(&piece)).collect();
    parts.extend(reply.finish());
    for part in parts {
        match part {
            Part::Text(text) => out.0 += &text,
            Part::Reasoning(text) => out.1 += &text,
            Part::Call { index, name } => {
                assert_eq!(index, out.2.len());
                out.2.push((name, String::new()));
            }
            Part::Arguments { index, text } => out.2[index].1 += &text,
        }
    }
    out
}

const HERMES: &str = "{{ tools }}<tool_call>";
const LLAMA: &str = "<|start_header_id|> \"parameters\" tools";
const MISTRAL: &str = "[TOOL_CALLS]";
const GEMMA: &str = "<start_function_call>";
const CODER: &str = "<tool_call><function=";

#[test]
fn every_form_is_read_however_it_is_cut() {
    let wanted = [
        ("add".to_owned(), json!({"a": [1, {"b": "}"}]})),
        ("get_weather".to_owned(), json!({"zip": "02139", "days": 2})),
    ];
    let (add, weather) = (r#"{"a": [1, {"b": "}"}]}"#, r#"{"zip": "02139", "days": 2}"#);
    let object = |name: &str, key: &str, value: &str| format!(r#"{{"name": "{name}", "{key}": {value}}}"#);
    let both = |key: &str, separator: &str| {
        format!("{}{separator}{}", object("add", key, add), object("get_weather", key, weather))
    };
    let marked = both("arguments", "\n</tool_call>\n<tool_call>\n");
    let gemma = [
        "<start_function_call>call:add{a:[1,{b:<escape>}<escape>}]}<end_function_call>",
        "<start_function_call>call:get_weather{zip:<escape>02139<escape>,days:2}<end_function_call>",
    ];
    let tags = [
        "<tool_call>\n<function=add>\n<parameter=a>\n[1, {\"b\": \"}\"}]\n</parameter>\n",
        "</function>\n</tool_call>\n",
        "<tool_call>\n<function=get_weather>\n<parameter=zip>\n02139\n</parameter>\n",
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
    ];
    for (source, text, said) in [
        (HERMES, format!("Well.\n<tool_call>\n{marked}\n</tool_call>"), "Well.\n"),
        (HERMES, format!("<tool_call>{}</tool_call> Done", both("arguments", "")), "Done"),
        (HERMES, format!("<tool_call>no</tool_call>\n<tool_call>{marked}</tool_call>"), "<tool_call>no</tool_call>\n"),
        (HERMES, both("arguments", "\n"), ""),
        (HERMES, format!("```json\n{}\n```\nDone", both("arguments", "\n")), "Done"),
        (HERMES, format!("{{}}<tool_call>{marked}</tool_call>"), "{}"),
        (CODER, format!("```json\n[{}]\n```", both("arguments", ", ")), ""),
        (LLAMA, both("parameters", "; "), ""),
        (LLAMA, format!("<|python_tag|>{}", both("parameters", ";")), ""),
        (MISTRAL, format!("Hm [TOOL_CALLS] [{}]", both("arguments", ", ")), "Hm "),
        (MISTRAL, format!("[TOOL_CALLS]add[ARGS]{add}[TOOL_CALLS]get_weather{weather}"), ""),
        (GEMMA, gemma.concat(), ""),
        (CODER, tags.concat(), ""),
    ] {
        for length in [1, 2, 7, 1000] {
            let (heard, _, calls) = read(Reply::new(Some(&tools(source)), None, false), &text, length);
            let value = |text: String| serde_json::from_str::<Value>(&text).expect(&text);
            let calls: Vec<_> = calls.into_iter().map(|(name, arguments)| (name, value(arguments))).collect();
            assert_eq!((heard.as_str(), &calls[..]), (said, &wanted[..]), "{length}: {text}");
        }
    }
}

#[test]
fn what_is_spelled_is_read() {
    for source in [HERMES, LLAMA, MISTRAL, GEMMA, CODER] {
        let tools = tools(source);
        let arguments = json!({"zip": "1 \"x\"", "n": 3, "list": [true, null]}).to_string();
        let text = tools.format.spell("get_weather", &arguments);
        let (_, _, calls) = read(Reply::new(Some(&tools), None, false), &text, 3);
        assert_eq!(calls.len(), 1, "{text}");
        assert_eq!(serde_json::from_str::<Value>(&calls[0].1).unwrap().to_string(), arguments, "{text}");
    }
}

#[test]
fn other_text_stays_text() {
    for (source, text) in [
        (HERMES, "a <tool_ b </tool_call> {\"name\": \"add\"}"),
        (HERMES, "x <tool_call>no json</tool_call> y"),
        (HERMES, "x <tool_call>"),
        (HERMES, "{\"name\": \"other\", \"arguments\": {}}"),
        (HERMES, "```json\n{\"a\": 1}\n```"),
        (HERMES, "```js\n{\"name\": \"add\"}\n```"),
        (HERMES, "I write {\"name\": \"add\"}"),
        (LLAMA, "{\"name\": \"other\", \"parameters\": {}}"),
        (LLAMA, "{\"a\": 1} and more"),
        (LLAMA, "[1, 2]"),
        (GEMMA, "<start_function_call>nothing<end_function_call>"),
        (MISTRAL, "[TOOL_CALLS] two words"),
    ] {
        for length in [1, 5, 1000] {
            let tools = tools(source);
            let (said, _, calls) = read(Reply::new(Some(&tools), None, false), text, length);
            assert_eq!((said.as_str(), calls.len()), (text, 0));
        }
    }
}

#[test]
fn a_call_cut_off_keeps_its_beginning() {
    let (_, _, calls) = read(
        Reply::new(Some(&tools(HERMES)), None, false),
        "<tool_call>{\"name\": \"add\", \"arguments\": {\"a\": 1",
        4,
    );
    assert_eq!(calls, [("add".to_owned(), "{\"a\": 1".to_owned())]);
}

#[test]
fn a_forced_call_that_is_cut_off_leaves_no_text() {
    let whole = "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>";
    for (text, count) in [
        ("<tool_call>\n{\"name\": \"ad".to_owned(), 0),
        (format!("{whole}\n<tool"), 1),
        (format!("{whole}\n<tool_call>\n{{\"na"), 1),
        ("[{\"na".to_owned(), 0),
    ] {
        for length in [1, 3, 100] {
            let forced = Reply::new(Some(&tools(HERMES)), None, false).constrained(true);
            let (said, _, calls) = read(forced, &text, length);
            assert_eq!((said.as_str(), calls.len()), ("", count), "{text}");
        }
    }
}

#[test]
fn forced_calls_may_lack_marks() {
    let text = "[{\"name\": \"add\", \"arguments\": {}}, {\"name\": \"add\", \"arguments\": {}}]";
    for source in [MISTRAL, GEMMA, CODER] {
        let (said, _, calls) = read(Reply::new(Some(&tools(source)), None, false).constrained(true), text, 2);
        assert_eq!((said.as_str(), calls.len()), ("", 2));
    }
}

#[test]
fn reasoning_is_split_from_the_answer() {
    let marks = Reply::marks("{{ '</think>' }}");
    for length in [1, 3, 100] {
        for (begins, text) in [(false, "<think>\nHm <b>.\n</think>\n\n Yes."), (true, "\nHm <b>.\n</think>\n\n Yes.")] {
            let (said, thought, _) = read(Reply::new(None, marks, begins), text, length);
            assert_eq!((said.as_str(), thought.as_str()), ("Yes.", "Hm <b>.\n"));
        }
        let (said, thought, _) = read(Reply::new(None, marks, false), " <thin </think>", length);
        assert_eq!((said.as_str(), thought.as_str()), (" <thin </think>", ""));
        let call = "<think>a</think>\n<tool_call>{\"name\": \"add\", \"arguments\": {}}</tool_call>";
        let (said, thought, calls) = read(Reply::new(Some(&tools(HERMES)), marks, false), call, length);
        assert_eq!((said.as_str(), thought.as_str(), calls.len()), ("", "a", 1));
    }
}

#[test]
fn channels_are_split_from_the_answer() {
    let marks = Reply::marks("{{ '<|start|>assistant<|channel|>final<|message|>' }}");
    let reply = || Reply::new(None, marks, false);
    for piece in ["<|channel|>", "<|message|>", "<|start|>"] {
        assert!(reply().reads(piece), "{piece}");
    }
    assert!(!reply().reads("<|end|>"));
    let reasoned = "<|channel|>analysis<|message|>Hm.<|start|>assistant<|channel|>final<|message|>Yes.";
    for length in [1, 3, 100] {
        for (text, wanted) in [
            (reasoned, ("Yes.", "Hm.")),
            ("<|channel|>final<|message|>Yes.", ("Yes.", "")),
            ("<|channel|>analysis<|message|>Hm", ("", "Hm")),
            ("Yes.", ("Yes.", "")),
        ] {
            let (said, thought, _) = read(reply(), text, length);
            assert_eq!((said.as_str(), thought.as_str()), wanted, "{text}");
        }
    }
}
