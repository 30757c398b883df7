//! The parts of a decoder layer, in one place for the file's tensors and for all executors.

use std::borrow::Cow;
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
    /// The output projection of attention, `query_width` to `hidden`.
    pub output: L,
    /// The projection that rates the experts, `hidden` to their number; `None` for a dense model.
    pub router: Option<L>,
    /// The experts; one for a dense model.
    pub experts: Vec<Expert<L>>,
}

/// One feed-forward part.
#[derive(Clone, Debug)]
pub struct Expert<L> {
    /// The gate, `hidden` to `ffn`.
    pub gate: Option<L>,
    /// The gated branch, `hidden` to `ffn`.
    pub up: L,
    /// The output projection, `ffn` to `hidden`.
    pub down: L,
}

/// A norm as a file stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredNorm {
    /// The name of its module within the layer, as `input_layernorm`.
    pub module: &'static str,
    /// The length of its weight.
    pub width: usize,
    /// The module has a bias, of `width` values.
    pub bias: bool,
}

/// A linear layer as a file stores it: all rows of a matrix `(outputs, inputs)`, or some rows of a
/// fused one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLinear {
    /// The name of the module within the layer, as `self_attn.q_proj`.
    pub module: Cow<'static, str>,
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
    /// assert_eq!(layer.experts[0].down.inputs, blueprint.ffn);
    /// assert!(layer.post_mlp.is_none());
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    #[must_use]
    pub fn layer(&self) -> LayerParts<StoredNorm, StoredLinear> {
        let (hidden, query, kv) = (self.hidden, self.query_width(), self.kv_width());
        let norm = |module| StoredNorm { module, width: hidden, bias: self.norms.bias };
        let qk_norm = |module, width| StoredNorm { module, width, bias: false };
        let qk_widths = match self.qk_norm {
            QkNorm::None => None,
            QkNorm::PerHead => Some((self.head_dim, self.head_dim)),
            QkNorm::Full => Some((query, kv)),
        };
        let qkv = |own, rows: Range<usize>| {
            let own = StoredLinear::whole(own, rows.len(), hidden, self.qkv_bias);
            own.within(self.fused_qkv.then_some("self_attn.qkv_proj"), rows, query + 2 * kv)
        };
        let router = |experts: super::Experts| StoredLinear::whole("mlp.gate", experts.count, hidden, experts.bias);
        LayerParts {
            pre_attention: self.norms.pre_attention.map(norm),
            post_attention: self.norms.post_attention.map(norm),
            pre_mlp: self.norms.pre_mlp.map(norm),
            post_mlp: self.norms.post_mlp.map(norm),
            query_norm: qk_widths.map(|(width, _)| qk_norm("self_attn.q_norm", width)),
            key_norm: qk_widths.map(|(_, width)| qk_norm("self_attn.k_norm", width)),
            query: qkv("self_attn.q_proj", 0..query),
            key: qkv("self_attn.k_proj", query..query + kv),
            value: qkv("self_attn.v_proj", query + kv..query + 2 * kv),
            output: StoredLinear::whole("self_attn.o_proj", hidden, query, self.output_bias),
            router: self.experts.map(router),
            experts: match self.experts {
                None => vec![self.expert("mlp")],
                Some(experts) => (0..experts.count).map(|index| self.expert(&format!("mlp.experts.{index}"))).collect(),
            },
        }
    }

    /// Returns the parts of the expert whose modules are within `prefix`.
    fn expert(&self, prefix: &str) -> Expert<StoredLinear> {
        let (hidden, ffn, bias) = (self.hidden, self.ffn, self.mlp_bias);
        let whole = |own: &str, outputs, inputs| StoredLinear::whole(format!("{prefix}.{own}"), outputs, inputs, bias);
        let part = |own, rows: Range<usize>| {
            let fused = self.fused_gates.then(|| format!("{prefix}.gate_up_proj"));
            whole(own, ffn, hidden).within(fused, rows, 2 * ffn)
        };
        Expert {
            gate: self.gated.then(|| part("gate_proj", 0..ffn)),
            up: part("up_proj", ffn..2 * ffn),
            down: whole("down_proj", hidden, ffn),
        }
    }
}

impl StoredLinear {
    /// All rows of a module.
    fn whole(module: impl Into<Cow<'static, str>>, outputs: usize, inputs: usize, bias: bool) -> Self {
        Self { module: module.into(), rows: 0..outputs, module_rows: outputs, inputs, bias }
    }

    /// The same linear layer as some rows of a fused module, if there is one.
    fn within(self, fused: Option<impl Into<Cow<'static, str>>>, rows: Range<usize>, module_rows: usize) -> Self {
        match fused {
            Some(module) => Self { module: module.into(), rows, module_rows, ..self },
            None => self,
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
            output: linear(self.output)?,
            router: self.router.map(&mut linear).transpose()?,
            experts: self.experts.into_iter().map(|expert| expert.try_map(&mut linear)).collect::<Result<_, _>>()?,
        })
    }

    /// Returns the norms the layer has, in the order of its fields.
    pub fn norms(&self) -> impl Iterator<Item = &N> {
        let attention = [&self.pre_attention, &self.post_attention];
        let rest = [&self.pre_mlp, &self.post_mlp, &self.query_norm, &self.key_norm];
        attention.into_iter().chain(rest).flatten()
    }

    /// Returns the linear layers: parts that may share a matrix are neighbors.
    pub fn linears(&self) -> impl Iterator<Item = &L> {
        let heads = [&self.query, &self.key, &self.value].into_iter().chain(&self.router);
        let gates = self.experts.iter().flat_map(|expert| expert.gate.iter().chain([&expert.up]));
        let downs = self.experts.iter().map(|expert| &expert.down);
        heads.chain(gates).chain([&self.output]).chain(downs)
    }

    /// Returns the linear layers to be changed, in the order of [`LayerParts::linears`].
    pub fn linears_mut(&mut self) -> Vec<&mut L> {
        let Self { query, key, value, output, router, experts, .. } = self;
        let mut linears = vec![query, key, value];
        linears.extend(router);
        let mut downs = Vec::with_capacity(experts.len());
        for Expert { gate, up, down } in experts {
            linears.extend(gate);
            linears.push(up);
            downs.push(down);
        }
        linears.push(output);
        linears.extend(downs);
        linears
    }
}

impl<L> Expert<L> {
    fn try_map<K, E>(self, mut linear: impl FnMut(L) -> Result<K, E>) -> Result<Expert<K>, E> {
        let Self { gate, up, down } = self;
        Ok(Expert { gate: gate.map(&mut linear).transpose()?, up: linear(up)?, down: linear(down)? })
    }
}
