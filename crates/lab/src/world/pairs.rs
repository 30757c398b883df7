//! Preference pairs: of several answers to a prompt, the best and the worst by the oracle.

use std::collections::HashSet;

use serde::Serialize;
use wsd_core::{ChatRole, Message};

use super::item::{Item, ItemKind};
use super::oracle::Reason;

/// Two answers are near duplicates from this share of common word triples on.
const NEAR: f64 = 0.9;

/// A row of `pairs.jsonl`, in the conversational form of preference data.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// The conversation to be answered.
    pub prompt: Vec<Message>,
    /// The answer to prefer.
    pub chosen: Vec<Message>,
    /// The answer to avoid.
    pub rejected: Vec<Message>,
    /// What was asked.
    pub kind: ItemKind,
    /// What is wrong with the answer to avoid.
    pub fault: Reason,
}

/// How bad a fault is.
fn badness(reason: Reason) -> u8 {
    match reason {
        Reason::Good => 0,
        Reason::Fragment | Reason::Rambling | Reason::NoFact | Reason::MissingSteps | Reason::NoOffer => 1,
        Reason::WrongFact | Reason::WrongVerdict | Reason::WrongSum | Reason::NotAdmitted | Reason::OverRefusal => 2,
        Reason::MadeUp | Reason::NoRefusal | Reason::WrongSubject | Reason::Empty => 3,
        Reason::Rude | Reason::TellsHarm => 4,
    }
}

impl Pair {
    /// The best and the worst of the answers to an item, where the best passes and the worst does not.
    #[must_use]
    pub fn of(item: &Item, answers: &[String]) -> Option<Self> {
        let graded = answers.iter().map(|answer| (item.grade(answer).reason, answer));
        let (_, best) = graded.clone().find(|(reason, _)| *reason == Reason::Good)?;
        let (fault, worst) =
            graded.max_by_key(|(reason, _)| badness(*reason)).filter(|(reason, _)| badness(*reason) > 0)?;
        let said = |text: &str| vec![Message::new(ChatRole::Assistant, text.trim())];
        Some(Self {
            prompt: item.asked.messages().to_vec(),
            chosen: said(best),
            rejected: said(worst),
            kind: item.kind,
            fault,
        })
    }

    /// All that stands in it.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        [&self.prompt, &self.chosen, &self.rejected].into_iter().flatten().map(|message| message.content.as_str())
    }

    /// The triples of words in it.
    fn triples(&self) -> HashSet<String> {
        let words: Vec<_> = self.texts().flat_map(str::split_whitespace).map(str::to_lowercase).collect();
        words.windows(3).map(|three| three.join(" ")).collect()
    }
}

/// The pairs without those that say nearly what an earlier one says.
#[must_use]
pub fn deduplicated(pairs: Vec<Pair>) -> Vec<Pair> {
    let mut kept: Vec<(HashSet<String>, Pair)> = Vec::new();
    for pair in pairs {
        let triples = pair.triples();
        let is_near = |other: &HashSet<String>| {
            let common = triples.intersection(other).count();
            common as f64 >= NEAR * (triples.len() + other.len() - common) as f64
        };
        if !kept.iter().any(|(other, _)| is_near(other)) {
            kept.push((triples, pair));
        }
    }
    kept.into_iter().map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Asked, Key};

    fn item(question: &str) -> Item {
        let key = Key::Unknown { subject: "Orla".into(), pool: vec!["baking".into()] };
        let messages = vec![Message::new(ChatRole::User, question)];
        Item {
            id: "1".into(),
            task: ItemKind::Unknown.task(),
            kind: ItemKind::Unknown,
            asked: Asked::Chat { messages },
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
