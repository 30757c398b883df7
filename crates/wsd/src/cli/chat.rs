//! `wsd chat`: a conversation in the terminal.

mod command;
mod lines;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::{ConfigError, Settings, SharedArgs};
use wsd::lab::data::{RecordPrompt, read_rows};
use wsd::models;
use wsd_core::files::write_whole;
use wsd_core::{ChatRole, Error, Message, Models, Prompt, Recipe, SEED, Seat, Strategy, THRESHOLD, WINDOW};

use super::answer::{Told, hint_outside, load_models, stream};
use super::output::{FAINT, Output, note};
use super::{Ending, GlobalArgs, prompt};
use command::{Command, help};
use lines::{Line, Lines};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd chat
      Talk with the built-in pair. /help lists the commands.
  wsd chat --pair smollm2-135m+gemma3-270m
      Talk with a tested pair of real models, downloaded at first use; wsd pairs lists them.
  wsd chat --base ./llama-8b --draft ./aligned-1b --system \"Answer in one sentence.\" -t 0.7
      Your own pair, with instructions, sampled.
  wsd chat --strategy draft
      The draft alone; /strategy wsd switches in the middle of the conversation.
  printf 'Hello\\nAnd who are you?\\n' | wsd chat --quiet
      Each line of standard input is a message.";

/// The arguments of `wsd chat`.
#[derive(Args, Debug)]
#[command(mut_arg("raw", |arg| arg.hide(true)))]
pub(crate) struct ChatArgs {
    #[command(flatten)]
    settings: SharedArgs,
}

/// A conversation, with its models and settings.
struct Chat {
    models: Models,
    settings: Settings,
    strategy: Arc<dyn Strategy>,
    messages: Vec<Message>,
    /// Number of the oldest messages that no longer fit into the context.
    left_out: usize,
    /// The file of this conversation, which `/save` may overwrite.
    saved: Option<PathBuf>,
}

/// Holds a conversation.
pub(crate) async fn run(args: ChatArgs, global: &GlobalArgs) -> Result<Ending> {
    let mut settings = global.settings(args.settings.0)?;
    if settings.prompt.raw {
        let fault = Error::Setting { name: "raw", limit: "left out in a chat".into(), value: "true".into() };
        return Err(ConfigError::Value(fault).into());
    }
    let mut lines = Lines::open()?;
    // All models, since the strategy can be changed later.
    let recipe = settings.recipe;
    let models = load_models(&mut settings, &models::needs_of_any(recipe), 1, global)?;
    let strategy = settings.recipe.build(&models, &settings.values)?;
    let mut chat = Chat { models, settings, strategy, messages: Vec::new(), left_out: 0, saved: None };
    let (mut output, mut notes) = (Output::stdout(global.color), Output::stderr(global.color));
    if lines.is_interactive() && !global.quiet {
        note(&chat.banner());
    }
    loop {
        let line = match lines.next().await? {
            Line::Text(line) if line.trim().is_empty() => continue,
            Line::Text(line) => line,
            Line::Invalid => {
                note("error: the line is not UTF-8 and is left out");
                continue;
            }
            Line::Interrupted if lines.is_interactive() => {
                note("Ctrl-D or /exit ends the chat");
                continue;
            }
            Line::Interrupted => return Ok(Ending::Interrupted),
            Line::End => return Ok(Ending::Done),
        };
        let outcome = match Command::parse(&line) {
            Ok(Some(Command::Quit)) => return Ok(Ending::Done),
            Ok(Some(Command::Retry)) => match chat.take_last() {
                Ok(message) => {
                    if chat.settings.terms().sampling.temperature == 0.0 && !global.quiet {
                        note("the temperature is 0, so the answer stays the same; /temperature 0.7 varies it");
                    }
                    chat.answer(message, &mut output, &mut notes, global).await
                }
                Err(fault) => Err(fault),
            },
            Ok(Some(command)) => {
                let is_help = matches!(command, Command::Help);
                chat.run(command).map(|text| {
                    if is_help || !global.quiet {
                        note(&text)
                    }
                })
            }
            Ok(None) => {
                hint_outside(&line, &chat.settings, global);
                chat.answer(line, &mut output, &mut notes, global).await
            }
            Err(fault) => Err(fault),
        };
        match outcome {
            // A person can try again; a script should end at its first error.
            Err(error) if lines.is_interactive() && !error.is::<super::Closed>() => note(&format!("error: {error:#}")),
            outcome => outcome?,
        }
    }
}

impl Chat {
    /// Describes the models and the rule, and how to go on.
    fn banner(&self) -> String {
        let (values, recipe) = (&self.settings.values, self.settings.recipe);
        let name = |seat: Seat| Some(format!("{} ({seat})", models::short_name(&self.models.get(seat)?.card().name)));
        let names: Vec<_> = models::seats(recipe).into_iter().filter_map(name).collect();
        let has_rule = recipe.settings.iter().any(|setting| setting.name == WINDOW.name);
        let (window, threshold) = (values.get::<usize>(&WINDOW), values.get::<f64>(&THRESHOLD));
        let rule = if has_rule { format!(", window {window}, threshold {threshold}") } else { String::new() };
        format!(
            "{} by {}{rule}. Ctrl-C stops an answer, Ctrl-D ends the chat, /help lists the commands.",
            recipe.name,
            names.join(" and "),
        )
    }

