//! The model without caches: its weights, and the computation from token ids to head outputs.

use candle_core::Tensor;

use super::attention::attend;
use super::batch::Batch;
use super::experts::{self, Expert};
use super::layers::{Linear, Norm, Projections, rotate, softcap};
use super::wide::WIDE;
use crate::arch::{self, Blueprint, Head, HeadPlan, QkNorm, StoredLinear, StoredNorm};
use crate::error::{Error, Result};

/// A decoder of any [`Blueprint`]. Every operation lets gradients pass, from logits to every
/// weight, so a decoder of variables can be trained.
pub struct Decoder {
    blueprint: Blueprint,
    embedding: Tensor,
    positions: Option<Tensor>,
    layers: Vec<Layer>,
    final_norm: Norm,
    heads: Vec<(Head, Linear)>,
}

/// The weights of one layer.
struct Layer {
    pre_attention: Option<Norm>,
    post_attention: Option<Norm>,
    pre_mlp: Option<Norm>,
    post_mlp: Option<Norm>,
    query_norm: Option<Norm>,
    key_norm: Option<Norm>,
    /// Queries, keys, values.
    heads: Projections,
    output: Linear,
    /// The sinks of the query heads.
    sinks: Option<Tensor>,
    router: Option<Linear>,
    /// The experts; one for a dense model.
    experts: Vec<Expert>,
}

/// The surroundings of a forward pass: a KV cache, and observers of hidden states.
pub(super) trait Context {
    /// Takes the keys and values of a piece in a layer, rotated, `(kv_heads, tokens, head_dim)`
    /// each; returns those of its sequence from the first position to the last of the piece.
    ///
    /// # Errors
    /// Those of the device.
    fn remember(&mut self, layer: usize, piece: usize, fresh: [Tensor; 2]) -> candle_core::Result<[Tensor; 2]>;

    /// Is called with the residual stream after a number of layers, `(tokens, hidden)`.
    fn observe(&mut self, layers: usize, hidden: &Tensor);
}

/// The context of whole sequences, without a cache.
struct Whole;

impl Context for Whole {
    fn remember(&mut self, _: usize, _: usize, fresh: [Tensor; 2]) -> candle_core::Result<[Tensor; 2]> {
        Ok(fresh)
    }

    fn observe(&mut self, _: usize, _: &Tensor) {}
}

impl Decoder {
    /// Builds a decoder. `take` returns a tensor by its Hugging Face name, in the shape of
    /// [`crate::arch::tensors`].
    ///
    /// # Errors
    /// Those of `take`.
    pub fn new(blueprint: &Blueprint, mut take: impl FnMut(&str) -> Result<Tensor>) -> Result<Self> {
        let embedding = take("model.embed_tokens.weight")?;
        let mut head = |HeadPlan { head, bias, .. }: &HeadPlan| {
            let is_embedding = blueprint.tied && *head == Head::VOCABULARY;
            let weight = if is_embedding { embedding.clone() } else { take(&head.weight())? };
            let bias = bias.then(|| take(&head.bias())).transpose()?;
            Ok((*head, Linear { weight, bias }))
        };
        let heads = blueprint.output_heads.iter().map(&mut head).collect::<Result<_>>()?;
        let positions = blueprint.positions.then(|| take(arch::POSITIONS)).transpose()?;
        let final_norm = norm(blueprint, "model.norm", blueprint.norms.bias, &mut take)?;
        let layers = (0..blueprint.layers.len())
            .map(|index| Layer::new(blueprint, |name| take(&format!("model.layers.{index}.{name}"))))
            .collect::<Result<_>>()?;
        Ok(Self { blueprint: blueprint.clone(), embedding, positions, layers, final_norm, heads })
    }

    /// Applies the final norm to a residual stream.
    pub(super) fn normed(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        self.final_norm.apply(x)
    }

    /// Returns hidden states of all tokens of whole sequences, after the final norm: floats
    /// `(tokens, hidden)`.
    ///
    /// # Errors
    /// Those of the device.
    pub fn forward(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        self.forward_in(batch, &mut Whole)
    }

    /// Returns hidden states as [`Decoder::forward`] does, of pieces of sequences.
    ///
    /// # Errors
    /// Those of the device and of the context.
    pub(super) fn forward_in(&self, batch: &Batch, context: &mut dyn Context) -> candle_core::Result<Tensor> {
        let mut x = self.embedding.index_select(&batch.ids, 0)?.to_dtype(WIDE)?;
        if self.blueprint.embedding_scale != 1.0 {
            x = (x * f64::from(self.blueprint.embedding_scale))?;
        }
        if let Some(positions) = &self.positions {
            x = (x + positions.index_select(&batch.positions, 0)?.to_dtype(WIDE)?)?;
        }
        context.observe(0, &x);
        let scale = f64::from(self.blueprint.residual_scale);
        for (index, layer) in self.layers.iter().enumerate() {
            let attended = (&x + (self.attention(index, &x, batch, context)? * scale)?)?;
            let input = if self.blueprint.parallel { &x } else { &attended };
            x = (&attended + (self.feed_forward(layer, input)? * scale)?)?;
            context.observe(index + 1, &x);
        }
        self.final_norm.apply(&x)
    }

