//! The weights of one layer.

use super::linear::{Linear, Stored};
use crate::arch::{Blueprint, QkNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;

/// Matrices mapped, norms as floats with the architecture's offset added.
pub(super) struct Layer {
    pub(super) pre_attention: Option<Vec<f32>>,
    pub(super) post_attention: Option<Vec<f32>>,
    pub(super) pre_mlp: Option<Vec<f32>>,
    pub(super) post_mlp: Option<Vec<f32>>,
    /// Norms of queries and of keys.
    pub(super) qk_norm: Option<[Vec<f32>; 2]>,
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    pub(super) gate: Linear,
    pub(super) up: Linear,
    pub(super) down: Linear,
}

impl Layer {
    /// `take` gives a tensor of this layer by name; those of [`crate::arch::tensors`] are there.
    pub(super) fn new(
        plan: &Blueprint,
        mut take: impl FnMut(&str) -> Tensor,
        make: impl Fn(Stored) -> Result<Linear>,
    ) -> Result<Self> {
        let mut norm = |name: &str| norm_weight(&take(&format!("{name}.weight")), plan);
        let norms = plan.norms;
        let [pre_attention, post_attention, pre_mlp, post_mlp] =
            [norms.pre_attention, norms.post_attention, norms.pre_mlp, norms.post_mlp].map(|name| name.map(&mut norm));
        let qk_norm = (plan.qk_norm != QkNorm::None).then(|| ["self_attn.q_norm", "self_attn.k_norm"].map(&mut norm));
        let mut stored = |name: &str, bias: bool| Stored {
            weight: take(&format!("{name}.weight")),
            bias: bias.then(|| take(&format!("{name}.bias")).to_f32()),
        };
        let (query_width, kv_width) = (plan.query_width(), plan.kv_width());
        let [query, key, value] = if plan.fused {
            let all = stored("self_attn.qkv_proj", plan.qkv_bias);
            [(0, query_width), (query_width, kv_width), (query_width + kv_width, kv_width)]
                .map(|(start, count)| all.part(start, count))
        } else {
            ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(|name| stored(name, plan.qkv_bias))
        };
        let [gate, up] = if plan.fused {
            let both = stored("mlp.gate_up_proj", plan.mlp_bias);
            [0, plan.ffn].map(|start| both.part(start, plan.ffn))
        } else {
            ["mlp.gate_proj", "mlp.up_proj"].map(|name| stored(name, plan.mlp_bias))
        };
        let output = stored("self_attn.o_proj", plan.output_bias);
        let down = stored("mlp.down_proj", plan.mlp_bias);
        Ok(Self {
            pre_attention,
            post_attention,
            pre_mlp,
            post_mlp,
            qk_norm,
            query: make(query)?,
            key: make(key)?,
            value: make(value)?,
            output: make(output)?,
            gate: make(gate)?,
            up: make(up)?,
            down: make(down)?,
        })
    }
}

/// A norm's weight as it is multiplied.
pub(super) fn norm_weight(tensor: &Tensor, plan: &Blueprint) -> Vec<f32> {
    tensor.to_f32().iter().map(|weight| weight + plan.norms.offset).collect()
}
