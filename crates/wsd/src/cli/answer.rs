//! Runs a job and shows its progress.

use std::sync::Arc;

use anyhow::Result;
use futures::{FutureExt as _, StreamExt as _};
use wsd::config::Settings;
use wsd::models::{self, BUILTIN_ABOUT, BUILTIN_EXAMPLES, is_about_builtin};
use wsd_core::{
    Completion, Event, FinishReason, Job, Models, Need, Rule, SKIP_REPETITIONS, Seat, Strategy, Trace, WINDOW, repeats,
    run,
};

use super::output::{Output, style};
use super::wrap::Wrap;
use super::{GlobalArgs, counted, note};

/// The outcome of a job.
pub(crate) struct Outcome {
    pub(crate) completion: Completion,
    /// True where the user stopped the job.
    pub(crate) interrupted: bool,
}

impl Outcome {
    /// Summarizes the answer in one line, also one that the user stopped.
    pub(crate) fn summary(&self, told: Told) -> String {
        if !self.interrupted {
            return told.summary(&self.completion);
        }
        let so_far = Completion { finish_reason: FinishReason::Stop, ..self.completion.clone() };
        format!("stopped · {}", told.summary(&so_far)).trim_end_matches(" · ").to_owned()
    }
}

/// Builds the strategy of the settings over newly loaded models.
pub(crate) fn load_strategy(settings: &mut Settings, answers: usize, global: &GlobalArgs) -> Result<Arc<dyn Strategy>> {
    let models = load_models(settings, settings.recipe.needs, answers, global)?;
    Ok(settings.recipe.build(&models, &settings.values)?)
}

/// Loads models for answers, takes sampling from their files, and tells about the built-in pair.
pub(crate) fn load_models(
    settings: &mut Settings,
    needs: &[Need],
    answers: usize,
    global: &GlobalArgs,
) -> Result<Models> {
    let models = models::load(settings, needs, answers, global.progress().as_mut())?;
    let taken = settings.adopt_sampling(&models);
    if global.verbose && settings.may_adopt_sampling() && taken.is_empty() {
        note("the model's files recommend no sampling that is not set already");
    }
    if global.verbose && !taken.is_empty() {
        let value = |setting| settings.values.value(setting).map(ToString::to_string).unwrap_or_default();
        let taken: Vec<_> = taken.into_iter().map(|setting| format!("{} {}", setting.name, value(setting))).collect();
        note(&format!("from the model's files: {} (--generation-config=false ignores them)", taken.join(", ")));
    }
    let weights = |seat| models.get(seat).map_or(0, |model| model.files().parameters);
    let [draft, base] = [Seat::DRAFT, Seat::BASE].map(weights);
    if base > 0 && draft > base && !global.quiet {
        note(
            "the draft is larger than the base: the small aligned model is meant for --draft, the large one for --base",
        );
    }
    if settings.has_builtin(needs) && !global.quiet {
        note(&format!("{BUILTIN_ABOUT}; ask it \"{}\", or take real models: wsd pairs", BUILTIN_EXAMPLES[0]));
    }
    Ok(models)
}

/// Tells that a question is outside of what the built-in pair knows, if the strategy runs it.
pub(crate) fn hint_outside(question: &str, settings: &Settings, global: &GlobalArgs) {
    let is_outside = settings.has_builtin(settings.recipe.needs) && !is_about_builtin(question);
    if is_outside && !settings.prompt.raw && !global.quiet {
        note(&format!(
            "hint: the built-in pair knows nothing about this and will talk about something else; try \"{}\"",
            BUILTIN_EXAMPLES[1]
        ));
    }
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
    let (mut ends_line, mut wrap) = (true, Wrap::default());
    let outcome = answer(strategy, job, |event| match event {
        Event::Token(token) if !token.text.is_empty() => {
            ends_line = token.text.ends_with('\n');
            wrap.push(style(token.by), &token.text, output)
        }
        _ => Ok(()),
    })
    .await;
    wrap.flush(output)?;
    // Resets the terminal's color after an error too.
    output.plain()?;
    let outcome = outcome?;
    if !ends_line {
        output.text("\n")?;
    }
    Ok(outcome)
}

