//! One file per strategy.

pub(crate) mod alone;
pub(crate) mod nudging;
pub(crate) mod wsd;

use std::time::Instant;

use futures::StreamExt as _;

use crate::{
    Answer, Bridge, Call, CallKind, Engine, Error, FinishReason, Flow, Job, Plan, Prompt, Rendered, Result, Role,
    Session, Step, Stop, Text, Token, TokenRecord,
};

/// Render a prompt for an engine and see that it fits.
fn render(engine: &dyn Engine, job: &Job) -> Result<Rendered> {
    let rendered = engine.text().render(&job.prompt)?;
    let (tokens, limit) = (rendered.tokens.len(), engine.card().max_len);
    if tokens >= limit {
        return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens, limit });
    }
    Ok(rendered)
}

/// Refuse a prompt of token ids to models that read them differently.
fn for_one_vocabulary(prompt: &Prompt, draft: &Text, base: &Text) -> Result<()> {
    if matches!(prompt, Prompt::Tokens(_)) && !Bridge::passes_ids(draft, base) {
        return Err(Error::Chat(
            "a prompt of token ids needs models of one vocabulary\n  hint: give the prompt as text".into(),
        ));
    }
    Ok(())
}

/// Let one model write on until the answer ends.
async fn to_the_end(session: &mut dyn Session, by: Role, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
    let plan = Plan { max_tokens: answer.room(), sampling: job.sampling.of(by), top_logprobs: job.top_logprobs };
    let (started, mut written) = (Instant::now(), 0);
    let mut steps = session.generate(&plan);
    let mut reason = None;
    while reason.is_none() {
        match steps.next().await.transpose()? {
            Some(Step::Token(sampled)) => {
                written += 1;
                if let Flow::Done(done) = answer.token(TokenRecord::new(sampled, by)).await? {
                    reason = Some(done);
                }
            }
            Some(Step::End(Stop::End)) => reason = Some(FinishReason::Stop),
            Some(Step::End(Stop::Length)) | None => reason = Some(FinishReason::Length),
        }
    }
    drop(steps);
    answer.call(Call::since(started, by, CallKind::Generate, written)).await;
    Ok(reason.unwrap_or(FinishReason::Length))
}

/// Let the draft write the next chunk.
async fn write_chunk(draft: &mut dyn Session, plan: &Plan, answer: &mut Answer) -> Result<(Vec<Token>, Stop)> {
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
