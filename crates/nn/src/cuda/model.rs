//! The weights of a model on a GPU, arranged for the kernels.

use std::collections::HashMap;
use std::sync::Arc;

use super::driver::{Buffer, Gpu};
use super::matrix::{Matrix, Row, TILE};
use super::program::{Epilogue, Uses, most_rows};
use crate::adapter::LowRank;
use crate::arch::{self, Blueprint, Head, HeadPlan, LayerParts, QkNorm, RopePlan, StoredLinear, StoredNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::format::Format;

/// Rows of gate and up alternate by this many in their common matrix.
const ALTERNATE: usize = TILE / 2;

/// A linear layer: matrices whose outputs follow one another, and their bias.
pub(super) struct Linear {
    pub(super) parts: Vec<Part>,
    /// One value for each stored output.
    pub(super) bias: Option<Buffer>,
    /// Outputs, as they are stored.
    pub(super) outputs: usize,
    /// Inputs, padded.
    pub(super) inputs: usize,
}

impl Linear {
    /// The most rows that its kernels take at once.
    pub(super) fn most_rows(&self) -> usize {
        self.parts.iter().map(|part| most_rows(part.matrix.format)).min().unwrap_or(0)
    }
}

/// A part of a linear layer.
pub(super) struct Part {
    pub(super) matrix: Arc<Matrix>,
    /// The first output.
    pub(super) first: usize,
}

/// A norm, with the architecture's offset added to its weight.
pub(super) struct Norm {
    pub(super) weight: Buffer,
    pub(super) shift: Option<Buffer>,
}

/// A layer.
pub(super) struct Layer {
    pub(super) norms: LayerParts<Norm, ()>,
    /// Queries, keys and values.
    pub(super) heads: Linear,
    pub(super) output: Linear,
    /// Gate and up, whose rows alternate; without a gate only up.
    pub(super) gates: Linear,
    pub(super) down: Linear,
}

/// The weights.
pub(super) struct Weights {
    pub(super) embedding: Arc<Matrix>,
    /// The embedding of positions.
    pub(super) positions: Option<Buffer>,
    pub(super) layers: Vec<Layer>,
    pub(super) final_norm: Norm,
    pub(super) heads: Vec<(Head, Linear)>,
}

/// The order of the dimensions of a rotary embedding.
pub(super) struct Rotation {
    /// Pairs that rotate together, and after them the pairs that do not rotate.
    pub(super) pairs: Vec<[usize; 2]>,
    /// The number of the former.
    pub(super) rotating: usize,
}

impl Rotation {
    /// The order of a rotary embedding; of none, that in which nothing rotates.
    pub(super) fn new(rope: Option<&RopePlan>, head_dim: usize) -> Self {
        let rotating = rope.map_or(0, |rope| rope.dims / 2);
        let is_interleaved = rope.is_some_and(|rope| rope.interleaved);
        let turning =
            (0..rotating).map(|pair| if is_interleaved { [2 * pair, 2 * pair + 1] } else { [pair, pair + rotating] });
        let still = (rotating..head_dim / 2).map(|pair| [2 * pair, 2 * pair + 1]);
        Self { pairs: turning.chain(still).collect(), rotating }
    }

    /// The dimension of each row of a head's matrix: the two of a pair are rows `i` and `i + 8` of
    /// a tile, where one thread has both. Heads that are no whole number of tiles keep their order.
    pub(super) fn rows(&self) -> Vec<usize> {
        let dims = 2 * self.pairs.len();
        if !dims.is_multiple_of(TILE) {
            return (0..dims).collect();
        }
        let side = |pairs: &[[usize; 2]], which: usize| pairs.iter().map(|pair| pair[which]).collect::<Vec<_>>();
        self.pairs.chunks(ALTERNATE).flat_map(|pairs| [side(pairs, 0), side(pairs, 1)].concat()).collect()
    }
}

/// The first property of a model that this executor does not have.
pub(super) fn missing(blueprint: &Blueprint) -> Option<&'static str> {
    let norms = &blueprint.norms;
    let is_layer_norm = norms.centered || norms.bias;
    let has_post_norm = norms.post_attention.is_some() || norms.post_mlp.is_some();
    let properties = [
        (blueprint.experts.is_some(), "experts"),
        (blueprint.sinks, "attention sinks"),
        (is_layer_norm && blueprint.qk_norm != QkNorm::None, "LayerNorm of queries and keys"),
        (is_layer_norm && has_post_norm, "LayerNorm before a residual sum"),
    ];
    properties.into_iter().find(|(is_there, _)| *is_there).map(|(_, name)| name)
}

