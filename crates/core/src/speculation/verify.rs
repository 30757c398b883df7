//! Verification: the base's own choices at the position of every proposed token.

use std::time::Instant;

use crate::{Answer, Call, CallKind, FinishReason, Flow, Generation, Result, Seat, Session, Step, Token, TokenRecord};

/// The result of verifying one proposal.
pub(super) struct Verified {
    /// Number of proposed tokens that the base confirmed.
    pub(super) accepted: usize,
    /// Time the base took, in seconds.
    pub(super) seconds: f64,
    /// The reason why the answer ended, if it did.
    pub(super) done: Option<FinishReason>,
}

/// Verifies proposed tokens in one step of the base and writes its choices into the answer: the
/// accepted tokens, then one that the base chose instead or after them.
pub(super) async fn verify(
    base: &mut dyn Session,
    proposed: &[Token],
    generation: &Generation,
    answer: &mut Answer,
) -> Result<Verified> {
    let (started, from) = (Instant::now(), base.tokens().len());
    base.append(proposed);
    let choices = base.choices(from, generation).await?;
    let seconds = started.elapsed().as_secs_f64();
    base.truncate(from);
    let (mut accepted, mut done) = (0, None);
    for (index, choice) in choices.into_iter().enumerate() {
        let Step::Token(sampled) = choice else {
            done = Some(FinishReason::Stop);
            break;
        };
        let token = sampled.token;
        base.append(&[token]);
        if let Flow::Done(reason) = answer.token(TokenRecord::new(sampled, Seat::BASE)).await? {
            done = Some(reason);
            break;
        }
        if proposed.get(index) != Some(&token) {
            break;
        }
        accepted += 1;
    }
    let tokens = proposed.len() + 1;
    let call = Call { accepted: Some(accepted), ..Call::new(Seat::BASE, CallKind::Check, tokens, seconds) };
    answer.call(call).await;
    Ok(Verified { accepted, seconds, done })
}
