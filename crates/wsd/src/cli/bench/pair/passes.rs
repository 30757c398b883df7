//! The paper's three passes on this program's engines, each computed from nothing.

use std::time::Instant;

use anyhow::{Context as _, Result};
use wsd::lab::three_pass::DraftRun;
use wsd_core::{Generation, Job, MAX_DRAFT_TOKENS, Models, Rule, Seat, Values};

use super::system::Answer;

/// Drafts the whole answer, scores it with the base, and continues with the base from the switch.
pub(super) async fn answer(models: &Models, values: &Values, job: &Job) -> Result<Answer> {
    let started = Instant::now();
    let (draft, base) = models.get(Seat::DRAFT).zip(models.get(Seat::BASE)).context("a pair has both models")?;
    let run = DraftRun::generate(draft.as_ref(), base.as_ref(), job, values.get(&MAX_DRAFT_TOKENS)).await?;
    let rule = Rule::from_values(values);
    let switch = run.switch(rule);
    let (list, opening) = run.opening(run.kept(rule).min(job.terms.max_tokens));
    let max_tokens = job.terms.max_tokens - opening.len();
    let prompt = list.len() - opening.len();
    let sampling = job.terms.sampling.for_seat(Seat::BASE, prompt);
    let generation = Generation { max_tokens, sampling, top_logprobs: 0, guide: None };
    let rest = base.open(&list).await?.write(&generation).await?.ids();
    let tokens = [opening, &rest].concat();
    Ok(Answer { tokens, seconds: started.elapsed().as_secs_f64(), switch, ..Answer::default() })
}
