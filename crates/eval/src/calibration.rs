//! A proposal of window and threshold for a pair of models, with its evidence.
//!
//! A good rule passes on the draft's text, which the base could continue, and not on words in random
//! order. The proposal is the rule with the largest difference between the two shares. A switch whose
//! window repeats what stands just before does not count: repeated text is likely under any model.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use wsd_core::{Rule, Window, repeats};
use wsd_lab::eval::Grid;
use wsd_lab::stats::{mean, median, quantile};

use crate::EvalError;
use crate::sweep::Draft;

/// Difference of shares below which two rules count as equally good.
const EQUAL: f64 = 0.02;
/// The smallest difference of shares at which a pair counts as fit.
const FIT: f64 = 0.5;
/// Number of prompts below which a calibration tells that they are few.
const FEW: usize = 30;
/// Share of repeated windows from which the proposal tells of them.
const REPEATED: f64 = 0.1;
/// Quantiles of the distributions.
const QUANTILES: [f64; 5] = [0.05, 0.25, 0.5, 0.75, 0.95];

/// Quantiles of the base's confidence over the windows of one kind of text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// The 5, 25, 50, 75 and 95 percent quantiles; empty without a window.
    pub quantiles: Vec<f64>,
}

/// One rule on three kinds of text. Shares are in `[0, 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Tokens in the window.
    pub window: usize,
    /// Threshold of the geometric mean.
    pub threshold: f64,
    /// Share of the drafts in which the window passes.
    pub draft: f64,
    /// Share of the base's own answers in which the window passes.
    pub own: f64,
    /// Share of the shuffled texts in which the window passes.
    pub shuffled: f64,
    /// Median 0-based index of the draft's token at which the window passes.
    pub median_switch: Option<f64>,
    /// Mean share of the draft's tokens that are kept.
    pub kept_share: f64,
    /// Share of the drafts whose first passing window repeats what stands just before.
    pub repeated: f64,
    /// Predicted seconds for an answer as long as the draft, relative to the base alone.
    pub time_to_base: Option<f64>,
}

impl Candidate {
    /// True if so many first windows repeat text that they should not count.
    #[must_use]
    pub fn needs_guard(&self) -> bool {
        self.repeated >= REPEATED
    }

    /// Difference between the shares of drafts and of shuffled texts.
    #[must_use]
    pub fn separation(&self) -> f64 {
        self.draft - self.shuffled
    }
}

/// A calibration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Number of prompts.
    pub prompts: usize,
    /// Number of prompts that failed; they are left out.
    pub failed: usize,
    /// The proposal.
    pub proposal: Candidate,
    /// The paper's rule: a window of 6 and a threshold of 0.8.
    pub paper: Candidate,
    /// The rule in use.
    pub in_use: Candidate,
    /// True if the pair fits: the proposal separates drafts from shuffled texts.
    pub fits: bool,
    /// The base's confidence on drafts, its own answers and shuffled texts, at the proposal's window.
    pub confidence: [Confidence; 3],
    /// Every rule that was tried.
    pub candidates: Vec<Candidate>,
}

/// The grid of a calibration: windows of 4 to 12 tokens, thresholds of 0.2 to 0.95.
#[must_use]
pub fn grid() -> Grid {
    Grid { windows: vec![4, 6, 8, 12], thresholds: (4..20).map(|step| f64::from(step) / 20.0).collect() }
}

impl Calibration {
    /// Computes the proposal from drafts with their contrasts, beside the rule in use; `None` if every
    /// prompt failed.
    ///
    /// # Errors
    /// [`EvalError::Engine`] for a rule out of range.
    pub fn of(drafts: &[Option<Draft>], in_use: Rule) -> Result<Option<Self>, EvalError> {
        let known: Vec<&Draft> = drafts.iter().flatten().filter(|draft| draft.contrast.is_some()).collect();
        let rules = grid().rules()?;
        let candidates: Vec<_> = rules.iter().map(|&rule| candidate(&known, rule)).collect();
        let best = candidates.iter().map(Candidate::separation).fold(f64::NEG_INFINITY, f64::max);
        let paper = Rule::default();
        let near = |one: &&Candidate| {
            (std::cmp::Reverse(one.window.abs_diff(paper.window())), (one.threshold * 1000.0) as u64)
        };
        let good = candidates.iter().filter(|one| one.separation() >= best - EQUAL);
        let Some(proposal) = good.max_by_key(near).filter(|_| !known.is_empty()).copied() else { return Ok(None) };
        let window = Rule::parse(proposal.window, proposal.threshold)?;
        let of = |text: fn(&Draft) -> &[f64]| Confidence::of(&known, window, text);
        Ok(Some(Self {
            prompts: known.len(),
            failed: drafts.len() - known.len(),
            proposal,
            paper: candidate(&known, paper),
            in_use: candidate(&known, in_use),
            fits: proposal.separation() >= FIT,
            confidence: [of(|draft| &draft.logprobs), of(own), of(shuffled)],
            candidates,
        }))
    }

