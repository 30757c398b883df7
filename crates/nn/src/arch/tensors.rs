//! Names and shapes of the tensors that a blueprint asks of a file.

use super::{Blueprint, QkNorm};

/// Every tensor needed: its name and its shape, matrices as `(outputs, inputs)`.
#[must_use]
pub fn tensors(plan: &Blueprint) -> Vec<(String, Vec<usize>)> {
    let mut list = vec![
        ("model.embed_tokens.weight".to_owned(), vec![plan.vocab, plan.hidden]),
        ("model.norm.weight".to_owned(), vec![plan.hidden]),
    ];
    if !plan.tied {
        list.push(("lm_head.weight".to_owned(), vec![plan.vocab, plan.hidden]));
    }
    for index in 0..plan.layers.len() {
        let layer = layer_tensors(plan);
        list.extend(layer.into_iter().map(|(name, shape)| (format!("model.layers.{index}.{name}"), shape)));
    }
    list
}

fn layer_tensors(plan: &Blueprint) -> Vec<(String, Vec<usize>)> {
    let (hidden, ffn, query, kv) = (plan.hidden, plan.ffn, plan.query_width(), plan.kv_width());
    let norms = [plan.norms.pre_attention, plan.norms.post_attention, plan.norms.pre_mlp, plan.norms.post_mlp];
    let mut list: Vec<_> = norms.iter().flatten().map(|name| (format!("{name}.weight"), vec![hidden])).collect();
    let qk_norm = match plan.qk_norm {
        QkNorm::None => None,
        QkNorm::PerHead => Some((plan.head_dim, plan.head_dim)),
        QkNorm::Full => Some((query, kv)),
    };
    if let Some((query, key)) = qk_norm {
        list.push(("self_attn.q_norm.weight".to_owned(), vec![query]));
        list.push(("self_attn.k_norm.weight".to_owned(), vec![key]));
    }
    let mut matrix = |name: &str, outputs, inputs, bias| {
        list.push((format!("{name}.weight"), vec![outputs, inputs]));
        if bias {
            list.push((format!("{name}.bias"), vec![outputs]));
        }
    };
    if plan.fused {
        matrix("self_attn.qkv_proj", query + 2 * kv, hidden, plan.qkv_bias);
        matrix("mlp.gate_up_proj", 2 * ffn, hidden, plan.mlp_bias);
    } else {
        matrix("self_attn.q_proj", query, hidden, plan.qkv_bias);
        matrix("self_attn.k_proj", kv, hidden, plan.qkv_bias);
        matrix("self_attn.v_proj", kv, hidden, plan.qkv_bias);
        matrix("mlp.gate_proj", ffn, hidden, plan.mlp_bias);
        matrix("mlp.up_proj", ffn, hidden, plan.mlp_bias);
    }
    matrix("self_attn.o_proj", hidden, query, plan.output_bias);
    matrix("mlp.down_proj", hidden, ffn, plan.mlp_bias);
    list
}
