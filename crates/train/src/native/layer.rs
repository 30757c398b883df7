//! One layer, forward and backward.

use std::ops::Range;

use super::Model;
use super::attention::{Heads, Scratch};
use super::shard::Text;
use crate::layout::Layout;
use wsd_nn::arch::{Blueprint, QkNorm};
use wsd_nn::kernels::dense::{Matrix, multiply};
use wsd_nn::kernels::elementwise::{NormGradients, gate, gate_backward, norm, norm_backward};
use wsd_nn::kernels::rotate;

/// Where a layer's tensors lie.
pub(super) struct LayerPlaces {
    pre_attention: Option<Range<usize>>,
    post_attention: Option<Range<usize>>,
    pre_mlp: Option<Range<usize>>,
    post_mlp: Option<Range<usize>>,
    /// Norms of queries and of keys.
    qk_norm: Option<[Range<usize>; 2]>,
    qkv: Linear,
    output: Linear,
    gates: Linear,
    down: Linear,
}

/// A matrix `(outputs, inputs)` and its bias.
pub(super) struct Linear {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    inputs: usize,
    outputs: usize,
    /// Whether the matrix changes.
    trained: bool,
}

/// What the gradient of a layer is computed from; rows are tokens.
#[derive(Default)]
pub(super) struct Kept {
    normed: Vec<f32>,
    /// Queries and keys before their norms, where they have some.
    raw: Vec<f32>,
    qkv: Vec<f32>,
    log_sums: Vec<f32>,
    attended: Vec<f32>,
    /// The output of attention before its norm.
    projected: Vec<f32>,
    middle: Vec<f32>,
    middle_normed: Vec<f32>,
    gates: Vec<f32>,
    gated: Vec<f32>,
    /// The output of the feed-forward part before its norm.
    lowered: Vec<f32>,
}

/// Room that is used again for each layer.
#[derive(Default)]
pub(super) struct Room {
    attention: Scratch,
    wide: Vec<f32>,
    qkv: Vec<f32>,
    narrow: Vec<f32>,
    other: Vec<f32>,
}

/// `room` for exactly `len` floats, of any value.
pub(super) fn sized(room: &mut Vec<f32>, len: usize) -> &mut [f32] {
    room.resize(len, 0.0);
    room
}

fn zeroed(room: &mut Vec<f32>, len: usize) -> &mut [f32] {
    room.clear();
    room.resize(len, 0.0);
    room
}

impl Linear {
    fn new(layout: &Layout, names: &[String], trained: &dyn Fn(&str) -> bool) -> Self {
        let joined = |suffix: &str| {
            let mut places = names.iter().filter_map(|name| layout.get(&format!("{name}.{suffix}")));
            let first = places.next()?;
            let end = places.next_back().unwrap_or(first).range.end;
            Some((first.range.start..end, first.shape.last().copied().unwrap_or(1)))
        };
        let (weight, inputs) = joined("weight").unwrap_or((0..0, 1));
        Self {
            inputs,
            outputs: weight.len() / inputs,
            weight,
            bias: joined("bias").map(|(range, _)| range),
            trained: names.iter().any(|name| trained(&format!("{name}.weight"))),
        }
    }

    /// `x * weight^T + bias`.
    fn forward(&self, weights: &[f32], x: &[f32], out: &mut [f32]) {
        let beta = match &self.bias {
            Some(bias) => {
                out.chunks_exact_mut(self.outputs).for_each(|out| out.copy_from_slice(&weights[bias.clone()]));
                1.0
            }
            None => 0.0,
        };
        let weight = Matrix::dense(&weights[self.weight.clone()], self.inputs);
        multiply(1.0, Matrix::dense(x, self.inputs), weight.transposed(), beta, out, self.outputs);
    }

