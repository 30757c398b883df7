//! Results over all prompts, with tables and figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use regex::Regex;
use serde::{Deserialize, Serialize};
use wsd_core::Rule;
use wsd_lab::plot::{Bar, Bars, Lines, Page, Series};
use wsd_lab::stats::{Estimate, mean, mean_of_means, median};

use super::Measured;
use crate::tasks::is_refusal;
use crate::text::punkt::sentences;

/// Positions that one point of a curve averages over.
const BIN: usize = 8;

/// A quantity by position: first position of each bin of eight, and value.
pub type Curve = Vec<(usize, f64)>;

/// The place of a switch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// Row of the input, from 0.
    pub row: usize,
    /// Index of the last drafted token kept, from 0.
    pub token: usize,
    /// Index of the sentence that it belongs to, from 0.
    pub sentence: usize,
    /// Share of the draft that is kept.
    pub share: f64,
    /// `list` within a line that begins with a mark of a list, `opening` within the first sentence, `text`
    /// elsewhere.
    pub stage: String,
}

/// Answers that the base continues after equally long openings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prefix {
    /// Number of drafted tokens kept.
    pub kept: usize,
    /// Number of answers.
    pub n: usize,
    /// Mean score of the rater, with its interval.
    pub score: Option<Estimate>,
    /// Share of refusals.
    pub refused: f64,
}

/// Analyses over all prompts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// Number of prompts measured.
    pub prompts: usize,
    /// Number of prompts that failed.
    pub failed: usize,
    /// Mean probability of the drafted tokens after a number of layers: of those kept before the switch,
    /// and of the others.
    pub layers: Vec<(usize, f64, Option<f64>)>,
    /// Perplexity by position, of the draft's, the base's own and the input's aligned answers.
    pub perplexity: BTreeMap<String, Curve>,
    /// Mean confidence of the window by position, of the same texts.
    pub confidence: BTreeMap<String, Curve>,
    /// Switches under the rule.
    pub switches: Vec<Place>,
    /// Answers after openings of growing length.
    pub prefixes: Vec<Prefix>,
    /// Tokens in the window of the rule.
    pub window: usize,
    /// Threshold of the rule.
    pub threshold: f64,
}

/// The log-probabilities of one of the texts of a row.
type Logprobs = fn(&Measured) -> &[f64];

impl Analysis {
    /// Analyses of the rows of a file, under a rule.
    #[must_use]
    pub fn of(rows: &[Option<Measured>], rule: Rule) -> Self {
        let measured: Vec<_> = rows.iter().flatten().collect();
        let place = |(row, measured): (usize, &Option<Measured>)| place(row, measured.as_ref()?, rule);
        let texts: [(&str, Logprobs); 3] =
            [("draft", |row| &row.logprobs), ("base", |row| &row.own), ("aligned", |row| &row.aligned)];
        let mut analysis = Self {
            prompts: measured.len(),
            failed: rows.len() - measured.len(),
            layers: layers(&measured, rule),
            switches: rows.iter().enumerate().filter_map(place).collect(),
            prefixes: prefixes(&measured),
            window: rule.window(),
            threshold: rule.threshold(),
            ..Self::default()
        };
        for (name, of) in texts {
            let perplexity = curve(measured.iter().map(|row| of(row).iter().copied().map(Some).collect()));
            let confidence = curve(measured.iter().map(|row| rule.confidences(of(row))));
            let perplexity: Curve = perplexity.into_iter().map(|(at, mean)| (at, (-mean).exp())).collect();
            if !perplexity.is_empty() {
                analysis.perplexity.insert(name.to_owned(), perplexity);
                analysis.confidence.insert(name.to_owned(), confidence);
            }
        }
        analysis
    }

    /// Draws the analyses.
    #[must_use]
    pub fn figure(&self) -> Page {
        let lines = |title: &str, x_label: &str, y_label: &str, series: Vec<Series>| Lines {
            title: title.into(),
            x_label: x_label.into(),
            y_label: y_label.into(),
            series,
            ..Lines::default()
        };
        let series = |curves: &BTreeMap<String, Curve>| {
            let points = |curve: &Curve| curve.iter().map(|&(at, value)| (at as f64, value)).collect::<Vec<_>>();
            curves.iter().map(|(name, curve)| Series::new(name, points(curve))).collect::<Vec<_>>()
        };
        let mut confidence = lines("confidence", "token", "geometric mean", series(&self.confidence));
        confidence.rules = vec![(self.threshold, "threshold".into())];
        let mut panels = vec![
            lines("perplexity of the base", "token", "perplexity", series(&self.perplexity)).into(),
            confidence.into(),
        ];
        if !self.layers.is_empty() {
            let kept = self.layers.iter().map(|(layer, kept, _)| (*layer as f64, *kept));
            let rest = self.layers.iter().filter_map(|(layer, _, rest)| Some((*layer as f64, (*rest)?)));
            let curves = vec![Series::new("before the switch", kept), Series::new("after it", rest)];
            panels.push(lines("probability of drafted tokens", "layers", "mean probability", curves).into());
        }
        if !self.prefixes.is_empty() {
            let at = |prefix: &Prefix, value: f64| (prefix.kept as f64, value);
            let scores = self.prefixes.iter().filter_map(|prefix| Some(at(prefix, prefix.score?.value)));
            let mut score = Series::new("score", scores);
            let band = |prefix: &Prefix| prefix.score.map(|score| (prefix.kept as f64, score.low, score.high));
            score.band = self.prefixes.iter().filter_map(band).collect();
            panels.push(lines("answers after an opening", "drafted tokens", "mean score", vec![score]).into());
        }
        let stages = self.stages();
        let bar = |(name, count): (&String, &usize)| {
            let value = Some(100.0 * *count as f64 / self.prompts.max(1) as f64);
            Bar { name: name.clone(), value, ..Bar::default() }
        };
        let bars = stages.iter().map(bar).collect();
        panels
            .push(Bars { title: "place of the switch, %".into(), bars, named: true, most: 100.0, decimals: 0 }.into());
        let note = format!("{} prompts; window {}, threshold {}", self.prompts, self.window, self.threshold);
        Page { title: "Analyses".into(), note, columns: 2, panels }
    }

