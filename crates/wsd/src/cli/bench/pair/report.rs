//! What the runs of a pair come to.

use serde_json::{Value, json};
use wsd::config::Settings;

use super::{Answered, SYSTEMS, System};
use crate::cli::bench::table::{aligned, median, short};

/// Of each round and each of [`SYSTEMS`], the answers to all prompts.
pub(super) struct Report(Vec<Vec<Vec<Answered>>>);

impl Report {
    pub(super) fn new(rounds: Vec<Vec<Vec<Answered>>>) -> Self {
        Self(rounds)
    }

    /// Seconds of a system for all prompts, round by round.
    fn seconds(&self, system: System) -> Vec<f64> {
        self.of(system).map(|answers| answers.iter().map(|answer| answer.seconds).sum()).collect()
    }

    fn of(&self, system: System) -> impl Iterator<Item = &[Answered]> {
        let place = SYSTEMS.iter().position(|other| *other == system).unwrap_or(0);
        self.0.iter().map(move |round| round[place].as_slice())
    }

    /// The median over the rounds of a system's time by that of another in the same round.
    fn ratio(&self, system: System, to: System) -> f64 {
        let pairs = self.seconds(system).into_iter().zip(self.seconds(to));
        median(pairs.map(|(one, other)| one / other).collect())
    }

    /// Whether a system's tokens were another's, in every round.
    fn same(&self, system: System, other: System) -> bool {
        let equal = |(one, other): (&Answered, &Answered)| one.tokens == other.tokens;
        self.of(system).zip(self.of(other)).all(|(ones, others)| ones.iter().zip(others).all(equal))
    }

    /// The first answers of a system.
    fn first(&self, system: System) -> &[Answered] {
        self.of(system).next().unwrap_or_default()
    }

    fn tokens(&self, system: System) -> usize {
        self.first(system).iter().map(|answer| answer.tokens.len()).sum()
    }

    /// Where the base took over, prompt by prompt.
    fn switches(&self, system: System) -> Vec<Option<usize>> {
        self.first(system).iter().map(|answer| answer.switch).collect()
    }

    /// The share of proposed tokens that the base chose, over all rounds.
    fn acceptance(&self, system: System) -> Option<f64> {
        let sum = |count: fn(&Answered) -> usize| self.of(system).flatten().map(count).sum::<usize>() as f64;
        let proposed = sum(|answer| answer.proposed);
        (proposed > 0.0).then(|| sum(|answer| answer.accepted) / proposed)
    }

    pub(super) fn json(&self, settings: &Settings) -> Value {
        let systems = SYSTEMS.map(|system| {
            json!({
                "name": system.name(), "seconds": median(self.seconds(system)), "tokens": self.tokens(system),
                "to_base_alone": self.ratio(system, System::Direct), "to_three_passes": self.ratio(system, System::ThreePasses),
                "switches": self.switches(system), "acceptance": self.acceptance(system),
                "same_tokens_as": system.twin().map(|twin| json!({"name": twin.name(), "same": self.same(system, twin)})),
                "runs": self.seconds(system),
            })
        });
        json!({
            "base": settings.base.name, "draft": settings.draft.name, "base_dtype": settings.base.dtype,
            "draft_dtype": settings.draft.dtype, "prompts": self.first(System::Direct).len(),
            "repeats": self.0.len(), "systems": systems,
        })
    }

    pub(super) fn text(&self) -> String {
        let head = ["", "seconds", "to base alone", "tokens", "switch", "accepted", "same tokens"].map(str::to_owned);
        let lines = SYSTEMS.map(|system| {
            let switches: Vec<_> = self.switches(system).into_iter().flatten().map(|at| at as f64).collect();
            let same = system.twin().map(|twin| match self.same(system, twin) {
                true => format!("as {}", twin.name()),
                false => format!("NOT as {}", twin.name()),
            });
            [
                system.name().to_owned(),
                format!("{:.4}", median(self.seconds(system))),
                short(self.ratio(system, System::Direct)),
                self.tokens(system).to_string(),
                if switches.is_empty() { "-".into() } else { short(median(switches)) },
                self.acceptance(system).map_or_else(|| "-".into(), |share| format!("{:.0} %", 100.0 * share)),
                same.unwrap_or_else(|| "-".into()),
            ]
        });
        let prompts = self.first(System::Direct).len();
        let table = aligned(std::iter::once(head).chain(lines));
        format!("{table}\n{prompts} prompts, medians of {}; ratios are of times in the same round\n", self.0.len())
    }
}