    /// Adds the gradients of matrix and bias to `gradient` and sets that of `x`.
    fn backward(&self, weights: &[f32], gradient: &mut [f32], [x, out]: [&[f32]; 2], x_gradient: &mut [f32]) {
        let out_matrix = Matrix::dense(out, self.outputs);
        if self.trained {
            let to = &mut gradient[self.weight.clone()];
            multiply(1.0, out_matrix.transposed(), Matrix::dense(x, self.inputs), 1.0, to, self.inputs);
        }
        if let Some(bias) = &self.bias {
            for out in out.chunks_exact(self.outputs) {
                gradient[bias.clone()].iter_mut().zip(out).for_each(|(to, from)| *to += from);
            }
        }
        let weight = Matrix::dense(&weights[self.weight.clone()], self.inputs);
        multiply(1.0, out_matrix, weight, 0.0, x_gradient, self.inputs);
    }
}

impl LayerPlaces {
    pub(super) fn new(plan: &Blueprint, layout: &Layout, index: usize, trained: &dyn Fn(&str) -> bool) -> Self {
        let named = |name: &str| format!("model.layers.{index}.{name}");
        let norm = |name: Option<&str>| {
            name.and_then(|name| layout.get(&named(&format!("{name}.weight")))).map(|place| place.range.clone())
        };
        let linear = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| named(name)).collect();
            Linear::new(layout, &names, trained)
        };
        let (heads, gates): (&[_], &[_]) = if plan.fused {
            (&["self_attn.qkv_proj"], &["mlp.gate_up_proj"])
        } else {
            (&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], &["mlp.gate_proj", "mlp.up_proj"])
        };
        Self {
            pre_attention: norm(plan.norms.pre_attention),
            post_attention: norm(plan.norms.post_attention),
            pre_mlp: norm(plan.norms.pre_mlp),
            post_mlp: norm(plan.norms.post_mlp),
            qk_norm: match plan.qk_norm {
                QkNorm::None => None,
                QkNorm::PerHead | QkNorm::Full => {
                    norm(Some("self_attn.q_norm")).zip(norm(Some("self_attn.k_norm"))).map(<[_; 2]>::from)
                }
            },
            qkv: linear(heads),
            output: linear(&["self_attn.o_proj"]),
            gates: linear(gates),
            down: linear(&["mlp.down_proj"]),
        }
    }
}

/// One layer at work on the texts of a shard.
pub(super) struct LayerRun<'a> {
    pub(super) model: &'a Model,
    pub(super) index: usize,
    pub(super) weights: &'a [f32],
    pub(super) texts: &'a [Text],
}

