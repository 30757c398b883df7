//! Levels of a chain: a model's session and the sources of proposals for it.

use super::lookup::{Lookup, Rest};
use super::plan::Planner;
use crate::acceptance::{Acceptance, Hint};
use crate::{Engine, Generation, Guide, Profile, Sampling, Seat, Session, Source, StepTime, Token, common_prefix};

/// The times of a model's first and further tokens by the first of the model it proposes to, before
/// they are measured.
const PRESUMED: (f64, f64) = (0.3, 0.02);

/// A model of a chain with its session, whose answer follows the one of the model above.
pub(crate) struct Level {
    pub(super) seat: Seat,
    pub(super) session: Box<dyn Session>,
    /// The choice of its tokens.
    pub(super) sampling: Sampling,
    /// The constraint on its tokens.
    pub(super) guide: Option<Guide>,
    pub(super) profile: Profile,
    pub(super) sources: Vec<Candidate>,
    pub(super) planner: Planner,
    name: String,
    /// Length of its prompt, in tokens.
    prompt: usize,
    /// Length of its context, in tokens.
    max_len: usize,
    /// The number of its token ids.
    vocab: usize,
    /// True if it can check trees.
    pub(super) trees: bool,
    /// True if it can check proposals.
    pub(super) choices: bool,
    /// Number of tokens of its list that its cache holds.
    computed: usize,
}

/// A source of proposals for a level, with the acceptance measured so far.
pub(super) struct Candidate {
    pub(super) source: Source,
    pub(super) origin: Origin,
    pub(super) acceptance: Acceptance,
    /// Name of the source in the level's profile.
    key: String,
}

/// The object that makes the proposals of a source.
pub(super) enum Origin {
    /// The level of this index.
    Level(usize),
    Lookup(Lookup),
    Rest(Rest),
}

impl Level {
    /// The model of `engine` in `seat`, with a session whose first `prompt` tokens are the prompt and
    /// whose cache holds `computed` tokens.
    pub(crate) fn new(
        seat: Seat,
        engine: &dyn Engine,
        session: Box<dyn Session>,
        prompt: usize,
        computed: usize,
    ) -> Self {
        let card = engine.card();
        Self {
            seat,
            session,
            sampling: Sampling::default(),
            guide: None,
            profile: engine.profile(),
            sources: Vec::new(),
            planner: Planner::default(),
            name: card.name.clone(),
            prompt,
            max_len: card.max_len,
            vocab: card.vocab,
            trees: card.caps.trees,
            choices: card.caps.choices,
            computed,
        }
    }

    /// Adds a source of proposals.
    pub(super) fn add(&mut self, source: Source, origin: Origin, key: &str) {
        let acceptance = self.profile.acceptance(key).inherited();
        self.sources.push(Candidate { source, origin, acceptance, key: key.to_owned() });
    }

    /// The generation of at most `max_tokens` of its tokens.
    pub(super) fn generation(&self, max_tokens: usize, top_logprobs: usize) -> Generation {
        Generation { max_tokens, sampling: self.sampling.clone(), top_logprobs, guide: self.guide.clone() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn prompt(&self) -> usize {
        self.prompt
    }

    /// The tokens behind the prompt: none where the first of the answer has joined with the last ones of
    /// the prompt, so that the list is the shorter one.
    pub(super) fn answer(&self) -> &[Token] {
        self.session.tokens().get(self.prompt..).unwrap_or_default()
    }

    /// Number of tokens that the context has space for.
    pub(super) fn space(&self) -> usize {
        self.max_len.saturating_sub(self.session.tokens().len())
    }

    /// Number of tokens by which its context can continue `answer`: none behind an id that it lacks.
    pub(super) fn space_after(&self, answer: &[Token]) -> usize {
        let knows = answer.iter().all(|&token| (token as usize) < self.vocab);
        if knows { self.max_len.saturating_sub(self.prompt + answer.len()) } else { 0 }
    }

    /// Number of tokens to compute before it can continue `answer`.
    pub(super) fn lacking(&self, answer: &[Token]) -> usize {
        let same = self.prompt + common_prefix(self.answer(), answer);
        (self.prompt + answer.len()).saturating_sub(self.computed.min(same)).max(1)
    }

    /// Number of tokens of its list to compute before it can continue.
    pub(super) fn uncomputed(&self) -> usize {
        self.session.tokens().len().saturating_sub(self.computed).max(1)
    }

    /// Makes its answer equal to the one above.
    pub(super) fn follow(&mut self, answer: &[Token]) {
        let same = common_prefix(self.answer(), answer);
        self.session.truncate(self.prompt + same);
        self.computed = self.computed.min(self.prompt + same);
        self.session.append(&answer[same..]);
    }

    /// Marks every token but the last as computed, as after a question about the list.
    pub(super) fn mark_computed(&mut self) {
        self.computed = self.session.tokens().len().saturating_sub(1);
    }

    /// The measured time of its steps, or a presumption from the model above.
    pub(super) fn time_below(&self, above: StepTime) -> StepTime {
        let (first, further) = PRESUMED;
        self.profile.step_time().unwrap_or_else(|| StepTime::new(first * above.first, further * above.first))
    }

    /// Takes in whether a proposed token was right.
    pub(super) fn learn(&mut self, source: usize, hint: Hint, is_right: bool) {
        let candidate = &mut self.sources[source];
        candidate.acceptance.add(hint, is_right);
        self.profile.update_acceptance(&candidate.key, |acceptance| acceptance.add(hint, is_right));
    }
}