    /// The proposal and its evidence in words and a table.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = "| rule | drafts | own answers | shuffled | switch | kept | repeated | time |\n\
                        |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        let rules = [("proposal", &self.proposal), ("paper", &self.paper), ("in use", &self.in_use)];
        for (name, one) in rules.into_iter().filter(|(name, one)| *name != "in use" || **one != self.paper) {
            let _ = writeln!(
                text,
                "| {name}: window {}, threshold {} | {:.0} % | {:.0} % | {:.0} % | {} | {:.0} % | {:.0} % | {} |",
                one.window,
                one.threshold,
                100.0 * one.draft,
                100.0 * one.own,
                100.0 * one.shuffled,
                one.median_switch.map_or("never".into(), |at| format!("token {at:.0}")),
                100.0 * one.kept_share,
                100.0 * one.repeated,
                one.time_to_base.map_or("–".into(), |time| format!("{time:.2}")),
            );
        }
        text.push_str(
            "\nShares of the texts in which the window passes; a window that repeats what stands just before does \
             not count. *Kept*: share of the draft. *Repeated*: share of the drafts whose first passing window is a \
             repetition. *Time*: predicted for an answer as long as the draft, relative to the base alone.\n\n\
             | the base's confidence on | 5 % | 25 % | 50 % | 75 % | 95 % |\n|---|---|---|---|---|---|\n",
        );
        for (name, confidence) in ["drafts", "own answers", "shuffled words"].iter().zip(&self.confidence) {
            let cells = confidence.quantiles.iter().map(|value| format!(" {value:.2} |"));
            let _ = writeln!(text, "| {name} |{}", cells.collect::<String>());
        }
        let _ = write!(text, "\n{} prompts. {}", self.prompts, self.judgement());
        text
    }

    /// A judgement in a few sentences.
    #[must_use]
    pub fn judgement(&self) -> String {
        let difference = 100.0 * self.proposal.separation();
        let mut text = if self.fits {
            format!(
                "The pair fits: the rule passes on {difference:.0} points more of the drafts than of shuffled words.\n"
            )
        } else {
            format!(
                "The pair does not fit: no rule passes on at least {:.0} points more of the drafts than of shuffled \
                 words (the best: {difference:.0}).\n  hint: a larger base, or a draft that writes more like it\n",
                100.0 * FIT
            )
        };
        if self.prompts < FEW {
            let _ = writeln!(
                text,
                "{} prompts are few: a share may be wrong by {:.0} points; take at least {FEW}.",
                self.prompts,
                // The normal approximation of a 95 % interval of a share of one half.
                98.0 / (self.prompts as f64).sqrt()
            );
        }
        if self.proposal.needs_guard() {
            let _ = writeln!(
                text,
                "Repetition: in {:.0} % of the drafts the first window that passes repeats what stands just before it; \
                 `skip_repetitions = true` leaves such windows out.",
                100.0 * self.proposal.repeated
            );
        }
        text
    }
}

fn own(draft: &Draft) -> &[f64] {
    draft.contrast.as_ref().map_or(&[], |contrast| &contrast.own)
}

fn shuffled(draft: &Draft) -> &[f64] {
    draft.contrast.as_ref().map_or(&[], |contrast| &contrast.shuffled)
}

/// Index of the first token at which the window passes without a repetition.
fn guarded_switch(draft: &Draft, rule: Rule) -> Option<usize> {
    let unscored = draft.tokens.len().saturating_sub(draft.logprobs.len());
    let mut window = Window::new(rule);
    let passes = |(at, &logprob): (usize, &f64)| {
        let passed = window.push(logprob).is_some_and(|state| state.passed);
        passed && !repeats(draft.tokens.get(..=unscored + at).unwrap_or_default(), rule.window())
    };
    draft.logprobs.iter().enumerate().position(passes).map(|at| unscored + at)
}

