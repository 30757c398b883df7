//! Raters that write: a model is shown the conversation and the answer, and its reply is kept.

use std::sync::Arc;

use wsd_core::{
    ChatRole, Engine, Job, Message, Models, Prompt, Recipe, Result, Seat, Setting, Strategy, Terms, Values,
};
use wsd_lab::data::complete;

use super::{Rated, Rating};

/// The setting for the text that a judge is shown.
pub static JUDGE_PROMPT: Setting = Setting::text(
    "judge_prompt",
    "The text that a judge is shown, with {question} and {answer} in the places of both",
    "TEXT",
);

/// A model that writes about answers.
pub(super) struct Prompted {
    judge: Arc<dyn Engine>,
    strategy: Arc<dyn Strategy>,
    /// Text with `{question}` and `{answer}`; the judge's chat template asks if it is absent.
    text: Option<String>,
    max_tokens: usize,
}

impl Prompted {
    /// A judge with the text of [`JUDGE_PROMPT`], or else with `usual`.
    pub(super) fn try_new(
        name: &'static str,
        models: &Models,
        (values, usual): (&Values, Option<&str>),
        max_tokens: usize,
    ) -> Result<Self> {
        let judge = models.require(name, Seat::JUDGE)?;
        let alone = Models::default().with(Seat::BASE, judge.clone());
        let strategy = Recipe::find("base")?.build(&alone, &Values::default())?;
        let text = values.get::<Option<String>>(&JUDGE_PROMPT).or_else(|| usual.map(str::to_owned));
        Ok(Self { judge, strategy, text, max_tokens })
    }

    /// The judge's reply to an answer, read by `score`.
    pub(super) async fn rate(&self, rated: &Rated<'_>, score: impl Fn(&str) -> Option<f64>) -> Result<Rating> {
        let prompt = match &self.text {
            Some(text) => Prompt::Chat(vec![Message::new(ChatRole::User, filled(text, rated))]),
            None => {
                let answer = Message::new(ChatRole::Assistant, rated.answer);
                Prompt::Tokens(self.judge.codec().render_about(&[rated.conversation, &[answer]].concat())?.tokens)
            }
        };
        let terms = Terms { max_tokens: self.max_tokens, ..Terms::from_values(&Values::default()) };
        let reply = complete(&self.strategy, Job { prompt, terms }).await?.text;
        Ok(Rating { score: score(&reply), reply })
    }
}

/// The text with question and answer in their places. Neither is searched for places itself.
fn filled(text: &str, rated: &Rated<'_>) -> String {
    let question = question(rated.conversation);
    let parts = text.split("{answer}").map(|part| part.replace("{question}", &question));
    parts.collect::<Vec<_>>().join(rated.answer)
}

/// A conversation as text: the one message as it is, several with the names of their authors.
pub(crate) fn question(messages: &[Message]) -> String {
    match messages {
        [only] => only.content.clone(),
        messages => {
            let turns = messages.iter().map(|message| format!("{}: {}", message.role, message.content));
            turns.collect::<Vec<_>>().join("\n\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_question_and_answer_are_not_filled_again() {
        let conversation = [Message::new(ChatRole::User, "What is {answer}?")];
        let rated = Rated { conversation: &conversation, answer: "{question}", label: "", finish_reason: None };
        assert_eq!(filled("Q: {question} A: {answer}", &rated), "Q: What is {answer}? A: {question}");
    }
}
