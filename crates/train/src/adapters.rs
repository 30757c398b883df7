//! Adapters: parametrizations of a model's weights, one entry each in [`ADAPTERS`].
//!
//! An adapter turns parameters into weights and carries the gradient of the weights back to the
//! parameters; the model and the optimizer know nothing of it. Names of settings and tensors are
//! those of PEFT, so that [`save`] and [`load`] follow from an entry's declarations.

mod dora;
mod full;
mod lora;
mod oft;
mod orthogonal;
mod partial;
mod peft;
mod targets;

use std::ops::Range;

use wsd_core::{Setting, Values};

pub use peft::{load, save};

use crate::error::Result;
use crate::layout::Layout;

/// A parametrization of weights; an entry of [`ADAPTERS`].
#[derive(Debug)]
pub struct AdapterEntry {
    /// The name in run files.
    pub name: &'static str,
    /// One line for the documentation.
    pub about: &'static str,
    /// The adapter in PEFT's `adapter_config.json`; `None` where the parameters are weights.
    pub peft: Option<Peft>,
    /// The settings of this adapter, named as in `adapter_config.json`.
    pub settings: &'static [&'static Setting],
    /// Defaults that the declarations of the settings cannot hold, such as lists.
    pub defaults: fn() -> Values,
    /// Makes the adapter of a model with these weights.
    pub make: MakeAdapter,
}

/// The marks of an adapter in PEFT's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Peft {
    /// The value of `peft_type`.
    pub kind: &'static str,
    /// Keys that tell variants of a type apart, and their values; a key that is absent counts as
    /// false.
    pub flags: &'static [(&'static str, bool)],
}

/// The constructor of an adapter from the layout of a model, its weights and the settings.
pub type MakeAdapter = fn(&Layout, Vec<f32>, &Values) -> Result<Box<dyn Adapter>>;

/// All adapters; the first is the default.
pub static ADAPTERS: &[&AdapterEntry] = &[
    // In the order of messages.
    &full::ENTRY,
    &partial::ENTRY,
    &lora::ENTRY,
    &dora::ENTRY,
    &oft::ENTRY,
    &orthogonal::ENTRY,
];

impl AdapterEntry {
    /// The adapter of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        ADAPTERS.iter().copied().find(|entry| entry.name == name)
    }
}

/// A parametrization of one model's weights.
///
/// ```
/// use wsd_core::Values;
/// use wsd_train::{AdapterEntry, Layout};
///
/// let layout = Layout::of(vec![("model.layers.0.mlp.down_proj.weight".into(), vec![1, 2])]);
/// let lora = AdapterEntry::find("lora").unwrap();
/// let values = Values::default().with(lora.settings[0], 1usize)?; // the rank
/// let mut adapter = (lora.make)(&layout, vec![1.0, 2.0], &values)?;
/// assert_eq!(adapter.layout().places()[0].name, "model.layers.0.mlp.down_proj.lora_A.weight");
///
/// // A = [3, 4], B = [0.5], lora_alpha / r = 32.
/// assert_eq!(adapter.merge(&[3.0, 4.0, 0.5]), [1.0 + 48.0, 2.0 + 64.0]);
/// # Ok::<(), wsd_train::Error>(())
/// ```
pub trait Adapter: Send {
    /// The tensors that the parameters form.
    fn layout(&self) -> &Layout;

    /// The initial parameters. [`Adapter::merge`] makes of them the weights that the adapter was
    /// made with, to the bit. To be called once.
    fn start(&mut self, seed: u64) -> Vec<f32>;

    /// Tells how the model's tensor `name` depends on the parameters.
    fn trained(&self, name: &str) -> Trained;

    /// Tells whether the model's tensor `name` depends on the parameters.
    fn changes(&self, name: &str) -> bool {
        self.trained(name) != Trained::Frozen
    }

    /// Tells whether all changes are low-rank ([`Trained::LowRank`]).
    fn is_low_rank(&self) -> bool {
        false
    }

    /// The weights that low-rank changes are added to; empty for other adapters.
    fn unchanged(&self) -> &[f32] {
        &[]
    }

    /// The model's weights for these parameters.
    fn merge<'w>(&'w mut self, parameters: &'w [f32]) -> &'w [f32];

    /// The gradient with respect to the parameters, given that with respect to the weights; `None` where
    /// the model computes it: where the parameters are the weights, and for low-rank changes.
    fn pull_back(&self, parameters: &[f32], gradient: &[f32]) -> Option<Vec<f32>>;
}

/// The way in which a tensor of the model depends on the parameters of an adapter.
#[derive(Clone, Debug, PartialEq)]
pub enum Trained {
    /// Not at all.
    Frozen,
    /// In the adapter's own way, for which it needs the gradient with respect to the tensor.
    Whole,
    /// By a low-rank change, as all other tensors that change. The model then computes the gradient with
    /// respect to the parameters.
    LowRank(LowRank),
}

impl Trained {
    /// [`Trained::Whole`] for a tensor that changes.
    #[must_use]
    pub fn whole_if(changes: bool) -> Self {
        if changes { Self::Whole } else { Self::Frozen }
    }
}

/// A change `scale * B * A` of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    /// The place of `A`, `(rank, inputs)`, among the parameters.
    pub a: Range<usize>,
    /// The place of `B`, `(outputs, rank)`, among the parameters.
    pub b: Range<usize>,
    /// The number of rows of `A`.
    pub rank: usize,
    /// The factor on the product.
    pub scale: f32,
}
