//! Arguments as other programs take them: values of flags behind a space, and errors of the parser with
//! the word that was probably meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use wsd::config::{SECTIONS, Section};
use wsd_core::{Kind, nearest};

use super::note;

/// Commands and options of llama.cpp, Ollama, vLLM and transformers, with those that do the same here.
const FOREIGN: [(&str, &str); 52] = [
    ("run", "here it is `wsd chat` or `wsd generate \"...\"`"),
    ("ask", "here it is `wsd generate \"...\"`"),
    ("cli", "here it is `wsd chat`"),
    ("pull", NO_PULL),
    ("download", NO_PULL),
    ("list", "here it is `wsd pairs`"),
    ("ls", "here it is `wsd pairs`"),
    ("models", "here it is `wsd pairs`"),
    ("server", "here it is `wsd serve`"),
    ("version", "here it is `wsd --version`"),
    ("-m", TWO_MODELS),
    ("-md", TWO_MODELS),
    ("--model-draft", TWO_MODELS),
    ("-hf", TWO_MODELS),
    ("--hf-repo", TWO_MODELS),
    ("-c", NO_CONTEXT),
    ("--ctx-size", NO_CONTEXT),
    ("--max-model-len", NO_CONTEXT),
    ("-ngl", DEVICE),
    ("--gpu-layers", DEVICE),
    ("--n-gpu-layers", DEVICE),
    ("-fa", "none is needed: attention never stores a whole matrix"),
    ("--flash-attn", "none is needed: attention never stores a whole matrix"),
    ("--jinja", "none is needed: chat templates are always run"),
    ("--listen", "here it is --host ADDRESS and --port N"),
    ("-np", "here it is --max-concurrent N for `wsd serve`, --parallel N for files"),
    ("-f", "here it is --input FILE for rows of prompts; one prompt comes from standard input, < FILE"),
    ("--file", "here it is --input FILE for rows of prompts; one prompt comes from standard input, < FILE"),
    ("-sys", "here it is --system TEXT"),
    ("--system-prompt", "here it is --system TEXT"),
    ("-cnv", "here it is `wsd chat`"),
    ("--interactive", "here it is `wsd chat`"),
    ("--stream", "none is needed: answers are written as they come; --json waits for the end"),
    ("--greedy", "here it is --temperature 0, the default"),
    ("--do-sample", "here it is a --temperature above 0, such as 0.7"),
    ("--lora", "here it is --adapter SEAT=FOLDER, as in draft=./adapter"),
    ("--quantize", QUANTIZED),
    ("--quantization", QUANTIZED),
    ("-a", "here it is --served-model-name NAME"),
    ("--alias", "here it is --served-model-name NAME"),
    ("--parallel", SLOTS),
    ("--max-num-seqs", SLOTS),
    ("--workers", SLOTS),
    ("--tensor-parallel-size", ONE_DEVICE),
    ("-tp", ONE_DEVICE),
    ("--gpu-memory-utilization", "none is needed: the cache takes at most 40 % of the memory that the weights leave"),
    ("--ssl-certfile", NO_TLS),
    ("--ssl-keyfile", NO_TLS),
    ("--log-level", "here it is --verbose or --quiet, and --log-requests text for requests"),
    ("--tasks", "here each task has its file, as in ifeval=input_data.jsonl; `wsd eval --list` lists them"),
    ("--input", "here the file stands by itself, without an option before it"),
    ("--limit", "the first rows alone: head -n N FILE | wsd generate --input -"),
];
const NO_PULL: &str = "none is needed: a model is downloaded at first use; `wsd pairs` lists tested ones";
const TWO_MODELS: &str = "there are two models: --base LARGE --draft SMALL, or --pair NAME (`wsd pairs` lists them); \
                          one alone: --strategy base --base FILE";
const NO_CONTEXT: &str = "none is needed: the context is the model's own, and memory grows with what is in it";
const SLOTS: &str = "here it is --max-concurrent N, the answers written at a time";
const ONE_DEVICE: &str = "a model runs on one device; one for several runs in vLLM, --base vllm+http://HOST:PORT";
const QUANTIZED: &str =
    "here it is --dtype q8_0 or q4_0, --draft-dtype for the draft alone; GGUF files run as they are";
