//! What is written down beside an answer, so that it is known how it was made.

use serde_json::{Map, Value, json};

use super::Settings;

impl Settings {
    /// All that the text of an answer depends on, by the names that `wsd.toml` has for it. What changes the speed alone is
    /// not in it, nor what the strategy does not use.
    #[must_use]
    pub fn record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        let mut put = |key: &str, value: Value| drop(record.insert(key.to_owned(), value));
        put("strategy", json!(self.recipe.name));
        for &(role, _) in self.recipe.needs {
            put(&role.to_string(), json!(self.model(role).name));
            put(&format!("{role}_template"), json!(self.model(role).template));
            if self.model(role).dtype != self.base.dtype {
                put(&format!("{role}_dtype"), json!(self.model(role).dtype));
            }
        }
        put("dtype", json!(self.base.dtype));
        for (key, value) in [
            ("window", json!(self.options.rule.window())),
            ("threshold", json!(self.options.rule.threshold())),
            ("max_draft_tokens", json!(self.options.max_draft_tokens)),
            ("on_draft_end", json!(self.options.on_draft_end)),
            ("nudge_threshold", json!(self.options.nudge_threshold)),
        ] {
            if self.recipe.uses.contains(&key) {
                put(key, value);
            }
        }
        put("max_tokens", json!(self.max_tokens));
        put("stop", json!(self.stop));
        put("system", json!(self.prompt.system));
        put("prefill", json!(self.prompt.prefill));
        put("raw", json!(self.prompt.raw));
        // By way of text, so that an f32 stays as short as the user wrote it.
        let sampling = serde_json::to_string(&self.sampling).and_then(|text| serde_json::from_str(&text));
        record.extend(sampling.unwrap_or_else(|_| Map::new()));
        record.retain(|_, value| !value.is_null());
        record
    }
}
