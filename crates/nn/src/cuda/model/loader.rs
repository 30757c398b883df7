//! Weights of a checkpoint's tensors, and the bytes that they take.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::super::division::Needs;
use super::super::driver::Gpu;
use super::super::matrix::{self, ALTERNATE, Matrix, Row, TILE};
use super::super::rotation::Rotation;
use super::{FeedForward, Layer, Linear, Norm, Part, Weights};
use crate::adapter::LowRank;
use crate::arch::{self, Blueprint, Expert, Head, HeadPlan, StoredLinear, StoredNorm};
use crate::checkpoint::Tensor;
use crate::error::Result;
use crate::format::Format;

/// Makes weights of a checkpoint's tensors.
pub(in crate::cuda) struct Loader<'a> {
    pub(in crate::cuda) gpu: &'a Gpu,
    pub(in crate::cuda) blueprint: &'a Blueprint,
    pub(in crate::cuda) tensors: &'a HashMap<String, Tensor>,
    /// The type of activations, and of matrices that are no blocks.
    pub(in crate::cuda) compute: Format,
    /// Matrices are converted to this format first.
    pub(in crate::cuda) dtype: Option<Format>,
    /// Changes to modules.
    pub(in crate::cuda) changes: &'a HashMap<String, Vec<LowRank>>,
}

