//! `wsd bench wsd`: time of WSD, of the base alone, and of the paper's three passes on a pair.

mod models;
mod passes;
mod report;
mod system;

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::{Settings, SharedArgs};
use wsd_core::{Job, MAX_TOKENS, Models, Recipe, SPECULATE, Trace, Values};

use self::report::{Report, Runs};
use self::system::{Answer, DIRECT, Method, SYSTEMS, System, WSD};
use crate::cli::output::Output;
use crate::cli::prompt::of_text;
use crate::cli::{Ending, GlobalArgs};

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

All systems answer a prompt with the same number of tokens: that of the shorter of WSD's and the base's answers.";

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
    /// Share of tokens after which the random models have the same argmax, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    agreement: f64,
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
    if bench.repeats == 0 || bench.prompts == 0 || bench.prompt_tokens == 0 || !(0.0..=1.0).contains(&bench.agreement) {
        bail!("the numbers of repeats, prompts and their tokens must be at least 1, and the agreement from 0 to 1");
    }
    let settings = global.settings(bench.settings.0.clone())?;
    let subject = Subject::new(&bench, &settings, global)?.with_equal_lengths().await?;
    let mut runs = SYSTEMS.map(Runs::new);
    for _ in 0..bench.repeats {
        for runs in &mut runs {
            runs.rounds.push(subject.answer_all(runs.system).await?);
        }
    }
    let report = Report::new(runs.into());
    let text = if bench.json { format!("{}\n", report.json(&settings)) } else { report.text() };
    Output::stdout(global.color).text(&text)?;
    Ok(Ending::Done)
}

impl Subject {
    fn new(bench: &PairBench, settings: &Settings, global: &GlobalArgs) -> Result<Self> {
        let models = models::load(settings, bench.agreement, global)?;
        let texts = match bench.prompt.as_slice() {
            [] => QUESTIONS.map(str::to_owned).to_vec(),
            given => given.to_vec(),
        };
        let prompts: Vec<_> = if models::are_random(settings) {
            (0..bench.prompts).map(|index| models::random_prompt(settings, index, bench.prompt_tokens)).collect()
        } else {
            texts.into_iter().map(|text| of_text(text, &settings.prompt)).collect::<Result<_>>()?
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
        let Method::Strategy { name, speculate } = system.method else {
            return passes::answer(&self.models, &self.values, job).await;
        };
        let values = self.values.clone().with(&SPECULATE, speculate)?;
        let strategy = Recipe::find(name)?.build(&self.models, &values)?;
        let completion = Trace::collect(wsd_core::run(strategy, job.clone())).await?;
        Ok(Answer {
            tokens: completion.tokens.iter().map(|token| token.id).collect(),
            seconds: completion.timings.total,
            switch: completion.handover.map(|handover| handover.at),
            proposed: completion.timings.proposed_tokens,
            accepted: completion.timings.accepted_tokens,
        })
    }
}
