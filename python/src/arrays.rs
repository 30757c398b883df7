//! numpy arrays, made through Python, so that any version of numpy will do.

use pyo3::prelude::*;
use pyo3::types::PyByteArray;
use wsd_core::Token;

/// An array of 64-bit floating-point numbers.
pub(crate) fn floats<'py>(py: Python<'py>, values: &[f64]) -> PyResult<Bound<'py, PyAny>> {
    array(py, &values.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>(), "float64")
}

/// An array of token ids, as 64-bit integers.
pub(crate) fn ids<'py>(py: Python<'py>, tokens: &[Token]) -> PyResult<Bound<'py, PyAny>> {
    array(py, &tokens.iter().flat_map(|&token| i64::from(token).to_ne_bytes()).collect::<Vec<_>>(), "int64")
}

fn array<'py>(py: Python<'py>, bytes: &[u8], dtype: &str) -> PyResult<Bound<'py, PyAny>> {
    // A byte array is writable, and so is the array over it.
    py.import("numpy")?.call_method1("frombuffer", (PyByteArray::new(py, bytes), dtype))
}
