//! The record beside an answer: everything its text depends on.

use serde_json::{Map, Value, json};
use wsd_core::{SAMPLING, STRATEGY, Seat, TERMS};

use super::Settings;

impl Settings {
    /// Everything that the text of an answer depends on, by the names of `wsd.toml`. Settings that
    /// affect only the speed are left out, and those that the strategy does not read.
    #[must_use]
    pub fn record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        let mut put = |key: &str, value: Value| drop(record.insert(key.to_owned(), value));
        put(STRATEGY.name, json!(self.recipe.name));
        let dtype =
            |seat| self.model(seat).and_then(|model| model.dtype).map(|format| format.name().to_ascii_lowercase());
        for seat in self.recipe.needs.iter().map(|need| need.seat) {
            let Some(model) = self.model(seat) else { continue };
            put(seat.name(), json!(model.name));
            put(&format!("{seat}_template"), json!(model.template));
            if !model.template_variables.is_empty() {
                put("chat_template_kwargs", json!(model.template_variables));
            }
            if dtype(seat) != dtype(Seat::BASE) {
                put(&format!("{seat}_dtype"), json!(dtype(seat)));
            }
        }
        put("dtype", json!(dtype(Seat::BASE)));
        let settings = self.recipe.settings.iter().chain(TERMS).chain(SAMPLING);
        for setting in settings.filter(|setting| setting.affects_text) {
            put(setting.name, json!(self.values.value(setting)));
        }
        put("system", json!(self.prompt.system));
        put("prefill", json!(self.prompt.prefill));
        put("raw", json!(self.prompt.raw));
        record.retain(|_, value| !value.is_null());
        record
    }
}