const NO_TLS: &str = "the server speaks plain HTTP; a proxy in front of it holds the certificate";
const DEVICE: &str = "here it is --device cuda, which takes the whole model; it is the default where there is a GPU";

/// Joins `true` or `false` behind a flag to it, as in `--raw=false`. A flag may stand without a value, so
/// that the parser would take the word for a prompt.
pub(super) fn with_joined_flags(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let flags = SECTIONS.iter().flat_map(Section::settings).filter(|setting| matches!(setting.kind, Kind::Flag));
    let flags: Vec<_> = flags.map(|setting| format!("--{}", setting.name.replace('_', "-"))).collect();
    let (mut joined, mut are_options) = (Vec::<OsString>::new(), true);
    for word in words {
        are_options &= word != "--";
        match joined.last_mut().filter(|last| are_options && flags.iter().any(|flag| **last == **flag)) {
            Some(flag) if word == "true" || word == "false" => {
                flag.push("=");
                flag.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

/// Reports an error of the parser and ends the program.
pub(super) fn exit(mut error: clap::Error) -> ! {
    let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some((fault, hint)) = counterpart(&error, &words) {
        note(&format!("error: {fault}\n  hint: {hint}"));
        std::process::exit(error.exit_code())
    }
    suggest(&mut error);
    suggest_list(&mut error, &words);
    error.exit()
}

/// The text that an error of the parser has of a kind; empty where it has none.
fn context(error: &clap::Error, kind: ContextKind) -> &str {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text,
        _ => "",
    }
}

/// Finds the command or the option of another program at which the parser failed, with what does the
/// same here.
fn counterpart(error: &clap::Error, words: &[String]) -> Option<(String, String)> {
    let [command, option, value] = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg, ContextKind::InvalidValue]
        .map(|kind| context(error, kind));
    // Letters behind one hyphen are options of their own to the parser, or the value of the first.
    let is_at_fault = |name: &str| {
        let is_unknown = error.kind() == ErrorKind::UnknownArgument && name.starts_with(option);
        let is_value = !value.is_empty() && name.strip_suffix(value).is_some_and(|rest| rest.len() == 2);
        command == name || name.starts_with('-') && (is_unknown || is_value)
    };
    let is_given = |name: &str| words.iter().any(|word| word.split('=').next() == Some(name));
    let found = FOREIGN.iter().find(|(name, _)| is_at_fault(name) && is_given(name));
    found.map(|(name, hint)| {
        let kind = if name.starts_with('-') { "option" } else { "command" };
        (format!("there is no {kind} `{name}`"), (*hint).to_owned())
    })
}

/// Adds the value that was probably meant, where the parser has found none alike.
fn suggest(error: &mut clap::Error) {
    let given = context(error, ContextKind::InvalidValue);
    let Some(ContextValue::Strings(known)) = error.get(ContextKind::ValidValue) else { return };
    let Some(meant) = nearest(given, known.iter().map(String::as_str)).map(str::to_owned) else { return };
    if error.get(ContextKind::SuggestedValue).is_none() {
        error.insert(ContextKind::SuggestedValue, ContextValue::String(meant));
    }
}

/// Adds the options of `wsd sweep` that take lists, where one for a single value was given a list.
fn suggest_list(error: &mut clap::Error, words: &[String]) {
    let is_list = error.kind() == ErrorKind::ValueValidation && context(error, ContextKind::InvalidValue).contains(',');
    if is_list && words.first().is_some_and(|command| command == "sweep") {
        let tip = "lists are given to '--windows' and '--thresholds'";
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_of_a_flag_is_joined_to_it() {
        for (line, joined) in [
            ("generate --raw false hi", "generate --raw=false hi"),
            ("generate hi --generation-config false", "generate hi --generation-config=false"),
            ("compare --skip-repetitions true --raw a", "compare --skip-repetitions=true --raw a"),
            ("generate --raw falsehood", "generate --raw falsehood"),
            ("generate --raw=true false", "generate --raw=true false"),
            ("generate --system true --json false", "generate --system true --json false"),
            ("generate -- --raw false", "generate -- --raw false"),
        ] {
            let words = with_joined_flags(line.split(' ').map(OsString::from));
            assert_eq!(words, joined.split(' ').map(OsString::from).collect::<Vec<_>>(), "{line}");
        }
    }
}
