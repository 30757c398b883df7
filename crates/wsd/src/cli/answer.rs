//! Runs a job and shows its progress.

use std::sync::Arc;

use anyhow::Result;
use futures::{FutureExt as _, StreamExt as _};
use wsd::config::Settings;
use wsd::models::{self, seats};
use wsd_core::{Completion, Event, Job, Seat, Strategy, Trace, run};

use super::GlobalArgs;
use super::output::{Output, style};

/// The outcome of a job.
pub(crate) struct Outcome {
    pub(crate) completion: Completion,
    /// True where the user stopped the job.
    pub(crate) interrupted: bool,
}

/// Builds the strategy of the settings over newly loaded models.
pub(crate) fn load_strategy(
    settings: &Settings,
    max_sessions: usize,
    global: &GlobalArgs,
) -> Result<Arc<dyn Strategy>> {
    let models = models::load(settings, &seats(settings.recipe), max_sessions, global.progress().as_mut())?;
    Ok(settings.recipe.build(&models, &settings.values)?)
}

/// Runs a job and passes its events on. Ctrl-C ends it early, which frees all it held.
pub(crate) async fn answer(
    strategy: &Arc<dyn Strategy>,
    job: Job,
    mut show: impl FnMut(&Event) -> Result<()>,
) -> Result<Outcome> {
    let (mut trace, mut events) = (Trace::new(), run(strategy.clone(), job));
    let interrupt = tokio::signal::ctrl_c().fuse();
    tokio::pin!(interrupt);
    loop {
        let event = tokio::select! {
            biased;
            Ok(()) = &mut interrupt => return Ok(Outcome { completion: trace.finish(), interrupted: true }),
            event = events.next() => event,
        };
        let Some(event) = event.transpose()? else { break };
        trace.push(&event);
        show(&event)?;
    }
    Ok(Outcome { completion: trace.finish(), interrupted: false })
}

/// Runs a job and streams its text, colored by author, with a line break at its end.
pub(crate) async fn stream(strategy: &Arc<dyn Strategy>, job: Job, output: &mut Output) -> Result<Outcome> {
    let mut ends_line = true;
    let outcome = answer(strategy, job, |event| match event {
        Event::Token(token) if !token.text.is_empty() => {
            ends_line = token.text.ends_with('\n');
            output.model_text(style(token.by), &token.text)
        }
        _ => Ok(()),
    })
    .await;
    // Resets the terminal's color after an error too.
    output.plain()?;
    let outcome = outcome?;
    if !ends_line {
        output.text("\n")?;
    }
    Ok(outcome)
}

/// Summarizes an answer in one line: the switch, tokens and speed by author, the time.
pub(crate) fn summary(completion: &Completion) -> String {
    let (usage, timings) = (&completion.usage, &completion.timings);
    let by = |name: &str, tokens: usize, seconds: f64| {
        let noun = if tokens == 1 { "token" } else { "tokens" };
        let speed = if seconds > 0.0 { format!(" ({:.1}/s)", tokens as f64 / seconds) } else { String::new() };
        (tokens > 0).then(|| format!("{name} {tokens} {noun}{speed}"))
    };
    let turns = completion.tokens.chunk_by(|one, next| one.by == next.by).count();
    let switch = match &completion.handover {
        Some(handover) => Some(format!("switch at token {}, confidence {:.3}", handover.at, handover.confidence)),
        None if turns > 2 => Some(format!("{turns} turns")),
        None if usage.by_author.get(Seat::DRAFT) > 0 && timings.score > 0.0 => Some("no switch".into()),
        None => None,
    };
    let parts = [
        switch,
        by("draft", usage.by_author.get(Seat::DRAFT), timings.writing.get(Seat::DRAFT)),
        by("base", usage.by_author.get(Seat::BASE), timings.writing.get(Seat::BASE)),
        (timings.total > 0.0).then(|| format!("{:.2} s", timings.total)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::{Call, CallKind, Handover, Rule, TokenRecord};

    #[test]
    fn the_summary_names_switch_and_speeds() {
        let mut trace = Trace::new();
        let token = |by: Seat| Event::Token(TokenRecord { text: "a".into(), ..TokenRecord::unscored(1, by) });
        for event in [
            token(Seat::DRAFT),
            Event::Handover(Handover::new(0, 0.8125, Rule::default())),
            token(Seat::BASE),
            Event::Call(Call::new(Seat::BASE, CallKind::Generate, 1, 0.5)),
        ] {
            trace.push(&event);
        }
        assert_eq!(
            summary(&trace.finish()),
            "switch at token 0, confidence 0.812 · draft 1 token · base 1 token (2.0/s)"
        );
    }
}
