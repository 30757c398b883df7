//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) and the ways checkpoints scale
//! them.

use std::f64::consts::PI;

use super::keys::{Keys, MOST_POSITIONS};
use crate::error::Result;

/// One rotary embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct RopePlan {
    /// The number of leading dimensions of a head that rotate; even.
    pub dims: usize,
    /// The base of the frequencies: pair `i` turns by `theta^(-2i/dims)` radians per position.
    pub theta: f64,
    /// The scaling of the frequencies.
    pub scaling: Scaling,
    /// Dimensions `2i` and `2i + 1` form a pair, rather than `i` and `i + dims/2`.
    pub interleaved: bool,
}

/// A scaling of the frequencies for contexts beyond the length of pretraining.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// No scaling.
    None,
    /// All frequencies divided by one factor (position interpolation, arXiv 2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Low frequencies divided, high ones unchanged, a linear ramp between (Llama 3.1).
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// A frequency with fewer turns than this over the original length is low.
        low: f64,
        /// A frequency with more turns than this over the original length is high.
        high: f64,
        /// The context length of pretraining, in tokens.
        original: f64,
    },
    /// Each frequency divided by a number from the file.
    Divided {
        /// One divisor per pair.
        divisors: Vec<f32>,
    },
    /// LongRoPE (arXiv 2402.13753): one list of divisors for sequences up to the original length
    /// and one for longer sequences.
    Long {
        /// One divisor per pair, for sequences of at most `original` tokens.
        short: Vec<f32>,
        /// One divisor per pair, for longer sequences.
        long: Vec<f32>,
        /// The context length of pretraining, in tokens.
        original: usize,
        /// The factor on cosine and sine.
        attention: f32,
    },
    /// YaRN (arXiv 2309.00071, section 3.2): low frequencies divided, high ones unchanged, a ramp
    /// between that is linear in the index of the pair.
    Yarn {
        /// The divisor of low frequencies.
        factor: f64,
        /// A frequency with more turns than this over the original length is high.
        fast: f64,
        /// A frequency with fewer turns than this over the original length is low.
        slow: f64,
        /// The context length of pretraining, in tokens.
        original: f64,
        /// The ramp begins and ends at whole pairs.
        truncate: bool,
        /// The factor on cosine and sine.
        attention: f32,
    },
}

impl RopePlan {
    /// Reads `rope_parameters` (transformers 5), or else `rope_scaling`; either may have one section
    /// per kind of layer. A `rope_theta` in the section precedes that of the configuration, as in
    /// transformers.
    pub(super) fn parse(keys: &Keys<'_>, head_dim: usize, kind: &str, default_theta: f64) -> Result<Self> {
        let key = if keys.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        let section = match keys.section(key)? {
            Some(nested) if nested.has(kind) => nested.section(kind)?,
            flat => flat,
        };
        let old_theta = keys.positive_or("rope_theta", default_theta)?;
        let theta = match &section {
            Some(section) => section.positive_or("rope_theta", old_theta)?,
            None => old_theta,
        };
        let old_part = keys.positive_or("partial_rotary_factor", 1.0)?;
        let part = match &section {
            Some(section) => section.positive_or("partial_rotary_factor", old_part)?,
            None => old_part,
        };
        // A factor may be a rounded quotient.
        let dims = (head_dim as f64 * part + 1e-6) as usize;
        if dims == 0 || !dims.is_multiple_of(2) || dims > head_dim {
            let limit = format!("a factor that makes an even part of {head_dim} dimensions, not {dims}");
            return Err(keys.fault("partial_rotary_factor", &limit));
        }
        let scaling = match section {
            _ if keys.has("wsd_rope_factors") => {
                Scaling::Divided { divisors: keys.factors("wsd_rope_factors", dims / 2)? }
            }
            Some(section) => Scaling::parse(keys, &section, dims)?,
            None => Scaling::None,
        };
        Ok(Self { dims, theta, scaling, interleaved: keys.flag_or("wsd_rope_interleaved", false)? })
    }

    /// The same rotation with another base and without scaling.
    pub(super) fn plain(&self, theta: f64) -> Self {
        Self { theta, scaling: Scaling::None, ..self.clone() }
    }

    pub(super) fn is_long(&self, len: usize) -> bool {
        matches!(&self.scaling, Scaling::Long { original, .. } if len > *original)
    }

    /// Returns the angle per position of each of the `dims / 2` pairs, in radians, for a sequence
    /// up to (`long` false) or beyond the original length.
    #[must_use]
    pub fn frequencies(&self, long: bool) -> Vec<f32> {
        (0..self.dims / 2)
            .map(|pair| {
                let plain = self.theta.powf(-((2 * pair) as f64) / self.dims as f64);
                self.stretch(plain, pair, long) as f32
            })
            .collect()
    }

    /// Returns the factor on cosine and sine.
    #[must_use]
    pub fn attention_factor(&self) -> f32 {
        match self.scaling {
            Scaling::Long { attention, .. } | Scaling::Yarn { attention, .. } => attention,
            _ => 1.0,
        }
    }

    /// Returns the longest sequence the rotation serves, in tokens, of a model that states
    /// `max_len`: with YaRN at least the original length times the factor.
    pub(super) fn reach(&self, max_len: usize) -> usize {
        match self.scaling {
            Scaling::Yarn { factor, original, .. } => max_len.max((factor * original) as usize),
            _ => max_len,
        }
    }

