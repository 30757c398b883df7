//! Jobs on their way: waiting for a slot, watched by the metrics, ended by the deadline or by a reader that leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use wsd_core::{Event, FinishReason, Job, Seat, Strategy, Trace};

use super::App;
use super::admission::{Admitted, Slot};
use super::error::ApiError;
use super::metrics;

/// How long a request is watched for an early fault before its headers go out.
const FAULT_WATCH: Duration = Duration::from_secs(1);

/// What happens in the answer of this index.
pub(super) type Item = Result<(usize, Event), ApiError>;

/// A request being answered; all it holds is freed when the stream is dropped.
pub(super) type Items = BoxStream<'static, Item>;

/// Run jobs side by side. The stream ends with the first error.
pub(super) fn run(app: &Arc<App>, strategy: &Arc<dyn Strategy>, jobs: Vec<Job>, admitted: Admitted) -> Items {
    let limit = app.admission.max_concurrent();
    let arrived = Instant::now();
    let (runner, strategy) = (app.clone(), strategy.clone());
    let answers = stream::iter(jobs.into_iter().enumerate())
        .map(move |(index, job)| answer(runner.clone(), strategy.clone(), index, job, arrived))
        .flatten_unordered(limit);
    let patience = app.serve.request_timeout;
    let deadline = Box::pin(tokio::time::sleep(patience));
    stream::unfold(Some((answers, deadline, admitted)), move |state| async move {
        let (mut answers, mut deadline, admitted) = state?;
        let item = tokio::select! {
            biased;
            () = &mut deadline => Err(ApiError::late(patience.as_secs())),
            item = answers.next() => item?,
        };
        let more = item.is_ok().then_some((answers, deadline, admitted));
        Some((item, more))
    })
    .boxed()
}

fn answer(
    app: Arc<App>,
    strategy: Arc<dyn Strategy>,
    index: usize,
    job: Job,
    arrived: Instant,
) -> BoxStream<'static, Item> {
    async move {
        let slot = match app.admission.slot().await {
            Ok(slot) => slot,
            Err(error) => return stream::once(async { Err(error) }).boxed(),
        };
        let mut watch = Watch::new(app, slot, arrived);
        wsd_core::run(strategy, job)
            .map(move |event| {
                let event = event?;
                watch.see(&event);
                Ok((index, event))
            })
            .boxed()
    }
    .flatten_stream()
    .boxed()
}

/// What the metrics want to know of one answer.
struct Watch {
    app: Arc<App>,
    _slot: Slot,
    arrived: Instant,
    last_token: Option<Instant>,
    undecided: bool,
    done: bool,
}

impl Watch {
    fn new(app: Arc<App>, slot: Slot, arrived: Instant) -> Self {
        app.metrics.observe(&metrics::QUEUE_TIME, arrived.elapsed().as_secs_f64());
        Self { app, _slot: slot, arrived, last_token: None, undecided: false, done: false }
    }

    fn see(&mut self, event: &Event) {
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

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.done {
            self.app.metrics.add(&metrics::BROKEN, "", 1);
        }
    }
}

/// A finish reason as the wire spells it.
pub(super) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// Wait for the first item, though not long: a request at fault should be refused by its status, not in its stream.
pub(super) async fn begun(mut items: Items) -> Result<Items, ApiError> {
    match tokio::time::timeout(FAULT_WATCH, items.next()).await {
        Ok(Some(first)) => Ok(stream::once(std::future::ready(Ok(first?))).chain(items).boxed()),
        Ok(None) => Ok(stream::empty().boxed()),
        Err(_) => Ok(items),
    }
}

/// All answers, whole, in order of their indices.
pub(super) async fn whole(mut items: Items, count: usize) -> Result<Vec<wsd_core::Completion>, ApiError> {
    let mut traces: Vec<_> = (0..count).map(|_| Trace::new()).collect();
    while let Some(item) = items.next().await {
        let (index, event) = item?;
        traces[index].push(&event);
    }
    Ok(traces.into_iter().map(Trace::finish).collect())
}
