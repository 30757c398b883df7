//! A decoder of the common skeleton as plain data.

use wsd_core::Head;

use super::heads::HeadPlan;
use super::keys::{Keys, MOST_POSITIONS};
use super::rope::RopePlan;
use crate::activation::Activation;
use crate::error::Result;

/// The key of [`Factors::embedding`].
pub const EMBEDDING_RANK: &str = "wsd_embedding_rank";
/// The key of [`Factors::head`].
pub const HEAD_RANK: &str = "wsd_head_rank";
/// The key of [`Factors::kept`].
pub const KEPT_TOKENS: &str = "wsd_kept_tokens";

// Larger sizes mean a damaged or hostile file: no model comes near them, and their products cannot overflow.
const MOST_LAYERS: usize = 4096;
const MOST_HEADS: usize = 4096;
pub(super) const MOST_WIDTH: usize = 1 << 20;
const MOST_TOKENS: usize = 1 << 24;

/// A decoder-only transformer.
///
/// [`crate::arch::blueprint()`] reads one from a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// The `model_type` of the configuration, which tells how files spell tensors
    /// ([`crate::Spelling`]).
    pub model_type: &'static str,
    /// The width of the residual stream.
    pub hidden: usize,
    /// The number of query heads.
    pub heads: usize,
    /// The number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// The width of one head; even.
    pub head_dim: usize,
    /// The inner width of the feed-forward part.
    pub ffn: usize,
    /// The number of rows of the embedding; token ids are below it.
    pub vocab: usize,
    /// The ranks of tables of the vocabulary that the file holds as products of two matrices.
    pub factors: Factors,
    /// The longest sequence the model supports, in tokens.
    pub max_len: usize,
    /// The layers, first to last.
    pub layers: Vec<LayerPlan>,
    /// The rotary embeddings that layers refer to.
    pub ropes: Vec<RopePlan>,
    /// The norms of a layer.
    pub norms: Norms,
    /// The norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Attention and the feed-forward part both read the input of the layer.
    pub parallel: bool,
    /// The query, key and value projections have biases.
    pub qkv_bias: bool,
    /// The attention output projection has a bias.
    pub output_bias: bool,
    /// The feed-forward projections have biases.
    pub mlp_bias: bool,
    /// The file holds a fused matrix `qkv_proj`, rows stacked in that order.
    pub fused_qkv: bool,
    /// The file holds a fused matrix `gate_up_proj`, rows stacked in that order.
    pub fused_gates: bool,
    /// The feed-forward part has a gate, to which the nonlinearity is applied; without one it is
    /// applied to the only projection, `up`.
    pub gated: bool,
    /// The experts of the feed-forward part; `None` for a dense model.
    pub experts: Option<Experts>,
    /// The nonlinearity of the feed-forward part.
    pub activation: Activation,
    /// The factor on the query-key product.
    pub attention_scale: f32,
    /// Each head has a sink: a score without a position, which takes a share of its softmax.
    pub sinks: bool,
    /// The cap `c` of `c * tanh(score / c)` on attention scores.
    pub attention_softcap: Option<f32>,
    /// The cap `c` of `c * tanh(logit / c)` on logits.
    pub final_softcap: Option<f32>,
    /// The factor on token embeddings.
    pub embedding_scale: f32,
    /// The file has an embedding of positions, which is added to that of tokens.
    pub positions: bool,
    /// The factor on the outputs of attention and feed-forward part, before the residual sum.
    pub residual_scale: f32,
    /// The factor on logits, before the soft cap.
    pub logit_scale: f32,
    /// The matrix of the vocabulary head is the embedding.
    pub tied: bool,
    /// Output heads; see [`Blueprint::with_heads`].
    pub output_heads: Vec<HeadPlan>,
}

/// The ranks of tables of the vocabulary, `(vocab, hidden)`, that are products of a matrix
/// `(vocab, rank)` and a smaller one; `None` for a table that is one matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Factors {
    /// The rank of the embedding, and of a head that is tied to it.
    pub embedding: Option<usize>,
    /// The rank of a vocabulary head of its own.
    pub head: Option<usize>,
    /// The tokens, ascending, whose rows of these tables are the product's plus a row of their own.
    pub kept: Vec<u32>,
}

/// The properties in which layers of one model differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// The sliding window: a token attends to itself and to the `window - 1` positions before it.
    /// `None` means all positions.
    pub window: Option<usize>,
    /// The index of its rotary embedding in [`Blueprint::ropes`]; `None` for a layer that rotates
    /// nothing.
    pub rope: Option<usize>,
}

/// A mixture of experts: feed-forward parts of which each token passes a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// The number of experts.
    pub count: usize,
    /// The number of experts that a token passes: those with the largest router outputs.
    pub used: usize,
    /// The weights of a token's experts are the softmax over their router outputs; otherwise over
    /// those of all experts.
    pub normalized: bool,
    /// The router has a bias.
    pub bias: bool,
}