impl LayerRun<'_> {
    /// `x` and `out` are `(tokens, hidden)`.
    pub(super) fn forward(&self, x: &[f32], kept: &mut Kept, out: &mut Vec<f32>, room: &mut Room) {
        let (plan, places) = (&self.model.plan, &self.model.layers[self.index]);
        let (hidden, tokens) = (plan.hidden, x.len() / plan.hidden);
        let normed = self.norm(places.pre_attention.as_ref(), x, &mut kept.normed);
        places.qkv.forward(self.weights, normed, sized(&mut kept.qkv, tokens * places.qkv.outputs));
        self.norm_heads(kept);
        self.rotate(&mut kept.qkv, false);
        self.attend(kept, tokens, &mut room.attention);
        places.output.forward(self.weights, &kept.attended, sized(&mut kept.projected, tokens * hidden));
        let output = self.norm(places.post_attention.as_ref(), &kept.projected, &mut room.other);
        sum(sized(&mut kept.middle, x.len()), x, output);

        let normed = self.norm(places.pre_mlp.as_ref(), &kept.middle, &mut kept.middle_normed);
        places.gates.forward(self.weights, normed, sized(&mut kept.gates, tokens * 2 * plan.ffn));
        gate(self.model.simd, sized(&mut kept.gated, tokens * plan.ffn), &kept.gates, plan.ffn, plan.activation);
        places.down.forward(self.weights, &kept.gated, sized(&mut kept.lowered, tokens * hidden));
        let output = self.norm(places.post_mlp.as_ref(), &kept.lowered, &mut room.other);
        sum(sized(out, x.len()), &kept.middle, output);
    }

    /// `slopes` are those of the layer's output and become those of its input `x`. Uses up `kept`.
    pub(super) fn backward(
        &self,
        x: &[f32],
        kept: &mut Kept,
        gradient: &mut [f32],
        slopes: &mut [f32],
        room: &mut Room,
    ) {
        let (plan, places, weights) = (&self.model.plan, &self.model.layers[self.index], self.weights);
        let (hidden, tokens) = (plan.hidden, x.len() / plan.hidden);
        let lowered = self.norm_pull(places.post_mlp.as_ref(), &kept.lowered, gradient, slopes, &mut room.other);
        let gated = sized(&mut room.wide, tokens * plan.ffn);
        places.down.backward(weights, gradient, [&kept.gated, lowered], gated);
        gate_backward(self.model.simd, &mut kept.gates, gated, plan.ffn, plan.activation);
        let normed = if places.pre_mlp.is_some() { &kept.middle_normed } else { &kept.middle };
        let narrow = sized(&mut room.narrow, tokens * hidden);
        places.gates.backward(weights, gradient, [normed, &kept.gates], narrow);
        self.norm_push(places.pre_mlp.as_ref(), &kept.middle, gradient, narrow, slopes);

        let projected =
            self.norm_pull(places.post_attention.as_ref(), &kept.projected, gradient, slopes, &mut room.other);
        let attended = sized(&mut room.wide, tokens * plan.query_width());
        places.output.backward(weights, gradient, [&kept.attended, projected], attended);
        let qkv = zeroed(&mut room.qkv, kept.qkv.len());
        for text in self.texts {
            let (heads, sums) = self.heads(&kept.qkv, text);
            let rows = text.rows.start * plan.query_width()..text.rows.end * plan.query_width();
            let own = text.rows.start * heads.width..text.rows.end * heads.width;
            let given = [&kept.attended[rows.clone()], &attended[rows]];
            heads.backward(given, &kept.log_sums[sums], &mut qkv[own], &mut room.attention);
        }
        self.rotate(qkv, true);
        self.norm_heads_backward(&kept.raw, gradient, qkv, &mut room.other);
        let normed = if places.pre_attention.is_some() { &kept.normed } else { x };
        places.qkv.backward(weights, gradient, [normed, qkv], narrow);
        self.norm_push(places.pre_attention.as_ref(), x, gradient, narrow, slopes);
    }

    fn attend(&self, kept: &mut Kept, tokens: usize, scratch: &mut Scratch) {
        let plan = &self.model.plan;
        sized(&mut kept.attended, tokens * plan.query_width());
        sized(&mut kept.log_sums, tokens * plan.heads);
        for text in self.texts {
            let (heads, sums) = self.heads(&kept.qkv, text);
            let rows = text.rows.start * plan.query_width()..text.rows.end * plan.query_width();
            heads.forward(&mut kept.attended[rows], &mut kept.log_sums[sums], scratch);
        }
    }

    /// The heads of one text, and where its logarithms of sums lie.
    fn heads<'q>(&'q self, qkv: &'q [f32], text: &Text) -> (Heads<'q>, Range<usize>) {
        let plan = &self.model.plan;
        let width = plan.query_width() + 2 * plan.kv_width();
        let Range { start, end } = text.rows;
        let heads = Heads {
            plan,
            simd: self.model.simd,
            window: plan.layers[self.index].window,
            qkv: &qkv[start * width..end * width],
            width,
            tokens: end - start,
        };
        (heads, start * plan.heads..end * plan.heads)
    }

    /// Queries and keys, by their positions or back again.
    fn rotate(&self, qkv: &mut [f32], back: bool) {
        let plan = &self.model.plan;
        let (width, turning) = (plan.query_width() + 2 * plan.kv_width(), plan.query_width() + plan.kv_width());
        for text in self.texts {
            let turns = &self.model.rotations[plan.layers[self.index].rope][usize::from(text.long)];
            let rows = qkv[text.rows.start * width..text.rows.end * width].chunks_exact_mut(width);
            for (position, row) in rows.enumerate() {
                rotate(&mut row[..turning], plan.head_dim, turns.at(position, back));
            }
        }
    }

    /// `x` normed into `room`, or as it is where there is no norm.
    fn norm<'s>(&self, place: Option<&Range<usize>>, x: &'s [f32], room: &'s mut Vec<f32>) -> &'s [f32] {
        let Some(place) = place else { return x };
        let norms = &self.model.plan.norms;
        let out = sized(room, x.len());
        norm(self.model.simd, out, x, &self.weights[place.clone()], norms.offset, norms.eps);
        out
    }

    /// From the slopes of a norm's output to those of its input `x`, into `room`.
    fn norm_pull<'s>(
        &self,
        place: Option<&Range<usize>>,
        x: &[f32],
        gradient: &mut [f32],
        slopes: &'s [f32],
        room: &'s mut Vec<f32>,
    ) -> &'s [f32] {
        if place.is_none() {
            return slopes;
        }
        let out = zeroed(room, x.len());
        self.norm_push(place, x, gradient, slopes, out);
        out
    }

    /// Adds to `slopes`, those of a norm's input `x`, what comes of those of its output.
    fn norm_push(
        &self,
        place: Option<&Range<usize>>,
        x: &[f32],
        gradient: &mut [f32],
        output: &[f32],
        slopes: &mut [f32],
    ) {
        let Some(place) = place else {
            slopes.iter_mut().zip(output).for_each(|(to, from)| *to += from);
            return;
        };
        let norms = &self.model.plan.norms;
        let mut gradients = NormGradients { output, x: slopes, weight: &mut gradient[place.clone()] };
        norm_backward(self.model.simd, &mut gradients, x, &self.weights[place.clone()], norms.offset, norms.eps);
    }

    /// The part of a row that holds queries, and that which holds keys.
    fn parts(&self) -> [Range<usize>; 2] {
        let (query, kv) = (self.model.plan.query_width(), self.model.plan.kv_width());
        [0..query, query..query + kv]
    }

    fn norm_heads(&self, kept: &mut Kept) {
        let (places, norms) = (&self.model.layers[self.index], &self.model.plan.norms);
        let Some(places) = &places.qk_norm else { return };
        let width = self.model.plan.query_width() + 2 * self.model.plan.kv_width();
        kept.raw.clear();
        kept.raw.extend_from_slice(&kept.qkv);
        for (row, raw) in kept.qkv.chunks_exact_mut(width).zip(kept.raw.chunks_exact(width)) {
            for (part, place) in self.parts().into_iter().zip(places) {
                let weight = &self.weights[place.clone()];
                norm(self.model.simd, &mut row[part.clone()], &raw[part], weight, norms.offset, norms.eps);
            }
        }
    }

    fn norm_heads_backward(&self, raw: &[f32], gradient: &mut [f32], slopes: &mut [f32], room: &mut Vec<f32>) {
        let (places, norms) = (&self.model.layers[self.index], &self.model.plan.norms);
        let Some(places) = &places.qk_norm else { return };
        let width = self.model.plan.query_width() + 2 * self.model.plan.kv_width();
        for (row, raw) in slopes.chunks_exact_mut(width).zip(raw.chunks_exact(width)) {
            for (part, place) in self.parts().into_iter().zip(places) {
                let row = &mut row[part.clone()];
                let output = sized(room, row.len());
                output.copy_from_slice(row);
                row.fill(0.0);
                let mut gradients = NormGradients { output, x: row, weight: &mut gradient[place.clone()] };
                let weight = &self.weights[place.clone()];
                norm_backward(self.model.simd, &mut gradients, &raw[part], weight, norms.offset, norms.eps);
            }
        }
    }
}

fn sum(out: &mut [f32], a: &[f32], b: &[f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}
