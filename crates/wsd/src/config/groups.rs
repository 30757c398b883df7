//! The settings there are, in groups that the command line and `wsd.toml` fill alike.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
use serde::{Deserialize, Deserializer, Serialize};
use wsd_core::{OnDraftEnd, RECIPES};
use wsd_nn::Device;

/// Makes a group: every setting may be absent, and one source takes precedence over another setting by setting.
macro_rules! group {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        $(#[$meta])*
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_meta])* pub $field: Option<$type>,)* }

        impl $name {
            /// These settings, and those of `lower` where they say nothing.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                Self { $($field: self.$field.or(lower.$field),)* }
            }
        }
    };
}

group! {
    /// Which models, and how they run.
    #[command(next_help_heading = "Models")]
    ModelArgs {
        /// The large model: a folder, a .gguf file, a Hugging Face name (org/name, org/name@revision,
        /// org/name:file.gguf), or an address such as vllm+http://host:8000/name (or sglang+, llama-server+, openai+, with http or
        /// https), several of one model parted by commas [default: builtin:base]
        #[arg(long, value_name = "MODEL")]
        #[serde(deserialize_with = "one_or_several")]
        base: String,
        /// The small aligned model, named like the base [default: builtin:draft]
        #[arg(long, value_name = "MODEL")]
        #[serde(deserialize_with = "one_or_several")]
        draft: String,
        /// How the base reads a chat: plain (the paper's form for bases), own (its chat template), or a
        /// template file [default: plain]
        #[arg(long, value_name = "FORM")]
        base_template: TemplateForm,
        /// How the draft reads a chat: own, plain, or a template file [default: own]
        #[arg(long, value_name = "FORM")]
        draft_template: TemplateForm,
        /// Processor threads for each model [default: all cores]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        threads: usize,
        /// What the models run on: cpu, candle, cuda, cuda:N or metal, as far as this program was built for it; auto is a
        /// GPU where there is one [default: auto]
        #[arg(long, value_name = "DEVICE")]
        device: Device,
        /// Number format the weights are converted to, such as f32, bf16 or q8_0 [default: the checkpoint's]
        #[arg(long, value_name = "TYPE")]
        dtype: String,
        /// Number format of the draft's weights, where it is another one; q4_0 writes about twice as fast as q8_0 [default: as dtype]
        #[arg(long, value_name = "TYPE")]
        draft_dtype: String,
        /// Tokens of ended requests whose keys and values each model keeps, for requests that begin alike; 0 for none, not even
        /// among those at work [default: 4096]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        prefix_cache_tokens: usize,
        /// Use what is on this machine only, download nothing; as HF_HUB_OFFLINE=1 does [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
        offline: bool,
    }
}

group! {
    /// How models on other machines are reached and read.
    #[command(next_help_heading = "Remote models")]
    RemoteArgs {
        /// The tokenizer of a remote base: a folder, or a name in Hugging Face's cache [default: the model's own name, else the
        /// server's tokenizer]
        #[arg(long, value_name = "MODEL")]
        base_tokenizer: String,
        /// The tokenizer of a remote draft
        #[arg(long, value_name = "MODEL")]
        draft_tokenizer: String,
        /// The environment variable that holds the key for a remote base [default: none]
        #[arg(long, value_name = "NAME")]
        base_key_env: String,
        /// The environment variable that holds the key for a remote draft [default: none]
        #[arg(long, value_name = "NAME")]
        draft_key_env: String,
        /// Let a base that cannot score a prompt (llama-server) be asked one token per call: exact, and slow [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
        teacher_forcing: bool,
        /// Seconds to connect [default: 5]
        #[arg(long, value_name = "SECONDS")]
        connect_timeout_seconds: f64,
        /// Seconds until a reply begins, which for a scored prompt is all its computation [default: 120]
        #[arg(long, value_name = "SECONDS")]
        first_byte_timeout_seconds: f64,
        /// Seconds between two parts of a reply [default: 30]
        #[arg(long, value_name = "SECONDS")]
        idle_timeout_seconds: f64,
        /// Seconds for one question to a model with all its attempts [default: 600]
        #[arg(long, value_name = "SECONDS")]
        total_timeout_seconds: f64,
        /// Failures in a row after which a question is given up [default: 4]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        attempts: u32,
    }
}

group! {
    /// How an answer is decoded.
    #[command(next_help_heading = "Decoding")]
    DecodeArgs {
        /// How the two models share the work [default: wsd]
        #[arg(long, value_name = "NAME", value_parser = strategies())]
        strategy: String,
        /// Tokens in the window that the base judges the draft by [default: 6]
        #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
        window: usize,
        /// The base takes over once the window's geometric mean probability reaches this [default: 0.8]
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        threshold: f64,
        /// At most this many tokens are drafted [default: 512]
        #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
        max_draft_tokens: usize,
        /// Tokens drafted between two scorings; changes the speed and never the text, that of a sampled remote draft apart
        /// [default: 8, or as many as the window has, then what measured costs make the best]
        #[arg(long, value_name = "TOKENS", allow_negative_numbers = true)]
        chunk_tokens: usize,
        /// After a draft that never convinced the base: let the base continue, or stop [default: continue]
        #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["continue", "stop"]).try_map(|text| text.parse::<OnDraftEnd>()))]
        on_draft_end: OnDraftEnd,
        /// Once the base writes, let the draft write ahead of it: changes the speed and never the text; needs one vocabulary [default: true]
        #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
        speculate: bool,
        /// In nudging, the base writes where its likeliest token has at least this probability [default: 0.4]
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        nudge_threshold: f64,
        /// At most this many tokens in an answer [default: 512]
        #[arg(long, short = 'n', value_name = "TOKENS", allow_negative_numbers = true)]
        max_tokens: usize,
        /// End the answer before this text, besides where the chat form ends; may be repeated [default: none]
        #[arg(long, value_name = "TEXT")]
        stop: Vec<String>,
    }
}

