//! The report of `wsd bench wsd`.

use serde_json::{Value, json};
use wsd::config::{ModelSettings, Settings};
use wsd_core::Seat;

use super::system::{Answer, DIRECT, SYSTEMS, System, THREE_PASSES};
use crate::cli::bench::table::{aligned, median, short};

/// Answers of one system to all prompts, round by round.
pub(super) struct Runs {
    pub(super) system: &'static System,
    pub(super) rounds: Vec<Vec<Answer>>,
}

/// The runs of all systems, in the order of [`SYSTEMS`].
pub(super) struct Report(Vec<Runs>);

impl Runs {
    pub(super) fn new(system: &'static System) -> Self {
        Self { system, rounds: Vec::new() }
    }

    /// Seconds for all prompts, round by round.
    fn seconds(&self) -> Vec<f64> {
        self.rounds.iter().map(|answers| answers.iter().map(|answer| answer.seconds).sum()).collect()
    }

    /// Median over the rounds of the ratio of times in the same round.
    fn ratio(&self, to: &Self) -> f64 {
        median(self.seconds().into_iter().zip(to.seconds()).map(|(one, other)| one / other).collect())
    }

    /// True if the tokens were the same in every round.
    fn has_tokens_of(&self, other: &Self) -> bool {
        let equal = |(one, other): (&Answer, &Answer)| one.tokens == other.tokens;
        self.rounds.iter().zip(&other.rounds).all(|(ones, others)| ones.iter().zip(others).all(equal))
    }

    /// The answers of the first round.
    fn first(&self) -> &[Answer] {
        self.rounds.first().map_or(&[], Vec::as_slice)
    }

    fn tokens(&self) -> usize {
        self.first().iter().map(|answer| answer.tokens.len()).sum()
    }

    /// The switch of each prompt.
    fn switches(&self) -> Vec<Option<usize>> {
        self.first().iter().map(|answer| answer.switch).collect()
    }

    /// Share of the proposed tokens that the base accepted, over all rounds; `None` without
    /// proposals.
    fn acceptance(&self) -> Option<f64> {
        let sum = |count: fn(&Answer) -> usize| self.rounds.iter().flatten().map(count).sum::<usize>() as f64;
        let proposed = sum(|answer| answer.proposed);
        (proposed > 0.0).then(|| sum(|answer| answer.accepted) / proposed)
    }
}

impl Report {
    pub(super) fn new(runs: Vec<Runs>) -> Self {
        Self(runs)
    }

    /// The runs of a system, which must be one of [`SYSTEMS`].
    fn of(&self, system: &'static System) -> &Runs {
        let index = SYSTEMS.iter().position(|other| std::ptr::eq(*other, system)).unwrap_or(0);
        &self.0[index]
    }

    /// The twin of a system, and true if the tokens are the same.
    fn twin(&self, runs: &Runs) -> Option<(&'static str, bool)> {
        runs.system.twin.map(|twin| (twin.name, runs.has_tokens_of(self.of(twin))))
    }

    pub(super) fn json(&self, settings: &Settings) -> Value {
        let (direct, three_passes) = (self.of(&DIRECT), self.of(&THREE_PASSES));
        let system = |runs: &Runs| {
            json!({
                "name": runs.system.name, "seconds": median(runs.seconds()), "tokens": runs.tokens(),
                "to_base_alone": runs.ratio(direct), "to_three_passes": runs.ratio(three_passes),
                "switches": runs.switches(), "acceptance": runs.acceptance(),
                "same_tokens_as": self.twin(runs).map(|(name, same)| json!({"name": name, "same": same})),
                "runs": runs.seconds(),
            })
        };
        let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| &settings.models[&seat]);
        let dtype = |model: &ModelSettings| model.dtype.map(|format| format.name().to_ascii_lowercase());
        json!({
            "base": base.name, "draft": draft.name, "base_dtype": dtype(base), "draft_dtype": dtype(draft),
            "prompts": direct.first().len(), "repeats": direct.rounds.len(),
            "systems": self.0.iter().map(system).collect::<Vec<_>>(),
        })
    }

    pub(super) fn text(&self) -> String {
        let direct = self.of(&DIRECT);
        let head = ["", "seconds", "to base alone", "tokens", "switch", "accepted", "same tokens"].map(str::to_owned);
        let lines = self.0.iter().map(|runs| {
            let switches: Vec<_> = runs.switches().into_iter().flatten().map(|at| at as f64).collect();
            let same = self.twin(runs).map(|(name, same)| format!("{} {name}", if same { "as" } else { "NOT as" }));
            [
                runs.system.name.to_owned(),
                format!("{:.4}", median(runs.seconds())),
                short(runs.ratio(direct)),
                runs.tokens().to_string(),
                if switches.is_empty() { "-".into() } else { short(median(switches)) },
                runs.acceptance().map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
                same.unwrap_or_else(|| "-".into()),
            ]
        });
        let table = aligned(std::iter::once(head).chain(lines));
        let (prompts, rounds) = (direct.first().len(), direct.rounds.len());
        format!("{table}\n{prompts} prompts, medians of {rounds}; ratios are of times in the same round\n")
    }
}
