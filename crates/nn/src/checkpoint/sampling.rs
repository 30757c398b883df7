//! Sampling that the files of a model recommend.

use serde_json::{Value, json};
use wsd_core::{MIN_P, REPETITION_PENALTY, Setting, TEMPERATURE, TOP_K, TOP_P, Values};

use super::Checkpoint;

/// The settings that `generation_config.json` names, all but the temperature.
static NAMED: [&Setting; 4] = [&TOP_K, &TOP_P, &MIN_P, &REPETITION_PENALTY];

impl Checkpoint {
    /// Returns the sampling that the files recommend. As in transformers, `do_sample: false` leaves
    /// only the repetition penalty, and `do_sample: true` without a temperature means 1; as in vLLM,
    /// a temperature counts without `do_sample`. Values outside the limits of a setting are left out.
    ///
    /// ```
    /// # use std::path::Path;
    /// use wsd_core::{TEMPERATURE, TOP_P};
    /// use wsd_nn::Checkpoint;
    ///
    /// # let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama");
    /// let mut checkpoint = Checkpoint::open(&path)?;
    /// checkpoint.generation_config.insert("do_sample".into(), true.into());
    /// checkpoint.generation_config.insert("top_p".into(), 0.8.into());
    /// let sampling = checkpoint.sampling();
    /// assert_eq!((sampling.get::<f64>(&TEMPERATURE), sampling.get::<f64>(&TOP_P)), (1.0, 0.8));
    /// # Ok::<_, wsd_nn::Error>(())
    /// ```
    #[must_use]
    pub fn sampling(&self) -> Values {
        let given = |name: &str| self.generation_config.get(name).filter(|value| !value.is_null());
        let samples = given("do_sample").and_then(Value::as_bool);
        let mut values = Values::default();
        let mut put = |setting: &'static Setting, value: &Value| {
            let _ = setting.from_json(value).and_then(|value| values.set(setting, value));
        };
        for setting in NAMED {
            if let Some(value) = given(setting.name)
                && (samples != Some(false) || setting.name == REPETITION_PENALTY.name)
            {
                put(setting, value);
            }
        }
        match (samples, given(TEMPERATURE.name)) {
            (Some(false), _) | (None, None) => {}
            (_, Some(value)) => put(&TEMPERATURE, value),
            (Some(true), None) => put(&TEMPERATURE, &json!(1.0)),
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::format::Format;
    use crate::shapes::{Recipe, Shape};

    fn sampling(config: &Value) -> Value {
        let mut checkpoint =
            Shape::find("tiny").unwrap().model(Format::Q8_0, Recipe { seed: 1, agreement: 1.0 }).unwrap();
        checkpoint.generation_config = config.as_object().unwrap().clone();
        let values = checkpoint.sampling();
        let all = NAMED.into_iter().chain([&TEMPERATURE]).filter(|setting| values.is_set(setting));
        all.map(|setting| (setting.name.to_owned(), json!(values.value(setting)))).collect::<Map<_, _>>().into()
    }

    #[test]
    fn recommendations_follow_transformers_and_vllm() {
        let qwen =
            json!({"do_sample": true, "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20});
        let want = json!({"repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20});
        assert_eq!(sampling(&qwen), want);
        for (config, want) in [
            (json!({"eos_token_id": 1}), json!({})),
            (json!({"do_sample": true}), json!({"temperature": 1.0})),
            (json!({"temperature": 0.6}), json!({"temperature": 0.6})),
            (
                json!({"do_sample": false, "temperature": 0.6, "top_k": 5, "repetition_penalty": 1.1}),
                json!({"repetition_penalty": 1.1}),
            ),
            (json!({"top_p": 1.5, "top_k": null, "min_p": 0.1}), json!({"min_p": 0.1})),
        ] {
            assert_eq!(sampling(&config), want, "{config}");
        }
    }
}
