//! The model by itself: weights, and what they make of token ids.

use candle_core::Tensor;

use super::WIDE;
use super::attention::attend;
use super::batch::Batch;
use super::layers::{Linear, Norm, Projections, gate, rotate, softcap};
use crate::arch::{Blueprint, QkNorm, StoredLinear, StoredNorm};
use crate::error::Result;

/// A decoder of any [`Blueprint`]. All it does lets gradients pass, from logits to every weight: give it variables and
/// it can be trained.
pub struct Decoder {
    plan: Blueprint,
    embedding: Tensor,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Linear,
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
    /// Gate, up.
    gates: Projections,
    down: Linear,
}

/// Takes the index of a layer, that of a piece, and the piece's own keys and values; gives all that the piece looks at.
type Remember<'a> = dyn FnMut(usize, usize, [Tensor; 2]) -> candle_core::Result<[Tensor; 2]> + 'a;

impl Decoder {
    /// `take` gives a tensor by its Hugging Face name, in the shape of [`crate::arch::tensors`].
    ///
    /// # Errors
    /// Those of `take`.
    pub fn new(plan: &Blueprint, mut take: impl FnMut(&str) -> Result<Tensor>) -> Result<Self> {
        let embedding = take("model.embed_tokens.weight")?;
        let head = if plan.tied { embedding.clone() } else { take("lm_head.weight")? };
        let final_norm = norm(plan, take("model.norm.weight")?);
        let layers = (0..plan.layers.len())
            .map(|index| Layer::new(plan, |name| take(&format!("model.layers.{index}.{name}"))))
            .collect::<Result<_>>()?;
        Ok(Self { plan: plan.clone(), embedding, layers, final_norm, head: Linear { weight: head, bias: None } })
    }

    /// Hidden states of all tokens of whole sequences, after the final norm: floats `(tokens, hidden)`.
    ///
    /// # Errors
    /// What the device says.
    pub fn forward(&self, batch: &Batch) -> candle_core::Result<Tensor> {
        self.forward_cached(batch, &mut |_, _, fresh| Ok(fresh))
    }

    /// As [`Decoder::forward`], of pieces of sequences. `remember` takes the index of a layer, that of a piece, and
    /// the piece's own rotated keys and its values, `(kv_heads, tokens, head_dim)` each; it gives those of the
    /// sequence from its first position to the last of the piece.
    ///
    /// # Errors
    /// What the device says, or `remember`.
    pub fn forward_cached(&self, batch: &Batch, remember: &mut Remember<'_>) -> candle_core::Result<Tensor> {
        let mut x = self.embedding.index_select(&batch.ids, 0)?.to_dtype(WIDE)?;
        if self.plan.embedding_scale != 1.0 {
            x = (x * f64::from(self.plan.embedding_scale))?;
        }
        for (index, layer) in self.layers.iter().enumerate() {
            x = (&x + self.attention(index, layer, &x, batch, remember)?)?;
            x = (&x + self.feed_forward(layer, &x)?)?;
        }
        self.final_norm.apply(&x)
    }

    /// Logits of hidden states `(rows, hidden)`, after the final soft cap: floats `(rows, vocab)`.
    ///
    /// # Errors
    /// What the device says.
    pub fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        softcap(self.head.apply(hidden)?, self.plan.final_softcap)
    }

    fn attention(
        &self,
        index: usize,
        layer: &Layer,
        x: &Tensor,
        batch: &Batch,
        remember: &mut Remember<'_>,
    ) -> candle_core::Result<Tensor> {
        let plan = &self.plan;
        let [queries, keys, values] = layer.queries_keys_values(plan, &apply(layer.pre_attention.as_ref(), x)?)?;
        let rotation = &batch.rotations[plan.layers[index].rope];
        let queries = (rotate(&queries, rotation)? * f64::from(plan.attention_scale))?;
        // `(kv_heads, tokens, head_dim)`, in the type that products are computed in.
        let by_head = |heads: &Tensor| heads.transpose(0, 1)?.to_dtype(layer.output.weight.dtype());
        let (keys, values) = (by_head(&rotate(&keys, rotation)?)?, by_head(&values)?);
        let mut attended = Vec::with_capacity(batch.lengths.len());
        let mut first = 0;
        for (piece, view) in batch.views(plan.layers[index].window).iter().enumerate() {
            let tokens = batch.lengths[piece];
            let fresh = [keys.narrow(1, first, tokens)?, values.narrow(1, first, tokens)?];
            let seen = remember(index, piece, fresh)?;
            attended.push(attend(&queries.narrow(0, first, tokens)?, &seen, view, plan.attention_softcap)?);
            first += tokens;
        }
        let output = layer.output.apply(&Tensor::cat(&attended, 0)?)?;
        apply(layer.post_attention.as_ref(), &output)
    }

    fn feed_forward(&self, layer: &Layer, x: &Tensor) -> candle_core::Result<Tensor> {
        let gates = layer.gates.apply(&apply(layer.pre_mlp.as_ref(), x)?)?;
        let output = layer.down.apply(&gate(&gates[0], &gates[1], self.plan.activation)?)?;
        apply(layer.post_mlp.as_ref(), &output)
    }
}