/// The kernel of queries, keys and values can rotate and store them itself.
pub(super) fn rotates_directly(blueprint: &Blueprint) -> bool {
    blueprint.head_dim.is_multiple_of(TILE) && blueprint.qk_norm == QkNorm::None
}

/// Norms cost no launch of their own: both of a layer are on the inputs, where activations have a
/// wide range.
pub(super) fn folds_norms(blueprint: &Blueprint, compute: Format) -> bool {
    let norms = &blueprint.norms;
    let on_inputs = norms.pre_attention.is_some() && norms.pre_mlp.is_some();
    let is_plain = !norms.centered && !norms.bias && !blueprint.parallel && blueprint.residual_scale == 1.0;
    let on_outputs = norms.post_attention.is_some() || norms.post_mlp.is_some();
    is_plain && on_inputs && !on_outputs && compute != Format::F16
}

/// Makes weights of a checkpoint's tensors.
pub(super) struct Loader<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) blueprint: &'a Blueprint,
    pub(super) tensors: &'a HashMap<String, Tensor>,
    /// The type of activations, and of matrices that are no blocks.
    pub(super) compute: Format,
    /// Matrices are converted to this format first.
    pub(super) dtype: Option<Format>,
    /// Changes to modules.
    pub(super) changes: &'a HashMap<String, Vec<LowRank>>,
}