    /// Numbers of prompts by the stage of the switch, those without one as `never`.
    #[must_use]
    pub fn stages(&self) -> BTreeMap<String, usize> {
        let mut stages = BTreeMap::from([("never".to_owned(), self.prompts - self.switches.len())]);
        for place in &self.switches {
            *stages.entry(place.stage.clone()).or_default() += 1;
        }
        stages
    }

    /// Formats the analyses as markdown tables.
    #[must_use]
    pub fn markdown(&self) -> String {
        let median_of = |of: fn(&Place) -> f64| median(&self.switches.iter().map(of).collect::<Vec<_>>());
        let shown = |value: Option<f64>, decimals| value.map_or("–".into(), |value| format!("{value:.decimals$}"));
        let mut text = format!(
            "{} prompts, {} failed; window {}, threshold {}\n\n| switch | |\n|---|---|\n",
            self.prompts, self.failed, self.window, self.threshold
        );
        for (stage, count) in self.stages() {
            let _ = writeln!(text, "| {stage} | {count} |");
        }
        let _ = writeln!(text, "| median token | {} |", shown(median_of(|place| place.token as f64), 0));
        let _ = writeln!(text, "| median sentence | {} |", shown(median_of(|place| place.sentence as f64), 0));
        let _ = writeln!(text, "| median share of the draft | {} |", shown(median_of(|place| place.share), 2));
        for (title, curves) in [("perplexity", &self.perplexity), ("confidence", &self.confidence)] {
            let _ =
                writeln!(text, "\n| {title} from token | {} |", curves.keys().cloned().collect::<Vec<_>>().join(" | "));
            let _ = writeln!(text, "|---|{}", "---|".repeat(curves.len()));
            let starts: std::collections::BTreeSet<usize> = curves.values().flatten().map(|(at, _)| *at).collect();
            for start in starts {
                let at = |curve: &Curve| curve.iter().find(|(at, _)| *at == start).map(|(_, value)| *value);
                let cells: Vec<_> = curves.values().map(|curve| shown(at(curve), 2)).collect();
                let _ = writeln!(text, "| {start} | {} |", cells.join(" | "));
            }
        }
        if !self.layers.is_empty() {
            text.push_str("\n| layers | probability before the switch | after it |\n|---|---|---|\n");
            for (layers, kept, rest) in &self.layers {
                let _ = writeln!(text, "| {layers} | {kept:.3} | {} |", shown(*rest, 3));
            }
        }
        if !self.prefixes.is_empty() {
            text.push_str("\n| drafted tokens | answers | score | refusals, % |\n|---|---|---|---|\n");
            for Prefix { kept, n, score, refused } in &self.prefixes {
                let score = score.map_or("–".into(), |s| format!("{:.2} [{:.2}, {:.2}]", s.value, s.low, s.high));
                let _ = writeln!(text, "| {kept} | {n} | {score} | {:.0} |", 100.0 * refused);
            }
        }
        text
    }
}

