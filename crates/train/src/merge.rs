//! Merging fine-tunes of one base model into one model.
//!
//! Most methods compute each weight from the weights of the base and the experts at its place;
//! [`MERGES`] is the table of them. [`smile()`] keeps the base and adds routed experts of low rank.

mod dare;
mod linear;
mod slerp;
mod smile;
mod ties;

use wsd_nn::arch;
use wsd_nn::{Adapter, Checkpoint, Format, Tensor, Weights};

use crate::error::{Error, Result};

pub use smile::{SmileOptions, smile};

/// A fine-tune of the base.
#[derive(Debug)]
pub struct Expert {
    /// The name, for messages.
    pub name: String,
    /// Weight of the model among the experts.
    pub weight: f32,
    /// Weights of the expert, or its changes to the base.
    pub source: ExpertSource,
}

/// The form of an expert.
#[derive(Debug)]
pub enum ExpertSource {
    /// A whole model.
    Model(Box<Checkpoint>),
    /// A LoRA adapter of the base.
    Adapter(Adapter),
}

/// Settings of the methods; each reads those that it names.
#[derive(Clone, Copy, Debug)]
pub struct MergeOptions {
    /// Factor on the sum of the experts' changes.
    pub scale: f32,
    /// Share of an expert's changes that is kept, above 0, at most 1.
    pub density: f32,
    /// Position between the base, 0, and the expert, 1.
    pub t: f32,
    /// Seed of random choices.
    pub seed: u64,
}

/// The values of one tensor in all models.
pub struct MergeInput<'a> {
    /// Values of the base's tensor.
    pub base: &'a [f32],
    /// Values of each expert's tensor.
    pub experts: &'a [Vec<f32>],
    /// The weight of each expert.
    pub weights: &'a [f32],
    /// The settings.
    pub options: MergeOptions,
    /// A number that differs among tensors, for random choices.
    pub index: u64,
}

impl MergeInput<'_> {
    /// The change of each expert, `expert - base`.
    fn changes(&self) -> Vec<Vec<f32>> {
        let change = |expert: &Vec<f32>| expert.iter().zip(self.base).map(|(expert, base)| expert - base).collect();
        self.experts.iter().map(change).collect()
    }

    /// The base plus scaled changes.
    fn plus(&self, changes: &[f32]) -> Vec<f32> {
        self.base.iter().zip(changes).map(|(base, change)| base + self.options.scale * change).collect()
    }
}

/// A method of merging, computed tensor by tensor.
pub struct MergeMethod {
    /// Name on the command line.
    pub name: &'static str,
    /// One line about it, with its source.
    pub about: &'static str,
    /// The number of experts, if only one number is possible.
    pub experts: Option<usize>,
    /// True if the experts' weights are divided by their sum.
    pub is_mean: bool,
    /// Computes the values of a tensor.
    pub merge: fn(&MergeInput<'_>) -> Vec<f32>,
}

/// All methods but SMILE.
pub static MERGES: &[&MergeMethod] =
    &[&linear::LINEAR, &linear::TASK_ARITHMETIC, &ties::TIES, &dare::DARE, &dare::DARE_TIES, &slerp::SLERP];

/// Merges experts into a base: a model of the base's configuration, in `format`. Tensors whose rows
/// `format` cannot hold become F32.
///
/// # Errors
/// [`Error::Merge`] for experts of another shape, naming their tensors; a setting outside its limits.
pub fn merge(
    base: &Checkpoint,
    experts: &[Expert],
    method: &MergeMethod,
    options: MergeOptions,
    format: Format,
) -> Result<Checkpoint> {
    check(base, experts, method.experts)?;
    if !(options.density > 0.0 && options.density <= 1.0) {
        return Err(Error::setting("density", "above 0 and at most 1", options.density));
    }
    let weights: Vec<f32> = experts.iter().map(|expert| expert.weight).collect();
    if method.is_mean && weights.iter().sum::<f32>() == 0.0 {
        return Err(Error::setting("weight", "numbers whose sum is not 0 for a mean", 0));
    }
    rebuilt(base, format, |index, tensor| {
        let values = tensor.to_f32();
        let of_experts = experts.iter().map(|expert| expert.values(tensor, &values)).collect::<Result<Vec<_>>>()?;
        let index = index as u64;
        let input = MergeInput { base: &values, experts: &of_experts, weights: &weights, options, index };
        Ok((method.merge)(&input))
    })
}

/// Returns a model with its weights in another format.
///
/// # Errors
/// A format that cannot be written.
pub fn in_format(base: &Checkpoint, format: Format) -> Result<Checkpoint> {
    rebuilt(base, format, |_, tensor| Ok(tensor.to_f32()))
}

/// Returns a model with new values for each tensor, which is given with its index.
fn rebuilt(
    base: &Checkpoint,
    format: Format,
    values: impl Fn(usize, &Tensor) -> Result<Vec<f32>>,
) -> Result<Checkpoint> {
    let rebuild = |(index, tensor): (usize, &Tensor)| {
        let format = if tensor.fits(format) { format } else { Format::F32 };
        Ok(Tensor::new(&*tensor.name, format, tensor.shape.clone(), format.quantize(&values(index, tensor)?)?)?)
    };
    let tensors = base.weights.iter().enumerate().map(rebuild).collect::<Result<Vec<_>>>()?;
    let mut rebuilt = base.clone();
    rebuilt.weights = Weights::new(&*base.name, tensors);
    Ok(rebuilt)
}

impl Expert {
    /// The expert's values of a tensor of the base.
    fn values(&self, tensor: &Tensor, base: &[f32]) -> Result<Vec<f32>> {
        match &self.source {
            ExpertSource::Model(model) => {
                let found = model.weights.require(&[(tensor.name.clone(), tensor.shape.clone())])?;
                Ok(found[0].to_f32())
            }
            ExpertSource::Adapter(adapter) => {
                let change = tensor.name.strip_suffix(".weight").and_then(|module| adapter.change(module));
                Ok(match change {
                    Some(change) => base.iter().zip(change).map(|(base, change)| base + change).collect(),
                    None => base.to_vec(),
                })
            }
        }
    }
}

/// Checks that experts can be fine-tunes of the base.
fn check(base: &Checkpoint, experts: &[Expert], count: Option<usize>) -> Result<()> {
    let wrong = |expert: &Expert, reason: String| Error::Merge { expert: expert.name.clone(), reason };
    match count {
        _ if experts.is_empty() => return Err(Error::setting("model", "at least one expert", 0)),
        Some(count) if experts.len() != count => {
            return Err(Error::setting("model", format!("{count} expert for this method"), experts.len()));
        }
        _ => {}
    }
    let blueprint = arch::blueprint(&base.config)?;
    for expert in experts {
        if !expert.weight.is_finite() {
            return Err(Error::setting("weight", "a finite number", expert.weight));
        }
        match &expert.source {
            ExpertSource::Model(model) => {
                let shapes = base.weights.iter().map(|tensor| (tensor.name.clone(), tensor.shape.clone()));
                model.weights.require(&shapes.collect::<Vec<_>>()).map_err(|error| wrong(expert, error.to_string()))?;
                let is_foreign = |tensor: &&Tensor| base.weights.get(&tensor.name).is_none();
                if let Some(tensor) = model.weights.iter().find(is_foreign) {
                    return Err(wrong(expert, format!("`{}` is not in the base", tensor.name)));
                }
            }
            ExpertSource::Adapter(adapter) => {
                adapter.check(&blueprint).map_err(|error| wrong(expert, error.to_string()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
