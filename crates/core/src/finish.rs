//! The part of an answer after the switch: the base writes on.

use crate::look::Looks;
use crate::relay::Relay;
use crate::speculation::{Speculation, Speculator};
use crate::steps::write_to_end;
use crate::{Answer, FinishReason, Job, Result, Rule, Seat, Setting, Values};

/// The setting for speculative decoding after the switch.
pub static SPECULATE: Setting = Setting::flag(
    "speculate",
    "After the base takes over, the draft proposes tokens and the base verifies them (speculative decoding); \
     changes only the speed; ignored if the vocabularies differ",
    true,
)
.speed_only();

/// The way in which the base finishes an answer.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    /// The second looks, if any.
    looks: Option<Looks>,
    /// True if the draft proposes tokens.
    speculates: bool,
}

impl Finish {
    /// The finish that the settings ask for; `can_speculate` tells whether the models allow it.
    pub(crate) fn from_values(values: &Values, can_speculate: bool) -> Self {
        Self { looks: Looks::from_values(values), speculates: can_speculate && values.get::<bool>(&SPECULATE) }
    }

    /// Lets the base write to the end.
    pub(crate) async fn run(
        &self,
        mut relay: Relay<'_>,
        rule: Rule,
        job: &Job,
        answer: &mut Answer,
    ) -> Result<FinishReason> {
        if let Some(looks) = &self.looks
            && let Some(reason) = looks.run(&mut relay, rule, job, answer).await?
        {
            return Ok(reason);
        }
        let Relay { mut base, draft, .. } = relay;
        if !self.speculates {
            drop(draft);
            return write_to_end(base.session.as_mut(), Seat::BASE, &job.terms, answer).await;
        }
        let speculator = Speculator {
            session: draft.session,
            prompt: draft.prompt.tokens.len(),
            base_prompt: base.prompt.tokens.len(),
            max_len: draft.engine.card().max_len,
        };
        let max_len = base.engine.card().max_len;
        Speculation::new(base.session.as_mut(), speculator, max_len, &job.terms).run(answer).await
    }
}