fn candidate(drafts: &[&Draft], rule: Rule) -> Candidate {
    let count = drafts.len().max(1) as f64;
    let share = |text: fn(&Draft) -> &[f64]| {
        drafts.iter().filter(|draft| rule.accept_index(text(draft)).is_some()).count() as f64 / count
    };
    let switches: Vec<_> = drafts.iter().map(|draft| guarded_switch(draft, rule)).collect();
    let at: Vec<f64> = switches.iter().flatten().map(|&at| at as f64).collect();
    let kept = switches.iter().zip(drafts).map(|(at, draft)| {
        let all = draft.tokens.len();
        (at.map_or(all, |at| at + 1), all)
    });
    let kept: Vec<(usize, usize)> = kept.collect();
    let shares: Vec<f64> = kept.iter().map(|(kept, all)| *kept as f64 / (*all).max(1) as f64).collect();
    let is_repeated =
        |draft: &&&Draft| draft.switch(rule).is_some_and(|at| repeats(&draft.tokens[..=at], rule.window()));
    Candidate {
        window: rule.window(),
        threshold: rule.threshold(),
        draft: at.len() as f64 / count,
        own: share(own),
        shuffled: share(shuffled),
        median_switch: median(&at),
        kept_share: mean(&shares).unwrap_or(0.0),
        repeated: drafts.iter().filter(is_repeated).count() as f64 / count,
        time_to_base: time_to_base(drafts, &kept),
    }
}

/// Predicted time of answers as long as the drafts: the kept tokens are drafted and scored, the base
/// writes the others.
fn time_to_base(drafts: &[&Draft], kept: &[(usize, usize)]) -> Option<f64> {
    let sum = |of: &dyn Fn(&Draft) -> f64| drafts.iter().map(|draft| of(draft)).sum::<f64>();
    let own_tokens = sum(&|draft| own(draft).len() as f64);
    let own_seconds = sum(&|draft| draft.contrast.as_ref().map_or(0.0, |contrast| contrast.own_seconds));
    let (kept, all) = kept.iter().fold((0, 0), |sum, (kept, all)| (sum.0 + kept, sum.1 + all));
    let per_draft = sum(&|draft| draft.seconds[0] + draft.seconds[1]) / all as f64;
    let per_own = own_seconds / own_tokens;
    let ratio = (kept as f64 * per_draft + (all - kept) as f64 * per_own) / (all as f64 * per_own);
    ratio.is_finite().then_some(ratio)
}

impl Confidence {
    fn of(drafts: &[&Draft], rule: Rule, text: fn(&Draft) -> &[f64]) -> Self {
        let values: Vec<f64> = drafts.iter().flat_map(|draft| rule.confidences(text(draft))).flatten().collect();
        Self { quantiles: QUANTILES.iter().filter_map(|&share| quantile(&values, share)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::Contrast;

    /// A draft of 20 tokens with one probability for the first half and one for the second.
    fn draft(first: f64, second: f64, tokens: impl Fn(u32) -> u32) -> Option<Draft> {
        let contrast = Contrast { own: vec![0.6_f64.ln(); 20], own_seconds: 2.0, shuffled: vec![0.1_f64.ln(); 20] };
        Some(Draft {
            tokens: (0..20).map(tokens).collect(),
            logprobs: (0..20).map(|at| if at < 10 { first.ln() } else { second.ln() }).collect(),
            seconds: [0.5, 0.5],
            contrast: Some(contrast),
            ..Draft::default()
        })
    }

    #[test]
    fn the_rule_that_separates_is_proposed() {
        let drafts = vec![draft(0.3, 0.62, |at| at); 9];
        let found = Calibration::of(&drafts, Rule::default()).unwrap().unwrap();
        assert_eq!((found.proposal.window, found.proposal.threshold), (6, 0.6));
        assert!(found.fits && found.proposal.separation() == 1.0 && found.paper.draft == 0.0);
        assert_eq!(found.proposal.median_switch, Some(15.0));
        // 16 of 20 tokens cost half of the base's, 4 cost as much.
        assert!((found.proposal.time_to_base.unwrap() - 0.6).abs() < 1e-9);
        let text = found.markdown();
        assert!(text.contains("window 6, threshold 0.6") && text.contains("9 prompts are few"), "{text}");
    }

    #[test]
    fn repetitions_do_not_count_and_are_told() {
        let repeated = vec![draft(0.01, 0.95, |at| at % 4); 4];
        let found = Calibration::of(&repeated, Rule::default()).unwrap().unwrap();
        assert_eq!((found.paper.draft, found.paper.repeated, found.fits), (0.0, 1.0, false));
        assert_eq!(Calibration::of(&[None], Rule::default()).unwrap(), None);
    }
}
