//! The paper's reference implementation on our engines: three passes, none of which reuses a cache.

use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use wsd_core::{Bridge, Generation, Job, Models, Options, Role, Session, Step, Token};

use super::system::Answer;

/// The draft writes all it may; the base scores it; the base continues after the switch.
pub(super) async fn answer(models: &Models, options: &Options, job: &Job) -> Result<Answer> {
    let started = Instant::now();
    let (draft, base) = models.draft.as_ref().zip(models.base.as_ref()).context("a pair has both models")?;
    let (draft_prompt, prompt) = (draft.codec().render(&job.prompt)?, base.codec().render(&job.prompt)?);
    let mut session = draft.open(&draft_prompt.tokens).await?;
    let drafted = write(session.as_mut(), job, Role::Draft, options.max_draft_tokens).await?;
    drop(session);

    let edit = Bridge::new(draft.codec(), base.codec(), &draft_prompt, &prompt).push(&drafted, true)?;
    let mut list = [&prompt.tokens[..edit.keep], &edit.append].concat();
    list.truncate(base.card().max_len);
    // The first token of a list has no score. It is drafted where a prompt of one token merges with it.
    let from = edit.keep.max(1);
    let logprobs = if from < list.len() { base.open(&list).await?.score(from).await? } else { Vec::new() };
    let switch = options.rule.accept_index(&logprobs).map(|at| at + from - edit.keep);

    let kept = switch.map_or(list.len() - edit.keep, |at| at + 1).min(job.max_tokens);
    list.truncate(edit.keep + kept);
    let mut session = base.open(&list).await?;
    let written = write(session.as_mut(), job, Role::Base, job.max_tokens - kept).await?;
    let tokens = [&list[edit.keep..], &written].concat();
    Ok(Answer { tokens, seconds: started.elapsed().as_secs_f64(), switch, ..Answer::default() })
}

async fn write(session: &mut dyn Session, job: &Job, by: Role, max_tokens: usize) -> Result<Vec<Token>> {
    let generation = Generation { max_tokens, sampling: job.sampling.of(by), top_logprobs: 0 };
    let (mut written, mut steps) = (Vec::new(), session.generate(&generation));
    while let Some(Step::Token(sampled)) = steps.next().await.transpose()? {
        written.push(sampled.token);
    }
    Ok(written)
}
