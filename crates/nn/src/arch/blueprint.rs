//! What a decoder of the common skeleton is, as plain data.

use super::keys::Keys;
use super::rope::RopePlan;
use crate::activation::Activation;
use crate::error::Result;

/// Sizes beyond these are a damaged or hostile file: no model comes near them, and products of them cannot overflow.
const MOST_LAYERS: usize = 4096;
const MOST_HEADS: usize = 4096;
const MOST_WIDTH: usize = 1 << 20;
const MOST_TOKENS: usize = 1 << 24;
const MOST_POSITIONS: usize = 1 << 28;

/// A decoder-only transformer with rotary positions, RMS norms and a gated feed-forward part.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Inner width of the feed-forward part.
    pub ffn: usize,
    /// Rows of the embedding: token ids lie below it.
    pub vocab: usize,
    /// Positions the model was made for.
    pub max_len: usize,
    /// The layers, first to last.
    pub layers: Vec<LayerPlan>,
    /// The rotary embeddings that layers refer to.
    pub ropes: Vec<RopePlan>,
    /// Which norms a layer has.
    pub norms: Norms,
    /// Norms of queries and keys.
    pub qk_norm: QkNorm,
    /// The query, key and value projections have biases.
    pub qkv_bias: bool,
    /// The attention output projection has a bias.
    pub output_bias: bool,
    /// The feed-forward projections have biases.
    pub mlp_bias: bool,
    /// The file holds `qkv_proj` and `gate_up_proj`, rows stacked in that order.
    pub fused: bool,
    /// Nonlinearity of the gate.
    pub activation: Activation,
    /// Factor on the query-key product.
    pub attention_scale: f32,
    /// `cap * tanh(score / cap)` on attention scores.
    pub attention_softcap: Option<f32>,
    /// `cap * tanh(logit / cap)` on logits.
    pub final_softcap: Option<f32>,
    /// Factor on token embeddings.
    pub embedding_scale: f32,
    /// The output projection is the embedding.
    pub tied: bool,
}

/// One layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// A token sees itself and the `window - 1` positions before it; `None` for all.
    pub window: Option<usize>,
    /// Index into [`Blueprint::ropes`].
    pub rope: usize,
}

/// RMS norms of a layer, by the name the file gives them; `None` where the architecture has none at that place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// Added to the mean square.
    pub eps: f32,
    /// Added to every norm weight as stored: 1 for Gemma.
    pub offset: f32,
    /// On the input of attention.
    pub pre_attention: Option<&'static str>,
    /// On the output of attention, before the residual sum.
    pub post_attention: Option<&'static str>,
    /// On the input of the feed-forward part.
    pub pre_mlp: Option<&'static str>,
    /// On the output of the feed-forward part, before the residual sum.
    pub post_mlp: Option<&'static str>,
}

/// RMS norm of queries and keys, before rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Each head by itself, one weight of `head_dim` for all.
    PerHead,
    /// The whole projection at once.
    Full,
}

impl Blueprint {
    /// Llama's plan, from which the others differ.
    pub(super) fn skeleton(keys: &Keys<'_>) -> Result<Self> {
        let hidden = keys.count("hidden_size", MOST_WIDTH)?;
        let heads = keys.count("num_attention_heads", MOST_HEADS)?;
        let head_dim = head_dim(keys, hidden, heads)?;
        let layer = LayerPlan { window: None, rope: 0 };
        Ok(Self {
            hidden,
            heads,
            kv_heads: kv_heads(keys, heads)?,
            head_dim,
            ffn: keys.count("intermediate_size", MOST_WIDTH)?,
            vocab: keys.count("vocab_size", MOST_TOKENS)?,
            max_len: keys.count("max_position_embeddings", MOST_POSITIONS)?,
            layers: vec![layer; keys.count("num_hidden_layers", MOST_LAYERS)?],
            ropes: vec![RopePlan::parse(keys, head_dim, "full_attention", 10_000.0)?],
            norms: Norms {
                eps: keys.positive_or("rms_norm_eps", 1e-6)? as f32,
                offset: 0.0,
                pre_attention: Some("input_layernorm"),
                post_attention: None,
                pre_mlp: Some("post_attention_layernorm"),
                post_mlp: None,
            },
            qk_norm: QkNorm::None,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            fused: false,
            activation: activation(keys, "hidden_act", "silu")?,
            attention_scale: (head_dim as f64).powf(-0.5) as f32,
            attention_softcap: None,
            final_softcap: None,
            embedding_scale: 1.0,
            tied: keys.flag_or("tie_word_embeddings", false)?,
        })
    }

    /// Give a window to the layers that `layer_types` calls `sliding_attention`, or, where the file has no such
    /// list, to those of which `otherwise` says so by index.
    pub(super) fn set_windows(
        &mut self,
        keys: &Keys<'_>,
        window: Option<usize>,
        otherwise: impl Fn(usize) -> bool,
    ) -> Result<()> {
        let kinds = match keys.get("layer_types").map(|value| (value, value.as_array())) {
            None => None,
            Some((_, Some(kinds))) if kinds.len() == self.layers.len() => Some(kinds),
            Some((_, list)) => {
                let found = list.map_or(0, Vec::len);
                let problem = format!("one entry for each of {} layers is needed, {found} found", self.layers.len());
                return Err(keys.fault("layer_types", &problem));
            }
        };
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let sliding = match kinds.map(|kinds| kinds[index].as_str()) {
                None => otherwise(index),
                Some(Some("sliding_attention")) => true,
                Some(Some("full_attention")) => false,
                Some(_) => {
                    return Err(keys.fault("layer_types", "only `full_attention` and `sliding_attention` are known"));
                }
            };
            layer.window = window.filter(|_| sliding);
        }
        Ok(())
    }

    /// Whether a sequence of `len` tokens is a long one, in which every token is rotated by other frequencies
    /// (LongRoPE). As in the reference implementation, the whole sequence changes over when its length passes the
    /// border, the positions before it too: a hidden state then depends on the side its sequence is on.
    #[must_use]
    pub fn is_long(&self, len: usize) -> bool {
        self.ropes.iter().any(|rope| rope.is_long(len))
    }

    /// Width of all query heads.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key heads, and of all value heads.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// The nonlinearity that `key` names.
pub(super) fn activation(keys: &Keys<'_>, key: &str, default: &str) -> Result<Activation> {
    match keys.text_or(key, default)? {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        _ => Err(keys.fault(key, "one of `silu`, `gelu`, `gelu_pytorch_tanh` is needed")),
    }
}

/// The `sliding_window` key: absent means `default`; null means none, and so does the 0 that GGUF files have for it.
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
        return Err(keys.fault("num_attention_heads", &format!("it must divide `hidden_size` = {hidden}")));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(keys.fault("head_dim", "rotary positions need an even width of a head"));
    }
    Ok(head_dim)
}

fn kv_heads(keys: &Keys<'_>, heads: usize) -> Result<usize> {
    let kv_heads = keys.count_or("num_key_value_heads", MOST_HEADS, heads)?;
    if !heads.is_multiple_of(kv_heads) {
        return Err(keys.fault("num_key_value_heads", &format!("it must divide `num_attention_heads` = {heads}")));
    }
    Ok(kv_heads)
}