/// The tokens at the end of an answer that must all repeat earlier ones to be told as a loop.
const LOOP: usize = 32;

/// Explains an answer that was cut, a loop at its end, and a draft that ended before any switch.
pub(crate) fn endings(completion: &Completion, max_tokens: usize) -> Vec<String> {
    let written = completion.usage.completion_tokens;
    let by_base = completion.usage.by_author.get(Seat::BASE) > 0;
    let continued = if by_base { ", the base continued" } else { "" };
    let draft = completion.draft_end.map(|end| match end.reason {
        FinishReason::Stop => format!("the draft ended its answer at token {}{continued}", end.at),
        FinishReason::Length => format!("the draft reached its limit at token {}{continued}", end.at),
    });
    let cut = (completion.finish_reason == FinishReason::Length).then(|| {
        if written >= max_tokens {
            format!("cut at {written} tokens (--max-tokens)")
        } else {
            "cut: the context is full".into()
        }
    });
    let repeated = cut.as_ref().filter(|_| {
        let ids: Vec<_> = completion.tokens.iter().map(|token| token.id).collect();
        repeats(&ids, LOOP)
    });
    let repeated = repeated.map(|_| "it repeats itself (--dry-multiplier 0.8 prevents most of that)".to_owned());
    draft.into_iter().chain(cut).chain(repeated).collect()
}

/// The settings that the summary of an answer depends on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) max_tokens: usize,
    /// The rule of the switch, if the strategy has one.
    pub(crate) rule: Option<Rule>,
    /// True if windows in repeated text do not count.
    pub(crate) skips_repetitions: bool,
    /// True for speeds and speculation.
    pub(crate) verbose: bool,
}

impl Told {
    pub(crate) fn of(settings: &Settings, global: &GlobalArgs) -> Self {
        let values = &settings.values;
        let has_rule = settings.recipe.settings.iter().any(|setting| setting.name == WINDOW.name);
        Self {
            max_tokens: settings.max_tokens(),
            rule: has_rule.then(|| Rule::from_values(values)),
            skips_repetitions: values.get(&SKIP_REPETITIONS),
            verbose: global.verbose,
        }
    }

    /// Summarizes an answer in one line: the switch or why there was none, tokens by author, the time,
    /// and the cut at the most tokens.
    pub(crate) fn summary(self, completion: &Completion) -> String {
        let (usage, timings) = (&completion.usage, &completion.timings);
        let by = |seat: Seat| {
            let (tokens, seconds) = (usage.by_author.get(seat), timings.writing.get(seat));
            let is_timed = self.verbose && seconds > 0.0;
            let speed = if is_timed { format!(" ({:.1}/s)", tokens as f64 / seconds) } else { String::new() };
            (tokens > 0).then(|| format!("{seat} {}{speed}", counted(tokens, "token")))
        };
        let parts = [
            self.switch(completion),
            by(Seat::DRAFT),
            by(Seat::BASE),
            speculation(completion).filter(|_| self.verbose),
            (timings.total > 0.0).then(|| format!("{:.2} s", timings.total)),
        ];
        parts.into_iter().flatten().chain(endings(completion, self.max_tokens)).collect::<Vec<_>>().join(" · ")
    }

    /// Describes the switch, or the reason why there was none.
    fn switch(self, completion: &Completion) -> Option<String> {
        if let Some(handover) = &completion.handover {
            return Some(format!("switch at token {}, confidence {:.3}", handover.at, handover.confidence));
        }
        let turns = completion.tokens.chunk_by(|one, next| one.by == next.by).count();
        if turns > 2 {
            return Some(format!("{turns} turns"));
        }
        let drafted = completion.usage.by_author.get(Seat::DRAFT);
        let rule = self.rule.filter(|_| drafted > 0 && completion.timings.score > 0.0)?;
        let confidences = completion.tokens.iter().filter_map(|token| token.confidence);
        Some(match confidences.max_by(f64::total_cmp) {
            None => format!("no switch: the draft is shorter than the window of {} tokens", rule.window()),
            Some(highest) if self.skips_repetitions && highest >= rule.threshold() => {
                format!("no switch: confidence {highest:.3} in repeated text alone, which does not count")
            }
            Some(highest) => {
                let threshold = rule.threshold();
                format!("no switch, confidence up to {highest:.3} of {threshold} (wsd calibrate proposes a threshold)")
            }
        })
    }
}

