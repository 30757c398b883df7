//! Commands between the messages of a conversation.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use wsd_core::{MAX_TOKENS, RECIPES, Recipe, Setting, TEMPERATURE, THRESHOLD, WINDOW, nearest};

/// A command: a line that begins with a slash.
#[derive(Debug)]
pub(super) enum Command {
    Help,
    Reset,
    Strategy(String),
    Show(&'static Setting),
    /// A setting and its value.
    Set(&'static Setting, String),
    System(String),
    Retry,
    Undo,
    Save(PathBuf),
    Load(PathBuf),
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
        argument: "[P]",
        about: "show or change the confidence at which the base takes over",
        recipes: &[],
        parse: |text| Some(set(&THRESHOLD, text)),
    },
    Entry {
        name: "/window",
        argument: "[TOKENS]",
        about: "show or change the number of tokens that the confidence is averaged over",
        recipes: &[],
        parse: |text| Some(set(&WINDOW, text)),
    },
    Entry {
        name: "/temperature",
        argument: "[T]",
        about: "show or change the sampling: 0 takes the most likely token, 1 samples from the distribution",
        recipes: &[],
        parse: |text| Some(set(&TEMPERATURE, text)),
    },
    Entry {
        name: "/max_tokens",
        argument: "[TOKENS]",
        about: "show or change the length of answers",
        recipes: &[],
        parse: |text| Some(set(&MAX_TOKENS, text)),
    },
    Entry {
        name: "/retry",
        argument: "",
        about: "answer the last message again, with another seed",
        recipes: &[],
        parse: |_| Some(Command::Retry),
    },
    Entry {
        name: "/undo",
        argument: "",
        about: "take the last message and its answer back",
        recipes: &[],
        parse: |_| Some(Command::Undo),
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
    Entry {
        name: "/load",
        argument: "FILE",
        about: "continue a conversation that was saved",
        recipes: &[],
        parse: |path| (!path.is_empty()).then(|| Command::Load(path.into())),
    },
    Entry { name: "/help", argument: "", about: "show this", recipes: &[], parse: |_| Some(Command::Help) },
    Entry { name: "/exit", argument: "", about: "leave", recipes: &[], parse: |_| Some(Command::Quit) },
    Entry { name: "/quit", argument: "", about: "leave, like Ctrl-D", recipes: &[], parse: |_| Some(Command::Quit) },
];

/// Names of commands in other programs.
const ALIASES: [(&str, &str); 3] = [("/clear", "/reset"), ("/new", "/reset"), ("/bye", "/exit")];

/// The command that changes a setting, or shows it where there is no value. A value is checked when the
/// command runs.
fn set(setting: &'static Setting, value: &str) -> Command {
    if value.is_empty() { Command::Show(setting) } else { Command::Set(setting, value.to_owned()) }
}

/// The names of the commands that begin like a line.
pub(super) fn completions(line: &str) -> Vec<String> {
    COMMANDS.iter().map(|entry| entry.name).filter(|name| name.starts_with(line)).map(str::to_owned).collect()
}

impl Command {
    /// Parses the command in a line; `None` where the line is a message.
    pub(super) fn parse(line: &str) -> Result<Option<Self>> {
        let line = line.trim();
        if !line.starts_with('/') {
            return Ok(None);
        }
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let known = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |alias| alias.1);
        let entry = COMMANDS.iter().find(|entry| entry.name == known).with_context(|| {
            let meant = nearest(name, COMMANDS.iter().map(|entry| entry.name));
            let meant = meant.map_or_else(String::new, |name| format!("did you mean {name}? "));
            format!("there is no command {name}\n  hint: {meant}/help lists the commands")
        })?;
        let command = (entry.parse)(argument.trim());
        command.map(Some).with_context(|| format!("{} must have an argument {}", entry.name, entry.argument))
    }
}

/// The list of commands.
pub(super) fn help() -> String {
    let line = |entry: &Entry| {
        let names = entry.recipes.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
        let about = if names.is_empty() { entry.about.to_owned() } else { format!("{}: {names}", entry.about) };
        format!("  {:<20} {about}", format!("{} {}", entry.name, entry.argument))
    };
    let commands: Vec<_> = COMMANDS.iter().map(line).collect();
    format!(
        "{}\nA line that ends with \\ goes on in the next one, and so does all between two lines of \"\"\".",
        commands.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages_are_distinguished() {
        for (line, want) in [
            ("hello / there", None),
            (" /retry ", Some(Command::Retry)),
            ("/system Be  kind.", Some(Command::System("Be  kind.".into()))),
            ("/save a b.jsonl", Some(Command::Save("a b.jsonl".into()))),
            ("/clear", Some(Command::Reset)),
            ("/bye", Some(Command::Quit)),
        ] {
            assert_eq!(format!("{:?}", Command::parse(line).unwrap()), format!("{want:?}"), "{line}");
        }
        let setting = Command::parse(" /threshold 0.5 ").unwrap();
        assert!(matches!(setting, Some(Command::Set(setting, value)) if setting.name == "threshold" && value == "0.5"));
        let shown = Command::parse("/threshold").unwrap();
        assert!(matches!(shown, Some(Command::Show(setting)) if setting.name == "threshold"));
        assert_eq!(completions("/re"), ["/reset", "/retry"]);
        for (line, want) in [
            ("/strategy", "/strategy must have an argument NAME"),
            (
                "/temprature 1",
                "there is no command /temprature\n  hint: did you mean /temperature? /help lists the commands",
            ),
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
