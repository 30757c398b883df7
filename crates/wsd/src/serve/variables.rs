//! Variables of chat templates in a request: `chat_template_kwargs`, and the fields of each protocol
//! that ask a model to reason.

use serde_json::Value;
use wsd_core::TemplateVariables;

use super::app::App;
use super::error::ApiError;
use super::fields::Fields;

/// The variable that turns reasoning on or off, and the one that tells how much.
const THINKING: &str = "enable_thinking";
const EFFORT: &str = "reasoning_effort";
/// The field of vLLM, SGLang and llama-server for any variable.
const KWARGS: &str = "chat_template_kwargs";

/// A reader of a field, which returns a variable and its value.
type Read = fn(&Value) -> Option<(&'static str, Value)>;

/// The fields that ask for reasoning in chat completions, Responses, Messages and Ollama.
const CONTROLS: [(&str, Read); 4] = [
    ("reasoning_effort", effort),
    ("reasoning", |reasoning| effort(reasoning.get("effort")?)),
    ("thinking", |thinking| Some((THINKING, (thinking.get("type")?.as_str()? != "disabled").into()))),
    ("think", |think| think.as_bool().map(|think| (THINKING, think.into())).or_else(|| effort(think))),
];

fn effort(level: &Value) -> Option<(&'static str, Value)> {
    let level = level.as_str()?;
    Some(if level == "none" { (THINKING, false.into()) } else { (EFFORT, level.into()) })
}

/// Takes the variables of a request. Fields that ask for reasoning stay where no loaded model's
/// template reads their variable: it has no such control.
pub(super) fn take(app: &App, fields: &mut Fields) -> Result<TemplateVariables, ApiError> {
    let mut variables = TemplateVariables::default();
    for (field, read) in CONTROLS {
        let Some((name, value)) = fields.get(field).and_then(read) else { continue };
        if app.models.iter().any(|(_, engine)| engine.codec().reads(name)) {
            fields.take::<Value>(field)?;
            variables.set(name, value);
        }
    }
    if let Some(given) = fields.take::<Value>(KWARGS)? {
        let refusal = format!("must be {}, got {given}", TemplateVariables::LIMIT);
        let given = TemplateVariables::new(given);
        variables.extend(given.ok_or_else(|| ApiError::parameter(fields.name(KWARGS), refusal))?);
    }
    Ok(variables)
}
