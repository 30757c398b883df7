//! `[prompt]`: the text around a prompt.

use wsd_core::{ChatRole, Error, Message, Setting, Values};

static SYSTEM: Setting =
    Setting::text("system", "Instructions above the conversation", "TEXT").with_default_about("none");
static PREFILL: Setting = Setting::text(
    "prefill",
    "The answer begins with this, and both models continue it; the output does not repeat it",
    "TEXT",
)
.with_default_about("none");
static RAW: Setting = Setting::flag("raw", "Give the prompt to both models as it is, without any chat form", false);

/// The settings of `[prompt]`, in the order of the help.
pub(super) static SETTINGS: &[&Setting] = &[&SYSTEM, &PREFILL, &RAW];

/// The text around a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptSettings {
    /// Instructions above the conversation.
    pub system: Option<String>,
    /// The start of the answer.
    pub prefill: Option<String>,
    /// True for a prompt without a chat form.
    pub raw: bool,
}

impl PromptSettings {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] for a raw prompt together with settings of a chat.
    pub(super) fn parse(values: &Values) -> Result<Self, Error> {
        let settings = Self { system: values.get(&SYSTEM), prefill: values.get(&PREFILL), raw: values.get(&RAW) };
        match [&SYSTEM, &PREFILL].into_iter().find(|setting| settings.raw && values.is_set(setting)) {
            Some(setting) => {
                let limit = "left out with `raw`".into();
                Err(Error::Setting { name: setting.name, limit, value: "both".into() })
            }
            None => Ok(settings),
        }
    }

    /// Adds the instructions to a conversation that has no system message, and the start of the
    /// answer to one that does not end with an answer.
    #[must_use]
    pub fn complete(&self, mut messages: Vec<Message>) -> Vec<Message> {
        if let Some(system) = &self.system
            && messages.first().is_none_or(|first| first.role != ChatRole::System)
        {
            messages.insert(0, Message::new(ChatRole::System, system));
        }
        if let Some(prefill) = &self.prefill
            && messages.last().is_none_or(|last| last.role != ChatRole::Assistant)
        {
            messages.push(Message::new(ChatRole::Assistant, prefill));
        }
        messages
    }
}

/// Returns the settings of `lower` that `upper` overrides because `raw` excludes the settings of a
/// chat.
pub(super) fn overridden(lower: &Values, upper: &Values) -> Vec<&'static Setting> {
    let is_chat = upper.is_set(&SYSTEM) || upper.is_set(&PREFILL);
    let overridden: &[&'static Setting] = match upper.get::<Option<bool>>(&RAW) {
        Some(true) => &[&SYSTEM, &PREFILL],
        _ if is_chat && lower.get(&RAW) => &[&RAW],
        _ => &[],
    };
    overridden.iter().copied().filter(|setting| lower.is_set(setting)).collect()
}
