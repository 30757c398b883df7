//! The forms in which families of models write calls.

/// The kind of text in which calls are written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// An object `{"name": ..., "arguments": ...}`, or several of them, one after another or in a
    /// list.
    Json,
    /// A list of such objects, or `NAME[ARGS]{...}`.
    Mistral,
    /// `call:NAME{KEY:VALUE,...}`, with texts between quotes of this kind.
    Gemma {
        /// The quotes.
        quote: &'static str,
    },
    /// `<function=NAME>` with `<parameter=KEY>` tags.
    Tags,
}

/// A form of calls.
#[derive(Debug, PartialEq, Eq)]
pub struct CallFormat {
    /// The name of the form, for messages.
    pub name: &'static str,
    /// Words of a chat template that all occur where the form is used.
    pub(super) signs: &'static [&'static str],
    /// The mark before a call or a list of calls; empty where an answer that begins with JSON is a
    /// call.
    pub open: &'static str,
    /// The mark behind it; empty where there is none.
    pub close: &'static str,
    pub(super) body: Body,
    /// The field with the arguments, where calls are objects.
    pub arguments: &'static str,
}

/// Every form, more particular ones before the others. The last one is used where the template
/// describes none.
static FORMATS: &[CallFormat] = &[
    CallFormat {
        name: "Qwen3-Coder",
        signs: &["<tool_call>", "<function="],
        open: "<tool_call>",
        close: "</tool_call>",
        body: Body::Tags,
        arguments: "arguments",
    },
    CallFormat {
        name: "Mistral",
        signs: &["[TOOL_CALLS]"],
        open: "[TOOL_CALLS]",
        close: "",
        body: Body::Mistral,
        arguments: "arguments",
    },
    CallFormat {
        name: "FunctionGemma",
        signs: &["<start_function_call>"],
        open: "<start_function_call>",
        close: "<end_function_call>",
        body: Body::Gemma { quote: "<escape>" },
        arguments: "arguments",
    },
    CallFormat {
        name: "Gemma 4",
        signs: &["<|tool_call>"],
        open: "<|tool_call>",
        close: "<tool_call|>",
        body: Body::Gemma { quote: "<|\"|>" },
        arguments: "arguments",
    },
    CallFormat {
        name: "Llama 3",
        signs: &["<|start_header_id|>", "\"parameters\"", "tools"],
        open: "",
        close: "",
        body: Body::Json,
        arguments: "parameters",
    },
    CallFormat {
        name: "Hermes",
        signs: &[],
        open: "<tool_call>",
        close: "</tool_call>",
        body: Body::Json,
        arguments: "arguments",
    },
];

impl CallFormat {
    /// The form that a template asks for.
    pub(in crate::text) fn of_template(source: &str) -> &'static Self {
        let fits = |format: &&Self| format.signs.iter().all(|sign| source.contains(sign));
        // The last form has no signs and fits always.
        FORMATS.iter().find(fits).unwrap_or(&FORMATS[FORMATS.len() - 1])
    }

    /// Tells whether calls are JSON between marks that are text, so that a grammar can describe them
    /// as the model knows them.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.body == Body::Json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_tell_their_form() {
        for (source, name) in [
            ("{{ tools }} <tool_call>{\"name\": <function-name>}</tool_call>", "Hermes"),
            ("<tool_call>\n<function=example>", "Qwen3-Coder"),
            ("<|start_header_id|>{{ '{\"name\": name, \"parameters\": x}' }}{% if tools %}", "Llama 3"),
            ("{{ '[TOOL_CALLS] [' }}", "Mistral"),
            ("{{ '<start_function_call>call:' }}", "FunctionGemma"),
            ("", "Hermes"),
        ] {
            assert_eq!(CallFormat::of_template(source).name, name, "{source}");
        }
    }

    #[test]
    fn names_are_unique_and_the_last_form_fits_always() {
        let mut names: Vec<_> = FORMATS.iter().map(|format| format.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FORMATS.len());
        assert!(FORMATS.last().is_some_and(|format| format.signs.is_empty()));
    }
}