/// Summarizes speculation: tokens per step of the base, and the proposals of each source.
fn speculation(completion: &Completion) -> Option<String> {
    let sources = completion.timings.proposals.iter();
    let sources = sources.map(|sum| format!("{} {} of {}", sum.by, sum.accepted, sum.tokens)).collect::<Vec<_>>();
    let tokens = completion.tokens_per_base_step()?;
    Some(format!("{tokens:.1} tokens per step of the base (accepted: {})", sources.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::{Call, CallKind, DraftEnd, Handover, Proposed, Source, TokenRecord};

    #[test]
    fn no_answer_ends_without_a_reason() {
        let mut trace = Trace::new();
        let token = |by: Seat| Event::Token(TokenRecord { text: "a".into(), ..TokenRecord::unscored(1, by) });
        trace.push(&token(Seat::DRAFT));
        trace.push(&Event::DraftEnd(DraftEnd { at: 1, reason: FinishReason::Stop }));
        let drafted = trace.clone();
        trace.push(&token(Seat::BASE));
        trace.push(&Event::Done(FinishReason::Length));
        assert_eq!(
            endings(&trace.clone().finish(), 2),
            ["the draft ended its answer at token 1, the base continued", "cut at 2 tokens (--max-tokens)"]
        );
        for _ in 0..LOOP {
            trace.push(&token(Seat::BASE));
        }
        trace.push(&Event::Done(FinishReason::Length));
        assert_eq!(
            endings(&trace.finish(), LOOP + 2)[1..],
            ["cut at 34 tokens (--max-tokens)", "it repeats itself (--dry-multiplier 0.8 prevents most of that)"]
        );
        let mut trace = drafted;
        trace.push(&Event::Done(FinishReason::Stop));
        assert_eq!(endings(&trace.finish(), 2), ["the draft ended its answer at token 1"]);
    }

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
        let told = Told { max_tokens: 512, ..Told::default() };
        let verbose = Told { verbose: true, ..told };
        assert_eq!(
            told.summary(&trace.clone().finish()),
            "switch at token 0, confidence 0.812 · draft 1 token · base 1 token · cut: the context is full"
        );
        assert!(verbose.summary(&trace.clone().finish()).contains("· base 1 token (2.0/s) ·"));
        trace.push(&Event::Done(FinishReason::Stop));
        assert!(endings(&trace.finish(), 512).is_empty());
        let mut trace = Trace::new();
        (0..3).for_each(|_| trace.push(&token(Seat::BASE)));
        let proposals = vec![Proposed { by: Source::Lookup, tokens: 4, accepted: 2 }];
        let check = Call::new(Seat::BASE, CallKind::Check, 5, 0.5);
        trace.push(&Event::Call(Call { accepted: Some(2), proposals, ..check }));
        assert_eq!(
            verbose.summary(&trace.finish()),
            "base 3 tokens (6.0/s) · 3.0 tokens per step of the base (accepted: lookup 2 of 4) · \
             cut: the context is full"
        );
    }

    #[test]
    fn a_switch_that_did_not_come_is_explained() {
        let told = |confidence: Option<f64>, skips_repetitions: bool| {
            let mut trace = Trace::new();
            trace.push(&Event::Token(TokenRecord { confidence, ..TokenRecord::unscored(1, Seat::DRAFT) }));
            trace.push(&Event::Call(Call::new(Seat::BASE, CallKind::Score, 1, 0.5)));
            trace.push(&Event::Done(FinishReason::Stop));
            let told = Told { rule: Some(Rule::default()), skips_repetitions, ..Told::default() };
            told.switch(&trace.finish()).unwrap()
        };
        assert_eq!(
            told(Some(0.5), true),
            "no switch, confidence up to 0.500 of 0.8 (wsd calibrate proposes a threshold)"
        );
        assert_eq!(told(None, false), "no switch: the draft is shorter than the window of 6 tokens");
        let repeated = "no switch: confidence 0.945 in repeated text alone, which does not count";
        assert_eq!(told(Some(0.945), true), repeated);
    }
}
