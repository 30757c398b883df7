//! Every window and threshold at little more than the cost of one: the draft and the base's scores of it depend on neither, so
//! both are made once; cells of the grid that switch at the same token share what the base writes from there.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use wsd_core::{
    Bridge, Engine, Event, Generation, Job, Models, Options, Prompt, Recipe, Rendered, Result, Role, Rule, Step,
    StopMatch, Stops, Token, run,
};

use super::positions::Made;
use super::{Contest, EvalError, RunFolder};
use crate::data::in_order;

/// The windows and thresholds that are tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Tokens in the window.
    pub windows: Vec<usize>,
    /// The geometric means to reach.
    pub thresholds: Vec<f64>,
}

impl Default for Grid {
    /// Windows of 1 to 12 tokens, thresholds from 0.5 to 0.95.
    fn default() -> Self {
        Self { windows: (1..=12).collect(), thresholds: (10..20).map(|step| f64::from(step) / 20.0).collect() }
    }
}

impl Grid {
    /// The rules, window by window.
    ///
    /// # Errors
    /// [`wsd_core::Error::Setting`].
    pub fn rules(&self) -> Result<Vec<Rule>> {
        let cells = self.windows.iter().flat_map(|&window| self.thresholds.iter().map(move |&p| (window, p)));
        cells.map(|(window, threshold)| Rule::parse(window, threshold)).collect()
    }
}

/// What the base makes of a draft that was taken over after some tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Branch {
    /// Tokens of the draft that were kept.
    pub kept: usize,
    /// The whole answer.
    pub output: String,
}

/// A draft that was never taken over, with the base's scores.
#[derive(Debug)]
pub struct Trunk {
    prompt: Rendered,
    /// Tokens of the prompt that the draft leaves as they are.
    keep: usize,
    /// The draft in the base's tokens.
    drafted: Vec<Token>,
    /// The first bytes of the draft's text that are the prompt's.
    overlap: usize,
    /// The base's natural log-probability of each drafted token but the first `unscored`.
    logprobs: Vec<f64>,
    unscored: usize,
}

impl Trunk {
    /// Draft an answer to the end, and score it.
    ///
    /// # Errors
    /// Those of the engines.
    pub async fn draft(draft: &dyn Engine, base: &dyn Engine, job: &Job, options: Options) -> Result<Self> {
        let (prompt, draft_prompt) = (base.codec().render(&job.prompt)?, draft.codec().render(&job.prompt)?);
        let plan = Generation {
            max_tokens: options.max_draft_tokens,
            sampling: job.sampling.of(Role::Draft),
            top_logprobs: 0,
        };
        let mut session = draft.open(&draft_prompt.tokens).await?;
        let (mut steps, mut written) = (session.generate(&plan), Vec::new());
        while let Some(step) = steps.next().await {
            if let Step::Token(sampled) = step? {
                written.push(sampled.token);
            }
        }
        drop(steps);
        let mut bridge = Bridge::new(draft.codec(), base.codec(), &draft_prompt, &prompt);
        let edit = bridge.push(&written, true)?;
        let overlap = bridge.overlap(edit.keep)?;
        let mut list = [&prompt.tokens[..edit.keep], &edit.append].concat();
        list.truncate(base.card().max_len);
        let from = edit.keep.max(1);
        let logprobs = match from < list.len() {
            true => base.open(&list).await?.score(from).await?,
            false => Vec::new(),
        };
        let (keep, drafted) = (edit.keep, list.split_off(edit.keep));
        Ok(Self { prompt, keep, drafted, overlap, logprobs, unscored: from - edit.keep })
    }

    /// How many of the drafted tokens a rule keeps: all, where its window never passes.
    #[must_use]
    pub fn kept(&self, rule: Rule) -> usize {
        rule.accept_index(&self.logprobs).map_or(self.drafted.len(), |at| self.unscored + at + 1)
    }

    /// The answer where the base takes over after `kept` drafted tokens.
    ///
    /// # Errors
    /// Those of the engines.
    pub async fn branch(&self, kept: usize, models: &Models, base: &dyn Engine, job: &Job) -> Result<Branch> {
        let stops = base.codec().default_stops(&job.prompt).iter().map(|&stop| stop.to_owned());
        let stops = Stops::new(stops.chain(job.stop.clone()));
        let opening = &self.drafted[..kept.min(job.max_tokens)];
        let mut output = self.spell(base, opening)?;
        let list = [&self.prompt.tokens[..self.keep], opening].concat();
        let room = job.max_tokens - opening.len();
        if room > 0 && list.len() < base.card().max_len && stops.last_look(&output).is_none() {
            // The stop strings are looked for here, since one may begin in the opening.
            let rest = Job { prompt: Prompt::Tokens(list), max_tokens: room, stop: Vec::new(), ..job.clone() };
            let mut events = run(Recipe::find("base")?.build(models, Options::default())?, rest);
            while let Some(event) = events.next().await {
                if let Event::Token(token) = event? {
                    output.push_str(&token.text);
                    if matches!(stops.look(&output), StopMatch::Cut(_)) {
                        break;
                    }
                }
            }
        }
        if let Some(at) = stops.last_look(&output) {
            output.truncate(at);
        }
        Ok(Branch { kept, output })
    }

    fn spell(&self, base: &dyn Engine, tokens: &[Token]) -> Result<String> {
        let mut detokenizer = base.codec().detokenizer(&self.prompt.tokens[..self.keep]);
        let text = tokens.iter().map(|&token| detokenizer.push(token)).collect::<Result<String>>()?;
        Ok(text.get(self.overlap..).unwrap_or_default().to_owned())
    }
}

#[derive(Serialize)]
struct Row<'a> {
    output: String,
    wsd: Made<'a>,
    /// Tokens kept in each cell, window by window.
    kept: Vec<usize>,
    branches: Vec<Branch>,
    drafted: usize,
}

impl Contest {
    /// Answer every item in every cell of a grid.
    ///
    /// # Errors
    /// [`EvalError`].
    pub async fn ablation(
        &self,
        grid: &Grid,
        folder: &RunFolder,
        told: impl FnMut(usize, Option<&wsd_core::Error>),
    ) -> Result<(), EvalError> {
        let (Some(base), Some(draft)) = (self.models.get(Role::Base), self.models.get(Role::Draft)) else {
            return Err(EvalError::NoPair);
        };
        let rules = grid.rules()?;
        let mut journal = self.journal(&folder.file("ablation.jsonl"), self.settings.clone())?;
        let work = async |row: usize| {
            let job = self.job(row, &super::SYSTEMS[0]);
            let trunk = Trunk::draft(draft.as_ref(), base.as_ref(), &job, self.options).await?;
            let kept: Vec<_> = rules.iter().map(|&rule| trunk.kept(rule)).collect();
            let mut branches = Vec::new();
            for kept in kept.iter().copied().collect::<BTreeSet<_>>() {
                branches.push(trunk.branch(kept, &self.models, base.as_ref(), &job).await?);
            }
            let (output, drafted) = (trunk.spell(base.as_ref(), &trunk.drafted)?, trunk.drafted.len());
            Ok(Row { output, wsd: Made { settings: &self.settings }, kept, branches, drafted })
        };
        in_order(&self.records, &mut journal, self.parallel, work, told).await?;
        Ok(journal.close()?)
    }
}
