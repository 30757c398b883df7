//! The settings of models on other machines.

use std::time::Duration;

use wsd_core::{Error, Role};

use super::RemoteArgs;
use crate::remote::TimeLimits;

/// How models on other machines are reached and read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// The base's tokenizer and the variable that holds its key...
    base: [Option<String>; 2],
    /// ...and the draft's.
    draft: [Option<String>; 2],
    /// Whether a base may be asked one token at a time.
    pub teacher_forcing: bool,
    /// How long things may take.
    pub limits: TimeLimits,
    /// Failures in a row after which a question is given up.
    pub attempts: u32,
}

impl RemoteSettings {
    /// The longest time that can be set: a day.
    const MAX_SECONDS: f64 = 86_400.0;
    /// Most failures in a row.
    const MAX_ATTEMPTS: u32 = 100;

    /// Fill in the defaults and check every value.
    pub(super) fn parse(args: RemoteArgs) -> Result<Self, Error> {
        let seconds = |name, value: Option<f64>, default: f64| match value.unwrap_or(default) {
            value if value > 0.0 && value <= Self::MAX_SECONDS => Ok(Duration::from_secs_f64(value)),
            value => Err(Error::Setting { name, limit: "above 0 and at most 86400 seconds", value: value.to_string() }),
        };
        let attempts = match args.attempts.unwrap_or(4) {
            attempts if (1..=Self::MAX_ATTEMPTS).contains(&attempts) => attempts,
            attempts => {
                return Err(Error::Setting { name: "attempts", limit: "from 1 to 100", value: attempts.to_string() });
            }
        };
        Ok(Self {
            base: [args.base_tokenizer, args.base_key_env],
            draft: [args.draft_tokenizer, args.draft_key_env],
            teacher_forcing: args.teacher_forcing.unwrap_or(false),
            limits: TimeLimits {
                connect: seconds("connect_timeout_seconds", args.connect_timeout_seconds, 5.0)?,
                first_byte: seconds("first_byte_timeout_seconds", args.first_byte_timeout_seconds, 120.0)?,
                idle: seconds("idle_timeout_seconds", args.idle_timeout_seconds, 30.0)?,
                total: seconds("total_timeout_seconds", args.total_timeout_seconds, 600.0)?,
            },
            attempts,
        })
    }

    /// The tokenizer of a role's model, and the variable that holds its key.
    #[must_use]
    pub fn of(&self, role: Role) -> &[Option<String>; 2] {
        match role {
            Role::Base => &self.base,
            Role::Draft => &self.draft,
        }
    }
}
