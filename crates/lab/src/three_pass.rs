//! The reference procedure of the Weak-to-Strong Decoding paper (arXiv 2506.07434) in three
//! separate passes: the draft writes its whole answer, the base scores it, the base continues from
//! the switch.
//!
//! `wsd_core` interleaves the passes and stops drafting at the switch. Here the first two run to
//! the end and their result, a [`DraftRun`], is kept, so that many switch rules can be tried on it.

use std::time::Instant;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use wsd_core::{
    Bridge, Engine, Event, Generation, Job, Models, Prompt, Recipe, Rendered, Result, Rule, Seat, StopMatch, Stops,
    Terms, Token, Values, run,
};

/// An answer whose first tokens are the draft's and whose rest is the base's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continuation {
    /// Number of drafted tokens kept, in the base's vocabulary.
    pub kept: usize,
    /// Text of the whole answer.
    pub output: String,
}

/// A complete draft and the base's scores of it: the first two passes.
#[derive(Debug)]
pub struct DraftRun {
    prompt: Rendered,
    /// Number of prompt tokens that stay as they are when the draft is appended.
    keep: usize,
    /// The draft in the base's tokens.
    drafted: Vec<Token>,
    /// Number of leading bytes of the draft's text that belong to the prompt.
    overlap: usize,
    /// The base's natural log-probabilities of the drafted tokens after the first `unscored`.
    logprobs: Vec<f64>,
    unscored: usize,
    /// Seconds spent on drafting and on scoring.
    seconds: [f64; 2],
}

impl DraftRun {
    /// Drafts up to `max_draft_tokens` tokens and scores them with the base.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use wsd_core::scripted::{Pieces, Scripted};
    /// use wsd_core::{Job, Prompt, Rule, Sampling, Terms, Token};
    /// use wsd_lab::three_pass::DraftRun;
    ///
    /// // Two models that prefer the letter "b", with a probability of one half and nearly one.
    /// let model = |logit: f32| {
    ///     Scripted::new("m", Arc::new(Pieces::letters("ab")), move |_: &[Token]| vec![0.0, 0.0, 0.0, logit])
    /// };
    /// let (draft, base) = (model(1.1), model(9.0));
    /// let terms = Terms { sampling: Sampling { temperature: 0.0, ..Sampling::default() }, ..Terms::default() };
    /// let job = Job { prompt: Prompt::Raw("a".into()), terms };
    /// let run = futures::executor::block_on(DraftRun::generate(&draft, &base, &job, 20))?;
    /// assert_eq!((run.drafted(), run.kept(Rule::parse(6, 0.8)?)), (20, 6));
    /// # Ok::<(), wsd_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Errors of the engines.
    pub async fn generate(draft: &dyn Engine, base: &dyn Engine, job: &Job, max_draft_tokens: usize) -> Result<Self> {
        let (prompt, draft_prompt) = (base.codec().render(&job.prompt)?, draft.codec().render(&job.prompt)?);
        let generation = Generation {
            max_tokens: max_draft_tokens,
            sampling: job.terms.sampling.for_seat(Seat::DRAFT, draft_prompt.tokens.len()),
            top_logprobs: 0,
            guide: None,
        };
        let written = draft.open(&draft_prompt.tokens).await?.write(&generation).await?;
        let mut bridge = Bridge::new(draft.codec(), base.codec(), &draft_prompt, &prompt);
        let edit = bridge.push(&written.ids(), true)?;
        let overlap = bridge.overlap(edit.keep)?;
        let mut list = [&prompt.tokens[..edit.keep], &edit.append].concat();
        list.truncate(base.card().max_len);
        // The first token of a list has no log-probability.
        let from = edit.keep.max(1);
        let started = Instant::now();
        let logprobs = if from < list.len() { base.open(&list).await?.score(from).await? } else { Vec::new() };
        let seconds = [written.seconds, started.elapsed().as_secs_f64()];
        let (keep, drafted) = (edit.keep, list.split_off(edit.keep));
        Ok(Self { prompt, keep, drafted, overlap, logprobs, unscored: from - edit.keep, seconds })
    }

    /// Number of drafted tokens.
    #[must_use]
    pub fn drafted(&self) -> usize {
        self.drafted.len()
    }

    /// Natural log-probabilities that the base assigns to the drafted tokens. A first token without a
    /// context has none and is left out.
    #[must_use]
    pub fn logprobs(&self) -> &[f64] {
        &self.logprobs
    }

    /// Seconds spent on drafting and on scoring.
    #[must_use]
    pub fn seconds(&self) -> [f64; 2] {
        self.seconds
    }

    /// Index of the last drafted token that a rule keeps; `None` if its window never passes.
    #[must_use]
    pub fn switch(&self, rule: Rule) -> Option<usize> {
        rule.accept_index(&self.logprobs).map(|at| self.unscored + at)
    }

    /// Number of drafted tokens that a rule keeps; all of them if its window never passes.
    #[must_use]
    pub fn kept(&self, rule: Rule) -> usize {
        self.switch(rule).map_or(self.drafted.len(), |at| at + 1)
    }

    /// The base's token list (prompt and opening) and the opening's tokens, after `kept` drafted
    /// tokens.
    #[must_use]
    pub fn opening(&self, kept: usize) -> (Vec<Token>, &[Token]) {
        let opening = &self.drafted[..kept.min(self.drafted.len())];
        ([&self.prompt.tokens[..self.keep], opening].concat(), opening)
    }

    /// Text of the first `kept` drafted tokens.
    ///
    /// # Errors
    /// Errors of the base's tokenizer.
    pub fn text(&self, base: &dyn Engine, kept: usize) -> Result<String> {
        let mut detokenizer = base.codec().detokenizer(&self.prompt.tokens[..self.keep]);
        let (_, opening) = self.opening(kept);
        let text = opening.iter().map(|&token| detokenizer.push(token)).collect::<Result<String>>()?;
        Ok(text.get(self.overlap..).unwrap_or_default().to_owned())
    }

    /// The answer if the base takes over after `kept` drafted tokens: the third pass.
    ///
    /// # Errors
    /// Errors of the engines.
    pub async fn continuation(
        &self,
        kept: usize,
        models: &Models,
        base: &dyn Engine,
        job: &Job,
    ) -> Result<Continuation> {
        let stops = base.codec().default_stops(&job.prompt).iter().map(|&stop| stop.to_owned());
        let stops = Stops::new(stops.chain(job.terms.stop.clone()));
        let (list, opening) = self.opening(kept.min(job.terms.max_tokens));
        let mut output = self.text(base, opening.len())?;
        let remaining = job.terms.max_tokens - opening.len();
        if remaining > 0 && list.len() < base.card().max_len && stops.find_first(&output).is_none() {
            // Stop strings are matched here and not by the strategy, since one may begin in the
            // opening.
            let terms = Terms { max_tokens: remaining, stop: Vec::new(), ..job.terms.clone() };
            let rest = Job { prompt: Prompt::Tokens(list), terms };
            let mut events = run(Recipe::find("base")?.build(models, &Values::default())?, rest);
            while let Some(event) = events.next().await {
                if let Event::Token(token) = event? {
                    output.push_str(&token.text);
                    if matches!(stops.find(&output), StopMatch::Cut(_)) {
                        break;
                    }
                }
            }
        }
        if let Some(at) = stops.find_first(&output) {
            output.truncate(at);
        }
        Ok(Continuation { kept, output })
    }
}