    /// Answers a message and prints a summary. After an error the conversation is unchanged.
    async fn answer(
        &mut self,
        message: String,
        output: &mut Output,
        notes: &mut Output,
        global: &GlobalArgs,
    ) -> Result<()> {
        let quiet = global.quiet;
        let mut messages = self.messages.clone();
        messages.push(Message::new(ChatRole::User, message));
        let (prompt, left_out) = self.fitting(&messages)?;
        if left_out > self.left_out && !quiet {
            note(&format!("the context is full: the oldest {left_out} messages are left out from now on"));
        }
        self.left_out = left_out;
        let outcome = stream(&self.strategy, self.settings.job(prompt), output).await?;
        let prefill = self.settings.prompt.prefill.as_deref().unwrap_or_default();
        messages.push(Message::new(ChatRole::Assistant, format!("{prefill}{}", outcome.completion.text)));
        self.messages = messages;
        let summary = outcome.summary(Told::of(&self.settings, global));
        if quiet { Ok(()) } else { notes.model_text(FAINT, &summary).and_then(|()| notes.text("\n")) }
    }

    /// Takes the last message and its answer out of the conversation, and returns the message. With
    /// sampling, the next answer gets another seed.
    fn take_last(&mut self) -> Result<String> {
        let asked = self.messages.iter().rposition(|message| message.role == ChatRole::User);
        let Some(asked) = asked else { bail!("there is no message yet") };
        let message = self.messages.drain(asked..).next().map(|message| message.content);
        self.left_out = self.left_out.min(asked);
        let seed: u64 = self.settings.values.get(&SEED);
        self.settings.values.set(&SEED, seed.wrapping_add(1).into())?;
        Ok(message.unwrap_or_default())
    }

    /// Builds the prompt. Leaves out the oldest messages until there is room for an answer, and
    /// returns their number. The last message stays; if it alone is too long, the answer fails.
    fn fitting(&self, messages: &[Message]) -> Result<(Prompt, usize)> {
        let mut left_out = self.left_out;
        loop {
            let prompt = prompt::of_messages(messages[left_out..].to_vec(), &self.settings.prompt)?;
            // A message and its answer are left out together.
            if left_out + 2 >= messages.len() || self.has_room(&prompt, left_out > self.left_out)? {
                return Ok((prompt, left_out));
            }
            left_out += 2;
        }
    }

    /// True if each model's context holds the prompt and an answer, which counts at most a quarter
    /// of the context. With `half`, half of the context must be free: once messages are left out,
    /// enough are that the next answer does not need it again.
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

    /// Runs a command and returns a line for the user.
    fn run(&mut self, command: Command) -> Result<String> {
        Ok(match command {
            Command::Help | Command::Quit | Command::Retry => help(),
            Command::Undo => {
                let message = self.take_last()?;
                format!("taken back: {}", message.lines().next().unwrap_or_default())
            }
            Command::Load(path) => {
                self.load(&path)?;
                format!("{} messages from {}", self.messages.len(), path.display())
            }
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
            Command::Show(setting) => {
                let value = self.settings.values.value(setting).map(ToString::to_string);
                format!("{} {}", setting.name, value.unwrap_or_default())
            }
            Command::Set(setting, value) => {
                let mut values = self.settings.values.clone();
                values.set(setting, setting.parse(&value)?)?;
                self.strategy = self.settings.recipe.build(&self.models, &values)?;
                self.settings.values = values;
                format!("{} {value}", setting.name)
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

    /// Continues a conversation that was saved, or any row with `messages`.
    fn load(&mut self, path: &Path) -> Result<()> {
        let rows = read_rows(path)?;
        let Some(RecordPrompt::Messages(mut messages)) = rows.first().map(|row| row.prompt().clone()) else {
            bail!("{}:1: must have `messages`\n  hint: /save writes such a file", path.display());
        };
        if messages.first().is_some_and(|first| first.role == ChatRole::System) {
            self.settings.prompt.system = Some(messages.remove(0).content);
        }
        (self.messages, self.left_out, self.saved) = (messages, 0, Some(path.into()));
        Ok(())
    }

    /// Writes the conversation as a row that `wsd generate --input` reads.
    fn save(&mut self, path: &Path) -> Result<()> {
        if self.messages.is_empty() {
            bail!("there are no messages to save");
        }
        if path.exists() && self.saved.as_deref() != Some(path) {
            bail!("{} exists already\n  hint: choose another name", path.display());
        }
        let system = self.settings.prompt.system.iter().map(|text| Message::new(ChatRole::System, text));
        let messages: Vec<_> = system.chain(self.messages.iter().cloned()).collect();
        let row = serde_json::json!({ "messages": messages });
        write_whole(path, format!("{row}\n").as_bytes())?;
        self.saved = Some(path.into());
        Ok(())
    }
}
