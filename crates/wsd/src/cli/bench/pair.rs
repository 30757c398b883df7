//! `wsd bench wsd`: a pair of models answering by WSD, by the base alone, and by the paper's three
//! passes.

mod models;
mod passes;
mod report;

use anyhow::{Result, bail};
use clap::Args;
use wsd::config::{Partial, Settings};
use wsd_core::{Job, Models, Options, Recipe, Token, Trace};

use self::report::Report;
use crate::cli::output::Output;
use crate::cli::prompt::of_text;
use crate::cli::{Ending, GlobalArgs};

pub(super) const EXAMPLES: &str = "\
Examples:
  wsd bench wsd
      The built-in pair on a few questions.
  wsd bench wsd --base 1b --draft 150m --agreement 0.8 --window 10 -n 256
      Random models of these shapes, which choose the same token 8 times out of 10.
  wsd bench wsd --base 1b --draft 150m --draft-dtype q4_0 --window 10 --prompts 4
      A draft whose weights have half as many bits.
  wsd bench wsd --base ./base.Q8_0.gguf --draft ./pilot --prompt \"How do I keep bees?\" --json
      A pair of your own; every figure as JSON.

Each prompt is answered with equally many tokens by all: as many as the shorter of WSD's answer and the base's has.";

/// Tokens in an answer where nothing is said.
const MAX_TOKENS: usize = 256;
/// What the built-in pair is asked.
const QUESTIONS: [&str; 4] = [
    "What colour is the fox?",
    "How do I use the hammer?",
    "Where does the duck live?",
    "Could you explain how to burn the hedge?",
];

#[derive(Args, Debug)]
pub(crate) struct PairBench {
    /// What to answer; may be repeated [default: a few questions to the built-in pair]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// How often a random draft's likeliest token is the random base's, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    agreement: f64,
    /// Prompts to random models
    #[arg(long, value_name = "N", default_value_t = 1)]
    prompts: usize,
    /// Tokens in a prompt to random models
    #[arg(long, value_name = "N", default_value_t = 64)]
    prompt_tokens: usize,
    /// Run everything so many times, in turn, and tell the medians
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Print one JSON object: every run and the medians
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: Partial,
}

/// A way to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    /// The base alone.
    Direct,
    /// The base alone, with the draft writing ahead of it.
    Speculative,
    /// WSD whose base writes alone after the switch.
    WsdAlone,
    Wsd,
    /// The paper's reference: the whole draft, its scores, the rest, each computed from nothing.
    ThreePasses,
}

/// All, the one the others are measured by first.
const SYSTEMS: [System; 5] = [System::Direct, System::Speculative, System::WsdAlone, System::Wsd, System::ThreePasses];

/// What a system answered.
#[derive(Clone, Debug, Default)]
struct Answered {
    tokens: Vec<Token>,
    seconds: f64,
    /// Where the base took over.
    switch: Option<usize>,
    proposed: usize,
    accepted: usize,
}

/// Models and what they are asked.
struct Subject {
    models: Models,
    options: Options,
    jobs: Vec<Job>,
}

pub(super) async fn run(mut bench: PairBench, look: &GlobalArgs) -> Result<Ending> {
    bench.settings.decode.max_tokens.get_or_insert(MAX_TOKENS);
    // All answer the same prompts, and each is to compute them.
    bench.settings.models.prefix_cache_tokens.get_or_insert(0);
    if bench.repeats == 0 || bench.prompts == 0 || bench.prompt_tokens == 0 || !(0.0..=1.0).contains(&bench.agreement) {
        bail!("there is nothing to measure: repeats and prompts must be above 0, the agreement from 0 to 1");
    }
    let settings = look.settings(bench.settings.clone())?;
    let subject = Subject::new(&bench, &settings, look)?.with_equal_lengths().await?;
    let mut rounds = Vec::new();
    for _ in 0..bench.repeats {
        let mut round = Vec::new();
        for system in SYSTEMS {
            round.push(subject.answer_all(system).await?);
        }
        rounds.push(round);
    }
    let report = Report::new(rounds);
    let text = if bench.json { format!("{}\n", report.json(&settings)) } else { report.text() };
    Output::stdout(look.color).text(&text)?;
    Ok(Ending::Done)
}

impl Subject {
    fn new(bench: &PairBench, settings: &Settings, look: &GlobalArgs) -> Result<Self> {
        let models = models::load(settings, bench.agreement, look)?;
        let texts = match bench.prompt.as_slice() {
            [] => QUESTIONS.map(str::to_owned).to_vec(),
            given => given.to_vec(),
        };
        let prompts = match models::are_random(settings) {
            true => {
                (0..bench.prompts).map(|index| models::random_prompt(settings, index, bench.prompt_tokens)).collect()
            }
            false => texts.into_iter().map(|text| of_text(text, &settings.prompt)).collect::<Result<Vec<_>>>()?,
        };
        let jobs = prompts.into_iter().map(|prompt| settings.job(prompt)).collect();
        Ok(Self { models, options: settings.options, jobs })
    }

    /// The same, each job with as many tokens as the shorter of two answers has. It warms
    /// everything up, too.
    async fn with_equal_lengths(mut self) -> Result<Self> {
        for index in 0..self.jobs.len() {
            let mut shortest = self.jobs[index].max_tokens;
            for system in [System::Direct, System::Wsd] {
                shortest = shortest.min(self.answer(system, &self.jobs[index]).await?.tokens.len());
            }
            self.jobs[index].max_tokens = shortest;
        }
        self.jobs.retain(|job| job.max_tokens > 0);
        if self.jobs.is_empty() {
            bail!("there is nothing to measure: every prompt has an empty answer by WSD or by the base");
        }
        Ok(self)
    }

    async fn answer_all(&self, system: System) -> Result<Vec<Answered>> {
        let mut all = Vec::with_capacity(self.jobs.len());
        for job in &self.jobs {
            all.push(self.answer(system, job).await?);
        }
        Ok(all)
    }

    async fn answer(&self, system: System, job: &Job) -> Result<Answered> {
        let (name, speculate) = match system {
            System::Direct => ("base", false),
            System::Speculative => ("speculative", true),
            System::WsdAlone => ("wsd", false),
            System::Wsd => ("wsd", true),
            System::ThreePasses => return passes::answer(&self.models, &self.options, job).await,
        };
        let strategy = Recipe::find(name)?.build(&self.models, Options { speculate, ..self.options })?;
        let completion = Trace::collect(wsd_core::run(strategy, job.clone())).await?;
        Ok(Answered {
            tokens: completion.tokens.iter().map(|token| token.id).collect(),
            seconds: completion.timings.total,
            switch: completion.handover.map(|handover| handover.at),
            proposed: completion.timings.proposed_tokens,
            accepted: completion.timings.accepted_tokens,
        })
    }
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "base alone",
            Self::Speculative => "base alone, speculating",
            Self::WsdAlone => "wsd without speculation",
            Self::Wsd => "wsd",
            Self::ThreePasses => "three passes",
        }
    }

    /// The system whose tokens these must be, where choices are greedy.
    fn twin(self) -> Option<Self> {
        match self {
            Self::Direct | Self::Wsd => None,
            Self::Speculative => Some(Self::Direct),
            Self::WsdAlone | Self::ThreePasses => Some(Self::Wsd),
        }
    }
}