group! {
    /// How tokens are chosen.
    #[command(next_help_heading = "Sampling")]
    SamplingArgs {
        /// 0 takes the likeliest token, 1 samples from the model's own distribution [default: 0]
        #[arg(long, short = 't', value_name = "T", allow_negative_numbers = true)]
        temperature: f32,
        /// Sample among the N likeliest tokens; 0 means all [default: 0]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        top_k: usize,
        /// Sample among the likeliest tokens that together reach probability P [default: 1]
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        top_p: f32,
        /// Sample among tokens at least P times as likely as the likeliest [default: 0]
        #[arg(long, value_name = "P", allow_negative_numbers = true)]
        min_p: f32,
        /// Make tokens that occurred less likely by this factor; 1 does nothing [default: 1]
        #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
        repetition_penalty: f32,
        /// Same seed, same text [default: 42]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        seed: u64,
    }
}

group! {
    /// What stands around the prompt.
    #[command(next_help_heading = "Prompt")]
    PromptArgs {
        /// Instructions that stand above the conversation [default: none]
        #[arg(long, value_name = "TEXT")]
        system: String,
        /// The answer begins with this, and both models continue it; the output does not repeat it [default: none]
        #[arg(long, value_name = "TEXT")]
        prefill: String,
        /// Give the prompt to both models as it is, without any chat form [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
        raw: bool,
    }
}

group! {
    /// How the server is reached and how much it takes on.
    #[command(next_help_heading = "Server")]
    ServeArgs {
        /// Address to listen on [default: 127.0.0.1]
        #[arg(long, value_name = "ADDRESS")]
        host: IpAddr,
        /// Port to listen on; 0 takes a free one [default: 8080]
        #[arg(long, value_name = "PORT")]
        port: u16,
        /// The key that clients must send; better given by the environment or a file, where others cannot see it
        #[arg(long, value_name = "KEY", env = "WSD_API_KEY", hide_env_values = true)]
        api_key: String,
        /// A file of keys that clients may send, one to a line
        #[arg(long, value_name = "FILE")]
        api_key_file: PathBuf,
        /// Listen beyond this machine although there is no key [default: false]
        #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
        insecure: bool,
        /// Answers written at a time [default: 16]
        #[arg(long, value_name = "N")]
        max_concurrent: usize,
        /// Requests that may wait beside them; more are sent away. Few, so that who waits does not wait long [default: a
        /// quarter of the answers written at a time]
        #[arg(long, value_name = "N")]
        max_queue: usize,
        /// Seconds after which an answer is cut off [default: 600]
        #[arg(long, value_name = "SECONDS")]
        request_timeout_seconds: u64,
        /// Seconds that running answers are given when the server is stopped [default: 90]
        #[arg(long, value_name = "SECONDS")]
        drain_timeout_seconds: u64,
        /// Seconds that a client may take to send its headers, and then its body [default: 15]
        #[arg(long, value_name = "SECONDS")]
        header_timeout_seconds: u64,
        /// Seconds of silence after which a stream says that it lives [default: 5]
        #[arg(long, value_name = "SECONDS")]
        keep_alive_seconds: u64,
        /// Answer to this name too, where the server listens to this machine alone and has no key; otherwise pages elsewhere
        /// could pose as one of its own. May be repeated [default: localhost and addresses]
        #[arg(long, value_name = "NAME")]
        allowed_host: Vec<String>,
        /// Let pages of this origin call the server, such as `https://chat.example`; may be repeated [default: none]
        #[arg(long, value_name = "ORIGIN")]
        cors: Vec<String>,
    }
}

/// A model's name, or a list of addresses.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Several(Vec<String>),
    }
    Ok(Some(match Names::deserialize(deserializer)? {
        Names::One(name) => name,
        Names::Several(names) => names.join(","),
    }))
}

/// The names in the table of strategies, with what it says of each.
fn strategies() -> PossibleValuesParser {
    PossibleValuesParser::new(RECIPES.iter().map(|recipe| PossibleValue::new(recipe.name).help(recipe.about)))
}

/// How a model reads a chat.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(from = "String", into = "String")]
pub enum TemplateForm {
    /// The paper's plain form.
    Plain,
    /// The model's own chat template.
    Own,
    /// A chat template in a file.
    File(PathBuf),
}

impl From<TemplateForm> for String {
    fn from(form: TemplateForm) -> Self {
        match form {
            TemplateForm::Plain => "plain".into(),
            TemplateForm::Own => "own".into(),
            TemplateForm::File(path) => path.to_string_lossy().into_owned(),
        }
    }
}

impl From<String> for TemplateForm {
    fn from(text: String) -> Self {
        match text.as_str() {
            "plain" => Self::Plain,
            "own" => Self::Own,
            _ => Self::File(text.into()),
        }
    }
}
