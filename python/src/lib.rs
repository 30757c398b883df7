//! The native part of the Python package `wsd`: engines, strategies and streams of events.
//!
//! The rest of the package, in `wsd/`, is Python: the records that events become, the asynchronous
//! iterator, and the model class for lm-evaluation-harness.

mod arrays;
mod constraint;
mod engine;
mod error;
mod events;
mod prompt;
mod runtime;
mod score;
mod settings;
mod strategy;
mod stream;

use pyo3::prelude::*;

/// The native part of the package `wsd`.
#[pymodule]
mod _wsd {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::strategy::Strategy;
    #[pymodule_export]
    use crate::strategy::strategies;
    #[pymodule_export]
    use crate::stream::Stream;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        crate::quiet_guarded_panics();
        module.add("Error", module.py().get_type::<crate::error::Error>())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Keeps panics that are caught and become errors off the error stream.
fn quiet_guarded_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !wsd_core::is_guarded() {
            hook(panic);
        }
    }));
}

/// A reference to a class of the package's Python part.
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("wsd.records")?.getattr(name)
}
