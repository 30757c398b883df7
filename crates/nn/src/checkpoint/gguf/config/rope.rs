//! The rotary embedding of a GGUF file in Hugging Face keys.

use serde_json::{Map, Value, json};

use super::Reader;
use crate::error::{Error, Result};

/// Spellings of the divisor of the RoPE frequencies, newest first.
const ROPE_FACTORS: [&str; 2] = ["rope.scaling.factor", "rope.scale_linear"];

impl Reader<'_> {
    pub(super) fn rope(&self, config: &mut Map<String, Value>) -> Result<()> {
        let theta = self.number("rope.freq_base")?.unwrap_or(self.architecture.rope_theta);
        config.insert("rope_theta".into(), theta.into());
        let scaling = self.rope_scaling()?;
        if let Some(original) = scaling.get("original_max_position_embeddings") {
            config.insert("original_max_position_embeddings".into(), original.clone());
        }
        config.insert("rope_scaling".into(), scaling);
        let (rotated, head_dim) = (self.rotated_dimensions()?, self.head_dim()?);
        config.insert("partial_rotary_factor".into(), (rotated as f64 / head_dim as f64).into());
        if self.architecture.rope_interleaved {
            config.insert("wsd_rope_interleaved".into(), true.into());
        }
        if let Some(factors) = self.factors("rope_freqs")? {
            config.insert("wsd_rope_factors".into(), factors.into());
        }
        Ok(())
    }

    /// Returns the number of dimensions of a head that RoPE rotates.
    fn rotated_dimensions(&self) -> Result<u64> {
        let head_dim = self.head_dim()?;
        Ok(self.count("rope.dimension_count")?.map_or(head_dim, |rotated| rotated.min(head_dim)))
    }

    /// Reads a tensor with one factor per rotated pair of dimensions.
    fn factors(&self, name: &str) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.weights.get(name) else { return Ok(None) };
        let expected = vec![(self.rotated_dimensions()? / 2) as usize];
        if tensor.shape != expected {
            let reason = format!("has shape {:?}, expected {expected:?}", tensor.shape);
            return Err(Error::malformed(self.metadata.file, format!("tensor `{name}`"), reason));
        }
        Ok(Some(tensor.to_f32()))
    }

    /// Reads the divisor of the frequencies under any of its names; the 0 of a file means none.
    fn rope_factor(&self) -> Result<Option<f64>> {
        let factors = ROPE_FACTORS.iter().map(|name| self.number(name)).collect::<Result<Vec<_>>>()?;
        Ok(factors.into_iter().flatten().next().filter(|factor| *factor != 0.0))
    }

    fn rope_scaling(&self) -> Result<Value> {
        let original = self.count("rope.scaling.original_context_length")?;
        let [long, short] = ["long", "short"].map(|kind| self.factors(&format!("rope_factors_{kind}.weight")));
        if let (Some(long), Some(short)) = (long?, short?) {
            let mut scaling = json!({"rope_type": "longrope", "short_factor": short, "long_factor": long});
            if let Some(attention) = self.number("rope.scaling.attn_factor")? {
                scaling["attention_factor"] = attention.into();
            }
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = original.into();
            }
            return Ok(scaling);
        }
        let key = self.key("rope.scaling.type");
        let kind = match self.metadata.string(&key)? {
            Some("none") => return Ok(Value::Null),
            Some(kind @ ("linear" | "yarn")) => kind,
            // A factor without a type is that of linear scaling, as in llama.cpp.
            None => match self.rope_factor()? {
                Some(_) => "linear",
                None => return Ok(Value::Null),
            },
            Some("longrope") => {
                let reason = "longrope needs the tensors `rope_factors_long.weight` and `rope_factors_short.weight`";
                return Err(self.metadata.fault(&key, reason));
            }
            Some(other) => {
                let reason = format!("must be none, linear, yarn or longrope, got {other:?}");
                return Err(self.metadata.fault(&key, reason));
            }
        };
        let factor = self.metadata.needed(&self.key(ROPE_FACTORS[0]), self.rope_factor()?)?;
        let mut scaling = json!({"rope_type": kind, "factor": factor});
        if kind == "yarn" {
            self.yarn(&mut scaling, factor)?;
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = original.into();
            }
        }
        Ok(scaling)
    }

    /// Adds the keys of YaRN to a scaling.
    fn yarn(&self, scaling: &mut Value, factor: f64) -> Result<()> {
        for (key, name) in [("rope.scaling.yarn_beta_fast", "beta_fast"), ("rope.scaling.yarn_beta_slow", "beta_slow")]
        {
            if let Some(turns) = self.number(key)? {
                scaling[name] = turns.into();
            }
        }
        // The file has no key for it.
        if self.architecture.name == "gpt-oss" {
            scaling["truncate"] = false.into();
        }
        // The converter writes the factor itself under one key; llama.cpp multiplies that of the other.
        let relative = self.number("rope.scaling.attn_factor")?;
        let own = self.number("rope.scaling.yarn_attn_factor")?;
        if let Some(own) = own.or(relative.map(|relative| relative * (0.1 * factor.max(1.0).ln() + 1.0))) {
            scaling["attention_factor"] = own.into();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::gguf::architecture::Architecture;
    use crate::checkpoint::gguf::container;
    use crate::checkpoint::gguf::metadata::Metadata;
    use crate::checkpoint::weights::Weights;

    /// Reads the scaling from metadata of a Llama.
    fn scaling(entries: &[(&'static str, container::Value<'static>)]) -> Result<Value> {
        let architecture = [("general.architecture", container::Value::String("llama"))];
        let entries: BTreeMap<_, _> = architecture.into_iter().chain(entries.iter().copied()).collect();
        let metadata = &Metadata::new("m.gguf", entries);
        Reader { metadata, architecture: Architecture::of(metadata)?, weights: &Weights::default() }.rope_scaling()
    }

    #[test]
    fn every_spelling_of_the_scaling_is_read() {
        use container::Value::{Float, String};
        let linear = json!({"rope_type": "linear", "factor": 4.0});
        let kind = |kind| ("llama.rope.scaling.type", String(kind));
        let (factor, legacy) = ("llama.rope.scaling.factor", "llama.rope.scale_linear");
        for (entries, expected) in [
            (vec![kind("linear"), (factor, Float(4.0))], &linear),
            (vec![(factor, Float(4.0))], &linear),
            (vec![(legacy, Float(4.0))], &linear),
            (vec![kind("linear"), (legacy, Float(4.0))], &linear),
            (vec![(factor, Float(4.0)), (legacy, Float(8.0))], &linear),
            (vec![(legacy, Float(0.0))], &Value::Null),
            (vec![kind("none"), (legacy, Float(4.0))], &Value::Null),
            (vec![], &Value::Null),
            (
                vec![
                    kind("yarn"),
                    (factor, Float(4.0)),
                    ("llama.rope.scaling.original_context_length", container::Value::Unsigned(64)),
                    ("llama.rope.scaling.yarn_beta_fast", Float(16.0)),
                    ("llama.rope.scaling.attn_factor", Float(2.0)),
                ],
                &json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0,
                    "attention_factor": 2.0 * (0.1 * 4f64.ln() + 1.0)}),
            ),
        ] {
            assert_eq!(scaling(&entries).unwrap(), *expected, "{entries:?}");
        }
        let message = |entries: &[_]| scaling(entries).unwrap_err().to_string();
        assert_eq!(message(&[kind("linear")]), "m.gguf: key `llama.rope.scaling.factor`: it is missing");
        assert!(message(&[kind("longrope")]).contains("needs the tensors `rope_factors_long.weight`"));
        assert!(message(&[kind("x")]).contains("must be none, linear, yarn or longrope, got \"x\""));
    }
}
