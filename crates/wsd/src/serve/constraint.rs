//! The fields that constrain an answer: `response_format` of OpenAI, `grammar` and `json_schema` of
//! llama.cpp, `structured_outputs` and `guided_*` of vLLM.

use serde_json::{Value, json};
use wsd_grammar::{Form, object};

use super::error::ApiError;
use super::fields::Fields;

/// A constraint, and the field that it was given in.
type Constraint = (&'static str, Form);

/// The most bytes in the name of a schema, as in OpenAI's API.
const MAX_NAME_BYTES: usize = 64;

/// Takes the constraint, of which there may be one.
pub(super) fn take(fields: &mut Fields) -> Result<Option<Constraint>, ApiError> {
    let mut found = Vec::new();
    if let Some(form) = response_format(fields)? {
        found.push(("response_format", form));
    }
    found.extend(of_vllm(fields, &GUIDED)?);
    if let Some(inner) = fields.take::<Value>("structured_outputs")? {
        let mut inner = Fields::new(inner, "structured_outputs")?;
        let mut named = of_vllm(&mut inner, &STRUCTURED)?;
        if inner.take("json_object")?.unwrap_or(false) {
            named.push(("structured_outputs", Form::Schema(object())));
        }
        inner.unsupported(&[
            ("disable_any_whitespace", &["true", "false"]),
            ("disable_additional_properties", &["false"]),
            ("whitespace_pattern", &[]),
            ("structural_tag", &[]),
        ])?;
        inner.finish()?;
        found.extend(named.into_iter().map(|(_, form)| ("structured_outputs", form)));
    }
    fields.unsupported(&[
        ("guided_decoding_backend", &["\"auto\"", "\"guidance\""]),
        ("guided_whitespace_pattern", &[]),
    ])?;
    match (found.pop(), found.pop()) {
        (Some((one, _)), Some((other, _))) => {
            Err(ApiError::parameter(one, format!("must be left out with `{other}`: an answer has one constraint")))
        }
        (one, _) => Ok(one),
    }
}

/// Takes `response_format`.
fn response_format(fields: &mut Fields) -> Result<Option<Form>, ApiError> {
    let Some(value) = fields.take::<Value>("response_format")? else { return Ok(None) };
    let mut format = Fields::new(value, "response_format")?;
    let kind: String = format.need("type")?;
    let form = match kind.as_str() {
        "text" => None,
        // llama.cpp takes a schema here too.
        "json_object" => Some(schema(&mut format, "schema")?.unwrap_or_else(|| Form::Schema(object()))),
        "json_schema" => {
            let mut named = Fields::new(format.need("json_schema")?, "response_format.json_schema")?;
            let name = named.take::<String>("name")?.unwrap_or_default();
            if name.len() > MAX_NAME_BYTES {
                let message = format!("must have at most {MAX_NAME_BYTES} bytes, got {}", name.len());
                return Err(ApiError::parameter(named.name("name"), message));
            }
            named.take::<String>("description")?;
            // A schema always holds strictly.
            named.take::<bool>("strict")?;
            let form = schema(&mut named, "schema")?.unwrap_or_else(|| Form::Schema(object()));
            named.finish()?;
            Some(form)
        }
        _ => {
            let message = format!("must be `text`, `json_object` or `json_schema`, got {kind}");
            return Err(ApiError::parameter(format.name("type"), message));
        }
    };
    format.finish()?;
    Ok(form)
}

/// A reader of one field.
type Reader = fn(&mut Fields, &'static str) -> Result<Option<Form>, ApiError>;

/// The fields of requests to llama.cpp and to earlier versions of vLLM.
static GUIDED: [(&str, Reader); 6] = [
    ("grammar", text),
    ("json_schema", schema),
    ("guided_json", schema),
    ("guided_regex", regex),
    ("guided_choice", choice),
    ("guided_grammar", text),
];

/// The fields of vLLM's `structured_outputs`.
static STRUCTURED: [(&str, Reader); 4] = [("json", schema), ("regex", regex), ("choice", choice), ("grammar", text)];

fn of_vllm(fields: &mut Fields, readers: &'static [(&'static str, Reader)]) -> Result<Vec<Constraint>, ApiError> {
    let forms = readers.iter().map(|&(name, read)| Ok(read(fields, name)?.map(|form| (name, form))));
    Ok(forms.collect::<Result<Vec<_>, ApiError>>()?.into_iter().flatten().collect())
}

