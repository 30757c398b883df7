//! `wsd score`: what the base thinks of a response, token by token.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::Serialize;
use wsd::config::{Partial, SECTIONS, Section};
use wsd::models;
use wsd_core::{Engine, Error, Prompt, Rule, Seat, THRESHOLD, TextCodec, Token, Value, WINDOW, common_prefix};

use super::output::Output;
use super::prompt::{TokenIds, of_text, read_stdin, without_line_end};
use super::{Ending, GlobalArgs, chart};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd score --prompt \"How do I make bread?\" --response \"You need flour, water and time.\"
      The response coloured by the base's confidence, a chart of it, and where the switch would fall.
  wsd score --base ./llama-8b --prompt \"Hi\" --response - --json < answer.txt | jq .handover
      The response from standard input, everything as JSON.
  wsd score --raw --prompt \"Once upon a time\" --response \" there was\" --window 2 --threshold 0.5
      A text without a chat form, judged by another rule.
  wsd score --prompt-ids 1,403,407 --response-ids 261,378 --json
      Token ids, to compare exactly with another implementation.";

/// Tells whether scoring ignores a setting: one of the draft's, or one that only changes what is
/// written. Those are refused on the command line; a `wsd.toml` is for all commands, so there they may
/// stand.
fn is_ignored(name: &str) -> bool {
    let of_draft = ["draft", "model", "prefix_cache"].iter().any(|prefix| name.starts_with(prefix));
    let writing = SECTIONS.iter().filter(|section| ["decode", "sampling"].contains(&section.name));
    let is_writing = writing.flat_map(Section::settings).any(|setting| setting.name == name);
    of_draft || is_writing && ![&WINDOW, &THRESHOLD].iter().any(|setting| setting.name == name)
}

fn refuse_unused(arg: clap::Arg) -> clap::Arg {
    if !is_ignored(arg.get_id().as_str()) {
        return arg;
    }
    let refuse = |_: &str| Err::<Value, _>("`wsd score` writes nothing, so it has no use for this");
    arg.hide(true).value_parser(refuse)
}

#[derive(Args, Debug)]
#[command(mut_args = refuse_unused)]
pub(crate) struct ScoreArgs {
    /// What was asked
    #[arg(long, value_name = "TEXT", required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// What was asked, as token ids such as 1,15,27; a --response is then encoded on its own
    #[arg(long, value_name = "IDS", conflicts_with_all = ["system", "prefill"])]
    prompt_ids: Option<TokenIds>,
    /// The response to judge; `-` reads standard input
    #[arg(long, value_name = "TEXT", required_unless_present = "response_ids", conflicts_with = "response_ids")]
    response: Option<String>,
    /// The response to judge, as token ids
    #[arg(long, value_name = "IDS")]
    response_ids: Option<TokenIds>,
    /// Print one JSON object: {"tokens": [{"id", "text", "logprob", "confidence"}], "handover": {"at", "confidence"}}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Partial,
}

/// A response as the base sees it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) tokens: Vec<Scored>,
    pub(super) handover: Option<Switch>,
}

/// A token of the response.
#[derive(Debug, Serialize)]
pub(super) struct Scored {
    pub(super) id: Token,
    pub(super) text: String,
    pub(super) logprob: f64,
    pub(super) confidence: Option<f64>,
}

/// Where the base would take over.
#[derive(Debug, Serialize)]
pub(super) struct Switch {
    pub(super) at: usize,
    pub(super) confidence: f64,
}

