//! Schemas and grammars that clients send, and calls of tools that models write.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use wsd_core::scripted::{Pieces, Scripted};
use wsd_core::{
    BosTokens, ChatInputs, ChatTemplate, Engine as _, Next, Part, Specials, Template, Terms, TextCodec, Tools,
};
use wsd_grammar::{Form, grammar};

use super::Run;

/// Tokens that are read of an answer.
const TOKENS: usize = 24;

pub(crate) fn schemas() -> Result<Vec<Vec<u8>>> {
    let schemas = [
        json!({"type": "object", "properties": {"a": {"enum": ["x", 1, null]}}, "required": ["a"]}),
        json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}}}),
        json!({"anyOf": [{"type": "integer", "minimum": -3, "maximum": 40}, {"multipleOf": 0.5}]}),
        json!({"type": "string", "pattern": "^[a-c]{2}\\d$", "minLength": 1, "maxLength": 9}),
        json!({"allOf": [{"type": "object"}, {"properties": {"d": {"format": "date"}}}]}),
        json!({"type": "array", "prefixItems": [{"const": 1}], "x-guidance": {"whitespace_flexible": true}}),
    ];
    Ok(schemas.iter().map(|schema| schema.to_string().into_bytes()).collect())
}

pub(crate) fn grammars() -> Result<Vec<Vec<u8>>> {
    let grammars = [
        "start: \"a\" WORD+\nWORD: /[x-z]{1,3}/",
        "start: item (\",\" item)*\nitem: \"[\" start? \"]\" | NUMBER\nNUMBER: /[0-9]+/",
        "start: %json {\"type\": \"object\"}",
        "root ::= item (\",\" item){0,2} # list\nitem ::= \"[\" root? \"]\" | [0-9a-f]+ | \"\\x41\\n\"",
    ];
    Ok(grammars.map(|text| text.as_bytes().to_vec()).into())
}

/// Makes a target that compiles a form and walks through an answer.
fn open(read: fn(&str) -> Option<Form>) -> Result<Run> {
    let letters: String = (' '..='~').chain(['\n', '\u{e9}']).collect();
    let engine = Scripted::random("m", Arc::new(Pieces::letters(&letters)), 1);
    Ok(Box::new(move |input| {
        let text = String::from_utf8_lossy(input);
        let Some(form) = read(&text) else { return "no JSON".into() };
        walk(&engine, &form).unwrap_or_else(|error| error.to_string())
    }))
}

/// Takes the last allowed token at each position.
fn walk(engine: &Scripted, form: &Form) -> wsd_core::Result<String> {
    let terms = Terms { grammar: Some(grammar("grammar", form)?), ..Terms::default() };
    let Some(guide) = terms.guide(engine, b"", 0)? else { return Ok("free".into()) };
    let (mut answer, size) = (Vec::new(), engine.codec().tokenizer().vocabulary().pieces.len() as u32);
    while answer.len() < TOKENS {
        match guide.next(&answer)? {
            Next::End => return Ok("an end".into()),
            Next::Tokens(mask) => match (2..size).rev().find(|&token| mask.allows(token)) {
                Some(token) => answer.push(token),
                None => return Ok("an end".into()),
            },
        }
    }
    Ok("more".into())
}

pub(crate) fn open_schemas() -> Result<Run> {
    open(|text| serde_json::from_str(text).ok().map(Form::Schema))
}

pub(crate) fn open_grammars() -> Result<Run> {
    open(|text| Some(Form::of_text(text)))
}

/// Signs of the templates of each form of calls.
const TEMPLATES: [&str; 6] = [
    "tools <tool_call>",
    "<tool_call><function=",
    "[TOOL_CALLS]",
    "<start_function_call>",
    "<|tool_call>",
    "<|start_header_id|> \"parameters\" tools <think></think>",
];

pub(crate) fn calls() -> Result<Vec<Vec<u8>>> {
    let texts = [
        "0Hm <tool_call>{\"name\": \"add\", \"arguments\": {\"a\": [1, \"}\"]}}</tool_call> so",
        "1<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
        "2[TOOL_CALLS] [{\"name\": \"add\", \"arguments\": {}}][TOOL_CALLS]add[ARGS]{\"a\": 1}",
        "3<start_function_call>call:add{a:<escape>x<escape>,b:[1,{c:true}]}<end_function_call>",
        "4<|tool_call>call:add{a:<|\"|>x<|\"|>}<tool_call|>",
        "5<think>a</think>{\"name\": \"add\", \"parameters\": {\"a\": 1}}; {\"name\": \"add\"}",
    ];
    Ok(texts.map(|text| text.as_bytes().to_vec()).into())
}

/// Reads an answer, whose first byte chooses the form, in one piece and in many. Both must give the
/// same.
pub(crate) fn call(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    let mut letters = text.chars();
    let choice = letters.next().map_or(0, |letter| letter as usize);
    let Ok(template) = ChatTemplate::parse("m", TEMPLATES[choice % TEMPLATES.len()], Specials::default()) else {
        return "no template".into();
    };
    let pieces = Arc::new(Pieces::letters("a"));
    let codec = TextCodec::new("m", pieces, Some(Template::Jinja(Box::new(template))), BosTokens::default());
    let definitions = vec![json!({"type": "function", "function": {"name": "add"}})];
    let tools = Some(Tools { definitions, format: codec.call_format() });
    let inputs = ChatInputs { tools, ..ChatInputs::default() };
    let read = |length: usize| {
        let (mut reply, mut said, mut calls) = (codec.reply(&inputs), String::new(), Vec::<String>::new());
        let letters: Vec<_> = letters.as_str().chars().collect();
        let mut parts: Vec<_> =
            letters.chunks(length).flat_map(|piece| reply.push(&piece.iter().collect::<String>())).collect();
        parts.extend(reply.finish());
        for part in parts {
            match part {
                Part::Text(text) | Part::Reasoning(text) => said.push_str(&text),
                Part::Call { index, name } => {
                    assert_eq!(index, calls.len(), "calls are counted");
                    calls.push(name);
                }
                Part::Arguments { index, text } => calls[index].push_str(&text),
            }
        }
        (said, calls)
    };
    let (whole, pieces) = (read(letters.as_str().len().max(1)), read(1));
    assert_eq!(whole, pieces, "the answer depends on its pieces");
    format!("{} calls, {} bytes", whole.1.len(), whole.0.len())
}
