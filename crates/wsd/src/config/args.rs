//! The command line's options, made from the settings.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use wsd_core::{Kind, Setting, Value, Values};

use super::Partial;
use super::sections::{SECTIONS, Section};

/// The options of a command for settings: with `IS_SERVER` those for sections of `wsd serve` alone,
/// otherwise those for all other sections.
#[derive(Clone, Debug, Default)]
pub struct SettingArgs<const IS_SERVER: bool>(pub Partial);

/// The options that commands share.
pub type SharedArgs = SettingArgs<false>;

/// The options of `wsd serve` alone.
pub type ServeArgs = SettingArgs<true>;

impl<const IS_SERVER: bool> SettingArgs<IS_SERVER> {
    fn sections() -> impl Iterator<Item = &'static Section> {
        SECTIONS.iter().filter(|section| section.is_server_only == IS_SERVER)
    }
}

impl<const IS_SERVER: bool> Args for SettingArgs<IS_SERVER> {
    fn augment_args(command: Command) -> Command {
        Self::sections().fold(command, |command, section| {
            let command = command.next_help_heading(section.heading);
            section.settings().into_iter().fold(command, |command, setting| command.arg(arg(setting)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<const IS_SERVER: bool> FromArgMatches for SettingArgs<IS_SERVER> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self(Partial(collect(matches, Self::sections())?)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0 = Self::from_arg_matches(matches)?.0.or(self.0.clone());
        Ok(())
    }
}

/// The settings that the short help (`-h`) lists; `--help` lists all.
const BASIC: [&str; 12] = [
    "pair",
    "base",
    "draft",
    "strategy",
    "window",
    "threshold",
    "max_tokens",
    "temperature",
    "seed",
    "system",
    "host",
    "port",
];

/// Options of llama.cpp, Ollama and transformers that mean the same as a setting's.
const ALIASES: [(&str, &str); 6] = [
    ("temperature", "temp"),
    ("max_tokens", "n-predict"),
    ("max_tokens", "predict"),
    ("max_tokens", "num-predict"),
    ("max_tokens", "max-new-tokens"),
    ("repetition_penalty", "repeat-penalty"),
];

/// The option for a setting.
fn arg(setting: &'static Setting) -> Arg {
    let mut arg = Arg::new(setting.name)
        .long(setting.name.replace('_', "-"))
        .value_name(setting.placeholder)
        .help(help(setting))
        .value_parser(move |text: &str| setting.parse(text));
    arg = arg.aliases(ALIASES.iter().filter(|(name, _)| *name == setting.name).map(|(_, alias)| *alias));
    if !BASIC.contains(&setting.name) {
        arg = arg.hide_short_help(true);
    }
    if let Some(short) = setting.short {
        arg = arg.short(short);
    }
    if let Some(variable) = setting.env {
        arg = arg.env(variable).hide_env_values(true);
    }
    match setting.kind {
        Kind::Integer { .. } | Kind::Number { .. } | Kind::Seed => arg.allow_negative_numbers(true),
        Kind::Flag => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::Choice(words) => {
            let words = words.iter().map(|(word, about)| PossibleValue::new(word).help(about));
            arg.value_parser(PossibleValuesParser::new(words).try_map(|text| setting.parse(&text)))
        }
        Kind::Texts => arg.action(ArgAction::Append),
        Kind::Text | Kind::Object => arg,
    }
}

/// The meaning of a setting and its default.
fn help(setting: &Setting) -> String {
    match setting.default_text() {
        Some(default) => format!("{} [default: {default}]", setting.about),
        None => setting.about.to_owned(),
    }
}

/// The values given on the command line.
fn collect(matches: &ArgMatches, sections: impl Iterator<Item = &'static Section>) -> Result<Values, Error> {
    let mut values = Values::default();
    for setting in sections.flat_map(Section::settings) {
        let Some(given) = matches.get_many::<Value>(setting.name) else { continue };
        let value = given.cloned().reduce(|all, next| match (all, next) {
            (Value::Texts(all), Value::Texts(next)) => Value::Texts([all, next].concat().into()),
            (_, last) => last,
        });
        if let Some(value) = value {
            let invalid = |error: wsd_core::Error| Error::raw(clap::error::ErrorKind::ValueValidation, error);
            values.set(setting, value).map_err(invalid)?;
        }
    }
    Ok(values)
}