/// The place of a row's switch.
fn place(row: usize, measured: &Measured, rule: Rule) -> Option<Place> {
    static MARK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\s*([-*•#]|\d+[.)])\s").ok());
    let unscored = measured.pieces.len().saturating_sub(measured.logprobs.len());
    let token = unscored + rule.accept_index(&measured.logprobs)?;
    let kept = measured.pieces.get(..=token)?.concat();
    let sentence = sentences(&kept).len().saturating_sub(1);
    let line = kept.trim_end().rsplit('\n').next().unwrap_or_default();
    let stage = match sentence {
        _ if MARK.as_ref().is_some_and(|mark| mark.is_match(line)) => "list",
        0 => "opening",
        _ => "text",
    };
    let share = (token + 1) as f64 / measured.pieces.len() as f64;
    Some(Place { row, token, sentence, share, stage: stage.to_owned() })
}

/// Means over rows and the positions of each bin; absent values do not count.
fn curve(rows: impl Iterator<Item = Vec<Option<f64>>>) -> Curve {
    let mut bins: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for (at, value) in rows.flat_map(|row| row.into_iter().enumerate().collect::<Vec<_>>()) {
        bins.entry(at / BIN * BIN).or_default().extend(value);
    }
    bins.into_iter().filter_map(|(at, values)| Some((at, mean(&values)?))).collect()
}

/// Mean probabilities by layer, of the tokens through the switch and of those after it.
fn layers(measured: &[&Measured], rule: Rule) -> Vec<(usize, f64, Option<f64>)> {
    let mut by_layer: BTreeMap<usize, [Vec<f64>; 2]> = BTreeMap::new();
    for row in measured {
        let kept = rule.accept_index(&row.logprobs).map_or(row.logprobs.len(), |at| at + 1);
        for (layer, values) in &row.layers {
            let [before, after] = by_layer.entry(*layer).or_default();
            let (first, rest) = values.split_at(kept.min(values.len()));
            before.extend(first.iter().map(|value| value.exp()));
            after.extend(rest.iter().map(|value| value.exp()));
        }
    }
    by_layer.into_iter().filter_map(|(layer, [before, after])| Some((layer, mean(&before)?, mean(&after)))).collect()
}

fn prefixes(measured: &[&Measured]) -> Vec<Prefix> {
    let mut by_length: BTreeMap<usize, Vec<(&str, Option<f64>)>> = BTreeMap::new();
    for continued in measured.iter().flat_map(|row| &row.prefixes) {
        by_length.entry(continued.answer.kept).or_default().push((&continued.answer.output, continued.score));
    }
    let prefix = |(kept, answers): (usize, Vec<(&str, Option<f64>)>)| Prefix {
        kept,
        n: answers.len(),
        score: mean_of_means(&[answers.iter().filter_map(|(_, score)| *score).collect()]),
        refused: answers.iter().filter(|(text, _)| is_refusal(text)).count() as f64 / answers.len() as f64,
    };
    by_length.into_iter().map(prefix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::Continued;
    use wsd_lab::three_pass::Continuation;

    fn measured(pieces: &[&str], p: &[f64]) -> Measured {
        let logprobs: Vec<f64> = p.iter().map(|p: &f64| p.ln()).collect();
        Measured {
            pieces: pieces.iter().map(|piece| (*piece).to_owned()).collect(),
            layers: vec![(0, vec![0.25_f64.ln(); p.len()]), (2, logprobs.clone())],
            logprobs,
            own: vec![0.5_f64.ln(); 10],
            ..Measured::default()
        }
    }

    #[test]
    fn places_curves_and_layers_follow_from_the_rows() {
        let rule = Rule::parse(2, 0.8).unwrap();
        let mut first = measured(&["Yes", ".", " Do", " it", "."], &[0.5, 0.5, 0.9, 0.9, 0.1]);
        let answer = Continuation { kept: 2, output: "I'm sorry, I can't help with that.".into() };
        first.prefixes = vec![Continued { answer, score: Some(0.5) }];
        let second = measured(&["Steps", ":\n", "1", ".", " Go"], &[0.1, 0.1, 0.1, 0.9, 0.9]);
        let rows = [Some(first), None, Some(second), Some(measured(&["No", "."], &[0.1, 0.1]))];
        let found = Analysis::of(&rows, rule);
        assert_eq!((found.prompts, found.failed, found.switches.len()), (3, 1, 2));
        let place = &found.switches[0];
        assert_eq!((place.token, place.sentence, place.share, place.stage.as_str()), (3, 1, 0.8, "text"));
        assert_eq!((found.switches[1].row, found.switches[1].stage.as_str()), (2, "list"));
        assert_eq!(found.stages()["never"], 1);
        let [(0, ppl), (8, tail)] = found.perplexity["base"][..] else { panic!("{:?}", found.perplexity) };
        assert!((ppl - 2.0).abs() < 1e-12 && (tail - 2.0).abs() < 1e-12);
        assert!(!found.perplexity.contains_key("aligned"));
        let [(0, shallow, _), (2, deep, Some(rest))] = found.layers[..] else { panic!("{:?}", found.layers) };
        assert!((shallow - 0.25).abs() < 1e-12 && (rest - 0.1).abs() < 1e-12);
        let kept = [0.5, 0.5, 0.9, 0.9, 0.1, 0.1, 0.1, 0.9, 0.9, 0.1, 0.1];
        assert!((deep - kept.iter().sum::<f64>() / 11.0).abs() < 1e-12);
        assert_eq!((found.prefixes[0].kept, found.prefixes[0].refused), (2, 1.0));
        assert!(found.markdown().contains("| median token | 4 |"), "{}", found.markdown());
        assert!(found.figure().svg().contains("perplexity of the base"));
    }
}
