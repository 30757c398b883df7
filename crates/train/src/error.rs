//! Errors of the trainer.

/// The result of anything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the trainer; it names the thing at fault, the limit and the value, and a `hint:`
/// where there is a next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of a run that does not keep to its format, or that belongs to another run.
    #[error("{file}: {at}: {reason}")]
    Malformed {
        /// The path of the file.
        file: String,
        /// The part of the file at fault.
        at: &'static str,
        /// The fault.
        reason: String,
    },
    /// Another process trains in the folder.
    #[error("{folder}: another run writes into this folder\n  hint: wait for its end, or name another `output`")]
    Locked {
        /// The run's folder.
        folder: String,
    },
    /// A text that cannot be an example.
    #[error("{reason}")]
    Example {
        /// The reason.
        reason: String,
    },
    /// Rows that cannot be examples.
    #[error(
        "{message}\n  hint: mend or remove them; `skip_refused = true` in a run file's `[data]` goes on without them"
    )]
    RefusedRows {
        /// A list of the first of them.
        message: String,
    },
    /// A run file that cannot be used.
    #[error("{file} cannot be used")]
    RunFile {
        /// The path of the file.
        file: String,
        /// The reason.
        source: Box<Error>,
    },
    /// A run file of wrong form.
    #[error("{0}")]
    Form(String),
    /// A file of training rows cannot be read.
    #[error(transparent)]
    Rows(#[from] crate::data::RowFileError),
    /// An expert that is no fine-tune of the base.
    #[error("the expert `{expert}` is not a fine-tune of the base: {reason}\n  hint: all models must have one base")]
    Merge {
        /// The expert.
        expert: String,
        /// The difference.
        reason: String,
    },
    /// A setting outside its limits.
    #[error("`{name}` must be {limit}, got {value}")]
    Setting {
        /// The name of the setting.
        name: String,
        /// The values that are allowed.
        limit: String,
        /// The value that was given.
        value: String,
    },
    /// An architecture that can be run but not trained.
    #[error("a model with {what} can be run but not trained")]
    Untrainable {
        /// The part that has no backward pass.
        what: &'static str,
    },
    /// A loss, a gradient or a parameter is no longer a finite number.
    #[error(
        "step {step}: {what} is {value}; training stops, and {kept}\n  hint: lower `learning_rate` or `max_grad_norm`, \
         or lengthen the warm-up, and name another `output`"
    )]
    Diverged {
        /// The step, from 1.
        step: usize,
        /// The number at fault.
        what: String,
        /// Value of the number at fault.
        value: f64,
        /// The last checkpoint, in words.
        kept: String,
    },
    /// The worker threads could not be started.
    #[error("{threads} threads could not be started: {reason}")]
    Threads {
        /// The number of threads asked for.
        threads: usize,
        /// The reason the system gives.
        reason: String,
    },
    /// The tokenizer library refused to train or to write a tokenizer.
    #[error("{file}: tokenizer: {reason}")]
    Tokenizer {
        /// The file, or the checkpoint's name.
        file: String,
        /// The reason the library gives.
        reason: String,
    },
    /// A checkpoint, an architecture or a weight format is at fault.
    #[error(transparent)]
    Model(#[from] wsd_nn::Error),
    /// The tokenizer or the chat template is at fault.
    #[error(transparent)]
    Core(#[from] wsd_core::Error),
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Error {
    /// Tells whether a setting is at fault.
    pub(crate) fn is_setting(&self) -> bool {
        matches!(self, Self::Setting { .. })
    }

    /// A part `at` of `file` breaks the rules of its format.
    pub(crate) fn malformed(file: &std::path::Path, at: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Malformed { file: file.display().to_string(), at, reason: reason.to_string() }
    }

    /// A setting is outside its limits.
    pub(crate) fn setting(name: impl Into<String>, limit: impl Into<String>, value: impl std::fmt::Display) -> Self {
        Self::Setting { name: name.into(), limit: limit.into(), value: value.to_string() }
    }
}
