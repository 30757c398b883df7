//! `[remote]`: models on other machines.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use wsd_core::{Seat, Setting, Values};

use crate::remote::{self, TimeLimits};

/// The longest time that can be set, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;

static BASE_TOKENIZER: Setting = Setting::text(
    "base_tokenizer",
    "The tokenizer of a remote base: a folder, or a name in Hugging Face's cache",
    "MODEL",
)
.with_default_about("the model's own name, else the server's tokenizer");
static DRAFT_TOKENIZER: Setting = Setting::text("draft_tokenizer", "The tokenizer of a remote draft", "MODEL");
static BASE_KEY_ENV: Setting =
    Setting::text("base_key_env", "The environment variable that holds the key for a remote base", "NAME")
        .with_default_about("none")
        .host_only();
static DRAFT_KEY_ENV: Setting =
    Setting::text("draft_key_env", "The environment variable that holds the key for a remote draft", "NAME")
        .with_default_about("none")
        .host_only();
static TEACHER_FORCING: LazyLock<Setting> = LazyLock::new(|| {
    static ABOUT: LazyLock<String> = LazyLock::new(|| {
        let engines = remote::teacher_forced();
        format!(
            "For a base that cannot score a prompt ({engines}): get the scores by one call per token, exactly but \
             slowly"
        )
    });
    Setting::flag("teacher_forcing", &ABOUT, false)
});
static CONNECT_TIMEOUT: Setting = seconds("connect_timeout_seconds", "Seconds to connect", 5.0);
static FIRST_BYTE_TIMEOUT: Setting = seconds(
    "first_byte_timeout_seconds",
    "Seconds until a reply begins, which for a scored prompt is all its computation",
    120.0,
);
static IDLE_TIMEOUT: Setting = seconds("idle_timeout_seconds", "Seconds between two parts of a reply", 30.0);
static TOTAL_TIMEOUT: Setting =
    seconds("total_timeout_seconds", "Seconds for one question to a model with all its attempts", 600.0);
static ATTEMPTS: Setting =
    Setting::integer("attempts", "Failures in a row after which a question fails", 1..=100).with_default_integer(4);

const fn seconds(name: &'static str, about: &'static str, default: f64) -> Setting {
    Setting::positive(name, about, MAX_SECONDS).with_default_number(default).with_placeholder("SECONDS").speed_only()
}

/// The settings of `[remote]`, in the order of the help.
pub(super) fn settings() -> Vec<&'static Setting> {
    vec![
        &BASE_TOKENIZER,
        &DRAFT_TOKENIZER,
        &BASE_KEY_ENV,
        &DRAFT_KEY_ENV,
        &TEACHER_FORCING,
        &CONNECT_TIMEOUT,
        &FIRST_BYTE_TIMEOUT,
        &IDLE_TIMEOUT,
        &TOTAL_TIMEOUT,
        &ATTEMPTS,
    ]
}

/// The tokenizer and the key of one remote model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteModel {
    /// A folder or a hub name; `None` for the model's own name, else the server's tokenizer.
    pub tokenizer: Option<String>,
    /// The environment variable that holds the key.
    pub key_env: Option<String>,
}

/// Access to models on other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    models: BTreeMap<Seat, RemoteModel>,
    /// True where a base that cannot score a prompt is called once per token instead.
    pub teacher_forcing: bool,
    /// Time limits of a question.
    pub limits: TimeLimits,
    /// Failures in a row after which a question fails.
    pub attempts: u32,
}

impl RemoteSettings {
    /// Reads the settings.
    pub(super) fn from_values(values: &Values) -> Self {
        let seconds = |setting| Duration::from_secs_f64(values.get(setting));
        let model = |tokenizer, key_env| RemoteModel { tokenizer: values.get(tokenizer), key_env: values.get(key_env) };
        Self {
            models: BTreeMap::from([
                (Seat::BASE, model(&BASE_TOKENIZER, &BASE_KEY_ENV)),
                (Seat::DRAFT, model(&DRAFT_TOKENIZER, &DRAFT_KEY_ENV)),
            ]),
            teacher_forcing: values.get(&TEACHER_FORCING),
            limits: TimeLimits {
                connect: seconds(&CONNECT_TIMEOUT),
                first_byte: seconds(&FIRST_BYTE_TIMEOUT),
                idle: seconds(&IDLE_TIMEOUT),
                total: seconds(&TOTAL_TIMEOUT),
            },
            attempts: values.get(&ATTEMPTS),
        }
    }

    /// The tokenizer and the key of the model in `seat`.
    #[must_use]
    pub fn model(&self, seat: Seat) -> RemoteModel {
        self.models.get(&seat).cloned().unwrap_or_default()
    }
}
