//! The sections of `wsd.toml`, which are the groups of the command line's help.

use wsd_core::{SAMPLING, STRATEGY, Setting, TERMS, strategy_settings};

use super::pairs::PAIR;
use super::{models, prompt, remote, serve};

/// A section of `wsd.toml`.
pub struct Section {
    /// The name in the file.
    pub name: &'static str,
    /// The heading in the help.
    pub heading: &'static str,
    /// True where the options belong to `wsd serve` alone.
    pub is_server_only: bool,
    settings: fn() -> Vec<&'static Setting>,
}

/// Every section, in the order of the help.
pub static SECTIONS: &[Section] = &[
    Section { name: "models", heading: "Models", is_server_only: false, settings: models },
    Section { name: "remote", heading: "Remote models", is_server_only: false, settings: remote::settings },
    Section { name: "decode", heading: "Decoding", is_server_only: false, settings: decode },
    Section { name: "sampling", heading: "Sampling", is_server_only: false, settings: || SAMPLING.to_vec() },
    Section { name: "prompt", heading: "Prompt", is_server_only: false, settings: || prompt::SETTINGS.to_vec() },
    Section { name: "serve", heading: "Server", is_server_only: true, settings: || serve::SETTINGS.to_vec() },
];

impl Section {
    /// The settings in it, in the order of the help.
    #[must_use]
    pub fn settings(&self) -> Vec<&'static Setting> {
        (self.settings)()
    }
}

fn models() -> Vec<&'static Setting> {
    let pair: &'static Setting = &PAIR;
    [pair].into_iter().chain(models::settings()).collect()
}

fn decode() -> Vec<&'static Setting> {
    let strategy: &'static Setting = &STRATEGY;
    [strategy].into_iter().chain(strategy_settings()).chain(TERMS.iter().copied()).collect()
}
