//! The report of `wsd bench wsd`.

use serde_json::{Value, json};
use wsd::config::{ModelSettings, Settings};
use wsd_core::{Proposed, Seat};

use super::system::{Answer, DIRECT, System, THREE_PASSES};
use crate::cli::bench::table::{aligned, median, short};

/// Answers of one system to all prompts, round by round.
pub(super) struct Runs {
    pub(super) system: &'static System,
    pub(super) rounds: Vec<Vec<Answer>>,
}

/// The runs of all measured systems.
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

    /// Median over the rounds of the ratio of times in the same round, for each prompt.
    fn ratios(&self, to: &Self) -> Vec<f64> {
        let ratio = |prompt: usize| {
            let rounds = self.rounds.iter().zip(&to.rounds);
            median(rounds.map(|(one, other)| one[prompt].seconds / other[prompt].seconds).collect())
        };
        (0..self.first().len()).map(ratio).collect()
    }

    /// Proposals by source, over all rounds.
    fn proposals(&self) -> Vec<Proposed> {
        let mut sums: Vec<Proposed> = Vec::new();
        for proposed in self.rounds.iter().flatten().flat_map(|answer| &answer.proposals) {
            match sums.iter_mut().find(|sum| sum.by == proposed.by) {
                Some(sum) => {
                    (sum.tokens, sum.accepted) = (sum.tokens + proposed.tokens, sum.accepted + proposed.accepted);
                }
                None => sums.push(*proposed),
            }
        }
        sums
    }

    /// Share of the proposed tokens that the base accepted, over all rounds; `None` without
    /// proposals.
    fn acceptance(&self) -> Option<f64> {
        let proposals = self.proposals();
        let sum = |count: fn(&Proposed) -> usize| proposals.iter().map(count).sum::<usize>() as f64;
        let proposed = sum(|proposed| proposed.tokens);
        (proposed > 0.0).then(|| sum(|proposed| proposed.accepted) / proposed)
    }

    /// Tokens that the base wrote per step, over all rounds; `None` without proposals.
    fn tokens_per_step(&self) -> Option<f64> {
        let sum = |count: fn(&Answer) -> usize| self.rounds.iter().flatten().map(count).sum::<usize>() as f64;
        self.acceptance().map(|_| sum(|answer| answer.base_tokens) / sum(|answer| answer.base_steps))
    }
}

impl Report {
    pub(super) fn new(runs: Vec<Runs>) -> Self {
        Self(runs)
    }

    /// The runs of a system, if it was measured.
    fn of(&self, system: &'static System) -> Option<&Runs> {
        self.0.iter().find(|runs| std::ptr::eq(runs.system, system))
    }

    /// The twin of a system, and true if the tokens are the same.
    fn twin(&self, runs: &Runs) -> Option<(&'static str, bool)> {
        let twin = self.of(runs.system.twin?)?;
        Some((twin.system.name, runs.has_tokens_of(twin)))
    }

    /// The ratio of times to those without speculation, for each prompt.
    fn to_plain(&self, runs: &Runs) -> Option<Vec<f64>> {
        Some(runs.ratios(self.of(runs.system.plain?)?))
    }