impl Loader<'_> {
    pub(super) fn load(&self) -> Result<Weights> {
        // Rows are looked up, not multiplied: they stay as they are in the file.
        let stored = self.plain(self.tensor("model.embed_tokens.weight"))?;
        let embedding = Arc::new(Matrix::new(self.gpu, std::slice::from_ref(&stored), &natural(stored.rows()))?);
        let head = |HeadPlan { head, outputs, bias }: &HeadPlan| {
            let is_tied = self.blueprint.tied && *head == Head::VOCABULARY;
            let module = if is_tied { "model.embed_tokens" } else { head.module() };
            let matrix = self.changed(self.matrix(module)?, head.module())?;
            let is_embedding = is_tied && matrix.format == stored.format && !self.changes.contains_key(head.module());
            let bias = bias.then(|| self.values(&head.bias()));
            let linear = if is_embedding {
                let bias = bias.map(|bias| self.gpu.upload(&bias)).transpose()?;
                let parts = vec![Part { matrix: embedding.clone(), first: 0 }];
                Linear { parts, bias, outputs: *outputs, inputs: embedding.inputs }
            } else {
                self.linear(vec![Piece { tensors: vec![matrix], rows: natural(*outputs), bias }])?
            };
            Ok((*head, linear))
        };
        let heads = self.blueprint.output_heads.iter().map(head).collect::<Result<_>>()?;
        let final_norm = self.norm("model.norm", self.blueprint.norms.bias)?;
        let positions = || self.gpu.upload(&self.values(arch::POSITIONS));
        let positions = self.blueprint.positions.then(positions).transpose()?;
        let layers = (0..self.blueprint.layers.len()).map(|index| self.layer(index)).collect::<Result<_>>()?;
        Ok(Weights { embedding, positions, layers, final_norm, heads })
    }

    fn layer(&self, index: usize) -> Result<Layer> {
        let parts = self.blueprint.layer();
        let prefix = format!("model.layers.{index}");
        let rope = self.blueprint.layers[index].rope.map(|rope| &self.blueprint.ropes[rope]);
        let order = Rotation::new(rope, self.blueprint.head_dim).rows();
        let piece = |part: &StoredLinear, rows: Vec<Row>| -> Result<Piece> {
            let module = format!("{prefix}.{}", part.module);
            let whole = self.changed(self.matrix(&module)?, &module)?;
            let bias = part.bias.then(|| self.values(&format!("{module}.bias"))[part.rows.clone()].to_vec());
            Ok(Piece { tensors: vec![whole.narrow_rows(part.rows.start, part.rows.len())], rows, bias })
        };
        let by_head = |part: &StoredLinear| {
            let row = |index: usize| Some((0, index / order.len() * order.len() + order[index % order.len()]));
            piece(part, (0..part.rows.len()).map(row).collect())
        };
        let heads = [by_head(&parts.query)?, by_head(&parts.key)?, by_head(&parts.value)?];
        let expert = &parts.experts[0];
        let natural = |part: &StoredLinear| piece(part, natural(part.rows.len()));
        let (output, down) = (natural(&parts.output)?, natural(&expert.down)?);
        let gates = match &expert.gate {
            Some(gate) => self.alternate(piece(gate, Vec::new())?, piece(&expert.up, Vec::new())?)?,
            None => natural(&expert.up)?,
        };
        let norm = |norm: StoredNorm| self.norm(&format!("{prefix}.{}", norm.module), norm.bias);
        Ok(Layer {
            norms: parts.try_map(norm, |_| Result::Ok(()))?,
            heads: self.linear(heads.into())?,
            output: self.linear(vec![output])?,
            gates: self.linear(vec![gates])?,
            down: self.linear(vec![down])?,
        })
    }

    /// Joins gate and up, of one format, so that their rows alternate.
    fn alternate(&self, gate: Piece, up: Piece) -> Result<Piece> {
        let [mut gate, mut up] = [gate, up];
        let count = gate.tensors[0].rows();
        if gate.tensors[0].format != up.tensors[0].format {
            for piece in [&mut gate, &mut up] {
                piece.tensors[0] = piece.tensors[0].clone().in_format(self.compute)?;
            }
        }
        let of = |start: usize, tensor: usize| {
            (start..start + ALTERNATE).map(move |row| (row < count).then_some((tensor, row)))
        };
        let rows: Vec<Row> = (0..count).step_by(ALTERNATE).flat_map(|start| of(start, 0).chain(of(start, 1))).collect();
        let bias = gate.bias.zip(up.bias).map(|both| {
            let both = [both.0, both.1];
            rows.iter().map(|row| row.map_or(0.0, |(tensor, row)| both[tensor][row])).collect()
        });
        gate.tensors.append(&mut up.tensors);
        Ok(Piece { tensors: gate.tensors, rows, bias })
    }

    /// Makes a linear layer of pieces; neighbours of one format become one matrix where both are
    /// whole tiles.
    fn linear(&self, pieces: Vec<Piece>) -> Result<Linear> {
        let mut joined: Vec<Piece> = Vec::new();
        let bias: Vec<Option<Vec<f32>>> = pieces.iter().map(Piece::stored_bias).collect();
        for piece in pieces {
            match joined.last_mut() {
                Some(last) if last.joins(&piece) => last.append(piece),
                _ => joined.push(piece),
            }
        }
        let inputs = super::matrix::padded(joined[0].tensors[0].columns());
        let (mut parts, mut first) = (Vec::new(), 0);
        for piece in &joined {
            let matrix = Arc::new(Matrix::new(self.gpu, &piece.tensors, &piece.rows)?);
            parts.push(Part { matrix, first });
            first += piece.rows.len();
        }
        let bias: Option<Vec<Vec<f32>>> = bias.into_iter().collect();
        let bias = bias.map(|bias| self.gpu.upload(&bias.concat())).transpose()?;
        Ok(Linear { parts, bias, outputs: first, inputs })
    }

    /// The matrix of a module in the format it is computed with.
    fn matrix(&self, module: &str) -> Result<Tensor> {
        let tensor = self.tensor(&format!("{module}.weight"));
        match self.dtype.filter(|format| tensor.fits(*format)) {
            Some(format) => self.plain(tensor.in_format(format)?),
            None => self.plain(tensor),
        }
    }

    /// A tensor in the type of activations, unless it is of blocks that kernels read.
    fn plain(&self, tensor: Tensor) -> Result<Tensor> {
        if tensor.format.block_values() == 1 {
            return tensor.in_format(self.compute);
        }
        if tensor.format.is_writable() { Ok(tensor) } else { tensor.in_format(Format::Q8_0) }
    }

    /// A matrix with the changes to its module added.
    fn changed(&self, matrix: Tensor, module: &str) -> Result<Tensor> {
        let Some(changes) = self.changes.get(module) else { return Ok(matrix) };
        let (rows, columns, mut values) = (matrix.rows(), matrix.columns(), matrix.to_f32());
        for LowRank { a, b, scale, .. } in changes {
            let rank = a.rows();
            let (a, b) = (a.to_f32(), b.to_f32());
            for (row, values) in values.chunks_exact_mut(columns).enumerate() {
                for (inner, a) in a.chunks_exact(columns).enumerate() {
                    let factor = scale * b[row * rank + inner];
                    values.iter_mut().zip(a).for_each(|(value, a)| *value += factor * a);
                }
            }
        }
        let bytes = Format::F32.quantize(&values)?;
        Tensor::new(matrix.name, Format::F32, vec![rows, columns], bytes)?.in_format(self.compute)
    }

    fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).cloned().expect("invariant: all tensors of the model were required")
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.tensor(name).to_f32()
    }

    fn norm(&self, module: &str, bias: bool) -> Result<Norm> {
        let weight = self.values(&format!("{module}.weight"));
        let weight: Vec<f32> = weight.iter().map(|weight| weight + self.blueprint.norms.offset).collect();
        let shift = bias.then(|| self.gpu.upload(&self.values(&format!("{module}.bias")))).transpose()?;
        Ok(Norm { weight: self.gpu.upload(&weight)?, shift })
    }
}

