//! An answer that is being written, as an iterator.

use std::sync::Arc;

use futures::stream::{AbortHandle, BoxStream, abortable};
use futures::{FutureExt as _, StreamExt as _};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use wsd_core::{Completion, Event, Job, Result, Trace, run};

use crate::engine::ANSWERS;
use crate::error::raise;
use crate::events;
use crate::runtime::{runtime, wait};

/// An answer that is being written: an iterator, an asynchronous iterator, and an awaitable of the
/// whole answer. Nothing is computed before the first item is asked for. Dropping or closing it
/// ends the answer.
#[pyclass(module = "wsd", frozen)]
pub(crate) struct Stream {
    reading: Arc<Mutex<Reading>>,
    items: Items,
    abort: AbortHandle,
}

/// The items that a stream yields.
#[derive(Clone, Copy)]
pub(crate) enum Items {
    /// Tokens.
    Tokens,
    /// Events of every kind.
    Events,
}

impl Items {
    fn include(self, event: &Event) -> bool {
        matches!((self, event), (Self::Events, _) | (Self::Tokens, Event::Token(_)))
    }
}

/// The places of answers; further ones wait. An answer has several sessions, which must not wait for
/// those of others.
static PLACES: Semaphore = Semaphore::const_new(ANSWERS);

/// Runs a job once there is a place for it, which is free again when the events are dropped.
pub(crate) fn answer(
    strategy: Arc<dyn wsd_core::Strategy>,
    job: Job,
) -> impl futures::Stream<Item = Result<Event>> + Send + 'static {
    let events = async move {
        let place = PLACES.acquire().await;
        run(strategy, job).inspect(move |_| _ = &place)
    };
    events.flatten_stream()
}

/// The state of a stream.
struct Reading {
    /// The events to come; `None` after the end.
    events: Option<BoxStream<'static, Result<Event>>>,
    trace: Trace,
    completion: Option<Completion>,
}

impl Reading {
    async fn next(&mut self, items: Items) -> Option<Result<Event>> {
        loop {
            match self.events.as_mut()?.next().await {
                Some(Ok(event)) => {
                    self.trace.push(&event);
                    if matches!(event, Event::Done(_)) {
                        self.completion = Some(std::mem::take(&mut self.trace).finish());
                    }
                    if items.include(&event) {
                        return Some(Ok(event));
                    }
                }
                end => {
                    self.events = None;
                    return end;
                }
            }
        }
    }
}

impl Stream {
    pub(crate) fn new(strategy: Arc<dyn wsd_core::Strategy>, job: Job, items: Items) -> Self {
        let (events, abort) = abortable(answer(strategy, job));
        let reading = Reading { events: Some(events.boxed()), trace: Trace::new(), completion: None };
        Self { reading: Arc::new(Mutex::new(reading)), items, abort }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

#[pymethods]
impl Stream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let next = async { self.reading.lock().await.next(self.items).await };
        let next = wait(py, next).inspect_err(|_| self.close())?;
        next.map(|event| events::event(py, &event.map_err(raise)?)).transpose()
    }

    fn __aiter__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("wsd.asynchronous")?.getattr("AsyncItems")?.call1((slf,))
    }

    fn __await__<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let whole = slf.py().import("wsd.asynchronous")?.getattr("collect")?.call1((slf,))?;
        whole.call_method0("__await__")
    }

    fn __enter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __exit__(
        &self,
        _exception_type: &Bound<'_, PyAny>,
        _exception: &Bound<'_, PyAny>,
        _traceback: &Bound<'_, PyAny>,
    ) {
        self.close();
    }

    #[classmethod]
    fn __class_getitem__(class: &Bound<'_, PyType>, _item: &Bound<'_, PyAny>) -> Py<PyType> {
        class.clone().unbind()
    }

    /// The whole answer; `None` before its end.
    #[getter]
    fn answer<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Ok(reading) = self.reading.try_lock() else { return Ok(None) };
        reading.completion.as_ref().map(|completion| events::answer(py, completion)).transpose()
    }

    /// Ends the answer here and frees what it held in the models.
    fn close(&self) {
        self.abort.abort();
        // A reader in another thread sees the end and drops the events by itself.
        if let Ok(mut reading) = self.reading.try_lock() {
            reading.events = None;
        }
    }

    /// Calls `deliver` with each item from another thread, then with `None`; with an exception if the
    /// answer fails.
    fn _deliver(&self, py: Python<'_>, deliver: Py<PyAny>) -> PyResult<()> {
        let Ok(reading) = self.reading.clone().try_lock_owned() else {
            return Err(PyRuntimeError::new_err("the stream is being read already"));
        };
        runtime(py)?.spawn(deliver_all(reading, self.items, deliver));
        Ok(())
    }
}

async fn deliver_all(mut reading: OwnedMutexGuard<Reading>, items: Items, deliver: Py<PyAny>) {
    let end = loop {
        let next = reading.next(items).await;
        if !matches!(next, Some(Ok(_))) {
            break next;
        }
        if !deliver_one(&deliver, next) {
            reading.events = None;
            return;
        }
    };
    // Who receives the end may ask for the answer at once.
    drop(reading);
    deliver_one(&deliver, end);
}

/// Delivers an item, an exception, or `None` for the end. Returns `false` if nobody takes it: the
/// event loop is closed, or the interpreter ends.
fn deliver_one(deliver: &Py<PyAny>, next: Option<Result<Event>>) -> bool {
    let call = |py: Python<'_>| {
        let item = next.map(|event| events::event(py, &event.map_err(raise)?)).transpose();
        let item = item.map_or_else(|error| Some(error.into_value(py).into_any()), |item| item.map(Bound::unbind));
        deliver.call1(py, (item,)).is_ok()
    };
    Python::try_attach(call).unwrap_or(false)
}