pub(crate) async fn run(args: ScoreArgs, look: &GlobalArgs) -> Result<Ending> {
    let settings = look.settings(args.settings)?;
    let prompt = match (args.prompt_ids, args.prompt) {
        (Some(ids), _) => Prompt::Tokens(ids.0),
        (None, text) => of_text(text.unwrap_or_default(), &settings.prompt)?,
    };
    let response = match (args.response_ids, args.response) {
        (Some(ids), _) => Response::Tokens(ids.0),
        (None, Some(text)) if text != "-" => Response::Text(text),
        _ if settings.prompt.raw => Response::Text(read_stdin("the response", look.quiet)?),
        _ => Response::Text(without_line_end(&read_stdin("the response", look.quiet)?).to_owned()),
    };
    if matches!(&response, Response::Text(text) if text.is_empty()) {
        bail!("the response is empty: there is nothing to score");
    }
    let models = models::load(&settings, &[Seat::BASE], 1, look.progress().as_mut())?;
    let base = models.get(Seat::BASE).context("invariant: the base was loaded")?;
    let rule = Rule::from_values(&settings.values);
    let report = score(base.as_ref(), &prompt, &response, rule).await?;

    let mut output = Output::stdout(look.color);
    if args.json {
        output.text(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else if output.for_people() {
        output.text(&chart::draw(&report, rule, output.color()))?;
    } else {
        output.text(&chart::table(&report))?;
    }
    Ok(Ending::Done)
}

enum Response {
    Text(String),
    Tokens(Vec<Token>),
}

/// Score the response's tokens: those after the ones that prompt and response, encoded at once, share with the prompt. After
/// token ids the response is encoded on its own.
async fn score(base: &dyn Engine, prompt: &Prompt, response: &Response, rule: Rule) -> Result<Report> {
    let (card, text) = (base.card(), base.codec());
    if !card.caps.score {
        bail!(Error::Unsupported {
            strategy: "score",
            engine: card.name.clone(),
            need: "log-probabilities of given tokens".into()
        });
    }
    let rendered = text.render(prompt)?;
    let list = match response {
        Response::Tokens(ids) => [rendered.tokens.as_slice(), ids.as_slice()].concat(),
        Response::Text(response) if matches!(prompt, Prompt::Tokens(_)) => {
            [rendered.tokens.as_slice(), &text.tokenizer().encode(response)?].concat()
        }
        Response::Text(response) => text.encode_after(&rendered, response)?,
    };
    let from = common_prefix(&rendered.tokens, &list);
    if list.len() > card.max_len {
        let (name, limit) = (&card.name, card.max_len);
        bail!("prompt and response have {} tokens, but the context of `{name}` holds {limit}", list.len());
    }
    if from == 0 {
        bail!(
            "the response's first token has nothing before it, so it has no probability\n  hint: give a longer prompt"
        );
    }
    if from == list.len() {
        bail!("the response adds no token to the prompt: there is nothing to score");
    }
    let mut session = base.open(&list).await?;
    let logprobs = session.score(from).await?;
    let texts = texts(text, &list, from, response)?;
    let confidences = rule.confidences(&logprobs);
    let handover = rule.accept_index(&logprobs);
    let handover = handover.and_then(|at| Some(Switch { at, confidence: confidences.get(at).copied().flatten()? }));
    let tokens = list[from..].iter().zip(texts).zip(logprobs.iter().zip(confidences));
    let tokens = tokens.map(|((&id, text), (&logprob, confidence))| Scored { id, text, logprob, confidence });
    Ok(Report { tokens: tokens.collect(), handover })
}

/// The text of each token from `from` on, without what the first of them still spell of the prompt.
fn texts(text: &TextCodec, list: &[Token], from: usize, response: &Response) -> Result<Vec<String>> {
    let mut detokenizer = text.detokenizer(&list[..from]);
    let mut texts = list[from..].iter().map(|&id| detokenizer.push(id)).collect::<wsd_core::Result<Vec<_>>>()?;
    if let Some(last) = texts.last_mut() {
        last.push_str(&detokenizer.flush()?);
    }
    let mut skip = match response {
        Response::Text(response) => texts.iter().map(String::len).sum::<usize>().saturating_sub(response.len()),
        Response::Tokens(_) => 0,
    };
    for text in &mut texts {
        let cut = (0..=skip.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.drain(..cut);
        skip -= cut;
    }
    Ok(texts)
}