impl Weights {
    /// The formats and last steps that the kernels must have.
    pub(super) fn uses(&self, blueprint: &Blueprint, compute: Format) -> Uses {
        let mut uses = Uses::new();
        // A step of more rows than its kernel takes is done in passes without a last step of its own.
        let mut add = |linear: &Linear, epilogue: Epilogue| {
            for part in &linear.parts {
                uses.extend([epilogue, Epilogue::Out].map(|epilogue| (part.matrix.format.name(), epilogue)));
            }
        };
        let heads = if rotates_directly(blueprint) { Epilogue::Heads } else { Epilogue::Out };
        let sums = if folds_norms(blueprint, compute) { Epilogue::Residual } else { Epilogue::Out };
        for layer in &self.layers {
            add(&layer.heads, heads);
            add(&layer.output, sums);
            add(&layer.gates, if blueprint.gated { Epilogue::Gate } else { Epilogue::Out });
            add(&layer.down, sums);
        }
        self.heads.iter().for_each(|(_, head)| add(head, Epilogue::Out));
        uses
    }

    /// The most rows that the kernels of all layers take at once.
    pub(super) fn most_rows(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| [&layer.heads, &layer.output, &layer.gates, &layer.down]);
        linears.map(Linear::most_rows).min().unwrap_or(0)
    }
}

/// Rows to be stored, of tensors of one format.
struct Piece {
    tensors: Vec<Tensor>,
    rows: Vec<Row>,
    /// One value for each row.
    bias: Option<Vec<f32>>,
}

impl Piece {
    fn joins(&self, next: &Self) -> bool {
        let whole = self.rows.len().is_multiple_of(TILE) && next.rows.len().is_multiple_of(TILE);
        whole && self.tensors[0].format == next.tensors[0].format
    }

    fn append(&mut self, next: Self) {
        let first = self.tensors.len();
        self.tensors.extend(next.tensors);
        self.rows.extend(next.rows.into_iter().map(|row| row.map(|(tensor, row)| (first + tensor, row))));
    }

    /// The bias in the order of the stored rows.
    fn stored_bias(&self) -> Option<Vec<f32>> {
        let bias = self.bias.as_ref()?;
        if self.tensors.len() > 1 {
            return Some(bias.clone());
        }
        Some(self.rows.iter().map(|row| row.map_or(0.0, |(_, row)| bias[row])).collect())
    }
}

fn natural(rows: usize) -> Vec<Row> {
    (0..rows).map(|row| Some((0, row))).collect()
}
