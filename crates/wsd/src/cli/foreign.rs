//! Errors of the parser, with the word that was probably meant.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use wsd::config::{SECTIONS, Section};
use wsd_core::{Kind, nearest};

use super::note;

/// Commands and options of llama.cpp, Ollama and vLLM, with those that do the same here.
const FOREIGN: [(&str, &str); 32] = [
    ("run", "here it is `wsd chat` or `wsd generate \"...\"`"),
    ("ask", "here it is `wsd generate \"...\"`"),
    ("cli", "here it is `wsd chat`"),
    ("pull", NO_PULL),
    ("download", NO_PULL),
    ("list", "here it is `wsd pairs`"),
    ("ls", "here it is `wsd pairs`"),
    ("models", "here it is `wsd pairs`"),
    ("server", "here it is `wsd serve`"),
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
    ("-a", "here it is --served-model-name NAME"),
    ("--alias", "here it is --served-model-name NAME"),
];
const NO_PULL: &str = "none is needed: a model is downloaded at first use; `wsd pairs` lists tested ones";
const TWO_MODELS: &str = "there are two models: --base LARGE --draft SMALL, or --pair NAME (`wsd pairs` lists them); \
                          one alone: --strategy base --base FILE";
const NO_CONTEXT: &str = "none is needed: the context is the model's own, and memory grows with what is in it";
const DEVICE: &str = "here it is --device cuda, which takes the whole model; it is the default where there is a GPU";

/// Reports an error of the parser and ends the program.
pub(super) fn exit(mut error: clap::Error) -> ! {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let Some((fault, hint)) = counterpart(&error, &words).or_else(|| value_of_flag(&error, &words)) {
        note(&format!("error: {fault}\n  hint: {hint}"));
        std::process::exit(error.exit_code())
    }
    suggest(&mut error);
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

/// Finds the value of a flag that stands behind a space, where it is taken for a word of its own.
fn value_of_flag(error: &clap::Error, words: &[String]) -> Option<(String, String)> {
    let is_flag = |flag: &str| {
        let settings = || SECTIONS.iter().flat_map(Section::settings);
        let name = flag.strip_prefix("--").map(|name| name.replace('-', "_"));
        settings().any(|setting| matches!(setting.kind, Kind::Flag) && Some(setting.name) == name.as_deref())
    };
    let mut pairs = words.windows(2).filter(|_| error.kind() == ErrorKind::UnknownArgument);
    let pair = pairs.find(|pair| is_flag(&pair[0]) && ["true", "false"].contains(&pair[1].as_str()))?;
    Some((format!("the value of {} must follow `=`", pair[0]), format!("{}={}", pair[0], pair[1])))
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
