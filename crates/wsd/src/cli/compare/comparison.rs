//! A question with the answers of several strategies.

use serde::Serialize;
use wsd_core::{Completion, Timings};

use super::super::answer::Told;

/// A question and its answers.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) question: String,
    pub(super) answers: Vec<ComparedAnswer>,
    /// Time in which all answers were written.
    pub(super) seconds: f64,
}

impl Comparison {
    /// Counts the tokens of all answers and their time, in one line.
    pub(super) fn totals(&self) -> String {
        let tokens: usize = self.answers.iter().map(|answer| answer.completion.usage.completion_tokens).sum();
        let speed = tokens as f64 / self.seconds.max(f64::MIN_POSITIVE);
        format!(
            "{} answers at the same time: {tokens} tokens in {:.2} s ({speed:.1}/s)",
            self.answers.len(),
            self.seconds
        )
    }
}

/// The answer of one strategy.
#[derive(Debug, Serialize)]
pub(super) struct ComparedAnswer {
    pub(super) strategy: &'static str,
    #[serde(skip)]
    pub(super) title: &'static str,
    /// The most tokens that the answer could have.
    #[serde(skip)]
    pub(super) max_tokens: usize,
    #[serde(flatten)]
    pub(super) completion: Completion,
}

impl ComparedAnswer {
    /// Summarizes the answer without its times, which concurrent answers share.
    pub(super) fn summary(&self) -> String {
        let told = Told { max_tokens: self.max_tokens, ..Told::default() };
        told.summary(&Completion { timings: Timings::default(), ..self.completion.clone() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use wsd_core::{Call, CallKind, Event, FinishReason, Handover, Recipe, Rule, Seat, TokenRecord, Trace};

    /// Answers with text of every author, a line break, a control character, and characters that
    /// XML must escape.
    pub(in super::super) fn comparison() -> Comparison {
        let answers = [
            ("base", vec![("who cares <&> about the fox?\nbuy cheap boots", Seat::BASE)]),
            ("draft", vec![("Good question! A fox is", Seat::DRAFT), (" yellow.", Seat::DRAFT)]),
            (
                "wsd",
                vec![
                    ("Good question! Here is what I know about", Seat::DRAFT),
                    (" the fox.\u{1b} It is orange.", Seat::BASE),
                ],
            ),
        ];
        let answers = answers.map(|(strategy, parts)| {
            let mut trace = Trace::new();
            for (text, by) in parts {
                if by == Seat::BASE && strategy == "wsd" {
                    trace.push(&Event::Handover(Handover::new(0, 0.85, Rule::default())));
                }
                trace.push(&Event::Token(TokenRecord { text: text.into(), ..TokenRecord::unscored(1, by) }));
            }
            trace.push(&Event::Call(Call::new(Seat::BASE, CallKind::Generate, 1, 0.5)));
            trace.push(&Event::Done(FinishReason::Stop));
            let mut completion = trace.finish();
            completion.timings.total = 0.0;
            ComparedAnswer { strategy, title: Recipe::find(strategy).unwrap().title, max_tokens: 512, completion }
        });
        Comparison { question: "What colour is a fox?".into(), answers: answers.into(), seconds: 2.0 }
    }
}