/// The norms of a layer, by their names in the file; `None` if the architecture has no norm
/// there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// The epsilon added to the mean square or the variance.
    pub eps: f32,
    /// The offset added to every stored norm weight: 1 for Gemma.
    pub offset: f32,
    /// The mean is subtracted first (LayerNorm); otherwise the norm is an RMS norm.
    pub centered: bool,
    /// The norms have biases.
    pub bias: bool,
    /// The norm on the input of attention.
    pub pre_attention: Option<&'static str>,
    /// The norm on the output of attention, before the residual sum.
    pub post_attention: Option<&'static str>,
    /// The norm on the input of the feed-forward part.
    pub pre_mlp: Option<&'static str>,
    /// The norm on the output of the feed-forward part, before the residual sum.
    pub post_mlp: Option<&'static str>,
}

impl Norms {
    /// No norm.
    pub(super) const NONE: Self = Self {
        eps: 0.0,
        offset: 0.0,
        centered: false,
        bias: false,
        pre_attention: None,
        post_attention: None,
        pre_mlp: None,
        post_mlp: None,
    };
}

/// The norm of queries and keys, before rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// No norm.
    None,
    /// Each head separately, with one weight of `head_dim` values for all heads.
    PerHead,
    /// The whole projection at once, with a weight of its full width.
    Full,
}

impl Blueprint {
    /// A model without any part that some architectures lack, of no size: plain attention and a
    /// feed-forward part with a gate by SiLU.
    pub(super) const PLAIN: Self = Self {
        model_type: "",
        hidden: 0,
        heads: 0,
        kv_heads: 0,
        head_dim: 0,
        ffn: 0,
        vocab: 0,
        factors: Factors { embedding: None, head: None, kept: Vec::new() },
        max_len: 0,
        layers: Vec::new(),
        ropes: Vec::new(),
        norms: Norms::NONE,
        qk_norm: QkNorm::None,
        parallel: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        fused_qkv: false,
        fused_gates: false,
        gated: true,
        experts: None,
        activation: Activation::Silu,
        attention_scale: 1.0,
        sinks: false,
        attention_softcap: None,
        final_softcap: None,
        embedding_scale: 1.0,
        positions: false,
        residual_scale: 1.0,
        logit_scale: 1.0,
        tied: false,
        output_heads: Vec::new(),
    };

    /// Reads the blueprint of Llama, which the other architectures change.
    pub(super) fn skeleton(keys: &Keys<'_>) -> Result<Self> {
        let hidden = keys.count("hidden_size", MOST_WIDTH)?;
        let heads = keys.count("num_attention_heads", MOST_HEADS)?;
        let head_dim = head_dim(keys, hidden, heads)?;
        let layer = LayerPlan { window: None, rope: Some(0) };
        let rope = RopePlan::parse(keys, head_dim, "full_attention", 10_000.0)?;
        Ok(Self {
            hidden,
            heads,
            kv_heads: kv_heads(keys, heads)?,
            head_dim,
            ffn: keys.count("intermediate_size", MOST_WIDTH)?,
            vocab: keys.count("vocab_size", MOST_TOKENS)?,
            factors: factors(keys, hidden)?,
            max_len: rope.reach(keys.count("max_position_embeddings", MOST_POSITIONS)?),
            layers: vec![layer; keys.count("num_hidden_layers", MOST_LAYERS)?],
            ropes: vec![rope],
            norms: Norms {
                eps: keys.positive_or("rms_norm_eps", 1e-6)? as f32,
                pre_attention: Some("input_layernorm"),
                pre_mlp: Some("post_attention_layernorm"),
                ..Norms::NONE
            },
            activation: activation(keys, "hidden_act", "silu")?,
            attention_scale: (head_dim as f64).powf(-0.5) as f32,
            tied: keys.flag_or("tie_word_embeddings", false)?,
            output_heads: vec![HeadPlan::vocabulary(keys.count("vocab_size", MOST_TOKENS)?)],
            ..Self::PLAIN
        })
    }

