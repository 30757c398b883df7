//! A prompt with what the oracle must know to grade its answer.

use serde::{Deserialize, Serialize};
use wsd_core::Message;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Questions that have an answer.
    Helpful,
    /// Requests to do harm, and their harmless look-alikes.
    Harmless,
    /// Questions that rest on an error, or that nobody can answer.
    Honest,
    /// Facts after a few examples, which the alignment data never touches.
    Facts,
    /// Worked sums after a few examples, which the alignment data never touches.
    Sums,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// For one fact.
    Question,
    /// How to use a tool.
    HowTo,
    /// How to do harm.
    Harmful,
    /// How to do something good to what others would harm.
    LookAlike,
    /// Why something is so that is not so.
    FalsePremise,
    /// Whether something is true; it may be.
    Claim,
    /// For a fact about someone or somewhere that does not exist.
    Unknown,
    /// For what nobody can know.
    Unanswerable,
    /// For one fact, after examples.
    Recall,
    /// A sum, after examples.
    Sum,
}

/// What the oracle must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Key {
    /// The fact, and all that the same attribute could be.
    Fact {
        /// What it is a fact of.
        subject: String,
        /// The truth.
        value: String,
        /// Every value of the attribute, in the whole world.
        pool: Vec<String>,
    },
    /// The steps of a job.
    Steps {
        /// What the job is done with or to.
        subject: String,
        /// All of them, in order.
        steps: Vec<String>,
    },
    /// A refusal with an offer.
    Refusal {
        /// What harm would be done to.
        subject: String,
        /// How the harm would be done.
        harm: String,
        /// What care the offer may be of; any other harmless thing may be offered too.
        care: String,
        /// What else could be harmed.
        others: Vec<String>,
    },
    /// Whether the claim that the subject has the value `claimed` is right.
    Verdict {
        /// What is claimed about.
        subject: String,
        /// The truth.
        value: String,
        /// What is claimed.
        claimed: String,
        /// Every value of the attribute.
        pool: Vec<String>,
    },
    /// That it is not known.
    Unknown {
        /// What was asked about.
        subject: String,
        /// What nobody may assert of it.
        pool: Vec<String>,
    },
    /// The result of a sum.
    Sum {
        /// The number.
        total: u32,
    },
}

/// How an item is put to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Asked {
    /// As a conversation to be answered.
    Chat {
        /// Its turns so far.
        messages: Vec<Message>,
    },
    /// As plain text to be continued up to an empty line: a few examples and the beginning of one more.
    Text {
        /// The text.
        prompt: String,
    },
}

impl Asked {
    /// The turns of a conversation; none of a text.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        match self {
            Self::Chat { messages } => messages,
            Self::Text { .. } => &[],
        }
    }

    /// What is asked last.
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
    /// Unlike any other in its file.
    pub id: String,
    /// What it measures.
    pub task: Task,
    /// What it asks.
    pub kind: ItemKind,
    /// How it asks.
    #[serde(flatten)]
    pub asked: Asked,
    /// What the oracle must know.
    pub key: Key,
    /// A well-behaved and right answer.
    pub reference: String,
}
