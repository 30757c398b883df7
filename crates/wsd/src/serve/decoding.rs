//! Running jobs: each waits for a slot and is measured; a deadline or a client that leaves ends it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use wsd_core::{Completion, Event, FinishReason, Job, Seat, Strategy, Trace};

use super::admission::{Admitted, Slot};
use super::app::App;
use super::error::ApiError;
use super::metrics;

/// Time to wait for the first event, and so for an early error, before the headers are sent.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// An event with the index of its answer.
type IndexedEvent = Result<(usize, Event), ApiError>;

/// The events of all answers to a request. Dropping the stream frees all it holds.
pub(super) type Events = BoxStream<'static, IndexedEvent>;

/// Runs jobs concurrently. The stream ends with the first error.
pub(super) fn run(app: &Arc<App>, strategy: &Arc<dyn Strategy>, jobs: Vec<Job>, admitted: Admitted) -> Events {
    let arrived = Instant::now();
    let (runner, strategy) = (app.clone(), strategy.clone());
    let answers = stream::iter(jobs.into_iter().enumerate())
        .map(move |(index, job)| answer(runner.clone(), strategy.clone(), index, job, arrived))
        .flatten_unordered(app.admission.max_concurrent());
    let timeout = app.serve.request_timeout;
    let deadline = Box::pin(tokio::time::sleep(timeout));
    stream::unfold(Some((answers, deadline, admitted)), move |state| async move {
        let (mut answers, mut deadline, admitted) = state?;
        let event = tokio::select! {
            biased;
            () = &mut deadline => Err(ApiError::late(timeout.as_secs())),
            event = answers.next() => event?,
        };
        let rest = event.is_ok().then_some((answers, deadline, admitted));
        Some((event, rest))
    })
    .boxed()
}

/// Waits for a slot, then runs one job.
fn answer(app: Arc<App>, strategy: Arc<dyn Strategy>, index: usize, job: Job, arrived: Instant) -> Events {
    async move {
        let slot = match app.admission.slot().await {
            Ok(slot) => slot,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let mut meter = Meter::new(app, slot, arrived);
        wsd_core::run(strategy, job)
            .map(move |event| {
                let event = event?;
                meter.record(&event);
                Ok((index, event))
            })
            .boxed()
    }
    .flatten_stream()
    .boxed()
}

/// Measures one answer, and holds its slot.
struct Meter {
    app: Arc<App>,
    _slot: Slot,
    arrived: Instant,
    last_token: Option<Instant>,
    /// True while the window has been scored and has not passed.
    undecided: bool,
    done: bool,
}

impl Meter {
    fn new(app: Arc<App>, slot: Slot, arrived: Instant) -> Self {
        app.metrics.observe(&metrics::QUEUE_TIME, arrived.elapsed().as_secs_f64());
        Self { app, _slot: slot, arrived, last_token: None, undecided: false, done: false }
    }

    fn record(&mut self, event: &Event) {
        let metrics = &self.app.metrics;
        match event {
            Event::Prompt { tokens } => metrics.add(&metrics::PROMPT_TOKENS, "", *tokens),
            Event::Token(token) => {
                let now = Instant::now();
                match self.last_token.replace(now) {
                    Some(last) => metrics.observe(&metrics::TOKEN_TIME, (now - last).as_secs_f64()),
                    None => metrics.observe(&metrics::FIRST_TOKEN, (now - self.arrived).as_secs_f64()),
                }
                metrics.add(&metrics::GENERATION_TOKENS, "", 1);
                let by = if token.by == Seat::DRAFT { "by=\"draft\"" } else { "by=\"base\"" };
                metrics.add(&metrics::AUTHOR_TOKENS, by, 1);
                if let Some(confidence) = token.confidence {
                    self.undecided = true;
                    metrics.observe(&metrics::WINDOW_CONFIDENCE, confidence);
                }
            }
            Event::Handover(handover) => {
                self.undecided = false;
                metrics.add(&metrics::SWITCHES, "reason=\"threshold\"", 1);
                metrics.observe(&metrics::SWITCH_POSITION, handover.at as f64);
                metrics.observe(&metrics::SWITCH_CONFIDENCE, handover.confidence);
            }
            Event::Call(_) => {}
            Event::Done(reason) => {
                self.done = true;
                if self.undecided {
                    metrics.add(&metrics::SWITCHES, "reason=\"none\"", 1);
                }
                metrics.add(&metrics::FINISHED, format!("finished_reason=\"{}\"", finish_reason(*reason)), 1);
                metrics.observe(&metrics::REQUEST_TIME, self.arrived.elapsed().as_secs_f64());
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !self.done {
            self.app.metrics.add(&metrics::BROKEN, "", 1);
        }
    }
}

/// Returns a finish reason in the protocol's words.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Waits for the first event, within a time limit, so that a faulty request is refused by its
/// status rather than inside its stream.
pub(super) async fn started(mut events: Events) -> Result<Events, ApiError> {
    match tokio::time::timeout(FIRST_EVENT_TIMEOUT, events.next()).await {
        Ok(Some(first)) => Ok(stream::once(std::future::ready(Ok(first?))).chain(events).boxed()),
        Ok(None) => Ok(stream::empty().boxed()),
        Err(_) => Ok(events),
    }
}

/// Collects `count` answers, in order of their indices.
pub(super) async fn collect(mut events: Events, count: usize) -> Result<Vec<Completion>, ApiError> {
    let mut traces: Vec<_> = (0..count).map(|_| Trace::new()).collect();
    while let Some(event) = events.next().await {
        let (index, event) = event?;
        traces[index].push(&event);
    }
    Ok(traces.into_iter().map(Trace::finish).collect())
}