    fn stretch(&self, frequency: f64, pair: usize, is_long: bool) -> f64 {
        let between = |kept: f64, factor: f64| kept * frequency + (1.0 - kept) * frequency / factor;
        match &self.scaling {
            Scaling::None => frequency,
            Scaling::Linear { factor } => frequency / factor,
            Scaling::Llama3 { factor, low, high, original } => {
                let turns = original * frequency / (2.0 * PI);
                between(((turns - low) / (high - low)).clamp(0.0, 1.0), *factor)
            }
            Scaling::Divided { divisors } => frequency / f64::from(divisors[pair]),
            Scaling::Long { short, long, .. } => {
                let divisors = if is_long { long } else { short };
                frequency / f64::from(divisors[pair])
            }
            Scaling::Yarn { factor, fast, slow, original, truncate, .. } => {
                let turning =
                    |turns: f64| self.dims as f64 * (original / (2.0 * PI * turns)).ln() / (2.0 * self.theta.ln());
                let (mut start, mut end) = (turning(*fast), turning(*slow));
                if *truncate {
                    (start, end) = (start.floor(), end.ceil());
                }
                (start, end) = (start.max(0.0), end.min(self.dims as f64 - 1.0));
                let width = if start == end { 0.001 } else { end - start };
                between(1.0 - ((pair as f64 - start) / width).clamp(0.0, 1.0), *factor)
            }
        }
    }
}

impl Scaling {
    fn parse(keys: &Keys<'_>, section: &Keys<'_>, dims: usize) -> Result<Self> {
        let kind_key = if section.has("rope_type") { "rope_type" } else { "type" };
        match section.text_or(kind_key, "default")? {
            "default" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: section.positive("factor")? }),
            // The base changes with the length of sequences beyond `max_position_embeddings`, and none is longer here.
            "dynamic" => section.positive("factor").map(|_| Self::None),
            "llama3" => Self::llama3(keys, section),
            "yarn" => Self::yarn(keys, section),
            "longrope" | "su" => Self::long(keys, section, dims),
            _ => Err(section.fault(kind_key, "one of `default`, `linear`, `dynamic`, `llama3`, `yarn`, `longrope`")),
        }
    }

    /// Reads the context length of pretraining, in tokens. As in transformers, the key outside of
    /// the section precedes that within, and a model without either was trained at its full length.
    fn original(keys: &Keys<'_>, section: &Keys<'_>) -> Result<usize> {
        let key = "original_max_position_embeddings";
        match [keys, section].into_iter().find(|keys| keys.has(key)) {
            Some(keys) => keys.count(key, MOST_POSITIONS),
            None => keys.count("max_position_embeddings", MOST_POSITIONS),
        }
    }

    fn llama3(keys: &Keys<'_>, section: &Keys<'_>) -> Result<Self> {
        let low = section.positive("low_freq_factor")?;
        let high = section.positive("high_freq_factor")?;
        if high <= low {
            return Err(section.fault("high_freq_factor", &format!("above `low_freq_factor` = {low}")));
        }
        let original = Self::original(keys, section)? as f64;
        Ok(Self::Llama3 { factor: section.positive("factor")?, low, high, original })
    }

    /// Reads YaRN. The default attention factor is `m(1) = 0.1 * ln(factor) + 1` (arXiv 2309.00071,
    /// equation 22), or `m(mscale) / m(mscale_all_dim)`, where `m(c) = 0.1 * c * ln(factor) + 1`, as
    /// in DeepSeek-V2 (arXiv 2405.04434).
    fn yarn(keys: &Keys<'_>, section: &Keys<'_>) -> Result<Self> {
        let original = Self::original(keys, section)? as f64;
        let factor = section.positive_or("factor", keys.positive("max_position_embeddings")? / original)?;
        let magnitude =
            |key: &str| -> Result<f64> { Ok(0.1 * section.positive_or(key, 1.0)? * factor.max(1.0).ln() + 1.0) };
        let scales = ["mscale", "mscale_all_dim"];
        let formula = match scales.map(|key| section.get(key).is_some_and(|scale| *scale != 0.0)) {
            [true, true] => magnitude(scales[0])? / magnitude(scales[1])?,
            _ => 0.1 * factor.max(1.0).ln() + 1.0,
        };
        Ok(Self::Yarn {
            factor,
            fast: section.positive_or("beta_fast", 32.0)?,
            slow: section.positive_or("beta_slow", 1.0)?,
            original,
            truncate: section.flag_or("truncate", true)?,
            attention: section.positive_or("attention_factor", formula)? as f32,
        })
    }

    /// Reads LongRoPE. The default attention factor is `sqrt(1 + ln(s) / ln(original))`, where `s`
    /// is the ratio of the context length to the original one (arXiv 2402.13753, section 3).
    fn long(keys: &Keys<'_>, section: &Keys<'_>, dims: usize) -> Result<Self> {
        let original = Self::original(keys, section)?;
        let factor = keys.positive("max_position_embeddings")? / original as f64;
        let formula = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).max(2.0).ln()).sqrt() };
        Ok(Self::Long {
            short: section.factors("short_factor", dims / 2)?,
            long: section.factors("long_factor", dims / 2)?,
            original,
            attention: section.positive_or("attention_factor", formula)? as f32,
        })
    }
}
