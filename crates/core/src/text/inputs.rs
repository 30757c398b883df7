//! The inputs of chat templates besides the messages.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Tools;

/// The inputs of a chat template besides the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatInputs {
    /// The tools that the model may call.
    pub tools: Option<Tools>,
    /// Further variables.
    pub variables: TemplateVariables,
}

/// Variables of a chat template by name, such as `enable_thinking`: the further keyword arguments of
/// transformers' `apply_chat_template`. A template that does not read one ignores it.
///
/// ```
/// use serde_json::json;
/// use wsd_core::TemplateVariables;
///
/// assert!(TemplateVariables::new(json!({"enable_thinking": false})).is_some());
/// assert!(TemplateVariables::new(json!({"messages": []})).is_none());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TemplateVariables(Map<String, Value>);

impl TemplateVariables {
    /// The values that [`TemplateVariables::new`] accepts, in words that follow "must be".
    pub const LIMIT: &str =
        "an object without `messages`, `tools` and `add_generation_prompt`, which the conversation sets";

    /// The names that the conversation sets.
    pub const RESERVED: [&str; 3] = ["messages", "tools", "add_generation_prompt"];

    /// Reads the variables from an object; `None` for anything outside [`TemplateVariables::LIMIT`].
    #[must_use]
    pub fn new(object: Value) -> Option<Self> {
        let Value::Object(variables) = object else { return None };
        let is_free = !Self::RESERVED.iter().any(|name| variables.contains_key(*name));
        is_free.then_some(Self(variables))
    }

    /// Sets one variable.
    pub fn set(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Adds other variables, which replace those of the same names.
    pub fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Tells that there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::scripted::Pieces;
    use crate::{BosTokens, ChatRole, ChatTemplate, Message, Part, Prompt, Specials, Template, TextCodec};

    const SOURCE: &str = "{% for m in messages %}{{ m.content }}{% endfor %}<think>{% if enable_thinking is defined \
                          and not enable_thinking %}</think>{% endif %}";

    #[test]
    fn a_prompt_decides_then_the_model_then_the_template() {
        let template = ChatTemplate::parse("t", SOURCE, Specials::default()).unwrap();
        let pieces = Arc::new(Pieces::letters("a<>/think"));
        let codec = TextCodec::new("m", pieces, Some(Template::Jinja(Box::new(template))), BosTokens::default());
        let variables = |value: Value| TemplateVariables::new(value).unwrap();
        let silent = codec.clone().with_variables(&variables(json!({"enable_thinking": false})));
        for (codec, given, thinks) in [
            (&codec, json!({}), true),
            (&codec, json!({"enable_thinking": false, "unread": [1]}), false),
            (&silent, json!({}), false),
            (&silent, json!({"enable_thinking": true}), true),
        ] {
            let inputs = Arc::new(ChatInputs { tools: None, variables: variables(given.clone()) });
            let prompt = Prompt::ChatWith(vec![Message::new(ChatRole::User, "a")], inputs.clone());
            let text = codec.render(&prompt).unwrap().text;
            assert_eq!(text, if thinks { "a<think>" } else { "a<think></think>" }, "{given}");
            // An answer begins within the reasoning where the prompt opened it.
            let parts = codec.reply(&inputs).push("a a ");
            assert_eq!(matches!(parts[0], Part::Reasoning(_)), thinks, "{parts:?}");
        }
        assert!(codec.reads("enable_thinking") && !codec.reads("reasoning_effort"));
    }
}
