//! A question with the answers of several strategies.

use serde::Serialize;
use wsd_core::{Completion, Timings};

use super::super::answer::summary;

/// A question and its answers.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) question: String,
    pub(super) answers: Vec<ComparedAnswer>,
}

/// The answer of one strategy.
#[derive(Debug, Serialize)]
pub(super) struct ComparedAnswer {
    pub(super) strategy: &'static str,
    #[serde(skip)]
    pub(super) title: &'static str,
    #[serde(flatten)]
    pub(super) completion: Completion,
}

impl ComparedAnswer {
    /// Summarizes the answer without its times, which concurrent answers share.
    pub(super) fn summary(&self) -> String {
        summary(&Completion { timings: Timings::default(), ..self.completion.clone() })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use wsd_core::{Call, CallKind, Event, Handover, Recipe, Rule, Seat, TokenRecord, Trace};

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
            ComparedAnswer { strategy, title: Recipe::find(strategy).unwrap().title, completion: trace.finish() }
        });
        Comparison { question: "What colour is a fox?".into(), answers: answers.into() }
    }
}
