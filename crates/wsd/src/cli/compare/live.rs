//! Answers shown while they are written, on a terminal.

use std::time::{Duration, Instant};

use anyhow::Result;
use wsd_core::{Completion, Event, FinishReason, Recipe, Trace};

use super::super::output::Output;
use super::columns;
use super::comparison::{ComparedAnswer, Comparison};

/// The least time between two pictures.
const PAUSE: Duration = Duration::from_millis(80);

/// A picture of all answers so far, drawn again as they grow.
pub(super) struct Live<'a> {
    question: String,
    answers: Vec<(&'static Recipe, Trace)>,
    output: &'a mut Output,
    /// Lines on the terminal.
    lines: usize,
    drawn: Option<Instant>,
}

impl<'a> Live<'a> {
    /// A picture for a terminal; `None` where what was shown cannot be replaced.
    pub(super) fn new(
        question: &str,
        recipes: impl Iterator<Item = &'static Recipe>,
        output: &'a mut Output,
    ) -> Option<Self> {
        output.height()?;
        let answers = recipes.map(|recipe| (recipe, Trace::new())).collect();
        Some(Self { question: question.to_owned(), answers, output, lines: 0, drawn: None })
    }

    /// Adds an event of one answer.
    pub(super) fn push(&mut self, index: usize, event: &Event) -> Result<()> {
        self.answers[index].1.push(event);
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE);
        if matches!(event, Event::Token(_)) && is_due { self.draw() } else { Ok(()) }
    }

    /// Replaces the picture. A picture higher than the terminal shows its end.
    fn draw(&mut self) -> Result<()> {
        let answers = self.answers.iter().map(|(recipe, trace)| ComparedAnswer {
            strategy: recipe.name,
            title: recipe.title,
            max_tokens: usize::MAX,
            // An answer that goes on is not cut.
            completion: Completion { finish_reason: FinishReason::Stop, ..trace.clone().finish() },
        });
        let comparison = Comparison { question: self.question.clone(), answers: answers.collect(), seconds: 0.0 };
        let picture = columns::lines(&comparison, self.output.width());
        let room = self.output.height().unwrap_or(usize::MAX).saturating_sub(1);
        let shown = &picture[picture.len().saturating_sub(room)..];
        self.output.remove(self.lines)?;
        columns::print_lines(shown, self.output)?;
        (self.lines, self.drawn) = (shown.len(), Some(Instant::now()));
        Ok(())
    }

    /// Removes the picture, in whose place the whole answers are printed.
    pub(super) fn finish(self) -> Result<()> {
        self.output.remove(self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsd_core::{Seat, TokenRecord};

    #[test]
    fn the_picture_is_replaced_and_removed() {
        let shown = Output::captured(Some(100), false, |output| {
            let recipes = ["base", "draft", "wsd"].map(|name| Recipe::find(name).unwrap());
            let mut live = Live::new("Why?", recipes.into_iter(), output).unwrap();
            let token = TokenRecord { text: "Because.".into(), ..TokenRecord::unscored(1, Seat::BASE) };
            live.push(0, &Event::Token(token)).unwrap();
            live.finish().unwrap();
        });
        assert!(shown.starts_with("Why?\n\n") && shown.contains("Because.") && !shown.contains("cut"), "{shown}");
        let lines = shown.matches('\n').count();
        assert!(shown.ends_with(&format!("\x1b[{lines}F\x1b[J")), "{shown:?}");
    }
}