impl Layer {
    fn new(blueprint: &Blueprint, mut take: impl FnMut(&str) -> Result<Tensor>) -> Result<Self> {
        let parts = blueprint.layer();
        let mut stored = |part: StoredNorm| Ok(norm(blueprint, take(&format!("{}.weight", part.module))?));
        let mut at = |part: Option<StoredNorm>| -> Result<_> { part.map(&mut stored).transpose() };
        let (pre_attention, post_attention) = (at(parts.pre_attention)?, at(parts.post_attention)?);
        let (pre_mlp, post_mlp) = (at(parts.pre_mlp)?, at(parts.post_mlp)?);
        let (query_norm, key_norm) = (at(parts.query_norm)?, at(parts.key_norm)?);
        let mut linear = |part: &StoredLinear| -> Result<_> {
            let weight = take(&format!("{}.weight", part.module))?;
            let bias = part.bias.then(|| take(&format!("{}.bias", part.module))).transpose()?;
            Ok(Linear { weight, bias })
        };
        let mut projections = |parts: &[&StoredLinear]| -> Result<_> {
            let widths = parts.iter().map(|part| part.rows.len()).collect();
            let mut modules = parts.to_vec();
            modules.dedup_by_key(|part| part.module);
            let matrices = modules.into_iter().map(&mut linear).collect::<Result<_>>()?;
            Ok(Projections { matrices, widths })
        };
        let heads = projections(&[&parts.query, &parts.key, &parts.value])?;
        let gates = projections(&[&parts.gate, &parts.up])?;
        let (output, down) = (linear(&parts.output)?, linear(&parts.down)?);
        Ok(Self { pre_attention, post_attention, pre_mlp, post_mlp, query_norm, key_norm, heads, output, gates, down })
    }

    /// `(tokens, heads, head_dim)` each, queries and keys normed.
    fn queries_keys_values(&self, plan: &Blueprint, x: &Tensor) -> candle_core::Result<[Tensor; 3]> {
        let mut flat = self.heads.apply(x)?;
        let qk_norm = |flat: &mut [Tensor]| {
            for (heads, norm) in flat.iter_mut().zip([&self.query_norm, &self.key_norm].into_iter().flatten()) {
                *heads = norm.apply(heads)?;
            }
            candle_core::Result::Ok(())
        };
        if plan.qk_norm == QkNorm::Full {
            qk_norm(&mut flat)?;
        }
        for heads in &mut flat {
            *heads = heads.reshape(((), heads.dim(1)? / plan.head_dim, plan.head_dim))?;
        }
        if plan.qk_norm == QkNorm::PerHead {
            qk_norm(&mut flat)?;
        }
        Ok(flat.try_into().expect("invariant: queries, keys and values have three widths"))
    }
}

fn norm(plan: &Blueprint, weight: Tensor) -> Norm {
    Norm { weight, offset: plan.norms.offset.into(), eps: plan.norms.eps.into() }
}

/// `x` normed, or as it is where the architecture has no norm there.
fn apply(norm: Option<&Norm>, x: &Tensor) -> candle_core::Result<Tensor> {
    norm.map_or_else(|| Ok(x.clone()), |norm| norm.apply(x))
}
