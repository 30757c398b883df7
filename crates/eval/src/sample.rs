//! Rows of answers.

use serde::Deserialize;
use serde_json::{Map, Value};
use wsd_core::{FinishReason, Handover, Timings, Usage};

use crate::{ChoiceScore, Item};

/// A row of answers: the item, and what a system answered.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    /// The item.
    #[serde(flatten)]
    pub item: Item,
    /// Text of the answer; empty if the row failed.
    #[serde(default)]
    pub output: String,
    /// Scores of the item's choices.
    #[serde(default)]
    pub scores: Vec<ChoiceScore>,
    /// Message of the error, if the row failed.
    pub error: Option<String>,
    /// Origin of the answer.
    pub wsd: Option<SampleDetails>,
}

/// Origin of an answer.
#[derive(Clone, Debug, Deserialize)]
pub struct SampleDetails {
    /// The switch, if the base took over.
    pub handover: Option<Handover>,
    /// Reason why the answer ended; absent for a scored item.
    pub finish_reason: Option<FinishReason>,
    /// Tokens counted; absent for a scored item.
    pub usage: Option<Usage>,
    /// Time spent; absent for a scored item.
    pub timings: Option<Timings>,
    /// Settings that the answer depends on.
    #[serde(default)]
    pub settings: Map<String, Value>,
}
