//! The requests of a load.

use clap::Args;

/// The server, the prompts and the kind of request.
#[derive(Args, Clone, Debug)]
pub(crate) struct Questions {
    /// Address of the server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(super) server: String,
    /// Request whole answers instead of streams
    #[arg(long)]
    pub(super) whole: bool,
    /// A prompt; may be repeated, and they are used in turn
    #[arg(long, value_name = "TEXT", default_values_t = DEFAULT_PROMPTS.map(str::to_owned))]
    pub(super) prompt: Vec<String>,
}

const DEFAULT_PROMPTS: [&str; 2] = ["What colour is a fox?", "Where does a duck live?"];

impl Questions {
    /// The prompt of a request, by its index.
    pub(super) fn prompt(&self, index: usize) -> &str {
        &self.prompt[index % self.prompt.len()]
    }
}
