//! What can go wrong, in words a user can act on.

use std::fmt::{self, Display, Formatter};

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure names the file and the thing in it that is at fault, and a `hint:` where there is a next step.
///
/// `file` is a path, or the name of an embedded checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint lacks a file.
    #[error("{file}: missing {missing}\n  hint: {hint}")]
    MissingFile {
        /// The folder looked in.
        file: String,
        /// What is not there.
        missing: String,
        /// What to do about it.
        hint: String,
    },
    /// A file that is left alone on purpose.
    #[error("{file}: refused: {reason}\n  hint: {hint}")]
    Refused {
        /// The file.
        file: String,
        /// Why it is not read.
        reason: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// A file that does not keep to its format.
    #[error("{file}: {at}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// The key, tensor or part of the file at fault.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something valid that this crate does not implement.
    #[error("{file}: {what} `{found}` is not supported\n  hint: supported are {supported}")]
    Unsupported {
        /// The file.
        file: String,
        /// The kind of thing: an architecture, a tensor type.
        what: String,
        /// What the file asks for.
        found: String,
        /// What could be read instead.
        supported: String,
    },
    /// Tensors that a model needs and the checkpoint does not have in that shape.
    #[error("{file}: the weights do not fit the model:{}", Lines(problems))]
    Tensors {
        /// The file or folder.
        file: String,
        /// One line for each tensor at fault.
        problems: Vec<String>,
    },
    /// A tokenizer that does not parse.
    #[error("{file}: tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What went wrong.
        reason: String,
    },
    /// Values that cannot be written in a format.
    #[error("{values} values cannot be written as {format}: {reason}")]
    Quantize {
        /// The format asked for.
        format: &'static str,
        /// How many values were given.
        values: usize,
        /// What stands in the way.
        reason: String,
    },
    /// An architecture that is none of [`crate::arch::ARCHS`].
    #[error("architecture `{found}` is not supported\n  hint: supported are {known}")]
    UnknownArchitecture {
        /// What the configuration names.
        found: String,
        /// What it could have named.
        known: String,
    },
    /// A value in a configuration that no model can be made of, or one that is not implemented.
    #[error("config: `{key}` must be {limit}, got {value}")]
    Config {
        /// The key, with the section it is in.
        key: String,
        /// Its value as JSON.
        value: String,
        /// The values that are supported.
        limit: String,
    },
    /// A span that cannot be run.
    #[error("slot {slot}: {problem}")]
    Span {
        /// The slot.
        slot: u64,
        /// What is wrong, with the limit and the value.
        problem: String,
    },
    /// Hidden states that are no whole number of rows.
    #[error("{floats} floats are no whole number of rows of {width}")]
    Rows {
        /// How many were given.
        floats: usize,
        /// Floats of a row.
        width: usize,
    },
    /// A name that no weight format has.
    #[error("weight format `{name}` is unknown\n  hint: known are {known}")]
    UnknownFormat {
        /// The name given.
        name: String,
        /// The names of all formats.
        known: String,
    },
    /// A name that no device has.
    #[error("device `{name}` is unknown\n  hint: known are {known}")]
    UnknownDevice {
        /// The name given.
        name: String,
        /// The names of all devices.
        known: &'static str,
    },
    /// A device that this program was built without.
    #[error(
        "this program was built without the device `{device}`\n  hint: cargo build --release -p wsd --features {feature}"
    )]
    DeviceNotBuilt {
        /// The device asked for.
        device: String,
        /// The cargo feature that it needs.
        feature: &'static str,
    },
    /// A device that is not there or cannot be used.
    #[error("the device `{device}` cannot be used: {reason}\n  hint: --device cpu needs no other device")]
    DeviceMissing {
        /// The device asked for.
        device: String,
        /// What its driver says.
        reason: String,
    },
    /// A format that the tensors of a device are not computed in.
    #[error(
        "a candle device does not compute in {format}\n  hint: it does in F32, F16 and BF16; --device cpu does in {format}"
    )]
    ComputeFormat {
        /// The format asked for.
        format: &'static str,
    },
    /// A device failed, for want of memory perhaps.
    #[cfg(feature = "candle")]
    #[error("the device failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// The threads to compute with could not be started.
    #[error("{} threads could not be started: {reason}", threads.map_or_else(|| "all cores'".to_owned(), |n| n.to_string()))]
    Threads {
        /// How many were asked for.
        threads: Option<usize>,
        /// What stood in the way.
        reason: String,
    },
    /// Text that cannot be learned from.
    #[error("{reason}")]
    Example {
        /// Why.
        reason: String,
    },
    /// A setting outside its limits.
    #[error("`{name}` must be {limit}, got {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        limit: String,
    },
    /// The tokenizer or the chat template is at fault.
    #[error(transparent)]
    Text(#[from] wsd_core::Error),
    /// A file could not be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// A part `at` of `file` breaks the rules of its format.
    pub(crate) fn malformed(file: &str, at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { file: file.into(), at: at.into(), reason: reason.into() }
    }
}

/// Lines of a list, as many as a terminal holds.
struct Lines<'a>(&'a [String]);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 24;
        for line in self.0.iter().take(SHOWN) {
            write!(f, "\n  {line}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
