//! Running the jobs of a request: each waits for a slot and is measured, and all share one deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use wsd_core::{Completion, Event, Job, Strategy, Trace};

use super::admission::{Admitted, Slot, Source};
use super::app::App;
use super::error::ApiError;
use super::metrics;
use super::request::GenerationRequest;
use super::request_log::RequestLog;

/// Maximum time that the headers of a stream are delayed for the first event, which may be an error.
const FIRST_EVENT_TIMEOUT: Duration = Duration::from_secs(1);

/// An event with the index of its answer, or the error that ends the request.
type IndexedEvent = Result<(usize, Event), ApiError>;

/// The events of all answers to a request. Dropping the stream stops the answers and frees their
/// slots.
pub(super) type Events = BoxStream<'static, IndexedEvent>;

/// Runs jobs concurrently, as many as there are slots. The stream ends with the first error, or with
/// one at the deadline.
pub(super) fn run(app: &Arc<App>, request: &GenerationRequest, jobs: Vec<Job>, admitted: Admitted) -> Events {
    let origin = Origin {
        arrived: Instant::now(),
        source: admitted.source,
        log: request.log.clone(),
        is_heavy: request.is_heavy(),
        n: request.n,
        labels: format!(
            "gen_ai_operation_name=\"{}\",gen_ai_provider_name=\"wsd\",gen_ai_request_model=\"{}\"",
            request.operation, request.model
        ),
    };
    let (owned_app, strategy) = (app.clone(), request.strategy.clone());
    let answers = stream::iter(jobs.into_iter().enumerate())
        .map(move |job| answer(owned_app.clone(), strategy.clone(), job, origin.clone()))
        .flatten_unordered(app.admission.max_concurrent());
    let end = Box::pin(ending(app.clone()));
    stream::unfold(Some((answers, end, admitted)), move |state| async move {
        let (mut answers, mut end, admitted) = state?;
        let event = tokio::select! {
            // The end holds even if events are always ready.
            biased;
            error = &mut end => Err(error),
            event = answers.next() => event?,
        };
        let rest = event.is_ok().then_some((answers, end, admitted));
        Some((event, rest))
    })
    .boxed()
}

/// Waits for the end of a request that is not its own: the deadline, or the end of the server.
pub(super) async fn ending(app: Arc<App>) -> ApiError {
    let timeout = app.serve.request_timeout;
    tokio::select! {
        () = tokio::time::sleep(timeout) => ApiError::late(timeout.as_secs()),
        error = app.cut_off() => error,
    }
}

/// The request that an answer belongs to.
#[derive(Clone)]
struct Origin {
    arrived: Instant,
    source: Source,
    log: Arc<RequestLog>,
    /// True where the work may take long.
    is_heavy: bool,
    /// Answers to each prompt.
    n: usize,
    /// The labels of OpenTelemetry's metrics.
    labels: String,
}

