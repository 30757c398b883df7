//! The form in which training writes chats.

use std::path::Path;

use anyhow::Result;
use wsd_core::Input;
use wsd_nn::TemplateChoice;

/// The name of the template in a run file.
pub(super) const SETTING: &str = "model.template";

/// The template that a run file or an option names: `own`, `plain` or a file.
pub(in crate::cli) fn choose(name: &str) -> Result<TemplateChoice> {
    Ok(match name {
        "own" => TemplateChoice::Own,
        "plain" => TemplateChoice::Plain,
        path => TemplateChoice::Source { name: path.into(), text: Input::SETTINGS.read_text(Path::new(path))? },
    })
}
