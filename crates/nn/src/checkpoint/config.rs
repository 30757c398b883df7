//! The normal form of configurations: text models, and models with a text model as one part.

use serde_json::{Map, Value, json};

use super::tensor::Tensor;
use crate::arch::{ARCHS, Head};

/// Moves the keys of a nested text model to the top level, the form that [`crate::arch`] reads. It
/// becomes a model of its own: the class is that of the text model, and the other parts are gone.
pub(super) fn normal_form(mut config: Map<String, Value>) -> Map<String, Value> {
    if let Some(Value::Object(text)) = config.remove("text_config") {
        config.extend(text);
        config.retain(|key, _| !OTHER_PARTS.contains(&key.as_str()));
        let own = ARCHS.iter().find(|arch| config.get("model_type").is_some_and(|own| own == arch.model_type));
        config.extend(own.map(|arch| ("architectures".to_owned(), json!([arch.class]))));
    }
    config
}

/// The sections of a configuration that describe models of other things than text.
const OTHER_PARTS: [&str; 2] = ["vision_config", "audio_config"];

/// Returns the name within the text model of a tensor from a checkpoint of several models, or
/// `None` for a tensor of another model.
pub(crate) fn text_tensor_name(name: &str) -> Option<String> {
    match name.strip_prefix("language_model.") {
        Some(rest) => Some(rest.to_owned()),
        None if Head::all().any(|head| [head.weight(), head.bias()].iter().any(|own| own == name)) => {
            Some(name.to_owned())
        }
        None => name.strip_prefix("model.language_model.").map(|rest| format!("model.{rest}")),
    }
}

/// Names the tensors of a decoder that was saved without its vocabulary head, as transformers'
/// `AutoModel` does, as those of the whole model.
pub(super) fn with_model_prefix(tensors: Vec<Tensor>) -> Vec<Tensor> {
    if tensors.iter().all(|tensor| tensor.name != "embed_tokens.weight") {
        return tensors;
    }
    let whole = |tensor: Tensor| {
        let is_part = ["embed_tokens.", "layers.", "norm."].iter().any(|part| tensor.name.starts_with(part));
        let name = format!("model.{}", tensor.name);
        if is_part { tensor.renamed(name) } else { tensor }
    };
    tensors.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(config: Value) -> Value {
        let Value::Object(config) = config else { panic!("an object") };
        normal_form(config).into()
    }

    #[test]
    fn the_text_model_comes_to_the_top() {
        let config = json!({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"],
            "eos_token_id": [1, 106],
            "text_config": {"model_type": "gemma3_text", "hidden_size": 8}, "vision_config": {"hidden_size": 4}});
        let config = normal(config);
        assert_eq!(config["model_type"], "gemma3_text");
        assert_eq!((&config["architectures"], config.get("vision_config")), (&json!(["Gemma3ForCausalLM"]), None));
        assert_eq!((&config["hidden_size"], &config["eos_token_id"]), (&json!(8), &json!([1, 106])));
        assert_eq!(text_tensor_name("language_model.model.norm.weight").as_deref(), Some("model.norm.weight"));
        assert_eq!(text_tensor_name("model.language_model.norm.weight").as_deref(), Some("model.norm.weight"));
        for own in ["lm_head.weight", "lm_head.bias", "score.weight", "score.bias"] {
            assert_eq!(text_tensor_name(own).as_deref(), Some(own));
        }
        assert_eq!(text_tensor_name("vision_tower.x"), None);
    }
}
