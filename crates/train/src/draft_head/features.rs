//! The base's features of a run's sequences, on disk.
//!
//! `features.bin` holds them in bfloat16, sequence after sequence, and `features.json` tells of which
//! base and of which tokens they are. A computation that was interrupted goes on behind the last whole
//! sequence.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use wsd_core::files::write_whole;
use wsd_nn::draft::BaseMark;
use wsd_nn::{Checkpoint, Device, Executor, Format, Span};

use crate::error::{Error, Result};
use crate::example::Sequence;
use crate::run::Reporter;

/// The file of features in a run's folder.
pub const FEATURES_FILE: &str = "features.bin";
/// The file that describes them.
const ABOUT: &str = "features.json";
/// The name of the file while it is written.
const PART: &str = "features.bin.part";
/// Tokens of a step of the base.
const STEP: usize = 256;
/// Sequences between two notes of the progress.
const NOTED: usize = 500;
/// Bytes of a number.
const BYTES: usize = 2;

/// The description of a file of features.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    base: BaseMark,
    /// A sum of all tokens.
    tokens: String,
    sequences: usize,
}

/// A file of features, open for reading.
pub struct Features {
    path: PathBuf,
    file: fs_err::File,
    width: usize,
    /// The number of tokens before each sequence.
    starts: Vec<usize>,
}

impl Features {
    /// Opens the features of sequences, and computes them first if the run has not begun. Returns
    /// `None` if `stop` is set before they are complete.
    ///
    /// # Errors
    /// Those of the file system and of the base; [`Error::Malformed`] for features of another base or of
    /// other sequences, and where a run that `has_begun` lacks them.
    pub fn open(
        folder: &Path,
        (base, device): (&Checkpoint, Device),
        sequences: &[&Sequence],
        has_begun: bool,
        (stop, reporter): (&AtomicBool, &mut dyn Reporter),
    ) -> Result<Option<Self>> {
        let (path, about) = (folder.join(FEATURES_FILE), folder.join(ABOUT));
        let wanted = About { base: BaseMark::of(base)?, tokens: sum(sequences), sequences: sequences.len() };
        let width = wanted.base.hidden_size;
        let is_there = path.is_file();
        if !is_there && has_begun {
            let reason = "missing, but the run has begun with it\n  hint: put it back, or name another `output`";
            return Err(Error::malformed(&path, "features", reason));
        }
        if let Some(found) = read_about(&about)? {
            check(&about, &found, &wanted)?;
        } else if is_there {
            return Err(Error::malformed(&about, "features", "missing, so nothing tells of which base they are"));
        } else {
            let json = serde_json::to_vec_pretty(&wanted).map_err(|error| Error::malformed(&about, "JSON", error))?;
            write_whole(&about, &json)?;
        }
        if !is_there {
            let mut part = Part::open(&folder.join(PART), sequences, width)?;
            let mut executor = wsd_nn::load(&device, base, None, None)?.executor;
            if !part.fill(&mut *executor, sequences, stop, reporter)? {
                return Ok(None);
            }
            fs_err::rename(folder.join(PART), &path)?;
        }
        let starts = starts(sequences);
        let (file, tokens) = (fs_err::File::open(&path)?, starts.last().copied().unwrap_or(0));
        let (bytes, needed) = (file.metadata()?.len(), (tokens * width * BYTES) as u64);
        if bytes != needed {
            let reason = format!("must have {needed} bytes, got {bytes}\n  hint: remove it before the run begins");
            return Err(Error::malformed(&path, "features", reason));
        }
        Ok(Some(Self { path, file, width, starts }))
    }

    /// Reads the features of a sequence, `(tokens, hidden)`.
    ///
    /// # Errors
    /// Those of the file system; a number that is not finite.
    pub fn read(&mut self, sequence: usize) -> Result<Vec<f32>> {
        let [start, end] = [self.starts[sequence], self.starts[sequence + 1]].map(|at| at * self.width * BYTES);
        let mut bytes = vec![0; end - start];
        self.file.seek(SeekFrom::Start(start as u64))?;
        self.file.read_exact(&mut bytes)?;
        let mut values = vec![0.0; bytes.len() / BYTES];
        Format::BF16.dequantize(&bytes, &mut values);
        if values.iter().all(|value| value.is_finite()) {
            return Ok(values);
        }
        Err(Error::malformed(&self.path, "features", format!("those of sequence {} are not finite", sequence + 1)))
    }
}

/// The number of tokens before each sequence, and before the end.
fn starts(sequences: &[&Sequence]) -> Vec<usize> {
    let ends = sequences.iter().scan(0, |end, sequence| {
        *end += sequence.tokens.len();
        Some(*end)
    });
    std::iter::once(0).chain(ends).collect()
}

/// A sum of the tokens of sequences and of their borders.
fn sum(sequences: &[&Sequence]) -> String {
    let mut sum = Sha256::new();
    for sequence in sequences {
        sum.update((sequence.tokens.len() as u64).to_le_bytes());
        sequence.tokens.iter().for_each(|token| sum.update(token.to_le_bytes()));
    }
    sum.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn read_about(path: &Path) -> Result<Option<About>> {
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(wsd_nn::read_json(path)?))
}

fn check(path: &Path, found: &About, wanted: &About) -> Result<()> {
    let pairs = [
        ("sequences", found.sequences.to_string(), wanted.sequences.to_string()),
        ("tokens", found.tokens.clone(), wanted.tokens.clone()),
    ];
    let others = || pairs.into_iter().find(|(_, found, wanted)| found != wanted);
    match found.base.difference(&wanted.base).or_else(others) {
        None => Ok(()),
        Some((key, found, wanted)) => Err(Error::malformed(
            path,
            "features",
            format!("`{key}` must be {wanted}, as of this run, got {found}\n  hint: name another `output`"),
        )),
    }
}

/// A file of features that is being written.
struct Part {
    file: fs_err::File,
    /// The number of sequences that it holds.
    done: usize,
}

impl Part {
    /// Opens the file behind its last whole sequence.
    fn open(path: &Path, sequences: &[&Sequence], width: usize) -> Result<Self> {
        let mut file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let (bytes, starts) = (file.metadata()?.len(), starts(sequences));
        let end = |count: usize| (starts[count] * width * BYTES) as u64;
        let done = (0..=sequences.len()).take_while(|count| end(*count) <= bytes).last().unwrap_or(0);
        file.set_len(end(done))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, done })
    }

    /// Computes what is missing. Returns false if it was stopped.
    fn fill(
        &mut self,
        executor: &mut dyn Executor,
        sequences: &[&Sequence],
        stop: &AtomicBool,
        reporter: &mut dyn Reporter,
    ) -> Result<bool> {
        let total = sequences.len();
        for (index, sequence) in sequences.iter().enumerate().skip(self.done) {
            if stop.load(Ordering::Relaxed) {
                self.file.sync_all()?;
                return Ok(false);
            }
            if index % NOTED == 0 {
                reporter.note(&format!("features of {index} of {total} sequences"));
            }
            for (step, tokens) in sequence.tokens.chunks(STEP).enumerate() {
                let span = Span { rows: 0..tokens.len(), ..Span::chain(0, step * STEP, tokens) };
                self.file.write_all(&Format::BF16.quantize(&executor.forward(&[span])?)?)?;
            }
            executor.release(0);
        }
        self.file.sync_all()?;
        Ok(true)
    }
}
