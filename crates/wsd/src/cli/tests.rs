//! The command line as a whole.

use super::*;

/// Splits a line as a shell does, up to a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for letter in line.chars() {
        match (quote, letter) {
            (Some(end), _) if letter == end => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '|' | '>' | '<' | '&' | ';') => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The commands that a help text shows, each as words.
fn commands(help: &str) -> Vec<Vec<String>> {
    let whole = help.replace("\\\n", " ");
    let lines = whole.lines().filter_map(|line| {
        let shown = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        let at = shown.find("wsd ").filter(|&at| at == 0 || shown[..at].ends_with("| "))?;
        Some(words(&shown[at..]))
    });
    lines.collect()
}

/// Calls `on_help` with each command that has examples, by its name.
fn each_help(command: &clap::Command, on_help: &mut dyn FnMut(&str, &str)) {
    if let Some(help) = command.get_after_help() {
        on_help(command.get_name(), &help.to_string());
    }
    command.get_subcommands().for_each(|command| each_help(command, on_help));
}

#[test]
fn every_example_of_the_help_is_a_command_line() {
    let (mut count, mut faults) = (0, Vec::new());
    each_help(&CommandLine::command(), &mut |name, help| {
        let shown = commands(help);
        assert!(!shown.is_empty(), "{name} shows no command");
        count += shown.len();
        for words in shown {
            let parsed = CommandLine::try_parse_from(foreign::with_joined_flags(words.iter().map(Into::into)));
            faults.extend(parsed.err().map(|error| format!("{name}: {words:?}: {error}")));
        }
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 60, "only {count} examples were found");
}

#[test]
fn the_short_help_is_short_and_ends_with_the_examples() {
    fn check(command: &mut clap::Command, faults: &mut Vec<String>) {
        let help = command.render_help().to_string();
        let (lines, name) = (help.lines().count(), command.get_name().to_owned());
        // Behind the options, where the terminal stops.
        let examples = help.lines().position(|line| line == "Examples:");
        let options = help.lines().position(|line| line.trim_start().starts_with("-h, --help"));
        let is_last = command.get_after_help().is_none() || examples > options;
        faults.extend((lines > 80 || !is_last).then(|| format!("{name}: {lines} lines, examples at {examples:?}")));
        command.get_subcommands_mut().for_each(|command| check(command, faults));
    }
    let mut line = CommandLine::command().term_width(100);
    line.build();
    let mut faults = Vec::new();
    check(&mut line, &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn examples_fit_the_help() {
    // Longer lines would be broken in the middle of a command.
    let (width, mut long) = (100, Vec::new());
    each_help(&CommandLine::command(), &mut |name, help| {
        let lines = help.lines().filter(|line| line.chars().count() > width);
        long.extend(lines.map(|line| format!("{name}: {line}")));
    });
    assert!(long.is_empty(), "{}", long.join("\n"));
}
