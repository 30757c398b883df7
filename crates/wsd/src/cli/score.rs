//! `wsd score`: the base's confidence in a response, token by token.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::config::{SECTIONS, Section, SharedArgs};
use wsd::models;
use wsd_core::{
    Caps, Engine, Error, Need, Prompt, Rule, Seat, THRESHOLD, TextCodec, Token, Value, WINDOW, common_prefix,
};

use super::output::Output;
use super::prompt::{TokenIds, of_text, read_stdin, without_line_end};
use super::report::{Report, ScoredToken, Switch};
use super::{Ending, GlobalArgs, chart, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd score --prompt \"How do I make bread?\" --response \"You need flour, water and time.\"
      The response colored by the base's confidence, a chart of it, and the position of the switch.
  wsd score --base ./llama-8b --prompt \"Hi\" --response - --json < answer.txt | jq .handover
      The response from standard input, everything as JSON.
  wsd score --raw --prompt \"Once upon a time\" --response \" there was\" --window 2 --threshold 0.5
      A text without a chat form, under another rule.
  wsd score --prompt-ids 1,403,407 --response-ids 261,378 --json
      Token ids, to compare exactly with another implementation.";

/// The one model that the command runs.
const SCORING_BASE: Need = Need::with(Seat::BASE, Caps { score: true, ..Caps::GENERATE });

/// Tells whether scoring ignores a setting: one of the draft's, or one that only affects written
/// text. Such options are refused on the command line. In `wsd.toml`, which serves all commands,
/// they are allowed.
fn is_ignored(name: &str) -> bool {
    let of_draft =
        ["draft", "model", "generation_config", "prefix_cache"].iter().any(|prefix| name.starts_with(prefix));
    let writing = SECTIONS.iter().filter(|section| ["decode", "sampling"].contains(&section.name));
    let is_writing = writing.flat_map(Section::settings).any(|setting| setting.name == name);
    of_draft || is_writing && ![&WINDOW, &THRESHOLD].iter().any(|setting| setting.name == name)
}

/// Hides and refuses the option of a setting that scoring ignores.
fn refuse_unused(arg: clap::Arg) -> clap::Arg {
    if !is_ignored(arg.get_id().as_str()) {
        return arg;
    }
    let refuse = |_: &str| Err::<Value, _>("`wsd score` writes nothing and does not use this option");
    arg.hide(true).value_parser(refuse)
}

#[derive(Args, Debug)]
#[command(mut_args = refuse_unused)]
pub(crate) struct ScoreArgs {
    /// The prompt that the response answers
    #[arg(long, value_name = "TEXT", required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// The prompt as token ids such as 1,15,27; a --response is then encoded by itself
    #[arg(long, value_name = "IDS", conflicts_with_all = ["system", "prefill"])]
    prompt_ids: Option<TokenIds>,
    /// The response to score; `-` reads standard input
    #[arg(long, value_name = "TEXT", required_unless_present = "response_ids", conflicts_with = "response_ids")]
    response: Option<String>,
    /// The response to score, as token ids
    #[arg(long, value_name = "IDS")]
    response_ids: Option<TokenIds>,
    /// Print one JSON object: {"tokens": [{"id", "text", "logprob", "confidence"}],
    /// "handover": {"at", "confidence"}}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SharedArgs,
}

/// Scores a response.
pub(crate) async fn run(args: ScoreArgs, global: &GlobalArgs) -> Result<Ending> {
    let settings = global.settings(args.settings.0)?;
    let prompt = match (args.prompt_ids, args.prompt) {
        (Some(ids), _) => Prompt::Tokens(ids.0),
        (None, text) => of_text(&text.unwrap_or_default(), &settings.prompt)?,
    };
    let response = match (args.response_ids, args.response) {
        (Some(ids), _) => Response::Tokens(ids.0),
        (None, Some(text)) if text != "-" => Response::Text(text),
        _ if settings.prompt.raw => Response::Text(read_stdin("the response", global.quiet)?),
        _ => Response::Text(without_line_end(&read_stdin("the response", global.quiet)?).to_owned()),
    };
    if matches!(&response, Response::Text(text) if text.is_empty()) {
        return Err(usage("the response is empty: there is nothing to score"));
    }
    let models = models::load(&settings, &[SCORING_BASE], 1, global.progress().as_mut())?;
    let base = models.get(Seat::BASE).context("invariant: the base was loaded")?;
    let rule = Rule::from_values(&settings.values);
    let report = score(base.as_ref(), &prompt, &response, rule).await?;

    let mut output = Output::stdout(global.color);
    if args.json {
        output.text(&format!("{}\n", serde_json::to_string(&report)?))?;
    } else if output.for_people() {
        output.text(&chart::draw(&report, rule, output.color()))?;
    } else {
        output.text(&chart::table(&report))?;
    }
    Ok(Ending::Done)
}

/// The response to score.
enum Response {
    Text(String),
    Tokens(Vec<Token>),
}

/// Scores the tokens of the response. Prompt and response are encoded together, and the response's
/// tokens are those after the prefix that they share with the prompt alone. After a prompt of token
/// ids the response is encoded by itself.
async fn score(base: &dyn Engine, prompt: &Prompt, response: &Response, rule: Rule) -> Result<Report> {
    let (card, codec) = (base.card(), base.codec());
    if !card.caps.score {
        bail!(Error::Unsupported {
            strategy: "score",
            engine: card.name.clone(),
            need: "log-probabilities of given tokens".into(),
            hint: "",
        });
    }
    let rendered = codec.render(prompt)?;
    let tokens = match response {
        Response::Tokens(ids) => [rendered.tokens.as_slice(), ids.as_slice()].concat(),
        Response::Text(response) if matches!(prompt, Prompt::Tokens(_)) => {
            [rendered.tokens.as_slice(), &codec.tokenizer().encode(response)?].concat()
        }
        Response::Text(response) => codec.encode_after(&rendered, response)?,
    };
    let from = common_prefix(&rendered.tokens, &tokens);
    if tokens.len() > card.max_len {
        let (name, limit) = (&card.name, card.max_len);
        bail!("prompt and response have {} tokens, but the context of `{name}` holds {limit}", tokens.len());
    }
    if from == 0 {
        bail!("the response's first token has no token before it and so no probability\n  hint: give a longer prompt");
    }
    if from == tokens.len() {
        bail!("the response adds no token to the prompt: there is nothing to score");
    }
    let mut session = base.open(&tokens).await?;
    let logprobs = session.score(from).await?;
    let texts = texts(codec, &tokens, from, response)?;
    let confidences = rule.confidences(&logprobs);
    let handover = rule.accept_index(&logprobs);
    let handover = handover.and_then(|at| Some(Switch { at, confidence: confidences.get(at).copied().flatten()? }));
    let scored = tokens[from..].iter().zip(texts).zip(logprobs.iter().zip(confidences));
    let scored = scored.map(|((&id, text), (&logprob, confidence))| ScoredToken { id, text, logprob, confidence });
    Ok(Report { tokens: scored.collect(), handover })
}

/// Returns the text of each token from `from` on. The first ones may also spell the end of the
/// prompt, which is left out.
fn texts(codec: &TextCodec, tokens: &[Token], from: usize, response: &Response) -> Result<Vec<String>> {
    let mut detokenizer = codec.detokenizer(&tokens[..from]);
    let mut texts = tokens[from..].iter().map(|&id| detokenizer.push(id)).collect::<wsd_core::Result<Vec<_>>>()?;
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
