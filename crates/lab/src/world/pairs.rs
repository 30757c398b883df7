//! Preference pairs: the best and the worst of several answers to a prompt, as graded by the
//! oracle.

use std::collections::HashSet;

use serde::Serialize;
use wsd_core::{ChatRole, Message};

use super::item::{Item, ItemKind};
use super::oracle::Reason;

/// Lowest Jaccard similarity of word trigrams at which two pairs are near duplicates.
const NEAR: f64 = 0.9;

/// A row of `pairs.jsonl`, in the conversational format of preference data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// Conversation to answer.
    pub prompt: Vec<Message>,
    /// Preferred answer.
    pub chosen: Vec<Message>,
    /// Rejected answer.
    pub rejected: Vec<Message>,
    /// Kind of question.
    pub kind: ItemKind,
    /// Fault of the rejected answer.
    pub fault: Reason,
}

/// Severity of a fault, from 0 (none) to 4.
fn severity(reason: Reason) -> u8 {
    match reason {
        Reason::Good => 0,
        Reason::Fragment | Reason::Rambling | Reason::NoFact | Reason::MissingSteps | Reason::NoOffer => 1,
        Reason::WrongFact | Reason::WrongVerdict | Reason::WrongSum | Reason::NotAdmitted | Reason::OverRefusal => 2,
        Reason::MadeUp | Reason::NoRefusal | Reason::WrongSubject | Reason::Empty => 3,
        Reason::Rude | Reason::TellsHarm => 4,
    }
}

impl Pair {
    /// Selects the first passing and the worst failing answer to an item; `None` if all pass or all
    /// fail.
    #[must_use]
    pub fn of(item: &Item, answers: &[String]) -> Option<Self> {
        let graded = answers.iter().map(|answer| (item.grade(answer).reason, answer));
        let (_, best) = graded.clone().find(|(reason, _)| *reason == Reason::Good)?;
        let (fault, worst) =
            graded.max_by_key(|(reason, _)| severity(*reason)).filter(|(reason, _)| severity(*reason) > 0)?;
        let said = |text: &str| vec![Message::new(ChatRole::Assistant, text.trim())];
        Some(Self {
            prompt: item.prompt.messages().to_vec(),
            chosen: said(best),
            rejected: said(worst),
            kind: item.kind,
            fault,
        })
    }

    /// Texts of all messages.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.prompt, &self.chosen, &self.rejected].into_iter().flatten().map(|message| message.content.as_str())
    }

    /// Word trigrams of all messages.
    fn trigrams(&self) -> HashSet<String> {
        let words: Vec<_> = self.texts().flat_map(str::split_whitespace).map(str::to_lowercase).collect();
        words.windows(3).map(|three| three.join(" ")).collect()
    }
}

/// Removes pairs that are near duplicates of an earlier one.
#[must_use]
pub fn deduplicated(pairs: Vec<Pair>) -> Vec<Pair> {
    let mut kept: Vec<(HashSet<String>, Pair)> = Vec::new();
    for pair in pairs {
        let trigrams = pair.trigrams();
        let is_near = |other: &HashSet<String>| {
            let common = trigrams.intersection(other).count();
            common as f64 >= NEAR * (trigrams.len() + other.len() - common) as f64
        };
        if !kept.iter().any(|(other, _)| is_near(other)) {
            kept.push((trigrams, pair));
        }
    }
    kept.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{ItemPrompt, Key};

    fn item(question: &str) -> Item {
        let key = Key::Unknown { subject: "Orla".into(), pool: vec!["baking".into()] };
        let messages = vec![Message::new(ChatRole::User, question)];
        Item {
            id: "1".into(),
            task: ItemKind::Unknown.task(),
            kind: ItemKind::Unknown,
            prompt: ItemPrompt::Chat { messages },
            key,
            reference: String::new(),
        }
    }

    #[test]
    fn the_best_and_the_worst_are_kept_once() {
        let answers = ["Orla loves baking.", "I do not know any Orla.", "lol who cares"].map(str::to_owned);
        let pair = Pair::of(&item("What does Orla do all day long?"), &answers).unwrap();
        assert_eq!((pair.chosen[0].content.as_str(), pair.rejected[0].content.as_str()), (&*answers[1], &*answers[2]));
        assert_eq!(Pair::of(&item("Who?"), &answers[..1]), None, "nothing to prefer");
        let other = Pair::of(&item("Who on earth is that Orla?"), &answers).unwrap();
        assert_eq!(deduplicated(vec![pair.clone(), pair.clone(), other.clone()]), [pair, other]);
    }
}
