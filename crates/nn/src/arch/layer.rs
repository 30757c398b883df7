//! The parts of a decoder layer, in one place for the file's tensors and for all executors.

use std::ops::Range;

use super::{Blueprint, QkNorm};

/// One decoder layer, generic over its norms `N` and its linear layers `L`. A norm that the
/// architecture lacks is `None`.
#[derive(Clone, Debug)]
pub struct LayerParts<N, L> {
    /// The norm on the input of attention.
    pub pre_attention: Option<N>,
    /// The norm on the output of attention.
    pub post_attention: Option<N>,
    /// The norm on the input of the feed-forward part.
    pub pre_mlp: Option<N>,
    /// The norm on the output of the feed-forward part.
    pub post_mlp: Option<N>,
    /// The norm of the queries.
    pub query_norm: Option<N>,
    /// The norm of the keys.
    pub key_norm: Option<N>,
    /// The query projection, `hidden` to `query_width`.
    pub query: L,
    /// The key projection, `hidden` to `kv_width`.
    pub key: L,
    /// The value projection, `hidden` to `kv_width`.
    pub value: L,
    /// The gate of the feed-forward part, `hidden` to `ffn`.
    pub gate: L,
    /// The gated branch of the feed-forward part, `hidden` to `ffn`.
    pub up: L,
    /// The output projection of attention, `query_width` to `hidden`.
    pub output: L,
    /// The output projection of the feed-forward part, `ffn` to `hidden`.
    pub down: L,
}

/// A norm as a file stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredNorm {
    /// The name of its module within the layer, as `input_layernorm`.
    pub module: &'static str,
    /// The length of its weight.
    pub width: usize,
}

/// A linear layer as a file stores it: all rows of a matrix `(outputs, inputs)`, or some rows of a
/// fused one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLinear {
    /// The name of the module within the layer, as `self_attn.q_proj`.
    pub module: &'static str,
    /// The rows of the module's matrix that form this linear layer.
    pub rows: Range<usize>,
    /// The number of rows of the module's matrix.
    pub module_rows: usize,
    /// The number of columns.
    pub inputs: usize,
    /// The module has a bias, of `module_rows` values.
    pub bias: bool,
}

impl Blueprint {
    /// Returns the parts of a layer as a file stores them. All layers of a model have the same.
    ///
    /// # Examples
    /// ```
    /// # use std::path::Path;
    /// use wsd_nn::{Checkpoint, arch};
    ///
    /// let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    /// let blueprint = arch::blueprint(&Checkpoint::open(&path)?.config)?;
    /// let layer = blueprint.layer();
    /// assert_eq!(layer.query.module, "self_attn.q_proj");
    /// assert_eq!(layer.down.inputs, blueprint.ffn);
    /// assert!(layer.post_mlp.is_none());
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    #[must_use]
    pub fn layer(&self) -> LayerParts<StoredNorm, StoredLinear> {
        let (hidden, ffn, query, kv) = (self.hidden, self.ffn, self.query_width(), self.kv_width());
        let norm = |module| StoredNorm { module, width: hidden };
        let qk_widths = match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some((self.head_dim, self.head_dim)),
            QkNorm::Full => Some((query, kv)),
        };
        let whole = |module, outputs, inputs, bias| StoredLinear {
            module,
            rows: 0..outputs,
            module_rows: outputs,
            inputs,
            bias,
        };
        let part = |own, fused, rows: Range<usize>, module_rows, bias| {
            let own = whole(own, rows.len(), hidden, bias);
            if self.fused { StoredLinear { module: fused, rows, module_rows, ..own } } else { own }
        };
        let qkv = |own, rows| part(own, "self_attn.qkv_proj", rows, query + 2 * kv, self.qkv_bias);
        let gate_up = |own, rows| part(own, "mlp.gate_up_proj", rows, 2 * ffn, self.mlp_bias);
        LayerParts {
            pre_attention: self.norms.pre_attention.map(norm),
            post_attention: self.norms.post_attention.map(norm),
            pre_mlp: self.norms.pre_mlp.map(norm),
            post_mlp: self.norms.post_mlp.map(norm),
            query_norm: qk_widths.map(|(width, _)| StoredNorm { module: "self_attn.q_norm", width }),
            key_norm: qk_widths.map(|(_, width)| StoredNorm { module: "self_attn.k_norm", width }),
            query: qkv("self_attn.q_proj", 0..query),
            key: qkv("self_attn.k_proj", query..query + kv),
            value: qkv("self_attn.v_proj", query + kv..query + 2 * kv),
            gate: gate_up("mlp.gate_proj", 0..ffn),
            up: gate_up("mlp.up_proj", ffn..2 * ffn),
            output: whole("self_attn.o_proj", hidden, query, self.output_bias),
            down: whole("mlp.down_proj", hidden, ffn, self.mlp_bias),
        }
    }
}

impl<N, L> LayerParts<N, L> {
    /// Makes another form of each part: norms first, then linear layers.
    ///
    /// # Errors
    /// The first error of `norm` or `linear`.
    pub fn try_map<M, K, E>(
        self,
        mut norm: impl FnMut(N) -> Result<M, E>,
        mut linear: impl FnMut(L) -> Result<K, E>,
    ) -> Result<LayerParts<M, K>, E> {
        let mut norm = |part: Option<N>| part.map(&mut norm).transpose();
        Ok(LayerParts {
            pre_attention: norm(self.pre_attention)?,
            post_attention: norm(self.post_attention)?,
            pre_mlp: norm(self.pre_mlp)?,
            post_mlp: norm(self.post_mlp)?,
            query_norm: norm(self.query_norm)?,
            key_norm: norm(self.key_norm)?,
            query: linear(self.query)?,
            key: linear(self.key)?,
            value: linear(self.value)?,
            gate: linear(self.gate)?,
            up: linear(self.up)?,
            output: linear(self.output)?,
            down: linear(self.down)?,
        })
    }

    /// Returns the norms the layer has, in the order of its fields.
    pub fn norms(&self) -> impl Iterator<Item = &N> {
        let attention = [&self.pre_attention, &self.post_attention];
        let rest = [&self.pre_mlp, &self.post_mlp, &self.query_norm, &self.key_norm];
        attention.into_iter().chain(rest).flatten()
    }

    /// Returns the linear layers to be changed, in the order of the fields.
    pub fn linears_mut(&mut self) -> [&mut L; 7] {
        let Self { query, key, value, gate, up, output, down, .. } = self;
        [query, key, value, gate, up, output, down]
    }

    /// Returns the linear layers in the order of the fields.
    pub fn linears(&self) -> [&L; 7] {
        [&self.query, &self.key, &self.value, &self.gate, &self.up, &self.output, &self.down]
    }
}
