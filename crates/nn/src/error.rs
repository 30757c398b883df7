//! Errors, in words a user can act on. They hold names of things, so that this module needs no
//! other.

use std::fmt::{self, Display, Formatter};

/// The result of a fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of this crate. Its message names the file and the part of it at fault, and a `hint:`
/// if there is a next step. `file` is a path or the name of an embedded checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint lacks a file.
    #[error("{file}: missing {missing}\n  hint: {hint}")]
    MissingFile {
        /// The folder searched.
        file: String,
        /// The missing file.
        missing: String,
        /// The next step.
        hint: String,
    },
    /// A file that is refused on purpose.
    #[error("{file}: refused: {reason}\n  hint: {hint}")]
    Refused {
        /// The file.
        file: String,
        /// The reason of the refusal.
        reason: &'static str,
        /// The next step.
        hint: &'static str,
    },
    /// A file that violates its format.
    #[error("{file}: {at}: {reason}")]
    Malformed {
        /// The file.
        file: String,
        /// The key, tensor or part of the file at fault.
        at: String,
        /// The violation.
        reason: String,
    },
    /// A valid file that this crate does not support.
    #[error("{file}: {what} `{found}` is not supported\n  hint: supported are {supported}")]
    Unsupported {
        /// The file.
        file: String,
        /// The unsupported kind: an architecture, a tensor type.
        what: String,
        /// The value in the file.
        found: String,
        /// The supported values.
        supported: String,
    },
    /// Tensors that a model needs and the checkpoint lacks, or has in another shape.
    #[error("{file}: the weights do not fit the model:{}", Lines(problems))]
    Tensors {
        /// The file or folder.
        file: String,
        /// One line for each tensor at fault.
        problems: Vec<String>,
    },
    /// A draft head that was made for another base.
    #[error(
        "{file}: `{key}` must be {of_base}, that of the base, got {of_head}\n  hint: a draft head serves the base it \
         was trained on; `wsd train head` makes one"
    )]
    OtherBase {
        /// The description of the head.
        file: String,
        /// The key that differs.
        key: &'static str,
        /// The value of the head.
        of_head: String,
        /// The value of the base.
        of_base: String,
    },
    /// A tokenizer that does not parse.
    #[error("{file}: tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// The fault.
        reason: String,
    },
    /// Values that cannot be written in a format.
    #[error("{values} values cannot be written as {format}: {reason}")]
    Quantize {
        /// The format asked for.
        format: &'static str,
        /// The number of values.
        values: usize,
        /// The obstacle.
        reason: String,
    },
    /// An architecture outside of [`crate::arch::ARCHS`].
    #[error("architecture `{found}` is not supported\n  hint: supported are {known}")]
    UnknownArchitecture {
        /// The architectures that the configuration names.
        found: String,
        /// The supported architectures.
        known: String,
    },
    /// A value in a configuration that is invalid or not supported.
    #[error("config: `{key}` must be {limit}, got {value}")]
    Config {
        /// The key, with its section.
        key: String,
        /// The value as JSON.
        value: String,
        /// The values that are supported.
        limit: String,
    },
    /// An invalid span of a step.
    #[error("slot {slot}: {problem}")]
    Span {
        /// The slot.
        slot: u64,
        /// The violation, with the limit and the value.
        problem: String,
    },
    /// Hidden states that are not a whole number of rows.
    #[error("hidden states must be a multiple of {width} floats, got {floats}")]
    Rows {
        /// The number of floats.
        floats: usize,
        /// The number of floats in a row.
        width: usize,
    },
    /// An output head that the checkpoint does not have.
    #[error("the model has no head `{head}`")]
    MissingHead {
        /// The module's Hugging Face name.
        head: &'static str,
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
        known: String,
    },
    /// A device that this program is built without.
    #[error(
        "this program was built without the device `{device}`\n  \
         hint: cargo build --release -p wsd --features {feature}"
    )]
    DeviceNotBuilt {
        /// The device asked for.
        device: String,
        /// The cargo feature it needs.
        feature: &'static str,
    },
    /// A number format for the KV cache of a device that has its own.
    #[error(
        "`kv_dtype` must not be given for the device `{device}`, which caches keys and values in the type it computes \
         in, got {kv}\n  hint: --device cpu or cuda"
    )]
    KvFormat {
        /// The format asked for.
        kv: &'static str,
        /// The device.
        device: String,
    },
    /// A device that is absent or cannot be used.
    #[error("the device `{device}` cannot be used: {reason}\n  hint: --device cpu needs no other device")]
    DeviceMissing {
        /// The device asked for.
        device: String,
        /// The message of its driver.
        reason: String,
    },
    /// A model with a property that a device's executor does not have.
    #[error("{device} cannot run this model: it has {property}\n  hint: --device cpu runs it")]
    DeviceLacks {
        /// The device.
        device: String,
        /// The property.
        property: &'static str,
    },
    /// A lack of memory on a device.
    #[error("{device} has not enough memory: {} MiB are needed, {} MiB are free", bytes >> 20, free >> 20)]
    DeviceMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        bytes: usize,
        /// Bytes free.
        free: usize,
    },
    /// A lack of memory for a model on all devices that it may take.
    #[error(
        "the GPUs do not hold the model, which needs {} MiB with its smallest cache: {cards}\n  \
         hint: --device cuda takes all GPUs; --dtype q4_k stores fewer bytes; --device cpu needs no GPU",
        bytes >> 20
    )]
    ModelMemory {
        /// Bytes of the weights and of room for the smallest cache.
        bytes: usize,
        /// The free bytes of each device.
        cards: String,
    },
    /// A KV cache without free positions.
    #[error("the KV cache on {device} is full: {wanted} more positions are needed, it holds {positions} in all")]
    CacheFull {
        /// The device.
        device: String,
        /// Positions asked for.
        wanted: usize,
        /// Positions of the whole cache.
        positions: usize,
    },
    /// A failure of a device in its work.
    #[error("the device failed: {reason}")]
    DeviceFailed {
        /// The message of its driver.
        reason: String,
    },
    /// A format in which a device does not compute.
    #[error("a candle device computes in F32, F16 or BF16, not in {format}\n  hint: --device cpu computes in {format}")]
    ComputeFormat {
        /// The format asked for.
        format: &'static str,
    },
    /// A failure of a device, for instance a lack of memory.
    #[cfg(feature = "candle")]
    #[error("the device failed: {0}")]
    Candle(#[from] candle_core::Error),
    /// A failure to start the worker threads.
    #[error("{} threads could not be started: {reason}", Count(*threads))]
    Threads {
        /// The number of threads asked for; `None` means one per core.
        threads: Option<usize>,
        /// The message of the system.
        reason: String,
    },
    /// A text that is unusable for training.
    #[error("{reason}")]
    Example {
        /// The reason.
        reason: String,
    },
    /// A setting outside its limits.
    #[error("`{name}` must be {limit}, got {value}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The value.
        value: String,
        /// The permitted values.
        limit: String,
    },
    /// A fault of the tokenizer or the chat template.
    #[error(transparent)]
    Text(#[from] wsd_core::Error),
    /// A failure of the file system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Makes the error of a part `at` of `file` that violates its format.
    pub(crate) fn malformed(file: &str, at: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { file: file.into(), at: at.into(), reason: reason.into() }
    }
}

/// A number of threads, or the words for one per core.
struct Count(Option<usize>);

impl Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(count) => count.fmt(f),
            None => f.write_str("all cores'"),
        }
    }
}

/// A list with one entry per line, cut to the height of a terminal.
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