impl Loader<'_> {
    /// Loads consecutive layers, with what is before the first or behind the last one.
    pub(in crate::cuda) fn load(&self, layers: &Range<usize>) -> Result<Weights> {
        let is_last = layers.end == self.blueprint.layers.len();
        // Rows are looked up, not multiplied: they stay as they are in the file.
        let stored = self.plain(self.tensor("model.embed_tokens.weight"))?;
        let embed = || Matrix::new(self.gpu, std::slice::from_ref(&stored), &natural(stored.rows())).map(Arc::new);
        let embedding = (layers.start == 0).then(embed).transpose()?;
        let head = |HeadPlan { head, outputs, bias }: &HeadPlan| {
            let is_tied = self.blueprint.tied && *head == Head::VOCABULARY;
            let module = if is_tied { "model.embed_tokens" } else { head.module() };
            let matrix = self.changed(self.matrix(module)?, head.module())?;
            let is_embedding = is_tied && matrix.format == stored.format && !self.changes.contains_key(head.module());
            let bias = bias.then(|| self.values(&head.bias()));
            let linear = match embedding.clone().filter(|_| is_embedding) {
                Some(matrix) => {
                    let bias = bias.map(|bias| self.gpu.upload(&bias)).transpose()?;
                    let inputs = matrix.inputs;
                    Linear { parts: vec![Part { matrix, first: 0 }], bias, outputs: *outputs, inputs }
                }
                None => self.linear(vec![Piece { tensors: vec![matrix], rows: natural(*outputs), bias }])?,
            };
            Ok((*head, linear))
        };
        let heads = self.blueprint.output_heads.iter().filter(|_| is_last).map(head).collect::<Result<_>>()?;
        let final_norm = self.norm("model.norm", self.blueprint.norms.bias)?;
        let positions = || self.gpu.upload(&self.values(arch::POSITIONS));
        let positions = (self.blueprint.positions && embedding.is_some()).then(positions).transpose()?;
        let next_norm = match self.blueprint.layer().pre_attention {
            _ if is_last => Some(self.norm("model.norm", self.blueprint.norms.bias)?),
            Some(norm) => Some(self.norm(&format!("model.layers.{}.{}", layers.end, norm.module), norm.bias)?),
            None => None,
        };
        let layers = layers.clone().map(|index| self.layer(index)).collect::<Result<_>>()?;
        Ok(Weights { embedding, positions, layers, next_norm, final_norm, heads })
    }

    /// Bytes that the weights take.
    pub(in crate::cuda) fn needs(&self, cache: usize) -> Needs {
        let mut needs = Needs { first: 0, layers: vec![0; self.blueprint.layers.len()], last: 0, shared: 0, cache };
        let embedding = self.tensor("model.embed_tokens.weight");
        for tensor in self.tensors.values() {
            let is_looked_up = tensor.name == embedding.name;
            let bytes = match tensor.shape[..] {
                [_, ..] if is_looked_up => self.bytes(tensor, None),
                [_, _, ..] if tensor.name != arch::POSITIONS => self.bytes(tensor, self.dtype),
                _ => tensor.rows() * tensor.columns() * size_of::<f32>(),
            };
            let layer = tensor.name.strip_prefix("model.layers.").and_then(|name| name.split('.').next()?.parse().ok());
            match layer.and_then(|layer: usize| needs.layers.get_mut(layer)) {
                Some(layer) => *layer += bytes,
                None if is_looked_up || tensor.name == arch::POSITIONS => needs.first += bytes,
                None => needs.last += bytes,
            }
        }
        if self.blueprint.tied {
            let bytes = self.bytes(&embedding, self.dtype);
            let is_same = self.stored_format(&embedding, self.dtype) == self.stored_format(&embedding, None);
            needs.last += bytes;
            needs.shared = if is_same && !self.changes.contains_key(Head::VOCABULARY.module()) { bytes } else { 0 };
        }
        needs
    }

    /// Bytes of a matrix as it is stored.
    fn bytes(&self, tensor: &Tensor, dtype: Option<Format>) -> usize {
        matrix::bytes(self.stored_format(tensor, dtype), tensor.rows(), tensor.columns())
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
    pub(super) fn piece(&self, prefix: &str, part: &StoredLinear, rows: Vec<Row>) -> Result<Piece> {
        let module = format!("{prefix}.{}", part.module);
        let whole = self.changed(self.matrix(&module)?, &module)?;
        let bias = part.bias.then(|| self.values(&format!("{module}.bias"))[part.rows.clone()].to_vec());
        Ok(Piece { tensors: vec![whole.narrow_rows(part.rows.start, part.rows.len())], rows, bias })
    }

    /// Gate and up of an expert, whose rows alternate; without a gate only up.
    pub(super) fn gates(&self, prefix: &str, expert: &Expert<StoredLinear>) -> Result<Piece> {
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
    pub(super) fn linear(&self, pieces: Vec<Piece>) -> Result<Linear> {
        let mut joined: Vec<Piece> = Vec::new();
        let bias: Vec<Option<Vec<f32>>> = pieces.iter().map(Piece::stored_bias).collect();
        for piece in pieces {
            match joined.last_mut() {
                Some(last) if last.joins(&piece) => last.append(piece),
                _ => joined.push(piece),
            }
        }
        let inputs = matrix::padded(joined[0].tensors[0].columns());
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
        let format = self.stored_format(&tensor, self.dtype);
        tensor.in_format(format)
    }

    /// A tensor in the format of its file, if kernels read that.
    fn plain(&self, tensor: Tensor) -> Result<Tensor> {
        let format = self.stored_format(&tensor, None);
        tensor.in_format(format)
    }

    /// The format that a tensor is stored in: `dtype` or its own, if that is of blocks which kernels
    /// read, else the type of activations.
    fn stored_format(&self, tensor: &Tensor, dtype: Option<Format>) -> Format {
        match dtype.filter(|format| tensor.fits(*format)).unwrap_or(tensor.format) {
            format if format.block_values() == 1 => self.compute,
            format if format.is_writable() => format,
            _ => Format::Q8_0,
        }
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

/// Rows to be stored, of tensors of one format.
pub(super) struct Piece {
    pub(super) tensors: Vec<Tensor>,
    pub(super) rows: Vec<Row>,
    /// One value for each row.
    bias: Option<Vec<f32>>,
}

impl Piece {
    fn joins(&self, next: &Self) -> bool {
        let whole = self.rows.len().is_multiple_of(TILE) && next.rows.len().is_multiple_of(TILE);
        whole && self.tensors[0].format == next.tensors[0].format
    }

    pub(super) fn append(&mut self, next: Self) {
        let first = self.tensors.len();
        self.tensors.extend(next.tensors);
        self.rows.extend(next.rows.into_iter().map(|row| row.map(|(tensor, row)| (first + tensor, row))));
    }

    /// The bias in the order of the stored rows.
    pub(super) fn stored_bias(&self) -> Option<Vec<f32>> {
        let bias = self.bias.as_ref()?;
        if self.tensors.len() > 1 {
            return Some(bias.clone());
        }
        Some(self.rows.iter().map(|row| row.map_or(0.0, |(_, row)| bias[row])).collect())
    }
}

pub(super) fn natural(rows: usize) -> Vec<Row> {
    (0..rows).map(|row| Some((0, row))).collect()
}
