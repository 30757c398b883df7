//! The part of an answer after the switch: the base writes on.

use crate::look::Looks;
use crate::relay::{Relay, Side};
use crate::speculation::{Level, Rest, Sources, Speculation};
use crate::steps::write_to_end;
use crate::{Answer, Bridge, Engine, FinishReason, Guide, Job, Result, Rule, Seat, Values};

/// The way in which the base finishes an answer.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    /// The rule of the switch, which a draft that takes over again follows too.
    rule: Rule,
    /// The second looks, if any.
    looks: Option<Looks>,
    /// The sources of proposals.
    sources: Sources,
}

/// The state of an answer at the switch.
pub(crate) struct Opening<'a> {
    pub(crate) draft: Side<'a>,
    pub(crate) base: Side<'a>,
    /// Drafted tokens after the switch.
    pub(crate) rest: Rest,
    /// The time that the answer took so far, in seconds.
    pub(crate) seconds: f64,
    /// The constraint on the base's list.
    pub(crate) guide: Option<Guide>,
}

impl Finish {
    /// The finish that the settings ask for, as far as the models allow it: for speculation the base must
    /// tell its choices, and a draft that proposes must spell in its ids.
    pub(crate) fn from_values(values: &Values, draft: &dyn Engine, base: &dyn Engine) -> Self {
        let (allowed, checks) = (Sources::from_values(values), base.card().caps.choices);
        let models = checks && allowed.models && Bridge::passes_ids(draft.codec(), base.codec());
        let sources = Sources { models, texts: checks && allowed.texts };
        Self { rule: Rule::from_values(values), looks: Looks::from_values(values), sources }
    }

    /// True if nothing but the base's generations write the rest of the answer.
    pub(crate) fn is_plain(&self) -> bool {
        self.looks.is_none()
    }

    /// The rule of the switch.
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }

    /// Lets the base write to the end.
    pub(crate) async fn run(&self, opening: Opening<'_>, job: &Job, answer: &mut Answer) -> Result<FinishReason> {
        let Opening { mut draft, mut base, rest, seconds, guide } = opening;
        let mut sources = self.sources;
        if let Some(looks) = &self.looks {
            let mut relay = Relay::resume(draft, base)?;
            if let Some(reason) = looks.run(&mut relay, self.rule, job, answer).await? {
                answer.reused(relay.base.session.reused_tokens()).await;
                return Ok(reason);
            }
            // A draft that followed by text does not hold the answer's ids.
            sources.models &= relay.passes_ids();
            Relay { draft, base, .. } = relay;
        }
        if sources.is_empty() {
            drop(draft);
            let reason = write_to_end(base.session.as_mut(), Seat::BASE, &job.terms, guide.as_ref(), answer).await?;
            answer.reused(base.session.reused_tokens()).await;
            return Ok(reason);
        }
        let draft = sources.models.then(|| level(Seat::DRAFT, draft));
        let levels = draft.into_iter().chain([level(Seat::BASE, base)]).collect();
        let texts = sources.texts.then_some(rest);
        Speculation::new(levels, &job.terms, texts).guided(guide.as_ref()).after(seconds).run(answer).await
    }
}

/// A model as a level of a chain. Its last token is not computed.
fn level(seat: Seat, side: Side<'_>) -> Level {
    let computed = side.session.tokens().len().saturating_sub(1);
    Level::new(seat, side.engine, side.session, side.prompt.tokens.len(), computed)
}
