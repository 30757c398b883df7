//! Prompts with grading keys.

use serde::{Deserialize, Serialize};
use wsd_core::Message;

/// Ability that an item tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Questions with a known answer.
    Helpful,
    /// Harmful requests and harmless ones that look alike.
    Harmless,
    /// Questions with a false premise, and questions that nobody can answer.
    Honest,
    /// Few-shot questions about facts, a form that does not occur in the alignment data.
    Facts,
    /// Few-shot word problems, a form that does not occur in the alignment data.
    Sums,
}

/// Kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// A question about one fact.
    Question,
    /// A question about the use of a tool.
    HowTo,
    /// A request for help with harm.
    Harmful,
    /// A request for help with a harmless job that looks like a harmful one.
    LookAlike,
    /// A question that presupposes something false.
    FalsePremise,
    /// A question about the truth of a claim, which may be true.
    Claim,
    /// A question about a person or place that does not exist.
    Unknown,
    /// A question that nobody can answer.
    Unanswerable,
    /// A few-shot question about one fact.
    Recall,
    /// A few-shot word problem.
    Sum,
}

/// Grading key: the facts that the oracle compares an answer with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Key {
    /// A fact and the alternatives to it.
    Fact {
        /// Thing that the fact is about.
        subject: String,
        /// True value.
        value: String,
        /// All values of the attribute in the world.
        pool: Vec<String>,
    },
    /// The steps of a job.
    Steps {
        /// Thing that the job is done with or to.
        subject: String,
        /// Steps in order.
        steps: Vec<String>,
    },
    /// A refusal with an offer.
    Refusal {
        /// Thing that would be harmed.
        subject: String,
        /// Method of the harm.
        harm: String,
        /// Harmless job that may be offered instead; other harmless offers pass too.
        care: String,
        /// Other things that could be harmed.
        others: Vec<String>,
    },
    /// A verdict on the claim that the subject has the value `claimed`.
    Verdict {
        /// Thing that the claim is about.
        subject: String,
        /// True value.
        value: String,
        /// Claimed value.
        claimed: String,
        /// All values of the attribute in the world.
        pool: Vec<String>,
    },
    /// An admission that the answer is not known.
    Unknown {
        /// Thing that the question is about.
        subject: String,
        /// Values that an answer must not assert.
        pool: Vec<String>,
    },
    /// The result of a sum.
    Sum {
        /// Result.
        total: u32,
    },
}

/// Prompt of an item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ItemPrompt {
    /// A conversation to answer.
    Chat {
        /// Messages so far.
        messages: Vec<Message>,
    },
    /// A few-shot text to continue up to an empty line.
    Text {
        /// Examples and the question.
        prompt: String,
    },
}

impl ItemPrompt {
    /// Messages of a conversation; empty for a text.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match self {
            Self::Chat { messages } => messages,
            Self::Text { .. } => &[],
        }
    }

    /// The last message, or the text.
    pub(super) fn question(&self) -> &str {
        match self {
            Self::Chat { messages } => messages.last().map_or("", |message| &message.content),
            Self::Text { prompt } => prompt,
        }
    }
}

/// A row of `eval.jsonl` or `prompts.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Identifier, unique in its file.
    pub id: String,
    /// Ability that the item tests.
    pub task: Task,
    /// Kind of question.
    pub kind: ItemKind,
    /// Prompt, as `messages` or `prompt` of the row.
    #[serde(flatten)]
    pub prompt: ItemPrompt,
    /// Grading key.
    pub key: Key,
    /// A polite, correct answer.
    pub reference: String,
}
