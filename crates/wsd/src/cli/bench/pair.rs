//! `wsd bench wsd`: time of WSD, of the base alone, and of the paper's three passes on a pair.

mod models;
mod passes;
mod report;
mod system;

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use wsd::config::{Settings, SharedArgs};
use wsd::lab::data::read_rows;
use wsd_core::{Job, MAX_TOKENS, Models, Prompt, Recipe, SPECULATE, Seat, Trace, Values};

use self::report::{Report, Runs};
use self::system::{Answer, DIRECT, Method, SYSTEMS, System, WSD};
use crate::cli::output::Output;
use crate::cli::prompt::{of_row, of_text};
use crate::cli::{Ending, GlobalArgs, usage};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd bench wsd
      The built-in pair on a few questions.
  wsd bench wsd --base 1b --draft 150m --agreement 0.8 --window 10 -n 256
      Random models of these shapes, which have the same argmax 8 times out of 10.
  wsd bench wsd --base 1b --draft 150m --draft-dtype q4_0 --window 10 --prompts 4
      A draft whose weights have half as many bits.
  wsd bench wsd --base ./base.Q8_0.gguf --draft ./pilot --prompt \"How do I keep bees?\" --json
      A pair of your own; every figure as JSON.
  wsd bench wsd --base ./base.gguf --draft ./pilot --input questions.jsonl --limit 20 \\
      --only wsd-alone --only wsd
      Prompts from a file, and only some of the systems; the worst prompt is named beside the mean.
  wsd bench wsd --base 3b --draft 150m --model middle=1b --middle-agreement 0.9 \\
      --only middle --only routed
      A chain of three models beside the two pairs in it.

All systems answer a prompt with the same number of tokens: that of the shorter of WSD's and the
base's answers.";

/// Default tokens in an answer.
const DEFAULT_MAX_TOKENS: usize = 256;
/// Default prompts of models that are not random.
const QUESTIONS: [&str; 4] = [
    "What colour is the fox?",
    "How do I use the hammer?",
    "Where does the duck live?",
    "Could you explain how to burn the hedge?",
];

#[derive(Args, Debug)]
pub(crate) struct PairBench {
    /// A prompt; may be repeated [default: a few questions to the built-in pair]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// Prompts from a file: JSON lines or a JSON list as for `wsd generate --input`
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    input: Option<PathBuf>,
    /// At most this many prompts of the file, its first ones [default: all]
    #[arg(long, value_name = "N", requires = "input")]
    limit: Option<usize>,
    /// A system to measure beside the base alone; may be repeated [default: all that the models allow]
    #[arg(long, value_name = "NAME", value_parser = SYSTEMS.map(|system| system.key))]
    only: Vec<String>,
    /// Share of tokens after which the random models have the same argmax, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    agreement: f64,
    /// The same share for a random middle model
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    middle_agreement: f64,
    /// Prompts to random models
    #[arg(long, value_name = "N", default_value_t = 1)]
    prompts: usize,
    /// Tokens in a prompt to random models
    #[arg(long, value_name = "N", default_value_t = 64)]
    prompt_tokens: usize,
    /// Rounds of all measurements; medians are reported
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Print every run and the medians as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SharedArgs,
}

/// The models and their jobs.
struct Subject {
    models: Models,
    values: Values,
    jobs: Vec<Job>,
}

pub(super) async fn run(mut bench: PairBench, global: &GlobalArgs) -> Result<Ending> {
    bench.settings.0.set_default(&MAX_TOKENS, DEFAULT_MAX_TOKENS)?;
    // All systems answer the same prompts, so a prefix cache would favor the later ones.
    bench.settings.0.without_prefix_cache()?;
    let shares = [bench.agreement, bench.middle_agreement];
    let counts = [bench.repeats, bench.prompts, bench.prompt_tokens, bench.limit.unwrap_or(1)];
    if counts.contains(&0) || !shares.iter().all(|share| (0.0..=1.0).contains(share)) {
        return Err(usage(
            "the numbers of repeats, prompts and their tokens must be at least 1, and the agreement from 0 to 1",
        ));
    }
    let settings = global.settings(bench.settings.0.clone())?;
    let subject = Subject::new(&bench, &settings, global)?.with_equal_lengths().await?;
    let has_middle = subject.models.get(Seat::MIDDLE).is_some();
    let systems = SYSTEMS.into_iter().filter(|system| {
        let is_chosen = bench.only.is_empty() || bench.only.iter().any(|key| key == system.key);
        std::ptr::eq(*system, &DIRECT) || (is_chosen && (has_middle || !system.needs_middle()))
    });
    let mut runs: Vec<_> = systems.map(Runs::new).collect();
    for _ in 0..bench.repeats {
        for runs in &mut runs {
            runs.rounds.push(subject.answer_all(runs.system).await?);
        }
    }
    let report = Report::new(runs);
    let text = if bench.json { format!("{}\n", report.json(&settings)) } else { report.text() };
    Output::stdout(global.color).text(&text)?;
    Ok(Ending::Done)
}

