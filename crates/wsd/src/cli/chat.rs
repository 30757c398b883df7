//! `wsd chat`: a conversation in the terminal.

mod command;
mod lines;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::{ConfigError, Partial, Settings};
use wsd::models;
use wsd_core::files::write_whole;
use wsd_core::{ChatRole, Error, Message, Models, Prompt, Recipe, Seat, Strategy, THRESHOLD};

use super::answer::{stream, summary};
use super::output::{FAINT, Output, note};
use super::{Ending, GlobalArgs, prompt};
use command::{Command, help};
use lines::{Line, Lines};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd chat
      Talk with the built-in pair. /help lists what can be done in between.
  wsd chat --base ./llama-8b --draft ./aligned-1b --system \"Answer in one sentence.\" -t 0.7
      Your own pair, with instructions, sampled.
  wsd chat --strategy draft
      The draft alone; /strategy wsd switches in the middle of the conversation.
  printf 'Hello\\nAnd who are you?\\n' | wsd chat --quiet
      Each line of standard input is a turn.";

#[derive(Args, Debug)]
#[command(mut_arg("raw", |arg| arg.hide(true)))]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    settings: Partial,
}

/// A conversation and what it is held with.
struct Chat {
    models: Models,
    settings: Settings,
    strategy: Arc<dyn Strategy>,
    messages: Vec<Message>,
    /// How many of the messages, the oldest, no longer fit into the context.
    left_out: usize,
    /// The file that this conversation was saved in and may overwrite.
    saved: Option<PathBuf>,
}

pub(crate) async fn run(args: ChatArgs, look: &GlobalArgs) -> Result<Ending> {
    let settings = look.settings(args.settings)?;
    if settings.prompt.raw {
        let fault = Error::Setting { name: "raw", limit: "left out in a chat".into(), value: "true".into() };
        return Err(ConfigError::Value(fault).into());
    }
    let mut lines = Lines::open()?;
    // Both, whatever the strategy: it can be changed on the way.
    let models = models::load(&settings, &[Seat::DRAFT, Seat::BASE], 1, look.progress().as_mut())?;
    let strategy = settings.recipe.build(&models, &settings.values)?;
    let mut chat = Chat { models, settings, strategy, messages: Vec::new(), left_out: 0, saved: None };
    let (mut output, mut notes) = (Output::stdout(look.color), Output::stderr(look.color));
    if lines.interactive() && !look.quiet {
        note("Ctrl-C stops an answer, Ctrl-D leaves, /help says what else there is.");
    }
    loop {
        let line = match lines.next().await? {
            Line::Text(line) if line.trim().is_empty() => continue,
            Line::Text(line) => line,
            Line::NoText => {
                note("error: what was typed is not UTF-8, so the line is left out");
                continue;
            }
            Line::Interrupted if lines.interactive() => continue,
            Line::Interrupted => return Ok(Ending::Interrupted),
            Line::End => return Ok(Ending::Done),
        };
        let said = match Command::parse(&line) {
            Ok(Some(Command::Quit)) => return Ok(Ending::Done),
            Ok(Some(command)) => {
                let asked = command == Command::Help;
                chat.obey(command).map(|said| {
                    if asked || !look.quiet {
                        note(&said)
                    }
                })
            }
            Ok(None) => chat.turn(line, &mut output, look.quiet).await.and_then(|told| {
                match notes.for_people() && !look.quiet {
                    true => notes.model_text(FAINT, &told).and_then(|()| notes.text("\n")),
                    false => Ok(()),
                }
            }),
            Err(fault) => Err(fault),
        };
        match said {
            // A person can try again; a script should end where it fails.
            Err(error) if lines.interactive() && !error.is::<super::Closed>() => note(&format!("error: {error:#}")),
            said => said?,
        }
    }
}