    /// Applies an output head to hidden states `(rows, hidden)` and returns floats `(rows,
    /// outputs)`: logits are those after the final soft cap.
    ///
    /// # Errors
    /// [`Error::MissingHead`], or those of the device.
    pub fn project(&self, head: Head, hidden: &Tensor) -> Result<Tensor> {
        let found = self.heads.iter().find(|(other, _)| *other == head);
        let (_, linear) = found.ok_or(Error::MissingHead { head: head.module() })?;
        let cap = self.blueprint.final_softcap.filter(|_| head == Head::VOCABULARY);
        let outputs = linear.apply(hidden)?;
        let is_scaled = head == Head::VOCABULARY && self.blueprint.logit_scale != 1.0;
        let outputs = if is_scaled { (outputs * f64::from(self.blueprint.logit_scale))? } else { outputs };
        Ok(softcap(outputs, cap)?)
    }

    /// Adds `change`, `(outputs, inputs)` floats, to the matrix of a module. Modules are those of
    /// [`crate::arch::tensors`].
    ///
    /// # Errors
    /// Those of the device.
    pub(super) fn add(&mut self, module: &str, change: &Tensor) -> candle_core::Result<()> {
        if let Some(linear) = self.module(module) {
            linear.weight = (linear.weight.to_dtype(WIDE)? + change)?.to_dtype(linear.weight.dtype())?;
        }
        Ok(())
    }

    /// Returns the linear layer of a module; `None` for an unknown name.
    fn module(&mut self, name: &str) -> Option<&mut Linear> {
        if let Some(index) = self.heads.iter().position(|(head, _)| head.module() == name) {
            return Some(&mut self.heads[index].1);
        }
        let (layer, name) = arch::layer_module(name)?;
        self.layers.get_mut(layer)?.module(name)
    }

    fn attention(
        &self,
        index: usize,
        x: &Tensor,
        batch: &Batch,
        context: &mut dyn Context,
    ) -> candle_core::Result<Tensor> {
        let (blueprint, layer) = (&self.blueprint, &self.layers[index]);
        let [queries, keys, values] = layer.queries_keys_values(blueprint, &apply(layer.pre_attention.as_ref(), x)?)?;
        let rotated = |heads: &Tensor| match blueprint.layers[index].rope {
            Some(rope) => rotate(heads, &batch.rotations[rope]),
            None => Ok(heads.clone()),
        };
        let queries = (rotated(&queries)? * f64::from(blueprint.attention_scale))?;
        // `(kv_heads, tokens, head_dim)`, in the type that products are computed in.
        let by_head = |heads: &Tensor| heads.transpose(0, 1)?.to_dtype(layer.output.weight.dtype());
        let (keys, values) = (by_head(&rotated(&keys)?)?, by_head(&values)?);
        let mut attended = Vec::with_capacity(batch.lengths.len());
        let mut first = 0;
        for (piece, view) in batch.views(blueprint.layers[index].window).iter().enumerate() {
            let tokens = batch.lengths[piece];
            let fresh = [keys.narrow(1, first, tokens)?, values.narrow(1, first, tokens)?];
            let seen = context.remember(index, piece, fresh)?;
            let queries = queries.narrow(0, first, tokens)?;
            attended.push(attend(&queries, &seen, view, blueprint.attention_softcap, layer.sinks.as_ref())?);
            first += tokens;
        }
        let output = layer.output.apply(&Tensor::cat(&attended, 0)?)?;
        apply(layer.post_attention.as_ref(), &output)
    }

    fn feed_forward(&self, layer: &Layer, x: &Tensor) -> candle_core::Result<Tensor> {
        let input = apply(layer.pre_mlp.as_ref(), x)?;
        let activation = self.blueprint.activation;
        let output = match (&layer.router, self.blueprint.experts) {
            (Some(router), Some(plan)) => experts::mixture(&layer.experts, router, plan, activation, &input)?,
            _ => layer.experts[0].apply(&input, activation)?,
        };
        apply(layer.post_mlp.as_ref(), &output)
    }
}

