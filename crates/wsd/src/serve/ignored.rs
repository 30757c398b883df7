//! Fields that clients send and that change no text: they are accepted, and refused by
//! `wsd serve --strict`.

/// The object that a field belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The body of a request.
    Request,
    /// A message or an item of a conversation, or a part of one.
    Message,
    /// The object `stream_options`.
    StreamOptions,
    /// The object `options` of Ollama's requests.
    Options,
}

impl Place {
    /// The place in words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Message => "message",
            Self::StreamOptions => "`stream_options`",
            Self::Options => "`options`",
        }
    }
}

/// A field that is accepted although nothing reads it.
#[derive(Debug)]
pub struct Ignored {
    /// The name.
    pub field: &'static str,
    /// The object that it belongs to.
    pub place: Place,
    /// The reason why it has no effect on the text.
    pub reason: &'static str,
}

const fn row(place: Place, field: &'static str, reason: &'static str) -> Ignored {
    Ignored { field, place, reason }
}

const LABEL: &str = "a label for the sender's own records";
const CACHE: &str = "prefixes are always cached, and `cache_salt` keeps them apart";
const CONTROL: &str = "no loaded template reads it";
const INTERFACE: &str = "state of the sender's user interface";
const LOADED: &str = "models stay loaded";
const SET_AT_START: &str = "set when the server starts";
const SENT_BACK: &str = "a part of an answer that clients send back; no template reads it";

/// Every field that is accepted and ignored. A field with the value null needs no row.
pub static IGNORED: &[Ignored] = &[
    row(Place::Request, "metadata", LABEL),
    row(Place::Request, "client_metadata", LABEL),
    row(Place::Request, "safety_identifier", LABEL),
    row(Place::Request, "request_id", LABEL),
    row(Place::Request, "store", "nothing is stored, but for /v1/responses"),
    row(Place::Request, "prompt_cache_key", CACHE),
    row(Place::Request, "prompt_cache_retention", CACHE),
    row(Place::Request, "prompt_cache_options", CACHE),
    row(Place::Request, "cache_prompt", CACHE),
    row(Place::Request, "cache_control", CACHE),
    row(Place::Request, "id_slot", "the scheduler chooses the slot"),
    row(Place::Request, "service_tier", "there is one tier"),
    row(Place::Request, "priority", "slots go to the client with the fewest"),
    row(Place::Request, "inference_geo", "answers are computed here"),
    row(Place::Request, "speed", "there is one speed"),
    row(Place::Request, "prediction", "it would change the speed alone"),
    row(Place::Request, "reasoning_effort", CONTROL),
    row(Place::Request, "reasoning", CONTROL),
    row(Place::Request, "thinking", CONTROL),
    row(Place::Request, "think", CONTROL),
    row(Place::Request, "verbosity", CONTROL),
    row(Place::Request, "output_config", CONTROL),
    row(Place::Request, "include", "the reply has no further parts to include"),
    row(Place::Request, "truncation", "a prompt that does not fit is refused"),
    row(Place::Request, "truncate", "a prompt that does not fit is refused"),
    row(Place::Request, "shift", "an answer ends where the context is full"),
    row(Place::Request, "context_management", "a prompt that does not fit is refused"),
    row(Place::Request, "max_tool_calls", "the server calls no tools itself"),
    row(Place::Request, "keep_alive", LOADED),
    row(Place::Request, "timings_per_token", "`timings` come with the reply"),
    row(Place::Request, "return_progress", "prompts report no progress"),
    row(Place::Request, "background_tasks", INTERFACE),
    row(Place::Request, "chat_id", INTERFACE),
    row(Place::Request, "session_id", INTERFACE),
    row(Place::Request, "message_id", INTERFACE),
    row(Place::Request, "features", INTERFACE),
    row(Place::Request, "variables", INTERFACE),
    row(Place::Message, "name", "no template reads names"),
    row(Place::Message, "id", LABEL),
    row(Place::Message, "status", SENT_BACK),
    row(Place::Message, "phase", SENT_BACK),
    row(Place::Message, "cache_control", CACHE),
    row(Place::Message, "reasoning", SENT_BACK),
    row(Place::Message, "reasoning_content", SENT_BACK),
    row(Place::Message, "reasoning_details", SENT_BACK),
    row(Place::Message, "thinking", SENT_BACK),
    row(Place::Message, "annotations", SENT_BACK),
    row(Place::Message, "citations", SENT_BACK),
    row(Place::Message, "logprobs", SENT_BACK),
    row(Place::StreamOptions, "include_obfuscation", "streams have no padding"),
    row(Place::StreamOptions, "continuous_usage_stats", "token counts come at the end"),
    row(Place::Options, "num_ctx", SET_AT_START),
    row(Place::Options, "num_batch", SET_AT_START),
    row(Place::Options, "num_gpu", SET_AT_START),
    row(Place::Options, "main_gpu", SET_AT_START),
    row(Place::Options, "num_thread", SET_AT_START),
    row(Place::Options, "low_vram", SET_AT_START),
    row(Place::Options, "f16_kv", SET_AT_START),
    row(Place::Options, "use_mmap", SET_AT_START),
    row(Place::Options, "use_mlock", SET_AT_START),
    row(Place::Options, "numa", SET_AT_START),
    row(Place::Options, "num_keep", "an answer ends where the context is full"),
];

/// The names of the fields of a place.
pub(super) fn names(place: Place) -> impl Iterator<Item = &'static str> {
    IGNORED.iter().filter(move |row| row.place == place).map(|row| row.field)
}
