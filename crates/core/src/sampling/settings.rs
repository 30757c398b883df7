//! The settings of the sampler.

use crate::Setting;
use crate::tokens::MAX_TOKENS_LIMIT;

/// The setting for the temperature.
pub static TEMPERATURE: Setting = Setting::number(
    "temperature",
    "0 takes the most likely token, 1 samples from the model's own distribution",
    0.0..=100.0,
)
.with_default_number(0.0)
.with_placeholder("T")
.with_short('t');
/// The setting for top-k.
pub static TOP_K: Setting =
    Setting::integer("top_k", "Sample among the N most likely tokens; 0 means all", 0..=MAX_TOKENS_LIMIT)
        .with_default_integer(0);
/// The setting for top-p.
pub static TOP_P: Setting =
    Setting::positive("top_p", "Sample among the most likely tokens that together reach probability P", 1.0)
        .with_default_number(1.0)
        .with_placeholder("P");
/// The setting for min-p.
pub static MIN_P: Setting =
    Setting::number("min_p", "Sample among tokens at least P times as likely as the most likely one", 0.0..=1.0)
        .with_default_number(0.0)
        .with_placeholder("P");
/// The setting for typical-p (Meister et al. 2023, "Locally Typical Sampling").
pub static TYPICAL_P: Setting = Setting::positive(
    "typical_p",
    "Sample among the tokens closest to the expected surprise that together reach probability P",
    1.0,
)
.with_default_number(1.0)
.with_placeholder("P");
/// The setting for top-n-sigma (Tang et al. 2024, "Top-nσ: Not All Logits Are You Need").
pub static TOP_N_SIGMA: Setting = Setting::number(
    "top_n_sigma",
    "Sample among tokens whose logit is within N standard deviations of the largest; 0 means all",
    0.0..=100.0,
)
.with_default_number(0.0)
.with_placeholder("N");
/// The setting for the probability of XTC ("exclude top choices", text-generation-webui PR 6335).
pub static XTC_PROBABILITY: Setting = Setting::number(
    "xtc_probability",
    "With probability P at each token, remove the likely tokens but the least likely of them (XTC)",
    0.0..=1.0,
)
.with_default_number(0.0)
.with_placeholder("P");
/// The setting for the threshold of XTC.
pub static XTC_THRESHOLD: Setting =
    Setting::number("xtc_threshold", "The probability from which XTC counts a token as likely", 0.0..=1.0)
        .with_default_number(0.1)
        .with_placeholder("P");
/// The setting for the repetition penalty.
pub static REPETITION_PENALTY: Setting = Setting::positive(
    "repetition_penalty",
    "Make tokens that occurred less likely by this factor; 1 does nothing",
    100.0,
)
.with_default_number(1.0)
.with_placeholder("FACTOR");
/// The setting for the frequency penalty.
pub static FREQUENCY_PENALTY: Setting = Setting::number(
    "frequency_penalty",
    "Lower the logits of tokens of the answer by this much for each occurrence; a negative one raises them",
    -2.0..=2.0,
)
.with_default_number(0.0);
/// The setting for the presence penalty.
pub static PRESENCE_PENALTY: Setting = Setting::number(
    "presence_penalty",
    "Lower the logits of tokens that occurred in the answer by this much; a negative one raises them",
    -2.0..=2.0,
)
.with_default_number(0.0);
/// The setting for the penalty of DRY ("don't repeat yourself", text-generation-webui PR 5677).
pub static DRY_MULTIPLIER: Setting = Setting::number(
    "dry_multiplier",
    "Lower the logits of tokens that would continue a repetition, by X * dry_base^(its length - dry_allowed_length) \
     (DRY); 0 does nothing",
    0.0..=100.0,
)
.with_default_number(0.0);
/// The setting for the growth of the penalty of DRY.
pub static DRY_BASE: Setting =
    Setting::number("dry_base", "The factor of DRY's penalty for each further token of a repetition", 1.0..=100.0)
        .with_default_number(1.75);
/// The setting for the length of repetitions without a penalty of DRY.
pub static DRY_ALLOWED_LENGTH: Setting = Setting::integer(
    "dry_allowed_length",
    "Tokens of a repetition from which DRY lowers the logit of the next one",
    1..=MAX_TOKENS_LIMIT,
)
.with_default_integer(2);
/// The setting for the tokens that DRY looks at.
pub static DRY_PENALTY_LAST_N: Setting = Setting::integer(
    "dry_penalty_last_n",
    "DRY finds repetitions among this many last tokens of prompt and answer",
    0..=MAX_TOKENS_LIMIT,
)
.with_default_integer(MAX_TOKENS_LIMIT)
.with_default_about("all");
/// The setting for the texts at which repetitions end.
pub static DRY_SEQUENCE_BREAKERS: Setting = Setting::texts(
    "dry_sequence_breakers",
    "A text at which repetitions end for DRY, so that forms of dialogues and lists are not penalized; may be repeated",
)
.with_computed_default("a line break, `:`, `\"` and `*`");
/// The breakers where none are set: those of llama.cpp.
pub(super) const DRY_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];
/// The setting for the seed of random numbers.
pub static SEED: Setting = Setting::seed("seed", "Same seed, same text", 42);

/// Every setting of the sampler, in the order of the help.
pub static SAMPLING: &[&Setting] = &[
    &TEMPERATURE,
    &TOP_K,
    &TOP_P,
    &MIN_P,
    &TYPICAL_P,
    &TOP_N_SIGMA,
    &XTC_PROBABILITY,
    &XTC_THRESHOLD,
    &REPETITION_PENALTY,
    &FREQUENCY_PENALTY,
    &PRESENCE_PENALTY,
    &DRY_MULTIPLIER,
    &DRY_BASE,
    &DRY_ALLOWED_LENGTH,
    &DRY_PENALTY_LAST_N,
    &DRY_SEQUENCE_BREAKERS,
    &SEED,
];
