//! Attention of one piece over the keys and values of its sequence.

use candle_core::{Result, Tensor};

use super::batch::View;
use super::layers::{softcap, softmax};
use super::wide::WIDE;

/// Computes attention. `queries` is `(tokens, heads, head_dim)`, scaled; keys and values are
/// `(kv_heads, positions, head_dim)`; `heads / kv_heads` consecutive queries share one. Returns
/// floats `(tokens, heads * head_dim)`. `sinks` is `(heads)`.
pub(super) fn attend(
    queries: &Tensor,
    [keys, values]: &[Tensor; 2],
    view: &View,
    cap: Option<f32>,
    sinks: Option<&Tensor>,
) -> Result<Tensor> {
    let (tokens, heads, head_dim) = queries.dims3()?;
    let (kv_heads, ..) = keys.dims3()?;
    let (group, count) = (heads / kv_heads, view.count);
    let (keys, values) = (keys.narrow(1, view.first, count)?, values.narrow(1, view.first, count)?);
    // The queries of a group become rows of one matrix, so that no key is copied.
    let queries = queries.reshape((tokens, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?.contiguous()?;
    let queries = queries.reshape((kv_heads, group * tokens, head_dim))?.to_dtype(keys.dtype())?;
    let scores = softcap(queries.matmul(&keys.t()?)?.to_dtype(WIDE)?, cap)?;
    let scores = match &view.mask {
        Some(mask) => scores.reshape((kv_heads * group, tokens, count))?.broadcast_add(mask)?.reshape((
            kv_heads,
            group * tokens,
            count,
        ))?,
        None => scores,
    };
    let shares = match sinks {
        // A sink is one more score, whose share is dropped.
        Some(sinks) => {
            let sinks = sinks.to_dtype(WIDE)?.reshape((kv_heads, group, 1))?.broadcast_as((kv_heads, group, tokens))?;
            let sinks = sinks.contiguous()?.reshape((kv_heads, group * tokens, 1))?;
            softmax(&Tensor::cat(&[&scores, &sinks], 2)?)?.narrow(2, 0, count)?.contiguous()?
        }
        None => softmax(&scores)?,
    };
    let attended = shares.to_dtype(values.dtype())?.matmul(&values)?.to_dtype(WIDE)?;
    let attended = attended.reshape((kv_heads, group, tokens, head_dim))?.permute((2, 0, 1, 3))?;
    attended.contiguous()?.reshape((tokens, heads * head_dim))
}
