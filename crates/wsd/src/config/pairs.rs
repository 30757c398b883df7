//! Tested pairs of models, by name.

use std::sync::LazyLock;

use wsd_core::{Result, SKIP_REPETITIONS, Setting, THRESHOLD, Values, WINDOW};

use super::models::{BASE, DRAFT};

/// A draft and a base that go together, with their switch rule.
#[derive(Debug)]
pub struct Pair {
    /// The name for `--pair`.
    pub name: &'static str,
    /// The base on the Hugging Face hub, as `--base` takes it.
    pub base: &'static str,
    /// The draft on the Hugging Face hub, as `--draft` takes it.
    pub draft: &'static str,
    /// Size of both downloads together, in megabytes.
    pub megabytes: u32,
    /// The licences of draft and base.
    pub licence: &'static str,
    /// Tokens in the window.
    pub window: usize,
    /// The threshold.
    pub threshold: f64,
    /// True if windows that repeat what stands just before them do not count.
    pub skips_repetitions: bool,
    /// Measured figures of the rule; `None` for a pair with the paper's rule, unmeasured.
    pub measured: Option<&'static str>,
}

/// Every pair, smallest first. Figures are those of `wsd calibrate` (docs/eval.md).
pub static PAIRS: &[Pair] = &[
    Pair {
        name: "smollm2-135m+gemma3-270m",
        base: "ggml-org/gemma-3-270m-GGUF:gemma-3-270m-Q8_0.gguf",
        draft: "bartowski/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct-Q4_K_M.gguf",
        megabytes: 397,
        licence: "Apache-2.0 + Gemma terms",
        window: 6,
        threshold: 0.35,
        skips_repetitions: true,
        measured: Some("98 % of 40 drafts switch, at token 13 in the median (Q4_1 and Q4_K_M files)"),
    },
    Pair {
        name: "smollm2-360m+1.7b",
        base: "HuggingFaceTB/SmolLM2-1.7B",
        draft: "HuggingFaceTB/SmolLM2-360M-Instruct",
        megabytes: 4150,
        licence: "Apache-2.0",
        window: 6,
        threshold: 0.8,
        skips_repetitions: false,
        measured: None,
    },
    Pair {
        name: "qwen2.5-0.5b+1.5b",
        base: "Qwen/Qwen2.5-1.5B",
        draft: "Qwen/Qwen2.5-0.5B-Instruct",
        megabytes: 4080,
        licence: "Apache-2.0",
        window: 6,
        threshold: 0.8,
        skips_repetitions: false,
        measured: None,
    },
    Pair {
        name: "qwen2.5-coder-0.5b+1.5b",
        base: "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF:qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        draft: "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        megabytes: 1609,
        licence: "Apache-2.0",
        window: 12,
        threshold: 0.3,
        skips_repetitions: false,
        measured: Some("96 % of 24 drafts switch, at token 11 in the median"),
    },
];

/// The word for no pair.
const NONE: &str = "none";

pub(super) static PAIR: LazyLock<Setting> = LazyLock::new(|| {
    static WORDS: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
        let pairs = PAIRS.iter().map(|pair| (pair.name, pair.licence));
        [(NONE, "the models of --base and --draft")].into_iter().chain(pairs).collect()
    });
    Setting::choice(
        "pair",
        "A tested pair of models with its window and threshold, downloaded from the hub at first use (`wsd pairs` \
         lists them); what is set beside it wins, as `base` and `draft` for files of your own",
        &WORDS,
    )
    .with_placeholder("NAME")
});

impl Pair {
    /// The pair that `values` name.
    pub(super) fn named(values: &Values) -> Option<&'static Self> {
        PAIRS.iter().find(|pair| pair.name == values.get::<&str>(&PAIR))
    }

    /// The settings of the pair.
    pub(super) fn values(&self) -> Result<Values> {
        Values::default()
            .with(&BASE, self.base.to_owned())
            .and_then(|values| values.with(&DRAFT, self.draft.to_owned()))
            .and_then(|values| values.with(&WINDOW, self.window))
            .and_then(|values| values.with(&THRESHOLD, self.threshold))
            .and_then(|values| values.with(&SKIP_REPETITIONS, self.skips_repetitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::HubName;

    #[test]
    fn every_pair_has_names_of_the_hub_and_settings_within_limits() {
        for pair in PAIRS {
            assert!(HubName::parse(pair.base).is_ok() && HubName::parse(pair.draft).is_ok(), "{}", pair.name);
            let values = pair.values().unwrap();
            assert_eq!(values.get::<String>(&DRAFT), pair.draft);
        }
    }
}