impl Chat {
    /// Answer what the user says; where that fails, nothing was said.
    async fn turn(&mut self, said: String, output: &mut Output, quiet: bool) -> Result<String> {
        let mut messages = self.messages.clone();
        messages.push(Message::new(ChatRole::User, said));
        let (prompt, left_out) = self.fitting(&messages)?;
        if left_out > self.left_out && !quiet {
            note(&format!("the context is full: the oldest {left_out} messages are left out from now on"));
        }
        self.left_out = left_out;
        let answered = stream(&self.strategy, self.settings.job(prompt), output).await?;
        let begun = self.settings.prompt.prefill.as_deref().unwrap_or_default();
        messages.push(Message::new(ChatRole::Assistant, format!("{begun}{}", answered.completion.text)));
        self.messages = messages;
        Ok(if answered.interrupted { "stopped".into() } else { summary(&answered.completion) })
    }

    /// The prompt of the conversation, without as many of the oldest messages as must go for an
    /// answer to have room, and their number. The last message stays: where it alone is too long,
    /// that is an error when it is to be answered.
    fn fitting(&self, messages: &[Message]) -> Result<(Prompt, usize)> {
        let mut left_out = self.left_out;
        loop {
            let prompt = prompt::of_messages(messages[left_out..].to_vec(), &self.settings.prompt)?;
            // A question and its answer go together.
            if left_out + 2 >= messages.len() || self.has_room(&prompt, left_out > self.left_out)? {
                return Ok((prompt, left_out));
            }
            left_out += 2;
        }
    }

    /// Whether each model's context holds the prompt and an answer, of a quarter of the context at
    /// most. Where messages must go, enough do for `half` of the context to be free: then it is not
    /// at once the same again.
    fn has_room(&self, prompt: &Prompt, half: bool) -> Result<bool> {
        for seat in models::seats(self.settings.recipe) {
            let Some(model) = self.models.get(seat) else { continue };
            let max_len = model.card().max_len;
            let answer = if half { max_len / 2 } else { self.settings.max_tokens().min(max_len / 4) };
            match model.codec().render(prompt) {
                Ok(rendered) if rendered.tokens.len() + answer <= max_len => {}
                Ok(_) | Err(Error::TextTooLong { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Do what a command says, and tell what was done.
    fn obey(&mut self, command: Command) -> Result<String> {
        Ok(match command {
            Command::Help | Command::Quit => help(),
            Command::Reset => {
                self.messages.clear();
                self.left_out = 0;
                "a new conversation".into()
            }
            Command::Strategy(name) => {
                let recipe = Recipe::find(&name)?;
                self.strategy = recipe.build(&self.models, &self.settings.values)?;
                self.settings.recipe = recipe;
                format!("{}: {}", recipe.name, recipe.about)
            }
            Command::Threshold(threshold) => {
                let values = self.settings.values.clone().with(&THRESHOLD, threshold)?;
                self.strategy = self.settings.recipe.build(&self.models, &values)?;
                self.settings.values = values;
                format!("threshold {threshold}")
            }
            Command::System(text) => {
                self.settings.prompt.system = (!text.is_empty()).then_some(text);
                match &self.settings.prompt.system {
                    Some(text) => format!("system: {text}"),
                    None => "no system message".into(),
                }
            }
            Command::Save(path) => {
                self.save(&path)?;
                format!("{} messages in {}", self.messages.len(), path.display())
            }
        })
    }

    /// Write the conversation as a row that `wsd generate --input` reads.
    fn save(&mut self, path: &Path) -> Result<()> {
        if self.messages.is_empty() {
            bail!("nothing has been said yet");
        }
        if path.exists() && self.saved.as_deref() != Some(path) {
            bail!("{} is there already: choose another name", path.display());
        }
        let system = self.settings.prompt.system.iter().map(|text| Message::new(ChatRole::System, text));
        let messages: Vec<_> = system.chain(self.messages.iter().cloned()).collect();
        let row = serde_json::json!({ "messages": messages });
        write_whole(path, format!("{row}\n").as_bytes())?;
        self.saved = Some(path.into());
        Ok(())
    }
}
