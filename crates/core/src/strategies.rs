//! One file per strategy.

pub(crate) mod alone;
mod chunks;
pub(crate) mod nudging;
pub(crate) mod speculative;
pub(crate) mod wsd;

use std::time::Instant;

use futures::StreamExt as _;

use crate::{
    Answer, Bridge, Call, CallKind, Engine, Error, FinishReason, Flow, Generation, Job, Prompt, Rendered, Result, Role,
    Session, Step, Stop, TextCodec, Token, TokenRecord,
};

/// Render a prompt for an engine and see that it fits.
fn render(engine: &dyn Engine, job: &Job) -> Result<Rendered> {
    let rendered = engine.codec().render(&job.prompt)?;
    let (tokens, limit) = (rendered.tokens.len(), engine.card().max_len);
    if tokens >= limit {
        return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens, limit });
    }
    Ok(rendered)
}

/// Refuse a prompt of token ids to models that read them differently.
fn for_one_vocabulary(prompt: &Prompt, draft: &TextCodec, base: &TextCodec) -> Result<()> {
    if matches!(prompt, Prompt::Tokens(_)) && !Bridge::passes_ids(draft, base) {
        return Err(Error::Chat(
            "a prompt of token ids needs models of one vocabulary\n  hint: give the prompt as text".into(),
        ));
    }
    Ok(())
}

/// Let one model write on until the answer ends.
async fn to_the_end(session: &mut dyn Session, by: Role, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
    let (_, done) = write_on(session, answer.room(), by, job, answer).await?;
    Ok(done.unwrap_or(FinishReason::Length))
}

/// Let one model write at most `count` tokens of the answer: how many it wrote, and why the answer ended where it did.
async fn write_on(
    session: &mut dyn Session,
    count: usize,
    by: Role,
    job: &Job,
    answer: &mut Answer,
) -> Result<(usize, Option<FinishReason>)> {
    let plan = Generation { max_tokens: count, sampling: job.sampling.of(by), top_logprobs: job.top_logprobs };
    let (started, mut written, mut done) = (Instant::now(), 0, None);
    let mut steps = session.generate(&plan);
    while done.is_none() {
        match steps.next().await.transpose()? {
            Some(Step::Token(sampled)) => {
                written += 1;
                if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, by)).await? {
                    done = Some(reason);
                }
            }
            Some(Step::End(Stop::End)) => done = Some(FinishReason::Stop),
            Some(Step::End(Stop::Length)) | None => break,
        }
    }
    drop(steps);
    answer.call(Call::since(started, by, CallKind::Generate, written)).await;
    Ok((written, done))
}

/// Let the draft write the next chunk.
async fn write_chunk(draft: &mut dyn Session, plan: &Generation, answer: &mut Answer) -> Result<(Vec<Token>, Stop)> {
    let started = Instant::now();
    let mut chunk = Vec::new();
    let mut stop = Stop::Length;
    let mut steps = draft.generate(plan);
    while let Some(step) = steps.next().await {
        match step? {
            Step::Token(sampled) => chunk.push(sampled.token),
            Step::End(end) => stop = end,
        }
    }
    drop(steps);
    answer.call(Call::since(started, Role::Draft, CallKind::Generate, chunk.len())).await;
    Ok((chunk, stop))
}
