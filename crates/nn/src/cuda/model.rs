//! The weights of a model on a GPU, arranged for the kernels.

mod experts;

use std::collections::HashMap;
use std::sync::Arc;

use super::driver::{Buffer, Gpu};
use super::matrix::{ALTERNATE, Matrix, Row, TILE};
use super::program::{Epilogue, MOST_USED, Types, Uses, most_rows};
use super::rotation::Rotation;
use crate::adapter::LowRank;
use crate::arch::{self, Blueprint, Expert, Head, HeadPlan, LayerParts, QkNorm, StoredLinear, StoredNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::format::Format;
use crate::kernels::KvFormat;
pub(super) use experts::{Mixture, Stack};

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
    /// A score for each query head.
    pub(super) sinks: Option<Buffer>,
    /// Queries, keys and values.
    pub(super) heads: Linear,
    pub(super) output: Linear,
    pub(super) feed_forward: FeedForward,
}

/// The feed-forward part of a layer.
pub(super) enum FeedForward {
    /// One expert.
    Dense {
        /// Gate and up, whose rows alternate; without a gate only up.
        gates: Linear,
        down: Linear,
    },
    Mixture(Box<Mixture>),
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

/// The first property of a model that this executor does not have.
pub(super) fn missing(blueprint: &Blueprint) -> Option<&'static str> {
    let has_experts = blueprint.experts.is_some();
    let properties = [
        (has_experts && !blueprint.gated, "experts without a gate"),
        (blueprint.experts.is_some_and(|experts| experts.used > MOST_USED), "more than 64 experts for a token"),
    ];
    properties.into_iter().find(|(is_there, _)| *is_there).map(|(_, name)| name)
}

/// The kernel of queries, keys and values can rotate and store them itself.
pub(super) fn rotates_directly(blueprint: &Blueprint, kv: KvFormat) -> bool {
    // Bytes are stored by whole rows, whose scales depend on all of their numbers.
    let by_numbers = kv != KvFormat::Q8_0;
    by_numbers && blueprint.head_dim.is_multiple_of(TILE) && blueprint.qk_norm == QkNorm::None
}

/// Norms cost no launch of their own: both of a layer are on the inputs, where activations have a
/// wide range.
pub(super) fn folds_norms(blueprint: &Blueprint, compute: Format) -> bool {
    let norms = &blueprint.norms;
    let on_inputs = norms.pre_attention.is_some() && norms.pre_mlp.is_some();
    let is_centered = norms.centered || norms.bias;
    let is_plain =
        !is_centered && !blueprint.parallel && blueprint.residual_scale == 1.0 && blueprint.experts.is_none();
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
        let by_head = |part: &StoredLinear| {
            let row = |index: usize| Some((0, index / order.len() * order.len() + order[index % order.len()]));
            self.piece(&prefix, part, (0..part.rows.len()).map(row).collect())
        };
        let heads = [by_head(&parts.query)?, by_head(&parts.key)?, by_head(&parts.value)?];
        let natural = |part: &StoredLinear| self.piece(&prefix, part, natural(part.rows.len()));
        let output = natural(&parts.output)?;
        let feed_forward = match &parts.router {
            Some(router) => FeedForward::Mixture(Box::new(self.mixture(&prefix, &parts, router)?)),
            None => FeedForward::Dense {
                gates: self.linear(vec![self.gates(&prefix, &parts.experts[0])?])?,
                down: self.linear(vec![natural(&parts.experts[0].down)?])?,
            },
        };
        let sinks = || self.gpu.upload(&self.values(&format!("{prefix}.{}", arch::SINKS)));
        let norm = |norm: StoredNorm| self.norm(&format!("{prefix}.{}", norm.module), norm.bias);
        Ok(Layer {
            norms: parts.try_map(norm, |_| Result::Ok(()))?,
            heads: self.linear(heads.into())?,
            sinks: self.blueprint.sinks.then(sinks).transpose()?,
            output: self.linear(vec![output])?,
            feed_forward,
        })
    }

    /// Rows of a module within `prefix`.
    fn piece(&self, prefix: &str, part: &StoredLinear, rows: Vec<Row>) -> Result<Piece> {
        let module = format!("{prefix}.{}", part.module);
        let whole = self.changed(self.matrix(&module)?, &module)?;
        let bias = part.bias.then(|| self.values(&format!("{module}.bias"))[part.rows.clone()].to_vec());
        Ok(Piece { tensors: vec![whole.narrow_rows(part.rows.start, part.rows.len())], rows, bias })
    }

    /// Gate and up of an expert, whose rows alternate; without a gate only up.
    fn gates(&self, prefix: &str, expert: &Expert<StoredLinear>) -> Result<Piece> {
        let up = |rows| self.piece(prefix, &expert.up, rows);
        match &expert.gate {
            Some(gate) => self.alternate(self.piece(prefix, gate, Vec::new())?, up(Vec::new())?),
            None => up(natural(expert.up.rows.len())),
        }
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
    pub(super) fn uses(&self, blueprint: &Blueprint, types: Types) -> Uses {
        let mut uses = Uses::default();
        // A step of more rows than its kernel takes is done in passes without a last step of its own.
        let mut add = |linear: &Linear, epilogue: Epilogue| {
            for part in &linear.parts {
                uses.linear.extend([epilogue, Epilogue::Out].map(|epilogue| (part.matrix.format.name(), epilogue)));
            }
        };
        let heads = if rotates_directly(blueprint, types.kv) { Epilogue::Heads } else { Epilogue::Out };
        let sums = if folds_norms(blueprint, types.compute) { Epilogue::Residual } else { Epilogue::Out };
        for layer in &self.layers {
            add(&layer.heads, heads);
            add(&layer.output, sums);
            match &layer.feed_forward {
                FeedForward::Dense { gates, down } => {
                    add(gates, if blueprint.gated { Epilogue::Gate } else { Epilogue::Out });
                    add(down, sums);
                }
                FeedForward::Mixture(mixture) => add(&mixture.router, Epilogue::Out),
            }
        }
        self.heads.iter().for_each(|(_, head)| add(head, Epilogue::Out));
        for layer in &self.layers {
            if let FeedForward::Mixture(mixture) = &layer.feed_forward {
                let Mixture { gates, down, .. } = &**mixture;
                uses.experts.insert((gates.matrix.format.name(), Epilogue::Gate));
                uses.experts.insert((down.matrix.format.name(), Epilogue::Out));
            }
        }
        uses
    }

    /// The most rows that the kernels of all layers take at once.
    pub(super) fn most_rows(&self) -> usize {
        let linears = self.layers.iter().flat_map(|layer| {
            let mut linears = vec![&layer.heads, &layer.output];
            if let FeedForward::Dense { gates, down } = &layer.feed_forward {
                linears.extend([gates, down]);
            }
            linears
        });
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