impl PairBench {
    /// The prompts to models that are not random.
    fn read_prompts(&self, settings: &Settings) -> Result<Vec<Prompt>> {
        let Some(path) = &self.input else {
            let given = (!self.prompt.is_empty()).then(|| self.prompt.clone());
            let texts = given.unwrap_or_else(|| QUESTIONS.map(str::to_owned).to_vec());
            return texts.iter().map(|text| of_text(text, &settings.prompt)).collect();
        };
        let rows = read_rows(path)?.into_iter().take(self.limit.unwrap_or(usize::MAX)).enumerate();
        let prompts = rows.map(|(row, record)| {
            let prompt = of_row(record.prompt(), &settings.prompt);
            prompt.with_context(|| format!("{}: row {}", path.display(), row + 1))
        });
        prompts.collect()
    }
}

impl Subject {
    fn new(bench: &PairBench, settings: &Settings, global: &GlobalArgs) -> Result<Self> {
        let models = models::load(settings, [bench.agreement, bench.middle_agreement], global)?;
        let prompts: Vec<_> = if models::are_random(settings) {
            (0..bench.prompts).map(|index| models::random_prompt(settings, index, bench.prompt_tokens)).collect()
        } else {
            bench.read_prompts(settings)?
        };
        let jobs = prompts.into_iter().map(|prompt| settings.job(prompt)).collect();
        Ok(Self { models, values: settings.values.clone(), jobs })
    }

    /// Limits each job to the tokens of the shorter of WSD's and the base's answers. This also
    /// warms everything up.
    async fn with_equal_lengths(mut self) -> Result<Self> {
        for index in 0..self.jobs.len() {
            let mut shortest = self.jobs[index].terms.max_tokens;
            for system in [&DIRECT, &WSD] {
                shortest = shortest.min(self.answer(system, &self.jobs[index]).await?.tokens.len());
            }
            self.jobs[index].terms.max_tokens = shortest;
        }
        self.jobs.retain(|job| job.terms.max_tokens > 0);
        if self.jobs.is_empty() {
            bail!("at least one prompt must have an answer of both WSD and the base, got none");
        }
        Ok(self)
    }

    async fn answer_all(&self, system: &System) -> Result<Vec<Answer>> {
        let mut all = Vec::with_capacity(self.jobs.len());
        for job in &self.jobs {
            all.push(self.answer(system, job).await?);
        }
        Ok(all)
    }

    async fn answer(&self, system: &System, job: &Job) -> Result<Answer> {
        let Method::Strategy { name, speculate, draft } = system.method else {
            return passes::answer(&self.models, &self.values, job).await;
        };
        let values = self.values.clone().with(&SPECULATE, speculate)?;
        let mut models = self.models.clone();
        if let Some(engine) = models.get(draft).filter(|_| draft != Seat::DRAFT).cloned() {
            models.remove(Seat::DRAFT);
            models.add(Seat::DRAFT, engine);
        }
        let strategy = Recipe::find(name)?.build(&models, &values)?;
        let completion = Trace::collect(wsd_core::run(strategy, job.clone())).await?;
        Ok(Answer {
            tokens: completion.tokens.iter().map(|token| token.id).collect(),
            seconds: completion.timings.total,
            switch: completion.handover.map(|handover| handover.at),
            base_tokens: completion.usage.by_author.get(Seat::BASE),
            base_steps: completion.timings.base_steps,
            proposals: completion.timings.proposals,
        })
    }
}
