//! Keyword arguments that constrain an answer.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use serde_json::Value;
use wsd_core::Grammar;
use wsd_grammar::{Form, grammar};

use crate::error::raise;

/// A reader of one keyword's value.
type Reader = fn(&Bound<'_, PyAny>) -> PyResult<Form>;

/// The keywords, of which a call may have one.
static CONSTRAINTS: &[(&str, Reader)] =
    &[("json_schema", schema), ("regex", regex), ("choice", choice), ("grammar", text)];

/// Takes the constraint out of the keyword arguments, if there is one.
///
/// # Errors
/// `TypeError` for two constraints or a value of another type, `ValueError` for a faulty one.
pub(crate) fn take(keywords: &Bound<'_, PyDict>) -> PyResult<Option<Arc<dyn Grammar>>> {
    let mut found: Option<(&'static str, Form)> = None;
    for &(name, read) in CONSTRAINTS {
        let Some(value) = keywords.get_item(name)? else { continue };
        keywords.del_item(name)?;
        if value.is_none() {
            continue;
        }
        if let Some((other, _)) = found {
            let message = format!("`{name}` must be left out with `{other}`: an answer has one constraint");
            return Err(PyTypeError::new_err(message));
        }
        found = Some((name, read(&value)?));
    }
    found.map(|(name, form)| grammar(name, &form).map_err(raise)).transpose()
}

/// Reads a schema: an object of Python, or JSON text.
fn schema(value: &Bound<'_, PyAny>) -> PyResult<Form> {
    let text = match value.cast::<PyString>() {
        Ok(text) => text.to_string(),
        Err(_) => value.py().import("json")?.call_method1("dumps", (value,))?.extract()?,
    };
    match serde_json::from_str(&text) {
        Ok(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Form::Schema(schema)),
        _ => Err(PyValueError::new_err("`json_schema` must be a JSON schema: a dict, or its JSON text")),
    }
}

fn regex(value: &Bound<'_, PyAny>) -> PyResult<Form> {
    Ok(Form::Regex(value.extract()?))
}

fn choice(value: &Bound<'_, PyAny>) -> PyResult<Form> {
    Ok(Form::Choice(value.extract()?))
}

fn text(value: &Bound<'_, PyAny>) -> PyResult<Form> {
    Ok(Form::of_text(&value.extract::<String>()?))
}
