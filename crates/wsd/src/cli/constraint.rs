//! Options that constrain an answer.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use wsd_core::{Grammar, Input};
use wsd_grammar::{Form, grammar};

/// The constraint on an answer.
#[derive(Args, Debug)]
#[command(next_help_heading = "Constraint")]
pub(super) struct ConstraintArgs {
    /// File with a JSON schema: the answer is JSON that is valid under it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["grammar", "input"])]
    json_schema: Option<PathBuf>,
    /// File with a grammar that the answer follows, in Lark's syntax or llama.cpp's (GBNF)
    #[arg(long, hide_short_help = true, value_name = "FILE", conflicts_with = "input")]
    grammar: Option<PathBuf>,
}

impl ConstraintArgs {
    /// True where the answer is to be JSON under a schema.
    pub(super) fn has_schema(&self) -> bool {
        self.json_schema.is_some()
    }

    /// Reads the constraint, if there is one.
    pub(super) fn grammar(&self) -> Result<Option<Arc<dyn Grammar>>> {
        if let Some(path) = &self.json_schema {
            let text = Input::SETTINGS.read_text(path)?;
            let schema = serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))?;
            return Ok(Some(grammar("json_schema", &Form::Schema(schema))?));
        }
        let Some(path) = &self.grammar else { return Ok(None) };
        Ok(Some(grammar("grammar", &Form::of_text(&Input::SETTINGS.read_text(path)?))?))
    }
}
