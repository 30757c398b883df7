//! The options of a remote model.

use wsd_core::{Seat, TemplateVariables};
use wsd_nn::TemplateChoice;

use super::address::Address;
use super::http::TimeLimits;
use crate::hub::HubOptions;

/// The servers of a remote model, its tokenizer and template, and the limits of requests.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The part it plays in a strategy.
    pub seat: Seat,
    /// Its servers: replicas of one model.
    pub addresses: Vec<Address>,
    /// The tokenizer: a folder, or a name in the hub's cache. `None` looks under the model's own
    /// name.
    pub tokenizer: Option<String>,
    /// The hub's cache.
    pub hub: HubOptions,
    /// The environment variable that holds the API key.
    pub key_env: Option<String>,
    /// The choice of its chat template.
    pub template: TemplateChoice,
    /// Variables for it.
    pub template_variables: TemplateVariables,
    /// Time limits for each phase of a request.
    pub limits: TimeLimits,
    /// Consecutive failures after which a question is given up.
    pub attempts: u32,
    /// Permission to score token by token on an engine that returns no scores of a prompt.
    pub teacher_forcing: bool,
    /// Refuse a server that cannot score.
    pub must_score: bool,
}