/// Waits for a slot, then runs one job.
fn answer(app: Arc<App>, strategy: Arc<dyn Strategy>, (index, job): (usize, Job), origin: Origin) -> Events {
    async move {
        let slot = match app.admission.slot(origin.source).await {
            Ok(slot) => slot,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let events = app.work.stream(origin.is_heavy, wsd_core::run(strategy, job));
        let mut meter = Meter::new(app, slot, (index / origin.n, origin));
        // `None` marks the end. Work that panicked ends without its last event.
        let events = events.map(Some).chain(stream::iter([None]));
        let events = events.filter_map(move |event| {
            std::future::ready(match event {
                Some(event) => Some(event.map_err(ApiError::from).map(|event| {
                    meter.record(&event);
                    (index, event)
                })),
                None => (!meter.done).then(|| Err(ApiError::internal())),
            })
        });
        events.boxed()
    }
    .flatten_stream()
    .boxed()
}

/// The metrics of one answer, and its slot.
struct Meter {
    app: Arc<App>,
    _slot: Slot,
    origin: Origin,
    /// The index of the prompt.
    prompt: usize,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    prompt_tokens: usize,
    tokens: usize,
    /// True if a window has been scored and none has passed yet.
    has_not_passed: bool,
    /// True after the last event. An answer that is dropped before counts as broken.
    done: bool,
}

impl Meter {
    /// Records the time in the queue, which ends now.
    fn new(app: Arc<App>, slot: Slot, (prompt, origin): (usize, Origin)) -> Self {
        app.metrics.observe(&metrics::QUEUE_TIME, origin.arrived.elapsed().as_secs_f64());
        Self {
            app,
            _slot: slot,
            origin,
            prompt,
            first_token: None,
            last_token: None,
            prompt_tokens: 0,
            tokens: 0,
            has_not_passed: false,
            done: false,
        }
    }

    /// Records an event of the answer.
    fn record(&mut self, event: &Event) {
        let metrics = &self.app.metrics;
        self.origin.log.record(self.prompt, event);
        match event {
            Event::Prompt { tokens } => {
                self.prompt_tokens = *tokens;
                self.app.admission.add_tokens(self.origin.source.client, *tokens);
                metrics.add(&metrics::PROMPT_TOKENS, "", *tokens);
            }
            Event::Token(token) => {
                self.tokens += 1;
                self.app.admission.add_tokens(self.origin.source.client, 1);
                let now = Instant::now();
                self.first_token.get_or_insert(now);
                match self.last_token.replace(now) {
                    Some(last) => metrics.observe(&metrics::TOKEN_TIME, (now - last).as_secs_f64()),
                    None => metrics.observe(&metrics::FIRST_TOKEN, (now - self.origin.arrived).as_secs_f64()),
                }
                metrics.add(&metrics::GENERATION_TOKENS, "", 1);
                metrics.add(&metrics::AUTHOR_TOKENS, format!("by=\"{}\"", token.by), 1);
                if let Some(confidence) = token.confidence {
                    self.has_not_passed = true;
                    metrics.observe(&metrics::WINDOW_CONFIDENCE, confidence);
                }
            }
            Event::Handover(handover) => {
                self.has_not_passed = false;
                metrics.add(&metrics::SWITCHES, "reason=\"threshold\"", 1);
                metrics.observe(&metrics::SWITCH_POSITION, handover.at as f64);
                metrics.observe(&metrics::SWITCH_CONFIDENCE, handover.confidence);
            }
            Event::Reused { tokens } => metrics.add(&metrics::CACHED_TOKENS, "", *tokens),
            Event::DraftEnd(_) | Event::Look(_) | Event::Call(_) | Event::StopString(_) => {}
            Event::Done(reason) => {
                self.done = true;
                if self.has_not_passed {
                    metrics.add(&metrics::SWITCHES, "reason=\"none\"", 1);
                }
                metrics.add(&metrics::FINISHED, format!("finished_reason=\"{}\"", reason.name()), 1);
                metrics.observe(&metrics::REQUEST_TIME, self.origin.arrived.elapsed().as_secs_f64());
                self.record_for_telemetry();
            }
        }
    }

    /// Records a complete answer under OpenTelemetry's names.
    fn record_for_telemetry(&self) {
        let (metrics, Origin { arrived, labels, .. }) = (&self.app.metrics, &self.origin);
        for (kind, tokens) in [("input", self.prompt_tokens), ("output", self.tokens)] {
            let labels = format!("{labels},gen_ai_token_type=\"{kind}\"");
            metrics.observe_with(&metrics::GEN_AI_TOKENS, labels, tokens as f64);
        }
        metrics.observe_with(&metrics::GEN_AI_DURATION, labels.clone(), arrived.elapsed().as_secs_f64());
        if let Some((first, last)) = self.first_token.zip(self.last_token) {
            metrics.observe_with(&metrics::GEN_AI_FIRST, labels.clone(), (first - *arrived).as_secs_f64());
            if self.tokens > 1 {
                let each = (last - first).as_secs_f64() / (self.tokens - 1) as f64;
                metrics.observe_with(&metrics::GEN_AI_TOKEN_TIME, labels.clone(), each);
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

/// Waits for the first event, at most [`FIRST_EVENT_TIMEOUT`], and returns the same stream. An error
/// that comes first is returned, so that the reply has its status; later ones are part of the stream.
pub(super) async fn await_first_event(mut events: Events) -> Result<Events, ApiError> {
    match tokio::time::timeout(FIRST_EVENT_TIMEOUT, events.next()).await {
        Ok(Some(first)) => Ok(stream::once(std::future::ready(Ok(first?))).chain(events).boxed()),
        Ok(None) => Ok(stream::empty().boxed()),
        Err(_) => Ok(events),
    }
}

/// Collects the events of `count` answers, which are returned in order of their indices.
pub(super) async fn collect(mut events: Events, count: usize) -> Result<Vec<Completion>, ApiError> {
    let mut traces: Vec<_> = (0..count).map(|_| Trace::new()).collect();
    while let Some(event) = events.next().await {
        let (index, event) = event?;
        traces[index].push(&event);
    }
    Ok(traces.into_iter().map(Trace::finish).collect())
}