    pub(super) fn json(&self, settings: &Settings) -> Value {
        let ratio = |runs: &Runs, system| self.of(system).map(|other| runs.ratio(other));
        let system = |runs: &Runs| {
            let to_plain = self.to_plain(runs);
            json!({
                "name": runs.system.name, "seconds": median(runs.seconds()), "tokens": runs.tokens(),
                "to_base_alone": ratio(runs, &DIRECT), "to_three_passes": ratio(runs, &THREE_PASSES),
                "switches": runs.switches(), "acceptance": runs.acceptance(), "proposals": runs.proposals(),
                "tokens_per_base_step": runs.tokens_per_step(),
                "same_tokens_as": self.twin(runs).map(|(name, same)| json!({"name": name, "same": same})),
                "runs": runs.seconds(),
                "prompts_to_base_alone": self.of(&DIRECT).map(|direct| runs.ratios(direct)),
                "worst_to_plain": to_plain.as_deref().and_then(worst), "prompts_to_plain": to_plain,
            })
        };
        let [base, draft] = [Seat::BASE, Seat::DRAFT].map(|seat| settings.model(seat));
        let name = |model: Option<&ModelSettings>| model.map(|model| model.name.clone());
        let dtype = |model: Option<&ModelSettings>| model?.dtype.map(|format| format.name().to_ascii_lowercase());
        json!({
            "base": name(base), "draft": name(draft), "base_dtype": dtype(base), "draft_dtype": dtype(draft),
            "prompts": self.prompts(), "repeats": self.rounds(),
            "systems": self.0.iter().map(system).collect::<Vec<_>>(),
        })
    }

    fn prompts(&self) -> usize {
        self.0.first().map_or(0, |runs| runs.first().len())
    }

    fn rounds(&self) -> usize {
        self.0.first().map_or(0, |runs| runs.rounds.len())
    }

    pub(super) fn text(&self) -> String {
        let none = || "-".to_owned();
        let head = ["", "seconds", "to base alone", "worst", "tokens", "switch", "per step", "accepted", "same tokens"];
        let lines = self.0.iter().map(|runs| {
            let switches: Vec<_> = runs.switches().into_iter().flatten().map(|at| at as f64).collect();
            let same = self.twin(runs).map(|(name, same)| format!("{} {name}", if same { "as" } else { "NOT as" }));
            let worst = self.to_plain(runs).as_deref().and_then(worst);
            let accepted = runs.proposals().into_iter().map(|sum| {
                format!("{} {:.0} % of {}", sum.by, 100.0 * sum.accepted as f64 / sum.tokens.max(1) as f64, sum.tokens)
            });
            let accepted = accepted.collect::<Vec<_>>().join(", ");
            [
                runs.system.name.to_owned(),
                format!("{:.4}", median(runs.seconds())),
                self.of(&DIRECT).map_or_else(none, |direct| short(runs.ratio(direct))),
                worst.map_or_else(none, short),
                runs.tokens().to_string(),
                if switches.is_empty() { none() } else { short(median(switches)) },
                runs.tokens_per_step().map_or_else(none, short),
                if accepted.is_empty() { none() } else { accepted },
                same.unwrap_or_else(none),
            ]
        });
        let table = aligned(std::iter::once(head.map(str::to_owned)).chain(lines));
        let (prompts, rounds) = (self.prompts(), self.rounds());
        format!(
            "{table}\n{prompts} prompts, medians of {rounds}; ratios are of times in the same round; worst: the prompt \
             that speculation served worst, to the same without it\n"
        )
    }
}

/// The largest ratio.
fn worst(ratios: &[f64]) -> Option<f64> {
    ratios.iter().copied().max_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::super::system::{WSD, WSD_ALONE};
    use super::*;

    fn runs(system: &'static System, rounds: &[[f64; 2]]) -> Runs {
        let answer = |&seconds: &f64| Answer { seconds, ..Answer::default() };
        Runs { system, rounds: rounds.iter().map(|round| round.iter().map(answer).collect()).collect() }
    }

    #[test]
    fn the_worst_prompt_is_that_of_the_largest_median_ratio() {
        let plain = runs(&WSD_ALONE, &[[1.0, 2.0], [1.0, 2.0], [2.0, 2.0]]);
        let report = Report::new(vec![plain, runs(&WSD, &[[0.5, 2.2], [9.0, 2.1], [1.2, 1.0]])]);
        let ratios = report.to_plain(&report.0[1]).unwrap();
        assert_eq!((ratios.clone(), worst(&ratios)), (vec![0.6, 1.05], Some(1.05)));
        assert_eq!(report.to_plain(&report.0[0]), None);
        assert!(report.text().contains("1.05"), "{}", report.text());
    }
}
