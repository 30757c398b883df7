//! Commands between the messages of a conversation.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use wsd_core::{RECIPES, Recipe};

/// A command: a line that begins with a slash.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Help,
    Reset,
    Strategy(String),
    Threshold(f64),
    System(String),
    Save(PathBuf),
    Quit,
}

/// An entry of the table of commands.
struct Entry {
    name: &'static str,
    /// Placeholder of the argument, for the help.
    argument: &'static str,
    about: &'static str,
    /// The strategies that the argument may name.
    recipes: &'static [&'static Recipe],
    parse: fn(&str) -> Option<Command>,
}

static COMMANDS: &[Entry] = &[
    Entry {
        name: "/reset",
        argument: "",
        about: "begin a new conversation",
        recipes: &[],
        parse: |_| Some(Command::Reset),
    },
    Entry {
        name: "/strategy",
        argument: "NAME",
        about: "change the strategy",
        recipes: RECIPES,
        parse: |name| (!name.is_empty()).then(|| Command::Strategy(name.into())),
    },
    Entry {
        name: "/threshold",
        argument: "P",
        about: "change the confidence at which the base takes over",
        recipes: &[],
        parse: |text| text.parse().ok().map(Command::Threshold),
    },
    Entry {
        name: "/system",
        argument: "[TEXT]",
        about: "change or remove the instructions above the conversation",
        recipes: &[],
        parse: |text| Some(Command::System(text.into())),
    },
    Entry {
        name: "/save",
        argument: "FILE",
        about: "write the conversation to a file of JSON lines",
        recipes: &[],
        parse: |path| (!path.is_empty()).then(|| Command::Save(path.into())),
    },
    Entry { name: "/help", argument: "", about: "show this", recipes: &[], parse: |_| Some(Command::Help) },
    Entry { name: "/exit", argument: "", about: "leave", recipes: &[], parse: |_| Some(Command::Quit) },
    Entry { name: "/quit", argument: "", about: "leave, like Ctrl-D", recipes: &[], parse: |_| Some(Command::Quit) },
];

impl Command {
    /// Parses the command in a line; `None` where the line is a message.
    pub(super) fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Ok(None);
        }
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let entry = COMMANDS.iter().find(|entry| entry.name == name);
        let entry = entry.with_context(|| format!("there is no command {name}\n  hint: /help lists the commands"))?;
        let command = (entry.parse)(argument.trim());
        command.map(Some).with_context(|| format!("{} must have an argument {}", entry.name, entry.argument))
    }
}

/// The list of commands.
pub(super) fn help() -> String {
    let line = |entry: &Entry| {
        let names = entry.recipes.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
        let about = if names.is_empty() { entry.about.to_owned() } else { format!("{}: {names}", entry.about) };
        format!("  {:<18} {about}", format!("{} {}", entry.name, entry.argument))
    };
    COMMANDS.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages_are_distinguished() {
        for (line, want) in [
            ("hello / there", None),
            (" /threshold 0.5 ", Some(Command::Threshold(0.5))),
            ("/system Be  kind.", Some(Command::System("Be  kind.".into()))),
            ("/save a b.jsonl", Some(Command::Save("a b.jsonl".into()))),
        ] {
            assert_eq!(Command::parse(line).unwrap(), want, "{line}");
        }
        for (line, want) in [
            ("/threshold high", "/threshold must have an argument P"),
            ("/dance", "there is no command /dance\n  hint: /help lists the commands"),
        ] {
            assert_eq!(Command::parse(line).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn the_help_lists_every_command_and_strategy() {
        assert!(COMMANDS.iter().all(|entry| help().contains(entry.name)));
        assert!(RECIPES.iter().all(|recipe| help().contains(recipe.name)));
    }
}