impl Layer {
    fn new(blueprint: &Blueprint, mut take: impl FnMut(&str) -> Result<Tensor>) -> Result<Self> {
        let parts = blueprint.layer();
        let sinks = blueprint.sinks.then(|| take(arch::SINKS)).transpose()?;
        let mut at = |part: Option<StoredNorm>| -> Result<_> {
            part.map(|part| norm(blueprint, part.module, part.bias, &mut take)).transpose()
        };
        let (pre_attention, post_attention) = (at(parts.pre_attention)?, at(parts.post_attention)?);
        let (pre_mlp, post_mlp) = (at(parts.pre_mlp)?, at(parts.post_mlp)?);
        let (query_norm, key_norm) = (at(parts.query_norm)?, at(parts.key_norm)?);
        let mut linear = |part: &StoredLinear| -> Result<_> {
            let weight = take(&format!("{}.weight", part.module))?;
            let bias = part.bias.then(|| take(&format!("{}.bias", part.module))).transpose()?;
            Ok(Linear { weight, bias })
        };
        let (output, router) = (linear(&parts.output)?, parts.router.as_ref().map(&mut linear).transpose()?);
        let heads = Projections::try_new(&[&parts.query, &parts.key, &parts.value], &mut linear)?;
        let experts = parts.experts.iter().map(|expert| {
            let gates: Vec<_> = expert.gate.iter().chain([&expert.up]).collect();
            Ok(Expert { gates: Projections::try_new(&gates, &mut linear)?, down: linear(&expert.down)? })
        });
        let experts = experts.collect::<Result<_>>()?;
        Ok(Self {
            pre_attention,
            post_attention,
            pre_mlp,
            post_mlp,
            query_norm,
            key_norm,
            heads,
            output,
            sinks,
            router,
            experts,
        })
    }

    /// Returns the linear layer of a module; `None` for an unknown name.
    fn module(&mut self, name: &str) -> Option<&mut Linear> {
        let Self { heads, output, router, experts, .. } = self;
        let within_mlp = |name: &str| -> Option<(usize, String)> {
            let name = name.strip_prefix("mlp.")?;
            match name.strip_prefix("experts.") {
                Some(rest) => rest.split_once('.').and_then(|(index, name)| Some((index.parse().ok()?, name.into()))),
                None => Some((0, name.into())),
            }
        };
        match name {
            "self_attn.qkv_proj" | "self_attn.q_proj" => heads.matrices.first_mut(),
            "self_attn.k_proj" => heads.matrices.get_mut(1),
            "self_attn.v_proj" => heads.matrices.get_mut(2),
            "self_attn.o_proj" => Some(output),
            "mlp.gate" => router.as_mut(),
            _ => {
                let (index, name) = within_mlp(name)?;
                let Expert { gates, down } = experts.get_mut(index)?;
                match &*name {
                    "gate_up_proj" | "gate_proj" => gates.matrices.first_mut(),
                    "up_proj" => gates.matrices.last_mut(),
                    "down_proj" => Some(down),
                    _ => None,
                }
            }
        }
    }

    /// Returns `(tokens, heads, head_dim)` each, queries and keys normed.
    fn queries_keys_values(&self, blueprint: &Blueprint, x: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        let mut flat = self.heads.apply(x)?;
        let qk_norm = |flat: &mut [Tensor]| {
            for (heads, norm) in flat.iter_mut().zip([&self.query_norm, &self.key_norm].into_iter().flatten()) {
                *heads = norm.apply(heads)?;
            }
            candle_core::Result::Ok(())
        };
        if blueprint.qk_norm == QkNorm::Full {
            qk_norm(&mut flat)?;
        }
        for heads in &mut flat {
            *heads = heads.reshape(((), heads.dim(1)? / blueprint.head_dim, blueprint.head_dim))?;
        }
        if blueprint.qk_norm == QkNorm::PerHead {
            qk_norm(&mut flat)?;
        }
        Ok(flat.try_into().expect("invariant: queries, keys and values have three widths"))
    }
}

/// Makes the norm of a module.
fn norm(
    blueprint: &Blueprint,
    module: &str,
    bias: bool,
    take: &mut impl FnMut(&str) -> Result<Tensor>,
) -> Result<Norm> {
    let norms = &blueprint.norms;
    Ok(Norm {
        weight: take(&format!("{module}.weight"))?,
        offset: norms.offset.into(),
        eps: norms.eps.into(),
        is_centered: norms.centered,
        bias: bias.then(|| take(&format!("{module}.bias"))).transpose()?,
    })
}

/// Applies a norm, if the architecture has one there.
fn apply(norm: Option<&Norm>, x: &Tensor) -> candle_core::Result<Tensor> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.apply(x))
}
