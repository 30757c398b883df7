//! Rank and scale of LoRA in an `adapter_config.json`.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The rank of every module, and the factor on its product: `alpha / r`, or `alpha / sqrt(r)` for
/// rank-stabilized LoRA (Kalajdzievski 2023, arXiv 2312.03732).
pub(super) fn rank_and_scale(file: &str, config: &Map<String, Value>) -> Result<(usize, f32)> {
    let is_set = |value: &&Value| match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !matches!(text.as_str(), "" | "none"),
        Value::Number(_) => true,
    };
    let refuse = |key: &str, value: &Value| Error::Unsupported {
        file: file.to_owned(),
        what: format!("`{key}`"),
        found: value.to_string(),
        supported: "LoRA with one rank and without biases".into(),
    };
    if let Some(kind) = config.get("peft_type").filter(|kind| *kind != "LORA") {
        return Err(refuse("peft_type", kind));
    }
    for key in UNSUPPORTED {
        if let Some(value) = config.get(*key).filter(is_set) {
            return Err(refuse(key, value));
        }
    }
    refuse_changed_base(file, config)?;
    let wrong = |key: &str, limit: &str| Error::malformed(file, format!("key `{key}`"), format!("must be {limit}"));
    let rank = config.get("r").and_then(Value::as_u64).filter(|rank| *rank > 0);
    let rank = rank.ok_or_else(|| wrong("r", "a whole number above 0"))? as usize;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).ok_or_else(|| wrong("lora_alpha", "a number"))?;
    let is_stabilized = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let divisor = if is_stabilized { (rank as f64).sqrt() } else { rank as f64 };
    Ok((rank, (alpha / divisor) as f32))
}

/// Keys of PEFT that change what an adapter computes and are not implemented.
const UNSUPPORTED: &[&str] = &[
    "use_dora",
    "use_qalora",
    "bias",
    "lora_bias",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "trainable_token_indices",
    "layer_replication",
    "corda_config",
    "eva_config",
];

/// Refuses adapters that began as a part of the base's weights, which PEFT takes out of the base when
/// it loads them: PiSSA (Meng et al. 2024, arXiv 2404.02948), OLoRA and CorDA.
///
/// # Errors
/// [`Error::Unsupported`] with the way to convert the adapter.
pub fn refuse_changed_base(file: &str, config: &Map<String, Value>) -> Result<()> {
    let start = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if !["pissa", "olora", "corda"].iter().any(|of_base| start.starts_with(of_base)) {
        return Ok(());
    }
    Err(Error::Unsupported {
        file: file.to_owned(),
        what: "`init_lora_weights`".into(),
        found: start.into(),
        supported: "adapters of the unchanged base; save it with save_pretrained(.., \
                    path_initial_model_for_weight_conversion=..), which makes it one"
            .into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(changes: &Value) -> Result<(usize, f32)> {
        let mut config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 16, "bias": "none", "use_dora": false, "rank_pattern": {},
            "modules_to_save": null, "target_modules": ["q_proj"],
        });
        config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rank_and_scale("file", config.as_object().unwrap())
    }

    #[test]
    fn scale_is_alpha_by_rank_or_its_root() {
        assert_eq!(config(&json!({})).unwrap(), (4, 4.0));
        assert_eq!(config(&json!({"use_rslora": true})).unwrap(), (4, 8.0));
    }

    #[test]
    fn other_parts_of_peft_are_refused_by_name() {
        for (key, value) in [
            ("peft_type", json!("LOHA")),
            ("use_dora", json!(true)),
            ("bias", json!("all")),
            ("rank_pattern", json!({"q_proj": 8})),
            ("modules_to_save", json!(["lm_head"])),
            ("init_lora_weights", json!("pissa_niter_16")),
            ("r", json!(0)),
            ("lora_alpha", json!("much")),
        ] {
            let error = config(&json!({key: value})).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
