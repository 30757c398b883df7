//! The paper's three passes on this program's engines, each computed from nothing.

use std::time::Instant;

use anyhow::{Context as _, Result};
use wsd::lab::three_pass::{DraftRun, generate};
use wsd_core::{Generation, Job, Models, Options, Seat};

use super::system::Answer;

/// Drafts the whole answer, scores it with the base, and continues with the base from the switch.
pub(super) async fn answer(models: &Models, options: &Options, job: &Job) -> Result<Answer> {
    let started = Instant::now();
    let (draft, base) = models.draft.as_ref().zip(models.base.as_ref()).context("both models are there")?;
    let run = DraftRun::new(draft.as_ref(), base.as_ref(), job, options.max_draft_tokens).await?;
    let switch = run.switch(options.rule);
    let (list, opening) = run.opening(run.kept(options.rule).min(job.max_tokens));
    let max_tokens = job.max_tokens - opening.len();
    let generation = Generation { max_tokens, sampling: job.sampling.for_seat(Seat::BASE), top_logprobs: 0 };
    let rest = generate(base.open(&list).await?.as_mut(), &generation).await?;
    let tokens = [opening, &rest].concat();
    Ok(Answer { tokens, seconds: started.elapsed().as_secs_f64(), switch, ..Answer::default() })
}