/// Takes a schema, or the JSON text of one.
fn schema(fields: &mut Fields, name: &'static str) -> Result<Option<Form>, ApiError> {
    let schema = match fields.take::<Value>(name)? {
        Some(Value::String(text)) => serde_json::from_str(&text).ok().or(Some(json!(null))),
        schema => schema,
    };
    match schema {
        Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Some(Form::Schema(schema))),
        None => Ok(None),
        Some(_) => Err(ApiError::parameter(fields.name(name), "must be a JSON schema: an object")),
    }
}

fn regex(fields: &mut Fields, name: &'static str) -> Result<Option<Form>, ApiError> {
    Ok(fields.take::<String>(name)?.map(Form::Regex))
}

fn text(fields: &mut Fields, name: &'static str) -> Result<Option<Form>, ApiError> {
    let text = fields.take::<String>(name)?;
    // Clients of llama.cpp send an empty text for none.
    Ok(text.filter(|text| !text.trim().is_empty()).map(|text| Form::of_text(&text)))
}

fn choice(fields: &mut Fields, name: &'static str) -> Result<Option<Form>, ApiError> {
    let Some(values) = fields.take::<Vec<Value>>(name)? else { return Ok(None) };
    let texts = values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    texts
        .map(|texts| Some(Form::Choice(texts)))
        .ok_or_else(|| ApiError::parameter(fields.name(name), "must be a list of texts"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(body: Value) -> Result<Option<Constraint>, ApiError> {
        let mut fields = Fields::new(body, "").unwrap();
        let taken = take(&mut fields)?;
        fields.finish()?;
        Ok(taken)
    }

    #[test]
    fn every_spelling_is_read() {
        let wanted = || json!({"type": "integer"});
        let named = json!({"name": "n", "schema": wanted(), "strict": true});
        let form = |body: Value| taken(body).unwrap().map(|(_, form)| form);
        for body in [
            json!({"response_format": {"type": "json_schema", "json_schema": named}}),
            json!({"response_format": {"type": "json_object", "schema": wanted()}}),
            json!({"json_schema": wanted()}),
            json!({"guided_json": wanted().to_string()}),
            json!({"structured_outputs": {"json": wanted()}, "grammar": "", "guided_regex": null}),
        ] {
            assert_eq!(form(body.clone()), Some(Form::Schema(wanted())), "{body}");
        }
        assert_eq!(form(json!({"response_format": {"type": "json_object"}})), Some(Form::Schema(object())));
        assert_eq!(form(json!({"response_format": {"type": "text"}})), None);
        assert_eq!(form(json!({"guided_choice": ["a", "b"]})), Some(Form::Choice(vec!["a".into(), "b".into()])));
        assert!(matches!(form(json!({"grammar": "root ::= \"a\""})), Some(Form::Gbnf(_))));
    }

    #[test]
    fn faults_name_their_field() {
        for (body, message) in [
            (
                json!({"response_format": {"type": "xml"}}),
                "`response_format.type` must be `text`, `json_object` or `json_schema`, got xml",
            ),
            (json!({"response_format": {"type": "json_schema"}}), "`response_format.json_schema` must be given"),
            (json!({"guided_json": "{"}), "`guided_json` must be a JSON schema: an object"),
            (json!({"guided_choice": [1]}), "`guided_choice` must be a list of texts"),
            (
                json!({"grammar": "start: \"a\"", "guided_regex": "a"}),
                "`guided_regex` must be left out with `grammar`: an answer has one constraint",
            ),
            (
                json!({"structured_outputs": {"structural_tag": "x"}}),
                "`structured_outputs.structural_tag` is not supported by this server; leave it out",
            ),
        ] {
            assert_eq!(taken(body.clone()).unwrap_err().body()["error"]["message"], message, "{body}");
        }
    }
}
