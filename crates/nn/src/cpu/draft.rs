//! The layer of a draft head on the CPU.

use std::collections::HashMap;

use super::layer::Norm;
use super::linear::Stored;
use super::loader::Loader;
use super::model::{Embedding, Model};
use super::options::CpuOptions;
use super::place::{Place, Visibility};
use super::step::{Fusion, Sampling, Scratch, Step};
use crate::arch;
use crate::cache::Slot;
use crate::checkpoint::Checkpoint;
use crate::draft::DraftHead;
use crate::error::{Error, Result};
use crate::executor::{self, Cached, Span};

/// The layer of a draft head, with a KV cache per slot. A position is a pair: the base's feature of a
/// token, and the token after it.
pub struct DraftLayer {
    model: Model,
    fusion: Fusion,
    slots: HashMap<u64, Slot>,
    scratch: Scratch,
}

impl DraftLayer {
    /// Loads a head for a base, whose embedding it shares.
    ///
    /// # Errors
    /// Those of [`DraftHead::plan`]; [`Error::Tensors`] naming all that are missing or misshapen.
    pub fn load(head: &DraftHead, base: &Checkpoint, options: CpuOptions) -> Result<Self> {
        let plan = head.plan(base)?;
        let loader = Loader::try_new(&head.weights, &plan.tensors(), options)?;
        let tables = Loader::try_new(&base.weights, &plan.embedding(), options)?;
        let take = |name: &str| loader.take(name);
        let plain = |weight| loader.linear(Stored { weight, bias: None });
        let layer = loader.layer((&plan.layer, plan.parts()), 0)?;
        let blueprint = plan.layer;
        let part = |part: &str| format!("{}.{part}", arch::SAMPLING);
        let sampling = plan.sampling.then(|| {
            let norm = Norm::read(&blueprint, &part("norm"), false, &take)?;
            let linear = |name: &str| plain(take(&part(&format!("{name}.weight")))?);
            let (gate, up, down) = (linear("gate_proj")?, linear("up_proj")?, linear("down_proj")?);
            Ok::<_, Error>(Sampling { norm, gate, up, down })
        });
        let [weight, bias] = ["weight", "bias"].map(|end| take(&format!("{}.{end}", arch::FUSION)));
        let linear = loader.linear(Stored { weight: weight?, bias: Some(bias?.to_f32()) })?;
        let fusion = Fusion { linear, sampling: sampling.transpose()? };
        let embedding = Embedding::read(&blueprint.factors, |name| tables.take(name), plain)?;
        let model = Model {
            simd: options.simd,
            kv: options.kv(),
            bytes: loader.bytes(),
            blueprint,
            embedding,
            positions: None,
            layers: vec![layer],
            final_norm: None,
            heads: Vec::new(),
        };
        Ok(Self { model, fusion, slots: HashMap::new(), scratch: Scratch::default() })
    }

    /// Runs the next positions of a slot: `tokens` and the `features` before them, `(tokens, hidden)`.
    /// Returns, for each position, the state whose logits predict the next token, and the feature of
    /// that token.
    ///
    /// # Errors
    /// [`Error::Span`] for tokens outside the vocabulary or beyond the context; [`Error::Rows`] for
    /// another number of features.
    pub fn extend(&mut self, slot: u64, tokens: &[u32], features: &[f32]) -> Result<[Vec<f32>; 2]> {
        let span = Span::chain(slot, self.cached(slot), tokens);
        executor::check(&self.model.blueprint, std::slice::from_ref(&span), |_| Cached {
            len: span.start,
            fork: None,
        })?;
        self.run(&span, None, features)
    }

    /// Runs nodes of a tree behind the first `root` positions of a slot, as [`DraftLayer::extend`] does.
    /// Each node has the cached positions behind these on the path to it. [`DraftLayer::truncate`]
    /// drops the tree.
    ///
    /// # Errors
    /// Those of [`DraftLayer::extend`]; [`Error::Span`] for a path that is not cached or beyond the context.
    pub fn branch(
        &mut self,
        (slot, root): (u64, usize),
        nodes: &[(u32, Vec<usize>)],
        features: &[f32],
    ) -> Result<[Vec<f32>; 2]> {
        let (cached, limit) = (self.cached(slot), self.model.blueprint.max_len);
        let (tokens, parents): (Vec<_>, Vec<_>) = nodes.iter().map(|(token, _)| (*token, 0)).unzip();
        let span = Span { parents: Some(&parents), ..Span::chain(slot, root, &tokens) };
        executor::check(&self.model.blueprint, std::slice::from_ref(&span), |_| Cached { len: root, fork: None })?;
        let outside = |(_, path): &(u32, Vec<usize>)| {
            if root > cached || path.iter().any(|position| !(root..cached).contains(position)) {
                return Some(format!("a path leads through positions outside {root}..{cached}"));
            }
            let end = root + path.len() + 1;
            (end > limit).then(|| format!("{end} positions exceed the model's limit of {limit}"))
        };
        if let Some(problem) = nodes.iter().find_map(outside) {
            return Err(Error::Span { slot, problem });
        }
        let place = |(index, (_, path)): (usize, &(u32, Vec<usize>))| {
            let seen = path.iter().copied().chain([cached + index]).collect();
            Place { span: 0, position: root + path.len(), visibility: Visibility::Ancestors(seen) }
        };
        let places = nodes.iter().enumerate().map(place).collect();
        self.run(&span, Some(places), features)
    }

    fn run(&mut self, span: &Span<'_>, places: Option<Vec<Place>>, features: &[f32]) -> Result<[Vec<f32>; 2]> {
        let width = self.width();
        if features.len() != span.tokens.len() * width {
            return Err(Error::Rows { floats: features.len(), width });
        }
        if span.tokens.is_empty() {
            return Ok([Vec::new(), Vec::new()]);
        }
        let Self { model, fusion, slots, scratch } = self;
        let slot = slots.entry(span.slot).or_insert_with(|| Slot::new(model.cache_shape()));
        Ok(model.with_workers(span.tokens.len(), |workers| {
            let (slots, spans) = (std::slice::from_mut(slot), std::slice::from_ref(span));
            let step = Step::new(model, workers, scratch, slots, spans);
            places.into_iter().fold(step, Step::at).draft(fusion, features)
        }))
    }

    /// Keeps the first `len` positions of a slot.
    pub fn truncate(&mut self, slot: u64, len: usize) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.truncate(len);
        }
    }

    /// Forgets a slot.
    pub fn release(&mut self, slot: u64) {
        self.slots.remove(&slot);
    }

    /// The number of positions in the cache of a slot.
    #[must_use]
    pub fn cached(&self, slot: u64) -> usize {
        self.tokens(slot).len()
    }

    /// The tokens in the cache of a slot.
    #[must_use]
    pub fn tokens(&self, slot: u64) -> &[u32] {
        self.slots.get(&slot).map_or(&[], |slot| &slot.tokens)
    }

    /// The width of a feature.
    #[must_use]
    pub fn width(&self) -> usize {
        self.model.blueprint.hidden
    }
}
