//! Options of commands that tune a model on texts: `wsd adapt` and `wsd compress`.

use std::fmt::Display;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use wsd::config::ConfigError;
use wsd::train::data::{ExampleReader, report_refusals};
use wsd::train::{Encoder, Example, Objective};
use wsd_core::Error;
use wsd_nn::{Checkpoint, Format, arch};

use super::train::template;

/// The learning rates of a tuning.
const LEARNING_RATES: Range<f64> = 0.0..1e3;
/// The formats that weights are written in.
const WRITTEN: [Format; 3] = [Format::BF16, Format::F16, Format::F32];

#[derive(Args, Debug)]
pub(super) struct TuningArgs {
    /// The learning rate; compress lowers it to 0 over its steps
    #[arg(long, value_name = "X", default_value_t = 1e-3)]
    pub(super) learning_rate: f64,
    /// Sequences of a step
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) batch_size: usize,
    /// Most tokens of a sequence
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(super) max_length: usize,
    /// Form of chats in the texts: own, plain, or a Jinja file
    #[arg(long, value_name = "TEMPLATE", default_value = "own")]
    pub(super) template: String,
    /// The seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) seed: u64,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Number format of the weights that are written: bf16, f16 or f32
    #[arg(long, value_name = "TYPE", default_value = "bf16")]
    pub(super) dtype: Format,
}

impl TuningArgs {
    /// Checks the limits of all options.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fault = |name: &'static str, limit: &str, value: &dyn Display| {
            Err(Error::Setting { name, limit: limit.to_owned(), value: value.to_string() }.into())
        };
        let threads = self.threads();
        let counts = [("batch-size", self.batch_size, 1), ("max-length", self.max_length, 2), ("threads", threads, 1)];
        if let Some((name, value, least)) = counts.into_iter().find(|(_, value, least)| value < least) {
            return fault(name, &format!("at least {least}"), &value);
        }
        if !LEARNING_RATES.contains(&self.learning_rate) {
            let limit = format!("at least {} and below {}", LEARNING_RATES.start, LEARNING_RATES.end);
            return fault("learning-rate", &limit, &self.learning_rate);
        }
        if !WRITTEN.contains(&self.dtype) {
            return fault("dtype", "bf16, f16 or f32", &self.dtype);
        }
        Ok(())
    }

    /// The number of worker threads.
    pub(super) fn threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// The options by name; results depend on all of them, and their last bits on `threads`.
    pub(super) fn settings(&self) -> Value {
        let Self { learning_rate, batch_size, max_length, template, seed, dtype, .. } = self;
        json!({
            "learning_rate": learning_rate, "batch_size": batch_size, "max_length": max_length,
            "template": template, "seed": seed, "threads": self.threads(), "dtype": dtype.to_string(),
        })
    }

    /// A reader of texts for a model, as examples of at most `max_length` tokens; `is_packed` for texts
    /// that are concatenated and cut. Refused rows are listed in the folder `output`.
    pub(super) fn reader<'a>(&self, model: &Checkpoint, output: &'a Path, is_packed: bool) -> Result<TextReader<'a>> {
        let vocab = arch::blueprint(&model.config)?.vocab;
        let (whole, packing) =
            (Some(self.max_length).filter(|_| !is_packed), Some(self.max_length).filter(|_| is_packed));
        let encoder = Encoder::try_new(model, &template::choose(&self.template)?, vocab, whole)?;
        Ok(TextReader { encoder, packing, output })
    }
}

/// A reader of texts. Its tokenizer is set up once for all files.
pub(super) struct TextReader<'a> {
    encoder: Encoder,
    packing: Option<usize>,
    output: &'a Path,
}

impl TextReader<'_> {
    /// The texts of files as examples.
    pub(super) fn read(&self, files: &[PathBuf]) -> Result<Vec<Example>> {
        let objective = Objective::find("pretrain").context("invariant: the table has it")?;
        let mut refused = Vec::new();
        let reader = ExampleReader { objective, encoder: &self.encoder, packing: self.packing };
        let examples = reader.read(files, &mut refused)?;
        report_refusals(self.output, &refused, false)?;
        match files.first().filter(|_| examples.is_empty()) {
            Some(file) => bail!("{}: there is no text of two tokens", file.display()),
            None => Ok(examples),
        }
    }
}
