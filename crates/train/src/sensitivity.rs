//! Effect of cues: distributions over the same answer to a prompt with and without a cue.

use crate::error::Result;
use crate::example::{Example, Sequence};
use crate::metrics::Means;
use crate::model::{Pass, TrainableModel};
use crate::objectives::{Loss, LossInput, LossOutput, Measure, Needs, Totals};

/// The mean effect of cues on the tokens of answers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sensitivity {
    /// The number of answers.
    pub rows: usize,
    /// The Kullback-Leibler divergence from the distribution without a cue to that with it, in nats
    /// per token.
    pub divergence: f64,
    /// The loss of log-probability of the answer by the cue, in nats per token; negative where the
    /// cue makes the answer likelier.
    pub drop: f64,
}

/// Measures a model on pairs of sequences, each a prompt without and with a cue before the same
/// answer, whose tokens are the targets.
///
/// ```
/// use wsd_nn::{Checkpoint, arch};
/// use wsd_train::sensitivity::sensitivity;
/// use wsd_train::{Layout, ModelOptions, Sequence, TrainableModel, Trained};
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../nn/tests/fixtures/llama");
/// # let checkpoint = Checkpoint::open(folder.as_ref())?;
///
/// let blueprint = arch::blueprint(&checkpoint.config)?;
/// let weights = Layout::new(&blueprint).read(&checkpoint)?;
/// let options = ModelOptions { threads: 1, max_len: 16, trained: &|_| Trained::Frozen, ..ModelOptions::default() };
/// let mut model = TrainableModel::try_new(&blueprint, &options)?;
/// let plain = Sequence::targets_from(2, vec![5, 6, 7, 8]);
/// let cued = Sequence::targets_from(3, vec![9, 5, 6, 7, 8]);
/// let same = sensitivity(&mut model, &weights, &[[plain.clone(), plain.clone()]])?;
/// assert_eq!((same.divergence, same.drop), (0.0, 0.0));
/// assert!(sensitivity(&mut model, &weights, &[[plain, cued]])?.divergence > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`TrainableModel::pass`].
pub fn sensitivity(model: &mut TrainableModel, weights: &[f32], pairs: &[[Sequence; 2]]) -> Result<Sensitivity> {
    let example = |pair: &[Sequence; 2]| Example { sequences: pair.to_vec(), ..Example::default() };
    let examples: Vec<_> = pairs.iter().map(example).collect();
    let examples: Vec<_> = examples.iter().collect();
    let (totals, needs, loss) = (Totals::of(&examples), Needs::Rows, &Shift);
    let pass = Pass { weights, parameters: &[], reference: &[], examples: &examples, totals, loss, needs, weight: 1.0 };
    let mut means = Means::default();
    means.add(&model.pass(&pass, None)?);
    let mean = |name| means.get(name).unwrap_or_default();
    Ok(Sensitivity { rows: pairs.len(), divergence: mean("divergence"), drop: mean("drop") })
}

/// A pseudo-loss of the two sequences of an example.
struct Shift;

impl Loss for Shift {
    fn compute(&self, input: &LossInput<'_>) -> LossOutput {
        let width = input.width.max(1);
        let (plain, cued) = input.logprobs.split_at(input.example.targets() * width);
        let rows = plain.chunks_exact(width).zip(cued.chunks_exact(width));
        let (mut divergence, mut drop, mut tokens) = (0.0, 0.0, 0.0);
        for ((plain, cued), target) in rows.zip(input.targets()) {
            let term = |(p, q): (&f32, &f32)| f64::from(*p).exp() * f64::from(p - q);
            divergence += plain.iter().zip(cued).map(term).sum::<f64>();
            drop += f64::from(plain[target as usize] - cued[target as usize]);
            tokens += 1.0;
        }
        let mean = |name, sum| Measure { name, sum, weight: tokens };
        LossOutput { measures: vec![mean("divergence", divergence), mean("drop", drop)], ..LossOutput::default() }
    }
}