    /// Chooses the rotary embedding of each layer by its index and its window.
    pub(super) fn set_ropes(&mut self, choose: impl Fn(usize, Option<usize>) -> Option<usize>) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.rope = choose(index, layer.window);
        }
    }

    /// Gives a window to the layers that `layer_types` names `sliding_attention`. Without that key,
    /// `is_sliding` decides by the index of a layer.
    pub(super) fn set_windows(
        &mut self,
        keys: &Keys<'_>,
        window: Option<usize>,
        is_sliding: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let kinds = match keys.get("layer_types").map(|value| (value, value.as_array())) {
            None => None,
            Some((_, Some(kinds))) if kinds.len() == self.layers.len() => Some(kinds),
            Some((_, list)) => {
                let found = list.map_or(0, Vec::len);
                let limit = format!("a list of {} entries (one per layer), not {found}", self.layers.len());
                return Err(keys.fault("layer_types", &limit));
            }
        };
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let sliding = match kinds.map(|kinds| kinds[index].as_str()) {
                None => is_sliding(index),
                Some(Some("sliding_attention")) => true,
                Some(Some("full_attention")) => false,
                Some(_) => {
                    return Err(keys.fault("layer_types", "a list of `full_attention` and `sliding_attention`"));
                }
            };
            layer.window = window.filter(|_| sliding);
        }
        Ok(())
    }

    /// Returns true if a sequence of `len` tokens is beyond the original length of LongRoPE, so
    /// that every token is rotated by the frequencies of long sequences. As in the reference
    /// implementation, the whole sequence changes when its length passes that border, earlier
    /// positions included: a hidden state depends on the side of the border its sequence is on.
    #[must_use]
    pub fn is_long(&self, len: usize) -> bool {
        self.ropes.iter().any(|rope| rope.is_long(len))
    }

    /// Returns the width of all query heads together.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Returns the width of all key heads together, which is that of all value heads.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Reads the nonlinearity that `key` names.
pub(super) fn activation(keys: &Keys<'_>, key: &str, default: &str) -> Result<Activation> {
    match keys.text_or(key, default)? {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        _ => Err(keys.fault(key, "one of `silu`, `gelu`, `gelu_pytorch_tanh`")),
    }
}

/// The norms of LayerNorm (Ba et al. 2016, arXiv 1607.06450), with the epsilon of `key`.
pub(super) fn layer_norms(keys: &Keys<'_>, key: &str, norms: Norms) -> Result<Norms> {
    Ok(Norms { eps: keys.positive_or(key, 1e-5)? as f32, centered: true, bias: true, ..norms })
}

/// Reads `sliding_window`. An absent key means `default`; null means no window, and so does the 0
/// of GGUF files.
pub(super) fn window(keys: &Keys<'_>, default: usize) -> Result<Option<usize>> {
    match keys.raw("sliding_window") {
        None => Ok(Some(default)),
        Some(value) if value.is_null() || *value == 0 => Ok(None),
        Some(_) => keys.count("sliding_window", MOST_POSITIONS).map(Some),
    }
}

fn head_dim(keys: &Keys<'_>, hidden: usize, heads: usize) -> Result<usize> {
    let head_dim = keys.count_or("head_dim", MOST_HEADS, hidden / heads)?;
    if !keys.has("head_dim") && !hidden.is_multiple_of(heads) {
        return Err(keys.fault("num_attention_heads", &format!("a divisor of `hidden_size` = {hidden}")));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(keys.fault("head_dim", "an even number above 0"));
    }
    Ok(head_dim)
}

/// Reads the ranks of tables, at most the width of the model, and the tokens with rows of their own.
fn factors(keys: &Keys<'_>, hidden: usize) -> Result<Factors> {
    let rank = |key: &str| keys.has(key).then(|| keys.count(key, hidden)).transpose();
    let kept = if keys.has(KEPT_TOKENS) { keys.tokens(KEPT_TOKENS, "vocab_size", MOST_TOKENS)? } else { Vec::new() };
    Ok(Factors { embedding: rank(EMBEDDING_RANK)?, head: rank(HEAD_RANK)?, kept })
}

fn kv_heads(keys: &Keys<'_>, heads: usize) -> Result<usize> {
    let kv_heads = keys.count_or("num_key_value_heads", MOST_HEADS, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.fault("num_key_value_heads", &format!("a divisor of `num_attention_heads` = {heads}")));
    }
    Ok(kv_heads)
}

impl Blueprint {
    /// The same model with the heads that a checkpoint has. `shape` returns the shape of a tensor
    /// by its name. A checkpoint without any head is expected to have that of the vocabulary.
    #[must_use]
    pub fn with_heads<'a>(self, shape: impl Fn(&str) -> Option<&'a [usize]>) -> Self {
        let stored = |head: Head| {
            let outputs = *shape(&head.weight())?.first()?;
            Some(HeadPlan { head, outputs, bias: shape(&head.bias()).is_some() })
        };
        let others: Vec<_> = Head::all().filter(|head| *head != Head::VOCABULARY).filter_map(stored).collect();
        let has_vocabulary = self.tied || others.is_empty() || shape(&Head::VOCABULARY.weight()).is_some();
        let bias = shape(&Head::VOCABULARY.bias()).is_some();
        let vocabulary = has_vocabulary.then(|| HeadPlan { bias, ..HeadPlan::vocabulary(self.vocab) });
        Self { output_heads: vocabulary.into_iter().chain(others).collect(), ..self }
    }

    /// The head for this purpose, if the model has one.
    #[must_use]
    pub fn head(&self, head: Head) -> Option<HeadPlan> {
        self.output_heads.iter().find(|plan| plan.head == head).copied()
    }
}
