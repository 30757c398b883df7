//! One form for the configs that different releases of transformers write.

use serde_json::{Map, Value};

/// Puts a config into the form that the engine reads: the keys of the text model at the top, `rope_theta` and
/// `rope_scaling` beside them.
pub(super) fn normal_form(mut config: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(text)) = config.remove("text_config") {
        config.extend(text);
    }
    if let Some(Value::Object(parameters)) = config.remove("rope_parameters") {
        spread_rope(&mut config, parameters);
    }
    config
}

/// transformers 5 has one object with everything about RoPE, or one for each kind of attention.
fn spread_rope(config: &mut Map<String, Value>, mut parameters: Map<String, Value>) {
    if let Some(Value::Object(local)) = parameters.remove("sliding_attention")
        && let Some(theta) = local.get("rope_theta")
    {
        config.entry("rope_local_base_freq").or_insert_with(|| theta.clone());
    }
    if let Some(Value::Object(full)) = parameters.remove("full_attention") {
        parameters = full;
    }
    for key in ["rope_theta", "partial_rotary_factor"] {
        if let Some(value) = parameters.remove(key) {
            config.entry(key).or_insert(value);
        }
    }
    let plain = parameters.get("rope_type").and_then(Value::as_str).is_none_or(|kind| kind == "default");
    config.entry("rope_scaling").or_insert(if plain { Value::Null } else { parameters.into() });
}

/// The text model's own name of a tensor in a checkpoint of several models, `None` for those of the other models.
pub(super) fn text_tensor_name(name: &str) -> Option<String> {
    match name.strip_prefix("language_model.") {
        Some(rest) => Some(rest.to_owned()),
        None if name == "lm_head.weight" => Some(name.to_owned()),
        None => name.strip_prefix("model.language_model.").map(|rest| format!("model.{rest}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn normal(config: Value) -> Value {
        let Value::Object(config) = config else { panic!("an object") };
        normal_form(config).into()
    }

    #[test]
    fn the_text_model_comes_to_the_top() {
        let config = json!({"model_type": "gemma3", "eos_token_id": [1, 106],
            "text_config": {"model_type": "gemma3_text", "hidden_size": 8}, "vision_config": {"hidden_size": 4}});
        let config = normal(config);
        assert_eq!(config["model_type"], "gemma3_text");
        assert_eq!((&config["hidden_size"], &config["eos_token_id"]), (&json!(8), &json!([1, 106])));
        assert_eq!(text_tensor_name("language_model.model.norm.weight").as_deref(), Some("model.norm.weight"));
        assert_eq!(text_tensor_name("model.language_model.norm.weight").as_deref(), Some("model.norm.weight"));
        assert_eq!(text_tensor_name("vision_tower.x"), None);
    }

    #[test]
    fn rope_is_read_from_where_transformers_5_keeps_it() {
        let flat = normal(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}));
        assert_eq!(flat, json!({"rope_theta": 5.0, "rope_scaling": null}));
        let scaled = normal(json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5.0}}));
        assert_eq!(scaled, json!({"rope_theta": 5.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}));
        let two = json!({"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5.0}}});
        let expected = json!({"rope_local_base_freq": 1.0, "rope_theta": 5.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
        assert_eq!(normal(two), expected);
    }
}
