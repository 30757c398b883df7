//! Steps that strategies are made of.

use std::time::Instant;

use futures::StreamExt as _;

use crate::{
    Answer, Bridge, Call, CallKind, Engine, Error, FinishReason, Flow, Generation, Guide, Job, Prompt, Rendered,
    Result, Sampling, Seat, Session, Setting, Step, Stop, Terms, TextCodec, Token, TokenRecord,
};

/// Renders a prompt for an engine, and checks that it fits into the context and that the engine
/// follows the sampling.
pub(crate) fn render(engine: &dyn Engine, job: &Job) -> Result<Rendered> {
    check_sampling(engine, &job.terms.sampling)?;
    let mut rendered = engine.codec().render(&job.prompt)?;
    if job.terms.grammar.is_some() {
        // White space is part of what a grammar describes.
        (rendered.strip_start, rendered.strip_end) = (false, false);
    }
    let (tokens, limit) = (rendered.tokens.len(), engine.card().max_len);
    if tokens >= limit {
        return Err(Error::PromptTooLong { engine: engine.card().name.clone(), tokens, limit });
    }
    Ok(rendered)
}

/// Begins an answer in the vocabulary of an engine. Returns the prompt's tokens, and the guide of a
/// grammar if the answer has one.
pub(crate) async fn begin(engine: &dyn Engine, job: &Job, answer: &mut Answer) -> Result<(Vec<Token>, Option<Guide>)> {
    let prompt = render(engine, job)?.tokens;
    answer.prompt(prompt.len()).await;
    answer.begin(engine.codec(), &prompt, 0);
    let guide = job.terms.guide(engine, b"", prompt.len())?;
    Ok((prompt, guide))
}

/// Refuses sampling that an engine does not follow.
fn check_sampling(engine: &dyn Engine, sampling: &Sampling) -> Result<()> {
    let is_ignored = |setting: &Setting| engine.ignored_sampling().iter().any(|other| other.name == setting.name);
    match sampling.changed().find(|(setting, _)| is_ignored(setting)) {
        None => Ok(()),
        Some((setting, value)) => Err(Error::Setting {
            name: setting.name,
            limit: format!("left out, because the engine `{}` does not follow it", engine.card().name),
            value: format!("{value}\n  hint: an embedded model follows every setting of sampling"),
        }),
    }
}

/// Refuses a prompt of token ids to models whose vocabularies differ.
pub(crate) fn check_vocabularies(prompt: &Prompt, draft: &TextCodec, base: &TextCodec) -> Result<()> {
    if matches!(prompt, Prompt::Tokens(_)) && !Bridge::passes_ids(draft, base) {
        return Err(Error::Chat(
            "a prompt of token ids needs models of one vocabulary\n  hint: give the prompt as text".into(),
        ));
    }
    Ok(())
}

/// The generation of at most `max_tokens` tokens of an answer by the model in `seat`, on the terms of
/// a job and under `guide`.
pub(crate) fn generation(
    terms: &Terms,
    seat: Seat,
    guide: Option<&Guide>,
    answer: &Answer,
    max_tokens: usize,
) -> Generation {
    let sampling = terms.sampling.for_seat(seat, answer.prompt_len());
    Generation { max_tokens, sampling, top_logprobs: terms.top_logprobs, guide: guide.cloned() }
}

/// One model writes until the answer ends.
pub(crate) async fn write_to_end(
    session: &mut dyn Session,
    by: Seat,
    terms: &Terms,
    guide: Option<&Guide>,
    answer: &mut Answer,
) -> Result<FinishReason> {
    let generation = generation(terms, by, guide, answer, answer.remaining());
    let (_, done) = write_into(session, by, &generation, answer).await?;
    Ok(done.unwrap_or(FinishReason::Length))
}

/// Runs a generation into the answer. Returns the number of tokens written, and the reason why the
/// answer ended where it did.
pub(crate) async fn write_into(
    session: &mut dyn Session,
    by: Seat,
    generation: &Generation,
    answer: &mut Answer,
) -> Result<(usize, Option<FinishReason>)> {
    let (started, mut written, mut done) = (Instant::now(), 0, None);
    let mut steps = session.generate(generation);
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
